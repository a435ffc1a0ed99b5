//! Assigns arena offsets to tensors. Tensors that are live at the same time never overlap.

use alloc::collections::{BTreeMap, BTreeSet, BinaryHeap};
use alloc::vec::Vec;
use core::cmp::Reverse;

/// The size and lifetime of a tensor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetime {
    /// The number of bytes.
    pub(crate) bytes: u64,
    /// The first step that writes the tensor.
    pub(crate) first: u32,
    /// The last step that reads or writes the tensor.
    pub(crate) last: u32,
}

impl Lifetime {
    fn meets(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// Above this number of tensors only the O(n log n) algorithm runs.
const SORTED_BY_SIZE: usize = 8192;

/// Returns the offset of each tensor, a multiple of `alignment`, and the size of the arena.
///
/// Tries two orders, earliest first and largest first, and returns the smaller result.
pub(crate) fn place(lifetimes: &[Lifetime], alignment: u64) -> (Vec<u64>, u64) {
    let mut order: Vec<usize> = (0..lifetimes.len()).collect();
    order.sort_by_key(|&i| (lifetimes[i].first, Reverse(lifetimes[i].bytes)));
    let early = in_time(lifetimes, &order, alignment);
    if lifetimes.len() > SORTED_BY_SIZE {
        return early;
    }
    order.sort_unstable();
    order.sort_by_key(|&i| (Reverse(lifetimes[i].bytes), lifetimes[i].first));
    let large = in_order(lifetimes, &order, alignment);
    if early.1 < large.1 { early } else { large }
}

/// The gaps between live tensors, and the end of the last one.
#[derive(Default)]
struct Gaps {
    /// The size of each gap by offset.
    sizes: BTreeMap<u64, u64>,
    /// The same gaps as (size, offset), smallest first.
    fitting: BTreeSet<(u64, u64)>,
    end: u64,
}

impl Gaps {
    /// Allocates `size` bytes in the smallest sufficient gap, or at the end.
    fn take(&mut self, size: u64) -> u64 {
        let Some(&(gap, offset)) = self.fitting.range((size, 0)..).next() else {
            let offset = self.end;
            self.end = offset.saturating_add(size);
            return offset;
        };
        self.remove(offset, gap);
        if gap > size {
            self.insert(offset + size, gap - size);
        }
        offset
    }

    /// Frees a range and merges it with adjacent gaps.
    fn free(&mut self, mut offset: u64, mut size: u64) {
        let before = self.sizes.range(..offset).next_back().map(|(&at, &size)| (at, size));
        if let Some((at, gap)) = before.filter(|(at, gap)| at + gap == offset) {
            self.remove(at, gap);
            (offset, size) = (at, gap + size);
        }
        if let Some(&gap) = self.sizes.get(&(offset + size)) {
            self.remove(offset + size, gap);
            size += gap;
        }
        if offset + size == self.end {
            self.end = offset;
        } else {
            self.insert(offset, size);
        }
    }

    fn insert(&mut self, offset: u64, size: u64) {
        self.sizes.insert(offset, size);
        self.fitting.insert((size, offset));
    }

    fn remove(&mut self, offset: u64, size: u64) {
        self.sizes.remove(&offset);
        self.fitting.remove(&(size, offset));
    }
}

/// [`in_order`] for tensors sorted by their first step, in O(n log n).
fn in_time(lifetimes: &[Lifetime], order: &[usize], alignment: u64) -> (Vec<u64>, u64) {
    let mut offsets = alloc::vec![0u64; lifetimes.len()];
    let mut total = 0;
    let mut gaps = Gaps::default();
    // Live tensors; the one whose lifetime ends first is on top.
    let mut alive = BinaryHeap::new();
    let size = |index: usize| lifetimes[index].bytes.max(1).next_multiple_of(alignment);
    for &index in order {
        while let Some(&Reverse((last, other))) = alive.peek() {
            if last >= lifetimes[index].first {
                break;
            }
            alive.pop();
            gaps.free(offsets[other], size(other));
        }
        offsets[index] = gaps.take(size(index));
        total = total.max(offsets[index].saturating_add(size(index)));
        alive.push(Reverse((lifetimes[index].last, index)));
    }
    (offsets, total)
}

/// Places one tensor after another, each in the smallest sufficient gap, or else after all
/// tensors that are live at the same time.
fn in_order(lifetimes: &[Lifetime], order: &[usize], alignment: u64) -> (Vec<u64>, u64) {
    let mut offsets = alloc::vec![0u64; lifetimes.len()];
    let mut total = 0;
    // The placed tensors, sorted by offset.
    let mut placed: Vec<usize> = Vec::with_capacity(order.len());
    for &index in order {
        let lifetime = &lifetimes[index];
        let mut best: Option<(u64, u64)> = None;
        let mut free = 0;
        for &other in placed.iter().filter(|&&other| lifetimes[other].meets(lifetime)) {
            let gap = offsets[other].saturating_sub(free);
            if gap >= lifetime.bytes && best.is_none_or(|(least, _)| gap < least) {
                best = Some((gap, free));
            }
            free = free.max((offsets[other] + lifetimes[other].bytes).next_multiple_of(alignment));
        }
        let offset = best.map_or(free, |(_, offset)| offset);
        offsets[index] = offset;
        total = total.max((offset + lifetime.bytes).next_multiple_of(alignment));
        let at = placed.partition_point(|&other| offsets[other] <= offset);
        placed.insert(at, index);
    }
    (offsets, total)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_chain_needs_space_for_two_adjacent_tensors() {
        let lifetimes: Vec<Lifetime> =
            (0..6).map(|step| Lifetime { bytes: 160, first: step, last: step + 1 }).collect();
        assert_eq!(place(&lifetimes, 16).1, 320);
    }

    #[test]
    fn many_tensors_are_placed_in_n_log_n_time() {
        let count = 200_000u32;
        let lifetimes: Vec<Lifetime> = (0..count)
            .map(|i| Lifetime { bytes: u64::from(i % 97 + 1), first: i, last: i + i % 13 })
            .collect();
        let (offsets, total) = place(&lifetimes, 64);
        assert_eq!(offsets.len(), count as usize);
        assert!(total < 64 * 2 * 14 * 2, "{total}");
    }

    proptest! {
        #[test]
        fn live_tensors_never_overlap(
            tensors in prop::collection::vec((1u64..5000, 0u32..40, 0u32..10), 1..60)
        ) {
            let lifetimes: Vec<Lifetime> = tensors
                .iter()
                .map(|&(bytes, first, length)| Lifetime { bytes, first, last: first + length })
                .collect();
            let (offsets, total) = place(&lifetimes, 16);
            for (i, a) in lifetimes.iter().enumerate() {
                prop_assert!(offsets[i] % 16 == 0 && offsets[i] + a.bytes <= total);
                for (j, b) in lifetimes.iter().enumerate().skip(i + 1) {
                    let apart = offsets[i] + a.bytes <= offsets[j]
                        || offsets[j] + b.bytes <= offsets[i];
                    prop_assert!(!a.meets(b) || apart, "{i} and {j}");
                }
            }
            prop_assert_eq!(place(&lifetimes, 16), (offsets, total));
        }

        #[test]
        fn both_algorithms_agree_on_tensors_sorted_by_first_step(
            tensors in prop::collection::vec((1u64..300, 0u32..60, 0u32..20), 1..80)
        ) {
            let lifetimes: Vec<Lifetime> = tensors
                .iter()
                .map(|&(bytes, first, length)| Lifetime { bytes, first, last: first + length })
                .collect();
            let mut order: Vec<usize> = (0..lifetimes.len()).collect();
            order.sort_by_key(|&i| (lifetimes[i].first, Reverse(lifetimes[i].bytes)));
            prop_assert_eq!(in_time(&lifetimes, &order, 16), in_order(&lifetimes, &order, 16));
        }
    }
}
