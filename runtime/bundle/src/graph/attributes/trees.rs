//! Attributes of decision trees.

use serde::{Deserialize, Serialize};

/// What becomes of the summed leaf values of a [`TreeEnsemble`].
#[allow(missing_docs, reason = "the ONNX names say it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TreeTransform {
    None,
    Softmax,
    Logistic,
    SoftmaxZero,
    Probit,
}

/// How the leaf values of the trees are combined.
#[allow(missing_docs, reason = "the ONNX names say it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TreeAggregate {
    Sum,
    Average,
    Minimum,
    Maximum,
}

/// The test of a tree node: whether the feature is … the threshold, then the true branch.
#[allow(missing_docs, reason = "the ONNX names say it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TreeTest {
    LessOrEqual,
    Less,
    GreaterOrEqual,
    Greater,
    Equal,
    NotEqual,
}

/// Attributes of [`Operator::TreeEnsemble`](crate::graph::Operator::TreeEnsemble) (ai.onnx.ml). Inputs: x; then as constants, all of
/// equal length, one element a tree node: feature (u32), threshold (f32), test (u8, by
/// [`TreeTest`]), true branch (u32), false branch (u32), missing values take the true branch
/// (bool); then tree roots (u32); then, one element a leaf contribution, sorted by node: node
/// (u32), target (u32), weight (f32); then base values (f32, one a target, or none).
/// A node that is its own true branch is a leaf. Output: `[n, targets]` in f32.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeEnsemble {
    /// Number of outputs per row.
    pub targets: u32,
    /// How trees are combined.
    pub aggregate: TreeAggregate,
    /// Applied to the combined values.
    pub transform: TreeTransform,
    /// Whether one target stands for two classes: the output gets a column for each.
    pub binary: bool,
}
