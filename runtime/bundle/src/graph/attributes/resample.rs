//! Attributes of operators that look up values between elements.

use serde::{Deserialize, Serialize};

/// How an output coordinate becomes an input coordinate.
#[allow(missing_docs, reason = "the ONNX names say it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CoordinateTransform {
    HalfPixel,
    AlignCorners,
    Asymmetric,
    PytorchHalfPixel,
    HalfPixelSymmetric,
    TfHalfPixelForNn,
}

/// How values between elements are found.
#[allow(missing_docs, reason = "the ONNX names say it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Interpolation {
    Linear,
    NearestFloor,
    NearestRoundPreferCeil,
    Cubic,
    NearestRoundPreferFloor,
    NearestCeil,
}

/// Attributes of [`Operator::Resize`](crate::graph::Operator::Resize).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resize {
    /// How an output coordinate becomes an input coordinate.
    pub coordinates: CoordinateTransform,
    /// How values between elements are found.
    pub interpolation: Interpolation,
    /// Which input holds the scales.
    pub scales_input: Option<u32>,
    /// Which input holds the sizes.
    pub sizes_input: Option<u32>,
    /// Coefficient of the cubic kernel.
    pub cubic_coefficient: f32,
    /// Whether the cubic kernel leaves out what lies outside the tensor.
    pub exclude_outside: bool,
}

/// Attributes of [`Operator::GridSample`](crate::graph::Operator::GridSample).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GridSample {
    /// How values between elements are found.
    pub interpolation: GridInterpolation,
    /// What lies outside.
    pub padding: GridPadding,
    /// Whether -1 and 1 are the centres of the corner elements.
    pub align_corners: bool,
}

/// How values between elements are found by [`Operator::GridSample`](crate::graph::Operator::GridSample).
#[allow(missing_docs, reason = "the ONNX names say it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GridInterpolation {
    Bilinear,
    Nearest,
    Bicubic,
}

/// What [`Operator::GridSample`](crate::graph::Operator::GridSample) finds outside the tensor.
#[allow(missing_docs, reason = "the ONNX names say it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GridPadding {
    Zeros,
    Border,
    Reflection,
}
