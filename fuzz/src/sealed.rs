//! A bundle as a list of sections, which a fuzzer can mutate without invalidating digests.
//!
//! A section is its kind, family and index (u16 each), its length (u32), and its bytes, all
//! little-endian. [`seal`] builds a bundle from such a list, whatever the sections contain.

use sha2::{Digest as _, Sha256};

const HEADER: usize = 64;
const RECORD: usize = 64;
const ALIGNMENT: usize = 64;
/// Size in bytes of a section's header in the list.
const HEAD: usize = 10;
const MAGIC: [u8; 8] = *b"\x89TACK\r\n\x1a";
/// The critical kinds: manifest, graph, program, constants, preprocess, postprocess.
const CRITICAL: [u16; 6] = [1, 2, 3, 5, 7, 8];

fn short(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// Converts a valid bundle to a list of its sections.
pub fn unseal(bundle: &[u8]) -> Vec<u8> {
    let number = |at: usize| {
        u64::from_le_bytes(bundle[at..at + 8].try_into().expect("eight bytes")) as usize
    };
    let sections = u32::from_le_bytes(bundle[12..16].try_into().expect("four bytes")) as usize;
    let mut list = Vec::new();
    for at in (0..sections).map(|index| HEADER + RECORD * index) {
        let (offset, length) = (number(at + 8), number(at + 16));
        for field in [0, 4, 6] {
            list.extend(short(bundle, at + field).to_le_bytes());
        }
        list.extend((length as u32).to_le_bytes());
        list.extend(&bundle[offset..offset + length]);
    }
    list
}

/// Builds a bundle from a list of sections, with valid digests and offsets. If the last section is
/// truncated, it has the bytes that remain.
pub fn seal(list: &[u8]) -> Vec<u8> {
    let mut sections = Vec::new();
    let mut rest = list;
    while rest.len() >= HEAD && sections.len() < 250 {
        let key = (short(rest, 0), short(rest, 2), short(rest, 4));
        let length = u32::from_le_bytes(rest[6..HEAD].try_into().expect("four bytes")) as usize;
        let (content, after) = rest[HEAD..].split_at(length.min(rest.len() - HEAD));
        sections.push((key, content));
        rest = after;
    }
    sections.sort_by_key(|(key, _)| *key);
    sections.dedup_by_key(|(key, _)| *key);

    let start = HEADER + RECORD * sections.len();
    let (mut table, mut body) = (Vec::new(), Vec::new());
    for ((kind, family, index), content) in &sections {
        body.resize((start + body.len()).next_multiple_of(ALIGNMENT) - start, 0);
        let critical = u16::from(CRITICAL.contains(kind));
        for field in [*kind, critical, *family, *index] {
            table.extend(field.to_le_bytes());
        }
        for field in [(start + body.len()) as u64, content.len() as u64, 0] {
            table.extend(field.to_le_bytes());
        }
        table.extend(Sha256::digest(content));
        body.extend(*content);
    }
    body.resize((start + body.len()).next_multiple_of(ALIGNMENT) - start + ALIGNMENT, 0);

    let mut bundle = MAGIC.to_vec();
    bundle.extend([1, 0, 0, 0]);
    bundle.extend((sections.len() as u32).to_le_bytes());
    bundle.extend(((start + body.len()) as u64).to_le_bytes());
    bundle.extend([0; 8]);
    let root = Sha256::new().chain_update(&bundle).chain_update([0; 32]).chain_update(&table);
    bundle.extend(root.finalize());
    bundle.extend(table);
    bundle.extend(body);
    bundle
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealing_restores_an_unsealed_bundle() {
        let bundle = include_bytes!("../../tests/frozen/programs/kws_dscnn.tack");
        assert_eq!(seal(&unseal(bundle)), bundle);
    }
}
