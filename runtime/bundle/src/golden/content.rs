//! The elements of a golden vector: stored, sampled, or generated where storing them would take
//! too much space.

/// The elements of a golden vector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Content<'a> {
    /// All elements, row-major and little-endian.
    Stored(&'a [u8]),
    /// Pseudorandom numbers, which are the same on every machine.
    Generated(Generator),
    /// A strided sample of a large expected output: the elements at indices 0, `step`, 2 · `step`
    /// and so on of its row-major order.
    Sampled {
        /// The stride of the sample in elements, at least 1.
        step: u64,
        /// The sampled elements, little-endian.
        bytes: &'a [u8],
    },
}

/// A generator of uniformly distributed numbers that are the same on every machine.
///
/// Element `i` is `low + (high − low) · (z >> 40) / 2^24`, with each operation rounded to f32 and
/// `z = mix(seed + (i + 1) · 0x9E3779B97F4A7C15)` modulo 2^64. `mix` is the finalizer of SplitMix64
/// (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014). For integer
/// element types, the result is rounded down.
///
/// # Examples
///
/// ```
/// use hardtack_bundle::golden::Generator;
///
/// let generator = Generator { seed: 7, low: 0.0, high: 2.0 };
/// let elements: Vec<f32> = (0..100).map(|index| generator.element(index)).collect();
/// assert!(elements.iter().all(|element| (0.0..2.0).contains(element)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Generator {
    /// The seed of the sequence.
    pub seed: u64,
    /// The lower bound, inclusive.
    pub low: f32,
    /// The upper bound of the range that values are drawn from.
    pub high: f32,
}

impl Generator {
    /// Size in bytes of an encoded generator.
    pub(super) const BYTES: usize = 16;

    /// Returns the element at an index.
    pub fn element(&self, index: u64) -> f32 {
        let step = index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut z = self.seed.wrapping_add(step);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        let unit = (z >> 40) as f32 / (1u32 << 24) as f32;
        self.low + (self.high - self.low) * unit
    }

    /// Returns whether the bounds are finite and in order.
    pub(super) fn is_sound(&self) -> bool {
        self.low <= self.high && (self.high - self.low).is_finite()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares with the published reference output of SplitMix64 for seed 1234567.
    #[test]
    fn elements_match_the_published_sequence() {
        let generator = Generator { seed: 1_234_567, low: 0.0, high: 1.0 };
        for (index, raw) in
            [6_457_827_717_110_365_317u64, 3_203_168_211_198_807_973].iter().enumerate()
        {
            let expected = (raw >> 40) as f32 / (1u32 << 24) as f32;
            assert_eq!(generator.element(index as u64), expected);
        }
    }

    #[test]
    fn elements_stay_within_their_bounds() {
        let generator = Generator { seed: 7, low: -2.5, high: 4.0 };
        assert!((0..1000).map(|i| generator.element(i)).all(|x| (-2.5..4.0).contains(&x)));
    }
}
