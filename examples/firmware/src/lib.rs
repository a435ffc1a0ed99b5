//! A bundle in the flash of a microcontroller: its program runs where it lies, in an arena that is
//! a static, without an allocator.
#![no_std]

use hardtack_bundle::{Bundle, Family};
use hardtack_engine::{Input, Output, Program};
use hardtack_kernels::Kernels;

#[cfg(target_os = "none")]
pub mod board;
mod conversion;
pub mod protocol;

pub use conversion::Sent;

/// At a multiple of 64, as in a file.
#[repr(align(64))]
pub struct Aligned<T>(pub T);

include!(concat!(env!("OUT_DIR"), "/bundle.rs"));

/// Everything that an inference writes, its input and its output.
#[repr(C, align(64))]
pub struct Memory {
    arena: Aligned<[i8; ARENA_SIZE]>,
    /// What the network is given.
    pub input: [i8; INPUT_SIZE],
    /// What it gave.
    pub output: [i8; OUTPUT_SIZE],
}

impl Memory {
    /// Of zeros.
    pub const fn new() -> Self {
        Self { arena: Aligned([0; ARENA_SIZE]), input: [0; INPUT_SIZE], output: [0; OUTPUT_SIZE] }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

/// Why a bundle does not run here. The errors behind it would tell more, at the price of some
/// kilobytes of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its bytes are not those of a bundle.
    Damaged,
    /// A part of it is in float.
    Float,
    /// Its weights are laid out for another family of processors.
    Family(Family),
    /// Its program breaks a rule.
    Program,
}

impl Refusal {
    /// For people: what is wrong; with [`Refusal::name`] between them, what to do.
    pub fn told(self) -> [&'static str; 2] {
        match self {
            Self::Damaged => ["the bundle is damaged; flash it again", ""],
            Self::Float => ["the bundle has no integer program; convert it with --int8", ""],
            Self::Family(_) => {
                ["the bundle is made for ", "; convert it with --target generic or a board's name"]
            }
            Self::Program => ["the program is malformed; convert it with this release", ""],
        }
    }

    /// The name of the family that it is made for.
    pub fn name(self) -> &'static str {
        match self {
            Self::Family(family) => family.name(),
            _ => "",
        }
    }
}

/// A network in flash.
pub struct Network {
    program: Program<&'static [u8]>,
    /// Scales and zero points of the input and the output.
    input: (f32, i8),
    output: (f32, i8),
}

impl Network {
    /// That of a bundle.
    ///
    /// # Errors
    /// Why it does not run here.
    pub fn of(bundle: &Bundle<'static>) -> Result<Self, Refusal> {
        let code = bundle.program(0).ok_or(Refusal::Float)?;
        let weights = bundle
            .weights(0, Family::Mcu)
            .ok_or_else(|| bundle.families(0).next().map_or(Refusal::Float, Refusal::Family))?;
        let program = Program::parse(code, weights).map_err(|_| Refusal::Program)?;
        let input = program.input_quantization(0).ok_or(Refusal::Program)?;
        let output = program.output_quantization(0).ok_or(Refusal::Program)?;
        Ok(Self { program, input, output })
    }

    /// Makes the output of the input.
    ///
    /// # Errors
    /// [`Refusal::Program`] where the bundle is another than that the memory was made for.
    pub fn infer(&self, memory: &mut Memory) -> Result<(), Refusal> {
        let Memory { arena, input, output } = memory;
        let (inputs, mut outputs) = ([Input::I8(input)], [Output::I8(output)]);
        let run = self.program.run(&Kernels::NATIVE, &mut arena.0, &inputs, &mut outputs);
        run.map_err(|_| Refusal::Program)
    }

    /// What an element of the output stands for.
    pub fn real(&self, integer: i8) -> f32 {
        real(integer, self.output)
    }

    /// The mean of the squared differences of input and output: how unlike what an autoencoder
    /// has learnt an input is.
    pub fn anomaly(&self, memory: &Memory) -> f32 {
        let pairs = memory.input.iter().zip(&memory.output);
        let differences = pairs.map(|(a, b)| real(*a, self.input) - real(*b, self.output));
        differences.map(|difference| difference * difference).sum::<f32>() / INPUT_SIZE as f32
    }
}

fn real(integer: i8, (scale, zero_point): (f32, i8)) -> f32 {
    (i32::from(integer) - i32::from(zero_point)) as f32 * scale
}

/// The bundle in flash. Reads all of it and compares every digest: a flipped bit of a weight would
/// change results without an error.
///
/// # Errors
/// [`Refusal::Damaged`] where it is not a bundle or a digest differs.
pub fn bundle() -> Result<Bundle<'static>, Refusal> {
    let verified = Bundle::parse(&BUNDLE.0).and_then(Bundle::verify);
    verified.map(|verified| verified.bundle()).map_err(|_| Refusal::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_for_other_processors_is_refused_by_their_name() {
        static PACKED: &[u8] = include_bytes!("../../../tests/frozen/programs/kws_dscnn_neon.tack");
        let refusal = Network::of(&Bundle::parse(PACKED).unwrap()).err().unwrap();
        assert_eq!(refusal, Refusal::Family(Family::NeonDot));
        assert_eq!(refusal.name(), "neon-dot");
        assert!(refusal.told()[0].ends_with("is made for "));
        assert!(Network::of(&bundle().unwrap()).is_ok());
    }
}
