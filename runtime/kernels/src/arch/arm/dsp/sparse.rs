//! Convolution with sparse weights. Counting the leading zeros of the bitmap gives the position of
//! the next nonzero weight.
//!
//! All inline assembly requires the DSP extension, which the feature `dsp` implies.

use core::arch::asm;

use crate::Conv;
use crate::scalar::{Products, sparse_by};
use crate::sparse::{Row, WORD, word};

/// Runs a convolution with sparse weights: see
/// [`ReferenceKernels::sparse`](crate::ReferenceKernels::sparse).
pub(super) fn sparse(conv: &Conv<'_>, output: &mut [i8]) {
    sparse_by::<BitByBit>(conv, output);
}

struct BitByBit;

impl Products for BitByBit {
    #[inline(always)]
    fn add<'a, const P: usize>(row: Row<'a>, windows: &[[i16; P]], sums: &mut [i32; P]) -> Row<'a> {
        assert!(windows.as_ptr().addr().is_multiple_of(4));
        let Row { bits, mut weights } = row;
        let (words, left) = bits.split_at(windows.len() / WORD);
        for (&bits, windows) in words.iter().zip(windows.as_chunks::<WORD>().0) {
            // After the reversal, the highest bit belongs to the first element.
            let bits = word(bits).reverse_bits();
            let enough = weights.len() >= WORD || weights.len() >= bits.count_ones() as usize;
            if bits == 0 || !enough {
                continue;
            }
            let windows = windows.as_ptr().cast();
            // SAFETY: at least one bit is set, and `weights` has an element for each set bit, as
            // checked above. `windows` has 32 elements of `P` windows and is aligned to 4: the
            // assertion checked the first word, and the size of a word is a multiple of 4.
            let end = unsafe {
                match sums.as_mut_slice() {
                    [sum] => add_one(bits, weights.as_ptr(), windows, sum),
                    [a, b, c, d] => add_four(bits, weights.as_ptr(), windows, [a, b, c, d]),
                    _ => unreachable!("blocks have one or four windows"),
                }
            };
            weights = &weights[end.addr() - weights.as_ptr().addr()..];
        }
        Row { bits: left, weights }
    }
}

/// Loads the element at `{place}`: one instruction in Thumb, two in Arm.
#[cfg(target_os = "none")]
macro_rules! load_element {
    () => {
        "ldrsh {element}, [{elements}, {place}, lsl #1]"
    };
}
#[cfg(not(target_os = "none"))]
macro_rules! load_element {
    () => {
        "add {element}, {elements}, {place}, lsl #1\nldrsh {element}, [{element}]"
    };
}

/// Multiplies weights with the elements selected by `bits` and adds to the accumulator. Returns the
/// address of the next weight.
///
/// # Safety
/// At least one bit must be set. `weights` must have a readable element per set bit, and `elements`
/// must have 32.
#[inline(always)]
unsafe fn add_one(
    bits: u32,
    mut weights: *const i8,
    elements: *const i16,
    sum: &mut i32,
) -> *const i8 {
    // SAFETY: reads one weight per set bit, and the elements at the positions of these bits, which
    // are below 32. The caller guarantees that these are readable.
    unsafe {
        asm!(
            "2:",
            "clz {place}, {bits}",
            "ldrsb {weight}, [{weights}], #1",
            load_element!(),
            "lsr {place}, {highest}, {place}",
            "smlabb {sum}, {element}, {weight}, {sum}",
            "bics {bits}, {bits}, {place}",
            "bne 2b",
            bits = inout(reg) bits => _,
            highest = in(reg) 1u32 << 31,
            weights = inout(reg) weights,
            elements = in(reg) elements,
            sum = inout(reg) *sum,
            place = out(reg) _,
            weight = out(reg) _,
            element = out(reg) _,
            options(readonly, nostack),
        );
    }
    weights
}

/// The same for four windows with interleaved elements.
///
/// # Safety
/// At least one bit must be set. `weights` must have a readable element per set bit. `elements`
/// must have 32 elements of each window and be aligned to 4.
#[inline(always)]
unsafe fn add_four(
    bits: u32,
    mut weights: *const i8,
    elements: *const i16,
    [a, b, c, d]: [&mut i32; 4],
) -> *const i8 {
    // SAFETY: reads one weight per set bit, and four elements at the positions of these bits, which
    // are below 32. The caller guarantees that these are readable and aligned for `ldrd`.
    unsafe {
        asm!(
            "2:",
            "clz {place}, {bits}",
            "ldrsb {weight}, [{weights}], #1",
            "add {elements}, {elements}, {place}, lsl #3",
            "ldrd r2, r3, [{elements}], #8",
            "lsl {bits}, {bits}, {place}",
            "smlabb {a}, r2, {weight}, {a}",
            "smlatb {b}, r2, {weight}, {b}",
            "smlabb {c}, r3, {weight}, {c}",
            "smlatb {d}, r3, {weight}, {d}",
            "lsls {bits}, {bits}, #1",
            "bne 2b",
            bits = inout(reg) bits => _,
            weights = inout(reg) weights,
            elements = inout(reg) elements => _,
            a = inout(reg) *a,
            b = inout(reg) *b,
            c = inout(reg) *c,
            d = inout(reg) *d,
            place = out(reg) _,
            weight = out(reg) _,
            out("r2") _,
            out("r3") _,
            options(readonly, nostack),
        );
    }
    weights
}
