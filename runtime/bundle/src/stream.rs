//! Verifies a bundle as it arrives, for example while it is written to flash.

use embedded_io::Read;
use heapless::Vec;
use sha2::{Digest as _, Sha256};

use crate::header::{HEADER_BYTES, Header};
use crate::table::{RECORD_BYTES, Record, RootHasher, check_table};
use crate::{Digest, Error, FormatVersion};

/// A summary of a verified stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The version of the bundle format.
    pub version: FormatVersion,
    /// The root digest, which identifies the bundle.
    pub root: Digest,
    /// The number of sections.
    pub sections: u32,
    /// The length of the bundle in bytes.
    pub length: u64,
}

/// Verifies a bundle that arrives in chunks of any size, for example before they are written to
/// flash. `SECTIONS` is the maximum number of sections; each takes 64 bytes of memory.
///
/// | State   | Consumes                            | Check at the end      | Next state        |
/// |---------|-------------------------------------|-----------------------|-------------------|
/// | Header  | 64 bytes                            | header                | Record            |
/// | Record  | 64 bytes, once per section          | root digest and table | Record or Padding |
/// | Padding | zeros up to the next section or end | none                  | Section or End    |
/// | Section | the bytes of the section            | digest                | Padding           |
/// | End     | nothing                             | none                  | none              |
/// | Refused | nothing; repeats the error          | none                  | none              |
///
/// # Examples
///
/// ```
/// use hardtack_bundle::StreamVerifier;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
/// # std::env::set_current_dir(folder)?;
/// let file = std::fs::read("kws_dscnn.tack")?;
/// let mut verifier = StreamVerifier::<16>::new();
/// for chunk in file.chunks(1000) {
///     verifier.push(chunk)?;
///     // … write the chunk to flash …
/// }
/// let summary = verifier.finish()?;
/// assert_eq!(summary.length, file.len() as u64);
/// println!("{}", summary.root);
/// # Ok(())
/// # }
/// ```
pub struct StreamVerifier<const SECTIONS: usize> {
    state: State,
    /// Number of bytes consumed so far.
    position: u64,
    /// Position at which the bytes of the current state end.
    end: u64,
    /// The header or record that is being received.
    block: [u8; 64],
    records: Vec<Record, SECTIONS>,
}

#[derive(Clone)]
enum State {
    Header,
    Record {
        header: Header,
        root: RootHasher,
    },
    /// The padding before section number `section`, or before the end of the file.
    Padding {
        header: Header,
        section: usize,
    },
    Section {
        header: Header,
        section: usize,
        hasher: Sha256,
    },
    End {
        header: Header,
    },
    Refused(Error),
}

impl<const SECTIONS: usize> StreamVerifier<SECTIONS> {
    /// Creates a verifier for a new stream.
    pub fn new() -> Self {
        StreamVerifier {
            state: State::Header,
            position: 0,
            end: HEADER_BYTES as u64,
            block: [0; 64],
            records: Vec::new(),
        }
    }

    /// Processes the next bytes of the stream.
    ///
    /// # Errors
    /// Returns the first error in the bundle. Later calls return the same error again.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.advance(bytes).inspect_err(|error| self.state = State::Refused(error.clone()))
    }

    /// Returns the length of the bundle in bytes, once the header has arrived.
    pub fn length(&self) -> Option<u64> {
        match &self.state {
            State::Header | State::Refused(_) => None,
            State::Record { header, .. }
            | State::Padding { header, .. }
            | State::Section { header, .. }
            | State::End { header } => Some(header.length),
        }
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// Returns an error if the bundle has been rejected or is incomplete.
    pub fn finish(self) -> Result<Summary, Error> {
        let expected = self.length().unwrap_or(HEADER_BYTES as u64);
        match self.state {
            State::Refused(error) => Err(error),
            State::End { header } => Ok(Summary {
                version: header.version,
                root: header.root,
                sections: header.sections,
                length: header.length,
            }),
            _ => Err(Error::Truncated { expected, found: self.position }),
        }
    }

    fn advance(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let missing = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
            let (taken, rest) = bytes.split_at(bytes.len().min(missing));
            self.take(taken)?;
            self.position += taken.len() as u64;
            bytes = rest;
            while self.position == self.end {
                match self.next_state()? {
                    Some((state, end)) => (self.state, self.end) = (state, end),
                    None => break,
                }
            }
        }
        Ok(())
    }

    /// Processes bytes that all belong to the current state.
    fn take(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match &mut self.state {
            State::Header | State::Record { .. } => {
                let at = self.block.len() - (self.end - self.position) as usize;
                self.block[at..at + bytes.len()].copy_from_slice(bytes);
            }
            State::Padding { .. } => {
                if let Some(at) = bytes.iter().position(|byte| *byte != 0) {
                    return Err(Error::Padding { offset: self.position + at as u64 });
                }
            }
            State::Section { hasher, .. } => hasher.update(bytes),
            State::End { header } => return Err(Error::Trailing { expected: header.length }),
            State::Refused(error) => return Err(error.clone()),
        }
        Ok(())
    }

    /// Finishes the current state, whose bytes have all arrived. Returns the next state and the
    /// position of its end, or `None` at the end of the bundle.
    fn next_state(&mut self) -> Result<Option<(State, u64)>, Error> {
        Ok(Some(match self.state.clone() {
            State::Header => {
                let header = Header::decode(&self.block)?;
                if header.sections as usize > SECTIONS {
                    let limit = SECTIONS as u32;
                    return Err(Error::TooManySections { found: header.sections, limit });
                }
                self.after_record(header, RootHasher::new(&self.block))?
            }
            State::Record { header, mut root } => {
                root.record(&self.block);
                let room = self.records.push(Record::decode(&self.block));
                let (found, limit) = (header.sections, SECTIONS as u32);
                room.map_err(|_| Error::TooManySections { found, limit })?;
                self.after_record(header, root)?
            }
            State::Padding { header, section } => match self.records.get(section) {
                Some(record) => {
                    let end = record.offset + record.length;
                    (State::Section { header, section, hasher: Sha256::new() }, end)
                }
                None => {
                    self.state = State::End { header };
                    return Ok(None);
                }
            },
            State::Section { header, section, hasher } => {
                let record = &self.records[section];
                if Digest(hasher.finalize().into()) != record.digest {
                    return Err(Error::SectionDigest { section: record.kind() });
                }
                self.padding(header, section + 1)
            }
            State::End { .. } | State::Refused(_) => return Ok(None),
        }))
    }

    /// Returns the state after the header or a record: the next record, or the first padding.
    fn after_record(&self, header: Header, root: RootHasher) -> Result<(State, u64), Error> {
        if self.records.len() < header.sections as usize {
            return Ok((State::Record { header, root }, self.end + RECORD_BYTES as u64));
        }
        root.check(&header)?;
        check_table(&header, self.records.iter().copied())?;
        Ok(self.padding(header, 0))
    }

    fn padding(&self, header: Header, section: usize) -> (State, u64) {
        let end = self.records.get(section).map_or(header.length, |record| record.offset);
        (State::Padding { header, section }, end)
    }
}

impl<const SECTIONS: usize> Default for StreamVerifier<SECTIONS> {
    fn default() -> Self {
        StreamVerifier::new()
    }
}

/// The reason why [`verify_stream`] failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError<E> {
    /// The reader failed.
    #[error("the bundle cannot be read: {0:?}")]
    Read(E),
    /// The bundle was rejected.
    #[error(transparent)]
    Bundle(#[from] Error),
}

/// Reads `reader` to its end and verifies that it holds one bundle with at most `SECTIONS`
/// sections. `buffer` must not be empty. A larger buffer needs fewer reads.
///
/// # Errors
/// Returns an error if reading fails, or if the bytes are not exactly one valid bundle.
///
/// # Panics
/// Panics if `buffer` is empty.
///
/// # Examples
///
/// ```
/// use hardtack_bundle::verify_stream;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
/// # std::env::set_current_dir(folder)?;
/// let file = std::fs::read("kws_dscnn.tack")?;
/// let summary = verify_stream::<_, 16>(&file[..], &mut [0; 256])?;
/// assert_eq!(summary.sections, 5);
/// assert!(verify_stream::<_, 16>(&file[..9000], &mut [0; 256]).is_err());
/// # Ok(())
/// # }
/// ```
pub fn verify_stream<R: Read, const SECTIONS: usize>(
    mut reader: R,
    buffer: &mut [u8],
) -> Result<Summary, StreamError<R::Error>> {
    assert!(!buffer.is_empty(), "the buffer must not be empty");
    let mut verifier = StreamVerifier::<SECTIONS>::new();
    loop {
        match reader.read(buffer).map_err(StreamError::Read)? {
            0 => return Ok(verifier.finish()?),
            count => verifier.push(&buffer[..count])?,
        }
    }
}
