//! Unary element-wise functions of f32: error bounds, special values, and the same bits for every
//! instruction set.
// Other processors have no fused multiply-add that is worth using.
#![cfg(all(feature = "std", any(target_arch = "x86_64", target_arch = "aarch64")))]

use hardtack_kernels::float::functions;

/// Tests in an emulator take one in this many arguments.
const SHARE: u32 = if cfg!(target_arch = "x86_64") { 1 } else { 30 };

/// A function, compiled for several instruction sets, with its definition and error bound.
struct Function {
    name: &'static str,
    plain: fn(f32) -> f32,
    variants: fn() -> Vec<Variant>,
    exact: fn(f64) -> f64,
    bound: Bound,
}

/// Evaluates a function at each element of a slice.
type Variant = fn(&[f32], &mut [f32]);

#[derive(Clone, Copy)]
enum Bound {
    /// The largest error, in units in the last place of the exact result.
    Ulp(f64),
    /// The largest error relative to the exact result, in units of 2^-24, from an argument up; and
    /// the largest absolute error below it.
    Relative(f64, f32, f64),
}

use Bound::{Relative, Ulp};

macro_rules! function {
    ($name:literal, $function:expr, $exact:expr, $bound:expr) => {{
        #[inline(always)]
        fn map(input: &[f32], output: &mut [f32]) {
            let function = $function;
            output.iter_mut().zip(input).for_each(|(output, &x)| *output = function(x));
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        fn avx2(input: &[f32], output: &mut [f32]) {
            map(input, output);
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "fma,avx512f,avx512bw,avx512vl")]
        fn avx512(input: &[f32], output: &mut [f32]) {
            map(input, output);
        }
        /// Returns the variants that this processor runs, the fastest one last.
        fn variants() -> Vec<Variant> {
            #[allow(unused_mut, reason = "other processors have no variants")]
            let mut variants: Vec<Variant> = vec![map];
            #[cfg(target_arch = "x86_64")]
            {
                if hardtack_kernels::Isa::Avx2.is_supported() {
                    // SAFETY: the processor has these instructions.
                    variants.push(|input, output| unsafe { avx2(input, output) });
                }
                if hardtack_kernels::Isa::Avx512Vnni.is_supported() {
                    // SAFETY: the processor has these instructions.
                    variants.push(|input, output| unsafe { avx512(input, output) });
                }
            }
            variants
        }
        Function { name: $name, plain: $function, variants, exact: $exact, bound: $bound }
    }};
}

#[cfg(unix)]
unsafe extern "C" {
    safe fn erf(x: f64) -> f64;
    safe fn erfc(x: f64) -> f64;
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn cubic(x: f64) -> f64 {
    2.0 * core::f64::consts::FRAC_2_PI.sqrt() * (x + 0.044715 * x * x * x)
}

fn negative_part(x: f64, scale: f64) -> f64 {
    if x < 0.0 { scale * x.exp_m1() } else { x }
}

fn table() -> Vec<Function> {
    vec![
        function!("exp", functions::exp, f64::exp, Ulp(1.02)),
        function!("log", functions::log, f64::ln, Ulp(0.88)),
        function!("tanh", functions::tanh, f64::tanh, Ulp(1.34)),
        function!("sigmoid", functions::sigmoid, logistic, Ulp(2.41)),
        #[cfg(unix)]
        function!("erf", functions::erf, |x| erf(x), Ulp(1.14)),
        function!("sin", functions::sin, f64::sin, Ulp(1.6)),
        function!("cos", functions::cos, f64::cos, Ulp(1.6)),
        function!("softplus", functions::softplus, softplus, Ulp(1.76)),
        function!("silu", functions::silu, |x| x * logistic(x), Ulp(3.4)),
        function!(
            "swish",
            |x| functions::swish(x, 1.5),
            |x| x * logistic(1.5 * x),
            Relative(4.0, -1.0, 1e-7)
        ),
        #[cfg(unix)]
        function!(
            "gelu",
            functions::gelu,
            |x| x / 2.0 * erfc(-x * core::f64::consts::FRAC_1_SQRT_2),
            Ulp(8.0)
        ),
        function!(
            "gelu_tanh",
            functions::gelu_tanh,
            |x| x * logistic(cubic(x)),
            Relative(5.4, -1.0, 1e-7)
        ),
        function!("mish", functions::mish, |x| x * softplus(x).tanh(), Ulp(4.7)),
        function!("elu", |x| functions::elu(x, 1.0), |x| negative_part(x, 1.0), Ulp(0.95)),
        function!(
            "selu",
            |x| functions::selu(x, 1.673_263_2, 1.050_701),
            |x| f64::from(1.050_701f32) * negative_part(x, f64::from(1.673_263_2f32)),
            Ulp(2.2)
        ),
        function!(
            "celu",
            |x| functions::celu(x, 2.0),
            |x| if x < 0.0 { 2.0 * (x / 2.0).exp_m1() } else { x },
            Ulp(1.5)
        ),
        function!(
            "celu, negative alpha",
            |x| functions::celu(x, -1.0),
            |x| if x < 0.0 { -(-x).exp_m1() } else { x },
            Ulp(1.5)
        ),
        function!(
            "hard_sigmoid",
            |x| functions::hard_sigmoid(x, 0.25, 0.5),
            |x| (x / 4.0 + 0.5).clamp(0.0, 1.0),
            Ulp(0.5)
        ),
        function!(
            "hard_swish",
            functions::hard_swish,
            |x| x * ((x + 3.0).clamp(0.0, 6.0) / 6.0),
            Ulp(2.5)
        ),
        function!("softsign", functions::softsign, |x| x / (1.0 + x.abs()), Ulp(1.5)),
        function!("sqrt", functions::sqrt, f64::sqrt, Ulp(0.5)),
        function!("reciprocal", functions::reciprocal, f64::recip, Ulp(0.5)),
        function!("rsqrt", functions::rsqrt, |x| x.sqrt().recip(), Ulp(1.5)),
    ]
}

/// Returns the error of a result, divided by the bound and in the unit of the bound.
fn error(x: f32, result: f32, exact: f64, bound: Bound) -> (f64, f64) {
    if exact.is_nan() || result.is_nan() {
        let wrong = result.to_bits() != f32::NAN.to_bits() || !exact.is_nan();
        return if wrong { (f64::INFINITY, f64::INFINITY) } else { (0.0, 0.0) };
    }
    let limit = |value: f64| value.clamp(-2f64.powi(128), 2f64.powi(128));
    let difference = (limit(result.into()) - limit(exact)).abs();
    let exact = limit(exact).abs();
    let (unit, most) = match bound {
        Ulp(most) => {
            let exponent = (exact.to_bits() >> 52) as i32 - 1023;
            (f64::from_bits(((exponent.clamp(-126, 127) - 23 + 1023) as u64) << 52), most)
        }
        Relative(most, from, _) if x >= from => {
            ((exact / 2f64.powi(24)).max(2f64.powi(-149)), most)
        }
        Relative(_, _, most) => (1.0, most),
    };
    (difference / unit / most, difference / unit)
}

/// The largest error of a function, divided by the bound and in the unit of the bound.
struct Worst {
    share: f64,
    error: f64,
    x: f32,
    result: f32,
}

/// Returns the worst error over arguments whose bits are `start`, `start + step`, …
fn worst(function: &Function, bits: std::ops::Range<u64>, step: usize) -> Worst {
    let variants = (function.variants)();
    let fastest = variants.last().expect("the portable variant");
    let mut worst = Worst { share: 0.0, error: 0.0, x: 0.0, result: 0.0 };
    let (mut input, mut output) = (Vec::new(), Vec::new());
    let mut bits = bits.step_by(step).peekable();
    while bits.peek().is_some() {
        input.clear();
        input.extend(bits.by_ref().take(4096).map(|bits| f32::from_bits(bits as u32)));
        output.resize(input.len(), 0.0);
        fastest(&input, &mut output);
        for (&x, &result) in input.iter().zip(&output) {
            // The limits at infinity are among the special values.
            if x.is_infinite() {
                continue;
            }
            let (share, error) = error(x, result, (function.exact)(x.into()), function.bound);
            if share > worst.share {
                worst = Worst { share, error, x, result };
            }
        }
    }
    worst
}

fn check(step: usize) {
    let failed = table().into_iter().filter(|function| {
        let worst = worst(function, 0..1 << 32, step);
        let Worst { share, error, x, result } = worst;
        println!("{}: {error:.4} ({share:.3} of the bound) at {x:e}: {result:e}", function.name);
        share > 1.0
    });
    let failed: Vec<_> = failed.map(|function| function.name).collect();
    assert!(failed.is_empty(), "errors above the bound: {failed:?}");
}

#[test]
fn errors_are_within_the_bounds() {
    check(4099 * SHARE as usize);
}

/// Checks every argument:
/// `cargo test --release -p hardtack-kernels --features std --test functions -- --ignored`
/// (`--nocapture` prints the errors).
#[test]
#[ignore = "takes about 15 minutes"]
fn errors_of_all_arguments_are_within_the_bounds() {
    check(1);
}

/// Every variant gives the bits of the plain function at many arguments, and for lengths that are
/// not a multiple of a vector.
#[test]
fn every_instruction_set_gives_the_same_bits() {
    let special = SPECIAL.iter().copied().cycle().take(1000);
    // A step that is odd visits every exponent, and all low bits.
    let others =
        (0..1_000_007 / SHARE).map(|index| f32::from_bits(index.wrapping_mul(0x9E37_79B1)));
    let input: Vec<f32> = special.chain(others).collect();
    let mut output = vec![0.0; input.len()];
    for function in table() {
        let expected: Vec<u32> = input.iter().map(|&x| (function.plain)(x).to_bits()).collect();
        for variant in (function.variants)() {
            output.fill(f32::NAN);
            variant(&input, &mut output);
            for ((x, result), expected) in input.iter().zip(&output).zip(&expected) {
                assert_eq!(result.to_bits(), *expected, "{} at {x:e}", function.name);
            }
            for length in 0..40 {
                output.fill(7.0);
                variant(&input[..length], &mut output);
                let bits = output[..length].iter().map(|result| result.to_bits());
                assert!(bits.eq(expected[..length].iter().copied()), "{}", function.name);
                assert_eq!(output[length], 7.0);
            }
        }
    }
}

const INF: f32 = f32::INFINITY;
const MIN_SUBNORMAL: f32 = f32::from_bits(1);

const SPECIAL: &[f32] = &[
    0.0,
    -0.0,
    MIN_SUBNORMAL,
    -MIN_SUBNORMAL,
    f32::MIN_POSITIVE,
    -f32::MIN_POSITIVE,
    1.0,
    -1.0,
    f32::MAX,
    f32::MIN,
    INF,
    -INF,
    f32::NAN,
    f32::from_bits(0x7F80_0001),
    f32::from_bits(0xFFFF_FFFF),
];

/// Results at −∞, the smallest f32, −0, 0, the largest f32 and ∞, bit for bit.
#[test]
fn special_values_are_exact() {
    const NAN: f32 = f32::NAN;
    const MAX: f32 = f32::MAX;
    const MIN: f32 = f32::MIN;
    const LN_2: f32 = core::f32::consts::LN_2;
    type Case = (&'static str, fn(f32) -> f32, [f32; 6]);
    let elu = |x| functions::elu(x, 2.0);
    let selu = |x| functions::selu(x, 2.0, 1.5);
    let celu = |x| functions::celu(x, 0.5);
    let swish = |x| functions::swish(x, 0.001);
    let mirrored = |x| functions::swish(x, -1.0);
    let hard_sigmoid = |x| functions::hard_sigmoid(x, 0.2, 0.5);
    let cases: &[Case] = &[
        ("exp", functions::exp, [0.0, 0.0, 1.0, 1.0, INF, INF]),
        ("log", functions::log, [NAN, NAN, -INF, -INF, 88.722_84, INF]),
        ("tanh", functions::tanh, [-1.0, -1.0, -0.0, 0.0, 1.0, 1.0]),
        ("sigmoid", functions::sigmoid, [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]),
        ("erf", functions::erf, [-1.0, -1.0, -0.0, 0.0, 1.0, 1.0]),
        ("sin", functions::sin, [NAN, 0.521_876_5, -0.0, 0.0, -0.521_876_5, NAN]),
        ("cos", functions::cos, [NAN, 0.853_021, 1.0, 1.0, 0.853_021, NAN]),
        ("softplus", functions::softplus, [0.0, 0.0, LN_2, LN_2, MAX, INF]),
        ("silu", functions::silu, [-0.0, -0.0, -0.0, 0.0, MAX, INF]),
        ("swish", swish, [-0.0, -0.0, -0.0, 0.0, MAX, INF]),
        ("swish, negative alpha", mirrored, [-INF, MIN, -0.0, 0.0, 0.0, 0.0]),
        ("gelu", functions::gelu, [-0.0, -0.0, -0.0, 0.0, MAX, INF]),
        ("gelu_tanh", functions::gelu_tanh, [-0.0, -0.0, -0.0, 0.0, MAX, INF]),
        ("mish", functions::mish, [-0.0, -0.0, -0.0, 0.0, MAX, INF]),
        ("elu", elu, [-2.0, -2.0, -0.0, 0.0, MAX, INF]),
        ("selu", selu, [-3.0, -3.0, -0.0, 0.0, INF, INF]),
        ("celu", celu, [-0.5, -0.5, -0.0, 0.0, MAX, INF]),
        ("hard_sigmoid", hard_sigmoid, [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]),
        ("hard_swish", functions::hard_swish, [-0.0, -0.0, -0.0, 0.0, MAX, INF]),
        ("softsign", functions::softsign, [-1.0, -1.0, -0.0, 0.0, 1.0, 1.0]),
        ("sqrt", functions::sqrt, [NAN, NAN, -0.0, 0.0, 1.844_674_3e19, INF]),
        ("reciprocal", functions::reciprocal, [-0.0, 1.0 / MIN, -INF, INF, 1.0 / MAX, 0.0]),
        ("rsqrt", functions::rsqrt, [NAN, NAN, -INF, INF, 5.421_011_5e-20, 0.0]),
    ];
    for (name, function, expected) in cases {
        for (x, expected) in [-INF, MIN, -0.0, 0.0, MAX, INF].into_iter().zip(expected) {
            let result = function(x);
            assert_eq!(result.to_bits(), expected.to_bits(), "{name}({x:e}) is {result:e}");
        }
        // NaN with a sign and a payload, and a signaling NaN.
        for bits in [0xFFC0_1234, 0x7F80_0001] {
            assert_eq!(function(f32::from_bits(bits)).to_bits(), NAN.to_bits(), "{name}");
        }
    }
}
