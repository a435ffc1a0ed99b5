//! Element-wise operators.

use hardtack_bundle::graph::{self, ValueId};
use hardtack_kernels::float::{Binary, Function};

use super::Builder;
use crate::functions::unary;
use crate::tensor::Tensor;

impl Builder<'_> {
    pub(super) fn unary(&mut self, function: graph::Unary, inputs: &[ValueId]) -> Option<Tensor> {
        let [input] = *inputs else { return None };
        let function = unary(function)?;
        let input = self.tensor(input)?;
        let target = self.create_result(&input.dims, &input.order())?;
        self.map::<1, 2>([&input], &target, move |[x]| Function::Unary(function, x))?;
        Some(target)
    }

    pub(super) fn binary(&mut self, function: graph::Binary, inputs: &[ValueId]) -> Option<Tensor> {
        let [a, b] = *inputs else { return None };
        let (a, b) = (self.tensor(a)?, self.tensor(b)?);
        let dims = self.dims(self.result())?;
        // The order in memory is that of an operand that is not repeated, computed ones first.
        let mut like: Vec<&Tensor> = [&a, &b].into_iter().filter(|x| x.dims == dims).collect();
        like.sort_by_key(|tensor| tensor.space == crate::tensor::Space::Constants);
        let order = like.first().map_or((0..dims.len()).collect(), |tensor| tensor.order());
        let target = self.create_result(&dims, &order)?;
        let (function, swapped) = match function {
            graph::Binary::Add => (Binary::Add, false),
            graph::Binary::Subtract => (Binary::Subtract, false),
            graph::Binary::SubtractFrom => (Binary::Subtract, true),
            graph::Binary::Multiply => (Binary::Multiply, false),
            graph::Binary::Divide => (Binary::Divide, false),
            graph::Binary::Minimum => (Binary::Minimum, false),
            graph::Binary::Maximum => (Binary::Maximum, false),
            _ => return None,
        };
        let operands = if swapped { [&b, &a] } else { [&a, &b] };
        self.map::<2, 3>(operands, &target, move |pair| Function::Binary(function, pair))?;
        Some(target)
    }
}
