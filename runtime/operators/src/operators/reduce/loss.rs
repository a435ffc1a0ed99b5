//! Loss functions.

use super::lanes::{Lanes, log_softmax};
use crate::call::{Call, Operator};
use crate::error::Problem;
use crate::operators::unary::scalar::{Float, refused, with_float};
use crate::shape;
use crate::tensor::Tensor;
use crate::value::Value;

/// Returns the implementation of an operator of this part.
pub(super) fn find(name: &str) -> Option<Operator> {
    Some(match name {
        "NegativeLogLikelihoodLoss" => negative_log_likelihood,
        "SoftmaxCrossEntropyLoss" => softmax_cross_entropy,
        _ => return None,
    })
}

/// Computes the loss of log-probabilities `[N, C, …]` for targets `[N, …]`.
fn negative_log_likelihood(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    Ok(vec![loss(call, &scores(call)?)?.into()])
}

/// Computes the loss of scores `[N, C, …]` for labels `[N, …]`, and the log-probabilities.
fn softmax_cross_entropy(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let lanes = Lanes::along(x.shape(), 1)?;
    let log_probabilities = lanes.map(&scores(call)?, |x| x, |x| *x, log_softmax);
    let loss = loss(call, &log_probabilities)?;
    Ok(vec![loss.into(), narrow(x, x.shape().to_vec(), &log_probabilities)?.into()])
}

/// Returns the first operand, which has the classes along axis 1.
fn scores(call: &Call<'_>) -> Result<Vec<f64>, Problem> {
    let x = call.tensor(0)?;
    if x.rank() < 2 {
        return Err(Problem::InputShape {
            index: 0,
            shape: x.shape().to_vec(),
            expected: "have an axis of samples and an axis of classes".into(),
        });
    }
    x.to_f64()
}

/// Creates a tensor with the element type of the scores.
fn narrow(scores: &Tensor, shape: Vec<usize>, values: &[f64]) -> Result<Tensor, Problem> {
    let result = with_float!(scores.element(), T => {
        Tensor::new(shape, values.iter().map(|value| T::narrow(*value)).collect())
    });
    let accepted = "a floating-point type of 16 bits or more";
    result.unwrap_or_else(|| Err(refused(0, scores, accepted)))
}

/// Computes the weighted loss of each sample, and reduces the losses as the call says.
fn loss(call: &Call<'_>, log_probabilities: &[f64]) -> Result<Tensor, Problem> {
    let (x, targets) = (call.tensor(0)?, call.tensor(1)?);
    let [samples, classes, positions @ ..] = x.shape() else {
        return Err(Problem::Axis { axis: 1, rank: x.rank() });
    };
    let mut shape = vec![*samples];
    shape.extend_from_slice(positions);
    if targets.shape() != shape {
        return Err(Problem::InputShape {
            index: 1,
            shape: targets.shape().to_vec(),
            expected: format!("be {shape:?}"),
        });
    }
    let weights = weights(call, *classes)?;
    let ignored = call.int("ignore_index")?;
    let positions = shape::elements(positions)?.max(1);
    let (mut losses, mut total_weight) = (Vec::with_capacity(targets.len()), 0.0);
    for (index, target) in targets.to_i64()?.into_iter().enumerate() {
        if Some(target) == ignored {
            losses.push(0.0);
            continue;
        }
        let wrong = Problem::Index { index: target, size: *classes };
        let class = usize::try_from(target).ok().filter(|class| class < classes).ok_or(wrong)?;
        let weight = weights.as_ref().map_or(Some(1.0), |weights| weights.get(class).copied());
        let (sample, position) = (index / positions, index % positions);
        // Both products are at most the number of elements.
        let offset = (sample * classes + class) * positions + position;
        let len = log_probabilities.len();
        let found = weight.zip(log_probabilities.get(offset));
        let (weight, log_probability) = found.ok_or(Problem::Offset { offset, len })?;
        losses.push(-log_probability * weight);
        total_weight += weight;
    }
    let sum = losses.iter().sum::<f64>();
    match call.text("reduction")?.unwrap_or("mean") {
        "none" => narrow(x, shape, &losses),
        "sum" => narrow(x, vec![], &[sum]),
        "mean" => narrow(x, vec![], &[sum / total_weight]),
        other => Err(Problem::AttributeValue {
            name: "reduction",
            value: format!("{other:?}"),
            accepted: "\"none\", \"sum\" or \"mean\"",
        }),
    }
}

/// Returns the weights of the classes if the call has them.
fn weights(call: &Call<'_>, classes: usize) -> Result<Option<Vec<f64>>, Problem> {
    let Some(weights) = call.optional_tensor(2)? else {
        return Ok(None);
    };
    if weights.shape() != [classes] {
        return Err(Problem::InputShape {
            index: 2,
            shape: weights.shape().to_vec(),
            expected: format!("be [{classes}]"),
        });
    }
    weights.to_f64().map(Some)
}
