//! The history of coded bytes.

/// The number of bytes kept.
pub(crate) const HISTORY: usize = 4096;

/// A ring buffer of the last bytes of all blocks.
#[derive(Clone)]
pub(crate) struct History {
    bytes: [u8; HISTORY],
    /// Number of bytes coded so far, modulo 2^32.
    count: u32,
}

impl History {
    pub(crate) const NEW: Self = Self { bytes: [0; HISTORY], count: 0 };

    /// Returns the number of bytes coded so far, modulo 2^32.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Returns the byte at index `count` in the sequence of coded bytes.
    #[inline(always)]
    pub(crate) fn at(&self, count: u32) -> u8 {
        self.bytes[count as usize % HISTORY]
    }

    /// Returns the byte `offset` positions back; 1 is the last byte.
    #[inline(always)]
    pub(crate) fn back(&self, offset: u16) -> u8 {
        self.at(self.count.wrapping_sub(offset.into()))
    }

    #[inline(always)]
    pub(crate) fn push(&mut self, byte: u8) {
        self.bytes[self.count as usize % HISTORY] = byte;
        self.count = self.count.wrapping_add(1);
    }
}
