//! A binary arithmetic coder without carries. Each bit splits an interval of 32-bit numbers in
//! proportion to the bit's probabilities.

use embedded_io::Read;

/// An encoder or decoder of bits. The models use this trait, so their code is the same for both
/// directions.
pub(crate) trait Coder {
    /// The error if a bit cannot be coded.
    type Error;

    /// Codes one bit that is 1 with probability `p`/65536, and returns it. A decoder ignores the
    /// argument `bit`.
    fn bit(&mut self, bit: bool, p: u16) -> Result<bool, Self::Error>;
}

/// The interval that remains after the bits so far.
#[derive(Clone, Copy, Debug)]
struct Interval {
    low: u32,
    high: u32,
}

impl Interval {
    const ALL: Self = Self { low: 0, high: u32::MAX };

    /// Returns the last number of the subinterval for a 1.
    #[inline(always)]
    fn middle(self, p: u16) -> u32 {
        self.low + ((u64::from(self.high - self.low) * u64::from(p)) >> 16) as u32
    }

    /// Shrinks the interval to that of `bit`. Branchless, because the bits are unpredictable.
    #[inline(always)]
    fn narrow(&mut self, bit: bool, middle: u32) {
        let one = u32::from(bit).wrapping_neg();
        self.high = middle & one | self.high & !one;
        self.low = self.low & one | middle.wrapping_add(1) & !one;
    }

    /// Shifts out the highest byte, if `low` and `high` agree on it.
    #[inline(always)]
    fn settled(&mut self) -> Option<u8> {
        ((self.low ^ self.high) < 1 << 24).then(|| {
            let byte = (self.low >> 24) as u8;
            self.low <<= 8;
            self.high = self.high << 8 | 0xff;
            byte
        })
    }
}

/// The error of a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DecodeError<E> {
    /// The reader failed.
    Read(E),
    /// The input ended too early.
    End,
}

/// A buffered reader of bytes.
pub(crate) struct Input<R> {
    reader: R,
    buffer: [u8; 256],
    next: usize,
    end: usize,
    /// Number of bytes read before those in the buffer.
    before: u64,
}

impl<R: Read> Input<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, buffer: [0; 256], next: 0, end: 0, before: 0 }
    }

    /// Returns the next byte, or `None` at the end.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<u8>, R::Error> {
        if self.next == self.end {
            self.fill()?;
        }
        let byte = self.buffer[..self.end].get(self.next).copied();
        self.next += usize::from(byte.is_some());
        Ok(byte)
    }

    /// Returns the number of bytes consumed.
    pub(crate) fn taken(&self) -> u64 {
        self.before + self.next as u64
    }

    #[cold]
    fn fill(&mut self) -> Result<(), R::Error> {
        self.before += self.end as u64;
        (self.next, self.end) = (0, self.reader.read(&mut self.buffer)?);
        Ok(())
    }

    /// Returns the next byte, or an error at the end.
    #[inline]
    pub(crate) fn byte(&mut self) -> Result<u8, DecodeError<R::Error>> {
        self.next().map_err(DecodeError::Read)?.ok_or(DecodeError::End)
    }
}

/// Decodes bits.
pub(crate) struct Decoder<R> {
    input: Input<R>,
    interval: Interval,
    /// The four bytes of lookahead, a number within the interval.
    number: u32,
}

impl<R: Read> Decoder<R> {
    pub(crate) fn new(mut input: Input<R>) -> Result<Self, DecodeError<R::Error>> {
        let mut number = 0;
        for _ in 0..4 {
            number = number << 8 | u32::from(input.byte()?);
        }
        Ok(Self { input, interval: Interval::ALL, number })
    }

    /// Returns the number of bytes consumed, including the four bytes of lookahead.
    pub(crate) fn taken(&self) -> u64 {
        self.input.taken()
    }

    /// Returns whether the input ends here in the way that an encoder ends it.
    pub(crate) fn is_end(&mut self) -> Result<bool, R::Error> {
        Ok(self.number == self.interval.low && self.input.next()?.is_none())
    }
}

impl<R: Read> Coder for Decoder<R> {
    type Error = DecodeError<R::Error>;

    #[inline(always)]
    fn bit(&mut self, _: bool, p: u16) -> Result<bool, Self::Error> {
        let middle = self.interval.middle(p);
        let bit = self.number <= middle;
        self.interval.narrow(bit, middle);
        while self.interval.settled().is_some() {
            self.number = self.number << 8 | u32::from(self.input.byte()?);
        }
        Ok(bit)
    }
}

/// Encodes bits.
#[cfg(feature = "alloc")]
pub(crate) struct Encoder {
    bytes: alloc::vec::Vec<u8>,
    interval: Interval,
}

#[cfg(feature = "alloc")]
impl Encoder {
    /// Creates an encoder that appends to `bytes`.
    pub(crate) fn new(bytes: alloc::vec::Vec<u8>) -> Self {
        Self { bytes, interval: Interval::ALL }
    }

    /// Returns the number of bytes that a decoder has consumed after the same bits, including its
    /// four bytes of lookahead.
    pub(crate) fn taken(&self) -> u64 {
        self.bytes.len() as u64 + 4
    }

    pub(crate) fn finish(mut self) -> alloc::vec::Vec<u8> {
        self.bytes.extend(self.interval.low.to_be_bytes());
        self.bytes
    }
}

#[cfg(feature = "alloc")]
impl Coder for Encoder {
    type Error = core::convert::Infallible;

    fn bit(&mut self, bit: bool, p: u16) -> Result<bool, Self::Error> {
        let middle = self.interval.middle(p);
        self.interval.narrow(bit, middle);
        while let Some(byte) = self.interval.settled() {
            self.bytes.push(byte);
        }
        Ok(bit)
    }
}

/// Measures the coded size of bits without encoding them, in units of 1/256 bit.
#[cfg(feature = "alloc")]
#[derive(Default)]
pub(crate) struct Meter(pub(crate) u64);

#[cfg(feature = "alloc")]
impl Coder for Meter {
    type Error = core::convert::Infallible;

    fn bit(&mut self, bit: bool, p: u16) -> Result<bool, Self::Error> {
        let part = if bit { u32::from(p) } else { 65536 - u32::from(p) };
        self.0 += u64::from((16 << 8) - crate::logistic::log2(part));
        Ok(bit)
    }
}

#[cfg(all(test, feature = "alloc"))]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn bits_round_trip_at_every_probability() {
        let cases: Vec<(bool, u16)> = (0..4000u32)
            .map(|i| {
                (i.wrapping_mul(2_654_435_761) >> 31 != 0, [1, 200, 32768, 65535][i as usize % 4])
            })
            .collect();
        let mut encoder = Encoder::new(Vec::new());
        for (bit, p) in &cases {
            let Ok(_) = encoder.bit(*bit, *p);
        }
        let bytes = encoder.finish();
        let mut decoder = Decoder::new(Input::new(&bytes[..])).unwrap();
        for (bit, p) in &cases {
            assert_eq!(decoder.bit(false, *p), Ok(*bit));
        }
        assert_eq!(decoder.is_end(), Ok(true));
    }

    #[test]
    fn likely_bits_take_little_space() {
        let mut encoder = Encoder::new(Vec::new());
        let mut meter = Meter::default();
        for _ in 0..80_000 {
            let Ok(_) = encoder.bit(true, 65000);
            let Ok(_) = meter.bit(true, 65000);
        }
        let bytes = encoder.finish().len() as f64;
        assert!((bytes - 80_000.0 * (65536.0f64 / 65000.0).log2() / 8.0).abs() < 10.0, "{bytes}");
        assert!((bytes - meter.0 as f64 / 2048.0).abs() < 100.0);
    }
}
