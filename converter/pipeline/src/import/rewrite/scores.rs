//! What operators of classic machine learning (`ai.onnx.ml`) share: class labels, and the
//! transforms of scores.

use hardtack::Tensor;
use tract_onnx::pb::NodeProto;

use super::emit::Emit;
use crate::import::ImportError;
use crate::import::node::{Node, int};

/// The domain of these operators.
pub(crate) const DOMAIN: &str = "ai.onnx.ml";

pub(crate) fn input(node: &NodeProto) -> Result<&str, ImportError> {
    node.given(0).ok_or_else(|| node.wrong("its input is missing"))
}

pub(crate) fn output(node: &NodeProto) -> Result<&str, ImportError> {
    node.wanted(0).ok_or_else(|| node.wrong("its output is missing"))
}

/// The transformation of scores.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transform {
    None,
    Softmax,
    Logistic,
}

impl Transform {
    /// Reads the attribute `post_transform`.
    pub(crate) fn of(node: &NodeProto) -> Result<Transform, ImportError> {
        match node.text("post_transform").unwrap_or("NONE") {
            "NONE" => Ok(Transform::None),
            "SOFTMAX" => Ok(Transform::Softmax),
            "LOGISTIC" => Ok(Transform::Logistic),
            other => Err(node.wrong(format!(
                "post_transform {other} is not supported; use NONE, SOFTMAX or LOGISTIC"
            ))),
        }
    }

    /// Emits the transformation of scores of shape `[n, classes]`.
    pub(crate) fn last(
        self,
        node: &NodeProto,
        emit: &mut Emit<'_>,
        scores: &str,
        output: &str,
    ) -> Result<(), ImportError> {
        match self {
            Transform::None => emit.last("Identity", &[scores], output, vec![]),
            Transform::Softmax => emit.last("Softmax", &[scores], output, vec![int("axis", 1)]),
            Transform::Logistic => emit.last("Sigmoid", &[scores], output, vec![]),
        }
        if output.is_empty() { Err(node.wrong("its output is missing")) } else { Ok(()) }
    }
}

/// Emits label and scores of a binary classifier from the score `s` of the second class. The first
/// class's score is `-s` if the threshold is 0, and `1 - s` otherwise.
pub(crate) fn two_classes(
    node: &NodeProto,
    emit: &mut Emit<'_>,
    score: &str,
    transform: Transform,
    threshold: f32,
    labels: &Labels,
) -> Result<(), ImportError> {
    let complement = |emit: &mut Emit<'_>, p: &str| {
        let one = emit.constant("one", &Tensor::scalar(1f32));
        emit.node("Sub", &[&one, p], vec![])
    };
    let axis = || vec![int("axis", 1)];
    let first = match threshold {
        0.0 => emit.node("Neg", &[score], vec![]),
        _ => complement(emit, score),
    };
    let both = emit.node("Concat", &[&first, score], axis());
    labels.choose(node, emit, &both)?;
    let Some(output) = node.wanted(1) else { return Ok(()) };
    match transform {
        Transform::Logistic => {
            let second = emit.node("Sigmoid", &[score], vec![]);
            let first = complement(emit, &second);
            emit.last("Concat", &[&first, &second], output, axis());
            Ok(())
        }
        other => other.last(node, emit, &both, output),
    }
}

/// The classes of a classifier.
pub(crate) enum Labels {
    Integers(Vec<i64>),
    Texts(Vec<String>),
}

impl Labels {
    /// Reads the labels of a classifier. `integers` is the name of the attribute of integer labels.
    pub(crate) fn of(node: &NodeProto, integers: &str) -> Result<Labels, ImportError> {
        let labels = match (node.ints(integers), node.texts("classlabels_strings")) {
            ([], texts) if !texts.is_empty() => Labels::Texts(texts),
            (integers, _) => Labels::Integers(integers.into()),
        };
        if labels.len() == 0 { Err(node.wrong("it has no labels")) } else { Ok(labels) }
    }

    /// Returns the number of classes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Labels::Integers(labels) => labels.len(),
            Labels::Texts(labels) => labels.len(),
        }
    }

    /// Emits the node's first output: the label of the greatest score. `scores` has shape
    /// `[n, classes]`.
    pub(crate) fn choose(
        &self,
        node: &NodeProto,
        emit: &mut Emit<'_>,
        scores: &str,
    ) -> Result<(), ImportError> {
        let Some(output) = node.wanted(0) else { return Ok(()) };
        let attributes = vec![int("axis", 1), int("keepdims", 0)];
        match self {
            Labels::Integers(labels) if !labels.iter().copied().eq(0..labels.len() as i64) => {
                let index = emit.node("ArgMax", &[scores], attributes);
                let labels = emit.list("labels", labels);
                emit.last("Gather", &[&labels, &index], output, vec![int("axis", 0)]);
            }
            Labels::Integers(_) => emit.last("ArgMax", &[scores], output, attributes),
            Labels::Texts(labels) => {
                emit.last("ArgMax", &[scores], output, attributes);
                keep_labels(emit, labels.clone(), output);
            }
        }
        Ok(())
    }
}

/// Records the string labels of an output that becomes a class index.
pub(crate) fn keep_labels(emit: &mut Emit<'_>, labels: Vec<String>, output: &str) {
    emit.context.labels = labels;
    emit.context.note(format!("output {output:?} is the class index instead of the class name"));
}
