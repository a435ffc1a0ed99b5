//! Operators that write elements by index.

use super::{element_offsets, tuple_offsets};
use crate::call::Call;
use crate::error::Problem;
use crate::shape;
use crate::tensor::{Data, Element, Tensor, with_data};
use crate::value::Value;

/// Writes one element for each index; the place of the index is the index in the other axes.
pub(super) fn scatter_elements(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let (x, indices, updates) = (call.tensor(0)?, call.tensor(1)?, call.tensor(2)?);
    let axis = shape::axis(call.int_or("axis", 0)?, x.rank())?;
    check_updates(updates, indices.shape())?;
    let targets = element_offsets(x, indices, axis)?;
    Ok(vec![scatter(x, updates, &targets, 1, reduction(call)?)?.into()])
}

/// Writes a slice for each tuple of indices of the leading axes.
pub(super) fn scatter_nd(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let (x, indices, updates) = (call.tensor(0)?, call.tensor(1)?, call.tensor(2)?);
    let split = indices.shape().split_last();
    let slices =
        split.and_then(|(length, places)| Some((*length, places, x.shape().get(*length..)?)));
    let (length, places, inner) = slices.ok_or_else(|| Problem::InputShape {
        index: 1,
        shape: indices.shape().to_vec(),
        expected: format!("have tuples of at most {} indices in its last axis", x.rank()),
    })?;
    check_updates(updates, &[places, inner].concat())?;
    let targets = match length {
        0 if updates.is_empty() => Vec::new(),
        0 => vec![0; shape::elements(places)?],
        _ => tuple_offsets(&indices.to_i64()?, length, x.shape())?,
    };
    let reduction = reduction(call)?;
    Ok(vec![scatter(x, updates, &targets, shape::elements(inner)?, reduction)?.into()])
}

/// Writes consecutive slices of the sequence axis from a given index on, for each batch element.
pub(super) fn tensor_scatter(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let (x, updates) = (call.tensor(0)?, call.tensor(1)?);
    let axis = shape::axis(call.int_or("axis", -2)?, x.rank())?;
    let circular = match call.text("mode")?.unwrap_or("linear") {
        "linear" => false,
        "circular" => true,
        mode => {
            return Err(Problem::AttributeValue {
                name: "mode",
                value: mode.into(),
                accepted: "linear or circular",
            });
        }
    };
    let (batch, size) = match x.shape().first() {
        Some(batch) if axis > 0 => (*batch, x.shape()[axis]),
        _ => return Err(Problem::Invalid("the sequence axis cannot be the batch axis".into())),
    };
    let length = updates.shape().get(axis).copied().unwrap_or(0);
    let mut expected = x.shape().to_vec();
    expected[axis] = length.min(size);
    check_updates(updates, &expected)?;
    let starts = call.optional_ints(2)?.unwrap_or_else(|| vec![0; batch.min(updates.len())]);
    if updates.is_empty() {
        return Ok(vec![x.clone().into()]);
    }
    if starts.len() != batch {
        return Err(Problem::InputShape {
            index: 2,
            shape: vec![starts.len()],
            expected: format!("have one element for each of {batch} batch elements"),
        });
    }
    let block = shape::elements(&x.shape()[axis + 1..])?;
    let rows = shape::elements(&x.shape()[..axis])?;
    let mut targets = Vec::with_capacity(shape::elements(&[rows, length])?);
    for row in 0..rows {
        let start = starts[row / (rows / batch)];
        for step in 0..length {
            let index = match circular {
                true => (i128::from(start) + step as i128).rem_euclid(size as i128) as i64,
                false => start.saturating_add(step as i64),
            };
            let place = usize::try_from(index).ok().filter(|place| *place < size);
            let place = place.ok_or(Problem::Index { index, size })?;
            targets.push((row * size + place) * block);
        }
    }
    Ok(vec![scatter(x, updates, &targets, block, Reduction::None)?.into()])
}

fn check_updates(updates: &Tensor, expected: &[usize]) -> Result<(), Problem> {
    match updates.shape() == expected {
        true => Ok(()),
        false => Err(Problem::Invalid(format!(
            "the updates have shape {:?}; it must be {expected:?}",
            updates.shape()
        ))),
    }
}

/// How an update combines with the element that is there.
#[derive(Clone, Copy, PartialEq)]
enum Reduction {
    None,
    Add,
    Mul,
    Max,
    Min,
}

fn reduction(call: &Call<'_>) -> Result<Reduction, Problem> {
    Ok(match call.text("reduction")?.unwrap_or("none") {
        "none" => Reduction::None,
        "add" => Reduction::Add,
        "mul" => Reduction::Mul,
        "max" => Reduction::Max,
        "min" => Reduction::Min,
        other => {
            return Err(Problem::AttributeValue {
                name: "reduction",
                value: other.into(),
                accepted: "none, add, mul, max or min",
            });
        }
    })
}

/// Writes blocks of `size` updates to the given offsets, one after another.
fn scatter(
    x: &Tensor,
    updates: &Tensor,
    targets: &[usize],
    size: usize,
    reduction: Reduction,
) -> Result<Tensor, Problem> {
    fn replace<T: Element>(
        values: &[T],
        updates: &Tensor,
        targets: &[usize],
        size: usize,
    ) -> Result<Data, Problem> {
        let updates = T::slice(updates.data()).unwrap_or(&[]);
        let replaced = fold(values.to_vec(), updates, (targets, size), |_, new| new.clone());
        Ok(T::store(replaced?))
    }
    if x.element() != updates.element() {
        return Err(Problem::MixedTypes { first: x.element(), second: updates.element() });
    }
    if updates.is_empty() {
        return Ok(x.clone());
    }
    let (element, shape) = (x.element(), x.shape().to_vec());
    let to = (targets, size);
    let real = "a real number";
    match (reduction, x.data()) {
        (Reduction::None, data) => {
            let data = with_data!(data, values => replace(values, updates, targets, size))?;
            Tensor::with_type(element, shape, data)
        }
        (_, Data::Complex64(_) | Data::Complex128(_)) => {
            let combine = match reduction {
                Reduction::Add => |a: &[f64; 2], b: &[f64; 2]| [a[0] + b[0], a[1] + b[1]],
                Reduction::Mul => |a: &[f64; 2], b: &[f64; 2]| {
                    [a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]]
                },
                _ => return Err(Problem::ElementType { found: element, accepted: real }),
            };
            let values = fold(complex(x), &complex(updates), to, combine)?;
            let data = match x.data() {
                Data::Complex128(_) => Data::Complex128(values),
                _ => Data::Complex64(values.iter().map(|v| [v[0] as f32, v[1] as f32]).collect()),
            };
            Tensor::with_type(element, shape, data)
        }
        _ if element.is_float() => {
            let values = fold(x.to_f64()?, &updates.to_f64()?, to, |a, b| match reduction {
                Reduction::None => *b,
                Reduction::Add => a + b,
                Reduction::Mul => a * b,
                // `NaN` stays.
                Reduction::Max => {
                    if a > b || a.is_nan() {
                        *a
                    } else {
                        *b
                    }
                }
                Reduction::Min => {
                    if a < b || a.is_nan() {
                        *a
                    } else {
                        *b
                    }
                }
            })?;
            Tensor::from_f64(element, shape, values)
        }
        (_, Data::Text(_)) => Err(Problem::ElementType { found: element, accepted: real }),
        _ => {
            let values = fold(x.to_i128()?, &updates.to_i128()?, to, |a, b| match reduction {
                Reduction::None => *b,
                Reduction::Add => a.wrapping_add(*b),
                Reduction::Mul => a.wrapping_mul(*b),
                Reduction::Max => *a.max(b),
                Reduction::Min => *a.min(b),
            })?;
            Tensor::from_i128(element, shape, values)
        }
    }
}

/// Combines blocks of updates with the values at the targets, in order.
fn fold<T>(
    mut values: Vec<T>,
    updates: &[T],
    (targets, size): (&[usize], usize),
    combine: impl Fn(&T, &T) -> T,
) -> Result<Vec<T>, Problem> {
    let len = values.len();
    for (target, block) in targets.iter().zip(updates.chunks(size.max(1))) {
        let place = values.get_mut(*target..target.saturating_add(size));
        let place = place.ok_or(Problem::Offset { offset: *target, len })?;
        for (value, update) in place.iter_mut().zip(block) {
            *value = combine(value, update);
        }
    }
    Ok(values)
}

/// Returns complex numbers in double precision; nothing for other numbers.
fn complex(x: &Tensor) -> Vec<[f64; 2]> {
    match x.data() {
        Data::Complex64(values) => values.iter().map(|v| v.map(f64::from)).collect(),
        Data::Complex128(values) => values.clone(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Attribute;
    use crate::operators::reshape::tests::evaluate;

    /// Reduces two updates to the second of two elements.
    fn reduced<T: Element>(x: T, updates: [T; 2], reduction: &str) -> Option<T> {
        let operands = vec![
            Tensor::vector(vec![T::default(), x]),
            Tensor::vector(vec![-1i32, 1]),
            Tensor::vector(updates.to_vec()),
        ];
        let attributes = [("reduction", Attribute::Text(reduction.into()))];
        let y = evaluate("ScatterElements", 18, operands, &attributes).ok()?;
        y.first()?.slice::<T>()?.get(1).cloned()
    }

    #[test]
    fn reductions_keep_the_arithmetic_of_the_type() {
        assert_eq!(reduced(i64::MAX, [1, 1], "add"), Some(i64::MIN + 1));
        assert_eq!(reduced(200u8, [2, 3], "mul"), Some(176));
        assert_eq!(reduced(u64::MAX, [1, 0], "max"), Some(u64::MAX));
        assert_eq!(reduced(true, [true, false], "add"), Some(true));
        assert_eq!(reduced(true, [true, false], "mul"), Some(false));
        assert_eq!(reduced([1f32, 1.0], [[0.0, 1.0]; 2], "mul"), Some([-1.0, -1.0]));
        assert_eq!(reduced([1f64, 1.0], [[0.0, 1.0]; 2], "max"), None);
        assert!(reduced(f32::NAN, [1.0, 2.0], "max").is_some_and(f32::is_nan));
        assert!(reduced(1.0, [f32::NAN, 0.0], "min").is_some_and(f32::is_nan));
        // The sum is rounded once.
        let small = half::bf16::from_f32(1.0 / 256.0);
        let sum = reduced(half::bf16::ONE, [small, small], "add");
        assert_eq!(sum, Some(half::bf16::from_f32(1.0 + 1.0 / 128.0)));
        assert_eq!(reduced("a".to_string(), ["b", "c"].map(Into::into), "add"), None);
        assert_eq!(reduced("a".to_string(), ["b", "c"].map(Into::into), "none"), Some("c".into()));
    }

    #[test]
    fn cache_updates_wrap_around_only_in_a_circle() {
        let scattered = |start: i64, mode: &str| {
            let cache = Tensor::new(vec![1, 3, 1], vec![0u8; 3]).ok()?;
            let update = Tensor::new(vec![1, 2, 1], vec![1u8, 2]).ok()?;
            let operands = vec![cache, update, Tensor::vector(vec![start])];
            let attributes = [("mode", Attribute::Text(mode.into()))];
            let y = evaluate("TensorScatter", 24, operands, &attributes).ok()?;
            y.first()?.slice::<u8>().map(<[u8]>::to_vec)
        };
        assert_eq!(scattered(1, "linear"), Some(vec![0, 1, 2]));
        assert_eq!(scattered(2, "linear"), None);
        assert_eq!(scattered(-1, "linear"), None);
        assert_eq!(scattered(i64::MAX, "linear"), None);
        assert_eq!(scattered(5, "circular"), Some(vec![2, 0, 1]));
    }
}
