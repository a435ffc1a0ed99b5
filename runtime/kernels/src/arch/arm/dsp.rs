//! Arm's instructions for two products of 16 bits, which Cortex-M4, M7 and most M33 have, and
//! every larger 32-bit processor.

use core::arch::asm;

use crate::scalar::{self, DEPTH, Product};
use crate::{Conv, Kernels, Requantize};

/// The definition, with two products at once where products are most of the work.
pub(crate) const KERNELS: Kernels = Kernels { conv, ..Kernels::SCALAR };

fn conv(conv: &Conv<'_>, output: &mut [i8]) {
    if conv.is_depthwise() {
        return depthwise(conv, output);
    }
    scalar::dense::<Dual>(conv, output);
}

/// Bytes 0 and 2 of a word, as two i16.
#[inline(always)]
fn even(word: u32) -> u32 {
    let result;
    // SAFETY: registers only.
    unsafe {
        asm!("sxtb16 {}, {}", out(reg) result, in(reg) word, options(pure, nomem, nostack));
    }
    result
}

/// Bytes 1 and 3 of a word, as two i16.
#[inline(always)]
fn odd(word: u32) -> u32 {
    let result;
    // SAFETY: registers only.
    unsafe {
        asm!(
            "sxtb16 {}, {}, ror #8",
            out(reg) result,
            in(reg) word,
            options(pure, nomem, nostack),
        );
    }
    result
}

/// The low halves of both, the first below.
#[inline(always)]
fn low_halves(a: u32, b: u32) -> u32 {
    a & 0xffff | b << 16
}

/// The high halves of both, the first below.
#[inline(always)]
fn high_halves(a: u32, b: u32) -> u32 {
    a >> 16 | b & 0xffff_0000
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

/// `sum + a0 · b0 + a1 · b1`, wrapping.
#[inline(always)]
fn add_products(sum: i32, a: u32, b: u32) -> i32 {
    let result;
    // SAFETY: registers only; the flag it sets is declared by not preserving them.
    unsafe {
        asm!(
            "smlad {}, {}, {}, {}",
            out(reg) result,
            in(reg) a,
            in(reg) b,
            in(reg) sum,
            options(pure, nomem, nostack),
        );
    }
    result
}

/// `sum + a0 · b0`, wrapping.
#[inline(always)]
fn add_low(sum: i32, a: u32, b: u32) -> i32 {
    sum.wrapping_add(i32::from(a as i16).wrapping_mul(i32::from(b as i16)))
}

/// `sum + a1 · b1`, wrapping.
#[inline(always)]
fn add_high(sum: i32, a: u32, b: u32) -> i32 {
    sum.wrapping_add(((a as i32) >> 16).wrapping_mul((b as i32) >> 16))
}

/// Four bytes as a word.
#[inline(always)]
fn word(bytes: &[i8]) -> u32 {
    u32::from_le_bytes([bytes[0] as u8, bytes[1] as u8, bytes[2] as u8, bytes[3] as u8])
}

/// Two i16 as a word.
#[inline(always)]
fn pair(values: &[i16]) -> u32 {
    u32::from(values[0] as u16) | u32::from(values[1] as u16) << 16
}

/// Windows that share the weights in registers.
const TOGETHER: usize = 4;

/// Two products at once.
struct Dual;

impl Product for Dual {
    #[inline(always)]
    fn dot<const P: usize>(row: &[i8], windows: &[[i16; DEPTH]; P]) -> [i32; P] {
        let mut sums = [0; P];
        let (fours, rest) = windows.as_chunks::<TOGETHER>();
        let (some, last) = sums.as_chunks_mut::<TOGETHER>();
        for (sums, windows) in some.iter_mut().zip(fours) {
            *sums = together(row, windows);
        }
        for (sum, window) in last.iter_mut().zip(rest) {
            *sum = alone(row, window);
        }
        sums
    }
}

/// Products of a row with the beginnings of some windows.
fn together(row: &[i8], windows: &[[i16; DEPTH]; TOGETHER]) -> [i32; TOGETHER] {
    let length = row.len().min(DEPTH);
    let (words, rest) = row[..length].as_chunks::<4>();
    let [mut a, mut b, mut c, mut d] = [0i32; TOGETHER];
    if !words.is_empty() {
        const { assert!(2 * DEPTH == 512) };
        let range = words.as_ptr_range();
        // SAFETY: reads the words of the row, and of each window, 512 bytes apart, as many pairs
        // of i16 as there are pairs of weights. These processors read words at any address.
        unsafe {
            asm!(
                "2:",
                "ldr {w}, [{row}], #4",
                "ldr {x}, [{window}, #512]",
                "sxtb16 {v}, {w}",
                "sxtb16 {w}, {w}, ror #8",
                "pkhbt {u}, {v}, {w}, lsl #16",
                "pkhtb {w}, {w}, {v}, asr #16",
                "ldr {v}, [{window}, #516]",
                "smlad {b}, {x}, {u}, {b}",
                "smlad {b}, {v}, {w}, {b}",
                "ldr {x}, [{window}, #1024]",
                "ldr {v}, [{window}, #1028]",
                "smlad {c}, {x}, {u}, {c}",
                "smlad {c}, {v}, {w}, {c}",
                "ldr {x}, [{window}, #1536]",
                "ldr {v}, [{window}, #1540]",
                "smlad {d}, {x}, {u}, {d}",
                "smlad {d}, {v}, {w}, {d}",
                "ldr {v}, [{window}, #4]",
                "ldr {x}, [{window}], #8",
                "smlad {a}, {x}, {u}, {a}",
                "smlad {a}, {v}, {w}, {a}",
                "cmp {row}, {end}",
                "bne 2b",
                row = inout(reg) range.start => _,
                end = in(reg) range.end,
                window = inout(reg) windows.as_ptr() => _,
                a = inout(reg) a,
                b = inout(reg) b,
                c = inout(reg) c,
                d = inout(reg) d,
                u = out(reg) _,
                v = out(reg) _,
                w = out(reg) _,
                x = out(reg) _,
                options(pure, readonly, nostack),
            );
        }
    }
    let mut sums = [a, b, c, d];
    for (sum, window) in sums.iter_mut().zip(windows) {
        let window = &window[4 * words.len()..length];
        for (&weight, &value) in rest.iter().zip(window) {
            *sum = sum.wrapping_add(i32::from(weight) * i32::from(value));
        }
    }
    sums
}

/// Products of a row with the beginning of a window.
fn alone(row: &[i8], window: &[i16; DEPTH]) -> i32 {
    let length = row.len().min(DEPTH);
    let (words, rest) = row[..length].as_chunks::<4>();
    let (pairs, last) = window[..length].as_chunks::<4>();
    let mut sum = 0;
    for (&four, values) in words.iter().zip(pairs) {
        let four = word(&four);
        let (even, odd) = (even(four), odd(four));
        sum = add_products(sum, pair(&values[..2]), low_halves(even, odd));
        sum = add_products(sum, pair(&values[2..]), high_halves(even, odd));
    }
    let products = rest.iter().zip(last).map(|(&w, &x)| i32::from(w) * i32::from(x));
    products.fold(sum, i32::wrapping_add)
}

/// Elements of a window that [`depthwise`] has room for.
const TAPS: usize = 25;

/// A depthwise [`Conv`], four channels at a time with their sums in registers.
fn depthwise(conv: &Conv<'_>, output: &mut [i8]) {
    let channels = conv.output_shape.channels;
    let [height, width] = conv.window.kernel;
    if !channels.is_multiple_of(4) || height * width > TAPS {
        return (Kernels::SCALAR.conv)(conv, output);
    }
    let requantize = Requantize::new(conv.output_zero_point, conv.clamp);
    let zero = u32::from(i16::from(conv.zero_point) as u16);
    let zeros = zero | zero << 16;
    for row in 0..conv.output_shape.height {
        let rows = conv.window.taps(0, row, conv.input_shape.height);
        for column in 0..conv.output_shape.width {
            let columns = conv.window.taps(1, column, conv.input_shape.width);
            // Where the window's elements in the image lie, and their weights.
            let (mut taps, mut count) = ([(0, 0); TAPS], 0);
            for tap_row in rows.range.clone() {
                let line = rows.position(tap_row) * conv.input_shape.width;
                for tap_column in columns.range.clone() {
                    let pixel = line + columns.position(tap_column);
                    let tap = tap_row * width + tap_column;
                    taps[count] = (pixel * channels, tap * channels);
                    count += 1;
                }
            }
            let at = (row * conv.output_shape.width + column) * channels;
            for channel in (0..channels).step_by(4) {
                let bias = &conv.bias[channel..channel + 4];
                let mut sums = [bias[0], bias[1], bias[2], bias[3]];
                for &(input, weights) in &taps[..count] {
                    let values = word(&conv.input[input + channel..][..4]);
                    let weights = word(&conv.weights[weights + channel..][..4]);
                    let (evens, odds) =
                        (subtract(even(values), zeros), subtract(odd(values), zeros));
                    let (even_weights, odd_weights) = (even(weights), odd(weights));
                    sums[0] = add_low(sums[0], evens, even_weights);
                    sums[1] = add_low(sums[1], odds, odd_weights);
                    sums[2] = add_high(sums[2], evens, even_weights);
                    sums[3] = add_high(sums[3], odds, odd_weights);
                }
                scalar::finish(conv, &requantize, channel, &sums, at + channel, output);
            }
        }
    }
}
