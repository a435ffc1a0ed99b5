//! Builds, packs and runs whole programs.

mod sample;

use hardtack_engine::program::*;
use hardtack_engine::{
    BuildError, Builder, Executor, Input, Layer, Output, Plan, Program, ProgramError, RunError,
};
use hardtack_kernels::packed::Packing;
use hardtack_kernels::strided::{self, Alone};
use hardtack_kernels::{Isa, ReferenceKernels};
use sample::{every_step, window};

/// Returns the weight layout of an executor for `isa` on this processor.
fn executor_packing(isa: Isa) -> Option<Packing> {
    strided::Kernels::for_isa(isa).map(|kernels| kernels.packing())
}

/// One input channel and two filters, computed by hand.
#[test]
fn a_tiny_program_matches_the_result_computed_by_hand() {
    let mut b = Builder::new();
    let port_in = b.input(PortType::F32, 4);
    let port_out = b.output(PortType::F32, 8);
    let x = b.tensor("x", [2, 2, 1], 0.5, 1);
    let y = b.tensor("y", [2, 2, 2], 0.25, -10);
    b.quantize("in", port_in, x, CopyLayout::contiguous(4)).unwrap();
    let layer = Layer {
        input: x,
        output: y,
        window: Window { kernel: [2, 1], stride: [1; 2], dilation: [1; 2], pad: [0; 2] },
        groups: 1,
        weights: &[1, 2, -3, 4],
        weight_scales: &[0.5, 0.25],
        bias: &[4, -2],
        residual: None,
        clamp: Clamp { low: -128, high: 9 },
    };
    b.conv("conv", &layer).unwrap();
    b.dequantize("out", y, port_out, CopyLayout::contiguous(8));
    let built = b.finish().unwrap();
    let program = Program::parse(&built.code[..], &built.weights[..]).unwrap();

    // Quantized: round(x / 0.5) + 1 = [3, -1, 7, 1]; minus the zero point: [2, -2, 6, 0].
    let input = [1.0, -1.0, 2.9, 0.2];
    let mut output = [0.0; 8];
    let mut arena = vec![77; program.arena_bytes()];
    let mut seen = Vec::new();
    program
        .run_observed(
            &ReferenceKernels::SCALAR,
            &mut arena,
            &[Input::F32(&input)],
            &mut [Output::F32(&mut output)],
            &mut |index: usize, step: &Step, arena: &[i8]| {
                let tensor = step.writes().and_then(|id| program.tensor(id));
                let values = tensor.and_then(|tensor| Some(tensor.in_arena(arena)?.to_vec()));
                seen.push((index, step.kind(), values.unwrap_or_default()));
            },
        )
        .unwrap();
    // Accumulators of the first filter (bias 4), x + 2 · below: 4+2+12, 4-2+0, 4+6, 4+0, with the
    // scale 0.5 · 0.5 / 0.25 = 1. Of the second filter (bias -2), -3x + 4 · below: -2-6+24 = 16,
    // -2+6 = 4, -2-18 = -20, -2, with the scale 0.5. Below the last row there is padding.
    let integers = [8, -2, -8, -8, 0, -20, -6, -11];
    assert_eq!(seen[0], (0, "Quantize", vec![3, -1, 7, 1]));
    assert_eq!(seen[1], (1, "Conv", integers.to_vec()));
    assert_eq!(seen[2].1, "Dequantize");
    assert_eq!(output, integers.map(|y| (f32::from(y) + 10.0) * 0.25));
}

#[test]
fn all_executors_agree_and_ignore_the_previous_arena_contents() {
    let built = every_step();
    let program = Program::parse(&built.code[..], &built.weights[..]).unwrap();
    let input: Vec<f32> = (0..48).map(|i| (i as f32 * 0.7).sin() * 2.0).collect();
    let inputs = &[Input::F32(&input)];
    let define = |leftover: i8| {
        let mut arena = vec![leftover; program.arena_bytes() + 5];
        let (mut reuse_weights_of, mut image) = ([0.0; 4], [0; 32]);
        let outputs = &mut [Output::F32(&mut reuse_weights_of), Output::U8(&mut image)];
        program.run(&ReferenceKernels::SCALAR, &mut arena, inputs, outputs).unwrap();
        assert!(arena[program.arena_bytes()..].iter().all(|&x| x == leftover));
        (reuse_weights_of, image)
    };
    let (reuse_weights_of, image) = define(0);
    assert_eq!((reuse_weights_of, image), define(-77));
    assert!((reuse_weights_of.iter().sum::<f32>() - 1.0).abs() < 0.02, "{reuse_weights_of:?}");
    assert!(image.iter().any(|&x| x != image[0]));

    for &isa in Isa::ALL {
        for packing in Packing::ALL.iter().copied().map(Some).chain([None]) {
            let packed = program.pack(packing).unwrap();
            let given = match packing {
                None => program.clone(),
                Some(packing) => {
                    Program::parse_packed(&built.code[..], packed.bytes(), packing).unwrap()
                }
            };
            assert_eq!(given.pack(None).unwrap().bytes(), built.weights, "{packing:?}");
            let planned = Plan::of(&given, executor_packing(isa)).arena_bytes;
            let executor = Executor::new(given, isa).unwrap();
            assert_eq!(executor.arena_bytes(), planned as usize, "{isa}");
            assert_eq!(executor.is_in_place(), executor.isa().packing() == packing);
            for leftover in [0, 200] {
                let mut arena = vec![leftover; executor.arena_bytes() + 5];
                let (mut again, mut image_again) = ([0.0; 4], [0; 32]);
                let outputs = &mut [Output::F32(&mut again), Output::U8(&mut image_again)];
                executor.run(&Alone, &mut arena, inputs, outputs).unwrap();
                assert_eq!((again, image_again), (reuse_weights_of, image), "{isa} {packing:?}");
                let beyond = &arena[executor.arena_bytes()..];
                assert!(beyond.iter().all(|&x| x == leftover));
            }
        }
    }
}

#[test]
fn packed_weights_of_the_wrong_length_are_rejected() {
    let built = every_step();
    let program = Program::parse(&built.code[..], &built.weights[..]).unwrap();
    for &packing in Packing::ALL {
        let packed = program.pack(Some(packing)).unwrap();
        let packed = packed.bytes();
        for length in [0, built.weights.len(), packed.len() - 64, packed.len() - 1] {
            let error = Program::parse_packed(&built.code[..], &packed[..length], packing);
            assert!(error.is_err(), "{packing:?} {length}");
        }
        let longer = [packed, &[0; 64]].concat();
        let error = Program::parse_packed(&built.code[..], &longer[..], packing);
        assert!(matches!(error, Err(ProgramError::WeightsLength { .. })));
        let program = Program::parse_packed(&built.code[..], packed, packing).unwrap();
        let mut arena = vec![0; program.arena_bytes()];
        let error = program.run(&ReferenceKernels::SCALAR, &mut arena, &[], &mut []);
        assert_eq!(error, Err(RunError::Packed));
    }
}

#[test]
fn integer_inputs_and_outputs_are_copied() {
    let mut b = Builder::new();
    let ports = [PortType::I8, PortType::U8].map(|kind| (b.input(kind, 3), b.output(kind, 3)));
    for (from, to) in ports {
        let x = b.tensor("x", [1, 1, 3], 0.1, 7);
        b.quantize("in", from, x, CopyLayout::contiguous(3)).unwrap();
        b.dequantize("out", x, to, CopyLayout::contiguous(3));
    }
    let built = b.finish().unwrap();
    let program = Program::parse(&built.code[..], &built.weights[..]).unwrap();
    let (mut signed, mut unsigned, mut arena) = ([0; 3], [0; 3], vec![0; program.arena_bytes()]);
    program
        .run(
            &ReferenceKernels::SCALAR,
            &mut arena,
            &[Input::I8(&[-128, 0, 127]), Input::U8(&[0, 128, 255])],
            &mut [Output::I8(&mut signed), Output::U8(&mut unsigned)],
        )
        .unwrap();
    assert_eq!((signed, unsigned), ([-128, 0, 127], [0, 128, 255]));
    assert_eq!(arena.len(), 16, "the second tensor must reuse the place of the first");
}

#[test]
fn the_memory_plan_matches_the_program() {
    let built = every_step();
    assert_eq!(built, every_step());
    let program = Program::parse(&built.code[..], &built.weights[..]).unwrap();
    assert_eq!(Plan::of(&program, None), built.plan);
    for &packing in Packing::ALL {
        let plan = Plan::of(&program, Some(packing));
        for (index, a) in plan.tensors.iter().enumerate() {
            assert!(a.offset + a.bytes <= plan.arena_bytes);
            for b in &plan.tensors[..index] {
                let at_once = a.first <= b.last && b.first <= a.last;
                let apart = a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset;
                assert!(apart || !at_once, "{a:?} {b:?}");
            }
        }
    }
    assert_eq!(program.tensor_name(1), Some("stem"));
    assert_eq!(program.tensor_name(12), None);
    assert_eq!(program.step_name(3), Some("sum"));
    assert_eq!(program.step_name(100), None);
    let stem = &built.plan.tensors[1];
    assert_eq!((stem.name.as_str(), stem.bytes, stem.first, stem.last), ("stem", 32, 1, 3));
    // `large` (128 bytes) and one image of 32 bytes are live at the same time.
    assert_eq!(program.arena_bytes(), 160);
}

#[test]
fn run_rejects_arenas_inputs_and_outputs_that_do_not_fit() {
    let built = every_step();
    let program = Program::parse(&built.code[..], &built.weights[..]).unwrap();
    let mut arena = vec![0; program.arena_bytes()];
    let run = |arena: &mut [i8], inputs: &[Input<'_>], outputs: &mut [Output<'_>]| {
        program.run(&ReferenceKernels::SCALAR, arena, inputs, outputs)
    };
    let input = [0.0; 48];
    let (mut reuse_weights_of, mut image) = ([0.0; 4], [0u8; 32]);
    let length = arena.len();
    let outputs = &mut [Output::F32(&mut reuse_weights_of), Output::U8(&mut image)];
    assert_eq!(
        run(&mut arena[1..], &[Input::F32(&input)], outputs),
        Err(RunError::Arena { needed: length, given: length - 1 })
    );
    assert_eq!(run(&mut arena, &[], outputs), Err(RunError::Inputs { expected: 1, given: 0 }));
    let wrong = Err(RunError::Input { index: 0, element: PortType::F32, elements: 48 });
    assert_eq!(run(&mut arena, &[Input::F32(&input[1..])], outputs), wrong);
    assert_eq!(run(&mut arena, &[Input::I8(&[0; 48])], outputs), wrong);
    assert_eq!(
        run(&mut arena, &[Input::F32(&input)], &mut outputs[..1]),
        Err(RunError::Outputs { expected: 2, given: 1 })
    );
    outputs.reverse();
    assert_eq!(
        run(&mut arena, &[Input::F32(&input)], outputs),
        Err(RunError::Output { index: 0, element: PortType::F32, elements: 4 })
    );
}

#[test]
fn invalid_programs_are_not_built() {
    let layer = |weights: &'static [i8], bias: &'static [i32]| Layer {
        input: 0,
        output: 1,
        window: window(1, 1, 0),
        groups: 1,
        weights,
        weight_scales: &[0.5],
        bias,
        residual: None,
        clamp: Clamp::FULL,
    };
    let start = || {
        let mut b = Builder::new();
        b.tensor("x", [1, 1, 2], 1.0, 0);
        b.tensor("y", [1, 1, 1], 1.0, 0);
        b
    };
    let conv = |weights, bias| start().conv("node", &layer(weights, bias));
    assert!(matches!(conv(&[1, -128], &[0]), Err(BuildError::Weight { index: 1, .. })));
    assert!(matches!(conv(&[1], &[0]), Err(BuildError::Elements { what: "weights", .. })));
    assert!(matches!(conv(&[1, 1], &[]), Err(BuildError::Elements { what: "bias", .. })));
    let overflow = conv(&[1, 1], &[i32::MAX]).unwrap_err();
    assert!(matches!(overflow, BuildError::Overflow { channel: 0, .. }));
    assert!(overflow.to_string().contains("node \"node\", output channel 0"));

    let mut b = start();
    b.conv("node", &layer(&[1, 1], &[0])).unwrap();
    assert!(matches!(b.finish(), Err(BuildError::Unwritten { .. })));
    let mut b = start();
    b.fill("fill", 0, 0.0).unwrap();
    assert_eq!(b.finish(), Err(BuildError::Unused("y".into())));
    let mut b = start();
    b.input(PortType::F32, 1);
    assert_eq!(b.finish(), Err(BuildError::UnusedPort { kind: "input", index: 0 }));

    let mut b = start();
    b.fill("fill", 0, 0.0).unwrap();
    b.max_pool("pool", 0, 1, window(1, 1, 0), Clamp::FULL);
    let error = b.finish().unwrap_err();
    let BuildError::Refused { name, source: ProgramError::Step { index: 1, kind, .. } } = &error
    else {
        panic!("{error}");
    };
    assert_eq!((name.as_str(), *kind), ("pool", "MaxPool"));
}

/// The largest possible inputs to a layer whose accumulators just fit in an i32.
#[test]
fn accumulators_at_the_limit_do_not_overflow() {
    let depth = 66_000u32;
    let weights = vec![127i8; depth as usize];
    let mut b = Builder::new();
    let port_in = b.input(PortType::I8, depth);
    let port_out = b.output(PortType::I8, 1);
    let x = b.tensor("x", [1, 1, depth], 1.0, -128);
    let y = b.tensor("y", [1, 1, 1], 2.0_f32.powi(25), 0);
    b.quantize("in", port_in, x, CopyLayout::contiguous(depth)).unwrap();
    let layer = Layer {
        input: x,
        output: y,
        window: window(1, 1, 0),
        groups: 1,
        weights: &weights,
        weight_scales: &[1.0],
        bias: &[i32::MAX - 66_000 * 255 * 127],
        residual: None,
        clamp: Clamp::FULL,
    };
    b.conv("conv", &layer).unwrap();
    b.dequantize("out", y, port_out, CopyLayout::contiguous(1));
    let built = b.finish().unwrap();
    let program = Program::parse(&built.code[..], &built.weights[..]).unwrap();
    let mut arena = vec![0; program.arena_bytes()];
    let mut output = [0];
    let input = vec![127; depth as usize];
    program
        .run(
            &ReferenceKernels::SCALAR,
            &mut arena,
            &[Input::I8(&input)],
            &mut [Output::I8(&mut output)],
        )
        .unwrap();
    assert_eq!(output, [64]);
}
