//! Tensors of a region under construction: views of buffers.

use hardtack_kernels::float::{DIMS, Strided};

/// The memory that a tensor lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    /// A buffer, which gets its place in the arena at the end.
    Buffer(usize),
    /// The constants of the plan.
    Constants,
}

/// Zeros around the rows and columns of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Margins {
    pub(crate) top: usize,
    pub(crate) bottom: usize,
    pub(crate) left: usize,
    pub(crate) right: usize,
}

impl Margins {
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            top: self.top.max(other.top),
            bottom: self.bottom.max(other.bottom),
            left: self.left.max(other.left),
            right: self.right.max(other.right),
        }
    }

    /// Returns whether these margins are at least as large as others.
    pub(crate) fn contain(self, other: Self) -> bool {
        self.max(other) == self
    }

    pub(crate) fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// The axes of an image in a tensor. An image without rows has one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ImageAxes {
    pub(crate) row: Option<usize>,
    pub(crate) column: usize,
    pub(crate) channel: usize,
}

impl ImageAxes {
    /// Applies a function to each axis. `None` if one of them has no image.
    pub(crate) fn map(self, to: impl Fn(usize) -> Option<usize>) -> Option<Self> {
        let row = match self.row {
            Some(row) => Some(to(row)?),
            None => None,
        };
        Some(Self { row, column: to(self.column)?, channel: to(self.channel)? })
    }
}

/// A border of zeros around an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Halo {
    pub(crate) axes: ImageAxes,
    pub(crate) margins: Margins,
}

/// A strided view of a buffer or of constants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tensor {
    pub(crate) space: Space,
    pub(crate) offset: usize,
    pub(crate) dims: Vec<usize>,
    pub(crate) strides: Vec<usize>,
    /// The zeros around it, if there are any.
    pub(crate) halo: Option<Halo>,
}

impl Tensor {
    pub(crate) fn elements(&self) -> usize {
        self.dims.iter().product()
    }

    /// Returns the axes from the outermost in memory to the innermost.
    pub(crate) fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.dims.len()).collect();
        // Dimensions of size 1 have no place in memory: they stay where they are.
        order.sort_by_key(|axis| std::cmp::Reverse(self.strides[*axis]));
        order
    }

    /// Returns whether the elements have no gaps if the axes are in this order.
    pub(crate) fn is_contiguous(&self, order: &[usize]) -> bool {
        let mut size = 1;
        order.iter().rev().all(|axis| {
            let fits = self.dims[*axis] == 1 || self.strides[*axis] == size;
            size *= self.dims[*axis];
            fits
        })
    }

    /// Returns the tensor with an axis of size 1 inserted.
    pub(crate) fn with_axis(mut self, axis: usize) -> Option<Self> {
        if axis > self.dims.len() {
            return None;
        }
        let stride = self.strides.get(axis).zip(self.dims.get(axis)).map_or(1, |(s, d)| s * d);
        self.dims.insert(axis, 1);
        self.strides.insert(axis, stride);
        self.moved(|old| Some(if old >= axis { old + 1 } else { old }))
    }

    /// Returns the tensor without an axis of size 1.
    pub(crate) fn without_axis(mut self, axis: usize) -> Option<Self> {
        if self.dims.get(axis) != Some(&1) {
            return None;
        }
        self.dims.remove(axis);
        self.strides.remove(axis);
        self.moved(|old| match old.cmp(&axis) {
            std::cmp::Ordering::Less => Some(old),
            std::cmp::Ordering::Equal => None,
            std::cmp::Ordering::Greater => Some(old - 1),
        })
    }

    /// Returns the tensor with an axis moved.
    pub(crate) fn with_moved_axis(mut self, from: usize, to: usize) -> Option<Self> {
        if from.max(to) >= self.dims.len() {
            return None;
        }
        let (dim, stride) = (self.dims.remove(from), self.strides.remove(from));
        self.dims.insert(to, dim);
        self.strides.insert(to, stride);
        self.moved(|old| {
            let without = if old > from { old - 1 } else { old };
            Some(if old == from {
                to
            } else if without >= to {
                without + 1
            } else {
                without
            })
        })
    }

    /// Renumbers the axes of the halo, and drops it if it has lost one.
    fn moved(mut self, to: impl Fn(usize) -> Option<usize>) -> Option<Self> {
        self.halo = self.halo.and_then(|halo| halo.axes.map(to).map(|axes| Halo { axes, ..halo }));
        Some(self)
    }

    /// Returns the tensor with other dimensions and the same elements in row-major order, if
    /// strides can express it.
    pub(crate) fn reshaped(&self, dims: &[usize]) -> Option<Self> {
        if dims.iter().product::<usize>() != self.elements() || self.elements() == 0 {
            return None;
        }
        let mut strides = vec![0; dims.len()];
        // Groups of old and new dimensions with equal products, from the innermost.
        let (mut old, mut new) = (self.dims.len(), dims.len());
        while new > 0 {
            let end = new;
            new -= 1;
            let mut wanted = dims[new];
            let (mut size, mut inner) = (1, None);
            while size != wanted {
                if size < wanted {
                    old = old.checked_sub(1)?;
                    let (dim, stride) = (self.dims[old], self.strides[old]);
                    if dim == 1 {
                        continue;
                    }
                    // The dimension continues those inside it.
                    if inner.is_some_and(|inner| stride != size * inner) {
                        return None;
                    }
                    inner.get_or_insert(stride);
                    size *= dim;
                } else {
                    new = new.checked_sub(1)?;
                    wanted *= dims[new];
                }
            }
            let mut stride = inner.unwrap_or(1);
            for axis in (new..end).rev() {
                strides[axis] = stride;
                stride *= dims[axis];
            }
        }
        Some(Self { dims: dims.to_vec(), strides, halo: None, ..self.clone() })
    }

    /// Returns the range `start..end` of an axis.
    pub(crate) fn slice(mut self, axis: usize, start: usize, end: usize) -> Option<Self> {
        if start >= end || end > *self.dims.get(axis)? {
            return None;
        }
        self.offset += start * self.strides[axis];
        self.dims[axis] = end - start;
        self.halo = None;
        Some(self)
    }

    /// Returns the strides with which the tensor is broadcast to `dims`.
    pub(crate) fn broadcast(&self, dims: &[usize]) -> Option<Vec<usize>> {
        let more = dims.len().checked_sub(self.dims.len())?;
        let mut strides = vec![0; more];
        for ((own, stride), dim) in self.dims.iter().zip(&self.strides).zip(&dims[more..]) {
            match (own == dim, *own) {
                (true, 1) | (false, 1) => strides.push(0),
                (true, _) => strides.push(*stride),
                _ => return None,
            }
        }
        Some(strides)
    }
}

/// A loop over elements: the size of each dimension, and its stride in each of `N` tensors.
#[derive(Clone, Debug)]
pub(crate) struct Loops<const N: usize> {
    pub(crate) dims: Vec<(usize, [usize; N])>,
}

impl<const N: usize> Loops<N> {
    /// Orders dimensions by their stride in the last tensor, with the largest first, and joins
    /// those that continue each other in all tensors.
    pub(crate) fn new(dims: &[usize], strides: [&[usize]; N]) -> Self {
        let mut all: Vec<(usize, [usize; N])> = dims
            .iter()
            .enumerate()
            .filter(|(_, dim)| **dim != 1)
            .map(|(axis, dim)| (*dim, strides.map(|strides| strides[axis])))
            .collect();
        all.sort_by_key(|(_, strides)| std::cmp::Reverse(strides[N - 1]));
        let mut loops = Self { dims: all };
        loops.join();
        loops
    }

    /// Joins dimensions that continue each other in all tensors.
    pub(crate) fn join(&mut self) {
        let mut joined: Vec<(usize, [usize; N])> = Vec::new();
        for (dim, strides) in self.dims.drain(..) {
            match joined.last_mut() {
                Some((outer, places))
                    if places.iter().zip(&strides).all(|(a, b)| *a == b * dim) =>
                {
                    *outer *= dim;
                    *places = strides;
                }
                _ => joined.push((dim, strides)),
            }
        }
        self.dims = joined;
    }

    /// Returns the dimensions and strides in the form of the kernels, or `None` for too many.
    pub(crate) fn strided(&self) -> Option<([usize; DIMS], [[usize; DIMS]; N])> {
        let first = DIMS.checked_sub(self.dims.len())?;
        let (mut dims, mut strides) = ([1; DIMS], [[0; DIMS]; N]);
        for (axis, (dim, places)) in (first..).zip(&self.dims) {
            dims[axis] = *dim;
            for (strides, place) in strides.iter_mut().zip(places) {
                strides[axis] = *place;
            }
        }
        Some((dims, strides))
    }
}

/// Creates the position of a view.
pub(crate) fn strided(offset: usize, strides: [usize; DIMS]) -> Strided {
    Strided { offset, strides }
}
