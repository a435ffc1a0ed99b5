//! The model of i8 weights.
//!
//! A weight is expected near a sum of earlier ones, weighed as the packer found best: in the
//! kernel of a convolution its neighbours resemble it. How far from there is learnt while they
//! come. Sign, size as a power of two, and the bit behind are coded by both; the bits below by
//! what has the same size.

use crate::coder::Coder;
use crate::counter::Counter;
use crate::history::{HISTORY, History};
use crate::prior::{NODES_BEFORE, SEEN};

/// Most terms of an expectation.
pub(crate) const TERMS: usize = 8;
/// Most parts of a row.
pub(crate) const PARTS: usize = 64;
/// What [`Expectation::factors`] count in.
pub(crate) const FACTOR: i32 = 64;
/// What [`Expectation::spreads`] count in.
pub(crate) const SPREAD: u32 = 32;

/// Spreads that are told apart, two to an octave.
pub(crate) const SPREADS: usize = 14;
/// The first of them, counted from one 64th.
pub(crate) const FIRST_SPREAD: u32 = 10;
/// Distances of the expectation from 0 that are told apart, in halves of the spread.
pub(crate) const DISTANCES: usize = 8;
/// Bits of a sign and a size, and the bit behind.
pub(crate) const NODES: usize = 1 + 2 * 7 + 2 * 6;

/// What a weight is expected to be. Rows follow each other, and parts in a row, of which the last
/// may be shorter; each part has factors of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expectation {
    /// Weights of a row.
    pub(crate) row: u16,
    /// Weights of a part.
    pub(crate) part: u16,
    /// How many of the lowest bits of weights from 8 on are without any order.
    pub(crate) flat: u8,
    /// How many terms there are.
    pub(crate) terms: usize,
    /// How far back each lies.
    pub(crate) offsets: [u16; TERMS],
    /// Of each part, what each term is multiplied with.
    pub(crate) factors: [[i8; TERMS]; PARTS],
    /// Of each part, the mean distance from the expectation, relative to the other parts.
    pub(crate) spreads: [u8; PARTS],
}

impl Expectation {
    /// Of 0.
    pub(crate) const NONE: Self = Self {
        row: 1,
        part: 1,
        flat: 0,
        terms: 0,
        offsets: [0; TERMS],
        factors: [[0; TERMS]; PARTS],
        spreads: [SPREAD as u8; PARTS],
    };

    /// Parts of a row.
    pub(crate) fn parts(&self) -> usize {
        usize::from(self.row.div_ceil(self.part))
    }

    /// Whether it keeps to its limits.
    pub(crate) fn is_sound(&self) -> bool {
        let offsets = self.offsets.get(..self.terms);
        self.row > 0
            && self.part > 0
            && self.parts() <= PARTS
            && offsets.is_some_and(|o| o.iter().all(|&o| (1..HISTORY).contains(&usize::from(o))))
            && self.spreads[..self.parts()].iter().all(|&spread| spread > 0)
    }
}

/// What is known of weights.
#[derive(Clone)]
pub(crate) struct Weights {
    expectation: Expectation,
    /// Weights until the part ends, and until the row does.
    left: [u16; 2],
    part: usize,
    /// Mean distances from the expectation over the last 16 and 64, in units of 2^-14.
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

    /// Goes on with other weights, of which no earlier ones are neighbours.
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
        // Of the weights around here, in units of 1/64.
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

    /// The next part of the row where this one has ended.
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

    /// Codes a weight by what is expected and how far weights are from that, both in units of 1/64.
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

        // −128 is what a negative zero would be.
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

/// Two neighbouring contexts, in the ratio of their nearness.
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
