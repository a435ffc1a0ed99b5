//! Operators that order elements.

use std::cmp::Ordering;

use half::{bf16, f16};

use super::reshape::movement::{blocks, strided};
use crate::call::{Call, Operator};
use crate::error::Problem;
use crate::shape;
use crate::tensor::{Element, Tensor, with_data};
use crate::value::Value;

/// Returns the implementation of an operator of this family.
pub(super) fn find(domain: &str, name: &str) -> Option<Operator> {
    Some(match (domain, name) {
        ("", "TopK") => top_k,
        ("", "Unique") => unique,
        _ => return None,
    })
}

/// A total order of elements. `NaN` equals itself and follows all numbers; zeros are equal.
trait Ordered: Element {
    fn order(&self, other: &Self) -> Ordering;
}

macro_rules! ordered {
    ($order:expr => $($rust:ty),*) => {$(
        impl Ordered for $rust {
            fn order(&self, other: &Self) -> Ordering {
                $order(self, other)
            }
        }
    )*};
}
ordered!(Ord::cmp => i8, i16, i32, i64, u8, u16, u32, u64, bool, String);
ordered!(float_order => f32, f64, f16, bf16);
ordered!(complex_order => [f32; 2], [f64; 2]);

fn float_order<T: PartialOrd>(a: &T, b: &T) -> Ordering {
    // Only `NaN` does not equal itself.
    a.partial_cmp(b).unwrap_or_else(|| a.partial_cmp(a).is_none().cmp(&b.partial_cmp(b).is_none()))
}

fn complex_order<T: PartialOrd>(a: &[T; 2], b: &[T; 2]) -> Ordering {
    let [(re, im), (other_re, other_im)] = [(&a[0], &a[1]), (&b[0], &b[1])];
    float_order(re, other_re).then_with(|| float_order(im, other_im))
}

/// Refuses narrow floats, whose codes are not in the order of their values.
fn check_type(x: &Tensor, accepted: &'static str) -> Result<(), Problem> {
    match x.element().is_narrow_float() {
        true => Err(Problem::InputType { index: 0, found: x.element(), accepted }),
        false => Ok(()),
    }
}

/// Returns the `k` largest or smallest elements along an axis in order, and their indices. Of equal
/// elements, the one with the lower index comes first.
fn top_k(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    /// Returns the places of the first `k` elements of a row.
    fn first<T: Ordered>(row: &[T], k: usize, largest: bool) -> Vec<usize> {
        let order = |a: &usize, b: &usize| {
            let (Some(x), Some(y)) = (row.get(*a), row.get(*b)) else { return a.cmp(b) };
            (if largest { y.order(x) } else { x.order(y) }).then(a.cmp(b))
        };
        let mut places: Vec<usize> = (0..row.len()).collect();
        if k < places.len() {
            places.select_nth_unstable_by(k, order);
            places.truncate(k);
        }
        places.sort_unstable_by(order);
        places
    }
    fn rows<T: Ordered>(values: &[T], size: usize, k: usize, largest: bool) -> Vec<usize> {
        values.chunks(size.max(1)).flat_map(|row| first(row, k, largest)).collect()
    }
    let x = call.tensor(0)?;
    check_type(x, "an integer, or a float of at least 16 bits")?;
    let axis = shape::axis(call.int_or("axis", -1)?, x.rank())?;
    let largest = call.flag("largest", true)?;
    let size = x.shape()[axis];
    let k = match call.version < 10 {
        true => call.int("k")?.ok_or(Problem::MissingAttribute { name: "k" })?,
        false => call.tensor(1)?.integer()?,
    };
    let k = usize::try_from(k).ok().filter(|k| *k <= size).ok_or_else(|| {
        Problem::Invalid(format!("K is {k}; it must be 0 to {size}, the size of the axis"))
    })?;
    let mut sizes = x.shape().to_vec();
    sizes[axis] = k;
    let outer = shape::elements(&x.shape()[..axis])?;
    let inner = shape::elements(&x.shape()[axis + 1..])?;
    // The rows along the axis one after another.
    let strides = [(outer, size.saturating_mul(inner)), (inner, 1), (size, inner)];
    let sorted = strided(x, vec![outer, inner, size], &strides)?;
    let places = with_data!(sorted.data(), values => rows(values, size, k, largest));
    let found = Tensor::new(vec![outer, inner, k], places.iter().map(|p| *p as i64).collect())?;
    // Back to the order of the axes.
    let back = [(outer, inner.saturating_mul(k)), (k, 1), (inner, k)];
    let indices = strided(&found, sizes.clone(), &back)?;
    let offsets = places.iter().enumerate().map(|(at, place)| at / k.max(1) * size + place);
    let values = sorted.select(vec![outer, inner, k], offsets)?;
    Ok(vec![strided(&values, sizes, &back)?.into(), indices.into()])
}

/// Returns the different elements, or the different slices of an axis; the index at which each
/// occurs first; for each slice of the input, its index in the result; and how often each occurs.
fn unique(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    /// Returns the rows by value, and equal ones by index.
    fn sort<T: Ordered>(values: &[T], count: usize, size: usize) -> (Vec<usize>, Vec<bool>) {
        let row = |index: usize| values.get(index * size..(index + 1) * size).unwrap_or(&[]);
        let order = |a: usize, b: usize| {
            let mut pairs = row(a).iter().zip(row(b)).map(|(x, y)| x.order(y));
            pairs.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
        };
        let mut rows: Vec<usize> = (0..count).collect();
        rows.sort_by(|a, b| order(*a, *b));
        let starts = rows.iter().enumerate().map(|(at, row)| match at.checked_sub(1) {
            Some(before) => order(rows[before], *row).is_ne(),
            None => true,
        });
        let starts = starts.collect();
        (rows, starts)
    }
    let x = call.tensor(0)?;
    check_type(x, "no float of fewer than 16 bits")?;
    let axis = call.int("axis")?.map(|axis| shape::axis(axis, x.rank())).transpose()?;
    let (outer, count, inner) = match axis {
        Some(axis) => (
            shape::elements(&x.shape()[..axis])?,
            x.shape()[axis],
            shape::elements(&x.shape()[axis + 1..])?,
        ),
        None => (1, x.len(), 1),
    };
    shape::elements(&[count])?;
    let size = shape::elements(&[outer, inner])?;
    // The slices one after another.
    let walk = [(count, inner), (outer, count.saturating_mul(inner)), (inner, 1)];
    let slices = strided(x, vec![count, outer, inner], &walk)?;
    let (rows, starts) = with_data!(slices.data(), values => sort(values, count, size));
    // Each group of equal rows has its first index, and its number of rows.
    let mut groups: Vec<(usize, i64)> = Vec::new();
    let mut group_of = vec![0; count];
    for (row, starts) in rows.iter().zip(starts) {
        if starts {
            groups.push((*row, 0));
        }
        let last = groups.len().saturating_sub(1);
        groups[last].1 += 1;
        group_of[*row] = last;
    }
    let mut order: Vec<usize> = (0..groups.len()).collect();
    if !call.flag("sorted", true)? {
        order.sort_by_key(|group| groups[*group].0);
    }
    let mut rank = vec![0i64; order.len()];
    order.iter().enumerate().for_each(|(at, group)| rank[*group] = at as i64);
    let (firsts, counts): (Vec<usize>, Vec<i64>) = order.iter().map(|group| groups[*group]).unzip();

    let found = firsts.len();
    let starts = firsts.iter().map(|first| first * size);
    let chosen = blocks(&slices, vec![found, outer, inner], size, starts)?;
    let mut sizes = axis.map_or(vec![found], |_| x.shape().to_vec());
    if let Some(axis) = axis {
        sizes[axis] = found;
    }
    let walk = [(outer, inner), (found, size), (inner, 1)];
    Ok(vec![
        strided(&chosen, sizes, &walk)?.into(),
        Tensor::vector(firsts.into_iter().map(|first| first as i64).collect::<Vec<_>>()).into(),
        Tensor::vector(group_of.into_iter().map(|group| rank[group]).collect::<Vec<_>>()).into(),
        Tensor::vector(counts).into(),
    ])
}

#[cfg(test)]
mod tests {
    use super::super::reshape::tests::outputs;
    use super::*;
    use crate::model::Attribute;

    #[test]
    fn nan_is_the_largest_and_ties_keep_their_order() {
        let x = [1.0, f32::NAN, 3.0, -0.0, f32::NAN, 0.0, f32::NEG_INFINITY].map(f16::from_f32);
        for (largest, expected) in [(1, [1, 4, 2, 0, 3]), (0, [6, 3, 5, 0, 2])] {
            let operands = vec![Tensor::vector(x.to_vec()), Tensor::vector(vec![5i64])];
            let attributes = [("largest", Attribute::Int(largest))];
            let found = outputs("TopK", 11, operands, &attributes, 2).unwrap();
            assert_eq!(found[1], Tensor::vector(expected.map(i64::from).to_vec()));
        }
    }

    #[test]
    fn unique_slices_may_hold_nan_or_nothing() {
        let x = Tensor::vector(vec![f64::NAN, 1.0, f64::NAN, 0.0, -0.0]);
        let found = outputs("Unique", 11, vec![x], &[], 4).unwrap();
        assert_eq!(found[1], Tensor::vector(vec![3i64, 1, 0]));
        assert_eq!(found[2], Tensor::vector(vec![2i64, 1, 2, 0, 0]));
        let x = Tensor::new(vec![0, 3], Vec::<String>::new()).unwrap();
        let found = outputs("Unique", 11, vec![x], &[("axis", Attribute::Int(-1))], 4).unwrap();
        assert_eq!(found[0].shape(), [0, 1]);
        assert_eq!(found[3], Tensor::vector(vec![3i64]));
        let x = Tensor::vector(vec![[1f32, 2.0], [1.0, -2.0], [1.0, 2.0]]);
        let found = outputs("Unique", 11, vec![x], &[("sorted", Attribute::Int(0))], 4).unwrap();
        assert_eq!(found[3], Tensor::vector(vec![2i64, 1]));
    }
}
