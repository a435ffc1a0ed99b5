//! Reads foreign bytes as a bundle: in memory, as a stream, and every section of it.
#![no_main]

use hardtack_bundle::golden::Content;
use hardtack_bundle::graph::Graph;
use hardtack_bundle::{Bundle, Digest, Golden, Labels, MAX_SECTIONS, verify_stream};
use libfuzzer_sys::fuzz_target;
use sha2::{Digest as _, Sha256};

const HEADER: usize = 64;
const RECORD: usize = 64;
const SIGNATURE: [u8; 2] = [11, 0];

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    read(&resealed(bytes));
    sections(bytes);
});

/// Both readers must give the same answer, and nothing read from a bundle may panic.
fn read(bytes: &[u8]) {
    let streamed = verify_stream::<_, MAX_SECTIONS>(bytes, &mut [0; 61]);
    let Ok(bundle) = Bundle::parse(bytes) else {
        assert!(streamed.is_err(), "the stream took what is refused in memory");
        return;
    };
    let verified = bundle.verify();
    assert_eq!(verified.is_ok(), streamed.is_ok());
    if let (Ok(verified), Ok(summary)) = (verified, streamed) {
        assert_eq!(verified.root(), summary.root);
    }
    let _ = bundle.manifest();
    let _ = bundle.graph();
    let _ = (bundle.preprocess(), bundle.postprocess(), bundle.notices());
    for program in 0..bundle.programs() {
        assert!(bundle.program(program).is_some());
        bundle.families(program).for_each(|family| {
            assert!(bundle.weights(program, family).is_some());
        });
    }
    if let Some(section) = bundle.section(hardtack_bundle::SectionKind::Golden) {
        golden(section.bytes);
    }
    if let Ok(Some(labels)) = bundle.labels() {
        labels.iter().for_each(|label| assert!(!label.contains('\n')));
    }
}

/// The bytes taken for a section themselves.
fn sections(bytes: &[u8]) {
    golden(bytes);
    let _ = Labels::parse(bytes);
    if let Ok(graph) = Graph::from_bytes(bytes) {
        let again = graph.to_bytes().and_then(|bytes| Graph::from_bytes(&bytes));
        assert!(again.is_ok(), "a graph that was read cannot be written and read again");
        let _ = graph.check_constants(bytes.len() as u64);
    }
}

fn golden(bytes: &[u8]) {
    let Ok(golden) = Golden::parse(bytes) else { return };
    let mut cases = 0;
    for case in golden.cases() {
        cases += 1;
        for vector in case.inputs().chain(case.outputs()) {
            let size = vector.dtype.size().expect("elements have a size") as u64;
            let elements = vector.shape().product::<u64>();
            match vector.content {
                Content::Stored(bytes) => assert_eq!(elements * size, bytes.len() as u64),
                Content::Generated(generator) => assert!(generator.element(elements).is_finite()),
                Content::Sampled { step, bytes } => {
                    assert_eq!(elements.div_ceil(step) * size, bytes.len() as u64);
                }
            }
        }
    }
    assert_eq!(cases, golden.len());
}

/// The bytes with every digest made to fit, as far as header and table allow.
fn resealed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if bytes.len() < HEADER {
        return bytes;
    }
    let number = |bytes: &[u8], at: usize| {
        u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
    };
    let sections = u32::from_le_bytes(bytes[12..16].try_into().expect("four bytes"));
    let table = HEADER..(HEADER + RECORD * sections.min(256) as usize).min(bytes.len());
    for at in table.clone().step_by(RECORD) {
        let Some(record) = bytes.get(at..at + RECORD) else { break };
        let start = usize::try_from(number(record, 8)).unwrap_or(usize::MAX);
        let end = start.saturating_add(usize::try_from(number(record, 16)).unwrap_or(usize::MAX));
        if let Some(section) = bytes.get(start..end) {
            let digest = Digest::of(section);
            bytes[at + 32..at + RECORD].copy_from_slice(&digest.0);
        }
    }
    let mut covered = bytes[..table.end].to_vec();
    covered[32..HEADER].fill(0);
    for record in covered[HEADER..].chunks_exact_mut(RECORD) {
        if record[..2] == SIGNATURE {
            record[32..].fill(0);
        }
    }
    bytes[32..HEADER].copy_from_slice(&Sha256::digest(covered));
    bytes
}
