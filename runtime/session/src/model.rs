//! A model in memory: a graph with its constants and integer programs.

use std::sync::Arc;

use hardtack_bundle::graph::{Dim, Graph};

use crate::Tensor;

/// The content of a constant of a graph.
#[derive(Clone, Debug, PartialEq)]
pub enum Constant {
    /// Numbers.
    Tensor(Arc<Tensor>),
    /// Symbolic dimensions, row-major.
    Dims {
        /// Dimensions of the tensor of dimensions.
        shape: Vec<usize>,
        /// Its elements.
        values: Vec<Dim>,
    },
}

/// An integer program with its weights, as bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// The program, as `hardtack_engine` reads it.
    pub code: Arc<[u8]>,
    /// Its weights section.
    pub weights: Arc<[u8]>,
}

/// A graph with its constants and integer programs: what the converter works on, and what a
/// loaded bundle becomes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    /// The graph. The offsets and lengths of [`Graph::constants`] mean nothing here.
    pub graph: Graph,
    /// One for each of [`Graph::constants`].
    pub constants: Vec<Constant>,
    /// What [`hardtack_bundle::graph::Operator::Program`] names.
    pub programs: Vec<Program>,
}
