//! Attributes of decision trees.

use serde::{Deserialize, Serialize};

/// The function applied to the aggregated leaf values of a [`TreeEnsemble`].
#[allow(missing_docs, reason = "the ONNX names say it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TreeTransform {
    None,
    Softmax,
    Logistic,
    SoftmaxZero,
    Probit,
}

/// How the leaf values of the trees are aggregated.
#[allow(missing_docs, reason = "the ONNX names say it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TreeAggregate {
    Sum,
    Average,
    Minimum,
    Maximum,
}

/// The comparison of a tree node: if `feature … threshold` holds, follow the true branch.
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

/// Attributes of [`Operator::TreeEnsemble`](crate::graph::Operator::TreeEnsemble) (ai.onnx.ml).
///
/// The inputs are x, followed by these constants:
/// - one element per tree node: feature (u32), threshold (f32), test (u8, see [`TreeTest`]), true
///   branch (u32), false branch (u32), whether missing values take the true branch (bool);
/// - the tree roots (u32);
/// - one element per leaf contribution, sorted by node: node (u32), target (u32), weight (f32);
/// - the base values (f32; one per target, or none).
///
/// A node that is its own true branch is a leaf. The output is `[n, targets]` in f32.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeEnsemble {
    /// The number of outputs per row.
    pub targets: u32,
    /// How the leaf values of the trees are aggregated.
    pub aggregate: TreeAggregate,
    /// The function applied to the aggregated values.
    pub transform: TreeTransform,
    /// Whether one target represents two classes. The output then has a column for each class.
    pub binary: bool,
}
