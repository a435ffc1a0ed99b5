//! Lowers pooling and padding of int16 values.

use hardtack::Data;
use hardtack_bundle::graph::{SumPool, ValueId};
use hardtack_engine::program::{Clamp, CopyLayout, TensorId, Window};

use super::{Int16Tensors, LowTensor};
use crate::graph::first_output;
use crate::quantize::float_reason::FloatReason;
use crate::quantize::lower::strided_view::{Storage, StridedView};
use crate::quantize::lower::{Lowering, dims};
use crate::quantize::weights::linear::Linear;
use crate::quantize::weights::{Values, Weights};

/// The maximum number of window elements of an average that is computed as a convolution.
const MOST_TAPS: usize = 64;

/// The windows along one axis.
struct AxisWindow {
    /// The axis: 0 is the height, 1 the width.
    axis: usize,
    kernel: u32,
    stride: u32,
    dilation: u32,
    /// The padding before the first element.
    pad: u32,
    /// The number of windows.
    count: u32,
}

impl Lowering<'_> {
    /// Lowers a max pooling of an int16 value, one axis after the other. Returns `false` if the
    /// window has one element.
    pub(crate) fn int16_max_pool(
        &mut self,
        value: ValueId,
        input: (TensorId, LowTensor),
        window: Window,
        order: &[usize],
    ) -> Result<bool, FloatReason> {
        let to = dims(&self.fact_shape(value)?, order)?;
        let name = self.name(value.node as usize);
        let windows = [1, 0].map(|axis| AxisWindow {
            axis,
            kernel: window.kernel[axis].into(),
            stride: window.stride[axis].into(),
            dilation: window.dilation[axis].into(),
            pad: window.pad[axis].into(),
            count: to[axis],
        });
        let (mut high, mut low) = input;
        for along in windows.iter().filter(|along| along.kernel > 1 || along.stride > 1) {
            (high, low.tensor) = self.max_along(name, [high, low.tensor], along)?;
        }
        if high == input.0 {
            return Ok(false);
        }
        self.written_int16(value, high, low, order)?;
        Ok(true)
    }

    /// Returns the maximum of each window along an axis.
    ///
    /// The high tensor of the result is the maximum of the high integers. The low one is the
    /// maximum of what each element has beyond that: a smaller high integer makes the sum saturate.
    fn max_along(
        &mut self,
        name: &str,
        parts: [TensorId; 2],
        along: &AxisWindow,
    ) -> Result<(TensorId, TensorId), FloatReason> {
        let mut taps = [0; 2];
        for (taps, part) in taps.iter_mut().zip(parts) {
            *taps = self.taps(name, part, along)?;
        }
        let [high_taps, low_taps] = taps;
        let high = self.max_of_taps(name, high_taps, along);
        // The maximum again for each element of its window.
        let reached = self.like(name, high_taps, None);
        let [height, width, channels] = self.dims_of(high);
        let row = width * channels;
        let (sizes, strides) = match along.axis {
            0 => ([height, along.kernel, width, channels], [row, 0, channels, 1]),
            _ => ([height, width, along.kernel, channels], [row, channels, 0, 1]),
        };
        let repeat = CopyLayout::gather(&sizes, 0, &strides).ok_or(FloatReason::TooLarge)?;
        self.builder.copy(name, high, reached, repeat)?;
        let scale = self.quantization_of(high).scale;
        let below = self.builder.tensor(name, self.dims_of(high_taps), scale, i8::MAX);
        self.builder.subtract(name, [high_taps, reached], below, Clamp::FULL)?;
        let beyond = self.like(name, low_taps, None);
        self.builder.add(name, [below, low_taps], beyond, Clamp::FULL)?;
        Ok((high, self.max_of_taps(name, beyond, along)))
    }

    /// Copies the elements of each window next to each other.
    fn taps(
        &mut self,
        name: &str,
        mut from: TensorId,
        along: &AxisWindow,
    ) -> Result<TensorId, FloatReason> {
        let AxisWindow { axis, kernel, stride, dilation, pad, count } = *along;
        let mut sizes = self.dims_of(from);
        let covered = (count - 1) * stride + (kernel - 1) * dilation + 1;
        if pad > 0 || covered > sizes[axis] {
            // Elements of the border have the smallest value, so they are never the maximum.
            let smallest = self.quantization_of(from).range().low;
            let taken = sizes[axis].min(covered.saturating_sub(pad));
            let mut padded = sizes;
            padded[axis] = covered.max(pad + taken);
            let to = self.like(name, from, Some(padded));
            self.builder.fill(name, to, smallest)?;
            let strides = |sizes: [u32; 3]| [sizes[1] * sizes[2], sizes[2], 1];
            let mut inner = sizes;
            inner[axis] = taken;
            let six = |first, [a, b, c]: [u32; 3]| [first, first, first, a, b, c];
            let inner = CopyLayout {
                dims: six(1, inner),
                source_offset: 0,
                source_strides: six(0, strides(sizes)),
                target_offset: pad * strides(padded)[axis],
                target_strides: six(0, strides(padded)),
            };
            self.builder.copy(name, from, to, inner)?;
            (from, sizes) = (to, padded);
        }
        let [height, width, channels] = sizes;
        let row = width * channels;
        let mut of_taps = sizes;
        of_taps[axis] = count * kernel;
        let (sizes, strides) = match axis {
            0 => ([count, kernel, width, channels], [stride * row, dilation * row, channels, 1]),
            _ => (
                [height, count, kernel, channels],
                [row, stride * channels, dilation * channels, 1],
            ),
        };
        let copy = CopyLayout::gather(&sizes, 0, &strides).ok_or(FloatReason::TooLarge)?;
        let taps = self.like(name, from, Some(of_taps));
        self.builder.copy(name, from, taps, copy)?;
        Ok(taps)
    }

    fn max_of_taps(&mut self, name: &str, taps: TensorId, along: &AxisWindow) -> TensorId {
        let mut sizes = self.dims_of(taps);
        sizes[along.axis] = along.count;
        let to = self.like(name, taps, Some(sizes));
        let mut window = Window { kernel: [1; 2], stride: [1; 2], dilation: [1; 2], pad: [0; 2] };
        window.kernel[along.axis] = along.kernel as u16;
        window.stride[along.axis] = along.kernel as u16;
        self.builder.max_pool(name, taps, to, window, Clamp::FULL);
        to
    }

    /// Creates a tensor with the scale and zero point of another one, and its size unless another
    /// one is given.
    fn like(&mut self, name: &str, other: TensorId, sizes: Option<[u32; 3]>) -> TensorId {
        let quantization = self.quantization_of(other);
        let sizes = sizes.unwrap_or(self.dims_of(other));
        self.builder.tensor(name, sizes, quantization.scale, quantization.zero_point)
    }

    /// Lowers an average pooling as a convolution with equal weights. Returns `false` if its result
    /// and its input are int8, if its windows do not all have the same weights, or if they are
    /// large.
    pub(crate) fn int16_average(
        &mut self,
        index: usize,
        pool: &SumPool,
        input: ValueId,
        (window, order): (Window, &[usize]),
    ) -> Result<bool, FloatReason> {
        let taps = window.kernel.iter().map(|size| usize::from(*size)).product::<usize>();
        let (before, after) = (self.fact_shape(input)?, self.fact_shape(first_output(index))?);
        let (sizes, counts) = (dims(&before, order)?, dims(&after, order)?);
        let inside = |axis: usize| {
            let [kernel, stride, dilation] =
                [window.kernel, window.stride, window.dilation].map(|of| u32::from(of[axis]));
            let last = (counts[axis] - 1) * stride + (kernel - 1) * dilation;
            window.pad[axis] == 0 && last < sizes[axis]
        };
        let all_inside = inside(0) && inside(1);
        let view = self.high_view(input)?;
        let int16 = self.int16_tensors(&view).is_some()
            || self.int16_quantization(first_output(index)).is_some();
        if !int16 || taps > MOST_TAPS || !(all_inside || pool.count_include_pad) {
            return Ok(false);
        }
        let axis = *order.last().ok_or(FloatReason::NoChannels)?;
        let channels = before[axis];
        let values = Values::Integer(vec![1; taps * channels], vec![1.0 / taps as f32; channels]);
        let layer = Linear {
            node: index,
            input,
            input_order: order.to_vec(),
            output_order: order.to_vec(),
            window,
            groups: channels as u32,
            channels,
            axis,
            weights: Weights { depth: taps, inputs: 1, values },
            bias: vec![0.0; channels],
        };
        self.begin(index, layer)?;
        Ok(true)
    }

    /// Lowers the padding of an int16 value with zeros. Returns `false` if it is int8, or padded
    /// with something else.
    pub(crate) fn int16_pad(
        &mut self,
        index: usize,
        input: ValueId,
        border: &Data,
        pads: &[(usize, usize)],
    ) -> Result<bool, FloatReason> {
        let view = self.high_view(input)?;
        let zeros = matches!(border, Data::F32(value) if value[..] == [0.0]);
        if !zeros || self.int16_tensors(&view).is_none() {
            return Ok(false);
        }
        let order = view.order();
        let Int16Tensors { high, low: Some(low) } = self.int16_tensors_of(input, &order)? else {
            return Ok(false);
        };
        let (name, value) = (self.name(index), first_output(index));
        let sizes = dims(&self.fact_shape(value)?, &order)?;
        let mut padded = [high, low.tensor];
        for part in &mut padded {
            let to = self.like(name, *part, Some(sizes));
            self.builder.fill(name, to, 0.0)?;
            let inner = StridedView::dense(Storage::Tensor(*part), &view.shape, &order);
            let inner = inner.within(pads).and_then(|inner| inner.copies(&order));
            for (_, copy) in inner.ok_or(FloatReason::Scattered)? {
                self.builder.copy(name, *part, to, copy)?;
            }
            *part = to;
        }
        let [high, tensor] = padded;
        self.written_int16(value, high, LowTensor { tensor, ..low }, &order)?;
        Ok(true)
    }
}
