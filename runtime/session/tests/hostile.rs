//! Bundles with false statements are rejected before they cause out-of-bounds accesses or excessive
//! allocations.
#![cfg(feature = "float")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use hardtack::{
    Bundle, Error, Extent, Limits, Port, Resource, Session, SessionOptions, Stopped, Tensor,
};

fn open(name: &str) -> Bundle {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/hostile");
    Bundle::open(folder.join(name)).expect("header, table and manifest are valid")
}

/// Returns the shape of an input, with 1 for named dimensions.
fn smallest(port: &Port) -> Vec<usize> {
    let size = |extent: &Extent| match extent {
        Extent::Fixed(size) => *size,
        Extent::Named(_) => 1,
    };
    port.shape.iter().map(size).collect()
}

/// Loads a bundle and runs it once on zeros.
fn run_with(bundle: &Bundle, options: SessionOptions) -> Result<(), Error> {
    let mut session = Session::with_options(bundle, options)?;
    let inputs: Vec<(String, Tensor)> = session
        .inputs()
        .iter()
        .map(|port| {
            let tensor = Tensor::zeros(port.dtype, &smallest(port));
            (port.name.clone(), tensor.expect("inputs are small"))
        })
        .collect();
    session.run(&hardtack::golden::named(&inputs)).map(drop)
}

fn refused(name: &str) -> Error {
    let bundle = open(name);
    bundle.verify().expect("its digests match");
    let began = Instant::now();
    let error = run_with(&bundle, SessionOptions::default()).expect_err(name);
    assert!(began.elapsed() < Duration::from_secs(20), "{name} took {:?}", began.elapsed());
    error
}

#[test]
fn values_with_a_wrong_stated_shape_reach_no_operation() {
    for name in ["heap-leak.tack", "crash.tack", "crash-dyntile.tack"] {
        let error = refused(name);
        assert!(matches!(error, Error::Float(_)), "{name}: {error}");
    }
}

#[test]
fn an_arena_larger_than_stated_is_rejected() {
    let error = refused("arena-lie.tack");
    assert!(matches!(error, Error::Arena { stated: 64, needed } if needed >= 1 << 29), "{error}");
}

#[test]
fn excessive_work_is_rejected() {
    for name in ["hang-maxpool.tack", "hang-scan.tack"] {
        let error = refused(name);
        let work = matches!(&error, Error::Exceeded(it) if it.resource == Resource::Operations);
        assert!(work, "{name}: {error}");
    }
}

#[test]
fn excessive_memory_is_rejected() {
    let error = refused("values-4gib-8.tack");
    let memory = matches!(
        &error,
        Error::Exceeded(it) if it.resource == Resource::Memory && it.needed >= 8 << 30
    );
    assert!(memory, "{error}");
    assert!(matches!(refused("memory-54444.tack"), Error::Length { .. } | Error::Manifest { .. }));
}

#[test]
fn the_caller_sets_the_limits() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/frozen/programs");
    let bundle = Bundle::open(folder.join("kws_dscnn.tack")).unwrap();
    let with = |limits| run_with(&bundle, SessionOptions { limits, ..SessionOptions::default() });
    assert!(with(Limits::default()).is_ok());
    let too_much = |error, wanted| matches!(error, Err(Error::Exceeded(it)) if it.resource == wanted && it.needed > it.limit);
    let few = Limits::default().with_operations(1000);
    assert!(too_much(with(few), Resource::Operations));
    let small = Limits::default().with_memory_bytes(1000);
    assert!(too_much(with(small), Resource::Memory));
    let short = Limits::default().with_run_time(Duration::from_nanos(1));
    assert!(matches!(with(short), Err(Error::Stopped(Stopped::OutOfTime { .. }))));
}

#[test]
fn a_canceled_session_runs_again_after_a_reset() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/frozen/programs");
    let bundle = Bundle::open(folder.join("kws_dscnn.tack")).unwrap();
    let mut session = Session::new(&bundle).unwrap();
    let port = &session.inputs()[0];
    let (name, input) = (port.name.clone(), Tensor::zeros(port.dtype, &smallest(port)).unwrap());
    let canceller = session.canceller();
    std::thread::spawn(move || canceller.cancel()).join().unwrap();
    let cancelled = session.run(&[(&name, &input)]);
    assert!(matches!(cancelled, Err(Error::Stopped(Stopped::Cancelled))));
    session.canceller().reset();
    assert!(session.run(&[(&name, &input)]).is_ok());
}

#[test]
fn damaged_weights_are_found_unless_the_caller_opts_out() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/frozen/programs");
    let mut bytes = std::fs::read(folder.join("kws_dscnn.tack")).unwrap();
    let whole = Bundle::from_bytes(bytes.clone()).unwrap();
    let weights = |section: &hardtack_bundle::Section<'_>| {
        matches!(section.kind, hardtack_bundle::SectionKind::Weights { .. })
    };
    let at = whole.sections().unwrap().find(weights).unwrap().offset as usize;
    bytes[at + 100] ^= 1;
    let damaged = Bundle::from_bytes(bytes.clone()).unwrap();
    let error = Session::new(&damaged).err().expect("a bit of its weights was flipped");
    assert!(error.to_string().contains("damaged"), "{error}");
    assert!(Session::new(&damaged).is_err(), "a second session verifies again");

    let scratch = std::env::temp_dir().join(format!("hardtack-damaged-{}", std::process::id()));
    std::fs::write(&scratch, &bytes).unwrap();
    let trusted = Bundle::open_unverified(&scratch).unwrap();
    assert!(Session::new(&trusted).is_ok());
    assert!(Session::new(&Bundle::open(&scratch).unwrap()).is_err());
    assert!(trusted.verify().is_err());
    std::fs::remove_file(&scratch).unwrap();
}
