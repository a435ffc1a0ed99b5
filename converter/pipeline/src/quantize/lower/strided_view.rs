//! Values as strided views: where each element of a value, in row-major order, is stored.
//!
//! Views make transposition, slicing, concatenation, channel shuffles and broadcasting free: these
//! only change strides and offsets. Elements are copied only when an operation needs one dense
//! tensor. Shapes and axes exclude the batch.

use hardtack_engine::program::{CopyLayout, TensorId};

use crate::graph::shape::strides;

/// The storage that elements are read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Storage {
    /// An input of the program, in row-major order.
    Port(u16),
    /// A tensor in the arena, in its stored order.
    Tensor(TensorId),
}

/// One dimension of a chunk: its size, and its strides in the source and the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Dim {
    count: usize,
    source: usize,
    target: usize,
}

/// A strided chunk: elements of one source, and the position of each in the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// The storage of the elements.
    pub source: Storage,
    source_offset: usize,
    target_offset: usize,
    dims: Vec<Dim>,
}

/// A value as a strided view: chunks that together fill a shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StridedView {
    /// The dimensions, without the batch.
    pub shape: Vec<usize>,
    /// The chunks.
    pub chunks: Vec<Chunk>,
}

/// A chunk whose dimensions each lie along one axis of the target.
struct AxisChunk {
    source: Storage,
    source_offset: usize,
    start: Vec<usize>,
    dims: Vec<AxisDim>,
}

#[derive(Clone, Copy)]
struct AxisDim {
    axis: usize,
    count: usize,
    source: usize,
    step: usize,
}

/// Returns the strides of a dense tensor that stores its axes in this order, outermost first.
fn stored_strides(shape: &[usize], order: &[usize]) -> Vec<usize> {
    let stored: Vec<usize> = order.iter().map(|axis| shape[*axis]).collect();
    let mut result = vec![0; shape.len()];
    for (axis, stride) in order.iter().zip(strides(&stored)) {
        result[*axis] = stride;
    }
    result
}

impl StridedView {
    /// Returns a view of a whole source that stores its axes in this order, outermost first.
    pub(crate) fn dense(source: Storage, shape: &[usize], order: &[usize]) -> StridedView {
        let (from, to) = (stored_strides(shape, order), strides(shape));
        let dims = (0..shape.len())
            .map(|axis| Dim { count: shape[axis], source: from[axis], target: to[axis] })
            .collect();
        let chunk = Chunk { source, source_offset: 0, target_offset: 0, dims };
        StridedView { shape: shape.into(), chunks: vec![chunk.joined()] }
    }

    /// Returns the tensors of the view without duplicates, or `None` if it also reads inputs.
    pub(crate) fn tensors(&self) -> Option<Vec<TensorId>> {
        let mut tensors = Vec::new();
        for chunk in &self.chunks {
            let Storage::Tensor(id) = chunk.source else { return None };
            if !tensors.contains(&id) {
                tensors.push(id);
            }
        }
        Some(tensors)
    }

    /// Returns the same view of other tensors.
    pub(crate) fn redirected(&self, to: impl Fn(TensorId) -> TensorId) -> StridedView {
        let mut view = self.clone();
        for chunk in &mut view.chunks {
            if let Storage::Tensor(id) = &mut chunk.source {
                *id = to(*id);
            }
        }
        view
    }

    /// Returns the number of elements.
    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Returns the view in another shape with the same number of elements.
    pub(crate) fn reshape(mut self, shape: &[usize]) -> StridedView {
        debug_assert_eq!(self.len(), shape.iter().product::<usize>());
        self.shape = shape.into();
        self
    }

    /// Moves an axis. Returns `None` if a chunk does not lie along the axes.
    pub(crate) fn move_axis(&self, from: usize, to: usize) -> Option<StridedView> {
        let mut order: Vec<usize> = (0..self.shape.len()).collect();
        let axis = order.remove(from);
        order.insert(to, axis);
        let shape: Vec<usize> = order.iter().map(|axis| self.shape[*axis]).collect();
        let mut moved = vec![0; order.len()];
        for (axis, stride) in order.iter().zip(strides(&shape)) {
            moved[*axis] = stride;
        }
        let chunks =
            self.chunks.iter().map(|chunk| Some(chunk.along_axes(&self.shape)?.in_target(&moved)));
        Some(StridedView { chunks: chunks.collect::<Option<_>>()?, shape })
    }

    /// Takes every `step`-th element of a range of an axis. Returns `None` if a chunk does not lie
    /// along the axes.
    pub(crate) fn slice(
        &self,
        axis: usize,
        range: std::ops::Range<usize>,
        step: usize,
    ) -> Option<StridedView> {
        let mut shape = self.shape.clone();
        shape[axis] = range.len().div_ceil(step);
        let strides = strides(&shape);
        let mut chunks = Vec::new();
        for chunk in &self.chunks {
            let mut along_axes = chunk.along_axes(&self.shape)?;
            if along_axes.cut(axis, range.clone(), step)? {
                chunks.push(along_axes.in_target(&strides));
            }
        }
        Some(StridedView { shape, chunks })
    }

    /// Concatenates views along an axis. Returns `None` if a chunk does not lie along the axes.
    pub(crate) fn concat(views: &[StridedView], axis: usize) -> Option<StridedView> {
        let mut shape = views.first()?.shape.clone();
        shape[axis] = views.iter().map(|view| view.shape[axis]).sum();
        let strides = strides(&shape);
        let (mut chunks, mut start) = (Vec::new(), 0);
        for view in views {
            for chunk in &view.chunks {
                let mut along_axes = chunk.along_axes(&view.shape)?;
                along_axes.start[axis] += start;
                chunks.push(along_axes.in_target(&strides));
            }
            start += view.shape[axis];
        }
        Some(StridedView { shape, chunks })
    }

    /// Adds a border with these numbers of elements before and after each axis. The border has no
    /// stored elements. Returns `None` if a chunk does not lie along the axes.
    pub(crate) fn within(&self, border: &[(usize, usize)]) -> Option<StridedView> {
        let sizes = self.shape.iter().zip(border);
        let shape: Vec<usize> =
            sizes.map(|(size, (before, after))| before + size + after).collect();
        let strides = strides(&shape);
        let chunks = self.chunks.iter().map(|chunk| {
            let mut along_axes = chunk.along_axes(&self.shape)?;
            along_axes
                .start
                .iter_mut()
                .zip(border)
                .for_each(|(start, (before, _))| *start += before);
            Some(along_axes.in_target(&strides))
        });
        Some(StridedView { chunks: chunks.collect::<Option<_>>()?, shape })
    }

    /// Broadcasts axes of size 1. Returns `None` if a chunk does not lie along the axes, or another
    /// axis would change.
    pub(crate) fn broadcast(&self, shape: &[usize]) -> Option<StridedView> {
        let strides = strides(shape);
        let mut chunks = Vec::new();
        for chunk in &self.chunks {
            let mut along_axes = chunk.along_axes(&self.shape)?;
            for (axis, (before, after)) in self.shape.iter().zip(shape).enumerate() {
                match (before, after) {
                    _ if before == after => {}
                    (1, &count) => {
                        along_axes.dims.push(AxisDim { axis, count, source: 0, step: 1 })
                    }
                    _ => return None,
                }
            }
            chunks.push(along_axes.in_target(&strides));
        }
        Some(StridedView { shape: shape.into(), chunks })
    }

    /// Returns the order of axes, outermost first, in which a dense copy reads the source of the
    /// largest chunk with descending strides.
    pub(crate) fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.shape.len()).collect();
        let size = |chunk: &&Chunk| chunk.dims.iter().map(|dim| dim.count).product::<usize>();
        let largest = self.chunks.iter().max_by_key(size);
        if let Some(along_axes) = largest.and_then(|chunk| chunk.along_axes(&self.shape)) {
            let mut stride = vec![usize::MAX; self.shape.len()];
            for dim in &along_axes.dims {
                stride[dim.axis] = stride[dim.axis].min(dim.source);
            }
            order.sort_by_key(|axis| std::cmp::Reverse(stride[*axis]));
        }
        order
    }

    /// Returns the tensor if the view is exactly one whole tensor stored in this order.
    pub(crate) fn whole_tensor(&self, order: &[usize]) -> Option<TensorId> {
        let [chunk] = &self.chunks[..] else { return None };
        let Storage::Tensor(id) = chunk.source else { return None };
        let stored = chunk.along_axes(&self.shape)?.in_target(&stored_strides(&self.shape, order));
        let dense = match &stored.dims[..] {
            [] => self.len() == 1,
            [dim] => *dim == Dim { count: self.len(), source: 1, target: 1 },
            _ => false,
        };
        (dense && stored.source_offset == 0 && stored.target_offset == 0).then_some(id)
    }

    /// Returns, for each chunk, the strided copy from its source to a dense tensor that stores the
    /// axes in this order. Returns `None` if a copy has too many dimensions.
    pub(crate) fn copies(&self, order: &[usize]) -> Option<Vec<(Storage, CopyLayout)>> {
        let strides = stored_strides(&self.shape, order);
        self.chunks
            .iter()
            .map(|chunk| {
                Some((chunk.source, chunk.along_axes(&self.shape)?.in_target(&strides).copy()?))
            })
            .collect()
    }

    /// Calls `visit` with each element's index in its source and its row-major index in the view.
    pub(crate) fn each(&self, mut visit: impl FnMut(usize, usize)) {
        for chunk in &self.chunks {
            let count: usize = chunk.dims.iter().map(|dim| dim.count).product();
            for mut index in 0..count {
                let (mut source, mut target) = (chunk.source_offset, chunk.target_offset);
                for dim in chunk.dims.iter().rev() {
                    source += index % dim.count * dim.source;
                    target += index % dim.count * dim.target;
                    index /= dim.count;
                }
                visit(source, target);
            }
        }
    }

    /// Returns, for each chunk, the strided copy from its source to a row-major output.
    pub(crate) fn output_copies(&self) -> Option<Vec<(Storage, CopyLayout)>> {
        self.chunks.iter().map(|chunk| Some((chunk.source, chunk.copy()?))).collect()
    }
}

impl Chunk {
    /// Splits dimensions until each lies along one axis. Returns `None` if that is impossible.
    fn along_axes(&self, shape: &[usize]) -> Option<AxisChunk> {
        let strides = strides(shape);
        let mut rest = self.target_offset;
        let mut start = vec![0; shape.len()];
        for axis in 0..shape.len() {
            start[axis] = rest / strides[axis];
            rest %= strides[axis];
        }
        let mut dims = Vec::new();
        let mut deferred = self.dims.clone();
        while let Some(Dim { count, source, target }) = deferred.pop() {
            let runs = |axis: &usize| {
                (strides[*axis]..strides[*axis] * shape[*axis]).contains(&target)
                    && target.is_multiple_of(strides[*axis])
            };
            let axis = (0..shape.len()).rev().find(runs)?;
            let step = target / strides[axis];
            let room = (shape[axis] - 1 - start[axis]) / step + 1;
            if count <= room {
                dims.push(AxisDim { axis, count, source, step });
                continue;
            }
            let inner = shape[axis] / step;
            let even = shape[axis].is_multiple_of(step) && count.is_multiple_of(inner);
            if !even || start[axis] >= step {
                return None;
            }
            dims.push(AxisDim { axis, count: inner, source, step });
            let target = strides[axis] * shape[axis];
            deferred.push(Dim { count: count / inner, source: source * inner, target });
        }
        let reach = |axis: usize| -> usize {
            let along = dims.iter().filter(|dim| dim.axis == axis);
            start[axis] + along.map(|dim| (dim.count - 1) * dim.step).sum::<usize>()
        };
        (0..shape.len()).all(|axis| reach(axis) < shape[axis]).then_some(())?;
        Some(AxisChunk { source: self.source, source_offset: self.source_offset, start, dims })
    }

    /// Sorts the dimensions by descending target stride and merges adjacent ones that form one
    /// longer dimension.
    fn joined(mut self) -> Chunk {
        self.dims.retain(|dim| dim.count != 1);
        self.dims.sort_by_key(|dim| std::cmp::Reverse(dim.target));
        let mut joined: Vec<Dim> = Vec::new();
        for dim in self.dims {
            match joined.last_mut() {
                Some(outer)
                    if outer.source == dim.source * dim.count
                        && outer.target == dim.target * dim.count =>
                {
                    *outer = Dim { count: outer.count * dim.count, ..dim };
                }
                _ => joined.push(dim),
            }
        }
        self.dims = joined;
        self
    }

    fn copy(&self) -> Option<CopyLayout> {
        let mut copy = CopyLayout {
            dims: [1; 6],
            source_offset: self.source_offset.try_into().ok()?,
            source_strides: [0; 6],
            target_offset: self.target_offset.try_into().ok()?,
            target_strides: [0; 6],
        };
        let first = copy.dims.len().checked_sub(self.dims.len())?;
        for (place, dim) in (first..).zip(&self.dims) {
            copy.dims[place] = dim.count.try_into().ok()?;
            copy.source_strides[place] = dim.source.try_into().ok()?;
            copy.target_strides[place] = dim.target.try_into().ok()?;
        }
        if self.dims.is_empty() {
            (copy.source_strides[5], copy.target_strides[5]) = (1, 1);
        }
        Some(copy)
    }
}

impl AxisChunk {
    /// Converts to a chunk of a target with these strides.
    fn in_target(self, strides: &[usize]) -> Chunk {
        let dims = self.dims.iter().map(|dim| Dim {
            count: dim.count,
            source: dim.source,
            target: dim.step * strides[dim.axis],
        });
        let start = self.start.iter().zip(strides);
        Chunk {
            source: self.source,
            source_offset: self.source_offset,
            target_offset: start.map(|(start, stride)| start * stride).sum(),
            dims: dims.collect(),
        }
        .joined()
    }

    /// Keeps every `step`-th element of a range of an axis. Returns whether any is left, or `None`
    /// if the rest is not a strided chunk.
    fn cut(&mut self, axis: usize, range: std::ops::Range<usize>, step: usize) -> Option<bool> {
        let start = self.start[axis];
        let mut along = self.dims.iter_mut().filter(|dim| dim.axis == axis);
        let (dim, more) = (along.next(), along.next());
        if more.is_some() {
            return None;
        }
        let wanted = |at: usize| range.contains(&at) && (at - range.start).is_multiple_of(step);
        let Some(dim) = dim else {
            if wanted(start) {
                self.start[axis] = (start - range.start) / step;
            }
            return Some(wanted(start));
        };
        let kept: Vec<usize> =
            (0..dim.count).filter(|index| wanted(start + index * dim.step)).collect();
        let (Some(first), Some(last)) = (kept.first(), kept.last()) else { return Some(false) };
        self.source_offset += first * dim.source;
        self.start[axis] = (start + first * dim.step - range.start) / step;
        let apart = kept.get(1).map_or(1, |second| second - first);
        debug_assert_eq!((last - first) / apart + 1, kept.len());
        (dim.count, dim.source) = (kept.len(), dim.source * apart);
        dim.step = (dim.step * apart / step).max(1);
        Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the source index of each element of the view.
    fn elements(view: &StridedView) -> Vec<Option<usize>> {
        let mut elements = vec![None; view.len()];
        view.each(|source, target| {
            assert_eq!(elements[target].replace(source), None, "two elements have one position");
        });
        elements
    }

    fn channels_last(channels: usize, height: usize, width: usize) -> StridedView {
        StridedView::dense(Storage::Tensor(0), &[channels, height, width], &[1, 2, 0])
    }

    #[test]
    fn a_dense_view_reads_its_tensor_in_the_stored_order() {
        let view = channels_last(2, 1, 3);
        let expected = [0, 2, 4, 1, 3, 5].map(Some);
        assert_eq!(elements(&view), expected);
        assert_eq!(view.whole_tensor(&[1, 2, 0]), Some(0));
        assert_eq!(view.whole_tensor(&[0, 1, 2]), None);
        assert_eq!(view.order(), [1, 2, 0]);
    }

    #[test]
    fn a_channel_shuffle_is_one_strided_copy_per_part() {
        let (groups, channels, height, width) = (2, 3, 2, 2);
        let parts: Vec<StridedView> = (0..groups as u16)
            .map(|id| {
                StridedView::dense(Storage::Tensor(id), &[channels, height, width], &[1, 2, 0])
            })
            .collect();
        let joined = StridedView::concat(&parts, 0).unwrap();
        let split = joined.reshape(&[groups, channels, height, width]);
        let moved = split.move_axis(0, 1).unwrap();
        let shuffled = moved.reshape(&[groups * channels, height, width]);
        assert_eq!(shuffled.chunks.len(), 2);
        let all = elements(&shuffled);
        for channel in 0..groups * channels {
            for pixel in 0..height * width {
                let from = pixel * channels + channel / groups;
                assert_eq!(all[channel * height * width + pixel], Some(from));
            }
        }
        let half = shuffled.slice(0, 3..6, 1).unwrap();
        assert_eq!(elements(&half), all[3 * 4..]);
        assert!(half.copies(&[1, 2, 0]).is_some());
    }

    #[test]
    fn slices_match_numpy() {
        let view = StridedView::dense(Storage::Port(0), &[4, 5], &[0, 1]);
        let rows = view.slice(0, 1..4, 2).unwrap();
        assert_eq!(elements(&rows), [5, 6, 7, 8, 9, 15, 16, 17, 18, 19].map(Some));
        let columns = rows.slice(1, 1..5, 3).unwrap();
        assert_eq!(elements(&columns), [6, 9, 16, 19].map(Some));
    }

    #[test]
    fn broadcast_repeats() {
        let view = StridedView::dense(Storage::Tensor(0), &[2, 1], &[0, 1]);
        assert_eq!(elements(&view.broadcast(&[2, 3]).unwrap()), [0, 0, 0, 1, 1, 1].map(Some));
        assert_eq!(view.broadcast(&[3, 3]), None);
    }

    #[test]
    fn a_reshape_after_a_transposition_keeps_the_order() {
        let view = channels_last(4, 2, 3).reshape(&[4, 6]).move_axis(0, 1).unwrap();
        assert_eq!(elements(&view), (0..24).map(Some).collect::<Vec<_>>());
        assert_eq!(view.whole_tensor(&[0, 1]), Some(0));
        let flat = view.reshape(&[24]);
        assert_eq!(flat.whole_tensor(&[0]), Some(0));
    }
}
