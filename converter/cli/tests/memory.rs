//! Tests of the peak memory of a conversion.
#![cfg(target_os = "linux")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Returns the path of a file of the repository.
fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// Returns the peak resident memory of a process so far, in KiB; 0 if it has ended.
fn peak(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Returns the ids of a process and its descendants that are alive: the converting and the
/// importing process.
fn family(process: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
    let children = children.unwrap_or_default();
    let ids = children.split_whitespace().filter_map(|id| id.parse().ok());
    std::iter::once(process).chain(ids.flat_map(family)).collect()
}

/// Converts a model to INT8 with `samples` samples. Returns the highest peak memory of any process,
/// in KiB.
fn converted(model: &Path, data: &Path, spec: &Path, samples: usize, options: &[&str]) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_hardtack"));
    command.arg("convert").arg(model).arg("-o").arg(folder.path().join("model.tack"));
    command.args(["--int8", "--data"]).arg(data).args(options);
    command.arg("--pre").arg(spec).args(["--samples", &samples.to_string()]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut most = 0;
    loop {
        most = family(child.id()).into_iter().map(peak).fold(most, u64::max);
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            return most;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Returns the folder `../shared/assets`, or reports that the calling test is skipped. Panics
/// instead if `HARDTACK_REQUIRE_ASSETS` is set.
fn assets() -> Option<PathBuf> {
    let assets = file("../shared/assets");
    if assets.is_dir() {
        return Some(assets);
    }
    let (reason, thread) = ("../shared/assets does not exist", std::thread::current());
    let name = thread.name().unwrap_or_default();
    assert!(std::env::var_os("HARDTACK_REQUIRE_ASSETS").is_none(), "{name}: {reason}");
    let _ = writeln!(std::io::stderr(), "skipped {name}: {reason}");
    None
}

#[test]
fn memory_does_not_grow_with_the_samples() {
    let Some(assets) = assets() else {
        return;
    };
    let model = assets.join("models/mobilenet_v1_0.25_128/model.onnx");
    let (data, spec) =
        (assets.join("data/imagenet_sample"), file("examples/specs/mobilenet_v1.toml"));
    let nearest = &["--rounding", "nearest"];
    let few = converted(&model, &data, &spec, 8, nearest);
    let many = converted(&model, &data, &spec, 136, nearest);
    // The size of one sample in KiB. 128 more samples would need 24 MiB.
    let sample = 4 * 128 * 128 * 3 / 1024;
    println!("8 samples: {few} KiB, 136 samples: {many} KiB, one sample: {sample} KiB");
    assert!(many < few + 32 * sample, "{few} KiB became {many} KiB");
}

#[test]
fn a_conversion_needs_a_small_multiple_of_the_model_size() {
    let Some(assets) = assets() else {
        return;
    };
    let peak = |name: &str, data: &str, spec: &str| {
        let model = assets.join("models").join(name).join("model.onnx");
        let size = std::fs::metadata(&model).unwrap().len() / 1024;
        let spec = file("examples/specs").join(spec);
        (converted(&model, &assets.join("data").join(data), &spec, 4, &[]), size)
    };
    // The base, which every conversion needs: the peak with a model of 0.1 MB.
    let (base, _) = peak("mlperf_tiny_kws_dscnn", "kws01/calib100.npz", "keyword_features.toml");
    for (name, spec, times) in [
        // One of its activations is two thirds as large as its weights.
        ("squeezenet1_1", "squeezenet.toml", 4),
        ("mobilenet_v2_1.0_224", "mobilenet_v2.toml", 3),
    ] {
        let (peak, size) = peak(name, "imagenet_sample", spec);
        println!("{name}: {peak} KiB, the base {base} KiB, the model {size} KiB");
        assert!(peak <= base + times * size, "{name}: {} KiB above the base", peak - base);
    }
}
