//! Unpacks foreign bytes: as they are, and as the coded part of a file whose head holds.
#![no_main]

use hardtack_bundle::{Bundle, Family, SectionKind, Writer};
use hardtack_transport::{most_bytes, pack, unpack};
use libfuzzer_sys::fuzz_target;

/// Bytes before the coded part.
const HEAD: usize = 12 + 64;

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    let mut framed = pack(&bundle(bytes)).expect("a bundle has a transport form");
    let mut back = Vec::new();
    assert!(unpack(&framed[..], &mut back).is_ok() && back == bundle(bytes));
    framed.truncate(HEAD);
    framed.extend(bytes);
    read(&framed);
});

/// Checks that the expansion is bounded, and that accepted output is a bundle.
fn read(bytes: &[u8]) {
    let mut bundle = Vec::new();
    let unpacked = unpack(bytes, &mut bundle);
    assert!(bundle.len() as u64 <= most_bytes(bytes.len() as u64));
    if let Ok(summary) = unpacked {
        let verified = Bundle::parse(&bundle).and_then(Bundle::verify).expect("it was verified");
        assert_eq!(verified.root(), summary.root);
    }
}

/// A bundle with these bytes in sections of several kinds.
fn bundle(bytes: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.section(SectionKind::Manifest, &b"a manifest"[..]).expect("it is new");
    for kind in [SectionKind::Program(0), SectionKind::Constants] {
        writer.section(kind, bytes).expect("it is new");
    }
    let weights = SectionKind::Weights { family: Family::Mcu, program: 0 };
    writer.section(weights, bytes).expect("it is new");
    writer.finish().expect("it has a manifest")
}
