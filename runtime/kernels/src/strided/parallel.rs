//! Work in parts.

use core::ops::Range;

/// Runs parts of one operation, at once where it can.
///
/// # Safety
/// An operation gives each part its own bytes to write. [`Parallel::run`] must therefore call `work`
/// at most once with each number, only with numbers below `parts`, and must neither return nor
/// unwind before all calls have ended.
pub unsafe trait Parallel: Sync {
    /// How many parts can run at once. May be any number, and may change.
    fn threads(&self) -> usize;

    /// Calls `work` once with every number below `parts`, and returns when all calls have.
    ///
    /// # Panics
    /// Where a call of `work` does. Some numbers may then have been left out.
    fn run(&self, parts: usize, work: &(dyn Fn(usize) + Sync));
}

/// One part after another, on the calling thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

// SAFETY: calls follow each other, one for each number.
unsafe impl Parallel for Alone {
    fn threads(&self) -> usize {
        1
    }

    fn run(&self, parts: usize, work: &(dyn Fn(usize) + Sync)) {
        (0..parts).for_each(work);
    }
}

/// The bounds of part `index` of `parts`, at least 1, of `count` things, of which `unit` stay
/// together. Parts are apart, whatever the numbers, and together they are all.
pub(super) fn part(count: usize, unit: usize, index: usize, parts: usize) -> Range<usize> {
    let units = count.div_ceil(unit);
    let (each, more) = (units / parts, units % parts);
    // The first parts have one unit more. Never more than `units`, so that nothing overflows.
    let bound = |index: usize| (each * index + more.min(index)).saturating_mul(unit).min(count);
    let index = index.min(parts - 1);
    bound(index)..bound(index + 1)
}

/// A pointer to the first of some bytes that parts of one operation share.
///
/// Making and moving it is safe. Those who read or write through it see to it that the bytes are
/// among those it was made of, that these are still borrowed, and that no two parts touch a byte that
/// one of them writes.
#[derive(Clone, Copy)]
pub(super) struct Shared(*mut u8);

// SAFETY: it is an address; threads that read or write through it keep the rules above.
unsafe impl Send for Shared {}
// SAFETY: as for `Send`.
unsafe impl Sync for Shared {}

impl Shared {
    pub(super) fn new(arena: &mut [u8]) -> Self {
        Self(arena.as_mut_ptr())
    }

    /// The bytes of reals.
    pub(super) fn of_reals(reals: &mut [f32]) -> Self {
        Self(reals.as_mut_ptr().cast())
    }

    /// The address `offset` bytes behind the first.
    pub(super) fn at(self, offset: usize) -> *mut u8 {
        self.0.wrapping_add(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_everything_once() {
        for count in 0..50 {
            for unit in 1..8 {
                for parts in 1..6 {
                    let mut next = 0;
                    for index in 0..parts {
                        let part = part(count, unit, index, parts);
                        assert_eq!(part.start, next);
                        assert!(part.end == count || part.end.is_multiple_of(unit));
                        next = part.end;
                    }
                    assert_eq!(next, count);
                }
            }
        }
    }

    #[test]
    fn parts_are_apart_however_many_there_are() {
        const MOST: usize = usize::MAX;
        for count in [1, 7, MOST - 1, MOST] {
            for unit in [1, 48, MOST] {
                for parts in [1, 5, MOST / 2, MOST] {
                    for index in [0, 1, 6, parts / 2, parts - 1].map(|i| i.min(parts - 1)) {
                        let (this, next) = (part(count, unit, index, parts), index + 1);
                        assert!(this.start <= this.end && this.end <= count);
                        if next < parts {
                            assert_eq!(part(count, unit, next, parts).start, this.end);
                        }
                    }
                }
            }
        }
    }
}
