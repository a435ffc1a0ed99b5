//! Conversion of the elements that a host sends to the network's integers.

/// The format of the input elements that a host sends, as in the data sets of MLPerf Tiny.
pub enum Sent {
    /// One byte per element (pixels or 8-bit features), with a table of the integer for each byte.
    Byte(&'static [i8; 256]),
    /// Little-endian f32 elements, with the inverse of the input's scale and its zero point.
    Real(f32, i8),
}

impl Sent {
    /// Returns the size of an element in bytes.
    pub const fn size(&self) -> usize {
        match self {
            Self::Byte(_) => 1,
            Self::Real(..) => 4,
        }
    }

    /// Converts the bytes of an element, of which there are [`Sent::size`], to an integer.
    pub fn integer(&self, bytes: &[u8]) -> i8 {
        match (self, bytes) {
            (Self::Byte(table), [byte]) => table[usize::from(*byte)],
            (Self::Real(inverse_scale, zero_point), &[a, b, c, d]) => {
                quantized(f32::from_le_bytes([a, b, c, d]), *inverse_scale, *zero_point)
            }
            _ => 0,
        }
    }
}

/// Quantizes a number like the engine: rounds to nearest, ties to even, and saturates.
pub fn quantized(real: f32, inverse_scale: f32, zero_point: i8) -> i8 {
    let scaled = real * inverse_scale;
    // NaN fails both comparisons, and becomes 0 below.
    let steps = if scaled > 1e6 {
        1_000_000
    } else if scaled < -1e6 {
        -1_000_000
    } else {
        let below = scaled as i32 - i32::from(scaled < scaled as i32 as f32);
        let above = scaled - below as f32;
        below + i32::from(above > 0.5 || (above == 0.5 && below & 1 == 1))
    };
    (steps + i32::from(zero_point)).clamp(-128, 127) as i8
}
