//! Sparse weights, on real networks.

mod shared;

use std::path::Path;

use hardtack::{Bundle, Isa, Session, SessionOptions};
use hardtack_bundle::{Digest, Family};
use hardtack_converter::QuantizeOptions;
use hardtack_converter::spec::Spec;
use hardtack_converter::{ConvertOptions, NoProgress, convert};
use hardtack_engine::{Program, SparseLayer};
use shared::labelled::{spec_path, task};

/// Returns the digest of a bundle's golden vectors.
fn vectors(bundle: &Bundle) -> Digest {
    bundle.container().unwrap().sections().last().unwrap().digest
}

#[test]
fn sparse_storage_is_smaller_and_does_not_change_results() {
    let Some(assets) = shared::assets() else {
        return;
    };
    // The bundles are kept, to test them on other processors.
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bundles");
    std::fs::create_dir_all(&kept).unwrap();
    for (name, sparsity, most) in
        [("mlperf_tiny_ad_autoencoder", "2:4", 0.66), ("mlperf_tiny_ic_resnet8", "75%", 0.41)]
    {
        let task = task(name).expect("a network with a task");
        let quantize = QuantizeOptions {
            sparsity: Some(sparsity.parse().unwrap()),
            ..QuantizeOptions::default()
        };
        let mut options = ConvertOptions {
            int8: true,
            calibration: Some(assets.join("data").join(task.calibration)),
            samples: 4,
            quantize,
            ..ConvertOptions::default()
        };
        if !task.spec.is_empty() {
            let spec = Spec::read(&spec_path(task.spec)).unwrap();
            (options.preprocess, options.postprocess) = (spec.preprocess, spec.postprocess);
        }
        let source = assets.join("models").join(name).join("model.onnx");
        let mut made = |file: &str, dense: bool, integer_io: bool| {
            (options.dense, options.integer_io) = (dense, integer_io);
            let output = kept.join(format!("{name}_{file}.tack"));
            convert(&source, &output, &options, &mut NoProgress).unwrap();
            Bundle::read(&output).unwrap()
        };
        let sparse = made("sparse", false, false);
        let container = sparse.container().unwrap();
        let (code, weights) =
            (container.program(0).unwrap(), container.weights(0, Family::Mcu).unwrap());
        let program = Program::parse(code, weights).unwrap();
        let layers: Vec<SparseLayer> = program.sparse_layers().collect();
        let sum = |of: fn(&SparseLayer) -> u64| layers.iter().map(of).sum::<u64>() as f64;
        let (bytes, dense) = (sum(|layer| layer.bytes), sum(|layer| layer.dense_bytes));
        assert!(layers.len() > 5 && bytes <= most * dense, "{name}: {bytes} of {dense}");
        assert!(bytes > 0.8 * weights.len() as f64, "{name}: {bytes} of {}", weights.len());

        let with_zeros = made("dense", true, false);
        let saved = with_zeros.bytes().len() - sparse.bytes().len();
        assert!((saved as f64 - (dense - bytes)).abs() < 1000.0, "{name}: {saved}");
        assert_eq!(vectors(&sparse), vectors(&with_zeros), "{name}");
        for &isa in Isa::ALL.iter().filter(|isa| isa.is_supported()) {
            for bundle in [&sparse, &with_zeros] {
                let running = SessionOptions { isa: Some(isa), ..SessionOptions::default() };
                let mut session = Session::with_options(bundle, running).unwrap();
                let checked = hardtack::golden::check(bundle, &mut session).unwrap();
                assert!(checked.holds(), "{name} with {isa}");
            }
        }
        // The form for microcontrollers, with integer inputs and outputs.
        made("sparse_i8", false, true);
    }
}
