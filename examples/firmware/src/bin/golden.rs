//! Runs the golden vectors of the bundle in flash. Prints over semihosting whether they match and
//! how many instructions an inference takes.
#![no_std]
#![no_main]

use core::fmt::Write as _;
use core::panic::PanicInfo;

use cortex_m_rt::entry;
use cortex_m_semihosting::{debug, hio};
use hardtack_bundle::golden::{Content, Vector};
use hardtack_firmware::board::Clock;
use hardtack_firmware::{ARENA_SIZE, Memory, Network, Refusal, TICKS_PER_SECOND, bundle};

/// Nanoseconds per second. The emulator executes one instruction per nanosecond.
const NANOSECONDS: u64 = 1_000_000_000;

/// The result of the check.
struct Checked {
    cases: usize,
    equal: usize,
    /// Number of instructions of the last inference.
    instructions: u64,
}

fn check(memory: &mut Memory, clock: &Clock) -> Result<Checked, Refusal> {
    let bundle = bundle()?;
    let network = Network::of(&bundle)?;
    let mut checked = Checked { cases: 0, equal: 0, instructions: 0 };
    let golden = bundle.golden().map_err(|_| Refusal::Damaged)?.ok_or(Refusal::Damaged)?;
    for case in golden.cases() {
        let (Some(input), Some(output)) = (case.inputs().next(), case.outputs().next()) else {
            return Err(Refusal::Damaged);
        };
        fill(&input, &mut memory.input);
        let before = clock.ticks();
        network.infer(memory)?;
        checked.instructions = (clock.ticks() - before) * NANOSECONDS / TICKS_PER_SECOND;
        checked.cases += 1;
        checked.equal += usize::from(equals(&output, &memory.output));
    }
    Ok(checked)
}

/// Fills `integers` with the elements of a vector.
fn fill(vector: &Vector<'_>, integers: &mut [i8]) {
    match vector.content {
        Content::Stored(bytes) | Content::Sampled { bytes, .. } => {
            for (integer, byte) in integers.iter_mut().zip(bytes) {
                *integer = *byte as i8;
            }
        }
        Content::Generated(generator) => {
            for (integer, index) in integers.iter_mut().zip(0..) {
                // Round down.
                let real = generator.element(index);
                *integer = (real as i32 - i32::from((real as i32) as f32 > real)) as i8;
            }
        }
    }
}

/// Returns whether an output matches the vector bit-exactly.
fn equals(vector: &Vector<'_>, integers: &[i8]) -> bool {
    let (bytes, step) = match vector.content {
        Content::Stored(bytes) => (bytes, 1),
        Content::Sampled { bytes, step } => (bytes, step as usize),
        Content::Generated(_) => return false,
    };
    integers.iter().step_by(step).map(|integer| *integer as u8).eq(bytes.iter().copied())
}

#[entry]
fn main() -> ! {
    static mut MEMORY: Memory = Memory::new();
    let peripherals = cortex_m::Peripherals::take().expect("the peripherals are taken only here");
    let found = check(MEMORY, &Clock::start(peripherals.SYST));
    if let Ok(mut out) = hio::hstdout() {
        let _ = match &found {
            Ok(Checked { cases, equal, instructions }) => writeln!(
                out,
                "{equal} of {cases} golden vectors equal, {instructions} instructions, arena \
                 {ARENA_SIZE} bytes"
            ),
            Err(refusal) => {
                let [before, after] = refusal.told();
                writeln!(out, "{before}{}{after}", refusal.name())
            }
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
