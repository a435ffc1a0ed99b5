//! Evaluates the node tests of the ONNX project, which are in the Python package `onnx`.
//!
//! The folder `onnx/backend/test/data/node` of the package is found through `python3`, or given in
//! `HARDTACK_ONNX_NODE_TESTS`. `HARDTACK_ONLY` selects tests whose name contains it, and
//! `HARDTACK_VERBOSE` prints every failure.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;

use hardtack_onnx::proto::{ModelProto, OptionalProto, SequenceProto, TensorProto};
use hardtack_onnx::{read, read_tensor, read_value};
use hardtack_operators::{NoObserver, Tensor, Value, ValueType};
use prost::Message;

fn folder() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("HARDTACK_ONNX_NODE_TESTS") {
        return Some(folder.into());
    }
    let code = "import onnx, os; print(os.path.dirname(onnx.__file__))";
    let output = Command::new("python3").args(["-c", code]).output().ok()?;
    let package = String::from_utf8(output.stdout).ok()?;
    let folder = Path::new(package.trim()).join("backend/test/data/node");
    (!package.trim().is_empty() && folder.is_dir()).then_some(folder)
}

/// Reads a value that has a type.
fn value(path: &Path, value_type: &ValueType) -> Result<Value, String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let decoded = match value_type {
        ValueType::Sequence(_) => {
            let sequence = SequenceProto::decode(&bytes[..]).map_err(|e| e.to_string())?;
            read_value(Some(&sequence), None)
        }
        ValueType::Optional(_) => {
            let optional = OptionalProto::decode(&bytes[..]).map_err(|e| e.to_string())?;
            read_value(None, Some(&optional))
        }
        _ => read_tensor(&TensorProto::decode(&bytes[..]).map_err(|e| e.to_string())?)
            .map(Value::from),
    };
    decoded.map_err(|error| error.to_string())
}

/// Compares with the tolerances of the ONNX project's own runner.
fn compare(expected: &Value, found: &Value) -> Result<(), String> {
    match (expected, found) {
        (Value::Tensor(a), Value::Tensor(b)) => compare_tensors(a, b),
        (Value::Sequence(a), Value::Sequence(b)) if a.len() == b.len() => {
            a.iter().zip(b.iter()).try_for_each(|(a, b)| compare(a, b))
        }
        (Value::Optional(Some(a)), Value::Optional(Some(b))) => compare(a, b),
        (Value::Optional(Some(a)), b) => compare(a, b),
        (Value::Optional(None), Value::Optional(None)) => Ok(()),
        _ => Err(format!("expected a {}, found a {}", expected.kind(), found.kind())),
    }
}

fn compare_tensors(a: &Tensor, b: &Tensor) -> Result<(), String> {
    if (a.element(), a.shape()) != (b.element(), b.shape()) {
        return Err(format!(
            "expected {} {:?}, found {} {:?}",
            a.element(),
            a.shape(),
            b.element(),
            b.shape()
        ));
    }
    let (Ok(x), Ok(y)) = (a.to_f64(), b.to_f64()) else {
        return if a == b { Ok(()) } else { Err("the elements differ".into()) };
    };
    let (relative, absolute) = match a.element().bits() {
        Some(bits) if a.element().is_float() && bits <= 16 => (1e-2, 1e-3),
        _ => (1e-3, 1e-7),
    };
    // A sum that should be 0 has the rounding of its terms.
    let largest = x.iter().filter(|x| x.is_finite()).fold(0f64, |all, x| all.max(x.abs()));
    let absolute = absolute + 1e-6 * largest;
    for (x, y) in x.iter().zip(&y) {
        let close =
            x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= absolute + relative * x.abs();
        if !close {
            return Err(format!("expected {x}, found {y}"));
        }
    }
    Ok(())
}

fn check(test: &Path) -> Result<(), String> {
    let bytes = std::fs::read(test.join("model.onnx")).map_err(|error| error.to_string())?;
    let proto = ModelProto::decode(&bytes[..]).map_err(|error| error.to_string())?;
    let model = read(&proto).map_err(|error| error.to_string())?;
    let mut sets = 0;
    for set in 0.. {
        let set = test.join(format!("test_data_set_{set}"));
        if !set.is_dir() {
            break;
        }
        let mut inputs = HashMap::new();
        for (index, input) in model.graph.inputs.iter().enumerate() {
            let path = set.join(format!("input_{index}.pb"));
            if path.exists() {
                let value_type = input.value_type.as_ref().unwrap_or(&ValueType::Other);
                inputs.insert(input.name.clone(), value(&path, value_type)?);
            }
        }
        let outputs = model.run(inputs, &mut NoObserver).map_err(|error| error.to_string())?;
        for (index, output) in model.graph.outputs.iter().enumerate() {
            let path = set.join(format!("output_{index}.pb"));
            let value_type = output.value_type.as_ref().unwrap_or(&ValueType::Other);
            compare(&value(&path, value_type)?, &outputs[index])
                .map_err(|problem| format!("output {:?}: {problem}", output.name))?;
        }
        sets += 1;
    }
    if sets == 0 { Err("it has no data".into()) } else { Ok(()) }
}

/// The tests that do not pass, by the beginning of their names, and why.
const REFUSED: [(&str, &str); 18] = [
    ("test_adagrad", "it is for training"),
    ("test_adam", "it is for training"),
    ("test_momentum", "it is for training"),
    ("test_nesterov_momentum", "it is for training"),
    ("test_bernoulli", "its results are random"),
    ("test_training_dropout_mask", "its results are random"),
    ("test_training_dropout_default", "its results are random"),
    ("test_training_dropout", "its results are random"),
    ("test_image_decoder", "images are decoded by the pre-processing"),
    ("test_regex_full_match", "it needs the regular expressions of RE2"),
    ("test_attention_3d_with_past_and_present_qk_matmul_bias", CORRECTED),
    ("test_attention_3d_with_past_and_present_qk_matmul_softcap", CORRECTED),
    ("test_attention_4d_with_past_and_present_qk_matmul_bias", CORRECTED),
    ("test_attention_4d_with_qk_matmul_bias", CORRECTED),
    ("test_attention_4d_with_qk_matmul_softcap", CORRECTED),
    ("test_l2normalization_axis_0", CORRECTED),
    ("test_qlinearmatmul_2D_int8", WRAPS),
    ("test_qlinearmatmul_3D_int8", WRAPS),
];

/// ONNX Runtime and QuantizeLinear saturate.
const WRAPS: &str = "its expected integers wrap around";

/// Later releases of the ONNX package corrected the specification and the test.
const CORRECTED: &str = "later releases of ONNX corrected this test";

#[test]
fn node_tests_pass() {
    let Some(folder) = folder() else {
        assert!(
            std::env::var_os("HARDTACK_REQUIRE_ASSETS").is_none(),
            "the Python package onnx with its node tests is not installed"
        );
        eprintln!("SKIPPED: the Python package onnx with its node tests is not installed");
        return;
    };
    let only = std::env::var("HARDTACK_ONLY").unwrap_or_default();
    let mut tests: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("model.onnx").exists())
        .filter(|path| path.file_name().is_some_and(|n| n.to_string_lossy().contains(&only)))
        .collect();
    tests.sort();
    let mut failures = BTreeMap::new();
    for test in &tests {
        let name = test.file_name().unwrap().to_string_lossy().into_owned();
        let result = std::panic::catch_unwind(|| check(test));
        let result = result.unwrap_or_else(|_| Err("PANICKED".into()));
        if let Err(problem) = result {
            failures.insert(name, problem);
        }
    }
    let refused = |name: &str| REFUSED.iter().any(|(refused, _)| name.starts_with(refused));
    if std::env::var_os("HARDTACK_VERBOSE").is_some() {
        for (name, problem) in &failures {
            eprintln!("{name}: {problem}");
        }
    }
    eprintln!("{} of {} node tests passed", tests.len() - failures.len(), tests.len());
    failures.retain(|name, _| !refused(name));
    for (name, problem) in &failures {
        eprintln!("{name}: {problem}");
    }
    assert!(failures.is_empty(), "{} node tests failed", failures.len());
}
