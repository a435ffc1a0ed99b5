//! The graph as bytes: a `postcard` stream in which every operator carries its number,
//! its version and the length of its attributes.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::{Constant, Fact, Graph, Node, Operator, Outlet};

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
    /// A node whose attributes are not those of its operator.
    #[error("node {node:?}: the attributes of operator {id} are malformed ({problem})")]
    Attributes {
        /// Name of the node.
        node: String,
        /// Number in the operator table.
        id: u16,
        /// What is wrong.
        problem: postcard::Error,
    },
    /// A node that does not fit its graph.
    #[error("node {node:?}: {problem}")]
    Invalid {
        /// Name of the node.
        node: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A constant that does not lie in the constants section as its type and shape say.
    #[error("constant {index} does not fit its place in the constants section")]
    Constant {
        /// Index in [`Graph::constants`].
        index: usize,
    },
    /// Two constants that share some of their bytes, but not all.
    #[error("constants {index} and {other} overlap in the constants section")]
    ConstantsOverlap {
        /// Index in [`Graph::constants`].
        index: usize,
        /// Index of the other.
        other: usize,
    },
    /// Constants that share bytes so often that reading them takes many times their section.
    #[error(
        "the constants take {needed} bytes, many times the {given} bytes of the constants section"
    )]
    ConstantsRepeated {
        /// Bytes of the section.
        given: u64,
        /// Bytes of all constants together.
        needed: u64,
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
            Some(Err(problem)) => {
                return Err(GraphError::Attributes { node: node.name, id: node.id, problem });
            }
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
