//! The graph of a model: nodes over the operator table, in topological order.
//!
//! The converter edits this form, a bundle stores it, and the runtime adapter reads it. It does
//! not own weights: a constant refers to its entry in [`Graph::constants`], whose bytes lie in
//! the constants section of the bundle.

mod attributes;
mod bytes;
mod check;
mod dim;
mod operator;

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

pub use attributes::*;
pub use bytes::GraphError;
pub use dim::{Dim, Token};
pub use operator::Operator;

use crate::DType;

/// The element type and shape of a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// The element type.
    pub dtype: DType,
    /// The dimensions, outermost first.
    pub shape: Vec<Dim>,
}

/// A value of the graph: one output of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ValueId {
    /// The index of the node in [`Graph::nodes`].
    pub node: u32,
    /// The output index: which output of the node.
    pub output: u32,
}

/// One operation. Its inputs are always values of earlier nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The name, unique in the graph: the name in the source model, if the node has one there.
    pub name: String,
    /// The operator and its attributes.
    pub operator: Operator,
    /// The input values, in the order that the operator defines.
    pub inputs: Vec<ValueId>,
    /// The element type and shape of each output.
    pub outputs: Vec<Fact>,
}

/// The description of a constant tensor. Its bytes are stored outside the graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Constant {
    /// The element type in the graph.
    pub dtype: DType,
    /// The element type of the stored bytes: [`Constant::dtype`], or F16 or BF16 for an F32
    /// constant that is stored at half size and widened when it is loaded.
    pub stored: DType,
    /// The dimensions, outermost first.
    pub shape: Vec<u64>,
    /// The offset of the first byte, from the start of the constants section.
    pub offset: u64,
    /// The number of bytes. Elements of type [`DType::Dim`] are encoded one after another, in
    /// `postcard`.
    pub length: u64,
}

/// The graph of a model, or the body of a loop or branch.
///
/// # Examples
///
/// The graph of `y = abs(x)`, encoded and decoded:
///
/// ```
/// use hardtack_bundle::DType;
/// use hardtack_bundle::graph::{Dim, Fact, Graph, Node, Operator, ValueId, Unary};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let node = |name: &str, operator, inputs| Node {
///     name: name.into(),
///     operator,
///     inputs,
///     outputs: vec![Fact { dtype: DType::F32, shape: vec![Dim::symbol(0), Dim::Value(3)] }],
/// };
/// let [x, y] = [0, 1].map(|node| ValueId { node, output: 0 });
/// let graph = Graph {
///     symbols: vec!["batch".into()],
///     nodes: vec![
///         node("x", Operator::Input, vec![]),
///         node("y", Operator::Unary(Unary::Abs), vec![x]),
///     ],
///     inputs: vec![0],
///     outputs: vec![y],
///     output_names: vec!["y".into()],
///     ..Graph::default()
/// };
/// graph.check()?;
/// assert_eq!(Graph::from_bytes(&graph.to_bytes()?)?, graph);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// The names of the symbols in dimensions, by index.
    pub symbols: Vec<String>,
    /// The constant tensors, by index.
    pub constants: Vec<Constant>,
    /// The nodes, in topological order.
    pub nodes: Vec<Node>,
    /// The indices of the [`Operator::Input`] nodes, in the order of the model's inputs.
    pub inputs: Vec<u32>,
    /// The output values of the model, in order.
    pub outputs: Vec<ValueId>,
    /// The names of [`Graph::outputs`], in the same order.
    pub output_names: Vec<String>,
    /// The bodies of loops and branches, to which operators refer by index. Only the outermost
    /// graph has bodies. A body has its own nodes, inputs and outputs, but shares the symbols and
    /// constants of the outermost graph: its own tables are empty. A node in a body may refer only
    /// to later bodies.
    pub bodies: Vec<Graph>,
}

impl Graph {
    /// Returns the element type and shape of a value.
    ///
    /// # Panics
    /// Panics if `value` is not a value of this graph.
    pub fn fact(&self, value: ValueId) -> &Fact {
        &self.nodes[value.node as usize].outputs[value.output as usize]
    }
}
