//! Networks of the shared assets that lost a part of their channels, on labelled data.

mod shared;

use hardtack::{Bundle, Session};
use hardtack_converter::spec::Spec;
use hardtack_converter::{Options, PruneTarget, Silent, convert};
use shared::labelled::{Top1, spec_path, task, top1};

/// The part of the multiply-accumulates that is taken away.
const MACS: f64 = 0.3;
/// What top-1 may lose by that and by INT8 together.
const LOSS: f64 = 0.015;

/// Top-1 of a network in INT8 without a part of its channels, and of the network as it is.
fn pruned_and_float(name: &str) -> (Top1, Top1) {
    let assets = shared::assets().expect("asked before");
    let task = task(name).expect("a network with a task");
    let scratch = tempfile::tempdir().unwrap();
    let source = assets.join("models").join(name).join("model.onnx");
    let spec = Spec::read(&spec_path(task.spec)).unwrap();
    let data = assets.join("data");
    let evaluation = data.join(task.evaluation);
    let mut options = Options {
        preprocess: spec.preprocess,
        postprocess: spec.postprocess,
        samples: 300,
        ..Options::default()
    };
    let output = scratch.path().join("model.tack");
    convert(&source, &output, &options, &mut Silent).unwrap();
    let bundle = Bundle::open(&output).unwrap();
    let float = top1(&bundle, &mut Session::new(&bundle).unwrap(), &evaluation).unwrap();

    options.int8 = true;
    options.calibration = Some(data.join(task.calibration));
    options.prune_channels = Some(PruneTarget::Macs(MACS));
    let report = convert(&source, &output, &options, &mut Silent).unwrap();
    let pruned = report.pruned.expect("asked for");
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
fn three_tenths_less_to_compute_cost_little() {
    if shared::assets().is_none() {
        println!("skipped: the shared assets are not beside the project");
        return;
    }
    for name in ["cifar_mobilenetv2s", "cifar_resnet14"] {
        let (pruned, float) = pruned_and_float(name);
        println!("{name:32} float {float}, pruned and in INT8 {pruned}");
        assert!(pruned.part() >= float.part() - LOSS, "{name}: {float} became {pruned}");
    }
}

#[test]
fn pruning_without_calibration_data_is_refused() {
    let options = Options { prune_channels: Some(PruneTarget::Macs(MACS)), ..Options::default() };
    let scratch = tempfile::tempdir().unwrap();
    let output = scratch.path().join("model.tack");
    let refused = convert("no.onnx".as_ref(), &output, &options, &mut Silent);
    assert!(refused.unwrap_err().to_string().contains("--calibrate"));
}
