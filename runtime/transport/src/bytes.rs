//! The model of bytes in general: text, structures, and numbers of two or four bytes.
//!
//! Each bit is expected by several contexts; what they say is mixed by how well they did.

use crate::coder::Coder;
use crate::counter::Small;
use crate::logistic::Mixer;

/// Contexts of a bit.
const CONTEXTS: usize = 7;
/// Counters that the contexts share.
const COUNTERS: usize = 1 << 12;

/// What is known of bytes.
#[derive(Clone)]
pub(crate) struct Bytes {
    /// The last eight, the latest lowest.
    last: u64,
    /// How many have come.
    count: usize,
    counters: [Small; COUNTERS],
    /// By what is mixed: the size of numbers and the place in one; the bit of the byte.
    mixers: [[Mixer<CONTEXTS>; 8]; 7],
}

impl Bytes {
    pub(crate) const NEW: Self =
        Self { last: 0, count: 0, counters: [Small::NEW; COUNTERS], mixers: [[Mixer::NEW; 8]; 7] };

    /// Goes on with numbers, of which this is the first byte.
    pub(crate) fn begin(&mut self) {
        self.count = 0;
        self.last = 0;
    }

    /// Codes the next byte, of numbers of `size` bytes, which is 1, 2 or 4.
    pub(crate) fn code<C: Coder>(
        &mut self,
        coder: &mut C,
        size: usize,
        byte: u8,
    ) -> Result<u8, C::Error> {
        let place = self.count % size;
        let kind = size - 1 + place;
        let contexts = self.contexts(size, kind);
        let mut path = 1;
        for bit in (0..8).rev() {
            let places: [usize; CONTEXTS] = core::array::from_fn(|i| {
                // The last looks at the bit's place alone.
                let path = if i == CONTEXTS - 1 { bit } else { path };
                slot(contexts[i], path as u32)
            });
            let odds = places.map(|place| self.counters[place].odds());
            let mixer = &mut self.mixers[kind][bit];
            let p = mixer.mix(&odds);
            let found = coder.bit(byte >> bit & 1 != 0, p)?;
            mixer.learn(&odds, p, found);
            for place in places {
                self.counters[place].learn(found);
            }
            path = 2 * path + usize::from(found);
        }
        let byte = path as u8;
        self.last = self.last << 8 | u64::from(byte);
        self.count = self.count.wrapping_add(1);
        Ok(byte)
    }

    /// What a byte follows, in `CONTEXTS` ways.
    fn contexts(&self, size: usize, kind: usize) -> [u32; CONTEXTS] {
        let back = |bytes: u32| self.last & ((1u64 << (8 * bytes)) - 1);
        let number = |from: usize| self.last >> (8 * (from - 1)) & 0xff;
        let seen: [u64; CONTEXTS] = match size {
            1 => [0, back(1), back(2), back(3), back(4), back(6), 0],
            _ => [
                0,
                back(1),
                number(size),
                number(size) << 8 | number(2 * size),
                number(size) << 8 | back(1),
                back(2),
                0,
            ],
        };
        core::array::from_fn(|i| hash((seen[i] << 6) ^ (kind as u64) << 3 ^ i as u64))
    }
}

fn hash(context: u64) -> u32 {
    let mixed = (context ^ context >> 29).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 32) as u32
}

/// Where a context keeps what it knows of this path.
fn slot(context: u32, path: u32) -> usize {
    ((context ^ path.wrapping_mul(0x2F0B_4C47)).wrapping_mul(0x85EB_CA6B) >> 20) as usize % COUNTERS
}
