//! Depthwise convolutions of four channels at a time.
//!
//! All inline assembly requires the DSP extension, which the feature `dsp` implies.

use core::arch::asm;

use super::epilogue::Epilogue;
use super::halves;
use crate::Conv;

/// The maximum number of window elements.
const TAPS: usize = 25;

/// The number of output rows that share an epilogue call.
const ROWS: usize = 4;

/// The weights of four channels for each window element: `[even, odd]`, see [`halves`].
#[repr(align(8))]
struct Weights([[u32; 2]; TAPS]);

/// Runs a depthwise [`Conv`]. Returns `false` without doing anything if the number of channels is
/// not a multiple of four or the window is too large.
pub(super) fn depthwise(conv: &Conv<'_>, output: &mut [i8]) -> bool {
    let channels = conv.output_shape.channels;
    let [height, width] = conv.window.kernel;
    if !channels.is_multiple_of(4) || height.saturating_mul(width) > TAPS {
        return false;
    }
    let epilogue = Epilogue::new(conv);
    let mut weights = Weights([[0; 2]; TAPS]);
    for channel in (0..channels).step_by(4) {
        for (tap, weights) in weights.0[..height * width].iter_mut().enumerate() {
            *weights = halves(word(&conv.weights[tap * channels + channel..][..4]));
        }
        for column in 0..conv.output_shape.width {
            four_channels(conv, &epilogue, &weights, channel, column, output);
        }
    }
    true
}

/// Computes four channels of an output column.
fn four_channels(
    conv: &Conv<'_>,
    epilogue: &Epilogue<'_>,
    weights: &Weights,
    channel: usize,
    column: usize,
    output: &mut [i8],
) {
    let channels = conv.output_shape.channels;
    let [height, width] = conv.window.kernel;
    let columns = conv.window.taps(1, column, conv.input_shape.width);
    let taps = columns.range.len();
    let left = if taps > 0 { columns.position(columns.range.start) } else { 0 };
    // The input distance from a window element to the next one on the right, and below.
    let step = conv.window.dilation[1] * channels;
    let line = conv.input_shape.width * channels;
    let below = conv.window.dilation[0] * line;
    // The bias minus the contribution of the zero point. It depends only on which window rows and
    // columns are inside the image.
    let bias = |rows: core::ops::Range<usize>| {
        let mut bias = [0; 4];
        bias.copy_from_slice(&conv.bias[channel..channel + 4]);
        let zero_point = i32::from(conv.zero_point);
        for row in rows {
            for column in columns.range.clone() {
                let weights = &conv.weights[(row * width + column) * channels + channel..][..4];
                for (bias, &weight) in bias.iter_mut().zip(weights) {
                    *bias = bias.wrapping_sub(zero_point.wrapping_mul(weight.into()));
                }
            }
        }
        bias
    };
    let inside = bias(0..height);
    let span = (height - 1) * conv.window.dilation[0] + 1;
    let (pad, stride) = (conv.window.pad[0], conv.window.stride[0]);
    let sums = |row: usize| {
        let start = row * stride;
        let (rows, top, mut sums) = if start >= pad && start - pad + span <= conv.input_shape.height
        {
            (0..height, start - pad, inside)
        } else {
            let rows = conv.window.taps(0, row, conv.input_shape.height);
            let top = if rows.range.is_empty() { 0 } else { rows.position(rows.range.start) };
            (rows.range.clone(), top, bias(rows.range))
        };
        if taps > 0 && !rows.is_empty() {
            let first = top * line + left * channels + channel;
            // The length from the first element to the last one's four channels. It saturates, so
            // for any shape no element in between is past the end of the slice.
            let down = (rows.len() - 1).saturating_mul(below);
            let length = (taps - 1).saturating_mul(step).saturating_add(down).saturating_add(4);
            let input = &conv.input[first..first.wrapping_add(length)];
            // At most `TAPS`, because `height · width` is.
            let weights = &weights.0[rows.start * width + columns.range.start..];
            assert!((rows.len() - 1) * width + taps <= weights.len());
            // SAFETY: `input` contains four channels of every window element, in rows `below` apart
            // and columns `step` apart. `weights` contains all taps in rows of `width`, as
            // asserted, and is aligned to 8. There is at least one row and one tap.
            unsafe {
                if taps == 3 && width == 3 {
                    add_rows_of_three(
                        input.as_ptr(),
                        step,
                        below,
                        weights.as_ptr(),
                        rows.len(),
                        &mut sums,
                    );
                } else {
                    for row in 0..rows.len() {
                        let input = input.as_ptr().add(row * below);
                        add_row(input, step, weights.as_ptr().add(row * width), taps, &mut sums);
                    }
                }
            }
        }
        sums
    };
    let output_line = conv.output_shape.width * channels;
    let at = |row: usize| row * output_line + column * channels + channel;
    let rows = conv.output_shape.height;
    let mut row = 0;
    while row + ROWS <= rows {
        let mut block = [[0; ROWS]; 4];
        for index in 0..ROWS {
            for (block, sum) in block.iter_mut().zip(sums(row + index)) {
                block[index] = sum;
            }
        }
        epilogue.write(&block, channel, at(row), output_line, output);
        row += ROWS;
    }
    for row in row..rows {
        epilogue.write(sums(row).as_chunks::<1>().0, channel, at(row), 1, output);
    }
}

fn word(bytes: &[i8]) -> u32 {
    u32::from_le_bytes([bytes[0] as u8, bytes[1] as u8, bytes[2] as u8, bytes[3] as u8])
}

/// Multiplies a tap of four channels at an address and adds to the accumulators.
macro_rules! tap {
    ($address:literal) => {
        concat!(
            "ldr {o}, ",
            $address,
            "\n",
            "ldrd r2, r3, [{weights}], #8\n",
            "sxtb16 {e}, {o}\n",
            "sxtb16 {o}, {o}, ror #8\n",
            "smlabb {a}, {e}, r2, {a}\n",
            "smlatt {c}, {e}, r2, {c}\n",
            "smlabb {b}, {o}, r3, {b}\n",
            "smlatt {d}, {o}, r3, {d}",
        )
    };
}

/// Multiplies a row of taps, whose inputs are `step` apart, and adds to the accumulators.
///
/// # Safety
/// `taps` must be at least 1. `weights` must be aligned to 8 and have `taps` readable elements.
/// Four bytes must be readable at `input + i · step` for all i below `taps`; `input` need not be
/// aligned.
#[inline(always)]
unsafe fn add_row(
    input: *const i8,
    step: usize,
    weights: *const [u32; 2],
    taps: usize,
    sums: &mut [i32; 4],
) {
    let [mut a, mut b, mut c, mut d] = *sums;
    // SAFETY: reads only `taps` weights with `ldrd`, and for each of them four bytes of the input
    // with `ldr`, which allows unaligned addresses. The caller guarantees that these are readable.
    unsafe {
        asm!(
            "2:",
            tap!("[{input}]"),
            "add {input}, {input}, {step}",
            "cmp {weights}, {end}",
            "bne 2b",
            input = inout(reg) input => _,
            step = in(reg) step,
            weights = inout(reg) weights => _,
            end = in(reg) weights.add(taps),
            a = inout(reg) a,
            b = inout(reg) b,
            c = inout(reg) c,
            d = inout(reg) d,
            e = out(reg) _,
            o = out(reg) _,
            out("r2") _,
            out("r3") _,
            options(readonly, nostack),
        );
    }
    *sums = [a, b, c, d];
}

/// The same for `rows` rows of three taps, whose inputs are `below` apart.
///
/// # Safety
/// `rows` must be at least 1. `weights` must be aligned to 8 and have `3 · rows` readable elements.
/// Four bytes must be readable at `input + r · below + i · step` for all r below `rows` and i below
/// 3; `input` need not be aligned.
#[inline(always)]
unsafe fn add_rows_of_three(
    input: *const i8,
    step: usize,
    below: usize,
    weights: *const [u32; 2],
    rows: usize,
    sums: &mut [i32; 4],
) {
    let [mut a, mut b, mut c, mut d] = *sums;
    // In memory, because there are not enough registers for these two.
    // SAFETY: `weights` has `3 · rows` elements, so this is the end of the same allocation.
    let rest = (below, unsafe { weights.add(3 * rows) });
    let rest: [usize; 2] = [rest.0, rest.1.addr()];
    // SAFETY: reads only `3 · rows` weights with `ldrd`, for each of them four bytes of the input
    // with `ldr`, which allows unaligned addresses, and the two words of `rest`. The caller
    // guarantees that weights and input are readable.
    unsafe {
        asm!(
            "2:",
            tap!("[{input}]"),
            tap!("[{input}, {step}]"),
            tap!("[{input}, {step}, lsl #1]"),
            "ldr {e}, [{rest}]",
            "ldr {o}, [{rest}, #4]",
            "add {input}, {input}, {e}",
            "cmp {weights}, {o}",
            "bne 2b",
            input = inout(reg) input => _,
            step = in(reg) step,
            weights = inout(reg) weights => _,
            rest = in(reg) rest.as_ptr(),
            a = inout(reg) a,
            b = inout(reg) b,
            c = inout(reg) c,
            d = inout(reg) d,
            e = out(reg) _,
            o = out(reg) _,
            out("r2") _,
            out("r3") _,
            options(readonly, nostack),
        );
    }
    *sums = [a, b, c, d];
}
