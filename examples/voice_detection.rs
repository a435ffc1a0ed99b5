//! Streaming voice activity detection: runs one frame of 32 ms at a time, while the session keeps
//! the state of the network.
//!
//!     cargo run --release --example voice_detection [RECORDING.wav]

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use hardtack::process::Preprocessor;
use hardtack::{Bundle, Session, SessionOptions};
use hardtack_converter::spec::Spec;
use hardtack_converter::{NoProgress, convert};

fn main() -> anyhow::Result<()> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let folder = examples.join("data/voice_detection");
    let bundles = tempfile::tempdir()?;
    let bundle_path = bundles.path().join("voice.tack");

    // On the development machine: convert the model. A fixed sample rate resolves all branches of
    // the network.
    let bind = |name: &str, value: &str| (name.to_string(), value.to_string());
    let options = hardtack_converter::ConvertOptions {
        set: vec![bind("sr", "16000"), bind("input", "1x576"), bind("state", "2x1x128")],
        states: vec![bind("stateN", "state")],
        preprocess: Spec::read(&examples.join("specs/silero_vad.toml"))?.preprocess,
        ..hardtack_converter::ConvertOptions::default()
    };
    convert(&folder.join("silero_vad.onnx"), &bundle_path, &options, &mut NoProgress)?;

    // On the device: run the frames of an audio stream.
    let bundle = Bundle::open(&bundle_path)?;
    bundle.verify()?;
    let manifest = bundle.manifest()?;
    let input = &manifest.inputs[0];
    let frames = Preprocessor::new(bundle.preprocess()?.context("no preprocessing")?, input)?;
    let options = SessionOptions { keep_state: true, ..SessionOptions::default() };
    let mut session = Session::with_options(&bundle, options)?;

    let recording = std::env::args_os().nth(1).map(PathBuf::from);
    let stream = frames.file(&recording.unwrap_or_else(|| folder.join("speech_6s.wav")))?;
    let period = stream.period().context("the preprocessing is not a stream of frames")?;
    let (mut speaking, mut speech, mut count) = (false, 0usize, 0usize);
    for (index, frame) in stream.enumerate() {
        let outputs = session.run(&[(input.name, &frame)])?;
        let probability = outputs.get("output").context("no output")?.to_f32()[0];
        let now = probability > 0.5;
        if now != speaking {
            let what = if now { "speech begins" } else { "speech ends" };
            println!("{:6.2} s  {what} ({probability:.2})", index as f64 * period);
            speaking = now;
        }
        speech += now as usize;
        count = index + 1;
    }
    println!("speech in {speech} of {count} frames");
    Ok(())
}
