//! Splits the arena into the rows of an output image and the rest, which is read.

use core::ops::Range;

use super::parallel::{Shared, part};
use super::{Alone, Parallel, View};

/// The output bytes below which a second thread is not worthwhile.
const SMALL: usize = 16 << 10;

/// The arena without the bytes that an operation writes.
pub(super) struct Around<'a> {
    before: &'a [u8],
    after: &'a [u8],
    end: usize,
}

impl<'a> Around<'a> {
    /// Splits the arena into the mutable range `written` and everything else.
    pub(super) fn split(arena: &'a mut [u8], written: Range<usize>) -> (Self, &'a mut [u8]) {
        let (before, rest) = arena.split_at_mut(written.start);
        let (output, after) = rest.split_at_mut(written.len());
        (Self { before, after, end: written.end }, output)
    }

    /// Returns a range of the arena that does not overlap the written range.
    ///
    /// # Panics
    /// If it overlaps or exceeds the arena.
    pub(super) fn bytes(&self, range: Range<usize>) -> &'a [u8] {
        if range.end <= self.before.len() {
            &self.before[range]
        } else {
            assert!(range.start >= self.end, "an input overlaps the output");
            &self.after[range.start - self.end..range.end - self.end]
        }
    }

    /// Returns row `row` of an image with `columns` pixels of `channels` channels.
    ///
    /// # Panics
    /// If the row is empty, exceeds the arena or overlaps the written range.
    pub(super) fn row(&self, view: &View, row: usize, columns: usize, channels: usize) -> &'a [u8] {
        let start = row.checked_mul(view.row).and_then(|down| down.checked_add(view.offset));
        let row = start.and_then(|offset| View { offset, ..*view }.extent([1, columns], channels));
        self.bytes(row.expect("a row must not be empty or overflow"))
    }
}

/// Calls `work` with the index and bytes of each output row. The bytes span from the first channel
/// of the first pixel to the last channel of the last pixel.
///
/// # Panics
/// If the output is empty or exceeds the arena, or its pixels or rows overlap.
pub(super) fn each_row(
    arena: &mut [u8],
    output: &View,
    size: [usize; 2],
    channels: usize,
    parallel: &dyn Parallel,
    work: impl Fn(&Around<'_>, usize, &mut [u8]) + Sync,
) {
    let [rows, columns] = size;
    let written = output.written(size, channels).expect("output pixels must not overlap");
    // At least one pixel, and at most the length of `written`.
    let length = (columns - 1) * output.pixel + channels;
    let (around, bytes) = Around::split(arena, written);
    let small = rows.saturating_mul(columns).saturating_mul(channels) < SMALL;
    let bytes = Shared::new(bytes);
    let parallel = if small { &Alone } else { parallel };
    let parts = parallel.threads().clamp(1, rows);
    parallel.run(parts, &|index| {
        for row in part(rows, 1, index, parts) {
            let start = bytes.at(row * output.row);
            // SAFETY: `bytes` is the range from the first byte of the first row to the last byte of
            // the last row. It was split off the arena, which stays borrowed. `View::written`
            // checked that rows do not overlap, and each row belongs to one part, which holds the
            // only reference to it.
            let bytes = unsafe { core::slice::from_raw_parts_mut(start, length) };
            work(&around, row, bytes);
        }
    });
}
