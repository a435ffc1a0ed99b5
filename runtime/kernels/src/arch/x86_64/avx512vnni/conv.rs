//! Convolution with accumulators in registers, in tiles of up to 12 pixels × 1 or 2 vectors, 8 × 3
//! or 6 × 4.

use core::arch::x86_64::*;

use super::epilogue::{Addend, narrow, offset, scale_narrow, scale_wide, start};
use super::half;
use crate::strided::ConvBlock;

/// Computes a block with u8 outputs.
///
/// # Safety
/// The CPU features and the contract of [`ConvBlock`] for the layout `X86Zmm`, with `rows` null.
pub(super) unsafe fn conv(block: &ConvBlock) {
    let plain = block.narrow
        && block.epilogue.is_saturation()
        && block.residual.is_null()
        && block.channels == block.width;
    // SAFETY: the caller guarantees the CPU features and the contract of `ConvBlock`. The block has
    // the matched number of vectors, and every column is a channel if `plain`.
    unsafe {
        match (block.width / 16, plain) {
            (4, true) => columns_4::<true, false>(block),
            (4, false) => columns_4::<false, false>(block),
            (3, true) => columns_3::<true, false>(block),
            (3, false) => columns_3::<false, false>(block),
            (2, true) => columns_2::<true, false>(block),
            (2, false) => columns_2::<false, false>(block),
            _ if block.channels <= half::COLUMNS => half::conv(block),
            (_, true) => columns_1::<true, false>(block),
            (_, false) => columns_1::<false, false>(block),
        }
    }
}

/// Computes a block with f32 outputs.
///
/// # Safety
/// The CPU features and the contract of [`ConvBlock`] for the layout `X86Zmm`, with `rows`.
pub(super) unsafe fn product(block: &ConvBlock) {
    // SAFETY: the caller guarantees the CPU features and the contract of `ConvBlock` with `rows`.
    // The block has the matched number of vectors.
    unsafe {
        match block.width / 16 {
            4 => columns_4::<false, true>(block),
            3 => columns_3::<false, true>(block),
            2 => columns_2::<false, true>(block),
            _ => columns_1::<false, true>(block),
        }
    }
}

/// Defines a function that computes all pixels of a block with `$vectors` vectors of columns, in
/// the given tile sizes from largest to smallest.
macro_rules! columns {
    ($name:ident, $vectors:literal, $($pixels:literal)*) => {
        /// # Safety
        /// See [`tiles`], for all pixels of the block.
        unsafe fn $name<const PLAIN: bool, const REAL: bool>(block: &ConvBlock) {
            let mut first = 0;
            $(
                let count = (block.pixels - first) / $pixels;
                if count > 0 {
                    let end = first + count * $pixels;
                    // SAFETY: the caller guarantees the requirements of `tiles`; `end` is at most
                    // `block.pixels`, and `end - first` is a multiple of `$pixels`.
                    unsafe { tiles::<$vectors, $pixels, PLAIN, REAL>(block, first, end) };
                    first = end;
                }
            )*
            let _ = first;
        }
    };
}

columns!(columns_4, 4, 6 5 4 3 2 1);
columns!(columns_3, 3, 8 6 4 2 1);
columns!(columns_2, 2, 12 8 4 2 1);
columns!(columns_1, 1, 12 8 4 2 1);

/// Computes the pixels `first..end`, `P` at a time, for `V` vectors of columns. See [`Finisher`]
/// for `PLAIN`. `REAL` selects f32 outputs.
///
/// # Safety
/// The CPU features and the contract of [`ConvBlock`], with `rows` if `REAL`. The block must have
/// `16 · V` columns and at least `end` pixels, and `end - first` must be a multiple of `P`. `PLAIN`
/// requires that every column is a channel.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn tiles<const V: usize, const P: usize, const PLAIN: bool, const REAL: bool>(
    block: &ConvBlock,
    mut first: usize,
    end: usize,
) {
    // SAFETY: reads `16 · V` biases and scales, which are aligned to 64, and for each run `steps`
    // steps of `V` weight vectors, which all belong to the block. Reads exactly `4 · steps` bytes
    // of each run of each pixel, four at a time. f32 outputs are written with masks for the block's
    // channels, which are more than `16 · (V − 1)`; `Finisher` writes other outputs.
    unsafe {
        let narrow = PLAIN || block.narrow;
        let mut bias = [start(narrow); V];
        let mut scales = [_mm512_setzero_ps(); V];
        let mut offsets = scales;
        for j in 0..V {
            let terms = block.weights.add(64 * j);
            bias[j] = _mm512_add_epi32(_mm512_load_si512(terms.cast()), bias[j]);
            scales[j] = _mm512_load_ps(terms.add(64 * V).cast());
            offsets[j] = offset(scales[j]);
        }
        let bytes = 4 * block.steps;
        while first < end {
            let mut weights = block.weights.add(128 * V);
            let mut sums = [bias; P];
            let mut pixels = [block.input; P];
            for (i, pixel) in pixels.iter_mut().enumerate() {
                *pixel = block.input.add(*block.input_offsets.add(first + i) as usize);
            }
            let mut down = 0;
            for _ in 0..block.runs[0] {
                let mut across = down;
                for _ in 0..block.runs[1] {
                    let mut at = across;
                    let end = across + bytes;
                    macro_rules! step {
                        ($k:expr) => {{
                            let mut columns = [_mm512_setzero_si512(); V];
                            for j in 0..V {
                                let column = weights.add(64 * (V * $k + j));
                                columns[j] = _mm512_load_si512(column.cast());
                            }
                            for i in 0..P {
                                let four = pixels[i].add(at + 4 * $k).cast::<i32>();
                                let four = _mm512_set1_epi32(four.read_unaligned());
                                for j in 0..V {
                                    sums[i][j] = _mm512_dpbusd_epi32(sums[i][j], four, columns[j]);
                                }
                            }
                        }};
                    }
                    while at + 8 <= end {
                        step!(0);
                        step!(1);
                        weights = weights.add(128 * V);
                        at += 8;
                    }
                    if at < end {
                        step!(0);
                        weights = weights.add(64 * V);
                    }
                    across += block.run_step[1];
                }
                down += block.run_step[0];
            }

            if REAL {
                for (i, sums) in sums.into_iter().enumerate() {
                    let row = *block.rows.add(first + i);
                    let output = block.output.add(*block.output_offsets.add(first + i) as usize);
                    let (zero, scale) = (_mm512_set1_epi32(row.zero), _mm512_set1_ps(row.scale));
                    for j in 0..V {
                        let sum = _mm512_sub_epi32(sums[j], _mm512_mullo_epi32(zero, bias[j]));
                        let scale = _mm512_mul_ps(scale, scales[j]);
                        let real = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale);
                        let addend = _mm512_loadu_ps(block.addends.add(16 * j));
                        let columns = (block.channels - 16 * j).min(16);
                        let output = output.add(64 * j).cast();
                        let mask = u16::MAX >> (16 - columns);
                        _mm512_mask_storeu_ps(output, mask, _mm512_add_ps(real, addend));
                    }
                }
                first += P;
                continue;
            }
            let mut scaled = [[_mm512_setzero_ps(); V]; P];
            if narrow {
                for i in 0..P {
                    for j in 0..V {
                        scaled[i][j] = scale_narrow(sums[i][j], scales[j], offsets[j]);
                    }
                }
            } else {
                for i in 0..P {
                    for j in 0..V {
                        scaled[i][j] = scale_wide(sums[i][j], scales[j]);
                    }
                }
            }
            let finisher = Finisher::<PLAIN>::new(block, first);
            // All indices are constants, so that the accumulators stay in registers.
            macro_rules! rows {
                ($($i:literal)*) => {$(
                    if $i < P {
                        let at = |i: usize, j: usize| scaled[i.min(P - 1)][j.min(V - 1)];
                        if V == 4 {
                            finisher.one($i, [at($i, 0), at($i, 1), at($i, 2), at($i, 3)]);
                        }
                        if (V == 2 || V == 3) && $i % 2 == 0 {
                            let sums = [at($i, 0), at($i, 1), at($i + 1, 0), at($i + 1, 1)];
                            finisher.two($i, sums, (P - $i).min(2));
                        }
                        if (V == 1 || V == 3) && $i % 4 == 0 {
                            let j = V - 1;
                            let sums = [at($i, j), at($i + 1, j), at($i + 2, j), at($i + 3, j)];
                            finisher.four($i, sums, (P - $i).min(4), 16 * j);
                        }
                    }
                )*};
            }
            rows!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
            first += P;
        }
    }
}

/// The epilogue of a tile. `PLAIN` is for narrow layers without a residual whose columns are all
/// channels and whose epilogue only saturates.
struct Finisher<'a, const PLAIN: bool> {
    block: &'a ConvBlock,
    first: usize,
    addend: Addend,
}

impl<'a, const PLAIN: bool> Finisher<'a, PLAIN> {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(block: &'a ConvBlock, first: usize) -> Self {
        let addend = Addend {
            zero_point: _mm512_set1_ps(block.residual_zero_point),
            scale: _mm512_set1_ps(block.residual_scale),
        };
        Self { block, first, addend }
    }

    /// Returns the address of an output pixel.
    ///
    /// # Safety
    /// The contract of [`ConvBlock`]; the block must have more than `first + pixel` pixels.
    #[inline(always)]
    unsafe fn output(&self, pixel: usize) -> *mut u8 {
        // SAFETY: by the contract of `ConvBlock`, `output_offsets` has an element for each pixel.
        unsafe {
            self.block.output.add(*self.block.output_offsets.add(self.first + pixel) as usize)
        }
    }

    /// Returns the address of a residual pixel.
    ///
    /// # Safety
    /// The contract of [`ConvBlock`]; the block must have more than `first + pixel` pixels and a
    /// residual.
    #[inline(always)]
    unsafe fn residual(&self, pixel: usize) -> *const u8 {
        // SAFETY: by the contract of `ConvBlock`, `residual_offsets` has an element for each pixel
        // if there is a residual.
        unsafe {
            self.block.residual.add(*self.block.residual_offsets.add(self.first + pixel) as usize)
        }
    }

    /// Writes 64 columns of one pixel.
    ///
    /// # Safety
    /// The CPU features and the contract of [`ConvBlock`]. The block must have 64 columns and more
    /// than `first + pixel` pixels.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn one(&self, pixel: usize, mut sums: [__m512; 4]) {
        // SAFETY: a block of 64 columns has 49 to 64 channels. The mask has one bit per channel, so
        // only bytes that the contract of `ConvBlock` permits are accessed. `PLAIN` implies 64
        // channels.
        unsafe {
            let mask = u64::MAX >> (64 - self.block.channels);
            if !PLAIN && !self.block.residual.is_null() {
                let values = _mm512_maskz_loadu_epi8(mask, self.residual(pixel).cast());
                sums = self.addend.add(sums, values);
            }
            let bytes = narrow::<PLAIN>(sums, self.block.epilogue);
            if PLAIN || mask == u64::MAX {
                _mm512_storeu_si512(self.output(pixel).cast(), bytes);
            } else {
                _mm512_mask_storeu_epi8(self.output(pixel).cast(), mask, bytes);
            }
        }
    }

    /// Writes the first 32 columns of one or two pixels.
    ///
    /// # Safety
    /// The CPU features and the contract of [`ConvBlock`]. The block must have at least 32 columns
    /// and `first + pixel + count` pixels, where `count` is 1 or 2.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn two(&self, pixel: usize, mut sums: [__m512; 4], count: usize) {
        // SAFETY: a block of at least 32 columns has more than 16 channels. The mask has one bit
        // for each of the first 32, so only bytes that the contract of `ConvBlock` permits are
        // accessed. `PLAIN` implies at least 32 channels.
        unsafe {
            let mask = u32::MAX >> (32 - self.block.channels.min(32));
            // Interleaves groups of 8 columns of the two pixels.
            let turns = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
            if !PLAIN && !self.block.residual.is_null() {
                let values = _mm256_maskz_loadu_epi8(mask, self.residual(pixel).cast());
                let mut values = _mm512_castsi256_si512(values);
                if count > 1 {
                    let second = _mm256_maskz_loadu_epi8(mask, self.residual(pixel + 1).cast());
                    values = _mm512_inserti64x4(values, second, 1);
                }
                sums = self.addend.add(sums, _mm512_permutexvar_epi64(turns, values));
            }
            let bytes = narrow::<PLAIN>(sums, self.block.epilogue);
            let bytes = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), bytes);
            let (a, b) = (_mm512_castsi512_si256(bytes), _mm512_extracti64x4_epi64(bytes, 1));
            if PLAIN || mask == u32::MAX {
                _mm256_storeu_si256(self.output(pixel).cast(), a);
                if count > 1 {
                    _mm256_storeu_si256(self.output(pixel + 1).cast(), b);
                }
            } else {
                _mm256_mask_storeu_epi8(self.output(pixel).cast(), mask, a);
                if count > 1 {
                    _mm256_mask_storeu_epi8(self.output(pixel + 1).cast(), mask, b);
                }
            }
        }
    }

    /// Writes 16 columns from `column` of up to four pixels.
    ///
    /// # Safety
    /// The CPU features and the contract of [`ConvBlock`]. The block must have `column + 16`
    /// columns and at least `first + pixel + count` pixels, where `count` is 1 to 4.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn four(&self, pixel: usize, mut sums: [__m512; 4], count: usize, column: usize) {
        // SAFETY: a block of `column + 16` columns has more than `column` channels. The mask has
        // one bit for each of the next 16, so only bytes that the contract of `ConvBlock` permits
        // are accessed. `PLAIN` implies that all 16 are channels.
        unsafe {
            let mask = u16::MAX >> (16 - (self.block.channels - column).min(16));
            // Interleaves groups of 4 columns of the pixels. The permutation is its own inverse.
            let turns = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
            if !PLAIN && !self.block.residual.is_null() {
                let load = |i: usize| {
                    let pixel = pixel + i.min(count - 1);
                    _mm_maskz_loadu_epi8(mask, self.residual(pixel).add(column).cast())
                };
                let values = _mm512_castsi128_si512(load(0));
                let values = _mm512_inserti32x4(values, load(1), 1);
                let values = _mm512_inserti32x4(values, load(2), 2);
                let values = _mm512_inserti32x4(values, load(3), 3);
                sums = self.addend.add(sums, _mm512_permutexvar_epi32(turns, values));
            }
            let bytes = narrow::<PLAIN>(sums, self.block.epilogue);
            let bytes = _mm512_permutexvar_epi32(turns, bytes);
            let parts = [
                _mm512_castsi512_si128(bytes),
                _mm512_extracti32x4_epi32(bytes, 1),
                _mm512_extracti32x4_epi32(bytes, 2),
                _mm512_extracti32x4_epi32(bytes, 3),
            ];
            for (i, part) in parts.into_iter().enumerate().take(count) {
                let output = self.output(pixel + i).add(column);
                if PLAIN || mask == u16::MAX {
                    _mm_storeu_si128(output.cast(), part);
                } else {
                    _mm_mask_storeu_epi8(output.cast(), mask, part);
                }
            }
        }
    }
}
