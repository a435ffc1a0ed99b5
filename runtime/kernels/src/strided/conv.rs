//! Convolutions and fully connected layers on packed weights.

use super::parallel::{Shared, part};
use super::{Alone, Finish, Kernels, Parallel, ProductRow, Residual, SLACK, View, are_apart};
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
    /// The arena has at least this many bytes.
    arena: usize,
}

/// Some columns at some pixels: what a kernel gets.
///
/// # Safety
/// The caller of a kernel with a block promises, until it returns:
///
/// - There are `pixels` offsets of inputs and of outputs, and of addends where `residual` is not
///   null; no more than `pixels` of any are read.
/// - `4 · steps` bytes can be read from `input + input_offsets[p] + r · run_step[0] + c · run_step[1]`
///   on, for each pixel p and all r and c below `runs`, which are at least 1. As a run has no more than
///   3 elements less than that, kernels read up to 3 bytes behind it.
/// - `weights` is a multiple of 64, and `width · (8 + 4 · steps · runs[0] · runs[1])` bytes can be
///   read there: the biases, the scales and the weights of `width` columns. No kernel reads further.
/// - `width` is one that [`Packing::width`] gives for the kernel's layout, and `channels` is at
///   least 1, at most `width` and, in the layout of AVX-512, more than `width − 16`.
/// - `channels` bytes can be read at `residual + residual_offsets[p]`, where `residual` is not null.
/// - `channels` bytes can be written at `output + output_offsets[p]`; where `rows` is not null, as
///   many f32. These share no byte with each other or with what is read, and no other thread reads
///   or writes them. No kernel writes anything else.
/// - Where `rows` is not null there are `pixels` of them, and `width` addends.
/// - No other thread writes what is read.
///
/// Nothing follows from what the bytes hold: they are numbers for the arithmetic, and never offsets
/// or counts. Weights may change while a kernel runs; its results are then those of some weights.
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
    /// A block of packed weights.
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
    /// Checks a plan for kernels that read weights in this layout. `None` where a size is 0 or sizes
    /// contradict each other, where pixels overlap, where the output shares bytes with what is read,
    /// and where something lies beyond what 32 bits count.
    pub fn new(plan: ConvPlan, packing: Packing) -> Option<Self> {
        let (size, shape) = (plan.size, plan.shape);
        let Dense { groups, outputs, runs, run } = shape;
        if [groups, outputs, runs, run].contains(&0)
            || plan.runs[0].checked_mul(plan.runs[1]) != Some(runs)
        {
            return None;
        }
        let bytes = shape.bytes(packing)?;
        let channels = groups.checked_mul(outputs)?;
        // What all groups of one window read: no factor is 0.
        let window = [
            (plan.runs[0], plan.run_step[0]),
            (plan.runs[1], plan.run_step[1]),
            (groups, plan.group_step),
        ]
        .into_iter()
        .try_fold(run, |end, (count, step)| (count - 1).checked_mul(step)?.checked_add(end))?;
        let mut read = plan.input.extent(size, window)?;
        read.end = read.end.checked_add(SLACK)?;
        let written = plan.output.written(size, channels)?;
        if !are_apart(&read, &written) {
            return None;
        }
        let mut arena = read.end.max(written.end);
        if let Some(residual) = &plan.residual {
            let added = residual.view.extent(size, channels)?;
            if !are_apart(&added, &written) {
                return None;
            }
            arena = arena.max(added.end);
        }
        // Offsets of pixels have 32 bits.
        u32::try_from(arena).ok()?;
        let blocks = shape.blocks(packing).count();
        let pixel = runs.saturating_mul(run).saturating_add(outputs);
        let budget = if bytes <= SMALL { 20 << 10 } else { 512 << 10 };
        let at_once = (budget / pixel / UNIT * UNIT).clamp(UNIT, PIXELS);
        Some(Self { plan, packing, blocks, bytes, at_once, arena })
    }

    /// Multiplications of a run.
    pub fn products(&self) -> u64 {
        let Dense { groups, outputs, runs, run } = self.plan.shape;
        let [rows, columns] = self.plan.size;
        let counts = [rows, columns, groups, outputs, runs, run];
        counts.into_iter().fold(1, |products, count| products.saturating_mul(count as u64))
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
        // Not more than bytes of the arena, since each writes its own.
        let pixels = self.plan.size[0] * self.plan.size[1];
        let parallel = if self.products() < WORTHWHILE { &Alone } else { parallel };
        let parts = parallel.threads().max(1);
        let enough = UNIT.saturating_mul(parts);
        // What is larger is read by each thread in part only.
        let by_blocks = self.blocks >= parts
            && (pixels < enough || self.bytes > pixels.saturating_mul(self.plan.shape.run));
        let unit = if pixels >= enough { UNIT } else { 1 };
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
                // SAFETY: the processor has the instructions of a table. The block is as it must be:
                // - `offsets` holds the places of `count` pixels, all three within 32 bits.
                // - Windows, with three bytes of the slack, outputs and addends of all pixels and
                //   groups lie in the first `self.arena` bytes, as `new` computed without overflow,
                //   and the arena has these, as `run` checked.
                // - The block is one of the layer, whose `self.bytes` bytes `run` found. The layer is
                //   at a multiple of 64, and so is every block, which has a multiple of 16 columns of
                //   a multiple of 4 bytes. Its columns are as `Dense::blocks` gives them.
                // - `new` found outputs apart from each other and from all that is read. A part has
                //   pixels of its own, or columns of its own.
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
