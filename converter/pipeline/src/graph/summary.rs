//! The graph summary of the report: the computed nodes, and where they run.

use std::collections::HashMap;

use hardtack::internal::Model;
use hardtack_bundle::graph::{Graph, Operator, ValueId};

use super::constants::is_constant;
use crate::report::GraphNode;

/// Returns the nodes of a model that are not constant. `program_of` returns the index of the
/// integer program that contains a node.
pub(crate) fn graph_summary(
    model: &Model,
    program_of: impl Fn(usize) -> Option<usize>,
) -> Vec<GraphNode> {
    let mut places = HashMap::new();
    let mut graph = Vec::new();
    for (index, node) in model.graph.nodes.iter().enumerate() {
        let index = index as u32;
        if is_constant(model, ValueId { node: index, output: 0 }) {
            continue;
        }
        places.insert(index, graph.len());
        let mut reads: Vec<usize> =
            node.inputs.iter().filter_map(|input| places.get(&input.node).copied()).collect();
        reads.dedup();
        graph.push(GraphNode {
            name: node.name.clone(),
            operator: operator_name(&node.operator),
            reads,
            program: program_of(index as usize),
        });
    }
    graph
}

/// Returns the name of an operator; for unary and binary operators, the name of the function.
fn operator_name(operator: &Operator) -> String {
    let text = match operator {
        Operator::Binary(kind) => format!("{kind:?}"),
        Operator::Unary(kind) => format!("{kind:?}"),
        _ => operator.name().into(),
    };
    text.chars().take_while(|c| c.is_alphanumeric()).collect()
}

/// Returns whether running the graph needs the float runtime: whether it is anything other than
/// inputs and a single integer program.
pub(crate) fn needs_float(graph: &Graph) -> bool {
    let programs =
        graph.nodes.iter().filter(|n| matches!(n.operator, Operator::Program(_))).count();
    let others =
        graph.nodes.iter().any(|n| !matches!(n.operator, Operator::Program(_) | Operator::Input));
    programs != 1 || others
}

#[cfg(test)]
mod tests {
    use hardtack_bundle::graph::Unary;

    use super::*;
    use crate::testing::Net;

    #[test]
    fn constants_are_omitted() {
        let mut net = Net::new();
        let x = net.input(&[1, 4, 6, 6]);
        let a = net.begin(&x);
        let b = net.unary(Unary::Tanh, &a);
        let graph = graph_summary(&net.finish(&[&b]), |index| (index > 1).then_some(7));
        let operators: Vec<&str> = graph.iter().map(|node| node.operator.as_str()).collect();
        assert_eq!(operators, ["Input", "Conv", "Tanh"]);
        assert_eq!(
            graph.iter().map(|node| node.reads.clone()).collect::<Vec<_>>(),
            [vec![], vec![0], vec![1]]
        );
        assert_eq!((graph[0].program, graph[2].program), (None, Some(7)));
    }
}
