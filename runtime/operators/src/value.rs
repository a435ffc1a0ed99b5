//! Values: tensors, sequences, optionals and maps.

use std::sync::Arc;

use crate::error::Problem;
use crate::tensor::Tensor;

/// A value that a node reads or writes. Cloning is cheap.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A tensor.
    Tensor(Arc<Tensor>),
    /// A sequence of values of one type.
    Sequence(Arc<Vec<Value>>),
    /// An optional value.
    Optional(Option<Arc<Value>>),
    /// A sequence of maps, which only `ZipMap` writes: the keys of all maps, and a matrix with one
    /// row per map and one column per key.
    Maps {
        /// The keys, integers or strings.
        keys: Arc<Tensor>,
        /// The values, of shape `[maps, keys]`.
        values: Arc<Tensor>,
    },
}

impl Value {
    /// Returns the tensor.
    ///
    /// # Errors
    /// Returns [`Problem::NotATensor`] if the value is of another kind.
    pub fn tensor(&self) -> Result<&Tensor, Problem> {
        match self {
            Self::Tensor(tensor) => Ok(tensor),
            other => Err(Problem::NotATensor { found: other.kind() }),
        }
    }

    /// Returns the elements of a sequence.
    ///
    /// # Errors
    /// Returns [`Problem::NotASequence`] if the value is of another kind.
    pub fn sequence(&self) -> Result<&[Value], Problem> {
        match self {
            Self::Sequence(values) => Ok(values),
            other => Err(Problem::NotASequence { found: other.kind() }),
        }
    }

    /// Returns the kind of value in words.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Tensor(_) => "tensor",
            Self::Sequence(_) => "sequence",
            Self::Optional(_) => "optional",
            Self::Maps { .. } => "sequence of maps",
        }
    }
}

impl From<Tensor> for Value {
    fn from(tensor: Tensor) -> Self {
        Self::Tensor(Arc::new(tensor))
    }
}

impl From<Vec<Value>> for Value {
    fn from(values: Vec<Value>) -> Self {
        Self::Sequence(Arc::new(values))
    }
}
