//! Channel pruning of networks of the shared assets, on labeled data.

mod shared;

use hardtack::{Bundle, Session};
use hardtack_converter::spec::Spec;
use hardtack_converter::{ConvertOptions, NoProgress, PruneTarget, convert};
use shared::labelled::{Top1, spec_path, task, top1};

/// The fraction of the MACs to prune.
const MACS: f64 = 0.3;
/// The maximum loss of top-1 accuracy due to pruning and INT8 together.
const LOSS: f64 = 0.015;

/// Returns the top-1 accuracy of the pruned INT8 network, and of the original float network.
fn pruned_and_float(name: &str) -> (Top1, Top1) {
    let assets = shared::assets().expect("the caller checked");
    let task = task(name).expect("a network with a task");
    let scratch = tempfile::tempdir().unwrap();
    let source = assets.join("models").join(name).join("model.onnx");
    let spec = Spec::read(&spec_path(task.spec)).unwrap();
    let data = assets.join("data");
    let evaluation = data.join(task.evaluation);
    let mut options = ConvertOptions {
        preprocess: spec.preprocess,
        postprocess: spec.postprocess,
        samples: 300,
        ..ConvertOptions::default()
    };
    let output = scratch.path().join("model.tack");
    convert(&source, &output, &options, &mut NoProgress).unwrap();
    let bundle = Bundle::open(&output).unwrap();
    let float = top1(&bundle, &mut Session::new(&bundle).unwrap(), &evaluation).unwrap();

    options.int8 = true;
    options.calibration = Some(data.join(task.calibration));
    options.prune_channels = Some(PruneTarget::Macs(MACS));
    let report = convert(&source, &output, &options, &mut NoProgress).unwrap();
    let pruned = report.pruned.expect("pruning is enabled");
    assert!(pruned.after.macs <= (1.0 - MACS) * pruned.before.macs, "{name}: {pruned:?}");
    assert!(pruned.after.bytes < pruned.before.bytes, "{name}: {pruned:?}");
    assert!(pruned.groups.iter().all(|group| group.after < group.before), "{name}: {pruned:?}");
    assert!(report.float_nodes.is_empty(), "{name}: {:?}", report.float_nodes);
    let bundle = Bundle::open(&output).unwrap();
    let mut session = Session::new(&bundle).unwrap();
    assert!(hardtack::golden::check(&bundle, &mut session).unwrap().holds(), "{name}");
    (top1(&bundle, &mut session, &evaluation).unwrap(), float)
}

#[test]
fn pruning_three_tenths_of_the_macs_costs_little() {
    if shared::assets().is_none() {
        return;
    }
    for name in ["cifar_mobilenetv2s", "cifar_resnet14"] {
        let (pruned, float) = pruned_and_float(name);
        println!("{name:32} float {float}, pruned INT8 {pruned}");
        assert!(pruned.part() >= float.part() - LOSS, "{name}: float {float}, pruned {pruned}");
    }
}

#[test]
fn pruning_requires_calibration_data() {
    let options = ConvertOptions {
        prune_channels: Some(PruneTarget::Macs(MACS)),
        ..ConvertOptions::default()
    };
    let scratch = tempfile::tempdir().unwrap();
    let output = scratch.path().join("model.tack");
    let refused = convert("no.onnx".as_ref(), &output, &options, &mut NoProgress);
    assert!(refused.unwrap_err().to_string().contains("--data"));
}
