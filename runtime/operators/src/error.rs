//! Errors of an evaluation.

use crate::element_type::ElementType;

/// An evaluation that failed at a node.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("node {node:?} ({operator}): {problem}")]
pub struct Error {
    /// The name of the node, or of its first output if it has none.
    pub node: String,
    /// The operator, with its domain if that is not the standard one.
    pub operator: String,
    /// The cause of the failure.
    pub problem: Problem,
}

/// What was wrong with a node or its operands.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages describe the fields")]
pub enum Problem {
    #[error("the operator is not defined in version {version} of this domain")]
    UnknownOperator { version: i64 },
    #[error("this operator is not supported: {reason}")]
    Unsupported { reason: &'static str },
    #[error("input {index} is missing")]
    MissingInput { index: usize },
    #[error("no value has the name {name:?} of input {index}")]
    UndefinedInput { index: usize, name: String },
    #[error("attribute {name:?} is missing")]
    MissingAttribute { name: &'static str },
    #[error("attribute {name:?} is not {wanted}")]
    AttributeType { name: String, wanted: &'static str },
    #[error("attribute {name:?} is {value}; it must be {accepted}")]
    AttributeValue { name: &'static str, value: String, accepted: &'static str },
    #[error("an operand is a {found}, not a tensor")]
    NotATensor { found: &'static str },
    #[error("an operand is a {found}, not a sequence")]
    NotASequence { found: &'static str },
    #[error("input {index} has element type {found}; it must be {accepted}")]
    InputType { index: usize, found: ElementType, accepted: &'static str },
    #[error("the operands have element types {first} and {second}, which must be equal")]
    MixedTypes { first: ElementType, second: ElementType },
    #[error("element type {found} is not supported here; it must be {accepted}")]
    ElementType { found: ElementType, accepted: &'static str },
    #[error("elements of type {element} cannot be stored as {stored}")]
    Storage { element: ElementType, stored: ElementType },
    #[error("input {index} has shape {shape:?}; it must {expected}")]
    InputShape { index: usize, shape: Vec<usize>, expected: String },
    #[error("shape {shape:?} does not have {elements} elements")]
    Size { shape: Vec<usize>, elements: usize },
    #[error("shape {shape:?} has more than {limit} elements")]
    TooLarge { shape: Vec<usize>, limit: usize },
    #[error("shapes {shapes:?} cannot be broadcast together")]
    Broadcast { shapes: Vec<Vec<usize>> },
    #[error("axis {axis} does not exist in a tensor with {rank} axes")]
    Axis { axis: i64, rank: usize },
    #[error("axis {axis} is given twice")]
    RepeatedAxis { axis: usize },
    #[error("a size is {size}; it must not be negative")]
    NegativeSize { size: i64 },
    #[error("offset {offset} is out of range for {len} elements")]
    Offset { offset: usize, len: usize },
    #[error("index {index} is out of range for an axis of size {size}")]
    Index { index: i64, size: usize },
    #[error("the values need more than the limit of {limit} bytes of memory")]
    TooMuchMemory { limit: u64 },
    #[error("it takes more than the limit of {limit} operations")]
    TooMuchWork { limit: u64 },
    #[error("the evaluation was stopped")]
    Stopped,
    #[error("an integer is divided by zero")]
    DivisionByZero,
    #[error("{0}")]
    Invalid(String),
    #[error("in a subgraph: {0}")]
    Subgraph(Box<Error>),
}

impl Error {
    /// Returns the problem of the innermost node.
    pub fn innermost(&self) -> &Problem {
        match &self.problem {
            Problem::Subgraph(inner) => inner.innermost(),
            problem => problem,
        }
    }
}
