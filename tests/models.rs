//! Converts and runs every model of the shared assets, and compares the outputs with its reference
//! vectors.

mod shared;

use std::path::Path;

use hardtack::{Bundle, Session, Tensor};
use hardtack_converter::{ConvertOptions, NoProgress, arrays, convert};
use shared::{Checked, assets, check_outputs, model_names, settings};

/// Converts a model and runs all its vectors. Returns the largest difference relative to the
/// output's range, or an error message.
fn check(name: &str) -> Result<Option<Checked>, String> {
    let folder = assets().expect("the caller checked").join("models").join(name);
    let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
    let Some(source) = shared::source(&folder, scratch.path()) else { return Ok(None) };
    let mut options = ConvertOptions { set: settings(name), ..ConvertOptions::default() };
    let vectors = shared::vectors(&folder)
        .iter()
        .map(|path| arrays::read_npz(path).map_err(|error| error.to_string()))
        .collect::<Result<Vec<_>, _>>()?;
    let Some(sized) = shared::sized_input(name) else {
        return run(name, &source, scratch.path(), &options, &vectors).map(Some);
    };
    let mut worst = Checked::default();
    for arrays in vectors {
        let (_, input) = arrays.iter().find(|(n, _)| n == sized).ok_or("no such input")?;
        let sizes: Vec<String> = input.shape().iter().map(usize::to_string).collect();
        options.set = vec![(sized.into(), sizes.join("x"))];
        worst = worst.max(run(name, &source, scratch.path(), &options, &[arrays])?);
    }
    Ok(Some(worst))
}

/// Converts a model and runs these vectors.
fn run(
    model: &str,
    source: &Path,
    scratch: &Path,
    options: &ConvertOptions,
    vectors: &[Vec<(String, Tensor)>],
) -> Result<Checked, String> {
    let output = scratch.join("model.tack");
    convert(source, &output, options, &mut NoProgress).map_err(|error| error.to_string())?;
    let source_bytes = std::fs::metadata(source).map_err(|error| error.to_string())?.len();
    let bundle_bytes = std::fs::metadata(&output).map_err(|error| error.to_string())?.len();
    // A bundle has digests, a manifest and golden vectors in addition to the ONNX file, and
    // space for each scale if every value is quantized.
    let allowed = source_bytes + 2048.max(source_bytes / 50);
    if bundle_bytes > allowed {
        return Err(format!("the bundle has {bundle_bytes} bytes, its source {source_bytes}"));
    }
    let bundle = Bundle::open(&output).map_err(|error| error.to_string())?;
    bundle.verify().map_err(|error| error.to_string())?;
    let mut session = Session::new(&bundle).map_err(|error| error.to_string())?;
    let golden = hardtack::golden::check(&bundle, &mut session).map_err(|e| e.to_string())?;
    if !golden.holds() {
        return Err(format!("the bundle's golden vectors do not match: {golden:?}"));
    }
    let mut worst = Checked::default();
    // In both orders, and without a reset: an inference does not depend on those before it.
    for arrays in vectors.iter().chain(vectors.iter().rev()) {
        let names: Vec<String> = session.inputs().iter().map(|port| port.name.clone()).collect();
        let inputs: Vec<_> = names
            .iter()
            .map(|name| {
                let found = arrays.iter().find(|(n, _)| n == name).map(|(_, tensor)| tensor);
                found.map(|tensor| (name.as_str(), tensor)).ok_or(format!("no input {name}"))
            })
            .collect::<Result<_, _>>()?;
        let outputs = session.run(&inputs).map_err(|error| error.to_string())?;
        for (name, got) in outputs.iter() {
            let Some((_, expected)) = arrays.iter().find(|(n, _)| n == name) else {
                return Err(format!("the vectors have no output {name:?}"));
            };
            worst = worst.max(check_outputs(model, expected, got)?);
        }
    }
    Ok(worst)
}

#[test]
fn every_model_matches_its_reference_outputs() {
    let Some(_) = assets() else {
        return;
    };
    let mut failures = Vec::new();
    for name in model_names() {
        match check(&name) {
            Ok(Some(checked)) => println!("{name:32} {checked}"),
            Ok(None) => {}
            Err(problem) => failures.push(format!("{name}: {problem}")),
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}
