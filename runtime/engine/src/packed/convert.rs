//! Between the family `mcu` and others.

use alloc::vec;
use alloc::vec::Vec;

use hardtack_kernels::packed::{Packing, Terms, TermsMut};

use super::{Cursor, Shape, slice};
use crate::check::is_depthwise;
use crate::code::Code;
use crate::program::*;

/// The tables of a step other than a convolution.
pub(crate) fn tables(step: &Step) -> impl Iterator<Item = Span> {
    let (first, second) = match step {
        Step::Lookup(step) => (Some(step.table), None),
        Step::Softmax(step) => (Some(step.table), None),
        Step::Resize(step) => (Some(step.rows), Some(step.columns)),
        _ => (None, None),
    };
    first.into_iter().chain(second)
}

/// Position of a weight among those of the family `mcu`.
fn place(step: &Conv, shape: &Shape, inputs: u32, outputs: u32) -> impl Fn([usize; 3]) -> usize {
    let [height, width] = step.window.kernel.map(usize::from);
    let depth = height * width * (inputs / step.groups) as usize;
    let depthwise = is_depthwise(step.groups, inputs, outputs);
    let (shape, outputs) = (*shape, outputs as usize);
    move |[channel, b, c]| {
        // Of a dense layer run and element, of a depthwise one row and column.
        let tap = match shape {
            Shape::Dense(dense) => b * dense.run + c,
            Shape::Depthwise(shape) => b * shape.kernel[1] + c,
        };
        if depthwise { tap * outputs + channel } else { channel * depth.next_multiple_of(4) + tap }
    }
}

/// The weights section of a checked program for another family, from that of the family `mcu`.
pub(crate) fn pack(code: Code<'_>, weights: &[u8], packing: Packing) -> Vec<u8> {
    let bytes = |span: Span| &weights[span.offset as usize..][..span.length as usize];
    let mut cursor = Cursor::new(packing);
    let mut packed = Vec::new();
    for step in code.steps().flatten() {
        if let Step::Conv(step) = step {
            let [input, output] = [step.input, step.output]
                .map(|id| code.tensor(id).expect("tensors of steps were checked"));
            let (inputs, outputs) = (input.channels, output.channels);
            let (shape, range) = cursor.conv(&step, inputs, outputs);
            packed.resize(cursor.end() as usize, 0);
            let target = &mut packed[range.start as usize..range.end as usize];
            let terms = Terms {
                zero_point: input.zero_point,
                bias: bytemuck::cast_slice(bytes(step.bias)),
                scales: bytemuck::cast_slice(bytes(step.scales)),
            };
            let place = place(&step, &shape, inputs, outputs);
            let of = bytes(step.weights);
            let weight = |a: usize, b: usize, c: usize| of[place([a, b, c])] as i8;
            match shape {
                Shape::Dense(shape) => shape.pack(packing, &terms, weight, target),
                Shape::Depthwise(shape) => shape.pack(packing, &terms, weight, target),
            }
        }
        for table in tables(&step) {
            let range = cursor.table(table);
            packed.resize(cursor.end() as usize, 0);
            packed[range.start as usize..range.end as usize].copy_from_slice(bytes(table));
        }
    }
    packed
}

/// The inverse of [`pack`]: the section of the family `mcu`, of a program that was checked with
/// its packed section.
pub(crate) fn unpack(code: Code<'_>, packed: &[u8], packing: Packing) -> Vec<u8> {
    let mut weights = vec![0u8; code.header.weights_bytes as usize];
    let mut write = |span: Span, bytes: &[u8]| {
        weights[span.offset as usize..][..span.length as usize].copy_from_slice(bytes);
    };
    let mut cursor = Cursor::new(packing);
    for step in code.steps().flatten() {
        if let Step::Conv(step) = step {
            let [input, output] = [step.input, step.output]
                .map(|id| code.tensor(id).expect("tensors of steps were checked"));
            let (inputs, outputs) = (input.channels, output.channels);
            let (shape, range) = cursor.conv(&step, inputs, outputs);
            let source = slice(packed, range).expect("ranges were checked");
            let mut bias = vec![0; outputs as usize];
            let mut scales = vec![0.0; outputs as usize];
            let mut terms =
                TermsMut { zero_point: input.zero_point, bias: &mut bias, scales: &mut scales };
            let place = place(&step, &shape, inputs, outputs);
            let mut layer = vec![0u8; step.weights.length as usize];
            let mut weight = |a: usize, b: usize, c: usize, value: i8| {
                layer[place([a, b, c])] = value as u8;
            };
            match shape {
                Shape::Dense(shape) => shape.unpack(packing, source, &mut terms, &mut weight),
                Shape::Depthwise(shape) => shape.unpack(packing, source, &mut terms, &mut weight),
            }
            write(step.weights, &layer);
            write(step.bias, bytemuck::cast_slice(&bias));
            write(step.scales, bytemuck::cast_slice(&scales));
        }
        for table in tables(&step) {
            write(table, slice(packed, cursor.table(table)).expect("ranges were checked"));
        }
    }
    weights
}
