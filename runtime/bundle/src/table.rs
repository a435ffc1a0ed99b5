//! The section table: its records, their order, and the root digest of header and table.

use sha2::{Digest as _, Sha256};

use crate::header::{HEADER_BYTES, Header, array_at, u16_at, u64_at};
use crate::section::{Key, SIGNATURE};
use crate::{ALIGNMENT, Digest, Error, SLACK, SectionKind};

/// Size of a record in bytes.
pub(crate) const RECORD_BYTES: usize = 64;
/// The offset of the digest in both the header and a record.
const DIGEST_AT: usize = 32;
/// The only flag: a reader that does not know the section must reject the bundle.
const CRITICAL: u16 = 1;

/// One decoded record of the table. Its fields have not been checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    pub key: Key,
    pub flags: u16,
    pub offset: u64,
    pub length: u64,
    pub reserved: u64,
    pub digest: Digest,
}

impl Record {
    pub fn decode(bytes: &[u8; RECORD_BYTES]) -> Record {
        Record {
            key: (u16_at(bytes, 0), u16_at(bytes, 4), u16_at(bytes, 6)),
            flags: u16_at(bytes, 2),
            offset: u64_at(bytes, 8),
            length: u64_at(bytes, 16),
            reserved: u64_at(bytes, 24),
            digest: Digest(array_at(bytes, DIGEST_AT)),
        }
    }

    #[cfg(feature = "alloc")]
    pub fn new(kind: SectionKind, offset: u64, bytes: &[u8]) -> Record {
        Record {
            key: kind.key(),
            flags: if kind.is_critical() { CRITICAL } else { 0 },
            offset,
            length: bytes.len() as u64,
            reserved: 0,
            digest: Digest::of(bytes),
        }
    }

    #[cfg(feature = "alloc")]
    pub fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[..2].copy_from_slice(&self.key.0.to_le_bytes());
        bytes[2..4].copy_from_slice(&self.flags.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.key.1.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.key.2.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.offset.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.length.to_le_bytes());
        bytes[DIGEST_AT..].copy_from_slice(&self.digest.0);
        bytes
    }

    pub fn kind(&self) -> SectionKind {
        SectionKind::from_key(self.key)
    }

    pub fn is_critical(&self) -> bool {
        self.flags & CRITICAL != 0
    }
}

/// Computes the root digest: SHA-256 over the header and the table. The digest fields of the
/// header and of signatures count as zeros, so a signature does not change the root digest that
/// it signs.
#[derive(Clone)]
pub(crate) struct RootHasher(Sha256);

impl RootHasher {
    pub fn new(header: &[u8; HEADER_BYTES]) -> RootHasher {
        let mut hasher = Sha256::new();
        hasher.update(&header[..DIGEST_AT]);
        hasher.update([0; 32]);
        RootHasher(hasher)
    }

    pub fn record(&mut self, record: &[u8; RECORD_BYTES]) {
        if u16_at(record, 0) == SIGNATURE {
            self.0.update(&record[..DIGEST_AT]);
            self.0.update([0; 32]);
        } else {
            self.0.update(record);
        }
    }

    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }

    /// Compares the digest with the root digest in the header.
    pub fn check(self, header: &Header) -> Result<(), Error> {
        let found = self.finish();
        if found == header.root {
            Ok(())
        } else {
            Err(Error::RootDigest { stated: header.root, found })
        }
    }
}

/// Returns the offset of the first section.
pub(crate) fn first_offset(sections: u32) -> u64 {
    HEADER_BYTES as u64 + RECORD_BYTES as u64 * u64::from(sections)
}

/// Returns the offset of the section that follows one that ends at `end`.
pub(crate) fn next_offset(end: u64) -> Option<u64> {
    end.checked_next_multiple_of(ALIGNMENT)
}

/// Checks the rules of the table. `records` must be all records, in file order.
pub(crate) fn check_table(
    header: &Header,
    records: impl Iterator<Item = Record>,
) -> Result<(), Error> {
    let mut position = first_offset(header.sections);
    let mut previous: Option<Key> = None;
    let mut programs = 0;
    for (section, record) in (0..).zip(records) {
        let unknown_bits = record.flags & !CRITICAL != 0 || record.reserved != 0;
        if unknown_bits && header.reserved_is_zero() {
            return Err(Error::ReservedInRecord { section });
        }
        let kind = record.kind();
        if previous.is_none() && kind != SectionKind::Manifest {
            return Err(Error::NoManifest);
        }
        if let (SectionKind::Other { kind, family, index }, true) = (kind, record.is_critical()) {
            return Err(Error::UnknownCritical { kind, family, index, version: header.version });
        }
        if previous.is_some_and(|previous| previous >= record.key) {
            return Err(Error::Order { section });
        }
        match kind {
            SectionKind::Program(program) if program == programs => programs += 1,
            SectionKind::Program(_) => return Err(Error::ProgramGap { section }),
            SectionKind::Weights { program, .. } if program >= programs => {
                return Err(Error::NoProgram { section, program });
            }
            _ => {}
        }
        if record.offset != position {
            return Err(Error::Misplaced { section, expected: position, found: record.offset });
        }
        position = position
            .checked_add(record.length)
            .and_then(next_offset)
            .ok_or(Error::TooLong { section })?;
        previous = Some(record.key);
    }
    if previous.is_none() {
        return Err(Error::NoManifest);
    }
    let expected = position.saturating_add(SLACK);
    if header.length != expected {
        return Err(Error::Length { stated: header.length, expected });
    }
    Ok(())
}
