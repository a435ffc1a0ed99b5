//! Logistic mixing: probabilities as log-odds, and a mixer that combines several.

/// `log2((256 + i) / 256)`, in units of 1/256.
const LOG2: [u16; 257] = {
    let mut table = [0; 257];
    let mut i = 0;
    while i <= 256 {
        // Squaring doubles the logarithm. Each overflow past 1 gives a binary digit.
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

/// Returns the binary logarithm of a number from 1 to 65536, in units of 1/256.
pub(crate) const fn log2(x: u32) -> u32 {
    let whole = 31 - x.leading_zeros();
    let rest = (x << (16 - whole)) & 0xffff;
    let (at, between) = ((rest >> 8) as usize, rest & 0xff);
    let (low, high) = (LOG2[at] as u32, LOG2[at + 1] as u32);
    (whole << 8) + low + (((high - low) * between) >> 8)
}

/// Returns the binary log-odds of the probability p/65536, in units of 1/256.
const fn stretch(p: u16) -> i32 {
    log2(p as u32) as i32 - log2(65536 - p as u32) as i32
}

/// A table of [`stretch`] for probabilities of 12 bits.
const STRETCHED: [i16; 1 << 12] = {
    let mut table = [0; 1 << 12];
    let mut p = 0;
    while p < table.len() {
        table[p] = stretch((p << 4 | 8) as u16) as i16;
        p += 1;
    }
    table
};

/// Returns the log-odds of the probability p/4096, in units of 1/256.
#[inline(always)]
pub(crate) fn stretched(p: u16) -> i32 {
    STRETCHED[usize::from(p % (1 << 12))].into()
}

/// Log-odds are clamped to ±`LIMIT`.
const LIMIT: i32 = 12 << 8;
/// The log-odds between two entries of [`SQUASH`].
const STEP: i32 = 64;

/// A table of the inverse of [`stretch`], from −[`LIMIT`] to [`LIMIT`].
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

/// Returns the probability with these log-odds, in units of 1/65536.
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

/// Combines the log-odds of `N` probabilities with weights that it learns online.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mixer<const N: usize> {
    /// The weights, in units of 1/65536.
    weights: [i32; N],
}

impl<const N: usize> Mixer<N> {
    /// The learning rate.
    const RATE: i32 = 6;

    pub(crate) const NEW: Self = Self { weights: [(1 << 16) / 3; N] };

    /// Returns the combined probability, in units of 1/65536.
    pub(crate) fn mix(&self, odds: &[i32; N]) -> u16 {
        let products = self.weights.iter().zip(odds).map(|(w, x)| i64::from(*w) * i64::from(*x));
        squash((products.sum::<i64>() >> 16).clamp(-1 << 20, 1 << 20) as i32)
    }

    /// Updates the weights. `p` is the result of [`Mixer::mix`] for these log-odds.
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
    fn logarithms_match_floating_point() {
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
    fn a_mixer_learns_which_input_to_trust() {
        let mut mixer = Mixer::<2>::NEW;
        for i in 0..2000u32 {
            let bit = i % 3 == 0;
            // The first input is always right, the second always wrong.
            let odds = [if bit { 700 } else { -700 }, if bit { -700 } else { 700 }];
            let p = mixer.mix(&odds);
            mixer.learn(&odds, p, bit);
        }
        assert!(mixer.mix(&[700, -700]) > 60000 && mixer.mix(&[-700, 700]) < 5000);
    }
}
