//! Errors.

use thiserror::Error;

use crate::program::{PortType, TensorId};

/// Why bytes are not a program that can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// The first bytes are not those of a program.
    #[error("these bytes are not an integer program")]
    Magic,
    /// The layout is of another version.
    #[error(
        "the integer program has layout version {0}, and this engine reads version 1; convert \
         the model with the converter of this release"
    )]
    Version(u16),
    /// The weights are laid out for kernels that this engine does not have.
    #[error("the integer program has weights of family {0}, which this engine does not know")]
    Family(u8),
    /// The bytes end too early or too late.
    #[error("the integer program is {given} bytes long, and its header says {expected}")]
    Length {
        /// What the header says.
        expected: u64,
        /// What there is.
        given: u64,
    },
    /// The arena is beyond [`Program::MAXIMUM_ARENA`](crate::Program::MAXIMUM_ARENA).
    #[error("the integer program wants an arena of {0} bytes, beyond the limit of 1 GiB")]
    Arena(u32),
    /// A port is malformed.
    #[error("port {0} of the integer program is malformed")]
    Port(u32),
    /// A tensor is malformed.
    #[error("tensor {id} of the integer program: {problem}")]
    Tensor {
        /// Which.
        id: u32,
        /// What is wrong.
        problem: Problem,
    },
    /// A step's kind is not known.
    #[error("step {index} of the integer program is of kind {id}, which this engine does not know")]
    UnknownStep {
        /// Which step.
        index: u32,
        /// Its kind.
        id: u16,
    },
    /// A step's attributes are of a version that is not known.
    #[error(
        "step {index} of the integer program ({kind}) has attribute version {version}, which this \
         engine does not know"
    )]
    StepVersion {
        /// Which step.
        index: u32,
        /// Name of its kind.
        kind: &'static str,
        /// The version of its attributes.
        version: u8,
    },
    /// The bytes of the steps end within one, or go on after the last.
    #[error("the bytes of step {0} of the integer program are malformed")]
    StepBytes(u32),
    /// A step is impossible.
    #[error("step {index} of the integer program ({kind}): {problem}")]
    Step {
        /// Which step.
        index: u32,
        /// Name of its kind.
        kind: &'static str,
        /// What is wrong.
        problem: Problem,
    },
    /// The names are malformed.
    #[error("the names of the integer program are malformed")]
    Names,
    /// The weights are not those of the program.
    #[error("the weights are {given} bytes, and the integer program expects {expected}")]
    WeightsLength {
        /// What the program expects.
        expected: u32,
        /// What there is.
        given: u64,
    },
    /// The weights lie at an odd address.
    #[error("the weights do not lie at a multiple of 4 bytes in memory")]
    WeightsAlignment,
    /// Two ranges of weights share some of their bytes, but not all.
    #[error(
        "two ranges of weights of the integer program overlap at byte {offset}; convert the model \
         again"
    )]
    WeightsOverlap {
        /// Where the second one begins.
        offset: u32,
    },
    /// Steps share ranges of weights so often that packing them would take far more memory than
    /// the section has.
    #[error(
        "the integer program uses its {given} bytes of weights so often that packing them takes \
         {needed} bytes; convert the model again"
    )]
    WeightsRepeated {
        /// Bytes of the section.
        given: u64,
        /// Bytes that the packed section would have.
        needed: u64,
    },
}

/// What is wrong with a tensor or a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Problem {
    /// A dimension is 0.
    #[error("a dimension is 0")]
    EmptyDimension,
    /// It reaches outside of the arena, or lies at no multiple of 16.
    #[error("it does not lie in the arena")]
    OutsideArena,
    /// A scale is not a number, too small, too great, or has too many significant bits.
    #[error("a scale is out of range or has too many significant bits")]
    Scale,
    /// The attributes cannot be decoded.
    #[error("its attributes are malformed")]
    Attributes,
    /// There is no such tensor.
    #[error("there is no tensor {0}")]
    NoTensor(TensorId),
    /// There is no such port.
    #[error("there is no port {0}")]
    NoPort(u16),
    /// The output shares bytes with something that is read.
    #[error("its output shares bytes of the arena with tensor {0}, which it reads")]
    Overlap(TensorId),
    /// Rows are not there, or are padding and skipped at once.
    #[error("its rows are not rows of its tensors")]
    Rows,
    /// What weights are shared with is no such layer.
    #[error("it shares its weights with another layer")]
    Shares,
    /// A range of weights lies outside of the section, or at no multiple of 16.
    #[error("a range of weights does not lie in the weights")]
    OutsideWeights,
    /// A range of weights has the wrong length.
    #[error("a range of weights is {given} bytes where {expected} are needed")]
    SpanLength {
        /// What is needed.
        expected: u64,
        /// What there is.
        given: u32,
    },
    /// The weights of a sparse layer are not in their form, or the layer is depthwise.
    #[cfg(feature = "sparse")]
    #[error("its sparse weights are malformed")]
    Sparse,
    /// The shapes of the tensors do not fit each other.
    #[error("the shapes of its tensors do not fit")]
    Shape,
    /// The groups do not divide the channels.
    #[error("its groups do not divide the channels")]
    Groups,
    /// The window is empty, too large, or does not fit input and output.
    #[error("its window does not fit input and output")]
    Window,
    /// The least output is above the greatest.
    #[error("its least output is above its greatest")]
    Clamp,
    /// Input and output must be quantized alike, or in the one way the step knows.
    #[error("its tensors do not have the scale and zero point that it needs")]
    Quantization,
    /// A walk leaves its source or destination, or is too long.
    #[error("its walk leaves its source or destination")]
    Walk,
    /// A table holds what must not be there.
    #[error("its table holds an impossible entry")]
    Table,
}

/// Why a program was not run: what the caller gave does not fit it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RunError {
    /// The arena is too small.
    #[error("the arena has {given} bytes, and the program needs {needed}")]
    Arena {
        /// What the program needs.
        needed: usize,
        /// What was given.
        given: usize,
    },
    /// The number of inputs is wrong.
    #[error("the program has {expected} inputs, and {given} were given")]
    Inputs {
        /// What the program has.
        expected: usize,
        /// What was given.
        given: usize,
    },
    /// The number of outputs is wrong.
    #[error("the program has {expected} outputs, and {given} were given")]
    Outputs {
        /// What the program has.
        expected: usize,
        /// What was given.
        given: usize,
    },
    /// An input has another type or number of elements.
    #[error("input {index} must be {elements} values of type {element:?}")]
    Input {
        /// Which.
        index: usize,
        /// Its element type.
        element: PortType,
        /// Its number of values.
        elements: u32,
    },
    /// An output has another type or number of elements.
    #[error("output {index} must be {elements} values of type {element:?}")]
    Output {
        /// Which.
        index: usize,
        /// Its element type.
        element: PortType,
        /// Its number of values.
        elements: u32,
    },
    /// The weights are packed for an instruction set.
    #[error("the weights are packed for an instruction set, which takes an executor for it")]
    Packed,
    /// The weights were moved since they were checked.
    #[error("the weights no longer lie at a multiple of 4 bytes in memory")]
    WeightsAlignment,
    /// The observer ended the run.
    #[error("the run was stopped")]
    Stopped,
}
