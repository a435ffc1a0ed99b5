//! Transforms of the scores of a model.

use std::f64::consts::{PI, SQRT_2};

use crate::call::Call;
use crate::error::Problem;

/// A transform of the scores of one example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transform {
    None,
    Softmax,
    Logistic,
    SoftmaxZero,
    Probit,
}

impl Transform {
    /// Reads the transform from attribute `post_transform`, a string.
    pub(super) fn read(call: &Call<'_>) -> Result<Self, Problem> {
        Ok(match call.text("post_transform")?.unwrap_or("NONE") {
            "NONE" => Self::None,
            "SOFTMAX" => Self::Softmax,
            "LOGISTIC" => Self::Logistic,
            "SOFTMAX_ZERO" => Self::SoftmaxZero,
            "PROBIT" => Self::Probit,
            other => {
                return Err(Problem::AttributeValue {
                    name: "post_transform",
                    value: other.into(),
                    accepted: "NONE, SOFTMAX, LOGISTIC, SOFTMAX_ZERO or PROBIT",
                });
            }
        })
    }

    /// Reads the transform from attribute `post_transform`, a number.
    pub(super) fn read_number(call: &Call<'_>) -> Result<Self, Problem> {
        Ok(match call.int_or("post_transform", 0)? {
            0 => Self::None,
            1 => Self::Softmax,
            2 => Self::Logistic,
            3 => Self::SoftmaxZero,
            4 => Self::Probit,
            other => {
                return Err(Problem::AttributeValue {
                    name: "post_transform",
                    value: other.to_string(),
                    accepted: "0 to 4",
                });
            }
        })
    }

    /// Transforms the scores of one example.
    pub(super) fn apply(self, scores: &mut [f64]) {
        match self {
            Self::None => {}
            Self::Softmax => softmax(scores, |_| false),
            Self::SoftmaxZero => softmax(scores, |score| score.abs() <= 1e-7),
            Self::Logistic => scores.iter_mut().for_each(|score| *score = logistic(*score)),
            Self::Probit => scores.iter_mut().for_each(|score| *score = probit(*score)),
        }
    }

    /// Returns the scores of two classes that share one score. `centered` states that the score
    /// separates the classes at 0; otherwise it is a probability.
    pub(super) fn apply_to_pair(self, score: f64, centered: bool) -> [f64; 2] {
        let other = match self {
            Self::None if !centered => 1.0 - score,
            Self::Probit => 1.0 - score,
            _ => -score,
        };
        let mut scores = [other, score];
        self.apply(&mut scores);
        scores
    }
}

/// Divides the exponentials of the scores by their sum. A score that is `kept` stays near 0, and
/// does not count for the sum.
fn softmax(scores: &mut [f64], kept: impl Fn(f64) -> bool) {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        if kept(*score) {
            *score *= (-largest).exp();
        } else {
            *score = (*score - largest).exp();
            sum += *score;
        }
    }
    scores.iter_mut().for_each(|score| *score /= sum);
}

/// Returns the logistic function of a number.
pub(super) fn logistic(x: f64) -> f64 {
    let y = 1.0 / (1.0 + (-x.abs()).exp());
    if x < 0.0 { 1.0 - y } else { y }
}

/// Returns the quantile of the normal distribution, by the approximation of the inverse error
/// function that implementations of this domain share.
fn probit(p: f64) -> f64 {
    const A: f64 = 0.147;
    let x = 2.0 * p - 1.0;
    let log = ((1.0 - x) * (1.0 + x)).ln();
    let half = 2.0 / (PI * A) + 0.5 * log;
    let root = ((half * half - log / A).sqrt() - half).sqrt();
    SQRT_2 * root.copysign(x)
}
