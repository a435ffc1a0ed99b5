//! Convolutions and fully connected layers on packed weights.

use super::parallel::{Shared, part};
use super::{Finish, Kernels, Parallel, Residual, SLACK, View};
use crate::packed::dense::{self, DEPTH, Dense};

/// Output pixels whose places are worked out at once.
const PIXELS: usize = 384;
/// Fewer, where there are no more.
const FEW: usize = 4;
/// Products that are worth a second thread: some microseconds of one.
const WORTHWHILE: u64 = 1 << 20;
/// Pixels of a part are a multiple of this, which is one of every kernel's tile.
const UNIT: usize = 48;
/// Weights up to this size stay in the innermost cache while the pixels pass.
const SMALL: usize = 24 << 10;

/// A convolution. Each output pixel reads `rows · columns` runs of bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Conv {
    /// The first run of the first window, and the distances of windows.
    pub input: View,
    /// What is written.
    pub output: View,
    /// Rows and columns of the output.
    pub size: [usize; 2],
    /// Number of runs down and right; their product is that of `weights`.
    pub runs: [usize; 2],
    /// Distance of runs down and right, in bytes.
    pub run_step: [usize; 2],
    /// Distance, in bytes, of the input of neighbouring groups.
    pub group_step: usize,
    /// The shape of the weights.
    pub shape: Dense,
    /// First byte of the packed weights.
    pub weights: usize,
    /// Fused addition.
    pub residual: Option<Residual>,
    /// How sums become outputs.
    pub finish: Finish,
    /// Whether every sum is less than 2²² in size and every scale less than 2⁸, so that a sum
    /// can be converted and scaled in one instruction.
    pub narrow: bool,
}

/// Some columns at some pixels: what a kernel gets. The bytes it reads and writes lie in one
/// arena, and nobody else reads or writes those it writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    pub(crate) input: *const u8,
    /// Of each pixel's first run.
    pub(crate) input_offsets: *const u32,
    pub(crate) pixels: usize,
    pub(crate) runs: [usize; 2],
    pub(crate) run_step: [usize; 2],
    /// Steps of [`DEPTH`] elements in a run.
    pub(crate) steps: usize,
    /// A block of packed weights, at a multiple of 64.
    pub(crate) weights: *const u8,
    /// Columns of the block.
    pub(crate) width: usize,
    /// Columns to be written.
    pub(crate) channels: usize,
    pub(crate) output: *mut u8,
    pub(crate) output_offsets: *const u32,
    /// Null where nothing is added.
    pub(crate) residual: *const u8,
    pub(crate) residual_offsets: *const u32,
    pub(crate) residual_zero_point: f32,
    pub(crate) residual_scale: f32,
    pub(crate) finish: Finish,
    pub(crate) narrow: bool,
}

impl Conv {
    /// Multiplications of a run.
    pub fn products(&self) -> u64 {
        let window = (self.shape.runs * self.shape.run) as u64;
        (self.size[0] * self.size[1]) as u64
            * (self.shape.groups * self.shape.outputs) as u64
            * window
    }

    /// Runs it.
    ///
    /// # Panics
    /// Where something it touches lies outside the arena or the weights, and where the output
    /// and what is read are not apart.
    pub fn run(
        &self,
        kernels: &Kernels,
        arena: &mut [u8],
        weights: &[u8],
        parallel: &dyn Parallel,
    ) {
        self.check(kernels, arena.len(), weights);
        let weights = &weights[self.weights..];
        let arena = Shared::new(arena);
        let pixels = self.size[0] * self.size[1];
        let blocks = self.shape.blocks(kernels.packing()).count();
        let bytes = self.shape.bytes(kernels.packing()).unwrap_or(usize::MAX);
        let parts = parallel.threads().max(1);
        // What is larger is read by each thread in part only.
        let by_blocks =
            blocks >= parts && (pixels < UNIT * parts || bytes > pixels * self.shape.run);
        let parts = if by_blocks { parts.min(blocks) } else { parts };
        let unit = if pixels >= UNIT * parts { UNIT } else { 1 };
        let work = |index: usize| {
            let (pixels, blocks) = if by_blocks {
                (0..pixels, part(blocks, 1, index, parts))
            } else {
                (part(pixels, unit, index, parts), 0..blocks)
            };
            // Fully connected layers need no room for the places of many pixels.
            if pixels.len() <= FEW {
                self.part::<FEW>(kernels, arena, weights, pixels, blocks);
            } else {
                self.part::<PIXELS>(kernels, arena, weights, pixels, blocks);
            }
        };
        if self.products() < WORTHWHILE {
            (0..parts).for_each(work);
        } else {
            parallel.run(parts, &work);
        }
    }

    fn check(&self, kernels: &Kernels, arena: usize, weights: &[u8]) {
        let [rows, columns] = self.size;
        let shape = self.shape;
        let channels = shape.groups * shape.outputs;
        let read = {
            let [down, right] = [0, 1].map(|axis| (self.runs[axis] - 1) * self.run_step[axis]);
            let groups = (shape.groups - 1) * self.group_step;
            self.input.end(rows, columns, down + right + groups + shape.run)
        };
        let written = self.output.end(rows, columns, channels);
        assert!(read + SLACK <= arena && written + SLACK <= arena, "an image leaves the arena");
        assert!(arena <= u32::MAX as usize, "offsets have 32 bits");
        assert!(
            read + SLACK <= self.output.offset || written <= self.input.offset,
            "a convolution reads what it writes"
        );
        assert!(self.output.is_disjoint(columns, channels), "pixels overlap");
        assert_eq!(self.runs[0] * self.runs[1], shape.runs, "runs");
        if let Some(residual) = &self.residual {
            let end = residual.view.end(rows, columns, channels);
            assert!(end + SLACK <= arena, "an addend leaves the arena");
            assert!(
                end <= self.output.offset || written <= residual.view.offset,
                "a convolution adds what it writes"
            );
        }
        let bytes = shape.bytes(kernels.packing()).unwrap_or(usize::MAX);
        assert!(
            weights.len().checked_sub(self.weights).is_some_and(|left| left >= bytes),
            "weights are missing"
        );
        let address = weights.as_ptr().addr() + self.weights;
        assert!(address.is_multiple_of(64), "weights lie at a multiple of 64");
    }

    /// Some pixels and some blocks; the places of `N` pixels are worked out at once.
    fn part<const N: usize>(
        &self,
        kernels: &Kernels,
        arena: Shared,
        weights: &[u8],
        pixels: core::ops::Range<usize>,
        blocks: core::ops::Range<usize>,
    ) {
        let shape = self.shape;
        let mut offsets = [[0u32; N]; 3];
        let mut start = pixels.start;
        while start < pixels.end {
            let count = self.pixels_at_once(kernels).min(N).min(pixels.end - start);
            self.offsets(start, count, &mut offsets);
            let some = shape.blocks(kernels.packing()).skip(blocks.start).take(blocks.len());
            for block in some {
                let first = block.group * shape.outputs + block.first;
                let input = self.input.offset + block.group * self.group_step;
                let residual = self.residual.as_ref();
                let block = Block {
                    input: arena.at(input),
                    input_offsets: offsets[0].as_ptr(),
                    pixels: count,
                    runs: self.runs,
                    run_step: self.run_step,
                    steps: shape.run.div_ceil(DEPTH),
                    weights: weights[block.offset..].as_ptr(),
                    width: block.width,
                    channels: block.channels,
                    output: arena.at(self.output.offset + first),
                    output_offsets: offsets[1].as_ptr(),
                    residual: residual.map_or(core::ptr::null(), |residual| {
                        arena.at(residual.view.offset + first)
                    }),
                    residual_offsets: offsets[2].as_ptr(),
                    residual_zero_point: residual.map_or(0.0, |r| r.zero_point.into()),
                    residual_scale: residual.map_or(0.0, |residual| residual.scale),
                    finish: self.finish,
                    narrow: self.narrow,
                };
                // SAFETY: `check` found every window, output and addend of these pixels in the
                // arena with the slack, and the block in the weights, at a multiple of 64 since
                // blocks are multiples of it. Parts have pixels or columns of their own, and
                // outputs are apart from each other and from what is read. The table of an
                // instruction set is only given out where the processor has it.
                unsafe { (kernels.conv)(&block) };
            }
            start += count;
        }
    }

    /// How many pixels pass one block after the other: few enough that what they read and write
    /// stays in the cache.
    fn pixels_at_once(&self, kernels: &Kernels) -> usize {
        let bytes = self.shape.bytes(kernels.packing()).unwrap_or(usize::MAX);
        let pixel = self.shape.runs * self.shape.run + self.shape.outputs;
        let budget = if bytes <= SMALL { 20 << 10 } else { 512 << 10 };
        (budget / pixel / UNIT * UNIT).clamp(UNIT, PIXELS)
    }

    /// The places of `count` pixels from number `start` on, in input, output and addend.
    fn offsets<const N: usize>(&self, start: usize, count: usize, offsets: &mut [[u32; N]; 3]) {
        let columns = self.size[1];
        let views = [Some(self.input), Some(self.output), self.residual.map(|r| r.view)];
        for (view, offsets) in views.iter().zip(offsets) {
            let Some(view) = view else { continue };
            let (mut row, mut column) = (start / columns, start % columns);
            let mut at = 0;
            while at < count {
                let run = (columns - column).min(count - at);
                let first = (row * view.row + column * view.pixel) as u32;
                for (place, index) in offsets[at..at + run].iter_mut().zip(0u32..) {
                    *place = first.wrapping_add(index.wrapping_mul(view.pixel as u32));
                }
                (row, column) = (row + 1, 0);
                at += run;
            }
        }
    }

    /// The blocks of its weights, for tests of kernels.
    pub fn blocks(&self, kernels: &Kernels) -> impl Iterator<Item = dense::Block> {
        self.shape.blocks(kernels.packing())
    }
}
