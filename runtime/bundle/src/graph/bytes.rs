//! The encoding of graphs: a `postcard` stream in which every operator is stored with its number,
//! its version and the length of its attributes.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::{Constant, Fact, Graph, Node, Operator, ValueId};

/// Why a graph was rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// The bytes cannot be decoded as a graph.
    #[error("the graph's bytes are malformed ({0})")]
    Malformed(postcard::Error),
    /// Extra bytes follow the graph.
    #[error("the graph is followed by {0} extra bytes")]
    Trailing(usize),
    /// A node has an operator that this runtime does not support.
    #[error(
        "node {node:?} needs operator {id} version {version}, which this runtime does not support; \
         update the runtime, or convert the model again with a converter of the same version"
    )]
    UnknownOperator {
        /// The name of the node.
        node: String,
        /// The number in the operator table.
        id: u16,
        /// The version of the operator's attributes.
        version: u8,
    },
    /// The attributes of a node cannot be decoded as those of its operator.
    #[error("node {node:?}: the attributes of operator {id} are malformed ({problem})")]
    Attributes {
        /// The name of the node.
        node: String,
        /// The number in the operator table.
        id: u16,
        /// The decoding error.
        problem: postcard::Error,
    },
    /// A node is not consistent with its graph.
    #[error("node {node:?}: {problem}")]
    Invalid {
        /// The name of the node.
        node: String,
        /// The rule that the node breaks.
        problem: &'static str,
    },
    /// A constant is outside the constants section, or its stored type or length does not match
    /// its type and shape.
    #[error(
        "constant {index} is outside the constants section, or its stored type or length does not \
         match its type and shape"
    )]
    Constant {
        /// The index in [`Graph::constants`].
        index: usize,
    },
    /// Two constants share some of their bytes, but not all.
    #[error("constants {index} and {other} overlap in the constants section")]
    ConstantsOverlap {
        /// The index of the first constant in [`Graph::constants`].
        index: usize,
        /// The index of the second constant.
        other: usize,
    },
    /// The constants share bytes, and loading them takes many times the memory of their section.
    #[error(
        "the constants take {needed} bytes, many times the {given} bytes of the constants section"
    )]
    ConstantsRepeated {
        /// The size of the constants section in bytes.
        given: u64,
        /// The total size of all constants in bytes.
        needed: u64,
    },
}

#[derive(Serialize, Deserialize)]
struct StoredNode {
    name: String,
    id: u16,
    version: u8,
    attributes: Vec<u8>,
    inputs: Vec<ValueId>,
    outputs: Vec<Fact>,
}

#[derive(Serialize, Deserialize)]
struct StoredGraph {
    nodes: Vec<StoredNode>,
    inputs: Vec<u32>,
    outputs: Vec<ValueId>,
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
    /// Encodes the graph. The same graph gives the same bytes on every host.
    ///
    /// # Errors
    /// Returns an error if an attribute cannot be encoded. This does not happen for well-formed
    /// graphs.
    pub fn to_bytes(&self) -> Result<Vec<u8>, GraphError> {
        let stored = StoredModel {
            symbols: self.symbols.clone(),
            constants: self.constants.clone(),
            graph: store(self)?,
            bodies: self.bodies.iter().map(store).collect::<Result<_, _>>()?,
        };
        postcard::to_allocvec(&stored).map_err(GraphError::Malformed)
    }

    /// Decodes a graph and checks it with [`Graph::check`].
    ///
    /// # Errors
    /// Returns an error if the bytes are malformed, an operator is unknown or the graph is not
    /// consistent.
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
