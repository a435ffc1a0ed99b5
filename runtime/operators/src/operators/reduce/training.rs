//! Operators of training, which are not evaluated.

use crate::call::{Call, Operator};
use crate::error::Problem;
use crate::value::Value;

/// Returns the implementation of an operator of this part.
pub(super) fn find(domain: &str, name: &str) -> Option<Operator> {
    let known = matches!(name, "Adagrad" | "Adam" | "Gradient" | "Momentum");
    (domain == "ai.onnx.preview.training" && known).then_some(refuse as Operator)
}

/// Refuses the operator.
fn refuse(_: &Call<'_>) -> Result<Vec<Value>, Problem> {
    Err(Problem::Unsupported { reason: "it is for training" })
}
