//! From what somebody sends to the integers that the network takes.

/// How the elements of an input are sent: as MLPerf Tiny's data sets have them.
pub enum Sent {
    /// A byte each, and the integer that stands for it: pixels, or features of 8 bits.
    Byte(&'static [i8; 256]),
    /// Real numbers of four bytes, the lowest first; 1 over the scale of the input, and its zero
    /// point.
    Real(f32, i8),
}

impl Sent {
    /// Bytes of an element.
    pub const fn size(&self) -> usize {
        match self {
            Self::Byte(_) => 1,
            Self::Real(..) => 4,
        }
    }

    /// The integer for an element's bytes, of which there are [`Sent::size`].
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

/// As the engine quantizes: to the nearest, of two to the even one.
pub fn quantized(real: f32, inverse_scale: f32, zero_point: i8) -> i8 {
    let scaled = real * inverse_scale;
    // NaN is neither greater nor less.
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
