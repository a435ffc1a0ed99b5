//! What random samples must obey so that a model can run on them.

use std::collections::HashMap;

use hardtack::Tensor;
use hardtack_operators::{Attribute, Graph, Node};

use super::Rule;
use crate::graph::io::{Endpoint, Signature};

/// What the values of one input must obey.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Constraint {
    /// The value that the input has in all samples: its default value.
    pub value: Option<Tensor>,
    /// Whether a node divides by the input.
    pub is_divisor: bool,
    /// The number of rows of the smallest table that the input is an index of.
    pub rows: Option<usize>,
}

impl Constraint {
    /// Returns the smallest integer and the largest plus 1 that obey the constraint and, as far as
    /// possible, a rule.
    pub(super) fn range(&self, rule: Rule) -> (f32, f32) {
        let least = if self.is_divisor { 1.0 } else { f32::NEG_INFINITY };
        let end = self.rows.map_or(f32::INFINITY, |rows| rows as f32);
        let high = rule.high.max(least + 1.0).min(end);
        (rule.low.max(least).min(high - 1.0), high)
    }
}

/// Returns the constraints of a model's inputs, in their order. `graph` is the model as the
/// reference implementation reads it.
pub(crate) fn of(graph: &Graph, signature: &Signature) -> Vec<Constraint> {
    let mut found: HashMap<&str, Constraint> = HashMap::new();
    for node in graph.nodes.iter().rev() {
        visit(graph, node, &mut found);
    }
    let of = |input: &Endpoint| Constraint {
        value: input.default().cloned(),
        ..found.get(input.name.as_str()).cloned().unwrap_or_default()
    };
    signature.inputs.iter().map(of).collect()
}

/// Adds the constraints of a node's operands, given those of its outputs.
fn visit<'g>(graph: &'g Graph, node: &'g Node, found: &mut HashMap<&'g str, Constraint>) {
    let operand = |index: usize| node.inputs.get(index).filter(|name| !name.is_empty());
    match node.operator.as_str() {
        "Div" | "Mod" => {
            if let Some(divisor) = operand(1) {
                found.entry(divisor).or_default().is_divisor = true;
            }
        }
        "Gather" | "GatherElements" => {
            let table = operand(0).and_then(|name| graph.initializers.get(name));
            if let (Some(table), Some(indices)) = (table, operand(1)) {
                let axis = match node.attributes.get("axis") {
                    Some(Attribute::Int(axis)) => *axis,
                    _ => 0,
                };
                let axis = axis.rem_euclid(table.shape().len().max(1) as i64);
                let rows = table.shape().get(axis as usize).copied();
                let known = &mut found.entry(indices).or_default().rows;
                *known = (*known).into_iter().chain(rows).min();
            }
        }
        // These keep the values of their first operand.
        "Cast" | "Expand" | "Flatten" | "Identity" | "Reshape" | "Slice" | "Squeeze" | "Tile"
        | "Transpose" | "Unsqueeze" => {
            let result = node.outputs.first().and_then(|name| found.get(name.as_str())).cloned();
            if let (Some(result), Some(name)) = (result, operand(0)) {
                let known = found.entry(name).or_default();
                known.is_divisor |= result.is_divisor;
                known.rows = known.rows.into_iter().chain(result.rows).min();
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_obey_the_constraint_first() {
        let rule = |low, high| Rule { low, high, ..super::super::RULES[0] };
        let free = Constraint::default();
        assert_eq!(free.range(rule(0.0, 2.0)), (0.0, 2.0));
        let divisor = Constraint { is_divisor: true, ..free.clone() };
        assert_eq!(divisor.range(rule(0.0, 2.0)), (1.0, 2.0));
        assert_eq!(divisor.range(rule(0.0, 1.0)), (1.0, 2.0));
        let index = Constraint { rows: Some(1), ..free };
        assert_eq!(index.range(rule(1.0, 2.0)), (0.0, 1.0));
        assert_eq!(index.range(rule(2.0, 6.0)), (0.0, 1.0));
    }
}
