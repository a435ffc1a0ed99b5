//! Attributes of operators that combine elements along axes.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::DType;

/// Attributes of [`Operator::Einsum`](crate::graph::Operator::Einsum).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Einsum {
    /// The Einstein summation expression, such as `mk,kn->mn`.
    pub expression: String,
    /// The element type of the accumulators.
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
    /// The axes to reduce to size 1.
    pub axes: Vec<u32>,
    /// How elements are combined.
    pub reducer: Reducer,
}

/// Attributes of [`Operator::Softmax`](crate::graph::Operator::Softmax).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Softmax {
    /// The axes over which the exponentials are summed.
    pub axes: Vec<u32>,
    /// Whether to return the logarithm of the softmax.
    pub logarithm: bool,
}

/// Attributes of [`Operator::RmsNorm`](crate::graph::Operator::RmsNorm).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RmsNorm {
    /// The axis.
    pub axis: u32,
    /// The value added to the mean square, under the root.
    pub epsilon: f32,
}

/// Attributes of [`Operator::Lrn`](crate::graph::Operator::Lrn).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lrn {
    /// The scaling parameter.
    pub alpha: f32,
    /// The exponent.
    pub beta: f32,
    /// The value added to the scaled sum of squares.
    pub bias: f32,
    /// The number of channels to sum over.
    pub size: u32,
}

/// Attributes of [`Operator::CumSum`](crate::graph::Operator::CumSum).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CumSum {
    /// The axis.
    pub axis: u32,
    /// Whether each sum excludes the element itself.
    pub exclusive: bool,
    /// Whether to sum from the end.
    pub reverse: bool,
}
