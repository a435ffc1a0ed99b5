//! Adaptive bit probabilities. The adaptation rate falls with the number of bits observed.

use crate::logistic::stretched;

/// The least probability of a bit, in units of 1/65536.
const CERTAIN: u16 = 24;

/// The adaptation rate after n bits: 65536 / (n + 1.6).
const RATES: [u16; 256] = {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        table[n] = (655_360 / (10 * n as u32 + 16)) as u16;
        n += 1;
    }
    table
};

/// A probability of 22 bits in the upper bits, and the number of bits observed, up to 255.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counter(u32);

impl Counter {
    pub(crate) const NEW: Self = Self(1 << 31);

    /// Creates a counter from the frequencies of ones and zeros, out of 65536. Its weight is that
    /// of `seen` observed bits.
    pub(crate) const fn of(ones: u32, zeros: u32, seen: u32) -> Self {
        // No bit has probability 0.
        let (ones, zeros) = (ones + 64, zeros + 64);
        let p = ((ones as u64) << 22) / (ones + zeros) as u64;
        Self((p as u32) << 10 | seen)
    }

    /// Returns the probability of a 1, in units of 1/65536.
    #[inline(always)]
    pub(crate) fn p(self) -> u16 {
        ((self.0 >> 16) as u16).clamp(CERTAIN, u16::MAX - CERTAIN)
    }

    /// Interpolates between two counters. The second has the weight `part`/256.
    #[inline(always)]
    pub(crate) fn between(self, other: Self, part: u32) -> u16 {
        let p = ((self.0 >> 16) * (256 - part) + (other.0 >> 16) * part) >> 8;
        (p as u16).clamp(CERTAIN, u16::MAX - CERTAIN)
    }

    #[inline(always)]
    pub(crate) fn learn(&mut self, bit: bool) {
        let (p, seen) = ((self.0 >> 10) as i32, self.0 & 0x3ff);
        let target = if bit { (1 << 22) - 1 } else { 0 };
        let rate = i64::from(RATES[(seen % 256) as usize]);
        let step = ((i64::from(target - p) * rate) >> 16) as i32;
        self.0 = ((p + step) as u32) << 10 | (seen + 1).min(255);
    }
}

/// A probability of 12 bits in the upper bits, and the number of bits observed, up to 15.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Small(u16);

impl Small {
    pub(crate) const NEW: Self = Self(1 << 15);

    /// The count at which the adaptation rate stops falling.
    const LAST: u16 = 15;

    /// Returns the probability of a 1, in units of 1/65536.
    #[inline(always)]
    pub(crate) fn p(self) -> u16 {
        (self.0 & !0xf | 8).clamp(CERTAIN, u16::MAX - CERTAIN)
    }

    /// Returns the log-odds of a 1, in units of 1/256.
    #[inline(always)]
    pub(crate) fn odds(self) -> i32 {
        stretched(self.0 >> 4)
    }

    #[inline(always)]
    pub(crate) fn learn(&mut self, bit: bool) {
        let (p, seen) = (i32::from(self.0 >> 4), self.0 & 0xf);
        let target = if bit { 4095 } else { 0 };
        let rate = i32::from(RATES[usize::from(seen)]);
        // Round away from the current value, so that the probability always changes.
        let step = (target - p) * rate;
        let step = if bit { (step + 0xffff) >> 16 } else { step >> 16 };
        self.0 = ((p + step).clamp(1, 4095) as u16) << 4 | (seen + 1).min(Self::LAST);
    }
}
