//! The last bytes that were coded.

/// How many are kept.
pub(crate) const HISTORY: usize = 4096;

/// The last bytes, of weights and all else.
#[derive(Clone)]
pub(crate) struct History {
    bytes: [u8; HISTORY],
    /// How many there have been, modulo 2^32.
    count: u32,
}

impl History {
    pub(crate) const NEW: Self = Self { bytes: [0; HISTORY], count: 0 };

    /// How many bytes there have been, modulo 2^32.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// The byte after so many.
    #[inline(always)]
    pub(crate) fn at(&self, count: u32) -> u8 {
        self.bytes[count as usize % HISTORY]
    }

    /// The byte so far back; 1 is the last.
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
