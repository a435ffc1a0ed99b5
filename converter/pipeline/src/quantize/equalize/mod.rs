//! Cross-layer equalization: scales channels so that those of one value have similar ranges and can
//! share one quantization scale. Factors are multiplied into the weights that produce a channel and
//! divided out of those that read it, so the model's results stay the same except for rounding.
//!
//! Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019.
//! The balance between a value's error and that of the weights that read it follows Xiao et al.,
//! "SmoothQuant", 2023. A factor does not pass through x · sigmoid(x): there, the sigmoid reads the
//! unscaled channel, and its result multiplies the scaled one. Such a product does not keep int16,
//! so where values may be int16, the layer before it is split instead.

mod choose;
pub(super) mod flow;
mod split;
mod statistics;

use hardtack::internal::{Constant, Model};
use hardtack::{Data, Tensor};
use hardtack_bundle::graph::{Binary, Node, Operator};

use self::flow::{FactorPlacement, Flow, Gate, Scaled};
use crate::error::Error;
use crate::graph::constants::float_tensor;
use crate::graph::rewriter::Rewriter;
use crate::offloaded_model::{ModelSource as _, OffloadedModel};
use crate::samples::SampleSource;

pub(super) use self::split::Parts;

/// Scales the channels of a model where that reduces the estimated error. Also returns the parts of
/// split layers. `progress` is called with
/// the number of processed samples and their total.
///
/// # Errors
/// Returns an error if the model cannot be run on a sample.
pub(super) fn equalize(
    model: Model,
    samples: &dyn SampleSource,
    placement: FactorPlacement,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<(Model, Parts), Error> {
    let flow = flow::follow(&model, placement);
    let offloaded = OffloadedModel::new(model)?;
    let statistics = statistics::observe(&offloaded, &flow, samples, progress)?;
    let model = offloaded.load()?;
    let factors = choose::factors(&model, &flow, &statistics);
    Ok(apply(model, &flow, &factors))
}

/// Multiplies the channels of each unit by its factor. Also returns the parts of split layers.
fn apply(model: Model, flow: &Flow, factors: &[f32]) -> (Model, Parts) {
    let mut rewriter = Rewriter::new(model);
    for Scaled { node, input, layout, divided } in &flow.scaled {
        let of = |unit: &usize| if *divided { 1.0 / factors[*unit] } else { factors[*unit] };
        let along: Vec<f32> = layout.units.iter().map(of).collect();
        if along.iter().all(|factor| *factor == 1.0) {
            continue;
        }
        let value_id = rewriter.node(*node).inputs[*input];
        let Some(tensor) = float_tensor(&rewriter.model, value_id) else { continue };
        let within: usize = tensor.shape()[layout.axis + 1..].iter().product();
        let values = tensor.as_f32().unwrap_or_default().iter().enumerate();
        let values: Vec<f32> =
            values.map(|(at, value)| value * along[at / within % along.len()]).collect();
        let Ok(tensor) = Tensor::new(tensor.shape(), Data::F32(values)) else { continue };
        let name = rewriter.node(value_id.node as usize).name.clone();
        let constant = rewriter.add_constant(name, Constant::Tensor(tensor.into()));
        rewriter.model.graph.nodes[*node].inputs[*input] = constant;
    }
    for gate in &flow.gates {
        unscale(&mut rewriter, flow, gate, factors);
    }
    let mut parts = Parts::new();
    for gate in &flow.split {
        split::split(&mut rewriter, flow, gate, factors, &mut parts);
    }
    (rewriter.finish(), parts)
}

/// Divides the factors out of the channels that a sigmoid reads.
fn unscale(rewriter: &mut Rewriter, flow: &Flow, gate: &Gate, factors: &[f32]) {
    let Some(layout) = flow.channels.layout(gate.x) else { return };
    let back: Vec<f32> = layout.units.iter().map(|unit| 1.0 / factors[*unit]).collect();
    if back.iter().all(|factor| *factor == 1.0) {
        return;
    }
    let node = rewriter.node(gate.sigmoid).clone();
    let mut shape = vec![1; node.outputs[0].shape.len()];
    shape[layout.axis] = back.len();
    let Ok(back) = Tensor::new(&shape, Data::F32(back)) else { return };
    let name = format!("{}.unscaled", node.name);
    let back = rewriter.add_constant(format!("{name}.factors"), Constant::Tensor(back.into()));
    let operator = Operator::Binary(Binary::Multiply);
    let plain = rewriter.add(Node { name, operator, inputs: vec![gate.x, back], ..node });
    rewriter.model.graph.nodes[gate.sigmoid].inputs[0] = plain;
}

#[cfg(test)]
mod tests {
    use hardtack_bundle::graph::*;

    use super::super::quantize;
    use super::*;
    use crate::float_run;
    use crate::graph::channels::KEPT;
    use crate::options::quantize::{Equalize, Int16, QuantizeOptions};
    use crate::parity;
    use crate::testing::{Net, Value, noise, windowed};

    fn relu(net: &mut Net, x: &Value) -> Value {
        let zero = net.scalar(0.0, x.shape.len());
        net.binary(Binary::Maximum, x, &zero)
    }

    fn silu(net: &mut Net, x: &Value) -> Value {
        let gate = net.unary(Unary::Sigmoid, x);
        net.binary(Binary::Multiply, x, &gate)
    }

    fn depthwise(net: &mut Net, x: &Value) -> Value {
        let channels = x.shape[1];
        net.conv(x, channels, &[3, 3], |conv| {
            conv.groups = channels as u32;
            conv.window.padding = Padding::SameUpper;
        })
    }

    /// Returns a network with all operations that factors pass through, and some that they do not.
    fn network() -> Model {
        let mut net = Net::new();
        let x = net.input(&[2, 3, 8, 8]);
        let x = net.conv(&x, 4, &[3, 3], |conv| conv.window.padding = Padding::SameUpper);
        let x = silu(&mut net, &x);
        let x = depthwise(&mut net, &x);
        let bias = net.noise(&[1, 4, 1, 1]);
        let x = net.binary(Binary::Add, &x, &bias);
        let x = net.unary(Unary::LeakyRelu(0.1), &x);
        let window = Window {
            layout: ImageLayout::Nchw,
            kernel: vec![2, 2],
            strides: vec![2, 2],
            dilations: vec![1, 1],
            padding: Padding::Valid,
            input_channels: 4,
            output_channels: 4,
        };
        let shape = windowed(&x, &window);
        let x = net.node(Operator::MaxPool(MaxPool { window, index_dtype: None }), &[&x], &shape);
        let y = depthwise(&mut net, &x);
        let y = relu(&mut net, &y);
        let y = net.begin(&y);
        let sum = net.binary(Binary::Add, &x, &y);
        let sum = relu(&mut net, &sum);
        // Nonzero limits apply to unscaled channels.
        let z = net.begin(&sum);
        let six = net.scalar(0.3, 4);
        let z = net.binary(Binary::Minimum, &z, &six);
        let shape = [2, 8, 4, 4];
        let joined = net.node(Operator::Concat(1), &[&sum, &z], &shape);
        let joined = net.begin(&joined);
        net.finish(&[&joined])
    }

    #[test]
    fn any_factors_keep_the_results() {
        let model = network();
        let samples = vec![vec![noise(&[2, 3, 8, 8], 7)], vec![noise(&[2, 3, 8, 8], 8)]];
        let before = float_run::outputs(&model, &samples).unwrap();
        for (placement, mark) in
            [(FactorPlacement::BeforeGate, ".unscaled"), (FactorPlacement::AfterGate, ".scaled")]
        {
            let flow = flow::follow(&model, placement);
            let free = flow.scaled.iter().flat_map(|scaled| &scaled.layout.units);
            let mut free: Vec<usize> = free.copied().filter(|unit| *unit != KEPT).collect();
            free.sort_unstable();
            free.dedup();
            // Those that the first depthwise layer reads, and four of each depthwise layer; the sum
            // shares those of the first.
            assert_eq!(free.len(), 12);
            let mut factors = vec![1.0; flow.units()];
            for (index, unit) in free.iter().enumerate() {
                // Two of four channels share a factor, and so a part where a layer is split.
                factors[*unit] = [0.03, 7.0, 0.03, 1.0, 19.0][index % 5];
            }
            let (scaled, _) = apply(model.clone(), &flow, &factors);
            let after = float_run::outputs(&scaled, &samples).unwrap();
            assert!(parity::compare(&before, &after).of_range < 1e-5, "{placement:?}");
            // Limits and outputs have no factor, and a sigmoid reads unscaled channels.
            assert!(scaled.graph.nodes.iter().any(|node| node.name.ends_with(mark)));
        }
    }

    /// Adds a 1×1 convolution with four output channels.
    fn pixel(net: &mut Net, x: &Value, kernel: Vec<f32>, groups: u32) -> Value {
        let kernel = Tensor::new(&[4, 4 / groups as usize, 1, 1], kernel).unwrap();
        let bias = Tensor::new(&[4], vec![0.01f32; 4]).unwrap();
        let (kernel, bias) = (net.constant(kernel), net.constant(bias));
        let window = Window {
            layout: ImageLayout::Nchw,
            kernel: vec![1, 1],
            strides: vec![1, 1],
            dilations: vec![1, 1],
            padding: Padding::Valid,
            input_channels: 4,
            output_channels: 4,
        };
        let conv = Conv { window, kernel_layout: KernelLayout::Oihw, groups };
        net.node(Operator::Conv(conv), &[x, &kernel, &bias], &[1, 4, 8, 8])
    }

    /// Returns a model in which each channel is ten times smaller than the one before, and the next
    /// weights compensate.
    fn uneven(gated: bool) -> Model {
        let mut net = Net::new();
        let x = net.input(&[1, 4, 8, 8]);
        let size = |channel: usize| 10f32.powi(1 - channel as i32);
        let weights = noise(&[16], 3).to_f32();
        let kernel = weights.iter().enumerate().map(|(at, w)| w * size(at / 4)).collect();
        let x = pixel(&mut net, &x, kernel, 1);
        let x = if gated { silu(&mut net, &x) } else { relu(&mut net, &x) };
        let x = pixel(&mut net, &x, (0..4).map(|channel| 1.0 / size(channel)).collect(), 4);
        net.finish(&[&x])
    }

    #[test]
    fn equalization_reduces_the_error_of_uneven_channels() {
        let samples: Vec<Vec<Tensor>> =
            (0..8).map(|seed| vec![noise(&[1, 4, 8, 8], 40 + seed)]).collect();
        for (gated, int16, left) in [(false, false, 0.3), (true, false, 0.3), (true, true, 0.4)] {
            let model = uneven(gated);
            let float = float_run::outputs(&model, &samples).unwrap();
            let error = |equalize| {
                let int16 = if int16 { Int16::All } else { Int16::default() };
                let max_error = Some(f64::INFINITY);
                let settings =
                    QuantizeOptions { equalize, int16, max_error, ..QuantizeOptions::default() };
                let model = model.clone();
                let quantized =
                    quantize(&model, &samples, &samples, true, &settings, &mut |_, _| {}).unwrap();
                assert!(quantized.left_in_float.is_empty());
                let integer = float_run::outputs(&quantized.model, &samples).unwrap();
                parity::compare(&float, &integer).of_range
            };
            let (off, auto) = (error(Equalize::Off), error(Equalize::Auto));
            assert!(auto < left * off, "{gated} {int16}: {off} {auto}");
        }
    }

    #[test]
    fn a_split_layer_keeps_its_name() {
        let samples: Vec<Vec<Tensor>> =
            (0..8).map(|seed| vec![noise(&[1, 4, 8, 8], 40 + seed)]).collect();
        let model = uneven(true);
        let layer = model.graph.nodes.iter().find(|n| matches!(n.operator, Operator::Conv(_)));
        let name = layer.unwrap().name.clone();
        let of = |settings: QuantizeOptions| {
            let settings = QuantizeOptions { max_error: Some(f64::INFINITY), ..settings };
            quantize(&model, &samples, &samples, true, &settings, &mut |_, _| {}).unwrap()
        };
        let wide = of(QuantizeOptions {
            int16: Int16::Nodes(vec![name.clone()]),
            ..QuantizeOptions::default()
        });
        assert!(wide.int16.len() > 1);
        assert!(wide.int16.iter().all(|node| node.node != name && node.node.starts_with(&name)));
        // The error suggests the layer's name in the source file, not those of its parts.
        let int16 = Int16::Nodes(vec![format!("{name}x")]);
        let settings = QuantizeOptions { int16, ..QuantizeOptions::default() };
        let unknown = quantize(&model, &samples, &samples, true, &settings, &mut |_, _| {});
        let message = unknown.err().unwrap().to_string();
        assert!(message.contains(&format!("(similar names: {name})")), "{message}");
        let keep_float = vec![name.clone()];
        let float =
            of(QuantizeOptions { keep_float, int16: Int16::All, ..QuantizeOptions::default() });
        let kept = float.left_in_float.iter().filter(|node| node.operator == "Conv");
        assert_eq!(kept.count(), wide.int16.len());
    }

    #[test]
    fn even_channels_are_left_unchanged() {
        let mut net = Net::new();
        let x = net.input(&[1, 4, 8, 8]);
        let x = net.begin(&x);
        let x = relu(&mut net, &x);
        let x = net.begin(&x);
        let model = net.finish(&[&x]);
        let samples: Vec<Vec<Tensor>> =
            (0..8).map(|seed| vec![noise(&[1, 4, 8, 8], 40 + seed)]).collect();
        let (same, _) =
            equalize(model.clone(), &samples, FactorPlacement::BeforeGate, &mut |_, _| {}).unwrap();
        let outputs = |model| float_run::outputs(model, &samples).unwrap();
        assert_eq!(outputs(&model), outputs(&same));
    }
}
