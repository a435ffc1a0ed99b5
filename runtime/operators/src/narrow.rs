//! Floating-point numbers of 8 and 4 bits, and exact rounding to the precision of any float type.

use crate::element_type::ElementType;

/// A format with a sign, an exponent and a mantissa.
struct Format {
    exponent_bits: u32,
    mantissa_bits: u32,
    bias: i32,
    max: f64,
    /// The code of a positive `NaN`.
    nan: u8,
    /// The code of positive infinity; that of `NaN` if the format has no infinity.
    infinity: u8,
    /// Whether the code of `NaN` is that of negative zero, so that zero has no sign.
    unsigned_zero: bool,
}

/// Returns the format of a type; `None` if the type is stored in another way.
fn format(element: ElementType) -> Option<Format> {
    let (exponent_bits, mantissa_bits, bias, max, nan, infinity) = match element {
        ElementType::F8E4M3FN => (4, 3, 7, 448.0, 0x7F, 0x7F),
        ElementType::F8E4M3FNUZ => (4, 3, 8, 240.0, 0x80, 0x80),
        ElementType::F8E5M2 => (5, 2, 15, 57344.0, 0x7F, 0x7C),
        ElementType::F8E5M2FNUZ => (5, 2, 16, 57344.0, 0x80, 0x80),
        // This type has neither NaN nor infinity. The conformance tests want -0 for NaN.
        ElementType::F4E2M1 => (2, 1, 1, 6.0, 0x8, 0x7),
        _ => return None,
    };
    let unsigned_zero = matches!(element, ElementType::F8E4M3FNUZ | ElementType::F8E5M2FNUZ);
    Some(Format { exponent_bits, mantissa_bits, bias, max, nan, infinity, unsigned_zero })
}

/// The rounding of a number between two powers of 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounding {
    /// To the higher power.
    Up,
    /// To the lower power.
    Down,
    /// To the nearest power, ties to the higher one.
    Nearest,
}

/// The largest and the smallest exponent of `F8E8M0`, and its code of `NaN`.
const MAX_POWER: i32 = 127;
const MIN_POWER: i32 = -127;
const NO_POWER: u8 = 0xFF;

/// Returns the number that a code means.
pub(crate) fn decode(element: ElementType, code: u8) -> f64 {
    let Some(format) = format(element) else {
        return match (element, code) {
            (ElementType::F8E8M0, NO_POWER) => f64::NAN,
            (ElementType::F8E8M0, code) => power_of_two(i32::from(code) + MIN_POWER),
            _ => f64::NAN,
        };
    };
    let sign = 1u8 << (format.exponent_bits + format.mantissa_bits);
    let magnitude = code & (sign - 1);
    let special = match element {
        ElementType::F8E4M3FN => magnitude == format.nan,
        ElementType::F8E5M2 => magnitude >= format.infinity,
        _ => format.unsigned_zero && code == format.nan,
    };
    let positive = if special {
        if magnitude == format.infinity && format.infinity != format.nan {
            f64::INFINITY
        } else {
            f64::NAN
        }
    } else {
        let exponent = i32::from(magnitude >> format.mantissa_bits);
        let hidden = if exponent == 0 { 0 } else { 1u8 << format.mantissa_bits };
        let mantissa = magnitude & ((1 << format.mantissa_bits) - 1) | hidden;
        let unit = exponent.max(1) - format.bias - format.mantissa_bits as i32;
        f64::from(mantissa) * power_of_two(unit)
    };
    if code & sign != 0 { -positive } else { positive }
}

/// Returns the code of the nearest number, ties to even. A number beyond the largest one becomes
/// the largest one if `saturate` holds, and infinity or NaN otherwise.
pub(crate) fn encode(element: ElementType, value: f64, saturate: bool) -> u8 {
    let Some(format) = format(element) else {
        return encode_power(value, saturate, Rounding::Nearest);
    };
    let bits = format.exponent_bits + format.mantissa_bits;
    let sign = u8::from(value.is_sign_negative()) << bits;
    if value.is_nan() {
        return format.nan | sign;
    }
    let mantissa_bits = format.mantissa_bits as i32;
    let code = |rounded: f64| {
        let exponent = exponent(rounded).max(1 - format.bias);
        let mantissa = (rounded / power_of_two(exponent - mantissa_bits)) as u8;
        (((exponent + format.bias - 1) as u8) << format.mantissa_bits).saturating_add(mantissa)
    };
    let rounded = round(value.abs(), mantissa_bits, 1 - format.bias);
    let magnitude = match rounded > format.max {
        false => code(rounded),
        true if saturate => code(format.max),
        true => format.infinity,
    };
    if magnitude == 0 && format.unsigned_zero { 0 } else { magnitude | sign }
}

/// Returns the code of a number in `F8E8M0`, which has only the powers of 2. The sign, which the
/// specification leaves open, is ignored. A number out of range becomes the nearest one in range if
/// `saturate` holds, and NaN otherwise.
pub(crate) fn encode_power(value: f64, saturate: bool, rounding: Rounding) -> u8 {
    let magnitude = value.abs();
    if magnitude.is_nan() {
        return NO_POWER;
    }
    let power = if magnitude > power_of_two(MAX_POWER) {
        if saturate { MAX_POWER } else { return NO_POWER }
    } else if magnitude < power_of_two(MIN_POWER) {
        if saturate { MIN_POWER } else { return NO_POWER }
    } else {
        let lower = exponent(magnitude);
        let ratio = magnitude / power_of_two(lower);
        let up = match rounding {
            Rounding::Up => ratio > 1.0,
            Rounding::Down => false,
            Rounding::Nearest => ratio >= 1.5,
        };
        lower + i32::from(up)
    };
    (power - MIN_POWER) as u8
}

/// Returns the nearest number of a float type, ties to even, or infinity. It rounds only once.
pub(crate) fn nearest(element: ElementType, value: f64) -> f64 {
    let (rounded, max) = match element {
        ElementType::F32 => return f64::from(value as f32),
        ElementType::F16 => (round(value, 10, -14), f64::from(half::f16::MAX)),
        ElementType::BF16 => (round(value, 7, -126), f64::from(half::bf16::MAX)),
        narrow if narrow.is_narrow_float() => return decode(narrow, encode(narrow, value, false)),
        _ => return value,
    };
    if rounded.abs() > max { f64::INFINITY.copysign(value) } else { rounded }
}

/// Rounds a number to a precision, ties to even: to multiples of 2 to the power of its exponent,
/// or of a minimum exponent if that is larger, less `mantissa_bits`.
fn round(value: f64, mantissa_bits: i32, min_exponent: i32) -> f64 {
    if !value.is_finite() {
        return value;
    }
    let unit = power_of_two(exponent(value).max(min_exponent) - mantissa_bits);
    (value / unit).round_ties_even() * unit
}

/// Returns the exponent of a number.
fn exponent(value: f64) -> i32 {
    ((value.to_bits() >> 52) & 0x7FF) as i32 - 1023
}

/// Returns 2 to a power within the range of normal numbers.
fn power_of_two(power: i32) -> f64 {
    f64::from_bits(((power.clamp(-1022, 1023) + 1023) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMATS: [(ElementType, u8); 5] = [
        (ElementType::F8E4M3FN, 0xFF),
        (ElementType::F8E4M3FNUZ, 0xFF),
        (ElementType::F8E5M2, 0xFF),
        (ElementType::F8E5M2FNUZ, 0xFF),
        (ElementType::F4E2M1, 0xF),
    ];

    #[test]
    fn every_number_has_its_code() {
        for (element, last) in FORMATS.into_iter().chain([(ElementType::F8E8M0, 0xFF)]) {
            for code in 0..=last {
                let value = decode(element, code);
                let back = encode(element, value, false);
                assert!(back == code || value.is_nan(), "{element} {code:#x} {value} {back:#x}");
                assert!(decode(element, encode(element, f64::NAN, true)).is_nan() || last == 0xF);
            }
        }
    }

    #[test]
    fn rounding_goes_to_the_nearest_code() {
        for (element, last) in FORMATS {
            let mut values: Vec<f64> = (0..=last).map(|code| decode(element, code)).collect();
            values.retain(|value| value.is_finite());
            values.sort_by(f64::total_cmp);
            for pair in values.windows(2).filter(|pair| pair[0] != pair[1]) {
                let middle = (pair[0] + pair[1]) / 2.0;
                let tie = encode(element, middle, true);
                assert_eq!(tie & 1, 0, "{element} {middle}");
                assert_eq!(decode(element, encode(element, middle - 1e-9, true)), pair[0]);
                assert_eq!(decode(element, encode(element, middle + 1e-9, true)), pair[1]);
            }
        }
    }

    #[test]
    fn numbers_out_of_range_depend_on_the_format() {
        use ElementType::*;
        // Half a unit beyond the largest number is a tie.
        assert_eq!(encode(F8E4M3FN, 464.0, false), 0x7E);
        assert_eq!(encode(F8E4M3FN, -464.1, false), 0xFF);
        assert_eq!(encode(F8E5M2, 61439.0, false), 0x7B);
        assert_eq!(encode(F8E5M2, -61440.0, false), 0xFC);
        assert_eq!(encode(F8E5M2, f64::NEG_INFINITY, true), 0xFB);
        assert_eq!(encode(F8E4M3FNUZ, f64::INFINITY, true), 0x7F);
        assert_eq!(encode(F8E4M3FNUZ, -248.0, false), 0x80);
        assert_eq!(encode(F8E5M2FNUZ, -1e-9, true), 0);
        assert_eq!(encode(F4E2M1, -1e9, false), 0xF);
    }

    #[test]
    fn powers_round_in_three_ways() {
        let codes = |value| {
            [Rounding::Up, Rounding::Down, Rounding::Nearest]
                .map(|rounding| encode_power(value, true, rounding))
        };
        assert_eq!(codes(1.25), [128, 127, 127]);
        assert_eq!(codes(1.5), [128, 127, 128]);
        assert_eq!(codes(0.0), [0, 0, 0]);
        assert_eq!(codes(f64::INFINITY), [254, 254, 254]);
        assert_eq!(codes(2f64.powi(-127)), [0, 0, 0]);
        assert_eq!(encode_power(0.0, false, Rounding::Up), NO_POWER);
        assert_eq!(encode_power(2f64.powi(128), false, Rounding::Down), NO_POWER);
    }

    #[test]
    fn precisions_round_once() {
        use ElementType::*;
        // A tie of bfloat16 and of float16, and a little more.
        let more = 2f64.powi(-40);
        assert_eq!(nearest(BF16, 1.0 + 2f64.powi(-8)), 1.0);
        assert_eq!(nearest(BF16, 1.0 + 2f64.powi(-8) + more), 1.0 + 2f64.powi(-7));
        assert_eq!(nearest(F16, 1.0 + 2f64.powi(-11) + more), 1.0 + 2f64.powi(-10));
        assert_eq!(nearest(F16, 65519.9), 65504.0);
        assert_eq!(nearest(F16, -65520.0), f64::NEG_INFINITY);
        assert_eq!(nearest(F16, 2f64.powi(-25)), 0.0);
        assert_eq!(nearest(F16, 1.1 * 2f64.powi(-25)), 2f64.powi(-24));
    }
}
