//! Converts weights between the family `mcu` and packed layouts.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use hardtack_kernels::packed::depthwise::Depthwise;
use hardtack_kernels::packed::{Packing, Terms, TermsMut};
use hardtack_kernels::sparse::Sparse;

use super::{Cursor, Shape};
use crate::Aligned;
use crate::check::{depth, is_depthwise};
use crate::code::Code;
use crate::program::*;
use crate::{Problem, ProgramError};

/// Returns the tables of a step that is not a convolution.
pub(crate) fn tables(step: &Step) -> impl Iterator<Item = Span> {
    let (first, second) = match step {
        Step::Lookup(step) => (Some(step.table), None),
        Step::Softmax(step) => (Some(step.table), None),
        Step::Resize(step) => (Some(step.rows), Some(step.columns)),
        _ => (None, None),
    };
    first.into_iter().chain(second)
}

/// Transposes a matrix of `rows` rows.
fn transposed(weights: &[u8], rows: usize) -> Vec<u8> {
    let columns = weights.len() / rows;
    (0..columns).flat_map(|column| weights[column..].iter().step_by(columns)).copied().collect()
}

/// Returns a function from (channel, row, column) to the index of a depthwise weight in the family
/// `mcu`.
fn place(shape: Depthwise) -> impl Fn(usize, usize, usize) -> usize {
    move |channel, row, column| (row * shape.kernel[1] + column) * shape.channels + channel
}

/// The packed layer of a convolution that does not reuse another's weights.
struct Layer {
    conv: Conv,
    shape: Shape,
    /// The zero point of the input.
    zero_point: i8,
    outputs: usize,
    /// Whether the weights are in depthwise order in the family `mcu`.
    depthwise: bool,
    /// Whether the weights are sparse in the family `mcu`.
    sparse: bool,
    /// The number of weights per output channel.
    depth: usize,
    /// The index of the step.
    step: u32,
    range: Range<usize>,
}

impl Layer {
    /// Returns the bytes of a row of dense weights in the family `mcu`.
    fn row(&self) -> usize {
        self.depth.next_multiple_of(4)
    }

    /// Decodes sparse weights to dense rows.
    fn expanded(&self, form: &[u8]) -> Vec<u8> {
        let mut rows = vec![0; self.outputs * self.row()];
        let form = Sparse::new(bytemuck::cast_slice(form), self.outputs, self.depth);
        let to = bytemuck::cast_slice_mut(&mut rows).chunks_mut(self.row());
        form.expect("its length was checked").expand(to);
        rows
    }

    /// Encodes dense rows as sparse weights; the inverse of [`Layer::expanded`].
    fn encoded(&self, rows: &[u8]) -> Vec<u8> {
        let rows = bytemuck::cast_slice(rows).chunks(self.row()).map(|row| &row[..self.depth]);
        let mut form = Vec::new();
        Sparse::encode(rows, self.depth, |byte| form.push(byte as u8));
        form
    }
}

/// The contents of a packed section.
struct Pieces {
    layers: Vec<Layer>,
    /// The tables, each with its range in the family `mcu` and in this section.
    tables: Vec<(Span, Range<usize>)>,
    /// The bytes of the section.
    length: usize,
}

/// Returns the contents of the packed section of a validated program.
fn pieces(code: Code<'_>, packing: Packing) -> Pieces {
    let tensor = |id| code.tensor(id).expect("tensors of steps were checked");
    let within = |range: super::Range| range.start as usize..range.end as usize;
    let (mut layers, mut all_tables) = (Vec::new(), Vec::new());
    let mut cursor = Cursor::new(packing);
    for (index, step) in (0..).zip(code.steps().flatten()) {
        if let Some(tile) = step.tile(tensor) {
            let conv = tile.conv;
            let input = tensor(conv.input);
            let (inputs, outputs) = (input.channels, tensor(conv.output).channels);
            let (shape, range) = cursor.conv(&tile, inputs, outputs);
            if tile.reuse_weights_of == 0 {
                layers.push(Layer {
                    conv,
                    shape,
                    zero_point: input.zero_point,
                    outputs: outputs as usize,
                    depthwise: is_depthwise(conv.groups, inputs, outputs),
                    sparse: matches!(step, Step::Sparse(_)),
                    depth: depth(&conv, inputs),
                    step: index,
                    range: within(range),
                });
            }
        }
        for table in tables(&step) {
            all_tables.push((table, within(cursor.table(table))));
        }
    }
    Pieces { layers, tables: all_tables, length: cursor.end() as usize }
}

/// The largest allowed size of a packed section, as a multiple of the original size. Empty lanes
/// alone can increase the size up to 16 times.
const GROWTH: u64 = 64;
/// The size in bytes that a packed section may have regardless of the original size.
const GROWN: u64 = 8 << 20;

/// Returns the bytes of the packed weights section of a validated program.
///
/// # Errors
/// [`ProgramError::WeightsRepeated`] if steps use the same weights so often that the section would
/// be many times as large as the weights.
pub(crate) fn length(code: Code<'_>, packing: Packing) -> Result<u64, ProgramError> {
    let tensor = |id| code.tensor(id).expect("tensors of steps were checked");
    let mut cursor = Cursor::new(packing);
    for step in code.steps().flatten() {
        if let Some(tile) = step.tile(tensor) {
            let (input, output) = (tensor(tile.conv.input), tensor(tile.conv.output));
            cursor.conv(&tile, input.channels, output.channels);
        }
        for table in tables(&step) {
            cursor.table(table);
        }
    }
    let (given, needed) = (u64::from(code.header.weights_bytes), cursor.end());
    if needed > given.saturating_mul(GROWTH).max(GROWN) {
        return Err(ProgramError::WeightsRepeated { given, needed });
    }
    Ok(needed)
}

/// Packs the weights section of a validated program from the family `mcu`.
///
/// # Errors
/// See [`length`].
pub(crate) fn pack(
    code: Code<'_>,
    weights: &[u8],
    packing: Packing,
) -> Result<Aligned, ProgramError> {
    length(code, packing)?;
    let bytes = |span: Span| &weights[span.offset as usize..][..span.length as usize];
    let Pieces { layers, tables, length } = pieces(code, packing);
    let mut packed = Aligned::zeroed(length);
    let section = packed.bytes_mut();
    for layer in layers {
        let target = &mut section[layer.range.clone()];
        let terms = Terms {
            zero_point: layer.zero_point,
            bias: bytemuck::cast_slice(bytes(layer.conv.bias)),
            scales: bytemuck::cast_slice(bytes(layer.conv.scales)),
        };
        let given = bytes(layer.conv.weights);
        let weights = if layer.sparse { &layer.expanded(given)[..] } else { given };
        let channel = weights.len() / layer.outputs;
        match layer.shape {
            Shape::Dense(shape) if layer.depthwise => {
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
    for (table, range) in tables {
        section[range].copy_from_slice(bytes(table));
    }
    Ok(packed)
}

/// Converts packed weights back to the family `mcu`; the inverse of [`pack`]. The program was
/// validated with the packed section.
///
/// # Errors
/// If the encoding of a sparse layer does not have the length that the program states.
pub(crate) fn unpack(
    code: Code<'_>,
    packed: &[u8],
    packing: Packing,
) -> Result<Aligned, ProgramError> {
    let mut plain = Aligned::zeroed(code.header.weights_bytes as usize);
    let weights = plain.bytes_mut();
    let Pieces { layers, tables, .. } = pieces(code, packing);
    for layer in layers {
        let source = &packed[layer.range.clone()];
        let (mut bias, mut scales) = (vec![0; layer.outputs], vec![0.0; layer.outputs]);
        let mut terms =
            TermsMut { zero_point: layer.zero_point, bias: &mut bias, scales: &mut scales };
        let target = bytes_mut(weights, layer.conv.weights);
        let channel = target.len() / layer.outputs;
        match layer.shape {
            Shape::Dense(shape) if layer.sparse => {
                let mut rows = vec![0; layer.outputs * layer.row()];
                shape.unpack(packing, source, &mut terms, (&mut rows, layer.row()));
                let form = layer.encoded(&rows);
                if form.len() != target.len() {
                    let (index, problem) = (layer.step, Problem::Sparse);
                    return Err(ProgramError::Step { index, kind: "Sparse", problem });
                }
                target.copy_from_slice(&form);
            }
            Shape::Dense(shape) if layer.depthwise => {
                let mut rows = vec![0; target.len()];
                shape.unpack(packing, source, &mut terms, (&mut rows, channel));
                target.copy_from_slice(&transposed(&rows, layer.outputs));
            }
            Shape::Dense(shape) => shape.unpack(packing, source, &mut terms, (target, channel)),
            Shape::Depthwise(shape) => {
                let at = place(shape);
                shape.unpack(packing, source, &mut terms, |a, b, c, weight| {
                    target[at(a, b, c)] = weight as u8;
                });
            }
        }
        bytes_mut(weights, layer.conv.bias).copy_from_slice(bytemuck::cast_slice(&bias));
        bytes_mut(weights, layer.conv.scales).copy_from_slice(bytemuck::cast_slice(&scales));
    }
    for (table, range) in tables {
        bytes_mut(weights, table).copy_from_slice(&packed[range]);
    }
    Ok(plain)
}

fn bytes_mut(weights: &mut [u8], span: Span) -> &mut [u8] {
    &mut weights[span.offset as usize..][..span.length as usize]
}
