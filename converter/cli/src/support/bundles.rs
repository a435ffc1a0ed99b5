//! Opens bundles and creates their sessions, pre-processors and post-processors.

use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use hardtack::process::{Postprocessor, Preprocessor};
use hardtack::{Bundle, Limits, Session, SessionOptions, Tensor};
use hardtack_bundle::process::Postprocess;
use hardtack_converter::arrays;

use crate::output::say;
use crate::support::foreign;

/// The reason why a bundle was not opened.
pub enum Refusal {
    /// The file is not a valid bundle.
    Bundle(anyhow::Error),
    /// The file cannot be read.
    File(anyhow::Error),
}

/// Opens a bundle; distinguishes an invalid bundle from a file that cannot be read.
pub fn open_or_refuse(path: &Path) -> Result<Bundle, Refusal> {
    if let Err(error) = std::fs::File::open(path).and_then(|file| file.metadata()) {
        let error = anyhow!("{}: cannot be read: {error}", path.display());
        return Err(Refusal::File(error));
    }
    if path.is_dir() {
        return Err(Refusal::File(anyhow!("{}: is a folder, not a bundle", path.display())));
    }
    let bundle = Bundle::open(path).and_then(|bundle| bundle.manifest().map(drop).map(|()| bundle));
    bundle.map_err(|error| {
        let wrong = if foreign::looks_like_onnx(path) {
            let file = path.display();
            anyhow!(
                "{file}: is an ONNX model; convert it first: hardtack convert {file} -o MODEL.tack"
            )
        } else {
            match foreign::kind(path) {
                Some(kind) if kind == foreign::TRANSPORT => {
                    anyhow!("{}: is {}; {}", path.display(), kind.is, kind.advice)
                }
                Some(kind) if kind.is != "a Hardtack bundle already" => {
                    anyhow!("{}: is {}, not a bundle", path.display(), kind.is)
                }
                _ => anyhow::Error::new(error),
            }
        };
        Refusal::Bundle(wrong)
    })
}

/// Opens a bundle.
///
/// # Errors
/// If the file cannot be read or is not a valid bundle.
pub fn open(path: &Path) -> anyhow::Result<Bundle> {
    open_or_refuse(path).map_err(|refusal| match refusal {
        Refusal::Bundle(error) | Refusal::File(error) => error,
    })
}

/// Creates a session. With `keep_state`, the states of the bundle are kept between inferences.
pub fn session(
    bundle: &Bundle,
    path: &Path,
    keep_state: bool,
    limits: Limits,
) -> anyhow::Result<Session> {
    let states = !bundle.manifest()?.states.is_empty();
    let options =
        SessionOptions { keep_state: keep_state && states, limits, ..SessionOptions::default() };
    Session::with_options(bundle, options).with_context(|| path.display().to_string())
}

/// Returns the index of the input that files and single arrays are for.
pub fn data_input(bundle: &Bundle) -> anyhow::Result<usize> {
    let ports = bundle.ports()?;
    if ports.inputs.is_empty() {
        bail!("the model has no input");
    }
    Ok(ports.data_input())
}

/// Casts an array to the type of an input, and prints a note if that changes the type. Floats stay
/// as they are for a quantized input.
///
/// # Errors
/// If the type cannot hold a value; the error names the array `name`.
pub fn cast(
    array: Tensor,
    name: &str,
    path: &Path,
    preprocessor: &Preprocessor,
) -> anyhow::Result<Tensor> {
    let (path, from) = (path.display(), array.dtype());
    let Some(to) = preprocessor.unprocessed_type().filter(|to| *to != from) else {
        return Ok(array);
    };
    // The shape of an array of another model is the first thing to report.
    let shape = array.shape();
    let fits = |shape: &[usize]| preprocessor.accepts_sample(from, shape).is_ok();
    if !fits(shape) && !shape.get(1..).is_some_and(fits) {
        return Ok(array);
    }
    say(&format!("note: {path}: array {name:?} is {from}; it is cast to {to}"));
    arrays::cast(array, to).map_err(|error| {
        anyhow!("{path}: array {name:?}: {error}; save it as {to}, with values in its range")
    })
}

/// Returns the pre-processor that converts files and arrays to the data input.
pub fn preprocessor(bundle: &Bundle) -> anyhow::Result<Preprocessor> {
    let manifest = bundle.manifest()?;
    let input = &manifest.inputs[data_input(bundle)?];
    Ok(match bundle.preprocess()? {
        Some(process) => Preprocessor::new(process, input)?,
        None => Preprocessor::identity(input),
    })
}

/// Calls `use_it` with the post-processor of the first output; with `None` if the bundle is not a
/// classifier.
pub fn with_classes<T>(
    bundle: &Bundle,
    use_it: impl FnOnce(Option<Postprocessor<'_>>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let manifest = bundle.manifest()?;
    let labels = bundle.labels()?;
    let process = match (bundle.postprocess()?, &labels) {
        (Some(process), _) => Some(process),
        (None, Some(_)) => Some(Postprocess::Classify { softmax: false, skip: 0 }),
        (None, None) => None,
    };
    let Some(output) = manifest.outputs.first() else { bail!("the model has no output") };
    let labels: Vec<&str> = labels.iter().flat_map(|labels| labels.iter()).collect();
    use_it(process.map(|process| Postprocessor::new(process, output, labels)))
}
