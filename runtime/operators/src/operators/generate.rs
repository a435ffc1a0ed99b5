//! Operators that make tensors without reading the elements of one.

use super::reshape::movement::strided;
use crate::call::{Call, Operator};
use crate::element_type::ElementType;
use crate::error::Problem;
use crate::model::Attribute;
use crate::shape;
use crate::tensor::Tensor;
use crate::value::Value;

/// Returns the implementation of an operator of this family.
pub(super) fn find(domain: &str, name: &str) -> Option<Operator> {
    Some(match (domain, name) {
        ("", "Bernoulli" | "Multinomial") => random,
        ("", "Constant") => constant,
        ("", "ConstantOfShape") => constant_of_shape,
        ("", "EyeLike") => eye_like,
        ("", "RandomNormal" | "RandomNormalLike" | "RandomUniform" | "RandomUniformLike") => random,
        ("", "Range") => range,
        _ => return None,
    })
}

/// Refuses an operator that draws random numbers.
fn random(_: &Call<'_>) -> Result<Vec<Value>, Problem> {
    Err(Problem::Unsupported { reason: "its results are random" })
}

/// Returns the value of the only attribute.
fn constant(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    const NAMES: [&str; 8] = [
        "value",
        "sparse_value",
        "value_float",
        "value_floats",
        "value_int",
        "value_ints",
        "value_string",
        "value_strings",
    ];
    let mut given = NAMES.iter().filter(|name| call.attribute(name).is_some());
    let (Some(name), None) = (given.next(), given.next()) else {
        return Err(Problem::Invalid(format!("it must have exactly one attribute of {NAMES:?}")));
    };
    Ok(vec![match (*name, call.attribute(name)) {
        ("value" | "sparse_value", Some(Attribute::Tensor(value))) => Value::Tensor(value.clone()),
        ("value_float", Some(Attribute::Float(value))) => Tensor::scalar(*value).into(),
        ("value_int", Some(Attribute::Int(value))) => Tensor::scalar(*value).into(),
        ("value_string", Some(Attribute::Text(value))) => Tensor::scalar(value.clone()).into(),
        ("value_floats", _) => {
            Tensor::vector(call.floats(name)?.unwrap_or_default().to_vec()).into()
        }
        ("value_ints", _) => Tensor::vector(call.ints(name)?.unwrap_or_default().to_vec()).into(),
        ("value_strings", _) => {
            Tensor::vector(call.texts(name)?.unwrap_or_default().to_vec()).into()
        }
        _ => {
            let name = (*name).into();
            return Err(Problem::AttributeType {
                name,
                wanted: "of the type that its name states",
            });
        }
    }])
}

/// Fills a tensor of a given shape with a value.
fn constant_of_shape(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let sizes = call.tensor(0)?.to_i64()?;
    let sizes: Vec<usize> = sizes.into_iter().map(shape::size).collect::<Result<_, _>>()?;
    let zero = Tensor::scalar(0f32);
    let value = call.tensor_attribute("value")?.map_or(&zero, |value| value);
    if value.len() != 1 {
        return Err(Problem::AttributeValue {
            name: "value",
            value: format!("a tensor of shape {:?}", value.shape()),
            accepted: "a tensor of one element",
        });
    }
    let axes: Vec<(usize, usize)> = sizes.iter().map(|size| (*size, 0)).collect();
    Ok(vec![strided(value, sizes, &axes)?.into()])
}

/// Makes a matrix of the shape of another one, with ones on a diagonal and zeros elsewhere.
fn eye_like(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let [rows, columns] = *x.shape() else {
        let expected = "have 2 axes".into();
        return Err(Problem::InputShape { index: 0, shape: x.shape().to_vec(), expected });
    };
    let element = match call.int("dtype")? {
        None => x.element(),
        Some(number) => ElementType::from_number(number).ok_or(Problem::AttributeValue {
            name: "dtype",
            value: number.to_string(),
            accepted: "the number of an element type",
        })?,
    };
    let k = i128::from(call.int_or("k", 0)?);
    let zero_and_one = Tensor::from_i128(element, vec![2], vec![0, 1])?;
    let offsets = (0..shape::elements(&[rows, columns])?).map(|place| {
        let diagonal = (place % columns) as i128 - (place / columns) as i128;
        usize::from(diagonal == k)
    });
    Ok(vec![zero_and_one.select(vec![rows, columns], offsets)?.into()])
}

/// Counts from `start` to `limit`, which is excluded, in steps of `delta`.
fn range(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let operands = call.tensors()?;
    let [start, limit, delta] = operands[..] else {
        return Err(Problem::MissingInput { index: operands.len().min(2) });
    };
    let element = start.element();
    if let Some(other) = operands.iter().find(|other| other.element() != element) {
        return Err(Problem::MixedTypes { first: element, second: other.element() });
    }
    let y = if element.is_integer() {
        let [start, limit, delta] = [start.integer()?, limit.integer()?, delta.integer()?];
        let [start, limit, delta] = [start, limit, delta].map(i128::from);
        let distance = if delta < 0 { start - limit } else { limit - start };
        let steps = (distance.max(0) + delta.abs() - 1).checked_div(delta.abs());
        let count = usize::try_from(steps.ok_or(Problem::DivisionByZero)?).unwrap_or(usize::MAX);
        shape::elements(&[count])?;
        let values = (0..count).map(|index| start + index as i128 * delta).collect();
        Tensor::from_i128(element, vec![count], values)?
    } else {
        let [start, limit, delta] = [start.number()?, limit.number()?, delta.number()?];
        let steps = ((limit - start) / delta).ceil();
        if delta == 0.0 || steps.is_nan() || steps == f64::INFINITY {
            return Err(Problem::Invalid(format!(
                "{start} to {limit} in steps of {delta} has no number of elements"
            )));
        }
        let count = steps.max(0.0) as usize;
        shape::elements(&[count])?;
        let values = (0..count).map(|index| start + index as f64 * delta).collect();
        Tensor::from_f64(element, vec![count], values)?
    };
    Ok(vec![y.into()])
}

#[cfg(test)]
mod tests {
    use super::super::reshape::tests::evaluate;
    use super::*;
    use crate::tensor::Element;

    fn count<T: Element>(values: [T; 3]) -> Option<usize> {
        let y = evaluate("Range", 11, values.map(Tensor::scalar).to_vec(), &[]);
        Some(y.ok()?.first()?.len())
    }

    #[test]
    fn ranges_have_the_exact_number_of_elements() {
        assert_eq!(count([i64::MIN, i64::MAX, i64::MAX]), Some(3));
        assert_eq!(count([0i16, -7, -3]), Some(3));
        assert_eq!(count([5i32, 5, 1]), Some(0));
        assert_eq!(count([0i64, 1, 0]), None);
        assert_eq!(count([0i64, i64::MAX, 1]), None);
        // 0.6 is above six times 0.1 in single precision.
        assert_eq!(count([0f32, 0.6, 0.1]), Some(7));
        assert_eq!(count([0f32, 1.0, -1.0]), Some(0));
        assert_eq!(count([f64::NEG_INFINITY, 0.0, 1.0]), None);
        assert_eq!(count([0.0, f64::NAN, 1.0]), None);
    }

    #[test]
    fn constants_have_one_value() {
        let constant = |attributes: &[_]| evaluate("Constant", 13, vec![], attributes);
        let attributes =
            [("value_ints", Attribute::Ints(vec![])), ("value_int", Attribute::Int(3))];
        assert_eq!(constant(&attributes[..1]), Ok(vec![Tensor::vector(Vec::<i64>::new())]));
        assert_eq!(constant(&attributes[1..]), Ok(vec![Tensor::scalar(3i64)]));
        assert!(constant(&attributes).is_err());
        assert!(constant(&[]).is_err());
        assert!(constant(&[("value_float", Attribute::Int(1))]).is_err());
    }
}
