//! Convolutions that are not depthwise, and fully connected layers.
//!
//! All inline assembly requires the DSP extension, which the feature `dsp` implies.

use core::arch::asm;
use core::mem::MaybeUninit;
use core::ops::Range;

use super::epilogue::Epilogue;
use super::{halves, subtract, twice};
use crate::Conv;
use crate::scalar::Place;

/// The number of windows computed per load of weights, or of weight rows per load of a single
/// window.
const TOGETHER: usize = 4;
/// The number of window elements in the scratch memory.
const HELD: usize = 1024;
/// The number of output channels with accumulators in memory.
const CHANNELS: usize = 32;

/// Window elements minus the zero point in groups of four, `[even, odd]` (see [`halves`]). The
/// groups of several windows are interleaved.
#[repr(align(8))]
struct Windows([MaybeUninit<[u32; 2]>; HELD / 4]);

/// The scratch memory of a block of pixels, reused by all blocks.
struct Scratch {
    windows: Windows,
    /// A window whose elements are not contiguous in the image.
    staged: [i8; HELD],
}

/// Runs a [`Conv`] that is not depthwise.
pub(super) fn dense(conv: &Conv<'_>, output: &mut [i8]) {
    let pixels = conv.output_shape.height * conv.output_shape.width;
    let mut scratch = Scratch {
        windows: Windows([const { MaybeUninit::uninit() }; HELD / 4]),
        staged: [0; HELD],
    };
    if pixels < TOGETHER {
        for pixel in 0..pixels {
            block::<1>(conv, pixel, &mut scratch, output);
        }
        return;
    }
    // If the last block would be incomplete, it starts earlier and computes some pixels twice.
    for pixel in (0..pixels).step_by(TOGETHER) {
        block::<TOGETHER>(conv, pixel.min(pixels - TOGETHER), &mut scratch, output);
    }
}

/// Computes all channels of `P` output pixels from index `pixel`.
fn block<const P: usize>(conv: &Conv<'_>, pixel: usize, scratch: &mut Scratch, output: &mut [i8]) {
    let width = conv.output_shape.width;
    let channels = conv.output_shape.channels;
    let group_channels = channels / conv.groups;
    let depth = conv.depth();
    let padded_depth = depth.next_multiple_of(4);
    // The number of elements of each window that fit in the scratch memory.
    let part = HELD / P;
    let epilogue = Epilogue::new(conv);

    let places: [Place<'_>; P] =
        core::array::from_fn(|i| Place::new(conv, (pixel + i) / width, (pixel + i) % width));
    for group in 0..conv.groups {
        let (first, end) = (group * group_channels, (group + 1) * group_channels);
        for start in (first..end).step_by(CHANNELS) {
            let count = CHANNELS.min(end - start);
            let mut sums = [[0; P]; CHANNELS];
            for (sums, &bias) in sums.iter_mut().zip(&conv.bias[start..start + count]) {
                *sums = [bias; P];
            }
            for from in (0..depth).step_by(part) {
                let length = part.min(depth - from);
                // A window that fits is gathered only once for all channels of the group.
                if start == first || depth > part {
                    for (index, place) in places.iter().enumerate() {
                        gather(conv, place, group, from..from + length, [index, P], scratch);
                    }
                }
                let fours = length.div_ceil(4);
                let weights = &conv.weights[start * padded_depth..][..count * padded_depth];
                // SAFETY: `gather` initialized `fours` groups of every window, just now or for the
                // previous channels.
                unsafe {
                    if P == 1 {
                        let sums = &mut sums.as_flattened_mut()[..count];
                        add_rows(&weights[from..], padded_depth, fours, &scratch.windows, sums);
                    } else {
                        for (sums, row) in sums.iter_mut().zip(weights.chunks_exact(padded_depth)) {
                            let sums = sums.as_mut_slice().try_into().expect("one per window");
                            add_windows(&row[from..][..4 * fours], &scratch.windows, sums);
                        }
                    }
                }
            }
            epilogue.write(&sums[..count], start, pixel * channels + start, channels, output);
        }
    }
}

/// Gathers the elements in `range` of a window into position `index` of `windows_held` interleaved
/// windows.
#[inline(never)]
fn gather(
    conv: &Conv<'_>,
    place: &Place<'_>,
    group: usize,
    range: Range<usize>,
    [index, windows_held]: [usize; 2],
    scratch: &mut Scratch,
) {
    let (from, length) = (range.start, range.len());
    let Scratch { windows, staged } = scratch;
    let to = windows.0[index..].iter_mut().step_by(windows_held);
    // The elements of a window with one row can be contiguous in the image.
    let mut whole = None;
    if place.is_inside() && conv.window.kernel[0] == 1 && length.is_multiple_of(4) {
        place.runs(group, from, length, |source, _| {
            whole = (source.len() == length).then_some(source);
        });
    }
    if let Some(source) = whole {
        return expand(source, conv.zero_point, to);
    }
    let padded = length.next_multiple_of(4);
    let staged = &mut staged[..padded];
    if place.is_inside() {
        staged[length..].fill(conv.zero_point);
    } else {
        staged.fill(conv.zero_point);
    }
    place.runs(group, from, length, |source, at| {
        staged[at..at + source.len()].copy_from_slice(source);
    });
    expand(staged, conv.zero_point, to);
}

/// Subtracts the zero point and splits the bytes in groups of four.
#[inline(always)]
fn expand<'a>(
    bytes: &[i8],
    zero_point: i8,
    to: impl Iterator<Item = &'a mut MaybeUninit<[u32; 2]>>,
) {
    let zeros = twice(zero_point);
    for (to, &[a, b, c, d]) in to.zip(bytes.as_chunks::<4>().0) {
        let word = u32::from_le_bytes([a as u8, b as u8, c as u8, d as u8]);
        to.write(halves(word).map(|half| subtract(half, zeros)));
    }
}

/// Loads four weights from an address to `{u}` (even) and `{w}` (odd).
macro_rules! weights {
    ($address:literal) => {
        concat!("ldr {w}, ", $address, "\nsxtb16 {u}, {w}\nsxtb16 {w}, {w}, ror #8")
    };
}

/// Multiplies them with the elements in `r2` and `r3` and adds to an accumulator.
macro_rules! products {
    ($sum:literal) => {
        concat!("smlad ", $sum, ", r2, {u}, ", $sum, "\nsmlad ", $sum, ", r3, {w}, ", $sum)
    };
}

/// Multiplies a row of weights, whose length is a multiple of four, with four windows and adds to
/// the accumulators.
///
/// # Safety
/// `row.len()` elements of each of the four windows must be initialized.
unsafe fn add_windows(row: &[i8], windows: &Windows, sums: &mut [i32; TOGETHER]) {
    let range = row.as_ptr_range();
    if row.is_empty() {
        return;
    }
    assert!(row.len().is_multiple_of(4) && row.len() * TOGETHER <= HELD);
    let [mut a, mut b, mut c, mut d] = *sums;
    // SAFETY: reads the row four bytes at a time with `ldr`, which allows unaligned addresses. For
    // each four weights it reads 32 bytes of the windows, which are in bounds by the assertion,
    // initialized by the caller's guarantee, and aligned to 8 because `Windows` is.
    unsafe {
        asm!(
            "2:",
            weights!("[{row}], #4"),
            "ldrd r2, r3, [{window}], #8",
            products!("{a}"),
            "ldrd r2, r3, [{window}], #8",
            products!("{b}"),
            "ldrd r2, r3, [{window}], #8",
            products!("{c}"),
            "ldrd r2, r3, [{window}], #8",
            products!("{d}"),
            "cmp {row}, {end}",
            "bne 2b",
            row = inout(reg) range.start => _,
            end = in(reg) range.end,
            window = inout(reg) windows.0.as_ptr() => _,
            a = inout(reg) a,
            b = inout(reg) b,
            c = inout(reg) c,
            d = inout(reg) d,
            u = out(reg) _,
            w = out(reg) _,
            out("r2") _,
            out("r3") _,
            options(readonly, nostack),
        );
    }
    *sums = [a, b, c, d];
}

/// Multiplies one row of weights per accumulator, `stride` apart, with a single window of `fours`
/// groups of four elements.
///
/// # Safety
/// `fours` groups of the window must be initialized.
unsafe fn add_rows(
    weights: &[i8],
    stride: usize,
    fours: usize,
    windows: &Windows,
    sums: &mut [i32],
) {
    if fours == 0 {
        return;
    }
    assert!(fours <= windows.0.len() && stride.is_multiple_of(4) && 4 * fours <= stride);
    // Four strides do not overflow, so the fourth row is the last one in memory.
    assert!(stride <= usize::MAX / TOGETHER);
    let (vec128, rest) = sums.as_chunks_mut::<TOGETHER>();
    let end = windows.0[..fours].as_ptr_range().end;
    let mut first = 0;
    for sums in vec128 {
        let rows = &weights[first..first + 3 * stride + 4 * fours];
        let [mut a, mut b, mut c, mut d] = *sums;
        // SAFETY: reads four rows, `stride` apart and all within `rows`, four bytes at a time with
        // `ldr`, which allows unaligned addresses. For each four weights it reads 8 bytes of the
        // window, which are in bounds by the assertion, initialized by the caller's guarantee, and
        // aligned to 8.
        unsafe {
            asm!(
                "2:",
                "ldrd r2, r3, [{window}], #8",
                weights!("[{row}]"),
                products!("{a}"),
                weights!("[{row}, {stride}]"),
                products!("{b}"),
                weights!("[{row}, {stride}, lsl #1]"),
                products!("{c}"),
                "add {w}, {row}, {stride}, lsl #1",
                "add {row}, {row}, #4",
                weights!("[{w}, {stride}]"),
                products!("{d}"),
                "cmp {window}, {end}",
                "bne 2b",
                row = inout(reg) rows.as_ptr() => _,
                stride = in(reg) stride,
                end = in(reg) end,
                window = inout(reg) windows.0.as_ptr() => _,
                a = inout(reg) a,
                b = inout(reg) b,
                c = inout(reg) c,
                d = inout(reg) d,
                u = out(reg) _,
                w = out(reg) _,
                out("r2") _,
                out("r3") _,
                options(readonly, nostack),
            );
        }
        *sums = [a, b, c, d];
        first += TOGETHER * stride;
    }
    for sum in rest {
        let row = &weights[first..first + 4 * fours];
        // SAFETY: reads `row` four bytes at a time with `ldr`, which allows unaligned addresses.
        // For each four weights it reads 8 bytes of the window, which are in bounds by the
        // assertion, initialized by the caller's guarantee, and aligned to 8.
        unsafe {
            asm!(
                "2:",
                "ldrd r2, r3, [{window}], #8",
                weights!("[{row}], #4"),
                products!("{a}"),
                "cmp {window}, {end}",
                "bne 2b",
                row = inout(reg) row.as_ptr() => _,
                end = in(reg) end,
                window = inout(reg) windows.0.as_ptr() => _,
                a = inout(reg) *sum,
                u = out(reg) _,
                w = out(reg) _,
                out("r2") _,
                out("r3") _,
                options(readonly, nostack),
            );
        }
        first += stride;
    }
}
