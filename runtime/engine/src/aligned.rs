//! Cache line aligned memory for arenas and weights.

use alloc::vec::Vec;

/// A byte buffer aligned to 64 bytes, the alignment that kernels prefer for images and weights.
///
/// # Examples
///
/// ```
/// use hardtack_engine::Aligned;
///
/// let mut arena = Aligned::zeroed(1000);
/// arena.bytes_mut()[0] = 1;
/// assert_eq!(arena.bytes().as_ptr().addr() % 64, 0);
/// ```
#[derive(Debug, Default)]
pub struct Aligned {
    lines: Vec<[u64; 8]>,
    start: usize,
    length: usize,
}

impl Clone for Aligned {
    fn clone(&self) -> Self {
        Self::copied(self.bytes())
    }
}

impl Aligned {
    /// Allocates `length` zero bytes.
    pub fn zeroed(length: usize) -> Self {
        let lines = alloc::vec![[0; 8]; length.div_ceil(64) + 1];
        // Lines are aligned to 8 bytes, so the distance to the next multiple of 64 is at most 56.
        let start = lines.as_ptr().addr().next_multiple_of(64) - lines.as_ptr().addr();
        Self { lines, start, length }
    }

    /// As [`Aligned::zeroed`]; `None` if the system does not have that much memory.
    pub fn try_zeroed(length: usize) -> Option<Self> {
        // Memory that is zero already is cheaper than memory that is filled, and only the
        // allocation that cannot fail gives it: ask first.
        let lines = (length / 64).checked_add(2)?;
        Vec::<[u64; 8]>::new().try_reserve_exact(lines).ok()?;
        Some(Self::zeroed(length))
    }

    /// Copies `bytes` into a new buffer.
    pub fn copied(bytes: &[u8]) -> Self {
        let mut aligned = Self::zeroed(bytes.len());
        aligned.bytes_mut().copy_from_slice(bytes);
        aligned
    }

    /// Returns the bytes.
    pub fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.lines)[self.start..self.start + self.length]
    }

    /// Returns the bytes for writing.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[self.start..self.start + self.length]
    }
}
