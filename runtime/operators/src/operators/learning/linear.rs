//! Linear models.

use crate::call::Call;
use crate::element_type::ElementType;
use crate::error::Problem;
use crate::meter;
use crate::shape;
use crate::tensor::Tensor;
use crate::value::Value;

use super::scores::Transform;
use super::{Matrix, classified, floats, labels, largest, pair, some_floats};

/// Returns the scores of all examples, a matrix with one column per target, rounded to `f32`.
fn linear(x: &Matrix, weights: &[f32], bias: &[f32], targets: usize) -> Result<Vec<f64>, Problem> {
    shape::elements(&[x.rows, targets])?;
    if weights.len() != targets.saturating_mul(x.columns) {
        return Err(Problem::Invalid(format!(
            "there are {} coefficients; {targets} targets of {} features need {}",
            weights.len(),
            x.columns,
            targets.saturating_mul(x.columns)
        )));
    }
    if !bias.is_empty() && bias.len() != targets {
        return Err(Problem::Invalid(format!(
            "there are {} intercepts for {targets} targets",
            bias.len()
        )));
    }
    let mut scores = Vec::with_capacity(x.rows * targets);
    for row in x.iter() {
        meter::spend((targets as u64).saturating_mul(x.columns as u64 + 1))?;
        for target in 0..targets {
            let weights = weights.iter().skip(target * x.columns);
            let products = row.iter().zip(weights).map(|(x, w)| x * f64::from(*w));
            let sum = products.sum::<f64>() + f64::from(bias.get(target).copied().unwrap_or(0.0));
            scores.push(f64::from(sum as f32));
        }
    }
    Ok(scores)
}

/// Classifies examples by linear functions of their features.
pub(super) fn linear_classifier(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = Matrix::read(call)?;
    let weights = some_floats(call, "coefficients")?;
    let bias = floats(call, "intercepts")?;
    let labels = labels(call, "classlabels_strings", "classlabels_ints")?;
    let transform = Transform::read(call)?;
    let targets = match bias.len() {
        0 => weights.len().checked_div(x.columns).unwrap_or(labels.len()),
        targets => targets,
    };
    let mut scores = linear(&x, weights, bias, targets)?;
    if targets == 1 {
        let classes = scores.iter().map(|score| usize::from(*score > 0.0)).collect();
        let two = labels.len() == 2;
        let transformed = |score: &f64| match two {
            true => transform.apply_to_pair(*score, false).to_vec(),
            false => {
                let mut scores = vec![*score];
                transform.apply(&mut scores);
                scores
            }
        };
        let scores = scores.iter().flat_map(transformed).collect();
        return classified(&pair(labels), classes, 1 + usize::from(two), scores);
    }
    let rows = || scores.chunks_exact(targets.max(1));
    let classes = rows().map(largest).collect();
    scores.chunks_exact_mut(targets.max(1)).for_each(|row| transform.apply(row));
    classified(&labels, classes, targets, scores)
}

/// Predicts numbers by linear functions of the features.
pub(super) fn linear_regressor(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = Matrix::read(call)?;
    let targets = shape::size(call.int_or("targets", 1)?)?;
    let weights = some_floats(call, "coefficients")?;
    let mut scores = linear(&x, weights, floats(call, "intercepts")?, targets)?;
    let transform = Transform::read(call)?;
    scores.chunks_exact_mut(targets.max(1)).for_each(|row| transform.apply(row));
    Ok(vec![Tensor::from_f64(ElementType::F32, vec![x.rows, targets], scores)?.into()])
}
