//! Errors of parsing and running programs.

use thiserror::Error;

use crate::program::{PortType, TensorId};

/// The reason why bytes are not a valid program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// The code does not start with the magic number, or is shorter than a header.
    #[error("not an integer program: the magic number `HTKP` is missing")]
    Magic,
    /// The layout version is not supported.
    #[error(
        "the integer program has layout version {0}, but this engine supports only version 1; \
         convert the model with the converter of this release"
    )]
    Version(u16),
    /// The number of the weights' layout family is unknown.
    #[error("the weights of the integer program have the unknown layout family {0}")]
    Family(u8),
    /// The code does not have the length that its header states.
    #[error("the integer program has {given} bytes, but its header states {expected}")]
    Length {
        /// The number of bytes that the header states.
        expected: u64,
        /// The actual number of bytes.
        given: u64,
    },
    /// The arena exceeds [`Program::MAXIMUM_ARENA`](crate::Program::MAXIMUM_ARENA).
    #[error("the integer program needs an arena of {0} bytes, above the limit of 1 GiB")]
    Arena(u32),
    /// The record of an input or output is malformed. Outputs are counted after all inputs.
    #[error("record {0} of the inputs and outputs of the integer program is malformed")]
    Port(u32),
    /// The record of a tensor is invalid.
    #[error("tensor {id} of the integer program: {problem}")]
    Tensor {
        /// The tensor's index.
        id: u32,
        /// The reason why the tensor is invalid.
        problem: Problem,
    },
    /// The kind of a step is unknown.
    #[error("step {index} of the integer program has the unknown kind {id}")]
    UnknownStep {
        /// The step's index.
        index: u32,
        /// The number of its kind.
        id: u16,
    },
    /// The attributes of a step have a version that is not supported.
    #[error(
        "step {index} of the integer program ({kind}) has attribute version {version}, which this \
         engine does not support; convert the model with the converter of this release"
    )]
    StepVersion {
        /// The step's index.
        index: u32,
        /// The name of its kind.
        kind: &'static str,
        /// The version of its attributes.
        version: u8,
    },
    /// A step is cut off, its reserved byte is not 0, or bytes follow the last step.
    #[error("the record of step {0} of the integer program is malformed")]
    StepBytes(u32),
    /// A step is invalid.
    #[error("step {index} of the integer program ({kind}): {problem}")]
    Step {
        /// The step's index.
        index: u32,
        /// The name of its kind.
        kind: &'static str,
        /// The reason why the step is invalid.
        problem: Problem,
    },
    /// The names section is malformed.
    #[error("the names section of the integer program is malformed")]
    Names,
    /// The weights section does not have the length that the program expects.
    #[error("the weights section has {given} bytes, but the integer program expects {expected}")]
    WeightsLength {
        /// The number of bytes that the program expects.
        expected: u32,
        /// The actual number of bytes.
        given: u64,
    },
    /// The address of the weights is not a multiple of 4.
    #[error("the weights are not aligned to 4 bytes in memory")]
    WeightsAlignment,
    /// Two ranges of weights overlap without being identical.
    #[error(
        "two weight ranges of the integer program overlap at byte {offset}; convert the model again"
    )]
    WeightsOverlap {
        /// The offset of the second range.
        offset: u32,
    },
    /// Steps reuse the same weight ranges so often that packing them would take many times the
    /// size of the section.
    #[error(
        "the steps of the integer program reuse its {given} bytes of weights so often that packing \
         needs {needed} bytes; convert the model again"
    )]
    WeightsRepeated {
        /// The bytes of the weights section.
        given: u64,
        /// The bytes that the packed section would have.
        needed: u64,
    },
}

/// The reason why a tensor or a step is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Problem {
    /// A dimension is 0.
    #[error("a dimension is 0")]
    EmptyDimension,
    /// A tensor exceeds the arena, or its offset is not a multiple of 16.
    #[error("it exceeds the arena or its offset is not a multiple of 16")]
    OutsideArena,
    /// A scale is NaN, too small, too large, or has too many significant bits.
    #[error("a scale is out of range or has too many significant bits")]
    Scale,
    /// The attributes cannot be decoded.
    #[error("its attributes are malformed")]
    Attributes,
    /// The step uses a tensor that does not exist.
    #[error("there is no tensor {0}")]
    NoTensor(TensorId),
    /// The step uses an input or output that does not exist.
    #[error("there is no input or output {0}")]
    NoPort(u16),
    /// The output overlaps a tensor that the step reads.
    #[error("its output overlaps tensor {0}, which it reads, in the arena")]
    Overlap(TensorId),
    /// A row tile exceeds its tensors, or combines skipped input rows with padding above.
    #[error("its row tile does not fit its tensors")]
    Rows,
    /// The convolution whose packed weights the step reuses does not exist or is a different layer.
    #[error("it reuses the weights of a different layer")]
    Shares,
    /// A weight range exceeds the section, or its offset is not a multiple of 16.
    #[error("a weight range exceeds the section or its offset is not a multiple of 16")]
    OutsideWeights,
    /// Packed weights past the end of a run are not 0.
    #[error("weights past the end of a run are not 0")]
    WeightPadding,
    /// A weight range has the wrong length.
    #[error("a weight range has {given} bytes, but {expected} are required")]
    SpanLength {
        /// The number of bytes required.
        expected: u64,
        /// The actual number of bytes.
        given: u32,
    },
    /// The sparse encoding of the weights is malformed, or the layer is depthwise.
    #[cfg(feature = "sparse")]
    #[error("its sparse weights are malformed")]
    Sparse,
    /// The shapes of the tensors are incompatible.
    #[error("the shapes of its tensors are incompatible")]
    Shape,
    /// The number of groups does not divide the numbers of channels.
    #[error("its number of groups does not divide its channels")]
    Groups,
    /// The window is empty, too large, or does not fit the input and output.
    #[error("its window is empty, too large, or does not fit its input and output")]
    Window,
    /// The lower clamp bound is above the upper one.
    #[error("its lower clamp bound is above the upper one")]
    Clamp,
    /// The tensors do not have the quantization parameters that the step requires.
    #[error("its tensors do not have the scale and zero point that it requires")]
    Quantization,
    /// A strided copy exceeds its source or destination, or has too many elements.
    #[error("its strided copy exceeds its source or destination")]
    CopyLayout,
    /// A table has an entry that is out of range.
    #[error("its table has an entry that is out of range")]
    Table,
}

/// The reason why a program did not run, or did not run to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RunError {
    /// The arena is too small.
    #[error("the arena has {given} bytes, but the program needs {needed}")]
    Arena {
        /// The number of bytes that the program needs.
        needed: usize,
        /// The number of bytes passed.
        given: usize,
    },
    /// The number of inputs is wrong.
    #[error("the program has {expected} inputs, but {given} were passed")]
    Inputs {
        /// The number of inputs of the program.
        expected: usize,
        /// The number of inputs passed.
        given: usize,
    },
    /// The number of outputs is wrong.
    #[error("the program has {expected} outputs, but {given} were passed")]
    Outputs {
        /// The number of outputs of the program.
        expected: usize,
        /// The number of outputs passed.
        given: usize,
    },
    /// An input has the wrong type or number of elements.
    #[error("input {index} must be {elements} values of type {element:?}")]
    Input {
        /// The input's index.
        index: usize,
        /// The element type that the program expects.
        element: PortType,
        /// The number of elements that the program expects.
        elements: u32,
    },
    /// An output has the wrong type or number of elements.
    #[error("output {index} must be {elements} values of type {element:?}")]
    Output {
        /// The output's index.
        index: usize,
        /// The element type that the program expects.
        element: PortType,
        /// The number of elements that the program expects.
        elements: u32,
    },
    /// The weights are packed for an instruction set, so only an executor can run the program.
    #[error("the weights are packed for an instruction set; run the program with an `Executor`")]
    Packed,
    /// The weights have moved to an address that is not a multiple of 4 since they were parsed.
    #[error("the weights are no longer aligned to 4 bytes in memory")]
    WeightsAlignment,
    /// The observer stopped the inference.
    #[error("the inference was stopped")]
    Stopped,
}
