//! Attributes of operators that quantize or dequantize.

use serde::{Deserialize, Serialize};

use crate::DType;

/// Attributes of [`Operator::QuantizeLinear`](crate::graph::Operator::QuantizeLinear).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuantizeLinear {
    /// The integer element type of the output.
    pub dtype: DType,
    /// The axis along which scale and zero point vary, or `None` for per-tensor quantization.
    pub axis: Option<u32>,
}

/// Attributes of [`Operator::DequantizeBlocks`](crate::graph::Operator::DequantizeBlocks).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DequantizeBlocks {
    /// The floating-point element type of the output.
    pub dtype: DType,
    /// The axis that is divided into blocks.
    pub axis: u32,
    /// The number of elements of a block along the axis, at least 1.
    pub block: u32,
}

/// Attributes of [`Operator::DequantizeLinear`](crate::graph::Operator::DequantizeLinear).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DequantizeLinear {
    /// The floating-point element type of the output.
    pub dtype: DType,
    /// The axis along which scale and zero point vary, or `None` for per-tensor quantization.
    pub axis: Option<u32>,
}

/// Attributes of [`Operator::DynamicMatMul`](crate::graph::Operator::DynamicMatMul), which computes
/// `f32(Σ (q − z) · (w − zero_point)) · (s · scale) + bias`. The quantized input `q`, its scale `s`
/// and its zero point `z` are those that ONNX's DynamicQuantizeLinear computes from x.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DynamicMatMul {
    /// Whether each row of x has its own scale and zero point, instead of one pair for all rows.
    pub per_row: bool,
}
