//! Converts small models whose inputs need care: default values, states, samples, and nodes that
//! are refused.

mod models;

use std::path::Path;

use hardtack::{Bundle, DType, Session, SessionOptions, Tensor, golden};
use hardtack_converter::arrays::write_npz;
use hardtack_converter::{ConvertOptions, NoProgress, Report, convert};
use hardtack_onnx::proto::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use models::{FLOAT, INT64, floats, graph_attribute, int, integers, ints, model, node, value};
use prost::Message;
use tempfile::TempDir;

/// Converts a model. Returns the folder with the bundle `model.tack`.
fn converted(
    model: &ModelProto,
    options: &ConvertOptions,
) -> Result<(TempDir, Report), hardtack_converter::Error> {
    let folder = tempfile::tempdir().unwrap();
    let report = convert_in(folder.path(), model, options)?;
    Ok((folder, report))
}

fn convert_in(
    folder: &Path,
    model: &ModelProto,
    options: &ConvertOptions,
) -> Result<Report, hardtack_converter::Error> {
    let source = folder.join("model.onnx");
    std::fs::write(&source, model.encode_to_vec()).unwrap();
    convert(&source, &folder.join("model.tack"), options, &mut NoProgress)
}

fn open(folder: &TempDir) -> Bundle {
    Bundle::open(folder.path().join("model.tack")).unwrap()
}

fn graph(
    input: Vec<ValueInfoProto>,
    node: Vec<NodeProto>,
    initializer: Vec<TensorProto>,
    output: &[(&str, i32, &[&str])],
) -> ModelProto {
    let output = output.iter().map(|(name, of, dims)| value(name, *of, dims)).collect();
    model(GraphProto { input, node, initializer, output, ..GraphProto::default() })
}

fn tensor(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::new(shape, values.to_vec()).unwrap()
}

/// Returns the model `y = relu(x - limit)`, where `limit` is 0.5 by default.
fn limited(ir_version: i64) -> ModelProto {
    let mut model = graph(
        vec![value("limit", FLOAT, &["1"]), value("x", FLOAT, &["1", "2"])],
        vec![node("Sub", &["x", "limit"], &["s"], vec![]), node("Relu", &["s"], &["y"], vec![])],
        vec![floats("limit", &[1], &[0.5])],
        &[("y", FLOAT, &["1", "2"])],
    );
    model.ir_version = ir_version;
    model
}

#[test]
fn an_input_with_a_default_value_may_be_left_out_or_given() {
    let (folder, _) = converted(&limited(8), &ConvertOptions::default()).unwrap();
    let bundle = open(&folder);
    let mut session = Session::new(&bundle).unwrap();
    let names: Vec<&str> = session.inputs().iter().map(|port| port.name.as_str()).collect();
    assert_eq!(names, ["x", "limit"]);
    assert_eq!(session.inputs()[1].default, Some(tensor(&[1], &[0.5])));
    let (x, limit) = (tensor(&[1, 2], &[1.0, 2.0]), tensor(&[1], &[-1.0]));
    assert_eq!(session.run(&[("x", &x)]).unwrap()[0].1, tensor(&[1, 2], &[0.5, 1.5]));
    let given = session.run(&[("limit", &limit), ("x", &x)]).unwrap();
    assert_eq!(given[0].1, tensor(&[1, 2], &[2.0, 3.0]));
    assert!(session.run(&[("limit", &limit)]).is_err());
    // The test vectors leave it out too.
    let vectors = bundle.golden().unwrap().unwrap();
    assert_eq!(vectors.cases().next().unwrap().inputs().count(), 1);
    assert!(golden::check(&bundle, &mut session).unwrap().holds());
}

#[test]
fn constants_that_old_files_list_as_inputs_stay_constants() {
    let (folder, _) = converted(&limited(3), &ConvertOptions::default()).unwrap();
    let session = Session::new(&open(&folder)).unwrap();
    assert_eq!(session.inputs().len(), 1);
    assert_eq!(open(&folder).ports().unwrap().inputs[0].default, None);
}

#[test]
fn a_setting_fixes_an_input_with_a_default_value() {
    let set = vec![("limit".to_owned(), "1.5".to_owned())];
    let options = ConvertOptions { set, ..ConvertOptions::default() };
    let (folder, _) = converted(&limited(8), &options).unwrap();
    let mut session = Session::new(&open(&folder)).unwrap();
    assert_eq!(session.inputs().len(), 1);
    let outputs = session.run(&[("x", &tensor(&[1, 2], &[1.0, 2.0]))]).unwrap();
    assert_eq!(outputs[0].1, tensor(&[1, 2], &[0.0, 0.5]));
}

/// Returns the model `next = x + state`, with a state of these initial values, if any.
fn summing(initial: Option<&[f32]>) -> ModelProto {
    graph(
        vec![value("state", FLOAT, &["1", "2"]), value("x", FLOAT, &["1", "2"])],
        vec![node("Add", &["x", "state"], &["next"], vec![])],
        initial.iter().map(|values| floats("state", &[1, 2], values)).collect(),
        &[("next", FLOAT, &["1", "2"])],
    )
}

fn with_state() -> ConvertOptions {
    let states = vec![("next".to_owned(), "state".to_owned())];
    ConvertOptions { states, ..ConvertOptions::default() }
}

#[test]
fn a_state_begins_with_its_default_value() {
    for (initial, first) in [(None, [1.0, 2.0]), (Some(&[10.0, 20.0][..]), [11.0, 22.0])] {
        let (folder, _) = converted(&summing(initial), &with_state()).unwrap();
        let options = SessionOptions { keep_state: true, ..SessionOptions::default() };
        let mut session = Session::with_options(&open(&folder), options).unwrap();
        let x = tensor(&[1, 2], &[1.0, 2.0]);
        for _ in 0..2 {
            assert_eq!(session.run(&[("x", &x)]).unwrap()[0].1, tensor(&[1, 2], &first));
            let second = [first[0] + 1.0, first[1] + 2.0];
            assert_eq!(session.run(&[("x", &x)]).unwrap()[0].1, tensor(&[1, 2], &second));
            session.reset();
        }
    }
}

#[test]
fn data_may_leave_out_states_and_are_cast() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data.npz");
    let options = ConvertOptions { calibration: Some(data.clone()), ..with_state() };
    let x = Tensor::new(&[3, 2], vec![1.0f64, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
    // By the name of the input, and as the only array of samples.
    for name in ["x", "samples"] {
        write_npz(&data, [(name, &x)]).unwrap();
        let result = convert_in(folder.path(), &summing(None), &options);
        if name == "samples" {
            let error = result.unwrap_err().to_string();
            assert!(error.contains("neither an array \"x\""), "{error}");
            continue;
        }
        let report = result.unwrap();
        let [note] = &report.warnings[..] else { panic!("{:?}", report.warnings) };
        assert!(note.contains("array \"x\" is f64; it is cast to f32"), "{note}");
        let readings = report.readings.unwrap();
        assert_eq!((readings.values, readings.samples), (6, 3));
        assert_eq!(readings.source, "data.npz");
    }
    let bundle = Bundle::open(folder.path().join("model.tack")).unwrap();
    assert_eq!(bundle.readings().unwrap().unwrap().values, 6);
}

#[test]
fn values_that_an_input_cannot_hold_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let model = graph(
        vec![value("ids", INT64, &["1", "2"])],
        vec![node("Gather", &["table", "ids"], &["y"], vec![])],
        vec![floats("table", &[3, 1], &[1.0, 2.0, 3.0])],
        &[("y", FLOAT, &["1", "2", "1"])],
    );
    let data = folder.path().join("ids.npy");
    let npz = folder.path().join("ids.npz");
    let convert = |path: &Path| {
        let calibration = Some(path.to_owned());
        let options = ConvertOptions { calibration, ..ConvertOptions::default() };
        convert_in(folder.path(), &model, &options)
    };
    let write = |tensor: &Tensor| {
        write_npz(&npz, [("ids", tensor)]).unwrap();
        // The file in the archive is a `.npy` file.
        let mut archive = zip::ZipArchive::new(std::fs::File::open(&npz).unwrap()).unwrap();
        let mut entry = archive.by_index(0).unwrap();
        std::io::copy(&mut entry, &mut std::fs::File::create(&data).unwrap()).unwrap();
    };
    write(&Tensor::new(&[2, 2], vec![0.0f32, 1.0, 2.0, 0.0]).unwrap());
    for path in [&npz, &data] {
        assert_eq!(convert(path).unwrap().readings.unwrap().samples, 2, "{}", path.display());
    }
    write(&Tensor::new(&[2, 2], vec![0.0f32, 1.0, 2.5, 0.0]).unwrap());
    let error = convert(&npz).unwrap_err().to_string();
    for part in ["array \"ids\"", "it is f32 and has the value 2.5, which i64 cannot hold", "save"]
    {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn random_samples_suit_the_operators_that_read_them() {
    let run = |nodes, inputs, constants, dtype| {
        let output = if dtype == DType::I64 { INT64 } else { FLOAT };
        let dims: &[&str] = &[];
        let mut model = graph(inputs, nodes, constants, &[("y", output, dims)]);
        model.graph.as_mut().unwrap().output[0].r#type = None;
        let (folder, report) = converted(&model, &ConvertOptions::default()).unwrap();
        let bundle = open(&folder);
        let mut session = Session::new(&bundle).unwrap();
        let case = golden::inputs(&bundle.golden().unwrap().unwrap().cases().next().unwrap());
        let case = case.unwrap();
        let named: Vec<(&str, &Tensor)> = case.iter().map(|(n, t)| (n.as_str(), t)).collect();
        let outputs = session.run(&named).unwrap();
        assert!(outputs[0].1.to_f32().iter().all(|value| value.is_finite()), "{outputs:?}");
        assert!(report.readings.unwrap().values > 0);
        case
    };
    // A table with one row, and a divisor: no common range of integers fits both.
    let both = run(
        vec![
            node("Gather", &["table", "row"], &["g"], vec![]),
            node("Squeeze", &["d"], &["flat"], vec![]),
            node("Div", &["n", "flat"], &["q"], vec![]),
            node("Cast", &["q"], &["f"], vec![int("to", FLOAT.into())]),
            node("Add", &["g", "f"], &["y"], vec![]),
        ],
        vec![
            value("row", INT64, &["4"]),
            value("n", INT64, &["4"]),
            value("d", INT64, &["1", "4"]),
        ],
        vec![floats("table", &[1], &[0.5])],
        DType::F32,
    );
    assert!(both[0].1.to_f32().iter().all(|row| *row == 0.0));
    assert!(both[2].1.to_f32().iter().all(|divisor| *divisor >= 1.0));
    for operator in ["Log", "Sqrt"] {
        let case = run(
            vec![node(operator, &["x"], &["y"], vec![])],
            vec![value("x", FLOAT, &["1", "8"])],
            vec![],
            DType::F32,
        );
        assert!(case[0].1.to_f32().iter().all(|x| *x > 0.0), "{operator}");
    }
    // The constant indices need a batch of ten.
    let case = run(
        vec![node("Gather", &["x", "rows"], &["y"], vec![int("axis", 0)])],
        vec![value("x", FLOAT, &["n", "4"])],
        vec![integers("rows", &[2], &[7, 9])],
        DType::F32,
    );
    assert!(case[0].1.shape()[0] >= 10);
}

#[test]
fn refused_nodes_are_listed_together_with_the_reason() {
    let named = |mut node: NodeProto, name: &str, domain: &str| {
        (node.name, node.domain) = (name.into(), domain.into());
        node
    };
    let training = TensorProto {
        name: "training".into(),
        data_type: 9,
        int32_data: vec![1],
        ..TensorProto::default()
    };
    let magic = named(node("Magic", &["x"], &["m"], vec![]), "magic", "acme");
    let mut all = graph(
        vec![value("x", FLOAT, &["1", "4"])],
        vec![
            named(node("RandomNormal", &[], &["r"], vec![ints("shape", &[1, 4])]), "noise", ""),
            named(node("Dropout", &["x", "", "training"], &["d"], vec![]), "drop", ""),
            magic.clone(),
            node("Sum", &["r", "d", "m"], &["y"], vec![]),
        ],
        vec![training],
        &[("y", FLOAT, &["1", "4"])],
    );
    let error = converted(&all, &ConvertOptions::default()).err().unwrap().to_string();
    for part in [
        "RandomNormal (1 in noise), because its results are random; make them an input",
        "Dropout (1 in drop), because it is in training mode; export the model for inference",
        "acme::Magic (1 in magic)",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    // In a branch that is decided when the model runs.
    let branch = |nodes: Vec<NodeProto>, output: &str| {
        let output = vec![value(output, FLOAT, &["1", "4"])];
        graph_attribute("", GraphProto { node: nodes, output, ..GraphProto::default() })
    };
    let mut random = branch(
        vec![named(node("RandomUniform", &[], &["r"], vec![ints("shape", &[1, 4])]), "noise", "")],
        "r",
    );
    let mut same = branch(vec![node("Identity", &["x"], &["i"], vec![])], "i");
    (random.name, same.name) = ("then_branch".into(), "else_branch".into());
    const BOOL: i32 = 9;
    let branches = graph(
        vec![value("c", BOOL, &[]), value("x", FLOAT, &["1", "4"])],
        vec![node("If", &["c"], &["y"], vec![random, same])],
        vec![],
        &[("y", FLOAT, &["1", "4"])],
    );
    let error = converted(&branches, &ConvertOptions::default()).err().unwrap().to_string();
    assert!(error.contains("RandomUniform (1 in noise), because its results"), "{error}");
    // Nothing reads their results.
    all.graph.as_mut().unwrap().node[3] = node("Relu", &["x"], &["y"], vec![]);
    let (folder, report) = converted(&all, &ConvertOptions::default()).unwrap();
    assert!(report.readings.unwrap().values > 0);
    let x = tensor(&[1, 4], &[-1.0, 0.0, 1.0, 2.0]);
    let outputs = Session::new(&open(&folder)).unwrap().run(&[("x", &x)]).unwrap();
    assert_eq!(outputs[0].1, tensor(&[1, 4], &[0.0, 0.0, 1.0, 2.0]));
}

#[test]
fn a_bundle_says_how_the_readings_agreed() {
    let model = graph(
        vec![value("x", INT64, &["1", "4"])],
        vec![node("Mod", &["x", "k"], &["y"], vec![])],
        vec![integers("k", &[1], &[3])],
        &[("y", INT64, &["1", "4"])],
    );
    let (folder, _) = converted(&model, &ConvertOptions::default()).unwrap();
    let bundle = open(&folder);
    let readings = bundle.readings().unwrap().unwrap();
    assert_eq!((readings.source, readings.difference), ("random", 0.0));
    let [node] = &readings.evaluated[..] else { panic!("{readings:?}") };
    assert_eq!((node.name, node.value), ("node \"y\"", "no native implementation"));
}
