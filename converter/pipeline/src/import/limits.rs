//! How large a graph may be. What reads graphs takes time that grows with the square of their size:
//! minutes where a model is many times larger than any that people make.

use hardtack_bundle::graph::Graph;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto};

use super::ImportError;
use super::rewrite::node::Node;

/// Most nodes of a model, with those of graphs in nodes and of functions. The largest that are made
/// have some thousands.
const MAX_NODES: usize = 20_000;
/// Most nodes that rewriting may make of them.
pub const MAX_REWRITTEN: usize = 2 * MAX_NODES;
/// Most constant tensors.
const MAX_TENSORS: usize = 50_000;
/// Most inputs or outputs of a node.
const MAX_VALUES: usize = 4096;
/// Most branches that are decided.
pub const MAX_BRANCHES: usize = 1024;
/// Most dimensions of a value.
pub const MAX_RANK: usize = 64;

/// Checks that a model as its file has it is not larger than what can be read.
pub fn check(model: &ModelProto) -> Result<(), ImportError> {
    check_up_to(model, MAX_NODES)
}

/// The same of a model that was rewritten.
pub fn check_rewritten(model: &ModelProto) -> Result<(), ImportError> {
    check_up_to(model, MAX_REWRITTEN)
}

/// Checks that the values of an imported graph have no more dimensions than can be stored.
pub fn check_ranks(graph: &Graph) -> Result<(), ImportError> {
    let bodies = graph.bodies.iter().flat_map(|body| &body.nodes);
    for node in graph.nodes.iter().chain(bodies) {
        if let Some(fact) = node.outputs.iter().find(|fact| fact.shape.len() > MAX_RANK) {
            let rank = fact.shape.len();
            return Err(ImportError::Node {
                node: node.name.clone(),
                operator: node.operator.name().into(),
                problem: format!("it gives {rank} dimensions, and a value may have {MAX_RANK}"),
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

/// Nodes of a list and of the graphs in them.
pub fn count(nodes: &[NodeProto]) -> usize {
    let graphs = nodes
        .iter()
        .flat_map(|node| &node.attribute)
        .flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs));
    nodes.len() + graphs.map(|graph| count(&graph.node)).sum::<usize>()
}

/// What was counted.
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
                        "it has {count} {what}, and a node may have {MAX_VALUES}; do it in several"
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
    fn graphs_have_a_largest_size() {
        let chain = |count: usize| vec![node("Relu", &["x"], &["y"], vec![]); count];
        assert_eq!(checked(chain(MAX_NODES)), "");
        assert_eq!(
            checked(chain(MAX_NODES + 1)),
            "the model has 20001 nodes, and at most 20000 can be converted"
        );
        let wide = node("Concat", &vec!["x"; MAX_VALUES + 1], &["y"], vec![]);
        assert!(checked(vec![wide]).contains("it has 4097 inputs"));
    }

    #[test]
    fn nodes_in_branches_count() {
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
    fn values_have_a_greatest_rank() {
        let mut net = crate::testing::Net::new();
        let x = net.input(&[1; MAX_RANK + 1]);
        let error = check_ranks(&net.finish(&[&x]).graph).unwrap_err().to_string();
        assert!(error.contains("it gives 65 dimensions"), "{error}");
    }
}
