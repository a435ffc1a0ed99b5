//! Operators that the standard domain defines in another form, and some of their own.

use std::f64::consts::TAU;

use crate::call::Call;
use crate::error::Problem;
use crate::meter;
use crate::model::Attribute;
use crate::shape;
use crate::tensor::Tensor;
use crate::value::Value;

use super::{floats, forward, operand, standard, wrong_shape};

/// Inserts an axis of size 1.
pub(super) fn expand_dims(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let axis = shape::axis(call.tensor(1)?.integer()?, x.rank() + 1)?;
    let mut sizes = x.shape().to_vec();
    sizes.insert(axis, 1);
    Ok(vec![x.reshaped(sizes)?.into()])
}

/// Returns the distinct elements of a vector in the order of their first occurrence, the place of
/// each element among them, and their counts.
pub(super) fn unique(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let sorted = [("sorted", Attribute::Int(0))];
    let outputs = call.apply("Unique", 11, vec![operand(call, 0)], &sorted)?;
    match &outputs[..] {
        [values, _, places, counts] => Ok(vec![values.clone(), places.clone(), counts.clone()]),
        _ => Err(Problem::Invalid("Unique has no four outputs".into())),
    }
}

/// Pads a tensor.
pub(super) fn pad(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let pads = Tensor::vector(call.tensor(1)?.to_i64()?);
    let value = match call.optional_tensor(2)? {
        Some(value) => Some(value.reshaped(vec![])?.into()),
        None => None,
    };
    let inputs = vec![operand(call, 0), Some(pads.into()), value];
    Ok(vec![standard(call, "Pad", 13, inputs, &forward(call, &["mode"]))?])
}

/// Returns numbers from a start up to a limit.
pub(super) fn range(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let element = call.tensor(0)?.element();
    let scalar = |index: usize| Ok(Some(call.tensor(index)?.reshaped(vec![])?.into()));
    let step = match call.optional(2) {
        Some(_) => scalar(2)?,
        None => Some(Tensor::from_i128(element, vec![], vec![1])?.into()),
    };
    Ok(vec![standard(call, "Range", 11, vec![scalar(0)?, scalar(1)?, step], &[])?])
}

/// Samples an image at the places of a grid.
pub(super) fn grid_sample(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let attributes = forward(call, &["align_corners", "mode", "padding_mode"]);
    Ok(vec![standard(call, "GridSample", 16, call.inputs.clone(), &attributes)?])
}

/// Inverts matrices.
pub(super) fn inverse(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let n = match *x.shape() {
        [.., rows, columns] if rows == columns => rows,
        _ => return Err(wrong_shape(0, x, "be square matrices")),
    };
    let mut values = x.to_f64()?;
    let size = if values.is_empty() { 1 } else { n * n };
    for matrix in values.chunks_exact_mut(size) {
        invert(matrix, n)?;
    }
    Ok(vec![Tensor::from_f64(x.element(), x.shape().to_vec(), values)?.into()])
}

/// Inverts a matrix by elimination with row exchanges. A singular one has infinite results.
fn invert(matrix: &mut [f64], n: usize) -> Result<(), Problem> {
    let mut rows: Vec<Vec<f64>> = matrix
        .chunks_exact(n)
        .enumerate()
        .map(|(i, row)| {
            let unit = (0..n).map(|j| f64::from(i == j));
            row.iter().copied().chain(unit).collect()
        })
        .collect();
    for column in 0..n {
        meter::spend((2 * n as u64).saturating_mul(n as u64))?;
        let size = |row: usize| rows[row][column].abs();
        let pivot = (column..n).max_by(|a, b| size(*a).total_cmp(&size(*b))).unwrap_or(column);
        rows.swap(column, pivot);
        let divisor = rows[column][column];
        rows[column].iter_mut().for_each(|x| *x /= divisor);
        let pivot = rows[column].clone();
        for (_, row) in rows.iter_mut().enumerate().filter(|(index, _)| *index != column) {
            let factor = row[column];
            row.iter_mut().zip(&pivot).for_each(|(x, p)| *x -= factor * p);
        }
    }
    let inverse = rows.iter().flat_map(|row| row.iter().skip(n));
    matrix.iter_mut().zip(inverse).for_each(|(x, y)| *x = *y);
    Ok(())
}

/// Returns the distances between all rows of two matrices.
pub(super) fn cdist(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let (a, b) = (call.tensor(0)?, call.tensor(1)?);
    let root = match call.text("metric")?.unwrap_or("sqeuclidean") {
        "sqeuclidean" => false,
        "euclidean" => true,
        other => {
            let value = other.into();
            let accepted = "sqeuclidean or euclidean";
            return Err(Problem::AttributeValue { name: "metric", value, accepted });
        }
    };
    let ([m, width], [k, other]) = (matrix(a, 0)?, matrix(b, 1)?);
    if width != other {
        return Err(wrong_shape(1, b, format!("have {width} columns")));
    }
    let (x, y) = (a.to_f64()?, b.to_f64()?);
    let mut distances = Vec::with_capacity(shape::elements(&[m, k])?);
    let mut tally = meter::Tally::default();
    for (i, j) in (0..m).flat_map(|i| (0..k).map(move |j| (i, j))) {
        tally.spend(width)?;
        let pairs = x.iter().skip(i * width).take(width).zip(y.iter().skip(j * width));
        let square: f64 = pairs.map(|(x, y)| (x - y) * (x - y)).sum();
        distances.push(if root { square.sqrt() } else { square });
    }
    Ok(vec![Tensor::from_f64(a.element(), vec![m, k], distances)?.into()])
}

fn matrix(tensor: &Tensor, index: usize) -> Result<[usize; 2], Problem> {
    match *tensor.shape() {
        [rows, columns] => Ok([rows, columns]),
        _ => Err(wrong_shape(index, tensor, "have two axes")),
    }
}

/// Returns the places along an axis that a crop samples. Its ends are sampled exactly.
fn crop_places(start: f32, end: f32, size: usize, count: usize) -> Vec<f32> {
    let last = size as f32 - 1.0;
    let place = |index: usize| match (count, index) {
        (1, _) => (0.5 * f64::from(start + end) * f64::from(last)) as f32,
        (_, 0) => start * last,
        (count, index) if index + 1 == count => end * last,
        _ => start * last + index as f32 * ((end - start) * last / (count as f32 - 1.0)),
    };
    (0..count).map(place).collect()
}

/// Cuts boxes from images, and resizes them to one size.
pub(super) fn crop_and_resize(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let (x, boxes) = (call.tensor(0)?, call.tensor(1)?);
    let [batch, channels, height, width] = *x.shape() else {
        return Err(wrong_shape(0, x, "have four axes"));
    };
    let nearest = match call.text("mode")?.unwrap_or("bilinear") {
        "bilinear" => false,
        "nearest" => true,
        other => {
            let (value, accepted) = (other.into(), "bilinear or nearest");
            return Err(Problem::AttributeValue { name: "mode", value, accepted });
        }
    };
    let outside = f64::from(call.float_or("extrapolation_value", 0.0)?);
    let images = call.tensor(2)?.to_i64()?;
    let [count, 4] = matrix(boxes, 1)? else {
        return Err(wrong_shape(1, boxes, "have four columns"));
    };
    let [rows, columns] = match call.tensor(3)?.to_i64()?[..] {
        [rows, columns] => [shape::size(rows)?, shape::size(columns)?],
        _ => return Err(wrong_shape(3, call.tensor(3)?, "have two elements")),
    };
    if images.len() != count {
        return Err(wrong_shape(2, call.tensor(2)?, format!("have {count} elements")));
    }
    let sizes = vec![count, channels, rows, columns];
    let values = x.to_f64()?;
    let bounds = floats(boxes)?;
    let mut crops = Vec::with_capacity(shape::elements(&sizes)?);
    if sizes.contains(&0) {
        return Ok(vec![Tensor::from_f64(x.element(), sizes, crops)?.into()]);
    }
    for (bounds, image) in bounds.chunks_exact(4).zip(images) {
        let missing = Problem::Index { index: image, size: batch };
        let image = usize::try_from(image).ok().filter(|n| *n < batch).ok_or(missing)?;
        let ys = crop_places(bounds[0], bounds[2], height, rows);
        let xs = crop_places(bounds[1], bounds[3], width, columns);
        for channel in 0..channels {
            let at = |row: f32, column: f32| {
                let row = (image * channels + channel) * height + row as usize;
                values.get(row * width + column as usize).copied().unwrap_or(outside)
            };
            for (y, x) in ys.iter().flat_map(|y| xs.iter().map(move |x| (*y, *x))) {
                let within = |place: f32, size: usize| (0.0..=size as f32 - 1.0).contains(&place);
                crops.push(if !within(y, height) || !within(x, width) {
                    outside
                } else if nearest {
                    at(y.round(), x.round())
                } else {
                    let (dx, dy) = (f64::from(x - x.floor()), f64::from(y - y.floor()));
                    let line = |row: f32| {
                        let (left, right) = (at(row, x.floor()), at(row, x.ceil()));
                        left + (right - left) * dx
                    };
                    let (top, bottom) = (line(y.floor()), line(y.ceil()));
                    top + (bottom - top) * dy
                });
            }
        }
    }
    Ok(vec![Tensor::from_f64(x.element(), sizes, crops)?.into()])
}

/// Checks the attributes of a Fourier transform, and returns the powers of the root of unity.
fn roots(call: &Call<'_>, n: usize, sign: f64) -> Result<Vec<(f64, f64)>, Problem> {
    if call.int_or("signal_ndim", 1)? != 1 {
        return Err(Problem::Unsupported { reason: "its signals have several axes" });
    }
    if call.flag("normalized", false)? || !call.flag("onesided", true)? {
        return Err(Problem::Unsupported { reason: "it is normalized or two-sided" });
    }
    shape::elements(&[n])?;
    let angle = |k: usize| sign * TAU * k as f64 / n as f64;
    Ok((0..n).map(|k| (angle(k).cos(), angle(k).sin())).collect())
}

/// Returns the Fourier transform of real signals: the first half, as pairs of numbers.
pub(super) fn rfft(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let Some((&n, outer)) = x.shape().split_last() else {
        return Err(wrong_shape(0, x, "have an axis"));
    };
    let roots = roots(call, n, -1.0)?;
    let bins = n / 2 + 1;
    let sizes = [outer, &[bins, 2]].concat();
    let mut result = Vec::with_capacity(shape::elements(&sizes)?);
    let mut tally = meter::Tally::default();
    for signal in x.to_f64()?.chunks_exact(n.max(1)) {
        for bin in 0..bins {
            tally.spend(n)?;
            let mut sum = (0.0, 0.0);
            for (t, x) in signal.iter().enumerate() {
                let (c, s) = roots[bin * t % n];
                sum = (sum.0 + x * c, sum.1 + x * s);
            }
            result.extend([sum.0, sum.1]);
        }
    }
    Ok(vec![Tensor::from_f64(x.element(), sizes, result)?.into()])
}

/// Returns the real signals of the first halves of their Fourier transforms.
pub(super) fn irfft(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let [outer @ .., bins, 2] = x.shape() else {
        return Err(wrong_shape(0, x, "have pairs as last axis"));
    };
    let n = bins.saturating_sub(1).saturating_mul(2);
    let roots = roots(call, n, 1.0)?;
    let sizes = [outer, &[n]].concat();
    let mut result = Vec::with_capacity(shape::elements(&sizes)?);
    let values = x.to_f64()?;
    let mut tally = meter::Tally::default();
    let spectra = values.chunks_exact(bins.saturating_mul(2).max(1));
    for (spectrum, t) in spectra.flat_map(|spectrum| (0..n).map(move |t| (spectrum, t))) {
        tally.spend(*bins)?;
        let mut sum = 0.0;
        for (bin, pair) in spectrum.chunks_exact(2).enumerate() {
            let (c, s) = roots[bin * t % n];
            // The bins between the ends stand for two conjugates.
            let weight = if bin == 0 || bin + 1 == *bins { 1.0 } else { 2.0 };
            sum += weight * (pair[0] * c - pair[1] * s);
        }
        result.push(sum / n as f64);
    }
    Ok(vec![Tensor::from_f64(x.element(), sizes, result)?.into()])
}
