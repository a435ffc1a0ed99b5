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

/// Attributes of [`Operator::DequantizeBlocks`](crate::graph::Operator::DequantizeBlocks).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DequantizeBlocks {
    /// Real element type of the output.
    pub dtype: DType,
    /// Axis that is cut into blocks.
    pub axis: u32,
    /// Elements of a block along that axis, at least 1.
    pub block: u32,
}

/// Attributes of [`Operator::DequantizeLinear`](crate::graph::Operator::DequantizeLinear).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DequantizeLinear {
    /// Real element type of the output.
    pub dtype: DType,
    /// Axis along which scale and zero point vary; `None` per tensor.
    pub axis: Option<u32>,
}

/// Attributes of [`Operator::DynamicMatMul`](crate::graph::Operator::DynamicMatMul):
/// `f32(Σ (q − z) · (w − zero_point)) · (s · scale) + bias`, where `q`, `s` and `z` are what ONNX's
/// DynamicQuantizeLinear makes of x.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DynamicMatMul {
    /// Whether each row of x has scale and zero point of its own, and not all of it the same.
    pub per_row: bool,
}
