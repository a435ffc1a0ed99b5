//! Tests `convert` with the malicious models in `tests/hostile`: each gives a one-line error and an
//! exit code within its limits, and leaves nothing behind.

mod command;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use command::{file, hardtack};

fn hostile(name: &str) -> PathBuf {
    file("converter/cli/tests/hostile").join(name)
}

/// A finished command with its own folders for the bundle and for temporary files.
struct Run {
    output: Output,
    took: Duration,
    folder: tempfile::TempDir,
    temporary: tempfile::TempDir,
}

fn command(model: &str, folder: &Path, temporary: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hardtack"));
    command.arg("convert").arg(hostile(model)).arg("-o").arg(folder.join("x.tack")).args(more);
    command.env("TMPDIR", temporary).env("RUST_BACKTRACE", "1");
    command
}

fn convert(model: &str, more: &[&str]) -> Run {
    let (folder, temporary) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let begun = Instant::now();
    let output = command(model, folder.path(), temporary.path(), more).output().unwrap();
    Run { output, took: begun.elapsed(), folder, temporary }
}

impl Run {
    /// Checks that the model was refused and that nothing is left behind. Returns the line on
    /// stderr.
    fn refused(&self) -> String {
        let words = String::from_utf8_lossy(&self.output.stderr).into_owned();
        assert_eq!(self.output.status.code(), Some(1), "{words}");
        assert_eq!(words.lines().count(), 1, "{words}");
        assert!(is_empty(self.folder.path()) && is_empty(self.temporary.path()), "{words}");
        words
    }
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

#[cfg(target_os = "linux")]
#[test]
fn a_crash_gives_one_line_that_names_model_and_node() {
    let words = convert("topk_matmul.onnx", &[]).refused();
    assert!(words.contains("topk_matmul.onnx: "), "{words}");
    assert!(words.contains("\"t\" Topk"), "{words}");
    let run = convert("topk_matmul.onnx", &["--json"]);
    run.refused();
    let json: Value = serde_json::from_slice(&run.output.stdout).unwrap();
    assert!(json["refused"].as_str().unwrap().contains("\"t\" Topk"), "{json}");
}

#[test]
fn huge_inputs_and_workloads_are_refused_immediately() {
    for (model, sentence) in [
        ("huge_input.onnx", "input \"x\" of shape [1, 1000000000] is too large"),
        ("absurd_product.onnx", "one inference takes 9.3e12 multiply-accumulates"),
    ] {
        let run = convert(model, &["--max-memory", "8GiB"]);
        let words = run.refused();
        assert!(words.contains(sentence), "{words}");
        assert!(run.took < Duration::from_secs(10), "{:?}", run.took);
    }
    let words = convert("absurd_product.onnx", &["--max-memory", "1GiB"]).refused();
    assert!(words.contains("reads or writes 1682 MiB at once"), "{words}");
    assert!(words.contains("--max-memory"), "{words}");
}

#[cfg(target_os = "linux")]
#[test]
fn memory_and_time_are_limited() {
    let words = convert("slow_product.onnx", &["--max-memory", "160MiB"]).refused();
    assert!(words.contains("more than the 160 MiB of memory"), "{words}");
    let run = convert("slow_product.onnx", &["--max-time", "3"]);
    let words = run.refused();
    assert!(words.contains("it took more than 3 seconds"), "{words}");
    assert!(words.contains("MatMul") && words.contains("in stage \"samples\""), "{words}");
    assert!(run.took < Duration::from_secs(20), "{:?}", run.took);
}

#[test]
fn attributes_beyond_32_bits_are_refused() {
    let words = convert("dilated_beyond_32_bits.onnx", &[]).refused();
    assert!(words.contains("its dilations 4294967297 does not fit in 32 bits"), "{words}");
}

#[test]
fn a_model_that_gives_nan_is_converted_and_verified() {
    let run = convert("never_a_number.onnx", &["--json"]);
    assert!(run.output.status.success() && run.output.stderr.is_empty(), "{:?}", run.output);
    let report: Value = serde_json::from_slice(&run.output.stdout).unwrap();
    assert_eq!(report["name"], "never_a_number");
    let verified = hardtack([&"verify", &run.folder.path().join("x.tack"), &"--json"]).json();
    assert_eq!(verified["holds"], true);
}

#[test]
fn an_unusable_temporary_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("nowhere");
    let output = command("never_a_number.onnx", folder.path(), &nowhere, &[]).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{words}");
    assert!(words.lines().count() == 1 && words.contains("nowhere"), "{words}");
    assert!(words.contains("TMPDIR"), "{words}");
}

/// Returns the ids of a process and its descendants that are alive.
#[cfg(target_os = "linux")]
fn family(id: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
    let children = children.unwrap_or_default();
    let ids = children.split_whitespace().filter_map(|id| id.parse().ok());
    std::iter::once(id).chain(ids.flat_map(family)).collect()
}

#[cfg(target_os = "linux")]
#[test]
fn a_signal_to_the_command_leaves_no_process_and_no_file() {
    for signal in ["-TERM", "-INT", "-KILL"] {
        let (folder, temporary) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut command = command("slow_product.onnx", folder.path(), temporary.path(), &[]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let begun = Instant::now();
        let wait = |what: &str, holds: &dyn Fn() -> bool| {
            while !holds() {
                assert!(begun.elapsed() < Duration::from_secs(60), "{signal}: {what}");
                std::thread::sleep(Duration::from_millis(10));
            }
        };
        // Wait until the supervised process has written its progress.
        wait("it never began", &|| {
            let mut folders = std::fs::read_dir(temporary.path()).unwrap().flatten();
            folders.any(|folder| folder.path().join("place").exists())
        });
        let family = family(child.id());
        assert!(family.len() > 1, "{family:?}");
        let id = child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        child.wait().unwrap();
        let gone = |id: &u32| !Path::new(&format!("/proc/{id}/exe")).exists();
        wait("processes are left", &|| family.iter().all(gone));
        wait("files are left", &|| is_empty(folder.path()) && is_empty(temporary.path()));
    }
}
