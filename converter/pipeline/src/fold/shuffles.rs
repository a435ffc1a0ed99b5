//! Replaces chains of operators that only move elements, and whose result is every n-th slice of
//! their input along one axis, by one strided slice.
//!
//! Exporters write a channel shuffle and split as `Reshape`, `Transpose`, `Reshape` and `Gather`,
//! with the groups of channels on the axis of the batch. Such a chain has no INT8 form, and splits
//! the integer program at every block of a ShuffleNet.

use hardtack::Data;
use hardtack::internal::Constant;
use hardtack_bundle::graph::{Dim, Downsample, Fact, Node, Operator, Reshape, Slice, ValueId};

use crate::graph::rewriter::Rewriter;
use crate::graph::shape::{fact, strides};

/// The length of the longest chain.
const LONGEST: usize = 16;

/// Replaces all such chains. Returns their number.
pub(super) fn replace(rewriter: &mut Rewriter) -> usize {
    let mut replaced = 0;
    for index in 0..rewriter.model.graph.nodes.len() {
        let here = ValueId { node: index as u32, output: 0 };
        if rewriter.resolve(here) == here && replace_one(rewriter, index).is_some() {
            replaced += 1;
        }
    }
    replaced
}

/// A strided view of a tensor in row-major order, in elements.
#[derive(Clone, Debug, PartialEq)]
struct View {
    offset: usize,
    /// The size and stride of each dimension.
    dims: Vec<(usize, usize)>,
}

fn replace_one(rewriter: &mut Rewriter, index: usize) -> Option<()> {
    // The chain, last node first.
    let mut chain = Vec::new();
    let mut next = index;
    while chain.len() < LONGEST
        && let Some(before) = moved(rewriter, next)
    {
        chain.push(next);
        next = before.node as usize;
    }
    // A shorter chain may be such a slice where the longest is not.
    while chain.len() > 1 {
        let base = rewriter.resolve(rewriter.node(*chain.last()?).inputs[0]);
        if replace_chain(rewriter, base, &chain).is_some() {
            return Some(());
        }
        chain.pop();
    }
    None
}

/// Returns the value that a node only moves.
fn moved(rewriter: &Rewriter, index: usize) -> Option<ValueId> {
    moves(rewriter, index)?;
    Some(rewriter.resolve(*rewriter.node(index).inputs.first()?))
}

/// Returns the view of its input that a node computes, if it only moves elements and all
/// dimensions are known.
fn moves(rewriter: &Rewriter, index: usize) -> Option<View> {
    let node = rewriter.node(index);
    let before = shape(rewriter.model.graph.fact(rewriter.resolve(*node.inputs.first()?)))?;
    let [after] = &node.outputs[..] else { return None };
    let view = whole(&before);
    apply(rewriter, node, &view, &shape(after)?)
}

fn whole(shape: &[usize]) -> View {
    View { offset: 0, dims: shape.iter().copied().zip(strides(shape)).collect() }
}

fn shape(fact: &Fact) -> Option<Vec<usize>> {
    let size = |dim: &Dim| usize::try_from(dim.value()?).ok().filter(|size| *size > 0);
    fact.shape.iter().map(size).collect()
}

/// Applies a node to a view of its input. Its result has the shape `after`.
fn apply(rewriter: &Rewriter, node: &Node, view: &View, after: &[usize]) -> Option<View> {
    let mut view = view.clone();
    match &node.operator {
        Operator::MoveAxis((from, to)) => {
            let dim = view.dims.remove(*from as usize);
            view.dims.insert(*to as usize, dim);
        }
        Operator::AddAxis(axis) => view.dims.insert(*axis as usize, (1, 0)),
        Operator::RemoveAxis(axis) => drop(view.dims.remove(*axis as usize)),
        Operator::Reshape(_) => view.dims = reshaped(&view.dims, after)?,
        Operator::Slice(slice) => {
            let start = usize::try_from(slice.start.value()?).ok()?;
            let (size, stride) = &mut view.dims[slice.axis as usize];
            view.offset += start * *stride;
            *size = *after.get(slice.axis as usize)?;
        }
        Operator::Gather(gather) if gather.output_dtype.is_none() => {
            let Constant::Tensor(index) = rewriter.constant(node.inputs[1])? else { return None };
            let (Data::I64(index), []) = (index.data(), index.shape()) else { return None };
            let (size, stride) = view.dims.remove(gather.axis as usize);
            let index = if index[0] < 0 { index[0] + size as i64 } else { index[0] };
            let index = usize::try_from(index).ok().filter(|index| *index < size)?;
            view.offset += index * stride;
        }
        _ => return None,
    }
    let sizes = view.dims.iter().map(|(size, _)| size);
    sizes.eq(after).then_some(view)
}

/// Returns the strides of the same elements in another shape, if there are any.
fn reshaped(dims: &[(usize, usize)], shape: &[usize]) -> Option<Vec<(usize, usize)>> {
    let mut merged = merged(dims).into_iter().rev();
    let mut current: Option<(usize, usize)> = None;
    let mut result = Vec::new();
    // Take each new dimension, innermost first, from the innermost dimension that is left.
    for &size in shape.iter().rev() {
        if size == 1 {
            result.push((1, 0));
            continue;
        }
        let (left, stride) = match current.take() {
            Some(dim) => dim,
            None => merged.next()?,
        };
        left.is_multiple_of(size).then_some(())?;
        result.push((size, stride));
        current = (left > size).then_some((left / size, stride * size));
    }
    result.reverse();
    (current.is_none() && merged.next().is_none()).then_some(result)
}

/// Merges dimensions whose elements lie at regular distances, and drops dimensions of 1.
fn merged(dims: &[(usize, usize)]) -> Vec<(usize, usize)> {
    let mut merged: Vec<(usize, usize)> = Vec::new();
    for &(size, stride) in dims.iter().filter(|(size, _)| *size > 1) {
        match merged.last_mut() {
            Some((count, outer)) if *outer == size * stride => {
                (*count, *outer) = (*count * size, stride);
            }
            _ => merged.push((size, stride)),
        }
    }
    merged
}

/// Replaces a chain, last node first, that reads `base`.
fn replace_chain(rewriter: &mut Rewriter, base: ValueId, chain: &[usize]) -> Option<()> {
    let before = shape(rewriter.model.graph.fact(base))?;
    let mut view = whole(&before);
    let (mut gathers, mut mixes) = (false, false);
    for &index in chain.iter().rev() {
        let node = rewriter.node(index);
        let after = shape(&node.outputs[0])?;
        view = apply(rewriter, node, &view, &after)?;
        gathers |= matches!(node.operator, Operator::Gather(_));
        mixes |= after.first() != before.first();
    }
    // Other chains already have an INT8 form.
    (gathers || mixes).then_some(())?;
    let last = rewriter.node(*chain.first()?).clone();
    let after = shape(&last.outputs[0])?;
    (before.first()? == after.first()?).then_some(())?;
    let (axis, start, step, count) = slice_of(&before, &view)?;

    let dtype = last.outputs[0].dtype;
    let mut sizes = before.clone();
    let (mut add, mut value) = (
        |name: String, operator, input, shape: &[usize]| {
            let outputs = vec![fact(dtype, shape)];
            rewriter.add(Node { name, operator, inputs: vec![input], outputs })
        },
        base,
    );
    let end = start + (count - 1) * step + 1;
    if (start, end) != (0, before[axis]) {
        let [from, to] = [start, end].map(|at| Dim::Value(at as i64));
        let slice = Slice { axis: axis as u32, start: from, end: to };
        sizes[axis] = end - start;
        value = add(format!("{}.slice", last.name), Operator::Slice(slice), value, &sizes);
    }
    if step > 1 {
        let every = Downsample { axis: axis as u32, stride: step as i64, modulo: 0 };
        sizes[axis] = count;
        value = add(format!("{}.every", last.name), Operator::Downsample(every), value, &sizes);
    }
    if sizes != after {
        let dims = |shape: &[usize]| shape.iter().map(|size| Dim::Value(*size as i64)).collect();
        let reshape = Reshape { axis: 0, from: dims(&sizes), to: dims(&after) };
        value = add(last.name.clone(), Operator::Reshape(reshape), value, &after);
    }
    rewriter.redirect(ValueId { node: *chain.first()? as u32, output: 0 }, value);
    Some(())
}

/// Returns the axis, the first index, the step and the count of the slices of a tensor that a view
/// consists of, in order.
fn slice_of(shape: &[usize], view: &View) -> Option<(usize, usize, usize, usize)> {
    let elements: usize = view.dims.iter().map(|(size, _)| size).product();
    let all: usize = shape.iter().product();
    let given = merged(&view.dims);
    for (axis, (&size, stride)) in shape.iter().zip(strides(shape)).enumerate().skip(1) {
        let rest = all / size;
        let count = elements / rest;
        if count == 0 || count * rest != elements || !view.offset.is_multiple_of(stride) {
            continue;
        }
        let start = view.offset / stride;
        let most = if count > 1 { (size - 1) / (count - 1) } else { 1 };
        for step in 1..=most {
            if start + (count - 1) * step >= size {
                break;
            }
            let mut dims: Vec<(usize, usize)> = shape.iter().copied().zip(strides(shape)).collect();
            dims[axis] = (count, stride * step);
            if merged(&dims) == given {
                return Some((axis, start, step, count));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_shuffle_is_every_second_channel() {
        // [1, 8, 3, 3] → [4, 2, 9] → [2, 4, 9] → index 1 → [1, 4, 3, 3].
        let base = whole(&[1, 8, 3, 3]);
        let mut dims = reshaped(&base.dims, &[4, 2, 9]).unwrap();
        dims.swap(0, 1);
        let (_, stride) = dims.remove(0);
        let dims = reshaped(&dims, &[1, 4, 3, 3]).unwrap();
        let view = View { offset: stride, dims };
        assert_eq!(slice_of(&[1, 8, 3, 3], &view), Some((1, 1, 2, 4)));
    }

    #[test]
    fn transposed_elements_are_no_slice() {
        let mut view = whole(&[1, 4, 4]);
        view.dims.swap(1, 2);
        assert_eq!(slice_of(&[1, 4, 4], &view), None);
        assert_eq!(reshaped(&view.dims, &[16]), None);
        assert_eq!(slice_of(&[1, 4, 4], &whole(&[1, 4, 4])), Some((1, 0, 1, 4)));
    }
}
