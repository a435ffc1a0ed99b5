//! Convolution with at most 8 columns, in tiles of up to 16 pixels. A vector contains two partial
//! sums per column, for the two halves of every 8 elements, so that no lane is idle.

use core::arch::x86_64::*;

use super::epilogue::{Addend, narrow, offset, scale_narrow, scale_wide, start};
use crate::strided::ConvBlock;

/// The maximum number of channels.
pub(super) const COLUMNS: usize = 8;

/// Computes a block of one vector with at most [`COLUMNS`] channels.
///
/// # Safety
/// The CPU features and the contract of [`ConvBlock`], with `rows` null. The block must have 16
/// columns and at most [`COLUMNS`] channels.
pub(super) unsafe fn conv(block: &ConvBlock) {
    let mut first = 0;
    macro_rules! all {
        ($($pixels:literal)*) => {$(
            let end = first + (block.pixels - first) / $pixels * $pixels;
            if first < end {
                // SAFETY: the caller guarantees the requirements of `tiles`; `end` is at most
                // `block.pixels`, and `end - first` is a multiple of `$pixels`.
                unsafe { tiles::<$pixels>(block, first, end) };
                first = end;
            }
        )*};
    }
    all!(16 8 4 2 1);
    let _ = first;
}

/// Computes the pixels `first..end`, `P` at a time.
///
/// # Safety
/// See [`conv`]. The block must have at least `end` pixels, and `end - first` must be a multiple of
/// `P`.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn tiles<const P: usize>(block: &ConvBlock, mut first: usize, end: usize) {
    // SAFETY: reads 16 biases and scales, which are aligned to 64, and for each run `steps` weight
    // vectors, which all belong to the block. Reads exactly `4 · steps` bytes of each run of each
    // pixel, eight or four at a time. The contract of `ConvBlock` makes these readable.
    unsafe {
        let load = |at: usize| _mm512_load_si512(block.weights.add(64 * at).cast());
        // Interleaves columns with the same columns of another vector, or with 0.
        let turns = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        let none = _mm512_setzero_si512();
        let bias = _mm512_add_epi32(load(0), start(block.narrow));
        let bias = _mm512_permutex2var_epi32(bias, turns, none);
        let twice = _mm512_setr_epi64(0, 1, 2, 3, 0, 1, 2, 3);
        let scales = _mm512_castsi512_ps(_mm512_permutexvar_epi64(twice, load(1)));
        let offsets = offset(scales);
        let bytes = 4 * block.steps;
        while first < end {
            let mut weights = block.weights.add(128);
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
                    while at + 8 <= end {
                        let near = _mm512_load_si512(weights.cast());
                        let far = _mm512_load_si512(weights.add(64).cast());
                        let columns = _mm512_permutex2var_epi32(near, turns, far);
                        for i in 0..P {
                            let eight = pixels[i].add(at).cast::<i64>().read_unaligned();
                            let eight = _mm512_set1_epi64(eight);
                            sums[i] = _mm512_dpbusd_epi32(sums[i], eight, columns);
                        }
                        weights = weights.add(128);
                        at += 8;
                    }
                    if at < end {
                        let near = _mm512_load_si512(weights.cast());
                        let columns = _mm512_permutex2var_epi32(near, turns, none);
                        for i in 0..P {
                            let four = pixels[i].add(at).cast::<i32>().read_unaligned();
                            let four = _mm512_set1_epi32(four);
                            sums[i] = _mm512_dpbusd_epi32(sums[i], four, columns);
                        }
                        weights = weights.add(64);
                    }
                    across += block.run_step[1];
                }
                down += block.run_step[0];
            }
            // Reduces the partial sums, two pixels per vector.
            let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            let odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
            let pair = |i: usize| {
                let (a, b) = (sums[i.min(P - 1)], sums[(i + 1).min(P - 1)]);
                let near = _mm512_permutex2var_epi32(a, even, b);
                let sum = _mm512_add_epi32(near, _mm512_permutex2var_epi32(a, odd, b));
                if block.narrow {
                    scale_narrow(sum, scales, offsets)
                } else {
                    scale_wide(sum, scales)
                }
            };
            epilogue(block, first, [pair(0), pair(2), pair(4), pair(6)], P.min(8));
            if P > 8 {
                epilogue(block, first + 8, [pair(8), pair(10), pair(12), pair(14)], P - 8);
            }
            first += P;
        }
    }
}

/// Applies the rest of the epilogue to up to eight pixels, two per vector, and writes them.
///
/// # Safety
/// See [`conv`]. The block must have `first + count` pixels, where `count` is at most 8.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn epilogue(block: &ConvBlock, first: usize, mut sums: [__m512; 4], count: usize) {
    // SAFETY: by the contract of `ConvBlock`, offsets exist for all pixels, and `channels` bytes, 1
    // to 8, are writable there (and readable in a residual). The mask has one bit per channel.
    unsafe {
        let mask = u16::MAX >> (16 - block.channels);
        // Interleaves groups of 4 columns of the vectors. The permutation is its own inverse.
        let turns = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        if !block.residual.is_null() {
            let mut rows = [_mm_setzero_si128(); 8];
            for (i, row) in rows.iter_mut().enumerate().take(count) {
                let at = *block.residual_offsets.add(first + i) as usize;
                *row = _mm_maskz_loadu_epi8(mask, block.residual.add(at).cast());
            }
            let two = |i: usize| _mm_unpacklo_epi64(rows[i], rows[i + 1]);
            let values = _mm512_castsi128_si512(two(0));
            let values = _mm512_inserti32x4(values, two(2), 1);
            let values = _mm512_inserti32x4(values, two(4), 2);
            let values = _mm512_inserti32x4(values, two(6), 3);
            let addend = Addend {
                zero_point: _mm512_set1_ps(block.residual_zero_point),
                scale: _mm512_set1_ps(block.residual_scale),
            };
            sums = addend.add(sums, _mm512_permutexvar_epi32(turns, values));
        }
        let bytes = _mm512_permutexvar_epi32(turns, narrow::<false>(sums, block.epilogue));
        let parts = [
            _mm512_castsi512_si128(bytes),
            _mm512_extracti32x4_epi32(bytes, 1),
            _mm512_extracti32x4_epi32(bytes, 2),
            _mm512_extracti32x4_epi32(bytes, 3),
        ];
        for i in 0..count {
            let part = parts[i / 2];
            let part = if i % 2 == 0 { part } else { _mm_unpackhi_epi64(part, part) };
            let output = block.output.add(*block.output_offsets.add(first + i) as usize);
            if block.channels == COLUMNS {
                _mm_storel_epi64(output.cast(), part);
            } else {
                _mm_mask_storeu_epi8(output.cast(), mask, part);
            }
        }
    }
}
