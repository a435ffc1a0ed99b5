//! Arbitrary bytes cause an error or give a program that runs, but never a panic.

mod sample;

use hardtack_engine::program::{Port, PortType, Step};
use hardtack_engine::{Aligned, Executor, Input, Output, Problem, Program, ProgramError};
use hardtack_kernels::strided::Alone;
use hardtack_kernels::{Isa, ReferenceKernels};
use proptest::collection::vec;
use proptest::prelude::*;
use sample::{every_step, row_tiles, sparse};

/// Parses a program and runs it if it is valid. Returns whether it is.
fn survives(code: &[u8], weights: &[u8]) -> bool {
    Program::parse(code, weights).is_ok_and(runs)
}

/// The same for weights packed for the kernels of this processor.
fn survives_packed(code: &[u8], weights: &[u8]) -> bool {
    let Some(packing) = Isa::detect().packing() else { return true };
    Program::parse_packed(code, weights, packing).is_ok_and(runs)
}

/// An output in each type that it can have.
type Buffer = (PortType, Vec<f32>, Vec<i8>, Vec<u8>);

fn outputs(buffers: &mut [Buffer]) -> Vec<Output<'_>> {
    buffers
        .iter_mut()
        .map(|(element, reals, signed, bytes)| match element {
            PortType::F32 => Output::F32(reals),
            PortType::I8 => Output::I8(signed),
            PortType::U8 => Output::U8(bytes),
        })
        .collect()
}

/// Returns the results, which may be NaN.
fn bits(buffers: &[Buffer]) -> Vec<u32> {
    let mut bits = Vec::new();
    for (element, reals, signed, bytes) in buffers {
        match element {
            PortType::F32 => bits.extend(reals.iter().map(|real| real.to_bits())),
            PortType::I8 => bits.extend(signed.iter().map(|number| *number as u32)),
            PortType::U8 => bits.extend(bytes.iter().map(|byte| u32::from(*byte))),
        }
    }
    bits
}

fn runs(program: Program<&[u8]>) -> bool {
    let large = |port: Port| port.elements > 1 << 16;
    if program.arena_bytes() > 1 << 20 || program.inputs().chain(program.outputs()).any(large) {
        return true;
    }
    let values: Vec<(PortType, Vec<f32>, Vec<u8>)> = program
        .inputs()
        .map(|port| {
            let count = port.elements as usize;
            let values = (0..count).map(|i| (i as f32).tan()).collect();
            (port.element, values, (0..count).map(|i| i as u8).collect())
        })
        .collect();
    let signed: Vec<Vec<i8>> =
        values.iter().map(|(_, _, bytes)| bytes.iter().map(|&x| x as i8).collect()).collect();
    let inputs: Vec<Input<'_>> = values
        .iter()
        .zip(&signed)
        .map(|((element, reals, bytes), signed)| match element {
            PortType::F32 => Input::F32(reals),
            PortType::I8 => Input::I8(signed),
            PortType::U8 => Input::U8(bytes),
        })
        .collect();
    let mut buffers: Vec<Buffer> = program
        .outputs()
        .map(|port| {
            let count = port.elements as usize;
            (port.element, vec![0f32; count], vec![0i8; count], vec![0u8; count])
        })
        .collect();
    if program.packing().is_none() {
        let mut arena = vec![-128; program.arena_bytes()];
        program
            .run(&ReferenceKernels::SCALAR, &mut arena, &inputs, &mut outputs(&mut buffers))
            .expect("buffers fit");
    }
    // What the arena held before must not matter, whatever the program says.
    let mut results = Vec::new();
    for before in [0x80, 0x35] {
        for isa in [Isa::detect(), Isa::Scalar] {
            let Ok(executor) = Executor::new(program.clone(), isa) else { continue };
            let mut arena = vec![before; executor.arena_bytes()];
            let mut outputs = outputs(&mut buffers);
            executor.run(&Alone, &mut arena, &inputs, &mut outputs).expect("buffers fit");
            results.push(bits(&buffers));
        }
    }
    let (first, second) = results.split_at(results.len() / 2);
    assert!(first == second, "the result depends on old bytes");
    true
}

#[test]
fn no_single_wrong_byte_causes_a_panic() {
    for built in [every_step(), row_tiles(), sparse()] {
        single_bytes(&built.code, &built.weights, survives);
    }
}

#[test]
fn no_single_wrong_byte_of_a_packed_program_causes_a_panic() {
    for built in [every_step(), row_tiles(), sparse()] {
        let program = Program::parse(&built.code[..], &built.weights[..]).unwrap();
        let packed = program.pack(Isa::detect().packing()).unwrap();
        single_bytes(&built.code, packed.bytes(), |code, weights| {
            // Aligned, so that the executor uses the weights in place.
            survives_packed(code, Aligned::copied(weights).bytes())
        });
    }
}

fn single_bytes(code: &[u8], weights: &[u8], survives: impl Fn(&[u8], &[u8]) -> bool) {
    assert!(survives(code, weights));
    for index in 0..code.len() {
        for value in [0, 1, 2, 15, 16, 127, 128, 254, 255] {
            let mut wrong = code.to_vec();
            wrong[index] = value;
            survives(&wrong, weights);
            wrong[index] = code[index] ^ value;
            survives(&wrong, weights);
        }
    }
    for index in 0..weights.len() {
        let mut wrong = weights.to_vec();
        wrong[index] ^= 0xff;
        survives(code, &wrong);
    }
}

#[test]
fn only_the_right_length_parses() {
    let built = every_step();
    for length in 0..built.code.len() {
        assert!(Program::parse(&built.code[..length], &built.weights[..]).is_err(), "{length}");
    }
    let longer = [&built.code[..], &[0]].concat();
    assert!(matches!(
        Program::parse(&longer[..], &built.weights[..]),
        Err(ProgramError::Length { .. })
    ));
    let short = &built.weights[..built.weights.len() - 4];
    assert!(matches!(
        Program::parse(&built.code[..], short),
        Err(ProgramError::WeightsLength { .. })
    ));
}

#[test]
fn unaligned_weights_are_rejected() {
    let built = every_step();
    for start in 0..4 {
        let mut shifted = vec![0; start];
        shifted.extend_from_slice(&built.weights);
        let weights = &shifted[start..];
        let parsed = Program::parse(&built.code[..], weights).map(drop);
        let aligned = weights.as_ptr().addr().is_multiple_of(4);
        let expected = if aligned { Ok(()) } else { Err(ProgramError::WeightsAlignment) };
        assert_eq!(parsed, expected, "at {start}");
    }
}

#[test]
fn malformed_sparse_weights_are_rejected() {
    let built = sparse();
    let program = Program::parse(&built.code[..], &built.weights[..]).unwrap();
    let (index, conv) = program
        .steps()
        .enumerate()
        .find_map(|(index, step)| match step {
            Step::Sparse(tile) => Some((index as u32, tile.conv)),
            _ => None,
        })
        .unwrap();
    let refused = Err(ProgramError::Step { index, kind: "Sparse", problem: Problem::Sparse });
    let form = conv.weights.offset as usize;
    // Flips a bit of the number of rows, of their depth, of an element in the bitmap, and of one
    // beyond the last element.
    for (at, byte) in [(0, 1), (4, 1), (8, 1), (15, 0x80)] {
        let mut weights = built.weights.clone();
        weights[form + at] ^= byte;
        assert_eq!(Program::parse(&built.code[..], &weights[..]).map(drop), refused, "{at}");
    }
    let mut weights = built.weights.clone();
    weights[form + conv.weights.length as usize - 1] = 0;
    assert_eq!(Program::parse(&built.code[..], &weights[..]).map(drop), refused);
    // Packed weights can have a different number of nonzero weights than the sparse range fits.
    let packing = hardtack_kernels::packed::Packing::NeonDot;
    let packed = program.pack(Some(packing)).unwrap();
    let mut fewer = Aligned::copied(packed.bytes());
    let weights = &built.weights[form..][..conv.weights.length as usize];
    let last = *weights.last().unwrap();
    let found = fewer.bytes().windows(2).position(|two| two == [last, 0]).unwrap();
    fewer.bytes_mut()[found] = 0;
    let program = Program::parse_packed(&built.code[..], fewer.bytes(), packing).unwrap();
    assert_eq!(program.pack(None).map(drop), refused);
}

#[test]
fn errors_name_unknown_kinds_and_versions() {
    let built = every_step();
    let first_step = built.code.len() - {
        let word = |at: usize| u32::from_le_bytes(built.code[at..at + 4].try_into().unwrap());
        (word(28) + word(32)) as usize
    };
    let parse = |at: usize, value: u8| {
        let mut code = built.code.clone();
        code[at] = value;
        Program::parse(&code[..], &built.weights[..]).map(drop).unwrap_err()
    };
    let error = parse(first_step, 200);
    assert_eq!(error, ProgramError::UnknownStep { index: 0, id: 200 });
    assert!(error.to_string().contains("200"));
    let error = parse(first_step + 2, 9);
    assert_eq!(error, ProgramError::StepVersion { index: 0, kind: "Quantize", version: 9 });
    assert_eq!(parse(4, 2), ProgramError::Version(2));
    assert_eq!(parse(6, 3), ProgramError::Family(3));
    assert_eq!(parse(0, 0), ProgramError::Magic);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn no_set_of_wrong_bytes_causes_a_panic(
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        weight_changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        program in 0..3,
    ) {
        let built = [every_step, row_tiles, sparse][program as usize]();
        let (mut code, mut weights) = (built.code, built.weights);
        for (index, value) in changes {
            let index = index.index(code.len());
            code[index] = value;
        }
        for (index, value) in weight_changes {
            let index = index.index(weights.len());
            weights[index] = value;
        }
        survives(&code, &weights);
    }

    #[test]
    fn no_bytes_cause_a_panic(code in vec(any::<u8>(), 0..200), weights in vec(any::<u8>(), 0..32)) {
        survives(&code, &weights);
        let headed = [b"HTKP\x01\0\0\0", &code[..]].concat();
        survives(&headed, &weights);
    }
}
