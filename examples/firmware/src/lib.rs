//! Runs a bundle from the flash of a microcontroller, in place, with a static arena and without an
//! allocator.
#![no_std]

use hardtack_bundle::{Bundle, Family};
use hardtack_engine::{Input, Output, Program};
use hardtack_kernels::ReferenceKernels;

#[cfg(target_os = "none")]
pub mod board;
mod conversion;
pub mod protocol;

pub use conversion::Sent;

/// A value that is aligned to 64 bytes, like the sections of a bundle.
#[repr(align(64))]
pub struct Aligned<T>(pub T);

include!(concat!(env!("OUT_DIR"), "/bundle.rs"));

/// The memory of an inference: the arena, the input and the output.
#[repr(C, align(64))]
pub struct Memory {
    arena: Aligned<[i8; ARENA_SIZE]>,
    /// The input of the network.
    pub input: [i8; INPUT_SIZE],
    /// The output of the network.
    pub output: [i8; OUTPUT_SIZE],
}

impl Memory {
    /// Creates zeroed memory.
    pub const fn new() -> Self {
        Self { arena: Aligned([0; ARENA_SIZE]), input: [0; INPUT_SIZE], output: [0; OUTPUT_SIZE] }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

/// Why a bundle cannot run on this device. The underlying errors have more detail, but their
/// messages take some kilobytes of flash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The bytes are not a valid bundle.
    Damaged,
    /// The model is not fully integer.
    Float,
    /// The weights are packed for another family of processors.
    Family(Family),
    /// The program is invalid.
    Program,
}

impl Refusal {
    /// Returns the two parts of the error message for users, with [`Refusal::name`] between them.
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

    /// Returns the name of the family that the weights are packed for. Empty for other errors.
    pub fn name(self) -> &'static str {
        match self {
            Self::Family(family) => family.name(),
            _ => "",
        }
    }
}

/// A network whose program and weights are in flash.
pub struct Network {
    program: Program<&'static [u8]>,
    /// Scale and zero point of the input.
    input: (f32, i8),
    /// Scale and zero point of the output.
    output: (f32, i8),
}

impl Network {
    /// Loads the network of a bundle.
    ///
    /// # Errors
    /// Returns an error if the network cannot run on this device.
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

    /// Runs one inference: computes the output from the input.
    ///
    /// # Errors
    /// Returns [`Refusal::Program`] if the memory does not have the sizes of this bundle.
    pub fn infer(&self, memory: &mut Memory) -> Result<(), Refusal> {
        let Memory { arena, input, output } = memory;
        let (inputs, mut outputs) = ([Input::I8(input)], [Output::I8(output)]);
        let run = self.program.run(&ReferenceKernels::NATIVE, &mut arena.0, &inputs, &mut outputs);
        run.map_err(|_| Refusal::Program)
    }

    /// Dequantizes an element of the output.
    pub fn real(&self, integer: i8) -> f32 {
        real(integer, self.output)
    }

    /// Returns the anomaly score of an autoencoder: the mean squared difference of input and
    /// output.
    pub fn anomaly(&self, memory: &Memory) -> f32 {
        let pairs = memory.input.iter().zip(&memory.output);
        let differences = pairs.map(|(a, b)| real(*a, self.input) - real(*b, self.output));
        differences.map(|difference| difference * difference).sum::<f32>() / INPUT_SIZE as f32
    }
}

fn real(integer: i8, (scale, zero_point): (f32, i8)) -> f32 {
    (i32::from(integer) - i32::from(zero_point)) as f32 * scale
}

/// Returns the bundle in flash. Reads all of it and verifies every digest, because a flipped bit in
/// a weight would change results without an error.
///
/// # Errors
/// Returns [`Refusal::Damaged`] if the bytes are not a bundle or a digest does not match.
pub fn bundle() -> Result<Bundle<'static>, Refusal> {
    let verified = Bundle::parse(&BUNDLE.0).and_then(Bundle::verify);
    verified.map(|verified| verified.bundle()).map_err(|_| Refusal::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_for_another_family_is_rejected_with_its_name() {
        static PACKED: &[u8] = include_bytes!("../../../tests/frozen/programs/kws_dscnn_neon.tack");
        let refusal = Network::of(&Bundle::parse(PACKED).unwrap()).err().unwrap();
        assert_eq!(refusal, Refusal::Family(Family::NeonDot));
        assert_eq!(refusal.name(), "neon-dot");
        assert!(refusal.told()[0].ends_with("is made for "));
        assert!(Network::of(&bundle().unwrap()).is_ok());
    }
}
