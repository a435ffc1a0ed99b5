//! Attributes of operators that only move elements.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::DType;
use crate::graph::Dim;

/// Attributes of [`Operator::Reshape`](crate::graph::Operator::Reshape).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reshape {
    /// First axis of the run.
    pub axis: u32,
    /// Dimensions of the run before.
    pub from: Vec<Dim>,
    /// Dimensions of the run after.
    pub to: Vec<Dim>,
}

/// Attributes of [`Operator::Slice`](crate::graph::Operator::Slice).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// The axis.
    pub axis: u32,
    /// First element.
    pub start: Dim,
    /// One past the last element.
    pub end: Dim,
}

/// Attributes of [`Operator::DynamicSlice`](crate::graph::Operator::DynamicSlice).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DynamicSlice {
    /// The axis.
    pub axis: u32,
    /// Length of the range.
    pub length: Dim,
}

/// Attributes of [`Operator::StridedSlice`](crate::graph::Operator::StridedSlice); inputs x, begins, ends and, as told, axes, steps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StridedSlice {
    /// Which input holds the axes.
    pub axes_input: Option<u32>,
    /// Which input holds the steps.
    pub steps_input: Option<u32>,
    /// Bit i: the begin of range i is left open.
    pub begin_mask: i64,
    /// Bit i: the end of range i is left open.
    pub end_mask: i64,
    /// Bit i: axis i is removed.
    pub shrink_axis_mask: i64,
}

/// What stands in a border.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PadMode {
    /// A constant of one element, by its index in [`Graph::constants`](crate::graph::Graph::constants).
    Constant(u32),
    /// Mirrored without repeating the edge.
    Reflect,
    /// The edge repeated.
    Edge,
}

/// Attributes of [`Operator::Pad`](crate::graph::Operator::Pad).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pad {
    /// Elements before and after, per axis.
    pub pads: Vec<(u32, u32)>,
    /// What stands there.
    pub mode: PadMode,
}

/// Attributes of [`Operator::Gather`](crate::graph::Operator::Gather).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gather {
    /// The axis.
    pub axis: u32,
    /// Element type of the output where it differs from the input's.
    pub output_dtype: Option<DType>,
}

/// How an update is combined with what is there.
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
    /// How updates are combined.
    pub reduction: ScatterReduction,
}

/// Attributes of [`Operator::OneHot`](crate::graph::Operator::OneHot).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneHot {
    /// The new axis.
    pub axis: u32,
    /// Its size.
    pub depth: u64,
    /// Constant of one element for "off", by its index in [`Graph::constants`](crate::graph::Graph::constants).
    pub off: u32,
    /// Constant of one element for "on".
    pub on: u32,
}

/// Attributes of [`Operator::TopK`](crate::graph::Operator::TopK).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopK {
    /// The axis.
    pub axis: u32,
    /// Greatest instead of least.
    pub largest: bool,
    /// Stands for k in shapes.
    pub k: Dim,
}

/// Attributes of [`Operator::Downsample`](crate::graph::Operator::Downsample).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Downsample {
    /// The axis.
    pub axis: u32,
    /// Every how many elements; negative to walk backwards.
    pub stride: i64,
    /// Elements skipped first.
    pub modulo: u64,
}
