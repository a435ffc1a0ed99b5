//! Limits on the shapes and dimensions that tract may compute with.
//!
//! tract visits dimensions and the axes of shapes recursively, and expands products of sums. A few
//! hundred bytes of a model can therefore take hours or exhaust the stack. No model that does
//! useful work comes near these limits.

use tract_core::internal::*;

/// The maximum number of axes. tract simplifies reshapes recursively, axis by axis.
const MOST_AXES: usize = 16;

/// The maximum number of divisions in a dimension. To simplify a dimension, tract tries a number of
/// forms that doubles with each division.
const MOST_DIVISIONS: usize = 16;

/// The maximum nesting of a dimension. tract visits dimensions recursively.
const MOST_NESTED: usize = 64;

/// The maximum number of numbers and symbols in a dimension.
const MOST_TERMS: usize = 64;

/// The maximum number of numbers and symbols in all unknown sizes of the inputs of a node.
const MOST_OPERAND_TERMS: usize = 1024;

/// The maximum nesting of minima, maxima and broadcasts. tract compares each pair of their terms,
/// and bounds each term in turn.
const MOST_CHOICES: usize = 3;

/// The maximum number of terms of a dimension, or of the product of a shape, after tract has
/// multiplied its sums.
const MOST_EXPANDED: usize = 256;

/// The maximum product of nested divisors. tract multiplies them without a check.
const MOST_DIVIDED: u64 = 1 << 31;

/// The size of a dimension, as far as the time depends on it that tract takes to compute with it.
#[derive(Clone, Copy, Debug)]
struct Measure {
    divisions: usize,
    nested: usize,
    terms: usize,
    choices: usize,
    /// The number of terms after products of sums are expanded.
    expanded: usize,
    /// The product of nested divisors.
    divided: u64,
}

/// A number or a symbol.
const LEAF: Measure =
    Measure { divisions: 0, nested: 1, terms: 1, choices: 0, expanded: 1, divided: 1 };

/// Checks the number of axes of a shape.
pub(super) fn check_rank(rank: usize) -> Result<(), &'static str> {
    if rank <= MOST_AXES { Ok(()) } else { Err("it has a shape of more than 16 axes") }
}

/// Checks that tract can multiply the dimensions of a shape.
pub(super) fn check_shape(shape: &[TDim]) -> Result<(), &'static str> {
    check_rank(shape.len())?;
    check_dims(std::iter::once(shape))
}

/// Checks that tract can combine the dimensions of these shapes: the dimensions of each shape, and
/// the dimensions of the same axis of all shapes.
pub(super) fn check_shapes<'d>(
    shapes: impl Iterator<Item = &'d [TDim]> + Clone,
) -> Result<(), &'static str> {
    shapes.clone().try_for_each(|shape| check_rank(shape.len()))?;
    check_dims(shapes)
}

/// Checks dimensions like [`check_shapes`], without a limit on their number.
pub(super) fn check_dims<'d>(shapes: impl Iterator<Item = &'d [TDim]>) -> Result<(), &'static str> {
    let mut of_axes: TVec<usize> = tvec!();
    let mut terms = 0usize;
    for shape in shapes {
        let (mut divisions, mut expanded) = (0usize, 1usize);
        of_axes.resize(of_axes.len().max(shape.len()), 0);
        for (dim, of_axis) in shape.iter().zip(&mut of_axes) {
            if matches!(dim, TDim::Val(_)) {
                continue;
            }
            let measure = check_dim(dim)?;
            divisions = divisions.saturating_add(measure.divisions);
            *of_axis = of_axis.saturating_add(measure.divisions);
            terms = terms.saturating_add(measure.terms);
            expanded = expanded.saturating_mul(measure.expanded);
        }
        if divisions > MOST_DIVISIONS {
            return Err("a dimension has too many divisions");
        }
        if expanded > MOST_EXPANDED {
            return Err("the product of its dimensions has too many terms");
        }
    }
    if of_axes.iter().any(|divisions| *divisions > MOST_DIVISIONS) {
        return Err("a dimension has too many divisions");
    }
    if terms > MOST_OPERAND_TERMS {
        return Err("its dimensions have too many terms");
    }
    Ok(())
}

/// Removes the expression that tract keeps for the elements of a value if it is large. tract
/// computes with it, but does not need it.
pub(super) fn bound_elements(fact: &mut TypedFact) {
    fact.uniform_tdim.take_if(|dim| check_dim(dim).is_err());
}

fn check_dim(dim: &TDim) -> Result<Measure, &'static str> {
    let measure = measure(dim, MOST_NESTED).ok_or("a dimension nests too deeply")?;
    if measure.divisions > MOST_DIVISIONS {
        return Err("a dimension has too many divisions");
    }
    if measure.divided > MOST_DIVIDED {
        return Err("a dimension is divided by too large numbers");
    }
    if measure.terms > MOST_TERMS || measure.expanded > MOST_EXPANDED {
        return Err("a dimension has too many terms");
    }
    if measure.choices > MOST_CHOICES {
        return Err("a dimension nests too many minima and maxima");
    }
    Ok(measure)
}

/// Measures a dimension, or returns `None` beyond `most` levels.
fn measure(dim: &TDim, most: usize) -> Option<Measure> {
    let most = most.checked_sub(1)?;
    let all = |dims: &mut dyn Iterator<Item = &TDim>, product: bool| {
        let mut all = Measure { terms: 0, nested: 0, expanded: usize::from(product), ..LEAF };
        for dim in dims {
            let of_dim = measure(dim, most)?;
            all.divisions = all.divisions.saturating_add(of_dim.divisions);
            all.terms = all.terms.saturating_add(of_dim.terms);
            all.nested = all.nested.max(of_dim.nested);
            all.choices = all.choices.max(of_dim.choices);
            all.divided = all.divided.max(of_dim.divided);
            all.expanded = match product {
                true => all.expanded.saturating_mul(of_dim.expanded),
                false => all.expanded.saturating_add(of_dim.expanded),
            };
        }
        Some(Measure { nested: all.nested + 1, ..all })
    };
    let choice = |all: Measure| Measure { choices: all.choices + 1, ..all };
    match dim {
        TDim::Val(_) | TDim::Sym(_) => Some(LEAF),
        TDim::Add(dims) => all(&mut dims.iter(), false),
        TDim::Mul(dims) => all(&mut dims.iter(), true),
        TDim::Min(dims) | TDim::Max(dims) => all(&mut dims.iter(), false).map(choice),
        TDim::Broadcast(dims) => all(&mut dims.iter(), false).map(choice),
        TDim::MulInt(_, dim) => all(&mut std::iter::once(&**dim), false),
        TDim::Ge(left, right) | TDim::Eq(left, right) => {
            all(&mut [&**left, &**right].into_iter(), false).map(choice)
        }
        TDim::Div(dim, divisor) => {
            let of_dim = all(&mut std::iter::once(&**dim), false)?;
            let divided = of_dim.divided.saturating_mul(*divisor);
            // A quotient is one term of a sum, whatever is divided.
            Some(Measure { divisions: of_dim.divisions + 1, divided, ..of_dim })
        }
    }
}
