//! Everything that a writer adds to a bundle is read back, and versions are distinguished.
#![cfg(feature = "alloc")]

mod sample;

use hardtack_bundle::{
    Bundle, Digest, Error, FORMAT_VERSION, Family, FormatVersion, InputDefault, SectionKind,
    WriteError, Writer,
};
use sha2::{Digest as _, Sha256};

#[test]
fn every_section_is_read_back() {
    let bytes = sample::writer().finish().unwrap();
    let bundle = Bundle::parse(&bytes).unwrap().verify().unwrap();
    assert_eq!(bundle.format_version(), FORMAT_VERSION);
    assert_eq!(bundle.manifest(), Ok(sample::manifest()));
    assert_eq!(bundle.graph(), Ok(Some(sample::operators::graph())));
    assert_eq!(bundle.preprocess(), Ok(Some(sample::preprocess())));
    assert_eq!(bundle.postprocess(), Ok(Some(sample::postprocess())));
    assert!(bundle.labels().unwrap().unwrap().iter().eq(sample::LABELS));
    assert_eq!(bundle.defaults(), Ok(sample::defaults()));
    assert_eq!(bundle.readings(), Ok(Some(sample::readings())));
    assert_eq!(bundle.notices(), Ok(Some("Licensed to be loaded for ever.\n")));
    assert_eq!(bundle.golden().unwrap().unwrap().len(), 2);
    assert_eq!(bundle.constants().len(), 64);
    assert_eq!(bundle.programs(), 2);
    assert_eq!(bundle.program(1).map(<[u8]>::len), Some(70));
    assert_eq!(bundle.program(2), None);
    assert!(bundle.families(1).eq(Family::ALL));
    assert_eq!(bundle.weights(0, Family::Mcu).map(<[u8]>::len), Some(65));
    assert_eq!(bundle.weights(2, Family::Mcu), None);
    let private = SectionKind::Other { kind: 0x8001, family: 7, index: 9 };
    assert_eq!(bundle.section(private).map(|section| section.bytes.len()), Some(5));
}

#[test]
fn missing_sections_are_absent() {
    let mut writer = Writer::new();
    writer.manifest(&sample::manifest()).unwrap();
    let bytes = writer.finish().unwrap();
    let bundle = Bundle::parse(&bytes).unwrap().verify().unwrap();
    assert_eq!(bundle.graph(), Ok(None));
    assert_eq!(bundle.labels(), Ok(None));
    assert_eq!(bundle.golden(), Ok(None));
    assert_eq!(bundle.notices(), Ok(None));
    assert_eq!((bundle.programs(), bundle.constants()), (0, &[][..]));
}

#[test]
fn the_same_sections_give_the_same_bytes_in_any_order() {
    let first = sample::writer().seal().unwrap();
    let bytes = first.to_bytes();
    assert_eq!(bytes.len() as u64, first.len());
    let mut second = Writer::new();
    let parsed = Bundle::parse(&bytes).unwrap();
    let sections: Vec<_> = parsed.sections().collect();
    for section in sections.iter().rev() {
        second.section(section.kind, section.bytes).unwrap();
    }
    let second = second.seal().unwrap();
    assert_eq!(second.root(), first.root());
    assert_eq!(second.to_bytes(), bytes);
}

#[test]
fn sections_are_aligned_and_may_be_over_read() {
    let bytes = sample::writer().finish().unwrap();
    for section in Bundle::parse(&bytes).unwrap().sections() {
        assert_eq!(section.offset % 64, 0, "{}", section.kind);
        assert!(section.offset as usize + section.bytes.len() + 64 <= bytes.len());
    }
    assert!(bytes.ends_with(&[0; 64]));
}

#[test]
fn invalid_bundles_are_not_written() {
    let mut writer = sample::writer();
    let again = writer.section(SectionKind::Graph, vec![]);
    assert!(matches!(again, Err(WriteError::Duplicate(SectionKind::Graph))));
    let numbers = SectionKind::Other { kind: 2, family: 0, index: 0 };
    assert!(matches!(writer.section(numbers, vec![]), Err(WriteError::NotOther(_))));
    assert!(matches!(Writer::new().labels(["a\nb"]), Err(WriteError::Label { index: 0 })));
    assert_eq!(Writer::new().finish(), Err(WriteError::Rule(Error::NoManifest)));
    let mut manifest = sample::manifest();
    manifest.states[0].input = 2;
    assert!(Writer::new().manifest(&manifest).is_err());
}

#[test]
fn extra_bytes_of_a_section_are_rejected() {
    let mut writer = Writer::new();
    let bundle = sample::writer().finish().unwrap();
    let bundle = Bundle::parse(&bundle).unwrap();
    for kind in [SectionKind::Manifest, SectionKind::Preprocess, SectionKind::Graph] {
        let bytes = [bundle.section(kind).unwrap().bytes, &[0]].concat();
        writer.section(kind, bytes).unwrap();
    }
    let bytes = writer.finish().unwrap();
    let longer = Bundle::parse(&bytes).unwrap();
    assert!(matches!(longer.manifest(), Err(Error::LeftOver { bytes: 1, .. })));
    assert!(matches!(longer.preprocess(), Err(Error::LeftOver { bytes: 1, .. })));
    assert!(longer.graph().is_err());
}

/// Returns the sample with another version, an unknown section and optionally reserved bits.
fn versioned(version: FormatVersion, critical: bool, reserved: bool) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.manifest(&sample::manifest()).unwrap();
    let unknown = SectionKind::Other { kind: 99, family: 1, index: 2 };
    writer.section(unknown, &b"from the future"[..]).unwrap();
    let mut bytes = writer.finish().unwrap();
    bytes[8..10].copy_from_slice(&version.major.to_le_bytes());
    bytes[10..12].copy_from_slice(&version.minor.to_le_bytes());
    bytes[64 + 64 + 2] = u8::from(critical);
    if reserved {
        bytes[24] = 1;
        bytes[64 + 2] |= 0x80;
        bytes[64 + 24] = 1;
    }
    bytes[32..64].fill(0);
    let root = Sha256::digest(&bytes[..64 + 2 * 64]);
    bytes[32..64].copy_from_slice(&root);
    bytes
}

#[test]
fn versions_follow_the_compatibility_rule() {
    let ours = FORMAT_VERSION;
    let newer = FormatVersion { minor: ours.minor + 1, ..ours };
    let other = FormatVersion { major: ours.major + 1, minor: 0 };
    let open = |version, critical, reserved| {
        let bytes = versioned(version, critical, reserved);
        Bundle::parse(&bytes).and_then(|bundle| bundle.verify()).map(|bundle| bundle.root())
    };
    for version in [ours, newer] {
        assert!(open(version, false, false).is_ok());
        let refused = open(version, true, false).unwrap_err();
        assert_eq!(refused, Error::UnknownCritical { kind: 99, family: 1, index: 2, version });
    }
    assert!(open(ours, false, true).is_err());
    assert!(open(newer, false, true).is_ok());
    for critical in [false, true] {
        let refused = open(other, critical, true).unwrap_err();
        assert_eq!(refused, Error::OtherMajor { found: other });
        let sentence = refused.to_string();
        assert!(sentence.contains("2.0") && sentence.contains("1.0"), "{sentence}");
    }
}

#[test]
fn the_root_digest_matches_the_specification() {
    let bytes = versioned(FORMAT_VERSION, false, false);
    let root = Bundle::parse(&bytes).unwrap().root();
    let shown = root.to_string();
    assert_eq!(shown.len(), 64);
    assert_eq!(root, Digest(bytes[32..64].try_into().unwrap()));
}

#[test]
fn default_values_must_fit_their_inputs() {
    let with = |defaults: &[InputDefault<'_>]| {
        let mut writer = Writer::new();
        writer.manifest(&sample::manifest()).unwrap();
        writer.defaults(&defaults.iter().cloned().collect()).unwrap();
        let bytes = writer.finish().unwrap();
        Bundle::parse(&bytes).unwrap().defaults().map(|defaults| defaults.len())
    };
    let default = |input, shape: &[u64], elements| InputDefault {
        input,
        shape: shape.iter().copied().collect(),
        elements,
    };
    let state = default(1, &[1, 4], &[0; 4]);
    let image = default(0, &[2, 2, 2, 3], &[0; 96]);
    assert_eq!(with(&[]), Ok(0));
    assert_eq!(with(&[image.clone(), state.clone()]), Ok(2));
    for (wrong, problem) in [
        (vec![state.clone(), image], "order"),
        (vec![state.clone(), state], "order"),
        (vec![default(2, &[1], &[0])], "does not exist"),
        (vec![default(1, &[4], &[0; 4])], "shape"),
        (vec![default(1, &[1, 5], &[0; 5])], "shape"),
        (vec![default(1, &[1, 4], &[0; 3])], "shape"),
        (vec![default(0, &[u64::MAX, 2, 2, 3], &[0; 8])], "shape"),
    ] {
        let error = with(&wrong).unwrap_err().to_string();
        assert!(error.contains(problem), "{problem}: {error}");
    }
}
