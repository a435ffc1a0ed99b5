//! Networks with states or dynamic dimensions, of which only the large matrices are quantized.

use std::path::Path;

use hardtack::{Bundle, Session};
use hardtack_converter::QuantizeOptions;
use hardtack_converter::{ConvertOptions, MatrixStorage, NoProgress, Report, convert};

use crate::shared::applications::{denoised, distortion, recording, speech, topics};

/// The names of the measured applications.
pub const APPLICATIONS: [&str; 3] = ["silero", "dtln", "minilm"];

/// The size of MiniLM with float weights, in bytes. The weights of the file are already 8-bit.
const MINILM_FLOAT_BYTES: u64 = 4 * 22_669_586;

/// The quantization options.
pub struct Way {
    pub settings: QuantizeOptions,
    pub weights: MatrixStorage,
    pub dynamic: bool,
}

/// The sizes and the duration of conversions.
#[derive(Default)]
struct Cost {
    source: u64,
    shipped: u64,
    seconds: f64,
}

impl Cost {
    fn add(&mut self, report: &Report) {
        self.source += report.source_bytes;
        self.shipped += report.transport_bytes.unwrap_or(0);
        self.seconds += report.stages.iter().map(|stage| stage.seconds).sum::<f64>();
    }
}

/// Returns a row of the table.
pub fn row(assets: &Path, name: &str, way: &Way) -> Result<String, String> {
    let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
    let bench = Bench { assets, way, scratch: scratch.path() };
    let mut cost = Cost::default();
    let compared = match name {
        "silero" => bench.voice(&mut cost)?,
        "dtln" => bench.noise(&mut cost)?,
        _ => bench.texts(&mut cost)?,
    };
    let part = 100.0 * cost.shipped as f64 / cost.source as f64;
    Ok(format!("{part:.1} % | {compared} | – | – | – | {:.1}", cost.seconds))
}

struct Bench<'a> {
    assets: &'a Path,
    way: &'a Way,
    scratch: &'a Path,
}

impl Bench<'_> {
    fn open(&self, model: &str, options: &ConvertOptions) -> Result<(Report, Session), String> {
        let model = self.assets.join("models").join(model);
        let output = self.scratch.join("model.tack");
        let report =
            convert(&model, &output, options, &mut NoProgress).map_err(|e| e.to_string())?;
        let bundle = Bundle::open(&output).map_err(|error| error.to_string())?;
        Ok((report, Session::new(&bundle).map_err(|error| error.to_string())?))
    }

    fn float(&self, model: &str) -> Result<Session, String> {
        Ok(self.open(model, &ConvertOptions::default())?.1)
    }

    /// Opens a model with its large matrices as integers.
    fn integer(&self, model: &str, cost: &mut Cost) -> Result<Session, String> {
        let options = ConvertOptions {
            weights: Some(self.way.weights),
            dynamic: self.way.dynamic,
            matrix_bits: self.way.settings.weight_bits,
            transport: Some(self.scratch.join("model.tackz")),
            ..ConvertOptions::default()
        };
        let (report, session) = self.open(model, &options)?;
        cost.add(&report);
        Ok(session)
    }

    fn recording(&self, name: &str) -> Result<Vec<f32>, String> {
        recording(&self.assets.join("data/speech").join(name))
    }

    /// Compares the probabilities of speech with float.
    fn voice(&self, cost: &mut Cost) -> Result<String, String> {
        const MODEL: &str = "silero_vad/folded_16k.onnx";
        let sound = self.recording("speech_20s_16k.wav")?;
        let before = speech(&mut self.float(MODEL)?, &sound)?;
        let after = speech(&mut self.integer(MODEL, cost)?, &sound)?;
        let off = before.iter().zip(&after).map(|(a, b)| (a - b).abs());
        let off = off.fold(0f32, f32::max);
        Ok(format!("{} frames | maximum error of probabilities {off:.4}", before.len()))
    }

    /// Compares the quality of noise suppression with float.
    fn noise(&self, cost: &mut Cost) -> Result<String, String> {
        const MODELS: [&str; 2] = ["dtln_model_1/model.onnx", "dtln_model_2/model.onnx"];
        let noisy = self.recording("noisy_snr0_16k.wav")?;
        let clean = self.recording("clean_16k.wav")?;
        let before = denoised(&mut [self.float(MODELS[0])?, self.float(MODELS[1])?], &noisy)?;
        let mut integer = [self.integer(MODELS[0], cost)?, self.integer(MODELS[1], cost)?];
        let after = denoised(&mut integer, &noisy)?;
        let [before, after] = [before, after].map(|sound| distortion(&sound, &clean));
        Ok(format!("SI-SDR {before:.2} dB | SI-SDR {after:.2} dB"))
    }

    /// Compares the accuracy of topic classification with float.
    fn texts(&self, cost: &mut Cost) -> Result<String, String> {
        const MODEL: &str = "minilm_l6_v2_w8/model.onnx";
        let data = self.assets.join("data/agnews400");
        let before = topics(&mut self.float(MODEL)?, &data)?;
        let after = topics(&mut self.integer(MODEL, cost)?, &data)?;
        cost.source = MINILM_FLOAT_BYTES;
        Ok(format!("{before} | {after}"))
    }
}
