//! Operators on the features of examples.

use crate::call::Call;
use crate::element_type::ElementType;
use crate::error::Problem;
use crate::meter;
use crate::shape;
use crate::tensor::Tensor;
use crate::value::Value;

use super::{Matrix, floats};

/// Selects elements along the last axis. The selection from a vector has one row.
pub(super) fn array_feature_extractor(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let (x, y) = (call.tensor(0)?, call.tensor(1)?);
    let Some((&size, outer)) = x.shape().split_last() else {
        return Err(Problem::InputShape {
            index: 0,
            shape: Vec::new(),
            expected: "have at least one axis".into(),
        });
    };
    let find = |index: i64| {
        let found = usize::try_from(index).ok().filter(|index| *index < size);
        found.ok_or(Problem::Index { index, size })
    };
    let indices: Vec<usize> = y.to_i64()?.into_iter().map(find).collect::<Result<_, _>>()?;
    let rows = shape::elements(outer)?;
    let mut sizes = if outer.is_empty() { vec![1] } else { outer.to_vec() };
    sizes.push(indices.len());
    let offsets = (0..rows).flat_map(|row| indices.iter().map(move |index| row * size + index));
    Ok(vec![x.select(sizes, offsets)?.into()])
}

/// Maps elements to 1 if they are greater than a threshold, and to 0 otherwise.
pub(super) fn binarizer(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let threshold = f64::from(call.float_or("threshold", 0.0)?);
    let values = x.to_f64()?.into_iter().map(|x| f64::from(x > threshold)).collect();
    Ok(vec![Tensor::from_f64(x.element(), x.shape().to_vec(), values)?.into()])
}

/// Joins features to one vector per example, after it has cut or extended each to its size.
pub(super) fn feature_vectorizer(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let mut parts = Vec::new();
    for (index, x) in call.tensors()?.into_iter().enumerate() {
        let (rows, columns) = match x.shape() {
            [columns] => (1, *columns),
            [rows, columns @ ..] => (*rows, shape::elements(columns)?),
            [] => (1, 1),
        };
        let size = match call.ints("inputdimensions")? {
            None => columns,
            Some(sizes) => shape::size(*sizes.get(index).ok_or_else(|| {
                Problem::Invalid(format!(
                    "there are {} sizes for {} inputs",
                    sizes.len(),
                    index + 1
                ))
            })?)?,
        };
        parts.push((Matrix { rows, columns, values: x.to_f64()? }, size));
    }
    let rows = parts.first().map_or(0, |(part, _)| part.rows);
    if parts.iter().any(|(part, _)| part.rows != rows) {
        return Err(Problem::Invalid("the inputs differ in their numbers of rows".into()));
    }
    let total = parts.iter().fold(0usize, |sum, (_, size)| sum.saturating_add(*size));
    shape::elements(&[rows, total.max(1)])?;
    let mut joined = Vec::with_capacity(rows * total);
    meter::spend((rows as u64).saturating_mul(parts.len() as u64))?;
    for row in 0..rows {
        for (part, size) in &parts {
            let start = row * part.columns;
            let values = part.values.get(start..start + part.columns).unwrap_or(&[]);
            joined.extend(values.iter().copied().chain(std::iter::repeat(0.0)).take(*size));
        }
    }
    Ok(vec![Tensor::from_f64(ElementType::F32, vec![rows, total], joined)?.into()])
}

/// Returns the value of a feature from a list with one value, or one per feature.
fn of_feature<'a, T: Copy>(
    values: &'a [T],
    features: usize,
    name: &str,
) -> Result<impl Fn(usize) -> Option<T> + 'a, Problem> {
    if values.len() != 1 && values.len() != features {
        return Err(Problem::Invalid(format!(
            "attribute {name:?} has {} elements; it must have 1, or {features}, one per feature",
            values.len()
        )));
    }
    let last = values.len().saturating_sub(1);
    Ok(move |index: usize| values.get(index.checked_rem(features)?.min(last)).copied())
}

/// Replaces elements that equal a value by another one.
pub(super) fn imputer(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let features = x.shape().last().copied().unwrap_or(1);
    let sizes = x.shape().to_vec();
    if x.element().is_integer() {
        let name = "imputed_value_int64s";
        let ints = call.ints(name)?.ok_or(Problem::MissingAttribute { name })?;
        let (low, high) = x.element().integer_range().unwrap_or((0, 0));
        if let Some(value) = ints.iter().find(|value| !(low..=high).contains(&(**value).into())) {
            let accepted = "within the range of the element type";
            return Err(Problem::AttributeValue { name, value: value.to_string(), accepted });
        }
        let new = of_feature(ints, features, name)?;
        let old = i128::from(call.int_or("replaced_value_int64", 0)?);
        let replace = |(index, x)| if x == old { new(index).map_or(x, i128::from) } else { x };
        let values = x.to_i128()?.into_iter().enumerate().map(replace).collect();
        return Ok(vec![Tensor::from_i128(x.element(), sizes, values)?.into()]);
    }
    let name = "imputed_value_floats";
    let values = call.floats(name)?.ok_or(Problem::MissingAttribute { name })?;
    let new = of_feature(values, features, name)?;
    let old = f64::from(call.float_or("replaced_value_float", 0.0)?);
    let replace = |(index, x): (usize, f64)| match x == old || (x.is_nan() && old.is_nan()) {
        true => new(index).map_or(x, f64::from),
        false => x,
    };
    let values = x.to_f64()?.into_iter().enumerate().map(replace).collect();
    Ok(vec![Tensor::from_f64(x.element(), sizes, values)?.into()])
}

/// Divides each row by its largest element, by the sum of its magnitudes, or by its length.
pub(super) fn normalizer(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = Matrix::read(call)?;
    let norm: fn(&[f64]) -> f64 = match call.text("norm")?.unwrap_or("MAX") {
        "MAX" => |row| row.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        "L1" => |row| row.iter().map(|x| x.abs()).sum(),
        "L2" => |row| row.iter().map(|x| x * x).sum::<f64>().sqrt(),
        other => {
            let value = other.into();
            return Err(Problem::AttributeValue { name: "norm", value, accepted: "MAX, L1 or L2" });
        }
    };
    let scaled = |row: &[f64]| {
        let norm = norm(row);
        let divisor = if norm == 0.0 { 1.0 } else { norm };
        row.iter().map(|x| x / divisor).collect::<Vec<f64>>()
    };
    let values = x.iter().flat_map(scaled).collect();
    let sizes = call.tensor(0)?.shape().to_vec();
    Ok(vec![Tensor::from_f64(ElementType::F32, sizes, values)?.into()])
}

/// Subtracts an offset and multiplies by a scale, for each feature.
pub(super) fn scaler(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let features = x.shape().last().copied().unwrap_or(1);
    let or = |values: &[f32], default: f32| match values {
        [] => vec![default],
        values => values.to_vec(),
    };
    let (offset, scale) = (or(floats(call, "offset")?, 0.0), or(floats(call, "scale")?, 1.0));
    let offset = of_feature(&offset, features, "offset")?;
    let scale = of_feature(&scale, features, "scale")?;
    let scaled = |(index, x): (usize, f64)| {
        let (offset, scale) = (offset(index).unwrap_or(0.0), scale(index).unwrap_or(1.0));
        (x - f64::from(offset)) * f64::from(scale)
    };
    let values = x.to_f64()?.into_iter().enumerate().map(scaled).collect();
    Ok(vec![Tensor::from_f64(ElementType::F32, x.shape().to_vec(), values)?.into()])
}
