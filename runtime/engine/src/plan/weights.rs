//! The weights section of a program under construction.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::program::Span;

/// The alignment of ranges in bytes.
const ALIGNMENT: usize = 16;

/// A section of byte ranges that stores identical contents once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pool {
    bytes: Vec<u8>,
    ranges: BTreeMap<u64, Vec<Span>>,
}

impl Pool {
    /// Returns the range of `content` and stores it if it is new. `None` if the section would
    /// exceed 4 GiB.
    pub(crate) fn add(&mut self, content: &[u8]) -> Option<Span> {
        let known = self.ranges.entry(fingerprint(content)).or_default();
        let bytes = &self.bytes;
        let stored = |span: &Span| &bytes[span.offset as usize..][..span.length as usize];
        if let Some(span) = known.iter().find(|span| stored(span) == content) {
            return Some(*span);
        }
        let offset = self.bytes.len().next_multiple_of(ALIGNMENT);
        let span = Span { offset: offset.try_into().ok()?, length: content.len().try_into().ok()? };
        span.offset.checked_add(span.length)?;
        known.push(span);
        self.bytes.resize(offset, 0);
        self.bytes.extend_from_slice(content);
        Some(span)
    }

    /// Creates a pool that contains `bytes`. New contents are not compared with them.
    pub(crate) fn holding(bytes: Vec<u8>) -> Self {
        Self { bytes, ranges: BTreeMap::new() }
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Returns the FNV-1a hash, to find candidates for identical contents.
fn fingerprint(content: &[u8]) -> u64 {
    content.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_aligned_and_shared() {
        let mut pool = Pool::default();
        let first = pool.add(&[1, 2, 3]).unwrap();
        let second = pool.add(&[4]).unwrap();
        assert_eq!((first.offset, first.length), (0, 3));
        assert_eq!((second.offset, second.length), (16, 1));
        assert_eq!(pool.add(&[1, 2, 3]), Some(first));
        assert_eq!(pool.into_bytes(), [1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4]);
    }
}
