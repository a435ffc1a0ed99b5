//! Compares every operator with an INT8 form with the float model.

mod adversarial;
mod formats;

use hardtack::Tensor;
use hardtack::internal::Model;
use hardtack_bundle::DType;
use hardtack_bundle::graph::*;

use super::{NodeReason, Quantized, quantize};
use crate::options::quantize::{Equalize, Int16, QuantizeOptions, Rounding};
use crate::testing::{Net, Value, noise, windowed};
use crate::{LayerReport, float_run, parity};

/// Quantizes a model on random samples. Returns the largest difference relative to the range.
fn both(model: &Model) -> (Quantized, f64) {
    let samples: Vec<Vec<Tensor>> = (0..6)
        .map(|sample| {
            let graph = &model.graph;
            let shape = |node: &u32| -> Vec<usize> {
                let dims = &graph.nodes[*node as usize].outputs[0].shape;
                dims.iter().map(|dim| dim.value().unwrap() as usize).collect()
            };
            graph.inputs.iter().map(|node| noise(&shape(node), 100 + sample)).collect()
        })
        .collect();
    let float = float_run::outputs(model, &samples).unwrap();
    // INT8 alone, however large its error is.
    let settings = QuantizeOptions { max_error: Some(f64::INFINITY), ..QuantizeOptions::default() };
    let quantized = quantize(model, &samples, &samples, true, &settings, &mut |_, _| {}).unwrap();
    let integer = float_run::outputs(&quantized.model, &samples).unwrap();
    let difference = parity::compare(&float, &integer).of_range;
    (quantized, difference)
}

/// Asserts that a model runs entirely in integers and is close to the float model.
fn is_integer(name: &str, model: &Model) {
    let (quantized, difference) = both(model);
    let left: Vec<String> = quantized
        .left_in_float
        .iter()
        .map(|left| format!("{} {}", left.node, left.reason))
        .collect();
    assert!(left.is_empty(), "{name}: {left:?}");
    assert_eq!(quantized.model.programs.len(), 1, "{name}");
    assert!(difference < 0.03, "{name}: {difference}");
    assert!(quantized.layers.iter().all(|layer| layer.sqnr_db > 25.0), "{name}");
}

/// Calls [`is_integer`] on `make` after a convolution to shape `[2, 4, 6, 6]`.
fn after_a_layer(name: &str, make: impl Fn(&mut Net, &Value) -> Value) {
    let mut net = Net::new();
    let x = net.input(&[2, 4, 6, 6]);
    let x = net.begin(&x);
    let y = make(&mut net, &x);
    is_integer(name, &net.finish(&[&y]));
}

#[test]
fn convolutions_of_every_kind() {
    /// Name, output channels, kernel size, and other settings.
    type Kind<'a> = (&'a str, usize, &'a [u32], &'a dyn Fn(&mut Conv));
    let kinds: [Kind<'_>; 7] = [
        ("plain", 5, &[3, 3], &|_| {}),
        ("strided, padded unevenly", 8, &[3, 2], &|conv| {
            conv.window.strides = vec![2, 1];
            conv.window.padding = Padding::Explicit(vec![1, 0], vec![2, 1]);
        }),
        ("dilated", 3, &[2, 3], &|conv| conv.window.dilations = vec![3, 2]),
        ("in groups", 6, &[3, 3], &|conv| conv.groups = 2),
        ("depthwise", 4, &[5, 5], &|conv| {
            conv.groups = 4;
            conv.window.padding = Padding::SameUpper;
        }),
        ("same size, odd border before", 4, &[2, 2], &|conv| {
            conv.window.padding = Padding::SameLower;
        }),
        ("same size, strided", 4, &[3, 3], &|conv| {
            conv.window.padding = Padding::SameUpper;
            conv.window.strides = vec![2, 2];
        }),
    ];
    for (name, channels, kernel, change) in kinds {
        let mut net = Net::new();
        let x = net.input(&[2, 4, 7, 8]);
        let y = net.conv(&x, channels, kernel, change);
        is_integer(name, &net.finish(&[&y]));
    }
    let mut net = Net::new();
    let x = net.input(&[1, 3, 20]);
    let y = net.conv(&x, 5, &[4], |conv| conv.window.strides = vec![2]);
    is_integer("signals", &net.finish(&[&y]));
}

#[test]
fn matmuls_with_either_matrix_layout() {
    for (expression, matrix, shape) in
        [("mk,kn->mn", [12, 7], vec![3, 7]), ("mk,nk->mn", [7, 12], vec![3, 7])]
    {
        let mut net = Net::new();
        let x = net.input(&[3, 12]);
        let w = net.noise(&matrix);
        let einsum = Einsum { expression: expression.into(), accumulator: DType::F32 };
        let y = net.node(Operator::Einsum(einsum), &[&x, &w], &shape);
        let bias = net.noise(&[1, 7]);
        let y = net.binary(Binary::Add, &y, &bias);
        is_integer(expression, &net.finish(&[&y]));
    }
    let mut net = Net::new();
    let x = net.input(&[1, 5, 12]);
    let w = net.noise(&[12, 7]);
    let einsum = Einsum { expression: "amk,kn->amn".into(), accumulator: DType::F32 };
    let y = net.node(Operator::Einsum(einsum), &[&x, &w], &[1, 5, 7]);
    is_integer("of each row", &net.finish(&[&y]));
}

#[test]
fn binary_operators() {
    after_a_layer("residual with limits", |net, x| {
        let y = net.begin(x);
        let y = net.binary(Binary::Add, &y, x);
        let (low, high) = (net.scalar(0.0, 4), net.scalar(1.0, 4));
        let y = net.binary(Binary::Maximum, &y, &low);
        net.binary(Binary::Minimum, &high, &y)
    });
    after_a_layer("difference", |net, x| {
        let y = net.unary(Unary::Tanh, x);
        net.binary(Binary::Subtract, x, &y)
    });
    after_a_layer("gate of each channel", |net, x| {
        let pool = pool(x, [6, 6], [1, 1], Padding::Valid);
        let mean = SumPool { window: pool, count_include_pad: false, average: true };
        let gate = net.node(Operator::SumPool(mean), &[x], &[2, 4, 1, 1]);
        let gate = net.unary(Unary::Sigmoid, &gate);
        net.binary(Binary::Multiply, &gate, x)
    });
    after_a_layer("gate of each row, repeated", |net, x| {
        let slice = Operator::Slice(Slice { axis: 3, start: Dim::Value(1), end: Dim::Value(2) });
        let column = net.node(slice, &[x], &[2, 4, 6, 1]);
        net.binary(Binary::Multiply, x, &column)
    });
    for kind in [Binary::Add, Binary::Subtract, Binary::Multiply, Binary::Divide] {
        after_a_layer("with a constant of each channel", |net, x| {
            let constant =
                net.constant(Tensor::new(&[1, 4, 1, 1], vec![0.5f32, -1.5, 2.0, 0.7]).unwrap());
            net.binary(kind, x, &constant)
        });
        after_a_layer("with a constant", |net, x| {
            let constant = net.scalar(-1.7, 4);
            net.binary(kind, x, &constant)
        });
    }
    after_a_layer("slope of each channel", |net, x| {
        let (zero, slope) = (net.scalar(0.0, 4), net.noise(&[1, 4, 1, 1]));
        let test = net.binary(Binary::Greater, &zero, x);
        let node = test.value_id.node as usize;
        net.rewriter.model.graph.nodes[node].outputs[0].dtype = DType::Bool;
        let product = net.binary(Binary::Multiply, x, &slope);
        net.node(Operator::Select, &[&test, &product, x], &[2, 4, 6, 6])
    });
    after_a_layer("a constant first", |net, x| {
        let constant = net.scalar(0.4, 4);
        net.binary(Binary::Subtract, &constant, x)
    });
}

#[test]
fn unary_operators() {
    for kind in [
        Unary::Sigmoid,
        Unary::Tanh,
        Unary::HardSwish,
        Unary::Silu,
        Unary::LeakyRelu(0.1),
        Unary::Abs,
        Unary::Exp,
        Unary::Negate,
        Unary::Square,
        Unary::Gelu,
    ] {
        after_a_layer(&format!("{kind:?}"), |net, x| net.unary(kind, x));
    }
    after_a_layer("x · sigmoid(x)", |net, x| {
        let gate = net.unary(Unary::Sigmoid, x);
        net.binary(Binary::Multiply, x, &gate)
    });
}

fn pool(x: &Value, kernel: [u32; 2], strides: [u32; 2], padding: Padding) -> Window {
    Window {
        layout: ImageLayout::Nchw,
        kernel: kernel.into(),
        strides: strides.into(),
        dilations: vec![1; 2],
        padding,
        input_channels: x.shape[1] as u32,
        output_channels: x.shape[1] as u32,
    }
}

#[test]
fn pooling_and_means() {
    let border = || Padding::Explicit(vec![1, 1], vec![0, 1]);
    after_a_layer("greatest", |net, x| {
        let window = pool(x, [3, 3], [2, 2], border());
        let shape = windowed(x, &window);
        net.node(Operator::MaxPool(MaxPool { window, index_dtype: None }), &[x], &shape)
    });
    for count_include_pad in [false, true] {
        after_a_layer("mean", |net, x| {
            let window = pool(x, [3, 2], [1, 2], border());
            let shape = windowed(x, &window);
            let sum = SumPool { window, count_include_pad, average: true };
            net.node(Operator::SumPool(sum), &[x], &shape)
        });
    }
    after_a_layer("mean of the image", |net, x| {
        let reduce = Reduce { axes: vec![2, 3], reducer: Reducer::Sum };
        let sum = net.node(Operator::Reduce(reduce), &[x], &[2, 4, 1, 1]);
        let count = net.scalar(36.0, 4);
        net.binary(Binary::Divide, &sum, &count)
    });
}

#[test]
fn operators_that_only_move_elements() {
    after_a_layer("channel shuffle", |net, x| {
        let other = net.begin(x);
        let joined = net.node(Operator::Concat(1), &[x, &other], &[2, 8, 6, 6]);
        let dims = |dims: &[i64]| dims.iter().map(|d| Dim::Value(*d)).collect::<Vec<_>>();
        let split = Reshape { axis: 1, from: dims(&[8]), to: dims(&[2, 4]) };
        let split = net.node(Operator::Reshape(split), &[&joined], &[2, 2, 4, 6, 6]);
        let moved = net.node(Operator::MoveAxis((1, 2)), &[&split], &[2, 4, 2, 6, 6]);
        let merge = Reshape { axis: 1, from: dims(&[4, 2]), to: dims(&[8]) };
        let merged = net.node(Operator::Reshape(merge), &[&moved], &[2, 8, 6, 6]);
        let half = Operator::Slice(Slice { axis: 1, start: Dim::Value(2), end: Dim::Value(7) });
        let half = net.node(half, &[&merged], &[2, 5, 6, 6]);
        net.begin(&half)
    });
    after_a_layer("every second column, flattened", |net, x| {
        let down = Downsample { axis: 3, stride: 2, modulo: 1 };
        let down = net.node(Operator::Downsample(down), &[x], &[2, 4, 6, 3]);
        let dims = |dims: &[i64]| dims.iter().map(|d| Dim::Value(*d)).collect::<Vec<_>>();
        let flat = Reshape { axis: 1, from: dims(&[4, 6, 3]), to: dims(&[72]) };
        net.node(Operator::Reshape(flat), &[&down], &[2, 72])
    });
    after_a_layer("padding", |net, x| {
        let zero = net.constant(Tensor::scalar(0.25f32));
        let Operator::Constant(index) = net.rewriter.node(zero.value_id.node as usize).operator
        else {
            unreachable!("just made");
        };
        let pads = vec![(0, 0), (0, 0), (1, 2), (0, 3)];
        let pad = Pad { pads, mode: PadMode::Constant(index) };
        net.node(Operator::Pad(pad), &[x], &[2, 4, 9, 9])
    });
}

#[test]
fn outputs_may_concatenate_values_of_different_scales() {
    let mut net = Net::new();
    let x = net.input(&[1, 4, 6, 6]);
    let a = net.begin(&x);
    let gate = net.unary(Unary::Sigmoid, &a);
    let factor = net.scalar(40.0, 4);
    let large = net.binary(Binary::Multiply, &a, &factor);
    let joined = net.node(Operator::Concat(1), &[&large, &gate], &[1, 8, 6, 6]);
    let model = net.finish(&[&joined]);
    let (quantized, _) = both(&model);
    assert!(quantized.left_in_float.is_empty());
    // With the scale of the large part, the small one would have a handful of levels.
    let sample = vec![noise(&[1, 4, 6, 6], 100)];
    let values = &float_run::outputs(&quantized.model, &vec![sample]).unwrap()[0][0];
    let mut gates: Vec<u32> =
        values.as_f32().unwrap()[4 * 36..].iter().map(|x| x.to_bits()).collect();
    gates.sort();
    gates.dedup();
    assert!(gates.len() > 40, "{}", gates.len());
}

#[test]
fn resizing() {
    for (coordinates, interpolation) in [
        (CoordinateTransform::HalfPixel, Interpolation::Linear),
        (CoordinateTransform::AlignCorners, Interpolation::Linear),
        (CoordinateTransform::Asymmetric, Interpolation::NearestFloor),
        (CoordinateTransform::HalfPixel, Interpolation::NearestRoundPreferFloor),
    ] {
        after_a_layer(&format!("{coordinates:?} {interpolation:?}"), |net, x| {
            let sizes = net.constant(Tensor::new(&[4], vec![2i64, 4, 9, 12]).unwrap());
            let resize = Resize {
                coordinates,
                interpolation,
                scales_input: None,
                sizes_input: Some(1),
                cubic_coefficient: -0.75,
                exclude_outside: false,
            };
            net.node(Operator::Resize(resize), &[x, &sizes], &[2, 4, 9, 12])
        });
    }
    after_a_layer("repetition", |net, x| {
        net.node(Operator::NearestUpsample(vec![1, 1, 2, 3]), &[x], &[2, 4, 12, 18])
    });
}

fn softmax(net: &mut Net, x: &Value, axis: u32) -> Value {
    let softmax = Softmax { axes: vec![axis], logarithm: false };
    net.node(Operator::Softmax(softmax), &[x], &x.shape)
}

#[test]
fn softmax_over_one_axis() {
    for (name, axis) in [("over channels", 1), ("over columns", 3)] {
        after_a_layer(name, |net, x| {
            let scores = softmax(net, x, axis);
            net.begin(&scores)
        });
    }
}

/// Scores of many places stay in float, also where moves follow, unless INT8 is required.
#[test]
fn scores_of_many_places_stay_in_float() {
    let mut net = Net::new();
    let x = net.input(&[2, 4, 6, 6]);
    let x = net.begin(&x);
    let scores = softmax(&mut net, &x, 1);
    let flat =
        Reshape { axis: 2, from: vec![Dim::Value(6), Dim::Value(6)], to: vec![Dim::Value(36)] };
    let flat = net.node(Operator::Reshape(flat), &[&scores], &[2, 4, 36]);
    let model = net.finish(&[&flat]);
    let left: Vec<NodeReason> = both(&model).0.left_in_float;
    assert!(left.iter().any(|left| left.operator == "Softmax" && left.reason.contains("scores")));
    let samples: Vec<Vec<Tensor>> = (0..4).map(|seed| vec![noise(&[2, 4, 6, 6], seed)]).collect();
    let settings = QuantizeOptions { strict_int8: true, ..QuantizeOptions::default() };
    let strict = quantize(&model, &samples, &samples, true, &settings, &mut |_, _| {}).unwrap();
    assert!(strict.left_in_float.is_empty());
}

#[test]
fn nodes_without_an_int8_form_stay_in_float_with_a_reason() {
    let mut net = Net::new();
    let x = net.input(&[2, 4, 6, 6]);
    let before = net.begin(&x);
    let logarithm = Softmax { axes: vec![1], logarithm: true };
    let float = net.node(Operator::Softmax(logarithm), &[&before], &[2, 4, 6, 6]);
    let after = net.begin(&float);
    let (quantized, difference) = both(&net.finish(&[&after]));
    assert_eq!(quantized.model.programs.len(), 2, "one before and one after");
    let [left] = &quantized.left_in_float[..] else { panic!("one node stays in float") };
    assert_eq!(left.operator, "Softmax");
    assert!(left.reason.contains("logarithm"), "{}", left.reason);
    assert!(difference < 0.05, "{difference}");
}

#[test]
fn a_model_without_layers_is_unchanged() {
    let mut net = Net::new();
    let x = net.input(&[2, 4]);
    let y = net.unary(Unary::Tanh, &x);
    let model = net.finish(&[&y]);
    let (quantized, difference) = both(&model);
    assert!(quantized.model.programs.is_empty());
    assert_eq!((quantized.model, difference), (model, 0.0));
    assert_eq!(quantized.left_in_float.len(), 1);
}

#[test]
fn scales_of_a_pre_quantized_model_are_kept() {
    let mut net = Net::new();
    let x = net.input(&[1, 4, 6, 6]);
    let stated = |net: &mut Net, x: &Value, scale: f32| {
        let scale = net.constant(Tensor::scalar(scale));
        let zero = net.constant(Tensor::scalar(100u8));
        let quantize = QuantizeLinear { dtype: DType::U8, axis: None };
        let q = net.node(Operator::QuantizeLinear(quantize), &[x, &scale, &zero], &x.shape);
        let node = &mut net.rewriter.model.graph.nodes[q.value_id.node as usize];
        node.outputs[0].dtype = DType::U8;
        let dequantize = DequantizeLinear { dtype: DType::F32, axis: None };
        net.node(Operator::DequantizeLinear(dequantize), &[&q, &scale, &zero], &x.shape)
    };
    let x = stated(&mut net, &x, 0.0125);
    let y = net.begin(&x);
    let y = stated(&mut net, &y, 0.03125);
    let model = net.finish(&[&y]);
    let (quantized, _) = both(&model);
    assert!(quantized.left_in_float.is_empty());
    let program = &quantized.model.programs[0];
    let program = hardtack_engine::Program::parse(&program.code[..], &program.weights[..]).unwrap();
    let tensors = (0..program.tensor_count()).map(|id| program.tensor(id as u16).unwrap());
    let mut scales: Vec<(f32, i8)> = tensors.map(|t| (t.scale, t.zero_point)).collect();
    scales.sort_by(|a, b| a.0.total_cmp(&b.0));
    scales.dedup();
    assert_eq!(scales, [(0.0125, -28), (0.03125, -28)]);
}
