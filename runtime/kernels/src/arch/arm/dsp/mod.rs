//! Kernels for the Arm DSP extension (dual 16-bit multiply-accumulate) of Cortex-M4, M7 and most
//! M33, and of all larger 32-bit processors.
//!
//! The four bytes of a word become two words of two i16 each: bytes 0 and 2 (`even`), and bytes 1
//! and 3 (`odd`). Weights and activations are split in the same way, so products match without
//! reordering.

mod dense;
mod depthwise;
mod epilogue;
#[cfg(feature = "sparse")]
mod sparse;

use core::arch::asm;

use crate::{Conv, ReferenceKernels};

/// The reference kernels, with convolutions replaced by those of this module.
pub(crate) const KERNELS: ReferenceKernels = ReferenceKernels {
    conv,
    #[cfg(feature = "sparse")]
    sparse: sparse::sparse,
    ..ReferenceKernels::SCALAR
};

fn conv(conv: &Conv<'_>, output: &mut [i8]) {
    if !conv.is_depthwise() {
        return dense::dense(conv, output);
    }
    if !depthwise::depthwise(conv, output) {
        (ReferenceKernels::SCALAR.conv)(conv, output);
    }
}

/// Returns bytes 0 and 2 of a word, and bytes 1 and 3, as two i16 each.
#[inline(always)]
fn halves(word: u32) -> [u32; 2] {
    let (even, odd);
    // SAFETY: the module is compiled only with the feature `dsp`, which requires a CPU with the DSP
    // extension. The instructions access only registers.
    unsafe {
        asm!(
            "sxtb16 {even}, {word}",
            "sxtb16 {odd}, {word}, ror #8",
            even = out(reg) even,
            odd = lateout(reg) odd,
            word = in(reg) word,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    [even, odd]
}

/// Subtracts two pairs of i16.
#[inline(always)]
fn subtract(a: u32, b: u32) -> u32 {
    let result;
    // SAFETY: the feature `dsp` requires a CPU with the DSP extension. The instruction accesses
    // only registers and flags, and the options do not claim to preserve flags.
    unsafe {
        asm!(
            "ssub16 {}, {}, {}",
            out(reg) result,
            in(reg) a,
            in(reg) b,
            options(pure, nomem, nostack),
        );
    }
    result
}

/// Returns a number as two i16 in a word.
fn twice(number: i8) -> u32 {
    let half = u32::from(i16::from(number) as u16);
    half | half << 16
}
