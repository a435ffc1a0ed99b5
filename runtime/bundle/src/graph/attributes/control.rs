//! Attributes of loops and branches.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::graph::Dim;

/// The slice of an axis that each iteration of a scan reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanSlice {
    /// The axis.
    pub axis: u32,
    /// The number of elements per iteration. Negative to go backward.
    pub chunk: i64,
}

/// How an input of a scan is passed to its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScanInput {
    /// The whole tensor, in every iteration.
    Full,
    /// The initial value of a state.
    State,
    /// A different slice in each iteration.
    Slice(ScanSlice),
}

/// How an output of the body is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanOutput {
    /// The output index of the scan that collects the slices of all iterations, if any.
    pub slices: Option<(u32, ScanSlice)>,
    /// The size of the collected axis, if known.
    pub full_dim: Option<Dim>,
    /// The output index of the scan that receives the value of the last iteration, if any.
    pub last_value: Option<u32>,
    /// Whether the output is a state for the next iteration. States are matched to the inputs of
    /// kind [`ScanInput::State`] in order.
    pub state: bool,
}

/// Attributes of [`Operator::Scan`](crate::graph::Operator::Scan).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scan {
    /// The index of the body in [`Graph::bodies`](crate::graph::Graph::bodies).
    pub body: u32,
    /// The number of iterations whose collected output is dropped.
    pub skip: u64,
    /// Whether states are reset at every inference.
    pub reset_every_turn: bool,
    /// Whether the caller passes and receives the state at every inference.
    pub external_state: bool,
    /// How each input of the body is passed, in the order of the body's inputs.
    pub inputs: Vec<ScanInput>,
    /// How each output of the body is used, in the order of the body's outputs.
    pub outputs: Vec<ScanOutput>,
}

/// Attributes of [`Operator::If`](crate::graph::Operator::If).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct If {
    /// The body to run if the condition is true, an index in
    /// [`Graph::bodies`](crate::graph::Graph::bodies).
    pub then_body: u32,
    /// For each input of the true body, the index of the node's input that is passed.
    pub then_inputs: Vec<u32>,
    /// The body to run if the condition is false.
    pub else_body: u32,
    /// For each input of the false body, the index of the node's input that is passed.
    pub else_inputs: Vec<u32>,
}
