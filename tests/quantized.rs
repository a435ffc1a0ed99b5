//! Networks that state their scales, against what ONNX Runtime gives for them
//! (`tests/quantized/make.py`).

use std::path::{Path, PathBuf};

use hardtack::{Bundle, Session};
use hardtack_converter::{Options, Report, Silent, arrays, convert};

/// Converts a network of the folder, runs it, and tells its report, whether it is integer throughout,
/// the largest difference of an element, and the scale of its output.
fn run(name: &str) -> (Report, bool, f32, f32) {
    let file = |end: &str| -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/quantized").join(format!("{name}.{end}"))
    };
    let scratch = tempfile::tempdir().unwrap();
    let output = scratch.path().join("model.tack");
    let report = convert(&file("onnx"), &output, &Options::default(), &mut Silent).unwrap();
    let arrays = arrays::read_npz(&file("npz")).unwrap();
    let array = |wanted: &str| &arrays.iter().find(|(name, _)| name == wanted).unwrap().1;

    let bundle = Bundle::open(&output).unwrap();
    let mut session = Session::new(&bundle).unwrap();
    assert!(hardtack::golden::check(&bundle, &mut session).unwrap().holds(), "{name}");
    let integer = session.is_integer();
    let outputs = session.run(&[("x", array("x"))]).unwrap();
    let (_, y) = outputs.iter().next().unwrap();
    assert_eq!((y.dtype(), y.shape()), (array("y").dtype(), array("y").shape()), "{name}");
    let pairs = y.to_f32().into_iter().zip(array("y").to_f32());
    let largest = pairs.map(|(got, expected)| (got - expected).abs()).fold(0f32, f32::max);
    (report, integer, largest, array("step").to_f32()[0])
}

#[test]
fn stated_scales_run_in_integers_within_one_step() {
    for name in [
        "signed_residual",
        "pooled_head",
        "activations",
        "rearranged",
        "by_position",
        "integer_ports",
        "microsoft",
        "four_bits",
    ] {
        let (report, integer, largest, step) = run(name);
        let left: Vec<_> = report.float_nodes.iter().map(|n| (&n.node, &n.reason)).collect();
        assert!(integer && left.is_empty(), "{name}: {left:?}");
        assert!(report.warnings.is_empty(), "{name}: {:?}", report.warnings);
        assert!(largest <= step * 1.001, "{name}: {} steps", largest / step);
    }
}

#[test]
fn what_cannot_run_in_integers_is_told() {
    for (name, operator, reason) in [
        ("sixteen_bits", "QuantizeLinear", "it works on i16"),
        ("dynamic", "Reduce", "it has no integer form"),
    ] {
        let (report, integer, largest, step) = run(name);
        let told = report.float_nodes.iter().find(|node| node.operator == operator).unwrap();
        assert!(!integer && told.reason.contains(reason), "{name}: {}", told.reason);
        assert!(report.warnings.iter().any(|warning| warning.contains("in float")), "{name}");
        assert!(largest <= step.max(1e-5) * 1.001, "{name}: {largest}");
    }
    let (report, integer, largest, _) = run("packed_blocks");
    let sentence = "weights with a scale per block are stored as reals";
    assert!(!integer && report.rewritten.iter().any(|told| told == sentence));
    assert!(largest < 1e-5, "{largest}");
}
