//! Converts small models that tract alone reads wrongly or not at all, and compares the outputs of
//! the bundles with values computed by hand from the definitions of ONNX.

mod models;

use std::path::Path;

use hardtack::{Bundle, Session, Tensor};
use hardtack_converter::{ConvertOptions, NoProgress, Report, convert};
use hardtack_onnx::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    SparseTensorProto, TensorProto,
};
use models::{
    BFLOAT16, FLOAT, INT64, floats, graph_attribute, int, integers, ints, model, node, value,
};
use prost::Message;

fn try_convert(model: &ModelProto, folder: &Path) -> Result<Report, hardtack_converter::Error> {
    let source = folder.join("model.onnx");
    std::fs::write(&source, model.encode_to_vec()).unwrap();
    convert(&source, &folder.join("model.tack"), &ConvertOptions::default(), &mut NoProgress)
}

/// Converts a model and runs the bundle. Returns the first output.
fn run(model: &ModelProto, inputs: &[(&str, Tensor)]) -> Tensor {
    let folder = tempfile::tempdir().unwrap();
    try_convert(model, folder.path()).unwrap();
    let bundle = Bundle::open(folder.path().join("model.tack")).unwrap();
    let mut session = Session::new(&bundle).unwrap();
    let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, t)| (*name, t)).collect();
    let outputs = session.run(&inputs).unwrap();
    let (_, first) = outputs.iter().next().unwrap();
    first.clone()
}

fn tensor(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::new(shape, values.to_vec()).unwrap()
}

#[test]
fn remainders_have_the_sign_of_the_divisor() {
    let model = model(GraphProto {
        node: vec![node("Mod", &["x", "k"], &["y"], vec![])],
        initializer: vec![integers("k", &[2, 1], &[3, -3])],
        input: vec![value("x", INT64, &["1", "4"])],
        output: vec![value("y", INT64, &["2", "4"])],
        ..GraphProto::default()
    });
    let x = Tensor::new(&[1, 4], vec![-4i64, -1, 4, 5]).unwrap();
    let expected = Tensor::new(&[2, 4], vec![2i64, 2, 1, 2, -1, -1, -2, -1]).unwrap();
    assert_eq!(run(&model, &[("x", x)]), expected);
}

#[test]
fn a_slice_with_a_start_and_a_step_follows_a_convolution() {
    let model = model(GraphProto {
        node: vec![
            node("Conv", &["x", "w"], &["c"], vec![]),
            node("Slice", &["c", "one", "end", "axis", "two"], &["y"], vec![]),
        ],
        initializer: vec![
            floats("w", &[1, 1, 2], &[1.0, 10.0]),
            integers("one", &[1], &[1]),
            integers("end", &[1], &[i64::MAX]),
            integers("axis", &[1], &[2]),
            integers("two", &[1], &[2]),
        ],
        input: vec![value("x", FLOAT, &["1", "1", "6"])],
        output: vec![value("y", FLOAT, &["1", "1", "2"])],
        ..GraphProto::default()
    });
    let x = tensor(&[1, 1, 6], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    // The convolution is [21, 32, 43, 54, 65].
    assert_eq!(run(&model, &[("x", x)]), tensor(&[1, 1, 2], &[32.0, 54.0]));
}

#[test]
fn computed_sizes_follow_integer_arithmetic() {
    // Pads the last axis to a multiple of 4.
    let model = model(GraphProto {
        node: vec![
            node("Shape", &["x"], &["s"], vec![int("start", 1)]),
            node("Neg", &["s"], &["n"], vec![]),
            node("Mod", &["n", "four"], &["m"], vec![]),
            node("Concat", &["zeros", "m"], &["pads"], vec![int("axis", 0)]),
            node("Pad", &["x", "pads"], &["y"], vec![]),
        ],
        initializer: vec![integers("four", &[1], &[4]), integers("zeros", &[3], &[0; 3])],
        input: vec![value("x", FLOAT, &["1", "w"])],
        output: vec![value("y", FLOAT, &["1", "v"])],
        ..GraphProto::default()
    });
    for (width, padded) in [(3, 4), (4, 4), (5, 8)] {
        let y = run(&model, &[("x", tensor(&[1, width], &vec![1.0; width]))]);
        assert_eq!(y.shape(), [1, padded]);
        assert_eq!(y.to_f32().iter().sum::<f32>(), width as f32);
    }
}

#[test]
fn a_condition_on_a_dynamic_size_is_decided_at_run_time() {
    let branch = |operator: &str| GraphProto {
        node: vec![node(operator, &["x"], &[operator], vec![])],
        output: vec![value(operator, FLOAT, &["n"])],
        ..GraphProto::default()
    };
    let model = model(GraphProto {
        node: vec![
            node("Size", &["x"], &["s"], vec![]),
            node("Equal", &["s", "three"], &["c"], vec![]),
            node(
                "If",
                &["c"],
                &["y"],
                vec![
                    graph_attribute("then_branch", branch("Neg")),
                    graph_attribute("else_branch", branch("Abs")),
                ],
            ),
        ],
        initializer: vec![integers("three", &[], &[3])],
        input: vec![value("x", FLOAT, &["n"])],
        output: vec![value("y", FLOAT, &["n"])],
        ..GraphProto::default()
    });
    let run = |values: &[f32]| run(&model, &[("x", tensor(&[values.len()], values))]);
    assert_eq!(run(&[1.0, -2.0, 3.0]), tensor(&[3], &[-1.0, 2.0, -3.0]));
    assert_eq!(run(&[1.0, -2.0]), tensor(&[2], &[1.0, 2.0]));
}

#[test]
fn loops_and_selections_run_in_the_evaluator() {
    // Doubles x three times; the scan output has a row for each iteration.
    let body = GraphProto {
        node: vec![
            node("Add", &["v", "v"], &["w"], vec![]),
            node("Identity", &["c"], &["d"], vec![]),
            node("Identity", &["w"], &["row"], vec![]),
        ],
        input: vec![value("i", INT64, &[]), value("c", 9, &[]), value("v", FLOAT, &["2"])],
        output: vec![value("d", 9, &[]), value("w", FLOAT, &["2"]), value("row", FLOAT, &["2"])],
        ..GraphProto::default()
    };
    let looped = model(GraphProto {
        node: vec![node(
            "Loop",
            &["m", "", "x"],
            &["last", "y"],
            vec![graph_attribute("body", body)],
        )],
        initializer: vec![integers("m", &[], &[3])],
        input: vec![value("x", FLOAT, &["2"])],
        output: vec![value("y", FLOAT, &["3", "2"])],
        ..GraphProto::default()
    });
    let y = run(&looped, &[("x", tensor(&[2], &[1.0, 3.0]))]);
    assert_eq!(y, tensor(&[3, 2], &[2.0, 6.0, 4.0, 12.0, 8.0, 24.0]));

    let selected = model(GraphProto {
        node: vec![node("NonZero", &["x"], &["y"], vec![])],
        input: vec![value("x", FLOAT, &["4"])],
        output: vec![value("y", INT64, &["1", "k"])],
        ..GraphProto::default()
    });
    let y = run(&selected, &[("x", tensor(&[4], &[0.0, 5.0, 0.0, 7.0]))]);
    assert_eq!(y, Tensor::new(&[1, 2], vec![1i64, 3]).unwrap());
}

#[test]
fn types_and_forms_of_constants_keep_their_values() {
    // The sum of a sparse constant and of a bfloat16 one.
    let sparse = SparseTensorProto {
        values: Some(floats("s", &[1], &[5.0])),
        indices: Some(integers("", &[1], &[2])),
        dims: vec![3],
    };
    let half = TensorProto {
        name: "b".into(),
        dims: vec![1],
        data_type: BFLOAT16,
        int32_data: vec![0x3f80], // 1.0
        ..TensorProto::default()
    };
    let model = model(GraphProto {
        node: vec![
            node("Cast", &["b"], &["one"], vec![int("to", FLOAT.into())]),
            node("Add", &["x", "s"], &["t"], vec![]),
            node("Add", &["t", "one"], &["y"], vec![]),
        ],
        initializer: vec![half],
        sparse_initializer: vec![sparse],
        input: vec![value("x", FLOAT, &["3"])],
        output: vec![value("y", FLOAT, &["3"])],
        ..GraphProto::default()
    });
    let y = run(&model, &[("x", tensor(&[3], &[1.0, 2.0, 3.0]))]);
    assert_eq!(y, tensor(&[3], &[2.0, 3.0, 9.0]));
}

#[test]
fn functions_have_their_own_operator_set_and_defaults() {
    // Before version 13, Softmax flattens the axes from `axis` on.
    let function = FunctionProto {
        name: "Flat".into(),
        domain: "own".into(),
        input: vec!["a".into()],
        output: vec!["b".into()],
        node: vec![node(
            "Softmax",
            &["a"],
            &["b"],
            vec![AttributeProto { ref_attr_name: "from".into(), ..int("axis", 0) }],
        )],
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 11 }],
        attribute_proto: vec![int("from", 1)],
        ..FunctionProto::default()
    };
    let call = NodeProto { domain: "own".into(), ..node("Flat", &["x"], &["y"], vec![]) };
    let mut model = model(GraphProto {
        node: vec![call],
        input: vec![value("x", FLOAT, &["1", "2", "2"])],
        output: vec![value("y", FLOAT, &["1", "2", "2"])],
        ..GraphProto::default()
    });
    model.functions = vec![function];
    model.opset_import.push(OperatorSetIdProto { domain: "own".into(), version: 1 });
    let y = run(&model, &[("x", tensor(&[1, 2, 2], &[0.0; 4]))]);
    assert_eq!(y, tensor(&[1, 2, 2], &[0.25; 4]));
}

#[test]
fn an_output_may_be_an_input_and_dimensions_have_any_name() {
    let model = model(GraphProto {
        node: vec![node("Neg", &["x"], &["y"], vec![])],
        input: vec![value("x", FLOAT, &["batch-size", "2"])],
        output: vec![
            value("x", FLOAT, &["batch-size", "2"]),
            value("y", FLOAT, &["batch-size", "2"]),
        ],
        ..GraphProto::default()
    });
    let x = tensor(&[1, 2], &[1.0, 2.0]);
    assert_eq!(run(&model, &[("x", x.clone())]), x);
}

#[test]
fn random_operators_are_refused() {
    let model = model(GraphProto {
        node: vec![node("RandomNormalLike", &["x"], &["y"], vec![])],
        input: vec![value("x", FLOAT, &["2"])],
        output: vec![value("y", FLOAT, &["2"])],
        ..GraphProto::default()
    });
    let folder = tempfile::tempdir().unwrap();
    let error = try_convert(&model, folder.path()).unwrap_err().to_string();
    assert!(error.contains("RandomNormalLike") && error.contains("random"), "{error}");
    assert!(!folder.path().join("model.tack").exists());
}

#[test]
fn what_tract_reads_correctly_is_native() {
    // What tract reads correctly is not evaluated.
    let model = model(GraphProto {
        node: vec![node("Transpose", &["x"], &["y"], vec![ints("perm", &[1, 0])])],
        input: vec![value("x", FLOAT, &["2", "3"])],
        output: vec![value("y", FLOAT, &["3", "2"])],
        ..GraphProto::default()
    });
    let folder = tempfile::tempdir().unwrap();
    let report = try_convert(&model, folder.path()).unwrap();
    assert_eq!(report.warnings, Vec::<String>::new());
    assert!(report.graph.iter().all(|node| node.operator != "Evaluate"), "{:?}", report.graph);
}
