//! Sparse weights: the rows of a bundle that store a bitmap and the nonzero weights. They are coded
//! as dense weights, so that the model of weights applies to them too.
//!
//! After a row is coded, its dense weights are the last bytes of the history. The bytes of the
//! sparse row are computed from them.

use crate::history::{HISTORY, History};

/// The maximum number of elements of a row.
pub(crate) const DEPTH: u32 = HISTORY as u32 - 1;
/// The number of elements per word of the bitmap.
const WORD: u16 = 32;

/// The shape of sparse weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Number of rows.
    pub(crate) rows: u32,
    /// Number of elements of a row, from 1 to [`DEPTH`].
    pub(crate) depth: u16,
}

impl Shape {
    /// Returns the bytes before the rows.
    pub(crate) fn head(self) -> impl Iterator<Item = u8> {
        [self.rows, self.depth.into()].into_iter().flat_map(u32::to_le_bytes)
    }

    /// Returns the maximum size of a row in bytes.
    pub(crate) fn most_row_bytes(self) -> u64 {
        u64::from(self.depth) + 4 * u64::from(self.depth.div_ceil(WORD))
    }

    /// Returns the bytes of a sparse row whose dense elements are the last bytes of the history.
    pub(crate) fn row(self, history: &History) -> impl Iterator<Item = u8> {
        let depth = self.depth;
        let element = move |place: u16| history.back(depth - place);
        let bits = (0..depth.next_multiple_of(WORD)).step_by(8).map(move |first| {
            let there = (first..depth.min(first + 8)).filter(|place| element(*place) != 0);
            there.fold(0, |bits, place| bits | 1 << (place - first))
        });
        bits.chain((0..depth).map(element).filter(|element| *element != 0))
    }
}

/// Parses sparse rows at the start of `bytes`. Returns their shape, the dense weights, and the
/// number of bytes read. Returns `None` if the bytes have another form or the rows are too long.
#[cfg(feature = "alloc")]
pub(crate) fn rows(bytes: &[u8]) -> Option<(Shape, alloc::vec::Vec<u8>, usize)> {
    let (&rows, rest) = bytes.split_first_chunk()?;
    let (&depth, mut rest) = rest.split_first_chunk()?;
    let (rows, depth) = (u32::from_le_bytes(rows), u32::from_le_bytes(depth));
    let words = depth.div_ceil(WORD.into()) as usize;
    if rows == 0 || !(1..=DEPTH).contains(&depth) || rows as usize > rest.len() / (4 * words) {
        return None;
    }
    let mut dense = alloc::vec::Vec::new();
    for _ in 0..rows {
        let (bits, weights) = rest.split_at_checked(4 * words)?;
        let mut weights = weights.iter();
        for place in 0..8 * bits.len() {
            let is_there = bits[place / 8] >> (place % 8) & 1 != 0;
            match (is_there, place < depth as usize) {
                (true, true) => dense.push(*weights.next().filter(|weight| **weight != 0)?),
                (true, false) => return None,
                (false, inside) => dense.extend(inside.then_some(0)),
            }
        }
        rest = weights.as_slice();
    }
    Some((Shape { rows, depth: depth as u16 }, dense, bytes.len() - rest.len()))
}
