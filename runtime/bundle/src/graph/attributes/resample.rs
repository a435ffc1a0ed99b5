//! Attributes of operators that interpolate between elements.

use serde::{Deserialize, Serialize};

/// How an output coordinate is mapped to an input coordinate.
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

/// How values between elements are interpolated.
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
    /// How an output coordinate is mapped to an input coordinate.
    pub coordinates: CoordinateTransform,
    /// How values between elements are interpolated.
    pub interpolation: Interpolation,
    /// The index of the input that holds the scales, if any.
    pub scales_input: Option<u32>,
    /// The index of the input that holds the sizes, if any.
    pub sizes_input: Option<u32>,
    /// The coefficient of the cubic kernel.
    pub cubic_coefficient: f32,
    /// Whether the cubic kernel ignores positions outside the tensor.
    pub exclude_outside: bool,
}

/// Attributes of [`Operator::GridSample`](crate::graph::Operator::GridSample).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GridSample {
    /// How values between elements are interpolated.
    pub interpolation: GridInterpolation,
    /// The values outside the tensor.
    pub padding: GridPadding,
    /// Whether -1 and 1 refer to the centers of the corner elements.
    pub align_corners: bool,
}

/// How [`Operator::GridSample`](crate::graph::Operator::GridSample) interpolates between elements.
#[allow(missing_docs, reason = "the ONNX names say it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GridInterpolation {
    Bilinear,
    Nearest,
    Bicubic,
}

/// The values that [`Operator::GridSample`](crate::graph::Operator::GridSample) uses outside the
/// tensor.
#[allow(missing_docs, reason = "the ONNX names say it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GridPadding {
    Zeros,
    Border,
    Reflection,
}
