//! The functions that have kernels.

use hardtack_bundle::graph;
use hardtack_kernels::float::{RowFunction, Unary};

/// Returns the kernel function of an operator, if there is one.
pub(crate) fn unary(function: graph::Unary) -> Option<Unary> {
    use graph::Unary as From;
    Some(match function {
        From::Abs => Unary::Abs,
        From::Negate => Unary::Negate,
        From::Square => Unary::Square,
        From::Sqrt => Unary::Sqrt,
        From::Reciprocal => Unary::Reciprocal,
        From::ReciprocalSqrt => Unary::ReciprocalSqrt,
        From::Exp => Unary::Exp,
        From::Ln => Unary::Ln,
        From::Tanh => Unary::Tanh,
        From::Sigmoid => Unary::Sigmoid,
        From::Erf => Unary::Erf,
        From::Sin => Unary::Sin,
        From::Cos => Unary::Cos,
        From::Silu => Unary::Silu,
        From::Gelu => Unary::Gelu,
        From::GeluApproximate => Unary::GeluTanh,
        From::HardSwish => Unary::HardSwish,
        From::LeakyRelu(slope) => Unary::LeakyRelu(slope),
        _ => return None,
    })
}

/// Returns the kernel function of a reduction, if there is one.
pub(crate) fn reducer(reducer: graph::Reducer) -> Option<RowFunction> {
    match reducer {
        graph::Reducer::Sum => Some(RowFunction::Sum),
        graph::Reducer::Maximum => Some(RowFunction::Maximum),
        graph::Reducer::Minimum => Some(RowFunction::Minimum),
        graph::Reducer::MeanOfSquares => Some(RowFunction::MeanOfSquares),
        _ => None,
    }
}
