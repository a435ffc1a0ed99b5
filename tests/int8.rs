//! Accuracy of INT8 networks compared with float, on labeled data of the shared assets.

mod shared;

use hardtack::{Bundle, Session};
use hardtack_converter::Int16;
use hardtack_converter::spec::Spec;
use hardtack_converter::{ConvertOptions, NoProgress, convert};
use shared::labelled::{Top1, answers, spec_path, task, top1};

/// Files of at least this size in bytes consist mostly of weights.
const LARGE: u64 = 1 << 20;

/// Converts a network with `weight_bits` bits per weight and checks the bundle. Returns the top-1
/// accuracy in float and in INT8, and the size of the compressed bundle relative to the source.
fn both(name: &str, weight_bits: Option<f64>) -> (Top1, Top1, f64) {
    let assets = shared::assets().expect("the caller checked");
    let task = task(name).expect("a network with a task");
    let scratch = tempfile::tempdir().unwrap();
    let source = assets.join("models").join(name).join("model.onnx");
    let spec = Spec::read(&spec_path(task.spec)).unwrap();
    let mut options = ConvertOptions {
        preprocess: spec.preprocess,
        postprocess: spec.postprocess,
        samples: 100,
        ..ConvertOptions::default()
    };
    let data = assets.join("data");
    let evaluation = data.join(task.evaluation);

    let output = scratch.path().join("model.tack");
    convert(&source, &output, &options, &mut NoProgress).unwrap();
    let bundle = Bundle::open(&output).unwrap();
    let float = top1(&bundle, &mut Session::new(&bundle).unwrap(), &evaluation).unwrap();

    options.int8 = true;
    options.calibration = Some(data.join(task.calibration));
    options.quantize.weight_bits = weight_bits.or(Some(8.0));
    options.transport = Some(scratch.path().join("model.tackz"));
    let report = convert(&source, &output, &options, &mut NoProgress).unwrap();
    assert!(report.float_nodes.is_empty(), "{name}: {:?}", report.float_nodes);
    assert!(!report.layers.is_empty(), "{name}");
    if report.source_bytes >= LARGE {
        let part = report.bundle_bytes as f64 / report.source_bytes as f64;
        assert!(part <= 0.27, "{name}: {part}");
    }
    let bundle = Bundle::open(&output).unwrap();
    let mut session = Session::new(&bundle).unwrap();
    assert!(session.is_integer(), "{name}");
    assert!(hardtack::golden::check(&bundle, &mut session).unwrap().holds(), "{name}");
    let int8 = top1(&bundle, &mut session, &evaluation).unwrap();
    let shipped = report.transport_bytes.expect("compression is enabled") as f64;
    (float, int8, shipped / report.source_bytes as f64)
}

fn loses_at_most_a_point(names: &[&str]) {
    if shared::assets().is_none() {
        return;
    }
    for name in names {
        let (float, int8, _) = both(name, None);
        println!("{name:32} float {float}, INT8 {int8}");
        assert!(int8.part() >= float.part() - 0.01 - 1e-9, "{name}: float {float}, INT8 {int8}");
    }
}

#[test]
fn small_networks_lose_at_most_a_point() {
    loses_at_most_a_point(&[
        "cifar_mobilenetv2s",
        "cifar_resnet14",
        "mlperf_tiny_ic_resnet8",
        "mlperf_tiny_kws_dscnn",
        "mnist_cntk",
    ]);
}

#[test]
fn imagenet_networks_lose_at_most_a_point() {
    loses_at_most_a_point(&["mobilenet_v1_0.25_128", "mobilenet_v2_1.0_224", "squeezenet1_1"]);
}

/// Returns the signal-to-noise ratio of a network's outputs in dB over its evaluation data, and the
/// size of its bundle in bytes.
fn outputs(name: &str, int16: Int16) -> (f64, u64) {
    let assets = shared::assets().expect("the caller checked");
    let task = task(name).expect("a network with a task");
    let scratch = tempfile::tempdir().unwrap();
    let source = assets.join("models").join(name).join("model.onnx");
    let spec = Spec::read(&spec_path(task.spec)).unwrap();
    let mut options = ConvertOptions {
        preprocess: spec.preprocess,
        postprocess: spec.postprocess,
        samples: 50,
        ..ConvertOptions::default()
    };
    let data = assets.join("data");
    let evaluation = data.join(task.evaluation);
    let output = scratch.path().join("model.tack");
    let given = |options: &ConvertOptions| {
        let report = convert(&source, &output, options, &mut NoProgress).unwrap();
        assert!(report.float_nodes.is_empty(), "{name}: {:?}", report.float_nodes);
        let bundle = Bundle::open(&output).unwrap();
        let mut session = Session::new(&bundle).unwrap();
        assert!(hardtack::golden::check(&bundle, &mut session).unwrap().holds(), "{name}");
        (answers(&bundle, &mut session, &evaluation).unwrap().scores, report.bundle_bytes)
    };
    let (float, _) = given(&options);
    options.int8 = true;
    options.calibration = Some(data.join(task.calibration));
    options.quantize.int16 = int16;
    let (integer, bytes) = given(&options);
    let pairs = float.iter().flatten().zip(integer.iter().flatten());
    let (signal, noise) = pairs.fold((0.0, 0.0), |(signal, noise), (a, b)| {
        (signal + f64::from(*a).powi(2), noise + f64::from(a - b).powi(2))
    });
    (10.0 * (signal / noise).log10(), bytes)
}

#[test]
fn int16_activations_are_closer_to_float() {
    if shared::assets().is_none() {
        return;
    }
    let name = "mlperf_tiny_kws_dscnn";
    let (narrow, narrow_bytes) = outputs(name, Int16::default());
    let (wide, wide_bytes) = outputs(name, Int16::All);
    println!("{name}: {narrow:.1} dB, {narrow_bytes} bytes; {wide:.1} dB, {wide_bytes} bytes");
    // Weights, inputs and outputs still have 8 bits.
    assert!(wide > narrow + 1.0, "INT8 {narrow:.1} dB, INT16 {wide:.1} dB");
}

#[test]
fn a_network_compresses_to_a_tenth_of_its_source() {
    if shared::assets().is_none() {
        return;
    }
    let (float, int8, shipped) = both("cifar_resnet14", Some(3.3));
    println!("float {float}, INT8 {int8}, compressed to {:.1} %", 100.0 * shipped);
    assert!(shipped <= 0.1, "{shipped}");
    assert!(int8.part() >= float.part() - 0.01 - 1e-9, "float {float}, INT8 {int8}");
}
