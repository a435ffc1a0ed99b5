//! Limits on the size of a graph. The time to read a graph grows with the square of its size, so a
//! model far larger than any real one would take minutes.

use hardtack_bundle::graph::Graph;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto};

use super::ImportError;
use super::node::Node;

/// The maximum number of nodes of a model, including subgraphs and functions. The largest real
/// models have a few thousand.
const MAX_NODES: usize = 20_000;
/// The maximum number of nodes after rewriting.
pub(crate) const MAX_REWRITTEN: usize = 2 * MAX_NODES;
/// The maximum number of constant tensors.
const MAX_TENSORS: usize = 50_000;
/// The maximum number of inputs or outputs of a node.
const MAX_VALUES: usize = 4096;
/// The maximum number of `If` conditions that are evaluated.
pub(crate) const MAX_BRANCHES: usize = 1024;
/// The maximum rank of a value.
pub(crate) const MAX_RANK: usize = 64;

/// Checks the size of a model as read from its file.
pub(crate) fn check(model: &ModelProto) -> Result<(), ImportError> {
    check_up_to(model, MAX_NODES)
}

/// Checks the size of a model after rewriting.
pub(crate) fn check_rewritten(model: &ModelProto) -> Result<(), ImportError> {
    check_up_to(model, MAX_REWRITTEN)
}

/// Checks the ranks of the values in an imported graph.
pub(crate) fn check_ranks(graph: &Graph) -> Result<(), ImportError> {
    let bodies = graph.bodies.iter().flat_map(|body| &body.nodes);
    for node in graph.nodes.iter().chain(bodies) {
        if let Some(fact) = node.outputs.iter().find(|fact| fact.shape.len() > MAX_RANK) {
            let rank = fact.shape.len();
            return Err(ImportError::Node {
                node: node.name.clone(),
                operator: node.operator.name().into(),
                problem: format!("its output has {rank} dimensions; the maximum is {MAX_RANK}"),
            });
        }
    }
    Ok(())
}

fn check_up_to(model: &ModelProto, nodes: usize) -> Result<(), ImportError> {
    let mut size = Size::default();
    model.functions.iter().try_for_each(|function| size.add_nodes(&function.node))?;
    model.graph.iter().try_for_each(|graph| size.add(graph))?;
    size.within(nodes)
}

/// Counts nodes and the nodes of their subgraphs.
pub(crate) fn count(nodes: &[NodeProto]) -> usize {
    let graphs = nodes
        .iter()
        .flat_map(|node| &node.attribute)
        .flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs));
    nodes.len() + graphs.map(|graph| count(&graph.node)).sum::<usize>()
}

/// The size of a model.
#[derive(Default)]
struct Size {
    nodes: usize,
    tensors: usize,
}

impl Size {
    fn add(&mut self, graph: &GraphProto) -> Result<(), ImportError> {
        self.tensors += graph.initializer.len();
        self.add_nodes(&graph.node)
    }

    fn add_nodes(&mut self, nodes: &[NodeProto]) -> Result<(), ImportError> {
        self.nodes += nodes.len();
        for node in nodes {
            for (count, what) in [(node.input.len(), "inputs"), (node.output.len(), "outputs")] {
                if count > MAX_VALUES {
                    return Err(node.wrong(format!(
                        "it has {count} {what}; the maximum is {MAX_VALUES}, so use several nodes"
                    )));
                }
            }
            for attribute in &node.attribute {
                attribute
                    .g
                    .iter()
                    .chain(&attribute.graphs)
                    .try_for_each(|graph| self.add(graph))?;
            }
        }
        Ok(())
    }

    fn within(&self, nodes: usize) -> Result<(), ImportError> {
        let limits =
            [("nodes", self.nodes, nodes), ("constant tensors", self.tensors, MAX_TENSORS)];
        match limits.into_iter().find(|(_, count, limit)| count > limit) {
            None => Ok(()),
            Some((what, count, limit)) => {
                Err(ImportError::TooMany { what: what.into(), count, limit })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rewrite::testing::{graph, model, node};
    use super::*;

    fn checked(nodes: Vec<NodeProto>) -> String {
        let result = check(&model(graph(&[("x", &["1"])], nodes, &[], &["y"])));
        result.map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn the_size_of_graphs_is_limited() {
        let chain = |count: usize| vec![node("Relu", &["x"], &["y"], vec![]); count];
        assert_eq!(checked(chain(MAX_NODES)), "");
        assert_eq!(
            checked(chain(MAX_NODES + 1)),
            "the model has 20001 nodes; the maximum is 20000"
        );
        let wide = node("Concat", &vec!["x"; MAX_VALUES + 1], &["y"], vec![]);
        assert!(checked(vec![wide]).contains("it has 4097 inputs"));
    }

    #[test]
    fn nodes_in_branches_are_counted() {
        let inner = graph(&[], vec![node("Relu", &["x"], &["z"], vec![]); MAX_NODES], &[], &["z"]);
        let mut branch = node("If", &["c"], &["y"], vec![]);
        branch.attribute.push(tract_onnx::pb::AttributeProto {
            name: "then_branch".into(),
            g: Some(inner),
            ..Default::default()
        });
        assert!(checked(vec![branch]).contains("20001 nodes"));
    }

    #[test]
    fn the_rank_of_values_is_limited() {
        let mut net = crate::testing::Net::new();
        let x = net.input(&[1; MAX_RANK + 1]);
        let error = check_ranks(&net.finish(&[&x]).graph).unwrap_err().to_string();
        assert!(error.contains("its output has 65 dimensions"), "{error}");
    }
}
