//! The model of i8 weights.
//!
//! A weight is predicted as a weighted sum of earlier ones, since neighbors in a convolution
//! kernel are similar. The compressor fits the factors. The spread (the mean distance from the
//! prediction) is learned while weights are coded. Prediction and spread select the probabilities
//! of the sign, the magnitude's octave (its bit length) and the next bit. The probabilities of the
//! lower bits depend on the bits above.

use crate::coder::Coder;
use crate::counter::Counter;
use crate::history::{HISTORY, History};
use crate::prior::{NODES_BEFORE, SEEN};

/// The maximum number of terms of a predictor.
pub(crate) const TERMS: usize = 8;
/// The maximum number of parts of a row.
pub(crate) const PARTS: usize = 64;
/// The value that represents 1 in [`Expectation::factors`].
pub(crate) const FACTOR: i32 = 64;
/// The value that represents 1 in [`Expectation::spreads`].
pub(crate) const SPREAD: u32 = 32;

/// The number of classes of spread, two per octave.
pub(crate) const SPREADS: usize = 14;
/// The index of the first class, counted from a spread of 1/64.
pub(crate) const FIRST_SPREAD: u32 = 10;
/// The number of classes of the prediction's distance from 0, in steps of half the spread.
pub(crate) const DISTANCES: usize = 8;
/// The number of counters: for the sign, for the octave of each sign, and for the next bit.
pub(crate) const NODES: usize = 1 + 2 * 7 + 2 * 6;

/// A linear predictor of weights. Weights are divided into rows, and rows into parts, of which the
/// last may be shorter. Each part has its own factors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expectation {
    /// Number of weights per row.
    pub(crate) row: u16,
    /// Number of weights per part.
    pub(crate) part: u16,
    /// Number of lowest bits that are coded raw, in weights with a magnitude of at least 8.
    pub(crate) flat: u8,
    /// Number of terms.
    pub(crate) terms: usize,
    /// For each term, the distance back to the earlier weight.
    pub(crate) offsets: [u16; TERMS],
    /// For each part, the factor of each term, in units of 1/[`FACTOR`].
    pub(crate) factors: [[i8; TERMS]; PARTS],
    /// For each part, the mean distance from the prediction relative to other parts, in units of
    /// 1/[`SPREAD`].
    pub(crate) spreads: [u8; PARTS],
}

impl Expectation {
    /// The predictor without terms, which always predicts 0.
    pub(crate) const NONE: Self = Self {
        row: 1,
        part: 1,
        flat: 0,
        terms: 0,
        offsets: [0; TERMS],
        factors: [[0; TERMS]; PARTS],
        spreads: [SPREAD as u8; PARTS],
    };

    /// Returns the number of parts of a row.
    pub(crate) fn parts(&self) -> usize {
        usize::from(self.row.div_ceil(self.part))
    }

    /// Returns whether all fields are within their limits.
    pub(crate) fn is_sound(&self) -> bool {
        let offsets = self.offsets.get(..self.terms);
        self.row > 0
            && self.part > 0
            && self.parts() <= PARTS
            && offsets.is_some_and(|o| o.iter().all(|&o| (1..HISTORY).contains(&usize::from(o))))
            && self.spreads[..self.parts()].iter().all(|&spread| spread > 0)
    }
}

/// The state of the model of weights.
#[derive(Clone)]
pub(crate) struct Weights {
    expectation: Expectation,
    /// Number of weights left in the part, and in the row.
    left: [u16; 2],
    part: usize,
    /// Running means of the distance from the prediction, with time constants of 16 and 64 weights,
    /// in units of 2^-14.
    distances: [u32; 2],
    nodes: [[[Counter; NODES]; DISTANCES]; SPREADS],
    bits: [Counter; 128],
}

impl Weights {
    pub(crate) const NEW: Self = Self {
        expectation: Expectation::NONE,
        left: [1; 2],
        part: 0,
        distances: [20 << 14; 2],
        nodes: NODES_BEFORE,
        bits: [Counter::of(1 << 15, 1 << 15, SEEN); 128],
    };

    /// Starts a new block of weights with its own predictor.
    pub(crate) fn begin(&mut self, expectation: &Expectation) {
        self.expectation = *expectation;
        self.part = 0;
        self.left = [expectation.part.min(expectation.row), expectation.row];
    }

    /// Codes the next weight.
    pub(crate) fn code<C: Coder>(
        &mut self,
        coder: &mut C,
        history: &History,
        weight: i8,
    ) -> Result<i8, C::Error> {
        let Expectation { terms, offsets, factors, .. } = &self.expectation;
        let terms = offsets[..*terms].iter().zip(&factors[self.part]);
        let expected: i32 = terms
            .map(|(offset, factor)| i32::from(history.back(*offset) as i8) * i32::from(*factor))
            .sum();
        let expected = expected.clamp(-127 * FACTOR, 127 * FACTOR);
        let relative = u32::from(self.expectation.spreads[self.part]);
        // The spread of recent weights, in units of 1/64.
        let spread = (((self.distances[0] + self.distances[1]) >> 9) * relative) / SPREAD;

        let weight = self.size(coder, weight, expected, spread)?;

        let distance = (i32::from(weight) * FACTOR - expected).unsigned_abs();
        let distance = match relative {
            SPREAD => distance,
            _ => distance * SPREAD / relative,
        };
        let distance = (distance << 8).min(1 << 22);
        for (mean, shift) in self.distances.iter_mut().zip([4, 6]) {
            *mean = mean.wrapping_add_signed((distance as i32 - *mean as i32) >> shift);
        }
        self.step();
        Ok(weight)
    }

    /// Advances by one weight, to the next part or row if necessary.
    fn step(&mut self) {
        let [part, row] = &mut self.left;
        (*part, *row) = (*part - 1, *row - 1);
        if *row == 0 {
            (self.part, *row) = (0, self.expectation.row);
        } else if *part == 0 {
            self.part += 1;
        } else {
            return;
        }
        *part = self.expectation.part.min(*row);
    }

    /// Codes a weight, given the prediction and the spread, both in units of 1/64.
    #[inline(always)]
    fn size<C: Coder>(
        &mut self,
        coder: &mut C,
        weight: i8,
        expected: i32,
        spread: u32,
    ) -> Result<i8, C::Error> {
        let octave = (spread | 1).ilog2();
        let half = (spread << 1 >> octave) & 1;
        let class =
            (2 * octave + half).saturating_sub(FIRST_SPREAD).min(SPREADS as u32 - 1) as usize;
        let distance = match expected {
            0 => 0,
            _ => (expected.unsigned_abs() << 9) / (spread + 16),
        };
        let distance = distance.min(((DISTANCES as u32 - 1) << 8) - 1);
        let (place, between) = ((distance >> 8) as usize, distance & 0xff);
        let [low, high] = &mut self.nodes[class][place..place + 2] else { unreachable!() };
        let mut nodes = Nodes { low, high, between };

        // −128 is coded as negative zero.
        let mirrored = expected < 0;
        let magnitude = u32::from(weight.unsigned_abs()) % 128;
        let octaves = 32 - magnitude.leading_zeros();
        let negative = nodes.code(
            coder,
            0,
            if magnitude == 0 { weight != 0 } else { (weight < 0) != mirrored },
        )?;
        let side = usize::from(negative);
        let mut path = 1;
        for place in [2, 1, 0] {
            let bit = nodes.code(coder, 7 * side + path, octaves >> place & 1 != 0)?;
            path = 2 * path + usize::from(bit);
        }
        let octaves = path as u32 - 8;
        let flat = u32::from(self.expectation.flat);
        if octaves == 0 {
            return Ok(if negative { i8::MIN } else { 0 });
        }
        let mut found = 1;
        for place in (0..octaves - 1).rev() {
            let bit = magnitude >> place & 1 != 0;
            let bit = if found == 1 {
                nodes.code(coder, 11 + 2 * octaves as usize + side, bit)?
            } else if octaves > 3 && place < flat {
                coder.bit(bit, 1 << 15)?
            } else {
                let counter = &mut self.bits[(1 << (octaves - 1)) + found - 1];
                let bit = coder.bit(bit, counter.p())?;
                counter.learn(bit);
                bit
            };
            found = 2 * found + usize::from(bit);
        }
        let found = found as i8;
        Ok(if negative != mirrored { -found } else { found })
    }
}

/// Two adjacent contexts, interpolated by their distances.
struct Nodes<'a> {
    low: &'a mut [Counter; NODES],
    high: &'a mut [Counter; NODES],
    between: u32,
}

impl Nodes<'_> {
    #[inline(always)]
    fn code<C: Coder>(&mut self, coder: &mut C, index: usize, bit: bool) -> Result<bool, C::Error> {
        let (low, high) = (&mut self.low[index], &mut self.high[index]);
        let p = Counter::between(*low, *high, self.between);
        let bit = coder.bit(bit, p)?;
        (if self.between < 128 { low } else { high }).learn(bit);
        Ok(bit)
    }
}
