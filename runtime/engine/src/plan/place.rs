//! Where tensors lie in the arena: those that live at the same time never overlap.

use alloc::vec::Vec;
use core::cmp::Reverse;

/// What is known of a tensor before it has a place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetime {
    /// Bytes.
    pub(crate) bytes: u64,
    /// First step that writes it.
    pub(crate) first: u32,
    /// Last step that reads or writes it.
    pub(crate) last: u32,
}

impl Lifetime {
    fn meets(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// The offset of each tensor, a multiple of `alignment`, and the bytes of the arena. Tries the largest first and the
/// earliest first, and takes what needs less.
pub(crate) fn place(lifetimes: &[Lifetime], alignment: u64) -> (Vec<u64>, u64) {
    let mut by_size: Vec<usize> = (0..lifetimes.len()).collect();
    let mut by_start = by_size.clone();
    by_size.sort_by_key(|&i| (Reverse(lifetimes[i].bytes), lifetimes[i].first));
    by_start.sort_by_key(|&i| (lifetimes[i].first, Reverse(lifetimes[i].bytes)));
    let large = in_order(lifetimes, &by_size, alignment);
    let early = in_order(lifetimes, &by_start, alignment);
    if early.1 < large.1 { early } else { large }
}

/// Places one tensor after another, each in the smallest gap that holds it, or else after
/// all that live at the same time.
fn in_order(lifetimes: &[Lifetime], order: &[usize], alignment: u64) -> (Vec<u64>, u64) {
    let mut offsets = alloc::vec![0u64; lifetimes.len()];
    let mut total = 0;
    // Tensors that have a place, by offset.
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
    fn a_chain_needs_its_two_largest_neighbours() {
        let lifetimes: Vec<Lifetime> =
            (0..6).map(|step| Lifetime { bytes: 160, first: step, last: step + 1 }).collect();
        assert_eq!(place(&lifetimes, 16).1, 320);
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
    }
}
