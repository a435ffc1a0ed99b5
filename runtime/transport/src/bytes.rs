//! The model of general bytes: text, structures, and numbers of two or four bytes.
//!
//! Each bit is predicted by several contexts and by a match model, which predicts what followed the
//! previous occurrence of the last bytes. A mixer weighs the predictions by their past accuracy.

use crate::coder::Coder;
use crate::counter::Small;
use crate::history::{HISTORY, History};
use crate::logistic::Mixer;

/// The number of contexts of a bit.
const CONTEXTS: usize = 5;
/// The number of predictions: the contexts and the match.
const INPUTS: usize = CONTEXTS + 1;
/// The number of counters, which all contexts share through a hash.
const COUNTERS: usize = 1 << 12;
/// The number of positions in the hash table of the match model.
const PLACES: usize = 1 << 10;
/// The number of last bytes that are hashed to find a match.
const LEAST: u32 = 4;
/// The number of classes of match lengths.
const LENGTHS: usize = 16;

/// The state of the model of bytes.
#[derive(Clone)]
pub(crate) struct Bytes {
    /// Number of bytes coded in the block.
    count: usize,
    counters: [Small; COUNTERS],
    /// Mixers, by the size of numbers and position in a number, and by the bit of the byte.
    mixers: [[Mixer<INPUTS>; 8]; 7],
    /// For each hash, the number of bytes coded up to its last occurrence.
    places: [u16; PLACES],
    /// Distance back to the match; 0 if there is none.
    distance: u16,
    /// Number of bytes that the match predicted correctly.
    length: usize,
    /// The probability that the match is right, by its length.
    rights: [Small; LENGTHS],
}

impl Bytes {
    pub(crate) const NEW: Self = Self {
        count: 0,
        counters: [Small::NEW; COUNTERS],
        mixers: [[Mixer::NEW; 8]; 7],
        places: [0; PLACES],
        distance: 0,
        length: 0,
        rights: [Small::NEW; LENGTHS],
    };

    /// Starts a new block, at the first byte of a number.
    pub(crate) fn begin(&mut self) {
        (self.count, self.distance) = (0, 0);
    }

    /// Codes the next byte of numbers of `size` bytes, which is 1, 2 or 4.
    pub(crate) fn code<C: Coder>(
        &mut self,
        coder: &mut C,
        history: &History,
        size: usize,
        byte: u8,
    ) -> Result<u8, C::Error> {
        let kind = size - 1 + self.count % size;
        let contexts = contexts(history, size, kind);
        let matched = (self.distance > 0).then(|| history.back(self.distance));
        let mut right = matched;
        let mut path = 1;
        for place in (0..8).rev() {
            let slots: [usize; CONTEXTS] = core::array::from_fn(|i| {
                // The last context depends only on the position of the bit.
                slot(contexts[i], if i == CONTEXTS - 1 { place } else { path })
            });
            let mut odds = [0; INPUTS];
            for (odds, slot) in odds.iter_mut().zip(slots) {
                *odds = self.counters[slot].odds();
            }
            let expected = right.map(|byte| byte >> place & 1 != 0);
            let length = self.length.min(LENGTHS - 1);
            odds[CONTEXTS] = match expected {
                Some(true) => self.rights[length].odds(),
                Some(false) => -self.rights[length].odds(),
                None => 0,
            };
            let mixer = &mut self.mixers[kind][place];
            let p = mixer.mix(&odds);
            let bit = coder.bit(byte >> place & 1 != 0, p)?;
            mixer.learn(&odds, p, bit);
            for slot in slots {
                self.counters[slot].learn(bit);
            }
            if let Some(expected) = expected {
                self.rights[length].learn(expected == bit);
                right = right.filter(|_| expected == bit);
            }
            path = 2 * path + usize::from(bit);
        }
        self.count = self.count.wrapping_add(1);
        let byte = path as u8;
        self.follow(history, byte, matched);
        Ok(byte)
    }

    /// Extends the match by `byte`, or looks for a new match. The history does not contain `byte`
    /// yet.
    fn follow(&mut self, history: &History, byte: u8, matched: Option<u8>) {
        let last = (1..LEAST as u16)
            .rev()
            .fold(0, |last, offset| last << 8 | u32::from(history.back(offset)));
        let last = last << 8 | u32::from(byte);
        let place = &mut self.places[last.wrapping_mul(0x9E37_79B1) as usize >> 22];
        let count = history.count().wrapping_add(1) as u16;
        let before = core::mem::replace(place, count);
        if matched == Some(byte) {
            self.length += 1;
        } else {
            let distance = count.wrapping_sub(before);
            let found = (1..HISTORY as u16).contains(&distance);
            (self.distance, self.length) = (if found { distance } else { 0 }, 0);
        }
    }
}

/// Returns the hashes of the contexts of a byte.
fn contexts(history: &History, size: usize, kind: usize) -> [u32; CONTEXTS] {
    let back = |offset: usize| u32::from(history.back(offset as u16));
    let seen = match size {
        1 => [0, back(1), back(2) << 8 | back(1), back(3) << 16 | back(2) << 8 | back(1), 0],
        _ => [0, back(1), back(size), back(size) << 8 | back(1), 0],
    };
    core::array::from_fn(|i| {
        let context = seen[i] << 6 ^ (kind as u32) << 3 ^ i as u32;
        (context ^ context >> 15).wrapping_mul(0x9E37_79B1)
    })
}

/// Returns the index of the counter for a context and the path of bits so far.
#[inline(always)]
fn slot(context: u32, path: usize) -> usize {
    let mixed = (context ^ context >> 16).wrapping_add(path as u32).wrapping_mul(0x85EB_CA6B);
    (mixed ^ mixed >> 15) as usize >> 16 & (COUNTERS - 1)
}
