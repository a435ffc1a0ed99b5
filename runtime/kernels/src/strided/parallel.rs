//! Work in parts.

/// Runs parts of one operation, at once where it can.
pub trait Parallel: Sync {
    /// How many parts can run at once.
    fn threads(&self) -> usize;

    /// Calls `work` once with every number below `parts`, and returns when all calls have.
    fn run(&self, parts: usize, work: &(dyn Fn(usize) + Sync));
}

/// One part after another, on the calling thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Parallel for Alone {
    fn threads(&self) -> usize {
        1
    }

    fn run(&self, parts: usize, work: &(dyn Fn(usize) + Sync)) {
        (0..parts).for_each(work);
    }
}

/// The bounds of part `part` of `parts` of `count` things, of which `unit` stay together.
pub(super) fn part(
    count: usize,
    unit: usize,
    part: usize,
    parts: usize,
) -> core::ops::Range<usize> {
    let units = count.div_ceil(unit);
    let bound = |part: usize| (units * part / parts * unit).min(count);
    bound(part)..bound(part + 1)
}

/// A pointer into an arena that parts of one operation share. Each writes bytes that no other
/// reads or writes.
#[derive(Clone, Copy)]
pub(super) struct Shared(*mut u8);

// SAFETY: the pointer is only dereferenced under the promise above, which those who do so keep.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub(super) fn new(arena: &mut [u8]) -> Self {
        Self(arena.as_mut_ptr())
    }

    /// Reals that parts of one operation share.
    pub(super) fn of_reals(reals: &mut [f32]) -> Self {
        Self(reals.as_mut_ptr().cast())
    }

    /// The byte at this offset, which lies in the arena.
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
}
