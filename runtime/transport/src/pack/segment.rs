//! Divides a section of weights into i8 weights, i16 weights and 4-byte words (biases, scales and
//! tables).

use alloc::vec::Vec;
use core::ops::Range;

use crate::logistic::log2;

/// The content of a part of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// i8 weights.
    Weights,
    /// i16 weights.
    Pairs,
    /// i32 or f32 words.
    Words,
}

/// The boundaries of parts are multiples of this many bytes.
pub(super) const UNIT: usize = 16;
/// The cost of a change of content, in units of 1/256 bit.
const CHANGE: u64 = 40 << 8;
const BIT: u64 = 256;

/// Divides a section into the parts with the least estimated coded size, by dynamic programming.
pub(super) fn segments(bytes: &[u8]) -> Vec<(Part, Range<usize>)> {
    let all = [Part::Weights, Part::Pairs, Part::Words];
    // For each unit and content, the best content of the previous unit.
    let mut before = Vec::with_capacity(bytes.len().div_ceil(UNIT));
    let mut totals = [0; 3];
    for unit in bytes.chunks(UNIT) {
        let change = |from: usize, to: usize| if from == to { 0 } else { CHANGE };
        let from = [0, 1, 2].map(|to: usize| least(|from| totals[from] + change(from, to)));
        let costs = [weights(unit), pairs(unit), words(unit)];
        totals = [0, 1, 2].map(|to| totals[from[to]] + change(from[to], to) + costs[to]);
        before.push(from);
    }
    let mut content = least(|content| totals[content]);
    let mut found: Vec<(Part, Range<usize>)> = Vec::new();
    for (index, from) in before.iter().enumerate().rev() {
        let range = index * UNIT..bytes.len().min((index + 1) * UNIT);
        match found.last_mut() {
            Some((last, end)) if *last == all[content] => end.start = range.start,
            _ => found.push((all[content], range)),
        }
        content = from[content];
    }
    found.reverse();
    found
}

/// Returns the content with the least cost, the first one in case of a tie.
fn least(takes: impl Fn(usize) -> u64) -> usize {
    [1, 2].into_iter().fold(0, |best, other| if takes(other) < takes(best) { other } else { best })
}

/// Estimates the coded size of a unit of i16 weights, from their distribution around the mean
/// magnitude.
fn pairs(unit: &[u8]) -> u64 {
    let numbers =
        || unit.chunks(2).map(|two| i16::from_le_bytes([two[0], *two.get(1).unwrap_or(&0)]));
    let sizes = || numbers().map(|number| u64::from(number.unsigned_abs()));
    let mean = 2 * sizes().sum::<u64>() / unit.len().div_ceil(2) as u64 + 1;
    // The low byte is almost incompressible.
    let bits =
        |size: u64| (8 * BIT).max(u64::from(log2(2 * mean as u32)) - BIT + 2 * size * 369 / mean);
    sizes().map(bits).sum()
}

/// Estimates the coded size of a unit of i8 weights: dense, distributed around the mean magnitude,
/// or mostly zeros.
fn weights(unit: &[u8]) -> u64 {
    let sizes = || unit.iter().map(|byte| u64::from((*byte as i8).unsigned_abs()));
    let mean = 2 * sizes().sum::<u64>() / unit.len() as u64 + 1;
    let dense = |size: u64| u64::from(log2(2 * mean as u32)) - BIT + 2 * size * 369 / mean;
    let sparse = |size: u64| if size == 0 { BIT / 8 } else { 9 * BIT };
    let least = sizes().map(dense).sum::<u64>().min(sizes().map(sparse).sum());
    least.min(8 * BIT * unit.len() as u64)
}

/// Estimates the coded size of a unit of words, as integers or as floats.
fn words(unit: &[u8]) -> u64 {
    let words = || {
        unit.chunks(4)
            .map(|word| word.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    };
    let integer = |word: u32| match 32 - (word as i32).unsigned_abs().leading_zeros() {
        0 => 1,
        bits @ 1..=25 => bits + 3,
        _ => 40,
    };
    let real = |word: u32| match word >> 23 & 0xff {
        _ if word == 0 => 1,
        0x60..0x8a => 28 - word.trailing_zeros().min(23),
        _ => 60,
    };
    u64::from(words().map(integer).sum::<u32>().min(words().map(real).sum())) * BIT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn biases_and_scales_are_distinguished_from_weights() {
        let noise = |i: u32| i.wrapping_mul(2_654_435_761) >> 16;
        let mut bytes: Vec<u8> = (0..2048).map(|i| (noise(i) as i8 / 2) as u8).collect();
        bytes.extend((0..64).flat_map(|i| (noise(i) as i32 - 30_000).to_le_bytes()));
        bytes.extend((0..64).flat_map(|i| (1e-3 + 1e-7 * noise(i) as f32).to_le_bytes()));
        bytes.extend((0..1000).map(|i| (noise(i) as i8 / 4) as u8));
        let expected =
            [(Part::Weights, 0..2048), (Part::Words, 2048..2560), (Part::Weights, 2560..3560)];
        assert_eq!(segments(&bytes), expected);
        assert_eq!(segments(&[]), []);
    }

    #[test]
    fn two_byte_weights_are_distinguished_from_both() {
        let noise = |i: u32| (i.wrapping_mul(2_654_435_761) >> 16) as i16;
        let mut bytes: Vec<u8> = (0..2048).map(|i| (noise(i) as i8 / 4) as u8).collect();
        bytes.extend((0..1024).flat_map(|i| (noise(i) / 64).to_le_bytes()));
        bytes.extend((0..64).flat_map(|i| (1e-3 + 1e-7 * f32::from(noise(i))).to_le_bytes()));
        let expected =
            [(Part::Weights, 0..2048), (Part::Pairs, 2048..4096), (Part::Words, 4096..4352)];
        assert_eq!(segments(&bytes), expected);
    }
}
