//! The graph as bytes: a `postcard` stream in which every operator carries its number,
//! its version and the length of its attributes.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::{Constant, Fact, Graph, Node, Operator, Outlet};

/// Bodies nest at most this deep in the stream: only the outermost graph has any.
const LIMIT_BODIES: usize = 4096;

/// Why graph bytes were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// The bytes are not a graph.
    #[error("the graph's bytes are malformed ({0})")]
    Malformed(postcard::Error),
    /// Bytes are left over.
    #[error("{0} bytes are left over after the graph")]
    Trailing(usize),
    /// An operator this runtime does not have.
    #[error(
        "node {node:?} needs operator {id} version {version}, which this runtime does not have; \
         update the runtime, or convert the model again with a converter of its version"
    )]
    UnknownOperator {
        /// Name of the node.
        node: String,
        /// Number in the operator table.
        id: u16,
        /// Version of its attributes.
        version: u8,
    },
    /// A node that does not fit its graph.
    #[error("node {node:?}: {problem}")]
    Invalid {
        /// Name of the node.
        node: String,
        /// What is wrong.
        problem: &'static str,
    },
}

#[derive(Serialize, Deserialize)]
struct StoredNode {
    name: String,
    id: u16,
    version: u8,
    attributes: Vec<u8>,
    inputs: Vec<Outlet>,
    outputs: Vec<Fact>,
}

#[derive(Serialize, Deserialize)]
struct StoredGraph {
    nodes: Vec<StoredNode>,
    inputs: Vec<u32>,
    outputs: Vec<Outlet>,
    output_names: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct StoredModel {
    symbols: Vec<String>,
    constants: Vec<Constant>,
    graph: StoredGraph,
    bodies: Vec<StoredGraph>,
}

impl Graph {
    /// The graph as bytes. The same graph gives the same bytes on every host.
    ///
    /// # Errors
    /// Where an attribute cannot be encoded, which a well-formed graph never meets.
    pub fn to_bytes(&self) -> Result<Vec<u8>, GraphError> {
        let stored = StoredModel {
            symbols: self.symbols.clone(),
            constants: self.constants.clone(),
            graph: store(self)?,
            bodies: self.bodies.iter().map(store).collect::<Result<_, _>>()?,
        };
        postcard::to_allocvec(&stored).map_err(GraphError::Malformed)
    }

    /// Reads a graph and checks it with [`Graph::check`].
    ///
    /// # Errors
    /// Where the bytes are malformed, an operator is unknown or the graph is not consistent.
    pub fn from_bytes(bytes: &[u8]) -> Result<Graph, GraphError> {
        let (stored, rest) =
            postcard::take_from_bytes::<StoredModel>(bytes).map_err(GraphError::Malformed)?;
        if !rest.is_empty() {
            return Err(GraphError::Trailing(rest.len()));
        }
        let mut graph = load(stored.graph)?;
        graph.symbols = stored.symbols;
        graph.constants = stored.constants;
        graph.bodies = stored.bodies.into_iter().map(load).collect::<Result<_, _>>()?;
        graph.check()?;
        Ok(graph)
    }

    /// Checks that every reference points to something that exists and comes before.
    ///
    /// # Errors
    /// The first node that does not fit.
    pub fn check(&self) -> Result<(), GraphError> {
        if self.bodies.len() > LIMIT_BODIES {
            return Err(invalid("", "more bodies than a graph may have"));
        }
        check_nodes(self, self, 0)?;
        for (index, body) in self.bodies.iter().enumerate() {
            check_nodes(body, self, index + 1)?;
        }
        Ok(())
    }
}

fn store(graph: &Graph) -> Result<StoredGraph, GraphError> {
    let nodes = graph
        .nodes
        .iter()
        .map(|node| {
            Ok(StoredNode {
                name: node.name.clone(),
                id: node.operator.id(),
                version: node.operator.version(),
                attributes: node.operator.attributes()?,
                inputs: node.inputs.clone(),
                outputs: node.outputs.clone(),
            })
        })
        .collect::<Result<_, _>>()
        .map_err(GraphError::Malformed)?;
    Ok(StoredGraph {
        nodes,
        inputs: graph.inputs.clone(),
        outputs: graph.outputs.clone(),
        output_names: graph.output_names.clone(),
    })
}

fn load(stored: StoredGraph) -> Result<Graph, GraphError> {
    let mut nodes = Vec::new();
    for node in stored.nodes {
        let operator = match Operator::from_parts(node.id, node.version, &node.attributes) {
            Some(Ok(operator)) => operator,
            Some(Err(error)) => return Err(GraphError::Malformed(error)),
            None => {
                return Err(GraphError::UnknownOperator {
                    node: node.name,
                    id: node.id,
                    version: node.version,
                });
            }
        };
        nodes.push(Node { name: node.name, operator, inputs: node.inputs, outputs: node.outputs });
    }
    Ok(Graph {
        nodes,
        inputs: stored.inputs,
        outputs: stored.outputs,
        output_names: stored.output_names,
        ..Graph::default()
    })
}

/// `first_body` is the least body that operators of `graph` may name.
fn check_nodes(graph: &Graph, outermost: &Graph, first_body: usize) -> Result<(), GraphError> {
    let known = |outlet: &Outlet, before: usize| {
        (outlet.node as usize) < before
            && (outlet.slot as usize) < graph.nodes[outlet.node as usize].outputs.len()
    };
    for (index, node) in graph.nodes.iter().enumerate() {
        if !node.inputs.iter().all(|outlet| known(outlet, index)) {
            return Err(invalid(&node.name, "it reads a value that no earlier node gives"));
        }
        let constant = |constant: u32| (constant as usize) < outermost.constants.len();
        let body = |body: u32| (first_body..outermost.bodies.len()).contains(&(body as usize));
        let sound = match &node.operator {
            Operator::Constant(index) => constant(*index),
            Operator::Pad(pad) => match pad.mode {
                super::PadMode::Constant(index) => constant(index),
                _ => true,
            },
            Operator::OneHot(one_hot) => constant(one_hot.off) && constant(one_hot.on),
            Operator::Stft(stft) => stft.window.is_none_or(constant),
            Operator::Scan(scan) => body(scan.body),
            Operator::If(branch) => body(branch.then_body) && body(branch.else_body),
            _ => true,
        };
        if !sound {
            return Err(invalid(&node.name, "it names a constant or body that does not exist"));
        }
    }
    let input = |index: &u32| {
        graph.nodes.get(*index as usize).is_some_and(|node| node.operator == Operator::Input)
    };
    if !graph.inputs.iter().all(input) {
        return Err(invalid("", "an input of the graph is not an input node"));
    }
    if !graph.outputs.iter().all(|outlet| known(outlet, graph.nodes.len())) {
        return Err(invalid("", "an output of the graph is not the value of a node"));
    }
    if graph.output_names.len() != graph.outputs.len() {
        return Err(invalid("", "the graph has not one name for each output"));
    }
    Ok(())
}

fn invalid(node: &str, problem: &'static str) -> GraphError {
    GraphError::Invalid { node: node.into(), problem }
}
