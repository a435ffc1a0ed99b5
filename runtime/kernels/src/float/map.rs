//! Element-wise functions and copies over strided tensors.

use core::ops::Range;

use super::Kernels;
use super::elementwise::{Binary, Unary};
use crate::strided::{Alone, Parallel, Shared, part};

/// The largest number of dimensions.
pub const DIMS: usize = 6;
/// The elements from which a second thread is worthwhile.
const WORTHWHILE: usize = 1 << 14;
/// The elements that are gathered at once if they are not contiguous.
const GATHERED: usize = 128;

/// The position of a tensor's elements. Offset and strides are in elements; a stride of 0 repeats
/// an element.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strided {
    /// The first element.
    pub offset: usize,
    /// The distance between elements along each dimension, outermost first.
    pub strides: [usize; DIMS],
}

/// Where an operand is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// In the arena.
    Arena(Strided),
    /// In the constants.
    Constants(Strided),
}

/// The function of a [`Map`] with its operands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Function {
    /// Writes a number.
    Fill(f32),
    /// Copies an operand.
    Copy(Operand),
    /// Applies a function of one operand.
    Unary(Unary, Operand),
    /// Applies a function of two operands.
    Binary(Binary, [Operand; 2]),
}

/// An element-wise function, from operands to a part of the arena.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    function: Function,
    dims: [usize; DIMS],
    target: Strided,
    /// The elements of the arena from the first to the last that is written.
    written: Range<usize>,
}

impl Map {
    /// Validates a function over `dims`. Returns `None` if a dimension is 0, an offset overflows,
    /// two results have the same place, or an operand overlaps the results.
    pub fn new(function: Function, dims: [usize; DIMS], target: Strided) -> Option<Self> {
        let written = extent(&target, &dims)?;
        if !is_injective(&target, &dims) {
            return None;
        }
        let apart = |operand: &Operand| match operand {
            Operand::Arena(place) => extent(place, &dims)
                .is_some_and(|read| read.end <= written.start || written.end <= read.start),
            Operand::Constants(place) => extent(place, &dims).is_some(),
        };
        let fits = match &function {
            Function::Fill(_) => true,
            Function::Copy(operand) | Function::Unary(_, operand) => apart(operand),
            Function::Binary(_, operands) => operands.iter().all(apart),
        };
        fits.then_some(Self { function, dims, target, written })
    }

    /// Runs the function.
    ///
    /// # Panics
    /// If an operand or the results exceed the arena or the constants.
    pub fn run(
        &self,
        kernels: &Kernels,
        arena: &mut [f32],
        constants: &[f32],
        parallel: &dyn Parallel,
    ) {
        let [outer @ .., inner] = self.dims;
        let rows: usize = outer.iter().product();
        let (before, rest) = arena.split_at_mut(self.written.start);
        let (written, after) = rest.split_at_mut(self.written.len());
        let around = Around { before, after, end: self.written.end, constants };
        let length = (inner - 1) * self.target.strides[DIMS - 1] + 1;
        let parallel = if rows * inner < WORTHWHILE { &Alone } else { parallel };
        let shared = Shared::of_reals(written);
        let parts = parallel.threads().clamp(1, rows);
        parallel.run(parts, &|index| {
            let range = part(rows, 1, index, parts);
            let mut place = Odometer::at(&self.dims, range.start);
            for _ in range {
                let start = place.offset(&self.target) - self.written.start;
                // SAFETY: the row is in the written range, which was split off the arena and stays
                // borrowed. `is_injective` showed that no two rows have an element in common where
                // a row is contiguous; otherwise only one part exists.
                let row = unsafe {
                    core::slice::from_raw_parts_mut(shared.at(4 * start).cast::<f32>(), length)
                };
                self.row(kernels, &around, &place, row);
                place.advance(&self.dims);
            }
        });
    }

    /// Computes one innermost row.
    fn row(&self, kernels: &Kernels, around: &Around<'_>, place: &Odometer, row: &mut [f32]) {
        let count = self.dims[DIMS - 1];
        match self.target.strides[DIMS - 1] {
            // A single element has any stride.
            stride if stride == 1 || count == 1 => self.contiguous(kernels, around, place, 0, row),
            stride => {
                let mut results = [0.0; GATHERED];
                for first in (0..count).step_by(GATHERED) {
                    let results = &mut results[..GATHERED.min(count - first)];
                    self.contiguous(kernels, around, place, first, results);
                    let spread = row[first * stride..].iter_mut().step_by(stride);
                    spread.zip(results).for_each(|(to, result)| *to = *result);
                }
            }
        }
    }

    /// Computes the results from index `first` of a row.
    fn contiguous(
        &self,
        kernels: &Kernels,
        around: &Around<'_>,
        place: &Odometer,
        first: usize,
        results: &mut [f32],
    ) {
        let stride = |operand: &Operand| match operand {
            Operand::Arena(strided) | Operand::Constants(strided) => strided.strides[DIMS - 1],
        };
        match &self.function {
            Function::Fill(value) => results.fill(*value),
            Function::Copy(operand) => around.gather(operand, place, first, results),
            Function::Unary(unary, operand) if stride(operand) == 1 => {
                let values = around.values(operand, place, first, results.len());
                // SAFETY: a `Kernels` table exists only if the CPU supports its instruction set.
                unsafe { (kernels.unary)(*unary, values, results) }
            }
            Function::Binary(binary, [a, b]) if stride(a) == 1 && stride(b) == 1 => {
                let a = around.values(a, place, first, results.len());
                let b = around.values(b, place, first, results.len());
                // SAFETY: as above.
                unsafe { (kernels.binary)(*binary, a, b, results) }
            }
            function => {
                let mut buffers = [[0.0; GATHERED]; 2];
                for (index, results) in results.chunks_mut(GATHERED).enumerate() {
                    let first = first + index * GATHERED;
                    let [a, b] = &mut buffers;
                    let (a, b) = (&mut a[..results.len()], &mut b[..results.len()]);
                    match function {
                        Function::Unary(unary, operand) => {
                            around.gather(operand, place, first, a);
                            // SAFETY: as above.
                            unsafe { (kernels.unary)(*unary, a, results) }
                        }
                        Function::Binary(binary, operands) => {
                            around.gather(&operands[0], place, first, a);
                            around.gather(&operands[1], place, first, b);
                            // SAFETY: as above.
                            unsafe { (kernels.binary)(*binary, a, b, results) }
                        }
                        Function::Fill(_) | Function::Copy(_) => {}
                    }
                }
            }
        }
    }
}

/// What a map reads: the arena without the written range, and the constants.
struct Around<'a> {
    before: &'a [f32],
    after: &'a [f32],
    /// The end of the written range.
    end: usize,
    constants: &'a [f32],
}

impl<'a> Around<'a> {
    /// Returns the elements from an offset on.
    fn from(&self, operand: &Operand, place: &Odometer, first: usize) -> (&'a [f32], usize) {
        let (Operand::Arena(strided) | Operand::Constants(strided)) = operand;
        let stride = strided.strides[DIMS - 1];
        let offset = place.offset(strided) + first * stride;
        let elements = match operand {
            Operand::Constants(_) => &self.constants[offset..],
            Operand::Arena(_) if offset >= self.end => &self.after[offset - self.end..],
            Operand::Arena(_) => &self.before[offset..],
        };
        (elements, stride)
    }

    /// Returns contiguous elements of a row.
    fn values(&self, operand: &Operand, place: &Odometer, first: usize, count: usize) -> &'a [f32] {
        &self.from(operand, place, first).0[..count]
    }

    /// Copies elements of a row.
    fn gather(&self, operand: &Operand, place: &Odometer, first: usize, to: &mut [f32]) {
        match self.from(operand, place, first) {
            (values, 1) => to.copy_from_slice(&values[..to.len()]),
            (values, 0) => to.fill(values[0]),
            (values, stride) => {
                to.iter_mut().zip(values.iter().step_by(stride)).for_each(|(to, x)| *to = *x);
            }
        }
    }
}

/// The index of a row: one number for each dimension but the innermost.
struct Odometer([usize; DIMS]);

impl Odometer {
    fn at(dims: &[usize; DIMS], mut row: usize) -> Self {
        let mut index = [0; DIMS];
        for axis in (0..DIMS - 1).rev() {
            index[axis] = row % dims[axis];
            row /= dims[axis];
        }
        Self(index)
    }

    fn advance(&mut self, dims: &[usize; DIMS]) {
        for axis in (0..DIMS - 1).rev() {
            self.0[axis] += 1;
            if self.0[axis] < dims[axis] {
                return;
            }
            self.0[axis] = 0;
        }
    }

    /// Returns the offset of the row's first element.
    fn offset(&self, strided: &Strided) -> usize {
        let steps = self.0.iter().zip(&strided.strides).map(|(index, stride)| index * stride);
        strided.offset + steps.sum::<usize>()
    }
}

/// Returns the range from the first element to the last. `None` if a dimension is 0 or the range
/// overflows.
fn extent(strided: &Strided, dims: &[usize; DIMS]) -> Option<Range<usize>> {
    let mut end = strided.offset.checked_add(1)?;
    for (dim, stride) in dims.iter().zip(&strided.strides) {
        end = end.checked_add(dim.checked_sub(1)?.checked_mul(*stride)?)?;
    }
    Some(strided.offset..end)
}

/// Returns whether no two indices have the same element, and rows do not interleave unless the
/// innermost dimension has the smallest stride.
fn is_injective(strided: &Strided, dims: &[usize; DIMS]) -> bool {
    let mut reach = 0;
    let order = (0..DIMS).rev().filter(|axis| dims[*axis] > 1);
    for axis in order {
        if strided.strides[axis] <= reach {
            return false;
        }
        reach += (dims[axis] - 1) * strided.strides[axis];
    }
    true
}
