//! Tests that a pruned model computes the same as the original with the removed channels set to 0.

use std::io::Write as _;
use std::path::Path;

use hardtack::Tensor;
use hardtack::internal::{Constant, Model};
use hardtack_bundle::DType;
use hardtack_bundle::graph::*;

use super::flow::{Flow, follow};
use super::groups::{Group, groups};
use super::prune;
use super::shrink::shrink;
use crate::float_run;
use crate::graph::rewriter::Rewriter;
use crate::import::ImportOptions;
use crate::options::prune::PruneTarget;
use crate::parity;
use crate::samples::{SampleSource, Samples};
use crate::testing::{Net, Value, noise};

/// Keeps every other channel of each group.
fn every_other(flow: &Flow, groups: &[Group]) -> Vec<bool> {
    let mut kept = vec![true; flow.units()];
    for group in groups {
        group.units.iter().skip(1).step_by(2).for_each(|unit| kept[*unit] = false);
    }
    kept
}

/// Sets the weights of the channels that are not kept to 0.
fn masked(model: &Model, flow: &Flow, kept: &[bool]) -> Model {
    let mut rewriter = Rewriter::new(model.clone());
    for layer in flow.layers.iter().filter(|layer| layer.groups == 1) {
        let value_id = rewriter.node(layer.node).inputs[layer.weights];
        let Some(Constant::Tensor(kernel)) = rewriter.constant(value_id) else {
            panic!("no weights")
        };
        let shape = kernel.shape().to_vec();
        let within: usize = shape[layer.axes.1 + 1..].iter().product();
        let mut values = kernel.to_f32();
        for (at, value) in values.iter_mut().enumerate() {
            if !kept[layer.reads[at / within % layer.reads.len()]] {
                *value = 0.0;
            }
        }
        let kernel = Constant::Tensor(Tensor::new(&shape, values).unwrap().into());
        let kernel = rewriter.add_constant(format!("masked{}", layer.node), kernel);
        rewriter.model.graph.nodes[layer.node].inputs[layer.weights] = kernel;
    }
    rewriter.finish()
}

/// Checks that the pruned model matches the masked one. Returns the size of each group.
fn shrinks(model: &Model, samples: &dyn SampleSource) -> Vec<usize> {
    let flow = follow(model);
    let groups = groups(model, &flow);
    let kept = every_other(&flow, &groups);
    let smaller = shrink(model, &flow, &kept);
    let elements = |model: &Model| {
        model.graph.constants.iter().map(|c| c.shape.iter().product::<u64>()).sum::<u64>()
    };
    assert!(groups.is_empty() || elements(&smaller) < elements(model));
    let expected = float_run::outputs(&masked(model, &flow, &kept), samples).unwrap();
    let difference = parity::compare(&expected, &float_run::outputs(&smaller, samples).unwrap());
    assert!(!difference.differs, "{difference:?}");
    groups.iter().map(|group| group.units.len()).collect()
}

fn net_shrinks(model: &Model, shape: &[usize]) -> Vec<usize> {
    shrinks(model, &vec![vec![noise(shape, 11)], vec![noise(shape, 12)]])
}

const SHAPE: [usize; 4] = [1, 3, 6, 6];

fn begin(net: &mut Net, channels: usize) -> Value {
    let x = net.input(&SHAPE);
    let y = net.conv(&x, channels, &[3, 3], |_| {});
    net.unary(Unary::Sigmoid, &y)
}

#[test]
fn chains_of_convolutions_are_pruned() {
    for layout in [KernelLayout::Oihw, KernelLayout::Ohwi, KernelLayout::Hwio] {
        let mut net = Net::new();
        let x = net.input(&SHAPE);
        // A 3x3 kernel from 3 to 3 channels has the same shape in every layout.
        let y = net.conv(&x, 3, &[3, 3], |conv| conv.kernel_layout = layout);
        let y = net.conv(&y, 3, &[3, 3], |conv| conv.kernel_layout = layout);
        assert_eq!(net_shrinks(&net.finish(&[&y]), &SHAPE), [3], "{layout:?}");
    }
}

#[test]
fn a_sum_ties_its_operands() {
    let mut net = Net::new();
    let x = begin(&mut net, 8);
    let inner = net.conv(&x, 5, &[1, 1], |_| {});
    let inner = net.unary(Unary::Tanh, &inner);
    let y = net.conv(&inner, 8, &[1, 1], |_| {});
    let y = net.binary(Binary::Add, &x, &y);
    let factor = net.noise(&[1, 8, 1, 1]);
    let y = net.binary(Binary::Multiply, &factor, &y);
    let zero = net.scalar(0.0, 4);
    let y = net.binary(Binary::Maximum, &y, &zero);
    let y = net.conv(&y, 4, &[1, 1], |_| {});
    assert_eq!(net_shrinks(&net.finish(&[&y]), &SHAPE), [8, 5]);
}

#[test]
fn a_concatenation_keeps_channel_positions() {
    let mut net = Net::new();
    let x = begin(&mut net, 6);
    let (a, b) = (net.conv(&x, 4, &[1, 1], |_| {}), net.conv(&x, 7, &[1, 1], |_| {}));
    let joined = net.node(Operator::Concat(1), &[&a, &x, &b], &[1, 17, 4, 4]);
    let half =
        |start: i64, end: i64| Slice { axis: 1, start: Dim::Value(start), end: Dim::Value(end) };
    let first = net.node(Operator::Slice(half(2, 8)), &[&joined], &[1, 6, 4, 4]);
    let y = net.conv(&first, 2, &[1, 1], |_| {});
    let z = net.conv(&joined, 2, &[1, 1], |_| {});
    let channels = net_shrinks(&net.finish(&[&y, &z]), &SHAPE);
    // Channels inside and outside the slice form separate groups.
    assert_eq!(channels, [2, 4, 2, 2, 7]);
}

#[test]
fn depthwise_convolutions_pass_channels_on_and_grouped_ones_tie_them() {
    for (groups, expected) in [(8, vec![8]), (4, vec![4]), (2, vec![2])] {
        let mut net = Net::new();
        let x = begin(&mut net, 8);
        let y = net.conv(&x, 16, &[3, 3], |conv| conv.groups = groups);
        let y = net.conv(&y, 2, &[1, 1], |_| {});
        assert_eq!(net_shrinks(&net.finish(&[&y]), &SHAPE), expected, "{groups}");
    }
}

#[test]
fn a_flattened_channel_is_a_block_of_features() {
    let mut net = Net::new();
    let x = begin(&mut net, 6);
    let all = Reshape { axis: 1, from: [6, 4, 4].map(Dim::Value).into(), to: vec![Dim::Value(96)] };
    let flat = net.node(Operator::Reshape(all), &[&x], &[1, 96]);
    let matrix = net.noise(&[96, 10]);
    let product = |expression: &str| {
        Operator::Einsum(Einsum { expression: expression.into(), accumulator: DType::F32 })
    };
    let y = net.node(product("mk,kn->mn"), &[&flat, &matrix], &[1, 10]);
    let bias = net.noise(&[1, 10]);
    let y = net.binary(Binary::Add, &y, &bias);
    let y = net.unary(Unary::Tanh, &y);
    let matrix = net.noise(&[3, 10]);
    let y = net.node(product("nk,mk->mn"), &[&matrix, &y], &[1, 3]);
    assert_eq!(net_shrinks(&net.finish(&[&y]), &SHAPE), [6, 10]);
}

#[test]
fn a_global_average_and_moved_axes_pass_channels_on() {
    let mut net = Net::new();
    let x = begin(&mut net, 6);
    let sum = Reduce { axes: vec![2, 3], reducer: Reducer::Sum };
    let y = net.node(Operator::Reduce(sum), &[&x], &[1, 6, 1, 1]);
    let scaled = net.binary(Binary::Multiply, &x, &y);
    let moved = net.node(Operator::MoveAxis((1, 3)), &[&scaled], &[1, 4, 4, 6]);
    let matrix = net.noise(&[6, 2]);
    let product = Einsum { expression: "bhwc,co->bhwo".into(), accumulator: DType::F32 };
    let y = net.node(Operator::Einsum(product), &[&moved, &matrix], &[1, 4, 4, 2]);
    assert_eq!(net_shrinks(&net.finish(&[&y]), &SHAPE), [6]);
}

#[test]
fn unsupported_operators_keep_their_channels() {
    let softmax = Operator::Softmax(Softmax { axes: vec![1], logarithm: false });
    let shuffle = Operator::Reshape(Reshape {
        axis: 1,
        from: vec![Dim::Value(8)],
        to: vec![Dim::Value(2), Dim::Value(4)],
    });
    for (operator, shape) in [(softmax, vec![1, 8, 4, 4]), (shuffle, vec![1, 2, 4, 4, 4])] {
        let mut net = Net::new();
        let x = begin(&mut net, 8);
        let other = net.node(operator, &[&x], &shape);
        let y = net.conv(&x, 2, &[1, 1], |_| {});
        assert!(net_shrinks(&net.finish(&[&y, &other]), &SHAPE).is_empty());
    }
}

#[test]
fn a_model_without_removable_channels_is_rejected() {
    let mut net = Net::new();
    let x = net.input(&SHAPE);
    let y = net.conv(&x, 2, &[1, 1], |_| {});
    let model = net.finish(&[&y]);
    let samples = vec![vec![noise(&SHAPE, 1)]];
    let refused = prune(&model, &samples, PruneTarget::Macs(0.1), false, &mut |_, _| {});
    let reason = refused.err().unwrap().to_string();
    assert!(reason.contains("no channels of this model can be removed"), "{reason}");

    let mut net = Net::new();
    let x = begin(&mut net, 8);
    let y = net.conv(&x, 2, &[1, 1], |_| {});
    let model = net.finish(&[&y]);
    let refused = prune(&model, &samples, PruneTarget::Macs(0.9), false, &mut |_, _| {});
    let reason = refused.err().unwrap().to_string();
    assert!(reason.contains("macs=90% cannot be reached") && reason.contains("50%"), "{reason}");
}

#[test]
fn removed_duplicate_channels_are_compensated() {
    let mut net = Net::new();
    let x = net.input(&SHAPE);
    let half = noise(&[4, 3, 3, 3], 5).to_f32();
    let kernel = net.constant(Tensor::new(&[8, 3, 3, 3], [half.clone(), half].concat()).unwrap());
    let bias = net.constant(Tensor::new(&[8], vec![0.25f32; 8]).unwrap());
    let begun = net.conv(&x, 8, &[3, 3], |_| {});
    let operator = net.rewriter.node(begun.value_id.node as usize).operator.clone();
    let y = net.node(operator, &[&x, &kernel, &bias], &begun.shape);
    let y = net.unary(Unary::Sigmoid, &y);
    let y = net.conv(&y, 4, &[3, 3], |_| {});
    let model = net.finish(&[&y]);
    let samples: Vec<Vec<Tensor>> = (0..40).map(|seed| vec![noise(&SHAPE, seed)]).collect();
    let (smaller, report) =
        prune(&model, &samples, PruneTarget::Macs(0.5), false, &mut |_, _| {}).unwrap();
    assert_eq!((report.groups[0].before, report.groups[0].after), (8, 4));
    assert!(report.groups[0].error < 1e-3, "{}", report.groups[0].error);
    assert!(report.after.macs <= 0.5 * report.before.macs);
    let before = float_run::outputs(&model, &samples).unwrap();
    let difference = parity::compare(&before, &float_run::outputs(&smaller, &samples).unwrap());
    assert!(difference.of_range < 0.02, "{difference:?}");
}

#[test]
fn real_networks_shrink() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/assets/models");
    for (name, groups) in [
        ("cifar_resnet14", true),
        ("cifar_mobilenetv2s", true),
        ("squeezenet1_1", true),
        ("yolox_nano_416", true),
        ("ultraface_rfb_320", true),
        ("mlperf_tiny_kws_dscnn", true),
        ("mlperf_tiny_ad_autoencoder", true),
        ("mnist_cntk", true),
        ("shufflenet_v2_int8", false),
    ] {
        let path = folder.join(name).join("model.onnx");
        if !path.exists() {
            let required = std::env::var_os("HARDTACK_REQUIRE_ASSETS").is_some();
            assert!(!required, "{} does not exist", path.display());
            let _ =
                writeln!(std::io::stderr(), "skipped {name}: {} does not exist", path.display());
            continue;
        }
        let imported = crate::import::import(&path, &ImportOptions::default()).unwrap();
        let model = crate::fold::fold(imported.model);
        let samples = Samples::generated(&model.graph, 1).unwrap();
        let found = shrinks(&model, &*samples.inputs);
        println!("{name}: {found:?}");
        assert_eq!(!found.is_empty(), groups, "{name}");
    }
}

#[test]
fn too_few_samples_give_a_warning() {
    let mut net = Net::new();
    let x = net.input(&SHAPE);
    let x = net.conv(&x, 64, &[1, 1], |_| {});
    let y = net.conv(&x, 4, &[1, 1], |_| {});
    let model = net.finish(&[&y]);
    let pruned = |count| {
        let samples: Vec<Vec<Tensor>> = (0..count).map(|seed| vec![noise(&SHAPE, seed)]).collect();
        prune(&model, &samples, PruneTarget::Macs(0.3), false, &mut |_, _| {}).unwrap().1
    };
    let warning = pruned(1).warning.expect("36 places for 32 weights or more");
    assert!(warning.contains("1 of the 1 layers") && warning.contains("calibrate on"), "{warning}");
    assert_eq!(pruned(40).warning, None);
}
