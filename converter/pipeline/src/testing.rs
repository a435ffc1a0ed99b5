//! Builds small graphs for tests.

use hardtack::Tensor;
use hardtack::internal::{Constant, Model};
use hardtack_bundle::DType;
use hardtack_bundle::golden::Generator;
use hardtack_bundle::graph::*;

use crate::graph::rewriter::Rewriter;

/// Returns an f32 tensor of random numbers from −1 to 1.
pub(crate) fn noise(shape: &[usize], seed: u64) -> Tensor {
    let generator = Generator { seed, low: -1.0, high: 1.0 };
    hardtack::golden::generate(DType::F32, shape, &generator).expect("a small tensor")
}

fn fact(shape: &[usize]) -> Fact {
    crate::graph::shape::fact(DType::F32, shape)
}

/// A builder of graphs whose values have fixed shapes.
pub(crate) struct Net {
    pub(crate) rewriter: Rewriter,
    seed: u64,
}

/// A value of the graph, with its shape.
#[derive(Clone)]
pub(crate) struct Value {
    pub(crate) value_id: ValueId,
    pub(crate) shape: Vec<usize>,
}

impl Net {
    pub(crate) fn new() -> Net {
        Net { rewriter: Rewriter::new(Model::default()), seed: 1 }
    }

    pub(crate) fn input(&mut self, shape: &[usize]) -> Value {
        let name = format!("input{}", self.rewriter.model.graph.inputs.len());
        let node =
            Node { name, operator: Operator::Input, inputs: vec![], outputs: vec![fact(shape)] };
        let value_id = self.rewriter.add(node);
        self.rewriter.model.graph.inputs.push(value_id.node);
        Value { value_id, shape: shape.into() }
    }

    pub(crate) fn constant(&mut self, tensor: Tensor) -> Value {
        let shape = tensor.shape().to_vec();
        let name = format!("constant{}", self.rewriter.model.graph.nodes.len());
        let value_id = self.rewriter.add_constant(name, Constant::Tensor(tensor.into()));
        Value { value_id, shape }
    }

    pub(crate) fn noise(&mut self, shape: &[usize]) -> Value {
        self.seed += 1;
        self.constant(noise(shape, self.seed))
    }

    pub(crate) fn scalar(&mut self, value: f32, rank: usize) -> Value {
        self.constant(Tensor::new(&vec![1; rank], vec![value]).unwrap())
    }

    pub(crate) fn node(&mut self, operator: Operator, inputs: &[&Value], shape: &[usize]) -> Value {
        let name = format!("{}{}", operator.name(), self.rewriter.model.graph.nodes.len());
        let inputs = inputs.iter().map(|value| value.value_id).collect();
        let value_id =
            self.rewriter.add(Node { name, operator, inputs, outputs: vec![fact(shape)] });
        Value { value_id, shape: shape.into() }
    }

    pub(crate) fn binary(&mut self, kind: Binary, a: &Value, b: &Value) -> Value {
        let shape: Vec<usize> = a.shape.iter().zip(&b.shape).map(|(a, b)| *a.max(b)).collect();
        self.node(Operator::Binary(kind), &[a, b], &shape)
    }

    pub(crate) fn unary(&mut self, kind: Unary, x: &Value) -> Value {
        self.node(Operator::Unary(kind), &[x], &x.shape.clone())
    }

    /// Adds a convolution of NCHW images or NCW signals with this number of output channels.
    /// `change` may modify its attributes.
    pub(crate) fn conv(
        &mut self,
        x: &Value,
        channels: usize,
        kernel: &[u32],
        change: impl Fn(&mut Conv),
    ) -> Value {
        let spatial = kernel.len();
        let window = Window {
            layout: ImageLayout::Nchw,
            kernel: kernel.into(),
            strides: vec![1; spatial],
            dilations: vec![1; spatial],
            padding: Padding::Valid,
            input_channels: x.shape[1] as u32,
            output_channels: channels as u32,
        };
        let mut conv = Conv { window, kernel_layout: KernelLayout::Oihw, groups: 1 };
        change(&mut conv);
        let mut kernel_shape = vec![channels, x.shape[1] / conv.groups as usize];
        kernel_shape.extend(kernel.iter().map(|size| *size as usize));
        let shape = windowed(x, &conv.window);
        let (kernel, bias) = (self.noise(&kernel_shape), self.noise(&[channels]));
        self.node(Operator::Conv(conv), &[x, &kernel, &bias], &shape)
    }

    /// Adds a pointwise convolution, which starts a quantizable partition.
    pub(crate) fn begin(&mut self, x: &Value) -> Value {
        let kernel = vec![1; x.shape.len() - 2];
        self.conv(x, x.shape[1], &kernel, |_| {})
    }

    pub(crate) fn finish(mut self, outputs: &[&Value]) -> Model {
        let graph = &mut self.rewriter.model.graph;
        graph.outputs = outputs.iter().map(|value| value.value_id).collect();
        graph.output_names = (0..outputs.len()).map(|index| format!("output{index}")).collect();
        self.rewriter.finish()
    }
}

/// Returns the output shape of a window.
pub(crate) fn windowed(x: &Value, window: &Window) -> Vec<usize> {
    let mut shape = vec![x.shape[0], window.output_channels as usize];
    for axis in 0..window.kernel.len() {
        let size = x.shape[2 + axis];
        let stride = window.strides[axis] as usize;
        let reach = (window.kernel[axis] as usize - 1) * window.dilations[axis] as usize + 1;
        shape.push(match &window.padding {
            Padding::SameUpper | Padding::SameLower => size.div_ceil(stride),
            Padding::Explicit(before, after) => {
                (size + (before[axis] + after[axis]) as usize - reach) / stride + 1
            }
            _ => (size - reach) / stride + 1,
        });
    }
    shape
}
