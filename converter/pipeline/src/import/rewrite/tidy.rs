//! Checks that a graph is well-formed and normalizes it: nodes in topological order, constants as
//! initializers, and no empty inputs at the end.

use std::collections::{HashMap, HashSet, VecDeque};

use hardtack::Tensor;
use tract_onnx::pb::{GraphProto, NodeProto, TensorProto};

use crate::import::node::Node;
use crate::import::{ImportError, tensor};

/// The maximum nesting depth of subgraphs.
const MAX_DEPTH: usize = 16;

/// Checks and normalizes a graph and its subgraphs.
pub(crate) fn tidy(graph: &mut GraphProto) -> Result<(), ImportError> {
    tidy_in(graph, None, 0)
}

/// The names defined in a graph and its enclosing graphs.
struct Scope<'a> {
    names: HashSet<String>,
    around: Option<&'a Scope<'a>>,
}

impl Scope<'_> {
    fn has(&self, name: &str) -> bool {
        self.names.contains(name) || self.around.is_some_and(|around| around.has(name))
    }
}

fn tidy_in(
    graph: &mut GraphProto,
    around: Option<&Scope<'_>>,
    depth: usize,
) -> Result<(), ImportError> {
    let malformed = |problem: String| Err(ImportError::Malformed(problem));
    if depth > MAX_DEPTH {
        return malformed(format!("subgraphs are nested more than {MAX_DEPTH} deep"));
    }
    if !graph.sparse_initializer.is_empty() {
        return malformed("it has sparse initializers, which are not supported".into());
    }
    constants_to_initializers(graph);
    drop_unread(graph);
    for node in &mut graph.node {
        while node.input.last().is_some_and(String::is_empty) {
            node.input.pop();
        }
    }

    let (sources, producers) = definitions(graph)?;
    let known = |name: &str| {
        let here = sources.contains(name) || producers.contains_key(name);
        here || around.is_some_and(|around| around.has(name))
    };
    for output in &graph.output {
        if !known(&output.name) {
            return malformed(format!("its output {:?} is not defined", output.name));
        }
    }

    let order = order(graph, &producers, known)?;
    let names = sources.iter().chain(producers.keys()).map(|name| (*name).to_owned()).collect();
    let inner = Scope { names, around };
    let mut nodes: Vec<Option<NodeProto>> =
        std::mem::take(&mut graph.node).into_iter().map(Some).collect();
    graph.node = order.iter().filter_map(|index| nodes[*index].take()).collect();
    for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        for nested in attribute.g.iter_mut().chain(&mut attribute.graphs) {
            tidy_in(nested, Some(&inner), depth + 1)?;
        }
    }
    Ok(())
}

/// The names of initializers and inputs, and the node that outputs each other name.
type Definitions<'g> = (HashSet<&'g str>, HashMap<&'g str, usize>);

/// Returns what defines each name of a graph.
fn definitions(graph: &GraphProto) -> Result<Definitions<'_>, ImportError> {
    let malformed = |problem: String| Err(ImportError::Malformed(problem));
    let mut sources: HashSet<&str> = HashSet::new();
    for initializer in &graph.initializer {
        if !sources.insert(&initializer.name) {
            return malformed(format!("tensor {:?} is defined twice", initializer.name));
        }
    }
    sources.extend(graph.input.iter().map(|input| input.name.as_str()));
    let mut producers: HashMap<&str, usize> = HashMap::new();
    for (index, node) in graph.node.iter().enumerate() {
        if node.output.iter().all(String::is_empty) {
            return malformed(format!("node {:?} ({}) has no output", node.name, node.op_type));
        }
        for output in node.output.iter().filter(|output| !output.is_empty()) {
            if sources.contains(output.as_str()) || producers.insert(output, index).is_some() {
                return malformed(format!("tensor {output:?} is defined twice"));
            }
        }
    }
    Ok((sources, producers))
}

/// Returns the nodes of a graph in topological order.
fn order(
    graph: &GraphProto,
    producers: &HashMap<&str, usize>,
    known: impl Fn(&str) -> bool,
) -> Result<Vec<usize>, ImportError> {
    let malformed = |problem: String| Err(ImportError::Malformed(problem));
    let mut missing: Vec<usize> = vec![0; graph.node.len()];
    let mut readers: Vec<Vec<usize>> = vec![vec![]; graph.node.len()];
    for (index, node) in graph.node.iter().enumerate() {
        for name in reads(node) {
            if !known(&name) {
                return malformed(format!(
                    "node {:?} ({}) reads {name:?}, which is not defined",
                    node.label(),
                    node.op_type
                ));
            }
            if let Some(producer) = producers.get(name.as_str()) {
                readers[*producer].push(index);
                missing[index] += 1;
            }
        }
    }
    let mut ready: VecDeque<usize> =
        (0..missing.len()).filter(|index| missing[*index] == 0).collect();
    let mut order = Vec::with_capacity(missing.len());
    while let Some(index) = ready.pop_front() {
        order.push(index);
        for reader in &readers[index] {
            missing[*reader] -= 1;
            if missing[*reader] == 0 {
                ready.push_back(*reader);
            }
        }
    }
    if order.len() != graph.node.len() {
        return malformed("its nodes form a cycle".into());
    }
    Ok(order)
}

/// Returns the names that a node and its subgraphs read from the enclosing graph.
pub(crate) fn reads(node: &NodeProto) -> HashSet<String> {
    let mut names: HashSet<String> =
        node.input.iter().filter(|input| !input.is_empty()).cloned().collect();
    for attribute in &node.attribute {
        for graph in attribute.g.iter().chain(&attribute.graphs) {
            let own: HashSet<&str> = graph
                .input
                .iter()
                .map(|input| &input.name)
                .chain(graph.initializer.iter().map(|initializer| &initializer.name))
                .chain(graph.node.iter().flat_map(|node| &node.output))
                .map(String::as_str)
                .collect();
            let outputs = graph.output.iter().map(|output| output.name.clone());
            let inner = graph.node.iter().flat_map(reads).chain(outputs);
            names.extend(inner.filter(|name| !own.contains(name.as_str())));
        }
    }
    names
}

/// Removes the nodes whose results neither an output nor another node reads.
fn drop_unread(graph: &mut GraphProto) {
    let mut read: HashSet<String> = graph.output.iter().map(|output| output.name.clone()).collect();
    let mut is_read = vec![false; graph.node.len()];
    loop {
        let before = read.len();
        for (node, is_read) in graph.node.iter().zip(&mut is_read).rev() {
            if !*is_read && node.output.iter().any(|output| read.contains(output)) {
                *is_read = true;
                read.extend(reads(node));
            }
        }
        if read.len() == before {
            break;
        }
    }
    let mut is_read = is_read.into_iter();
    graph.node.retain(|_| is_read.next().unwrap_or(true));
}

fn constants_to_initializers(graph: &mut GraphProto) {
    let initializers = &mut graph.initializer;
    graph.node.retain(|node| {
        let standard = node.op_type == "Constant" && matches!(&*node.domain, "" | "ai.onnx");
        match (standard, node.wanted(0)) {
            (true, Some(name)) => match constant(node) {
                Some(value) => {
                    initializers.push(TensorProto { name: name.into(), ..value });
                    false
                }
                None => true,
            },
            _ => true,
        }
    });
}

fn constant(node: &NodeProto) -> Option<TensorProto> {
    if let Some(value) = node.tensor("value") {
        return Some(value.clone());
    }
    let value = if let Some(value) = node.int("value_int") {
        Tensor::scalar(value)
    } else if let Some(value) = node.float("value_float") {
        Tensor::scalar(value)
    } else if node.attribute("value_ints").is_some() {
        let values = node.ints("value_ints");
        Tensor::new(&[values.len()], values.to_vec()).ok()?
    } else if node.attribute("value_floats").is_some() {
        let values = node.floats("value_floats");
        Tensor::new(&[values.len()], values.to_vec()).ok()?
    } else {
        return None;
    };
    Some(tensor::store("", &value))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{graph, node};
    use super::*;
    use crate::import::node::float;

    #[test]
    fn nodes_are_sorted_and_constants_become_initializers() {
        let mut graph = graph(
            &[("x", &["2"])],
            vec![
                node("Add", &["a", "c", ""], &["y"], vec![]),
                node("Neg", &["x"], &["a"], vec![]),
                node("Constant", &[], &["c"], vec![float("value_float", 2.0)]),
            ],
            &[],
            &["y"],
        );
        tidy(&mut graph).unwrap();
        let operators: Vec<&str> = graph.node.iter().map(|node| node.op_type.as_str()).collect();
        assert_eq!(operators, ["Neg", "Add"]);
        assert_eq!(graph.node[1].input, ["a", "c"]);
        assert_eq!(tensor::load(&graph.initializer[0]), Some(Tensor::scalar(2f32)));
    }

    #[test]
    fn malformed_graphs_are_rejected() {
        let one = Tensor::scalar(1f32);
        for (nodes, outputs, problem) in [
            (vec![node("Neg", &["z"], &["y"], vec![])], "y", "reads \"z\", which is not defined"),
            (vec![], "y", "its output \"y\" is not defined"),
            (vec![node("Neg", &["x"], &["c"], vec![])], "c", "\"c\" is defined twice"),
            (
                vec![node("Neg", &["b"], &["a"], vec![]), node("Neg", &["a"], &["b"], vec![])],
                "a",
                "form a cycle",
            ),
        ] {
            let mut graph = graph(&[("x", &["2"])], nodes, &[("c", one.clone())], &[outputs]);
            let message = tidy(&mut graph).unwrap_err().to_string();
            assert!(message.contains(problem), "{message}");
        }
    }
}
