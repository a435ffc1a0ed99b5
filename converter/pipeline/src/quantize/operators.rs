//! The operators of the graph that have an INT8 form. `docs/operators.md` is generated from this
//! table.

use hardtack_bundle::graph::Operator;

use super::float_reason::FloatReason;

/// The role of a node in a partition.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum NodeKind {
    /// Has weights. A partition needs at least one.
    Layer,
    /// Defines the scale of a value (QDQ).
    Scale,
    /// Computes without weights.
    Arithmetic,
    /// Only moves, repeats or selects elements.
    Move,
}

/// When a node's value is int16, if a reader uses all 16 bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Int16Form {
    /// Never: int16 inputs are rounded to int8.
    Rounded,
    /// If int16 is requested for the node.
    Requested,
    /// If int16 is requested for the node or for one of its inputs.
    OfTerm,
    /// Always: the node only moves or repeats elements.
    Kept,
}

/// How an operator runs in integers.
pub(super) struct IntegerForm {
    /// The name of the operator.
    pub operator: &'static str,
    /// The role of its nodes.
    pub kind: NodeKind,
    /// When its values are int16.
    pub int16: Int16Form,
    /// Why a node with this operator may nevertheless stay in float, besides the general reasons.
    #[cfg_attr(not(test), expect(dead_code, reason = "only the documentation lists them"))]
    pub float_if: &'static [FloatReason],
}

/// The operators with an INT8 form.
const INTEGER_FORMS: &[IntegerForm] = &[
    IntegerForm {
        operator: "Conv",
        kind: NodeKind::Layer,
        int16: Int16Form::Requested,
        float_if: &[
            FloatReason::WeightsNotConstant,
            FloatReason::NoBias,
            FloatReason::BiasNotConstant,
            FloatReason::ImageRank,
            FloatReason::WindowRank,
            FloatReason::WindowTooLarge,
        ],
    },
    IntegerForm {
        operator: "Einsum",
        kind: NodeKind::Layer,
        int16: Int16Form::Requested,
        float_if: &[FloatReason::NotMatmul, FloatReason::WeightsNotConstant],
    },
    IntegerForm {
        operator: "Binary",
        kind: NodeKind::Arithmetic,
        int16: Int16Form::OfTerm,
        float_if: &[
            FloatReason::TwoComputedOperands,
            FloatReason::BothBroadcast,
            FloatReason::ComputedBroadcast,
            FloatReason::BroadcastNotStrided,
            FloatReason::NonScalarConstant,
            FloatReason::ConstantNotFloat,
            FloatReason::ConstantAlongBatch,
            FloatReason::ConstantByPosition,
            FloatReason::IntegerArithmetic,
        ],
    },
    IntegerForm {
        operator: "Unary",
        kind: NodeKind::Arithmetic,
        int16: Int16Form::Requested,
        float_if: &[FloatReason::IntegerArithmetic],
    },
    IntegerForm {
        operator: "Select",
        kind: NodeKind::Arithmetic,
        int16: Int16Form::Rounded,
        float_if: &[
            FloatReason::NotElementWise,
            FloatReason::ConstantNotScalar,
            FloatReason::IntegerArithmetic,
        ],
    },
    IntegerForm {
        operator: "MaxPool",
        kind: NodeKind::Move,
        int16: Int16Form::Kept,
        float_if: &[FloatReason::ImageRank, FloatReason::WindowRank, FloatReason::WindowTooLarge],
    },
    IntegerForm {
        operator: "SumPool",
        kind: NodeKind::Arithmetic,
        int16: Int16Form::Requested,
        float_if: &[
            FloatReason::SumPool,
            FloatReason::PoolBeyondPadding,
            FloatReason::ImageRank,
            FloatReason::WindowRank,
            FloatReason::WindowTooLarge,
        ],
    },
    IntegerForm {
        operator: "Softmax",
        kind: NodeKind::Arithmetic,
        int16: Int16Form::Rounded,
        float_if: &[
            FloatReason::SoftmaxLogarithm,
            FloatReason::SoftmaxAxes,
            FloatReason::SoftmaxOverBatch,
        ],
    },
    IntegerForm {
        operator: "Resize",
        kind: NodeKind::Arithmetic,
        int16: Int16Form::Kept,
        float_if: &[
            FloatReason::ResizeCubic,
            FloatReason::ResizeSize,
            FloatReason::ResizeAxes,
            FloatReason::ImageTooLarge,
        ],
    },
    IntegerForm {
        operator: "NearestUpsample",
        kind: NodeKind::Move,
        int16: Int16Form::Kept,
        float_if: &[FloatReason::ResizeAxes, FloatReason::ImageTooLarge],
    },
    IntegerForm {
        operator: "AddAxis",
        kind: NodeKind::Move,
        int16: Int16Form::Kept,
        float_if: &[],
    },
    IntegerForm {
        operator: "RemoveAxis",
        kind: NodeKind::Move,
        int16: Int16Form::Kept,
        float_if: &[],
    },
    IntegerForm {
        operator: "MoveAxis",
        kind: NodeKind::Move,
        int16: Int16Form::Kept,
        float_if: &[],
    },
    IntegerForm {
        operator: "Reshape",
        kind: NodeKind::Move,
        int16: Int16Form::Kept,
        float_if: &[],
    },
    IntegerForm {
        operator: "Broadcast",
        kind: NodeKind::Move,
        int16: Int16Form::Rounded,
        float_if: &[],
    },
    IntegerForm {
        operator: "Slice",
        kind: NodeKind::Move,
        int16: Int16Form::Kept,
        float_if: &[FloatReason::SliceRange],
    },
    IntegerForm {
        operator: "StridedSlice",
        kind: NodeKind::Move,
        int16: Int16Form::Kept,
        float_if: &[
            FloatReason::SliceRanges,
            FloatReason::SliceStep,
            FloatReason::SliceAxis,
            FloatReason::SliceRemovesAxes,
            FloatReason::BatchSliced,
        ],
    },
    IntegerForm {
        operator: "Downsample",
        kind: NodeKind::Move,
        int16: Int16Form::Kept,
        float_if: &[],
    },
    IntegerForm {
        operator: "Concat",
        kind: NodeKind::Move,
        int16: Int16Form::Kept,
        float_if: &[FloatReason::BatchConcatenated],
    },
    IntegerForm {
        operator: "Pad",
        kind: NodeKind::Move,
        int16: Int16Form::Kept,
        float_if: &[
            FloatReason::PadMode,
            FloatReason::PadNotConstant,
            FloatReason::PadValue,
            FloatReason::BatchPadded,
        ],
    },
    IntegerForm {
        operator: "QuantizeLinear",
        kind: NodeKind::Scale,
        int16: Int16Form::Rounded,
        float_if: &[FloatReason::ScalesPerAxis],
    },
    IntegerForm {
        operator: "DequantizeLinear",
        kind: NodeKind::Scale,
        int16: Int16Form::Rounded,
        float_if: &[FloatReason::ScalesPerAxis, FloatReason::OtherScale],
    },
];

/// Returns how an operator runs in integers, if it has an INT8 form.
pub(super) fn integer_form(operator: &Operator) -> Option<&'static IntegerForm> {
    INTEGER_FORMS.iter().find(|form| form.operator == operator.name())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use hardtack_bundle::DType;

    use super::*;

    /// The ONNX operators that become each operator of the graph.
    const ONNX: &[(&str, &str)] = &[
        (
            "Binary",
            "Add, Sub, Mul, Div, Pow, Mod, Max, Min, And, Or, Xor, Equal, Greater, Less, BitShift, …",
        ),
        (
            "Unary",
            "Relu, LeakyRelu, Sigmoid, Tanh, HardSwish, Gelu, Erf, Exp, Log, Sqrt, Abs, Neg, Floor, Not, …",
        ),
        ("Cast", "Cast"),
        ("Select", "Where"),
        ("Conv", "Conv"),
        ("ConvTranspose", "ConvTranspose"),
        ("MaxPool", "MaxPool, GlobalMaxPool"),
        ("SumPool", "AveragePool, GlobalAveragePool"),
        ("Einsum", "MatMul, Gemm, Einsum"),
        ("Reduce", "ReduceSum, ReduceMean, ReduceMax, ArgMax, …"),
        ("Softmax", "Softmax, LogSoftmax"),
        ("RmsNorm", "part of normalizations"),
        ("Resize", "Resize"),
        ("NearestUpsample", "Upsample, Resize (nearest)"),
        ("GridSample", "GridSample"),
        ("Lrn", "LRN"),
        ("AddAxis", "Unsqueeze"),
        ("RemoveAxis", "Squeeze"),
        ("MoveAxis", "Transpose"),
        ("Reshape", "Reshape, Flatten, DepthToSpace, SpaceToDepth"),
        ("Broadcast", "Expand"),
        ("Slice", "Slice, Split"),
        ("DynamicSlice", "Slice"),
        ("StridedSlice", "Slice"),
        ("Concat", "Concat"),
        ("Pad", "Pad"),
        ("Tile", "Tile"),
        ("DynamicTile", "Tile"),
        ("Gather", "Gather"),
        ("GatherElements", "GatherElements"),
        ("GatherNd", "GatherND"),
        ("ScatterElements", "ScatterElements"),
        ("ScatterNd", "ScatterND"),
        ("Range", "Range"),
        ("OneHot", "OneHot"),
        ("TopK", "TopK"),
        ("Trilu", "Trilu"),
        ("CumSum", "CumSum"),
        ("Downsample", "Slice with a step"),
        ("Scan", "LSTM, GRU, RNN, Scan"),
        ("If", "If"),
        ("Fft", "DFT"),
        ("Stft", "STFT"),
        ("QuantizeLinear", "QuantizeLinear"),
        ("DequantizeLinear", "DequantizeLinear"),
        ("DynamicMatMul", "MatMulInteger, MatMulIntegerToFloat of DynamicQuantizeLinear"),
        ("Unpack", "constants that fit in 4 bits"),
        ("DequantizeBlocks", "DequantizeLinear with block_size"),
        ("TreeEnsemble", "TreeEnsembleClassifier, TreeEnsembleRegressor"),
        ("Evaluate", "all others; see below"),
    ];

    /// The reasons that apply to every operator with an INT8 form.
    const GENERAL: &[FloatReason] = &[
        FloatReason::NoLayer,
        FloatReason::NoReader,
        FloatReason::FloatInput,
        FloatReason::DynamicDimension,
        FloatReason::BatchChanged,
        FloatReason::NoBatch,
        FloatReason::SeveralOutputs,
        FloatReason::DataType(DType::I64),
        FloatReason::Scattered,
        FloatReason::KeepFloat,
    ];

    fn row(operator: &str, onnx: &str) -> String {
        let form = INTEGER_FORMS.iter().find(|form| form.operator == operator);
        let (int8, int16) = match form.map(|form| form.int16) {
            None => ("", ""),
            Some(Int16Form::Rounded) => ("yes", "rounded to int8"),
            Some(Int16Form::Requested | Int16Form::OfTerm) => ("yes", "on request"),
            Some(Int16Form::Kept) => ("yes", "as its input"),
        };
        let dynamic = match operator {
            "Einsum" => "with a large constant matrix",
            "DynamicMatMul" => "yes",
            _ => "",
        };
        let reasons = form.map_or(&[][..], |form| form.float_if);
        let reasons: Vec<String> = reasons.iter().map(FloatReason::to_string).collect();
        let reasons = reasons.join("; ");
        format!("| {operator} | {onnx} | yes | {int8} | {int16} | {dynamic} | {reasons} |\n")
    }

    /// Wraps words at 100 columns.
    fn wrapped(text: &str) -> String {
        let (mut lines, mut line) = (String::new(), String::new());
        for word in text.split_whitespace() {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > 100 {
                lines += &std::mem::take(&mut line);
                lines.push('\n');
            }
            line += if line.is_empty() { "" } else { " " };
            line += word;
        }
        lines + &line + "\n\n"
    }

    fn document() -> String {
        let mut text = String::from("# Operators\n\n");
        text += &wrapped(
            "`hardtack convert` translates the operators of an ONNX file to those of the bundle \
             format. All of them run in float. This table lists which have an INT8 form, what \
             `--int16` and `--dynamic` do, and why a single node may stay in float nevertheless. \
             The conversion report lists the float nodes of your model, each with its reason. \
             `ReduceMean` and `ReduceMax` over the whole image become pools.",
        );
        text += &wrapped(
            "This page is generated: `HARDTACK_UPDATE=1 cargo test -p hardtack-converter \
             operators` writes it.",
        );
        text += "| Operator | from ONNX | float | INT8 | int16 | dynamic | stays in float if |\n\
                 |---|---|---|---|---|---|---|\n";
        ONNX.iter().for_each(|(operator, onnx)| text += &row(operator, onnx));
        text += "\nAny node stays in float for one of these reasons, too:\n\n";
        GENERAL.iter().for_each(|reason| text += &format!("- {reason}\n"));
        text += "\n";
        text += &wrapped(
            "`--weights` stores the large constant matrices of Conv, Einsum and Gather in 8 or 4 \
             bits; see [weight-only quantization](quantization.md#weight-only-quantization).",
        );
        text += "## ONNX operators that are read\n\n";
        text += &wrapped(
            "The import reads the operators below with native implementations, unless their \
             attributes, types or shapes prevent it. The reference implementation of ONNX in \
             `runtime/operators` evaluates all other operators of the domains `ai.onnx`, \
             `ai.onnx.ml` and most of `com.microsoft`, as nodes named `Evaluate`: among them Loop, \
             NonMaxSuppression, NonZero, Unique, RoiAlign, DeformConv, Attention, sequences, and \
             values of float8, bfloat16 and 4-bit types. That is plain scalar code, so `convert` \
             warns if it runs a whole model. Rejected are random and training operators, \
             ImageDecoder, regular expressions, operators of other domains, and inputs and outputs \
             that are strings, sequences or maps.",
        );
        text += &wrapped(
            "Of `ai.onnx.ml`, the import rewrites ArrayFeatureExtractor, Binarizer, \
             FeatureVectorizer, Imputer, LabelEncoder, LinearClassifier, LinearRegressor, \
             Normalizer, SVMClassifier, SVMRegressor, Scaler, TreeEnsembleClassifier, \
             TreeEnsembleRegressor and ZipMap. In the default domain, it reads:",
        );
        text += &wrapped(&(crate::import::operator_names().join(", ") + "."));
        text.trim_end().to_owned() + "\n"
    }

    #[test]
    fn the_operators_page_matches_the_table() {
        let operators = Operator::TABLE.iter().map(|(_, _, name)| *name);
        let shown: Vec<&str> =
            operators.filter(|name| !["Input", "Constant", "Program"].contains(name)).collect();
        let documented: Vec<&str> = ONNX.iter().map(|(operator, _)| *operator).collect();
        assert_eq!(documented, shown);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operators.md");
        if std::env::var_os("HARDTACK_UPDATE").is_some() {
            std::fs::write(&path, document()).unwrap();
        }
        assert!(
            std::fs::read_to_string(&path).unwrap_or_default() == document(),
            "docs/operators.md is outdated; run HARDTACK_UPDATE=1 cargo test -p hardtack-converter operators"
        );
    }
}
