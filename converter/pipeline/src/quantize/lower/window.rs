//! Lowers pooling and padding, and converts windows to the engine's geometry.

use hardtack::{Constant, Data};
use hardtack_bundle::graph::{self, ImageLayout, MaxPool, Pad, PadMode, Padding, SumPool};
use hardtack_engine::program::Window;

use super::super::lattice::Source;
use super::chain::Allow;
use super::{Lowering, SCATTERED, outlet, refused};

/// Returns the order in which images of this layout are stored, with rows first and channels last.
/// Axes exclude the batch.
pub fn image_order(layout: ImageLayout, rank: usize) -> Result<Vec<usize>, String> {
    match (layout, rank) {
        (ImageLayout::Nchw, 3) => Ok(vec![1, 2, 0]),
        (ImageLayout::Nchw, 2) => Ok(vec![1, 0]),
        (ImageLayout::Nhwc, 3) => Ok(vec![0, 1, 2]),
        (ImageLayout::Nhwc, 2) => Ok(vec![0, 1]),
        _ => Err("its input is neither 1-D nor 2-D with channels and a batch".into()),
    }
}

/// Converts a window of the graph to one of the engine. A 1-D signal is an image of one row. The
/// shapes exclude the batch.
pub fn engine_window(
    window: &graph::Window,
    before: &[usize],
    after: &[usize],
) -> Result<Window, String> {
    let first = match window.layout {
        ImageLayout::Nchw | ImageLayout::Chw => 1,
        ImageLayout::Nhwc | ImageLayout::Hwc => 0,
    };
    let spatial = window.kernel.len();
    let missing = 2usize.checked_sub(spatial).ok_or("its windows have more than two dimensions")?;
    let mut engine = Window { kernel: [1; 2], stride: [1; 2], dilation: [1; 2], pad: [0; 2] };
    let size = |number: u32| u16::try_from(number).map_err(|_| "its window is too large");
    for axis in 0..spatial {
        let place = missing + axis;
        engine.kernel[place] = size(window.kernel[axis])?;
        engine.stride[place] = size(window.strides[axis])?;
        engine.dilation[place] = size(window.dilations[axis])?;
        let (input, output) = (before[first + axis], after[first + axis]);
        let reach = (window.kernel[axis] as usize - 1) * window.dilations[axis] as usize + 1;
        let covered = (output - 1) * window.strides[axis] as usize + reach;
        let total = covered.saturating_sub(input) as u32;
        engine.pad[place] = size(match &window.padding {
            Padding::Valid => 0,
            Padding::Explicit(begin, _) | Padding::ExplicitCeil(begin, _) => begin[axis],
            Padding::SameUpper => total / 2,
            Padding::SameLower => total.div_ceil(2),
        })?;
    }
    Ok(engine)
}

impl Lowering<'_> {
    pub fn max_pool(&mut self, index: usize, pool: &MaxPool) -> Result<(), String> {
        let input = self.operand(index)?;
        let before = self.fact_shape(input)?;
        let after = self.fact_shape(outlet(index))?;
        let window = engine_window(&pool.window, &before, &after)?;
        let order = image_order(pool.window.layout, before.len())?;
        let from = self.dense(input, &order)?;
        let quantization = self.quantization_of(from);
        let to = self.tensor(outlet(index), &order, quantization)?;
        let full = hardtack_engine::program::Clamp::FULL;
        self.builder.max_pool(self.name(index), from, to, window, full);
        self.written(outlet(index), to, &order)
    }

    pub fn sum_pool(&mut self, index: usize, pool: &SumPool) -> Result<(), String> {
        if !pool.average {
            return Err("a sum pool that does not average has no INT8 form".into());
        }
        if pool.count_include_pad && matches!(pool.window.padding, Padding::ExplicitCeil(..)) {
            return Err("its windows reach beyond the padding".into());
        }
        let input = self.operand(index)?;
        let before = self.fact_shape(input)?;
        let after = self.fact_shape(outlet(index))?;
        let window = engine_window(&pool.window, &before, &after)?;
        let order = image_order(pool.window.layout, before.len())?;
        let from = self.dense(input, &order)?;
        let chain = self.chain(index, Allow::Limits);
        self.absorb(&chain);
        let last = outlet(chain.last);
        let quantization = self.result(&chain, self.quantization_of(from));
        let to = self.tensor(last, &order, quantization)?;
        let clamp = quantization.clamp(chain.limits);
        let include = pool.count_include_pad;
        let name = self.name(index);
        self.builder.average_pool(name, from, to, window, include, clamp).map_err(refused)?;
        self.written(last, to, &order)
    }

    pub fn pad(&mut self, index: usize, pad: &Pad) -> Result<(), String> {
        let PadMode::Constant(constant) = pad.mode else {
            return Err("its padding mode is not constant".into());
        };
        let Some(Constant::Tensor(border)) = self.model.constants.get(constant as usize) else {
            return Err("its padding value is not a constant".into());
        };
        if pad.pads.first() != Some(&(0, 0)) {
            return Err("it pads the batch dimension, over which a program is repeated".into());
        }
        let input = self.operand(index)?;
        let view = self.view(input)?;
        let order = view.order();
        let shared = self.shared_quantization(&view);
        let (value, quantization) = match (border.data(), shared) {
            (Data::F32(value), Some(shared)) if value[..] == [0.0] => (0.0, shared),
            (Data::F32(value), _) if value.len() == 1 => {
                (value[0], self.quantization(outlet(index))?)
            }
            (Data::I8(value), Some(shared)) if value.len() == 1 => (shared.real(value[0]), shared),
            (Data::U8(value), Some(shared)) if value.len() == 1 => {
                (shared.real((value[0] ^ 0x80) as i8), shared)
            }
            _ => return Err("its padding value is not supported".into()),
        };
        let to = self.tensor(outlet(index), &order, quantization)?;
        let name = self.name(index);
        self.builder.fill(name, to, value).map_err(refused)?;
        let border: Vec<(usize, usize)> =
            pad.pads[1..].iter().map(|(b, a)| (*b as usize, *a as usize)).collect();
        let padded = view.within(&border).ok_or(SCATTERED)?;
        let walks = padded.walks(&order).ok_or(SCATTERED)?;
        for (source, walk) in walks {
            match source {
                Source::Port(port) => self.builder.quantize(name, port, to, walk),
                Source::Tensor(from) => self.builder.copy(name, from, to, walk),
            }
            .map_err(refused)?;
        }
        self.written(outlet(index), to, &order)
    }
}
