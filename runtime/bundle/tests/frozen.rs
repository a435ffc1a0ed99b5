//! All released bundle versions must stay loadable.
#![cfg(feature = "alloc")]

mod sample;

use std::fs;
use std::path::{Path, PathBuf};

use hardtack_bundle::{Bundle, MAX_SECTIONS, verify_stream};

/// The newest frozen bundle, which the current writer reproduces from the current sample.
const NEWEST: &str = "sample-4.tack";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/frozen/v1")
}

#[test]
fn frozen_bundles_load() {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "tack") {
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let bytes = fs::read(&path).unwrap();
        load(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        names.push(name);
    }
    println!("loaded {names:?}");
    assert!(names.iter().any(|name| name == NEWEST), "{NEWEST} is not among the frozen bundles");
}

/// Decodes every section that this crate knows.
fn load(bytes: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
    let bundle = Bundle::parse(bytes)?.verify()?;
    let summary = verify_stream::<_, MAX_SECTIONS>(bytes, &mut [0; 100])?;
    assert_eq!(summary.root, bundle.root());
    bundle.manifest()?;
    bundle.graph()?;
    bundle.preprocess()?;
    bundle.postprocess()?;
    bundle.labels()?;
    bundle.golden()?;
    bundle.notices()?;
    bundle.defaults()?;
    bundle.readings()?;
    Ok(())
}

#[test]
fn the_newest_frozen_bundle_is_decoded_and_reproduced() {
    let bytes = fs::read(folder().join(NEWEST)).unwrap();
    let bundle = Bundle::parse(&bytes).unwrap();
    assert_eq!(bundle.manifest(), Ok(sample::manifest()));
    assert_eq!(bundle.graph(), Ok(Some(sample::operators::graph())));
    assert_eq!(bundle.preprocess(), Ok(Some(sample::preprocess())));
    assert_eq!(bundle.postprocess(), Ok(Some(sample::postprocess())));
    assert_eq!(bundle.golden().unwrap().unwrap().len(), 2);
    assert_eq!(bundle.defaults(), Ok(sample::defaults()));
    assert_eq!(bundle.readings(), Ok(Some(sample::readings())));
    assert!(bundle.labels().unwrap().unwrap().iter().eq(sample::LABELS));
    assert!(sample::writer().finish().unwrap() == bytes, "the writer produces different bytes");
}
