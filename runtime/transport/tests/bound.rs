//! The expansion of compressed bundles is bounded, and every bundle compresses within the bound.
#![cfg(feature = "alloc")]

use hardtack_bundle::{Family, SectionKind, Writer};
use hardtack_transport::{
    DEFAULT_LIMIT, Memory, UnpackError, UnpackOptions, most_bytes, pack, unpack, unpack_with,
};

/// A file of 166 bytes with one block of 1 PiB of zeros.
const PEBIBYTE: &[u8] = include_bytes!("data/zeros-1-pebibyte.tackz");
/// A file of 165 bytes with one block of 64 MiB of zeros.
const MEBIBYTES: &[u8] = include_bytes!("data/zeros-64-mebibytes.tackz");

fn bundle(weights: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.section(SectionKind::Manifest, &b"a manifest"[..]).unwrap();
    writer.section(SectionKind::Program(0), &[7; 70][..]).unwrap();
    let kind = SectionKind::Weights { family: Family::Mcu, program: 0 };
    writer.section(kind, weights).unwrap();
    writer.finish().unwrap()
}

/// Decompresses with a limit. Returns the result and the number of bytes written.
fn limited(packed: &[u8], limit: u64) -> (Result<u64, UnpackError<String, String>>, usize) {
    let mut written = Vec::new();
    let options = UnpackOptions { limit };
    let found = unpack_with(&mut Memory::new(), packed, &mut written, &options);
    let found = found.map(|summary| summary.length).map_err(|error| match error {
        UnpackError::TooLarge { length, limit } => UnpackError::TooLarge { length, limit },
        UnpackError::Expands { asked, read } => UnpackError::Expands { asked, read },
        other => panic!("{other}"),
    });
    (found, written.len())
}

#[test]
fn decompression_bombs_are_rejected() {
    let most = most_bytes(PEBIBYTE.len() as u64) as usize;
    assert_eq!(most, 745_472);
    for packed in [PEBIBYTE, MEBIBYTES] {
        let (found, written) = limited(packed, u64::MAX);
        let Err(UnpackError::Expands { asked, read }) = found else { panic!("{found:?}") };
        assert!(asked > most_bytes(read) && read <= packed.len() as u64);
        assert!(written < 4096, "{written}");
    }
}

#[test]
fn the_limit_is_checked_before_writing() {
    let (found, written) = limited(PEBIBYTE, DEFAULT_LIMIT);
    assert!(matches!(found, Err(UnpackError::TooLarge { length, limit })
        if length > 1 << 50 && limit == DEFAULT_LIMIT));
    assert_eq!(written, 0);
    let whole = bundle(&[5; 3000]);
    let packed = pack(&whole).unwrap();
    let length = whole.len() as u64;
    assert_eq!(limited(&packed, length), (Ok(length), whole.len()));
    let error = Err(UnpackError::TooLarge { length, limit: length - 1 });
    assert_eq!(limited(&packed, length - 1), (error, 0));
}

#[test]
fn the_most_compressible_bundles_are_within_the_bound() {
    let mut rows = Vec::new();
    // Rows of one nonzero element: five bytes for four coded bits.
    rows.extend([1u32 << 19, 1].iter().flat_map(|n| n.to_le_bytes()));
    rows.extend([1, 0, 0, 0, 1].repeat(1 << 19));
    let mut dead = Vec::new();
    // Rows of zeros only.
    dead.extend([4000u32, 4064].iter().flat_map(|n| n.to_le_bytes()));
    dead.extend(vec![0; 4000 * 127 * 4]);
    let alike = [1u8, 0xff].repeat(1 << 19);
    for (what, weights) in [
        ("zeros", vec![0; 2 << 20]),
        ("one value", vec![1; 2 << 20]),
        ("two values", alike),
        ("short rows", rows),
        ("dead rows", dead),
    ] {
        let whole = bundle(&weights);
        let packed = pack(&whole).unwrap();
        assert!(whole.len() as u64 <= most_bytes(packed.len() as u64), "{what}");
        let mut back = Vec::new();
        unpack(&packed[..], &mut back).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(back == whole, "{what}");
        // The short rows exceed the bound as sparse rows, so they are coded as plain weights.
        assert_eq!(packed[8], if what == "dead rows" { 2 } else { 1 }, "{what}");
    }
}
