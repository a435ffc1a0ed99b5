//! The bundle header: the first 64 bytes of the file.

use crate::{Digest, Error};

/// The magic number: the first eight bytes of every bundle. As in PNG, a byte above 127, a CR LF
/// pair and an end-of-file character detect transfers in text mode.
pub const MAGIC: [u8; 8] = *b"\x89TACK\r\n\x1a";

/// The format version that this crate writes. It reads all minor versions of the same major.
pub const FORMAT_VERSION: FormatVersion = FormatVersion { major: 1, minor: 0 };

/// Sections start at multiples of this many bytes from the start of the file.
pub const ALIGNMENT: u64 = 64;

/// The number of zero bytes after the last section. Kernels may read this far past the end of
/// any section.
pub const SLACK: u64 = 64;

/// The maximum number of sections in a bundle.
pub const MAX_SECTIONS: usize = 256;

/// Size of the header in bytes.
pub(crate) const HEADER_BYTES: usize = 64;

/// A version of the bundle format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FormatVersion {
    /// Incremented when older readers cannot read the file at all.
    pub major: u16,
    /// Incremented for additions that older readers may skip.
    pub minor: u16,
}

impl FormatVersion {
    /// Returns whether the minor version is greater than that of [`FORMAT_VERSION`].
    pub fn is_newer(self) -> bool {
        self.minor.checked_sub(FORMAT_VERSION.minor).is_some_and(|more| more > 0)
    }
}

impl core::fmt::Display for FormatVersion {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The decoded header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub version: FormatVersion,
    pub sections: u32,
    /// Length of the whole file in bytes.
    pub length: u64,
    pub root: Digest,
}

impl Header {
    /// Decodes a header and checks everything that depends on the header alone.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Header, Error> {
        check_magic(bytes)?;
        let version = FormatVersion { major: u16_at(bytes, 8), minor: u16_at(bytes, 10) };
        if version.major != FORMAT_VERSION.major {
            return Err(Error::OtherMajor { found: version });
        }
        let sections = u32_at(bytes, 12);
        if sections as usize > MAX_SECTIONS {
            return Err(Error::TooManySections { found: sections, limit: MAX_SECTIONS as u32 });
        }
        let header = Header {
            version,
            sections,
            length: u64_at(bytes, 16),
            root: Digest(array_at(bytes, 32)),
        };
        if u64_at(bytes, 24) != 0 && header.reserved_is_zero() {
            return Err(Error::ReservedInHeader);
        }
        Ok(header)
    }

    /// Encodes the header.
    #[cfg(feature = "alloc")]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&self.version.major.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.version.minor.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.sections.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.length.to_le_bytes());
        bytes[32..].copy_from_slice(&self.root.0);
        bytes
    }

    /// Returns whether reserved bytes and bits must be zero. A newer minor version may give them a
    /// meaning that readers can safely ignore.
    pub fn reserved_is_zero(&self) -> bool {
        !self.version.is_newer()
    }
}

fn check_magic(bytes: &[u8; HEADER_BYTES]) -> Result<(), Error> {
    if bytes.starts_with(&MAGIC) {
        return Ok(());
    }
    // The letters match, but the high bit or the line ending was changed.
    if &bytes[1..5] == b"TACK" { Err(Error::TextTransfer) } else { Err(Error::NotABundle) }
}

/// Returns the `N` bytes at offset `at`. Panics if they are out of bounds.
pub(crate) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}
