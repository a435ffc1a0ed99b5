//! Pooling.

use hardtack_bundle::graph::{self, ValueId};
use hardtack_kernels::float::{Pool, PoolPlan, Reduction};
use hardtack_kernels::strided::View;
use hardtack_kernels::{Image, Window};

use super::{Builder, image_order};
use crate::plan::Operation;
use crate::tensor::{ImageAxes, Space, Tensor};

impl Builder<'_> {
    pub(super) fn max_pool(
        &mut self,
        window: &graph::Window,
        inputs: &[ValueId],
    ) -> Option<Tensor> {
        self.pool(window, Reduction::Maximum, inputs)
    }

    pub(super) fn sum_pool(&mut self, a: &graph::SumPool, inputs: &[ValueId]) -> Option<Tensor> {
        let reduction = match (a.average, a.count_include_pad) {
            (false, _) => Reduction::Sum,
            (true, false) => Reduction::Mean,
            (true, true) => Reduction::MeanWithPadding,
        };
        // Padding that windows of a rounded-up output reach beyond has its own rules.
        let ceil = matches!(a.window.padding, graph::Padding::ExplicitCeil(..));
        if ceil && reduction == Reduction::MeanWithPadding {
            return None;
        }
        self.pool(&a.window, reduction, inputs)
    }

    fn pool(
        &mut self,
        window: &graph::Window,
        reduction: Reduction,
        inputs: &[ValueId],
    ) -> Option<Tensor> {
        let [input] = *inputs else { return None };
        let (dims, result) = (self.dims(input)?, self.dims(self.result())?);
        let slide = self.slide(window, &dims, &result)?;
        let tensor = self.tensor(input)?;
        let ImageAxes { row, column, channel } = slide.axes;
        let pixel = tensor.strides[column];
        let fits = tensor.strides[channel] == 1
            && pixel >= tensor.dims[channel]
            && row.is_none_or(|row| tensor.strides[row] >= pixel * tensor.dims[column])
            && tensor.space != Space::Constants;
        let order = image_order(dims.len(), slide.axes);
        let tensor = if fits { tensor } else { self.reordered(&tensor, &order, None)? };
        let target = self.create_result(&result, &order)?;
        let (Space::Buffer(from), Space::Buffer(to)) = (tensor.space, target.space) else {
            return None;
        };
        let view = |tensor: &Tensor, sample: usize| View {
            offset: tensor.offset + slide.batch.map_or(0, |batch| sample * tensor.strides[batch]),
            row: row
                .map_or(tensor.dims[column] * tensor.strides[column], |row| tensor.strides[row]),
            pixel: tensor.strides[column],
        };
        for sample in 0..slide.samples(&dims)? {
            let [height, width] = slide.input;
            let plan = PoolPlan {
                input: view(&tensor, sample),
                input_shape: Image { height, width, channels: dims[channel] },
                output: view(&target, sample),
                size: slide.output,
                window: Window {
                    kernel: slide.kernel,
                    stride: slide.stride,
                    dilation: slide.dilation,
                    pad: slide.pad,
                },
                reduction,
            };
            self.push(vec![from, to], move |places| {
                let mut plan = plan.clone();
                plan.input.offset += places[from];
                plan.output.offset += places[to];
                Some(Operation::Pool(Pool::new(plan)?))
            });
        }
        Some(target)
    }
}
