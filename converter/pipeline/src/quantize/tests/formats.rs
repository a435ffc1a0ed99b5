//! Tests of the number formats of layers: int8, int16 and float.

use super::super::output_error::relative_error;
use super::*;

/// Returns a model of three convolutions in a row, each followed by a limit.
fn three_layers() -> Model {
    let mut net = Net::new();
    let mut x = net.input(&[1, 4, 6, 6]);
    for _ in 0..3 {
        x = net.conv(&x, 6, &[2, 2], |_| {});
        let low = net.scalar(0.0, 4);
        x = net.binary(Binary::Maximum, &x, &low);
    }
    net.finish(&[&x])
}

fn with(settings: &QuantizeOptions) -> Result<Quantized, crate::Error> {
    let samples: Vec<Vec<Tensor>> = (0..6).map(|seed| vec![noise(&[1, 4, 6, 6], seed)]).collect();
    quantize(&three_layers(), &samples, &samples, true, settings, &mut |_, _| {})
}

#[test]
fn nodes_stay_in_float_by_name() {
    let model = three_layers();
    let convolution = model.graph.nodes.iter().find(|n| matches!(n.operator, Operator::Conv(_)));
    let name = convolution.unwrap().name.clone();
    let settings = QuantizeOptions { keep_float: vec![name.clone()], ..QuantizeOptions::default() };
    let quantized = with(&settings).unwrap();
    let kept: Vec<&str> = quantized.left_in_float.iter().map(|left| left.node.as_str()).collect();
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert!(kept.contains(&name.as_str()));
    let settings =
        QuantizeOptions { keep_float: vec!["no such node".into()], ..QuantizeOptions::default() };
    assert!(with(&settings).err().unwrap().to_string().contains("no such node"));
}

#[test]
fn the_name_of_an_onnx_node_means_all_of_its_parts() {
    let mut net = Net::new();
    let x = net.input(&[1, 4, 6, 6]);
    let x = net.begin(&x);
    let y = net.unary(Unary::Exp, &x);
    let y = net.binary(Binary::Add, &x, &y);
    let y = net.begin(&y);
    let mut model = net.finish(&[&y]);
    let parts = model
        .graph
        .nodes
        .iter_mut()
        .filter(|node| matches!(node.operator, Operator::Unary(_) | Operator::Binary(_)));
    parts.zip(["act.exp", "act.add"]).for_each(|(node, name)| node.name = name.into());
    let samples: Vec<Vec<Tensor>> = (0..6).map(|seed| vec![noise(&[1, 4, 6, 6], seed)]).collect();
    let of = |name: &str| {
        let keep_float = vec![name.to_owned()];
        let settings = QuantizeOptions { keep_float, ..QuantizeOptions::default() };
        quantize(&model, &samples, &samples, true, &settings, &mut |_, _| {})
    };
    let quantized = of("act").unwrap();
    let mut kept: Vec<&str> = quantized.left_in_float.iter().map(|left| &*left.node).collect();
    kept.sort_unstable();
    assert_eq!(kept, ["act.add", "act.exp"]);
    assert!(of("ac").err().unwrap().to_string().contains("\"ac\""));
    let int16 = Int16::Nodes(vec!["act".into()]);
    let settings = QuantizeOptions { int16, ..QuantizeOptions::default() };
    assert!(quantize(&model, &samples, &samples, true, &settings, &mut |_, _| {}).is_ok());
}

#[test]
fn layers_use_int16_or_float_to_meet_the_error_budget() {
    let any = QuantizeOptions { max_error: Some(f64::INFINITY), ..QuantizeOptions::default() };
    let whole = with(&any).unwrap();
    assert!(whole.left_in_float.is_empty());
    let samples: Vec<Vec<Tensor>> = (0..4).map(|seed| vec![noise(&[1, 4, 6, 6], seed)]).collect();
    let float = float_run::outputs(&three_layers(), &samples).unwrap();
    let error = |model: &Model| {
        let outputs = float_run::outputs(model, &samples).unwrap();
        relative_error(&float, &outputs)
    };
    let budget = 0.8 * error(&whole.model);
    let settings = QuantizeOptions { max_error: Some(budget), ..QuantizeOptions::default() };
    let mix = with(&settings).unwrap();
    assert!(error(&mix.model) <= budget);
    let node: Vec<_> = mix.left_in_float.iter().chain(&mix.int16).collect();
    assert!(!mix.model.programs.is_empty() && !node.is_empty());
    assert!(node.iter().any(|node| node.reason.contains("output error")));
    // Values enter and leave programs in int8, so only float can be this accurate.
    let exact =
        with(&QuantizeOptions { max_error: Some(1e-6), ..QuantizeOptions::default() }).unwrap();
    assert!(error(&exact.model) <= 1e-6 && !exact.left_in_float.is_empty());
}

#[test]
fn weights_that_are_not_finite_are_reported() {
    let mut model = three_layers();
    for constant in &mut model.constants {
        if let hardtack::internal::Constant::Tensor(tensor) = constant
            && tensor.shape().len() == 4
            && tensor.len() > 1
        {
            let mut values = tensor.as_f32().unwrap().to_vec();
            values[3] = f32::NAN;
            *constant = hardtack::internal::Constant::Tensor(
                Tensor::new(tensor.shape(), values).unwrap().into(),
            );
            break;
        }
    }
    let samples: Vec<Vec<Tensor>> = (0..4).map(|seed| vec![noise(&[1, 4, 6, 6], seed)]).collect();
    let error =
        quantize(&model, &samples, &samples, true, &QuantizeOptions::default(), &mut |_, _| {})
            .err()
            .unwrap();
    assert!(error.to_string().contains("NaN"), "{error}");
}

/// Returns a chain of layers of every kind, so that the int16 error of each shows in the last.
fn many_layers(limited: bool) -> Model {
    let mut net = Net::new();
    let x = net.input(&[1, 8, 12, 12]);
    let function = |net: &mut Net, x: &Value| match limited {
        true => {
            let (low, high) = (net.scalar(0.0, 4), net.scalar(6.0, 4));
            let x = net.binary(Binary::Maximum, x, &low);
            net.binary(Binary::Minimum, &x, &high)
        }
        false => net.unary(Unary::Silu, x),
    };
    let same = |conv: &mut Conv| conv.window.padding = Padding::SameUpper;
    let a = net.conv(&x, 16, &[3, 3], same);
    let a = function(&mut net, &a);
    let b = net.conv(&a, 16, &[3, 3], |conv| {
        conv.groups = 16;
        same(conv);
    });
    let b = function(&mut net, &b);
    let c = net.conv(&b, 16, &[1, 1], |_| {});
    let c = net.binary(Binary::Add, &c, &a);
    let c = function(&mut net, &c);
    let d = net.conv(&c, 12, &[3, 3], |conv| {
        same(conv);
        conv.window.strides = vec![2, 2];
    });
    let d = function(&mut net, &d);
    let e = net.conv(&c, 12, &[2, 2], |conv| conv.window.strides = vec![2, 2]);
    let e = function(&mut net, &e);
    let joined = net.node(Operator::Concat(1), &[&d, &e], &[1, 24, 6, 6]);
    let last = net.begin(&joined);
    let end = net.begin(&last);
    net.finish(&[&end])
}

/// Makes weights exact multiples of a step, so that only activations are rounded.
fn with_exact_weights(mut model: Model) -> Model {
    for constant in &mut model.constants {
        if let hardtack::internal::Constant::Tensor(tensor) = constant
            && tensor.shape().len() == 4
            && tensor.len() > 1
        {
            let exact = |w: &f32| ((w * 127.0).round() / 127.0).clamp(-1.0, 1.0);
            let mut values: Vec<f32> = tensor.as_f32().unwrap().iter().map(exact).collect();
            let depth: usize = tensor.shape()[1..].iter().product();
            // The largest weight determines the step. Values keep about their magnitude.
            values.chunks_exact_mut(depth).for_each(|row| row[0] = 1.0);
            values.iter_mut().for_each(|weight| *weight *= 1.5 / (depth as f32).sqrt());
            let tensor = Tensor::new(tensor.shape(), values).unwrap();
            *constant = hardtack::internal::Constant::Tensor(tensor.into());
        }
    }
    model
}

#[test]
fn int16_activations_are_nearly_exact() {
    for limited in [false, true] {
        let model = with_exact_weights(many_layers(limited));
        let samples: Vec<Vec<Tensor>> = (0..4)
            .map(|seed| {
                // Asymmetric, and exact in 8 bits.
                let values = noise(&[1, 8, 12, 12], seed);
                let steps = values.as_f32().unwrap().iter().map(|x| ((x + 0.6) * 50.0).round());
                let steps = steps.map(|step| 0.02 * step.clamp(-40.0, 87.0));
                let mut values: Vec<f32> = steps.collect();
                (values[0], values[1]) = (-2.56, 2.54);
                vec![Tensor::new(&[1, 8, 12, 12], values).unwrap()]
            })
            .collect();
        let worst = |int16: Int16| {
            // Equalization would move the weights off their steps.
            let equalize = Equalize::Off;
            let rounding = Rounding::Nearest;
            let settings =
                QuantizeOptions { int16, rounding, equalize, ..QuantizeOptions::default() };
            let quantized =
                quantize(&model, &samples, &samples, true, &settings, &mut |_, _| {}).unwrap();
            assert!(quantized.left_in_float.is_empty());
            assert_eq!(quantized.model.programs.len(), 1);
            // The last value leaves the program in int8.
            let layers = &quantized.layers[..quantized.layers.len() - 1];
            layers.iter().map(|layer| layer.sqnr_db).fold(f64::INFINITY, f64::min)
        };
        let (narrow, wide) = (worst(Int16::default()), worst(Int16::All));
        println!("limited: {limited}: {narrow:.1} dB, {wide:.1} dB");
        assert!(wide > narrow + 15.0, "limited: {limited}: {narrow:.1} dB, {wide:.1} dB");
    }
}

/// Returns layers with pooling, padding, sums and limits between them.
fn pooled_layers() -> Model {
    let mut net = Net::new();
    let x = net.input(&[1, 4, 17, 15]);
    let limit = |net: &mut Net, x: &Value| {
        let low = net.scalar(0.0, 4);
        net.binary(Binary::Maximum, x, &low)
    };
    let a = net.conv(&x, 8, &[3, 3], |_| {});
    let a = limit(&mut net, &a);
    let window = pool(&a, [3, 3], [2, 2], Padding::Explicit(vec![1, 1], vec![1, 1]));
    let shape = windowed(&a, &window);
    let b = net.node(Operator::MaxPool(MaxPool { window, index_dtype: None }), &[&a], &shape);
    let c = net.conv(&b, 8, &[3, 3], |conv| {
        conv.groups = 8;
        conv.window.padding = Padding::SameUpper;
    });
    let c = net.binary(Binary::Add, &c, &b);
    let c = limit(&mut net, &c);
    let window = pool(&c, [2, 2], [1, 1], Padding::Valid);
    let shape = windowed(&c, &window);
    let average = SumPool { window, count_include_pad: false, average: true };
    let d = net.node(Operator::SumPool(average), &[&c], &shape);
    net.constant(Tensor::scalar(0f32));
    let zero = net.rewriter.model.constants.len() as u32 - 1;
    let pads = vec![(0, 0), (0, 0), (1, 0), (0, 2)];
    let padded = [shape[0], shape[1], shape[2] + 1, shape[3] + 2];
    let pad = Pad { pads, mode: PadMode::Constant(zero) };
    let e = net.node(Operator::Pad(pad), &[&d], &padded);
    let f = net.conv(&e, 6, &[2, 2], |_| {});
    net.finish(&[&f])
}

/// int16 weights and activations, from the input to the output, leave hardly any error.
#[test]
fn int16_weights_are_nearly_exact() {
    let model = pooled_layers();
    let samples: Vec<Vec<Tensor>> = (0..6).map(|seed| vec![noise(&[1, 4, 17, 15], seed)]).collect();
    let float = float_run::outputs(&model, &samples).unwrap();
    let error = |max_error: f64| {
        let settings = QuantizeOptions { max_error: Some(max_error), ..QuantizeOptions::default() };
        let quantized =
            quantize(&model, &samples, &samples, true, &settings, &mut |_, _| {}).unwrap();
        assert!(quantized.left_in_float.is_empty());
        relative_error(&float, &float_run::outputs(&quantized.model, &samples).unwrap())
    };
    let int8 = error(f64::INFINITY);
    let int16 = error(2e-3);
    assert!(int8 > 8e-3 && int16 < 2e-3, "int8: {int8:.5}, int16: {int16:.5}");
}

#[test]
fn int16_layers_are_chosen_by_name() {
    let model = three_layers();
    let convolution = model.graph.nodes.iter().find(|n| matches!(n.operator, Operator::Conv(_)));
    let name = convolution.unwrap().name.clone();
    let int16 = Int16::Nodes(vec![name.clone()]);
    let quantized = with(&QuantizeOptions { int16, ..QuantizeOptions::default() }).unwrap();
    let [node] = &quantized.int16[..] else { panic!("one layer uses int16") };
    assert_eq!(node.node, name);
    let bits = |layer: &LayerReport| layer.range.unwrap().bits;
    let wide: Vec<&LayerReport> = quantized.layers.iter().filter(|l| bits(l) == 16).collect();
    assert!(!wide.is_empty() && wide.len() < quantized.layers.len());
    assert!(wide.iter().all(|layer| layer.range.unwrap().covered == layer.range.unwrap().seen));
    let whole = with(&QuantizeOptions::default()).unwrap();
    let steps = |quantized: &Quantized| {
        let program = &quantized.model.programs[0];
        let program =
            hardtack_engine::Program::parse(&program.code[..], &program.weights[..]).unwrap();
        program.steps().count()
    };
    // The layer's low tensor, and its contribution to the next layer.
    assert_eq!(steps(&quantized), steps(&whole) + 2);
    let int16 = Int16::Nodes(vec!["no such node".into()]);
    let error = with(&QuantizeOptions { int16, ..QuantizeOptions::default() }).err().unwrap();
    assert!(error.to_string().contains("--int16"), "{error}");
}

#[test]
fn any_number_of_named_nodes_is_one_option() {
    let nodes: Vec<String> = (0..50).map(|index| format!("node{index}")).collect();
    let settings = QuantizeOptions {
        int16: Int16::Nodes(nodes.clone()),
        keep_float: nodes.clone(),
        ..QuantizeOptions::default()
    };
    let all = nodes.join(", ");
    let texts = settings.texts();
    assert_eq!(texts, ["int16", "keep-float"].map(|name| (name.into(), all.clone())));
    assert!(QuantizeOptions::default().texts().is_empty());
}

/// Returns a layer over two channels of which one is a thousand times as large, and samples. With
/// `masked`, −3e38 is added to one output channel.
fn uneven_features(masked: bool) -> (Model, Vec<Vec<Tensor>>) {
    let mut net = Net::new();
    let x = net.input(&[1, 2, 4, 4]);
    let sizes = net.constant(Tensor::new(&[1, 2, 1, 1], vec![1.0f32, 1e-3]).unwrap());
    let scaled = net.binary(Binary::Multiply, &x, &sizes);
    let y = net.conv(&scaled, 4, &[1, 1], |_| {});
    let mask = Tensor::new(&[1, 4, 1, 1], vec![0.0, 0.0, -3e38f32, 0.0]).unwrap();
    let mask = net.constant(mask);
    let y = if masked { net.binary(Binary::Add, &y, &mask) } else { y };
    let model = net.finish(&[&y]);
    let sample = |seed| {
        let values = noise(&[1, 2, 4, 4], seed).to_f32();
        let values = values.iter().enumerate().map(|(at, x)| if at < 16 { *x } else { 1e3 * x });
        vec![Tensor::new(&[1, 2, 4, 4], values.collect::<Vec<f32>>()).unwrap()]
    };
    (model, (0..8).map(sample).collect())
}

#[test]
fn a_model_that_int8_breaks_is_repaired_or_refused() {
    let (model, samples) = uneven_features(false);
    let of = |settings: &QuantizeOptions| {
        quantize(&model, &samples, &samples, true, settings, &mut |_, _| {})
    };
    let float = float_run::outputs(&model, &samples).unwrap();
    let error = |quantized: &Quantized| {
        let outputs = float_run::outputs(&quantized.model, &samples).unwrap();
        relative_error(&float, &outputs)
    };
    let any = QuantizeOptions { max_error: Some(f64::INFINITY), ..QuantizeOptions::default() };
    assert!(error(&of(&any).unwrap()) > 0.2);
    let repaired = of(&QuantizeOptions::default()).unwrap();
    assert!(error(&repaired) < 0.04);
    let warning = repaired.warnings.iter().find(|warning| warning.contains("INT8 alone"));
    assert!(warning.is_some(), "{:?}", repaired.warnings);
    let strict = QuantizeOptions { strict_int8: true, ..QuantizeOptions::default() };
    let refused = of(&strict).err().unwrap().to_string();
    assert!(refused.contains("--strict-int8"), "{refused}");
}

#[test]
fn a_mask_in_an_output_does_not_hide_the_other_columns() {
    let (model, samples) = uneven_features(true);
    let settings = QuantizeOptions::default();
    let quantized = quantize(&model, &samples, &samples, true, &settings, &mut |_, _| {}).unwrap();
    let float = float_run::outputs(&model, &samples).unwrap();
    let outputs = float_run::outputs(&quantized.model, &samples).unwrap();
    for (a, b) in float.iter().zip(&outputs) {
        let (a, b) = (a[0].to_f32(), b[0].to_f32());
        let others = (0..64).filter(|at| at / 16 != 2);
        let worst = others.map(|at| (a[at] - b[at]).abs()).fold(0.0, f32::max);
        assert!(worst < 0.1, "{worst}");
    }
    assert!(quantized.warnings.iter().any(|warning| warning.contains("INT8 alone")));
}
