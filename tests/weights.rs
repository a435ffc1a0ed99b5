//! Networks in float whose large matrices are stored as bytes: what becomes of their applications.

mod shared;

use std::path::Path;

use hardtack::{Bundle, Session};
use hardtack_converter::{MatrixStorage, Options, Report, Silent, convert};
use shared::applications::{denoised, distortion, recording, speech};

/// The ONNX file of Silero's network for 16 kHz alone; the one of the examples holds two.
const FLOAT_BYTES: f64 = 1_248_281.0;

/// A network with its matrices as bytes, or as they are.
fn open(model: &Path, options: &Options) -> (Report, Session) {
    let scratch = tempfile::tempdir().unwrap();
    let output = scratch.path().join("model.tack");
    let transport = options.weights.map(|_| scratch.path().join("model.tackz"));
    let options = Options { transport, ..options.clone() };
    let report = convert(model, &output, &options, &mut Silent).unwrap();
    let bundle = Bundle::open(&output).unwrap();
    let mut session = Session::new(&bundle).unwrap();
    assert!(hardtack::golden::check(&bundle, &mut session).unwrap().holds());
    session.reset();
    (report, session)
}

/// What the voice detector of the examples gives, in float and as asked for.
struct Heard {
    report: Report,
    before: Vec<f32>,
    after: Vec<f32>,
}

impl Heard {
    fn with(weights: MatrixStorage) -> Heard {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/voice_detection");
        let model = folder.join("silero_vad.onnx");
        let sound = recording(&folder.join("speech_6s.wav")).unwrap();
        let float = Options { set: shared::settings("silero_vad"), ..Options::default() };
        let integers = Options { weights: Some(weights), ..float.clone() };
        let (mut before, (report, mut after)) = (open(&model, &float).1, open(&model, &integers));
        let [before, after] =
            [&mut before, &mut after].map(|session| speech(session, &sound).unwrap());
        assert!(before.iter().any(|p| *p > 0.9) && before.iter().any(|p| *p < 0.1));
        Heard { report, before, after }
    }

    /// How far probabilities are from those in float: in the mean, and at most.
    fn off(&self) -> (f32, f32) {
        let off = self.before.iter().zip(&self.after).map(|(a, b)| (a - b).abs());
        off.fold((0f32, 0f32), |(mean, greatest), off| {
            (mean + off / self.before.len() as f32, greatest.max(off))
        })
    }
}

#[test]
fn a_voice_detector_hears_the_same() {
    let heard = Heard::with(MatrixStorage::Int8);
    let part = heard.report.transport_bytes.expect("asked for") as f64 / FLOAT_BYTES;
    assert!(part <= 0.22, "{part}");
    let (mean, greatest) = heard.off();
    assert!(mean < 0.001 && greatest <= 0.02, "off by {mean}, at most {greatest}");
}

#[test]
fn four_bits_make_a_bundle_smaller() {
    let heard = Heard::with(MatrixStorage::Int4);
    let bundle = heard.report.bundle_bytes as f64 / FLOAT_BYTES;
    // Kernels that slide, a fifth of its weights, have two bytes.
    assert!(bundle <= 0.26, "{bundle}");
    let shipped = heard.report.transport_bytes.expect("asked for") as f64 / FLOAT_BYTES;
    assert!(shipped <= 0.17, "{shipped}");
    let (mean, greatest) = heard.off();
    assert!(mean < 0.004 && greatest <= 0.12, "off by {mean}, at most {greatest}");
}

#[test]
fn speech_is_as_clear_with_six_bits_a_weight() {
    let Some(assets) = shared::assets() else {
        println!("skipped: the shared assets are not beside the project");
        return;
    };
    let sounds = ["noisy_snr0_16k.wav", "clean_16k.wav"]
        .map(|name| recording(&assets.join("data/speech").join(name)).unwrap());
    let clarity = |options: &Options| {
        let models = ["dtln_model_1", "dtln_model_2"]
            .map(|name| open(&assets.join("models").join(name).join("model.onnx"), options));
        let shipped: u64 = models.iter().filter_map(|(report, _)| report.transport_bytes).sum();
        let source: u64 = models.iter().map(|(report, _)| report.source_bytes).sum();
        let mut networks = models.map(|(_, session)| session);
        let clear = denoised(&mut networks, &sounds[0]).unwrap();
        (distortion(&clear, &sounds[1]), shipped as f64 / source as f64)
    };
    let (float, _) = clarity(&Options::default());
    let mut options = Options { weights: Some(MatrixStorage::Int8), ..Options::default() };
    options.matrix_bits = Some(6.0);
    let (bytes, part) = clarity(&options);
    assert!(float > 13.0, "{float} dB");
    assert!((float - bytes).abs() <= 0.3, "{bytes} dB, and {float} in float");
    assert!(part <= 0.22, "{part}");
}
