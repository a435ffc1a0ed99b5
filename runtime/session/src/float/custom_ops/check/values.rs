//! Checks of operand values.

use tract_core::internal::*;

use super::{Check, OperandError};

/// The maximum index or size; tract would truncate larger ones.
const MOST: i64 = i32::MAX as i64;

/// Diagonal offsets are clamped to this magnitude, which exceeds any matrix.
const FAR: i64 = 1 << 40;

/// Grid coordinates beyond this magnitude are reduced by periods of the reflection. At this
/// magnitude, f32 still resolves the elements of an axis of up to [`MOST_REFLECTED`] elements.
const NEAR: f32 = 16.0;

/// The maximum size of a reflected axis, so that coordinates near [`NEAR`] distinguish elements.
const MOST_REFLECTED: usize = 1 << 18;

type Replaced = Result<TVec<(usize, Tensor)>, OperandError>;

/// Returns no replacement.
fn kept() -> Replaced {
    Ok(tvec!())
}

impl Check {
    /// Checks the values of inputs with these shapes. Returns the operands that must be replaced.
    pub(super) fn values(
        &self,
        shapes: &[&[usize]],
        tensors: &[Option<&Tensor>],
        symbols: &SymbolValues,
    ) -> Replaced {
        let list = |input: usize| integers(input, tensors, symbols);
        match self {
            Check::Gather { axis }
            | Check::GatherElements { axis }
            | Check::ScatterElements { axis } => {
                let size = shapes[0][*axis];
                within(&list(1)?, *axis, size)
            }
            Check::GatherNd { batch_dims } => {
                tuples(shapes[1], list(1)?, &shapes[0][*batch_dims..], *batch_dims)
            }
            Check::ScatterNd => tuples(shapes[1], list(1)?, shapes[0], 0),
            Check::Range { limit } => range(tensors, symbols, *limit),
            Check::DynamicSlice { axis } => {
                let (start, end) = (one(1, list(1)?)?, one(2, list(2)?)?);
                let size = shapes[0][*axis];
                let most = i64::try_from(size).unwrap_or(i64::MAX).min(MOST);
                if !(0 <= start && start <= end && end <= most) {
                    return Err(OperandError::Slice { start, end, axis: *axis, size });
                }
                kept()
            }
            Check::StridedSlice { axes, steps } => {
                let axes = axes.map(list).transpose()?;
                let steps = steps.map(list).transpose()?;
                strided(shapes, [list(1)?, list(2)?], axes, steps)
            }
            Check::Tile { element, limit } => {
                tile(shapes[0], &list(1)?, *element, *limit)?;
                kept()
            }
            Check::Diagonal => {
                let index = one(1, list(1)?)?;
                let clamped = index.clamp(-FAR, FAR);
                let shape = shapes[1];
                let replaced = (clamped != index).then(|| replace(1, shape, &[clamped]));
                Ok(replaced.into_iter().collect())
            }
            Check::Reflection => reflection(shapes[0], tensors[1]),
            Check::Least(_) | Check::Window(_) | Check::Letters(_) => kept(),
        }
    }
}

/// Returns the elements of an integer operand.
fn integers(
    input: usize,
    tensors: &[Option<&Tensor>],
    symbols: &SymbolValues,
) -> Result<Vec<i64>, OperandError> {
    let symbolic = OperandError::Symbolic { input };
    let Some(tensor) = tensors.get(input).copied().flatten() else { return Err(symbolic) };
    let dtype = tensor.datum_type();
    let wrong = OperandError::NotIntegers { input, dtype };
    if dtype.is_tdim() {
        let view = tensor.try_as_plain_ram().ok();
        let dims = view.and_then(|view| view.as_slice::<TDim>().ok()).ok_or(wrong)?;
        let values: Option<Vec<i64>> = dims.iter().map(|dim| dim.eval(symbols).as_i64()).collect();
        return values.ok_or(symbolic);
    }
    if !dtype.is_integer() {
        return Err(wrong);
    }
    let cast = tensor.cast_to::<i64>().map_err(|_| wrong.clone())?;
    let view = cast.try_as_plain_ram().map_err(|_| wrong.clone())?;
    Ok(view.as_slice::<i64>().map_err(|_| wrong)?.to_vec())
}

fn one(input: usize, values: Vec<i64>) -> Result<i64, OperandError> {
    match values[..] {
        [value] => Ok(value),
        _ => Err(OperandError::Elements { input, given: values.len(), expected: 1 }),
    }
}

fn replace(input: usize, shape: &[usize], values: &[i64]) -> (usize, Tensor) {
    let tensor = Tensor::from_shape(shape, values).expect("the number of values is unchanged");
    (input, tensor)
}

/// Returns the index counted from the start. Negative indices count from the end.
fn resolve(index: i64, axis: usize, size: usize) -> Result<i64, OperandError> {
    let wrong = OperandError::Index { index, axis, size };
    let end = i64::try_from(size).ok().filter(|size| *size <= MOST).ok_or(wrong.clone())?;
    if (-end..end).contains(&index) {
        Ok(index + if index < 0 { end } else { 0 })
    } else {
        Err(wrong)
    }
}

/// Checks indices. tract resolves negative ones itself.
fn within(indices: &[i64], axis: usize, size: usize) -> Replaced {
    for index in indices {
        resolve(*index, axis, size)?;
    }
    kept()
}

/// Checks index tuples and replaces negative indices, which tract does not resolve.
fn tuples(shape: &[usize], mut indices: Vec<i64>, sizes: &[usize], first: usize) -> Replaced {
    let length = shape.last().copied().unwrap_or(0);
    if length == 0 {
        return kept();
    }
    let mut negative = false;
    for tuple in indices.chunks_exact_mut(length) {
        for (at, (index, size)) in tuple.iter_mut().zip(sizes).enumerate() {
            negative |= *index < 0;
            *index = resolve(*index, first + at, *size)?;
        }
    }
    Ok(negative.then(|| replace(1, shape, &indices)).into_iter().collect())
}

fn range(tensors: &[Option<&Tensor>], symbols: &SymbolValues, limit: u64) -> Replaced {
    let mut numbers = [0f64; 3];
    let (mut size, mut symbolic) = (0, false);
    for (input, number) in numbers.iter_mut().enumerate() {
        let Some(tensor) = tensors[input] else { return Err(OperandError::Symbolic { input }) };
        size = tensor.datum_type().size_of();
        let given = tensor.len();
        if given != 1 {
            return Err(OperandError::Elements { input, given, expected: 1 });
        }
        symbolic |= tensor.datum_type().is_tdim();
        *number = if tensor.datum_type().is_float() || tensor.datum_type() == DatumType::U64 {
            let cast = tensor.cast_to_scalar::<f64>();
            cast.map_err(|_| OperandError::Symbolic { input })?
        } else {
            one(input, integers(input, tensors, symbols)?)? as f64
        };
    }
    let [start, end, step] = numbers;
    if step == 0.0 {
        return Err(OperandError::NoStep);
    }
    // The same formula as in tract.
    let length = ((end - start) / step).ceil();
    // Of dimensions, tract takes the distance.
    let length = if symbolic { length.abs() + 1.0 } else { length };
    if !length.is_finite() {
        return Err(OperandError::NoLength { start, end, step });
    }
    let bytes = (length.max(0.0) as u64).saturating_mul(size as u64);
    if bytes > limit { Err(OperandError::TooLarge { bytes, limit }) } else { kept() }
}

/// Checks a strided slice. tract truncates starts to 32 bits, so they are clamped to that range.
fn strided(
    shapes: &[&[usize]],
    [starts, ends]: [Vec<i64>; 2],
    axes: Option<Vec<i64>>,
    steps: Option<Vec<i64>>,
) -> Replaced {
    let rank = shapes[0].len();
    let axes = axes.unwrap_or_else(|| (0..rank as i64).collect());
    let mut named = vec![false; rank];
    for axis in &axes {
        let at = if *axis < 0 { axis.saturating_add(rank as i64) } else { *axis };
        let at = usize::try_from(at).ok().filter(|at| *at < rank && !named[*at]);
        named[at.ok_or(OperandError::Axis { axis: *axis, rank })?] = true;
    }
    for (input, given) in [(1, starts.len()), (2, ends.len())] {
        if given > axes.len() {
            return Err(OperandError::Elements { input, given, expected: axes.len() });
        }
    }
    for (axis, step) in steps.iter().flatten().enumerate() {
        if *step == 0 || step.unsigned_abs() > MOST as u64 {
            return Err(OperandError::Step { step: *step, axis });
        }
    }
    let clamped: Vec<i64> = starts.iter().map(|start| (*start).clamp(-MOST, MOST)).collect();
    Ok((clamped != starts).then(|| replace(1, shapes[1], &clamped)).into_iter().collect())
}

/// Checks the counts of a tiling: one per axis, and the output within the limit. Sizes and counts
/// of 0 count as 1, because tract iterates over their repetitions too.
pub(in crate::float) fn tile(
    shape: &[usize],
    counts: &[i64],
    element: usize,
    limit: u64,
) -> Result<(), OperandError> {
    if counts.len() != shape.len() {
        let (given, expected) = (counts.len(), shape.len());
        return Err(OperandError::Elements { input: 1, given, expected });
    }
    let mut bytes = element as u64;
    for (axis, (count, size)) in counts.iter().zip(shape).enumerate() {
        if !(0..=MOST).contains(count) {
            return Err(OperandError::Repeats { axis, count: *count });
        }
        bytes = bytes.saturating_mul((*count).max(1) as u64).saturating_mul((*size).max(1) as u64);
    }
    if bytes > limit { Err(OperandError::TooLarge { bytes, limit }) } else { Ok(()) }
}

/// Reduces distant coordinates by periods of the reflection, so that rounding does not move them
/// out of the input.
fn reflection(shape: &[usize], grid: Option<&Tensor>) -> Replaced {
    for (axis, size) in shape.iter().enumerate().skip(2) {
        if *size == 0 {
            return Err(OperandError::Few { axis, size: 0, least: 1 });
        }
        if *size > MOST_REFLECTED {
            let most = MOST_REFLECTED;
            return Err(OperandError::Many { axis, size: *size, most });
        }
    }
    let symbolic = OperandError::Symbolic { input: 1 };
    let Some(grid) = grid else { return Err(symbolic) };
    let cast = grid.cast_to::<f32>().map_err(|_| symbolic.clone())?;
    let view = cast.try_as_plain_ram().map_err(|_| symbolic.clone())?;
    let values = view.as_slice::<f32>().map_err(|_| symbolic.clone())?;
    if values.iter().all(|value| value.abs() <= NEAR) {
        return kept();
    }
    // The coordinates of the input range from -1 to 1, so the period of the reflection is 4.
    // Infinite values become NaN, which tract reads as the first element.
    let near = |value: &f32| if value.abs() <= NEAR { *value } else { value % 4.0 };
    let values: Vec<f32> = values.iter().map(near).collect();
    let tensor = Tensor::from_shape(grid.shape(), &values);
    let tensor = tensor.and_then(|tensor| Ok(tensor.cast_to_dt(grid.datum_type())?.into_owned()));
    Ok(tvec!((1, tensor.map_err(|_| symbolic)?)))
}
