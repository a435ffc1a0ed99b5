//! Convolutions and fully connected layers on packed weights.

use super::parallel::{Shared, part};
use super::{Alone, Finish, Kernels, Parallel, ProductRow, Residual, SLACK, View};
use crate::packed::Packing;
use crate::packed::dense::{DEPTH, Dense};

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

/// What a convolution reads, computes and writes. Each output pixel reads `rows · columns` runs
/// of bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvPlan {
    /// The first run of the first window, and the distances of windows.
    pub input: View,
    /// What is written.
    pub output: View,
    /// Rows and columns of the output.
    pub size: [usize; 2],
    /// Number of runs down and right; their product is that of `shape`.
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

/// A convolution whose plan was checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Conv {
    plan: ConvPlan,
    packing: Packing,
    /// Blocks of its weights.
    blocks: usize,
    /// Bytes of its weights.
    bytes: usize,
    /// Pixels that pass one block after the other: few enough that what they read and write
    /// stays in the cache.
    at_once: usize,
    /// The arena has at least so many bytes.
    arena: usize,
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
    /// Columns of the block; kernels with blocks of one width only know it.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
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
    #[cfg_attr(target_arch = "arm", allow(dead_code))]
    pub(crate) narrow: bool,
    /// Of each pixel, where sums become reals; else null.
    pub(crate) rows: *const ProductRow,
    /// What is added to such reals, for each column of the block.
    pub(crate) addends: *const f32,
}

impl Conv {
    /// Checks a plan for kernels that read weights in this layout.
    ///
    /// # Panics
    /// Where the output and what is read are not apart, pixels overlap, or sizes contradict each
    /// other.
    pub fn new(plan: ConvPlan, packing: Packing) -> Self {
        let ([rows, columns], shape) = (plan.size, plan.shape);
        let channels = shape.groups * shape.outputs;
        assert_eq!(plan.runs[0] * plan.runs[1], shape.runs, "runs");
        let [down, right] = [0, 1].map(|axis| (plan.runs[axis] - 1) * plan.run_step[axis]);
        let groups = (shape.groups - 1) * plan.group_step;
        let read = plan.input.end(rows, columns, down + right + groups + shape.run);
        let read = read.saturating_add(SLACK);
        let written = plan.output.end(rows, columns, channels);
        assert!(
            read <= plan.output.offset || written <= plan.input.offset,
            "a convolution reads what it writes"
        );
        assert!(plan.output.is_disjoint(columns, channels), "pixels overlap");
        let mut arena = read.max(written);
        if let Some(residual) = &plan.residual {
            let end = residual.view.end(rows, columns, channels);
            assert!(
                end <= plan.output.offset || written <= residual.view.offset,
                "a convolution adds what it writes"
            );
            arena = arena.max(end);
        }
        assert!(arena <= u32::MAX as usize, "offsets have 32 bits");
        let bytes = shape.bytes(packing).expect("a layer fits into memory");
        let blocks = shape.blocks(packing).count();
        let pixel = shape.runs * shape.run + shape.outputs;
        let budget = if bytes <= SMALL { 20 << 10 } else { 512 << 10 };
        let at_once = (budget / pixel / UNIT * UNIT).clamp(UNIT, PIXELS);
        Self { plan, packing, blocks, bytes, at_once, arena }
    }

    /// Multiplications of a run.
    pub fn products(&self) -> u64 {
        let Dense { groups, outputs, runs, run } = self.plan.shape;
        let [rows, columns] = self.plan.size;
        (rows * columns) as u64 * (groups * outputs) as u64 * (runs * run) as u64
    }

    /// Runs it.
    ///
    /// # Panics
    /// Where something it touches lies outside the arena or the weights, and where the kernels
    /// read weights in another layout.
    pub fn run(
        &self,
        kernels: &Kernels,
        arena: &mut [u8],
        weights: &[u8],
        parallel: &dyn Parallel,
    ) {
        assert_eq!(self.packing, kernels.packing(), "weights are packed for other kernels");
        assert!(self.arena <= arena.len(), "an image leaves the arena");
        let weights = &weights[self.plan.weights..][..self.bytes];
        assert!(weights.as_ptr().addr().is_multiple_of(64), "weights lie at a multiple of 64");
        let arena = Shared::new(arena);
        let pixels = self.plan.size[0] * self.plan.size[1];
        let parallel = if self.products() < WORTHWHILE { &Alone } else { parallel };
        let parts = parallel.threads().max(1);
        // What is larger is read by each thread in part only.
        let by_blocks = self.blocks >= parts
            && (pixels < UNIT * parts || self.bytes > pixels * self.plan.shape.run);
        let parts = if by_blocks { parts.min(self.blocks) } else { parts };
        let unit = if pixels >= UNIT * parts { UNIT } else { 1 };
        let work = |index: usize| {
            let (pixels, blocks) = if by_blocks {
                (0..pixels, part(self.blocks, 1, index, parts))
            } else {
                (part(pixels, unit, index, parts), 0..self.blocks)
            };
            // Fully connected layers need no room for the places of many pixels.
            if pixels.len() <= FEW {
                self.part::<FEW>(kernels, arena, weights, pixels, blocks);
            } else {
                self.part::<PIXELS>(kernels, arena, weights, pixels, blocks);
            }
        };
        parallel.run(parts, &work);
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
        let plan = &self.plan;
        let shape = plan.shape;
        let mut offsets = [[0u32; N]; 3];
        let mut start = pixels.start;
        while start < pixels.end {
            let count = self.at_once.min(N).min(pixels.end - start);
            self.offsets(start, count, &mut offsets);
            let some = shape.blocks(self.packing).skip(blocks.start).take(blocks.len());
            for block in some {
                let first = block.group * shape.outputs + block.first;
                let input = plan.input.offset + block.group * plan.group_step;
                let residual = plan.residual.as_ref();
                let block = Block {
                    input: arena.at(input),
                    input_offsets: offsets[0].as_ptr(),
                    pixels: count,
                    runs: plan.runs,
                    run_step: plan.run_step,
                    steps: shape.run.div_ceil(DEPTH),
                    weights: weights[block.offset..].as_ptr(),
                    width: block.width,
                    channels: block.channels,
                    output: arena.at(plan.output.offset + first),
                    output_offsets: offsets[1].as_ptr(),
                    residual: residual.map_or(core::ptr::null(), |residual| {
                        arena.at(residual.view.offset + first)
                    }),
                    residual_offsets: offsets[2].as_ptr(),
                    residual_zero_point: residual.map_or(0.0, |r| self.real(r.zero_point)),
                    residual_scale: residual.map_or(0.0, |residual| residual.scale),
                    finish: plan.finish,
                    narrow: plan.narrow,
                    rows: core::ptr::null(),
                    addends: core::ptr::null(),
                };
                // SAFETY: `new` found every window, output and addend of these pixels, with the
                // slack, in the bytes that `run` found in the arena. The block lies in the
                // weights, at a multiple of 64 since blocks are multiples of it. Parts have
                // pixels or columns of their own, and outputs are apart from each other and from
                // what is read. The table of an instruction set is only given out where the
                // processor has it.
                unsafe { (kernels.conv)(&block) };
            }
            start += count;
        }
    }

    /// A stored activation as the number that the kernel takes it for.
    fn real(&self, stored: u8) -> f32 {
        match self.packing.raise() {
            0 => (stored as i8).into(),
            _ => stored.into(),
        }
    }

    /// The places of `count` pixels from number `start` on, in input, output and addend.
    fn offsets<const N: usize>(&self, start: usize, count: usize, offsets: &mut [[u32; N]; 3]) {
        let plan = &self.plan;
        let columns = plan.size[1];
        let views = [Some(plan.input), Some(plan.output), plan.residual.map(|r| r.view)];
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
}
