//! Matmuls, given by an Einstein summation expression.

use hardtack_bundle::graph::ValueId;
use hardtack_kernels::float::{ConvPlan, DenseShape, Matrix, Product, Residual, TERM_DIMS};
use hardtack_kernels::strided::View;

use super::conv::Epilogue;
use super::{Builder, row_major};
use crate::plan::Operation;
use crate::tensor::{Loops, Space, Tensor};

/// The most matmuls of a batch: each has its own operation.
const MOST_PRODUCTS: usize = 4096;

/// The letters of an expression.
#[derive(Debug, Default)]
struct Letters {
    computed: Vec<char>,
    /// The letters of the weights: the constant operand, or the second of two computed ones.
    weights: Vec<char>,
    result: Vec<char>,
}

/// The letters of an expression by their role: the axes of the computed operand, of the weights
/// and of the result that each has.
#[derive(Debug, Default)]
struct Roles {
    /// Axes of both operands and the result.
    batch: Vec<[usize; 3]>,
    /// Axes of both operands only: those that are summed. The last number has no meaning.
    terms: Vec<(usize, usize)>,
    /// Axes of the computed operand and the result.
    pixels: Vec<(usize, usize)>,
    /// Axes of the weights and the result.
    outputs: Vec<(usize, usize)>,
}

impl Letters {
    fn parse(expression: &str, constant_first: bool) -> Option<Self> {
        let (operands, result) = expression.split_once("->")?;
        let (a, b) = operands.split_once(',')?;
        let (computed, constant) = if constant_first { (b, a) } else { (a, b) };
        let [computed, constant, result] = [computed, constant, result].map(|text| {
            let letters: Vec<char> = text.chars().collect();
            letters.iter().all(|letter| letter.is_alphabetic()).then_some(letters)
        });
        let letters = Self { computed: computed?, weights: constant?, result: result? };
        let distinct =
            |list: &Vec<char>| (1..list.len()).all(|index| !list[..index].contains(&list[index]));
        let sound =
            distinct(&letters.computed) && distinct(&letters.weights) && distinct(&letters.result);
        sound.then_some(letters)
    }
}

impl Letters {
    /// Returns the roles of the letters. A letter that one list only has must have size 1.
    fn roles(&self, dims: &[usize], weights: &[usize], result: &[usize]) -> Option<Roles> {
        let lengths = [self.computed.len(), self.weights.len(), self.result.len()];
        (lengths == [dims.len(), weights.len(), result.len()]).then_some(())?;
        let mut roles = Roles::default();
        for (axis, letter) in self.computed.iter().enumerate() {
            let (weight, to) = (at(&self.weights, *letter), at(&self.result, *letter));
            match (weight, to) {
                (Some(weight), Some(to))
                    if weights[weight] == dims[axis] && result[to] == dims[axis] =>
                {
                    roles.batch.push([axis, weight, to]);
                }
                (Some(weight), None) if weights[weight] == dims[axis] => {
                    roles.terms.push((axis, weight));
                }
                (None, Some(to)) if result[to] == dims[axis] => roles.pixels.push((axis, to)),
                (None, None) if dims[axis] == 1 => {}
                _ => return None,
            }
        }
        for (axis, letter) in self.weights.iter().enumerate() {
            match (at(&self.computed, *letter), at(&self.result, *letter)) {
                (Some(_), _) => {}
                (None, Some(to)) if result[to] == weights[axis] => roles.outputs.push((axis, to)),
                (None, None) if weights[axis] == 1 => {}
                _ => return None,
            }
        }
        let known = |letter: &char| self.computed.contains(letter) || self.weights.contains(letter);
        let alone = self.result.iter().zip(result).all(|(letter, dim)| known(letter) || *dim == 1);
        alone.then_some(roles)
    }
}

/// Returns the place of a letter.
fn at(letters: &[char], letter: char) -> Option<usize> {
    letters.iter().position(|other| *other == letter)
}

/// Returns the axes of the result of a matmul that only its constant operand has.
pub(super) fn output_axes(expression: &str, constant_first: bool) -> Option<Vec<usize>> {
    let letters = Letters::parse(expression, constant_first)?;
    let own =
        |letter: &char| letters.weights.contains(letter) && !letters.computed.contains(letter);
    Some((0..letters.result.len()).filter(|axis| own(&letters.result[*axis])).collect())
}

impl Builder<'_> {
    pub(super) fn einsum(&mut self, expression: &str, inputs: &[ValueId]) -> Option<Tensor> {
        let [a, b] = *inputs else { return None };
        let constant_first = self.is_constant(a);
        let (value, weights) = if constant_first { (b, a) } else { (a, b) };
        let letters = Letters::parse(expression, constant_first)?;
        let (dims, weight_dims) = (self.dims(value)?, self.dims(weights)?);
        let result = self.dims(self.result())?;
        let roles = letters.roles(&dims, &weight_dims, &result)?;
        if !self.is_constant(weights) {
            return self.product(roles, value, weights);
        }
        let Roles { batch, terms, mut pixels, outputs } = roles;
        batch.is_empty().then_some(())?;

        let added =
            self.chain_bias(&result, &outputs.iter().map(|(_, to)| *to).collect::<Vec<_>>())?;
        let tensor = self.tensor(value)?;
        let tensor = self.with_terms_innermost(tensor, &terms, &mut pixels)?;
        let innermost = outputs.iter().rev().map(|(_, to)| *to).find(|to| result[*to] > 1);

        let order = result_order(&result, &pixels, &outputs);
        let epilogue = self.epilogue(innermost)?;
        let wide = outputs.iter().filter(|(_, to)| result[*to] > 1).count();
        if epilogue.residual.is_some() && wide > 1 {
            return None;
        }
        let target = self.create_result(&result, &order)?;

        let count = |list: &[(usize, usize)], dims: &[usize]| -> usize {
            list.iter().map(|(axis, _)| dims[*axis]).product()
        };
        let shape = DenseShape {
            groups: 1,
            outputs: count(&outputs, &weight_dims),
            terms: count(&terms, &dims),
        };
        let lanes = self.kernels.lanes();
        let values = self.constant(weights)?;
        let weight_axes: Vec<usize> = outputs.iter().map(|(axis, _)| *axis).collect();
        let term_axes: Vec<usize> = terms.iter().map(|(_, weight)| *weight).collect();
        let range = self.reserve(shape.elements(lanes)?, move |packed| {
            let strides = row_major(&weight_dims);
            let place = |axes: &[usize], mut index: usize| {
                let mut at = 0;
                for axis in axes.iter().rev() {
                    at += index % weight_dims[*axis] * strides[*axis];
                    index /= weight_dims[*axis];
                }
                at
            };
            let rows: Vec<usize> = (0..shape.outputs).map(|i| place(&weight_axes, i)).collect();
            let columns: Vec<usize> = (0..shape.terms).map(|i| place(&term_axes, i)).collect();
            let weight = |_, output: usize, term: usize| values[rows[output] + columns[term]];
            shape.pack(lanes, weight, |output| added[output], packed);
        })?;
        for plan in plans(&tensor, &target, &terms, &pixels, &epilogue, shape) {
            let tensors = [Some(&tensor), Some(&target), epilogue.residual.as_ref()];
            self.push_dense(plan, tensors, lanes, &range)?;
        }
        Some(target)
    }

    /// Compiles a matmul of two computed operands, of which the second is packed for each run.
    fn product(&mut self, roles: Roles, value: ValueId, weights: ValueId) -> Option<Tensor> {
        let result = self.dims(self.result())?;
        let Roles { batch, terms, mut pixels, outputs } = roles;
        let (tensor, weights) = (self.tensor(value)?, self.tensor(weights)?);
        let tensor = self.with_terms_innermost(tensor, &terms, &mut pixels)?;
        let flipped = flipped_axes(&terms);
        let simple = |weights: &Tensor| {
            runs(weights, &flipped).dims.len() <= TERM_DIMS
                && runs(weights, &outputs).dims.len() <= 1
        };
        let weights = if simple(&weights) && weights.space != Space::Constants {
            weights
        } else {
            let order = result_order(&weights.dims, &terms, &flipped_axes(&outputs));
            self.reordered(&weights, &order, None)?
        };
        let innermost = outputs.iter().rev().map(|(_, to)| *to).find(|to| result[*to] > 1);
        let epilogue = self.epilogue(innermost)?;
        let wide = outputs.iter().filter(|(_, to)| result[*to] > 1).count();
        (epilogue.residual.is_none() || wide <= 1).then_some(())?;
        let target = self.create_result(&result, &result_order(&result, &pixels, &outputs))?;

        let size = |list: &[(usize, usize)], dims: &[usize]| -> usize {
            list.iter().map(|(axis, _)| dims[*axis]).product()
        };
        let shape = DenseShape {
            groups: 1,
            outputs: size(&outputs, &weights.dims),
            terms: size(&terms, &tensor.dims),
        };
        let mut matrix =
            Matrix { offset: weights.offset, output_stride: 1, terms: [(1, 0); TERM_DIMS] };
        if let Some((_, [stride])) = runs(&weights, &outputs).dims.first() {
            matrix.output_stride = *stride;
        }
        let loops = runs(&weights, &flipped).dims;
        for (place, (size, [stride])) in matrix.terms.iter_mut().rev().zip(loops.iter().rev()) {
            *place = (*size, *stride);
        }
        let added = epilogue.residual.as_ref().unwrap_or(&target);
        let samples: usize = batch.iter().map(|[axis, ..]| tensor.dims[*axis]).product();
        (samples <= MOST_PRODUCTS).then_some(())?;
        let planned = plans(&tensor, &target, &terms, &pixels, &epilogue, shape);
        for sample in 0..samples {
            let (mut rest, mut offsets) = (sample, [0; 4]);
            for [own, weight, to] in batch.iter().rev() {
                let index = rest % tensor.dims[*own];
                rest /= tensor.dims[*own];
                let strides = [
                    tensor.strides[*own],
                    weights.strides[*weight],
                    added.strides[*to],
                    target.strides[*to],
                ];
                offsets.iter_mut().zip(strides).for_each(|(offset, step)| *offset += index * step);
            }
            for plan in &planned {
                let (mut plan, mut matrix) = (plan.clone(), matrix);
                plan.input.offset += offsets[0];
                matrix.offset += offsets[1];
                if let Some(residual) = &mut plan.residual {
                    residual.view.offset += offsets[2];
                }
                plan.output.offset += offsets[3];
                let tensors = [&tensor, &weights, &target];
                self.push_product(plan, matrix, tensors, epilogue.residual.as_ref())?;
            }
        }
        Some(target)
    }

    /// Adds a matmul whose offsets are relative to the buffers of its operands and its result.
    fn push_product(
        &mut self,
        plan: ConvPlan,
        matrix: Matrix,
        tensors: [&Tensor; 3],
        residual: Option<&Tensor>,
    ) -> Option<()> {
        let lanes = self.kernels.lanes();
        let buffer = |tensor: &Tensor| match tensor.space {
            Space::Buffer(buffer) => Some(buffer),
            Space::Constants => None,
        };
        let [Some(input), Some(weights), Some(output)] = tensors.map(buffer) else { return None };
        let residual = residual.and_then(buffer);
        let mut buffers = vec![input, weights, output];
        buffers.extend(residual);
        self.push(buffers, move |places| {
            let (mut plan, mut matrix) = (plan.clone(), matrix);
            plan.input.offset += places[input];
            matrix.offset += places[weights];
            plan.output.offset += places[output];
            if let (Some(added), Some(buffer)) = (&mut plan.residual, residual) {
                added.view.offset += places[buffer];
            }
            Some(Operation::Product(Product::new(plan, matrix, lanes)?))
        });
        Some(())
    }

    /// Returns the tensor with the terms in at most three runs of memory, the innermost
    /// contiguous, and sorts the pixels by their place in memory. Terms stay in the order of the
    /// letters, so that the order of sums does not depend on the memory.
    fn with_terms_innermost(
        &mut self,
        tensor: Tensor,
        terms: &[(usize, usize)],
        pixels: &mut [(usize, usize)],
    ) -> Option<Tensor> {
        let by_stride = |tensor: &Tensor, list: &mut [(usize, usize)]| {
            list.sort_by_key(|(axis, _)| std::cmp::Reverse(tensor.strides[*axis]));
        };
        by_stride(&tensor, pixels);
        let runs = runs(&tensor, terms);
        let fits = runs.dims.len() <= 3
            && runs.dims.last().is_none_or(|(_, [stride])| *stride == 1)
            && tensor.space != Space::Constants;
        if fits {
            return Some(tensor);
        }
        let mut order: Vec<usize> = (0..tensor.dims.len())
            .filter(|axis| !terms.iter().any(|(term, _)| term == axis))
            .filter(|axis| !pixels.iter().any(|(pixel, _)| pixel == axis))
            .collect();
        order.extend(pixels.iter().map(|(axis, _)| *axis));
        order.extend(terms.iter().map(|(axis, _)| *axis));
        self.reordered(&tensor, &order, None)
    }
}

/// Returns the operations of a matmul for the first sample of a batch.
fn plans(
    tensor: &Tensor,
    target: &Tensor,
    terms: &[(usize, usize)],
    pixels: &[(usize, usize)],
    epilogue: &Epilogue,
    shape: DenseShape,
) -> Vec<ConvPlan> {
    let mut terms = runs(tensor, terms).dims;
    let run = terms.pop().map_or(1, |(size, _)| size);
    let (columns, column_step) = terms.pop().map_or((1, 0), |(size, [step])| (size, step));
    let (rows, row_step) = terms.pop().map_or((1, 0), |(size, [step])| (size, step));
    // Pixels: joined where they continue each other in all tensors, at most two at a time.
    let residual = epilogue.residual.as_ref();
    let added = residual.unwrap_or(target);
    let dims = pixels.iter().filter(|(axis, _)| tensor.dims[*axis] != 1).map(|(axis, to)| {
        (tensor.dims[*axis], [tensor.strides[*axis], added.strides[*to], target.strides[*to]])
    });
    let mut loops = Loops::<3> { dims: dims.collect() };
    loops.join();
    let column = loops.dims.pop().unwrap_or((1, [run, shape.outputs, shape.outputs]));
    let row = loops.dims.pop();
    let outer: usize = loops.dims.iter().map(|(size, _)| *size).product();
    let plan = |index: usize| {
        let (mut rest, mut offsets) = (index, [0; 3]);
        for (size, strides) in loops.dims.iter().rev() {
            let place = rest % size;
            rest /= size;
            offsets.iter_mut().zip(strides).for_each(|(offset, step)| *offset += place * step);
        }
        let view = |offset: usize, which: usize| View {
            offset: offset + offsets[which],
            row: row.map_or(column.0 * column.1[which], |(_, strides)| strides[which]),
            pixel: column.1[which],
        };
        ConvPlan {
            input: view(tensor.offset, 0),
            output: view(target.offset, 2),
            size: [row.map_or(1, |(size, _)| size), column.0],
            runs: [rows, columns],
            run_step: [row_step, column_step],
            run,
            group_step: 0,
            shape,
            residual: residual.map(|residual| Residual { view: view(residual.offset, 1) }),
            clamp: epilogue.clamp,
        }
    };
    (0..outer).map(plan).collect()
}

/// Returns an order of axes for a result: others, then pixels, then outputs.
fn result_order(
    dims: &[usize],
    pixels: &[(usize, usize)],
    outputs: &[(usize, usize)],
) -> Vec<usize> {
    let listed = |axis: &usize| pixels.iter().chain(outputs).any(|(_, to)| to == axis);
    let mut order: Vec<usize> = (0..dims.len()).filter(|axis| !listed(axis)).collect();
    order.extend(pixels.iter().chain(outputs).map(|(_, to)| *to));
    order
}

/// Returns the pairs with their numbers exchanged.
fn flipped_axes(list: &[(usize, usize)]) -> Vec<(usize, usize)> {
    list.iter().map(|(a, b)| (*b, *a)).collect()
}

/// Returns the terms as loops over memory, joined where they are contiguous.
fn runs(tensor: &Tensor, terms: &[(usize, usize)]) -> Loops<1> {
    let dims = terms.iter().filter(|(axis, _)| tensor.dims[*axis] != 1);
    let dims = dims.map(|(axis, _)| (tensor.dims[*axis], [tensor.strides[*axis]]));
    let mut loops = Loops::<1> { dims: dims.collect() };
    loops.join();
    loops
}
