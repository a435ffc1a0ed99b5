//! Bytes by any index: tables and interleaving.

use core::arch::x86_64::*;

use crate::strided::portable;

/// `output[i] = table[input[i]]`.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) fn lookup(table: &[u8; 256], input: &[u8], output: &mut [u8]) {
    // SAFETY: the table has four vectors. Vectors of input and output begin 64 bytes before the end of
    // the shorter one at the latest; what is left, 1 to 63 bytes, is as many bits of the mask.
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

/// For each byte of three vectors of pixels of three channels, its place in the first two rows,
/// and in the third.
const THREE: [[[u8; 64]; 2]; 3] = {
    let mut places = [[[0; 64]; 2]; 3];
    let mut at = 0;
    while at < 192 {
        let (pixel, channel) = (at / 3, at % 3);
        // The index of a permutation of two vectors has the second's bytes from 64 on.
        places[at / 64][0][at % 64] = (pixel + if channel == 1 { 64 } else { 0 }) as u8;
        places[at / 64][1][at % 64] = pixel as u8;
        at += 1;
    }
    places
};

/// Bytes of three vectors that are of the third channel.
const THIRD: [u64; 3] = {
    let mut masks = [0; 3];
    let mut at = 2;
    while at < 192 {
        masks[at / 64] |= 1 << (at % 64);
        at += 3;
    }
    masks
};

/// So many rows to pixels of so many channels, as many as the output holds.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) fn interleave(rows: &[[u8; 64]; 4], channels: usize, output: &mut [u8]) {
    if channels != 3 || output.len() != 192 {
        return portable::interleave(rows, channels, output);
    }
    // SAFETY: rows and index tables have 64 bytes, the output three times as many.
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
