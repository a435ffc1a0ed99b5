//! Networks with states or open dimensions, whose large matrices alone become integers.

use std::path::{Path, PathBuf};

use hardtack::{Bundle, Session};
use hardtack_converter::quantize::Settings;
use hardtack_converter::{MatrixStorage, Options, Report, Silent, arrays, convert};

use crate::shared::applications::{denoised, distortion, recording, speech, topics};

/// What is measured.
pub const APPLICATIONS: [&str; 3] = ["silero", "dtln", "minilm"];

/// Bits of a weight in the mean, as the command aims at where a bundle is shipped.
const SHIPPED_BITS: f64 = 6.0;

/// MiniLM with its weights in float; the file has them in bytes already.
const MINILM_FLOAT_BYTES: u64 = 4 * 22_669_586;

/// A converted network.
struct Converted {
    report: Report,
    session: Session,
}

fn converted(
    model: &Path,
    settings: &Settings,
    weights: Option<MatrixStorage>,
) -> Result<Converted, String> {
    let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut options = Options { weights, ..Options::default() };
    if weights.is_some() {
        options.quantize = settings.clone();
        let bits = *options.quantize.weight_bits.get_or_insert(SHIPPED_BITS);
        options.quantize.weight_bits = Some(bits).filter(|bits| *bits < 8.0);
        options.transport = Some(scratch.path().join("model.tackz"));
    }
    let output = scratch.path().join("model.tack");
    let report = convert(model, &output, &options, &mut Silent).map_err(|e| e.to_string())?;
    let bundle = Bundle::open(&output).map_err(|error| error.to_string())?;
    let session = Session::new(&bundle).map_err(|error| error.to_string())?;
    Ok(Converted { report, session })
}

/// A row of the table.
pub fn row(
    assets: &Path,
    name: &str,
    settings: &Settings,
    weights: MatrixStorage,
) -> Result<String, String> {
    let (models, data) = (assets.join("models"), assets.join("data"));
    let files: Vec<PathBuf> = match name {
        "silero" => vec![models.join("silero_vad/folded_16k.onnx")],
        "dtln" => ["dtln_model_1", "dtln_model_2"]
            .map(|part| models.join(part).join("model.onnx"))
            .to_vec(),
        _ => vec![models.join("minilm_l6_v2_w8/model.onnx")],
    };
    let both = |weights| -> Result<(Vec<Report>, Vec<Session>), String> {
        let all = files.iter().map(|file| converted(file, settings, weights));
        let all = all.collect::<Result<Vec<_>, _>>()?;
        Ok(all.into_iter().map(|one| (one.report, one.session)).unzip())
    };
    let (_, mut float) = both(None)?;
    let (reports, mut integer) = both(Some(weights))?;
    let shipped: u64 = reports.iter().filter_map(|report| report.transport_bytes).sum();
    let source: u64 = match name {
        "minilm" => MINILM_FLOAT_BYTES,
        _ => reports.iter().map(|report| report.source_bytes).sum(),
    };
    let stages = reports.iter().flat_map(|report| &report.stages);
    let seconds: f64 = stages.map(|stage| stage.seconds).sum();
    let compared = match name {
        "silero" => voice(&models.join("silero_vad"), &data, &mut float[0], &mut integer[0])?,
        "dtln" => noise(&data, float, integer)?,
        _ => {
            let folder = data.join("agnews400");
            let (before, after) =
                (topics(&mut float[0], &folder)?, topics(&mut integer[0], &folder)?);
            format!("{before} | {after} | – | –")
        }
    };
    let part = 100.0 * shipped as f64 / source as f64;
    Ok(format!("{part:.1} % | {compared} | – | {seconds:.1}"))
}

/// How far probabilities of speech are from those stored with the network.
fn voice(
    model: &Path,
    data: &Path,
    float: &mut Session,
    integer: &mut Session,
) -> Result<String, String> {
    let stored = arrays::read_npz(&model.join("sequence_16k.npz")).map_err(|e| e.to_string())?;
    let stored = stored.first().ok_or("no sequence")?.1.to_f32();
    let sound = recording(&data.join("speech/speech_20s_16k.wav"))?;
    let furthest = |session: &mut Session| -> Result<f32, String> {
        let given = speech(session, &sound)?;
        let off = given.iter().zip(&stored).map(|(a, b)| (a - b).abs());
        Ok(off.fold(0f32, f32::max))
    };
    let (before, after) = (furthest(float)?, furthest(integer)?);
    Ok(format!("off by {before:.4} at most | off by {after:.4} at most | – | –"))
}

/// How much of what is heard is speech, before and after.
fn noise(data: &Path, float: Vec<Session>, integer: Vec<Session>) -> Result<String, String> {
    let noisy = recording(&data.join("speech/noisy_snr0_16k.wav"))?;
    let clean = recording(&data.join("speech/clean_16k.wav"))?;
    let ratio = |sessions: Vec<Session>| -> Result<f64, String> {
        let mut networks = <[Session; 2]>::try_from(sessions).map_err(|_| "two networks")?;
        Ok(distortion(&denoised(&mut networks, &noisy)?, &clean))
    };
    let (before, after) = (ratio(float)?, ratio(integer)?);
    Ok(format!("SI-SDR {before:.2} dB | SI-SDR {after:.2} dB | – | –"))
}
