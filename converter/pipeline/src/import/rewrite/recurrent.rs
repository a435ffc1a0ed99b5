//! Recurrent layers: rewrites forms that tract reads wrongly.
//!
//! tract treats direction `reverse` as forward, concatenates the two directions of layout 1 along
//! the wrong axis, ignores `clip` and `input_forget`, and fails if the batch size is dynamic and
//! there is no initial state.

use hardtack::Tensor;
use hardtack_bundle::DType;
use tract_onnx::pb::{NodeProto, TensorProto};

use super::emit::Emit;
use crate::import::node::{Node, ints, tensor as tensor_attribute, text};
use crate::import::{ImportError, tensor};

/// The time axis of the inputs and outputs in layout 0.
const TIME: i64 = 0;

/// Rewrites one recurrent layer. [`operators::recurrent`](crate::import::operators) reads its
/// activations.
pub(crate) fn rewrite(node: &mut NodeProto, emit: &mut Emit<'_>) -> Result<bool, ImportError> {
    if !matches!(node.op_type.as_str(), "LSTM" | "GRU" | "RNN") || !node.domain.is_empty() {
        return Ok(false);
    }
    if node.float("clip").unwrap_or(0.0) != 0.0 {
        return Err(node.wrong("attribute clip is not supported; export without it"));
    }
    if node.int("input_forget").unwrap_or(0) != 0 {
        return Err(node.wrong("attribute input_forget is not supported; export without it"));
    }
    let direction = node.text("direction").unwrap_or("forward").to_owned();
    let directions: i64 = match direction.as_str() {
        "forward" | "reverse" => 1,
        "bidirectional" => 2,
        other => return Err(node.wrong(format!("direction {other:?} is not known"))),
    };
    if node.given(0).is_none() || node.given(1).is_none() || node.given(2).is_none() {
        return Err(node.wrong("its first three inputs are required"));
    }
    let states = if node.op_type == "LSTM" { 5..7 } else { 5..6 };

    if node.int("layout").unwrap_or(0) != 0 {
        let swap = |emit: &mut Emit<'_>, name: &str| {
            emit.node("Transpose", &[name], vec![ints("perm", &[1, 0, 2])])
        };
        node.input[0] = swap(emit, &node.input[0]);
        for state in states.clone() {
            if node.given(state).is_some() {
                node.input[state] = swap(emit, &node.input[state]);
            }
        }
        outputs(node, emit, |emit, index, from, to| {
            let perm: &[i64] = if index == 0 { &[2, 0, 1, 3] } else { &[1, 0, 2] };
            emit.last("Transpose", &[from], to, vec![ints("perm", perm)]);
        });
    }
    if direction == "reverse" {
        if emit.context.opset < 10 {
            return Err(node.wrong(
                "direction reverse requires operator set 10; export with a later operator set",
            ));
        }
        node.input[0] = reversed(emit, &node.input[0].clone(), None);
        outputs(node, emit, |emit, index, from, to| match index {
            0 => {
                reversed(emit, from, Some(to));
            }
            _ => emit.last("Identity", &[from], to, vec![]),
        });
    }
    let shape = emit.scope.proto(&node.input[2]).map(|r| (r.dims.clone(), r.data_type));
    if let Some((dims, data_type)) = shape
        && let [_, _, hidden] = dims[..]
    {
        for state in states {
            if node.given(state).is_none() {
                while node.input.len() <= state {
                    node.input.push(String::new());
                }
                node.input[state] = zeros(emit, &node.input[0], [directions, hidden], data_type)?;
            }
        }
    }
    node.attribute.retain(|attribute| {
        !matches!(attribute.name.as_str(), "layout" | "direction" | "clip" | "input_forget")
    });
    if directions == 2 {
        node.attribute.push(text("direction", "bidirectional"));
    }
    if node.given(4).is_some_and(|lengths| emit.scope.tensor(lengths).is_none()) {
        return Err(node.wrong("its sequence_lens must be constant"));
    }
    emit.whole(node.clone());
    Ok(true)
}

/// Renames each output of the node, and calls `link` with the index, the new and the old name to
/// emit the node that computes the old output. It precedes the layer until the graph is sorted.
fn outputs(
    node: &mut NodeProto,
    emit: &mut Emit<'_>,
    link: impl Fn(&mut Emit<'_>, usize, &str, &str),
) {
    for index in 0..node.output.len() {
        if !node.output[index].is_empty() {
            let inner = emit.context.fresh(&format!("{}.inner", node.output[index]));
            let outer = std::mem::replace(&mut node.output[index], inner.clone());
            link(emit, index, &inner, &outer);
        }
    }
}

/// Reverses a sequence along the time axis.
fn reversed(emit: &mut Emit<'_>, x: &str, output: Option<&str>) -> String {
    let start = emit.list("last", &[-1]);
    let end = emit.list("before_first", &[i64::MIN + 1]);
    let axis = emit.list("time", &[TIME]);
    let step = emit.list("backwards", &[-1]);
    let inputs = [x, &start, &end, &axis, &step];
    match output {
        Some(output) => {
            emit.last("Slice", &inputs, output, vec![]);
            output.into()
        }
        None => emit.node("Slice", &inputs, vec![]),
    }
}

/// Emits zeros of shape `[directions, batch, hidden]`, with the batch size of `x`.
fn zeros(
    emit: &mut Emit<'_>,
    x: &str,
    [directions, hidden]: [i64; 2],
    data_type: i32,
) -> Result<String, ImportError> {
    let shape = emit.node("Shape", &[x], vec![]);
    let one = emit.list("batch_axis", &[1]);
    let batch = emit.node("Gather", &[&shape, &one], vec![]);
    let directions = emit.list("directions", &[directions]);
    let hidden = emit.list("hidden", &[hidden]);
    let axis = crate::import::node::int("axis", 0);
    let shape = emit.node("Concat", &[&directions, &batch, &hidden], vec![axis]);
    let dtype = tensor::dtype_of(data_type).unwrap_or(DType::F32);
    let zero = Tensor::zeros(dtype, &[1])
        .map_or_else(TensorProto::default, |zero| tensor::store("", &zero));
    Ok(emit.node("ConstantOfShape", &[&shape], vec![tensor_attribute("value", zero)]))
}
