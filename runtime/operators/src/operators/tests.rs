//! Calls of all operators with random operands: none may panic, or take long within limits.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::element_type::ElementType;
use crate::meter::Limits;
use crate::model::{Attribute, Graph, Model, Node, ValueInfo};
use crate::tensor::{Data, Tensor};
use crate::value::Value;

const STANDARD: &str = "\
    Abs Acos Acosh Add Affine AffineGrid And ArgMax ArgMin Asin Asinh Atan Atanh Attention \
    AveragePool BatchNormalization BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor \
    BlackmanWindow Cast CastLike Ceil Celu CenterCropPad Clip Col2Im Compress Concat \
    ConcatFromSequence Constant ConstantOfShape Conv ConvInteger ConvTranspose Cos Cosh CumProd \
    CumSum DFT DeformConv DepthToSpace DequantizeLinear Det Div Dropout DynamicQuantizeLinear \
    Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements GatherND \
    Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample \
    GroupNormalization HammingWindow HannWindow HardSigmoid HardSwish Hardmax Identity If \
    ImageScaler InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu Less \
    LessOrEqual LinearAttention Log LogSoftmax Loop LpNormalization LpPool MatMul MatMulInteger \
    Max MaxPool MaxRoiPool MaxUnpool Mean MeanVarianceNormalization MelWeightMatrix Min Mish Mod \
    Mul Neg NegativeLogLikelihoodLoss NonMaxSuppression NonZero Not OneHot Optional \
    OptionalGetElement OptionalHasElement Or PRelu Pad ParametricSoftplus Pow QLinearConv \
    QLinearMatMul QuantizeLinear RMSNormalization RNN Range Reciprocal ReduceL1 ReduceL2 \
    ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum \
    ReduceSumSquare Relu Reshape Resize ReverseSequence RoiAlign RotaryEmbedding Round STFT \
    Scale ScaledTanh Scan Scatter ScatterElements ScatterND Selu SequenceAt SequenceConstruct \
    SequenceEmpty SequenceErase SequenceInsert SequenceLength SequenceMap Shape Shrink Sigmoid \
    Sign SimplifiedLayerNormalization Sin Sinh Size Slice Softmax SoftmaxCrossEntropyLoss \
    Softplus Softsign SpaceToDepth Split SplitToSequence Sqrt Squeeze StringConcat \
    StringNormalizer StringSplit Sub Sum Swish Tan Tanh TensorScatter TfIdfVectorizer \
    ThresholdedRelu Tile TopK Transpose Trilu Unique Unsqueeze Upsample Where Xor";
const MICROSOFT: &str = "\
    Attention BiasAdd BiasGelu BiasSoftmax BiasSplitGelu CDist CropAndResize DequantizeLinear \
    DynamicQuantizeLSTM DynamicQuantizeMatMul EmbedLayerNormalization ExpandDims FastGelu \
    FusedConv FusedGemm FusedMatMul GatherBlockQuantized GatherND Gelu GridSample GroupNorm \
    GroupQueryAttention Inverse Irfft MatMulBnb4 MatMulIntegerToFloat MatMulNBits \
    MultiHeadAttention NhwcConv NhwcFusedConv NhwcMaxPool Pad QAttention \
    QEmbedLayerNormalization QGemm QLinearAdd QLinearAveragePool QLinearConcat QLinearConv \
    QLinearGlobalAveragePool QLinearLeakyRelu QLinearMul QLinearReduceMean QLinearSigmoid \
    QLinearSoftmax QLinearWhere QuantizeLinear QuickGelu Range ReduceSumInteger Rfft \
    RotaryEmbedding SimplifiedLayerNormalization SkipGroupNorm SkipLayerNormalization \
    SkipSimplifiedLayerNormalization TransposeMatMul Trilu Unique";
const LEARNING: &str = "\
    ArrayFeatureExtractor Binarizer CategoryMapper FeatureVectorizer Imputer LabelEncoder \
    LinearClassifier LinearRegressor Normalizer OneHotEncoder SVMClassifier SVMRegressor Scaler \
    TreeEnsemble TreeEnsembleClassifier TreeEnsembleRegressor ZipMap";
const INTS: &str = "\
    align_corners allowzero antialias axis batch_axis batch_dims bits block_size blocksize \
    causal ceil_mode center_point_box channels_last count_include_pad detect_positive do_rotary \
    dtype end exclude_outside exclusive fmod gather_axis group groups ignore_index inverse \
    is_causal k K N keepdims kv_num_heads largest layout left_window_size linear_before_reset \
    local_window_size max_gram_length max_skip_count maxsplit min_gram_length n_supports \
    n_targets new_axis num_groups num_heads num_outputs num_scan_inputs offset_group one_class \
    onesided opset output_datatype output_height output_width p periodic post_transform \
    q_num_heads qk_matmul_output_mode quant_type quantize_axis reverse rotary_embedding_dim \
    sampling_ratio select_last_index size sorted start stash_type storage_order targets \
    time_axis to training_mode transA transB unidirectional upper";
const INT_LISTS: &str = "\
    axes cats_int64s class_ids class_nodeids class_treeids classlabels_int64s classlabels_ints \
    dilations inputdimensions kernel_shape keys_int64s leaf_targetids ngram_counts ngram_indexes \
    nodes_falseleafs nodes_falsenodeids nodes_featureids nodes_nodeids nodes_treeids \
    nodes_trueleafs nodes_truenodeids output_padding output_shape pads perm pool_int64s \
    pooled_shape qkv_hidden_sizes scan_input_axes strides target_ids target_nodeids \
    target_treeids tree_roots values_int64s vectors_per_class";
const FLOATS: &str = "\
    alpha beta clip epsilon scale softcap spatial_scale value";
const FLOAT_LISTS: &str = "\
    base_values bias class_weights coefficients imputed_value_floats intercepts kernel_params \
    nodes_values offset prob_a prob_b rho scales support_vectors target_weights weights";
/// Texts of attributes with several accepted ones.
const TEXTS: [(&str, &str); 9] = [
    ("auto_pad", "SAME_UPPER SAME_LOWER VALID NOTSET"),
    ("coordinate_transformation_mode", "align_corners asymmetric tf_crop_and_resize half_pixel"),
    ("direction", "forward reverse bidirectional LEFT RIGHT"),
    ("equation", "ij,jk->ik ii->i i,j i,i-> ...i,...j->...ij ab,bc,cd->ad"),
    ("kernel_type", "LINEAR POLY RBF SIGMOID"),
    ("mode", "nearest linear cubic constant edge reflect wrap CRD TF TFIDF max avg circular"),
    ("padding_mode", "zeros border reflection"),
    ("reduction", "none add mul max min sum mean"),
    ("update_rule", "linear gated delta gated_delta"),
];

/// Random numbers (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) % end as u64) as usize
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    /// Returns an integer that is small most of the time.
    fn integer(&mut self) -> i64 {
        const ODD: [i64; 8] =
            [i64::MAX, i64::MIN, 1 << 62, -(1 << 62), 1 << 31, 1 << 20, 1000, -1000];
        if self.below(16) == 0 { self.pick(&ODD) } else { self.below(8) as i64 - 2 }
    }

    fn float(&mut self) -> f32 {
        const ODD: [f32; 5] = [f32::NAN, f32::INFINITY, 1e30, -1e30, 1e-40];
        if self.below(24) == 0 { self.pick(&ODD) } else { self.below(64) as f32 / 8.0 - 3.0 }
    }

    fn list<T>(&mut self, item: impl Fn(&mut Self) -> T) -> Vec<T> {
        let len = self.below(7);
        (0..len).map(|_| item(self)).collect()
    }

    fn tensor(&mut self, elements: &[ElementType], sizes: &[usize], rank: usize) -> Tensor {
        let element = self.pick(elements);
        let rank = if self.below(5) == 0 { self.below(6) } else { rank };
        let shape: Vec<usize> = (0..rank).map(|_| self.pick(sizes)).collect();
        let count: usize = shape.iter().product();
        let (count, shape) =
            if count < 1 << 12 { (count, shape) } else { (0, vec![0, self.pick(&[1, 1 << 20])]) };
        let tensor = match element {
            ElementType::Text => {
                let texts = (0..count).map(|_| "a b".repeat(self.below(3))).collect();
                Tensor::with_type(element, shape, Data::Text(texts))
            }
            ElementType::Complex64 => Tensor::new(shape, vec![[1f32, 2.0]; count]),
            _ if element.is_integer() => {
                let values = (0..count).map(|_| self.integer().into()).collect();
                Tensor::from_i128(element, shape, values)
            }
            _ => {
                let values = (0..count).map(|_| self.float().into()).collect();
                Tensor::from_f64(element, shape, values)
            }
        };
        tensor.unwrap()
    }

    /// Returns a graph that returns some of its inputs.
    fn graph(&mut self) -> Graph {
        let info = |index: usize| ValueInfo { name: format!("i{index}"), value_type: None };
        let inputs = self.below(5);
        let outputs = (0..self.below(5)).map(|_| info(self.below(inputs.max(1)))).collect();
        Graph::new((0..inputs).map(info).collect(), outputs, Default::default(), vec![])
    }

    fn attributes(&mut self) -> Vec<(String, Attribute)> {
        let mut found: Vec<(String, Attribute)> = Vec::new();
        let odds = self.pick(&[1, 2, 3, 8, 50, 1000]);
        let mut add = |random: &mut Self, name: &str, new: &dyn Fn(&mut Self) -> Attribute| {
            if random.below(odds) == 0 {
                found.push((name.into(), new(random)));
            }
        };
        for name in INTS.split(' ') {
            add(self, name, &|random| Attribute::Int(random.integer()));
        }
        for name in INT_LISTS.split(' ') {
            add(self, name, &|random| Attribute::Ints(random.list(Self::integer)));
        }
        for name in FLOATS.split(' ') {
            add(self, name, &|random| Attribute::Float(random.float()));
        }
        for name in FLOAT_LISTS.split(' ') {
            add(self, name, &|random| Attribute::Floats(random.list(Self::float)));
        }
        for (name, texts) in TEXTS {
            let texts: Vec<&str> = texts.split(' ').collect();
            add(self, name, &|random| Attribute::Text(random.pick(&texts).into()));
        }
        let modes = ["BRANCH_LEQ", "LEAF", "BRANCH_EQ"];
        let text = |random: &mut Self| random.pick(&modes).to_string();
        add(self, "nodes_modes", &|random| Attribute::Texts(random.list(text)));
        for name in ["body", "then_branch", "else_branch"] {
            add(self, name, &|random| Attribute::Graph(Arc::new(random.graph())));
        }
        found
    }

    fn operands(&mut self) -> Vec<Option<Value>> {
        use ElementType::*;
        const ALL: [ElementType; 12] =
            [F32, F64, F16, I8, U8, I32, I64, U64, Bool, Text, Complex64, F8E5M2];
        const FEW: [ElementType; 6] = [F32, F32, I64, U8, I32, Bool];
        let own = if self.below(2) == 0 { F32 } else { self.pick(&ALL) };
        let mixed = self.below(3) == 0;
        let elements = [own, if mixed { self.pick(&FEW) } else { own }];
        let size = self.pick(&[1, 2, 3, 4]);
        let sizes = [size, self.pick(&[0, 1, 1, 2, size, size, size, 6, 40])];
        let rank = self.below(5);
        let count = self.pick(&[1, 1, 2, 2, 3, 3, 4, 6, 9]);
        let operand = |random: &mut Self| {
            let tensor = Value::from(random.tensor(&elements, &sizes, rank));
            match random.below(40) {
                0..3 => None,
                3 => Some(Value::from(vec![tensor; 3])),
                4 => Some(Value::Optional(Some(Arc::new(tensor)))),
                5..9 => Some(random.tensor(&[I64], &sizes, 1).into()),
                9..12 => Some(Tensor::scalar(random.integer()).into()),
                _ => Some(tensor),
            }
        };
        (0..count).map(|_| operand(self)).collect()
    }
}

/// Evaluates a node within limits.
fn call(random: &mut Random, domain: &str, operator: &str) -> bool {
    let inputs = random.operands();
    let name = |index: usize| format!("x{index}");
    let names = inputs.iter().enumerate();
    let outputs: Vec<String> = (0..1 + random.below(2)).map(|index| format!("y{index}")).collect();
    let node = Node {
        domain: domain.into(),
        operator: operator.into(),
        inputs: names.map(|(i, x)| x.as_ref().map_or(String::new(), |_| name(i))).collect(),
        outputs: outputs.clone(),
        attributes: random.attributes().into_iter().collect(),
        ..Node::default()
    };
    let info = |name| ValueInfo { name, value_type: None };
    let outputs = outputs.into_iter().map(info).collect();
    let graph = Graph::new(vec![], outputs, Default::default(), vec![node]);
    let version = random.pick(&[1, 6, 8, 9, 10, 11, 13, 16, 18, 21, 24]);
    let opsets = HashMap::from([(domain.to_string(), version)]);
    let model = Model { opsets, graph, ..Model::default() };
    let values = inputs.into_iter().enumerate().filter_map(|(i, x)| Some((name(i), x?)));
    let limits =
        Limits { memory_bytes: 64 << 20, operations: 100_000_000, stop: Rc::new(|| false) };
    model.run_within(values.collect(), &limits).is_ok()
}

#[test]
fn random_calls_end_soon() {
    const ROUNDS: usize = 40;
    let domains = [("", STANDARD), ("com.microsoft", MICROSOFT), ("ai.onnx.ml", LEARNING)];
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut successes = 0;
    for (domain, operators) in domains {
        for operator in operators.split(' ') {
            assert!(super::is_known(domain, operator), "{operator}");
            let start = Instant::now();
            for _ in 0..ROUNDS {
                successes += usize::from(call(&mut random, domain, operator));
            }
            assert!(start.elapsed() < Duration::from_secs(20), "{operator}");
        }
    }
    assert!(successes > ROUNDS, "{successes}");
}
