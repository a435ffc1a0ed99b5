//! The table of all models of the shared assets: parity, accuracy, sizes, load and run time.
//!
//!     cargo bench --bench models [NAME]...
//!
//! Times are medians on this machine, one thread; compare them with each other only.

#[path = "../tests/shared/mod.rs"]
mod shared;

use std::path::{Path, PathBuf};
use std::time::Instant;

use hardtack::process::{Postprocessor, Preprocessor};
use hardtack::{Bundle, Session, Tensor};
use hardtack_bundle::process::Postprocess;
use hardtack_converter::spec::Spec;
use hardtack_converter::{Options, Silent, arrays, convert, samples};
use shared::{Checked, assets, check_outputs, model_names, settings};

/// What a model is calibrated on and measured with.
struct Task {
    spec: &'static str,
    calibration: &'static str,
    evaluation: &'static str,
}

fn task(name: &str) -> Option<Task> {
    let (spec, calibration, evaluation) = match name {
        "cifar_mobilenetv2s" | "cifar_resnet14" => {
            ("cifar_normalised", "cifar10/calib300.npz", "cifar10/test1000.npz")
        }
        "mlperf_tiny_ic_resnet8" => ("cifar_raw", "cifar10/calib300.npz", "cifar10/test1000.npz"),
        "mlperf_tiny_kws_dscnn" => {
            ("keyword_features", "kws01/calib100.npz", "kws01/eval400.npz")
        }
        "mlperf_tiny_vww_mobilenet" => ("person", "vww_calib/images30.npz", ""),
        "mlperf_tiny_ad_autoencoder" => ("", "toycar/normal_windows.npz", ""),
        "mnist_cntk" => ("mnist", "mnist/calib500.npz", "mnist/test1500.npz"),
        "mobilenet_v1_0.25_128" => ("mobilenet_v1", "imagenet_sample", "imagenet_sample"),
        "mobilenet_v2_1.0_224" => ("mobilenet_v2", "imagenet_sample", "imagenet_sample"),
        "squeezenet1_1" => ("squeezenet", "imagenet_sample", "imagenet_sample"),
        "shufflenet_v2_int8" => ("shufflenet", "imagenet_sample", "imagenet_sample"),
        "ultraface_rfb_320" => ("ultraface", "../models/ultraface_rfb_320/images", ""),
        "yolox_nano_416" => ("yolox", "../models/yolox_nano_416/images", ""),
        _ => return None,
    };
    Some(Task { spec, calibration, evaluation })
}

fn main() {
    // `cargo test` runs benches too, with this argument; there is nothing to test here.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--test") {
        return;
    }
    let Some(assets) = assets() else {
        println!("skipped: the shared assets are not beside the project");
        return;
    };
    let wanted: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    println!(
        "| model | ONNX bytes | f32 bundle | INT8 bundle | f32 parity | f32 top-1 | INT8 top-1 \
         or difference | in float | load ms | f32 run ms | INT8 run ms |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for name in model_names() {
        if !wanted.is_empty() && !wanted.iter().any(|w| **w == name) {
            continue;
        }
        match row(&assets, &name) {
            Ok(row) => println!("| {name} | {row} |"),
            Err(problem) => println!("| {name} | {problem} |"),
        }
    }
}

fn row(assets: &Path, name: &str) -> Result<String, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let scratch = tempfile::tempdir().map_err(|e| text(&e))?;
    let folder = assets.join("models").join(name);
    let source = shared::source(&folder, scratch.path())?;
    let source_bytes = std::fs::metadata(&source).map_err(|e| text(&e))?.len();
    let task = task(name);
    let spec = match task.as_ref().filter(|task| !task.spec.is_empty()) {
        Some(task) => Some(Spec::read(&spec_path(task.spec)).map_err(|e| text(&e))?),
        None => None,
    };
    let mut options = Options {
        set: settings(name),
        preprocess: spec.as_ref().and_then(|spec| spec.preprocess.clone()),
        postprocess: spec.as_ref().and_then(|spec| spec.postprocess),
        samples: 100,
        ..Options::default()
    };

    let f32_path = scratch.path().join("f32.tack");
    let report = convert(&source, &f32_path, &options, &mut Silent).map_err(|e| text(&e))?;
    let f32_bytes = report.bundle_bytes;
    let began = Instant::now();
    let bundle = Bundle::open(&f32_path).map_err(|e| text(&e))?;
    let mut session = Session::new(&bundle).map_err(|e| text(&e))?;
    let load = began.elapsed().as_secs_f64() * 1e3;
    let parity = parity(&folder, &mut session)?;
    let f32_time = time(&folder, &mut session)?;
    let data = assets.join("data");
    let evaluation = task.as_ref().filter(|t| !t.evaluation.is_empty());
    let f32_top1 = evaluation.map(|t| top1(&bundle, &mut session, &data.join(t.evaluation)));

    let (mut int8_bytes, mut int8_result, mut int8_time, mut left) =
        ("–".to_string(), "–".to_string(), "–".to_string(), "–".to_string());
    if let Some(task) = &task {
        options.int8 = true;
        options.calibration = Some(data.join(task.calibration));
        let int8_path = scratch.path().join("int8.tack");
        match convert(&source, &int8_path, &options, &mut Silent) {
            Err(error) => int8_result = error.to_string(),
            Ok(report) => {
                int8_bytes = format!(
                    "{} ({:.0} %)",
                    report.bundle_bytes,
                    100.0 * report.bundle_bytes as f64 / source_bytes as f64
                );
                left = report.float_nodes.len().to_string();
                let bundle = Bundle::open(&int8_path).map_err(|e| text(&e))?;
                let mut session = Session::new(&bundle).map_err(|e| text(&e))?;
                int8_time = format!("{:.2}", time(&folder, &mut session)?);
                int8_result = match evaluation {
                    Some(t) => top1(&bundle, &mut session, &data.join(t.evaluation))?,
                    None => {
                        let figure =
                            report.figures.iter().find(|f| f.name.starts_with("largest INT8"));
                        figure.map_or("–".into(), |f| format!("{:.3} of range", f.value))
                    }
                };
            }
        }
    }
    Ok(format!(
        "{source_bytes} | {f32_bytes} | {int8_bytes} | {:.1e} | {} | {int8_result} | {left} | \
         {load:.1} | {f32_time:.2} | {int8_time}",
        parity.of_range,
        f32_top1.transpose()?.unwrap_or("–".into()),
    ))
}

fn spec_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/specs").join(format!("{name}.toml"))
}

/// The inputs of a file of vectors, in the session's order.
fn inputs(session: &Session, file: &Path) -> Result<Vec<(String, Tensor)>, String> {
    let arrays = arrays::read_npz(file).map_err(|error| error.to_string())?;
    let names: Vec<String> = session.inputs().iter().map(|port| port.name.clone()).collect();
    names
        .into_iter()
        .map(|name| {
            let found = arrays.iter().find(|(n, _)| *n == name).map(|(_, t)| t.clone());
            found.map(|tensor| (name.clone(), tensor)).ok_or(format!("no input {name}"))
        })
        .collect()
}

fn parity(folder: &Path, session: &mut Session) -> Result<Checked, String> {
    let mut worst = Checked::default();
    for file in shared::vectors(folder) {
        let inputs = inputs(session, &file)?;
        let given: Vec<(&str, &Tensor)> = inputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
        session.reset();
        let outputs = session.run(&given).map_err(|error| error.to_string())?;
        let arrays = arrays::read_npz(&file).map_err(|error| error.to_string())?;
        for (name, got) in outputs.iter() {
            if let Some((_, expected)) = arrays.iter().find(|(n, _)| n == name) {
                worst = worst.max(check_outputs(expected, got)?);
            }
        }
    }
    Ok(worst)
}

/// Median time of a run on the first vector, in milliseconds.
fn time(folder: &Path, session: &mut Session) -> Result<f64, String> {
    let given = match shared::vectors(folder).first() {
        Some(file) => inputs(session, file)?,
        None => session
            .inputs()
            .iter()
            .map(|port| {
                let shape: Vec<usize> = port
                    .shape
                    .iter()
                    .map(|extent| match extent {
                        hardtack::Extent::Fixed(n) => *n,
                        hardtack::Extent::Named(_) => 1,
                    })
                    .collect();
                (port.name.clone(), Tensor::zeros(port.dtype, &shape).expect("a port's type"))
            })
            .collect(),
    };
    let given: Vec<(&str, &Tensor)> = given.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let mut times = Vec::new();
    let began = Instant::now();
    while times.len() < 3 || (began.elapsed().as_secs_f64() < 1.0 && times.len() < 200) {
        let run = Instant::now();
        session.run(&given).map_err(|error| error.to_string())?;
        times.push(run.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// How often the greatest score is the right class.
fn top1(bundle: &Bundle, session: &mut Session, data: &Path) -> Result<String, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let manifest = bundle.manifest().map_err(|e| text(&e))?;
    let input = &manifest.inputs[0];
    let preprocess = bundle.preprocess().map_err(|e| text(&e))?.ok_or("no pre-processing")?;
    let preprocessor = Preprocessor::new(preprocess, input).map_err(|e| text(&e))?;
    let post = bundle.postprocess().map_err(|e| text(&e))?;
    let post = post.unwrap_or(Postprocess::Classify { softmax: false, skip: 0 });
    let classes = Postprocessor::new(post, &manifest.outputs[0], std::iter::empty());
    let mut labelled: Vec<(Tensor, usize)> = Vec::new();
    if data.is_dir() {
        for file in samples::files(data).map_err(|e| text(&e))? {
            let name = file.file_name().map(|n| n.to_string_lossy().into_owned());
            let class = name.as_deref().and_then(|n| n.split('_').next()?.parse().ok());
            let class = class.ok_or("a picture without its class in its name")?;
            for tensor in preprocessor.file(&file).map_err(|e| text(&e))? {
                labelled.push((tensor, class));
            }
        }
    } else {
        let arrays = arrays::read_npz(data).map_err(|e| text(&e))?;
        let find = |name: &str| arrays.iter().find(|(n, _)| n == name).map(|(_, t)| t);
        let (x, y) = (find("x").ok_or("no x")?, find("y").ok_or("no y")?);
        for (index, class) in y.to_f32().iter().enumerate() {
            let tensor = preprocessor.array(&samples::row(x, index)).map_err(|e| text(&e))?;
            labelled.push((tensor, *class as usize));
        }
    }
    let mut right = 0;
    for (tensor, class) in &labelled {
        let outputs = session.run(&[(input.name, tensor)]).map_err(|e| text(&e))?;
        let best = classes.top(&outputs[0].1, 1).map_err(|e| text(&e))?;
        right += (best[0].index == *class) as usize;
    }
    Ok(format!("{:.4} ({right}/{})", right as f64 / labelled.len() as f64, labelled.len()))
}
