//! Dynamically quantized matmul: the reference implementation is close to the float result, and the
//! kernels of every instruction set of this processor match the reference bit for bit.

mod common;

use common::guarded::Guarded;
use common::{cycle, weight};
use hardtack_kernels::packed::product::Matrix;
use hardtack_kernels::strided::{self, Kernels, Parallel};
use hardtack_kernels::{Isa, Product, Ranges, product};
use proptest::collection::vec;
use proptest::prelude::*;

/// Runs parts one after another, the last one first.
struct Backwards(usize);

// SAFETY: `run` calls `work` exactly once for each index below `parts`, and returns after the last
// call.
unsafe impl Parallel for Backwards {
    fn threads(&self) -> usize {
        self.0
    }

    fn run(&self, parts: usize, work: &(dyn Fn(usize) + Sync)) {
        (0..parts).rev().for_each(work);
    }
}

#[derive(Clone, Debug)]
struct Case {
    rows: usize,
    matrix: Matrix,
    ranges: Ranges,
    input: Vec<f32>,
    weights: Vec<i8>,
    scales: Vec<f32>,
    bias: Vec<f32>,
    threads: usize,
}

fn real() -> impl Strategy<Value = f32> {
    prop_oneof![6 => -3.0..5.0f32, 1 => Just(0.0), 1 => -100.0..100.0f32, 1 => -1e-6..1e-6f32]
}

fn case() -> impl Strategy<Value = Case> {
    let rows = prop_oneof![1usize..40, 380usize..400];
    let columns = prop_oneof![1usize..150, Just(16), Just(64), Just(128)];
    let sizes = (rows, 1usize..80, columns, 1usize..4, any::<[bool; 2]>());
    let values = (vec(real(), 197), vec(weight(), 97), vec(1e-4..1.0f32, 29), vec(real(), 31));
    (sizes, values).prop_map(|((rows, depth, columns, threads, flags), values)| Case {
        rows,
        matrix: Matrix { depth, columns },
        ranges: if flags[0] { Ranges::Row } else { Ranges::Tensor },
        input: cycle(&values.0, rows * depth),
        weights: cycle(&values.1, depth * columns),
        scales: cycle(&values.2, columns),
        bias: if flags[1] { cycle(&values.3, columns) } else { vec![0.0; columns] },
        threads,
    })
}

fn defined(case: &Case) -> Vec<f32> {
    let mut output = vec![f32::NAN; case.rows * case.matrix.columns];
    let operation = Product {
        input: &case.input,
        depth: case.matrix.depth,
        ranges: case.ranges,
        weights: &case.weights,
        scales: &case.scales,
        bias: &case.bias,
    };
    product(&operation, &mut output);
    output
}

fn on(kernels: &Kernels, case: &Case) -> Vec<f32> {
    let mut packed = Guarded::new(case.matrix.bytes(kernels.packing()).unwrap());
    case.matrix.pack(kernels.packing(), &case.weights, &case.scales, packed.bytes());
    let none = case.bias.iter().all(|x| *x == 0.0);
    let operation = strided::Product {
        matrix: case.matrix,
        packed: packed.bytes(),
        bias: if none { &[] } else { &case.bias },
        ranges: case.ranges,
    };
    let mut scratch = Guarded::new(operation.scratch(case.rows));
    scratch.bytes().fill(0x55);
    // Followed by a guard page.
    let mut output = Guarded::new(4 * case.rows * case.matrix.columns);
    // SAFETY: all bit patterns are valid f32.
    let (_, floats, _) = unsafe { output.bytes().align_to_mut::<f32>() };
    operation.run(kernels, &case.input, floats, scratch.bytes(), &Backwards(case.threads));
    floats.to_vec()
}

/// Returns the kernels that this processor supports. Panics if one that `HARDTACK_REQUIRE_ISA`
/// names is missing.
fn tables() -> impl Iterator<Item = &'static Kernels> {
    let required = std::env::var("HARDTACK_REQUIRE_ISA").unwrap_or_default();
    for name in required.split(',').filter(|name| !name.is_empty() && *name != "scalar") {
        let kernels = Isa::from_name(name).and_then(Kernels::for_isa);
        assert!(kernels.is_some(), "this processor does not support {name}");
    }
    Isa::ALL.iter().filter_map(|&isa| Kernels::for_isa(isa))
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn kernels_match_the_reference(case in case()) {
        let expected = bits(&defined(&case));
        for kernels in tables() {
            prop_assert_eq!(&bits(&on(kernels, &case)), &expected, "{}", kernels.isa().name());
        }
    }

    #[test]
    fn the_reference_is_close_to_the_float_result(case in case()) {
        let Matrix { depth, columns } = case.matrix;
        let range = |values: &[f32]| {
            values.iter().fold(0f32, |a, &x| a.max(x)) - values.iter().fold(0f32, |a, &x| a.min(x))
        };
        let all = range(&case.input);
        for (index, y) in defined(&case).into_iter().enumerate() {
            let (row, column) = (index / columns, index % columns);
            let x = &case.input[row * depth..][..depth];
            let step = if case.ranges == Ranges::Row { range(x) } else { all } / 255.0;
            let weights = case.weights[column..].iter().step_by(columns);
            let scale = f64::from(case.scales[column]);
            let (mut exact, mut slack) = (f64::from(case.bias[column]), 0.0);
            for (&x, &w) in x.iter().zip(weights) {
                exact += f64::from(x) * f64::from(w) * scale;
                // Half a step from rounding the value, and half from the zero point at the range
                // ends.
                slack += f64::from(step) * f64::from(w.abs()) * scale;
            }
            let rounding = 1e-5 * (exact.abs() + slack) + 1e-5;
            prop_assert!((f64::from(y) - exact).abs() <= slack + rounding, "{y} {exact} {slack}");
        }
    }
}

/// The largest possible accumulators, and inputs that are not finite.
#[test]
fn extreme_values_give_the_same_result_everywhere() {
    let depth = Product::DEPTH;
    for values in [[127i8, -127], [-127, 127]] {
        let case = Case {
            rows: 3,
            matrix: Matrix { depth, columns: 2 },
            ranges: Ranges::Row,
            input: cycle(&[1.0], depth)
                .into_iter()
                .chain(cycle(&[-2.5], depth))
                .chain(cycle(&[1.0, f32::INFINITY], depth))
                .collect(),
            weights: cycle(&values, 2 * depth),
            scales: vec![0.5, 2.0],
            bias: vec![0.0; 2],
            threads: 1,
        };
        let expected = defined(&case);
        let sum = 255.0 * 127.0 * depth as f64;
        let first = f64::from(values[0].signum()) * sum * 0.5 / 255.0;
        assert!((f64::from(expected[0]) / first - 1.0).abs() < 1e-6, "{expected:?} {first}");
        assert!(expected[..4].iter().all(|y| y.is_finite()));
        assert!(expected[4..].iter().all(|y| y.is_nan()));
        for kernels in tables() {
            let got = on(kernels, &case);
            assert_eq!(bits(&got[..4]), bits(&expected[..4]), "{}", kernels.isa().name());
            assert!(got[4..].iter().all(|y| y.is_nan()), "{}", kernels.isa().name());
        }
    }
}
