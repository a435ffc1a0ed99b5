//! A keyword-spotting network from ONNX to recognized words: converts it to INT8, verifies the
//! bundle, evaluates it on labeled samples and runs it on audio files.
//!
//!     cargo run --release --example keyword_spotting [RECORDING.wav]...

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use hardtack::process::{Postprocessor, Preprocessor};
use hardtack::{Bundle, Session, Tensor};
use hardtack_converter::spec::{self, Spec};
use hardtack_converter::{ConvertOptions, NoProgress, Report, arrays, convert, samples};

fn main() -> anyhow::Result<()> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let data = examples.join("data/keyword_spotting");
    let folder = tempfile::tempdir()?;
    let bundle_path = folder.path().join("keywords.tack");

    // The bundle takes audio. The calibration and evaluation data are already features.
    let recordings = Spec::read(&examples.join("specs/keyword_wav.toml"))?;
    let features = Spec::read(&examples.join("specs/keyword_features.toml"))?;

    println!("1. convert   kws_dscnn.onnx → keywords.tack");
    let report = convert_model(&data, &bundle_path, recordings, &features)?;

    println!("2. verify    {}", report.digest);
    let bundle = Bundle::open(&bundle_path)?;
    let mut session = verified_session(&bundle)?;

    println!("3. evaluate  on 400 labeled samples");
    evaluate(&bundle, &mut session, &data.join("evaluation.npz"), features)?;

    println!("4. recognize words in audio files");
    let mut files: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if files.is_empty() {
        files = ["yes", "no", "noise"].map(|n| data.join(format!("{n}_1000ms.wav"))).into();
    }
    recognize(&bundle, &mut session, &files)
}

/// Converts the network to INT8 and prints the size and the parity of each stage.
fn convert_model(
    data: &Path,
    bundle_path: &Path,
    recordings: Spec,
    features: &Spec,
) -> anyhow::Result<Report> {
    let options = ConvertOptions {
        int8: true,
        calibration: Some(data.join("calibration.npz")),
        calibration_preprocess: features.preprocess.clone(),
        preprocess: recordings.preprocess,
        postprocess: recordings.postprocess,
        labels: spec::read_labels(&data.join("labels.txt"))?,
        ..ConvertOptions::default()
    };
    let report = convert(&data.join("kws_dscnn.onnx"), bundle_path, &options, &mut NoProgress)?;
    for stage in &report.stages {
        let parity = stage.parity.map_or(String::new(), |p| format!("  differs by {p:.1e}"));
        println!(
            "     {:9} {:4} nodes {:7} bytes {:7.1} ms{parity}",
            stage.name,
            stage.nodes,
            stage.bytes,
            1e3 * stage.seconds
        );
    }
    println!("     ONNX: {} bytes, bundle: {} bytes", report.source_bytes, report.bundle_bytes);
    Ok(report)
}

/// Loads the network after a check of its digests and golden vectors.
fn verified_session(bundle: &Bundle) -> anyhow::Result<Session> {
    bundle.verify()?;
    let mut session = Session::new(bundle)?;
    let golden = hardtack::golden::check(bundle, &mut session)?;
    anyhow::ensure!(golden.holds(), "the golden vectors do not match on this machine");
    println!("     all digests match, {} golden vectors match bit-exactly", golden.cases);
    Ok(session)
}

/// Prints how many samples of an NPZ file (features `x`, classes `y`) the network recognizes.
fn evaluate(
    bundle: &Bundle,
    session: &mut Session,
    samples_path: &Path,
    features: Spec,
) -> anyhow::Result<()> {
    let manifest = bundle.manifest()?;
    let input = &manifest.inputs[0];
    let from_features = Preprocessor::new(features.preprocess.context("settings")?, input)?;
    let classes = postprocessor(bundle)?;
    let arrays = arrays::read_npz(samples_path)?;
    let find = |name: &str| arrays.iter().find(|(n, _)| n == name).map(|(_, tensor)| tensor);
    let (x, y) = (find("x").context("no samples")?, find("y").context("no classes")?);
    let mut right = 0;
    for (index, class) in y.to_f32().iter().enumerate() {
        let sample = from_features.array(&samples::row(x, index))?;
        let outputs = session.run(&[(input.name, &sample)])?;
        right += (classes.top(&outputs[0].1, 1)?[0].index == *class as usize) as usize;
    }
    println!("     {right} of {} correct", y.len());
    Ok(())
}

/// Prints the two most likely words of each audio file.
fn recognize(bundle: &Bundle, session: &mut Session, files: &[PathBuf]) -> anyhow::Result<()> {
    let manifest = bundle.manifest()?;
    let input = &manifest.inputs[0];
    let from_recording = Preprocessor::new(bundle.preprocess()?.context("settings")?, input)?;
    let classes = postprocessor(bundle)?;
    for file in files {
        for sample in from_recording.file(file)? {
            let sample: Tensor = sample;
            let outputs = session.run(&[(input.name, &sample)])?;
            let best = classes.top(&outputs[0].1, 2)?;
            let words: Vec<String> = best
                .iter()
                .map(|class| format!("{} {:.0} %", class.label.unwrap_or("?"), 100.0 * class.score))
                .collect();
            let name = file.file_name().map(|n| n.to_string_lossy()).unwrap_or_default();
            println!("     {name:16} {}", words.join(", "));
        }
    }
    Ok(())
}

/// Creates the post-processing that the bundle describes.
fn postprocessor(bundle: &Bundle) -> anyhow::Result<Postprocessor<'_>> {
    let manifest = bundle.manifest()?;
    let labels: Vec<&str> = bundle.labels()?.context("no labels")?.iter().collect();
    let process = bundle.postprocess()?.context("settings")?;
    Ok(Postprocessor::new(process, &manifest.outputs[0], labels))
}
