//! Constant folding: replaces nodes that read only constants by their values.

use hardtack::internal::Constant;
use hardtack_bundle::graph::{Fact, Node, Operator, ValueId};

use crate::graph::rewriter::Rewriter;

/// The size in bytes up to which folded outputs may be larger than the inputs.
const ALLOWANCE: usize = 1 << 16;

/// Folds all nodes that can be folded. Returns their number.
pub(super) fn fold(rewriter: &mut Rewriter) -> usize {
    compute(rewriter, foldable, ALLOWANCE)
}

/// Evaluates the nodes that `chosen` selects and that read only constants. A node is skipped if its
/// outputs take more than `allowance` bytes and more bytes than its inputs. Returns the number of
/// evaluated nodes.
pub(super) fn compute(
    rewriter: &mut Rewriter,
    chosen: impl Fn(&Rewriter, &Node) -> bool,
    allowance: usize,
) -> usize {
    let mut folded = 0;
    for index in 0..rewriter.model.graph.nodes.len() {
        let node = rewriter.node(index);
        if node.inputs.is_empty() || !chosen(rewriter, node) {
            continue;
        }
        let Some(inputs) = node
            .inputs
            .iter()
            .map(|value_id| rewriter.constant(*value_id).cloned())
            .collect::<Option<Vec<_>>>()
        else {
            continue;
        };
        if stated_bytes(rewriter, index) > inputs.iter().map(bytes).sum::<usize>().max(allowance) {
            continue;
        }
        let (node, name) = (node.clone(), node.name.clone());
        // A node that cannot be evaluated here stays in the graph.
        let Ok(values) = hardtack::float::evaluate(&rewriter.model, &node, &inputs) else {
            continue;
        };
        for (slot, value) in values.into_iter().enumerate() {
            let name = if slot == 0 { name.clone() } else { format!("{name}.{slot}") };
            let constant = rewriter.add_constant(name, value);
            rewriter.redirect(ValueId { node: index as u32, output: slot as u32 }, constant);
        }
        folded += 1;
    }
    folded
}

/// Returns whether a node may be folded. A dequantization stays if its integers are smaller than
/// its output, as for weights, but not for their i32 bias.
fn foldable(rewriter: &Rewriter, node: &Node) -> bool {
    let size = |fact: &Fact| fact.dtype.size().unwrap_or(8);
    match node.operator {
        Operator::Input
        | Operator::Constant(_)
        | Operator::Program(_)
        | Operator::Scan(_)
        | Operator::If(_) => false,
        Operator::DequantizeLinear(_) | Operator::DequantizeBlocks(_) => {
            let read = rewriter.model.graph.fact(rewriter.resolve(node.inputs[0]));
            size(read) >= size(&node.outputs[0])
        }
        _ => true,
    }
}

fn bytes(constant: &Constant) -> usize {
    match constant {
        Constant::Tensor(tensor) => tensor.len() * tensor.dtype().size().unwrap_or(8),
        Constant::Stored(stored) => stored.bytes().len(),
        Constant::Dims { values, .. } => 8 * values.len(),
    }
}

/// Returns the bytes of a node's outputs, counting dynamic dimensions as 1.
fn stated_bytes(rewriter: &Rewriter, index: usize) -> usize {
    let facts = rewriter.node(index).outputs.iter();
    facts
        .map(|fact| {
            let size = fact.dtype.size().unwrap_or(8);
            let dims = fact.shape.iter().map(|dim| dim.value().unwrap_or(1).max(0) as usize);
            dims.fold(size, usize::saturating_mul)
        })
        .fold(0, usize::saturating_add)
}
