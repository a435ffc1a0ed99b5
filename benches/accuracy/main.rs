//! The accuracy of INT8 compared with float, for networks of the shared assets.
//!
//! For classifiers: top-1 accuracy on labeled data, with every sample whose answer became correct
//! or wrong. For detectors: the boxes of the float model that the INT8 model also finds, first on
//! the calibration images, then on ImageNet images that were not used for calibration.
//!
//!     cargo bench --bench accuracy [NAME]... [-- OPTION...]
//!
//! The options are the quantization options of `hardtack convert`, in the form `--name=value`. For
//! `silero`, `dtln` and `minilm`, only the large matrices are quantized, with `--weights`.
//! `--dynamic` also runs their matmuls in INT8.

mod applications;
mod boxes;
#[path = "../../tests/shared/mod.rs"]
mod shared;

use std::path::Path;

use applications::{APPLICATIONS, Way};
use hardtack::process::Preprocessor;
use hardtack::{Bundle, Session, Tensor};
use hardtack_converter::spec::Spec;
use hardtack_converter::{ConvertOptions, MatrixStorage, NoProgress, arrays, convert, samples};
use hardtack_converter::{Equalize, Int16, QuantizeOptions, RangeMethod, Rounding};
use shared::labelled::{Answers, answers, spec_path, task};

/// The measured networks.
const NETWORKS: [&str; 17] = [
    "mlperf_tiny_kws_dscnn",
    "mlperf_tiny_ic_resnet8",
    "mlperf_tiny_vww_mobilenet",
    "mlperf_tiny_ad_autoencoder",
    "mnist_cntk",
    "cifar_resnet14",
    "cifar_mobilenetv2s",
    "squeezenet1_1",
    "mobilenet_v1_0.25_128",
    "mobilenet_v2_1.0_224",
    "ultraface_rfb_320",
    "yolox_nano_416",
    "fastestdet_352",
    "mp_palm_detection_lite",
    "arm_kws_crnn_s",
    "sst2_tiny_transformer",
    "sk_wine_minmax_pca_logreg",
];

/// The class in the labels for each class of `arm_kws_crnn_s`, which has another order.
const CRNN_CLASSES: [usize; 12] = [10, 11, 9, 3, 8, 0, 2, 6, 5, 4, 7, 1];

fn main() {
    // `cargo test` also runs benchmarks, with this argument. There is nothing to test here.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--test") {
        return;
    }
    let Some(assets) = shared::assets() else {
        return;
    };
    let wanted: Vec<&str> =
        arguments.iter().map(String::as_str).filter(|a| !a.starts_with('-')).collect();
    let way = match way(&arguments) {
        Ok(way) => way,
        Err(unknown) => {
            eprintln!("{unknown}: the option is unknown or malformed; write --name=value");
            std::process::exit(2);
        }
    };
    println!(
        "| network | compressed | float | INT8 | output dB | gained, lost | worst layer dB | seconds |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for name in NETWORKS {
        if wanted.is_empty() || wanted.contains(&name) {
            match row(&assets, name, &way.settings) {
                Ok(row) => println!("| {name} | {row} |"),
                Err(problem) => println!("| {name} | {problem} |"),
            }
        }
    }
    for name in APPLICATIONS {
        if wanted.is_empty() || wanted.contains(&name) {
            match applications::row(&assets, name, &way) {
                Ok(row) => println!("| {name} | {row} |"),
                Err(problem) => println!("| {name} | {problem} |"),
            }
        }
    }
}

/// Parses the options, in the form `--name=value`. Returns the first option that is unknown or
/// malformed as an error.
fn way(arguments: &[String]) -> Result<Way, &String> {
    let mut settings = QuantizeOptions::default();
    let mut weights = MatrixStorage::Int8;
    let mut dynamic = false;
    // Cargo passes `--bench` to every benchmark.
    let asked = |argument: &&String| argument.starts_with("--") && *argument != "--bench";
    for argument in arguments.iter().filter(asked) {
        if argument == "--dynamic" {
            dynamic = true;
            continue;
        }
        let (name, value) = argument.split_once('=').ok_or(argument)?;
        let percent = || value.strip_suffix('%')?.parse::<f64>().ok().map(|part| part / 100.0);
        match name {
            "--ranges" => {
                let named = RangeMethod::ALL.into_iter().find(|method| method.name() == value);
                settings.method = named.ok_or(argument)?;
            }
            "--rounding" if value == "nearest" => settings.rounding = Rounding::Nearest,
            "--weight-bits" => {
                settings.weight_bits = Some(value.parse().map_err(|_| argument)?);
            }
            "--equalize" if value == "off" => settings.equalize = Equalize::Off,
            "--palette" => settings.palette = Some(value.parse().map_err(|_| argument)?),
            "--sparsity" => settings.sparsity = Some(value.parse().map_err(|_| argument)?),
            "--int16" if value == "all" => settings.int16 = Int16::All,
            "--int16" => {
                settings.int16 = Int16::Nodes(value.split(',').map(String::from).collect());
            }
            "--keep-float" => {
                settings.keep_float = value.split(',').map(String::from).collect();
            }
            "--max-error" => settings.max_error = Some(percent().ok_or(argument)?),
            "--weights" => {
                let named = MatrixStorage::ALL.into_iter().find(|storage| storage.name() == value);
                weights = named.ok_or(argument)?;
            }
            _ => return Err(argument),
        }
    }
    Ok(Way { settings, weights, dynamic })
}

fn row(assets: &Path, name: &str, settings: &QuantizeOptions) -> Result<String, String> {
    let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
    let source =
        shared::source(&assets.join("models").join(name), scratch.path()).ok_or("skipped")?;
    let task = task(name).ok_or("the network has no task")?;
    let spec = match task.spec {
        "" => None,
        spec => Some(Spec::read(&spec_path(spec)).map_err(|error| error.to_string())?),
    };
    let mut options = ConvertOptions {
        preprocess: spec.as_ref().and_then(|spec| spec.preprocess.clone()),
        postprocess: spec.as_ref().and_then(|spec| spec.postprocess),
        transport: Some(scratch.path().join("model.tackz")),
        ..ConvertOptions::default()
    };
    let data = assets.join("data");
    let output = scratch.path().join("model.tack");
    let open = |options: &ConvertOptions| {
        let report = convert(&source, &output, options, &mut NoProgress)
            .map_err(|error| error.to_string())?;
        let bundle = Bundle::open(&output).map_err(|error| error.to_string())?;
        let session = Session::new(&bundle).map_err(|error| error.to_string())?;
        Ok::<_, String>((report, bundle, session))
    };
    let (_, float_bundle, mut float) = open(&options)?;
    options.int8 = true;
    options.quantize = settings.clone();
    options.quantize.weight_bits.get_or_insert(8.0);
    options.calibration = Some(data.join(task.calibration));
    let (report, int8_bundle, mut int8) = open(&options)?;
    let worst = report.layers.iter().map(|layer| layer.sqnr_db).fold(f64::INFINITY, f64::min);
    let seconds: f64 = report.stages.iter().map(|stage| stage.seconds).sum();
    let compared = if task.evaluation.is_empty() {
        let inputs = inputs(&float_bundle, &data.join(task.calibration))?;
        match name {
            "mlperf_tiny_ad_autoencoder" => reconstruction(&inputs, &mut float, &mut int8)?,
            "mlperf_tiny_vww_mobilenet" => agreement(&inputs, &mut float, &mut int8)?,
            _ => {
                let others = self::inputs(&float_bundle, &data.join("imagenet_sample"))?;
                let seen = boxes::compare(name, &inputs, &mut float, &mut int8)?;
                let unseen = boxes::compare(name, &others, &mut float, &mut int8)?;
                let noise: Vec<String> =
                    unseen.noise.iter().map(|noise| format!("{noise:.1}")).collect();
                format!("{} | {} | {} | –", seen, unseen, noise.join(", "))
            }
        }
    } else {
        let evaluation = data.join(task.evaluation);
        let answered = |bundle, session: &mut Session| {
            let mut answers = answers(bundle, session, &evaluation)?;
            if name == "arm_kws_crnn_s" {
                answers.given.iter_mut().for_each(|class| *class = CRNN_CLASSES[*class]);
            }
            Ok::<_, String>(answers)
        };
        let before = answered(&float_bundle, &mut float)?;
        top1(&before, &answered(&int8_bundle, &mut int8)?)
    };
    let shipped = report.transport_bytes.unwrap_or(report.bundle_bytes);
    let part = 100.0 * shipped as f64 / report.source_bytes as f64;
    Ok(format!("{part:.1} % | {compared} | {worst:.1} | {seconds:.1}"))
}

/// Returns the top-1 accuracy before and after, and the samples whose answer became right or wrong.
fn top1(before: &Answers, after: &Answers) -> String {
    let right = |answers: &Answers, index: usize| answers.given[index] == answers.truth[index];
    let changed = |now: bool| {
        let all = 0..before.truth.len();
        let names: Vec<String> = all
            .filter(|index| right(after, *index) == now && right(before, *index) != now)
            .map(|index| before.names[index].clone())
            .collect();
        format!("{}{} ({})", if now { '+' } else { '−' }, names.len(), names.join(" "))
    };
    let noise = noise(&before.scores, &after.scores);
    let (gained, lost) = (changed(true), changed(false));
    format!("{} | {} | {noise:.1} | {gained} {lost}", before.top1(), after.top1())
}

/// Returns the signal-to-noise ratio of outputs in dB.
fn noise(before: &[Vec<f32>], after: &[Vec<f32>]) -> f64 {
    let pairs = before.iter().flatten().zip(after.iter().flatten());
    let sums = pairs.fold((0.0, 0.0), |(signal, noise), (a, b)| {
        (signal + f64::from(*a).powi(2), noise + f64::from(a - b).powi(2))
    });
    10.0 * (sums.0 / sums.1).log10()
}

/// Counts the samples for which float and INT8 have the same best class.
fn agreement(inputs: &[Tensor], float: &mut Session, int8: &mut Session) -> Result<String, String> {
    let greatest = |values: &[f32]| {
        let best = values.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
        best.map(|(index, _)| index)
    };
    let before = inputs.iter().map(|x| run(float, x)).collect::<Result<Vec<_>, _>>()?;
    let after = inputs.iter().map(|x| run(int8, x)).collect::<Result<Vec<_>, _>>()?;
    let same = before.iter().zip(&after).filter(|(a, b)| greatest(a) == greatest(b)).count();
    let noise = noise(&before, &after);
    Ok(format!("– | {same}/{} same as float | {noise:.1} | –", inputs.len()))
}

/// Compares the mean squared reconstruction error of an autoencoder.
fn reconstruction(
    inputs: &[Tensor],
    float: &mut Session,
    int8: &mut Session,
) -> Result<String, String> {
    let error = |session: &mut Session| -> Result<f64, String> {
        let mut sum = 0.0;
        for input in inputs {
            let (given, wanted) = (run(session, input)?, input.to_f32());
            let squares = given.iter().zip(&wanted).map(|(a, b)| f64::from(a - b).powi(2));
            sum += squares.sum::<f64>() / wanted.len() as f64;
        }
        Ok(sum / inputs.len() as f64)
    };
    let (before, after) = (error(float)?, error(int8)?);
    let part = 100.0 * (after / before - 1.0);
    Ok(format!("error {before:.4} | error {after:.4} ({part:+.2} %) | – | –"))
}

/// Returns preprocessed inputs from unlabeled data.
fn inputs(bundle: &Bundle, data: &Path) -> Result<Vec<Tensor>, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let manifest = bundle.manifest().map_err(|e| text(&e))?;
    let port = &manifest.inputs[0];
    let preprocessor = match bundle.preprocess().map_err(|e| text(&e))? {
        Some(preprocess) => Preprocessor::new(preprocess, port).map_err(|e| text(&e))?,
        None => Preprocessor::identity(port),
    };
    let mut inputs = Vec::new();
    if data.is_dir() {
        for file in samples::files(data).map_err(|e| text(&e))? {
            inputs.extend(preprocessor.file(&file).map_err(|e| text(&e))?);
        }
        return Ok(inputs);
    }
    let arrays = arrays::read_npz(data).map_err(|e| text(&e))?;
    let (_, x) = arrays.iter().find(|(name, _)| name == "x").or(arrays.first()).ok_or("no data")?;
    for index in 0..x.shape()[0] {
        inputs.push(preprocessor.array(&samples::row(x, index)).map_err(|e| text(&e))?);
    }
    Ok(inputs)
}

/// Runs the model and returns its first output.
fn run(session: &mut Session, input: &Tensor) -> Result<Vec<f32>, String> {
    let name = session.inputs()[0].name.clone();
    let outputs = session.run(&[(&name, input)]).map_err(|error| error.to_string())?;
    Ok(outputs[0].1.to_f32())
}
