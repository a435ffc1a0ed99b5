//! Convolutions and matrix products.

use hardtack_bundle::graph::{Conv, Einsum, ImageLayout, Operator, Outlet};
use hardtack_engine::Layer;
use hardtack_engine::program::Window;

use super::super::weights::{Weights, reals};
use super::chain::{Allow, Chain};
use super::window::{engine_window, image_order};
use super::{Lowering, outlet, refused};

/// A layer that waits for the last node of its chain, where all it reads is there.
pub struct Waiting {
    chain: Chain,
    input: Outlet,
    input_order: Vec<usize>,
    output_order: Vec<usize>,
    window: Window,
    groups: u32,
    weights: Weights,
    bias: Vec<f32>,
}

impl Lowering<'_> {
    /// Reads a convolution or matrix product, and computes it where nothing follows it directly.
    pub fn layer(&mut self, index: usize) -> Result<(), String> {
        let waiting = match &self.model.graph.nodes[index].operator {
            Operator::Conv(conv) => self.convolution(index, conv)?,
            Operator::Einsum(einsum) => self.product(index, einsum)?,
            _ => unreachable!("called for layers"),
        };
        self.absorb(&waiting.chain);
        if waiting.chain.last == index {
            return self.compute(waiting);
        }
        self.waiting.insert(waiting.chain.last, waiting);
        Ok(())
    }

    /// Computes what waits for a node, if that is the last of its chain.
    pub fn last_of_a_chain(&mut self, index: usize) -> Result<(), String> {
        match self.waiting.remove(&index) {
            Some(waiting) => self.compute(waiting),
            None => Ok(()),
        }
    }

    fn convolution(&self, index: usize, conv: &Conv) -> Result<Waiting, String> {
        let node = &self.model.graph.nodes[index];
        let [input, kernel, bias] = node.inputs[..] else { return Err("it has no bias".into()) };
        let before = self.fact_shape(input)?;
        let after = self.fact_shape(outlet(index))?;
        let order = image_order(conv.window.layout, before.len())?;
        let window = engine_window(&conv.window, &before, &after)?;
        let channels = conv.window.output_channels as usize;
        let spatial = conv.window.kernel.iter().map(|size| *size as usize).product();
        let weights = Weights::of_kernel(self.model, kernel, conv.kernel_layout, channels, spatial)
            .ok_or("its weights are computed")?;
        let bias = reals(self.model, bias).ok_or("its bias is computed")?;
        let bias = if bias.len() == 1 { vec![bias[0]; channels] } else { bias };
        let axis = match conv.window.layout {
            ImageLayout::Nchw | ImageLayout::Chw => 0,
            ImageLayout::Nhwc | ImageLayout::Hwc => after.len() - 1,
        };
        Ok(Waiting {
            chain: self.chain(index, Allow::Sums { channels, axis }),
            input,
            input_order: order.clone(),
            output_order: order,
            window,
            groups: conv.groups,
            weights,
            bias,
        })
    }

    /// A product of a value with a constant matrix, as a convolution of one pixel after another.
    fn product(&self, index: usize, einsum: &Einsum) -> Result<Waiting, String> {
        let node = &self.model.graph.nodes[index];
        let general = || "it is no product of a value with a constant matrix".to_string();
        let (sides, result) = einsum.expression.split_once("->").ok_or_else(general)?;
        let (left, right) = sides.split_once(',').ok_or_else(general)?;
        let [a, b] = node.inputs[..] else { return Err(general()) };
        let constant = |outlet: Outlet| super::is_constant(self.model, outlet);
        let (value, value_axes, matrix, matrix_axes) = match (constant(a), constant(b)) {
            (false, true) => (a, left, b, right),
            (true, false) => (b, right, a, left),
            _ => return Err(general()),
        };
        let matrix_axes: Vec<char> = matrix_axes.chars().collect();
        let [first, second] = matrix_axes[..] else { return Err(general()) };
        let (k, n, k_axis) = match (value_axes.contains(first), value_axes.contains(second)) {
            (true, false) => (first, second, 0),
            (false, true) => (second, first, 1),
            _ => return Err(general()),
        };
        let value_axes: Vec<char> = value_axes.chars().collect();
        let result: Vec<char> = result.chars().collect();
        // Every axis but the batch, the summed one last; and in the result the new one last.
        let place = |axes: &[char], axis: char| axes.iter().position(|other| *other == axis);
        let k_place = place(&value_axes, k).ok_or_else(general)?;
        let n_place = place(&result, n).ok_or_else(general)?;
        let batch_first = value_axes[0] == result[0] && k_place > 0 && n_place > 0;
        let rest: Vec<char> = value_axes[1..].iter().copied().filter(|axis| *axis != k).collect();
        let kept: Vec<char> = result[1..].iter().copied().filter(|axis| *axis != n).collect();
        if !batch_first || rest.len() != kept.len() || value_axes.len() != result.len() {
            return Err(general());
        }
        let orders = |axes: &[char], last: usize| -> Option<Vec<usize>> {
            let others = rest.iter().map(|axis| place(axes, *axis).map(|at| at - 1));
            others.chain([Some(last - 1)]).collect()
        };
        let input_order = orders(&value_axes, k_place).ok_or_else(general)?;
        let output_order = orders(&result, n_place).ok_or_else(general)?;
        let shape = &self.model.graph.fact(matrix).shape;
        let sizes = [0, 1].map(|axis| shape[axis].value().unwrap_or(0) as usize);
        let strides = [sizes[1], 1];
        let by = |axis: usize| (sizes[axis], strides[axis]);
        let weights = Weights::of_matrix(self.model, matrix, by(k_axis), by(1 - k_axis))
            .ok_or("its weights are computed")?;
        let channels = sizes[1 - k_axis];
        Ok(Waiting {
            chain: self.chain(index, Allow::Sums { channels, axis: n_place - 1 }),
            input: value,
            input_order,
            output_order,
            window: ONE_PIXEL,
            groups: 1,
            weights,
            bias: vec![0.0; channels],
        })
    }

    /// A factor and an offset for each channel, as a depthwise convolution of one pixel.
    pub fn affine(
        &mut self,
        index: usize,
        input: Outlet,
        axis: usize,
        factor: Vec<f32>,
        offset: Vec<f32>,
    ) -> Result<(), String> {
        let channels = factor.len();
        let rank = self.fact_shape(outlet(index))?.len();
        let mut order: Vec<usize> = (0..rank).filter(|other| *other != axis).collect();
        order.push(axis);
        let waiting = Waiting {
            chain: self.chain(index, Allow::Sums { channels, axis }),
            input,
            input_order: order.clone(),
            output_order: order,
            window: ONE_PIXEL,
            groups: channels as u32,
            weights: Weights::factors(factor),
            bias: offset,
        };
        self.absorb(&waiting.chain);
        if waiting.chain.last == index {
            return self.compute(waiting);
        }
        self.waiting.insert(waiting.chain.last, waiting);
        Ok(())
    }

    fn compute(&mut self, mut layer: Waiting) -> Result<(), String> {
        let last = outlet(layer.chain.last);
        let input = self.dense(layer.input, &layer.input_order)?;
        let residual = match layer.chain.residual {
            Some(residual) => Some(self.dense(residual, &layer.output_order)?),
            None => None,
        };
        let quantization = match layer.chain.stated {
            Some(stated) => stated,
            None => self.quantization(last)?,
        };
        let output = self.tensor(last, &layer.output_order, quantization)?;
        for more in &layer.chain.bias {
            layer.bias.iter_mut().zip(more).for_each(|(bias, more)| *bias += more);
        }
        let quantized = layer.weights.quantize(self.quantization_of(input).scale, &layer.bias);
        self.builder
            .conv(
                self.name(last.node as usize),
                &Layer {
                    input,
                    output,
                    window: layer.window,
                    groups: layer.groups,
                    weights: &quantized.weights,
                    weight_scales: &quantized.scales,
                    bias: &quantized.bias,
                    residual,
                    clamp: quantization.clamp(layer.chain.limits),
                },
            )
            .map_err(refused)?;
        self.written(last, output, &layer.output_order)
    }
}

/// The window of a layer that reads one pixel.
pub const ONE_PIXEL: Window =
    Window { kernel: [1, 1], stride: [1, 1], dilation: [1, 1], pad: [0, 0] };
