//! Convolutions.

use hardtack_bundle::graph::{self, ImageLayout, KernelLayout, Padding, ValueId};
use hardtack_kernels::float::{
    Clamp, Conv, ConvPlan, DenseShape, Depthwise, DepthwisePlan, DepthwiseShape, Residual,
};
use hardtack_kernels::strided::View;

use super::{Builder, image_order, rows_of};
use crate::plan::Operation;
use crate::tensor::{Halo, ImageAxes, Margins, Space, Tensor};

/// The most samples of a batch: each has its own operations.
const MOST_SAMPLES: usize = 256;

/// A sliding window over rows and columns. A window over columns only has one row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slide {
    pub(super) axes: ImageAxes,
    /// The axis of samples, if there is one.
    pub(super) batch: Option<usize>,
    pub(super) kernel: [usize; 2],
    pub(super) stride: [usize; 2],
    pub(super) dilation: [usize; 2],
    /// The padding above and to the left.
    pub(super) pad: [usize; 2],
    /// The rows and columns of the input and the output.
    pub(super) input: [usize; 2],
    pub(super) output: [usize; 2],
}

/// What a convolution or matmul computes after its sums.
pub(super) struct Epilogue {
    pub(super) residual: Option<Tensor>,
    pub(super) clamp: Clamp,
}

/// The images of one sample of a tensor.
fn view(tensor: &Tensor, slide: &Slide, sample: usize) -> View {
    let ImageAxes { row, column, .. } = slide.axes;
    let batch = slide.batch.map_or(0, |batch| sample * tensor.strides[batch]);
    let whole = tensor.dims[column] * tensor.strides[column];
    View {
        offset: tensor.offset + batch,
        row: row.map_or(whole, |row| tensor.strides[row]),
        pixel: tensor.strides[column],
    }
}

impl Slide {
    /// Returns the number of samples; `None` for more samples than have their own operations.
    pub(super) fn samples(&self, dims: &[usize]) -> Option<usize> {
        let samples = self.batch.map_or(1, |batch| dims[batch]);
        (samples <= MOST_SAMPLES).then_some(samples)
    }

    /// Returns the zeros that the windows read around an image.
    fn margins(&self) -> Margins {
        let beyond = |axis: usize| {
            let last = (self.output[axis] - 1) * self.stride[axis];
            let end = last + (self.kernel[axis] - 1) * self.dilation[axis] + 1;
            end.saturating_sub(self.input[axis] + self.pad[axis])
        };
        let [top, left] = self.pad;
        Margins { top, bottom: beyond(0), left, right: beyond(1) }
    }
}

impl Builder<'_> {
    /// Checks a window for an input and an output of these sizes.
    pub(super) fn slide(
        &self,
        window: &graph::Window,
        dims: &[usize],
        result: &[usize],
    ) -> Option<Slide> {
        let rank = window.kernel.len();
        let (batch, channel, first) = match window.layout {
            ImageLayout::Nchw => (Some(0), 1, 2),
            ImageLayout::Nhwc => (Some(0), rank + 1, 1),
            ImageLayout::Chw => (None, 0, 1),
            ImageLayout::Hwc => (None, rank, 0),
        };
        let axes =
            ImageAxes { row: (rank == 2).then_some(first), column: first + rank - 1, channel };
        let all = rank + 1 + usize::from(batch.is_some());
        let lists = [&window.kernel, &window.strides, &window.dilations];
        let sound = (1..=2).contains(&rank)
            && dims.len() == all
            && result.len() == all
            && lists.iter().all(|list| list.len() == rank && !list.contains(&0))
            && batch.is_none_or(|batch| dims[batch] == result[batch])
            && dims[channel] == window.input_channels as usize
            && result[channel] == window.output_channels as usize;
        if !sound {
            return None;
        }
        let pair = |list: &[u32], other: usize| match *list {
            [column] => [other, column as usize],
            [row, column] => [row as usize, column as usize],
            _ => [other, other],
        };
        let size = |dims: &[usize]| [axes.row.map_or(1, |row| dims[row]), dims[axes.column]];
        let mut slide = Slide {
            axes,
            batch,
            kernel: pair(&window.kernel, 1),
            stride: pair(&window.strides, 1),
            dilation: pair(&window.dilations, 1),
            pad: [0; 2],
            input: size(dims),
            output: size(result),
        };
        let mut after = [0; 2];
        for axis in 0..2 {
            let (input, kernel) = (slide.input[axis], slide.kernel[axis]);
            let (stride, dilation) = (slide.stride[axis], slide.dilation[axis]);
            let reach = (kernel - 1).checked_mul(dilation)?.checked_add(1)?;
            let same = || {
                let windows = input.div_ceil(stride);
                ((windows - 1) * stride + reach).saturating_sub(input)
            };
            let listed = |before: &[u32], after: &[u32]| {
                let sound = before.len() == rank && after.len() == rank;
                sound.then(|| [pair(before, 0)[axis], pair(after, 0)[axis]])
            };
            let [before, behind] = match &window.padding {
                Padding::Valid => [0, 0],
                Padding::Explicit(before, after) | Padding::ExplicitCeil(before, after) => {
                    listed(before, after)?
                }
                Padding::SameUpper => [same() / 2, same() - same() / 2],
                Padding::SameLower => [same() - same() / 2, same() / 2],
            };
            (slide.pad[axis], after[axis]) = (before, behind);
            let room = input.checked_add(before)?.checked_add(behind)?.checked_sub(reach)?;
            let ceil = matches!(window.padding, Padding::ExplicitCeil(..));
            let mut windows =
                if ceil { room.div_ceil(stride) } else { room / stride }.checked_add(1)?;
            if ceil && (windows - 1) * stride >= input + before {
                // A window that would start in the padding behind the image does not exist.
                windows -= 1;
            }
            if windows != slide.output[axis] {
                return None;
            }
        }
        Some(slide)
    }

    /// Returns the halo that a convolution wants around its input; `Some(None)` if it wants none.
    pub(super) fn conv_halo(&self, a: &graph::Conv, input: ValueId) -> Option<Option<Halo>> {
        let dims = self.dims(input)?;
        let result = self.dims(ValueId { node: self.node, output: 0 })?;
        let slide = self.slide(&a.window, &dims, &result)?;
        let margins = slide.margins();
        Some((!margins.is_empty()).then_some(Halo { axes: slide.axes, margins }))
    }

    /// Returns the tensor with channels innermost in memory and these zeros around it.
    fn imaged(&mut self, tensor: Tensor, slide: &Slide, margins: Margins) -> Option<Tensor> {
        let ImageAxes { row, column, channel } = slide.axes;
        let inside = tensor
            .halo
            .is_some_and(|halo| halo.axes == slide.axes && halo.margins.contain(margins));
        let pixel = tensor.strides[column];
        let fits = tensor.strides[channel] == 1
            && pixel >= tensor.dims[channel]
            && row.is_none_or(|row| tensor.strides[row] >= pixel * tensor.dims[column])
            && tensor.space != Space::Constants;
        if fits && (inside || margins.is_empty()) {
            return Some(tensor);
        }
        let order = image_order(tensor.dims.len(), slide.axes);
        let halo = (!margins.is_empty()).then_some(Halo { axes: slide.axes, margins });
        self.reordered(&tensor, &order, halo)
    }

    /// Returns what follows the sums of the current node. `axes` are those of the result.
    pub(super) fn epilogue(&mut self, innermost: Option<usize>) -> Option<Epilogue> {
        let chain = self.chains.get(&self.node)?.clone();
        let residual = match chain.residual {
            None => None,
            Some(value) => {
                let tensor = self.tensor(value)?;
                let fits = innermost
                    .is_none_or(|axis| tensor.strides[axis] == 1 || tensor.dims[axis] == 1)
                    && tensor.space != Space::Constants;
                Some(if fits {
                    tensor
                } else {
                    let mut order: Vec<usize> = tensor
                        .order()
                        .into_iter()
                        .filter(|axis| Some(*axis) != innermost)
                        .collect();
                    order.extend(innermost);
                    self.reordered(&tensor, &order, None)?
                })
            }
        };
        Some(Epilogue { residual, clamp: chain.clamp })
    }

    /// Returns the constant that the chain adds for each index of the axes in `outputs`, row-major.
    pub(super) fn chain_bias(&self, dims: &[usize], outputs: &[usize]) -> Option<Vec<f32>> {
        let chain = self.chains.get(&self.node)?;
        let count = outputs.iter().map(|axis| dims[*axis]).product();
        let Some(value) = chain.bias else { return Some(vec![0.0; count]) };
        let (values, own) = (self.constant(value)?, self.dims(value)?);
        if own.len() != dims.len() {
            return None;
        }
        let fits = (0..own.len())
            .all(|axis| own[axis] == 1 || outputs.contains(&axis) && own[axis] == dims[axis]);
        let strides = super::row_major(&own);
        fits.then_some(())?;
        Some(
            (0..count)
                .map(|index| {
                    let (mut rest, mut at) = (index, 0);
                    for axis in outputs.iter().rev() {
                        let place = rest % dims[*axis];
                        rest /= dims[*axis];
                        at += if own[*axis] == 1 { 0 } else { place * strides[*axis] };
                    }
                    values[at]
                })
                .collect(),
        )
    }

    pub(super) fn conv(&mut self, a: &graph::Conv, inputs: &[ValueId]) -> Option<Tensor> {
        let [input, kernel, bias] = *inputs else { return None };
        let result = self.dims(self.result())?;
        let dims = self.dims(input)?;
        let slide = self.slide(&a.window, &dims, &result)?;
        let (from, to) = (dims[slide.axes.channel], result[slide.axes.channel]);
        let groups = a.groups as usize;
        if matches!(a.window.padding, Padding::ExplicitCeil(..)) {
            return None;
        }
        // The other layouts order the channels of groups in another way.
        (groups == 1 || a.kernel_layout == KernelLayout::Oihw).then_some(())?;
        let divided = groups > 0 && from.is_multiple_of(groups) && to.is_multiple_of(groups);
        divided.then_some(())?;
        let per_group = from / groups;

        // A bias that the chain cannot take is a reason to compile without the chain.
        let added = self.chain_bias(&result, &[slide.axes.channel])?;
        let (weights, kernel_dims) = (self.constant(kernel)?, self.dims(kernel)?);
        let biases = self.constant(bias)?;
        let expected = kernel_dims_of(a.kernel_layout, &a.window.kernel, per_group, to);
        let lengths = (kernel_dims == expected && (biases.len() == to || biases.len() == 1))
            .then_some(())
            .is_some();
        lengths.then_some(())?;
        let bias =
            move |output: usize| biases[if biases.len() == 1 { 0 } else { output }] + added[output];
        let (taps, layout) = (slide.kernel[0] * slide.kernel[1], a.kernel_layout);
        let weight = move |output: usize, tap: usize, channel: usize| {
            weights[match layout {
                KernelLayout::Oihw => (output * per_group + channel) * taps + tap,
                KernelLayout::Hwio => (tap * per_group + channel) * to + output,
                KernelLayout::Ohwi => (output * taps + tap) * per_group + channel,
            }]
        };

        let tensor = self.tensor(input)?;
        let tensor = self.imaged(tensor, &slide, slide.margins())?;
        let epilogue = self.epilogue(Some(slide.axes.channel))?;
        let target = self.create_result(&result, &image_order(result.len(), slide.axes))?;
        let lanes = self.kernels.lanes();
        let depthwise = groups > 1 && groups == from && groups == to;
        if depthwise && epilogue.residual.is_none() {
            let shape = DepthwiseShape { channels: to, kernel: slide.kernel };
            let range = self.reserve(shape.elements(lanes)?, move |packed| {
                shape.pack(lanes, |channel, tap| weight(channel, tap, 0), &bias, packed);
            })?;
            return self.push_depthwise(&slide, shape, (tensor, target), epilogue.clamp, range);
        }
        let shape = DenseShape { groups, outputs: to / groups, terms: taps * per_group };
        let range = self.reserve(shape.elements(lanes)?, move |packed| {
            let of_term = |group: usize, output: usize, term: usize| {
                weight(group * shape.outputs + output, term / per_group, term % per_group)
            };
            shape.pack(lanes, of_term, &bias, packed);
        })?;
        self.push_conv(&slide, shape, (tensor, target), epilogue, range)
    }

    fn push_conv(
        &mut self,
        slide: &Slide,
        shape: DenseShape,
        (tensor, target): (Tensor, Tensor),
        epilogue: Epilogue,
        range: std::ops::Range<usize>,
    ) -> Option<Tensor> {
        let per_group = shape.terms / (slide.kernel[0] * slide.kernel[1]);
        let lanes = self.kernels.lanes();
        for sample in 0..slide.samples(&tensor.dims)? {
            let (input, output) = (view(&tensor, slide, sample), view(&target, slide, sample));
            let first = window_start(&tensor, slide, &input)?;
            // The columns of a window are one run if all channels of adjacent pixels are read.
            let joined = slide.dilation[1] == 1 && shape.groups == 1 && input.pixel == per_group;
            let (runs, run) = if joined {
                ([slide.kernel[0], 1], slide.kernel[1] * per_group)
            } else {
                (slide.kernel, per_group)
            };
            let plan = ConvPlan {
                input: View {
                    offset: first,
                    row: slide.stride[0] * input.row,
                    pixel: slide.stride[1] * input.pixel,
                },
                output,
                size: slide.output,
                runs,
                run_step: [slide.dilation[0] * input.row, slide.dilation[1] * input.pixel],
                run,
                group_step: per_group,
                shape,
                residual: epilogue
                    .residual
                    .as_ref()
                    .map(|residual| Residual { view: view(residual, slide, sample) }),
                clamp: epilogue.clamp,
            };
            let residual = epilogue.residual.as_ref();
            self.push_dense(plan, [Some(&tensor), Some(&target), residual], lanes, &range)?;
        }
        Some(target)
    }

    /// Adds a convolution whose offsets are relative to the buffers of its input, output and
    /// residual.
    pub(super) fn push_dense(
        &mut self,
        plan: ConvPlan,
        tensors: [Option<&Tensor>; 3],
        lanes: usize,
        range: &std::ops::Range<usize>,
    ) -> Option<()> {
        let buffer = |tensor: Option<&Tensor>| match tensor?.space {
            Space::Buffer(buffer) => Some(buffer),
            Space::Constants => None,
        };
        let [input, output, residual] = tensors.map(buffer);
        let (input, output, range) = (input?, output?, range.clone());
        let mut buffers = vec![input, output];
        buffers.extend(residual);
        self.push(buffers, move |places| {
            let mut plan = plan.clone();
            plan.input.offset += places[input];
            plan.output.offset += places[output];
            if let (Some(residual), Some(buffer)) = (&mut plan.residual, residual) {
                residual.view.offset += places[buffer];
            }
            Some(Operation::Conv(Conv::new(plan, lanes)?, range.clone()))
        });
        Some(())
    }

    fn push_depthwise(
        &mut self,
        slide: &Slide,
        shape: DepthwiseShape,
        (tensor, target): (Tensor, Tensor),
        clamp: Clamp,
        range: std::ops::Range<usize>,
    ) -> Option<Tensor> {
        let lanes = self.kernels.lanes();
        let (Space::Buffer(from), Space::Buffer(to)) = (tensor.space, target.space) else {
            return None;
        };
        for sample in 0..slide.samples(&tensor.dims)? {
            let input = view(&tensor, slide, sample);
            let plan = DepthwisePlan {
                input: View { offset: window_start(&tensor, slide, &input)?, ..input },
                output: view(&target, slide, sample),
                size: slide.output,
                stride: slide.stride,
                dilation: slide.dilation,
                shape,
                clamp,
            };
            let range = range.clone();
            self.push(vec![from, to], move |places| {
                let mut plan = plan.clone();
                plan.input.offset += places[from];
                plan.output.offset += places[to];
                Some(Operation::Depthwise(Depthwise::new(plan, lanes)?, range.clone()))
            });
        }
        Some(target)
    }
}

/// Returns the offset of the first element of the first window, in the padding.
fn window_start(tensor: &Tensor, slide: &Slide, view: &View) -> Option<usize> {
    let rows = rows_of(&tensor.halo, &tensor.dims);
    let pad = if rows == 1 && slide.axes.row.is_none() { [0, slide.pad[1]] } else { slide.pad };
    view.offset.checked_sub(pad[0] * view.row)?.checked_sub(pad[1] * view.pixel)
}

/// Returns the dimensions of a kernel.
fn kernel_dims_of(
    layout: KernelLayout,
    kernel: &[u32],
    inputs: usize,
    outputs: usize,
) -> Vec<usize> {
    let spatial = kernel.iter().map(|size| *size as usize);
    match layout {
        KernelLayout::Oihw => [outputs, inputs].into_iter().chain(spatial).collect(),
        KernelLayout::Hwio => spatial.chain([inputs, outputs]).collect(),
        KernelLayout::Ohwi => [outputs].into_iter().chain(spatial).chain([inputs]).collect(),
    }
}
