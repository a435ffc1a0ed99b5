//! Lowers pooling and padding, and converts windows to the engine's geometry.

use hardtack::Data;
use hardtack::internal::Constant;
use hardtack_bundle::graph::{MaxPool, Pad, PadMode, Padding, SumPool};

use super::Lowering;
use super::chain::Allow;
use super::int16::Int16Tensors;
use super::strided_view::Storage;
use crate::graph::first_output;
use crate::quantize::float_reason::FloatReason;
use crate::quantize::weights::linear::{engine_window, image_order};

impl Lowering<'_> {
    pub(super) fn max_pool(&mut self, index: usize, pool: &MaxPool) -> Result<(), FloatReason> {
        let input = self.operand(index)?;
        let before = self.fact_shape(input)?;
        let after = self.fact_shape(first_output(index))?;
        let window = engine_window(&pool.window, &before, &after)?;
        let order = image_order(pool.window.layout, before.len())?;
        let view = self.high_view(input)?;
        if self.int16_tensors(&view).is_some()
            && let Int16Tensors { high, low: Some(low) } = self.int16_tensors_of(input, &order)?
            && self.int16_max_pool(first_output(index), (high, low), window, &order)?
        {
            return Ok(());
        }
        let from = self.dense(input, &order)?;
        let quantization = self.quantization_of(from);
        let to = self.tensor(first_output(index), &order, quantization)?;
        let full = hardtack_engine::program::Clamp::FULL;
        self.builder.max_pool(self.name(index), from, to, window, full);
        self.written(first_output(index), to, &order)
    }

    pub(super) fn sum_pool(&mut self, index: usize, pool: &SumPool) -> Result<(), FloatReason> {
        if !pool.average {
            return Err(FloatReason::SumPool);
        }
        if pool.count_include_pad && matches!(pool.window.padding, Padding::ExplicitCeil(..)) {
            return Err(FloatReason::PoolBeyondPadding);
        }
        let input = self.operand(index)?;
        let before = self.fact_shape(input)?;
        let after = self.fact_shape(first_output(index))?;
        let window = engine_window(&pool.window, &before, &after)?;
        let order = image_order(pool.window.layout, before.len())?;
        if self.int16_average(index, pool, input, (window, &order))? {
            return Ok(());
        }
        let from = self.dense(input, &order)?;
        let chain = self.chain(index, Allow::Limits);
        self.fuse(&chain);
        let last = first_output(chain.last);
        let quantization = self.result(&chain, self.quantization_of(from));
        let to = self.tensor(last, &order, quantization)?;
        let clamp = quantization.clamp(chain.limits);
        let include = pool.count_include_pad;
        let name = self.name(index);
        self.builder.average_pool(name, from, to, window, include, clamp)?;
        self.written(last, to, &order)
    }

    pub(super) fn pad(&mut self, index: usize, pad: &Pad) -> Result<(), FloatReason> {
        let PadMode::Constant(constant) = pad.mode else {
            return Err(FloatReason::PadMode);
        };
        let Some(Constant::Tensor(border)) = self.model.constants.get(constant as usize) else {
            return Err(FloatReason::PadNotConstant);
        };
        if pad.pads.first() != Some(&(0, 0)) {
            return Err(FloatReason::BatchPadded);
        }
        let input = self.operand(index)?;
        let pads: Vec<(usize, usize)> =
            pad.pads[1..].iter().map(|(b, a)| (*b as usize, *a as usize)).collect();
        if self.int16_pad(index, input, border.data(), &pads)? {
            return Ok(());
        }
        let view = self.view(input)?;
        let order = view.order();
        let shared = self.shared_quantization(&view);
        let (value, quantization) = match (border.data(), shared) {
            (Data::F32(value), Some(shared)) if value[..] == [0.0] => (0.0, shared),
            (Data::F32(value), _) if value.len() == 1 => {
                (value[0], self.quantization(first_output(index))?)
            }
            (Data::I8(value), Some(shared)) if value.len() == 1 => {
                (shared.dequantize(value[0]), shared)
            }
            (Data::U8(value), Some(shared)) if value.len() == 1 => {
                (shared.dequantize((value[0] ^ 0x80) as i8), shared)
            }
            _ => return Err(FloatReason::PadValue),
        };
        let to = self.tensor(first_output(index), &order, quantization)?;
        let name = self.name(index);
        self.builder.fill(name, to, value)?;
        let padded = view.within(&pads).ok_or(FloatReason::Scattered)?;
        let copies = padded.copies(&order).ok_or(FloatReason::Scattered)?;
        for (source, copy) in copies {
            match source {
                Storage::Port(port) => self.builder.quantize(name, port, to, copy),
                Storage::Tensor(from) => self.builder.copy(name, from, to, copy),
            }?;
        }
        self.written(first_output(index), to, &order)
    }
}
