//! Safe functions with invalid arguments: each call is rejected, panics, or writes only its output.
//! The arena is surrounded by guard pages, which abort the process on access.
// WebAssembly has no threads and no guard pages, and its panics abort the process.
#![cfg(not(target_family = "wasm"))]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::guarded::Guarded;
use common::{clamp, cycle};
use hardtack_kernels::packed::dense::Dense;
use hardtack_kernels::packed::depthwise::Depthwise as DepthwiseShape;
use hardtack_kernels::packed::product::Matrix;
use hardtack_kernels::strided::*;
use hardtack_kernels::{Clamp, Image, Isa, Ranges, Window};
use proptest::prelude::*;

/// The bytes of the arena: whole pages, so that it is guarded on both sides.
const ARENA: usize = 1 << 16;
/// The bytes of the weights, guarded in the same way.
const WEIGHTS: usize = 1 << 16;

fn tables() -> Vec<&'static Kernels> {
    Isa::ALL.iter().filter_map(|&isa| Kernels::for_isa(isa)).collect()
}

/// Sizes: mostly valid, some 0, some close to overflow by themselves or in products.
fn size() -> impl Strategy<Value = usize> {
    let edges = [
        0,
        usize::MAX,
        usize::MAX - 63,
        usize::MAX - 64,
        isize::MAX as usize,
        isize::MAX as usize + 1,
        usize::MAX / 2 + 2,
        usize::MAX / 3 + 1,
        usize::MAX / 4 + 1,
        1 << (usize::BITS / 2),
        u32::MAX as usize,
        u32::MAX as usize / 2 + 1,
    ];
    prop_oneof![
        24 => 1usize..5,
        3 => 1usize..80,
        1 => prop::sample::select(edges.to_vec()),
        1 => (0..usize::BITS, -1i32..2).prop_map(|(bit, by)| {
            (1usize << bit).wrapping_add_signed(by as isize)
        }),
    ]
}

/// Strides and offsets.
fn distance() -> impl Strategy<Value = usize> {
    prop_oneof![
        2 => Just(0usize),
        8 => 0usize..200,
        3 => 0usize..5000,
        1 => Just(ARENA - 64),
        1 => Just(ARENA),
        1 => size(),
        1 => size().prop_map(usize::wrapping_neg),
    ]
}

/// Views of images: mostly plausible ones in one half of the arena, some at its end, some
/// arbitrary.
fn view(half: usize) -> impl Strategy<Value = View> {
    let any = (distance(), distance(), distance()).prop_map(|(offset, row, pixel)| View {
        offset,
        row,
        pixel,
    });
    let likely = (0usize..ARENA / 2 - 2000, 0usize..3, 1usize..140, 1usize..9).prop_map(
        move |(offset, gap, pixel, columns)| View {
            offset: offset + half * ARENA / 2,
            row: columns * pixel + gap,
            pixel,
        },
    );
    let ends = (1usize..200, 1usize..140).prop_map(|(left, pixel)| View {
        offset: ARENA - left,
        row: pixel,
        pixel,
    });
    prop_oneof![1 => any, 8 => likely, 1 => ends]
}

use prop::array::uniform2 as two;

fn epilogue() -> Epilogue {
    Epilogue { zero_point: 3, low: 0, high: 255 }
}

/// Runs parts on two threads and reports an arbitrary number of threads.
#[derive(Debug)]
struct Threads(usize);

// SAFETY: the atomic counter gives each index below `parts` to one thread, which calls `work` once.
// The scope joins both threads before `run` returns or unwinds.
unsafe impl Parallel for Threads {
    fn threads(&self) -> usize {
        self.0
    }

    fn run(&self, parts: usize, work: &(dyn Fn(usize) + Sync)) {
        let next = AtomicUsize::new(0);
        let take = || {
            // If there are very many parts, nearly all are empty.
            while let index @ 0..=50_000 = next.fetch_add(1, Ordering::Relaxed) {
                if index >= parts {
                    break;
                }
                work(index);
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(take);
            take();
        });
    }
}

fn parallel() -> impl Strategy<Value = Threads> {
    prop_oneof![6 => Just(1usize), 2 => 2usize..9, 1 => size()].prop_map(Threads)
}

/// Runs an operation in a guarded arena. Returns whether it did not panic. In that case, checks
/// that only the bytes of the `written` pixels changed.
fn attempt(
    written: (&View, [usize; 2], usize),
    run: impl FnOnce(&mut [u8]),
) -> Result<bool, TestCaseError> {
    let mut memory = Guarded::new(ARENA);
    let arena = memory.bytes();
    for (index, byte) in arena.iter_mut().enumerate() {
        *byte = (index * 31 / 8) as u8;
    }
    let before = arena.to_vec();
    let done = catch_unwind(AssertUnwindSafe(|| run(&mut *arena))).is_ok();
    let (view, [rows, columns], bytes) = written;
    if done {
        // The operation succeeded, so the pixels are few and in the arena.
        for row in 0..rows {
            for column in 0..columns {
                let at = view.offset + row * view.row + column * view.pixel;
                arena[at..at + bytes].copy_from_slice(&before[at..at + bytes]);
            }
        }
        prop_assert!(arena == before, "bytes outside the output changed");
    }
    Ok(done)
}

/// The number of cases per test that succeeded. A test without any would be meaningless.
static DONE: [AtomicUsize; 5] = [const { AtomicUsize::new(0) }; 5];

fn count(kind: usize, done: bool) {
    DONE[kind].fetch_add(done.into(), Ordering::Relaxed);
}

fn enough(kind: usize, least: usize) {
    let done = DONE[kind].load(Ordering::Relaxed);
    println!("{done} cases succeeded");
    assert!(done >= least, "only {done} cases succeeded");
}

/// Runs a test without printing panics, because most cases are expected to panic.
fn silent(test: impl FnOnce()) {
    std::panic::set_hook(Box::new(|_| ()));
    let result = catch_unwind(AssertUnwindSafe(test));
    if let Err(panic) = result {
        let text = panic.downcast_ref::<String>().cloned();
        eprintln!("{}", text.unwrap_or_else(|| "a test failed".into()));
        std::panic::resume_unwind(panic);
    }
}

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4000) }
}

fn check<S: Strategy>(strategy: S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let mut runner = proptest::test_runner::TestRunner::new(config());
    silent(|| runner.run(&strategy, &test).unwrap_or_else(|error| panic!("{error}")));
}

#[test]
fn convolutions_survive_invalid_arguments() {
    let shape = (size(), size(), size(), size()).prop_map(|(groups, outputs, runs, run)| Dense {
        groups,
        outputs,
        runs,
        run,
    });
    let rest = (two(size()), two(distance()), distance(), distance(), any::<bool>());
    let residual = proptest::option::of(view(0));
    // In most cases, the plan and the shape have the same number of runs.
    let agree = prop::bool::weighted(0.8);
    let cases = (view(0), view(1), two(size()), shape, rest, residual, parallel(), agree);
    check(cases, |(input, output, size, shape, rest, residual, parallel, agree)| {
        let (runs, run_step, group_step, weights, narrow) = rest;
        let shape =
            Dense { runs: if agree { runs[0].wrapping_mul(runs[1]) } else { shape.runs }, ..shape };
        let weights = if narrow { weights } else { weights / 64 * 64 };
        let plan = ConvPlan {
            input,
            output,
            size,
            runs,
            run_step,
            group_step,
            shape,
            weights,
            residual: residual.map(|view| Residual { view, zero_point: 9, scale: 0.5 }),
            epilogue: epilogue(),
            narrow,
        };
        for kernels in tables() {
            let Some(conv) = Conv::new(plan.clone(), kernels.packing()) else { continue };
            let channels = shape.groups * shape.outputs;
            let mut weights = Guarded::new(WEIGHTS);
            let weights = weights.bytes();
            weights.fill(0x5a);
            conv.macs();
            let done = attempt((&output, size, channels), |arena| {
                conv.run(kernels, arena, weights, &parallel);
            })?;
            count(0, done);
        }
        Ok(())
    });
    enough(0, 50);
}

#[test]
fn depthwise_convolutions_survive_invalid_arguments() {
    let kernel = prop_oneof![
        4 => prop::sample::select(vec![[1, 1], [3, 3], [5, 5], [7, 7], [8, 2]]),
        1 => two(size()),
    ];
    let shape = (kernel, size()).prop_map(|(kernel, channels)| DepthwiseShape { kernel, channels });
    let near = || two(prop_oneof![6 => 1usize..4, 1 => Just(0usize), 1 => size()]);
    let rest = (two(size()), near(), near(), distance(), any::<bool>());
    check((view(0), view(1), shape, rest, parallel()), |(input, output, shape, rest, parallel)| {
        let (size, stride, dilation, weights, narrow) = rest;
        let weights = if narrow { weights } else { weights / 64 * 64 };
        let plan = DepthwisePlan {
            input,
            output,
            size,
            stride,
            dilation,
            shape,
            weights,
            epilogue: epilogue(),
            narrow,
        };
        for kernels in tables() {
            let Some(conv) = Depthwise::new(plan.clone(), kernels.packing()) else { continue };
            let mut weights = Guarded::new(WEIGHTS);
            let weights = weights.bytes();
            weights.fill(0x5a);
            conv.macs();
            let done = attempt((&output, size, shape.channels), |arena| {
                conv.run(kernels, arena, weights, &parallel);
            })?;
            count(1, done);
        }
        Ok(())
    });
    enough(1, 50);
}

/// A window that may be invalid. Its kernel is small, so that cases that panic are fast.
fn window() -> impl Strategy<Value = Window> {
    let near = || two(prop_oneof![8 => 1usize..4, 1 => Just(0usize), 1 => size()]);
    (two(0usize..4), near(), near(), two(distance()))
        .prop_map(|(kernel, stride, dilation, pad)| Window { kernel, stride, dilation, pad })
}

#[test]
fn pooling_and_resizing_survive_invalid_arguments() {
    let samples = || {
        prop::collection::vec(
            any::<[u8; 8]>().prop_map(|mut bytes| {
                // In most cases, rows and columns are below 4.
                if bytes[7] < 240 {
                    (bytes[0], bytes[1], bytes[2], bytes[3]) = (bytes[0] % 4, 0, bytes[2] % 4, 0);
                }
                bytes
            }),
            0..6,
        )
    };
    let shape = (size(), size(), size()).prop_map(|(height, width, channels)| Image {
        height,
        width,
        channels,
    });
    let cases = (
        view(0),
        view(1),
        shape,
        two(size()),
        window(),
        clamp(),
        parallel(),
        [samples(), samples()],
    );
    check(cases, |(input, output, input_shape, size, window, clamp, parallel, samples)| {
        let channels = input_shape.channels;
        let max = MaxPool { input, input_shape, output, size, window, clamp };
        let average = AveragePool {
            input,
            input_shape,
            zero_point: 3,
            output,
            size,
            window,
            scale: 0.25,
            count_include_pad: false,
            output_zero_point: -3,
            clamp,
        };
        let resize = Resize { input, input_columns: input_shape.width, output, size, channels };
        for kernels in tables() {
            let written = (&output, size, channels);
            count(2, attempt(written, |arena| max.run(kernels, arena, &parallel))?);
            count(2, attempt(written, |arena| average.run(kernels, arena, &parallel))?);
            let tables = [&samples[0][..], &samples[1]];
            count(2, attempt(written, |arena| resize.run(kernels, tables, arena, &parallel))?);
        }
        Ok(())
    });
    enough(2, 50);
}

#[test]
fn element_wise_operations_survive_invalid_arguments() {
    let cases = (view(0), view(0), view(1), two(size()), size(), any::<bool>(), parallel());
    check(cases, |(a, b, output, size, channels, repeated, parallel)| {
        let linear = Linear { zero_point: 1, scale: 0.5, output_zero_point: 2 };
        let pairs =
            Pairs { zero_points: [1, 2], scales: [0.5, 0.25], zero_point: 0, clamp: Clamp::FULL };
        for kernels in tables() {
            let written = (&output, size, channels);
            for kind in [BinaryKind::Add, BinaryKind::Multiply] {
                let binary = Binary { kind, pairs, a, b, repeated, output, size, channels };
                count(3, attempt(written, |arena| binary.run(kernels, arena, &parallel))?);
            }
            for kind in [
                UnaryKind::Lookup([7; 256]),
                UnaryKind::Rescale(linear),
                UnaryKind::Copy,
                UnaryKind::Softmax([9; 256]),
            ] {
                let unary = Unary { kind, input: a, output, size, channels };
                count(3, attempt(written, |arena| unary.run(kernels, arena, &parallel))?);
            }
        }
        Ok(())
    });
    enough(3, 50);
}

#[test]
fn matmuls_survive_invalid_arguments() {
    let sizes = (size(), size(), 0usize..400, 0usize..3, -1isize..2, -1isize..2);
    check((sizes, any::<bool>(), parallel()), |(sizes, tensor, parallel)| {
        let (depth, columns, rows, bias, more, less) = sizes;
        let matrix = Matrix { depth, columns };
        let elements = |a: usize, b: usize| {
            a.checked_mul(b).filter(|&elements| elements < 1 << 18).unwrap_or(100)
        };
        let input = cycle(&[0.5f32, -3.0, 7.0], elements(rows, depth).saturating_add_signed(more));
        for kernels in tables() {
            let bytes = matrix.bytes(kernels.packing()).filter(|&bytes| bytes < 1 << 22);
            let mut packed = Guarded::new(bytes.unwrap_or(64).saturating_add_signed(64 * less));
            let bias = vec![1.0; [0, columns.min(1 << 18), 5][bias]];
            let ranges = if tensor { Ranges::Tensor } else { Ranges::Row };
            let product = Product { matrix, packed: packed.bytes(), bias: &bias, ranges };
            let needed = product.scratch(rows);
            let mut scratch = Guarded::new(needed.min(1 << 22).saturating_add_signed(less));
            let mut output = Guarded::new(4 * elements(rows, columns));
            // SAFETY: all bit patterns are valid f32.
            let (_, floats, _) = unsafe { output.bytes().align_to_mut::<f32>() };
            let done = catch_unwind(AssertUnwindSafe(|| {
                product.run(kernels, &input, floats, scratch.bytes(), &parallel);
            }));
            count(4, done.is_ok());
        }
        Ok(())
    });
    enough(4, 50);
}

/// Regression tests for sizes that overflow. Without the checks, each would access a guard page.
#[test]
fn sizes_that_overflow_are_rejected() {
    let view = |offset| View { offset, row: 64, pixel: 16 };
    let plan = ConvPlan {
        input: view(0),
        output: view(4096),
        size: [1, 1],
        runs: [3, 1],
        run_step: [64, 0],
        group_step: 0,
        shape: Dense { groups: 1, outputs: 16, runs: 3, run: 4 },
        weights: 0,
        residual: None,
        epilogue: epilogue(),
        narrow: false,
    };
    let depthwise = DepthwisePlan {
        input: view(0),
        output: view(4096),
        size: [1, 1],
        stride: [1, 1],
        dilation: [1, 1],
        shape: DepthwiseShape { kernel: [3, 3], channels: 16 },
        weights: 0,
        epilogue: epilogue(),
        narrow: false,
    };
    for kernels in tables() {
        let packing = kernels.packing();
        let conv = |change: &dyn Fn(&mut ConvPlan)| {
            let mut plan = plan.clone();
            change(&mut plan);
            Conv::new(plan, packing).is_some()
        };
        assert!(conv(&|_| ()));
        // (3 − 1) · 2^63 is 0 in 64 bits.
        assert!(!conv(&|plan| plan.run_step[0] = 1 << (usize::BITS - 1)));
        assert!(!conv(&|plan| plan.run_step[0] = usize::MAX - 31));
        assert!(!conv(&|plan| plan.input.row = usize::MAX) || plan.size[0] == 1);
        assert!(!conv(&|plan| plan.runs = [1 << (usize::BITS / 2); 2]));
        assert!(!conv(&|plan| plan.size[1] = 0));
        assert!(!conv(&|plan| plan.shape.outputs = 0));
        assert!(!conv(&|plan| plan.shape.groups = 0));
        assert!(!conv(&|plan| plan.input.offset = usize::MAX - 63));
        assert!(!conv(&|plan| plan.group_step = 0) || plan.shape.groups == 1);
        let conv = |change: &dyn Fn(&mut DepthwisePlan)| {
            let mut plan = depthwise.clone();
            change(&mut plan);
            Depthwise::new(plan, packing).is_some()
        };
        assert!(conv(&|_| ()));
        // The end of the input fits in the address space, but the slack after it overflows.
        assert!(!conv(&|plan| plan.input.offset = usize::MAX - 200));
        assert!(!conv(&|plan| plan.dilation[0] = 1 << (usize::BITS - 1)));
        // All columns have the same address, but the number of weight bytes overflows.
        assert!(!conv(&|plan| {
            plan.shape.kernel[1] = 1 << (usize::BITS - 6);
            plan.input.pixel = 0;
        }));
        assert!(!conv(&|plan| plan.dilation[1] = 0));
        assert!(!conv(&|plan| plan.shape.kernel[0] = 0));
        assert!(!conv(&|plan| plan.shape.kernel[0] = 9));
        assert!(!conv(&|plan| plan.size = [0, 1]));
    }
}
