//! Attributes of operators between reals and integers.

use serde::{Deserialize, Serialize};

use crate::DType;

/// Attributes of [`Operator::QuantizeLinear`](crate::graph::Operator::QuantizeLinear).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuantizeLinear {
    /// Integer element type of the output.
    pub dtype: DType,
    /// Axis along which scale and zero point vary; `None` per tensor.
    pub axis: Option<u32>,
}

/// Attributes of [`Operator::DequantizeLinear`](crate::graph::Operator::DequantizeLinear).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DequantizeLinear {
    /// Real element type of the output.
    pub dtype: DType,
    /// Axis along which scale and zero point vary; `None` per tensor.
    pub axis: Option<u32>,
}
