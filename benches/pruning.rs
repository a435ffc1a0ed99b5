//! The accuracy and speed of channel pruning: INT8 networks of the shared assets, unpruned and
//! pruned, on labeled data. Their timed inferences are interleaved, on one thread.
//!
//!     cargo bench --bench pruning [-- PART...]
//!
//! PART is the fraction of the MACs to prune, such as 0.5 (default: 0.3).

#[path = "../tests/shared/mod.rs"]
mod shared;

use std::path::Path;
use std::time::Instant;

use hardtack::{Bundle, Extent, Session, Tensor};
use hardtack_converter::spec::Spec;
use hardtack_converter::{ConvertOptions, NoProgress, PruneTarget, Report, convert};
use shared::labelled::{Top1, spec_path, task, top1};

const NETWORKS: [&str; 2] = ["cifar_resnet14", "cifar_mobilenetv2s"];
/// The number of calibration samples: all that exist.
const SAMPLES: usize = 300;
/// The number of turns per network.
const TURNS: usize = 401;
/// The number of inferences per turn.
const RUNS: usize = 20;

fn main() {
    // `cargo test` also runs benchmarks, with this argument. There is nothing to test here.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--test") {
        return;
    }
    let Some(assets) = shared::assets() else {
        return;
    };
    let mut parts: Vec<f64> =
        arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    if parts.is_empty() {
        parts.push(0.3);
    }
    println!("| network | pruned MACs | remaining | float | INT8 | pruned INT8 | time |");
    println!("|---|---|---|---|---|---|---|");
    for name in NETWORKS {
        for part in &parts {
            match row(&assets, name, *part) {
                Ok(row) => println!("| {name} | {:.0} % | {row} |", 100.0 * part),
                Err(problem) => println!("| {name} | {problem} |"),
            }
        }
    }
}

/// A converted network.
struct Form {
    report: Report,
    top1: Top1,
    session: Session,
}

fn row(assets: &Path, name: &str, part: f64) -> Result<String, String> {
    let task = task(name).ok_or("the network has no task")?;
    let spec = Spec::read(&spec_path(task.spec)).map_err(|error| error.to_string())?;
    let data = assets.join("data");
    let form = |int8: bool, prune_channels: Option<PruneTarget>| -> Result<Form, String> {
        let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
        let source =
            shared::source(&assets.join("models").join(name), scratch.path()).ok_or("skipped")?;
        let options = ConvertOptions {
            preprocess: spec.preprocess.clone(),
            postprocess: spec.postprocess,
            samples: SAMPLES,
            calibration: int8.then(|| data.join(task.calibration)),
            int8,
            prune_channels,
            ..ConvertOptions::default()
        };
        let output = scratch.path().join("model.tack");
        let report = convert(&source, &output, &options, &mut NoProgress)
            .map_err(|error| error.to_string())?;
        let bundle = Bundle::open(&output).map_err(|error| error.to_string())?;
        let mut session = Session::new(&bundle).map_err(|error| error.to_string())?;
        let top1 = top1(&bundle, &mut session, &data.join(task.evaluation))?;
        Ok(Form { report, top1, session })
    };
    let (float, mut int8) = (form(false, None)?, form(true, None)?);
    let mut pruned = form(true, Some(PruneTarget::Macs(part)))?;
    let left = pruned.report.pruned.as_ref().map_or(1.0, |of| of.after.macs / of.before.macs);
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        turn(&mut int8.session, &mut before)?;
        turn(&mut pruned.session, &mut after)?;
    }
    let time = median(after) / median(before);
    Ok(format!(
        "{:.0} % | {} | {} | {} | {:.0} %",
        100.0 * left,
        float.top1,
        int8.top1,
        pruned.top1,
        100.0 * time,
    ))
}

/// Runs one turn, and appends the time of each inference in seconds.
fn turn(session: &mut Session, times: &mut Vec<f64>) -> Result<(), String> {
    let port = &session.inputs()[0];
    let size = |extent: &Extent| if let Extent::Fixed(size) = extent { *size } else { 1 };
    let shape: Vec<usize> = port.shape.iter().map(size).collect();
    let input = Tensor::zeros(port.dtype, &shape).ok_or("the input is too large")?;
    let name = port.name.clone();
    for _ in 0..RUNS {
        let began = Instant::now();
        session.run(&[(&name, &input)]).map_err(|error| error.to_string())?;
        times.push(began.elapsed().as_secs_f64());
    }
    Ok(())
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
