//! Damaged, truncated and malicious bundles are rejected, both in memory and as a stream.
#![cfg(feature = "alloc")]

mod sample;

use hardtack_bundle::golden::Content;
use hardtack_bundle::{
    Bundle, Digest, Error, MAX_SECTIONS, StreamError, Summary, Writer, verify_stream,
};
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

fn read(bytes: &[u8]) -> Result<Digest, Error> {
    Bundle::parse(bytes)?.verify().map(|bundle| bundle.root())
}

fn stream(bytes: &[u8]) -> Result<Summary, Error> {
    match verify_stream::<_, MAX_SECTIONS>(bytes, &mut [0; 37]) {
        Ok(summary) => Ok(summary),
        Err(StreamError::Bundle(error)) => Err(error),
        Err(StreamError::Read(error)) => match error {},
    }
}

/// Checks that both readers reject the bundle, and returns the error of the reader in memory.
fn refused(bytes: &[u8]) -> Error {
    let error = read(bytes).expect_err("rejected in memory");
    stream(bytes).expect_err("rejected as a stream");
    error
}

/// Changes the header or table and updates the root digest.
fn forged(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = sample::small();
    change(&mut bytes);
    reseal(&mut bytes);
    bytes
}

/// Computes the root digest independently, from the specification.
fn reseal(bytes: &mut [u8]) {
    let sections = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    let end = (64 + 64 * sections).min(bytes.len());
    let mut covered = bytes[..end].to_vec();
    covered[32..64].fill(0);
    for record in covered[64..].chunks_exact_mut(64) {
        if record[..2] == [11, 0] {
            record[32..].fill(0);
        }
    }
    bytes[32..64].copy_from_slice(&Sha256::digest(covered));
}

/// Sets the length in the header to that of the file.
fn state_length(bytes: &mut [u8]) {
    let length = bytes.len() as u64;
    bytes[16..24].copy_from_slice(&length.to_le_bytes());
}

/// Moves the start of a section without moving its bytes.
fn shift(bytes: &mut [u8], section: usize, by: i64) {
    let field = &mut bytes[record(section) + 8..record(section) + 16];
    let offset = u64::from_le_bytes(field.try_into().unwrap()).wrapping_add_signed(by);
    field.copy_from_slice(&offset.to_le_bytes());
}

/// Swaps the records of a section and of the next one.
fn swap_records(bytes: &mut [u8], section: usize) {
    let (left, right) = bytes.split_at_mut(record(section + 1));
    left[record(section)..].swap_with_slice(&mut right[..64]);
}

fn record(section: usize) -> usize {
    64 + 64 * section
}

#[test]
fn a_whole_bundle_is_accepted() {
    let bytes = sample::small();
    let root = read(&bytes).unwrap();
    let summary = stream(&bytes).unwrap();
    assert_eq!((summary.root, summary.length), (root, bytes.len() as u64));
    assert_eq!(forged(|_| {}), bytes);
}

#[test]
fn every_truncation_is_rejected() {
    let bytes = sample::small();
    for length in 0..bytes.len() {
        let error = refused(&bytes[..length]);
        assert!(matches!(error, Error::Truncated { .. }), "{length}: {error}");
    }
}

#[test]
fn every_flipped_bit_is_rejected() {
    let bytes = sample::small();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            refused(&damaged);
        }
    }
}

#[test]
fn bytes_after_the_end_are_rejected() {
    for extra in [0, 1] {
        let mut bytes = sample::small();
        let expected = bytes.len() as u64;
        bytes.push(extra);
        assert_eq!(refused(&bytes), Error::Trailing { expected });
        assert_eq!(Bundle::stated_length(&bytes), Ok(expected));
    }
}

#[test]
fn other_files_are_distinguished_from_damaged_bundles() {
    assert_eq!(refused(b"PK\x03\x04"), Error::NotABundle);
    assert_eq!(refused(&[0; 200]), Error::NotABundle);
    let bytes = sample::small();
    let mut line_feeds = bytes.clone();
    line_feeds.remove(5);
    assert_eq!(refused(&line_feeds), Error::TextTransfer);
    let mut seven_bits = bytes;
    seven_bits[0] &= 0x7f;
    assert_eq!(refused(&seven_bits), Error::TextTransfer);
}

type Change = fn(&mut Vec<u8>);
type Expected = fn(&Error) -> bool;

/// Changes to the header or table that break a rule, each with its name and its error.
const BROKEN_TABLES: &[(&str, Change, Expected)] = &[
    ("a hole", |b| shift(b, 2, 64), |e| matches!(e, Error::Misplaced { section: 2, .. })),
    ("an overlap", |b| shift(b, 2, -64), |e| matches!(e, Error::Misplaced { section: 2, .. })),
    ("no alignment", |b| shift(b, 2, 1), |e| matches!(e, Error::Misplaced { section: 2, .. })),
    (
        "an offset beyond the file",
        |b| b[record(5) + 15] = 0xff,
        |e| matches!(e, Error::Misplaced { section: 5, .. }),
    ),
    ("a length beyond the file", |b| b[record(5) + 18] = 1, |e| matches!(e, Error::Length { .. })),
    (
        "a length beyond numbers",
        |b| b[record(5) + 16..record(5) + 24].fill(0xff),
        |e| matches!(e, Error::TooLong { section: 5 }),
    ),
    (
        "out of order",
        |b| swap_records(b, 1),
        |e| matches!(e, Error::NoProgram { .. } | Error::Order { .. }),
    ),
    ("a repeated kind", |b| b[record(4)] = 6, |e| matches!(e, Error::Order { section: 4 })),
    ("no manifest", |b| b[record(0)] = 0, |e| matches!(e, Error::NoManifest)),
    ("no sections", |b| b[12] = 0, |e| matches!(e, Error::NoManifest)),
    (
        "a gap of programs",
        |b| b[record(1) + 6] = 1,
        |e| matches!(e, Error::ProgramGap { section: 1 }),
    ),
    (
        "weights of no program",
        |b| b[record(2) + 6] = 1,
        |e| matches!(e, Error::NoProgram { section: 2, program: 1 }),
    ),
    (
        "a reserved flag",
        |b| b[record(3) + 2] |= 2,
        |e| matches!(e, Error::ReservedInRecord { section: 3 }),
    ),
    (
        "reserved bytes",
        |b| b[record(3) + 31] = 1,
        |e| matches!(e, Error::ReservedInRecord { section: 3 }),
    ),
    ("reserved bytes of the header", |b| b[24] = 1, |e| matches!(e, Error::ReservedInHeader)),
    ("a section too few", |b| b[12] -= 1, |e| matches!(e, Error::Misplaced { section: 0, .. })),
    ("too many sections", |b| b[13] = 2, |e| matches!(e, Error::TooManySections { .. })),
    (
        "slack missing",
        |b| {
            b.truncate(b.len() - 64);
            state_length(b)
        },
        |e| matches!(e, Error::Length { .. }),
    ),
    (
        "slack doubled",
        |b| {
            b.extend([0; 64]);
            state_length(b)
        },
        |e| matches!(e, Error::Length { .. }),
    ),
];

#[test]
fn tables_that_break_a_rule_are_rejected() {
    let mut failures = Vec::new();
    for (name, change, expected) in BROKEN_TABLES {
        let bytes = forged(change);
        let error = refused(&bytes);
        if !expected(&error) || stream(&bytes) != Err(error.clone()) {
            failures.push(format!("{name}: {error:?}, as a stream {:?}", stream(&bytes)));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn a_table_beyond_the_end_of_the_file_is_rejected() {
    let bytes = forged(|bytes| {
        bytes.truncate(64);
        state_length(bytes);
    });
    assert!(matches!(refused(&bytes), Error::Truncated { .. }));
}

#[test]
fn a_stream_with_too_many_sections_is_rejected() {
    let bytes = sample::small();
    let refused = verify_stream::<_, 3>(&bytes[..], &mut [0; 64]);
    assert_eq!(refused, Err(StreamError::Bundle(Error::TooManySections { found: 6, limit: 3 })));
}

#[test]
fn a_rejected_stream_stays_rejected() {
    let mut bytes = sample::small();
    bytes[40] ^= 1;
    let mut verifier = hardtack_bundle::StreamVerifier::<8>::new();
    let error = verifier.push(&bytes).unwrap_err();
    assert_eq!(verifier.push(&[]), Ok(()));
    assert_eq!(verifier.push(&[0]), Err(error.clone()));
    assert_eq!(verifier.finish(), Err(error));
}

#[test]
fn the_root_digest_does_not_depend_on_signatures() {
    let mut bytes = sample::small();
    let root = read(&bytes).unwrap();
    let at = Bundle::parse(&bytes).unwrap().sections().last().unwrap().offset as usize;
    bytes[at..at + 8].copy_from_slice(b"signed!!");
    assert!(matches!(refused(&bytes), Error::SectionDigest { .. }));
    let digest = Digest::of(b"signed!!");
    bytes[record(5) + 32..record(5) + 64].copy_from_slice(&digest.0);
    assert_eq!(read(&bytes), Ok(root));
    assert_eq!(stream(&bytes).map(|summary| summary.root), Ok(root));
}

#[test]
fn a_bundle_with_too_many_sections_is_not_written() {
    let mut writer = Writer::new();
    writer.manifest(&sample::manifest()).unwrap();
    for program in 0..MAX_SECTIONS as u16 {
        writer.section(hardtack_bundle::SectionKind::Program(program), vec![]).unwrap();
    }
    assert!(writer.seal().is_err());
}

/// Decodes every section of a bundle whose digests are valid. Nothing may panic.
fn read_all(bytes: &[u8]) {
    let streamed = stream(bytes);
    let Ok(bundle) = Bundle::parse(bytes) else { return };
    assert_eq!(bundle.verify().is_ok(), streamed.is_ok());
    let _ = (bundle.manifest(), bundle.graph(), bundle.preprocess(), bundle.postprocess());
    let _ = (bundle.notices(), bundle.labels().map(|labels| labels.map(|l| l.iter().count())));
    if let Ok(Some(golden)) = bundle.golden() {
        for case in golden.cases() {
            for vector in case.inputs().chain(case.outputs()) {
                let elements = vector.shape().product::<u64>();
                match vector.content {
                    Content::Stored(bytes) => {
                        assert_eq!(elements, (bytes.len() / vector.dtype.size().unwrap()) as u64);
                    }
                    Content::Generated(generator) => {
                        assert!(generator.element(elements).is_finite());
                    }
                    Content::Sampled { step, bytes } => {
                        let stored = (bytes.len() / vector.dtype.size().unwrap()) as u64;
                        assert_eq!(elements.div_ceil(step), stored);
                    }
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        read_all(&bytes);
        let _ = hardtack_bundle::Golden::parse(&bytes);
        let _ = hardtack_bundle::graph::Graph::from_bytes(&bytes);
    }

    #[test]
    fn forged_tables_are_read_without_panic(
        changes in prop::collection::vec((12usize..448, any::<u8>()), 1..4)
    ) {
        read_all(&forged(|bytes| changes.iter().for_each(|(at, byte)| bytes[*at] = *byte)));
    }

    #[test]
    fn forged_sections_are_read_without_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
    ) {
        let mut bytes = sample::writer().finish().unwrap();
        let table = 64 + 64 * Bundle::parse(&bytes).unwrap().sections().count();
        let length = bytes.len();
        for (at, byte) in changes {
            bytes[table + at.index(length - table)] = byte;
        }
        read_all(&bytes);
    }

    #[test]
    fn streams_may_arrive_in_any_pieces(pieces in prop::collection::vec(1usize..300, 1..40)) {
        let bytes = sample::writer().finish().unwrap();
        let mut verifier = hardtack_bundle::StreamVerifier::<32>::new();
        let mut rest = &bytes[..];
        for length in pieces.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at((*length).min(rest.len()));
            verifier.push(piece).unwrap();
            rest = after;
        }
        let root = Bundle::parse(&bytes).unwrap().root();
        prop_assert_eq!(verifier.finish().map(|summary| summary.root), Ok(root));
    }
}
