//! Between the family `mcu` and others.

use alloc::vec;
use alloc::vec::Vec;

use hardtack_kernels::packed::depthwise::Depthwise;
use hardtack_kernels::packed::{Packing, Terms, TermsMut};

use super::{Cursor, Shape, slice};
use crate::Aligned;
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

/// Rows to columns: `weights` has so many rows.
fn transposed(weights: &[u8], rows: usize) -> Vec<u8> {
    let columns = weights.len() / rows;
    (0..columns).flat_map(|column| weights[column..].iter().step_by(columns)).copied().collect()
}

/// Where the family `mcu` has a weight of a depthwise layer: of a channel, at a row and column.
fn place(shape: Depthwise) -> impl Fn(usize, usize, usize) -> usize {
    move |channel, row, column| (row * shape.kernel[1] + column) * shape.channels + channel
}

/// The weights section of a checked program for another family, from that of the family `mcu`.
pub(crate) fn pack(code: Code<'_>, weights: &[u8], packing: Packing) -> Aligned {
    let bytes = |span: Span| &weights[span.offset as usize..][..span.length as usize];
    let mut packed = Aligned::zeroed(length(code, packing));
    let tensor = |id| code.tensor(id).expect("tensors of steps were checked");
    let mut cursor = Cursor::new(packing);
    for step in code.steps().flatten() {
        if let Some(strip) = step.strip(tensor) {
            let step = strip.conv;
            let input = tensor(step.input);
            let (inputs, outputs) = (input.channels, tensor(step.output).channels);
            let (shape, range) = cursor.conv(&strip, inputs, outputs);
            if strip.shares > 0 {
                continue;
            }
            let target = &mut packed.bytes_mut()[range.start as usize..range.end as usize];
            let terms = Terms {
                zero_point: input.zero_point,
                bias: bytemuck::cast_slice(bytes(step.bias)),
                scales: bytemuck::cast_slice(bytes(step.scales)),
            };
            let weights = bytes(step.weights);
            let channel = weights.len() / outputs as usize;
            match shape {
                Shape::Dense(shape) if is_depthwise(step.groups, inputs, outputs) => {
                    let weights = transposed(weights, channel);
                    shape.pack(packing, &terms, (&weights, channel), target);
                }
                Shape::Dense(shape) => shape.pack(packing, &terms, (weights, channel), target),
                Shape::Depthwise(shape) => {
                    let at = place(shape);
                    shape.pack(packing, &terms, |a, b, c| weights[at(a, b, c)] as i8, target);
                }
            }
        }
        for table in tables(&step) {
            let range = cursor.table(table);
            packed.bytes_mut()[range.start as usize..range.end as usize]
                .copy_from_slice(bytes(table));
        }
    }
    packed
}

/// Bytes of a packed section.
fn length(code: Code<'_>, packing: Packing) -> usize {
    let tensor = |id| code.tensor(id).expect("tensors of steps were checked");
    let mut cursor = Cursor::new(packing);
    for step in code.steps().flatten() {
        if let Some(strip) = step.strip(tensor) {
            let (input, output) = (tensor(strip.conv.input), tensor(strip.conv.output));
            cursor.conv(&strip, input.channels, output.channels);
        }
        for table in tables(&step) {
            cursor.table(table);
        }
    }
    cursor.end() as usize
}

/// The inverse of [`pack`]: the section of the family `mcu`, of a program that was checked with
/// its packed section.
pub(crate) fn unpack(code: Code<'_>, packed: &[u8], packing: Packing) -> Aligned {
    let mut plain = Aligned::zeroed(code.header.weights_bytes as usize);
    let weights = plain.bytes_mut();
    let tensor = |id| code.tensor(id).expect("tensors of steps were checked");
    let mut cursor = Cursor::new(packing);
    for step in code.steps().flatten() {
        if let Some(strip) = step.strip(tensor) {
            let step = strip.conv;
            let input = tensor(step.input);
            let (inputs, outputs) = (input.channels, tensor(step.output).channels);
            let (shape, range) = cursor.conv(&strip, inputs, outputs);
            if strip.shares > 0 {
                continue;
            }
            let source = slice(packed, range).expect("ranges were checked");
            let mut bias = vec![0; outputs as usize];
            let mut scales = vec![0.0; outputs as usize];
            let mut terms =
                TermsMut { zero_point: input.zero_point, bias: &mut bias, scales: &mut scales };
            let layer = bytes_mut(weights, step.weights);
            let channel = layer.len() / outputs as usize;
            match shape {
                Shape::Dense(shape) if is_depthwise(step.groups, inputs, outputs) => {
                    let mut rows = vec![0; layer.len()];
                    shape.unpack(packing, source, &mut terms, (&mut rows, channel));
                    layer.copy_from_slice(&transposed(&rows, outputs as usize));
                }
                Shape::Dense(shape) => {
                    shape.unpack(packing, source, &mut terms, (layer, channel));
                }
                Shape::Depthwise(shape) => {
                    let at = place(shape);
                    shape.unpack(packing, source, &mut terms, |a, b, c, weight| {
                        layer[at(a, b, c)] = weight as u8;
                    });
                }
            }
            bytes_mut(weights, step.bias).copy_from_slice(bytemuck::cast_slice(&bias));
            bytes_mut(weights, step.scales).copy_from_slice(bytemuck::cast_slice(&scales));
        }
        for table in tables(&step) {
            let bytes = slice(packed, cursor.table(table)).expect("ranges were checked");
            bytes_mut(weights, table).copy_from_slice(bytes);
        }
    }
    plain
}

fn bytes_mut(weights: &mut [u8], span: Span) -> &mut [u8] {
    &mut weights[span.offset as usize..][..span.length as usize]
}
