//! Reading some bytes of an arena while writing the rows of an image in it.

use core::ops::Range;

use super::parallel::{Shared, part};
use super::{Alone, Parallel, View};

/// Images of fewer bytes are not worth a second thread.
const SMALL: usize = 16 << 10;

/// The arena without the bytes that are being written.
pub(super) struct Around<'a> {
    before: &'a [u8],
    after: &'a [u8],
    end: usize,
}

impl<'a> Around<'a> {
    /// Takes a range out of the arena, to be written.
    pub(super) fn split(arena: &'a mut [u8], written: Range<usize>) -> (Self, &'a mut [u8]) {
        let (before, rest) = arena.split_at_mut(written.start);
        let (output, after) = rest.split_at_mut(written.len());
        (Self { before, after, end: written.end }, output)
    }

    /// Bytes that share none with those written.
    ///
    /// # Panics
    /// Where they do.
    pub(super) fn bytes(&self, range: Range<usize>) -> &'a [u8] {
        if range.end <= self.before.len() {
            &self.before[range]
        } else {
            assert!(range.start >= self.end, "an operation reads what it writes");
            &self.after[range.start - self.end..range.end - self.end]
        }
    }

    /// Row `row` of an image of `columns` pixels of `channels` channels.
    pub(super) fn row(&self, view: &View, row: usize, columns: usize, channels: usize) -> &'a [u8] {
        let start = view.offset + row * view.row;
        self.bytes(start..start + (columns - 1) * view.pixel + channels)
    }
}

/// Calls `work` with each row of the output: its number, and its bytes from the first channel of
/// the first pixel to the last of the last.
///
/// # Panics
/// Where the output leaves the arena, or its pixels or rows overlap.
pub(super) fn each_row(
    arena: &mut [u8],
    output: &View,
    [rows, columns]: [usize; 2],
    channels: usize,
    parallel: &dyn Parallel,
    work: impl Fn(&Around<'_>, usize, &mut [u8]) + Sync,
) {
    let length = (columns - 1) * output.pixel + channels;
    assert!(output.is_disjoint(columns, channels), "pixels overlap");
    let end = output.end(rows, columns, channels);
    let (around, bytes) = Around::split(arena, output.offset..end);
    let bytes = Shared::new(bytes);
    let small = rows * columns * channels < SMALL;
    let parallel = if small { &Alone } else { parallel };
    let parts = parallel.threads().clamp(1, rows);
    parallel.run(parts, &|index| {
        for row in part(rows, 1, index, parts) {
            let start = bytes.at(row * output.row);
            // SAFETY: the row lies in the bytes taken out of the arena. Rows do not overlap, and
            // every row belongs to one part, which alone writes it.
            let bytes = unsafe { core::slice::from_raw_parts_mut(start, length) };
            work(&around, row, bytes);
        }
    });
}
