//! Attributes of operators that slide a window over an image.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::DType;

/// Padding of a window operator. Lists have one element per spatial axis, outermost first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Padding {
    /// No padding.
    Valid,
    /// The number of padding elements before and after.
    Explicit(Vec<u32>, Vec<u32>),
    /// The same as [`Padding::Explicit`], for pooling whose output size is rounded up.
    ExplicitCeil(Vec<u32>, Vec<u32>),
    /// As much as `output = ceil(input / stride)` needs. An odd element goes after.
    SameUpper,
    /// As much as `output = ceil(input / stride)` needs. An odd element goes before.
    SameLower,
}

/// The order of the dimensions of an image tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageLayout {
    /// Batch, channels, spatial.
    Nchw,
    /// Batch, spatial, channels.
    Nhwc,
    /// Channels, spatial.
    Chw,
    /// Spatial, channels.
    Hwc,
}

/// The order of a kernel's dimensions. The input dimension is the input channels per group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KernelLayout {
    /// Output, input, spatial.
    Oihw,
    /// Spatial, input, output.
    Hwio,
    /// Output, spatial, input.
    Ohwi,
}

/// The parameters of a sliding window. Lists have one element per spatial axis, outermost first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The order of the dimensions of input and output.
    pub layout: ImageLayout,
    /// The size of the window.
    pub kernel: Vec<u32>,
    /// The strides of the window.
    pub strides: Vec<u32>,
    /// The distances between adjacent window elements.
    pub dilations: Vec<u32>,
    /// The padding.
    pub padding: Padding,
    /// The number of input channels.
    pub input_channels: u32,
    /// The number of output channels.
    pub output_channels: u32,
}

/// Attributes of [`Operator::Conv`](crate::graph::Operator::Conv).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conv {
    /// The sliding window.
    pub window: Window,
    /// The order of the kernel's dimensions.
    pub kernel_layout: KernelLayout,
    /// The number of groups.
    pub groups: u32,
}

/// Attributes of [`Operator::ConvTranspose`](crate::graph::Operator::ConvTranspose).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConvTranspose {
    /// The sliding window.
    pub window: Window,
    /// The order of the kernel's dimensions.
    pub kernel_layout: KernelLayout,
    /// The number of groups.
    pub groups: u32,
    /// The number of elements added at the end of the output, per spatial axis.
    pub output_padding: Vec<u32>,
}

/// Attributes of [`Operator::MaxPool`](crate::graph::Operator::MaxPool).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaxPool {
    /// The sliding window.
    pub window: Window,
    /// The element type of the second output (the index of each maximum), if there is one.
    pub index_dtype: Option<DType>,
}

/// Attributes of [`Operator::SumPool`](crate::graph::Operator::SumPool).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SumPool {
    /// The sliding window.
    pub window: Window,
    /// Whether padding elements are included in the divisor of the mean.
    pub count_include_pad: bool,
    /// Whether to divide the sum by the number of elements.
    pub average: bool,
}
