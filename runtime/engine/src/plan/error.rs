//! Errors of building programs.

use alloc::string::String;

use hardtack_kernels::AccumulatorOverflow;
use thiserror::Error;

use crate::ProgramError;

/// The reason why a program cannot be built.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The program has too many inputs, outputs, tensors or steps, or its weights or arena exceed
    /// 4 GiB.
    #[error("the integer program has too many {0}")]
    TooMany(&'static str),
    /// A step uses a tensor that does not exist.
    #[error("node \"{step}\": there is no tensor {id}")]
    NoTensor {
        /// The name of the step.
        step: String,
        /// The tensor's index.
        id: u16,
    },
    /// A slice of a [`Layer`](crate::Layer) has the wrong length.
    #[error("node \"{step}\": {what} has {given} elements, but {expected} are required")]
    Elements {
        /// The name of the step.
        step: String,
        /// The name of the slice.
        what: &'static str,
        /// The number of elements required.
        expected: u64,
        /// The actual number of elements.
        given: u64,
    },
    /// A weight is −128, which some kernels cannot multiply exactly.
    #[error("node \"{step}\": weight {index} is -128, but weights must be in [-127, 127]")]
    Weight {
        /// The name of the step.
        step: String,
        /// The weight's index.
        index: usize,
    },
    /// The number of groups is 0 or does not divide the numbers of channels.
    #[error("node \"{step}\": the number of groups, {groups}, does not divide the channels")]
    Groups {
        /// The name of the step.
        step: String,
        /// The number of groups.
        groups: u32,
    },
    /// An accumulator can overflow an i32.
    #[error("node \"{step}\", output channel {channel}: {source}; keep this node in float")]
    Overflow {
        /// The name of the step.
        step: String,
        /// The output channel's index.
        channel: usize,
        /// The bound of the accumulator.
        source: AccumulatorOverflow,
    },
    /// A step reads a tensor that no earlier step writes.
    #[error("node \"{step}\": tensor \"{tensor}\" is read before any step writes it")]
    Unwritten {
        /// The name of the step.
        step: String,
        /// The name of the tensor.
        tensor: String,
    },
    /// No step reads or writes a tensor.
    #[error("no step reads or writes tensor \"{0}\"")]
    Unused(String),
    /// No step reads an input, or no step writes an output.
    #[error("no step uses {kind} {index} of the integer program")]
    UnusedPort {
        /// "input" or "output".
        kind: &'static str,
        /// The index of the input or output.
        index: usize,
    },
    /// [`Program::parse`](crate::Program::parse) would reject a step or tensor.
    #[error("\"{name}\": {source}")]
    Refused {
        /// The name of the step or tensor; empty if the error concerns neither.
        name: String,
        /// The validation error.
        source: ProgramError,
    },
    /// The tensors do not fit into the arena limit, even with row tiles.
    #[error(
        "the integer program needs an arena of at least {least} bytes, above the limit of {limit}"
    )]
    ArenaLimit {
        /// The limit in bytes.
        limit: u64,
        /// The smallest arena found, in bytes.
        least: u64,
    },
    /// A step cannot be encoded.
    #[error("node \"{0}\": the step cannot be encoded")]
    Encoding(String),
}
