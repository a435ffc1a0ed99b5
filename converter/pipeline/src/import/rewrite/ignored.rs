//! Attributes and values that tract ignores or mishandles: they are rejected, or rewritten.

use hardtack::Tensor;
use tract_onnx::pb::NodeProto;

use super::emit::Emit;
use super::sizes::short;
use crate::import::node::{Node, ints, tensor as tensor_attribute};
use crate::import::{ImportError, tensor};

/// The maximum rank of a tensor.
const MAX_RANK: i64 = crate::import::limits::MAX_RANK as i64;
/// The maximum number of elements of an expanded value, as a power of 2.
const VALUE_BITS: u32 = 30;
/// The same for a constant, which is computed during import.
const CONSTANT_BITS: u32 = 27;

/// Checks one node, and rewrites it if possible.
pub(crate) fn rewrite(node: &mut NodeProto, emit: &mut Emit<'_>) -> Result<bool, ImportError> {
    axes(node)?;
    if !matches!(node.domain.as_str(), "" | "ai.onnx") {
        return Ok(false);
    }
    let opset = emit.context.opset;
    match node.op_type.as_str() {
        "BatchNormalization" => batch_normalization(node, emit),
        "AveragePool" | "MaxPool" => pool(node, emit),
        "Conv" | "ConvTranspose" => explicit_and_automatic(node),
        "Pad" => pad(node, emit),
        "ConstantOfShape" | "Expand" | "Tile" => expanded(node, emit),
        "Range" => range(node, emit),
        "Cast" => match node.int("to").and_then(|to| tensor::dtype_of(to.try_into().ok()?)) {
            Some(_) => Ok(false),
            None => Err(node.wrong("it casts to an unsupported type")),
        },
        "Swish" => swish(node, emit),
        "Resize" => resize(node),
        "SpaceToDepth" if !matches!(node.text("mode"), None | Some("DCR")) => {
            Err(node.wrong("only mode DCR is supported"))
        }
        "Dropout" => dropout(node, emit),
        "Split" => {
            let outputs = node.output.len() as i64;
            match node.int("num_outputs") {
                Some(wanted) if wanted != outputs => {
                    Err(node
                        .wrong(format!("num_outputs is {wanted}, but it has {outputs} outputs")))
                }
                _ => Ok(false),
            }
        }
        "Scan" if opset < 9 => Err(node
            .wrong("Scan of operator set 8 is not supported; export with operator set 9 or later")),
        "QuantizeLinear" if node.int("block_size").unwrap_or(0) != 0 => {
            Err(node.wrong("blocked quantization is not supported; quantize per axis"))
        }
        _ => Ok(false),
    }
}

/// Why a node in training mode is refused.
const TRAINS: &str = "it is in training mode; export the model for inference";

/// Refuses training, and drops the outputs of training.
fn batch_normalization(node: &mut NodeProto, emit: &mut Emit<'_>) -> Result<bool, ImportError> {
    let training = if emit.context.opset >= 14 {
        node.int("training_mode") == Some(1)
    } else {
        node.output.iter().skip(1).any(|output| !output.is_empty())
    };
    if training {
        emit.context.refuse(node, TRAINS);
        return Ok(false);
    }
    node.output.truncate(1);
    emit.whole(node.clone());
    Ok(true)
}

/// Gives a pool with `ceil_mode` and `auto_pad=VALID` explicit pads.
fn pool(node: &mut NodeProto, emit: &mut Emit<'_>) -> Result<bool, ImportError> {
    if node.text("auto_pad") == Some("VALID") && node.int("ceil_mode") == Some(1) {
        let pads = vec![0; 2 * node.ints("kernel_shape").len()];
        node.attribute.retain(|a| a.name != "auto_pad" && a.name != "pads");
        node.attribute.push(ints("pads", &pads));
        emit.whole(node.clone());
        return Ok(true);
    }
    explicit_and_automatic(node)
}

/// Rejects negative pads and unsupported modes.
fn pad(node: &mut NodeProto, emit: &mut Emit<'_>) -> Result<bool, ImportError> {
    let constant = node.given(1).and_then(|pads| short(emit, pads));
    let negative = |pads: &[f32]| pads.iter().any(|pad| *pad < 0.0);
    if constant.is_some_and(|pads| negative(&pads.to_f32()))
        || node.ints("pads").iter().any(|pad| *pad < 0)
    {
        return Err(node.wrong(
            "negative pads are not supported; set them to 0, and crop with a Slice after the Pad",
        ));
    }
    match node.text("mode") {
        None | Some("constant" | "reflect" | "edge") => {}
        Some(mode) => {
            return Err(node.wrong(format!(
                "mode {mode:?} is not supported; use constant, reflect or edge, or build the \
                 border with Slice and Concat"
            )));
        }
    }
    Ok(false)
}

/// Rejects values of negative or excessive size.
fn expanded(node: &mut NodeProto, emit: &mut Emit<'_>) -> Result<bool, ImportError> {
    let shape = node.given(if node.op_type == "ConstantOfShape" { 0 } else { 1 });
    let shape = shape.and_then(|shape| short(emit, shape));
    let shape = shape.map_or_else(Vec::new, |shape| shape.to_f32());
    if node.op_type != "Expand" && shape.iter().any(|size| *size < 0.0) {
        return Err(node.wrong("its output has a negative size"));
    }
    let of_constant = || node.given(0).is_some_and(|name| emit.scope.proto(name).is_some());
    let constant = node.op_type == "ConstantOfShape" || of_constant();
    let bits = if constant { CONSTANT_BITS } else { VALUE_BITS };
    let elements = shape.iter().map(|size| f64::from(*size)).product::<f64>();
    at_most(node, elements.abs(), bits)?;
    Ok(false)
}

/// Rejects constants of excessive size.
fn range(node: &mut NodeProto, emit: &mut Emit<'_>) -> Result<bool, ImportError> {
    let bound =
        |index| node.given(index).and_then(|name| short(emit, name)).map(|bound| bound.to_f32());
    if let (Some(start), Some(end), Some(step)) = (bound(0), bound(1), bound(2))
        && let ([start], [end], [step]) = (&start[..], &end[..], &step[..])
    {
        let elements = (*end as f64 - *start as f64) / *step as f64;
        at_most(node, elements, CONSTANT_BITS)?;
    }
    Ok(false)
}

/// Rewrites a Swish with an alpha other than 1.
fn swish(node: &mut NodeProto, emit: &mut Emit<'_>) -> Result<bool, ImportError> {
    let alpha = node.float("alpha").unwrap_or(1.0);
    if alpha == 1.0 {
        return Ok(false);
    }
    let (Some(x), Some(y)) = (node.given(0), node.wanted(0)) else { return Ok(false) };
    let alpha = emit.constant("alpha", &Tensor::scalar(alpha));
    let inner = emit.node("Mul", &[x, &alpha], vec![]);
    let gate = emit.node("Sigmoid", &[&inner], vec![]);
    emit.last("Mul", &[x, &gate], y, vec![]);
    Ok(true)
}

/// Rejects attributes that have no equivalent.
fn resize(node: &NodeProto) -> Result<bool, ImportError> {
    let text = |name: &str| node.text(name).unwrap_or("");
    let problem = if node.int("antialias").unwrap_or(0) != 0 {
        "antialias=1 is not supported; export with antialias=0"
    } else if !matches!(text("keep_aspect_ratio_policy"), "" | "stretch") {
        "keep_aspect_ratio_policy is not supported; export with explicit sizes"
    } else if text("coordinate_transformation_mode") == "tf_crop_and_resize" {
        "tf_crop_and_resize is not supported; use Slice and Resize"
    } else {
        return Ok(false);
    };
    Err(node.wrong(problem))
}

/// Refuses training, and rewrites Dropout as Identity.
fn dropout(node: &mut NodeProto, emit: &mut Emit<'_>) -> Result<bool, ImportError> {
    if let Some(flag) = node.given(2) {
        let flag = short(emit, flag).map(|flag| flag.to_f32());
        if flag.is_none_or(|flag| flag != [0.0]) {
            emit.context.refuse(node, TRAINS);
            return Ok(false);
        }
    }
    let (Some(x), Some(y)) = (node.given(0), node.wanted(0)) else { return Ok(false) };
    emit.last("Identity", &[x], y, vec![]);
    if let Some(mask) = node.wanted(1) {
        let shape = emit.node("Shape", &[x], vec![]);
        let kept = tensor_attribute("value", tensor::store("", &Tensor::scalar(true)));
        emit.last("ConstantOfShape", &[&shape], mask, vec![kept]);
    }
    Ok(true)
}

/// Rejects axes beyond the maximum rank, which make tract loop for minutes.
fn axes(node: &NodeProto) -> Result<(), ImportError> {
    let one = node.attribute("axis").map(|attribute| attribute.i);
    match one.iter().chain(node.ints("axes")).find(|axis| !(-MAX_RANK..MAX_RANK).contains(*axis)) {
        Some(axis) => Err(node.wrong(format!("axis {axis} is out of range"))),
        None => Ok(()),
    }
}

/// Rejects a value of more than 2^`bits` elements, or of NaN elements.
fn at_most(node: &NodeProto, elements: f64, bits: u32) -> Result<(), ImportError> {
    if elements <= f64::from(1u32 << bits) {
        return Ok(());
    }
    Err(node.wrong(format!("its output has more than 2^{bits} elements")))
}

/// Rejects nodes with both `pads` and `auto_pad`, of which tract silently ignores one.
fn explicit_and_automatic(node: &NodeProto) -> Result<bool, ImportError> {
    let automatic = matches!(node.text("auto_pad"), Some("SAME_UPPER" | "SAME_LOWER"));
    if automatic && node.ints("pads").iter().any(|pad| *pad != 0) {
        return Err(node.wrong("it has both pads and auto_pad; remove one of them"));
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::super::emit::{Context, rewrite_nodes};
    use super::super::testing::{graph, model, node};
    use super::*;
    use crate::import::node::{float, int, text};

    #[test]
    fn ignored_features_are_rejected() {
        let big = Tensor::new(&[2], vec![1i64 << 40, 1 << 40]).unwrap();
        for (node, problem) in [
            (node("LayerNormalization", &["x"], &["y"], vec![int("axis", -16385)]), "axis -16385"),
            (node("ConstantOfShape", &["big"], &["y"], vec![]), "2^27 elements"),
            (node("ConstantOfShape", &["pads"], &["y"], vec![]), "negative size"),
            (node("Tile", &["x", "pads"], &["y"], vec![]), "negative size"),
            (node("Pad", &["x", "pads"], &["y"], vec![]), "set them to 0, and crop with a Slice"),
            (
                node("Pad", &["x", "big"], &["y"], vec![text("mode", "wrap")]),
                "\"wrap\" is not supported; use constant, reflect or edge, or build the border",
            ),
            (node("Cast", &["x"], &["y"], vec![int("to", 17)]), "unsupported type"),
            (
                node(
                    "Conv",
                    &["x"],
                    &["y"],
                    vec![text("auto_pad", "SAME_UPPER"), ints("pads", &[1])],
                ),
                "both pads and auto_pad",
            ),
        ] {
            let constants =
                [("big", big.clone()), ("pads", Tensor::new(&[2], vec![-1i64, 0]).unwrap())];
            let model = model(graph(&[("x", &["2"])], vec![node], &constants, &["y"]));
            let mut context = Context::of(&model);
            let mut graph = model.graph.unwrap();
            let error = rewrite_nodes(&mut graph, &mut context, &rewrite).unwrap_err();
            assert!(error.to_string().contains(problem), "{error}");
        }
    }

    #[test]
    fn training_is_refused_and_all_nodes_are_listed() {
        let nodes = vec![
            node("BatchNormalization", &["x"], &["a", "mean"], vec![]),
            node("Dropout", &["a", "", "flag"], &["y"], vec![]),
        ];
        let flag = [("flag", Tensor::scalar(true))];
        let model = model(graph(&[("x", &["2"])], nodes, &flag, &["y", "mean"]));
        let mut context = Context::of(&model);
        context.opset = 13;
        let mut graph = model.graph.unwrap();
        rewrite_nodes(&mut graph, &mut context, &rewrite).unwrap();
        let refused: Vec<&str> = context.refused.iter().map(|of| of.operator.as_str()).collect();
        assert_eq!(refused, ["BatchNormalization", "Dropout"]);
        assert!(context.refused.iter().all(|of| of.reason == TRAINS && of.nodes.len() == 1));
    }

    #[test]
    fn swish_keeps_its_slope() {
        let swish = node("Swish", &["x"], &["y"], vec![float("alpha", 1.5)]);
        let model = model(graph(&[("x", &["2"])], vec![swish], &[], &["y"]));
        let mut context = Context::of(&model);
        let mut graph = model.graph.unwrap();
        rewrite_nodes(&mut graph, &mut context, &rewrite).unwrap();
        let operators: Vec<&str> = graph.node.iter().map(|node| node.op_type.as_str()).collect();
        assert_eq!(operators, ["Mul", "Sigmoid", "Mul"]);
    }
}
