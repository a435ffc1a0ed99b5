//! Dynamically quantized matrix multiplication on packed weights.

use super::conv::Block;
use super::parallel::{Shared, part};
use super::{Alone, Epilogue, Kernels, Parallel, SLACK};
use crate::packed::Packing;
use crate::packed::dense::DEPTH;
use crate::packed::product::Matrix;
use crate::{Affine, Isa, Ranges};

/// The number of rows quantized at once.
const ROWS: usize = 384;
/// Parts have a multiple of this many rows, which is a multiple of the tile size of all kernels.
const UNIT: usize = 24;
/// The MACs from which a second thread is worthwhile: a few microseconds of work.
const WORTHWHILE: usize = 1 << 20;
/// The columns of the widest block.
const WIDEST: usize = Packing::WIDEST;

/// A matmul of float rows with a packed INT8 matrix: see [`Product`](crate::Product).
#[derive(Clone, Copy, Debug)]
pub struct Product<'a> {
    /// The shape of the matrix.
    pub matrix: Matrix,
    /// The matrix, packed for the kernels and aligned to 64 bytes.
    pub packed: &'a [u8],
    /// The float bias of each column, or empty.
    pub bias: &'a [f32],
    /// The granularity of the activation scales.
    pub ranges: Ranges,
}

/// The dequantization parameters of a row: each output is
/// `f32(sum − zero · Σw) · (scale · scales[c]) + addend`. Accumulators start at `Σw`, so `zero` is
/// the zero point plus 1.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Row {
    pub(crate) scale: f32,
    pub(crate) zero: i32,
}

/// The kernels of an instruction set that only matmuls use. They are not in [`Kernels`], so that an
/// application without matmuls does not link them. The CPU must support the instruction set.
#[derive(Clone, Copy)]
pub(crate) struct ProductKernels {
    /// Returns the minimum and maximum of the values and 0.
    pub(crate) extent: unsafe fn(&[f32]) -> [f32; 2],
    /// Quantizes floats to stored activations.
    pub(crate) affine: unsafe fn(&Affine, &[f32], &mut [u8]),
    /// Computes a block with f32 outputs. Requires the contract of [`Block`] with `rows`.
    pub(crate) multiply: unsafe fn(&Block),
}

impl ProductKernels {
    /// Returns the kernels for the instruction set of a table.
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
    /// The maximum number of columns.
    pub const COLUMNS: usize = u32::MAX as usize / 4 / ROWS;

    /// Returns the scratch memory in bytes that a matmul of `rows` rows needs. Saturates.
    pub fn scratch(&self, rows: usize) -> usize {
        rows.min(ROWS).saturating_mul(self.stride()).saturating_add(SLACK)
    }

    /// Returns the bytes of a quantized row. Saturates.
    fn stride(&self) -> usize {
        self.matrix.depth.checked_next_multiple_of(DEPTH).unwrap_or(usize::MAX)
    }

    /// Computes all rows of `input`, which are contiguous. `output` has a row of
    /// `matrix.columns` f32 for each.
    ///
    /// # Panics
    /// If a slice has the wrong length, the matrix is empty, packed for other kernels or not
    /// aligned to 64 bytes, or the rows quantized at once exceed 4 GiB.
    pub fn run(
        &self,
        kernels: &Kernels,
        input: &[f32],
        output: &mut [f32],
        scratch: &mut [u8],
        parallel: &dyn Parallel,
    ) {
        let Matrix { depth, columns } = self.matrix;
        assert!(depth > 0 && columns > 0, "the matrix must not be empty");
        let rows = input.len() / depth;
        assert!(input.len().is_multiple_of(depth), "the input must have whole rows");
        let outputs = rows.checked_mul(columns);
        assert_eq!(Some(output.len()), outputs, "the output must have rows × columns elements");
        assert!(self.bias.is_empty() || self.bias.len() == columns, "wrong number of biases");
        assert!(scratch.len() >= self.scratch(rows), "the scratch memory is too small");
        let last = rows.min(ROWS).saturating_mul(self.stride());
        assert!(last <= u32::MAX as usize, "input offsets must fit in 32 bits");
        assert_eq!(self.matrix.bytes(kernels.packing()), Some(self.packed.len()), "packed length");
        assert!(self.packed.as_ptr().addr().is_multiple_of(64), "weights must be 64-byte aligned");
        assert!(columns <= Self::COLUMNS, "output offsets must fit in 32 bits");
        let own = ProductKernels::of(kernels);
        // SAFETY: `own` has the instruction set of `kernels`, a table that exists only if the CPU
        // supports it.
        let affine = |values: &[f32]| Affine::of(unsafe { (own.extent)(values) });
        let tensor = match self.ranges {
            Ranges::Row => None,
            Ranges::Tensor => Some(affine(input)),
        };
        let stride = self.stride();
        // The difference between u8 quantization and the activation offset of the kernels.
        let shift = 128 - kernels.packing().activation_offset();
        let (inputs, outputs) = (ROWS.saturating_mul(depth), ROWS.saturating_mul(columns));
        for (input, output) in input.chunks(inputs).zip(output.chunks_mut(outputs)) {
            let mut terms = [Row::default(); ROWS];
            let stored = scratch.chunks_exact_mut(stride);
            for ((row, stored), term) in input.chunks_exact(depth).zip(stored).zip(&mut terms) {
                let affine = tensor.unwrap_or_else(|| affine(row));
                let zero = i32::from(affine.zero_point) - shift + 1;
                *term = Row { scale: affine.scale, zero };
                // SAFETY: as for `extent` above.
                unsafe { (own.affine)(&affine, row, stored) };
            }
            self.multiply(kernels, &terms[..input.len() / depth], scratch, output, parallel);
        }
    }

    /// Multiplies 1 to [`ROWS`] quantized rows. `stored` contains them followed by the slack, and
    /// `output` has an f32 for each row and column.
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
        let macs = rows.saturating_mul(depth).saturating_mul(columns);
        let parallel = if macs < WORTHWHILE { &Alone } else { parallel };
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
                    epilogue: Epilogue { zero_point: 0, low: 0, high: 0 },
                    narrow: false,
                    rows: terms[rows.start..].as_ptr(),
                    addends: addends.as_ptr(),
                };
                // SAFETY: `own` has the instruction set of `kernels`, a table that exists only if
                // the CPU supports it. The contract of `ConvBlock` holds:
                // - `offsets` contains the offsets of all rows of this part. `run` checked that
                //   they fit in 32 bits and that the stored rows and the outputs exist.
                // - The block belongs to the matrix. `run` checked its length and its alignment to
                //   64. Every block is aligned to 64, because it has a multiple of 16 columns of a
                //   multiple of 4 bytes. `Dense::blocks` determines its width and channels, and
                //   `addends` has the widest width.
                // - Outputs are mutably borrowed, so they do not overlap anything that is read.
                //   Each part has its own rows or its own columns.
                unsafe { (own.multiply)(&block) };
            }
        });
    }
}

/// Converts the accumulators of a row to f32 and writes those of the block's channels. Shared by
/// all tiles, because the baseline instruction set suffices to vectorize it.
///
/// # Safety
/// `block` must satisfy the contract of [`Block`] with `rows`, `pixel` must be less than
/// `block.pixels`, and `N` must be its width.
#[cfg(not(target_arch = "x86_64"))]
#[inline(never)]
pub(crate) unsafe fn floats<const N: usize>(block: &Block, pixel: usize, sums: &[i32; N]) {
    // SAFETY: by the contract of `Block`, `weights` starts with `N` biases and `N` scales and is
    // aligned to 64, `rows` has an element for `pixel`, and `addends` has `N` elements.
    let (row, columns, scales, addends) = unsafe {
        let scales = block.weights.add(4 * N).cast::<[f32; N]>().read();
        let columns = block.weights.cast::<[i32; N]>().read();
        (*block.rows.add(pixel), columns, scales, block.addends.cast::<[f32; N]>().read())
    };
    let mut floats = [0f32; N];
    for i in 0..N {
        let sum = sums[i].wrapping_sub(row.zero.wrapping_mul(columns[i]));
        floats[i] = sum as f32 * (row.scale * scales[i]) + addends[i];
    }
    // SAFETY: by the contract of `Block`, `output_offsets` has an element for `pixel`, and
    // `channels` f32 are writable at that offset of `output`.
    unsafe {
        let output = block.output.add(*block.output_offsets.add(pixel) as usize);
        let bytes = floats.as_ptr().cast::<u8>();
        output.copy_from_nonoverlapping(bytes, 4 * block.channels.min(N));
    }
}
