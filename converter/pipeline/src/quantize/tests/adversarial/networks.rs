//! Random networks.

use hardtack::Tensor;
use hardtack::internal::Model;
use hardtack_bundle::graph::*;

use super::layers::{Adversary, Gauge, Input, Kernel, Layers, Random, Signal};
use crate::testing::{Net, Value, windowed};

/// What is added to a masked element.
pub(super) const MASKED: f32 = -3e38;

/// The parts of a network. Each block is given by the seed of its choices, so that the others stay
/// the same without it.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// The seed of the inputs and outputs.
    pub(super) seed: u64,
    pub(super) adversaries: Vec<Adversary>,
    pub(super) blocks: Vec<u64>,
}

impl Plan {
    pub(super) fn new(seed: u64) -> Plan {
        let mut random = Random::new(seed, 0);
        let count = random.below(4);
        let mut adversaries = Adversary::ALL.to_vec();
        while adversaries.len() > count {
            adversaries.swap_remove(random.below(adversaries.len()));
        }
        let blocks = (1..=random.below(6) as u64).collect();
        Plan { seed, adversaries, blocks }
    }

    /// Returns the plans with one part less.
    pub(super) fn smaller(&self) -> Vec<Plan> {
        let blocks = (0..self.blocks.len()).map(|at| {
            let mut plan = self.clone();
            plan.blocks.remove(at);
            plan
        });
        let adversaries = (0..self.adversaries.len()).map(|at| {
            let mut plan = self.clone();
            plan.adversaries.remove(at);
            plan
        });
        blocks.chain(adversaries).collect()
    }
}

/// A random network.
pub(super) struct Network {
    pub(super) model: Model,
    inputs: Vec<Input>,
    /// The axis along which the values of each output differ in meaning, if there is one.
    pub(super) columns: Vec<Option<usize>>,
    /// A description of each part.
    pub(super) parts: Vec<String>,
}

impl Network {
    pub(super) fn of(plan: &Plan) -> Network {
        let layers = Layers {
            net: Net::new(),
            random: Random::new(plan.seed, 100),
            adversaries: plan.adversaries.clone(),
            inputs: Vec::new(),
        };
        let mut maker = Maker { layers, parts: Vec::new(), outputs: Vec::new() };
        let mut x = maker.input();
        for block in &plan.blocks {
            maker.layers.random = Random::new(plan.seed, *block);
            x = match (x.value.shape.len(), x.axis) {
                (2, _) => maker.features(x),
                (_, 2) => maker.tokens(x),
                _ => maker.image(x),
            };
        }
        maker.layers.random = Random::new(plan.seed, 101);
        maker.head(&x);
        let Maker { layers: Layers { net, inputs, .. }, parts, outputs } = maker;
        let values: Vec<&Value> = outputs.iter().map(|(value, _)| value).collect();
        let columns = outputs.iter().map(|(_, columns)| *columns).collect();
        Network { model: net.finish(&values), inputs, columns, parts }
    }

    /// Returns a sample of the inputs.
    pub(super) fn sample(&self, seed: u64, index: u64) -> Vec<Tensor> {
        let mut random = Random::new(seed, index);
        self.inputs.iter().map(|input| input.sample(&mut random)).collect()
    }
}

/// Builds a network.
pub(super) struct Maker {
    pub(super) layers: Layers,
    parts: Vec<String>,
    /// The outputs, each with the axis of its columns.
    pub(super) outputs: Vec<(Value, Option<usize>)>,
}

impl Maker {
    pub(super) fn part(&mut self, text: impl Into<String>) {
        self.parts.push(text.into());
    }

    pub(super) fn below(&mut self, count: usize) -> usize {
        self.layers.random.below(count)
    }

    fn input(&mut self) -> Signal {
        let size = |maker: &mut Maker, low, high| low + maker.below(high - low);
        let (shape, axis) = match self.below(8) {
            0..3 => (vec![1, size(self, 1, 6), size(self, 6, 12), size(self, 6, 12)], 1),
            3 => (vec![1, size(self, 1, 6), size(self, 16, 40)], 1),
            4 | 5 => (vec![1, size(self, 4, 10), size(self, 4, 16)], 2),
            _ => (vec![1, size(self, 3, 24)], 1),
        };
        let mut gauge = Gauge::plain(shape[axis]);
        let layers = &mut self.layers;
        if layers.acts(Adversary::InputMagnitudes) {
            gauge.scale.fill_with(|| layers.random.magnitude(-3.0, 3.0));
        }
        if layers.acts(Adversary::InputOffsets) {
            for (offset, scale) in gauge.offset.iter_mut().zip(&gauge.scale) {
                *offset = scale * layers.random.magnitude(0.0, 3.0);
            }
        }
        let mut of_values = gauge.clone();
        if layers.acts(Adversary::ConstantInputs) {
            for scale in &mut of_values.scale {
                *scale *= if layers.random.chance(0.4) { 0.0 } else { 1.0 };
            }
        }
        let sparse = layers.random.chance(0.15);
        let input = Input::Values { shape: shape.clone(), axis, gauge: of_values, sparse };
        layers.inputs.push(input);
        let value = layers.net.input(&shape);
        self.part(format!("input {shape:?}{}", if sparse { ", sparse" } else { "" }));
        let x = Signal { value, axis, gauge };
        if self.layers.random.chance(0.3) {
            self.part("normalized by constants");
            let layers = &mut self.layers;
            let offset = layers.along(&x, x.gauge.offset.clone());
            let scale = layers.along(&x, x.gauge.scale.clone());
            let y = layers.net.binary(Binary::Subtract, &x.value, &offset);
            let y = layers.net.binary(Binary::Divide, &y, &scale);
            return Signal::plain(y, axis);
        }
        x
    }

    /// Adds a linear layer with outputs of random scales, and an activation function.
    fn layer(&mut self, x: &Signal, channels: usize) -> Signal {
        let gauge = self.layers.gauge(channels);
        let y = self.layers.linear(x, gauge);
        let (y, name) = self.layers.activation(&y);
        self.part(format!("linear to {channels}, {name}"));
        y
    }

    fn convolution(&mut self, x: &Signal, channels: usize, kernel: Kernel) -> Signal {
        let gauge = self.layers.gauge(channels);
        let y = self.layers.convolution(x, kernel, gauge);
        let (y, name) = self.layers.activation(&y);
        self.part(format!("{kernel:?} to {channels}, {name}"));
        y
    }

    /// Adds the signal to a function of it.
    fn residual(&mut self, x: &Signal, of: impl Fn(&mut Maker, &Signal) -> Signal) -> Signal {
        self.part("residual of");
        let y = of(self, x);
        let mut gauge = Gauge { offset: vec![0.0; x.channels()], ..x.gauge.clone() };
        if self.layers.random.chance(0.3) {
            gauge = self.layers.gauge(x.channels());
        }
        let y = self.layers.linear(&y, gauge);
        x.with(self.layers.net.binary(Binary::Add, &x.value, &y.value))
    }

    fn gated(&mut self, x: &Signal) -> Signal {
        self.part("gated by itself");
        let gate = self.layers.linear(x, Gauge::plain(x.channels()));
        let gate = self.layers.net.unary(Unary::Sigmoid, &gate.value);
        x.with(self.layers.net.binary(Binary::Multiply, &x.value, &gate))
    }

    /// Joins two layers along the channels.
    fn joined(&mut self, x: &Signal) -> Signal {
        self.part("joined");
        let (a, b) = (self.layer(x, 4), self.layer(x, 4));
        let value = self.layers.concatenated(x.axis, &[&a.value, &b.value]);
        let both = |a: &[f32], b: &[f32]| [a, b].concat();
        let scale = both(&a.gauge.scale, &b.gauge.scale);
        let gauge = Gauge { scale, offset: both(&a.gauge.offset, &b.gauge.offset) };
        Signal { value, gauge, axis: x.axis }
    }

    fn normalized(&mut self, x: &Signal) -> Signal {
        self.part("normalized");
        let axes: Vec<usize> = match x.axis == 1 && x.value.shape.len() > 2 {
            true => (2..x.value.shape.len()).collect(),
            false => vec![x.axis],
        };
        let y = self.layers.normalized(x, &axes);
        if y.value.shape.len() == 2 || x.axis == 2 {
            return y;
        }
        // The mean of a channel that is normalized over its elements is rounding noise.
        let (y, name) = self.layers.activation(&y);
        self.part(name);
        y
    }

    fn scaled(&mut self, x: &Signal) -> Signal {
        self.part("scaled by constants");
        let gauge = self.layers.gauge(x.channels());
        let y = self.layers.plain(&x.value, x);
        let scaled = self.layers.scaled(&y, gauge);
        let pairs = scaled.gauge.scale.iter().zip(&scaled.gauge.offset);
        let pairs = pairs.zip(x.gauge.scale.iter().zip(&x.gauge.offset));
        let (scale, offset) = pairs.map(|((a, b), (s, o))| (a * s, a * o + b)).unzip();
        Signal { gauge: Gauge { scale, offset }, ..scaled }
    }

    /// Adds a block to an image or a sound.
    fn image(&mut self, x: Signal) -> Signal {
        let channels = x.channels();
        let small = x.value.shape[2..].iter().any(|size| *size < 4);
        let wide = 3 + self.below(6);
        let kernel = |maker: &mut Maker| Kernel {
            size: 2 + maker.below(2) as u32,
            stride: if small { 1 } else { 1 + maker.below(2) as u32 },
            dilation: 1 + maker.below(2) as u32,
            groups: 1,
        };
        match self.below(11) {
            0 | 1 => {
                let kernel = kernel(self);
                self.convolution(&x, wide, kernel)
            }
            2 => {
                let kernel = Kernel { groups: channels, ..kernel(self) };
                let y = self.convolution(&x, channels, kernel);
                self.layer(&y, wide)
            }
            3 => {
                let x = self.layer(&x, 8);
                let kernel = Kernel { groups: 4, ..kernel(self) };
                self.convolution(&x, 8, kernel)
            }
            4 => self.residual(&x, |maker, x| {
                let kernel = Kernel { size: 3, ..Kernel::POINT };
                maker.convolution(x, wide, kernel)
            }),
            5 => self.squeezed(&x),
            6 if !small => self.pooled(&x),
            7 if x.value.shape.len() == 4 && small => self.resized(&x),
            8 => {
                let y = self.joined(&x);
                self.shuffled(&y)
            }
            9 => self.normalized(&x),
            10 => self.scaled(&x),
            _ => self.gated(&x),
        }
    }

    fn squeezed(&mut self, x: &Signal) -> Signal {
        self.part("squeeze-excite");
        let axes: Vec<usize> = (2..x.value.shape.len()).collect();
        let mean = x.with(self.layers.mean(&x.value, &axes));
        let gauge = self.layers.gauge(4);
        let inner = self.layers.linear(&mean, gauge);
        let relu = self.layers.with_scalar(Binary::Maximum, &inner.value, 0.0);
        let gate = self.layers.linear(&inner.with(relu), Gauge::plain(x.channels()));
        let gate = self.layers.net.unary(Unary::Sigmoid, &gate.value);
        x.with(self.layers.net.binary(Binary::Multiply, &x.value, &gate))
    }

    fn pooled(&mut self, x: &Signal) -> Signal {
        let (channels, spatial) = (x.channels() as u32, x.value.shape.len() - 2);
        let window = Window {
            layout: ImageLayout::Nchw,
            kernel: vec![2; spatial],
            strides: vec![2; spatial],
            dilations: vec![1; spatial],
            padding: Padding::Valid,
            input_channels: channels,
            output_channels: channels,
        };
        let shape = windowed(&x.value, &window);
        let (operator, name) = match self.below(2) {
            0 => (Operator::MaxPool(MaxPool { window, index_dtype: None }), "max pool"),
            _ => {
                let pool = SumPool { window, count_include_pad: false, average: true };
                (Operator::SumPool(pool), "average pool")
            }
        };
        self.part(name);
        x.with(self.layers.net.node(operator, &[&x.value], &shape))
    }

    fn resized(&mut self, x: &Signal) -> Signal {
        self.part("resized");
        let mut shape = x.value.shape.clone();
        shape[2..].iter_mut().for_each(|size| *size *= 2);
        if self.below(2) == 0 {
            let upsample = Operator::NearestUpsample(vec![1, 1, 2, 2]);
            return x.with(self.layers.net.node(upsample, &[&x.value], &shape));
        }
        let sizes: Vec<i64> = shape.iter().map(|size| *size as i64).collect();
        let sizes = self.layers.net.constant(Tensor::new(&[4], sizes).unwrap());
        let resize = Resize {
            coordinates: CoordinateTransform::HalfPixel,
            interpolation: Interpolation::Linear,
            scales_input: None,
            sizes_input: Some(1),
            cubic_coefficient: -0.75,
            exclude_outside: false,
        };
        x.with(self.layers.net.node(Operator::Resize(resize), &[&x.value, &sizes], &shape))
    }

    /// Moves every second channel to the front.
    fn shuffled(&mut self, x: &Signal) -> Signal {
        self.part("shuffled");
        let half = x.channels() / 2;
        let dims = |sizes: &[usize]| sizes.iter().map(|d| Dim::Value(*d as i64)).collect();
        let rest = &x.value.shape[2..];
        let split = Reshape { axis: 1, from: dims(&[2 * half]), to: dims(&[half, 2]) };
        let net = &mut self.layers.net;
        let y = net.node(Operator::Reshape(split), &[&x.value], &[&[1, half, 2], rest].concat());
        let y = net.node(Operator::MoveAxis((2, 1)), &[&y], &[&[1, 2, half], rest].concat());
        let merge = Reshape { axis: 1, from: dims(&[2, half]), to: dims(&[2 * half]) };
        let value = net.node(Operator::Reshape(merge), &[&y], &x.value.shape);
        let order = |values: &[f32]| -> Vec<f32> {
            (0..2 * half).map(|at| values[at % half * 2 + at / half]).collect()
        };
        let gauge = Gauge { scale: order(&x.gauge.scale), offset: order(&x.gauge.offset) };
        Signal { value, axis: 1, gauge }
    }

    /// Adds a block to tokens.
    fn tokens(&mut self, x: Signal) -> Signal {
        let wide = 4 + self.below(12);
        match self.below(6) {
            0 => self.layer(&x, wide),
            1 => self.residual(&x, |maker, x| {
                let x = maker.normalized(x);
                maker.layer(&x, wide)
            }),
            2 => self.gated(&x),
            3 => self.normalized(&x),
            _ => self.residual(&x, |maker, x| {
                let x = maker.normalized(x);
                maker.attention(&x)
            }),
        }
    }

    /// Adds −3e38 to scores of all tokens, or of those after a number that an input gives.
    fn masked(&mut self, scores: &Value) -> Value {
        let size = *scores.shape.last().unwrap();
        let layers = &mut self.layers;
        let mask = match layers.random.chance(0.5) {
            true => {
                let later = |at: usize| if at % size > at / size { MASKED } else { 0.0 };
                layers.tensor(&[1, size, size], (0..size * size).map(later).collect())
            }
            false => {
                layers.inputs.push(Input::Mask(size));
                let valid = layers.net.input(&[1, 1, size]);
                let one = layers.scalar(&valid, 1.0);
                let masked = layers.net.binary(Binary::Subtract, &one, &valid);
                layers.with_scalar(Binary::Multiply, &masked, MASKED)
            }
        };
        layers.net.binary(Binary::Add, scores, &mask)
    }

    fn attention(&mut self, x: &Signal) -> Signal {
        self.part("attention");
        let (tokens, channels) = (x.value.shape[1], x.channels());
        let mut of = || self.layers.linear(x, Gauge::plain(channels));
        let (q, k, v) = (of(), of(), of());
        let scores = [1, tokens, tokens];
        let scores = self.layers.einsum("amk,ank->amn", &q.value, &k.value, &scores);
        let factor = 1.0 / (channels as f32).sqrt();
        let scores = self.layers.with_scalar(Binary::Multiply, &scores, factor);
        let scores = self.masked(&scores);
        let weights = self.layers.softmax(&scores, 2);
        let y = self.layers.einsum("amn,ank->amk", &weights, &v.value, &x.value.shape);
        self.layers.plain(&y, x)
    }

    /// Adds a block to a vector.
    fn features(&mut self, x: Signal) -> Signal {
        let wide = 4 + self.below(20);
        match self.below(8) {
            0..3 => self.layer(&x, wide),
            3 => self.residual(&x, |maker, x| maker.layer(x, wide)),
            4 => self.gated(&x),
            5 => self.joined(&x),
            6 => self.normalized(&x),
            _ => self.scaled(&x),
        }
    }
}
