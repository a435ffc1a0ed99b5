//! Element-wise operations.

use crate::{Add, Multiply, Requantize};

/// Runs an [`Add`].
pub fn add(add: &Add<'_>, output: &mut [i8]) {
    let requantize = Requantize::new(add.zero_point, add.clamp);
    let (zero_a, zero_b) = (i32::from(add.zero_point_a), i32::from(add.zero_point_b));
    pairs(add.a, add.b, output, |a, b| {
        let a = (a - zero_a) as f32 * add.scale_a;
        let b = (b - zero_b) as f32 * add.scale_b;
        requantize.apply(a + b)
    });
}

/// Runs a [`Multiply`].
pub fn multiply(multiply: &Multiply<'_>, output: &mut [i8]) {
    let requantize = Requantize::new(multiply.zero_point, multiply.clamp);
    let (zero_a, zero_b) = (i32::from(multiply.zero_point_a), i32::from(multiply.zero_point_b));
    pairs(multiply.a, multiply.b, output, |a, b| {
        requantize.apply(((a - zero_a) * (b - zero_b)) as f32 * multiply.scale)
    });
}

#[inline(always)]
fn pairs(a: &[i8], b: &[i8], output: &mut [i8], function: impl Fn(i32, i32) -> i8) {
    let period = b.len().max(1);
    for (output, a) in output.chunks_mut(period).zip(a.chunks(period)) {
        for ((output, &a), &b) in output.iter_mut().zip(a).zip(b) {
            *output = function(i32::from(a), i32::from(b));
        }
    }
}

/// Computes `output[i] = table[input[i] + 128]`.
pub fn lookup(table: &[i8; 256], input: &[i8], output: &mut [i8]) {
    for (output, &input) in output.iter_mut().zip(input) {
        *output = table[usize::from(input as u8 ^ 0x80)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Clamp;

    #[test]
    fn add_matches_float_arithmetic() {
        let case = Add {
            a: &[10, -128, 127, 0],
            b: &[1, 2],
            zero_point_a: 10,
            zero_point_b: 0,
            scale_a: 0.5,
            scale_b: -2.0,
            zero_point: 3,
            clamp: Clamp { low: -50, high: 60 },
        };
        let mut output = [0; 4];
        add(&case, &mut output);
        // 0 − 2 + 3; −69 − 4 + 3; 58.5 − 2 rounds to 56, + 3; −5 − 4 + 3.
        assert_eq!(output, [1, -50, 59, -6]);
    }

    #[test]
    fn multiply_matches_float_arithmetic() {
        let case = Multiply {
            a: &[-128, 127, 3, 4],
            b: &[127],
            zero_point_a: 127,
            zero_point_b: -128,
            scale: 0.001,
            zero_point: 0,
            clamp: Clamp::FULL,
        };
        let mut output = [0; 4];
        multiply(&case, &mut output);
        // 255 · 255 saturates; (3 − 127) · 255 · 0.001 = −31.62; −31.365.
        assert_eq!(output, [-65, 0, -32, -31]);
    }

    #[test]
    fn lookup_indexes_the_whole_table() {
        let table = core::array::from_fn(|i| (i as u8) as i8);
        let mut output = [0; 3];
        lookup(&table, &[-128, 0, 127], &mut output);
        assert_eq!(output, [0, -128, -1]);
    }
}
