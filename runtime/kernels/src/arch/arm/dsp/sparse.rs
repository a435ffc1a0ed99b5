//! Convolution whose weights have no zeros: the next of them is found by counting zeros before its
//! bit.

use core::arch::asm;

use crate::Conv;
use crate::scalar::{Products, sparse_by};
use crate::sparse::{Row, WORD, word};

/// See [`Kernels::sparse`](crate::Kernels::sparse).
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
            // The first element is that of the highest bit.
            let bits = word(bits).reverse_bits();
            let enough = weights.len() >= WORD || weights.len() >= bits.count_ones() as usize;
            if bits == 0 || !enough {
                continue;
            }
            let windows = windows.as_ptr().cast();
            // SAFETY: there are a weight for each bit, of which there is one, and 32 elements of `P`
            // windows, at a multiple of 4, as the size of 32 is.
            let end = unsafe {
                match sums.as_mut_slice() {
                    [sum] => add_one(bits, weights.as_ptr(), windows, sum),
                    [a, b, c, d] => add_four(bits, weights.as_ptr(), windows, [a, b, c, d]),
                    _ => unreachable!("windows come alone or by fours"),
                }
            };
            weights = &weights[end.addr() - weights.as_ptr().addr()..];
        }
        Row { bits: left, weights }
    }
}

/// Thumb has this in one instruction.
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

/// Adds the products of weights with the elements that `bits` has of 32; where the next weight is.
///
/// # Safety
/// There are as many weights as bits, at least one, and 32 elements.
#[inline(always)]
unsafe fn add_one(
    bits: u32,
    mut weights: *const i8,
    elements: *const i16,
    sum: &mut i32,
) -> *const i8 {
    // SAFETY: reads a weight for each bit, and elements at their places, below 32.
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

/// The same for four windows, whose elements stand in turn.
///
/// # Safety
/// There are as many weights as bits, at least one, and 32 elements of each window, at a multiple of 4.
#[inline(always)]
unsafe fn add_four(
    bits: u32,
    mut weights: *const i8,
    elements: *const i16,
    [a, b, c, d]: [&mut i32; 4],
) -> *const i8 {
    // SAFETY: reads a weight for each bit, and four elements at their places, below 32.
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
