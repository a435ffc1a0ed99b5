//! A compiled region.

use std::ops::Range;

use hardtack_kernels::float::{Conv, Depthwise, Kernels, Map, Pool, Product, Rows};
use hardtack_kernels::strided::Parallel;

/// One operation of a plan.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    /// Copies the input of the region with this index into the arena.
    Load(usize, Map),
    /// Copies from the arena into the output of the region with this index.
    Store(usize, Map),
    Map(Map),
    /// A convolution with its packed weights in the constants.
    Conv(Conv, Range<usize>),
    /// A depthwise convolution with its packed weights in the constants.
    Depthwise(Depthwise, Range<usize>),
    Pool(Pool),
    /// A matmul of two computed matrices.
    Product(Product),
    Rows(Rows),
}

/// A region compiled for fixed shapes and the kernels of one instruction set.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) kernels: &'static Kernels,
    /// The operations, each with the index of the node in the graph that it belongs to.
    pub(crate) operations: Vec<(u32, Operation)>,
    /// The elements of the tensors.
    pub(crate) arena: usize,
    /// The elements of the largest packed matrix, which follows the tensors in the arena.
    pub(crate) packed: usize,
    /// Small constants, and packed weights at multiples of a cache line.
    pub(crate) constants: Vec<f32>,
    /// The index in `constants` of the first one, so that it starts a cache line.
    pub(crate) start: usize,
    /// The shape of each input and output.
    pub(crate) inputs: Vec<Vec<usize>>,
    pub(crate) outputs: Vec<Vec<usize>>,
}

impl Plan {
    /// Returns the number of f32 in the arena.
    pub fn arena_elements(&self) -> usize {
        self.arena + self.packed
    }

    /// Returns the bytes of the packed weights and other constants.
    pub fn constant_bytes(&self) -> usize {
        size_of_val(self.constants.as_slice())
    }

    /// Returns the shapes of the inputs of the region, in order.
    pub fn input_shapes(&self) -> impl Iterator<Item = &[usize]> {
        self.inputs.iter().map(Vec::as_slice)
    }

    /// Returns the shapes of the outputs of the region, in order.
    pub fn output_shapes(&self) -> impl Iterator<Item = &[usize]> {
        self.outputs.iter().map(Vec::as_slice)
    }

    /// Runs the region on the values of its inputs, row-major. The contents of the arena do not
    /// matter. `go_on` is called before each operation; the run ends early if it returns `false`.
    ///
    /// # Panics
    /// If the number or sizes of inputs, outputs or arena are wrong.
    pub fn run(
        &self,
        parallel: &dyn Parallel,
        arena: &mut [f32],
        inputs: &[&[f32]],
        outputs: &mut [&mut [f32]],
        go_on: &mut dyn FnMut() -> bool,
    ) {
        let (arena, packed) = arena[..self.arena + self.packed].split_at_mut(self.arena);
        let elements = |shape: &Vec<usize>| shape.iter().product::<usize>();
        assert!(self.inputs.iter().map(elements).eq(inputs.iter().map(|input| input.len())));
        assert!(self.outputs.iter().map(elements).eq(outputs.iter().map(|output| output.len())));
        let (kernels, constants) = (self.kernels, &self.constants[self.start..]);
        for (_, operation) in &self.operations {
            if !go_on() {
                return;
            }
            match operation {
                Operation::Load(index, map) => map.run(kernels, arena, inputs[*index], parallel),
                Operation::Store(index, map) => map.run(kernels, outputs[*index], arena, parallel),
                Operation::Map(map) => map.run(kernels, arena, constants, parallel),
                Operation::Conv(conv, weights) => {
                    conv.run(kernels, arena, &constants[weights.clone()], parallel);
                }
                Operation::Depthwise(depthwise, weights) => {
                    depthwise.run(kernels, arena, &constants[weights.clone()], parallel);
                }
                Operation::Pool(pool) => pool.run(kernels, arena, parallel),
                Operation::Product(product) => product.run(kernels, arena, packed, parallel),
                Operation::Rows(rows) => rows.run(kernels, arena, parallel),
            }
        }
    }
}
