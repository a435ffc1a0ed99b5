//! Small programs: one with a step of every kind except row tiles, one with row tiles, and one
//! with sparse row tiles.
#![allow(dead_code, reason = "each test file uses only some of these")]

use hardtack_engine::program::*;
use hardtack_engine::{Builder, Built, Layer, Program};
use hardtack_kernels::Sample;

/// Returns a square window.
pub fn window(kernel: u16, stride: u16, pad: u16) -> Window {
    Window { kernel: [kernel; 2], stride: [stride; 2], dilation: [1; 2], pad: [pad; 2] }
}

fn weights(count: usize) -> Vec<i8> {
    (0..count).map(|i| ((i * 37 + 11) % 255) as i32 - 127).map(|w| w as i8).collect()
}

/// Takes a 3×4×4 f32 image in CHW order. Outputs four probabilities as f32, and the 4×4×2 image
/// before the average pooling as u8.
pub fn every_step() -> Built {
    let mut b = Builder::new();
    let picture = b.input(PortType::F32, 48);
    let probabilities = b.output(PortType::F32, 4);
    let image = b.output(PortType::U8, 32);

    let x = b.tensor("x", [4, 4, 3], 0.02, -3);
    let stem = b.tensor("stem", [4, 4, 2], 0.05, -128);
    let depthwise = b.tensor("depthwise", [4, 4, 2], 0.04, 4);
    let sum = b.tensor("sum", [4, 4, 2], 0.06, 0);
    let large = b.tensor("large", [8, 8, 2], 0.06, 0);
    let pooled = b.tensor("pooled", [4, 4, 2], 0.06, 0);
    let mean = b.tensor("mean", [1, 1, 2], 0.06, 1);
    let gate = b.tensor("gate", [1, 1, 2], 1.0 / 256.0, -128);
    let gated = b.tensor("gated", [4, 4, 2], 0.05, 2);
    let vector = b.tensor("vector", [1, 1, 36], 0.05, 2);
    let logits = b.tensor("logits", [1, 1, 4], 0.1, 5);
    let reuse_weights_of = b.tensor("shares", [1, 1, 4], 1.0 / 256.0, -128);

    let copy = CopyLayout::gather(&[4, 4, 3], 0, &[4, 1, 16]).unwrap();
    b.quantize("picture", picture, x, copy).unwrap();
    let stem_weights = weights(2 * 9 * 3);
    let layer = Layer {
        input: x,
        output: stem,
        window: window(3, 1, 1),
        groups: 1,
        weights: &stem_weights,
        weight_scales: &[0.01, 0.02],
        bias: &[100, -100],
        residual: None,
        clamp: Clamp { low: -128, high: 100 },
    };
    b.conv("stem", &layer).unwrap();
    let depthwise_weights = weights(2 * 9);
    let layer = Layer {
        input: stem,
        output: depthwise,
        groups: 2,
        weights: &depthwise_weights,
        residual: Some(stem),
        clamp: Clamp::FULL,
        ..layer
    };
    b.conv("depthwise", &layer).unwrap();
    b.add("sum", [stem, depthwise], sum, Clamp::FULL).unwrap();
    let sample = |first, second, weight| Sample { first, second, weight };
    let samples: Vec<Sample> = (0..8).map(|i| sample(i / 2, (i / 2 + 1).min(3), 1024)).collect();
    b.resize("large", sum, large, &samples, &samples).unwrap();
    b.max_pool("pooled", large, pooled, window(2, 2, 0), Clamp::FULL);
    b.dequantize("image", pooled, image, CopyLayout::contiguous(32));
    b.average_pool("mean", pooled, mean, window(4, 1, 0), false, Clamp::FULL).unwrap();
    b.lookup("gate", mean, gate, |x| 1.0 / (1.0 + (-x).exp())).unwrap();
    b.multiply("gated", [pooled, gate], gated, Clamp::FULL).unwrap();
    b.fill("vector", vector, 0.5).unwrap();
    b.copy("vector", gated, vector, CopyLayout { target_offset: 4, ..CopyLayout::contiguous(32) })
        .unwrap();
    let dense_weights = weights(4 * 36);
    let layer = Layer {
        input: vector,
        output: logits,
        window: window(1, 1, 0),
        groups: 1,
        weights: &dense_weights,
        weight_scales: &[0.01; 4],
        bias: &[0; 4],
        residual: None,
        clamp: Clamp::FULL,
    };
    b.conv("logits", &layer).unwrap();
    b.softmax("shares", logits, reuse_weights_of).unwrap();
    b.dequantize("probabilities", reuse_weights_of, probabilities, CopyLayout::contiguous(4));
    b.finish().unwrap()
}

/// An inverted residual block in row tiles.
pub fn row_tiles() -> Built {
    in_strips(&block(window(1, 1, 0), 1), 800)
}

/// The same with a wider first window and sparse weights, three of four being 0.
pub fn sparse() -> Built {
    let built = in_strips(&block(window(3, 1, 1), 4), 1000);
    let program = Program::parse(&built.code[..], &built.weights[..]).unwrap();
    let built = Builder::of(&program).unwrap().sparse().unwrap().finish().unwrap();
    let program = Program::parse(&built.code[..], &built.weights[..]).unwrap();
    assert!(program.steps().filter(|step| matches!(step, Step::Sparse(_))).count() >= 2);
    built
}

fn in_strips(block: &Builder, arena: u64) -> Built {
    let built = block.clone().limit_arena(arena).finish().unwrap();
    let program = Program::parse(&built.code[..], &built.weights[..]).unwrap();
    assert!(program.steps().filter(|step| matches!(step, Step::RowTile(_))).count() >= 6);
    built
}

/// An inverted residual block in which only every `one_of`-th weight is not 0.
fn block(first_window: Window, one_of: usize) -> Builder {
    let mut b = Builder::new();
    let [input, output] = [b.input(PortType::I8, 192), b.output(PortType::I8, 192)];
    let x = b.tensor("x", [8, 6, 4], 0.05, -3);
    b.quantize("in", input, x, CopyLayout::contiguous(192)).unwrap();
    let mut last = x;
    for (name, of, groups, shape) in [
        ("expand", first_window, 1, [8, 6, 12]),
        ("filter", window(3, 1, 1), 12, [8, 6, 12]),
        ("project", window(1, 1, 0), 1, [8, 6, 4]),
    ] {
        let tensor = b.tensor(name, shape, 0.05, 5);
        let inputs = b.get(last).unwrap().channels;
        let depth = of.kernel[0] * of.kernel[1];
        let mut weights = weights((u32::from(depth) * inputs / groups * shape[2]) as usize);
        let zeros =
            weights.iter_mut().enumerate().filter(|(index, _)| !index.is_multiple_of(one_of));
        zeros.for_each(|(_, weight)| *weight = 0);
        let layer = Layer {
            input: last,
            output: tensor,
            window: of,
            groups,
            weights: &weights,
            weight_scales: &vec![0.02; shape[2] as usize],
            bias: &vec![7; shape[2] as usize],
            residual: (name == "project").then_some(x),
            clamp: Clamp::FULL,
        };
        b.conv(name, &layer).unwrap();
        last = tensor;
    }
    b.dequantize("out", last, output, CopyLayout::contiguous(192));
    b
}
