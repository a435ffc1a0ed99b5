//! Rows of weights without their zeros.
//!
//! | bytes | content |
//! |---|---|
//! | 4, 4 | number of rows, and of elements of a row (the *depth*): u32 |
//! | of each row | 4 · ⌈depth / 32⌉: which elements are there; element i is bit i mod 8 of byte i / 8, and bits without an element are 0 |
//! | | the elements that are not 0, i8, in their order |
//!
//! So every matrix has one such form, whatever the pattern of its zeros, and bits tell where the next
//! row is. Numbers are little-endian.

/// Elements that one word of bits tells of.
pub(crate) const WORD: usize = 32;

/// A matrix of weights without its zeros.
#[derive(Clone, Copy, Debug)]
pub struct Sparse<'a> {
    count: usize,
    depth: usize,
    rows: &'a [i8],
}

/// A row, or what is left of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Row<'a> {
    /// Words of bits.
    pub(crate) bits: &'a [[i8; 4]],
    /// The elements that are not 0, and the rows behind.
    pub(crate) weights: &'a [i8],
}

impl<'a> Sparse<'a> {
    /// The form of so many rows of `depth` elements, if it says that it is. What follows may be
    /// wrong: [`Sparse::is_valid`] tells.
    pub fn new(bytes: &'a [i8], count: usize, depth: usize) -> Option<Self> {
        let (head, rows) = bytes.split_at_checked(8)?;
        let fits = head.as_chunks().0.iter().map(|&number| word(number) as usize);
        fits.eq([count, depth]).then_some(Self { count, depth, rows })
    }

    /// Whether it is what [`Sparse::encode`] makes: there are all rows and nothing else, with as
    /// many weights as bits, of which none is 0.
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

    /// The bytes of the rows.
    pub(crate) fn rows(&self) -> &'a [i8] {
        self.rows
    }

    /// Writes the weights of a valid form, zeros and all, into rows of at least `depth` elements,
    /// which are 0.
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

    /// Gives the bytes of this form for so many rows of `depth` elements, one after another.
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
    /// The first of some rows.
    pub(crate) fn first(rows: &'a [i8], depth: usize) -> Option<Self> {
        let (bits, weights) = rows.split_at_checked(depth.div_ceil(WORD).checked_mul(4)?)?;
        Some(Self { bits: bits.as_chunks().0, weights })
    }

    /// How many weights it has.
    pub(crate) fn count(&self) -> usize {
        self.bits.iter().map(|&bits| word(bits).count_ones() as usize).sum()
    }
}

/// The number in a word.
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
    fn the_layout_is_that_of_the_table() {
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
        fn rows_become_what_they_were(
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
        fn no_other_bytes_are_valid(
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
            // Either it is invalid, or the one form of other weights.
            if is_valid(&wrong) {
                let mut expanded = vec![0; weights.len()];
                Sparse::new(&wrong, rows, depth).unwrap().expand(expanded.chunks_mut(depth));
                prop_assert_eq!(encoded(&expanded, depth), wrong);
            }
        }
    }
}
