//! Lowers convolutions and matmuls.

use std::ops::Range;
use std::rc::Rc;

use hardtack_bundle::graph::ValueId;
use hardtack_engine::Layer;
use hardtack_engine::program::Window;

use super::Lowering;
use super::chain::{Allow, Chain};
use super::int16::Int16Tensors;
use super::strided_view::StridedView;
use crate::graph::first_output;
use crate::quantize::float_reason::FloatReason;
use crate::quantize::scale::Quantization;
use crate::quantize::weights::linear::{Linear, ONE_PIXEL};
use crate::quantize::weights::{Quantized, Rounded, Values, Weights, WeightsKey};

/// A layer to be emitted at the last node of its chain, when all values that it reads exist.
pub(super) struct Deferred {
    chain: Chain,
    layer: Linear,
}

impl Lowering<'_> {
    /// Lowers a convolution or matmul, with pre-rounded weights if calibration has them.
    pub(super) fn layer(&mut self, index: usize) -> Result<(), FloatReason> {
        let mut layer = Linear::of(self.model, index)?;
        let rounded = self.calibration.weights.get(&index);
        let rounded = rounded.filter(|_| !self.int16_weights.contains(&index));
        if let Some(Rounded { weights, scales, bias }) = rounded {
            layer.weights.values = {
                let weights = weights.iter().map(|weight| i16::from(*weight)).collect();
                Values::Integer(weights, scales.clone())
            };
            layer.bias.iter_mut().zip(bias).for_each(|(bias, missing)| *bias += missing);
        }
        self.begin(index, layer)
    }

    /// Emits a layer, or defers it to the last node of its chain.
    pub(super) fn begin(&mut self, index: usize, layer: Linear) -> Result<(), FloatReason> {
        let (channels, axis) = (layer.channels, layer.axis);
        let values = self.int16_quantization(first_output(index)).is_none();
        let chain = self.chain(index, Allow::Sums { channels, axis, values });
        self.fuse(&chain);
        let (last, deferred) = (chain.last, Deferred { chain, layer });
        if last == index {
            return self.compute(deferred);
        }
        self.deferred.insert(last, deferred);
        Ok(())
    }

    /// Emits the layer that was deferred to this node, if there is one.
    pub(super) fn emit_deferred(&mut self, index: usize) -> Result<(), FloatReason> {
        match self.deferred.remove(&index) {
            Some(deferred) => self.compute(deferred),
            None => Ok(()),
        }
    }

    /// Lowers a factor and an offset per channel as a 1×1 depthwise convolution.
    pub(super) fn scale_and_shift(
        &mut self,
        index: usize,
        input: ValueId,
        axis: usize,
        factor: Vec<f32>,
        offset: Vec<f32>,
    ) -> Result<(), FloatReason> {
        let channels = factor.len();
        let rank = self.fact_shape(first_output(index))?.len();
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

    fn compute(&mut self, deferred: Deferred) -> Result<(), FloatReason> {
        let Deferred { chain, mut layer } = deferred;
        let last = first_output(chain.last);
        if let Some(factors) = &chain.factors {
            layer.bias.iter_mut().zip(factors).for_each(|(bias, factor)| *bias *= factor);
            layer.weights.multiply(factors);
        }
        for more in &chain.bias {
            layer.bias.iter_mut().zip(more).for_each(|(bias, more)| *bias += more);
        }
        let whole = self.high_view(layer.input)?;
        let of_16_bits = chain.residual.is_none() && self.int16_tensors(&whole).is_some();
        let tensors = match of_16_bits {
            true => Some(self.int16_tensors_of(layer.input, &layer.input_order)?),
            false => None,
        };
        let read = match tensors {
            Some(tensors) => self.quantization_of(tensors.high),
            None => {
                let view = self.view(layer.input)?;
                self.quantization_of_view(layer.input, &view)?
            }
        };
        let weights = std::mem::replace(&mut layer.weights, Weights::factors(Vec::new()));
        let gives_16_bits = chain.residual.is_none()
            && chain.prequantized.is_none()
            && self.int16_quantization(last).is_some();
        let int16 = tensors.is_some() || gives_16_bits;
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect();
        let key = WeightsKey {
            node: layer.node,
            input_scale: read.scale.to_bits(),
            int16: int16 && self.int16_weights.contains(&layer.node),
            bias: bits(&layer.bias),
            factors: chain.factors.as_deref().map(bits).unwrap_or_default(),
        };
        let int16_weights = key.int16;
        let mut known = self.calibration.quantized.borrow_mut();
        let both = known.entry(key).or_insert_with(|| {
            Rc::new(match int16_weights {
                true => weights.quantize_to_int16(read.scale, &layer.bias),
                false => (weights.quantize(read.scale, &layer.bias), None),
            })
        });
        let both = Rc::clone(both);
        drop(known);
        let (quantized, low_weights) = &*both;
        if quantized.copies.is_empty() && int16 {
            let input = match tensors {
                Some(tensors) => tensors,
                None => {
                    Int16Tensors { high: self.dense(layer.input, &layer.input_order)?, low: None }
                }
            };
            self.int16_layer(&layer, &chain, input, (quantized, low_weights.as_ref()))?;
        } else {
            self.int8_layer(&layer, &chain, read, quantized)?;
        }
        if let Some(written) = self.values.last_mut() {
            written.weights = Some(quantized.report());
        }
        Ok(())
    }

    fn int8_layer(
        &mut self,
        layer: &Linear,
        chain: &Chain,
        read: Quantization,
        quantized: &Quantized,
    ) -> Result<(), FloatReason> {
        let last = first_output(chain.last);
        let residual = match chain.residual {
            Some(residual) => Some(self.dense(residual, &layer.output_order)?),
            None => None,
        };
        let quantization = match chain.prequantized {
            Some(prequantized) => prequantized,
            None => self.quantization(last)?,
        };
        let output = self.tensor(last, &layer.output_order, quantization)?;
        let mut window = layer.window;
        let input = match &quantized.copies[..] {
            [] => self.dense(layer.input, &layer.input_order)?,
            copies => {
                let order = &layer.input_order;
                let view = self.view(layer.input)?;
                let view = match doubled(&mut window, order, layer.groups, &view, copies) {
                    Some(view) => view,
                    None => {
                        let axis = *order.last().ok_or(FloatReason::NoChannels)?;
                        let groups = layer.groups as usize;
                        self.changed_view(layer.input, |view| repeated(view, axis, groups, copies))?
                    }
                };
                self.gather(self.name(last.node as usize), &view, order, read)?
            }
        };
        self.builder.conv(
            self.name(last.node as usize),
            &Layer {
                input,
                output,
                window,
                groups: layer.groups,
                weights: &quantized.weights,
                weight_scales: &quantized.scales,
                bias: &quantized.bias,
                residual,
                clamp: quantization.clamp(chain.limits),
            },
        )?;
        self.written(last, output, &layer.output_order)
    }
}

/// For depthwise layers with 9-bit weights: repeats each element along the row and widens the
/// window to match, so that the layer stays depthwise. Returns `None` for other layers.
fn doubled(
    window: &mut Window,
    order: &[usize],
    groups: u32,
    view: &StridedView,
    copies: &[Range<usize>],
) -> Option<StridedView> {
    let [.., columns, channels] = *order else { return None };
    let times = copies.len() + 1;
    if view.shape[channels] != groups as usize || window.dilation[1] != 1 {
        return None;
    }
    let factor = u16::try_from(times).ok()?;
    let kernel = window.kernel[1].checked_mul(factor)?;
    let stride = window.stride[1].checked_mul(factor)?;
    let pad = window.pad[1].checked_mul(factor)?;
    let shape = &view.shape;
    let (before, after) = (&shape[..=columns], &shape[columns + 1..]);
    let view = view.clone().reshape(&[before, &[1], after].concat());
    let view = view.broadcast(&[before, &[times], after].concat())?;
    let wide = [&before[..columns], &[shape[columns] * times], after].concat();
    (window.kernel[1], window.stride[1], window.pad[1]) = (kernel, stride, pad);
    Some(view.reshape(&wide))
}

/// Returns a view in which each group of channels is followed by copies of these channel ranges.
fn repeated(
    view: &StridedView,
    axis: usize,
    groups: usize,
    copies: &[Range<usize>],
) -> Option<StridedView> {
    let shape = &view.shape;
    let grouped = [&shape[..axis], &[groups, shape[axis] / groups], &shape[axis + 1..]].concat();
    let grouped = view.clone().reshape(&grouped);
    let copies = copies.iter().map(|channels| grouped.slice(axis + 1, channels.clone(), 1));
    let parts: Vec<StridedView> =
        [Some(grouped.clone())].into_iter().chain(copies).collect::<Option<_>>()?;
    let joined = StridedView::concat(&parts, axis + 1)?;
    let channels = groups * joined.shape[axis + 1];
    let shape = [&shape[..axis], &[channels], &shape[axis + 1..]].concat();
    Some(joined.reshape(&shape))
}
