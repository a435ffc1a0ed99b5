//! Reduction of an angle to at most an eighth of a turn, accurate for every f32.

use core::f64::consts::FRAC_PI_2;

/// The first 192 binary digits of 2/π after the point.
const TWO_OVER_PI: [u64; 3] = [0xA2F9_836E_4E44_1529, 0xFC27_57D1_F534_DDC0, 0xDB62_9599_3C43_9041];

/// The biased exponent of the f32 values in [2^23, 2^24), whose last significant bit is 1.
const UNIT: i32 = 127 + 23;

/// `MULTIPLIERS[e]` is 2^e · 2/π modulo 4, as a sum of two numbers. The first has 29 bits, so that
/// its product with a number of 24 bits is exact in f64.
static MULTIPLIERS: [[f64; 2]; 128] = multipliers();

const fn multipliers() -> [[f64; 2]; 128] {
    let mut table = [[0.0; 2]; 128];
    let mut exponent = 0;
    while exponent <= 254 - UNIT as u32 {
        // The first bit of the window has weight 2.
        let window = match exponent {
            0 | 1 => digits(0) >> (2 - exponent),
            _ => digits(exponent - 2),
        };
        let (high, low) = ((window >> 99) as u32, (window << 29 >> 64) as u64);
        let unit = 1.0 / (1u32 << 27) as f64;
        table[exponent as usize] = [high as f64 * unit, low as f64 * (unit / (1u128 << 64) as f64)];
        exponent += 1;
    }
    table
}

/// Returns 128 binary digits of 2/π after the first `skip`, which are fewer than 128.
const fn digits(skip: u32) -> u128 {
    let [first, second, third] = TWO_OVER_PI;
    let high = (first as u128) << 64 | second as u128;
    let low = (third as u128) << 64;
    if skip == 0 { high } else { high << skip | low >> (128 - skip) }
}

/// Returns `(quarters, rest)` with `x = quarters · π/2 + rest` modulo 2π and |rest| ≤ π/4, for a
/// finite `x` ≥ 0. Only the last two bits of `quarters` have a meaning.
#[inline(always)]
pub(super) fn reduce(x: f32) -> (u32, f32) {
    /// Adding it to a number below 2^51 rounds that number to an integer, in the last bits.
    const ROUND: f64 = 1.5 * (1u64 << 52) as f64;
    let bits = x.to_bits() as i32;
    let above = (bits >> 23) - UNIT;
    let exponent = if above > 0 { above } else { 0 };
    let [high, low] = MULTIPLIERS[(exponent & 127) as usize];
    let significand = f64::from(f32::from_bits((bits - (exponent << 23)) as u32));
    let product = significand * high;
    let rounded = significand.mul_add(low, product) + ROUND;
    let rest = significand.mul_add(low, product - (rounded - ROUND));
    (rounded.to_bits() as u32, (rest * FRAC_PI_2) as f32)
}
