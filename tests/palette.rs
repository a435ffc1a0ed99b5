//! Palettization of weights, on a real network.

mod shared;

use hardtack::{Bundle, Session};
use hardtack_converter::QuantizeOptions;
use hardtack_converter::spec::Spec;
use hardtack_converter::{ConvertOptions, NoProgress, Report, convert};
use shared::labelled::{Top1, spec_path, task, top1};

/// Converts a network of the shared assets, with weights of 8 bits unless the settings say
/// otherwise. Returns the report and the top-1 accuracy on labeled data.
fn quantized(name: &str, samples: usize, mut quantize: QuantizeOptions) -> Option<(Report, Top1)> {
    let assets = shared::assets()?;
    quantize.weight_bits.get_or_insert(8.0);
    let task = task(name).expect("a network with a task");
    let scratch = tempfile::tempdir().unwrap();
    let spec = Spec::read(&spec_path(task.spec)).unwrap();
    let options = ConvertOptions {
        preprocess: spec.preprocess,
        postprocess: spec.postprocess,
        int8: true,
        calibration: Some(assets.join("data").join(task.calibration)),
        samples,
        quantize,
        transport: Some(scratch.path().join("model.tackz")),
        ..ConvertOptions::default()
    };
    let source = assets.join("models").join(name).join("model.onnx");
    let output = scratch.path().join("model.tack");
    let report = convert(&source, &output, &options, &mut NoProgress).unwrap();
    let bundle = Bundle::open(&output).unwrap();
    let mut session = Session::new(&bundle).unwrap();
    let evaluation = assets.join("data").join(task.evaluation);
    let answers = top1(&bundle, &mut session, &evaluation).unwrap();
    Some((report, answers))
}

#[test]
fn a_palette_of_16_is_smaller_and_nearly_as_accurate() {
    let name = "mlperf_tiny_kws_dscnn";
    let Some((whole, before)) = quantized(name, 64, QuantizeOptions::default()) else { return };
    let settings = QuantizeOptions { palette: Some(16), ..QuantizeOptions::default() };
    let (report, after) = quantized(name, 64, settings).expect("the assets exist");
    let layers = || report.layers.iter().filter_map(|layer| layer.weights.as_ref());
    assert!(layers().count() > 5);
    assert!(layers().all(|weights| weights.levels <= 16));
    let (shipped, all) = (report.transport_bytes.unwrap(), whole.transport_bytes.unwrap());
    assert!(12 * shipped < 11 * all, "{shipped} of {all}");
    assert!(after.part() >= before.part() - 0.03, "before {before}, after {after}");
}
