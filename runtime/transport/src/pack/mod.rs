//! From the bundle to the transport form.

mod expect;
mod segment;

use alloc::vec::Vec;
use core::convert::Infallible;

use hardtack_bundle::{Bundle, Error, SectionKind};

use self::segment::Content;
use crate::block::{Block, Kind, Models};
use crate::coder::{Coder, Encoder, Meter};
use crate::{BUNDLE_HEADER_BYTES, MAGIC, MAX_SECTIONS, VERSION};

/// Why a bundle has no transport form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The bundle was refused.
    #[error(transparent)]
    Bundle(#[from] Error),
    /// It has too many sections for the memory of an unpacker.
    #[error("the bundle has {found} sections; the transport form takes at most {MAX_SECTIONS}")]
    TooManySections {
        /// Number of sections.
        found: usize,
    },
}

/// The transport form of a bundle. The same bundle gives the same bytes.
///
/// # Errors
/// Where the bundle does not hold, or has more than [`MAX_SECTIONS`] sections.
pub fn pack(bundle: &[u8]) -> Result<Vec<u8>, PackError> {
    let verified = Bundle::parse(bundle)?.verify()?;
    let sections: Vec<_> = verified.sections().collect();
    if sections.len() > MAX_SECTIONS {
        return Err(PackError::TooManySections { found: sections.len() });
    }
    let (header, rest) = bundle.split_at(BUNDLE_HEADER_BYTES);
    let mut head = MAGIC.to_vec();
    head.extend(VERSION.to_le_bytes());
    head.extend([0; 2]);
    head.extend(header);
    let mut packer = Packer { models: Models::NEW, encoder: Encoder::new(head) };

    // Records: half numbers, half digest.
    let (table, _) = rest.split_at(64 * sections.len());
    for half in table.chunks(32) {
        let [numbers, digest] = [Kind::Numbers(1), Kind::Raw];
        packer.block(
            if (half.as_ptr() as usize - table.as_ptr() as usize) % 64 == 0 {
                numbers
            } else {
                digest
            },
            half,
        );
    }
    let mut position = BUNDLE_HEADER_BYTES + table.len();
    for section in sections {
        let start = section.offset as usize;
        packer.padding(&bundle[position..start]);
        match section.kind {
            SectionKind::Weights { .. } => packer.weights(section.bytes),
            _ => packer.best(section.bytes),
        }
        position = start + section.bytes.len();
    }
    packer.padding(&bundle[position..]);
    Ok(packer.encoder.finish())
}

struct Packer {
    models: Models,
    encoder: Encoder,
}

impl Packer {
    /// The bytes between sections.
    fn padding(&mut self, zeros: &[u8]) {
        if !zeros.is_empty() {
            self.block(Kind::Zeros, zeros);
        }
    }

    fn block(&mut self, kind: Kind, bytes: &[u8]) {
        let Ok(()) = block(&mut self.models, &mut self.encoder, kind, bytes);
    }

    /// As the numbers that take least.
    fn best(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let kinds = [1, 2, 4].map(Kind::Numbers).into_iter().chain([Kind::Raw]);
        let kind = kinds.min_by_key(|kind| self.cost(*kind, bytes)).expect("there are kinds");
        self.block(kind, bytes);
    }

    fn weights(&mut self, bytes: &[u8]) {
        for (content, range) in segment::segments(bytes) {
            let bytes = &bytes[range];
            match content {
                Content::Words => self.block(Kind::Numbers(4), bytes),
                Content::Weights => {
                    let ordered = expect::expectation(bytes);
                    let flat = crate::weights::Expectation { flat: 2, ..ordered };
                    let [ordered, flat] = [ordered, flat].map(Kind::Weights);
                    let costs = [ordered, flat].map(|kind| self.cost(kind, bytes));
                    self.block(
                        if costs[1] <= costs[0] + costs[0] / 512 { flat } else { ordered },
                        bytes,
                    );
                }
            }
        }
    }

    /// What a block would take here, in units of 1/256 bit.
    fn cost(&self, kind: Kind, bytes: &[u8]) -> u64 {
        let (mut models, mut meter) = (self.models.clone(), Meter::default());
        let Ok(()) = block(&mut models, &mut meter, kind, bytes);
        meter.0
    }
}

fn block<C: Coder<Error = Infallible>>(
    models: &mut Models,
    coder: &mut C,
    kind: Kind,
    bytes: &[u8],
) -> Result<(), Infallible> {
    let head = Block { kind, length: bytes.len() as u64 };
    let _ = models.head(coder, &head)?;
    for byte in bytes {
        models.byte(coder, &kind, *byte)?;
    }
    Ok(())
}
