//! Poolings, over windows and over regions.

use super::convolution::window::{Attributes, Axis};
use crate::call::{Call, Operator};
use crate::element_type::ElementType;
use crate::error::Problem;
use crate::meter::Tally;
use crate::shape;
use crate::tensor::Tensor;
use crate::value::Value;

/// Returns the implementation of an operator of this family.
pub(super) fn find(domain: &str, name: &str) -> Option<Operator> {
    Some(match (domain, name) {
        ("", "AveragePool") => average_pool,
        ("", "GlobalAveragePool") => global_average_pool,
        ("", "GlobalLpPool") => global_lp_pool,
        ("", "GlobalMaxPool") => global_max_pool,
        ("", "LpPool") => lp_pool,
        ("", "MaxPool") => max_pool,
        ("", "MaxRoiPool") => max_roi_pool,
        ("", "MaxUnpool") => max_unpool,
        _ => return None,
    })
}

/// Returns the average of each window.
fn average_pool(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let pool = Pool::read(call)?;
    let with_padding = call.flag("count_include_pad", false)?;
    let mut sums = pool.reduce(floats(pool.x)?, 0.0, |a, b| a + b)?;
    if sums.is_empty() {
        return Ok(vec![Tensor::from_f64(pool.x.element(), pool.shape, sums)?.into()]);
    }
    // The number of elements of a window is the product of its numbers along the axes.
    let mut counts = vec![1.0];
    for axis in &pool.axes {
        let along: Vec<f64> =
            (0..axis.output).map(|output| axis.taps(output, with_padding) as f64).collect();
        counts = counts.iter().flat_map(|count| along.iter().map(move |n| count * n)).collect();
    }
    for (sum, count) in sums.iter_mut().zip(counts.iter().cycle()) {
        *sum /= count;
    }
    Ok(vec![Tensor::from_f64(pool.x.element(), pool.shape, sums)?.into()])
}

/// Returns the p-norm of each window.
fn lp_pool(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let pool = Pool::read(call)?;
    let norm = Norm::read(call)?;
    let powers = floats(pool.x)?.into_iter().map(|value| norm.power(value)).collect();
    let sums = pool.reduce(powers, 0.0, |a, b| a + b)?;
    let norms = sums.into_iter().map(|sum| norm.root(sum)).collect();
    Ok(vec![Tensor::from_f64(pool.x.element(), pool.shape, norms)?.into()])
}

/// Returns the maximum of each window, and the index of its first occurrence. A window that
/// contains NaN has the maximum NaN.
fn max_pool(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let pool = Pool::read(call)?;
    let (x, element) = (pool.x, pool.x.element());
    let lowest = match element {
        ElementType::I8 => -128.0,
        ElementType::U8 => 0.0,
        _ => f64::NEG_INFINITY,
    };
    if !call.wants(1) {
        if let Some(values) = x.slice::<f32>() {
            let maxima = pool.reduce(values.to_vec(), f32::NEG_INFINITY, |a, b| {
                if b > a || b.is_nan() { b } else { a }
            })?;
            return Ok(vec![Tensor::new(pool.shape, maxima)?.into()]);
        }
        let maxima = pool.reduce(numbers(x)?, lowest, max)?;
        return Ok(vec![Tensor::from_f64(element, pool.shape, maxima)?.into()]);
    }
    let values = numbers(x)?;
    let at = |index: usize| values.get(index).copied();
    let first = |a: usize, b: usize| match (at(a), at(b)) {
        (Some(x), Some(y)) if y > x || (y.is_nan() && !x.is_nan()) => b,
        (None, _) => b,
        _ => a,
    };
    // No element has the index `usize::MAX`.
    let found = pool.reduce((0..values.len()).collect(), usize::MAX, first)?;
    let maxima = found.iter().map(|index| at(*index).unwrap_or(lowest)).collect();
    let index = pool.indexer(call.int_or("storage_order", 0)?)?;
    let indices = found.into_iter().map(index).collect();
    Ok(vec![
        Tensor::from_f64(element, pool.shape.clone(), maxima)?.into(),
        Tensor::new::<i64>(pool.shape, indices)?.into(),
    ])
}

/// Returns the average of each channel.
fn global_average_pool(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    global(call, floats(call.tensor(0)?)?, |channel| {
        channel.iter().sum::<f64>() / channel.len() as f64
    })
}

/// Returns the p-norm of each channel.
fn global_lp_pool(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let norm = Norm::read(call)?;
    global(call, floats(call.tensor(0)?)?, |channel| {
        norm.root(channel.iter().map(|value| norm.power(*value)).sum())
    })
}

/// Returns the maximum of each channel; NaN if it contains NaN.
fn global_max_pool(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    global(call, floats(call.tensor(0)?)?, |channel| {
        channel.iter().copied().fold(f64::NEG_INFINITY, max)
    })
}

/// Reduces each channel to one element.
fn global(
    call: &Call<'_>,
    values: Vec<f64>,
    reduce: impl Fn(&[f64]) -> f64,
) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let spatial = spatial(x)?;
    let mut shape = x.shape().to_vec();
    shape.iter_mut().skip(2).for_each(|size| *size = 1);
    let channels = shape::elements(&shape)?;
    let size = shape::elements(spatial)?;
    let reduced = (0..channels).map(|channel| {
        reduce(values.get(channel * size..(channel + 1) * size).unwrap_or_default())
    });
    Ok(vec![Tensor::from_f64(x.element(), shape, reduced.collect())?.into()])
}

/// Returns the larger number; NaN if one is NaN.
fn max(a: f64, b: f64) -> f64 {
    if b > a || b.is_nan() { b } else { a }
}

/// Returns the sizes of the spatial axes, which follow those of the batch and the channels.
fn spatial(x: &Tensor) -> Result<&[usize], Problem> {
    x.shape().get(2..).ok_or_else(|| Problem::InputShape {
        index: 0,
        shape: x.shape().to_vec(),
        expected: "have a batch axis and a channel axis".into(),
    })
}

/// Returns the elements of a tensor of floats.
fn floats(x: &Tensor) -> Result<Vec<f64>, Problem> {
    let found = x.element();
    if !found.is_float() || found.is_narrow_float() {
        let accepted = "float16, bfloat16, float32 or float64";
        return Err(Problem::InputType { index: 0, found, accepted });
    }
    x.to_f64()
}

/// Returns the elements of a tensor of floats or 8-bit integers.
fn numbers(x: &Tensor) -> Result<Vec<f64>, Problem> {
    match x.element() {
        ElementType::I8 | ElementType::U8 => x.to_f64(),
        _ => floats(x),
    }
}

/// A norm: the p-th root of the sum of the p-th powers.
struct Norm {
    p: f64,
}

impl Norm {
    fn read(call: &Call<'_>) -> Result<Self, Problem> {
        match call.int_or("p", 2)? {
            p if p > 0 => Ok(Self { p: p as f64 }),
            p => Err(Problem::AttributeValue {
                name: "p",
                value: p.to_string(),
                accepted: "a positive number",
            }),
        }
    }

    fn power(&self, value: f64) -> f64 {
        if self.p == 2.0 { value * value } else { value.abs().powf(self.p) }
    }

    fn root(&self, sum: f64) -> f64 {
        if self.p == 2.0 { sum.sqrt() } else { sum.powf(1.0 / self.p) }
    }
}

/// A pooling of a tensor.
struct Pool<'a> {
    x: &'a Tensor,
    axes: Vec<Axis>,
    /// The shape of the output.
    shape: Vec<usize>,
}

impl<'a> Pool<'a> {
    fn read(call: &'a Call<'_>) -> Result<Self, Problem> {
        let x = call.tensor(0)?;
        let spatial = spatial(x)?;
        let attributes = Attributes::of_pooling(call, spatial.len())?;
        let axes = attributes.axes(spatial, call.flag("ceil_mode", false)?)?;
        let mut shape: Vec<usize> = x.shape().iter().take(2).copied().collect();
        shape.extend(axes.iter().map(|axis| axis.output));
        shape::elements(&shape)?;
        shape::elements(&attributes.kernel)?;
        Ok(Self { x, axes, shape })
    }

    /// Combines the elements of each window, first along the last axis. What `combine` prefers of
    /// equal elements is thus decided in row-major order.
    fn reduce<T: Copy>(
        &self,
        mut values: Vec<T>,
        start: T,
        combine: impl Fn(T, T) -> T,
    ) -> Result<Vec<T>, Problem> {
        let mut sizes = self.x.shape().to_vec();
        let mut tally = Tally::default();
        for (index, axis) in self.axes.iter().enumerate().rev() {
            let (outer, inner) = (sizes.get(..index + 2), sizes.get(index + 3..));
            let outer = shape::elements(outer.unwrap_or_default())?;
            let inner = shape::elements(inner.unwrap_or_default())?;
            sizes[index + 2] = axis.output;
            let mut reduced = vec![start; shape::elements(&sizes)?];
            if reduced.is_empty() {
                return Ok(vec![start; shape::elements(&self.shape)?]);
            }
            let rows = values.chunks((axis.input * inner).max(1));
            for (row, target) in rows.zip(reduced.chunks_mut(axis.output * inner)).take(outer) {
                for tap in 0..axis.kernel {
                    tally.spend(target.len() + 8)?;
                    axis.combine(tap, inner, row, target, &combine);
                }
            }
            values = reduced;
        }
        Ok(values)
    }

    /// Returns a function that converts the index of an element to the index that an output
    /// states: the same, or with the spatial axes in column-major order. The index of no element
    /// is -1.
    fn indexer(&self, storage_order: i64) -> Result<impl Fn(usize) -> i64, Problem> {
        if !matches!(storage_order, 0 | 1) {
            return Err(Problem::AttributeValue {
                name: "storage_order",
                value: storage_order.to_string(),
                accepted: "0 or 1",
            });
        }
        let sizes: Vec<usize> = self.axes.iter().map(|axis| axis.input).collect();
        Ok(move |index: usize| {
            if index == usize::MAX {
                return -1;
            }
            if storage_order == 0 {
                return index as i64;
            }
            let (mut rest, mut place) = (index, 0);
            let mut plane = 1;
            for size in sizes.iter().rev() {
                place = place * size + rest % size;
                rest /= size;
                plane *= size;
            }
            (rest * plane + place) as i64
        })
    }
}

/// Puts elements back to the indices that a maximum pooling found, among zeros.
fn max_unpool(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let (x, indices) = (call.tensor(0)?, call.tensor(1)?);
    let spatial = spatial(x)?;
    if indices.shape() != x.shape() {
        return Err(Problem::InputShape {
            index: 1,
            shape: indices.shape().to_vec(),
            expected: format!("be {:?} as that of input 0", x.shape()),
        });
    }
    let attributes = Attributes::of_pooling(call, spatial.len())?;
    let mut inferred: Vec<usize> = x.shape().iter().take(2).copied().collect();
    for (index, size) in spatial.iter().enumerate() {
        let (before, after) = attributes.pads[index];
        let whole = size.saturating_sub(1).checked_mul(attributes.strides[index]);
        let whole = whole.and_then(|whole| whole.checked_add(attributes.kernel[index]));
        let inner = whole.and_then(|whole| whole.checked_sub(before + after));
        inferred.push(inner.ok_or_else(|| {
            Problem::Invalid(format!("padding of {before} and {after} exceeds the window"))
        })?);
    }
    let size = shape::elements(&inferred)?;
    // An offset past the elements selects the zero that is appended to them.
    let mut offsets = vec![x.len(); size];
    for (source, index) in indices.to_i64()?.into_iter().enumerate() {
        let target = usize::try_from(index).ok().and_then(|index| offsets.get_mut(index));
        *target.ok_or(Problem::Index { index, size })? = source;
    }
    let zero = Tensor::from_f64(x.element(), vec![1], vec![0.0])?;
    let source = x.followed_by(&zero)?;
    let Some(stated) = call.optional_ints(2)? else {
        return Ok(vec![source.select(inferred, offsets.into_iter())?.into()]);
    };
    let stated: Vec<usize> = stated.into_iter().map(shape::size).collect::<Result<_, _>>()?;
    if stated.len() != inferred.len() {
        return Err(Problem::Invalid(format!("output_shape must have {} sizes", inferred.len())));
    }
    // The indices are those in the inferred shape; a larger output has zeros at its ends.
    shape::elements(&stated)?;
    let strides = shape::strides(&inferred);
    let placed = shape::indices(&stated).map(|place| {
        let is_inside = place.iter().zip(&inferred).all(|(index, size)| index < size);
        let offset = place.iter().zip(&strides).map(|(index, stride)| index * stride).sum();
        let found: Option<&usize> = if is_inside { offsets.get::<usize>(offset) } else { None };
        found.copied().unwrap_or(x.len())
    });
    Ok(vec![source.select(stated.clone(), placed)?.into()])
}

/// Returns the maximum of each cell of a grid over regions; 0 for cells outside of the image.
fn max_roi_pool(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let (x, regions) = (call.tensor(0)?, call.tensor(1)?);
    let [images, channels, height, width] = *x.shape() else {
        let expected = "have 4 axes".into();
        return Err(Problem::InputShape { index: 0, shape: x.shape().to_vec(), expected });
    };
    let [count, 5] = *regions.shape() else {
        let expected = "be [regions, 5]".into();
        return Err(Problem::InputShape { index: 1, shape: regions.shape().to_vec(), expected });
    };
    let pooled: Vec<usize> = match call.ints("pooled_shape")? {
        None => return Err(Problem::MissingAttribute { name: "pooled_shape" }),
        Some(sizes) => sizes.iter().map(|size| shape::size(*size)).collect::<Result<_, _>>()?,
    };
    let [rows, columns] = pooled[..] else {
        return Err(Problem::Invalid("pooled_shape must have 2 sizes".into()));
    };
    let scale = f64::from(call.float_or("spatial_scale", 1.0)?);
    let shape = vec![count, channels, rows, columns];
    let mut maxima = Vec::with_capacity(shape::elements(&shape)?);
    if shape::elements(&shape)? == 0 {
        return Ok(vec![Tensor::from_f64(x.element(), shape, maxima)?.into()]);
    }
    let (values, regions) = (floats(x)?, floats(regions)?);
    let mut tally = Tally::default();
    for region in regions.chunks_exact(5) {
        let [image, x1, y1, x2, y2] = *region else { continue };
        let image = match image as i64 {
            index if index >= 0 && (index as u64) < images as u64 => index as usize,
            index => return Err(Problem::Index { index, size: images }),
        };
        let vertical = cells(y1 * scale, y2 * scale, rows, height);
        let horizontal = cells(x1 * scale, x2 * scale, columns, width);
        for channel in image * channels..(image + 1) * channels {
            let start = channel * height * width;
            for (top, bottom) in vertical.clone() {
                for (left, right) in horizontal.clone() {
                    tally.spend((bottom - top) * (right - left + 1) + 8)?;
                    let rows = (top..bottom).map(|row| start + row * width);
                    let cell = rows.flat_map(|row| {
                        values.get(row + left..row + right).unwrap_or_default().iter().copied()
                    });
                    maxima.push(cell.reduce(max).unwrap_or(0.0));
                }
            }
        }
    }
    Ok(vec![Tensor::from_f64(x.element(), shape, maxima)?.into()])
}

/// Divides the range between two coordinates, which are rounded and included, into cells that
/// overlap where it is not divisible. Returns them as ranges of `0..size`.
fn cells(
    from: f64,
    to: f64,
    count: usize,
    size: usize,
) -> impl Iterator<Item = (usize, usize)> + Clone {
    // Coordinates are single numbers, so the product with the scale is rounded like one.
    let [from, to] = [from, to].map(|value| i128::from((value as f32).round() as i64));
    let (length, count) = ((to - from + 1).max(1), count as i128);
    let clamp = move |place: i128| (from + place).clamp(0, size as i128) as usize;
    let cells = (0..count).map(move |cell| {
        let end = (cell + 1) * length;
        (clamp(cell * length / count), clamp(end / count + i128::from(end % count != 0)))
    });
    cells.map(|(start, end)| (start, end.max(start)))
}

#[cfg(test)]
mod tests {
    use super::super::convolution::tests::{evaluate, tensor};
    use crate::error::Problem;
    use crate::model::Attribute;
    use crate::tensor::Tensor;

    fn ints(values: &[i64]) -> Attribute {
        Attribute::Ints(values.to_vec())
    }

    #[test]
    fn the_maximum_is_the_first_one_or_nan() {
        let nan = f32::NAN;
        let x = tensor(&[1, 1, 2, 3], &[1.0, 2.0, 2.0, 2.0, nan, f32::NEG_INFINITY]);
        let kernel = ("kernel_shape", ints(&[2, 1]));
        let y = evaluate("MaxPool", 12, std::slice::from_ref(&x), &[kernel], 2).unwrap();
        assert_eq!(y[1].to_i64(), Ok(vec![3, 4, 2]));
        let values = y[0].slice::<f32>().unwrap();
        assert!(values[0] == 2.0 && values[1].is_nan() && values[2] == 2.0);
        let kernel = ("kernel_shape", ints(&[2, 2]));
        let y = evaluate("MaxPool", 12, &[tensor(&[1, 1, 2, 2], &[5.0; 4])], &[kernel], 2).unwrap();
        assert_eq!(y[1].to_i64(), Ok(vec![0]));
    }

    #[test]
    fn column_major_indices_count_whole_channels() {
        let x = tensor(&[1, 2, 2, 3], &[0., 0., 1., 0., 0., 0., 0., 0., 0., 0., 1., 0.]);
        let attributes = [("kernel_shape", ints(&[2, 3])), ("storage_order", Attribute::Int(1))];
        let y = evaluate("MaxPool", 12, &[x], &attributes, 2).unwrap();
        assert_eq!(y[1].to_i64(), Ok(vec![4, 9]));
    }

    #[test]
    fn windows_that_start_in_the_padding_are_left_out() {
        let x = tensor(&[1, 1, 5], &[1.0, 2.0, 3.0, 4.0, 5.0]);
        let attributes = [
            ("kernel_shape", ints(&[2])),
            ("strides", ints(&[3])),
            ("pads", ints(&[1, 1])),
            ("ceil_mode", Attribute::Int(1)),
        ];
        let y = evaluate("AveragePool", 11, &[x], &attributes, 1);
        assert_eq!(y, Ok(vec![tensor(&[1, 1, 2], &[1.0, 3.5])]));
    }

    #[test]
    fn indices_to_unpool_are_checked() {
        let x = tensor(&[1, 1, 1], &[1.0]);
        let kernel = [("kernel_shape", ints(&[2]))];
        for (index, expected) in [(1, true), (2, false), (-1, false)] {
            let indices = Tensor::new(vec![1, 1, 1], vec![index as i64]).unwrap();
            let y = evaluate("MaxUnpool", 11, &[x.clone(), indices], &kernel, 1);
            assert_eq!(y.is_ok(), expected);
            assert!(expected || matches!(y, Err(Problem::Index { .. })));
        }
    }

    #[test]
    fn regions_are_divided_exactly() {
        let cells = |from, to, count| super::cells(from, to, count, 8).collect::<Vec<_>>();
        assert_eq!(cells(1.0, 5.0, 2), [(1, 4), (3, 6)]);
        assert_eq!(cells(4.0, 0.0, 1), [(4, 5)]);
        assert_eq!(cells(6.0, 11.0, 2), [(6, 8), (8, 8)]);
    }
}
