//! Rejects sizes and positions that do not fit in 32 bits: tract would silently truncate them.

use hardtack::{Data, Tensor};
use tract_onnx::pb::NodeProto;

use super::emit::Emit;
use crate::import::ImportError;
use crate::import::node::Node;

/// The maximum length of a list of sizes, pads or positions.
const LONGEST: i64 = 1024;

/// The attributes that are sizes or positions.
const ATTRIBUTES: [&str; 12] = [
    "block_size",
    "blocksize",
    "dilations",
    "group",
    "kernel_shape",
    "output_padding",
    "output_shape",
    "pads",
    "size",
    "split",
    "starts",
    "strides",
];

/// Returns the indices of an operator's inputs that are sizes or positions.
fn operands(operator: &str) -> &'static [usize] {
    match operator {
        "ConstantOfShape" => &[0],
        "Range" => &[0, 1, 2],
        "Expand" | "OneHot" | "Reshape" | "Split" | "Squeeze" | "Tile" | "TopK" | "Trilu"
        | "Unsqueeze" | "CumSum" => &[1],
        "Pad" => &[1, 3],
        // The end (input 2) may be any value: it is clamped.
        "Slice" => &[1, 3, 4],
        "Resize" => &[3],
        _ => &[],
    }
}

/// Checks one node. Never rewrites it.
pub(crate) fn rewrite(node: &mut NodeProto, emit: &mut Emit<'_>) -> Result<bool, ImportError> {
    if !matches!(node.domain.as_str(), "" | "ai.onnx" | "com.microsoft") {
        return Ok(false);
    }
    for attribute in node.attribute.iter().filter(|a| ATTRIBUTES.contains(&a.name.as_str())) {
        let values = attribute.ints.iter().chain([&attribute.i]);
        if let Some(value) = values.into_iter().find(|value| !fits(**value)) {
            return Err(node.wrong(format!("its {} {value} {BEYOND}", attribute.name)));
        }
    }
    for operand in operands(&node.op_type) {
        let Some(name) = node.given(*operand) else { continue };
        let Some(tensor) = short(emit, name) else { continue };
        let Data::I64(values) = tensor.data() else { continue };
        for (place, value) in values.iter().enumerate() {
            if !fits(*value) && !is_from_the_end(node, emit, (*operand, place), *value) {
                return Err(node.wrong(format!("its input {name:?} has {value}, which {BEYOND}")));
            }
        }
    }
    Ok(false)
}

const BEYOND: &str = "does not fit in 32 bits";

fn fits(value: i64) -> bool {
    i32::try_from(value).is_ok()
}

/// Returns whether a value is the start of a Slice that runs backwards from the end. `i64::MAX`
/// truncated to 32 bits is −1, which has the same meaning.
fn is_from_the_end(
    node: &NodeProto,
    emit: &Emit<'_>,
    (operand, place): (usize, usize),
    value: i64,
) -> bool {
    const START: usize = 1;
    const STEPS: usize = 4;
    let step = || {
        let steps = node.given(STEPS).and_then(|name| short(emit, name))?;
        steps.to_f32().get(place).copied()
    };
    let of_slice = node.op_type == "Slice" && operand == START && value == i64::MAX;
    of_slice && step().is_some_and(|step| step < 0.0)
}

/// Returns a constant if it has at most [`LONGEST`] elements.
pub(crate) fn short(emit: &Emit<'_>, name: &str) -> Option<Tensor> {
    let dims = &emit.scope.proto(name)?.dims;
    let length = dims.iter().try_fold(1i64, |all, dim| all.checked_mul(*dim))?;
    (length <= LONGEST).then(|| emit.scope.tensor(name))?
}

#[cfg(test)]
mod tests {
    use super::super::emit::{Context, rewrite_nodes};
    use super::super::testing::{graph, model, node};
    use super::*;
    use crate::import::node::{int, ints};

    /// Returns the error for a node that may read these constants; empty if there is none.
    fn problem(node: NodeProto) -> String {
        let list = |values: &[i64]| Tensor::new(&[values.len()], values.to_vec()).unwrap();
        let constants = [
            ("far", list(&[1 << 32 | 1])),
            ("last", list(&[i64::MAX])),
            ("one", list(&[1])),
            ("zero", list(&[0])),
            ("back", list(&[-1])),
        ];
        let model = model(graph(&[("x", &["2"])], vec![node], &constants, &["y"]));
        let mut context = Context::of(&model);
        let mut graph = model.graph.unwrap();
        let result = rewrite_nodes(&mut graph, &mut context, &rewrite);
        result.map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn attributes_beyond_32_bits_are_rejected() {
        for (attribute, text) in [
            (ints("dilations", &[1, (1 << 32) + 1]), "its dilations 4294967297 does not fit"),
            (ints("kernel_shape", &[1 << 40]), "its kernel_shape 1099511627776"),
            (ints("pads", &[0, -(1 << 40)]), "its pads -1099511627776"),
            (int("group", 1 << 33), "its group 8589934592"),
        ] {
            let found = problem(node("Conv", &["x"], &["y"], vec![attribute]));
            assert!(found.contains(text), "{found}");
        }
        let largest = vec![ints("strides", &[i64::from(i32::MAX)])];
        assert_eq!(problem(node("Conv", &["x"], &["y"], largest)), "");
    }

    #[test]
    fn operands_beyond_32_bits_are_rejected() {
        for (operator, inputs) in [
            ("Reshape", vec!["x", "far"]),
            ("Slice", vec!["x", "far", "one"]),
            ("Slice", vec!["x", "zero", "one", "zero", "far"]),
            ("Slice", vec!["x", "last", "one", "zero", "one"]),
            ("Resize", vec!["x", "", "", "far"]),
        ] {
            let found = problem(node(operator, &inputs, &["y"], vec![]));
            assert!(found.contains("which does not fit in 32 bits"), "{operator}: {found}");
        }
        for inputs in [
            vec!["x", "zero", "last"],
            vec!["x", "zero", "far", "zero", "one"],
            vec!["x", "last", "zero", "zero", "back"],
        ] {
            assert_eq!(problem(node("Slice", &inputs, &["y"], vec![])), "", "{inputs:?}");
        }
    }
}
