//! Products of reals with matrices of integers, on packed weights.

use super::conv::Block;
use super::parallel::{Shared, part};
use super::{Alone, Finish, Kernels, Parallel, SLACK};
use crate::packed::Packing;
use crate::packed::dense::DEPTH;
use crate::packed::product::Matrix;
use crate::{Affine, Isa, Ranges};

/// Rows that are quantized at once.
const ROWS: usize = 384;
/// Rows of a part are a multiple of this, which is one of every kernel's tile.
const UNIT: usize = 24;
/// Products that are worth a second thread: some microseconds of one.
const WORTHWHILE: usize = 1 << 20;
/// Columns of the widest block.
const WIDEST: usize = Packing::WIDEST;

/// A product of rows of reals with a packed matrix: see [`Product`](crate::Product).
#[derive(Clone, Copy, Debug)]
pub struct Product<'a> {
    /// The shape of the matrix.
    pub matrix: Matrix,
    /// The matrix, packed for the kernels.
    pub packed: &'a [u8],
    /// Per column; or none.
    pub bias: &'a [f32],
    /// Which values share a scale.
    pub ranges: Ranges,
}

/// What makes reals of the sums of a row: `f32(sum − zero · Σw) · (scale · scales[c]) + addend`.
/// Sums begin at `Σw`, which counts as one of `zero`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Row {
    pub(crate) scale: f32,
    pub(crate) zero: i32,
}

/// Kernels of an instruction set for products alone. No [`Kernels`] names them, so that a program
/// without products is linked without them. All need the processor's instructions.
#[derive(Clone, Copy)]
pub(crate) struct ProductKernels {
    /// The least and the greatest of some values and 0.
    pub(crate) extent: unsafe fn(&[f32]) -> [f32; 2],
    /// Real values to stored activations.
    pub(crate) affine: unsafe fn(&Affine, &[f32], &mut [u8]),
    /// A block whose sums become reals. Needs what [`Block`] says, with `rows`.
    pub(crate) multiply: unsafe fn(&Block),
}

impl ProductKernels {
    /// Those that belong to a table.
    fn of(kernels: &Kernels) -> Self {
        match kernels.isa() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => crate::arch::x86_64::AVX512VNNI_PRODUCTS,
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => crate::arch::x86_64::AVXVNNI_PRODUCTS,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vl => crate::arch::x86_64::AVX512VL_PRODUCTS,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => crate::arch::x86_64::AVX2_PRODUCTS,
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm => crate::arch::aarch64::neoni8mm::PRODUCTS,
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDot => crate::arch::aarch64::neondot::PRODUCTS,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => crate::arch::aarch64::plain::PRODUCTS,
            #[cfg(all(target_arch = "arm", any(target_os = "linux", target_os = "android")))]
            Isa::Neon => crate::arch::arm::neon::PRODUCTS,
            #[cfg(target_feature = "simd128")]
            Isa::Simd128 => crate::arch::wasm32::simd128::PRODUCTS,
            isa => unreachable!("there are no kernels for {}", isa.name()),
        }
    }
}

impl Product<'_> {
    /// The most columns there may be.
    pub const COLUMNS: usize = u32::MAX as usize / 4 / ROWS;

    /// The bytes of memory that a product of this many rows needs; saturates.
    pub fn scratch(&self, rows: usize) -> usize {
        rows.min(ROWS).saturating_mul(self.stride()).saturating_add(SLACK)
    }

    /// Bytes of a quantized row, saturating.
    fn stride(&self) -> usize {
        self.matrix.depth.checked_next_multiple_of(DEPTH).unwrap_or(usize::MAX)
    }

    /// Computes it for all rows of `input`.
    ///
    /// # Panics
    /// Where slices do not have what the shape says, where the matrix is empty or packed for other
    /// kernels, or not at a multiple of 64, and where rows that are quantized at once have more bytes
    /// than 32 bits count.
    pub fn run(
        &self,
        kernels: &Kernels,
        input: &[f32],
        output: &mut [f32],
        scratch: &mut [u8],
        parallel: &dyn Parallel,
    ) {
        let Matrix { depth, columns } = self.matrix;
        assert!(depth > 0 && columns > 0, "a matrix has rows and columns");
        let rows = input.len() / depth;
        assert!(input.len().is_multiple_of(depth), "whole rows");
        let outputs = rows.checked_mul(columns);
        assert_eq!(Some(output.len()), outputs, "an output for each row and column");
        assert!(self.bias.is_empty() || self.bias.len() == columns, "a bias for each column");
        assert!(scratch.len() >= self.scratch(rows), "too little memory");
        let last = rows.min(ROWS).saturating_mul(self.stride());
        assert!(last <= u32::MAX as usize, "offsets have 32 bits");
        assert_eq!(self.matrix.bytes(kernels.packing()), Some(self.packed.len()), "packed bytes");
        assert!(self.packed.as_ptr().addr().is_multiple_of(64), "weights lie at a multiple of 64");
        assert!(columns <= Self::COLUMNS, "offsets have 32 bits");
        let own = ProductKernels::of(kernels);
        // SAFETY: the processor has the instructions of a table.
        let affine = |values: &[f32]| Affine::of(unsafe { (own.extent)(values) });
        let tensor = match self.ranges {
            Ranges::Row => None,
            Ranges::Tensor => Some(affine(input)),
        };
        let stride = self.stride();
        // Activations are stored raised by 128 less than unsigned bytes, or as these.
        let shift = 128 - kernels.packing().raise();
        let (inputs, outputs) = (ROWS.saturating_mul(depth), ROWS.saturating_mul(columns));
        for (input, output) in input.chunks(inputs).zip(output.chunks_mut(outputs)) {
            let mut terms = [Row::default(); ROWS];
            let stored = scratch.chunks_exact_mut(stride);
            for ((row, stored), term) in input.chunks_exact(depth).zip(stored).zip(&mut terms) {
                let affine = tensor.unwrap_or_else(|| affine(row));
                let zero = i32::from(affine.zero_point) - shift + 1;
                *term = Row { scale: affine.scale, zero };
                // SAFETY: the processor has the instructions of a table.
                unsafe { (own.affine)(&affine, row, stored) };
            }
            self.multiply(kernels, &terms[..input.len() / depth], scratch, output, parallel);
        }
    }

    /// The products of at most [`ROWS`] quantized rows, at least one: `stored` has them with the
    /// slack, and `output` a real for each and each column.
    fn multiply(
        &self,
        kernels: &Kernels,
        terms: &[Row],
        stored: &[u8],
        output: &mut [f32],
        parallel: &dyn Parallel,
    ) {
        let (rows, own) = (terms.len(), ProductKernels::of(kernels));
        let Matrix { depth, columns } = self.matrix;
        let blocks = self.matrix.dense().blocks(kernels.packing()).count();
        let products = rows.saturating_mul(depth).saturating_mul(columns);
        let parallel = if products < WORTHWHILE { &Alone } else { parallel };
        let parts = parallel.threads().max(1);
        let enough = UNIT.saturating_mul(parts);
        let by_blocks = blocks >= parts && rows < enough;
        let unit = if rows >= enough { UNIT } else { 1 };
        let output = Shared::of_reals(output);
        parallel.run(parts, &|index| {
            let (rows, blocks) = match by_blocks {
                true => (0..rows, part(blocks, 1, index, parts)),
                false => (part(rows, unit, index, parts), 0..blocks),
            };
            let mut offsets = [[0u32; ROWS]; 2];
            for (place, row) in rows.clone().enumerate() {
                offsets[0][place] = (row * self.stride()) as u32;
                offsets[1][place] = (4 * row * columns) as u32;
            }
            let some = self.matrix.dense().blocks(kernels.packing());
            for block in some.skip(blocks.start).take(blocks.len()) {
                let mut addends = [0f32; WIDEST];
                if !self.bias.is_empty() {
                    addends[..block.channels]
                        .copy_from_slice(&self.bias[block.first..][..block.channels]);
                }
                let block = Block {
                    input: stored.as_ptr(),
                    input_offsets: offsets[0].as_ptr(),
                    pixels: rows.len(),
                    runs: [1, 1],
                    run_step: [0, 0],
                    steps: depth.div_ceil(DEPTH),
                    weights: self.packed[block.offset..].as_ptr(),
                    width: block.width,
                    channels: block.channels,
                    output: output.at(4 * block.first),
                    output_offsets: offsets[1].as_ptr(),
                    residual: core::ptr::null(),
                    residual_offsets: core::ptr::null(),
                    residual_zero_point: 0.0,
                    residual_scale: 0.0,
                    finish: Finish { zero_point: 0, low: 0, high: 0 },
                    narrow: false,
                    rows: terms[rows.start..].as_ptr(),
                    addends: addends.as_ptr(),
                };
                // SAFETY: the processor has the instructions of a table. The block is as it must be:
                // - `offsets` holds the places of all rows of this part, within 32 bits, as `run`
                //   checked, which also found so many stored rows, and so many outputs of each.
                // - The block is one of the matrix, of which `run` found all bytes, at a multiple of
                //   64. So is every block, which has a multiple of 16 columns of a multiple of 4
                //   bytes. Its columns are as `Dense::blocks` gives them, with as many addends.
                // - Outputs are apart from what is read, which is borrowed. A part has rows of its
                //   own, or columns of its own.
                unsafe { (own.multiply)(&block) };
            }
        });
    }
}

/// Writes the reals of the sums of a row, those of the block's channels. All tiles share it: vectors
/// of 16 bytes are what the compiler has without being told of instruction sets.
///
/// # Safety
/// As [`Block`] says, with `rows`; `pixel` is below its pixels, and `N` is its width.
#[cfg(not(target_arch = "x86_64"))]
#[inline(never)]
pub(crate) unsafe fn reals<const N: usize>(block: &Block, pixel: usize, sums: &[i32; N]) {
    // SAFETY: the block's weights begin with `N` biases and `N` scales, at a multiple of 64; it has a
    // row for each pixel and `N` addends.
    let (row, columns, scales, addends) = unsafe {
        let scales = block.weights.add(4 * N).cast::<[f32; N]>().read();
        let columns = block.weights.cast::<[i32; N]>().read();
        (*block.rows.add(pixel), columns, scales, block.addends.cast::<[f32; N]>().read())
    };
    let mut reals = [0f32; N];
    for i in 0..N {
        let sum = sums[i].wrapping_sub(row.zero.wrapping_mul(columns[i]));
        reals[i] = sum as f32 * (row.scale * scales[i]) + addends[i];
    }
    // SAFETY: the block has an offset for each of its pixels, where `channels` reals can be written.
    unsafe {
        let output = block.output.add(*block.output_offsets.add(pixel) as usize);
        let bytes = reals.as_ptr().cast::<u8>();
        output.copy_from_nonoverlapping(bytes, 4 * block.channels.min(N));
    }
}
