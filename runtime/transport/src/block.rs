//! Blocks, which are consecutive bytes of a bundle of the same kind, and their models.

use crate::bytes::Bytes;
use crate::coder::Coder;
use crate::counter::Small;
use crate::history::History;
use crate::sparse::{DEPTH, Shape};
use crate::weights::{Expectation, PARTS, TERMS, Weights};

/// The kind of a block's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Raw bytes, which are not compressible.
    Raw,
    /// Zeros.
    Zeros,
    /// Numbers of this many bytes: 1, 2 or 4.
    Numbers(usize),
    /// i8 weights.
    Weights,
    /// Sparse weights, followed by zeros. Coded row by row; see [`Models::row`].
    Sparse(Shape),
}

/// [`DEPTH`] as a `u64`.
const MOST: u64 = DEPTH as u64;

/// The header of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) kind: Kind,
    /// Number of bytes.
    pub(crate) length: u64,
}

/// A kind of field in a block header.
#[derive(Clone, Copy)]
enum Field {
    Kind,
    Length,
    Offset,
    Factor,
    Spread,
}

/// All adaptive models, and the history.
#[derive(Clone)]
pub(crate) struct Models {
    history: History,
    heads: [[Small; 256]; 5],
    bytes: Bytes,
    weights: Weights,
}

/// The block header is not one that the compressor writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unsound;

impl Models {
    pub(crate) const NEW: Self = Self {
        history: History::NEW,
        heads: [[Small::NEW; 256]; 5],
        bytes: Bytes::NEW,
        weights: Weights::NEW,
    };

    /// Codes the header of a block and starts the block. For weights, the header includes the
    /// predictor `expected`.
    pub(crate) fn head<C: Coder>(
        &mut self,
        coder: &mut C,
        block: Block,
        expected: &Expectation,
    ) -> Result<Result<Block, Unsound>, C::Error> {
        let number = match block.kind {
            Kind::Raw => 0,
            Kind::Zeros => 1,
            Kind::Numbers(size) => 1 + size as u8,
            Kind::Weights => 6,
            Kind::Sparse(_) => 7,
        };
        let number = self.field(coder, Field::Kind, number)?;
        let length = self.number(coder, Field::Length, block.length)?;
        let kind = match number {
            0 => Kind::Raw,
            1 => Kind::Zeros,
            2 | 3 | 5 => {
                self.bytes.begin();
                Kind::Numbers(usize::from(number) - 1)
            }
            6 => match self.expectation(coder, expected)? {
                Ok(expectation) => {
                    self.weights.begin(&expectation);
                    Kind::Weights
                }
                Err(Unsound) => return Ok(Err(Unsound)),
            },
            7 => {
                let given = match block.kind {
                    Kind::Sparse(shape) => shape,
                    _ => Shape { rows: 0, depth: 0 },
                };
                let rows = self.number(coder, Field::Length, given.rows.into())?;
                let depth = self.number(coder, Field::Length, given.depth.into())?;
                let (Ok(rows), 1..=MOST) = (u32::try_from(rows), depth) else {
                    return Ok(Err(Unsound));
                };
                match self.expectation(coder, expected)? {
                    Ok(expectation) => self.weights.begin(&expectation),
                    Err(Unsound) => return Ok(Err(Unsound)),
                }
                Kind::Sparse(Shape { rows, depth: depth as u16 })
            }
            _ => return Ok(Err(Unsound)),
        };
        Ok(Ok(Block { kind, length }))
    }

    /// Codes one row of a sparse block. `weight` returns the weight at an index of the row.
    pub(crate) fn row<C: Coder>(
        &mut self,
        coder: &mut C,
        shape: Shape,
        weight: impl Fn(usize) -> u8,
    ) -> Result<(), C::Error> {
        for place in 0..usize::from(shape.depth) {
            self.byte(coder, Kind::Weights, weight(place))?;
        }
        Ok(())
    }

    /// Returns the bytes of the last coded row, in sparse form.
    pub(crate) fn row_bytes(&self, shape: Shape) -> impl Iterator<Item = u8> {
        shape.row(&self.history)
    }

    /// Codes one byte of a block that is not sparse.
    #[inline]
    pub(crate) fn byte<C: Coder>(
        &mut self,
        coder: &mut C,
        kind: Kind,
        byte: u8,
    ) -> Result<u8, C::Error> {
        let byte = match kind {
            Kind::Raw => {
                let mut found = 0;
                for place in (0..8).rev() {
                    let bit = coder.bit(byte >> place & 1 != 0, 1 << 15)?;
                    found |= u8::from(bit) << place;
                }
                found
            }
            Kind::Zeros | Kind::Sparse(_) => 0,
            Kind::Numbers(size) => self.bytes.code(coder, &self.history, size, byte)?,
            Kind::Weights => self.weights.code(coder, &self.history, byte as i8)? as u8,
        };
        self.history.push(byte);
        Ok(byte)
    }

    fn expectation<C: Coder>(
        &mut self,
        coder: &mut C,
        given: &Expectation,
    ) -> Result<Result<Expectation, Unsound>, C::Error> {
        let mut found = Expectation::NONE;
        found.flat = self.field(coder, Field::Kind, given.flat)?;
        found.terms = usize::from(self.field(coder, Field::Kind, given.terms as u8)?);
        if found.terms == 0 {
            return Ok(Ok(found));
        }
        if found.terms > TERMS {
            return Ok(Err(Unsound));
        }
        for (found, given) in [(&mut found.row, given.row), (&mut found.part, given.part)]
            .into_iter()
            .chain(found.offsets.iter_mut().zip(given.offsets).take(found.terms))
        {
            *found = self.number(coder, Field::Offset, given.into())? as u16;
        }
        if found.row == 0 || found.part == 0 || found.parts() > PARTS {
            return Ok(Err(Unsound));
        }
        for part in 0..found.parts() {
            for term in 0..found.terms {
                let factor = given.factors[part][term] as u8;
                found.factors[part][term] = self.field(coder, Field::Factor, factor)? as i8;
            }
            found.spreads[part] = self.field(coder, Field::Spread, given.spreads[part])?;
        }
        Ok(if found.is_sound() { Ok(found) } else { Err(Unsound) })
    }

    /// Codes a number in groups of seven bits, lowest first. The highest bit of each byte is set if
    /// more bytes follow.
    fn number<C: Coder>(
        &mut self,
        coder: &mut C,
        field: Field,
        number: u64,
    ) -> Result<u64, C::Error> {
        let (mut found, mut rest) = (0, number);
        for shift in (0..63).step_by(7) {
            let more = u8::from(rest > 127) << 7;
            let byte = self.field(coder, field, rest as u8 & 0x7f | more)?;
            found |= u64::from(byte & 0x7f) << shift;
            rest >>= 7;
            if byte < 128 {
                break;
            }
        }
        Ok(found)
    }

    fn field<C: Coder>(&mut self, coder: &mut C, field: Field, byte: u8) -> Result<u8, C::Error> {
        let counters = &mut self.heads[field as usize];
        let mut path = 1;
        for place in (0..8).rev() {
            let counter = &mut counters[path];
            let bit = coder.bit(byte >> place & 1 != 0, counter.p())?;
            counter.learn(bit);
            path = 2 * path + usize::from(bit);
        }
        Ok(path as u8)
    }
}
