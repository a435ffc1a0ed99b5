//! Attributes of operators that combine elements along axes.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::DType;

/// Attributes of [`Operator::Einsum`](crate::graph::Operator::Einsum).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Einsum {
    /// The expression, such as `mk,kn->mn`.
    pub expression: String,
    /// Element type of the products and sums.
    pub accumulator: DType,
}

/// How [`Operator::Reduce`](crate::graph::Operator::Reduce) combines elements.
#[allow(missing_docs, reason = "the ONNX names say it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reducer {
    ArgMax { last: bool },
    ArgMin { last: bool },
    Maximum,
    Minimum,
    Product,
    Sum,
    MeanOfSquares,
    All,
    Any,
}

/// Attributes of [`Operator::Reduce`](crate::graph::Operator::Reduce).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reduce {
    /// Axes reduced to size 1.
    pub axes: Vec<u32>,
    /// How elements are combined.
    pub reducer: Reducer,
}

/// Attributes of [`Operator::Softmax`](crate::graph::Operator::Softmax).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Softmax {
    /// Axes the exponentials are summed over.
    pub axes: Vec<u32>,
    /// Whether the logarithm is returned.
    pub logarithm: bool,
}

/// Attributes of [`Operator::RmsNorm`](crate::graph::Operator::RmsNorm).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RmsNorm {
    /// The axis.
    pub axis: u32,
    /// Added under the root.
    pub epsilon: f32,
}

/// Attributes of [`Operator::Lrn`](crate::graph::Operator::Lrn).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lrn {
    /// Scaling parameter.
    pub alpha: f32,
    /// Exponent.
    pub beta: f32,
    /// Added to the sum of squares.
    pub bias: f32,
    /// Number of channels summed over.
    pub size: u32,
}

/// Attributes of [`Operator::CumSum`](crate::graph::Operator::CumSum).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CumSum {
    /// The axis.
    pub axis: u32,
    /// Whether an element's own value is left out.
    pub exclusive: bool,
    /// Whether it sums from the end.
    pub reverse: bool,
}
