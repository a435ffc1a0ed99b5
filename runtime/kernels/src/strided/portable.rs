//! Portable kernels that the compiler vectorizes for the instruction set of the function that
//! they are inlined into.
//!
//! `FLIP` is the XOR mask between a stored activation and its i8 value: 0x80 if the activation
//! offset is 128, otherwise 0.

use core::ops::Range;

use super::{AveragePool, Linear, MaxPool, Pairs, Resize, ResizeRow, View};
use crate::geometry::Taps;
use crate::{Affine, Requantize, SCALE_BITS, Sample, round_significant};

/// The number of channels processed at once.
const WIDE: usize = 64;
/// The number of channels processed at once where fewer than [`WIDE`] are left.
const NARROW: usize = 16;

#[inline(always)]
fn read<const FLIP: u8>(stored: u8) -> i32 {
    i32::from((stored ^ FLIP) as i8)
}

#[inline(always)]
fn write<const FLIP: u8>(integer: i8) -> u8 {
    integer as u8 ^ FLIP
}

#[inline(always)]
fn pairs<const FLIP: u8>(
    a: &[u8],
    b: &[u8],
    output: &mut [u8],
    function: impl Fn(i32, i32) -> i8 + Copy,
) {
    let period = b.len().max(1);
    for (output, a) in output.chunks_mut(period).zip(a.chunks(period)) {
        for ((output, &a), &b) in output.iter_mut().zip(a).zip(b) {
            *output = write::<FLIP>(function(read::<FLIP>(a), read::<FLIP>(b)));
        }
    }
}

/// Adds `a` and `b`; `b` is repeated to the length of `a`.
#[inline(always)]
pub(crate) fn add<const FLIP: u8>(add: &Pairs, a: &[u8], b: &[u8], output: &mut [u8]) {
    let requantize = Requantize::new(add.zero_point, add.clamp);
    let [zero_a, zero_b] = add.zero_points.map(i32::from);
    let [scale_a, scale_b] = add.scales;
    pairs::<FLIP>(a, b, output, move |a, b| {
        requantize.apply((a - zero_a) as f32 * scale_a + (b - zero_b) as f32 * scale_b)
    });
}

/// Multiplies `a` and `b`; `b` is repeated to the length of `a`.
#[inline(always)]
pub(crate) fn multiply<const FLIP: u8>(multiply: &Pairs, a: &[u8], b: &[u8], output: &mut [u8]) {
    let requantize = Requantize::new(multiply.zero_point, multiply.clamp);
    let [zero_a, zero_b] = multiply.zero_points.map(i32::from);
    let [scale, _] = multiply.scales;
    pairs::<FLIP>(a, b, output, move |a, b| {
        requantize.apply(((a - zero_a) * (b - zero_b)) as f32 * scale)
    });
}

/// Requantizes stored activations.
#[inline(always)]
pub(crate) fn rescale<const FLIP: u8>(linear: &Linear, input: &[u8], output: &mut [u8]) {
    let requantize = Requantize::new(linear.output_zero_point, crate::Clamp::FULL);
    let (zero, scale) = (i32::from(linear.zero_point), linear.scale);
    for (output, &input) in output.iter_mut().zip(input) {
        let value = (read::<FLIP>(input) - zero) as f32 * scale;
        *output = write::<FLIP>(requantize.apply(value));
    }
}

/// Computes `output[i] = table[input[i]]` for stored activations.
#[inline(always)]
pub(crate) fn lookup(table: &[u8; 256], input: &[u8], output: &mut [u8]) {
    for (output, &input) in output.iter_mut().zip(input) {
        *output = table[usize::from(input)];
    }
}

/// Quantizes floats to stored activations. NaN is treated as 0.
#[inline(always)]
pub(crate) fn quantize<const FLIP: u8>(
    inverse_scale: f32,
    requantize: &Requantize,
    input: &[f32],
    output: &mut [u8],
) {
    for (output, &x) in output.iter_mut().zip(input) {
        let x = if x.is_nan() { 0.0 } else { x };
        *output = write::<FLIP>(requantize.apply(x * inverse_scale));
    }
}

/// Returns the minimum and maximum of the values and 0.
#[inline(always)]
pub(crate) fn extent<const FLIP: u8>(input: &[f32]) -> [f32; 2] {
    crate::dynamic::extent(input)
}

/// Quantizes floats to stored activations with u8 quantization parameters.
#[inline(always)]
pub(crate) fn affine<const FLIP: u8>(affine: &Affine, input: &[f32], output: &mut [u8]) {
    for (output, &x) in output.iter_mut().zip(input) {
        *output = affine.apply(x) ^ 0x80 ^ FLIP;
    }
}

/// Interleaves the first `channels` rows to pixels, as many as fit in the output.
#[inline(always)]
pub(crate) fn interleave(rows: &[[u8; 64]; 4], channels: usize, output: &mut [u8]) {
    for (index, pixel) in output.chunks_exact_mut(channels).enumerate() {
        for (row, output) in rows.iter().zip(pixel) {
            *output = row[index];
        }
    }
}

/// Computes output row `row` of a max pooling.
#[inline(always)]
pub(crate) fn max_pool<const FLIP: u8>(
    pool: &MaxPool,
    input: &[u8],
    row: usize,
    output: &mut [u8],
) {
    let rows = pool.window.taps(0, row, pool.input_shape.height);
    let (low, high) = (pool.clamp.low, pool.clamp.high);
    let channels = pool.input_shape.channels;
    for column in 0..pool.size[1] {
        let columns = pool.window.taps(1, column, pool.input_shape.width);
        let output = &mut output[column * pool.output.pixel..][..channels];
        for block in blocks(channels) {
            let taps = WindowTaps { rows: &rows, columns: &columns, view: &pool.input };
            let output = &mut output[block.clone()];
            let limit = |greatest: i8| write::<FLIP>(greatest.max(low).min(high));
            match output.len() {
                WIDE => greatest::<FLIP, WIDE>(taps, &input[block.start..], output, limit),
                _ => greatest::<FLIP, NARROW>(taps, &input[block.start..], output, limit),
            }
        }
    }
}

/// Sets the channels of a block, at most `N`, to the maximum of their inputs.
#[inline(always)]
fn greatest<const FLIP: u8, const N: usize>(
    taps: WindowTaps<'_>,
    input: &[u8],
    output: &mut [u8],
    limit: impl Fn(i8) -> u8,
) {
    let mut greatest = [i8::MIN; N];
    taps.each(input, output.len(), &mut greatest, |greatest, input| {
        *greatest = (*greatest).max((input ^ FLIP) as i8);
    });
    output.iter_mut().zip(greatest).for_each(|(output, greatest)| *output = limit(greatest));
}

/// Sets the channels of a block, at most `N`, to a function of the sum of their inputs.
#[inline(always)]
fn summed<const FLIP: u8, const N: usize>(
    taps: WindowTaps<'_>,
    input: &[u8],
    output: &mut [u8],
    function: impl Fn(i32) -> u8,
) {
    let mut sums = [0i32; N];
    taps.each(input, output.len(), &mut sums, |sum, input| {
        *sum = sum.wrapping_add(read::<FLIP>(input));
    });
    output.iter_mut().zip(sums).for_each(|(output, sum)| *output = function(sum));
}

/// The elements of a window that are inside the image.
#[derive(Clone, Copy)]
struct WindowTaps<'a> {
    rows: &'a Taps,
    columns: &'a Taps,
    view: &'a View,
}

impl WindowTaps<'_> {
    /// Updates the state of the first `channels` channels, at most `N`, with each element.
    #[inline(always)]
    fn each<T, const N: usize>(
        self,
        input: &[u8],
        channels: usize,
        state: &mut [T; N],
        update: impl Fn(&mut T, u8) + Copy,
    ) {
        for row in self.rows.range.clone() {
            let line = self.rows.position(row) * self.view.row;
            for column in self.columns.range.clone() {
                let at = line + self.columns.position(column) * self.view.pixel;
                let input = &input[at..at + channels];
                // With a known length, the compiler uses vector instructions.
                match input.first_chunk::<N>() {
                    Some(input) => state.iter_mut().zip(input).for_each(|(s, &x)| update(s, x)),
                    None => state.iter_mut().zip(input).for_each(|(s, &x)| update(s, x)),
                }
            }
        }
    }
}

/// Returns blocks that cover all channels: [`WIDE`] ones, and [`NARROW`] ones for the rest. The
/// last one overlaps the one before, or is smaller if there are fewer than [`NARROW`] channels.
#[inline(always)]
fn blocks(channels: usize) -> impl Iterator<Item = Range<usize>> {
    let wide = channels / WIDE * WIDE;
    let wides = (0..wide).step_by(WIDE).map(|start| start..start + WIDE);
    let narrows = (wide..channels).step_by(NARROW).map(move |start| {
        let end = (start + NARROW).min(channels);
        end.saturating_sub(NARROW)..end
    });
    wides.chain(narrows)
}

/// Computes output row `row` of an average pooling.
#[inline(always)]
pub(crate) fn average_pool<const FLIP: u8>(
    pool: &AveragePool,
    input: &[u8],
    row: usize,
    output: &mut [u8],
) {
    let rows = pool.window.taps(0, row, pool.input_shape.height);
    let requantize = Requantize::new(pool.output_zero_point, pool.clamp);
    let channels = pool.input_shape.channels;
    for column in 0..pool.size[1] {
        let columns = pool.window.taps(1, column, pool.input_shape.width);
        let inside = rows.range.len() * columns.range.len();
        let scale = if pool.count_include_pad {
            pool.scale
        } else {
            round_significant(pool.scale / inside.max(1) as f32, SCALE_BITS)
        };
        let zero = (inside as i32).wrapping_mul(pool.zero_point.into());
        let output = &mut output[column * pool.output.pixel..][..channels];
        for block in blocks(channels) {
            let taps = WindowTaps { rows: &rows, columns: &columns, view: &pool.input };
            let output = &mut output[block.clone()];
            let mean = |sum: i32| {
                let sum = sum.wrapping_sub(zero);
                write::<FLIP>(requantize.apply(sum as f32 * scale))
            };
            match output.len() {
                WIDE => summed::<FLIP, WIDE>(taps, &input[block.start..], output, mean),
                _ => summed::<FLIP, NARROW>(taps, &input[block.start..], output, mean),
            }
        }
    }
}

/// Computes one output row of a resize.
#[inline(always)]
pub(crate) fn resize<const FLIP: u8>(resize: &Resize, row: &ResizeRow<'_>, output: &mut [u8]) {
    let ResizeRow { sample: row, rows: [first, second], columns } = *row;
    let channels = resize.channels;
    for (index, column) in columns.iter().enumerate() {
        let column = Sample::from_bytes(*column);
        let output = &mut output[index * resize.output.pixel..][..channels];
        let at = |column: u16| usize::from(column) * resize.input.pixel;
        let (left, right) = (at(column.first), at(column.second));
        if row.weight == 0 && column.weight == 0 {
            output.copy_from_slice(&first[left..left + channels]);
            continue;
        }
        let weights = crate::scalar::weights(row.weight, column.weight);
        let top = first[left..left + channels].iter().zip(&first[right..right + channels]);
        let bottom = second[left..left + channels].iter().zip(&second[right..right + channels]);
        for ((output, top), bottom) in output.iter_mut().zip(top).zip(bottom) {
            let four = [top.0, top.1, bottom.0, bottom.1].map(|&stored| read::<FLIP>(stored));
            *output = write::<FLIP>(crate::scalar::interpolate(four, weights));
        }
    }
}

/// Computes the softmax of one pixel.
#[inline(always)]
pub(crate) fn softmax<const FLIP: u8>(table: &[u32; 256], input: &[u8], output: &mut [u8]) {
    let greatest = input.iter().map(|&x| (x ^ FLIP) as i8).max().unwrap_or(i8::MIN);
    let exponential = |x: u8| u64::from(table[usize::from(greatest.abs_diff((x ^ FLIP) as i8))]);
    let sum = input.iter().map(|&x| exponential(x)).sum::<u64>().max(1);
    for (output, &x) in output.iter_mut().zip(input) {
        *output = write::<FLIP>(crate::scalar::share(exponential(x), sum));
    }
}

/// Instantiates the portable kernels for an instruction set in a module.
macro_rules! portable {
    ($module:ident, [$($feature:literal)?], $offset_mask:literal) => {
        /// Portable kernels, compiled for this instruction set.
        mod $module {
            use crate::strided::{
                AveragePool, Linear, MaxPool, Pairs, Resize, ResizeRow, portable,
            };
            use crate::{Affine, Requantize};

            portable::portable! { @functions [$($feature)?], $offset_mask;
                add(add: &Pairs, a: &[u8], b: &[u8], output: &mut [u8]);
                multiply(multiply: &Pairs, a: &[u8], b: &[u8], output: &mut [u8]);
                rescale(linear: &Linear, input: &[u8], output: &mut [u8]);
                quantize(scale: f32, requantize: &Requantize, input: &[f32], output: &mut [u8]);
                extent(input: &[f32]) -> [f32; 2];
                affine(affine: &Affine, input: &[f32], output: &mut [u8]);
                max_pool(pool: &MaxPool, input: &[u8], row: usize, output: &mut [u8]);
                average_pool(pool: &AveragePool, input: &[u8], row: usize, output: &mut [u8]);
                resize(resize: &Resize, row: &ResizeRow<'_>, output: &mut [u8]);
                softmax(table: &[u32; 256], input: &[u8], output: &mut [u8]);
            }
        }
    };
    (@functions $feature:tt, $offset_mask:literal;
        $($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)*) => {$(
        portable::portable! {
            @function $feature, $offset_mask, $name($($argument: $type),*) $(-> $result)?
        }
    )*};
    (@function [$($feature:literal)?], $offset_mask:literal,
        $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?) => {
        $(#[target_feature(enable = $feature)])?
        pub(super) fn $name($($argument: $type),*) $(-> $result)? {
            portable::$name::<$offset_mask>($($argument),*)
        }
    };
}

pub(crate) use portable;
