//! Shared bytes in a mapped file or in memory.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use memmap2::Mmap;

/// Shared bytes in a mapped file or in memory.
///
/// Cloning and slicing do not copy the bytes. Two values are equal if their bytes are equal.
///
/// # Examples
///
/// ```
/// use hardtack::Bytes;
///
/// let bytes = Bytes::from(vec![1, 2, 3, 4]);
/// let middle = bytes.slice(1..3).unwrap();
/// assert_eq!(*middle, [2, 3]);
/// assert_eq!(bytes.slice(1..9), None);
/// ```
#[derive(Clone)]
pub struct Bytes {
    storage: Storage,
    range: Range<usize>,
}

#[derive(Clone)]
enum Storage {
    Map(Arc<Mmap>),
    Memory(Arc<[u8]>),
}

impl Bytes {
    /// Returns part of the bytes, or `None` if `range` is out of bounds.
    pub fn slice(&self, range: Range<usize>) -> Option<Bytes> {
        if range.start > range.end || range.end > self.range.len() {
            return None;
        }
        let range = self.range.start + range.start..self.range.start + range.end;
        Some(Bytes { storage: self.storage.clone(), range })
    }

    pub(crate) fn mapped(map: Mmap) -> Bytes {
        let range = 0..map.len();
        Bytes { storage: Storage::Map(Arc::new(map)), range }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let all: &[u8] = match &self.storage {
            Storage::Map(map) => map,
            Storage::Memory(memory) => memory,
        };
        &all[self.range.clone()]
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Arc<[u8]>> for Bytes {
    fn from(memory: Arc<[u8]>) -> Bytes {
        let range = 0..memory.len();
        Bytes { storage: Storage::Memory(memory), range }
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Bytes {
        Arc::<[u8]>::from(bytes).into()
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Bytes {
        Arc::<[u8]>::from(bytes).into()
    }
}

impl Default for Bytes {
    fn default() -> Bytes {
        Bytes::from(&[][..])
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Bytes) -> bool {
        **self == **other
    }
}

impl Eq for Bytes {}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match self.storage {
            Storage::Map(_) => "mapped",
            Storage::Memory(_) => "in memory",
        };
        write!(f, "Bytes({} bytes, {place})", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_share_bytes_and_stay_in_bounds() {
        let bytes = Bytes::from(vec![1, 2, 3, 4, 5]);
        let middle = bytes.slice(1..4).unwrap();
        assert_eq!(*middle, [2, 3, 4]);
        assert_eq!(middle.slice(1..2), Some(Bytes::from(&[3][..])));
        assert_eq!(middle.slice(1..4), None);
        #[allow(clippy::reversed_empty_ranges)]
        let reversed = 2..1;
        assert_eq!(middle.slice(reversed), None);
        assert_eq!(*middle.slice(3..3).unwrap(), []);
    }
}
