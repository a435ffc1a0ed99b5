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
    ///
    /// # Panics
    /// Where it is not in the arena, or shares bytes with what is written.
    pub(super) fn row(&self, view: &View, row: usize, columns: usize, channels: usize) -> &'a [u8] {
        let start = row.checked_mul(view.row).and_then(|down| down.checked_add(view.offset));
        let row = start.and_then(|offset| View { offset, ..*view }.extent([1, columns], channels));
        self.bytes(row.expect("a row has pixels and lies in memory"))
    }
}

/// Calls `work` with each row of the output: its number, and its bytes from the first channel of
/// the first pixel to the last of the last.
///
/// # Panics
/// Where the output is empty or leaves the arena, or its pixels or rows overlap.
pub(super) fn each_row(
    arena: &mut [u8],
    output: &View,
    size: [usize; 2],
    channels: usize,
    parallel: &dyn Parallel,
    work: impl Fn(&Around<'_>, usize, &mut [u8]) + Sync,
) {
    let [rows, columns] = size;
    let written = output.written(size, channels).expect("pixels lie in memory, each apart");
    // One pixel at least, and no more than what is written.
    let length = (columns - 1) * output.pixel + channels;
    let (around, bytes) = Around::split(arena, written);
    let small = rows.saturating_mul(columns).saturating_mul(channels) < SMALL;
    let bytes = Shared::new(bytes);
    let parallel = if small { &Alone } else { parallel };
    let parts = parallel.threads().clamp(1, rows);
    parallel.run(parts, &|index| {
        for row in part(rows, 1, index, parts) {
            let start = bytes.at(row * output.row);
            // SAFETY: `written` reaches from the first byte of the first row to the last of the
            // last row, and was taken out of the arena, which stays borrowed. Rows share no byte, as
            // `View::written` says. A row belongs to one part, which alone has this reference.
            let bytes = unsafe { core::slice::from_raw_parts_mut(start, length) };
            work(&around, row, bytes);
        }
    });
}
