//! The time to open a bundle, and the time from process start to the first result, compared with
//! tract on the ONNX file. Reports medians of interleaved processes.
//!
//!     cargo bench --bench load [MODEL]

#[path = "../tests/shared/mod.rs"]
mod shared;

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use hardtack::{Bundle, Extent, Session, Tensor};
use hardtack_converter::{ConvertOptions, NoProgress, convert};
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::infer::Factoid as _;
use tract_onnx::tract_hir::internal::DimLike as _;

const ROUNDS: usize = 21;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    match &arguments[..] {
        [role, path] if role == "hardtack" => run_hardtack(Path::new(path)),
        [role, path] if role == "tract" => run_tract(Path::new(path)),
        [] => compare("mobilenet_v2_1.0_224"),
        [model, ..] => compare(model),
    }
}

fn compare(model: &str) {
    let Some(assets) = shared::assets() else {
        return;
    };
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let folder = assets.join("models").join(model);
    let onnx = shared::source(&folder, scratch.path()).expect("the model");
    let tack = scratch.path().join("model.tack");
    let options = ConvertOptions { set: shared::settings(model), ..ConvertOptions::default() };
    convert(&onnx, &tack, &options, &mut NoProgress).expect("a bundle");

    let mut open = Vec::new();
    for _ in 0..1000 {
        let began = Instant::now();
        let bundle = Bundle::open(&tack).expect("a bundle");
        std::hint::black_box(bundle.manifest().expect("a manifest").inputs.len());
        open.push(began.elapsed().as_secs_f64());
    }
    let bytes = std::fs::metadata(&tack).expect("the bundle").len();
    println!("open and manifest of {bytes} bytes: {:.1} µs", 1e6 * median(&mut open));

    let itself = std::env::current_exe().expect("this program");
    let time = |role: &str, path: &Path| {
        let began = Instant::now();
        let status = Command::new(&itself).arg(role).arg(path).status().expect("a process");
        assert!(status.success(), "{role} failed");
        began.elapsed().as_secs_f64()
    };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(time("hardtack", &tack));
        theirs.push(time("tract", &onnx));
    }
    let (ours, theirs) = (median(&mut ours), median(&mut theirs));
    println!(
        "cold process to first result: hardtack {:.1} ms, tract from ONNX {:.1} ms, ratio {:.2}",
        1e3 * ours,
        1e3 * theirs,
        theirs / ours
    );
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn run_hardtack(path: &Path) {
    let bundle = Bundle::open(path).expect("a bundle");
    let mut session = Session::new(&bundle).expect("a session");
    let inputs: Vec<(String, Tensor)> = session
        .inputs()
        .iter()
        .map(|port| {
            let size = |extent: &Extent| match extent {
                Extent::Fixed(n) => *n,
                Extent::Named(_) => 1,
            };
            let shape: Vec<usize> = port.shape.iter().map(size).collect();
            (port.name.clone(), Tensor::zeros(port.dtype, &shape).expect("a port's type"))
        })
        .collect();
    let given: Vec<(&str, &Tensor)> = inputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
    std::hint::black_box(session.run(&given).expect("outputs").len());
}

fn run_tract(path: &Path) {
    let mut model = tract_onnx::onnx().model_for_path(path).expect("a model");
    let mut inputs: TVec<TValue> = tvec!();
    for index in 0..model.inputs.len() {
        let fact = model.input_fact(index).expect("a fact").clone();
        let shape: Vec<usize> = fact
            .shape
            .dims()
            .map(|dim| dim.concretize().and_then(|d| d.to_usize().ok()).unwrap_or(1))
            .collect();
        let dtype = fact.datum_type.concretize().expect("a type");
        model
            .set_input_fact(index, InferenceFact::dt_shape(dtype, &shape))
            .expect("a concrete input");
        inputs.push(
            tract_onnx::prelude::Tensor::zero_dt(dtype, &shape).expect("zeros").into_tvalue(),
        );
    }
    let plan = model.into_optimized().expect("optimized").into_runnable().expect("runnable");
    std::hint::black_box(plan.run(inputs).expect("outputs").len());
}
