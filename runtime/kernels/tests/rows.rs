//! Operations over rows and columns of f32: the bits of a literal implementation of the documented
//! order, for every instruction set, and closeness to f64.
// Other processors have no fused multiply-add that is worth using.
#![cfg(all(feature = "std", any(target_arch = "x86_64", target_arch = "aarch64")))]

use hardtack_kernels::float::rows::Normalization;
use hardtack_kernels::float::{columns, functions, rows};
use proptest::prelude::*;

/// A block of rows. Operations over rows take all of it as one row.
#[derive(Clone, Debug)]
struct Block {
    a: Vec<f32>,
    b: Vec<f32>,
    columns: usize,
    scale: Option<Vec<f32>>,
    bias: Option<Vec<f32>>,
}

const EPSILON: f32 = 1e-3;

impl Block {
    fn normalization(&self) -> Normalization<'_> {
        Normalization { epsilon: EPSILON, scale: self.scale.as_deref(), bias: self.bias.as_deref() }
    }

    /// Returns the columns of `a` and `b`, as blocks of one column.
    fn split(&self) -> Vec<Self> {
        let column = |values: &[f32], column| -> Vec<f32> {
            values.iter().copied().skip(column).step_by(self.columns).collect()
        };
        let block = |index| Self {
            a: column(&self.a, index),
            b: column(&self.b, index),
            columns: 1,
            ..self.clone()
        };
        (0..self.columns).map(block).collect()
    }
}

/// An operation with its results: a block of the shape of the input, or one number.
struct Operation {
    name: &'static str,
    /// The operation over rows and the one over columns, compiled for each instruction set.
    rows: Vec<fn(&Block, &mut [f32])>,
    columns: Vec<fn(&Block, &mut [f32])>,
    /// The operation in the documented order, whose reduction is the argument.
    literal: fn(&Block, Order) -> Vec<f32>,
    exact: fn(&Block) -> Vec<f64>,
}

/// Reduces the pairs of elements of two rows.
type Order = fn(
    a: &[f32],
    b: &[f32],
    neutral: f32,
    update: &dyn Fn(f32, f32, f32) -> f32,
    combine: fn(f32, f32) -> f32,
) -> f32;

/// The order of `rows`.
fn sixteen(
    a: &[f32],
    b: &[f32],
    neutral: f32,
    update: &dyn Fn(f32, f32, f32) -> f32,
    combine: fn(f32, f32) -> f32,
) -> f32 {
    let mut p = [neutral; 16];
    for (index, (&a, &b)) in a.iter().zip(b).enumerate() {
        p[index % 16] = update(p[index % 16], a, b);
    }
    let eight: [f32; 8] = std::array::from_fn(|i| combine(p[i], p[i + 8]));
    let four: [f32; 4] = std::array::from_fn(|i| combine(eight[i], eight[i + 4]));
    combine(combine(four[0], four[2]), combine(four[1], four[3]))
}

/// The order of `columns`.
fn ascending(
    a: &[f32],
    b: &[f32],
    neutral: f32,
    update: &dyn Fn(f32, f32, f32) -> f32,
    _: fn(f32, f32) -> f32,
) -> f32 {
    a.iter().zip(b).fold(neutral, |state, (&a, &b)| update(state, a, b))
}

fn add(a: f32, b: f32) -> f32 {
    a + b
}

fn larger(a: f32, b: f32) -> f32 {
    if b > a || b.is_nan() { b } else { a }
}

fn smaller(a: f32, b: f32) -> f32 {
    if b < a || b.is_nan() { b } else { a }
}

fn sum(row: &[f32], order: Order) -> f32 {
    order(row, row, 0.0, &|sum, x, _| sum + x, add)
}

fn dot(a: &[f32], b: &[f32], order: Order) -> f32 {
    order(a, b, 0.0, &|sum, a, b| a.mul_add(b, sum), add)
}

fn max(row: &[f32], order: Order) -> f32 {
    order(row, row, f32::NEG_INFINITY, &|most, x, _| larger(most, x), larger)
}

fn normalize(block: &Block, mean: f32, square: f32) -> Vec<f32> {
    let factor = 1.0 / (square + EPSILON).sqrt();
    let normal = block.a.iter().map(|x| (x - mean) * factor);
    let terms = |index: usize| {
        let at = |values: &Option<Vec<f32>>| values.as_ref().map(|values| values[index]);
        (at(&block.scale), at(&block.bias))
    };
    let scaled = normal.enumerate().map(|(index, x)| match terms(index) {
        (None, None) => x,
        (Some(scale), None) => x * scale,
        (None, Some(bias)) => x + bias,
        (Some(scale), Some(bias)) => x.mul_add(scale, bias),
    });
    scaled.collect()
}

fn layer(block: &Block, order: Order) -> Vec<f32> {
    let length = block.a.len() as f32;
    let mean = sum(&block.a, order) / length;
    let square = |sum: f32, x: f32, _| (x - mean).mul_add(x - mean, sum);
    normalize(block, mean, order(&block.a, &block.a, 0.0, &square, add) / length)
}

fn softmax(block: &Block, order: Order) -> Vec<f32> {
    let most = max(&block.a, order);
    let e: Vec<f32> = block.a.iter().map(|x| functions::exp(x - most)).collect();
    let factor = 1.0 / sum(&e, order);
    e.iter().map(|e| e * factor).collect()
}

fn log_softmax(block: &Block, order: Order) -> Vec<f32> {
    let most = max(&block.a, order);
    let sum = order(&block.a, &block.a, 0.0, &|sum, x, _| sum + functions::exp(x - most), add);
    block.a.iter().map(|x| x - most - functions::log(sum)).collect()
}

fn exact(block: &Block) -> impl Iterator<Item = f64> + Clone + '_ {
    block.a.iter().map(|&x| f64::from(x))
}

fn exact_mean(values: impl Iterator<Item = f64>, block: &Block) -> f64 {
    values.sum::<f64>() / block.a.len() as f64
}

fn exact_softmax(block: &Block) -> Vec<f64> {
    let most = exact(block).fold(f64::MIN, f64::max);
    let sum: f64 = exact(block).map(|x| (x - most).exp()).sum();
    exact(block).map(|x| (x - most).exp() / sum).collect()
}

fn exact_normalize(block: &Block, mean: f64) -> Vec<f64> {
    let square = exact_mean(exact(block).map(|x| (x - mean).powi(2)), block);
    let at = |values: &Option<Vec<f32>>, index: usize| values.as_ref().map(|v| f64::from(v[index]));
    let scaled = exact(block).enumerate().map(|(index, x)| {
        let normal = (x - mean) / (square + f64::from(EPSILON)).sqrt();
        let scale = at(&block.scale, index).unwrap_or(1.0);
        normal * scale + at(&block.bias, index).unwrap_or(0.0)
    });
    scaled.collect()
}

macro_rules! variants {
    ($function:expr) => {{
        #[inline(always)]
        fn plain(block: &Block, output: &mut [f32]) {
            $function(block, output);
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        fn avx2(block: &Block, output: &mut [f32]) {
            plain(block, output);
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "fma,avx512f,avx512bw,avx512vl")]
        fn avx512(block: &Block, output: &mut [f32]) {
            plain(block, output);
        }
        #[allow(unused_mut, reason = "other processors have no variants")]
        let mut variants: Vec<fn(&Block, &mut [f32])> = vec![plain];
        #[cfg(target_arch = "x86_64")]
        {
            if hardtack_kernels::Isa::Avx2.is_supported() {
                // SAFETY: the processor has these instructions.
                variants.push(|block, output| unsafe { avx2(block, output) });
            }
            if hardtack_kernels::Isa::Avx512Vnni.is_supported() {
                // SAFETY: the processor has these instructions.
                variants.push(|block, output| unsafe { avx512(block, output) });
            }
        }
        variants
    }};
}

macro_rules! reduction {
    ($name:ident, $literal:expr, $exact:expr) => {
        Operation {
            name: stringify!($name),
            rows: variants!(|block: &Block, output: &mut [f32]| output[0] = rows::$name(&block.a)),
            columns: variants!(|block: &Block, output| columns::$name(&block.a, output)),
            literal: |block, order| vec![$literal(&block.a, order)],
            exact: |block| vec![$exact(block)],
        }
    };
}

macro_rules! normalization {
    ($name:ident, $literal:expr, $exact:expr) => {
        Operation {
            name: stringify!($name),
            rows: variants!(|block: &Block, output| {
                rows::$name(&block.a, &block.normalization(), output);
            }),
            columns: variants!(|block: &Block, output| {
                columns::$name(&block.a, block.columns, &block.normalization(), output);
            }),
            literal: $literal,
            exact: $exact,
        }
    };
}

macro_rules! softmax {
    ($name:ident, $literal:expr, $exact:expr) => {
        Operation {
            name: stringify!($name),
            rows: variants!(|block: &Block, output| rows::$name(&block.a, output)),
            columns: variants!(|block: &Block, output| {
                columns::$name(&block.a, block.columns, output)
            }),
            literal: $literal,
            exact: $exact,
        }
    };
}

fn operations() -> Vec<Operation> {
    vec![
        reduction!(sum, sum, |block| exact(block).sum::<f64>()),
        reduction!(mean, |row: &[f32], order| sum(row, order) / row.len() as f32, |block| {
            exact_mean(exact(block), block)
        }),
        reduction!(max, max, |block| exact(block).fold(f64::NEG_INFINITY, f64::max)),
        reduction!(
            min,
            |row, order: Order| order(row, row, f32::INFINITY, &|m, x, _| smaller(m, x), smaller),
            |block| exact(block).fold(f64::INFINITY, f64::min)
        ),
        reduction!(sum_squares, |row, order| dot(row, row, order), |block| exact(block)
            .map(|x| x * x)
            .sum::<f64>()),
        reduction!(norm, |row, order| dot(row, row, order).sqrt(), |block| exact(block)
            .map(|x| x * x)
            .sum::<f64>()
            .sqrt()),
        Operation {
            name: "dot",
            rows: variants!(|block: &Block, output: &mut [f32]| {
                output[0] = rows::dot(&block.a, &block.b);
            }),
            columns: variants!(|block: &Block, output| columns::dot(&block.a, &block.b, output)),
            literal: |block, order| vec![dot(&block.a, &block.b, order)],
            exact: |block| {
                let products = exact(block).zip(&block.b).map(|(a, &b)| a * f64::from(b));
                vec![products.sum::<f64>()]
            },
        },
        softmax!(softmax, softmax, exact_softmax),
        softmax!(log_softmax, log_softmax, |block| {
            exact_softmax(block).into_iter().map(f64::ln).collect()
        }),
        normalization!(layer_normalization, layer, |block| {
            exact_normalize(block, exact_mean(exact(block), block))
        }),
        normalization!(
            rms_normalization,
            |block, order| {
                let square = dot(&block.a, &block.a, order) / block.a.len() as f32;
                normalize(block, 0.0, square)
            },
            |block| exact_normalize(block, 0.0)
        ),
    ]
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|&x| functions::canonical(x).to_bits()).collect()
}

/// Compares all variants of all operations with the literal implementation.
fn check(block: &Block) {
    let elements = block.a.len();
    for operation in operations() {
        let expected = bits(&(operation.literal)(block, sixteen));
        for variant in &operation.rows {
            let mut output = vec![0.0; expected.len()];
            variant(block, &mut output);
            let output: Vec<u32> = output.iter().map(|x| x.to_bits()).collect();
            assert_eq!(output, expected, "{} of a row of {elements}", operation.name);
        }
        let columns = block.split();
        let expected: Vec<_> =
            columns.iter().map(|column| bits(&(operation.literal)(column, ascending))).collect();
        for variant in &operation.columns {
            let rows = expected.first().map_or(0, Vec::len);
            let mut output = vec![0.0; rows * block.columns];
            variant(block, &mut output);
            for (index, result) in output.iter().enumerate() {
                let expected = expected[index % block.columns][index / block.columns];
                let name = operation.name;
                assert_eq!(result.to_bits(), expected, "{name} of column {index}: {block:?}");
            }
        }
    }
}

/// A block of these elements, with up to 300 columns and few rows, or the other way around.
fn blocks(element: impl Strategy<Value = f32> + Clone) -> impl Strategy<Value = Block> {
    let shape = prop_oneof![(0usize..200, 0usize..5), (0usize..4, 0usize..300)];
    let shape = shape.prop_map(|(rows, columns)| (rows * columns, columns));
    shape.prop_flat_map(move |(elements, columns)| {
        let values = || prop::collection::vec(element.clone(), elements);
        let optional = || prop::option::of(prop::collection::vec(-2f32..2.0, elements));
        (values(), values(), optional(), optional()).prop_map(move |(a, b, scale, bias)| Block {
            a,
            b,
            columns,
            scale,
            bias,
        })
    })
}

fn any_bits() -> impl Strategy<Value = f32> + Clone {
    prop_oneof![
        8 => -4f32..4.0,
        1 => any::<u32>().prop_map(f32::from_bits),
        1 => prop::sample::select(vec![0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN]),
    ]
}

/// The number of random blocks; fewer where tests run in an emulator.
const CASES: u32 = if cfg!(target_arch = "x86_64") { 48 } else { 6 };

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn results_equal_the_documented_order(block in blocks(-4f32..4.0)) {
        check(&block);
    }

    #[test]
    fn results_equal_the_documented_order_for_special_values(block in blocks(any_bits())) {
        check(&block);
    }

    #[test]
    fn results_are_close_to_exact_ones(block in blocks(-4f32..4.0)) {
        for operation in operations() {
            let exact = (operation.exact)(&block);
            let mut output = vec![0.0; exact.len()];
            operation.rows[0](&block, &mut output);
            // Sums have an error relative to the sum of absolute values.
            let total: f64 = exact_magnitude(&block);
            let magnitude = if exact.len() == 1 { total } else { 10.0 };
            for (&result, exact) in output.iter().zip(exact) {
                let difference = (f64::from(result) - exact).abs();
                let same = result.is_nan() && exact.is_nan() || f64::from(result) == exact;
                prop_assert!(
                    same || difference <= 2e-6 * magnitude,
                    "{}: {result} instead of {exact}", operation.name
                );
            }
        }
    }
}

fn exact_magnitude(block: &Block) -> f64 {
    1.0 + exact(block)
        .zip(&block.b)
        .map(|(a, &b)| a.abs() + a * a + (a * f64::from(b)).abs())
        .sum::<f64>()
}
