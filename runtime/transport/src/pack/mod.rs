//! Compression of bundles.

mod expect;
mod segment;

use alloc::vec::Vec;
use core::convert::Infallible;

use hardtack_bundle::{Bundle, Error, SectionKind};

use self::segment::Part;
use crate::block::{Block, Kind, Models};
use crate::bound::Made;
use crate::coder::{Coder, Encoder, Meter};
use crate::sparse::{self, Shape};
use crate::weights::Expectation;
use crate::{BUNDLE_HEADER_BYTES, FIRST_VERSION, MAGIC, MAX_SECTIONS, VERSION};

/// Size in bytes of a record of the section table. The second half of a record is a digest.
const RECORD_BYTES: usize = 64;
/// The least number of weights of a sparse layer. Shorter data may look like sparse rows by chance.
const LAYER: usize = 256;

/// Why a bundle cannot be compressed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The bundle is invalid.
    #[error(transparent)]
    Bundle(#[from] Error),
    /// The bundle has too many sections for the memory of a decompressor.
    #[error("the bundle has {found} sections; a compressed bundle has at most {MAX_SECTIONS}")]
    TooManySections {
        /// The number of sections.
        found: usize,
    },
}

/// Compresses a bundle. The same bundle gives the same bytes on every machine.
///
/// # Errors
/// Returns an error if the bundle is invalid or has more than [`MAX_SECTIONS`] sections.
pub fn pack(bundle: &[u8]) -> Result<Vec<u8>, PackError> {
    let packed = packed(bundle, true)?;
    match packed.1 {
        true => Ok(packed.0),
        // Coded as plain weights, sparse rows stay within the bound.
        false => Ok(self::packed(bundle, false)?.0),
    }
}

/// Compresses a bundle. Returns the file, and whether it is within the bound of
/// [`most_bytes`](crate::most_bytes) at every point. `sparse` enables blocks of sparse rows.
fn packed(bundle: &[u8], sparse: bool) -> Result<(Vec<u8>, bool), PackError> {
    let verified = Bundle::parse(bundle)?.verify()?;
    let sections: Vec<_> = verified.sections().collect();
    if sections.len() > MAX_SECTIONS {
        return Err(PackError::TooManySections { found: sections.len() });
    }
    let (header, rest) = bundle.split_at(BUNDLE_HEADER_BYTES);
    let mut head = MAGIC.to_vec();
    head.extend(FIRST_VERSION.to_le_bytes());
    head.extend([0; 2]);
    head.extend(header);
    let mut made = Made::default();
    made.add(BUNDLE_HEADER_BYTES as u64);
    let mut packer = Packer {
        models: Models::NEW,
        encoder: Encoder::new(head),
        version: FIRST_VERSION,
        sparse,
        made,
        is_bounded: true,
    };

    let (table, _) = rest.split_at(RECORD_BYTES * sections.len());
    for record in table.chunks(RECORD_BYTES) {
        let (numbers, digest) = record.split_at(RECORD_BYTES / 2);
        packer.block(Content::of(Kind::Numbers(1)), numbers);
        packer.block(Content::of(Kind::Raw), digest);
    }
    let mut position = BUNDLE_HEADER_BYTES + table.len();
    for section in sections {
        let start = section.offset as usize;
        packer.padding(&bundle[position..start]);
        match section.kind {
            SectionKind::Weights { .. } => packer.weights(section.bytes),
            SectionKind::Constants => packer.constants(section.bytes),
            _ => packer.numbers(section.bytes),
        }
        position = start + section.bytes.len();
    }
    packer.padding(&bundle[position..]);
    let mut packed = packer.encoder.finish();
    packed[MAGIC.len()..][..2].copy_from_slice(&packer.version.to_le_bytes());
    Ok((packed, packer.is_bounded))
}

/// The size of a byte in units of 1/256 bit.
const BYTE: u64 = 8 << 8;

/// How to code the bytes of a block: the kind, and the predictor of weights.
#[derive(Clone, Copy)]
struct Content {
    kind: Kind,
    expectation: Expectation,
}

impl Content {
    fn of(kind: Kind) -> Self {
        Self { kind, expectation: Expectation::NONE }
    }
}

struct Packer {
    models: Models,
    encoder: Encoder,
    /// The version that a reader needs.
    version: u16,
    /// Whether to use blocks of sparse rows.
    sparse: bool,
    /// Number of bytes of the bundle so far.
    made: Made,
    /// Whether the sparse rows so far are within the bound that readers enforce.
    is_bounded: bool,
}

impl Packer {
    /// Codes the padding between sections.
    fn padding(&mut self, zeros: &[u8]) {
        if !zeros.is_empty() {
            self.block(Content::of(Kind::Zeros), zeros);
        }
    }

    fn block(&mut self, content: Content, bytes: &[u8]) {
        let Ok(()) = block(&mut self.models, &mut self.encoder, &content, bytes);
        self.made.add(bytes.len() as u64);
    }

    /// Codes bytes as a single block of the best kind.
    fn numbers(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            let (content, _) = self.least(bytes);
            self.block(content, bytes);
        }
    }

    /// Codes bytes as a single block, or divided into parts, whichever is smaller.
    fn constants(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let (content, whole) = self.least(bytes);
        let (models, encoder) = (self.models.clone(), Encoder::new(Vec::new()));
        let mut trial = Packer { models, encoder, ..*self };
        trial.parts(bytes, Packer::bytes);
        if trial.encoder.finish().len() as u64 * BYTE < whole {
            self.parts(bytes, Packer::bytes);
        } else {
            self.block(content, bytes);
        }
    }

    /// Returns the best kind of raw bytes or numbers for a single block, and its coded size in
    /// units of 1/256 bit.
    fn least(&self, bytes: &[u8]) -> (Content, u64) {
        let kinds = [Kind::Raw, Kind::Numbers(1), Kind::Numbers(2), Kind::Numbers(4)];
        let each = kinds.map(Content::of).map(|content| (content, self.cost(&content, bytes)));
        each.into_iter().min_by_key(|(_, cost)| *cost).expect("there are kinds")
    }

    /// Codes a section of weights. Sparse layers are detected by their form.
    fn weights(&mut self, bytes: &[u8]) {
        let (mut from, mut at) = (0, 0);
        while self.sparse && at < bytes.len() {
            let found = sparse::rows(&bytes[at..]).filter(|(_, rows, _)| rows.len() >= LAYER);
            let Some((shape, rows, length)) = found else {
                at += segment::UNIT;
                continue;
            };
            self.parts(&bytes[from..at], Packer::expected);
            // Include the zeros up to the position where the next range may begin.
            let end = (at + length).next_multiple_of(segment::UNIT).min(bytes.len());
            let zeros = bytes[at + length..end].iter().all(|byte| *byte == 0);
            let end = if zeros { end } else { at + length };
            self.sparse(shape, &rows, &bytes[at..end]);
            (from, at) = (end, end.next_multiple_of(segment::UNIT));
        }
        self.parts(&bytes[from..], Packer::expected);
    }

    /// Codes sparse rows. `rows` are the dense weights, and `bytes` their form in the bundle.
    fn sparse(&mut self, shape: Shape, rows: &[u8], bytes: &[u8]) {
        self.version = VERSION;
        let expectation = self.expected(rows).expectation;
        let head = Block { kind: Kind::Sparse(shape), length: bytes.len() as u64 };
        let Ok(_) = self.models.head(&mut self.encoder, head, &expectation);
        let mut made = self.made;
        made.add(shape.head().count() as u64);
        for row in rows.chunks(shape.depth.into()) {
            let Ok(()) = self.models.row(&mut self.encoder, shape, |place| row[place]);
            self.is_bounded &= made.allows(shape.most_row_bytes(), self.encoder.taken());
            made.add(self.models.row_bytes(shape).count() as u64);
        }
        self.made.add(bytes.len() as u64);
        self.is_bounded &= self.made.allows(0, self.encoder.taken());
    }

    /// Codes bytes divided into parts: i8 weights, i16 weights and 4-byte words. `weights` chooses
    /// how to code i8 weights.
    fn parts(&mut self, bytes: &[u8], weights: impl Fn(&Packer, &[u8]) -> Content) {
        for (part, range) in segment::segments(bytes) {
            let bytes = &bytes[range];
            let content = match part {
                Part::Words => Content::of(Kind::Numbers(4)),
                Part::Pairs => Content::of(Kind::Numbers(2)),
                Part::Weights => weights(self, bytes),
            };
            self.block(content, bytes);
        }
    }

    /// Chooses between weights and numbers. Numbers are better for 4-bit weights, two per byte.
    fn bytes(&self, bytes: &[u8]) -> Content {
        let (weights, numbers) = (self.expected(bytes), Content::of(Kind::Numbers(1)));
        if self.cost(&numbers, bytes) < self.cost(&weights, bytes) { numbers } else { weights }
    }

    /// Codes i8 weights with a fitted predictor. The lowest two bits are raw if that adds at most
    /// 1/512 to the size, since raw bits are decoded faster.
    fn expected(&self, bytes: &[u8]) -> Content {
        let ordered = Content { kind: Kind::Weights, expectation: expect::expectation(bytes) };
        let mut flat = ordered;
        flat.expectation.flat = 2;
        let least = self.cost(&ordered, bytes);
        if self.cost(&flat, bytes) <= least + least / 512 { flat } else { ordered }
    }

    /// Returns the coded size of a block at this position, in units of 1/256 bit.
    fn cost(&self, content: &Content, bytes: &[u8]) -> u64 {
        let (mut models, mut meter) = (self.models.clone(), Meter::default());
        let Ok(()) = block(&mut models, &mut meter, content, bytes);
        meter.0
    }
}

fn block<C: Coder<Error = Infallible>>(
    models: &mut Models,
    coder: &mut C,
    content: &Content,
    bytes: &[u8],
) -> Result<(), Infallible> {
    let head = Block { kind: content.kind, length: bytes.len() as u64 };
    let _ = models.head(coder, head, &content.expectation)?;
    for byte in bytes {
        models.byte(coder, content.kind, *byte)?;
    }
    Ok(())
}
