//! Values as strided views: where each element of a value, in row-major order, is stored.
//!
//! Views make transposition, slicing, concatenation, channel shuffles and broadcasting free: these
//! only change strides and offsets. Elements are copied only when an operation needs one dense
//! tensor. Shapes and axes exclude the batch.

use hardtack_engine::program::{TensorId, Walk};

use crate::graph::shape::strides;

/// The storage that elements are read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// An input of the program, in row-major order.
    Port(u16),
    /// A tensor in the arena, in its stored order.
    Tensor(TensorId),
}

/// One dimension of a chunk: its size, and its strides in the source and the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    count: usize,
    source: usize,
    target: usize,
}

/// A strided chunk: elements of one source, and the position of each in the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The storage of the elements.
    pub source: Source,
    source_offset: usize,
    target_offset: usize,
    spans: Vec<Span>,
}

/// A value as a strided view: chunks that together fill a shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// The dimensions, without the batch.
    pub shape: Vec<usize>,
    /// The chunks.
    pub pieces: Vec<Piece>,
}

/// A chunk whose dimensions each lie along one axis of the target.
struct Placed {
    source: Source,
    source_offset: usize,
    start: Vec<usize>,
    spans: Vec<AxisSpan>,
}

#[derive(Clone, Copy)]
struct AxisSpan {
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

impl View {
    /// Returns a view of a whole source that stores its axes in this order, outermost first.
    pub(crate) fn dense(source: Source, shape: &[usize], order: &[usize]) -> View {
        let (from, to) = (stored_strides(shape, order), strides(shape));
        let spans = (0..shape.len())
            .map(|axis| Span { count: shape[axis], source: from[axis], target: to[axis] })
            .collect();
        let piece = Piece { source, source_offset: 0, target_offset: 0, spans };
        View { shape: shape.into(), pieces: vec![piece.joined()] }
    }

    /// Returns the tensors of the view without duplicates, or `None` if it also reads inputs.
    pub(crate) fn tensors(&self) -> Option<Vec<TensorId>> {
        let mut tensors = Vec::new();
        for piece in &self.pieces {
            let Source::Tensor(id) = piece.source else { return None };
            if !tensors.contains(&id) {
                tensors.push(id);
            }
        }
        Some(tensors)
    }

    /// Returns the same view of other tensors.
    pub(crate) fn redirected(&self, to: impl Fn(TensorId) -> TensorId) -> View {
        let mut view = self.clone();
        for piece in &mut view.pieces {
            if let Source::Tensor(id) = &mut piece.source {
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
    pub(crate) fn reshape(mut self, shape: &[usize]) -> View {
        debug_assert_eq!(self.len(), shape.iter().product::<usize>());
        self.shape = shape.into();
        self
    }

    /// Moves an axis. Returns `None` if a chunk does not lie along the axes.
    pub(crate) fn move_axis(&self, from: usize, to: usize) -> Option<View> {
        let mut order: Vec<usize> = (0..self.shape.len()).collect();
        let axis = order.remove(from);
        order.insert(to, axis);
        let shape: Vec<usize> = order.iter().map(|axis| self.shape[*axis]).collect();
        let mut moved = vec![0; order.len()];
        for (axis, stride) in order.iter().zip(strides(&shape)) {
            moved[*axis] = stride;
        }
        let pieces = self.pieces.iter().map(|piece| Some(piece.place(&self.shape)?.stand(&moved)));
        Some(View { pieces: pieces.collect::<Option<_>>()?, shape })
    }

    /// Takes every `step`-th element of a range of an axis. Returns `None` if a chunk does not lie
    /// along the axes.
    pub(crate) fn slice(
        &self,
        axis: usize,
        range: std::ops::Range<usize>,
        step: usize,
    ) -> Option<View> {
        let mut shape = self.shape.clone();
        shape[axis] = range.len().div_ceil(step);
        let strides = strides(&shape);
        let mut pieces = Vec::new();
        for piece in &self.pieces {
            let mut placed = piece.place(&self.shape)?;
            if placed.cut(axis, range.clone(), step)? {
                pieces.push(placed.stand(&strides));
            }
        }
        Some(View { shape, pieces })
    }

    /// Concatenates views along an axis. Returns `None` if a chunk does not lie along the axes.
    pub(crate) fn concat(views: &[View], axis: usize) -> Option<View> {
        let mut shape = views.first()?.shape.clone();
        shape[axis] = views.iter().map(|view| view.shape[axis]).sum();
        let strides = strides(&shape);
        let (mut pieces, mut start) = (Vec::new(), 0);
        for view in views {
            for piece in &view.pieces {
                let mut placed = piece.place(&view.shape)?;
                placed.start[axis] += start;
                pieces.push(placed.stand(&strides));
            }
            start += view.shape[axis];
        }
        Some(View { shape, pieces })
    }

    /// Adds a border with these numbers of elements before and after each axis. The border has no
    /// stored elements. Returns `None` if a chunk does not lie along the axes.
    pub(crate) fn within(&self, border: &[(usize, usize)]) -> Option<View> {
        let sizes = self.shape.iter().zip(border);
        let shape: Vec<usize> =
            sizes.map(|(size, (before, after))| before + size + after).collect();
        let strides = strides(&shape);
        let pieces = self.pieces.iter().map(|piece| {
            let mut placed = piece.place(&self.shape)?;
            placed.start.iter_mut().zip(border).for_each(|(start, (before, _))| *start += before);
            Some(placed.stand(&strides))
        });
        Some(View { pieces: pieces.collect::<Option<_>>()?, shape })
    }

    /// Broadcasts axes of size 1. Returns `None` if a chunk does not lie along the axes, or another
    /// axis would change.
    pub(crate) fn broadcast(&self, shape: &[usize]) -> Option<View> {
        let strides = strides(shape);
        let mut pieces = Vec::new();
        for piece in &self.pieces {
            let mut placed = piece.place(&self.shape)?;
            for (axis, (before, after)) in self.shape.iter().zip(shape).enumerate() {
                match (before, after) {
                    _ if before == after => {}
                    (1, &count) => placed.spans.push(AxisSpan { axis, count, source: 0, step: 1 }),
                    _ => return None,
                }
            }
            pieces.push(placed.stand(&strides));
        }
        Some(View { shape: shape.into(), pieces })
    }

    /// Returns the order of axes, outermost first, in which a dense copy reads the source of the
    /// largest chunk with descending strides.
    pub(crate) fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.shape.len()).collect();
        let size = |piece: &&Piece| piece.spans.iter().map(|span| span.count).product::<usize>();
        let largest = self.pieces.iter().max_by_key(size);
        if let Some(placed) = largest.and_then(|piece| piece.place(&self.shape)) {
            let mut stride = vec![usize::MAX; self.shape.len()];
            for span in &placed.spans {
                stride[span.axis] = stride[span.axis].min(span.source);
            }
            order.sort_by_key(|axis| std::cmp::Reverse(stride[*axis]));
        }
        order
    }

    /// Returns the tensor if the view is exactly one whole tensor stored in this order.
    pub(crate) fn whole_tensor(&self, order: &[usize]) -> Option<TensorId> {
        let [piece] = &self.pieces[..] else { return None };
        let Source::Tensor(id) = piece.source else { return None };
        let stored = piece.place(&self.shape)?.stand(&stored_strides(&self.shape, order));
        let dense = match &stored.spans[..] {
            [] => self.len() == 1,
            [span] => *span == Span { count: self.len(), source: 1, target: 1 },
            _ => false,
        };
        (dense && stored.source_offset == 0 && stored.target_offset == 0).then_some(id)
    }

    /// Returns, for each chunk, the strided copy from its source to a dense tensor that stores the
    /// axes in this order. Returns `None` if a copy has too many dimensions.
    pub(crate) fn walks(&self, order: &[usize]) -> Option<Vec<(Source, Walk)>> {
        let strides = stored_strides(&self.shape, order);
        self.pieces
            .iter()
            .map(|piece| Some((piece.source, piece.place(&self.shape)?.stand(&strides).walk()?)))
            .collect()
    }

    /// Calls `visit` with each element's index in its source and its row-major index in the view.
    pub(crate) fn each(&self, mut visit: impl FnMut(usize, usize)) {
        for piece in &self.pieces {
            let count: usize = piece.spans.iter().map(|span| span.count).product();
            for mut index in 0..count {
                let (mut source, mut target) = (piece.source_offset, piece.target_offset);
                for span in piece.spans.iter().rev() {
                    source += index % span.count * span.source;
                    target += index % span.count * span.target;
                    index /= span.count;
                }
                visit(source, target);
            }
        }
    }

    /// Returns, for each chunk, the strided copy from its source to a row-major output.
    pub(crate) fn exits(&self) -> Option<Vec<(Source, Walk)>> {
        self.pieces.iter().map(|piece| Some((piece.source, piece.walk()?))).collect()
    }
}

impl Piece {
    /// Splits dimensions until each lies along one axis. Returns `None` if that is impossible.
    fn place(&self, shape: &[usize]) -> Option<Placed> {
        let strides = strides(shape);
        let mut rest = self.target_offset;
        let mut start = vec![0; shape.len()];
        for axis in 0..shape.len() {
            start[axis] = rest / strides[axis];
            rest %= strides[axis];
        }
        let mut spans = Vec::new();
        let mut waiting = self.spans.clone();
        while let Some(Span { count, source, target }) = waiting.pop() {
            let runs = |axis: &usize| {
                (strides[*axis]..strides[*axis] * shape[*axis]).contains(&target)
                    && target.is_multiple_of(strides[*axis])
            };
            let axis = (0..shape.len()).rev().find(runs)?;
            let step = target / strides[axis];
            let room = (shape[axis] - 1 - start[axis]) / step + 1;
            if count <= room {
                spans.push(AxisSpan { axis, count, source, step });
                continue;
            }
            let inner = shape[axis] / step;
            let even = shape[axis].is_multiple_of(step) && count.is_multiple_of(inner);
            if !even || start[axis] >= step {
                return None;
            }
            spans.push(AxisSpan { axis, count: inner, source, step });
            let target = strides[axis] * shape[axis];
            waiting.push(Span { count: count / inner, source: source * inner, target });
        }
        let reach = |axis: usize| -> usize {
            let along = spans.iter().filter(|span| span.axis == axis);
            start[axis] + along.map(|span| (span.count - 1) * span.step).sum::<usize>()
        };
        (0..shape.len()).all(|axis| reach(axis) < shape[axis]).then_some(())?;
        Some(Placed { source: self.source, source_offset: self.source_offset, start, spans })
    }

    /// Sorts the dimensions by descending target stride and merges adjacent ones that form one
    /// longer dimension.
    fn joined(mut self) -> Piece {
        self.spans.retain(|span| span.count != 1);
        self.spans.sort_by_key(|span| std::cmp::Reverse(span.target));
        let mut joined: Vec<Span> = Vec::new();
        for span in self.spans {
            match joined.last_mut() {
                Some(outer)
                    if outer.source == span.source * span.count
                        && outer.target == span.target * span.count =>
                {
                    *outer = Span { count: outer.count * span.count, ..span };
                }
                _ => joined.push(span),
            }
        }
        self.spans = joined;
        self
    }

    fn walk(&self) -> Option<Walk> {
        let mut walk = Walk {
            dims: [1; 6],
            source_offset: self.source_offset.try_into().ok()?,
            source_strides: [0; 6],
            target_offset: self.target_offset.try_into().ok()?,
            target_strides: [0; 6],
        };
        let first = walk.dims.len().checked_sub(self.spans.len())?;
        for (place, span) in (first..).zip(&self.spans) {
            walk.dims[place] = span.count.try_into().ok()?;
            walk.source_strides[place] = span.source.try_into().ok()?;
            walk.target_strides[place] = span.target.try_into().ok()?;
        }
        if self.spans.is_empty() {
            (walk.source_strides[5], walk.target_strides[5]) = (1, 1);
        }
        Some(walk)
    }
}

impl Placed {
    /// Converts to a chunk of a target with these strides.
    fn stand(self, strides: &[usize]) -> Piece {
        let spans = self.spans.iter().map(|span| Span {
            count: span.count,
            source: span.source,
            target: span.step * strides[span.axis],
        });
        let start = self.start.iter().zip(strides);
        Piece {
            source: self.source,
            source_offset: self.source_offset,
            target_offset: start.map(|(start, stride)| start * stride).sum(),
            spans: spans.collect(),
        }
        .joined()
    }

    /// Keeps every `step`-th element of a range of an axis. Returns whether any is left, or `None`
    /// if the rest is not a strided chunk.
    fn cut(&mut self, axis: usize, range: std::ops::Range<usize>, step: usize) -> Option<bool> {
        let start = self.start[axis];
        let mut along = self.spans.iter_mut().filter(|span| span.axis == axis);
        let (span, more) = (along.next(), along.next());
        if more.is_some() {
            return None;
        }
        let wanted = |at: usize| range.contains(&at) && (at - range.start).is_multiple_of(step);
        let Some(span) = span else {
            if wanted(start) {
                self.start[axis] = (start - range.start) / step;
            }
            return Some(wanted(start));
        };
        let kept: Vec<usize> =
            (0..span.count).filter(|index| wanted(start + index * span.step)).collect();
        let (Some(first), Some(last)) = (kept.first(), kept.last()) else { return Some(false) };
        self.source_offset += first * span.source;
        self.start[axis] = (start + first * span.step - range.start) / step;
        let apart = kept.get(1).map_or(1, |second| second - first);
        debug_assert_eq!((last - first) / apart + 1, kept.len());
        (span.count, span.source) = (kept.len(), span.source * apart);
        span.step = (span.step * apart / step).max(1);
        Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the source index of each element of the view.
    fn elements(view: &View) -> Vec<Option<usize>> {
        let mut elements = vec![None; view.len()];
        view.each(|source, target| {
            assert_eq!(elements[target].replace(source), None, "two elements have one position");
        });
        elements
    }

    fn channels_last(channels: usize, height: usize, width: usize) -> View {
        View::dense(Source::Tensor(0), &[channels, height, width], &[1, 2, 0])
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
        let parts: Vec<View> = (0..groups as u16)
            .map(|id| View::dense(Source::Tensor(id), &[channels, height, width], &[1, 2, 0]))
            .collect();
        let joined = View::concat(&parts, 0).unwrap();
        let split = joined.reshape(&[groups, channels, height, width]);
        let moved = split.move_axis(0, 1).unwrap();
        let shuffled = moved.reshape(&[groups * channels, height, width]);
        assert_eq!(shuffled.pieces.len(), 2);
        let all = elements(&shuffled);
        for channel in 0..groups * channels {
            for pixel in 0..height * width {
                let from = pixel * channels + channel / groups;
                assert_eq!(all[channel * height * width + pixel], Some(from));
            }
        }
        let half = shuffled.slice(0, 3..6, 1).unwrap();
        assert_eq!(elements(&half), all[3 * 4..]);
        assert!(half.walks(&[1, 2, 0]).is_some());
    }

    #[test]
    fn slices_match_numpy() {
        let view = View::dense(Source::Port(0), &[4, 5], &[0, 1]);
        let rows = view.slice(0, 1..4, 2).unwrap();
        assert_eq!(elements(&rows), [5, 6, 7, 8, 9, 15, 16, 17, 18, 19].map(Some));
        let columns = rows.slice(1, 1..5, 3).unwrap();
        assert_eq!(elements(&columns), [6, 9, 16, 19].map(Some));
    }

    #[test]
    fn broadcast_repeats() {
        let view = View::dense(Source::Tensor(0), &[2, 1], &[0, 1]);
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
