//! From the transport form to the bundle.

use embedded_io::{Read, Write};
use hardtack_bundle::{Error, StreamVerifier, Summary};

use crate::block::{Block, Kind, Models};
use crate::coder::{DecodeError, Decoder, Input};
use crate::sparse::Shape;
use crate::weights::Expectation;
use crate::{BUNDLE_HEADER_BYTES, FIRST_VERSION, HEAD_BYTES, MAGIC, MAX_SECTIONS, VERSION};

/// Bytes that are written at once.
const WRITTEN: usize = 256;

/// Why a transport file was not unpacked. What was written until then is no bundle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackError<R, W> {
    /// The reader failed.
    #[error("the transport file cannot be read: {0:?}")]
    Read(R),
    /// The writer failed.
    #[error("the bundle cannot be written: {0:?}")]
    Write(W),
    /// The file does not begin as a transport file does.
    #[error("this is not the transport form of a Hardtack bundle")]
    NotTransport,
    /// It is a bundle already.
    #[error("this is a Hardtack bundle, which need not be unpacked")]
    Bundle,
    /// The first bytes look like a transport file's after a transfer in text mode.
    #[error("the transport file was damaged by a transfer as text; transfer it again as binary")]
    TextTransfer,
    /// Another version.
    #[error(
        "the transport file has version {found}, but this reader knows versions up to {VERSION}: pack \
         the bundle again, or use a newer reader"
    )]
    OtherVersion {
        /// Version of the file.
        found: u16,
    },
    /// The file is shorter than it should be.
    #[error("the transport file is cut off; transfer it again")]
    Truncated,
    /// The file has what no packer writes, or goes on after its end.
    #[error("the transport file is damaged; transfer it again")]
    Damaged,
    /// What comes out is not the bundle that was packed.
    #[error("what the transport file holds is refused: {0}")]
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

/// What unpacking keeps in mind.
pub struct Memory {
    models: Models,
    verifier: StreamVerifier<MAX_SECTIONS>,
}

impl Memory {
    /// Before anything has come.
    pub fn new() -> Self {
        Self { models: Models::NEW, verifier: StreamVerifier::new() }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

/// Makes a bundle of its transport form, and verifies it. Reads to the end of `reader`; the
/// [`Memory`] lies on the stack.
///
/// # Errors
/// Where reading or writing fails, or the file is not one whole transport form of a sound bundle.
pub fn unpack<R: Read, W: Write>(
    reader: R,
    writer: W,
) -> Result<Summary, UnpackError<R::Error, W::Error>> {
    unpack_in(&mut Memory::new(), reader, writer)
}

/// The same with memory that lies elsewhere. What it held before does not matter.
///
/// # Errors
/// As [`unpack`].
pub fn unpack_in<R: Read, W: Write>(
    memory: &mut Memory,
    reader: R,
    writer: W,
) -> Result<Summary, UnpackError<R::Error, W::Error>> {
    memory.models = Models::NEW;
    memory.verifier = StreamVerifier::new();
    let mut input = Input::new(reader);
    let mut output =
        Output { writer, verifier: &mut memory.verifier, bytes: [0; WRITTEN], count: 0 };
    let version = head(&mut input)?;
    let mut needed = FIRST_VERSION;
    for _ in 0..BUNDLE_HEADER_BYTES {
        output.push(input.byte()?)?;
    }
    output.flush()?;
    let length = output.verifier.length().unwrap_or_default();
    let mut left = length.saturating_sub(BUNDLE_HEADER_BYTES as u64);
    let mut decoder = Decoder::new(input)?;
    while left > 0 {
        let none = Block { kind: Kind::Raw, length: 0 };
        let block = memory
            .models
            .head(&mut decoder, none, &Expectation::NONE)?
            .map_err(|_| UnpackError::Damaged)?;
        if block.length == 0 || block.length > left {
            return Err(UnpackError::Damaged);
        }
        if let Kind::Sparse(shape) = block.kind {
            needed = VERSION;
            sparse(&mut memory.models, &mut decoder, shape, block.length, &mut output)?;
        } else {
            for _ in 0..block.length {
                output.push(memory.models.byte(&mut decoder, block.kind, 0)?)?;
            }
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

/// Writes a sparse block of so many bytes.
fn sparse<R: Read, W: Write>(
    models: &mut Models,
    decoder: &mut Decoder<R>,
    shape: Shape,
    length: u64,
    output: &mut Output<'_, W>,
) -> Result<(), UnpackError<R::Error, W::Error>> {
    let mut left = length;
    let mut push = |byte| {
        left = left.checked_sub(1).ok_or(UnpackError::Damaged)?;
        output.push(byte)
    };
    shape.head().try_for_each(&mut push)?;
    for _ in 0..shape.rows {
        models.row(decoder, shape, |_| 0)?;
        models.row_bytes(shape).try_for_each(&mut push)?;
    }
    (0..left).try_for_each(|_| output.push(0))
}

/// Reads what comes before the header of the bundle; its version.
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

/// Writes bytes, and verifies them before.
struct Output<'a, W> {
    writer: W,
    verifier: &'a mut StreamVerifier<MAX_SECTIONS>,
    bytes: [u8; WRITTEN],
    count: usize,
}

impl<W: Write> Output<'_, W> {
    #[inline]
    fn push<R>(&mut self, byte: u8) -> Result<(), UnpackError<R, W::Error>> {
        self.bytes[self.count] = byte;
        self.count += 1;
        if self.count == WRITTEN { self.flush() } else { Ok(()) }
    }

    fn flush<R>(&mut self) -> Result<(), UnpackError<R, W::Error>> {
        let bytes = &self.bytes[..core::mem::take(&mut self.count)];
        self.verifier.push(bytes)?;
        self.writer.write_all(bytes).map_err(UnpackError::Write)
    }
}
