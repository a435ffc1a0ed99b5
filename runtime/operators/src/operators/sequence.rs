//! Operators on sequences and optional values.

use crate::call::{Call, Operator};
use crate::element_type::ElementType;
use crate::error::Problem;
use crate::meter;
use crate::shape;
use crate::tensor::{Data, Element, Tensor, with_data};
use crate::value::Value;

/// Returns the implementation of an operator of this family.
pub(super) fn find(domain: &str, name: &str) -> Option<Operator> {
    Some(match (domain, name) {
        ("", "SequenceEmpty") => empty,
        ("", "SequenceConstruct") => construct,
        ("", "SequenceAt") => at,
        ("", "SequenceInsert") => insert,
        ("", "SequenceErase") => erase,
        ("", "SequenceLength") => length,
        ("", "SequenceMap") => map,
        ("", "SplitToSequence") => split,
        ("", "ConcatFromSequence") => concat,
        ("", "Optional") => optional,
        ("", "OptionalGetElement") => get_element,
        ("", "OptionalHasElement") => has_element,
        _ => return None,
    })
}

/// Creates an empty sequence.
fn empty(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let number = call.int_or("dtype", i64::from(ElementType::F32.number()))?;
    match ElementType::from_number(number) {
        Some(_) => Ok(vec![Value::from(Vec::new())]),
        None => Err(Problem::AttributeValue {
            name: "dtype",
            value: number.to_string(),
            accepted: "the number of an element type",
        }),
    }
}

/// Creates a sequence of the inputs.
fn construct(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    same_type(&call.tensors()?)?;
    Ok(vec![call.inputs.iter().flatten().cloned().collect::<Vec<Value>>().into()])
}

/// Returns the element of a sequence at a position.
fn at(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let sequence = call.value(0)?.sequence()?;
    let position = position(call.tensor(1)?, sequence.len(), sequence.len())?;
    let size = sequence.len();
    let value = sequence.get(position).ok_or(Problem::Index { index: position as i64, size })?;
    Ok(vec![value.clone()])
}

/// Inserts a tensor into a sequence before a position; at the end by default.
fn insert(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let mut sequence = call.value(0)?.sequence()?.to_vec();
    let tensor = call.tensor(1)?;
    if let Some(Value::Tensor(first)) = sequence.first() {
        same_type(&[first, tensor])?;
    }
    let index = match call.optional_tensor(2)? {
        Some(index) => position(index, sequence.len(), sequence.len() + 1)?,
        None => sequence.len(),
    };
    sequence.insert(index, call.value(1)?.clone());
    Ok(vec![sequence.into()])
}

/// Removes the element of a sequence at a position; the last one by default.
fn erase(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let mut sequence = call.value(0)?.sequence()?.to_vec();
    let last = Tensor::scalar(-1i64);
    let index = call.optional_tensor(1)?.unwrap_or(&last);
    sequence.remove(position(index, sequence.len(), sequence.len())?);
    Ok(vec![sequence.into()])
}

/// Returns the number of elements of a sequence.
fn length(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let sequence = call.value(0)?.sequence()?;
    Ok(vec![Tensor::scalar(sequence.len() as i64).into()])
}

/// Evaluates a subgraph for each element of sequences. Tensors are the same for all elements.
fn map(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let body = call.graph("body")?;
    let count = call.value(0)?.sequence()?.len();
    let mut kept = meter::Kept::default();
    let mut results = vec![Vec::new(); body.outputs.len()];
    for index in 0..count {
        let inputs = (0..call.len()).map(|input| match call.value(input)? {
            Value::Sequence(sequence) if sequence.len() == count => Ok(sequence[index].clone()),
            Value::Sequence(sequence) => Err(Problem::Invalid(format!(
                "input {input} is a sequence of {} elements; it must have {count}",
                sequence.len()
            ))),
            value => Ok(value.clone()),
        });
        let outputs = call.run(body, inputs.collect::<Result<_, _>>()?)?;
        for (result, output) in results.iter_mut().zip(outputs) {
            kept.hold(&output)?;
            result.push(output);
        }
    }
    Ok(results.into_iter().map(Value::from).collect())
}

/// Splits a tensor along an axis into a sequence: into parts of one size, or of the given sizes.
fn split(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let axis = shape::axis(call.int_or("axis", 0)?, x.rank())?;
    let size = x.shape()[axis];
    shape::elements(&[size])?;
    let sizes = match call.optional_tensor(1)? {
        None => vec![1; size],
        Some(sizes) if sizes.rank() == 0 => match shape::size(sizes.integer()?)? {
            0 => return Err(Problem::Invalid("the parts have size 0; it must be positive".into())),
            part => (0..size).step_by(part).map(|start| part.min(size - start)).collect(),
        },
        Some(sizes) => {
            let sizes = sizes.to_i64()?.into_iter().map(shape::size);
            sizes.collect::<Result<Vec<_>, _>>()?
        }
    };
    if sizes.iter().try_fold(0usize, |sum, size| sum.checked_add(*size)) != Some(size) {
        return Err(Problem::Invalid(format!(
            "the sizes of the parts are {sizes:?}; their sum must be {size}"
        )));
    }
    // Each part takes memory by itself.
    shape::elements(&[sizes.len(), 16])?;
    let squeezed = call.optional(1).is_none() && !call.flag("keepdims", true)?;
    let strides = shape::strides(x.shape());
    let mut start = 0;
    let parts = sizes.iter().map(|part| {
        let mut sizes = x.shape().to_vec();
        sizes[axis] = *part;
        let first = strides[axis].saturating_mul(start);
        let offsets = shape::Offsets::new(sizes.clone(), strides.clone(), first);
        start += part;
        if squeezed {
            sizes.remove(axis);
        }
        Ok(x.select(sizes, offsets)?.into())
    });
    Ok(vec![parts.collect::<Result<Vec<Value>, Problem>>()?.into()])
}

/// Joins the tensors of a sequence along an axis, which may be a new one.
fn concat(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let sequence = call.value(0)?.sequence()?;
    let tensors = sequence.iter().map(Value::tensor).collect::<Result<Vec<_>, _>>()?;
    let axis = call.int("axis")?.ok_or(Problem::MissingAttribute { name: "axis" })?;
    let is_new = call.flag("new_axis", false)?;
    let Some(first) = tensors.first() else {
        return Err(Problem::Invalid("the sequence is empty; it must have a tensor".into()));
    };
    same_type(&tensors)?;
    let axis = shape::axis(axis, first.rank() + usize::from(is_new))?;
    let mut sizes = first.shape().to_vec();
    let mut joined = 0usize;
    for tensor in &tensors {
        let mut own = tensor.shape().to_vec();
        if !is_new && own.len() == sizes.len() {
            joined = joined.saturating_add(own[axis]);
            own[axis] = sizes[axis];
        }
        if own != sizes {
            return Err(Problem::Invalid(format!(
                "shapes {:?} and {:?} cannot be joined along axis {axis}",
                first.shape(),
                tensor.shape()
            )));
        }
    }
    if is_new {
        sizes.insert(axis, tensors.len());
    } else {
        sizes[axis] = joined;
    }
    Ok(vec![join(&tensors, axis, sizes)?.into()])
}

/// Creates an optional value of the input, or without one.
fn optional(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let value = call.optional(0);
    if value.is_none() && call.type_attribute("type")?.is_none() {
        return Err(Problem::MissingAttribute { name: "type" });
    }
    Ok(vec![Value::Optional(value.cloned().map(std::sync::Arc::new))])
}

/// Returns the element of an optional value; a value of another kind is its own element.
fn get_element(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    match call.value(0)? {
        Value::Optional(Some(value)) => Ok(vec![value.as_ref().clone()]),
        Value::Optional(None) => {
            Err(Problem::Invalid("the optional value has no element; it must have one".into()))
        }
        value => Ok(vec![value.clone()]),
    }
}

/// Returns whether the input is neither omitted nor an optional value without an element.
fn has_element(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let exists = !matches!(call.optional(0), None | Some(Value::Optional(None)));
    Ok(vec![Tensor::scalar(exists).into()])
}

/// Returns the position that an operand means: negative ones count from the end of `size`
/// elements. It must be less than `end`.
fn position(operand: &Tensor, size: usize, end: usize) -> Result<usize, Problem> {
    let index = operand.integer()?;
    let positive = if index < 0 { index.checked_add(size as i64) } else { Some(index) };
    match positive.and_then(|index| usize::try_from(index).ok()) {
        Some(position) if position < end => Ok(position),
        _ => Err(Problem::Index { index, size }),
    }
}

/// Checks that tensors have one element type.
pub(super) fn same_type(tensors: &[&Tensor]) -> Result<(), Problem> {
    for pair in tensors.windows(2) {
        if let [a, b] = pair
            && a.element() != b.element()
        {
            return Err(Problem::MixedTypes { first: a.element(), second: b.element() });
        }
    }
    Ok(())
}

/// Joins tensors of one element type along an axis, whose sizes in the axes before it are equal.
/// `sizes` is the shape of the result.
pub(super) fn join(tensors: &[&Tensor], axis: usize, sizes: Vec<usize>) -> Result<Tensor, Problem> {
    fn interleave<T: Element>(
        _: &[T],
        tensors: &[&Tensor],
        rows: usize,
        count: usize,
    ) -> Option<Data> {
        let parts = tensors.iter().map(|tensor| T::slice(tensor.data()));
        let parts = parts.collect::<Option<Vec<_>>>()?;
        let mut joined = Vec::with_capacity(count);
        for row in 0..rows {
            for part in &parts {
                let width = part.len() / rows;
                joined.extend_from_slice(part.get(row * width..(row + 1) * width)?);
            }
        }
        Some(T::store(joined))
    }
    let count = shape::elements(&sizes)?;
    let rows = shape::elements(sizes.get(..axis).unwrap_or_default())?;
    meter::spend((rows as u64).saturating_mul(tensors.len() as u64))?;
    meter::check_text(tensors.iter().map(|x| x.text_bytes()).fold(0, usize::saturating_add))?;
    let mixed = || Problem::Invalid("the joined tensors must have one element type".into());
    let first = tensors.first().ok_or_else(mixed)?;
    let data = with_data!(first.data(), values => interleave(values, tensors, rows, count));
    Tensor::with_type(first.element(), sizes, data.ok_or_else(mixed)?)
}

/// Evaluates single nodes in tests.
#[cfg(test)]
pub(super) mod testing {
    use super::{Tensor, Value};
    use crate::error::Problem;
    use crate::evaluate::NoObserver;
    use crate::model::{Attribute, Graph, Model, Node, ValueInfo};

    fn infos(names: &[String]) -> Vec<ValueInfo> {
        names.iter().map(|name| ValueInfo { name: name.clone(), value_type: None }).collect()
    }

    /// Evaluates an operator of a version with the given number of outputs.
    pub(in crate::operators) fn evaluate(
        operator: &str,
        version: i64,
        attributes: &[(&str, Attribute)],
        inputs: Vec<Option<Value>>,
        outputs: usize,
    ) -> Result<Vec<Value>, Problem> {
        let name = |index: usize| format!("input {index}");
        let names = inputs.iter().enumerate();
        let names = names.map(|(i, value)| value.as_ref().map_or(String::new(), |_| name(i)));
        let node = Node {
            operator: operator.into(),
            inputs: names.collect(),
            outputs: (0..outputs).map(|index| format!("output {index}")).collect(),
            attributes: attributes.iter().map(|(n, a)| (n.to_string(), a.clone())).collect(),
            ..Node::default()
        };
        let mut graph =
            Graph { outputs: infos(&node.outputs), nodes: vec![node], ..Graph::default() };
        graph.prepare();
        let model = Model { opsets: [(String::new(), version)].into(), graph, ..Model::default() };
        let values = inputs.into_iter().enumerate();
        let values = values.filter_map(|(index, value)| Some((name(index), value?)));
        model.run(values.collect(), &mut NoObserver).map_err(|error| error.problem)
    }

    /// Returns a tensor operand.
    pub(in crate::operators) fn floats(shape: &[usize], values: &[f32]) -> Option<Value> {
        Some(Tensor::new(shape.to_vec(), values.to_vec()).unwrap().into())
    }

    /// Returns an operand of rank 0.
    pub(in crate::operators) fn int(value: i64) -> Option<Value> {
        Some(Tensor::scalar(value).into())
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{evaluate, floats, int};
    use super::*;
    use crate::model::Attribute::Int;

    fn sequence(sizes: &[usize]) -> Option<Value> {
        let tensors = sizes.iter().filter_map(|size| floats(&[*size], &vec![0.0; *size]));
        Some(tensors.collect::<Vec<_>>().into())
    }

    fn sizes(value: &Value) -> Vec<usize> {
        value.sequence().unwrap().iter().map(|value| value.tensor().unwrap().len()).collect()
    }

    #[test]
    fn positions_count_from_either_end() {
        let insert = |position: Option<Value>| {
            let inputs = vec![sequence(&[1, 2, 3]), floats(&[9], &[0.0; 9]), position];
            evaluate("SequenceInsert", 11, &[], inputs, 1).map(|outputs| sizes(&outputs[0]))
        };
        assert_eq!(insert(None), Ok(vec![1, 2, 3, 9]));
        assert_eq!(insert(int(3)), Ok(vec![1, 2, 3, 9]));
        assert_eq!(insert(int(-1)), Ok(vec![1, 2, 9, 3]));
        assert_eq!(insert(int(-3)), Ok(vec![9, 1, 2, 3]));
        assert_eq!(insert(int(4)), Err(Problem::Index { index: 4, size: 3 }));
        assert_eq!(insert(int(i64::MIN)), Err(Problem::Index { index: i64::MIN, size: 3 }));
        let erase = |inputs| evaluate("SequenceErase", 11, &[], inputs, 1);
        assert_eq!(erase(vec![sequence(&[])]), Err(Problem::Index { index: -1, size: 0 }));
        assert_eq!(sizes(&erase(vec![sequence(&[1, 2])]).unwrap()[0]), [1]);
    }

    #[test]
    fn tensors_are_joined_along_a_new_last_axis() {
        let tensors = vec![floats(&[2], &[1.0, 2.0]).unwrap(), floats(&[2], &[3.0, 4.0]).unwrap()];
        let attributes = [("axis", Int(-1)), ("new_axis", Int(1))];
        let joined = evaluate("ConcatFromSequence", 11, &attributes, vec![Some(tensors.into())], 1);
        assert_eq!(joined.unwrap()[0], floats(&[2, 2], &[1.0, 3.0, 2.0, 4.0]).unwrap());
    }

    #[test]
    fn parts_must_cover_the_axis() {
        let split = |sizes: Vec<i64>| {
            let inputs = vec![floats(&[3], &[0.0; 3]), Some(Tensor::vector(sizes).into())];
            evaluate("SplitToSequence", 24, &[("keepdims", Int(0))], inputs, 1)
        };
        assert_eq!(sizes(&split(vec![0, 3]).unwrap()[0]), [0, 3]);
        assert!(split(vec![1, 1]).is_err());
        assert!(split(vec![i64::MAX, i64::MAX, 5]).is_err());
    }
}
