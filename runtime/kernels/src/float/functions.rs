//! Unary element-wise functions of f32.
//!
//! Errors are in ulp: units in the last place of the exact result. `tests/functions.rs` checks them
//! for a sample of the arguments, and an ignored test there for all. Each NaN gives [`f32::NAN`].
//! Where a product such as `x · sigmoid(x)` is ∞ · 0, the result is its limit.

mod angle;

use core::f32::consts::LOG2_E;

/// Returns `a · b + c`, rounded once.
#[inline(always)]
pub fn fma(a: f32, b: f32, c: f32) -> f32 {
    a.mul_add(b, c)
}

/// Returns `result`, and [`f32::NAN`] for every NaN.
#[inline(always)]
pub fn canonical(result: f32) -> f32 {
    // Integers: the compiler removes a comparison of floats that only replaces a NaN by another.
    // Signed ones, which AVX2 compares in one instruction.
    let bits = result.to_bits() as i32;
    let is_nan = (bits & i32::MAX) > f32::INFINITY.to_bits() as i32;
    f32::from_bits(if is_nan { f32::NAN.to_bits() } else { bits as u32 })
}

/// Returns `x` limited to `low..=high`; NaN stays NaN.
#[inline(always)]
fn clamp(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// The polynomial with these coefficients, the one of the highest power first, by Horner's scheme.
/// Not a loop, which would keep the compiler from vectorizing the loop around it.
macro_rules! polynomial {
    ($x:expr, [$first:expr, $($next:expr),+ $(,)?]) => {{
        let (x, sum) = ($x, $first);
        $(let sum = fma(sum, x, $next);)+
        sum
    }};
}

/// Returns 2^n for `n` from -126 to 127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) << 23) as u32)
}

/// Below this argument, `x · exp(x)` and `exp(x)` round to 0.
const LOWEST_EXPONENT: f32 = -112.0;

/// Returns `(p, n)` with `exp(x) = (1 + p) · 2^n`. Arguments outside −112..=89 are limited to it.
#[inline(always)]
fn exp_reduced(x: f32) -> (f32, i32) {
    /// Adding it to a number below 2^22 rounds that number to an integer, in the last bits.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 as a sum. The first number has 9 bits, so that its multiples below 2^15 are exact.
    const LN_2: [f32; 2] = [355.0 / 512.0, -0.000_212_194_44];
    let x = clamp(x, LOWEST_EXPONENT, 89.0);
    let rounded = fma(x, LOG2_E, ROUND);
    let n = rounded - ROUND;
    let r = fma(n, -LN_2[1], fma(n, -LN_2[0], x));
    // (e^r − 1 − r) / r².
    let rest = polynomial!(
        r,
        [0.001_383_890_2, 0.008_369_192_5, 0.041_668_102, 0.166_665_17, 0.499_999_94]
    );
    let p = fma(r * r, rest, r);
    (p, (rounded.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32))
}

/// Returns two factors of `exp(x)`. Their product overflows and underflows as it should, and a
/// product with another number in between does not lose bits of a subnormal.
#[inline(always)]
fn exp_factors(x: f32) -> (f32, f32) {
    let (p, n) = exp_reduced(x);
    let half = n >> 1;
    let scale = power_of_two(half);
    (fma(p, scale, scale), power_of_two(n.wrapping_sub(half)))
}

/// Returns `exp(x) − 1`, and NaN with any payload for NaN.
#[inline(always)]
fn exp_minus_one(x: f32) -> f32 {
    // For less than -17.4, the result is -1.
    let (p, n) = exp_reduced(if x < -18.0 { -18.0 } else { x });
    // 2^128 is not an f32.
    let most = if n > 127 { 127 } else { n };
    let scale = power_of_two(most);
    fma(p, scale, scale - 1.0) * power_of_two(n.wrapping_sub(most))
}

/// Returns `log(1 + f) + exponent · ln 2` for `f` in [√½ − 1, √2 − 1].
#[inline(always)]
fn log_expanded(f: f32, exponent: f32) -> f32 {
    const LN_2: [f32; 2] = [core::f32::consts::LN_2, -1.904_654_2e-9];
    // (log(1 + f) − f) / f².
    let rest = polynomial!(
        f,
        [
            -0.076_413_48,
            0.127_658_34,
            -0.131_595_5,
            0.142_010_63,
            -0.166_233_44,
            0.200_012_6,
            -0.250_008_23,
            0.333_333_3,
            -0.5
        ]
    );
    let rest = fma(f * f, rest, exponent * LN_2[1]);
    fma(exponent, LN_2[0], f + rest)
}

/// Returns `log(1 + u)` for `u` in [0, 1].
#[inline(always)]
fn log_plus_one(u: f32) -> f32 {
    let halve = u > core::f32::consts::SQRT_2 - 1.0;
    let f = if halve { fma(u, 0.5, -0.5) } else { u };
    log_expanded(f, if halve { 1.0 } else { 0.0 })
}

/// Returns e^x. Error: at most 1.02 ulp.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let (a, b) = exp_factors(x);
    canonical(a * b)
}

/// Returns the natural logarithm: −∞ for 0, NaN for negative numbers. Error: at most 0.88 ulp.
#[inline(always)]
pub fn log(x: f32) -> f32 {
    /// The bits of √½, where the significand starts.
    const START: i32 = 0x3F35_04F3;
    let subnormal = x < f32::MIN_POSITIVE;
    let scaled = if subnormal { x * 8_388_608.0 } else { x };
    let offset = (scaled.to_bits() as i32).wrapping_sub(START);
    let significand = f32::from_bits(((offset & 0x7F_FFFF) + START) as u32);
    let exponent = (offset >> 23) as f32 - if subnormal { 23.0 } else { 0.0 };
    let result = log_expanded(significand - 1.0, exponent);
    let result = if x == f32::INFINITY { x } else { result };
    let result = if x == 0.0 { f32::NEG_INFINITY } else { result };
    if x >= 0.0 { result } else { f32::NAN }
}

/// Returns the hyperbolic tangent. Error: at most 1.34 ulp.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    const MIDDLE: f32 = 0.625;
    /// From here on, the result is 1.
    const END: f32 = 10.0;
    let y = clamp(x.abs(), 0.0, END);
    let square = y * y;
    // (tanh(y) − y) / y³ for y below MIDDLE.
    let near = polynomial!(
        square,
        [-0.005_692_301_3, 0.020_628_17, -0.053_736_515, 0.133_314_06, -0.333_332_8]
    );
    let near = fma(near * square, y, y);
    let (p, n) = exp_reduced(y + y);
    let scale = power_of_two(n);
    let far = 1.0 - 2.0 / (fma(p, scale, scale) + 1.0);
    canonical(if y < MIDDLE { near } else { far }.copysign(x))
}

/// Returns the logistic function, 1 / (1 + e^−x). Error: at most 2.41 ulp.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    let (a, b) = exp_factors(-x.abs());
    let e = a * b;
    canonical(if x < 0.0 { e } else { 1.0 } / (1.0 + e))
}

/// Returns the error function, 2/√π · ∫ e^−t² dt from 0 to `x`. Error: at most 1.14 ulp.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    const MIDDLE: f32 = 0.875;
    /// From here on, the result is 1.
    const END: f32 = 3.95;
    let z = clamp(x.abs(), 0.0, END);
    // (erf(z) − z) / z for z below MIDDLE.
    let near = polynomial!(
        z * z,
        [
            -0.000_602_041_95,
            0.004_998_920_5,
            -0.026_770_484,
            0.112_819_22,
            -0.376_125_04,
            0.128_379_15
        ]
    );
    let near = fma(near, z, z);
    // log(1 − erf(z)) for z from MIDDLE to END.
    let far = polynomial!(
        z,
        [
            0.000_201_000_2,
            -0.003_092_324_1,
            0.022_420_311,
            -0.104_327_63,
            -0.636_737_17,
            -1.127_936_1,
            -0.000_133_583_06
        ]
    );
    let (p, n) = exp_reduced(far);
    let scale = power_of_two(n);
    let far = 1.0 - fma(p, scale, scale);
    canonical(if z < MIDDLE { near } else { far }.copysign(x))
}

/// Returns (sin r, cos r) for |r| ≤ π/4.
#[inline(always)]
fn sin_cos_reduced(r: f32) -> (f32, f32) {
    let square = r * r;
    // (sin(r) − r) / r³ and (cos(r) − 1) / r².
    let sin = polynomial!(square, [-0.000_195_186_05, 0.008_332_191, -0.166_666_55]);
    let cos = polynomial!(square, [2.443_232_7e-5, -0.001_388_731, 0.041_666_646, -0.5]);
    (fma(sin * square, r, r), fma(cos, square, 1.0))
}

/// Returns the sine of an angle in radians; NaN for infinities. Error: at most 1.6 ulp.
#[inline(always)]
pub fn sin(x: f32) -> f32 {
    let (quarters, rest) = angle::reduce(x.abs());
    let (sin, cos) = sin_cos_reduced(rest);
    let result = if quarters & 1 == 0 { sin } else { cos };
    let sign = (quarters << 30 ^ x.to_bits()) & 0x8000_0000;
    let result = f32::from_bits(result.to_bits() ^ sign);
    if x.abs() < f32::INFINITY { result } else { f32::NAN }
}

/// Returns the cosine of an angle in radians; NaN for infinities. Error: at most 1.6 ulp.
#[inline(always)]
pub fn cos(x: f32) -> f32 {
    let (quarters, rest) = angle::reduce(x.abs());
    let (sin, cos) = sin_cos_reduced(rest);
    let result = if quarters & 1 == 0 { cos } else { sin };
    let sign = (quarters.wrapping_add(1) << 30) & 0x8000_0000;
    let result = f32::from_bits(result.to_bits() ^ sign);
    if x.abs() < f32::INFINITY { result } else { f32::NAN }
}

/// Returns log(1 + e^x). Error: at most 1.76 ulp.
#[inline(always)]
pub fn softplus(x: f32) -> f32 {
    let (a, b) = exp_factors(-x.abs());
    canonical(if x > 0.0 { x } else { 0.0 } + log_plus_one(a * b))
}

/// Returns `x · sigmoid(gate)`, and its limit 0 where `gate` is −∞.
#[inline(always)]
fn gated(x: f32, gate: f32) -> f32 {
    let (a, b) = exp_factors(-gate.abs());
    let negative = gate < 0.0;
    let (numerator, scale) = if negative { (a, b) } else { (1.0, 1.0) };
    let result = x * numerator / (1.0 + a * b) * scale;
    canonical(if gate < LOWEST_EXPONENT { 0.0f32.copysign(x) } else { result })
}

/// Returns `x · sigmoid(alpha · x)`. For an `alpha` of 1 it is SiLU, for 1.702 the approximation
/// "quick GELU". The error is that of [`silu`] and up to |alpha · x| ulp, because `alpha · x` is
/// rounded.
#[inline(always)]
pub fn swish(x: f32, alpha: f32) -> f32 {
    gated(x, alpha * x)
}

/// Returns `x · sigmoid(x)`, and −0 for −∞. Error: at most 3.4 ulp.
#[inline(always)]
pub fn silu(x: f32) -> f32 {
    gated(x, x)
}

/// Returns `x · Φ(x) = x/2 · (1 + erf(x/√2))`, and −0 for −∞. Error: at most 8 ulp, and 4.4 ulp for
/// positive numbers.
#[inline(always)]
pub fn gelu(x: f32) -> f32 {
    /// From here on, y · Φ(−y) rounds to 0.
    const END: f32 = 14.5;
    let y = clamp(x.abs(), 0.0, END);
    let square = y * y;
    let (a, b) = exp_factors(-0.5 * square);
    // Rounding y² changes the result by the factor e^(−error/2), which is 1 − error/2.
    let correction = fma(-0.5, fma(y, y, -square), 1.0);
    // e^(y²/2) · Φ(−y) for y from 0 to END.
    let tail = polynomial!(
        (3.5 - y) / (3.5 + y),
        [
            -2.503_585_2e-5,
            5.671_368e-5,
            0.000_138_305_23,
            -0.000_394_859_18,
            -0.001_383_55,
            0.001_563_027_7,
            0.019_066_101,
            0.061_639_23,
            0.125_855_2,
            0.187_139_7,
            0.106_345_154
        ]
    );
    let tail = y * tail * correction * a;
    canonical(fma(-tail, b, if x < 0.0 { -0.0 } else { x }))
}

/// Returns `x/2 · (1 + tanh(√(2/π) · (x + 0.044715 · x³)))`, and −0 for −∞. Error: at most
/// 5.4 · 2^−24 of the result for numbers above −1, and 10^−7 below.
#[inline(always)]
pub fn gelu_tanh(x: f32) -> f32 {
    // x/2 · (1 + tanh(u)) is x · sigmoid(2u).
    gated(x, fma(x * x, 0.071_354_814, 1.595_769) * x)
}

/// Returns `x · tanh(softplus(x))`, and −0 for −∞. Error: at most 4.7 ulp.
#[inline(always)]
pub fn mish(x: f32) -> f32 {
    // For more than 20, the result is x.
    let (a, b) = exp_factors(if x > 20.0 { 20.0 } else { x });
    let e = a * b;
    // tanh(log(1 + e)) is e (e + 2) / (e (e + 2) + 2).
    let result = x * (a * (e + 2.0) / fma(e, e + 2.0, 2.0)) * b;
    canonical(if x < LOWEST_EXPONENT { -0.0 } else { result })
}

/// Returns `x`, or `alpha · (e^x − 1)` if it is negative. Error: at most 0.95 ulp for an `alpha` of
/// 1.
#[inline(always)]
pub fn elu(x: f32, alpha: f32) -> f32 {
    canonical(if x < 0.0 { alpha * exp_minus_one(x) } else { x })
}

/// Returns `gamma · x`, or `gamma · alpha · (e^x − 1)` if `x` is negative. Error: at most 2.2 ulp
/// for the default `alpha` and `gamma` of ONNX.
#[inline(always)]
pub fn selu(x: f32, alpha: f32, gamma: f32) -> f32 {
    canonical(gamma * if x < 0.0 { alpha * exp_minus_one(x) } else { x })
}

/// Returns `max(0, x) + min(0, alpha · (e^(x/alpha) − 1))`. Error: at most 1.5 ulp for an
/// `alpha` of a power of two.
#[inline(always)]
pub fn celu(x: f32, alpha: f32) -> f32 {
    // The second term is 0 for every `alpha` if `x` is not negative.
    canonical(if x < 0.0 { alpha * exp_minus_one(x / alpha) } else { x })
}

/// Returns `alpha · x + beta`, rounded once and limited to 0..=1.
#[inline(always)]
pub fn hard_sigmoid(x: f32, alpha: f32, beta: f32) -> f32 {
    canonical(clamp(fma(alpha, x, beta), 0.0, 1.0))
}

/// Returns `x · min(max(x + 3, 0), 6) / 6`, and −0 for −∞. Error: at most 2.5 ulp.
#[inline(always)]
pub fn hard_swish(x: f32) -> f32 {
    let bounded = if x < -3.0 { -3.0 } else { x };
    canonical(bounded * (clamp(bounded + 3.0, 0.0, 6.0) * (1.0 / 6.0)))
}

/// Returns `x / (1 + |x|)`, and ±1 for ±∞. Error: at most 1.5 ulp.
#[inline(always)]
pub fn softsign(x: f32) -> f32 {
    let finite = clamp(x, f32::MIN, f32::MAX);
    canonical(finite / (1.0 + finite.abs()))
}

/// Returns the square root, correctly rounded; NaN for negative numbers.
#[inline(always)]
pub fn sqrt(x: f32) -> f32 {
    canonical(x.sqrt())
}

/// Returns `1 / x`, correctly rounded.
#[inline(always)]
pub fn reciprocal(x: f32) -> f32 {
    canonical(1.0 / x)
}

/// Returns `1 / √x`, with both operations correctly rounded; NaN for negative numbers. Error: at
/// most 1.5 ulp.
#[inline(always)]
pub fn rsqrt(x: f32) -> f32 {
    canonical(1.0 / x.sqrt())
}
