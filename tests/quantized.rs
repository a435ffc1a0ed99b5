//! Networks that state their scales, against what ONNX Runtime gives for them
//! (`tests/quantized/make.py`).

use std::path::{Path, PathBuf};

use hardtack::{Bundle, Session};
use hardtack_converter::{Options, Report, Silent, arrays, convert};

/// What became of a network, and how far its output is from ONNX Runtime's.
struct Run {
    report: Report,
    /// Whether it runs in integers throughout.
    integer: bool,
    /// The operators of its graph.
    operators: Vec<&'static str>,
    /// The largest difference of an element.
    largest: f32,
    /// The scale of the output.
    step: f32,
    /// The part of the elements that differ by half a step or more.
    differ: f32,
}

/// Converts a network of the folder and runs it.
fn run(name: &str) -> Run {
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

/// That nothing stays in float.
fn assert_integer(name: &str, run: &Run) {
    let left: Vec<_> = run.report.float_nodes.iter().map(|n| (&n.node, &n.reason)).collect();
    assert!(run.integer && left.is_empty(), "{name}: {left:?}");
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
        let run = run(name);
        assert_integer(name, &run);
        let Run { report, largest, step, .. } = run;
        assert!(report.warnings.is_empty(), "{name}: {:?}", report.warnings);
        assert!(largest <= step * 1.001, "{name}: {} steps", largest / step);
    }
}

/// Where each element is one layer deep, hardly one of them falls so near to a half that the scale's
/// 22 bits decide.
#[test]
fn one_layer_gives_the_integers_of_onnx_runtime() {
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

/// `tests/quantized/make_torch.py` and `make_tensorflow.py`.
#[test]
fn exports_of_trainers_give_the_integers_of_onnx_runtime() {
    for name in ["torch_fx", "torch_trained", "torch_fake", "tensorflow"] {
        let run = run(name);
        assert_integer(name, &run);
        assert!(run.largest <= run.step * 1.001, "{name}: {} steps", run.largest / run.step);
    }
}

#[test]
fn what_cannot_run_in_integers_is_told() {
    let Run { report, integer, largest, step, .. } = run("sixteen_bits");
    let told = report.float_nodes.iter().find(|node| node.operator == "QuantizeLinear").unwrap();
    assert!(!integer && told.reason.contains("data type i16"), "{}", told.reason);
    assert!(report.warnings.iter().any(|warning| warning.contains("in float")));
    assert!(largest <= step.max(1e-5) * 1.001, "{largest}");
}

#[test]
fn weights_in_blocks_keep_their_integers() {
    for name in ["packed_blocks", "blocks"] {
        let Run { report, integer, largest, .. } = run(name);
        let sentence = "weights with a scale per block keep their integers and scales";
        assert!(!integer && report.rewritten.iter().any(|told| told == sentence), "{name}");
        assert!(largest < 1e-5, "{name}: {largest}");
    }
}

/// Half a byte for a weight, half a byte or two for a scale of 32, and little else.
#[test]
fn four_bits_stay_four_bits() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/quantized");
    let scratch = tempfile::tempdir().unwrap();
    let output = scratch.path().join("model.tack");
    let source = folder.join("blocks.onnx");
    convert(&source, &output, &Options::default(), &mut Silent).unwrap();
    let graph = Bundle::open(&output).unwrap().container().unwrap().graph().unwrap().unwrap();
    let count = |name: &str| graph.nodes.iter().filter(|n| n.operator.name() == name).count();
    // Of six matrices, one has bytes, and one has a scale per column; one has zero points enough to be
    // worth packing.
    assert_eq!((count("Unpack"), count("DequantizeBlocks")), (6, 5));
    let bytes: u64 = graph.constants.iter().map(|constant| constant.length).sum();
    assert!((5 * 8192 / 2 + 8192..5 * 8192 / 2 + 8192 + 8192).contains(&bytes), "{bytes}");
}

/// Sums are ONNX Runtime's, and what differs is the rounding of reals. Biases belong to the products,
/// and only limits are left beside them.
#[test]
fn dynamic_products_stay_products_of_integers() {
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
