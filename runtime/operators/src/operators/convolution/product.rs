//! The accumulators of a convolution.

use std::thread;

use super::window::Layout;
use crate::error::Problem;
use crate::operators::threads::{Pace, share_out};
use crate::shape;

/// The rows of weights that are multiplied together.
const ROWS: usize = 4;
/// The pixels that are computed together.
const WIDTH: usize = 4;
/// The strips of `WIDTH` pixels that share a pass over the weights.
const STRIPS: usize = 32;
/// The taps of a pass. The elements of `STRIPS` strips at these taps fit in a second-level cache.
const DEPTH: usize = 128;
/// The number of multiplications from which threads are worth their start.
const PARALLEL: usize = 1 << 21;

/// For every image and group: rows of weights, times the elements at the taps around each pixel.
///
/// Sums are accumulated in double precision, in the order of channels and taps.
pub(super) struct Product<'a, T> {
    /// The elements, of shape `[images, groups, depth, plane]`.
    pub(super) input: &'a [T],
    /// The number of images.
    pub(super) images: usize,
    /// The number of groups.
    pub(super) groups: usize,
    /// The number of channels of a group.
    pub(super) depth: usize,
    /// Where the taps and pixels are in a channel.
    pub(super) layout: &'a Layout,
    /// The weights, of shape `[groups, rows, depth, taps]`.
    pub(super) weights: &'a [T],
    /// The number of rows of a group.
    pub(super) rows: usize,
    /// What is added to each row, of shape `[groups, rows]`.
    pub(super) bias: Option<&'a [f64]>,
}

/// A part of the output: some rows of a group of an image.
struct Task<'a, O> {
    /// The number of the group, counted over all images.
    block: usize,
    /// The first row.
    row: usize,
    /// The output, of shape `[rows, pixels]`.
    output: &'a mut [O],
}

/// A number that results are rounded to.
pub(super) trait Rounded: Copy + Default + Send {
    /// Returns the nearest number.
    fn round(value: f64) -> Self;
}

impl Rounded for f64 {
    fn round(value: f64) -> Self {
        value
    }
}

impl Rounded for f32 {
    fn round(value: f64) -> Self {
        value as f32
    }
}

impl<T: Copy + Into<f64> + Sync> Product<'_, T> {
    /// Returns the products, of shape `[images, groups, rows, pixels]`.
    pub(super) fn evaluate<O: Rounded>(&self) -> Result<Vec<O>, Problem> {
        let blocks = shape::elements(&[self.images, self.groups])?;
        let size = shape::elements(&[blocks, self.rows, self.layout.starts.len()])?;
        shape::elements(&[self.depth, self.layout.plane])?;
        let mut output = vec![O::default(); size];
        if size == 0 {
            return Ok(output);
        }
        let taps = (0..self.depth).flat_map(|channel| {
            self.layout.taps.iter().map(move |tap| channel * self.layout.plane + tap)
        });
        match self.rows {
            1 => self.share_out::<O, 1>(&taps.collect::<Vec<_>>(), &mut output)?,
            _ => self.share_out::<O, ROWS>(&taps.collect::<Vec<_>>(), &mut output)?,
        }
        Ok(output)
    }

    /// Computes the output, on several threads if that is worth it.
    fn share_out<O: Rounded, const R: usize>(
        &self,
        taps: &[usize],
        output: &mut [O],
    ) -> Result<(), Problem> {
        let products = output.len().saturating_mul(taps.len());
        let threads = match products < PARALLEL {
            true => 1,
            false => thread::available_parallelism().map_or(1, |count| count.get()),
        };
        // Rows of one block are shared out only if there are fewer blocks than threads.
        let parts = if self.images * self.groups >= threads { 1 } else { threads };
        let share = self.rows.div_ceil(parts).next_multiple_of(R);
        let pixels = self.layout.starts.len();
        let mut tasks = Vec::new();
        for (block, output) in output.chunks_mut(self.rows * pixels).enumerate() {
            let parts = output.chunks_mut(share * pixels).enumerate();
            tasks.extend(parts.map(|(part, output)| Task { block, row: part * share, output }));
        }
        let padded = tasks.len().saturating_mul(self.depth * self.layout.plane);
        share_out(tasks, threads, products.saturating_add(padded), |tasks, pace| {
            let mut scratch = Scratch::<R>::default();
            tasks.for_each(|task| self.run(task, taps, &mut scratch, pace));
        })
    }

    fn run<O: Rounded, const R: usize>(
        &self,
        task: Task<'_, O>,
        taps: &[usize],
        scratch: &mut Scratch<R>,
        pace: &Pace<'_>,
    ) {
        let group = task.block % self.groups;
        let starts = &self.layout.starts;
        let block = self.depth * self.layout.inner();
        let input = self.input.get(task.block * block..(task.block + 1) * block);
        self.layout.pad(input.unwrap_or_default(), &mut scratch.padded);
        let (first, rows) = (group * self.rows + task.row, task.output.len() / starts.len());
        let weights = self.weights.get(first * taps.len()..(first + rows) * taps.len());
        let weights = weights.unwrap_or_default();
        let bias = self.bias.and_then(|bias| bias.get(first..));
        for (index, chunk) in starts.chunks(STRIPS * WIDTH).enumerate() {
            let strips = chunk.len().div_ceil(WIDTH);
            scratch.totals.clear();
            scratch.totals.resize(rows.div_ceil(R) * strips, [[0.0; WIDTH]; R]);
            for (pass, some) in taps.chunks(DEPTH).enumerate() {
                scratch.columns.clear();
                for strip in chunk.chunks(WIDTH) {
                    gather(&scratch.padded, strip, some, &mut scratch.columns);
                }
                for (row_block, totals) in scratch.totals.chunks_mut(strips).enumerate() {
                    let rows = weights.chunks(taps.len()).skip(row_block * R).take(R);
                    let rows = rows.map(|row| row.iter().skip(pass * DEPTH));
                    interleave(rows, some.len(), &mut scratch.weights);
                    let columns = scratch.columns.chunks(some.len());
                    for (total, columns) in totals.iter_mut().zip(columns) {
                        multiply(columns, &scratch.weights, total);
                    }
                    if !pace.goes_on(R * WIDTH * strips * some.len()) {
                        return;
                    }
                }
            }
            for (row, line) in task.output.chunks_mut(starts.len()).enumerate() {
                let bias = bias.and_then(|bias| bias.get(row)).copied().unwrap_or(0.0);
                let line = line.iter_mut().skip(index * STRIPS * WIDTH);
                let totals = scratch.totals.iter().skip(row / R * strips).take(strips);
                for (value, total) in line.zip(totals.flat_map(|total| &total[row % R])) {
                    *value = O::round(total + bias);
                }
            }
        }
    }
}

/// The memory of a thread.
#[derive(Default)]
struct Scratch<const R: usize> {
    /// The elements of a group with their padding.
    padded: Vec<f64>,
    /// The weights of `R` rows, of shape `[taps]`.
    weights: Vec<[f64; R]>,
    /// The elements of strips at taps, of shape `[strips, taps]`.
    columns: Vec<[f64; WIDTH]>,
    /// The sums, of shape `[rows / R, strips]`.
    totals: Vec<[[f64; WIDTH]; R]>,
}

/// Appends the elements around a strip of pixels, for each tap.
fn gather(input: &[f64], strip: &[usize], taps: &[usize], columns: &mut Vec<[f64; WIDTH]>) {
    let mut pixels = [strip.last().copied().unwrap_or(0); WIDTH];
    pixels.iter_mut().zip(strip).for_each(|(pixel, offset)| *pixel = *offset);
    let first = pixels[0];
    if pixels.iter().enumerate().all(|(index, pixel)| *pixel == first + index) {
        columns.extend(taps.iter().map(|tap| {
            let elements = input.get(first + tap..).and_then(|rest| rest.first_chunk());
            *elements.unwrap_or(&[0.0; WIDTH])
        }));
    } else {
        columns.extend(
            taps.iter()
                .map(|tap| pixels.map(|pixel| input.get(pixel + tap).copied().unwrap_or(0.0))),
        );
    }
}

/// Puts up to `R` rows of `count` weights side by side, with zeros for rows that lack.
fn interleave<'a, T: Copy + Into<f64> + 'a, const R: usize>(
    rows: impl Iterator<Item = impl Iterator<Item = &'a T>>,
    count: usize,
    weights: &mut Vec<[f64; R]>,
) {
    weights.clear();
    weights.resize(count, [0.0; R]);
    for (index, row) in rows.enumerate() {
        for (target, weight) in weights.iter_mut().zip(row) {
            target[index] = (*weight).into();
        }
    }
}

/// Adds the products of `R` rows of weights with the elements of a strip.
fn multiply<const R: usize>(
    columns: &[[f64; WIDTH]],
    weights: &[[f64; R]],
    total: &mut [[f64; WIDTH]; R],
) {
    let mut sums = *total;
    for (elements, weights) in columns.iter().zip(weights) {
        for (sums, weight) in sums.iter_mut().zip(weights) {
            for (sum, element) in sums.iter_mut().zip(elements) {
                *sum += weight * element;
            }
        }
    }
    *total = sums;
}
