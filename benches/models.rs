//! A table of all models of the shared assets: parity, accuracy, sizes, load time and inference
//! time.
//!
//!     cargo bench --bench models [NAME]...
//!
//! Times are medians on this machine, with one thread. Compare them only with each other.

#[path = "../tests/shared/mod.rs"]
mod shared;

use std::path::Path;
use std::time::Instant;

use hardtack::{Bundle, Session, Tensor};
use hardtack_converter::spec::Spec;
use hardtack_converter::{ConvertOptions, NoProgress, arrays, convert};
use shared::labelled::{spec_path, task, top1};
use shared::{Checked, assets, check_outputs, model_names, settings};

fn main() {
    // `cargo test` also runs benchmarks, with this argument. There is nothing to test here.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--test") {
        return;
    }
    let Some(assets) = assets() else {
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
    let source = shared::source(&folder, scratch.path()).ok_or("skipped")?;
    let source_bytes = std::fs::metadata(&source).map_err(|e| text(&e))?.len();
    let task = task(name);
    let spec = match task.as_ref().filter(|task| !task.spec.is_empty()) {
        Some(task) => Some(Spec::read(&spec_path(task.spec)).map_err(|e| text(&e))?),
        None => None,
    };
    let mut set = settings(name);
    if let (Some(input), Some(vectors)) =
        (shared::sized_input(name), shared::vectors(&folder).first())
    {
        let arrays = arrays::read_npz(vectors).map_err(|e| text(&e))?;
        let sizes = arrays.iter().find(|(n, _)| n == input).map(|(_, tensor)| {
            tensor.shape().iter().map(usize::to_string).collect::<Vec<_>>().join("x")
        });
        set.extend(sizes.map(|sizes| (input.to_string(), sizes)));
    }
    let mut options = ConvertOptions {
        set,
        preprocess: spec.as_ref().and_then(|spec| spec.preprocess.clone()),
        postprocess: spec.as_ref().and_then(|spec| spec.postprocess),
        samples: 100,
        ..ConvertOptions::default()
    };

    let f32_path = scratch.path().join("f32.tack");
    let report = convert(&source, &f32_path, &options, &mut NoProgress).map_err(|e| text(&e))?;
    let f32_bytes = report.bundle_bytes;
    let began = Instant::now();
    let bundle = Bundle::open(&f32_path).map_err(|e| text(&e))?;
    let mut session = Session::new(&bundle).map_err(|e| text(&e))?;
    let load = began.elapsed().as_secs_f64() * 1e3;
    let parity = parity(name, &folder, &mut session)?;
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
        match convert(&source, &int8_path, &options, &mut NoProgress) {
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
                    Some(t) => top1(&bundle, &mut session, &data.join(t.evaluation))?.to_string(),
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
        f32_top1.transpose()?.map_or("–".into(), |top1| top1.to_string()),
    ))
}

/// Reads the inputs from a vector file, in the session's order.
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

fn parity(model: &str, folder: &Path, session: &mut Session) -> Result<Checked, String> {
    let mut worst = Checked::default();
    for file in shared::vectors(folder) {
        let inputs = inputs(session, &file)?;
        // Vectors with another input size need another bundle of the model.
        let sized = shared::sized_input(model).is_some();
        if sized && inputs.iter().zip(session.inputs()).any(|((_, x), port)| !fits(x, port)) {
            continue;
        }
        let given: Vec<(&str, &Tensor)> = inputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
        session.reset();
        let outputs = session.run(&given).map_err(|error| error.to_string())?;
        let arrays = arrays::read_npz(&file).map_err(|error| error.to_string())?;
        for (name, got) in outputs.iter() {
            if let Some((_, expected)) = arrays.iter().find(|(n, _)| n == name) {
                worst = worst.max(check_outputs(model, expected, got)?);
            }
        }
    }
    Ok(worst)
}

/// Returns whether the shape of a tensor matches an input.
fn fits(tensor: &Tensor, port: &hardtack::Port) -> bool {
    let same = |(size, extent): (&usize, &hardtack::Extent)| match extent {
        hardtack::Extent::Fixed(fixed) => fixed == size,
        hardtack::Extent::Named(_) => true,
    };
    tensor.shape().len() == port.shape.len() && tensor.shape().iter().zip(&port.shape).all(same)
}

/// Returns the median inference time on the first vector, in milliseconds.
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
                (port.name.clone(), Tensor::zeros(port.dtype, &shape).expect("an input's type"))
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
