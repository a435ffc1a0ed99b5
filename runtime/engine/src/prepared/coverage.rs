//! Proves that a program reads no element that it has not written in the same inference.
//!
//! Most steps write a whole tensor. Copies and row tiles write a part of one, and a malformed
//! program could read the rest, which still holds bytes of an earlier inference. If this cannot be
//! excluded, the executor clears the arena before each inference.

use alloc::vec::Vec;

use crate::Program;
use crate::program::{CopyLayout, Step, TensorId};

/// The largest tensor whose elements are counted.
const MOST_ELEMENTS: u64 = 1 << 20;
/// The most contiguous runs of elements that are counted for one tensor.
const MOST_RUNS: u64 = 1 << 14;

/// Returns whether every tensor is written completely before a step reads it. `false` if this is
/// not the case or cannot be shown.
pub(super) fn reads_only_written<B: AsRef<[u8]>>(program: &Program<B>, steps: &[Step]) -> bool {
    let mut written: Vec<Written> =
        (0..program.tensor_count()).map(|_| Written::default()).collect();
    steps.iter().all(|step| {
        let complete = |id: TensorId| {
            let tensor = program.tensor(id);
            tensor.is_some_and(|tensor| written[usize::from(id)].is_all(tensor.elements()))
        };
        let ready = step.reads().all(complete);
        if let Some(id) = step.writes() {
            let tensor = program.tensor(id);
            let row = tensor.map_or(0, |tensor| tensor.width.saturating_mul(tensor.channels));
            let written = &mut written[usize::from(id)];
            match step {
                Step::Quantize(step) => written.add(Region::of(&step.copy)),
                Step::Move(step) => written.add(Region::of(&step.copy)),
                Step::RowTile(tile) => written.add(Region::rows(tile.first_row, tile.rows, row)),
                #[cfg(feature = "sparse")]
                Step::Sparse(tile) => written.add(Region::rows(tile.first_row, tile.rows, row)),
                _ => *written = Written::All,
            }
        }
        ready
    })
}

/// The elements of a tensor that steps have written.
#[derive(Clone, Debug)]
enum Written {
    All,
    /// These regions. A region that is not understood is not listed.
    Part(Vec<Region>),
}

impl Default for Written {
    fn default() -> Self {
        Self::Part(Vec::new())
    }
}

impl Written {
    fn add(&mut self, region: Option<Region>) {
        if let Self::Part(regions) = self {
            regions.extend(region);
        }
    }

    /// Returns whether the first `elements` elements have been written, as far as this can be found
    /// out quickly.
    fn is_all(&self, elements: u32) -> bool {
        let Self::Part(regions) = self else { return true };
        let elements = u64::from(elements);
        // Regions that repeat at the same stride up to the end, such as channels of each pixel:
        // consider the first repetition only.
        let period = regions
            .iter()
            .filter_map(|region| region.dims.last())
            .filter(|(size, stride)| size.checked_mul(*stride) == Some(elements))
            .map(|(_, stride)| *stride)
            .max()
            .unwrap_or(elements);
        let repeats = |region: &Region| {
            let (&(size, stride), inner) = region.dims.split_last()?;
            // The last dimension may count through several repetitions' elements.
            let (within, count) = (period / stride, elements / period);
            if period % stride != 0 || within * count != size {
                return None;
            }
            let mut dims = inner.to_vec();
            dims.extend((within > 1).then_some((within, stride)));
            let reach = dims.iter().map(|(size, stride)| (size - 1) * stride).sum::<u64>();
            (region.offset + reach < period).then_some(Region { offset: region.offset, dims })
        };
        let firsts: Option<Vec<Region>> = regions.iter().map(repeats).collect();
        match firsts {
            Some(firsts) if period < elements => covers(&firsts, period),
            _ => covers(regions, elements),
        }
    }
}

/// Returns whether regions cover the first `elements` elements. `false` if finding out takes long.
fn covers(regions: &[Region], elements: u64) -> bool {
    let runs = |region: &Region| region.dims.iter().map(|(size, _)| *size).product::<u64>();
    let work: u64 = regions.iter().map(|region| runs(region) / region.run()).sum();
    if elements > MOST_ELEMENTS || work > MOST_RUNS {
        return false;
    }
    let mut hit = alloc::vec![false; elements as usize];
    regions.iter().for_each(|region| region.mark(&mut hit));
    hit.iter().all(|hit| *hit)
}

/// A box of elements: dimensions with ascending strides, from an offset. No two of its indices are
/// the same element.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Region {
    offset: u64,
    /// The size and stride of each dimension, with the smallest stride first. Sizes exceed 1.
    dims: Vec<(u64, u64)>,
}

impl Region {
    /// Returns the elements that a copy writes; `None` if two of them could coincide.
    fn of(copy: &CopyLayout) -> Option<Self> {
        let dims = copy.dims.iter().zip(&copy.target_strides);
        let mut dims: Vec<(u64, u64)> = dims
            .map(|(size, stride)| (u64::from(*size), u64::from(*stride)))
            .filter(|(size, _)| *size > 1)
            .collect();
        dims.sort_unstable_by_key(|(_, stride)| *stride);
        let mut reach = 0u64;
        for (size, stride) in &dims {
            if *stride <= reach {
                return None;
            }
            reach = reach.checked_add((size - 1).checked_mul(*stride)?)?;
        }
        // Dimensions that count through consecutive multiples of a stride are one.
        let mut merged: Vec<(u64, u64)> = Vec::with_capacity(dims.len());
        for (size, stride) in dims {
            match merged.last_mut() {
                Some((inner, step)) if *inner * *step == stride => *inner *= size,
                _ => merged.push((size, stride)),
            }
        }
        let offset = copy.target_offset.into();
        (!copy.dims.contains(&0)).then_some(Self { offset, dims: merged })
    }

    fn rows(first: u32, rows: u32, row: u32) -> Option<Self> {
        let [first, rows, row] = [first, rows, row].map(u64::from);
        let dims = if rows * row > 1 { alloc::vec![(rows * row, 1)] } else { Vec::new() };
        (rows * row > 0).then_some(Self { offset: first * row, dims })
    }

    /// Returns the number of contiguous elements.
    fn run(&self) -> u64 {
        self.dims.first().filter(|(_, stride)| *stride == 1).map_or(1, |(size, _)| *size)
    }

    /// Marks the elements that are inside `hit`.
    fn mark(&self, hit: &mut [bool]) {
        let run = self.run();
        let outer = if run > 1 { &self.dims[1..] } else { &self.dims[..] };
        let count: u64 = outer.iter().map(|(size, _)| *size).product();
        for index in 0..count {
            let (mut rest, mut start) = (index, self.offset);
            for (size, stride) in outer {
                start += rest % size * stride;
                rest /= size;
            }
            let end = (start + run).min(hit.len() as u64);
            if let Some(hit) = hit.get_mut(start as usize..end as usize) {
                hit.fill(true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(offset: u32, dims: &[(u32, u32)]) -> Option<Region> {
        let mut copy = CopyLayout::contiguous(1);
        (copy.dims, copy.target_strides, copy.target_offset) = ([1; 6], [0; 6], offset);
        for (place, (size, stride)) in dims.iter().enumerate() {
            (copy.dims[place], copy.target_strides[place]) = (*size, *stride);
        }
        Region::of(&copy)
    }

    fn all(elements: u32, regions: &[Option<Region>]) -> bool {
        let mut written = Written::default();
        regions.iter().for_each(|region| written.add(region.clone()));
        written.is_all(elements)
    }

    #[test]
    fn copies_that_fill_a_tensor_are_recognized() {
        // A transposition of 2 × 3 elements.
        assert!(all(6, &[region(0, &[(2, 1), (3, 2)])]));
        // A concatenation of 2, 3 and 1 channels over 4 pixels.
        let channels = [(0, 2), (2, 3), (5, 1)];
        let parts = channels.map(|(first, count)| region(first, &[(4, 6), (count, 1)]));
        assert!(all(24, &parts));
        assert!(!all(24, &parts[..2]) && !all(24, &parts[1..]));
        // Channels that are shuffled, in parts.
        let parts = [region(2, &[(9, 7), (2, 4)]), region(0, &[(9, 7), (2, 4)])];
        let odd = region(1, &[(9, 7), (3, 2)]);
        assert!(all(63, &[parts[0].clone(), parts[1].clone(), odd.clone()]));
        assert!(!all(63, &[parts[0].clone(), odd]));
        // A concatenation of rows, and one of two interleaved tensors.
        assert!(all(10, &[region(0, &[(6, 1)]), region(6, &[(4, 1)])]));
        assert!(all(8, &[region(0, &[(4, 2)]), region(1, &[(4, 2)])]));
        assert!(all(6, &[Region::rows(0, 2, 2), Region::rows(2, 1, 2)]));
        assert!(all(1, &[region(0, &[])]));
    }

    #[test]
    fn gaps_and_overlaps_are_recognized() {
        assert!(!all(6, &[region(0, &[(3, 2)])]));
        assert!(!all(6, &[region(0, &[(2, 3), (2, 1)])]));
        assert!(!all(6, &[region(0, &[(3, 1)]), region(2, &[(3, 1)])]));
        assert!(!all(6, &[region(0, &[(3, 0), (2, 1)])]));
        assert!(!all(6, &[region(1, &[(5, 1)])]));
        assert!(!all(8, &[region(0, &[(4, 2)]), region(2, &[(2, 2)])]));
    }

    /// Whatever is called complete is complete: compared with a count of each element.
    #[test]
    fn no_incomplete_set_of_copies_is_accepted() {
        let mut state = 1u32;
        let mut below = |end: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) % end
        };
        let mut accepted = 0;
        for _ in 0..200_000 {
            let elements = 1 + below(12);
            let count = 1 + below(3);
            let mut hit = [false; 64];
            let mut written = Written::default();
            for _ in 0..count {
                let dims = [(1 + below(4), below(5)), (1 + below(4), below(5))];
                let offset = below(6);
                for (a, b) in (0..dims[0].0).flat_map(|a| (0..dims[1].0).map(move |b| (a, b))) {
                    hit[(offset + a * dims[0].1 + b * dims[1].1) as usize] = true;
                }
                written.add(region(offset, &dims));
            }
            if written.is_all(elements) {
                accepted += 1;
                assert!(hit[..elements as usize].iter().all(|hit| *hit));
            }
        }
        assert!(accepted > 300, "{accepted}");
    }
}
