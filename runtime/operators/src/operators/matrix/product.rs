//! Products of matrices, for every numeric element type.
//!
//! Floats are multiplied and added as `f64`, integers modulo 2^64. Each sum has one fixed order, so
//! the results do not depend on the number of threads.

use half::{bf16, f16};

use crate::element_type::ElementType;
use crate::error::Problem;
use crate::operators::threads::{Pace, share_out};
use crate::shape::elements;
use crate::tensor::{Data, Element, Tensor};

/// The rows and columns of a tile, whose sums are kept in registers.
const TILE: usize = 4;
/// The number of interleaved sums of a product of vectors.
const LANES: usize = 8;
/// The number of terms that are packed together.
const DEPTH: usize = 256;
/// The number of rows that are packed together.
const ROWS: usize = 256;
/// The number of multiplications from which threads pay off.
const LARGE: usize = 1 << 22;
/// The number of products after which a row asks whether to go on.
const PART: usize = 1 << 14;

/// An element that is multiplied in a wider type.
pub(in crate::operators) trait Factor: Copy + Sync {
    /// The type of products and sums.
    type Sum: Sum;
    fn widen(self) -> Self::Sum;
}

/// A type of products and sums.
pub(in crate::operators) trait Sum: Copy + Default + Send {
    /// Returns `self + a * b`.
    fn plus(self, a: Self, b: Self) -> Self;
    /// The factor that changes nothing.
    const ONE: Self;
}

impl Sum for f64 {
    fn plus(self, a: Self, b: Self) -> Self {
        self + a * b
    }
    const ONE: Self = 1.0;
}

impl Sum for i64 {
    fn plus(self, a: Self, b: Self) -> Self {
        self.wrapping_add(a.wrapping_mul(b))
    }
    const ONE: Self = 1;
}

macro_rules! factors {
    ($($rust:ty => $sum:ty, $value:ident => $widened:expr;)*) => {$(
        impl Factor for $rust {
            type Sum = $sum;
            fn widen(self) -> $sum {
                let $value = self;
                $widened
            }
        }
    )*};
}
factors! {
    f32 => f64, value => f64::from(value);
    f64 => f64, value => value;
    f16 => f64, value => value.to_f64();
    bf16 => f64, value => value.to_f64();
    i8 => i64, value => i64::from(value);
    i16 => i64, value => i64::from(value);
    i32 => i64, value => i64::from(value);
    i64 => i64, value => value;
    u8 => i64, value => i64::from(value);
    u16 => i64, value => i64::from(value);
    u32 => i64, value => i64::from(value);
    u64 => i64, value => value as i64;
}

/// Numbers of which tensors are made: those of floats, and those of integers modulo 2^64.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Numbers {
    Floats(Vec<f64>),
    Integers(Vec<i64>),
}

impl Numbers {
    /// Returns the elements of a tensor.
    pub(super) fn of(tensor: &Tensor) -> Result<Self, Problem> {
        fn widen<T: Factor>(values: &[T]) -> Vec<T::Sum> {
            values.iter().map(|value| value.widen()).collect()
        }
        check_type(tensor)?;
        Ok(match tensor.data() {
            Data::I8(values) => Self::Integers(widen(values)),
            Data::I16(values) => Self::Integers(widen(values)),
            Data::I32(values) => Self::Integers(widen(values)),
            Data::I64(values) => Self::Integers(values.clone()),
            Data::U8(values) => Self::Integers(widen(values)),
            Data::U16(values) => Self::Integers(widen(values)),
            Data::U32(values) => Self::Integers(widen(values)),
            Data::U64(values) => Self::Integers(widen(values)),
            _ => Self::Floats(tensor.to_f64()?),
        })
    }

    /// Creates a tensor. Floats are rounded; integers wrap around.
    pub(super) fn tensor(self, element: ElementType, shape: Vec<usize>) -> Result<Tensor, Problem> {
        match self {
            Self::Floats(values) => Tensor::from_f64(element, shape, values),
            Self::Integers(values) => {
                let values = values.into_iter().map(i128::from).collect();
                Tensor::from_i128(element, shape, values)
            }
        }
    }
}

/// Refuses elements that are neither integers nor floats of at least 16 bits.
fn check_type(tensor: &Tensor) -> Result<(), Problem> {
    let found = tensor.element();
    let is_number = found.is_integer() || (found.is_float() && !found.is_narrow_float());
    let accepted = "an integer or a float of at least 16 bits";
    if is_number { Ok(()) } else { Err(Problem::ElementType { found, accepted }) }
}

/// The layout of matrices in a slice: the distances between neighbors.
#[derive(Clone, Copy, Debug)]
pub(in crate::operators) struct Strides {
    /// The distance between an element and the one below it.
    pub(in crate::operators) row: usize,
    /// The distance between an element and the one on its right.
    pub(in crate::operators) column: usize,
}

impl Strides {
    /// Returns the layout of row-major matrices.
    pub(in crate::operators) fn rows(columns: usize) -> Self {
        Self { row: columns, column: 1 }
    }

    /// Returns the layout of the transposed matrices.
    pub(in crate::operators) fn transposed(self) -> Self {
        Self { row: self.column, column: self.row }
    }
}

/// A series of products: matrices of `rows` and `depth` times matrices of `depth` and `columns`.
#[derive(Clone, Debug)]
pub(in crate::operators) struct Products {
    pub(in crate::operators) rows: usize,
    pub(in crate::operators) depth: usize,
    pub(in crate::operators) columns: usize,
    pub(in crate::operators) a: Strides,
    pub(in crate::operators) b: Strides,
    /// The offsets of the first elements of each pair of matrices.
    pub(in crate::operators) starts: Vec<(usize, usize)>,
}

impl Products {
    /// Computes the products of two tensors of one type.
    pub(super) fn of_tensors(&self, a: &Tensor, b: &Tensor) -> Result<Numbers, Problem> {
        fn of<T: Factor + Element>(
            products: &Products,
            a: &[T],
            b: &Tensor,
        ) -> Result<Vec<T::Sum>, Problem> {
            let (element, stored) = (b.element(), T::TYPE);
            products.of(a, T::slice(b.data()).ok_or(Problem::Storage { element, stored })?)
        }
        if a.element() != b.element() {
            return Err(Problem::MixedTypes { first: a.element(), second: b.element() });
        }
        check_type(a)?;
        Ok(match a.data() {
            Data::F32(a) => Numbers::Floats(of(self, a, b)?),
            Data::F64(a) => Numbers::Floats(of(self, a, b)?),
            Data::F16(a) => Numbers::Floats(of(self, a, b)?),
            Data::BF16(a) => Numbers::Floats(of(self, a, b)?),
            _ => self.of_numbers(&Numbers::of(a)?, &Numbers::of(b)?)?,
        })
    }

    /// Computes the products of two lists of numbers of one kind.
    pub(super) fn of_numbers(&self, a: &Numbers, b: &Numbers) -> Result<Numbers, Problem> {
        match (a, b) {
            (Numbers::Floats(a), Numbers::Floats(b)) => Ok(Numbers::Floats(self.of(a, b)?)),
            (Numbers::Integers(a), Numbers::Integers(b)) => Ok(Numbers::Integers(self.of(a, b)?)),
            _ => Err(Problem::Invalid("floats are multiplied by integers".into())),
        }
    }

    /// Computes the products of two slices.
    pub(in crate::operators) fn of<T: Factor>(
        &self,
        a: &[T],
        b: &[T],
    ) -> Result<Vec<T::Sum>, Problem> {
        let mut sums =
            vec![T::Sum::default(); elements(&[self.starts.len(), self.rows, self.columns])?];
        if sums.is_empty() || self.depth == 0 {
            return Ok(sums);
        }
        // A product with a column is that of the transposed matrices, which has one row.
        if self.columns == 1 && self.rows > 1 {
            let swapped = Self {
                rows: 1,
                columns: self.rows,
                a: self.b.transposed(),
                b: self.a.transposed(),
                starts: self.starts.iter().map(|(a, b)| (*b, *a)).collect(),
                ..*self
            };
            return swapped.of(b, a);
        }
        let jobs: Vec<_> = sums
            .chunks_mut(self.rows.saturating_mul(self.columns))
            .zip(&self.starts)
            .flat_map(|(sums, &(a, b))| {
                let blocks = sums.chunks_mut(ROWS.saturating_mul(self.columns)).enumerate();
                blocks.map(move |(block, sums)| (sums, a + block * ROWS * self.a.row, b))
            })
            .collect();
        let size = self.rows.saturating_mul(self.depth).saturating_mul(self.columns);
        let size = size.saturating_mul(self.starts.len());
        let threads = match size < LARGE {
            true => 1,
            false => std::thread::available_parallelism().map_or(1, usize::from),
        };
        share_out(jobs, threads, size, |jobs, pace| {
            for (sums, first, second) in jobs {
                let a = Matrix { values: a, start: first, strides: self.a };
                let b = Matrix { values: b, start: second, strides: self.b };
                multiply(&a, &b, (self.depth, self.columns), sums, pace);
            }
        })?;
        Ok(sums)
    }
}

/// A matrix in a slice.
struct Matrix<'a, T> {
    values: &'a [T],
    start: usize,
    strides: Strides,
}

impl<T: Factor> Matrix<'_, T> {
    /// Returns the element at an offset, which is within the slice if the shapes were checked.
    fn get(&self, offset: usize) -> T::Sum {
        self.values.get(offset).map_or_else(T::Sum::default, |value| value.widen())
    }
}

/// Packs `lanes` vectors of `steps` elements for [`add_tile`]: in groups of [`TILE`], element by
/// element. The last group is filled up with zeros.
fn pack<T: Factor>(
    matrix: &Matrix<'_, T>,
    strides: Strides,
    lanes: usize,
    steps: usize,
    packed: &mut Vec<[T::Sum; TILE]>,
) {
    packed.clear();
    for first in (0..lanes).step_by(TILE) {
        let count = TILE.min(lanes - first);
        for step in 0..steps {
            let offset = matrix.start + first * strides.row + step * strides.column;
            let mut group = [T::Sum::default(); TILE];
            match matrix.values.get(offset..offset + TILE) {
                Some(values) if strides.row == 1 && count == TILE => {
                    for (packed, value) in group.iter_mut().zip(values) {
                        *packed = value.widen();
                    }
                }
                _ => {
                    for (lane, packed) in group.iter_mut().enumerate().take(count) {
                        *packed = matrix.get(offset + lane * strides.row);
                    }
                }
            }
            packed.push(group);
        }
    }
}

/// Adds the product of some rows and a matrix to `sums`, which has `columns` columns.
fn multiply<T: Factor>(
    a: &Matrix<'_, T>,
    b: &Matrix<'_, T>,
    (depth, columns): (usize, usize),
    sums: &mut [T::Sum],
    pace: &Pace<'_>,
) {
    let rows = sums.len() / columns.max(1);
    // To pack the matrix on the right does not pay off for few rows.
    if rows < TILE {
        for (row, sums) in sums.chunks_mut(columns.max(1)).enumerate() {
            let a = Matrix { start: a.start + row * a.strides.row, ..*a };
            match b.strides.column == 1 && columns > 1 {
                true => multiply_row(&a, b, depth, sums, pace),
                false => multiply_vectors(&a, b, depth, sums, pace),
            }
        }
        return;
    }
    let (mut packed_rows, mut packed_columns) = (Vec::new(), Vec::new());
    for first in (0..depth).step_by(DEPTH) {
        let steps = DEPTH.min(depth - first);
        let part = Matrix { start: a.start + first * a.strides.column, ..*a };
        pack(&part, part.strides, rows, steps, &mut packed_rows);
        for column in (0..columns).step_by(TILE) {
            let start = b.start + first * b.strides.row + column * b.strides.column;
            let width = TILE.min(columns - column);
            let part = Matrix { start, ..*b };
            pack(&part, part.strides.transposed(), width, steps, &mut packed_columns);
            if !pace.goes_on(steps * TILE * rows) {
                return;
            }
            let groups = packed_rows.chunks(steps).zip(sums.chunks_mut(TILE * columns));
            for (group, sums) in groups {
                let tile = add_tile(group, &packed_columns);
                for (sums, row) in sums.chunks_mut(columns).zip(tile) {
                    for (sum, value) in sums.iter_mut().skip(column).zip(row) {
                        *sum = sum.plus(value, T::Sum::ONE);
                    }
                }
            }
        }
    }
}

/// Returns the products of packed rows and packed columns.
fn add_tile<S: Sum>(rows: &[[S; TILE]], columns: &[[S; TILE]]) -> [[S; TILE]; TILE] {
    let mut tile = [[S::default(); TILE]; TILE];
    for (rows, columns) in rows.iter().zip(columns) {
        for (sums, a) in tile.iter_mut().zip(rows) {
            for (sum, b) in sums.iter_mut().zip(columns) {
                *sum = sum.plus(*a, *b);
            }
        }
    }
    tile
}

/// Adds the product of a row and a matrix whose rows are contiguous.
fn multiply_row<T: Factor>(
    a: &Matrix<'_, T>,
    b: &Matrix<'_, T>,
    depth: usize,
    sums: &mut [T::Sum],
    pace: &Pace<'_>,
) {
    let row = |step: usize| {
        let start = b.start + step * b.strides.row;
        b.values.get(start..start + sums.len()).unwrap_or_default()
    };
    let factor = |step: usize| a.get(a.start + step * a.strides.column);
    let mut steps: Vec<_> = (0..depth).map(|step| (factor(step), row(step))).collect();
    let single = steps.split_off(depth - depth % 4);
    let block = (PART / sums.len().max(1)).next_multiple_of(4).max(4);
    for steps in steps.chunks(block) {
        if !pace.goes_on(steps.len() * sums.len()) {
            return;
        }
        for four in steps.chunks_exact(4) {
            let [(a0, r0), (a1, r1), (a2, r2), (a3, r3)] = four else { continue };
            for ((((sum, b0), b1), b2), b3) in sums.iter_mut().zip(*r0).zip(*r1).zip(*r2).zip(*r3) {
                let two = sum.plus(*a0, b0.widen()).plus(*a1, b1.widen());
                *sum = two.plus(*a2, b2.widen()).plus(*a3, b3.widen());
            }
        }
    }
    for (factor, row) in single {
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum = sum.plus(factor, value.widen());
        }
    }
}

/// Adds the product of a row and a matrix whose columns are best read one by one.
fn multiply_vectors<T: Factor>(
    a: &Matrix<'_, T>,
    b: &Matrix<'_, T>,
    depth: usize,
    sums: &mut [T::Sum],
    pace: &Pace<'_>,
) {
    let factors: Vec<T::Sum> =
        (0..depth).map(|step| a.get(a.start + step * a.strides.column)).collect();
    let block = (PART / depth.max(1)).max(1);
    for (column, sum) in sums.iter_mut().enumerate() {
        if column % block == 0 && !pace.goes_on(depth.saturating_mul(block)) {
            return;
        }
        let start = b.start + column * b.strides.column;
        match b.values.get(start..start + depth) {
            Some(values) if b.strides.row == 1 => {
                *sum = sum.plus(dot_product(&factors, values), T::Sum::ONE);
            }
            _ => {
                for (step, factor) in factors.iter().enumerate() {
                    *sum = sum.plus(*factor, b.get(start + step * b.strides.row));
                }
            }
        }
    }
}

/// Returns the product of two vectors, with interleaved sums.
fn dot_product<T: Factor>(factors: &[T::Sum], values: &[T]) -> T::Sum {
    let (factors, more) = factors.as_chunks::<LANES>();
    let (values, rest) = values.as_chunks::<LANES>();
    let mut lanes = [T::Sum::default(); LANES];
    for (factors, values) in factors.iter().zip(values) {
        let values = values.map(T::widen);
        for ((lane, factor), value) in lanes.iter_mut().zip(factors).zip(values) {
            *lane = lane.plus(*factor, value);
        }
    }
    let sum = lanes.into_iter().fold(T::Sum::default(), |sum, lane| sum.plus(lane, T::Sum::ONE));
    more.iter().zip(rest).fold(sum, |sum, (factor, value)| sum.plus(*factor, value.widen()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Multiplies matrices as the specification says.
    fn expected(products: &Products, a: &[u64], b: &[u64]) -> Vec<i64> {
        let mut sums = Vec::new();
        for (first, second) in &products.starts {
            for (row, column) in (0..products.rows)
                .flat_map(|row| (0..products.columns).map(move |column| (row, column)))
            {
                let term = |step: usize| {
                    let a = a[first + row * products.a.row + step * products.a.column];
                    a.wrapping_mul(b[second + step * products.b.row + column * products.b.column])
                };
                sums.push((0..products.depth).map(term).fold(0, u64::wrapping_add) as i64);
            }
        }
        sums
    }

    #[test]
    fn products_of_any_size_and_layout() {
        let values = |count: usize, factor: u64| -> Vec<u64> {
            (1..=count as u64).map(|value| value.wrapping_mul(factor)).collect()
        };
        for (rows, depth, columns) in
            [(1, 300, 7), (7, 300, 1), (3, 5, 2), (5, 1, 6), (257, 259, 9), (4, 0, 4), (1, 17, 1)]
        {
            let starts = vec![(0, 0), (rows * depth, 0), (0, depth * columns)];
            let a = values(2 * rows * depth, 0x9E37_79B9_7F4A_7C15);
            let b = values(2 * depth * columns, 0xC2B2_AE3D_27D4_EB4F);
            for layout in 0..4 {
                let (mut first, mut second) = (Strides::rows(depth), Strides::rows(columns));
                if layout % 2 == 1 {
                    first = Strides::rows(rows).transposed();
                }
                if layout / 2 == 1 {
                    second = Strides::rows(depth).transposed();
                }
                let starts = starts.clone();
                let products = Products { rows, depth, columns, a: first, b: second, starts };
                assert_eq!(products.of(&a, &b), Ok(expected(&products, &a, &b)));
            }
        }
    }

    #[test]
    fn sums_do_not_lose_small_terms() {
        let products = Products {
            rows: 1,
            depth: 3,
            columns: 1,
            a: Strides::rows(3),
            b: Strides::rows(1),
            starts: vec![(0, 0)],
        };
        assert_eq!(products.of(&[1e20f32, 1.0, -1e20], &[1e-10, 1.0, 1e-10]), Ok(vec![1.0]));
    }
}
