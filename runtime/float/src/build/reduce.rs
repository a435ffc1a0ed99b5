//! Reductions, softmax and normalization over axes.

use hardtack_bundle::graph::{self, ValueId};
use hardtack_kernels::float::{RowFunction, Rows};

use super::Builder;
use crate::functions::reducer;
use crate::plan::Operation;
use crate::tensor::{Space, Tensor};

impl Builder<'_> {
    pub(super) fn reduce(&mut self, a: &graph::Reduce, inputs: &[ValueId]) -> Option<Tensor> {
        self.rows(reducer(a.reducer)?, &a.axes, inputs)
    }

    pub(super) fn softmax(&mut self, a: &graph::Softmax, inputs: &[ValueId]) -> Option<Tensor> {
        let function = if a.logarithm { RowFunction::LogSoftmax } else { RowFunction::Softmax };
        self.rows(function, &a.axes, inputs)
    }

    pub(super) fn rms_norm(&mut self, a: &graph::RmsNorm, inputs: &[ValueId]) -> Option<Tensor> {
        let function = RowFunction::RmsNormalization { epsilon: a.epsilon };
        self.rows(function, &[a.axis], inputs)
    }

    /// Applies a function to the rows along some axes.
    fn rows(&mut self, function: RowFunction, axes: &[u32], inputs: &[ValueId]) -> Option<Tensor> {
        let [input] = *inputs else { return None };
        let tensor = self.tensor(input)?;
        let axes: Vec<usize> = axes.iter().map(|axis| *axis as usize).collect();
        let sound =
            axes.iter().all(|axis| *axis < tensor.dims.len()) && axes.is_sorted_by(|a, b| a < b);
        sound.then_some(())?;
        // The order of the axes within a row is that of the graph: it determines the order of sums.
        let mut order: Vec<usize> =
            tensor.order().into_iter().filter(|axis| !axes.contains(axis)).collect();
        order.extend(&axes);
        let tensor = match tensor.is_contiguous(&order) && tensor.space != Space::Constants {
            true => tensor,
            false => self.reordered(&tensor, &order, None)?,
        };
        let length: usize = axes.iter().map(|axis| tensor.dims[*axis]).product();
        let count = tensor.elements() / length;
        let mut dims = tensor.dims.clone();
        if function.results(2) == 1 {
            axes.iter().for_each(|axis| dims[*axis] = 1);
        }
        let target = self.create(&dims, &order, None)?;
        let (Space::Buffer(from), Space::Buffer(to)) = (tensor.space, target.space) else {
            return None;
        };
        let offset = tensor.offset;
        self.push(vec![from, to], move |places| {
            let rows = Rows::new(function, count, length, places[from] + offset, places[to])?;
            Some(Operation::Rows(rows))
        });
        Some(target)
    }
}
