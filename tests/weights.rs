//! Weight-only quantization: stores the large matrices of float networks as integers, and checks
//! the quality of their applications.

mod shared;

use std::path::Path;

use hardtack::{Bundle, Session};
use hardtack_converter::{ConvertOptions, MatrixStorage, NoProgress, Report, convert};
use shared::applications::{denoised, distortion, recording, speech};

/// The size in bytes of an ONNX file with only Silero's network for 16 kHz. The file of the
/// examples holds two networks.
const FLOAT_BYTES: f64 = 1_248_281.0;

/// Converts and opens a network.
fn open(model: &Path, options: &ConvertOptions) -> (Report, Session) {
    let scratch = tempfile::tempdir().unwrap();
    let output = scratch.path().join("model.tack");
    let transport = options.weights.map(|_| scratch.path().join("model.tackz"));
    let options = ConvertOptions { transport, ..options.clone() };
    let report = convert(model, &output, &options, &mut NoProgress).unwrap();
    let bundle = Bundle::open(&output).unwrap();
    let mut session = Session::new(&bundle).unwrap();
    assert!(hardtack::golden::check(&bundle, &mut session).unwrap().holds());
    session.reset();
    (report, session)
}

/// The outputs of the voice detector of the examples, in float and with quantized weights.
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
        let float =
            ConvertOptions { set: shared::settings("silero_vad"), ..ConvertOptions::default() };
        let integers = ConvertOptions { weights: Some(weights), ..float.clone() };
        let (mut before, (report, mut after)) = (open(&model, &float).1, open(&model, &integers));
        let [before, after] =
            [&mut before, &mut after].map(|session| speech(session, &sound).unwrap());
        assert!(before.iter().any(|p| *p > 0.9) && before.iter().any(|p| *p < 0.1));
        Heard { report, before, after }
    }

    /// Returns the mean and the maximum absolute difference of the probabilities from float.
    fn off(&self) -> (f32, f32) {
        let off = self.before.iter().zip(&self.after).map(|(a, b)| (a - b).abs());
        off.fold((0f32, 0f32), |(mean, greatest), off| {
            (mean + off / self.before.len() as f32, greatest.max(off))
        })
    }
}

#[test]
fn a_voice_detector_keeps_its_probabilities() {
    let heard = Heard::with(MatrixStorage::Int8);
    let part = heard.report.transport_bytes.expect("compression is enabled") as f64 / FLOAT_BYTES;
    assert!(part <= 0.22, "{part}");
    let (mean, greatest) = heard.off();
    assert!(mean < 0.001 && greatest <= 0.02, "off by {mean}, at most {greatest}");
}

#[test]
fn four_bit_weights_make_a_bundle_smaller() {
    let heard = Heard::with(MatrixStorage::Int4);
    let bundle = heard.report.bundle_bytes as f64 / FLOAT_BYTES;
    // The spatial convolution kernels, a fifth of the weights, take two bytes per weight.
    assert!(bundle <= 0.26, "{bundle}");
    let shipped =
        heard.report.transport_bytes.expect("compression is enabled") as f64 / FLOAT_BYTES;
    assert!(shipped <= 0.17, "{shipped}");
    let (mean, greatest) = heard.off();
    assert!(mean < 0.004 && greatest <= 0.12, "off by {mean}, at most {greatest}");
}

#[test]
fn six_bits_per_weight_keep_the_quality_of_speech() {
    let Some(assets) = shared::assets() else {
        return;
    };
    let sounds = ["noisy_snr0_16k.wav", "clean_16k.wav"]
        .map(|name| recording(&assets.join("data/speech").join(name)).unwrap());
    let clarity = |options: &ConvertOptions| {
        let models = ["dtln_model_1", "dtln_model_2"]
            .map(|name| open(&assets.join("models").join(name).join("model.onnx"), options));
        let shipped: u64 = models.iter().filter_map(|(report, _)| report.transport_bytes).sum();
        let source: u64 = models.iter().map(|(report, _)| report.source_bytes).sum();
        let mut networks = models.map(|(_, session)| session);
        let clear = denoised(&mut networks, &sounds[0]).unwrap();
        (distortion(&clear, &sounds[1]), shipped as f64 / source as f64)
    };
    let (float, _) = clarity(&ConvertOptions::default());
    let mut options =
        ConvertOptions { weights: Some(MatrixStorage::Int8), ..ConvertOptions::default() };
    options.matrix_bits = Some(6.0);
    let (bytes, part) = clarity(&options);
    assert!(float > 13.0, "{float} dB");
    assert!((float - bytes).abs() <= 0.3, "float {float} dB, quantized {bytes} dB");
    assert!(part <= 0.22, "{part}");
}
