//! Arm's instructions for two products of 16 bits, which Cortex-M4, M7 and most M33 have, and
//! every larger 32-bit processor.
//!
//! Four bytes of a word become two words of two i16 each: bytes 0 and 2 (`even`), 1 and 3 (`odd`).
//! Weights and activations do so alike, so that no product needs them in their order.

mod dense;
mod depthwise;
mod finish;
#[cfg(feature = "sparse")]
mod sparse;

use core::arch::asm;

use crate::{Conv, Kernels};

/// The definition, with two products at once where products are most of the work.
pub(crate) const KERNELS: Kernels = Kernels {
    conv,
    #[cfg(feature = "sparse")]
    sparse: sparse::sparse,
    ..Kernels::SCALAR
};

fn conv(conv: &Conv<'_>, output: &mut [i8]) {
    if !conv.is_depthwise() {
        return dense::dense(conv, output);
    }
    if !depthwise::depthwise(conv, output) {
        (Kernels::SCALAR.conv)(conv, output);
    }
}

/// Bytes 0 and 2 of a word, and bytes 1 and 3, as two i16 each.
#[inline(always)]
fn halves(word: u32) -> [u32; 2] {
    let (even, odd);
    // SAFETY: registers only.
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

/// Differences of two i16 each.
#[inline(always)]
fn subtract(a: u32, b: u32) -> u32 {
    let result;
    // SAFETY: registers only; the flags it sets are declared by not preserving them.
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

/// A number of 16 bits twice in a word.
fn twice(number: i8) -> u32 {
    let half = u32::from(i16::from(number) as u16);
    half | half << 16
}
