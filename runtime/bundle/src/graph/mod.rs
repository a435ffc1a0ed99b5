//! The graph of a model: nodes over the operator table, in topological order.
//!
//! This is the form the converter works on, the form a bundle stores, and the
//! form the runtime adapter reads. It owns no weights: a constant names its
//! entry in [`Graph::constants`], whose bytes lie in a section of the bundle.

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

/// Type and shape of one value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub shape: Vec<Dim>,
}

/// One output of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Outlet {
    /// Index into [`Graph::nodes`].
    pub node: u32,
    /// Which output of that node.
    pub slot: u32,
}

/// One operation. Its inputs always name earlier nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Name in the source model, as far as it had one; unique in its graph.
    pub name: String,
    /// What it does.
    pub operator: Operator,
    /// What it reads.
    pub inputs: Vec<Outlet>,
    /// Type and shape of each output.
    pub outputs: Vec<Fact>,
}

/// A constant tensor. Where its bytes are is the business of whoever holds the graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Constant {
    /// Element type the graph sees.
    pub dtype: DType,
    /// Element type of the stored bytes: [`Constant::dtype`], or F16 or BF16 where an F32
    /// constant was stored at half size and is widened at load.
    pub stored: DType,
    /// Concrete dimensions, outermost first.
    pub shape: Vec<u64>,
    /// First byte, from the start of the constants section.
    pub offset: u64,
    /// Number of bytes. For [`DType::Dim`], the elements are encoded by `postcard` one after another.
    pub length: u64,
}

/// A model, or the body of a loop or branch in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// Names of the symbols that dimensions use, by index.
    pub symbols: Vec<String>,
    /// Constant tensors, by index.
    pub constants: Vec<Constant>,
    /// Operations, each after those it reads.
    pub nodes: Vec<Node>,
    /// The nodes of kind [`Operator::Input`], in the model's order.
    pub inputs: Vec<u32>,
    /// The values the model returns, in the model's order.
    pub outputs: Vec<Outlet>,
    /// Names of [`Graph::outputs`], in the same order.
    pub output_names: Vec<String>,
    /// Bodies of loops and branches. A body has its own nodes, inputs and outputs, and
    /// shares the symbols and constants of the outermost graph: its own tables are empty.
    /// Operators name a body by its index here; only the outermost graph has any, so a
    /// body may name only bodies that come after itself.
    pub bodies: Vec<Graph>,
}

impl Graph {
    /// Type and shape of a value.
    ///
    /// # Panics
    /// Where `outlet` is not of this graph.
    pub fn fact(&self, outlet: Outlet) -> &Fact {
        &self.nodes[outlet.node as usize].outputs[outlet.slot as usize]
    }
}
