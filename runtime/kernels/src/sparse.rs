//! Rows of weights without their zeros.
//!
//! | bytes | content |
//! |---|---|
//! | 4 · rows | of each row, how many weights there are up to its end, those of the rows before it included: u32 |
//! | 4 · rows · ⌈depth / 32⌉ | of each row, which of its elements are there: element i is bit i mod 8 of byte i / 8. Bits without an element are 0 |
//! | rest | the elements that are not 0, i8, in their order |
//!
//! So every matrix has one such form, whatever the pattern of its zeros, and a row is found without
//! those before it. Numbers are little-endian.

/// Elements that one word of bits tells of.
pub(crate) const WORD: usize = 32;

/// A matrix of weights without its zeros.
#[derive(Clone, Copy, Debug)]
pub struct Sparse<'a> {
    ends: &'a [[i8; 4]],
    bits: &'a [[i8; 4]],
    weights: &'a [i8],
    depth: usize,
}

/// A row of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    /// Words of bits.
    pub(crate) bits: &'a [[i8; 4]],
    /// The elements that are not 0.
    pub(crate) weights: &'a [i8],
}

impl<'a> Sparse<'a> {
    /// So many rows of `depth` elements. `None` where there are fewer bytes than these take without
    /// any weight. What it says of them may be wrong: [`Sparse::is_valid`] tells.
    pub fn new(bytes: &'a [i8], rows: usize, depth: usize) -> Option<Self> {
        let (ends, rest) = words(bytes, rows)?;
        let (bits, weights) = words(rest, rows.checked_mul(depth.div_ceil(WORD))?)?;
        Some(Self { ends, bits, weights, depth })
    }

    /// Whether it is what [`Sparse::encode`] makes: of every row there are as many weights as bits,
    /// and none is 0.
    pub fn is_valid(&self) -> bool {
        let mut count = 0u32;
        let mut rows = self.ends.iter().zip(self.bits.chunks(self.words().max(1)));
        let beyond =
            u32::MAX.checked_shl((self.depth % WORD) as u32).filter(|all| *all != u32::MAX);
        let rows = rows.all(|(&end, bits)| {
            for &bits in bits {
                count = count.wrapping_add(word(bits).count_ones());
            }
            let last = bits.last().map_or(0, |&last| word(last));
            word(end) == count && last & beyond.unwrap_or(0) == 0
        });
        rows && count as usize == self.weights.len() && !self.weights.contains(&0)
    }

    /// Words of bits of a row.
    fn words(&self) -> usize {
        self.depth.div_ceil(WORD)
    }

    /// A row of a valid form.
    pub(crate) fn row(&self, index: usize) -> Row<'a> {
        let end = |index: usize| word(self.ends[index]) as usize;
        let start = if index == 0 { 0 } else { end(index - 1) };
        Row {
            bits: &self.bits[index * self.words()..][..self.words()],
            weights: &self.weights[start..end(index)],
        }
    }

    /// Writes the weights of a valid form, zeros and all, into rows of at least `depth` elements,
    /// which are 0.
    pub fn expand<'b>(&self, rows: impl Iterator<Item = &'b mut [i8]>) {
        for (index, to) in rows.enumerate() {
            let row = self.row(index);
            let mut weights = row.weights.iter();
            for (&bits, to) in row.bits.iter().zip(to.chunks_mut(WORD)) {
                let is_there = |(place, _): &(usize, _)| word(bits) >> place & 1 == 1;
                let places = to.iter_mut().enumerate().filter(is_there);
                places.zip(&mut weights).for_each(|((_, to), weight)| *to = *weight);
            }
        }
    }

    /// The bytes of this form for some rows, of equal length.
    pub fn encode<'b>(rows: impl Iterator<Item = &'b [i8]> + Clone) -> impl Iterator<Item = i8> {
        let there = |row: &'b [i8]| row.iter().copied().filter(|&weight| weight != 0);
        let ends = rows.clone().scan(0u32, move |end, row| {
            *end += there(row).count() as u32;
            Some(*end)
        });
        let bits = rows.clone().flat_map(|row| row.chunks(WORD)).map(|part| {
            let bits = (0..).zip(part).map(|(place, &weight)| u32::from(weight != 0) << place);
            bits.sum::<u32>()
        });
        let words = ends.chain(bits).flat_map(|word| word.to_le_bytes().map(|byte| byte as i8));
        words.chain(rows.flat_map(there))
    }
}

/// The number in a word.
pub(crate) fn word(bytes: [i8; 4]) -> u32 {
    u32::from_le_bytes(bytes.map(|byte| byte as u8))
}

/// The first words of some bytes, and what follows them.
fn words(bytes: &[i8], count: usize) -> Option<(&[[i8; 4]], &[i8])> {
    let (words, rest) = bytes.split_at_checked(count.checked_mul(4)?)?;
    Some((words.as_chunks().0, rest))
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
        Sparse::encode(weights.chunks(depth)).collect()
    }

    #[test]
    fn the_layout_is_that_of_the_table() {
        let mut weights = vec![0; 2 * 34];
        (weights[0], weights[9], weights[33]) = (5, -127, 1);
        weights[34 + 32] = 7;
        let form = encoded(&weights, 34);
        let words: Vec<u32> = form[..24].as_chunks().0.iter().copied().map(word).collect();
        assert_eq!(words, [3, 4, 1 | 1 << 9, 2, 0, 1]);
        assert_eq!(form[24..], [5, -127, 1, 7]);
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
