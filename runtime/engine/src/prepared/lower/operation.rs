//! The operations of a lowered program.

use alloc::boxed::Box;
use hardtack_kernels::strided::{self, Kernels, Parallel};

use crate::{Input, Output};

/// An operation with the arena offsets of its operands.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    /// Quantizes the program input with this index.
    Quantize(u16, strided::Quantize),
    /// Dequantizes into the program output with this index.
    Dequantize(u16, strided::Dequantize),
    Halo(strided::Halo),
    Fill(strided::Fill),
    Conv(strided::Conv),
    Depthwise(strided::Depthwise),
    Binary(strided::Binary),
    Unary(Box<strided::Unary>),
    MaxPool(strided::MaxPool),
    AveragePool(strided::AveragePool),
    /// A resize with its samples for rows and columns.
    Resize(strided::Resize, [Box<[[u8; 8]]>; 2]),
    Move(strided::Move),
}

/// The context of an inference.
pub(crate) struct KernelContext<'a> {
    pub(crate) kernels: &'a Kernels,
    pub(crate) weights: &'a [u8],
    pub(crate) parallel: &'a dyn Parallel,
}

impl KernelContext<'_> {
    /// Runs one operation. The inputs and outputs have been checked.
    pub(crate) fn run(
        &self,
        operation: &Operation,
        arena: &mut [u8],
        inputs: &[Input<'_>],
        outputs: &mut [Output<'_>],
    ) {
        let Self { kernels, weights, parallel } = *self;
        let offset_mask = kernels.packing().activation_offset() as u8;
        match operation {
            Operation::Quantize(port, quantize) => {
                let bytes = |offset_mask: u8| strided::Bytes { copy: quantize.copy, offset_mask };
                match inputs[usize::from(*port)] {
                    Input::F32(input) => quantize.run(kernels, input, arena),
                    Input::I8(input) => bytes(offset_mask).run(bytemuck::cast_slice(input), arena),
                    Input::U8(input) => bytes(offset_mask ^ 0x80).run(input, arena),
                }
            }
            Operation::Dequantize(port, dequantize) => {
                let bytes = |offset_mask: u8| strided::Bytes { copy: dequantize.copy, offset_mask };
                match &mut outputs[usize::from(*port)] {
                    Output::F32(output) => dequantize.run(kernels, arena, output),
                    Output::I8(output) => {
                        bytes(offset_mask).run(arena, bytemuck::cast_slice_mut(output));
                    }
                    Output::U8(output) => bytes(offset_mask ^ 0x80).run(arena, output),
                }
            }
            Operation::Halo(halo) => halo.run(arena),
            Operation::Fill(fill) => fill.run(arena),
            Operation::Conv(conv) => conv.run(kernels, arena, weights, parallel),
            Operation::Depthwise(depthwise) => depthwise.run(kernels, arena, weights, parallel),
            Operation::Binary(binary) => binary.run(kernels, arena, parallel),
            Operation::Unary(unary) => unary.run(kernels, arena, parallel),
            Operation::MaxPool(pool) => pool.run(kernels, arena, parallel),
            Operation::AveragePool(pool) => pool.run(kernels, arena, parallel),
            Operation::Resize(resize, [rows, columns]) => {
                resize.run(kernels, [rows, columns], arena, parallel);
            }
            Operation::Move(step) => step.run(kernels, arena),
        }
    }

    /// Returns the multiply-accumulates (MACs) of a convolution; 0 for other operations.
    pub(crate) fn macs(operation: &Operation) -> u64 {
        match operation {
            Operation::Conv(conv) => conv.macs(),
            Operation::Depthwise(depthwise) => depthwise.macs(),
            _ => 0,
        }
    }
}
