//! A bundle in the flash of a microcontroller: its program runs where it lies, in an arena that is
//! a static, without an allocator. Tells over semihosting whether the golden vectors hold, and how
//! many instructions an inference takes.
#![no_std]
#![no_main]

use core::fmt::Write as _;
use core::panic::PanicInfo;

use cortex_m::peripheral::SYST;
use cortex_m::peripheral::syst::SystClkSource;
use cortex_m_rt::entry;
use cortex_m_semihosting::{debug, hio};
use hardtack_bundle::golden::{Content, Vector};
use hardtack_bundle::{Bundle, Family};
use hardtack_engine::{Input, Output, Program};
use hardtack_kernels::Kernels;

/// At a multiple of 64, as in a file.
#[repr(align(64))]
struct Aligned<T>(T);

include!(concat!(env!("OUT_DIR"), "/bundle.rs"));

/// Everything that an inference writes.
struct Memory {
    arena: Aligned<[i8; ARENA_SIZE]>,
    input: [f32; INPUT_SIZE],
    output: [f32; OUTPUT_SIZE],
}

/// Why the bundle was not checked. The errors behind it would tell more, at the price of some
/// kilobytes of text.
#[derive(Clone, Copy)]
enum Failure {
    Bundle,
    NoProgram,
    Program,
    Run,
    Vector,
}

impl Failure {
    fn told(self) -> &'static str {
        match self {
            Self::Bundle => "the bundle is damaged",
            Self::NoProgram => "the bundle has no integer program with weights of the family mcu",
            Self::Program => "the program is malformed",
            Self::Run => "the program wants other inputs or outputs",
            Self::Vector => "a golden vector is of another size than the program's port",
        }
    }
}

/// What was found.
struct Checked {
    cases: usize,
    equal: usize,
    /// Of the last inference.
    instructions: u64,
}

fn check(memory: &mut Memory, clock: &mut SYST) -> Result<Checked, Failure> {
    let bundle = Bundle::parse(&BUNDLE.0).map_err(|_| Failure::Bundle)?;
    let code = bundle.program(0).ok_or(Failure::NoProgram)?;
    let weights = bundle.weights(0, Family::Mcu).ok_or(Failure::NoProgram)?;
    let program = Program::parse(code, weights).map_err(|_| Failure::Program)?;
    let mut checked = Checked { cases: 0, equal: 0, instructions: 0 };
    let Some(golden) = bundle.golden().map_err(|_| Failure::Bundle)? else { return Ok(checked) };
    for case in golden.cases() {
        let input = case.inputs().next().ok_or(Failure::Vector)?;
        fill(&input, &mut memory.input)?;
        clock.clear_current();
        let before = SYST::get_current();
        let inputs = [Input::F32(&memory.input)];
        let mut outputs = [Output::F32(&mut memory.output)];
        program
            .run(&Kernels::NATIVE, &mut memory.arena.0, &inputs, &mut outputs)
            .map_err(|_| Failure::Run)?;
        let ticks = before.wrapping_sub(SYST::get_current()) & 0x00ff_ffff;
        checked.instructions = u64::from(ticks) * INSTRUCTIONS;
        let expected = case.outputs().next().ok_or(Failure::Vector)?;
        checked.cases += 1;
        checked.equal += usize::from(equals(&expected, &memory.output)?);
    }
    Ok(checked)
}

/// The numbers of a vector.
fn fill(vector: &Vector<'_>, values: &mut [f32]) -> Result<(), Failure> {
    match vector.content {
        Content::Stored(bytes) if bytes.len() == 4 * values.len() => {
            for (value, bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
                *value = f32::from_le_bytes(*bytes);
            }
        }
        Content::Generated(generator) => {
            for (index, value) in values.iter_mut().enumerate() {
                *value = generator.element(index as u64);
            }
        }
        _ => return Err(Failure::Vector),
    }
    Ok(())
}

/// Whether an output is that of the vector, to the bit.
fn equals(vector: &Vector<'_>, values: &[f32]) -> Result<bool, Failure> {
    let (bytes, step) = match vector.content {
        Content::Stored(bytes) => (bytes, 1),
        Content::Sampled { bytes, step } => (bytes, step as usize),
        _ => return Err(Failure::Vector),
    };
    let expected = bytes.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes));
    Ok(values.iter().step_by(step).map(|value| value.to_bits()).eq(expected))
}

#[entry]
fn main() -> ! {
    static mut MEMORY: Memory = Memory {
        arena: Aligned([0; ARENA_SIZE]),
        input: [0.0; INPUT_SIZE],
        output: [0.0; OUTPUT_SIZE],
    };
    let mut clock = cortex_m::Peripherals::take().expect("nobody took them before").SYST;
    clock.set_clock_source(SystClkSource::Core);
    clock.set_reload(0x00ff_ffff);
    clock.enable_counter();
    let found = check(MEMORY, &mut clock);
    if let Ok(mut out) = hio::hstdout() {
        let _ = match &found {
            Ok(Checked { cases, equal, instructions }) => writeln!(
                out,
                "{equal} of {cases} golden vectors equal, {instructions} instructions, arena \
                 {ARENA_SIZE} bytes"
            ),
            Err(failure) => writeln!(out, "{}", failure.told()),
        };
    }
    let well = matches!(found, Ok(Checked { cases, equal, .. }) if cases > 0 && cases == equal);
    loop {
        debug::exit(if well { debug::EXIT_SUCCESS } else { debug::EXIT_FAILURE });
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {
        debug::exit(debug::EXIT_FAILURE);
    }
}
