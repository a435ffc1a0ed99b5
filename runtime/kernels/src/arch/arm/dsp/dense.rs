//! Convolutions that are not depthwise, and fully connected layers.

use core::arch::asm;
use core::mem::MaybeUninit;
use core::ops::Range;

use super::finish::Finish;
use super::{halves, subtract, twice};
use crate::Conv;
use crate::scalar::Place;

/// Windows that share the weights in registers; rows of weights that share the one window there is.
const TOGETHER: usize = 4;
/// Elements of windows that are held at once.
const HELD: usize = 1024;
/// Output channels whose sums are held at once.
const CHANNELS: usize = 32;

/// Elements of windows less the zero point, by fours: `[even, odd]` (see [`halves`]), of several
/// windows in turn.
#[repr(align(8))]
struct Windows([MaybeUninit<[u32; 2]>; HELD / 4]);

/// What blocks of pixels work with, one after another.
struct Scratch {
    windows: Windows,
    /// A window whose elements are not neighbours in the image.
    staged: [i8; HELD],
}

/// See [`Conv`].
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
    // The last block begins earlier where it would be cut; some pixels are then computed twice.
    for pixel in (0..pixels).step_by(TOGETHER) {
        block::<TOGETHER>(conv, pixel.min(pixels - TOGETHER), &mut scratch, output);
    }
}

/// Every channel of `P` output pixels from number `pixel` on.
fn block<const P: usize>(conv: &Conv<'_>, pixel: usize, scratch: &mut Scratch, output: &mut [i8]) {
    let width = conv.output_shape.width;
    let channels = conv.output_shape.channels;
    let group_channels = channels / conv.groups;
    let depth = conv.depth();
    let padded_depth = depth.next_multiple_of(4);
    // A part of the windows that is held at once.
    let part = HELD / P;
    let finish = Finish::new(conv);

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
                // A window that fits is gathered once for all channels of the group.
                if start == first || depth > part {
                    for (index, place) in places.iter().enumerate() {
                        gather(conv, place, group, from..from + length, [index, P], scratch);
                    }
                }
                let fours = length.div_ceil(4);
                let weights = &conv.weights[start * padded_depth..][..count * padded_depth];
                // SAFETY: of every window these elements were gathered, now or for the channels
                // before.
                unsafe {
                    if P == 1 {
                        let sums = &mut sums.as_flattened_mut()[..count];
                        add_rows(&weights[from..], padded_depth, fours, &scratch.windows, sums);
                    } else {
                        for (sums, row) in sums.iter_mut().zip(weights.chunks_exact(padded_depth)) {
                            let sums = sums.as_mut_slice().try_into().expect("as many as windows");
                            add_windows(&row[from..][..4 * fours], &scratch.windows, sums);
                        }
                    }
                }
            }
            finish.write(&sums[..count], start, pixel * channels + start, channels, output);
        }
    }
}

/// A window, which is number `index` of some: the elements in `range`.
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
    // Of a window of one row, all are neighbours in the image.
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

/// Bytes less the zero point, by fours.
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

/// Four weights, at this address, as `{u}` and `{w}`.
macro_rules! weights {
    ($address:literal) => {
        concat!("ldr {w}, ", $address, "\nsxtb16 {u}, {w}\nsxtb16 {w}, {w}, ror #8")
    };
}

/// Their products with the elements in `r2` and `r3`, added to a sum.
macro_rules! products {
    ($sum:literal) => {
        concat!("smlad ", $sum, ", r2, {u}, ", $sum, "\nsmlad ", $sum, ", r3, {w}, ", $sum)
    };
}

/// Adds the products of a row of weights, of a multiple of four, with four windows.
///
/// # Safety
/// As many elements as the row has were written, of each of the four windows.
unsafe fn add_windows(row: &[i8], windows: &Windows, sums: &mut [i32; TOGETHER]) {
    let range = row.as_ptr_range();
    if row.is_empty() {
        return;
    }
    assert!(row.len().is_multiple_of(4) && row.len() * TOGETHER <= HELD);
    let [mut a, mut b, mut c, mut d] = *sums;
    // SAFETY: reads the row four bytes at a time, which these processors do at any address, and for
    // each four of them 32 bytes of the windows, which are in bounds, written, and at a multiple of 8.
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

/// Adds to the sums the products of as many rows of weights, `stride` apart, with the one
/// window, of so many fours.
///
/// # Safety
/// `fours` fours of the window were written.
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
    // Four strides are no less by overflow, so that no row is beyond the last of four.
    assert!(stride <= usize::MAX / TOGETHER);
    let (quads, rest) = sums.as_chunks_mut::<TOGETHER>();
    let end = windows.0[..fours].as_ptr_range().end;
    let mut first = 0;
    for sums in quads {
        let rows = &weights[first..first + 3 * stride + 4 * fours];
        let [mut a, mut b, mut c, mut d] = *sums;
        // SAFETY: reads of four rows, `stride` apart, four bytes at a time, which these processors do
        // at any address, up to the end of `rows`, and for each four of them 8 bytes of the window,
        // which are in bounds, written, and at a multiple of 8.
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
        // SAFETY: reads the row four bytes at a time, which these processors do at any address, and for
        // each four of them 8 bytes of the window, which are in bounds, written, and at a multiple of
        // 8.
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
