//! Operators that evaluate subgraphs.

use super::sequence::{join, same_type};
use crate::call::{Call, Operator};
use crate::element_type::ElementType;
use crate::error::Problem;
use crate::meter;
use crate::model::{Dimension, Graph, ValueType};
use crate::shape;
use crate::tensor::{Data, Element, Tensor, with_data};
use crate::value::Value;

/// The maximum number of iterations of a loop.
const MAX_ITERATIONS: i64 = 1 << 31;

/// Returns the implementation of an operator of this family.
pub(super) fn find(domain: &str, name: &str) -> Option<Operator> {
    Some(match (domain, name) {
        ("", "If") => choose,
        ("", "Loop") => repeat,
        ("", "Scan") => scan,
        _ => return None,
    })
}

/// Evaluates one of two subgraphs, as a condition says.
fn choose(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let branch = if truth(call.value(0)?)? { "then_branch" } else { "else_branch" };
    call.run(call.graph(branch)?, vec![])
}

/// Evaluates a subgraph again and again, up to a number of times and while a condition holds.
fn repeat(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let body = call.graph("body")?;
    let limit = call.optional_tensor(0)?.map(Tensor::integer).transpose()?;
    let mut condition = call.optional(1).map(truth).transpose()?;
    if limit.is_none() && condition.is_none() {
        return Err(Problem::Invalid(
            "the loop never ends; it must have a trip count or a condition".into(),
        ));
    }
    let mut kept = meter::Kept::default();
    let mut states = values(call, 2, call.len())?;
    let mut scans = accumulators(body, states.len() + 2, states.len() + 1)?;
    let mut iteration = 0i64;
    while condition != Some(false) && limit.is_none_or(|limit| iteration < limit) {
        if iteration == MAX_ITERATIONS {
            return Err(Problem::Invalid(format!(
                "the loop has more than {MAX_ITERATIONS} iterations"
            )));
        }
        let mut inputs = vec![
            single(body, 0, iteration)?.into(),
            single(body, 1, condition.unwrap_or(true))?.into(),
        ];
        let count = states.len();
        inputs.append(&mut states);
        let mut outputs = call.run(body, inputs)?.into_iter();
        // The condition that the body returns counts only if the node has a condition.
        let next = truth(&outputs.next().ok_or(Problem::MissingInput { index: 1 })?)?;
        condition = condition.map(|_| next);
        states.extend(outputs.by_ref().take(count));
        for (scan, output) in scans.iter_mut().zip(outputs) {
            kept.hold(&output)?;
            scan.push(output);
        }
        iteration += 1;
    }
    let first = states.len() + 1;
    for (index, elements) in scans.iter().enumerate() {
        states.push(stack_scan(body, first + index, elements, 0)?.into());
    }
    Ok(states)
}

/// Evaluates a subgraph for each element of tensors along an axis.
fn scan(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let body = call.graph("body")?;
    let count = call.int("num_scan_inputs")?;
    let count = shape::size(count.ok_or(Problem::MissingAttribute { name: "num_scan_inputs" })?)?;
    // Version 8 has the lengths of the sequences as its first input.
    let batched = call.version < 9;
    let start = usize::from(batched);
    let first = call.len().checked_sub(count).filter(|first| count > 0 && *first >= start);
    let first = first.ok_or_else(|| Problem::AttributeValue {
        name: "num_scan_inputs",
        value: count.to_string(),
        accepted: "at least 1 and at most the number of inputs",
    })?;
    let states = values(call, start, first)?;
    let inputs = (first..call.len()).map(|index| call.tensor(index)).collect::<Result<_, _>>()?;
    accumulators(body, states.len() + count, states.len())?;
    if batched {
        scan_batch(call, body, states, inputs)
    } else {
        scan_axes(call, body, states, inputs)
    }
}

/// Evaluates `Scan` of version 9 and later: any axis of the inputs and outputs is scanned.
fn scan_axes(
    call: &Call<'_>,
    body: &Graph,
    states: Vec<Value>,
    tensors: Vec<&Tensor>,
) -> Result<Vec<Value>, Problem> {
    let axes = list(call, "scan_input_axes", tensors.len())?;
    let reversed = list(call, "scan_input_directions", tensors.len())?;
    let outputs = body.outputs.len().saturating_sub(states.len());
    let output_axes = list(call, "scan_output_axes", outputs)?;
    let output_reversed = list(call, "scan_output_directions", outputs)?;
    let mut inputs = Vec::new();
    for ((tensor, axis), reversed) in tensors.into_iter().zip(axes).zip(reversed) {
        let axis = shape::axis(axis, tensor.rank())?;
        inputs.push(ScanInput { tensor, axis, reversed: reversed != 0 });
    }
    let length = common_length(inputs.iter().map(|input| input.tensor.shape()[input.axis]))?;
    let first = states.len();
    let (mut results, scans) = iterate(call, body, states, &inputs, length)?;
    for (index, mut elements) in scans.into_iter().enumerate() {
        if output_reversed[index] != 0 {
            elements.reverse();
        }
        results.push(stack_scan(body, first + index, &elements, output_axes[index])?.into());
    }
    Ok(results)
}

/// Evaluates `Scan` of version 8: axis 0 is that of the batch, and axis 1 is scanned. What follows
/// the end of a sequence in an output is zero.
fn scan_batch(
    call: &Call<'_>,
    body: &Graph,
    states: Vec<Value>,
    tensors: Vec<&Tensor>,
) -> Result<Vec<Value>, Problem> {
    let reversed = list(call, "directions", tensors.len())?;
    if let Some(tensor) = tensors.iter().find(|tensor| tensor.rank() < 2) {
        return Err(Problem::Axis { axis: 1, rank: tensor.rank() });
    }
    let initial = states.iter().map(Value::tensor).collect::<Result<Vec<_>, _>>()?;
    let longest = common_length(tensors.iter().map(|tensor| tensor.shape()[1]))?;
    let sizes = tensors.iter().map(|tensor| tensor.shape()[0]);
    let states_sizes = initial.iter().map(|state| state.shape().first().copied().unwrap_or(1));
    let batch = common_length(sizes.chain(states_sizes))?;
    shape::elements(&[batch])?;
    let lengths = call.optional_ints(0)?.unwrap_or_else(|| vec![longest as i64; batch]);
    if lengths.len() != batch || lengths.iter().any(|n| *n < 0 || *n > longest as i64) {
        return Err(Problem::Invalid(format!(
            "the sequence lengths are {lengths:?}; they must be {batch} integers of 0 to {longest}"
        )));
    }
    let mut results: Vec<Vec<Tensor>> = vec![Vec::new(); body.outputs.len()];
    for (item, length) in lengths.into_iter().enumerate() {
        let length = shape::size(length)?;
        let states = initial.iter().map(|state| Ok(at(state, 0, item)?.into()));
        let states = states.collect::<Result<Vec<Value>, Problem>>()?;
        let first = states.len();
        let own = tensors.iter().map(|t| at(t, 0, item)).collect::<Result<Vec<_>, _>>()?;
        let inputs = own.iter().zip(&reversed);
        let inputs = inputs.map(|(tensor, r)| ScanInput { tensor, axis: 0, reversed: *r != 0 });
        let inputs: Vec<_> = inputs.collect();
        let (states, scans) = iterate(call, body, states, &inputs, length)?;
        for (result, state) in results.iter_mut().zip(states) {
            result.push(state.tensor()?.clone());
        }
        for (index, elements) in scans.iter().enumerate() {
            let scan = stack_scan(body, first + index, elements, 0)?;
            results[first + index].push(padded(&scan, longest)?);
        }
    }
    let stacked = results.iter().enumerate().map(|(index, items)| {
        let items: Vec<&Tensor> = items.iter().collect();
        match (items.is_empty(), initial.get(index)) {
            (false, _) => stack(&items, 0),
            (true, Some(state)) => Ok((*state).clone()),
            (true, None) => {
                let (element, sizes) = stated(body, index)?;
                empty(element, [&[0, longest], &sizes[..]].concat())
            }
        }
    });
    stacked.map(|tensor| Ok(tensor?.into())).collect()
}

/// A tensor whose elements along an axis are the inputs of the iterations.
struct ScanInput<'a> {
    tensor: &'a Tensor,
    axis: usize,
    reversed: bool,
}

/// Evaluates the body of a `Scan`; returns the final states, and the elements of each output.
fn iterate(
    call: &Call<'_>,
    body: &Graph,
    mut states: Vec<Value>,
    inputs: &[ScanInput<'_>],
    length: usize,
) -> Result<(Vec<Value>, Vec<Vec<Value>>), Problem> {
    let count = states.len();
    let mut scans = accumulators(body, count + inputs.len(), count)?;
    let mut kept = meter::Kept::default();
    for step in 0..length {
        let mut values = std::mem::take(&mut states);
        for input in inputs {
            let index = if input.reversed { length - 1 - step } else { step };
            values.push(at(input.tensor, input.axis, index)?.into());
        }
        let mut outputs = call.run(body, values)?.into_iter();
        states.extend(outputs.by_ref().take(count));
        for (scan, output) in scans.iter_mut().zip(outputs) {
            kept.hold(&output)?;
            scan.push(output);
        }
    }
    Ok((states, scans))
}

/// Returns the operands from one index to before another.
fn values(call: &Call<'_>, start: usize, end: usize) -> Result<Vec<Value>, Problem> {
    (start..end).map(|index| call.value(index).cloned()).collect()
}

/// Returns an empty list for each output of a body after the first ones, and checks the numbers of
/// inputs and outputs.
fn accumulators(body: &Graph, inputs: usize, first: usize) -> Result<Vec<Vec<Value>>, Problem> {
    match body.outputs.len().checked_sub(first) {
        Some(count) if body.inputs.len() == inputs => Ok(vec![Vec::new(); count]),
        _ => Err(Problem::Invalid(format!(
            "the body has {} inputs and {} outputs; it must have {inputs} inputs and at least \
             {first} outputs",
            body.inputs.len(),
            body.outputs.len()
        ))),
    }
}

/// Returns a list attribute with one integer for each tensor; they are 0 by default.
fn list(call: &Call<'_>, name: &'static str, count: usize) -> Result<Vec<i64>, Problem> {
    match call.ints(name)? {
        None => Ok(vec![0; count]),
        Some(list) if list.len() == count => Ok(list.to_vec()),
        Some(list) => Err(Problem::AttributeValue {
            name,
            value: format!("{list:?}"),
            accepted: "a list with one integer for each scanned tensor",
        }),
    }
}

/// Returns the size that axes have in common.
fn common_length(mut sizes: impl Iterator<Item = usize>) -> Result<usize, Problem> {
    let first = sizes.next().unwrap_or(0);
    match sizes.find(|size| *size != first) {
        None => Ok(first),
        Some(other) => Err(Problem::Invalid(format!(
            "scanned axes have the sizes {first} and {other}, which must be equal"
        ))),
    }
}

/// Returns the only element of a boolean tensor.
fn truth(value: &Value) -> Result<bool, Problem> {
    let tensor = value.tensor()?;
    match tensor.slice::<bool>() {
        Some([value]) => Ok(*value),
        Some(_) => Err(Problem::Size { shape: tensor.shape().to_vec(), elements: 1 }),
        None => Err(Problem::ElementType { found: tensor.element(), accepted: "bool" }),
    }
}

/// Returns a tensor of one element for an input of a body: a vector if the body says so.
fn single<T: Element>(body: &Graph, input: usize, value: T) -> Result<Tensor, Problem> {
    let stated = body.inputs.get(input).and_then(|info| info.value_type.as_ref());
    match stated {
        Some(ValueType::Tensor { shape: Some(shape), .. }) if shape.len() == 1 => {
            Ok(Tensor::vector(vec![value]))
        }
        _ => Ok(Tensor::scalar(value)),
    }
}

/// Returns the subtensor at an index of an axis, without that axis.
fn at(tensor: &Tensor, axis: usize, index: usize) -> Result<Tensor, Problem> {
    let mut sizes = tensor.shape().to_vec();
    let mut strides = shape::strides(&sizes);
    if axis >= sizes.len() {
        return Err(Problem::Axis { axis: axis as i64, rank: sizes.len() });
    }
    sizes.remove(axis);
    let start = strides.remove(axis).saturating_mul(index);
    tensor.select(sizes.clone(), shape::Offsets::new(sizes, strides, start))
}

/// Joins tensors of one shape along a new axis.
fn stack(elements: &[&Tensor], axis: usize) -> Result<Tensor, Problem> {
    same_type(elements)?;
    let first = elements.first().map_or(&[][..], |tensor| tensor.shape());
    if let Some(other) = elements.iter().find(|tensor| tensor.shape() != first) {
        return Err(Problem::Invalid(format!(
            "an output has the shapes {first:?} and {:?} in two iterations, which must be equal",
            other.shape()
        )));
    }
    let mut sizes = first.to_vec();
    sizes.insert(axis.min(first.len()), elements.len());
    join(elements, axis, sizes)
}

/// Joins the values of an output of a body along a new axis. Without a value, the shape is as the
/// body states; sizes that it does not state are 0.
fn stack_scan(
    body: &Graph,
    output: usize,
    elements: &[Value],
    axis: i64,
) -> Result<Tensor, Problem> {
    let tensors = elements.iter().map(Value::tensor).collect::<Result<Vec<_>, _>>()?;
    match tensors.first() {
        Some(first) => stack(&tensors, shape::axis(axis, first.rank() + 1)?),
        None => {
            let (element, mut sizes) = stated(body, output)?;
            sizes.insert(shape::axis(axis, sizes.len() + 1)?, 0);
            empty(element, sizes)
        }
    }
}

/// Returns the element type and the shape that a body states for an output.
fn stated(body: &Graph, output: usize) -> Result<(ElementType, Vec<usize>), Problem> {
    let name = body.outputs.get(output).map_or("", |info| info.name.as_str());
    if let Some(constant) = body.initializers.get(name) {
        return Ok((constant.element(), constant.shape().to_vec()));
    }
    let infos = body.outputs.iter().chain(&body.value_info).chain(&body.inputs);
    let mut types = infos.filter(|info| info.name == name).filter_map(|i| i.value_type.as_ref());
    let Some(ValueType::Tensor { element, shape }) = types.next() else {
        return Err(Problem::Invalid(format!(
            "there are no iterations, and the body does not state the type of output {name:?}"
        )));
    };
    let sizes = shape.iter().flatten().map(|dimension| match dimension {
        Dimension::Size(size) => *size,
        Dimension::Named(_) | Dimension::Unknown => 0,
    });
    Ok((*element, sizes.collect()))
}

/// Returns a tensor without elements.
fn empty(element: ElementType, sizes: Vec<usize>) -> Result<Tensor, Problem> {
    let data = match element {
        ElementType::Text => Data::Text(vec![]),
        ElementType::Complex64 => Data::Complex64(vec![]),
        ElementType::Complex128 => Data::Complex128(vec![]),
        _ => return Tensor::from_i128(element, sizes, vec![]),
    };
    Tensor::with_type(element, sizes, data)
}

/// Appends zeros along axis 0 up to a size.
fn padded(tensor: &Tensor, size: usize) -> Result<Tensor, Problem> {
    fn zeros<T: Element>(_: &[T], count: usize) -> Data {
        T::store(vec![T::default(); count])
    }
    let mut sizes = tensor.shape().to_vec();
    let Some(own) = sizes.first_mut() else { return Ok(tensor.clone()) };
    *own = size.saturating_sub(*own);
    let count = shape::elements(&sizes)?;
    let data = with_data!(tensor.data(), values => zeros(values, count));
    let rest = Tensor::with_type(tensor.element(), sizes.clone(), data)?;
    if let Some(own) = sizes.first_mut() {
        *own = size;
    }
    join(&[tensor, &rest], 0, sizes)
}

#[cfg(test)]
mod tests {
    use super::super::sequence::testing::{evaluate, floats, int};
    use super::*;
    use crate::model::{Attribute, Node, ValueInfo};
    use std::sync::Arc;

    fn info(name: &str, element: ElementType, shape: &[usize]) -> ValueInfo {
        let shape = Some(shape.iter().map(|size| Dimension::Size(*size)).collect());
        ValueInfo { name: name.into(), value_type: Some(ValueType::Tensor { element, shape }) }
    }

    /// Returns a body that copies inputs to outputs.
    fn copies(inputs: Vec<ValueInfo>, outputs: Vec<(ValueInfo, &str)>) -> Attribute {
        let nodes = outputs.iter().map(|(output, input)| Node {
            operator: "Transpose".into(),
            inputs: vec![input.to_string()],
            outputs: vec![output.name.clone()],
            attributes: [("perm".into(), Attribute::Ints(vec![0]))].into(),
            ..Node::default()
        });
        let nodes = nodes.filter(|node| node.inputs[0] != "condition").collect();
        let outputs = outputs.into_iter().map(|(output, _)| output).collect();
        let mut graph = Graph { inputs, outputs, nodes, ..Graph::default() };
        graph.prepare();
        Attribute::Graph(Arc::new(graph))
    }

    fn loop_body() -> Attribute {
        let float = |name: &str| info(name, ElementType::F32, &[2]);
        let condition = || info("condition", ElementType::Bool, &[]);
        let inputs = vec![info("iteration", ElementType::I64, &[1]), condition(), float("state")];
        let count = info("count", ElementType::I64, &[1]);
        let outputs =
            vec![(condition(), "condition"), (float("next"), "state"), (count, "iteration")];
        copies(inputs, outputs)
    }

    #[test]
    fn a_loop_without_iterations_returns_its_inputs_and_stated_shapes() {
        let state = floats(&[2], &[1.0, 2.0]);
        let condition = |value: bool| Some(Tensor::scalar(value).into());
        let run = |inputs| evaluate("Loop", 25, &[("body", loop_body())], inputs, 2);
        let none = Tensor::new::<i64>(vec![0, 1], vec![]).unwrap().into();
        for inputs in [
            vec![int(0), None, state.clone()],
            vec![int(-1), condition(true), state.clone()],
            vec![None, condition(false), state.clone()],
        ] {
            assert_eq!(run(inputs), Ok(vec![state.clone().unwrap(), Value::clone(&none)]));
        }
        let three = Tensor::new(vec![3, 1], vec![0i64, 1, 2]).unwrap().into();
        let result = run(vec![int(3), condition(true), state.clone()]);
        assert_eq!(result, Ok(vec![state.clone().unwrap(), three]));
        assert!(run(vec![None, None, state]).is_err());
    }

    #[test]
    fn the_condition_of_the_body_counts_only_with_a_condition_of_the_node() {
        let float = |name: &str| info(name, ElementType::F32, &[2]);
        let mut body = Graph {
            inputs: vec![float("i"), float("c"), float("state")],
            outputs: vec![float("no"), float("state")],
            initializers: [("no".into(), Arc::new(Tensor::scalar(false)))].into(),
            ..Graph::default()
        };
        body.outputs.push(float("i"));
        let body = Attribute::Graph(Arc::new(body));
        let count = |condition: Option<Value>| {
            let inputs = vec![int(3), condition, floats(&[2], &[1.0, 2.0])];
            let outputs = evaluate("Loop", 13, &[("body", body.clone())], inputs, 2).unwrap();
            outputs[1].tensor().unwrap().shape()[0]
        };
        assert_eq!(count(None), 3);
        assert_eq!(count(Some(Tensor::scalar(true).into())), 1);
    }

    fn scan_body() -> Attribute {
        let element = || info("element", ElementType::F32, &[1]);
        copies(vec![element()], vec![(info("copy", ElementType::F32, &[1]), "element")])
    }

    #[test]
    fn a_scan_of_a_batch_reverses_within_lengths_and_pads_with_zeros() {
        let attributes = [
            ("body", scan_body()),
            ("num_scan_inputs", Attribute::Int(1)),
            ("directions", Attribute::Ints(vec![1])),
        ];
        let x = floats(&[3, 3, 1], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
        let lengths = Some(Tensor::vector(vec![3i64, 2, 0]).into());
        let y = evaluate("Scan", 8, &attributes, vec![lengths, x], 1).unwrap();
        let expected = floats(&[3, 3, 1], &[3.0, 2.0, 1.0, 5.0, 4.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(y[0], expected.unwrap());
    }

    #[test]
    fn a_scan_joins_along_the_output_axis() {
        let scan = |x: Option<Value>| {
            let attributes = [
                ("body", scan_body()),
                ("num_scan_inputs", Attribute::Int(1)),
                ("scan_output_axes", Attribute::Ints(vec![-1])),
                ("scan_output_directions", Attribute::Ints(vec![1])),
            ];
            evaluate("Scan", 11, &attributes, vec![x], 1).unwrap().remove(0)
        };
        let expected = floats(&[1, 3], &[3.0, 2.0, 1.0]).unwrap();
        assert_eq!(scan(floats(&[3, 1], &[1.0, 2.0, 3.0])), expected);
        assert_eq!(scan(floats(&[0, 1], &[])), floats(&[1, 0], &[]).unwrap());
    }
}
