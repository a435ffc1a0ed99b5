//! Convolutions and matrix products.

use hardtack_bundle::graph::Outlet;
use hardtack_engine::Layer;
use hardtack_engine::program::TensorId;

use super::super::weights::{Quantized, Rounded, Values, Weights};
use super::chain::{Allow, Chain};
use super::linear::{Linear, ONE_PIXEL};
use super::wide::Halves;
use super::{Lowering, outlet, refused};

/// A layer that waits for the last node of its chain, where all it reads is there.
pub struct Waiting {
    chain: Chain,
    layer: Linear,
}

impl Lowering<'_> {
    /// Reads a convolution or matrix product, and computes it where nothing follows it directly.
    pub fn layer(&mut self, index: usize) -> Result<(), String> {
        let mut layer = Linear::of(self.model, index)?;
        if let Some(Rounded { weights, scales, bias }) = self.calibration.weights.get(&index) {
            layer.weights.values = Values::Integer(weights.clone(), scales.clone());
            layer.bias.iter_mut().zip(bias).for_each(|(bias, lacking)| *bias += lacking);
        }
        self.begin(index, layer)
    }

    /// Computes a layer, or lets it wait for the last node of its chain.
    fn begin(&mut self, index: usize, layer: Linear) -> Result<(), String> {
        let (channels, axis) = (layer.channels, layer.axis);
        let values = self.wide(outlet(index)).is_none();
        let chain = self.chain(index, Allow::Sums { channels, axis, values });
        self.absorb(&chain);
        let (last, waiting) = (chain.last, Waiting { chain, layer });
        if last == index {
            return self.compute(waiting);
        }
        self.waiting.insert(last, waiting);
        Ok(())
    }

    /// Computes what waits for a node, if that is the last of its chain.
    pub fn last_of_a_chain(&mut self, index: usize) -> Result<(), String> {
        match self.waiting.remove(&index) {
            Some(waiting) => self.compute(waiting),
            None => Ok(()),
        }
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
        let layer = Linear {
            node: index,
            input,
            input_order: order.clone(),
            output_order: order,
            window: ONE_PIXEL,
            groups: channels as u32,
            channels,
            axis,
            weights: Weights::factors(factor),
            bias: offset,
        };
        self.begin(index, layer)
    }

    fn compute(&mut self, waiting: Waiting) -> Result<(), String> {
        let Waiting { chain, mut layer } = waiting;
        let last = outlet(chain.last);
        for more in &chain.bias {
            layer.bias.iter_mut().zip(more).for_each(|(bias, more)| *bias += more);
        }
        let input = match chain.residual {
            Some(_) => Halves { high: self.dense(layer.input, &layer.input_order)?, low: None },
            None => self.halves(layer.input, &layer.input_order)?,
        };
        let scale = self.quantization_of(input.high).scale;
        let weights = std::mem::replace(&mut layer.weights, Weights::factors(Vec::new()));
        let quantized = weights.quantize(scale, &layer.bias);
        let wide = chain.residual.is_none() && chain.stated.is_none() && self.wide(last).is_some();
        if input.low.is_some() || wide {
            self.wide_layer(&layer, &chain, input, &quantized)?;
        } else {
            self.narrow_layer(&layer, &chain, input.high, &quantized)?;
        }
        if let Some(written) = self.values.last_mut() {
            written.weights = Some(quantized.report());
        }
        Ok(())
    }

    fn narrow_layer(
        &mut self,
        layer: &Linear,
        chain: &Chain,
        input: TensorId,
        quantized: &Quantized,
    ) -> Result<(), String> {
        let last = outlet(chain.last);
        let residual = match chain.residual {
            Some(residual) => Some(self.dense(residual, &layer.output_order)?),
            None => None,
        };
        let quantization = match chain.stated {
            Some(stated) => stated,
            None => self.quantization(last)?,
        };
        let output = self.tensor(last, &layer.output_order, quantization)?;
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
                    clamp: quantization.clamp(chain.limits),
                },
            )
            .map_err(refused)?;
        self.written(last, output, &layer.output_order)
    }
}
