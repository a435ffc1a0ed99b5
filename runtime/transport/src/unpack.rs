//! Decompression of bundles.

use embedded_io::{Read, Write};
use hardtack_bundle::{Error, StreamVerifier, Summary};

use crate::block::{Block, Kind, Models};
use crate::bound::Made;
use crate::coder::{DecodeError, Decoder, Input};
use crate::sparse::Shape;
use crate::weights::Expectation;
use crate::{BUNDLE_HEADER_BYTES, FIRST_VERSION, HEAD_BYTES, MAGIC, MAX_SECTIONS, VERSION};

/// Number of bytes per write.
const WRITTEN: usize = 256;

/// The default of [`UnpackOptions::limit`]: 4 GiB.
pub const DEFAULT_LIMIT: u64 = 4 << 30;

/// Options for decompression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnpackOptions {
    /// Maximum size of the bundle in bytes.
    pub limit: u64,
}

impl Default for UnpackOptions {
    fn default() -> Self {
        Self { limit: DEFAULT_LIMIT }
    }
}

/// Why a bundle could not be decompressed. Output written before the error is not a valid bundle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackError<R, W> {
    /// The reader failed.
    #[error("the compressed bundle cannot be read: {0:?}")]
    Read(R),
    /// The writer failed.
    #[error("the bundle cannot be written: {0:?}")]
    Write(W),
    /// The file does not begin with the magic number of a compressed bundle.
    #[error("this is not a compressed Hardtack bundle")]
    NotTransport,
    /// The file is a bundle that is not compressed.
    #[error("this is a Hardtack bundle that is not compressed; use it as it is")]
    Bundle,
    /// The magic number is damaged in the way that a transfer in text mode damages it.
    #[error(
        "the compressed bundle was damaged by a transfer in text mode; transfer it again in binary \
         mode"
    )]
    TextTransfer,
    /// The file has an unknown version.
    #[error(
        "the compressed bundle has version {found}, but this reader supports versions up to \
         {VERSION}: compress the bundle again, or use a newer reader"
    )]
    OtherVersion {
        /// The version of the file.
        found: u16,
    },
    /// The file ends before the bundle is complete.
    #[error("the compressed bundle is truncated; transfer it again")]
    Truncated,
    /// The bundle is larger than the limit. Nothing was written.
    #[error("the compressed bundle states a size of {length} bytes, and the limit is {limit}")]
    TooLarge {
        /// The size of the bundle in bytes.
        length: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The file expands more than the compressor allows; see [`most_bytes`](crate::most_bytes).
    #[error(
        "the first {read} bytes of the compressed bundle expand to {asked} bytes; it is damaged or \
         malicious"
    )]
    Expands {
        /// The number of output bytes that were requested.
        asked: u64,
        /// The number of compressed bytes read.
        read: u64,
    },
    /// The file contains something that the compressor never writes, or extra bytes after its end.
    #[error("the compressed bundle is damaged; transfer it again")]
    Damaged,
    /// The decompressed bytes are not a valid bundle.
    #[error("the decompressed bundle is invalid: {0}")]
    Refused(#[from] Error),
}

impl<R, W> From<DecodeError<R>> for UnpackError<R, W> {
    fn from(error: DecodeError<R>) -> Self {
        match error {
            DecodeError::Read(error) => UnpackError::Read(error),
            DecodeError::End => UnpackError::Truncated,
        }
    }
}

/// The working memory of decompression, of at most 34 KiB. It can be reused.
pub struct Memory {
    models: Models,
    verifier: StreamVerifier<MAX_SECTIONS>,
}

impl Memory {
    /// Creates the working memory.
    pub fn new() -> Self {
        Self { models: Models::NEW, verifier: StreamVerifier::new() }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

/// Decompresses and verifies a bundle of at most [`DEFAULT_LIMIT`] bytes. Reads `reader` to its
/// end. The [`Memory`] is on the stack.
///
/// # Errors
/// Returns an error if reading or writing fails, or if the input is not exactly one complete
/// compressed bundle.
///
/// # Examples
///
/// ```
/// use hardtack_transport::{UnpackError, unpack};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/transport");
/// # std::env::set_current_dir(folder)?;
/// # let mut flash = [0; 64 << 10];
/// // flash: &mut [u8], 64 KiB
/// let file = std::fs::read("kws_dscnn.tackz")?;
/// let summary = unpack(&file[..], &mut flash[..]).map_err(|error| error.to_string())?;
/// println!("{} bytes, {}", summary.length, summary.root);
///
/// let cut = unpack(&file[..1000], &mut flash[..]);
/// assert_eq!(cut, Err(UnpackError::Truncated));
/// # Ok(())
/// # }
/// ```
pub fn unpack<R: Read, W: Write>(
    reader: R,
    writer: W,
) -> Result<Summary, UnpackError<R::Error, W::Error>> {
    unpack_in(&mut Memory::new(), reader, writer)
}

/// Decompresses a bundle like [`unpack`], with memory from the caller. Its previous content is
/// ignored.
///
/// # Errors
/// Returns the errors of [`unpack`].
pub fn unpack_in<R: Read, W: Write>(
    memory: &mut Memory,
    reader: R,
    writer: W,
) -> Result<Summary, UnpackError<R::Error, W::Error>> {
    unpack_with(memory, reader, writer, &UnpackOptions::default())
}

/// Decompresses a bundle with options. The size in the header is compared with the limit before
/// anything is written, and the output never exceeds that size.
///
/// # Errors
/// Returns the errors of [`unpack`].
///
/// # Examples
///
/// Reject bundles that do not fit a flash region of 16 KiB:
///
/// ```
/// use hardtack_transport::{Memory, UnpackError, UnpackOptions, unpack_with};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/transport");
/// # std::env::set_current_dir(folder)?;
/// let file = std::fs::read("kws_dscnn.tackz")?;
/// let options = UnpackOptions { limit: 16 << 10 };
/// let mut memory = Memory::new();
/// let mut flash = [0; 16 << 10];
/// let result = unpack_with(&mut memory, &file[..], &mut flash[..], &options);
/// assert!(matches!(result, Err(UnpackError::TooLarge { limit: 16384, .. })));
/// # Ok(())
/// # }
/// ```
pub fn unpack_with<R: Read, W: Write>(
    memory: &mut Memory,
    reader: R,
    writer: W,
    options: &UnpackOptions,
) -> Result<Summary, UnpackError<R::Error, W::Error>> {
    memory.models = Models::NEW;
    memory.verifier = StreamVerifier::new();
    let models = &mut memory.models;
    let mut input = Input::new(reader);
    let version = head(&mut input)?;
    let mut header = [0; BUNDLE_HEADER_BYTES];
    for byte in &mut header {
        *byte = input.byte()?;
    }
    memory.verifier.push(&header)?;
    let length = memory.verifier.length().unwrap_or_default();
    if length > options.limit {
        return Err(UnpackError::TooLarge { length, limit: options.limit });
    }
    let verifier = &mut memory.verifier;
    let mut output =
        Output { writer, verifier, bytes: [0; WRITTEN], count: 0, made: Made::default() };
    output.writer.write_all(&header).map_err(UnpackError::Write)?;
    output.made.add(header.len() as u64);
    let mut left = length.saturating_sub(header.len() as u64);
    let mut decoder = Decoder::new(input)?;
    let mut needed = FIRST_VERSION;
    while left > 0 {
        let none = Block { kind: Kind::Raw, length: 0 };
        let block = models
            .head(&mut decoder, none, &Expectation::NONE)?
            .map_err(|_| UnpackError::Damaged)?;
        if block.length == 0 || block.length > left {
            return Err(UnpackError::Damaged);
        }
        match block.kind {
            Kind::Sparse(shape) => {
                needed = VERSION;
                sparse(models, &mut decoder, shape, block.length, &mut output)?;
            }
            kind => bytes(models, &mut decoder, kind, block.length, &mut output)?,
        }
        left -= block.length;
    }
    if version != needed {
        return Err(UnpackError::Damaged);
    }
    output.flush()?;
    output.writer.flush().map_err(UnpackError::Write)?;
    if !decoder.is_end().map_err(UnpackError::Read)? {
        return Err(UnpackError::Damaged);
    }
    Ok(core::mem::take(&mut memory.verifier).finish()?)
}

/// Decodes a block of `length` bytes that is not sparse.
fn bytes<R: Read, W: Write>(
    models: &mut Models,
    decoder: &mut Decoder<R>,
    kind: Kind,
    length: u64,
    output: &mut Output<'_, W>,
) -> Result<(), UnpackError<R::Error, W::Error>> {
    // Zeros need no coded bits, so the whole block is checked at once.
    let step = if kind == Kind::Zeros { length } else { WRITTEN as u64 };
    let mut left = length;
    while left > 0 {
        let part = left.min(step);
        output.allow(part, decoder)?;
        for _ in 0..part {
            output.push(models.byte(decoder, kind, 0)?)?;
        }
        left -= part;
    }
    Ok(())
}

/// Decodes a sparse block of `length` bytes.
fn sparse<R: Read, W: Write>(
    models: &mut Models,
    decoder: &mut Decoder<R>,
    shape: Shape,
    length: u64,
    output: &mut Output<'_, W>,
) -> Result<(), UnpackError<R::Error, W::Error>> {
    let mut left = length;
    let push = |byte, left: &mut u64, output: &mut Output<'_, W>| {
        *left = left.checked_sub(1).ok_or(UnpackError::Damaged)?;
        output.push(byte)
    };
    shape.head().try_for_each(|byte| push(byte, &mut left, output))?;
    for _ in 0..shape.rows {
        models.row(decoder, shape, |_| 0)?;
        output.allow(shape.most_row_bytes(), decoder)?;
        models.row_bytes(shape).try_for_each(|byte| push(byte, &mut left, output))?;
    }
    output.allow(left, decoder)?;
    (0..left).try_for_each(|_| output.push(0))
}

/// Reads the bytes before the bundle's header. Returns the version of the file.
fn head<R: Read, W>(input: &mut Input<R>) -> Result<u16, UnpackError<R::Error, W>> {
    let mut head = [0; HEAD_BYTES];
    for (index, byte) in head.iter_mut().enumerate() {
        *byte = match input.byte() {
            Err(DecodeError::End) if index < MAGIC.len() => return Err(UnpackError::NotTransport),
            byte => byte?,
        };
    }
    let version = u16::from_le_bytes([head[8], head[9]]);
    match head {
        _ if head.starts_with(&hardtack_bundle::MAGIC) => Err(UnpackError::Bundle),
        _ if !head.starts_with(&MAGIC) && head[1..5] == MAGIC[1..5] => {
            Err(UnpackError::TextTransfer)
        }
        _ if !head.starts_with(&MAGIC) => Err(UnpackError::NotTransport),
        _ if !(FIRST_VERSION..=VERSION).contains(&version) => {
            Err(UnpackError::OtherVersion { found: version })
        }
        [.., 0, 0] => Ok(version),
        _ => Err(UnpackError::Damaged),
    }
}

/// Buffers the output, verifies it and then writes it.
struct Output<'a, W> {
    writer: W,
    verifier: &'a mut StreamVerifier<MAX_SECTIONS>,
    bytes: [u8; WRITTEN],
    count: usize,
    /// Number of bytes written, not counting those in the buffer.
    made: Made,
}

impl<W: Write> Output<'_, W> {
    /// Checks that `more` bytes are within the bound on expansion.
    fn allow<R: Read>(
        &self,
        more: u64,
        decoder: &Decoder<R>,
    ) -> Result<(), UnpackError<R::Error, W::Error>> {
        let (more, read) = (more.saturating_add(self.count as u64), decoder.taken());
        if self.made.allows(more, read) {
            return Ok(());
        }
        Err(UnpackError::Expands { asked: self.made.bytes().saturating_add(more), read })
    }

    #[inline]
    fn push<R>(&mut self, byte: u8) -> Result<(), UnpackError<R, W::Error>> {
        self.bytes[self.count] = byte;
        self.count += 1;
        if self.count == WRITTEN { self.flush() } else { Ok(()) }
    }

    fn flush<R>(&mut self) -> Result<(), UnpackError<R, W::Error>> {
        let bytes = &self.bytes[..core::mem::take(&mut self.count)];
        self.made.add(bytes.len() as u64);
        self.verifier.push(bytes)?;
        self.writer.write_all(bytes).map_err(UnpackError::Write)
    }
}
