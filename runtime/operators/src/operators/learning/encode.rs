//! Encoders: lookups of labels and categories.

use std::collections::HashMap;
use std::sync::Arc;

use crate::call::Call;
use crate::element_type::ElementType;
use crate::error::Problem;
use crate::shape;
use crate::tensor::{Data, Tensor};
use crate::value::Value;

use super::labels;

/// An element to be looked up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key<'a> {
    Integer(i128),
    /// The bits of a float, as `f64`.
    Float(u64),
    Text(&'a str),
}

/// Returns the elements as keys. Unless they are `bitwise`, all NaN are equal, and both zeros.
fn keys(tensor: &Tensor, bitwise: bool) -> Result<Vec<Key<'_>>, Problem> {
    if let Data::Text(texts) = tensor.data() {
        return Ok(texts.iter().map(|text| Key::Text(text)).collect());
    }
    if tensor.element().is_integer() {
        return Ok(tensor.to_i128()?.into_iter().map(Key::Integer).collect());
    }
    let float = |x: f64| match x {
        _ if x.is_nan() && !bitwise => f64::NAN.to_bits(),
        _ if x == 0.0 && !bitwise => 0,
        _ => x.to_bits(),
    };
    Ok(tensor.to_f64()?.into_iter().map(|x| Key::Float(float(x))).collect())
}

/// Maps each element of a tensor to the value of the key that equals it, or to a default. Before
/// version 4 of `LabelEncoder`, floats are compared by their bits, and the first of equal keys
/// counts; otherwise the last one.
fn look_up(
    x: &Tensor,
    from: &Tensor,
    to: &Tensor,
    default: &Tensor,
    old: bool,
) -> Result<Vec<Value>, Problem> {
    if x.element() != from.element() {
        return Err(Problem::MixedTypes { first: x.element(), second: from.element() });
    }
    if from.len() != to.len() {
        return Err(Problem::Invalid(format!(
            "there are {} keys and {} values",
            from.len(),
            to.len()
        )));
    }
    let mut places = HashMap::new();
    for (place, key) in keys(from, old)?.into_iter().enumerate() {
        match old {
            true => places.entry(key).or_insert(place),
            false => places.entry(key).insert_entry(place).into_mut(),
        };
    }
    let place = |key: Key<'_>| places.get(&key).copied().unwrap_or(to.len());
    let offsets: Vec<usize> = keys(x, old)?.into_iter().map(place).collect();
    let table = to.followed_by(default)?;
    Ok(vec![table.select(x.shape().to_vec(), offsets.into_iter())?.into()])
}

/// Reads the keys or the values: the only one of four attributes that is set.
fn list(call: &Call<'_>, kind: &str) -> Result<Option<Arc<Tensor>>, Problem> {
    if let Some(tensor) = call.tensor_attribute(&format!("{kind}_tensor"))? {
        return Ok(Some(tensor.clone()));
    }
    let texts = call.texts(&format!("{kind}_strings"))?.filter(|list| !list.is_empty());
    let ints = call.ints(&format!("{kind}_int64s"))?.filter(|list| !list.is_empty());
    let floats = call.floats(&format!("{kind}_floats"))?.filter(|list| !list.is_empty());
    let tensor = match (texts, ints, floats) {
        (Some(texts), _, _) => Tensor::vector(texts.to_vec()),
        (_, Some(ints), _) => Tensor::vector(ints.to_vec()),
        (_, _, Some(floats)) => Tensor::vector(floats.to_vec()),
        _ => return Ok(None),
    };
    Ok(Some(Arc::new(tensor)))
}

/// Returns the default of a lookup whose values have the given element type.
fn default(call: &Call<'_>, element: ElementType) -> Result<Tensor, Problem> {
    if let Some(tensor) = call.tensor_attribute("default_tensor")? {
        return tensor.reshaped(vec![1]);
    }
    if element == ElementType::Text {
        let text = call.text("default_string")?.unwrap_or("_Unused");
        return Ok(Tensor::vector(vec![text.to_string()]));
    }
    if element.is_integer() {
        let integer = call.int_or("default_int64", -1)?;
        return Tensor::from_i128(element, vec![1], vec![integer.into()]);
    }
    Tensor::from_f64(element, vec![1], vec![call.float_or("default_float", -0.0)?.into()])
}

/// Maps labels to other labels.
pub(super) fn label_encoder(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    if call.version < 2 {
        let classes = call.texts("classes_strings")?.unwrap_or(&[]);
        let places = (0..).take(classes.len()).collect::<Vec<i64>>();
        return both_ways(call, Tensor::vector(classes.to_vec()), Tensor::vector(places));
    }
    let from = list(call, "keys")?.ok_or(Problem::MissingAttribute { name: "keys_*" })?;
    let to = list(call, "values")?.ok_or(Problem::MissingAttribute { name: "values_*" })?;
    look_up(x, &from, &to, &default(call, to.element())?, call.version < 4)
}

/// Maps categories from strings to integers, or back.
pub(super) fn category_mapper(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let texts = call.texts("cats_strings")?.unwrap_or(&[]);
    let ints = call.ints("cats_int64s")?.unwrap_or(&[]);
    both_ways(call, Tensor::vector(texts.to_vec()), Tensor::vector(ints.to_vec()))
}

/// Maps strings to integers, or integers to strings, by the type of the input.
fn both_ways(call: &Call<'_>, texts: Tensor, ints: Tensor) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    match x.element() {
        ElementType::Text => look_up(x, &texts, &ints, &default(call, ElementType::I64)?, false),
        _ => look_up(x, &ints, &texts, &default(call, ElementType::Text)?, false),
    }
}

/// Replaces each element by zeros with a single one at the place of its category.
pub(super) fn one_hot_encoder(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let categories = labels(call, "cats_strings", "cats_int64s")?;
    if (x.element() == ElementType::Text) != (categories.element() == ElementType::Text) {
        return Err(Problem::MixedTypes { first: x.element(), second: categories.element() });
    }
    let places: HashMap<Key<'_>, usize> =
        keys(&categories, true)?.into_iter().enumerate().map(|(place, key)| (key, place)).collect();
    let place = |key: &Key<'_>| {
        // Floats are truncated to integers.
        let key = match key {
            Key::Float(bits) if f64::from_bits(*bits).is_nan() => return None,
            Key::Float(bits) => &Key::Integer(f64::from_bits(*bits) as i128),
            other => other,
        };
        places.get(key).copied()
    };
    let mut sizes = x.shape().to_vec();
    sizes.push(categories.len());
    let mut ones = vec![0f32; shape::elements(&sizes)?];
    let zeros_allowed = call.flag("zeros", true)?;
    for (row, key) in ones.chunks_exact_mut(categories.len().max(1)).zip(keys(x, true)?) {
        match place(&key).and_then(|place| row.get_mut(place)) {
            Some(one) => *one = 1.0,
            None if zeros_allowed => {}
            None => return Err(Problem::Invalid(format!("there is no category {key:?}"))),
        }
    }
    Ok(vec![Tensor::new(sizes, ones)?.into()])
}

/// Makes one map per row, from labels to the elements of the row.
pub(super) fn zip_map(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let keys = labels(call, "classlabels_strings", "classlabels_int64s")?;
    let (rows, columns) = match *x.shape() {
        [columns] => (1, columns),
        [rows, columns] => (rows, columns),
        _ => return Err(super::wrong_rank(x)),
    };
    if columns != keys.len() {
        return Err(Problem::InputShape {
            index: 0,
            shape: x.shape().to_vec(),
            expected: format!("have {} columns, one per label", keys.len()),
        });
    }
    let values = Arc::new(x.reshaped(vec![rows, columns])?);
    Ok(vec![Value::Maps { keys: Arc::new(keys), values }])
}
