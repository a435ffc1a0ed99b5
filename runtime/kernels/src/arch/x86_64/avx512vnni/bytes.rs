//! Byte permutations: lookup tables and interleaving.

use core::arch::x86_64::*;

use crate::strided::portable;

/// Computes `output[i] = table[input[i]]`.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) fn lookup(table: &[u8; 256], input: &[u8], output: &mut [u8]) {
    // SAFETY: the table has four vectors of 64 bytes. Whole vectors of input and output are
    // accessed only if 64 bytes are left in the shorter slice. The mask of the last access has one
    // bit for each of the remaining 1 to 63 bytes.
    unsafe {
        let quarter = |index: usize| _mm512_loadu_si512(table.as_ptr().add(64 * index).cast());
        let [a, b, c, d] = [quarter(0), quarter(1), quarter(2), quarter(3)];
        let apply = |index: __m512i| {
            let low = _mm512_permutex2var_epi8(a, index, b);
            let high = _mm512_permutex2var_epi8(c, index, d);
            _mm512_mask_blend_epi8(_mm512_movepi8_mask(index), low, high)
        };
        let count = input.len().min(output.len());
        let mut at = 0;
        while at + 64 <= count {
            let index = _mm512_loadu_si512(input.as_ptr().add(at).cast());
            _mm512_storeu_si512(output.as_mut_ptr().add(at).cast(), apply(index));
            at += 64;
        }
        if at < count {
            let mask = u64::MAX >> (64 - (count - at));
            let index = _mm512_maskz_loadu_epi8(mask, input.as_ptr().add(at).cast());
            _mm512_mask_storeu_epi8(output.as_mut_ptr().add(at).cast(), mask, apply(index));
        }
    }
}

/// For each byte of three output vectors of RGB pixels: its index in the first two rows, and in the
/// third row.
const THREE: [[[u8; 64]; 2]; 3] = {
    let mut places = [[[0; 64]; 2]; 3];
    let mut at = 0;
    while at < 192 {
        let (pixel, channel) = (at / 3, at % 3);
        // In a two-vector permutation, indices from 64 select bytes of the second vector.
        places[at / 64][0][at % 64] = (pixel + if channel == 1 { 64 } else { 0 }) as u8;
        places[at / 64][1][at % 64] = pixel as u8;
        at += 1;
    }
    places
};

/// The mask of the bytes of the third channel in each of the three output vectors.
const THIRD: [u64; 3] = {
    let mut masks = [0; 3];
    let mut at = 2;
    while at < 192 {
        masks[at / 64] |= 1 << (at % 64);
        at += 3;
    }
    masks
};

/// Interleaves the first `channels` rows to pixels, as many as fit in the output.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) fn interleave(rows: &[[u8; 64]; 4], channels: usize, output: &mut [u8]) {
    if channels != 3 || output.len() != 192 {
        return portable::interleave(rows, channels, output);
    }
    // SAFETY: rows and index tables have 64 bytes, and the output has 3 · 64, as checked above.
    unsafe {
        let load = |bytes: &[u8; 64]| _mm512_loadu_si512(bytes.as_ptr().cast());
        let [a, b, c] = [load(&rows[0]), load(&rows[1]), load(&rows[2])];
        for (index, ([two, one], third)) in THREE.iter().zip(THIRD).enumerate() {
            let pixels = _mm512_permutex2var_epi8(a, load(two), b);
            let pixels = _mm512_mask_permutexvar_epi8(pixels, third, load(one), c);
            _mm512_storeu_si512(output.as_mut_ptr().add(64 * index).cast(), pixels);
        }
    }
}
