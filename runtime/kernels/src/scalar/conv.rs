//! Convolution.
//!
//! Gathers the windows of a few output pixels at a time (im2col) and subtracts the zero point;
//! elements outside the image are 0. Every output channel is then the dot product of two contiguous
//! rows for any window.

use super::depthwise::depthwise;
use crate::{Conv, Requantize, Taps};

/// The number of output pixels computed per pass over the weights.
const PIXELS: usize = 8;
/// The number of window elements gathered at once.
const DEPTH: usize = 256;
/// The number of accumulators per pixel.
const CHANNELS: usize = 64;

/// Returns the dot product of `row` with each window.
fn dot<const P: usize>(row: &[i8], windows: &[[i16; DEPTH]; P]) -> [i32; P] {
    let windows: [&[i16]; P] = core::array::from_fn(|i| &windows[i][..row.len()]);
    let mut sums = [0i32; P];
    for (i, &weight) in row.iter().enumerate() {
        for (sum, window) in sums.iter_mut().zip(windows) {
            *sum = sum.wrapping_add(i32::from(weight) * i32::from(window[i]));
        }
    }
    sums
}

/// Runs a [`Conv`].
pub fn conv(conv: &Conv<'_>, output: &mut [i8]) {
    if conv.is_depthwise() {
        return depthwise(conv, output);
    }
    let pixels = conv.output_shape.height * conv.output_shape.width;
    let blocks = pixels - pixels % PIXELS;
    for pixel in (0..blocks).step_by(PIXELS) {
        block::<PIXELS>(conv, pixel, output);
    }
    for pixel in blocks..pixels {
        block::<1>(conv, pixel, output);
    }
}

/// Computes all channels of `P` output pixels from index `pixel`.
fn block<const P: usize>(conv: &Conv<'_>, pixel: usize, output: &mut [i8]) {
    let width = conv.output_shape.width;
    let channels = conv.output_shape.channels;
    let group_channels = channels / conv.groups;
    let depth = conv.depth();
    let padded_depth = depth.next_multiple_of(4);
    let requantize = Requantize::new(conv.output_zero_point, conv.clamp);

    let places: [Place<'_>; P] =
        core::array::from_fn(|i| Place::new(conv, (pixel + i) / width, (pixel + i) % width));
    let mut windows = [[0i16; DEPTH]; P];
    let mut sums = [[0i32; CHANNELS]; P];
    for group in 0..conv.groups {
        let (first, end) = (group * group_channels, (group + 1) * group_channels);
        for start in (first..end).step_by(CHANNELS) {
            let count = CHANNELS.min(end - start);
            for sums in &mut sums {
                sums[..count].copy_from_slice(&conv.bias[start..start + count]);
            }
            for from in (0..depth).step_by(DEPTH) {
                let length = DEPTH.min(depth - from);
                // A window that fits is gathered only once for all channels of the group.
                if start == first || depth > DEPTH {
                    for (place, window) in places.iter().zip(&mut windows) {
                        place.gather(group, from, &mut window[..length]);
                    }
                }
                for channel in 0..count {
                    let row = (start + channel) * padded_depth + from;
                    let row = &conv.weights[row..row + length];
                    let products = dot(row, &windows);
                    for (sums, product) in sums.iter_mut().zip(products) {
                        sums[channel] = sums[channel].wrapping_add(product);
                    }
                }
            }
            for (i, sums) in sums.iter().enumerate() {
                let at = (pixel + i) * channels + start;
                finish(conv, &requantize, start, &sums[..count], at, output);
            }
        }
    }
}

/// Requantizes the accumulators of the channels from `channel` and writes them at `at`.
#[inline(always)]
pub(super) fn finish(
    conv: &Conv<'_>,
    requantize: &Requantize,
    channel: usize,
    sums: &[i32],
    at: usize,
    output: &mut [i8],
) {
    let count = sums.len();
    let scales = &conv.scales[channel..channel + count];
    let output = &mut output[at..at + count];
    match conv.residual {
        None => {
            for ((output, &sum), &scale) in output.iter_mut().zip(sums).zip(scales) {
                *output = requantize.apply(sum as f32 * scale);
            }
        }
        Some(residual) => {
            let values = &residual.values[at..at + count];
            let zero_point = i32::from(residual.zero_point);
            for (((output, &sum), &scale), &value) in
                output.iter_mut().zip(sums).zip(scales).zip(values)
            {
                let added = (i32::from(value) - zero_point) as f32 * residual.scale;
                *output = requantize.apply(sum as f32 * scale + added);
            }
        }
    }
}

/// The window of one output pixel.
pub(crate) struct Place<'a> {
    conv: &'a Conv<'a>,
    rows: Taps,
    columns: Taps,
}

impl<'a> Place<'a> {
    pub(crate) fn new(conv: &'a Conv<'a>, row: usize, column: usize) -> Self {
        Self {
            conv,
            rows: conv.window.taps(0, row, conv.input_shape.height),
            columns: conv.window.taps(1, column, conv.input_shape.width),
        }
    }

    /// Returns whether the whole window is inside the image.
    pub(crate) fn is_inside(&self) -> bool {
        let [height, width] = self.conv.window.kernel;
        self.rows.range.len() == height && self.columns.range.len() == width
    }

    /// Gathers the elements `from..` of the window of `group`, minus the zero point.
    fn gather(&self, group: usize, from: usize, window: &mut [i16]) {
        if !self.is_inside() {
            window.fill(0);
        }
        let zero_point = self.conv.zero_point;
        self.runs(group, from, window.len(), |source, target| {
            subtract(source, zero_point, &mut window[target..target + source.len()]);
        });
    }

    /// Calls `run` for the elements `from..from + length` of the window of `group`, as contiguous
    /// runs of the image with their offset relative to `from`. Skips elements outside the image.
    #[inline(always)]
    pub(crate) fn runs(
        &self,
        group: usize,
        from: usize,
        length: usize,
        mut run: impl FnMut(&'a [i8], usize),
    ) {
        let conv = self.conv;
        let kernel_width = conv.window.kernel[1];
        let channels = conv.input_shape.channels;
        let depth = channels / conv.groups;
        if self.columns.range.is_empty() {
            return;
        }
        // Window elements that are adjacent in the image form one run.
        let joined = conv.groups == 1 && conv.window.dilation[1] == 1;
        let taps = if joined { self.columns.range.len() } else { 1 };
        for row in self.rows.range.clone() {
            let line = self.rows.position(row) * conv.input_shape.width;
            for column in self.columns.range.clone().step_by(taps) {
                let source = (line + self.columns.position(column)) * channels + group * depth;
                let target = (row * kernel_width + column) * depth;
                let (begin, end) = (target.max(from), (target + taps * depth).min(from + length));
                if begin < end {
                    let source = &conv.input[source + begin - target..source + end - target];
                    run(source, begin - from);
                }
            }
        }
    }
}

#[inline(always)]
fn subtract(source: &[i8], zero_point: i8, target: &mut [i16]) {
    for (target, &source) in target.iter_mut().zip(source) {
        *target = i16::from(source) - i16::from(zero_point);
    }
}
