//! Convolutions and fully connected layers on packed weights.

use super::parallel::{Shared, part};
use super::{Alone, Epilogue, Kernels, Parallel, ProductRow, Residual, SLACK, View, are_apart};
use crate::packed::Packing;
use crate::packed::dense::{DEPTH, Dense};

/// The number of output pixels whose offsets are computed at once.
const PIXELS: usize = 384;
/// The same for small parts, to save stack.
const FEW: usize = 4;
/// The MACs from which a second thread is worthwhile: a few microseconds of work.
const WORTHWHILE: u64 = 1 << 20;
/// Parts have a multiple of this many pixels, which is a multiple of the tile size of all kernels.
const UNIT: usize = 48;
/// Weights up to this many bytes stay in the L1 cache while the pixels stream through.
const SMALL: usize = 24 << 10;

/// The arguments of a convolution. Each output pixel reads `runs[0] · runs[1]` contiguous runs of
/// input bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvPlan {
    /// The first run of the first window, and the strides between windows.
    pub input: View,
    /// The output image.
    pub output: View,
    /// The rows and columns of the output.
    pub size: [usize; 2],
    /// The number of runs down and right. Their product is `shape.runs`.
    pub runs: [usize; 2],
    /// The bytes between adjacent runs, down and right.
    pub run_step: [usize; 2],
    /// The bytes between the inputs of adjacent groups.
    pub group_step: usize,
    /// The shape of the weights.
    pub shape: Dense,
    /// The first byte of the packed weights.
    pub weights: usize,
    /// A fused residual addition.
    pub residual: Option<Residual>,
    /// The epilogue.
    pub epilogue: Epilogue,
    /// Whether the magnitude of every accumulator is less than 2²² and every scale less than 2⁸, so
    /// that one instruction can convert and scale an accumulator.
    pub narrow: bool,
}

/// A convolution with a validated plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Conv {
    plan: ConvPlan,
    packing: Packing,
    /// The number of weight blocks.
    blocks: usize,
    /// The bytes of the weights.
    bytes: usize,
    /// The number of pixels that are processed with all blocks before the next ones: few enough
    /// that their inputs and outputs stay in the cache.
    at_once: usize,
    /// The minimum size of the arena in bytes.
    arena: usize,
}

/// The arguments of a convolution kernel: one block of columns (output channels) at some pixels.
///
/// # Safety
/// Until the kernel returns, its caller must guarantee:
///
/// - `input_offsets` and `output_offsets` have `pixels` elements, and so does `residual_offsets` if
///   `residual` is not null. Kernels read no more of them.
/// - `4 · steps` bytes are readable at
///   `input + input_offsets[p] + r · run_step[0] + c · run_step[1]` for each pixel p and all r and
///   c below `runs`, which are at least 1. A run is at most 3 bytes shorter than that, so kernels
///   read up to 3 bytes past it.
/// - `weights` is aligned to 64, and `width · (8 + 4 · steps · runs[0] · runs[1])` bytes are
///   readable there: the biases, scales and weights of `width` columns. Kernels read no further.
/// - `width` is a value that [`Packing::width`] returns for the kernel's layout. `channels` is at
///   least 1, at most `width` and, in the layout of AVX-512, more than `width − 16`.
/// - If `residual` is not null, `channels` bytes are readable at `residual + residual_offsets[p]`.
/// - `channels` bytes (if `rows` is not null, `channels` f32) are writable at
///   `output + output_offsets[p]`. They do not overlap each other or anything that is read, and no
///   other thread reads or writes them. Kernels write nothing else.
/// - If `rows` is not null, it has `pixels` elements, and `addends` has `width`.
/// - No other thread writes anything that is read.
///
/// The values of the bytes do not matter for safety: they are operands, never offsets or counts.
/// Weights may change while a kernel runs; the results are then unspecified.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    pub(crate) input: *const u8,
    /// The offset of each pixel's first run.
    pub(crate) input_offsets: *const u32,
    pub(crate) pixels: usize,
    pub(crate) runs: [usize; 2],
    pub(crate) run_step: [usize; 2],
    /// The number of steps of [`DEPTH`] elements in a run, rounded up.
    pub(crate) steps: usize,
    /// A block of packed weights.
    pub(crate) weights: *const u8,
    /// The columns of the block. Kernels for a single width do not read it.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub(crate) width: usize,
    /// The number of columns to write.
    pub(crate) channels: usize,
    pub(crate) output: *mut u8,
    pub(crate) output_offsets: *const u32,
    /// The residual, or null.
    pub(crate) residual: *const u8,
    pub(crate) residual_offsets: *const u32,
    pub(crate) residual_zero_point: f32,
    pub(crate) residual_scale: f32,
    pub(crate) epilogue: Epilogue,
    #[cfg_attr(target_arch = "arm", allow(dead_code))]
    pub(crate) narrow: bool,
    /// The dequantization parameters of each pixel for f32 outputs, or null for u8 outputs.
    pub(crate) rows: *const ProductRow,
    /// The float bias of each column for f32 outputs.
    pub(crate) addends: *const f32,
}

impl Conv {
    /// Validates a plan for kernels with the weight layout `packing`. Returns `None` if a size is 0
    /// or inconsistent, if output pixels overlap each other or the inputs, or if an offset exceeds
    /// 32 bits.
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
        // The bytes that all groups of one window span. No factor is 0.
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
        // Kernels use 32-bit pixel offsets.
        u32::try_from(arena).ok()?;
        let blocks = shape.blocks(packing).count();
        let pixel = runs.saturating_mul(run).saturating_add(outputs);
        let budget = if bytes <= SMALL { 20 << 10 } else { 512 << 10 };
        let at_once = (budget / pixel / UNIT * UNIT).clamp(UNIT, PIXELS);
        Some(Self { plan, packing, blocks, bytes, at_once, arena })
    }

    /// Returns the multiply-accumulates (MACs) of the convolution. Saturates.
    pub fn macs(&self) -> u64 {
        let Dense { groups, outputs, runs, run } = self.plan.shape;
        let [rows, columns] = self.plan.size;
        let counts = [rows, columns, groups, outputs, runs, run];
        counts.into_iter().fold(1, |macs, count| macs.saturating_mul(count as u64))
    }

    /// Runs the convolution.
    ///
    /// # Panics
    /// If an image exceeds the arena, the weights exceed `weights` or are not aligned to 64 bytes,
    /// or the kernels have a different weight layout.
    pub fn run(
        &self,
        kernels: &Kernels,
        arena: &mut [u8],
        weights: &[u8],
        parallel: &dyn Parallel,
    ) {
        assert_eq!(self.packing, kernels.packing(), "weights are packed for other kernels");
        assert!(self.arena <= arena.len(), "an image exceeds the arena");
        let weights = &weights[self.plan.weights..][..self.bytes];
        assert!(weights.as_ptr().addr().is_multiple_of(64), "weights must be aligned to 64 bytes");
        let arena = Shared::new(arena);
        // Cannot overflow: every pixel writes its own bytes of the arena.
        let pixels = self.plan.size[0] * self.plan.size[1];
        let parallel = if self.macs() < WORTHWHILE { &Alone } else { parallel };
        let parts = parallel.threads().max(1);
        let enough = UNIT.saturating_mul(parts);
        // Split by the larger operand, so that each thread reads only a part of it.
        let by_blocks = self.blocks >= parts
            && (pixels < enough || self.bytes > pixels.saturating_mul(self.plan.shape.run));
        let unit = if pixels >= enough { UNIT } else { 1 };
        let work = |index: usize| {
            let (pixels, blocks) = if by_blocks {
                (0..pixels, part(self.blocks, 1, index, parts))
            } else {
                (part(pixels, unit, index, parts), 0..self.blocks)
            };
            // Fully connected layers need stack space for a few pixel offsets only.
            if pixels.len() <= FEW {
                self.part::<FEW>(kernels, arena, weights, pixels, blocks);
            } else {
                self.part::<PIXELS>(kernels, arena, weights, pixels, blocks);
            }
        };
        parallel.run(parts, &work);
    }

    /// Computes some blocks at some pixels. The offsets of up to `N` pixels are computed at once.
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
                    epilogue: plan.epilogue,
                    narrow: plan.narrow,
                    rows: core::ptr::null(),
                    addends: core::ptr::null(),
                };
                // SAFETY: a `Kernels` table exists only if the CPU supports its instruction set.
                // The contract of `ConvBlock` holds:
                // - `offsets` contains `count` offsets per image, which all fit in 32 bits.
                // - `new` computed without overflow that windows (with 3 bytes of slack), outputs
                //   and residuals of all pixels and groups lie in the first `self.arena` bytes, and
                // `run`   checked that the arena has these.
                // - The block belongs to the layer, whose `self.bytes` bytes `run` sliced. The
                //   layer is aligned to 64, and so is every block, because it has a multiple of 16
                //   columns
                // of a   multiple of 4 bytes. `Dense::blocks` determines its width and channels.
                // - `new` checked that outputs do not overlap each other or anything that is read.
                //   Each part has its own pixels or its own columns.
                unsafe { (kernels.conv)(&block) };
            }
            start += count;
        }
    }

    /// Converts a stored activation to the number that kernels interpret it as: i8 or u8.
    fn real(&self, stored: u8) -> f32 {
        match self.packing.activation_offset() {
            0 => (stored as i8).into(),
            _ => stored.into(),
        }
    }

    /// Computes the offsets of `count` pixels from index `start` in the input, output and residual.
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
