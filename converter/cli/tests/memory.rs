//! How much memory a conversion takes.
#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A file of the repository.
fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// The most memory that a process had so far, in KiB; `None` where it has ended.
fn peak(child: &Child) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Converts to INT8 with so many samples; the peak in KiB.
fn converted(model: &Path, data: &Path, spec: &Path, samples: usize) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_hardtack"));
    command.arg("convert").arg(model).arg("-o").arg(folder.path().join("model.tack"));
    command.args(["--int8", "--rounding", "nearest", "--calibrate"]).arg(data);
    command.arg("--pre").arg(spec).args(["--samples", &samples.to_string()]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut most = 0;
    loop {
        most = most.max(peak(&child).unwrap_or(0));
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            return most;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn assets() -> Option<PathBuf> {
    let assets = file("../shared/assets");
    assets.is_dir().then_some(assets)
}

#[test]
fn memory_does_not_grow_with_the_samples() {
    let Some(assets) = assets() else {
        println!("skipped: the shared assets are not beside the project");
        return;
    };
    let model = assets.join("models/mobilenet_v1_0.25_128/model.onnx");
    let (data, spec) =
        (assets.join("data/imagenet_sample"), file("examples/specs/mobilenet_v1.toml"));
    let (few, many) = (converted(&model, &data, &spec, 8), converted(&model, &data, &spec, 136));
    // What a sample takes by itself: 128 more would be 24 MiB.
    let sample = 4 * 128 * 128 * 3 / 1024;
    println!("8 samples: {few} KiB, 136 samples: {many} KiB, one sample: {sample} KiB");
    assert!(many < few + 32 * sample, "{few} KiB became {many} KiB");
}
