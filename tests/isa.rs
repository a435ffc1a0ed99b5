//! Integer programs compute the same bytes with every instruction set and any number of threads.
//!
//! With `HARDTACK_REQUIRE_ISA=avx512vnni,avx2`, the tests fail if the processor lacks one of these.

mod shared;

use std::path::Path;

use hardtack::internal::Packing;
use hardtack::{Bundle, Isa, Outputs, Session, SessionOptions};
use hardtack_converter::spec::Spec;
use hardtack_converter::{Int16, QuantizeOptions};
use hardtack_converter::{NoProgress, convert};
use shared::labelled::{spec_path, task};

/// Returns the instruction sets of this processor. Panics if a required one is missing.
fn supported() -> Vec<Isa> {
    let supported: Vec<Isa> = Isa::ALL.iter().copied().filter(|isa| isa.is_supported()).collect();
    let required = std::env::var("HARDTACK_REQUIRE_ISA").unwrap_or_default();
    for name in required.split(',').filter(|name| !name.is_empty()) {
        let isa =
            Isa::from_name(name).unwrap_or_else(|| panic!("{name} is not an instruction set"));
        assert!(supported.contains(&isa), "this processor does not support {isa}");
    }
    println!("instruction sets: {supported:?}");
    supported
}

fn run(bundle: &Bundle, isa: Isa, threads: usize) -> Outputs {
    let options = SessionOptions { isa: Some(isa), threads, ..SessionOptions::default() };
    let mut session = Session::with_options(bundle, options).unwrap();
    assert!(session.is_integer());
    assert_eq!(session.isa(), isa);
    let golden = bundle.golden().unwrap().expect("test vectors");
    let case = golden.cases().next().expect("a test vector");
    let inputs = hardtack::golden::inputs(&case).unwrap();
    session.run(&hardtack::golden::named(&inputs)).unwrap()
}

fn agrees_on_all(name: &str, bundle: &Bundle) {
    let bytes = |outputs: &Outputs| -> Vec<Vec<u8>> {
        outputs.iter().map(|(_, tensor)| tensor.to_bytes()).collect()
    };
    let expected = bytes(&run(bundle, Isa::Scalar, 1));
    for isa in supported() {
        for threads in [1, 2, 3] {
            let given = bytes(&run(bundle, isa, threads));
            assert!(given == expected, "{name} differs with {isa} on {threads} threads");
        }
    }
}

/// Returns options for the INT8 conversion of a network of the assets, with few samples.
fn options(name: &str, assets: &Path) -> hardtack_converter::ConvertOptions {
    let task = task(name).expect("a network with a task");
    let mut options = hardtack_converter::ConvertOptions {
        int8: true,
        calibration: Some(assets.join("data").join(task.calibration)),
        samples: 4,
        // Accuracy does not matter here: no layer may leave the integers.
        quantize: QuantizeOptions { max_error: Some(f64::INFINITY), ..QuantizeOptions::default() },
        ..Default::default()
    };
    if !task.spec.is_empty() {
        let spec = Spec::read(&spec_path(task.spec)).unwrap();
        options.preprocess = spec.preprocess;
        options.postprocess = spec.postprocess;
    }
    options
}

/// Frozen bundles are never regenerated: their golden vectors must match on every target. A change
/// that breaks this test is a change of the format.
#[test]
fn frozen_networks_compute_their_frozen_outputs() {
    for name in ["kws_dscnn", "kws_dscnn_i8", "kws_dscnn_neon"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/frozen/programs");
        let bundle = Bundle::open(folder.join(format!("{name}.tack"))).unwrap();
        bundle.verify().unwrap();
        for isa in supported() {
            let options = SessionOptions { isa: Some(isa), ..SessionOptions::default() };
            let mut session = Session::with_options(&bundle, options).unwrap();
            let checked = hardtack::golden::check(&bundle, &mut session).unwrap();
            assert!(checked.holds(), "{name} with {isa}");
        }
        agrees_on_all(name, &bundle);
    }
}

#[test]
fn networks_agree_on_every_instruction_set() {
    let Some(assets) = shared::assets() else {
        return;
    };
    // The bundles are kept, to test them on other processors.
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bundles");
    std::fs::create_dir_all(&kept).unwrap();
    for name in [
        "cifar_mobilenetv2s",
        "cifar_resnet14",
        "mlperf_tiny_ad_autoencoder",
        "mlperf_tiny_ic_resnet8",
        "mlperf_tiny_kws_dscnn",
        "mlperf_tiny_vww_mobilenet",
        "mnist_cntk",
        "mobilenet_v1_0.25_128",
        "mobilenet_v2_1.0_224",
        "squeezenet1_1",
    ] {
        let mut options = options(name, &assets);
        let source = assets.join("models").join(name).join("model.onnx");
        let output = kept.join(format!("{name}.tack"));
        let mut bundles = Vec::new();
        for packing in [Isa::detect().packing(), None] {
            options.packing = packing;
            convert(&source, &output, &options, &mut NoProgress).unwrap();
            // A mapped bundle has packed weights that are aligned to 64 bytes.
            let bundle = Bundle::open(&output).unwrap();
            let options = SessionOptions::default();
            let session = Session::with_options(&bundle, options).unwrap();
            assert_eq!(session.is_in_place(), packing == Isa::detect().packing(), "{name}");
            agrees_on_all(name, &bundle);
            bundles.push(bundle);
        }
        assert_eq!(
            vectors(&bundles[0]),
            vectors(&bundles[1]),
            "{name}: results depend on the target"
        );
        // The form for microcontrollers, with integer inputs and outputs.
        options.integer_io = true;
        let output = kept.join(format!("{name}_i8.tack"));
        convert(&source, &output, &options, &mut NoProgress).unwrap();
        agrees_on_all(name, &Bundle::open(&output).unwrap());
    }
}

#[test]
fn int16_networks_agree_on_every_instruction_set() {
    let Some(assets) = shared::assets() else {
        return;
    };
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bundles");
    std::fs::create_dir_all(&kept).unwrap();
    let name = "mlperf_tiny_kws_dscnn";
    let source = assets.join("models").join(name).join("model.onnx");
    let mut options = options(name, &assets);
    // Layers with INT16 inputs, outputs or both next to INT8 layers; then INT16 everywhere.
    let layers =
        ["StatefulPartitionedCall/functional_1/conv2d/BiasAdd", "Conv__95"].map(String::from);
    for (form, int16) in [("some", Int16::Nodes(layers.into())), ("all", Int16::All)] {
        options.quantize.int16 = int16;
        let mut given = Vec::new();
        // Every family. `mcu` is last, so that its bundle is kept for other processors.
        for packing in Packing::ALL.iter().copied().map(Some).chain([None]) {
            options.packing = packing;
            options.integer_io = packing.is_none();
            let output = kept.join(format!("{name}_{form}16_i8.tack"));
            convert(&source, &output, &options, &mut NoProgress).unwrap();
            let bundle = Bundle::open(&output).unwrap();
            agrees_on_all(&format!("{name} with 16 bits, {form}, {packing:?}"), &bundle);
            if packing.is_some() {
                given.push(vectors(&bundle));
            }
        }
        assert!(given.windows(2).all(|pair| pair[0] == pair[1]), "results depend on the family");
    }
}

/// Returns the digest of a bundle's golden vectors.
fn vectors(bundle: &Bundle) -> hardtack_bundle::Digest {
    bundle.container().unwrap().sections().last().unwrap().digest
}

#[test]
fn an_arena_limit_does_not_change_results() {
    let Some(assets) = shared::assets() else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    for (name, limit) in [
        ("cifar_mobilenetv2s", 32_000),
        ("mlperf_tiny_vww_mobilenet", 50_000),
        ("mobilenet_v2_1.0_224", 400_000),
    ] {
        let mut options = options(name, &assets);
        options.packing = Isa::detect().packing();
        let source = assets.join("models").join(name).join("model.onnx");
        let mut bundles = Vec::new();
        for arena_limit in [None, Some(limit)] {
            options.arena_limit = arena_limit;
            let output = scratch.path().join("model.tack");
            let report = convert(&source, &output, &options, &mut NoProgress).unwrap();
            let bundle = Bundle::read(&output).unwrap();
            let session = Session::new(&bundle).unwrap();
            assert_eq!(session.arena_bytes() as u64, report.arena_bytes);
            match arena_limit {
                None => assert!(report.arena_bytes > limit, "{name} needs no row tiles"),
                Some(limit) => assert!(report.arena_bytes <= limit, "{name}"),
            }
            agrees_on_all(name, &bundle);
            bundles.push(bundle);
        }
        assert_eq!(vectors(&bundles[0]), vectors(&bundles[1]), "{name}: row tiles change results");
        // Nothing is written if the limit cannot be met.
        options.arena_limit = Some(1000);
        let output = scratch.path().join("none.tack");
        let error = convert(&source, &output, &options, &mut NoProgress).unwrap_err();
        assert!(error.to_string().contains("limited to 1000 bytes"), "{error}");
        assert!(!output.exists());
    }
}
