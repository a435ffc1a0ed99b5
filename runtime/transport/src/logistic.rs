//! Probabilities as logarithms of their odds, and how several are made one.

/// `log2` of 256 + i over 256, in units of 1/256.
const LOG2: [u16; 257] = {
    let mut table = [0; 257];
    let mut i = 0;
    while i <= 256 {
        // Squaring doubles the logarithm; each time it passes 1, that is a binary digit.
        let (mut x, mut log, mut digit) = ((256 + i as u64) << 22, 0u32, 0);
        while digit < 10 {
            x = (x * x) >> 30;
            log <<= 1;
            if x >= 2 << 30 {
                x >>= 1;
                log |= 1;
            }
            digit += 1;
        }
        table[i] = if i == 256 { 256 } else { ((log + 2) >> 2) as u16 };
        i += 1;
    }
    table
};

/// The binary logarithm of a number from 1 to 65536, in units of 1/256.
pub(crate) const fn log2(x: u32) -> u32 {
    let whole = 31 - x.leading_zeros();
    let rest = (x << (16 - whole)) & 0xffff;
    let (at, between) = ((rest >> 8) as usize, rest & 0xff);
    let (low, high) = (LOG2[at] as u32, LOG2[at + 1] as u32);
    (whole << 8) + low + (((high - low) * between) >> 8)
}

/// The binary logarithm of the odds of p/65536, in units of 1/256.
const fn stretch(p: u16) -> i32 {
    log2(p as u32) as i32 - log2(65536 - p as u32) as i32
}

/// [`stretch`] of probabilities of 12 bits.
const STRETCHED: [i16; 1 << 12] = {
    let mut table = [0; 1 << 12];
    let mut p = 0;
    while p < table.len() {
        table[p] = stretch((p << 4 | 8) as u16) as i16;
        p += 1;
    }
    table
};

/// [`stretch`] of a probability of p/4096.
#[inline(always)]
pub(crate) fn stretched(p: u16) -> i32 {
    STRETCHED[usize::from(p % (1 << 12))].into()
}

/// Odds beyond these are not told apart.
const LIMIT: i32 = 12 << 8;
/// Between the entries of [`SQUASH`].
const STEP: i32 = 64;

/// The inverse of [`stretch`] from −[`LIMIT`] to [`LIMIT`].
const SQUASH: [u16; (2 * LIMIT / STEP) as usize + 1] = {
    let mut table = [0; (2 * LIMIT / STEP) as usize + 1];
    let mut i = 0;
    while i < table.len() {
        let odds = i as i32 * STEP - LIMIT;
        let (mut low, mut high) = (1u32, 65535u32);
        while low < high {
            let middle = (low + high) / 2;
            if stretch(middle as u16) < odds {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        table[i] = low as u16;
        i += 1;
    }
    table
};

/// The probability with these odds.
pub(crate) const fn squash(odds: i32) -> u16 {
    let odds = if odds < -LIMIT {
        0
    } else if odds >= LIMIT {
        2 * LIMIT as u32 - 1
    } else {
        (odds + LIMIT) as u32
    };
    let (at, between) = ((odds / STEP as u32) as usize, odds % STEP as u32);
    let (low, high) = (SQUASH[at] as u32, SQUASH[at + 1] as u32);
    (low + (high - low) * between / STEP as u32) as u16
}

/// Weighs the odds of `N` probabilities, and learns from what came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mixer<const N: usize> {
    /// In units of 1/65536.
    weights: [i32; N],
}

impl<const N: usize> Mixer<N> {
    /// How fast weights follow.
    const RATE: i32 = 6;

    pub(crate) const NEW: Self = Self { weights: [(1 << 16) / 3; N] };

    /// The common probability.
    pub(crate) fn mix(&self, odds: &[i32; N]) -> u16 {
        let products = self.weights.iter().zip(odds).map(|(w, x)| i64::from(*w) * i64::from(*x));
        squash((products.sum::<i64>() >> 16).clamp(-1 << 20, 1 << 20) as i32)
    }

    /// `p`: what [`Mixer::mix`] gave for these odds.
    pub(crate) fn learn(&mut self, odds: &[i32; N], p: u16, bit: bool) {
        let error = (i32::from(bit) << 16) - i32::from(p);
        for (weight, odds) in self.weights.iter_mut().zip(odds) {
            *weight =
                (*weight + ((odds * (error >> 4) * Self::RATE) >> 14)).clamp(-1 << 20, 1 << 20);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_those_of_reals() {
        for x in 1..=65536u32 {
            let exact = f64::from(x).log2() * 256.0;
            assert!((f64::from(log2(x)) - exact).abs() < 1.6, "{x}: {} {exact}", log2(x));
        }
    }

    #[test]
    fn squash_inverts_stretch() {
        for p in (20..=65516).step_by(7) {
            let back = i32::from(squash(stretch(p)));
            let error = (back - i32::from(p)).abs();
            assert!(error <= 8 + i32::from(p.min(65535 - p)) / 64, "{p} {back}");
        }
    }

    #[test]
    fn a_mixer_learns_whom_to_trust() {
        let mut mixer = Mixer::<2>::NEW;
        for i in 0..2000u32 {
            let bit = i % 3 == 0;
            // The first knows, the second is wrong.
            let odds = [if bit { 700 } else { -700 }, if bit { -700 } else { 700 }];
            let p = mixer.mix(&odds);
            mixer.learn(&odds, p, bit);
        }
        assert!(mixer.mix(&[700, -700]) > 60000 && mixer.mix(&[-700, 700]) < 5000);
    }
}
