//! Why a program cannot be made.

use alloc::string::String;

use hardtack_kernels::AccumulatorOverflow;
use thiserror::Error;

use crate::ProgramError;

/// Why a program cannot be made.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// There are more ports, tensors or steps than a program can number, or its weights or
    /// its arena are larger than 4 GiB.
    #[error("the integer program has too many {0}")]
    TooMany(&'static str),
    /// A step names a tensor that was never made.
    #[error("in node \"{step}\": there is no tensor {id}")]
    NoTensor {
        /// Name of the step.
        step: String,
        /// The tensor's number.
        id: u16,
    },
    /// A slice that a layer gives has the wrong length.
    #[error("in node \"{step}\": {what} has {given} elements where {expected} are needed")]
    Elements {
        /// Name of the step.
        step: String,
        /// What.
        what: &'static str,
        /// How many elements it must have.
        expected: u64,
        /// How many it has.
        given: u64,
    },
    /// A weight is −128, which some kernels cannot multiply exactly.
    #[error("in node \"{step}\": weight {index} is -128; weights must lie in [-127, 127]")]
    Weight {
        /// Name of the step.
        step: String,
        /// Which weight.
        index: usize,
    },
    /// Groups are 0 or do not divide the channels.
    #[error("in node \"{step}\": {groups} groups do not divide the channels")]
    Groups {
        /// Name of the step.
        step: String,
        /// How many groups.
        groups: u32,
    },
    /// An accumulator can overflow.
    #[error(
        "in node \"{step}\", output channel {channel}: {source}; keep this layer in floating point"
    )]
    Overflow {
        /// Name of the step.
        step: String,
        /// Which output channel.
        channel: usize,
        /// The bound.
        source: AccumulatorOverflow,
    },
    /// A tensor is read and no earlier step writes it.
    #[error("in node \"{step}\": tensor \"{tensor}\" is read before anything is written to it")]
    Unwritten {
        /// Name of the step.
        step: String,
        /// Name of the tensor.
        tensor: String,
    },
    /// No step names a tensor.
    #[error("nothing reads or writes tensor \"{0}\"")]
    Unused(String),
    /// No step reads an input port, or none writes an output port.
    #[error("no step uses {kind} {index} of the integer program")]
    UnusedPort {
        /// "input" or "output".
        kind: &'static str,
        /// Which.
        index: usize,
    },
    /// A step or tensor is one that [`Program::parse`](crate::Program::parse) refuses.
    #[error("in \"{name}\": {source}")]
    Refused {
        /// Name of the step or tensor.
        name: String,
        /// Why.
        source: ProgramError,
    },
    /// The tensors do not fit into the limit of the arena, whatever strips are made.
    #[error(
        "the integer program needs an arena of at least {least} bytes, beyond the limit of {limit}"
    )]
    ArenaLimit {
        /// The limit.
        limit: u64,
        /// The least that was found.
        least: u64,
    },
    /// A step cannot be encoded.
    #[error("in node \"{0}\": the step cannot be encoded")]
    Encoding(String),
}
