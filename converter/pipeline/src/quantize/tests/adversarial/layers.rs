//! Layers whose channels have known scales and offsets, which the next layers remove.

use hardtack::Tensor;
use hardtack_bundle::DType;
use hardtack_bundle::graph::*;

use crate::testing::{Net, Value, windowed};

/// A pseudo-random generator (SplitMix64).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64, stream: u64) -> Random {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (stream << 40));
        random.next();
        random
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, count: usize) -> usize {
        (self.next() % count as u64) as usize
    }

    pub(super) fn uniform(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * ((self.next() >> 40) as f32 / (1u64 << 24) as f32)
    }

    /// Returns a number with mean 0 and variance 1, of magnitude at most 3.5.
    pub(super) fn normal(&mut self) -> f32 {
        (0..4).map(|_| self.uniform(-0.87, 0.87)).sum()
    }

    /// Returns a power of ten with an exponent in this range.
    pub(super) fn magnitude(&mut self, low: f32, high: f32) -> f32 {
        10f32.powf(self.uniform(low, high))
    }

    pub(super) fn chance(&mut self, probability: f32) -> bool {
        self.uniform(0.0, 1.0) < probability
    }
}

/// What makes a network hard to quantize.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Adversary {
    /// Channels of one value whose magnitudes differ by up to a million.
    UnevenChannels,
    /// Values that vary by a ten-thousandth.
    TinyVariance,
    /// Channels that are always 0, by their weights or by ReLU.
    DeadChannels,
    /// Offsets of 10 000 times the deviation, which the next layer removes.
    HugeBias,
    /// Single weights up to a thousand times larger than the others.
    WeightOutliers,
    /// Input channels whose magnitudes differ by up to a million.
    InputMagnitudes,
    /// Input channels that do not vary.
    ConstantInputs,
    /// Input channels whose mean is large compared to their deviation.
    InputOffsets,
    /// Outputs, or columns of one output, whose magnitudes differ by up to a million.
    OutputMagnitudes,
}

impl Adversary {
    pub(super) const ALL: [Adversary; 9] = [
        Adversary::UnevenChannels,
        Adversary::TinyVariance,
        Adversary::DeadChannels,
        Adversary::HugeBias,
        Adversary::WeightOutliers,
        Adversary::InputMagnitudes,
        Adversary::ConstantInputs,
        Adversary::InputOffsets,
        Adversary::OutputMagnitudes,
    ];
}

/// A value whose channels are `offset + scale · x`, with x about 1.
#[derive(Clone)]
pub(super) struct Signal {
    pub(super) value: Value,
    /// The axis of the channels.
    pub(super) axis: usize,
    pub(super) gauge: Gauge,
}

impl Signal {
    pub(super) fn channels(&self) -> usize {
        self.value.shape[self.axis]
    }

    pub(super) fn with(&self, value: Value) -> Signal {
        Signal { value, ..self.clone() }
    }

    pub(super) fn plain(value: Value, axis: usize) -> Signal {
        let gauge = Gauge::plain(value.shape[axis]);
        Signal { value, axis, gauge }
    }
}

/// The scale and offset of each channel.
#[derive(Clone)]
pub(super) struct Gauge {
    pub(super) scale: Vec<f32>,
    pub(super) offset: Vec<f32>,
}

impl Gauge {
    pub(super) fn plain(channels: usize) -> Gauge {
        Gauge { scale: vec![1.0; channels], offset: vec![0.0; channels] }
    }
}

/// The window of a convolution.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kernel {
    pub(super) size: u32,
    pub(super) stride: u32,
    pub(super) dilation: u32,
    pub(super) groups: usize,
}

impl Kernel {
    pub(super) const POINT: Kernel = Kernel { size: 1, stride: 1, dilation: 1, groups: 1 };
}

/// Builds the layers of a network.
pub(super) struct Layers {
    pub(super) net: Net,
    pub(super) random: Random,
    pub(super) adversaries: Vec<Adversary>,
    pub(super) inputs: Vec<Input>,
}

impl Layers {
    /// Returns whether an adversary acts here.
    pub(super) fn acts(&mut self, adversary: Adversary) -> bool {
        self.adversaries.contains(&adversary) && self.random.chance(0.6)
    }

    /// Returns the scales and offsets of a layer's outputs.
    pub(super) fn gauge(&mut self, channels: usize) -> Gauge {
        let mut gauge = Gauge::plain(channels);
        if self.acts(Adversary::UnevenChannels) {
            gauge.scale.fill_with(|| self.random.magnitude(-3.0, 3.0));
        }
        if self.acts(Adversary::TinyVariance) {
            for (scale, offset) in gauge.scale.iter_mut().zip(&mut gauge.offset) {
                *offset = *scale * self.random.uniform(-1.0, 1.0);
                *scale *= 1e-4;
            }
        }
        // With larger offsets, f32 itself would round the values away.
        if self.acts(Adversary::HugeBias) {
            for (scale, offset) in gauge.scale.iter().zip(&mut gauge.offset) {
                *offset += scale * [0.0, 1e4, -1e4][self.random.below(3)];
            }
        }
        gauge
    }

    /// Returns weights and biases of `outputs` channels, for inputs and outputs of these scales and
    /// offsets. Weights are ordered by output, input and tap.
    fn weights(
        &mut self,
        (from, to): (&Gauge, &Gauge),
        groups: usize,
        taps: usize,
    ) -> [Vec<f32>; 2] {
        let (inputs, outputs) = (from.scale.len() / groups, to.scale.len());
        let depth = inputs * taps;
        let dead = self.acts(Adversary::DeadChannels);
        let outliers = self.acts(Adversary::WeightOutliers);
        let (mut weights, mut biases) = (Vec::new(), Vec::new());
        for output in 0..outputs {
            let gain = 1.0 / (depth as f32).sqrt();
            let mut row: Vec<f32> = (0..depth).map(|_| gain * self.random.normal()).collect();
            let mut bias = self.random.uniform(-0.5, 0.5);
            if dead && self.random.chance(0.3) {
                match self.random.chance(0.5) {
                    true => (row, bias) = (vec![0.0; depth], 0.0),
                    false => bias = -100.0,
                }
            }
            if outliers && self.random.chance(0.4) {
                row[self.random.below(depth)] *= self.random.magnitude(1.0, 3.0);
            }
            let (scale, offset) = (f64::from(to.scale[output]), f64::from(to.offset[output]));
            let first = output * groups / outputs * inputs;
            let mut total = f64::from(bias) * scale + offset;
            for (at, weight) in row.into_iter().enumerate() {
                let input = first + at / taps;
                let weight = f64::from(weight) * scale / f64::from(from.scale[input]);
                total -= weight * f64::from(from.offset[input]);
                weights.push(weight as f32);
            }
            biases.push(total as f32);
        }
        [weights, biases]
    }

    pub(super) fn tensor(&mut self, shape: &[usize], values: Vec<f32>) -> Value {
        self.net.constant(Tensor::new(shape, values).unwrap())
    }

    /// Returns a constant that varies along the channels of a signal.
    pub(super) fn along(&mut self, x: &Signal, values: Vec<f32>) -> Value {
        let mut shape = vec![1; x.value.shape.len()];
        shape[x.axis] = values.len();
        self.tensor(&shape, values)
    }

    pub(super) fn scalar(&mut self, x: &Value, value: f32) -> Value {
        self.net.scalar(value, x.shape.len())
    }

    /// Applies a binary operator with a scalar.
    pub(super) fn with_scalar(&mut self, kind: Binary, x: &Value, value: f32) -> Value {
        let scalar = self.scalar(x, value);
        self.net.binary(kind, x, &scalar)
    }

    /// Adds a layer that is linear in the channels, with outputs of these scales and offsets.
    pub(super) fn linear(&mut self, x: &Signal, to: Gauge) -> Signal {
        match x.axis + 1 == x.value.shape.len() {
            true => self.matmul(x, to),
            false => self.convolution(x, Kernel::POINT, to),
        }
    }

    fn matmul(&mut self, x: &Signal, to: Gauge) -> Signal {
        let (inputs, outputs) = (x.channels(), to.scale.len());
        let [weights, bias] = self.weights((&x.gauge, &to), 1, 1);
        let matrix = (0..inputs * outputs).map(|at| weights[at % outputs * inputs + at / outputs]);
        let matrix = matrix.collect();
        let matrix = self.tensor(&[inputs, outputs], matrix);
        let mut shape = x.value.shape.clone();
        shape[x.axis] = outputs;
        let expression = if shape.len() == 2 { "mk,kn->mn" } else { "amk,kn->amn" };
        let y = self.einsum(expression, &x.value, &matrix, &shape);
        let mut y = Signal { value: y, axis: x.axis, gauge: to };
        let bias = self.along(&y, bias);
        y.value = self.net.binary(Binary::Add, &y.value, &bias);
        y
    }

    pub(super) fn einsum(&mut self, expression: &str, a: &Value, b: &Value, to: &[usize]) -> Value {
        let einsum = Einsum { expression: expression.into(), accumulator: DType::F32 };
        self.net.node(Operator::Einsum(einsum), &[a, b], to)
    }

    pub(super) fn convolution(&mut self, x: &Signal, kernel: Kernel, to: Gauge) -> Signal {
        let spatial = x.value.shape.len() - 2;
        let taps = (kernel.size as usize).pow(spatial as u32);
        let [weights, bias] = self.weights((&x.gauge, &to), kernel.groups, taps);
        let same = kernel.size > 1;
        let window = Window {
            layout: ImageLayout::Nchw,
            kernel: vec![kernel.size; spatial],
            strides: vec![kernel.stride; spatial],
            dilations: vec![kernel.dilation; spatial],
            padding: if same { Padding::SameUpper } else { Padding::Valid },
            input_channels: x.channels() as u32,
            output_channels: to.scale.len() as u32,
        };
        let mut shape = vec![to.scale.len(), x.channels() / kernel.groups];
        shape.extend(vec![kernel.size as usize; spatial]);
        let (weights, bias) = (self.tensor(&shape, weights), self.tensor(&[to.scale.len()], bias));
        let shape = windowed(&x.value, &window);
        let groups = kernel.groups as u32;
        let conv = Conv { window, kernel_layout: KernelLayout::Oihw, groups };
        let value = self.net.node(Operator::Conv(conv), &[&x.value, &weights, &bias], &shape);
        Signal { value, axis: 1, gauge: to }
    }

    /// Applies an activation function. Returns its name.
    pub(super) fn activation(&mut self, x: &Signal) -> (Signal, &'static str) {
        let v = &x.value;
        let unary = |layers: &mut Layers, kind| layers.net.unary(kind, v);
        let (value, name) = match self.random.below(14) {
            0 | 1 => (self.with_scalar(Binary::Maximum, v, 0.0), "relu"),
            2 => {
                let y = self.with_scalar(Binary::Maximum, v, 0.0);
                (self.with_scalar(Binary::Minimum, &y, 6.0), "relu6")
            }
            3 => (unary(self, Unary::LeakyRelu(0.1)), "leaky"),
            4 => (self.prelu(x), "prelu"),
            5 => (unary(self, Unary::Silu), "silu"),
            6 => {
                let gate = unary(self, Unary::Sigmoid);
                (self.net.binary(Binary::Multiply, v, &gate), "x*sigmoid")
            }
            7 => (unary(self, Unary::Gelu), "gelu"),
            8 => (unary(self, Unary::HardSwish), "hardswish"),
            9 => (self.elu(v), "elu"),
            10 => {
                let y = self.with_scalar(Binary::Multiply, v, 1.0 / 6.0);
                let y = self.with_scalar(Binary::Add, &y, 0.5);
                let y = self.with_scalar(Binary::Maximum, &y, 0.0);
                return (self.plain(&y, x), "hardsigmoid");
            }
            11 => {
                let y = unary(self, Unary::Tanh);
                return (self.plain(&y, x), "tanh");
            }
            12 => {
                let y = unary(self, Unary::Sigmoid);
                return (self.plain(&y, x), "sigmoid");
            }
            _ => (v.clone(), "no activation"),
        };
        let mut y = x.with(value);
        if name != "no activation" {
            // A large negative offset makes the channel 0.
            y.gauge.offset.iter_mut().for_each(|offset| *offset = offset.max(0.0));
        }
        (y, name)
    }

    pub(super) fn plain(&self, value: &Value, like: &Signal) -> Signal {
        Signal::plain(value.clone(), like.axis)
    }

    fn prelu(&mut self, x: &Signal) -> Value {
        let slopes = (0..x.channels()).map(|_| self.random.uniform(0.0, 0.4)).collect();
        let (zero, slope) = (self.scalar(&x.value, 0.0), self.along(x, slopes));
        let test = self.net.binary(Binary::Greater, &zero, &x.value);
        let test = Value { shape: x.value.shape.clone(), ..test };
        let node = test.value_id.node as usize;
        self.net.rewriter.model.graph.nodes[node].outputs[0].dtype = DType::Bool;
        let product = self.net.binary(Binary::Multiply, &x.value, &slope);
        self.net.node(Operator::Select, &[&test, &product, &x.value], &x.value.shape)
    }

    fn elu(&mut self, x: &Value) -> Value {
        let low = self.with_scalar(Binary::Minimum, x, 0.0);
        let low = self.net.unary(Unary::Exp, &low);
        let low = self.with_scalar(Binary::Subtract, &low, 1.0);
        let high = self.with_scalar(Binary::Maximum, x, 0.0);
        self.net.binary(Binary::Add, &low, &high)
    }

    /// Returns the mean over these axes, which become 1 long.
    pub(super) fn mean(&mut self, x: &Value, axes: &[usize]) -> Value {
        let count: usize = axes.iter().map(|axis| x.shape[*axis]).product();
        let sum = self.reduce(x, axes, Reducer::Sum);
        self.with_scalar(Binary::Multiply, &sum, 1.0 / count as f32)
    }

    pub(super) fn reduce(&mut self, x: &Value, axes: &[usize], reducer: Reducer) -> Value {
        let mut shape = x.shape.clone();
        axes.iter().for_each(|axis| shape[*axis] = 1);
        let axes = axes.iter().map(|axis| *axis as u32).collect();
        self.net.node(Operator::Reduce(Reduce { axes, reducer }), &[x], &shape)
    }

    /// Normalizes over these axes: layer or instance normalization.
    pub(super) fn normalized(&mut self, x: &Signal, axes: &[usize]) -> Signal {
        let mean = self.mean(&x.value, axes);
        let centered = self.net.binary(Binary::Subtract, &x.value, &mean);
        let variance = self.reduce(&centered, axes, Reducer::MeanOfSquares);
        let variance = self.with_scalar(Binary::Add, &variance, 1e-5);
        let factor = self.net.unary(Unary::ReciprocalSqrt, &variance);
        let y = self.net.binary(Binary::Multiply, &centered, &factor);
        let y = self.plain(&y, x);
        let gauge = self.gauge(x.channels());
        self.scaled(&y, gauge)
    }

    /// Multiplies each channel and adds an offset.
    pub(super) fn scaled(&mut self, x: &Signal, gauge: Gauge) -> Signal {
        let (scale, offset) =
            (self.along(x, gauge.scale.clone()), self.along(x, gauge.offset.clone()));
        let y = self.net.binary(Binary::Multiply, &x.value, &scale);
        let value = self.net.binary(Binary::Add, &y, &offset);
        Signal { value, axis: x.axis, gauge }
    }

    /// Joins axis 1 and all after it.
    pub(super) fn flat(&mut self, x: &Value) -> Value {
        let dims = |sizes: &[usize]| sizes.iter().map(|d| Dim::Value(*d as i64)).collect();
        let size: usize = x.shape[1..].iter().product();
        let reshape = Reshape { axis: 1, from: dims(&x.shape[1..]), to: dims(&[size]) };
        self.net.node(Operator::Reshape(reshape), &[x], &[1, size])
    }

    pub(super) fn concatenated(&mut self, axis: usize, values: &[&Value]) -> Value {
        let mut shape = values[0].shape.clone();
        shape[axis] = values.iter().map(|value| value.shape[axis]).sum();
        self.net.node(Operator::Concat(axis as u32), values, &shape)
    }

    pub(super) fn softmax(&mut self, x: &Value, axis: usize) -> Value {
        let softmax = Softmax { axes: vec![axis as u32], logarithm: false };
        self.net.node(Operator::Softmax(softmax), &[x], &x.shape)
    }
}

/// An input of a network.
pub(super) enum Input {
    /// Ones, and zeros after a random number of elements.
    Mask(usize),
    /// Numbers with a scale and offset for each channel, which are constant where the scale is 0.
    Values { shape: Vec<usize>, axis: usize, gauge: Gauge, sparse: bool },
}

impl Input {
    /// Returns the values of a sample.
    pub(super) fn sample(&self, random: &mut Random) -> Tensor {
        match self {
            Input::Mask(size) => {
                let valid = 1 + random.below(*size);
                let values = (0..*size).map(|at| if at < valid { 1.0 } else { 0.0 });
                Tensor::new(&[1, 1, *size], values.collect::<Vec<f32>>()).unwrap()
            }
            Input::Values { shape, axis, gauge, sparse } => {
                let channels = shape[*axis];
                let stride: usize = shape[axis + 1..].iter().product();
                // Brightness and contrast of the sample.
                let shift: Vec<f32> = (0..channels).map(|_| random.uniform(-0.5, 0.5)).collect();
                let contrast = random.uniform(0.3, 1.0);
                let element = |at: usize| {
                    let channel = at / stride % channels;
                    let zero = *sparse && random.chance(0.8);
                    let x = if zero { 0.0 } else { contrast * random.normal() + shift[channel] };
                    gauge.offset[channel] + gauge.scale[channel] * x
                };
                let values: Vec<f32> = (0..shape.iter().product()).map(element).collect();
                Tensor::new(shape, values).unwrap()
            }
        }
    }
}
