//! Parallel execution of an operation in parts.

use core::ops::Range;

/// An executor that runs the parts of one operation, possibly in parallel.
///
/// # Safety
/// Each part of an operation writes its own bytes. [`Parallel::run`] must therefore call `work` at
/// most once with each index, only with indices below `parts`, and must neither return nor unwind
/// before all calls have ended.
pub unsafe trait Parallel: Sync {
    /// Returns the number of parts that can run at once. It may be any number and may change.
    fn threads(&self) -> usize;

    /// Calls `work` once with every index below `parts`, and returns when all calls have returned.
    ///
    /// # Panics
    /// If a call of `work` panics. Some indices may then have been skipped.
    fn run(&self, parts: usize, work: &(dyn Fn(usize) + Sync));
}

/// Runs the parts one after another on the calling thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

// SAFETY: `run` calls `work` once for each index below `parts`, and returns after the last call.
unsafe impl Parallel for Alone {
    fn threads(&self) -> usize {
        1
    }

    fn run(&self, parts: usize, work: &(dyn Fn(usize) + Sync)) {
        (0..parts).for_each(work);
    }
}

/// Returns the range of part `index` if `count` items are divided into `parts` parts (at least 1)
/// at multiples of `unit`. For any arguments, the parts are disjoint and cover all items.
pub(crate) fn part(count: usize, unit: usize, index: usize, parts: usize) -> Range<usize> {
    let units = count.div_ceil(unit);
    let (each, more) = (units / parts, units % parts);
    // The first parts have one more unit. The bound is at most `units`, so nothing overflows.
    let bound = |index: usize| (each * index + more.min(index)).saturating_mul(unit).min(count);
    let index = index.min(parts - 1);
    bound(index)..bound(index + 1)
}

/// A pointer to a buffer that the parts of one operation share.
///
/// Creating and copying it is safe. Code that reads or writes through it must ensure that the
/// accessed bytes belong to the buffer, that the buffer is still borrowed, and that no part
/// accesses a byte that another part writes.
#[derive(Clone, Copy)]
pub(crate) struct Shared(*mut u8);

// SAFETY: it is only an address. Accesses through it must satisfy the conditions above.
unsafe impl Send for Shared {}
// SAFETY: it is only an address. Accesses through it must satisfy the conditions above.
unsafe impl Sync for Shared {}

impl Shared {
    pub(crate) fn new(arena: &mut [u8]) -> Self {
        Self(arena.as_mut_ptr())
    }

    /// Creates a pointer to the bytes of an f32 buffer.
    pub(crate) fn of_reals(floats: &mut [f32]) -> Self {
        Self(floats.as_mut_ptr().cast())
    }

    /// Returns the address at byte offset `offset`.
    pub(crate) fn at(self, offset: usize) -> *mut u8 {
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
    fn parts_are_disjoint_for_extreme_numbers() {
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
