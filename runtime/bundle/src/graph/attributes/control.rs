//! Attributes of loops and branches.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::graph::Dim;

/// A slice of an axis per iteration of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanSlice {
    /// The axis.
    pub axis: u32,
    /// Elements per iteration; negative to walk backwards.
    pub chunk: i64,
}

/// What an input of a scan becomes in its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScanInput {
    /// The whole tensor, each time.
    Full,
    /// The first value of a state.
    State,
    /// A slice per iteration.
    Slice(ScanSlice),
}

/// What an output of the body becomes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanOutput {
    /// The scan's output slot that collects the slices of all iterations.
    pub slices: Option<(u32, ScanSlice)>,
    /// Size of the collected axis, where known.
    pub full_dim: Option<Dim>,
    /// The scan's output slot that gets the value of the last iteration.
    pub last_value: Option<u32>,
    /// Whether it is fed back to the next iteration, as the state inputs in order.
    pub state: bool,
}

/// Attributes of [`Operator::Scan`](crate::graph::Operator::Scan).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scan {
    /// Index in [`Graph::bodies`](crate::graph::Graph::bodies).
    pub body: u32,
    /// Iterations whose collected output is dropped.
    pub skip: u64,
    /// Whether states start anew at every run.
    pub reset_every_turn: bool,
    /// Whether the caller gives and takes the state at every run.
    pub external_state: bool,
    /// One for each input of the body.
    pub inputs: Vec<ScanInput>,
    /// One for each output of the body.
    pub outputs: Vec<ScanOutput>,
}

/// Attributes of [`Operator::If`](crate::graph::Operator::If).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct If {
    /// Body when the condition holds, index in [`Graph::bodies`](crate::graph::Graph::bodies).
    pub then_body: u32,
    /// For each input of that body, which input of this node.
    pub then_inputs: Vec<u32>,
    /// Body when it does not.
    pub else_body: u32,
    /// For each input of that body, which input of this node.
    pub else_inputs: Vec<u32>,
}
