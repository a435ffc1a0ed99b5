//! Compares pre-quantized networks (QDQ or QOperator) with the outputs of ONNX Runtime
//! (`tests/quantized/make.py`).

use std::path::{Path, PathBuf};

use hardtack::{Bundle, Session};
use hardtack_converter::{ConvertOptions, NoProgress, Report, arrays, convert};

/// The result of a conversion, and the difference of the output from ONNX Runtime's.
struct Run {
    report: Report,
    /// Whether all nodes run in integers.
    integer: bool,
    /// The operators of the graph.
    operators: Vec<&'static str>,
    /// The largest absolute difference of an element.
    largest: f32,
    /// The scale of the output.
    step: f32,
    /// The fraction of elements that differ by half a step or more.
    differ: f32,
}

/// Converts and runs a network of the folder.
fn run(name: &str) -> Run {
    let file = |end: &str| -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/quantized").join(format!("{name}.{end}"))
    };
    let scratch = tempfile::tempdir().unwrap();
    let output = scratch.path().join("model.tack");
    let report =
        convert(&file("onnx"), &output, &ConvertOptions::default(), &mut NoProgress).unwrap();
    let arrays = arrays::read_npz(&file("npz")).unwrap();
    let array = |wanted: &str| &arrays.iter().find(|(name, _)| name == wanted).unwrap().1;

    let bundle = Bundle::open(&output).unwrap();
    let mut session = Session::new(&bundle).unwrap();
    assert!(hardtack::golden::check(&bundle, &mut session).unwrap().holds(), "{name}");
    let integer = session.is_integer();
    let graph = bundle.container().unwrap().graph().unwrap().unwrap();
    let operators = graph.nodes.iter().map(|node| node.operator.name()).collect();
    let outputs = session.run(&[("x", array("x"))]).unwrap();
    let (_, y) = outputs.iter().next().unwrap();
    assert_eq!((y.dtype(), y.shape()), (array("y").dtype(), array("y").shape()), "{name}");
    let step = array("step").to_f32()[0];
    let pairs = y.to_f32().into_iter().zip(array("y").to_f32());
    let differences: Vec<f32> = pairs.map(|(got, expected)| (got - expected).abs()).collect();
    let largest = differences.iter().copied().fold(0f32, f32::max);
    let differ = differences.iter().filter(|difference| **difference >= step / 2.0).count();
    let differ = differ as f32 / differences.len() as f32;
    Run { report, integer, operators, largest, step, differ }
}

/// Asserts that no node runs in float.
fn assert_integer(name: &str, run: &Run) {
    let left: Vec<_> = run.report.float_nodes.iter().map(|n| (&n.node, &n.reason)).collect();
    assert!(run.integer && left.is_empty(), "{name}: {left:?}");
}

#[test]
fn prequantized_networks_run_in_integers_within_one_step() {
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
        let run = run(name);
        assert_integer(name, &run);
        let Run { report, largest, step, .. } = run;
        assert!(report.warnings.is_empty(), "{name}: {:?}", report.warnings);
        assert!(largest <= step * 1.001, "{name}: {} steps", largest / step);
    }
}

/// With a single layer, hardly any element is so close to a rounding tie that the precision of the
/// scale (22 bits) matters.
#[test]
fn single_layers_match_onnx_runtime() {
    for (name, nine_bits) in [("wide_weights", 5), ("scaled", 0), ("rescaled", 0)] {
        let run = run(name);
        assert_integer(name, &run);
        let Run { report, largest, step, differ, .. } = run;
        let told = report.warnings.iter().any(|told| {
            told.starts_with(&format!("the weights of {nine_bits} layers"))
                && told.contains("9 bits")
        });
        assert_eq!(told, nine_bits > 0, "{name}: {:?}", report.warnings);
        assert!(largest <= step * 1.001, "{name}: {} steps", largest / step);
        assert!(differ <= 1e-3, "{name}: {} % differ", 100.0 * differ);
    }
}

/// The networks are from `tests/quantized/make_torch.py` and `make_tensorflow.py`.
#[test]
fn exports_of_training_frameworks_match_onnx_runtime() {
    for name in ["torch_fx", "torch_trained", "torch_fake", "tensorflow"] {
        let run = run(name);
        assert_integer(name, &run);
        assert!(run.largest <= run.step * 1.001, "{name}: {} steps", run.largest / run.step);
    }
}

#[test]
fn nodes_that_cannot_run_in_integers_are_reported() {
    let Run { report, integer, largest, step, .. } = run("sixteen_bits");
    let told = report.float_nodes.iter().find(|node| node.operator == "QuantizeLinear").unwrap();
    assert!(!integer && told.reason.contains("data type i16"), "{}", told.reason);
    assert!(report.warnings.iter().any(|warning| warning.contains("in float")));
    assert!(largest <= step.max(1e-5) * 1.001, "{largest}");
}

#[test]
fn blockwise_quantized_weights_keep_their_integers() {
    for name in ["packed_blocks", "blocks"] {
        let Run { report, integer, largest, .. } = run(name);
        let sentence = "weights with a scale per block keep their integers and scales";
        assert!(!integer && report.rewritten.iter().any(|told| told == sentence), "{name}");
        assert!(largest < 1e-5, "{name}: {largest}");
    }
}

/// A weight takes half a byte, and a block of 32 has a scale.
#[test]
fn four_bit_weights_are_stored_in_four_bits() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/quantized");
    let scratch = tempfile::tempdir().unwrap();
    let output = scratch.path().join("model.tack");
    let source = folder.join("blocks.onnx");
    convert(&source, &output, &ConvertOptions::default(), &mut NoProgress).unwrap();
    let graph = Bundle::open(&output).unwrap().container().unwrap().graph().unwrap().unwrap();
    let count = |name: &str| graph.nodes.iter().filter(|n| n.operator.name() == name).count();
    // Of six matrices, one has 8-bit weights and one has a scale per column. One has enough zero
    // points that unpacking them is worthwhile.
    assert_eq!((count("Unpack"), count("DequantizeBlocks")), (6, 5));
    let bytes: u64 = graph.constants.iter().map(|constant| constant.length).sum();
    assert!((5 * 8192 / 2 + 8192..5 * 8192 / 2 + 8192 + 8192).contains(&bytes), "{bytes}");
}

/// The accumulators match ONNX Runtime's; only float rounding differs. Biases are fused into the
/// matmuls, so the only other binary operators are clamps.
#[test]
fn dynamically_quantized_matmuls_stay_integer() {
    for (name, products, limits) in
        [("dynamic", 1, 0), ("dynamic_layers", 4, 1), ("dynamic_microsoft", 2, 0)]
    {
        let Run { report, operators, largest, .. } = run(name);
        let of = |operator: &str| operators.iter().filter(|name| **name == operator).count();
        let counts = (of("DynamicMatMul"), of("Binary"));
        assert_eq!(counts, (products, limits), "{name}: {operators:?}");
        for left in ["Einsum", "Cast", "Reduce", "QuantizeLinear", "DequantizeLinear"] {
            assert_eq!(of(left), 0, "{name}: {operators:?}");
        }
        let told = "dynamically quantized matmuls";
        assert!(report.rewritten.iter().any(|sentence| sentence.starts_with(told)), "{name}");
        assert!(report.warnings.is_empty(), "{name}: {:?}", report.warnings);
        assert!(largest <= 2e-6, "{name}: {largest}");
    }
}
