//! Attributes of operators that only move elements.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::DType;
use crate::graph::Dim;

/// Attributes of [`Operator::Reshape`](crate::graph::Operator::Reshape).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reshape {
    /// The first of the replaced axes.
    pub axis: u32,
    /// The dimensions that are replaced.
    pub from: Vec<Dim>,
    /// The dimensions that replace them.
    pub to: Vec<Dim>,
}

/// Attributes of [`Operator::Slice`](crate::graph::Operator::Slice).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// The axis.
    pub axis: u32,
    /// The index of the first element.
    pub start: Dim,
    /// The index after the last element.
    pub end: Dim,
}

/// Attributes of [`Operator::DynamicSlice`](crate::graph::Operator::DynamicSlice).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DynamicSlice {
    /// The axis.
    pub axis: u32,
    /// The length of the range.
    pub length: Dim,
}

/// Attributes of [`Operator::StridedSlice`](crate::graph::Operator::StridedSlice).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StridedSlice {
    /// The index of the input that holds the axes, if any.
    pub axes_input: Option<u32>,
    /// The index of the input that holds the steps, if any.
    pub steps_input: Option<u32>,
    /// Bit i is set if range i has no begin.
    pub begin_mask: i64,
    /// Bit i is set if range i has no end.
    pub end_mask: i64,
    /// Bit i is set if axis i is removed.
    pub shrink_axis_mask: i64,
}

/// The values of padding elements.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PadMode {
    /// A constant of one element, given by its index in
    /// [`Graph::constants`](crate::graph::Graph::constants).
    Constant(u32),
    /// The tensor mirrored at its edge, without repeating the edge element.
    Reflect,
    /// The edge element, repeated.
    Edge,
}

/// Attributes of [`Operator::Pad`](crate::graph::Operator::Pad).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pad {
    /// The number of elements added before and after, per axis.
    pub pads: Vec<(u32, u32)>,
    /// The values of the added elements.
    pub mode: PadMode,
}

/// Attributes of [`Operator::Gather`](crate::graph::Operator::Gather).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gather {
    /// The axis.
    pub axis: u32,
    /// The element type of the output, if it differs from that of the input.
    pub output_dtype: Option<DType>,
}

/// How an update is combined with the existing element.
#[allow(missing_docs, reason = "the ONNX names say it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScatterReduction {
    None,
    Add,
    Multiply,
    Minimum,
    Maximum,
}

/// Attributes of [`Operator::ScatterElements`](crate::graph::Operator::ScatterElements).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScatterElements {
    /// The axis.
    pub axis: u32,
    /// How an update is combined with the existing element.
    pub reduction: ScatterReduction,
}

/// Attributes of [`Operator::OneHot`](crate::graph::Operator::OneHot).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneHot {
    /// The index of the new axis.
    pub axis: u32,
    /// The size of the new axis.
    pub depth: u64,
    /// The constant of one element for "off", given by its index in
    /// [`Graph::constants`](crate::graph::Graph::constants).
    pub off: u32,
    /// The constant of one element for "on", given in the same way.
    pub on: u32,
}

/// Attributes of [`Operator::TopK`](crate::graph::Operator::TopK).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopK {
    /// The axis.
    pub axis: u32,
    /// Whether to return the largest elements instead of the smallest.
    pub largest: bool,
    /// The dimension that represents k in shapes.
    pub k: Dim,
}

/// Attributes of [`Operator::Downsample`](crate::graph::Operator::Downsample).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Downsample {
    /// The axis.
    pub axis: u32,
    /// The stride in elements. Negative strides go backward.
    pub stride: i64,
    /// The number of elements to skip first.
    pub modulo: u64,
}
