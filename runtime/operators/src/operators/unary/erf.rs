//! The error function.

use std::f64::consts::{FRAC_2_SQRT_PI, PI};

/// Where the series is left for the continued fraction.
const MIDDLE: f64 = 2.0;

/// 2 / (2n + 1) for n from 1 on, as far as the series needs them.
const FACTORS: [f64; 48] = {
    let mut factors = [0.0; 48];
    let mut n = 0;
    while n < factors.len() {
        factors[n] = 2.0 / (2 * n + 3) as f64;
        n += 1;
    }
    factors
};

/// Returns the error function.
pub(in crate::operators) fn erf(x: f64) -> f64 {
    let size = x.abs();
    if size < MIDDLE || x.is_nan() { series(x) } else { (1.0 - tail(size)).copysign(x) }
}

/// Returns the complement of the error function, 1 - erf(x), also where that is small. The relative
/// error is below 1e-13.
pub(in crate::operators) fn erfc(x: f64) -> f64 {
    if x >= MIDDLE {
        tail(x)
    } else if x <= -MIDDLE {
        2.0 - tail(-x)
    } else {
        1.0 - series(x)
    }
}

/// Sums erf(x) = 2/√π · exp(-x²) · Σ 2ⁿ x²ⁿ⁺¹ / (1·3·…·(2n+1)), whose terms have one sign.
fn series(x: f64) -> f64 {
    let square = x * x;
    let (mut term, mut sum) = (x, x);
    for factor in FACTORS {
        term *= square * factor;
        sum += term;
        if term.abs() <= sum.abs() * 1e-17 {
            break;
        }
    }
    FRAC_2_SQRT_PI * (-square).exp() * sum
}

/// Returns erfc(x) of a positive x by the continued fraction
/// exp(-x²) / √π / (x + (1/2)/(x + (2/2)/(x + (3/2)/(x + …)))).
fn tail(x: f64) -> f64 {
    if x > 28.0 {
        return 0.0;
    }
    let levels = (180.0 / (x * x)) as u32 + 8;
    let fraction = (1..=levels).rev().fold(x, |below, n| x + 0.5 * f64::from(n) / below);
    // The rounding error of the square matters after the exponential.
    let square = x * x;
    let error = x.mul_add(x, -square);
    (-square).exp() * (1.0 - error) / (PI.sqrt() * fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::excessive_precision, reason = "the digits are those of the reference")]
    fn error_function_is_accurate() {
        let close = |a: f64, b: f64| (a - b).abs() <= 4e-15 * b.abs();
        for (x, expected) in [
            (1e-300, 1.128_379_167_095_512_6e-300),
            (0.5, 0.520_499_877_813_046_5),
            (0.999, 0.842_285_270_206_496_9),
            (1.0, 0.842_700_792_949_714_9),
            (-2.0, -0.995_322_265_018_952_7),
            (f64::INFINITY, 1.0),
        ] {
            assert!(close(erf(x), expected), "erf({x}) = {}", erf(x));
        }
        for (x, expected) in [
            (-1.5, 1.966_105_146_475_310_8),
            (0.3, 0.671_373_240_540_872_6),
            (1.0, 0.157_299_207_050_285_13),
            (1.5, 0.033_894_853_524_689_27),
            (3.0, 2.209_049_699_858_543_8e-5),
            (10.0, 2.088_487_583_762_545e-45),
            (26.0, 5.663_192_408_856_143e-296),
            (f64::INFINITY, 0.0),
            (f64::NEG_INFINITY, 2.0),
        ] {
            assert!(close(erfc(x), expected), "erfc({x}) = {}", erfc(x));
        }
        assert!(erf(f64::NAN).is_nan() && erfc(f64::NAN).is_nan());
    }
}
