//! Attributes of operators that slide a window over an image.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::DType;

/// Border around a window operator. Per spatial axis, outermost first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Padding {
    /// No border.
    Valid,
    /// Elements before and after.
    Explicit(Vec<u32>, Vec<u32>),
    /// As explicit, for pooling whose output size is rounded up.
    ExplicitCeil(Vec<u32>, Vec<u32>),
    /// As much as keeps `output = ceil(input / stride)`; the odd element goes after.
    SameUpper,
    /// As much as keeps `output = ceil(input / stride)`; the odd element goes before.
    SameLower,
}

/// Where the channels are.
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

/// Order of a kernel's dimensions; `I` is input channels per group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KernelLayout {
    /// Output, input, spatial.
    Oihw,
    /// Spatial, input, output.
    Hwio,
    /// Output, spatial, input.
    Ohwi,
}

/// A sliding window. Lists have one element per spatial axis, outermost first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Where the channels are.
    pub layout: ImageLayout,
    /// Size of the window.
    pub kernel: Vec<u32>,
    /// Steps between windows.
    pub strides: Vec<u32>,
    /// Distance of neighbouring window elements.
    pub dilations: Vec<u32>,
    /// Border.
    pub padding: Padding,
    /// Channels of the input.
    pub input_channels: u32,
    /// Channels of the output.
    pub output_channels: u32,
}

/// Attributes of [`Operator::Conv`](crate::graph::Operator::Conv).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conv {
    /// The sliding window.
    pub window: Window,
    /// Order of the kernel's dimensions.
    pub kernel_layout: KernelLayout,
    /// Number of groups the channels are split into.
    pub groups: u32,
}

/// Attributes of [`Operator::ConvTranspose`](crate::graph::Operator::ConvTranspose).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConvTranspose {
    /// The sliding window.
    pub window: Window,
    /// Order of the kernel's dimensions.
    pub kernel_layout: KernelLayout,
    /// Number of groups the channels are split into.
    pub groups: u32,
    /// Elements added to one side of the output, per spatial axis.
    pub output_padding: Vec<u32>,
}

/// Attributes of [`Operator::MaxPool`](crate::graph::Operator::MaxPool).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaxPool {
    /// The sliding window.
    pub window: Window,
    /// Element type of the second output, the index of each greatest value.
    pub index_dtype: Option<DType>,
}

/// Attributes of [`Operator::SumPool`](crate::graph::Operator::SumPool).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SumPool {
    /// The sliding window.
    pub window: Window,
    /// Whether the border counts when the sum is divided.
    pub count_include_pad: bool,
    /// Whether the sum is divided by the number of elements.
    pub average: bool,
}
