//! Convolutions and matmuls on packed weights.

use core::ops::Range;

use super::packed::{DenseBlock, DenseShape};
use super::vector::Vector;
use super::{Clamp, Kernels};
use crate::strided::{Alone, Parallel, Shared, View, are_apart, part};

/// The number of output pixels whose offsets are computed at once: a multiple of the tile sizes.
const PIXELS: usize = 240;
/// The MACs from which a second thread is worthwhile: a few microseconds of work.
const WORTHWHILE: u64 = 1 << 18;
/// The input elements that stay in the L2 cache while blocks of columns pass over them.
const CACHED: usize = 64 << 10;

/// The arguments of a convolution. Each output pixel reads `runs[0] · runs[1]` contiguous runs of
/// `run` elements. Offsets and strides are in elements.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvPlan {
    /// The first run of the first window, and the strides between windows.
    pub input: View,
    /// The output image.
    pub output: View,
    /// The rows and columns of the output.
    pub size: [usize; 2],
    /// The number of runs down and right.
    pub runs: [usize; 2],
    /// The elements between adjacent runs, down and right.
    pub run_step: [usize; 2],
    /// The elements of a run.
    pub run: usize,
    /// The elements between the inputs of adjacent groups.
    pub group_step: usize,
    /// The shape of the weights; its terms are `runs[0] · runs[1] · run`.
    pub shape: DenseShape,
    /// A tensor that is added to the sum.
    pub residual: Option<Residual>,
    /// The range of outputs.
    pub clamp: Clamp,
}

/// The residual that a convolution adds to its sum, before the clamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Residual {
    /// The residual, which has the shape of the output.
    pub view: View,
}

/// A convolution with a validated plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Conv {
    plan: ConvPlan,
    lanes: usize,
    /// The elements of the packed weights.
    weights: usize,
    /// The minimum number of elements of the arena.
    arena: usize,
    /// The number of pixels that pass through all blocks before the next ones.
    at_once: usize,
}

/// The arguments of a kernel: one block of columns at some pixels.
///
/// # Safety
/// Until the kernel returns, its caller must guarantee:
///
/// - `input_offsets` and `output_offsets` have `pixels` elements, and so does `residual_offsets` if
///   `residual` is not null. Kernels read no more of them.
/// - `run` elements are readable at
///   `input + input_offsets[p] + r · run_step[0] + c · run_step[1]` for each pixel p and all r and
///   c below `runs`.
/// - `width · (1 + runs[0] · runs[1] · run)` elements are readable at `weights`; `width` is the
///   number of vectors that the kernel is for, times their elements.
/// - `channels` is at most `width`. As many elements are writable at `output + output_offsets[p]`,
///   and readable at `residual + residual_offsets[p]` if `residual` is not null.
/// - The written elements do not overlap anything that is read, and no other thread reads or writes
///   them. No other thread writes anything that is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    pub(super) input: *const f32,
    pub(super) input_offsets: *const u32,
    pub(super) pixels: usize,
    pub(super) runs: [usize; 2],
    pub(super) run_step: [usize; 2],
    pub(super) run: usize,
    pub(super) weights: *const f32,
    pub(super) channels: usize,
    pub(super) output: *mut f32,
    pub(super) output_offsets: *const u32,
    /// The residual, or null.
    pub(super) residual: *const f32,
    pub(super) residual_offsets: *const u32,
    pub(super) clamp: Clamp,
}

impl Conv {
    /// Validates a plan for kernels with vectors of `lanes` elements. Returns `None` if a size is 0
    /// or inconsistent, if output pixels overlap each other or the inputs, or if an offset exceeds
    /// 32 bits.
    pub fn new(plan: ConvPlan, lanes: usize) -> Option<Self> {
        let (size, shape) = (plan.size, plan.shape);
        let DenseShape { groups, outputs, terms } = shape;
        let runs = plan.runs[0].checked_mul(plan.runs[1])?;
        if [groups, outputs, terms, lanes].contains(&0) || runs.checked_mul(plan.run)? != terms {
            return None;
        }
        let weights = shape.elements(lanes)?;
        let channels = groups.checked_mul(outputs)?;
        // The elements that all groups of one window span. No factor is 0.
        let window = [
            (plan.runs[0], plan.run_step[0]),
            (plan.runs[1], plan.run_step[1]),
            (groups, plan.group_step),
        ]
        .into_iter()
        .try_fold(plan.run, |end, (count, step)| (count - 1).checked_mul(step)?.checked_add(end))?;
        let read = plan.input.extent(size, window)?;
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
        let unit = PIXELS / 10;
        let at_once = (CACHED / terms.saturating_add(outputs) / unit * unit).clamp(unit, PIXELS);
        Some(Self { plan, lanes, weights, arena, at_once })
    }

    /// Returns the multiply-accumulates (MACs) of the convolution. Saturates.
    pub fn macs(&self) -> u64 {
        let DenseShape { groups, outputs, terms } = self.plan.shape;
        let [rows, columns] = self.plan.size;
        let counts = [rows, columns, groups, outputs, terms];
        counts.into_iter().fold(1, |macs, count| macs.saturating_mul(count as u64))
    }

    /// Runs the convolution.
    ///
    /// # Panics
    /// If an image exceeds the arena, `weights` has another size than the packed weights, or the
    /// kernels have vectors of another length.
    pub fn run(
        &self,
        kernels: &Kernels,
        arena: &mut [f32],
        weights: &[f32],
        parallel: &dyn Parallel,
    ) {
        assert_eq!(self.lanes, kernels.lanes, "weights are packed for other kernels");
        assert!(self.arena <= arena.len(), "an image exceeds the arena");
        assert_eq!(self.weights, weights.len(), "the weights have another size");
        let arena = Shared::of_reals(arena);
        // Cannot overflow: every pixel writes its own elements of the arena.
        let pixels = self.plan.size[0] * self.plan.size[1];
        let blocks = self.plan.shape.block_count(self.lanes);
        let parallel = if self.macs() < WORTHWHILE { &Alone } else { parallel };
        let parts = parallel.threads().max(1);
        // Split by the larger operand, so that each thread reads only a part of it.
        let by_blocks = blocks >= parts
            && (pixels < 12 * parts || self.weights > pixels.saturating_mul(self.plan.run));
        parallel.run(parts, &|index| {
            let (pixels, blocks) = if by_blocks {
                (0..pixels, part(blocks, 1, index, parts))
            } else {
                (part(pixels, 12, index, parts), 0..blocks)
            };
            self.part(kernels, arena, weights, pixels, blocks);
        });
    }

    /// Computes some blocks of columns at some pixels.
    fn part(
        &self,
        kernels: &Kernels,
        arena: Shared,
        weights: &[f32],
        pixels: Range<usize>,
        blocks: Range<usize>,
    ) {
        let plan = &self.plan;
        let mut offsets = [[0; PIXELS]; 3];
        let mut start = pixels.start;
        while start < pixels.end {
            let count = self.at_once.min(pixels.end - start);
            self.offsets(start, count, &mut offsets);
            let chosen = plan.shape.blocks(self.lanes);
            for block in chosen.skip(blocks.start).take(blocks.len()) {
                let DenseBlock { group, first, channels, vectors, offset } = block;
                let column = group * plan.shape.outputs + first;
                let at = |offset: usize| arena.at(4 * offset).cast::<f32>();
                let block = Block {
                    input: at(group * plan.group_step).cast_const(),
                    input_offsets: offsets[0].as_ptr(),
                    pixels: count,
                    runs: plan.runs,
                    run_step: plan.run_step,
                    run: plan.run,
                    weights: weights[offset..].as_ptr(),
                    channels,
                    output: at(column),
                    output_offsets: offsets[1].as_ptr(),
                    residual: match plan.residual {
                        Some(_) => at(column).cast_const(),
                        None => core::ptr::null(),
                    },
                    residual_offsets: offsets[2].as_ptr(),
                    clamp: plan.clamp,
                };
                // SAFETY: a `Kernels` table exists only if the CPU supports its instruction set.
                // The contract of `Block` holds:
                // - `offsets` has `count` offsets per image, which all fit in 32 bits.
                // - `new` computed without overflow that windows, outputs and residuals of all
                //   pixels and groups lie in the first `self.arena` elements, and `run` checked
                //   that the arena has these.
                // - The block belongs to the layer, whose size `run` checked. `DenseShape::blocks`
                //   determines its vectors and channels.
                // - `new` checked that outputs do not overlap each other or anything that is read.
                //   Each part has its own pixels or its own columns.
                unsafe { (kernels.conv[vectors - 1])(&block) };
            }
            start += count;
        }
    }

    /// Computes the offsets of `count` pixels from index `start` in the input, output and residual.
    fn offsets(&self, start: usize, count: usize, offsets: &mut [[u32; PIXELS]; 3]) {
        let plan = &self.plan;
        let columns = plan.size[1];
        let views = [Some(plan.input), Some(plan.output), plan.residual.map(|r| r.view)];
        for (view, offsets) in views.iter().zip(offsets) {
            let Some(view) = view else { continue };
            let (mut row, mut column) = (start / columns, start % columns);
            for offset in &mut offsets[..count] {
                *offset = (view.offset + row * view.row + column * view.pixel) as u32;
                column += 1;
                if column == columns {
                    (row, column) = (row + 1, 0);
                }
            }
        }
    }
}

/// Computes a block of `N` vectors of columns, in tiles of at most `LARGEST` pixels.
///
/// # Safety
/// Requires the CPU features of `V` and the contract of [`Block`].
#[inline(always)]
pub(super) unsafe fn conv<V: Vector, const N: usize, const LARGEST: usize>(block: &Block) {
    macro_rules! tiles {
        ($($size:literal)*) => {
            // The size with which the fewest pixels are computed twice: the last tile overlaps the
            // one before it. Overlapping pixels are stored twice with the same value.
            let mut best = (usize::MAX, 1);
            $(if $size <= LARGEST && $size <= block.pixels {
                // A tile costs about one pixel more than it has.
                let cost = block.pixels.div_ceil($size) * ($size + 1);
                if cost < best.0 {
                    best = (cost, $size);
                }
            })*
            let mut first = 0;
            while first < block.pixels {
                let at = first.min(block.pixels - best.1);
                match best.1 {
                    $($size if $size <= LARGEST => {
                        // SAFETY: the caller's, and all pixels of the tile are below `pixels`.
                        unsafe { tile::<V, $size, N>(block, at) }
                    })*
                    // SAFETY: the caller's, and `at` is below `pixels`.
                    _ => unsafe { tile::<V, 1, N>(block, at) },
                }
                first += best.1;
            }
        };
    }
    tiles!(12 10 8 7 6 5 4 3 2);
}

/// Computes `N` vectors of columns at `M` pixels from `first`.
///
/// # Safety
/// Requires the CPU features of `V`, the contract of [`Block`], and that it has `first + M` pixels.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "iterators keep the sums in memory")]
unsafe fn tile<V: Vector, const M: usize, const N: usize>(block: &Block, first: usize) {
    // SAFETY: the caller's. Pointers stay within the elements that the contract names, in the
    // order of the packed weights: biases, then one group of `N` vectors for each term.
    unsafe {
        let mut inputs = [block.input; M];
        for (pixel, input) in inputs.iter_mut().enumerate() {
            *input = block.input.add(*block.input_offsets.add(first + pixel) as usize);
        }
        let mut weights = block.weights.add(N * V::LANES);
        let mut sums = [[V::splat(0.0); N]; M];
        for row in 0..block.runs[0] {
            for column in 0..block.runs[1] {
                let run = row * block.run_step[0] + column * block.run_step[1];
                for term in run..run + block.run {
                    let mut factors = [V::splat(0.0); N];
                    for vector in 0..N {
                        factors[vector] = V::load(weights.add(vector * V::LANES));
                    }
                    weights = weights.add(N * V::LANES);
                    for pixel in 0..M {
                        let value = V::splat(*inputs[pixel].add(term));
                        for vector in 0..N {
                            sums[pixel][vector] = value.fma(factors[vector], sums[pixel][vector]);
                        }
                    }
                }
            }
        }
        // A copy in memory, because the loop below is not unrolled: the sums themselves stay in
        // registers.
        let mut finished = [[V::splat(0.0); N]; M];
        for pixel in 0..M {
            for vector in 0..N {
                sums[pixel][vector].store(core::ptr::from_mut(&mut finished[pixel][vector]).cast());
            }
        }
        let (low, high) = (V::splat(block.clamp.low), V::splat(block.clamp.high));
        for (pixel, sums) in finished.iter().enumerate() {
            let output = block.output.add(*block.output_offsets.add(first + pixel) as usize);
            for (vector, sum) in sums.iter().enumerate() {
                let place = vector * V::LANES;
                let mut sum = sum.add(V::load(block.weights.add(place)));
                let left = block.channels.saturating_sub(place).min(V::LANES);
                if !block.residual.is_null() {
                    let offset = *block.residual_offsets.add(first + pixel) as usize;
                    sum = sum.add(V::load_some(block.residual.add(offset + place), left));
                }
                let sum = sum.clamp(low, high);
                if left == V::LANES {
                    sum.store(output.add(place));
                } else {
                    sum.store_some(output.add(place), left);
                }
            }
        }
    }
}
