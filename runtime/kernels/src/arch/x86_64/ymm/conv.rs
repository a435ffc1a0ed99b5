//! Convolution in tiles of a few pixels × 16 columns, or 8 if the block has at most 8 channels.

use core::arch::x86_64::*;

use super::dot::Dot;
use super::epilogue::{Addend, clamp, round, scale, start};
use crate::strided::ConvBlock;

/// The number of columns of a block.
pub(super) const WIDTH: usize = 16;

/// Computes `P` pixels from index `first`, for the `V` vectors of columns that contain the
/// channels. `REAL` selects f32 outputs and requires `V` = 2.
///
/// # Safety
/// The CPU must support AVX2, FMA and the instructions of `D`. `block` must satisfy the contract of
/// [`ConvBlock`] for the layout `X86Ymm`, with `rows` if `REAL`, and have at least `first + P`
/// pixels and at most `8 · V` channels.
#[inline(always)]
pub(super) unsafe fn tile<D: Dot, const V: usize, const P: usize, const REAL: bool>(
    block: &ConvBlock,
    first: usize,
) {
    // SAFETY: reads 16 biases and scales and, for each run, `steps` steps of 64 weights, which all
    // belong to the block. Reads exactly `4 · steps` bytes of each run of each pixel, four at a
    // time. The contract of `ConvBlock` makes these readable.
    unsafe {
        let begin = start(block.narrow);
        let mut bias = columns::<V>(block.weights);
        for bias in &mut bias {
            *bias = _mm256_add_epi32(*bias, begin);
        }
        let mut sums = [bias; P];
        let mut pixels = [block.input; P];
        for (i, pixel) in pixels.iter_mut().enumerate() {
            *pixel = block.input.add(*block.input_offsets.add(first + i) as usize);
        }
        let mut weights = block.weights.add(8 * WIDTH);
        let mut down = 0;
        for _ in 0..block.runs[0] {
            let mut across = down;
            for _ in 0..block.runs[1] {
                for step in 0..block.steps {
                    let at = across + 4 * step;
                    let columns = columns::<V>(weights);
                    let mut ready = [D::weights(columns[0]); V];
                    for j in 1..V {
                        ready[j] = D::weights(columns[j]);
                    }
                    for i in 0..P {
                        let four = pixels[i].add(at).cast::<i32>().read_unaligned();
                        let four = D::activations(_mm256_set1_epi32(four));
                        for j in 0..V {
                            sums[i][j] = D::add(sums[i][j], four, ready[j]);
                        }
                    }
                    weights = weights.add(4 * WIDTH);
                }
                across += block.run_step[1];
            }
            down += block.run_step[0];
        }

        let scales = columns::<V>(block.weights.add(4 * WIDTH));
        if REAL {
            let scales = [_mm256_castsi256_ps(scales[0]), _mm256_castsi256_ps(scales[V - 1])];
            for (i, sums) in sums.into_iter().enumerate() {
                let sums = [sums[0], sums[V - 1]];
                floats(block, first + i, sums, [bias[0], bias[V - 1]], scales);
            }
            return;
        }
        let mut scaled = [[_mm256_setzero_ps(); 2]; P];
        for i in 0..P {
            for j in 0..V {
                let scales = _mm256_castsi256_ps(scales[j]);
                scaled[i][j] = scale(sums[i][j], scales, block.narrow);
            }
            if V == 1 {
                // The vector contains the first four columns of each of two lanes.
                scaled[i][1] = _mm256_permute2f128_ps(scaled[i][0], scaled[i][0], 1);
            }
        }
        // All indices are constants, so that the accumulators stay in registers.
        macro_rules! pairs {
            ($($i:literal)*) => {$(
                if $i < P {
                    let (a, b) = (scaled[$i.min(P - 1)], scaled[($i + 1).min(P - 1)]);
                    epilogue(block, first + $i, [a, b], (P - $i).min(2));
                }
            )*};
        }
        pairs!(0 2 4 6 8 10);
    }
}

/// Applies the rest of the epilogue to one or two pixels and writes them.
///
/// # Safety
/// The CPU features and the contract of [`ConvBlock`]. The block must have at least `pixel + count`
/// pixels, where `count` is 1 or 2.
#[inline(always)]
unsafe fn epilogue(block: &ConvBlock, pixel: usize, mut sums: [[__m256; 2]; 2], count: usize) {
    // SAFETY: the caller guarantees the CPU features, the contract of `ConvBlock`, and that the
    // block has `pixel + count` pixels.
    unsafe {
        if !block.residual.is_null() {
            let second = residual(block, pixel + count - 1);
            let values = _mm256_set_m128i(second, residual(block, pixel));
            // Interleaves groups of eight columns of the two pixels.
            let values = _mm256_permute4x64_epi64(values, 0b11_01_10_00);
            let addend = Addend {
                zero_point: _mm256_set1_ps(block.residual_zero_point),
                scale: _mm256_set1_ps(block.residual_scale),
            };
            sums = [
                [addend.add::<0>(sums[0][0], values), addend.add::<1>(sums[0][1], values)],
                [addend.add::<2>(sums[1][0], values), addend.add::<3>(sums[1][1], values)],
            ];
        }
        let first = round(sums[0][0], sums[0][1], block.epilogue);
        let second = round(sums[1][0], sums[1][1], block.epilogue);
        let bytes = clamp(first, second, block.epilogue);
        let bytes = _mm256_permute4x64_epi64(bytes, 0b11_01_10_00);
        store(block, pixel, _mm256_castsi256_si128(bytes));
        if count > 1 {
            store(block, pixel + 1, _mm256_extracti128_si256(bytes, 1));
        }
    }
}

/// Dequantizes the accumulators of a row to f32 and writes them.
///
/// # Safety
/// The CPU features and the contract of [`ConvBlock`] with `rows`. The block must have more than
/// `pixel` pixels.
#[inline(always)]
unsafe fn floats(
    block: &ConvBlock,
    pixel: usize,
    sums: [__m256i; 2],
    columns: [__m256i; 2],
    scales: [__m256; 2],
) {
    // SAFETY: by the contract of `ConvBlock`, `rows` and `output_offsets` have an element for each
    // pixel, `addends` has 16 elements, and `channels` f32 are writable at the output.
    unsafe {
        let row = *block.rows.add(pixel);
        let (zero, scale) = (_mm256_set1_epi32(row.zero), _mm256_set1_ps(row.scale));
        let mut floats = [0f32; WIDTH];
        for j in 0..2 {
            let sum = _mm256_sub_epi32(sums[j], _mm256_mullo_epi32(zero, columns[j]));
            let real = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_mul_ps(scale, scales[j]));
            let addend = _mm256_loadu_ps(block.addends.add(8 * j));
            _mm256_storeu_ps(floats.as_mut_ptr().add(8 * j), _mm256_add_ps(real, addend));
        }
        let output = block.output.add(*block.output_offsets.add(pixel) as usize).cast::<f32>();
        if block.channels == WIDTH {
            output.copy_from_nonoverlapping(floats.as_ptr(), WIDTH);
        } else {
            output.copy_from_nonoverlapping(floats.as_ptr(), block.channels);
        }
    }
}

/// Loads one 32-bit word per column: all 16 columns in two vectors, or the first eight in one
/// vector. Those are the lower lanes of both vectors.
///
/// # Safety
/// The CPU must support AVX2, and 64 bytes must be readable at `at`.
#[inline(always)]
unsafe fn columns<const V: usize>(at: *const u8) -> [__m256i; V] {
    // SAFETY: the caller guarantees AVX2 and 64 readable bytes at `at`.
    unsafe {
        let mut vectors = [_mm256_loadu_si256(at.cast()); V];
        if V == 2 {
            vectors[1] = _mm256_loadu_si256(at.add(32).cast());
        } else {
            let second = _mm_loadu_si128(at.add(32).cast());
            vectors[0] = _mm256_inserti128_si256(vectors[0], second, 1);
        }
        vectors
    }
}

/// Loads the channels of a residual pixel.
///
/// # Safety
/// The CPU features and the contract of [`ConvBlock`]. The block must have more than `pixel` pixels
/// and a residual.
#[inline(always)]
unsafe fn residual(block: &ConvBlock, pixel: usize) -> __m128i {
    // SAFETY: by the contract of `ConvBlock`, `residual_offsets` has an element for the pixel, and
    // `channels` bytes, at most 16, are readable there.
    unsafe {
        let at = block.residual.add(*block.residual_offsets.add(pixel) as usize);
        if block.channels == WIDTH {
            return _mm_loadu_si128(at.cast());
        }
        if block.channels == WIDTH / 2 {
            return _mm_loadl_epi64(at.cast());
        }
        let mut bytes = [0u8; WIDTH];
        at.copy_to_nonoverlapping(bytes.as_mut_ptr(), block.channels);
        _mm_loadu_si128(bytes.as_ptr().cast())
    }
}

/// Stores the channels of an output pixel.
///
/// # Safety
/// The CPU features and the contract of [`ConvBlock`]. The block must have more than `pixel`
/// pixels.
#[inline(always)]
unsafe fn store(block: &ConvBlock, pixel: usize, bytes: __m128i) {
    // SAFETY: by the contract of `ConvBlock`, `output_offsets` has an element for the pixel, and
    // `channels` bytes, at most 16, are writable there.
    unsafe {
        let at = block.output.add(*block.output_offsets.add(pixel) as usize);
        if block.channels == WIDTH {
            return _mm_storeu_si128(at.cast(), bytes);
        }
        if block.channels == WIDTH / 2 {
            return _mm_storel_epi64(at.cast(), bytes);
        }
        let mut row = [0u8; WIDTH];
        _mm_storeu_si128(row.as_mut_ptr().cast(), bytes);
        at.copy_from_nonoverlapping(row.as_ptr(), block.channels);
    }
}
