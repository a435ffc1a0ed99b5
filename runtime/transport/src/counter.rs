//! Probabilities that follow what comes: the first bits count much, later ones less and less.

use crate::logistic::stretched;

/// No bit is more certain than this.
const CERTAIN: u16 = 24;

/// 65536 over n + 1.6.
const RATES: [u16; 256] = {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        table[n] = (655_360 / (10 * n as u32 + 16)) as u16;
        n += 1;
    }
    table
};

/// A probability of 22 bits and how much it has seen, up to 255.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counter(u32);

impl Counter {
    pub(crate) const NEW: Self = Self(1 << 31);

    /// Of so many ones and zeros out of 65536, to count as `seen` bits.
    pub(crate) const fn of(ones: u32, zeros: u32, seen: u32) -> Self {
        // What is unlikely is not taken for impossible.
        let (ones, zeros) = (ones + 64, zeros + 64);
        let p = ((ones as u64) << 22) / (ones + zeros) as u64;
        Self((p as u32) << 10 | seen)
    }

    /// Of a 1.
    #[inline(always)]
    pub(crate) fn p(self) -> u16 {
        ((self.0 >> 16) as u16).clamp(CERTAIN, u16::MAX - CERTAIN)
    }

    /// What two say together; the second by `part`/256.
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

/// A probability of 12 bits and how much it has seen, up to 15.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Small(u16);

impl Small {
    pub(crate) const NEW: Self = Self(1 << 15);

    /// Steps of it that count as one: where it has seen enough, it follows more slowly.
    const LAST: u16 = 15;

    /// Of a 1.
    #[inline(always)]
    pub(crate) fn p(self) -> u16 {
        (self.0 & !0xf | 8).clamp(CERTAIN, u16::MAX - CERTAIN)
    }

    /// The odds of a 1.
    #[inline(always)]
    pub(crate) fn odds(self) -> i32 {
        stretched(self.0 >> 4)
    }

    #[inline(always)]
    pub(crate) fn learn(&mut self, bit: bool) {
        let (p, seen) = (i32::from(self.0 >> 4), self.0 & 0xf);
        let target = if bit { 4095 } else { 0 };
        let rate = i32::from(RATES[usize::from(seen)]);
        // Rounded away from where it is, so that it never stands still.
        let step = (target - p) * rate;
        let step = if bit { (step + 0xffff) >> 16 } else { step >> 16 };
        self.0 = ((p + step).clamp(1, 4095) as u16) << 4 | (seen + 1).min(Self::LAST);
    }
}
