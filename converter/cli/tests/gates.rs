//! Tests of `convert` with quality gates and with unusable calibration data, and of `bisect`.

mod command;

use std::path::{Path, PathBuf};

use hardtack::Tensor;
use hardtack_converter::arrays::{read_npz, write_npz};
use tempfile::TempDir;

use command::{Ran, file, hardtack};

const MODEL: &str = "examples/data/keyword_spotting/kws_dscnn.onnx";
const CALIBRATION: &str = "examples/data/keyword_spotting/calibration.npz";
const SPEC: &str = "examples/specs/keyword_features.toml";

/// Converts the keyword network to INT8 with additional arguments.
fn convert(output: &Path, calibration: &Path, more: &[&str]) -> Ran {
    let mut all: Vec<String> = ["convert", "--int8", "--samples", "8"].map(String::from).into();
    let path = |path: &Path| path.display().to_string();
    all.extend([path(&file(MODEL)), "-o".into(), path(output)]);
    all.extend(["--data".into(), path(calibration), "--pre".into(), path(&file(SPEC))]);
    all.extend(more.iter().map(|text| text.to_string()));
    command::run(&all)
}

/// Writes labeled data: the calibration samples, all with class 0.
fn labelled(folder: &TempDir) -> PathBuf {
    let float = folder.path().join("float.tack");
    let made = hardtack([&"convert", &file(MODEL), &"-o", &float, &"--pre", &file(SPEC)]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    let arrays = read_npz(&file(CALIBRATION)).unwrap();
    let (_, x) = arrays.iter().find(|(name, _)| name == "x").unwrap();
    let count = x.shape()[0];
    let path = folder.path().join("labelled.npz");
    let zeros = Tensor::new(&[count], vec![0i64; count]).unwrap();
    write_npz(&path, [("x", x), ("y", &zeros)]).unwrap();
    path
}

#[test]
fn a_bundle_that_fails_a_gate_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("kws.tack");
    let calibration = file(CALIBRATION);
    std::fs::write(&bundle, "before").unwrap();
    let missed = convert(&bundle, &calibration, &["--max-size", "10KB", "--max-arena", "1KB"]);
    assert_eq!(missed.code, 1, "{}", missed.stderr);
    assert!(missed.stderr.contains("the bundle is") && missed.stderr.contains("the arena is"));
    assert!(missed.stderr.contains("--prune-channels"), "{}", missed.stderr);
    assert_eq!(std::fs::read(&bundle).unwrap(), b"before");
    let slow = convert(&bundle, &calibration, &["--max-latency", "p50=0.001us"]);
    assert_eq!(slow.code, 1, "{}", slow.stderr);
    assert_eq!(std::fs::read(&bundle).unwrap(), b"before");
    // No temporary file is left next to the bundle.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

    let packed = folder.path().join("kws.tackz");
    let text = packed.display().to_string();
    let more = ["--max-size", "1MB", "--max-latency", "p95=10s", "--transport", &text];
    let kept = convert(&bundle, &calibration, &more);
    assert_eq!(kept.code, 0, "{}", kept.stderr);
    assert_eq!(hardtack([&"verify", &bundle]).code, 0);
    assert!(packed.exists());
}

#[test]
fn the_accuracy_gate_needs_labeled_data() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("kws.tack");
    let calibration = file(CALIBRATION);
    let blind = convert(&bundle, &calibration, &["--max-drop", "1%"]);
    assert_eq!(blind.code, 2);
    assert!(blind.stderr.contains("--evaluate"), "{}", blind.stderr);
    let data = labelled(&folder).display().to_string();
    let kept = convert(&bundle, &calibration, &["--max-drop", "50%", "--evaluate", &data]);
    assert_eq!(kept.code, 0, "{}", kept.stderr);
}

#[test]
fn max_error_auto_keeps_the_accuracy() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("kws.tack");
    let calibration = file(CALIBRATION);
    let data = file("examples/data/keyword_spotting/evaluation.npz").display().to_string();
    // With two bits per weight, a pure integer model loses several points.
    let gate = ["--weight-bits", "2", "--evaluate", &data, "--max-drop", "0.5%", "--json"];
    let missed = convert(&bundle, &calibration, &gate);
    assert_eq!(missed.code, 1, "{}", missed.stderr);
    assert!(missed.stderr.contains("--max-error auto"), "{}", missed.stderr);
    let kept = convert(&bundle, &calibration, &[&gate[..], &["--max-error", "auto"]].concat());
    let report = kept.json();
    let right = |of: &str| report["comparison"]["classes"][of]["right"].as_i64().unwrap();
    assert!(right("float") - right("bundle") <= 2, "half a point of 400");
    let nodes = |list: &str| report[list].as_array().unwrap().len();
    assert!(nodes("float_nodes") + nodes("int16_nodes") > 0);
    assert!(report["arena_bytes"].as_i64().unwrap() > 0, "some layers stay in integers");

    let blind = convert(&bundle, &calibration, &["--max-error", "auto"]);
    assert_eq!(blind.code, 2);
    assert!(blind.stderr.contains("--max-drop"), "{}", blind.stderr);
}

#[test]
fn a_gates_file_compares_with_an_earlier_report() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let calibration = file(CALIBRATION);
    let before = convert(&path("kws.tack"), &calibration, &["--json"]);
    std::fs::write(path("earlier.json"), before.json().to_string()).unwrap();
    std::fs::write(path("gates.toml"), "max-size = \"1MB\"\nearlier = \"earlier.json\"\n").unwrap();
    let gates = path("gates.toml").display().to_string();
    let same = convert(&path("kws.tack"), &calibration, &["--gates", &gates]);
    assert_eq!(same.code, 0, "{}", same.stderr);
    let mut smaller = before.json();
    smaller["bundle_bytes"] = 20_000.into();
    std::fs::write(path("earlier.json"), smaller.to_string()).unwrap();
    let worse = convert(&path("other.tack"), &calibration, &["--gates", &gates]);
    assert_eq!(worse.code, 1, "{}", worse.stderr);
    assert!(worse.stderr.contains("earlier.json"), "{}", worse.stderr);
    assert!(!path("other.tack").exists());
}

#[test]
fn calibration_data_without_a_range_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("kws.tack");
    let arrays = read_npz(&file(CALIBRATION)).unwrap();
    let (_, x) = arrays.iter().find(|(name, _)| name == "x").unwrap();
    let (shape, values) = (x.shape().to_vec(), x.to_f32());
    let elements: usize = shape[1..].iter().product();
    let written = |name: &str, count: usize, values: Vec<f32>| {
        let path = folder.path().join(name);
        let shape: Vec<usize> = std::iter::once(count).chain(shape[1..].iter().copied()).collect();
        write_npz(&path, [("x", &Tensor::new(&shape, values).unwrap())]).unwrap();
        path
    };
    let mut broken = values[..2 * elements].to_vec();
    broken[7] = f32::NAN;
    let cases = [
        (written("zeros.npz", 4, vec![0.0; 4 * elements]), "which gives no value range"),
        (written("nan.npz", 2, broken), "NaN"),
    ];
    for (data, expected) in cases {
        let refused = convert(&bundle, &data, &[]);
        assert_eq!(refused.code, 2, "{}", refused.stderr);
        assert!(refused.stderr.contains(expected), "{expected}: {}", refused.stderr);
        assert!(!bundle.exists());
    }
    let one = convert(&bundle, &written("one.npz", 1, values[..elements].to_vec()), &[]);
    assert_eq!(one.code, 0, "{}", one.stderr);
    assert!(one.stderr.contains("few calibration samples (1)"), "{}", one.stderr);
    let nearest = ["--rounding", "nearest", "--sparsity", "2:4"];
    let unfit = convert(&bundle, &file(CALIBRATION), &nearest);
    assert_eq!(unfit.code, 2);
    assert!(unfit.stderr.contains("adaptive"), "{}", unfit.stderr);
    let float = hardtack([&"convert", &file(MODEL), &"-o", &bundle, &"--weight-bits", &"4"]);
    assert_eq!(float.code, 2);
    assert!(float.stderr.contains("--int8"), "{}", float.stderr);
    let unknown = convert(&bundle, &file(CALIBRATION), &["--keep-float", "no_such_node"]);
    assert_eq!(unknown.code, 2);
    assert!(unknown.stderr.contains("no_such_node"), "{}", unknown.stderr);
}

#[test]
fn options_that_have_no_effect_in_float_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("kws.tack");
    let [model, pre, data] =
        [MODEL, SPEC, CALIBRATION].map(|path| file(path).display().to_string());
    let output = bundle.display().to_string();
    let float = |more: &[&str]| {
        command::run(&[&["convert", &model, "-o", &output, "--pre", &pre][..], more].concat())
    };
    for (options, named) in [
        (&["--target", "rpi5", "--max-arena", "9KB"][..], "warning: --target and --max-arena: "),
        (&["--arena-limit", "16KB"], "warning: --arena-limit: "),
    ] {
        let ran = float(options);
        assert_eq!((ran.code, ran.stderr.lines().count()), (0, 1), "{}", ran.stderr);
        assert!(ran.stderr.starts_with(named), "{named}: {}", ran.stderr);
        assert!(ran.stderr.contains("add --int8"), "{named}: {}", ran.stderr);
    }
    // Pruning and dynamic quantization use the data.
    for options in [&["--prune-channels", "macs=10%"][..], &["--dynamic"]] {
        let ran = float(&[&["--data", &data][..], options].concat());
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert!(!ran.stderr.contains("--int8"), "{}", ran.stderr);
    }
    let labeled = labelled(&folder).display().to_string();
    let gate = ["--max-error", "auto", "--max-drop", "50%", "--evaluate", &labeled];
    for (options, named) in [
        (&gate[..], "--max-error requires INT8; add --int8"),
        (&["--samples", "8"], "--data"),
        (&["--dense"], "--sparsity"),
    ] {
        let ran = float(options);
        assert_eq!(ran.code, 2, "{named}: {}", ran.stderr);
        assert!(ran.stderr.contains(named), "{named}: {}", ran.stderr);
    }
}

#[test]
fn bisect_finds_the_first_layer_that_deviates() {
    let folder = tempfile::tempdir().unwrap();
    let bisect = |threshold: &str| {
        hardtack([
            &"bisect",
            &file(MODEL),
            &"--input",
            &file(CALIBRATION),
            &"--data",
            &file(CALIBRATION),
            &"--pre",
            &file(SPEC),
            &"--threshold",
            &threshold,
        ])
    };
    let none = bisect("0");
    assert_eq!(none.code, 0, "{}", none.stderr);
    assert!(none.stderr.contains("no layer has an SQNR below"), "{}", none.stderr);
    let first = bisect("200");
    assert_eq!(first.code, 1, "{}", first.stderr);
    assert!(first.stderr.contains("--keep-float"), "{}", first.stderr);
    // The layer that bisect names can be kept in float.
    let name = first.stderr.split('"').nth(1).unwrap();
    let bundle = folder.path().join("kws.tack");
    let kept = convert(&bundle, &file(CALIBRATION), &["--keep-float", name, "--json"]);
    let kept = kept.json();
    let left = kept["float_nodes"].as_array().unwrap();
    assert!(left.iter().any(|node| node["node"] == name), "{left:?}");
}
