//! The shared assets: their location, the comparison of their vectors, and the tasks of their
//! networks.
#![allow(dead_code, reason = "each test and benchmark uses only some helpers")]

pub mod applications;
pub mod labelled;

use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use hardtack::Tensor;

/// Returns the folder `../shared/assets`, or reports that the calling test is skipped.
///
/// # Panics
/// Panics if the folder does not exist and `HARDTACK_REQUIRE_ASSETS` is set.
pub fn assets() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/assets");
    if folder.is_dir() {
        return Some(folder);
    }
    skip("the folder ../shared/assets does not exist");
    None
}

/// Reports that the calling test is skipped, even if its output is captured.
///
/// # Panics
/// Panics if `HARDTACK_REQUIRE_ASSETS` is set.
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or_default();
    assert!(std::env::var_os("HARDTACK_REQUIRE_ASSETS").is_none(), "{name}: {reason}");
    // Written to the stream itself: the test harness shows nothing that a passing test prints.
    let _ = writeln!(std::io::stderr(), "skipped {name}: {reason}");
}

/// Returns the names of all models, sorted.
pub fn model_names() -> Vec<String> {
    let folder = assets().expect("the caller checked").join("models");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .expect("the folder of models")
        .filter_map(|entry| {
            let entry = entry.ok()?;
            entry.path().is_dir().then(|| entry.file_name().to_string_lossy().into_owned())
        })
        .collect();
    names.sort();
    names
}

/// Returns the values and shapes of inputs that the conversion of a model needs.
pub fn settings(name: &str) -> Vec<(String, String)> {
    let pairs: &[(&str, &str)] = match name {
        "silero_vad" => &[("sr", "16000"), ("input", "1x576"), ("state", "2x1x128")],
        _ => &[],
    };
    pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

/// Returns the input whose shape must be fixed to convert a model, because its operators round
/// sizes in ways that symbolic dimensions cannot express.
pub fn sized_input(name: &str) -> Option<&'static str> {
    (name == "ppocrv3_det_ch").then_some("x")
}

/// Returns the ONNX file of a model. Models with random weights are built by a script, which needs
/// Python with `onnx` and `numpy`; without them, reports that the model is skipped.
pub fn source(folder: &Path, scratch: &Path) -> Option<PathBuf> {
    let model = folder.join("model.onnx");
    if model.exists() {
        return Some(model);
    }
    let built = scratch.join("model.onnx");
    let script = folder.with_file_name("make_random_model.py");
    let status = std::process::Command::new("python3")
        .args([&script, &folder.to_path_buf(), &built])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status();
    if status.is_ok_and(|status| status.success()) {
        return Some(built);
    }
    skip(&format!("building {} needs Python with onnx and numpy", folder.display()));
    None
}

/// Returns the vector files of a model.
pub fn vectors(folder: &Path) -> Vec<PathBuf> {
    (0..).map(|k| folder.join(format!("io_{k}.npz"))).take_while(|path| path.exists()).collect()
}

/// The difference between outputs and expected outputs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checked {
    /// The largest absolute difference, relative to the output's range.
    pub of_range: f64,
    /// The number of compared outputs.
    pub outputs: usize,
}

impl Checked {
    /// Combines two comparisons: the larger difference, and the total number of outputs.
    pub fn max(self, other: Checked) -> Checked {
        Checked {
            of_range: self.of_range.max(other.of_range),
            outputs: self.outputs + other.outputs,
        }
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} outputs, largest difference {:.1e} of the range", self.outputs, self.of_range)
    }
}

/// Compares an output with a relative tolerance of 1e-3, plus an absolute tolerance of 1e-4 of the
/// range (0.03 for models that are already quantized).
pub fn check_outputs(model: &str, expected: &Tensor, got: &Tensor) -> Result<Checked, String> {
    if expected.shape() != got.shape() {
        return Err(format!("shape {:?} instead of {:?}", got.shape(), expected.shape()));
    }
    let (expected, got) = (expected.to_f32(), got.to_f32());
    let low = expected.iter().copied().fold(f32::INFINITY, f32::min) as f64;
    let high = expected.iter().copied().fold(f32::NEG_INFINITY, f32::max) as f64;
    let range = if high > low { high - low } else { high.abs().max(1e-6) };
    // In a pre-quantized network, a tie that another runtime rounds in the other direction changes
    // a value by a whole step. This accumulates to three steps after 60 layers.
    let allowed = if model.ends_with("_int8") { 0.03 } else { 1e-4 };
    let mut worst = 0f64;
    for (index, (e, g)) in expected.iter().zip(&got).enumerate() {
        let (e, g) = (*e as f64, *g as f64);
        let off = (e - g).abs();
        if off.is_nan() || off > 1e-3 * e.abs() + allowed * range {
            return Err(format!("element {index} is {g} instead of {e} (range {range})"));
        }
        worst = worst.max(off / range);
    }
    Ok(Checked { of_range: worst, outputs: 1 })
}
