//! The sparse encoding of weights: a bitmap per row and the nonzero elements.
//!
//! | bytes | content |
//! |---|---|
//! | 4, 4 | number of rows, and number of elements per row (the *depth*): u32 |
//! | 4 · ⌈depth / 32⌉ per row | bitmap of nonzero elements |
//! | 1 per nonzero element | the nonzero elements of the row, i8, in order |
//!
//! Element i of a row is bit i mod 8 of byte i / 8 of the bitmap; unused bits are 0. The bitmap and
//! elements of a row precede those of the next one, and the bitmap determines where that one
//! starts. Numbers are little-endian. Every matrix has exactly one encoding.

/// The number of elements per bitmap word.
pub(crate) const WORD: usize = 32;

/// A sparse weight matrix.
#[derive(Clone, Copy, Debug)]
pub struct Sparse<'a> {
    count: usize,
    depth: usize,
    rows: &'a [i8],
}

/// A row, or the rest of one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Row<'a> {
    /// The bitmap words.
    pub(crate) bits: &'a [[i8; 4]],
    /// The nonzero elements, followed by the encoding of the next rows.
    pub(crate) weights: &'a [i8],
}

impl<'a> Sparse<'a> {
    /// Interprets `bytes` as a matrix of `count` rows of `depth` elements. Returns `None` if the
    /// header states other numbers. Does not validate the rows; see [`Sparse::is_valid`].
    pub fn new(bytes: &'a [i8], count: usize, depth: usize) -> Option<Self> {
        let (head, rows) = bytes.split_at_checked(8)?;
        let fits = head.as_chunks().0.iter().map(|&number| word(number) as usize);
        fits.eq([count, depth]).then_some(Self { count, depth, rows })
    }

    /// Returns whether the bytes are a valid encoding: all rows and nothing else, with as many
    /// elements as bits, and no element 0.
    pub fn is_valid(&self) -> bool {
        let beyond = !0 << (self.depth % WORD);
        let mut rest = self.rows;
        for _ in 0..self.count {
            let Some(row) = Row::first(rest, self.depth) else { return false };
            let last = row.bits.last().map_or(0, |&last| word(last));
            let whole = self.depth.is_multiple_of(WORD) || last & beyond == 0;
            let Some((weights, next)) = row.weights.split_at_checked(row.count()) else {
                return false;
            };
            if !whole || weights.contains(&0) {
                return false;
            }
            rest = next;
        }
        rest.is_empty()
    }

    /// Returns the bytes of the encoded rows.
    pub(crate) fn rows(&self) -> &'a [i8] {
        self.rows
    }

    /// Decodes a valid encoding into dense rows. `rows` are slices of at least `depth` elements,
    /// which must be 0.
    pub fn expand<'b>(&self, rows: impl Iterator<Item = &'b mut [i8]>) {
        let mut rest = self.rows;
        for to in rows {
            let Some(row) = Row::first(rest, self.depth) else { return };
            let mut weights = row.weights.iter();
            for (&bits, to) in row.bits.iter().zip(to.chunks_mut(WORD)) {
                let is_there = |(place, _): &(usize, _)| word(bits) >> place & 1 == 1;
                for (_, to) in to.iter_mut().enumerate().filter(is_there) {
                    *to = weights.next().copied().unwrap_or(0);
                }
            }
            rest = weights.as_slice();
        }
    }

    /// Encodes rows of `depth` elements and passes each byte to `give`.
    pub fn encode<'b>(
        rows: impl ExactSizeIterator<Item = &'b [i8]>,
        depth: usize,
        mut give: impl FnMut(i8),
    ) {
        let word = |word: u32, give: &mut dyn FnMut(i8)| {
            word.to_le_bytes().iter().for_each(|byte| give(*byte as i8));
        };
        word(rows.len() as u32, &mut give);
        word(depth as u32, &mut give);
        for row in rows {
            for part in row.chunks(WORD) {
                let bits = (0..).zip(part).map(|(place, &weight)| u32::from(weight != 0) << place);
                word(bits.sum(), &mut give);
            }
            row.iter().filter(|weight| **weight != 0).for_each(|weight| give(*weight));
        }
    }
}

impl<'a> Row<'a> {
    /// Returns the first of the encoded rows.
    pub(crate) fn first(rows: &'a [i8], depth: usize) -> Option<Self> {
        let (bits, weights) = rows.split_at_checked(depth.div_ceil(WORD).checked_mul(4)?)?;
        Some(Self { bits: bits.as_chunks().0, weights })
    }

    /// Returns the number of nonzero elements.
    pub(crate) fn count(&self) -> usize {
        self.bits.iter().map(|&bits| word(bits).count_ones() as usize).sum()
    }
}

/// Returns the value of a bitmap word.
pub(crate) fn word(bytes: [i8; 4]) -> u32 {
    u32::from_le_bytes(bytes.map(|byte| byte as u8))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec;
    use std::vec::Vec;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn encoded(weights: &[i8], depth: usize) -> Vec<i8> {
        let mut form = std::vec::Vec::new();
        Sparse::encode(weights.chunks(depth), depth, |byte| form.push(byte));
        form
    }

    #[test]
    fn the_encoding_matches_the_documentation() {
        let mut weights = vec![0; 2 * 34];
        (weights[0], weights[9], weights[33]) = (5, -127, 1);
        weights[34 + 32] = 7;
        let form = encoded(&weights, 34);
        let words = |at: usize, count: usize| -> Vec<u32> {
            form[at..at + 4 * count].as_chunks().0.iter().copied().map(word).collect()
        };
        assert_eq!(words(0, 4), [2, 34, 1 | 1 << 9, 2]);
        assert_eq!(form[16..19], [5, -127, 1]);
        assert_eq!(words(19, 2), [0, 1]);
        assert_eq!(form[27..], [7]);
    }

    proptest! {
        #[test]
        fn decoding_restores_the_rows(
            depth in 1usize..100,
            weights in vec(prop_oneof![2 => Just(0i8), 1 => -127i8..=127], 1..1000),
        ) {
            let rows = weights.len().div_ceil(depth);
            let weights: Vec<i8> = weights.iter().copied().cycle().take(rows * depth).collect();
            let form = encoded(&weights, depth);
            let sparse = Sparse::new(&form, rows, depth).unwrap();
            prop_assert!(sparse.is_valid());
            let mut expanded = vec![0; weights.len()];
            sparse.expand(expanded.chunks_mut(depth));
            prop_assert_eq!(expanded, weights);
        }

        #[test]
        fn only_encodings_are_valid(
            depth in 1usize..70,
            weights in vec(prop_oneof![Just(0i8), -127i8..=127], 1..300),
            at in any::<prop::sample::Index>(),
            byte in any::<i8>(),
            longer in any::<bool>(),
        ) {
            let rows = weights.len().div_ceil(depth);
            let weights: Vec<i8> = weights.iter().copied().cycle().take(rows * depth).collect();
            let form = encoded(&weights, depth);
            let is_valid = |form: &[i8]| {
                Sparse::new(form, rows, depth).is_some_and(|sparse| sparse.is_valid())
            };
            let cut = &form[..at.index(form.len())];
            prop_assert!(!is_valid(cut));
            let mut wrong = form.clone();
            if longer {
                wrong.push(byte);
                prop_assert!(!is_valid(&wrong));
                return Ok(());
            }
            wrong[at.index(form.len())] = byte;
            // It is either invalid, or the encoding of other weights.
            if is_valid(&wrong) {
                let mut expanded = vec![0; weights.len()];
                Sparse::new(&wrong, rows, depth).unwrap().expand(expanded.chunks_mut(depth));
                prop_assert_eq!(encoded(&expanded, depth), wrong);
            }
        }
    }
}
