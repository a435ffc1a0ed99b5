//! Bundles survive compression and decompression. Anything but a complete compressed bundle is
//! rejected.
#![cfg(feature = "alloc")]

use std::fs;
use std::path::Path;

use hardtack_bundle::{Bundle, Error, Family, SectionKind, Summary, Writer};
use hardtack_transport::{MAX_SECTIONS, Memory, PackError, UnpackError, pack, unpack, unpack_in};
use proptest::prelude::*;

/// The offset of the bundle's header, and its size.
const HEAD: usize = 12;
const HEADER: usize = 64;

fn unpacked(packed: &[u8]) -> Result<(Vec<u8>, Summary), String> {
    let mut bundle = Vec::new();
    let summary = unpack(packed, &mut bundle).map_err(|error| error.to_string())?;
    Ok((bundle, summary))
}

fn refusal(packed: &[u8]) -> String {
    unpacked(packed).expect_err("rejected")
}

/// Compresses a bundle, and checks that decompression restores it.
fn round_trip(bundle: &[u8]) -> Vec<u8> {
    let packed = pack(bundle).unwrap();
    let (back, summary) = unpacked(&packed).unwrap();
    assert!(back == bundle, "decompression gave different bytes");
    assert_eq!(summary.root, Bundle::parse(bundle).unwrap().root());
    packed
}

fn bundle(sections: &[(SectionKind, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.section(SectionKind::Manifest, &b"a manifest"[..]).unwrap();
    for (kind, bytes) in sections {
        writer.section(*kind, &bytes[..]).unwrap();
    }
    writer.finish().unwrap()
}

fn with_weights(family: Family, weights: Vec<u8>) -> Vec<u8> {
    let kind = SectionKind::Weights { family, program: 0 };
    bundle(&[(SectionKind::Program(0), vec![7; 70]), (kind, weights)])
}

fn small() -> Vec<u8> {
    let weights = (0..300u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 26) as u8).collect();
    with_weights(Family::Mcu, weights)
}

/// Pseudorandom numbers.
fn noise(count: usize) -> impl Iterator<Item = u32> {
    (0..count as u64).map(|i| {
        let z = (i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        ((z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB) >> 33) as u32
    })
}

#[test]
fn frozen_bundles_round_trip() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/frozen");
    let mut count = 0;
    for entry in
        ["v1", "programs"].iter().flat_map(|shelf| fs::read_dir(folder.join(shelf)).unwrap())
    {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "tack") {
            let bundle = fs::read(&path).unwrap();
            let packed = round_trip(&bundle);
            assert!(packed.len() < bundle.len(), "{}", path.display());
            count += 1;
        }
    }
    assert!(count >= 4, "{count}");
}

/// Compressed bundles of earlier versions must stay readable, whatever the compressor writes now.
#[test]
fn frozen_compressed_bundles_are_decompressed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/frozen");
    for (packed, bundle) in [
        ("transport/kws_dscnn.tackz", "programs/kws_dscnn.tack"),
        ("transport/sample-1.tackz", "v1/sample-1.tack"),
    ] {
        let (back, _) = unpacked(&fs::read(folder.join(packed)).unwrap()).unwrap();
        assert!(back == fs::read(folder.join(bundle)).unwrap(), "{packed}");
    }
}

#[test]
fn memory_is_bounded_and_reusable() {
    assert!(size_of::<Memory>() <= 34 << 10, "{}", size_of::<Memory>());
    let mut memory = Memory::new();
    let packed = pack(&small()).unwrap();
    for _ in 0..2 {
        assert!(unpack_in(&mut memory, &packed[..9], &mut Vec::new()).is_err());
        let mut back = Vec::new();
        unpack_in(&mut memory, &packed[..], &mut back).unwrap();
        assert!(back == small());
    }
}

#[test]
fn every_truncation_is_rejected() {
    let packed = pack(&small()).unwrap();
    for length in 0..packed.len() {
        assert!(!refusal(&packed[..length]).is_empty(), "{length}");
    }
    assert!(refusal(&packed[..200]).contains("truncated"));
    let longer = [&packed[..], &[0]].concat();
    assert!(refusal(&longer).contains("damaged"));
}

#[test]
fn every_changed_byte_is_rejected() {
    let packed = pack(&small()).unwrap();
    for at in 0..packed.len() {
        for change in [1, 0x80, 0xff] {
            let mut damaged = packed.clone();
            damaged[at] ^= change;
            assert!(unpacked(&damaged).is_err(), "byte {at} changed by {change}");
        }
    }
}

#[test]
fn hostile_headers_are_rejected() {
    let packed = pack(&small()).unwrap();
    let changed = |at: usize, bytes: &[u8]| {
        let mut damaged = packed.clone();
        damaged[at..at + bytes.len()].copy_from_slice(bytes);
        unpack(&damaged[..], &mut Vec::new()).unwrap_err()
    };
    assert!(matches!(unpack(&small()[..], &mut Vec::new()), Err(UnpackError::Bundle)));
    assert!(matches!(changed(3, b"X"), UnpackError::NotTransport));
    assert!(matches!(changed(6, b"\n\n"), UnpackError::TextTransfer));
    assert!(matches!(changed(8, &[0]), UnpackError::OtherVersion { found: 0 }));
    assert!(matches!(changed(8, &[3]), UnpackError::OtherVersion { found: 3 }));
    // The file does not need version 2.
    assert!(matches!(changed(8, &[2]), UnpackError::Damaged));
    assert!(matches!(changed(10, &[1]), UnpackError::Damaged));
    assert!(matches!(changed(HEAD, &[0; 8]), UnpackError::Refused(Error::NotABundle)));
    // A wrong length and a wrong number of sections.
    assert!(matches!(
        changed(HEAD + 16, &[0xff; 8]),
        UnpackError::TooLarge { length: u64::MAX, .. }
    ));
    assert!(matches!(changed(HEAD + 16, &[0; 8]), UnpackError::Refused(_) | UnpackError::Damaged));
    assert!(matches!(
        changed(HEAD + 12, &[200]),
        UnpackError::Refused(Error::TooManySections { .. })
    ));
    // The root digest of another bundle.
    assert!(matches!(changed(HEAD + 32, &[9; 32]), UnpackError::Refused(Error::RootDigest { .. })));
}

#[test]
fn invalid_bundles_are_not_compressed() {
    let damaged = {
        let mut bytes = small();
        let at = bytes.len() - 100;
        bytes[at] ^= 1;
        bytes
    };
    assert!(matches!(pack(&damaged), Err(PackError::Bundle(_))));
    assert!(matches!(pack(b"nothing"), Err(PackError::Bundle(_))));
    let other = |index| SectionKind::Other { kind: 40_000, family: 0, index };
    let many: Vec<_> = (0..MAX_SECTIONS as u16).map(|index| (other(index), vec![1])).collect();
    round_trip(&bundle(&many[1..]));
    assert_eq!(pack(&bundle(&many)), Err(PackError::TooManySections { found: MAX_SECTIONS + 1 }));
}

#[test]
fn edge_cases_round_trip() {
    for length in [0, 1, 15, 16, 17, 63, 64, 65, 300] {
        round_trip(&with_weights(Family::Mcu, (0..length).map(|i| i as u8).collect()));
        round_trip(&bundle(&[(SectionKind::Constants, vec![0x80; length])]));
    }
    round_trip(&with_weights(Family::X86Zmm, (0..=255).cycle().take(5000).collect()));
    round_trip(&with_weights(Family::NeonDot, vec![0; 70_000]));
}

/// Rows of this depth in sparse and in dense form. On average, one of `one_of` weights is not 0.
fn sparse(rows: u32, depth: u32, one_of: u32) -> [Vec<u8>; 2] {
    let mut form: Vec<u8> = [rows, depth].iter().flat_map(|n| n.to_le_bytes()).collect();
    let weight = |n: u32| if n.is_multiple_of(one_of) { (n >> 8) as u8 % 61 + 1 } else { 0 };
    let dense: Vec<u8> = noise((rows * depth) as usize).map(weight).collect();
    for row in dense.chunks(depth as usize) {
        for part in row.chunks(32) {
            let bits = (0..).zip(part).map(|(place, weight)| u32::from(*weight != 0) << place);
            form.extend(bits.sum::<u32>().to_le_bytes());
        }
        form.extend(row.iter().filter(|weight| **weight != 0));
    }
    [form, dense]
}

#[test]
fn sparse_weights_compress_as_well_as_dense_ones() {
    let around = |weights: &[u8]| {
        let mut bytes: Vec<u8> = noise(100).map(|n| n as u8).collect();
        bytes.resize(112, 0);
        bytes.extend(weights);
        bytes.resize(bytes.len().next_multiple_of(16), 0);
        bytes.extend(noise(100).map(|n| (n >> 9) as u8));
        round_trip(&with_weights(Family::Mcu, bytes)).len()
    };
    for (rows, depth, one_of) in [(64, 288, 2), (31, 640, 4), (200, 33, 3), (9, 4095, 10)] {
        let [form, dense] = sparse(rows, depth, one_of);
        let (without, with) = (around(&form), around(&dense));
        // More block headers, and the bytes around them, take some space.
        assert!(without <= with + with / 50 + 32, "{rows}×{depth}: {without} of {with}");
    }
    // A few small numbers are not a layer, although they look like one row of five zeros.
    let biases: Vec<u8> = [1u32, 5, 0, 3].iter().flat_map(|n| n.to_le_bytes()).collect();
    assert_eq!(round_trip(&with_weights(Family::Mcu, biases.repeat(20)))[8], 1);
    // Longer rows are coded like other bytes.
    round_trip(&with_weights(Family::Mcu, sparse(3, 4096, 3)[0].clone()));
}

#[test]
fn hostile_sparse_rows_are_rejected() {
    let packed = pack(&with_weights(Family::Mcu, sparse(20, 40, 3)[0].clone())).unwrap();
    assert_eq!(packed[8], 2);
    for at in 0..packed.len() {
        assert!(!refusal(&packed[..at]).is_empty(), "{at}");
        for change in [1, 3, 0x80, 0xff] {
            let mut damaged = packed.clone();
            damaged[at] ^= change;
            assert!(unpacked(&damaged).is_err(), "byte {at} changed by {change}");
        }
    }
}

#[test]
fn weights_are_coded_near_their_entropy() {
    const COUNT: usize = 20_000;
    let bytes = |weights| round_trip(&with_weights(Family::Mcu, weights)).len() as f64;
    let rest = bytes(Vec::new());
    // The entropy per weight in bits, and the relative overhead allowed for learning.
    let check = |what: &str, weights: Vec<u8>, bits: f64, more: f64| {
        let (packed, entropy) = (bytes(weights) - rest, COUNT as f64 * bits / 8.0);
        assert!(packed < entropy * (1.0 + more), "{what}: {packed} of {entropy}");
    };
    // Seven levels, with the binomial distribution of the number of set bits out of six.
    let levels = noise(COUNT).map(|n| ((n & 0x3f).count_ones() as i8 * 18 - 54) as u8);
    let parts = [1.0, 6.0, 15.0, 20.0, 15.0, 6.0, 1.0f64].map(|n| n / 64.0);
    let entropy = parts.iter().map(|p| -p * p.log2()).sum();
    check("levels", levels.collect(), entropy, 0.03);
    let sparse = noise(COUNT).map(|n| if n % 32 == 0 { (n >> 8) as u8 } else { 0 });
    check("sparse", sparse.collect(), 0.2006 + 8.0 / 32.0, 0.15);
    // Each weight is similar to the one 16 before it.
    let mut smooth: Vec<u8> = Vec::new();
    for (i, n) in noise(COUNT).enumerate() {
        let before = if i < 16 { 0 } else { smooth[i - 16] as i8 };
        smooth.push((before / 2 + before / 4 + (n % 31) as i8 - 15) as u8);
    }
    check("smooth", smooth, 31.0f64.log2(), 0.05);
}

#[test]
fn floats_take_little_more_than_their_mantissas() {
    let reals: Vec<u8> =
        noise(8000).flat_map(|n| (1.0 + n as f32 / 2.0f32.powi(31)).to_le_bytes()).collect();
    let packed = round_trip(&bundle(&[(SectionKind::Constants, reals)])).len();
    assert!(packed < 8000 * 23 / 8 + 1500, "{packed}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_sections_round_trip(
        weights in prop::collection::vec(any::<u8>(), 0..3000),
        period in 1..200usize,
        scale in 1..128i32,
        constants in prop::collection::vec(any::<u8>(), 0..500),
    ) {
        let scaled = weights.iter().enumerate().map(|(i, weight)| {
            let before = weights[i - i % period.min(i + 1)] as i8;
            ((i32::from(*weight as i8) + i32::from(before)) * scale / 256) as u8
        });
        let kind = SectionKind::Weights { family: Family::Mcu, program: 0 };
        let sections = [
            (SectionKind::Program(0), constants.clone()),
            (kind, scaled.collect()),
            (SectionKind::Constants, constants),
        ];
        round_trip(&bundle(&sections));
    }

    #[test]
    fn arbitrary_bytes_are_rejected(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(unpacked(&bytes).is_err());
        let mut framed = pack(&small()).unwrap();
        framed.truncate(HEAD + HEADER);
        framed.extend(bytes);
        prop_assert!(unpacked(&framed).is_err());
    }
}
