//! Lowers the steps of a program to a flat list of operations on images in an arena, for the
//! kernels of one instruction set.
//!
//! Everything is decided before the first inference: the places of images and their halos, the
//! packed weights of each operation, and the kernel that computes it.

mod layout;
mod operation;
mod remap;

use alloc::boxed::Box;
use alloc::vec::Vec;

use hardtack_kernels::packed::Packing;
use hardtack_kernels::strided::{self, Epilogue, Linear, Pairs, View};

pub(crate) use self::layout::Layout;
use self::layout::Placed;
pub(crate) use self::operation::{KernelContext, Operation};
use self::remap::{Side, remap};
use crate::Program;
use crate::packed::{Cursor, Shape, slice, tables};
use crate::program::*;
use crate::reference;

/// Residuals must have a smaller scale than this, so that the result fits in an i32.
const ADDEND_SCALE: f32 = 65536.0;
/// The exclusive upper limit of the requantization scales of a narrow layer.
const NARROW_SCALE: f32 = 256.0;
/// The largest accumulator size of a narrow layer, in bits.
const NARROW_BITS: u8 = 22;

/// A program lowered for the kernels of one instruction set.
#[derive(Clone, Debug)]
pub(crate) struct Lowered {
    /// The operations, each with the index of its step.
    pub(crate) operations: Vec<(u32, Operation)>,
    pub(crate) arena_bytes: usize,
}

impl Lowered {
    /// Lowers a program. `packed` contains its weights in the layout `packing`. Returns `None` for
    /// the rare program that the kernels do not support; the reference kernels run it.
    pub(crate) fn new<B: AsRef<[u8]>>(
        program: &Program<B>,
        steps: &[Step],
        packed: &[u8],
        packing: Packing,
    ) -> Option<Self> {
        Self::with_layout(program, steps, packed, packing).map(|(lowered, _)| lowered)
    }

    /// Lowers a program like [`Lowered::new`] and also returns its arena layout.
    pub(crate) fn with_layout<B: AsRef<[u8]>>(
        program: &Program<B>,
        steps: &[Step],
        packed: &[u8],
        packing: Packing,
    ) -> Option<(Self, Layout)> {
        let addends_fit = steps.iter().all(|step| match step {
            Step::Conv(Conv { residual: Some(addend), .. })
            | Step::RowTile(RowTile { conv: Conv { residual: Some(addend), .. }, .. })
            | Step::Sparse(RowTile { conv: Conv { residual: Some(addend), .. }, .. }) => {
                addend.scale.abs() < ADDEND_SCALE
            }
            _ => true,
        });
        if !addends_fit || !is_ordered(program, steps) {
            return None;
        }
        let layout = Layout::new(program, steps);
        // Windows that extend far outside their images would need excessively large halos.
        let limit = program.arena_bytes().saturating_mul(4).saturating_add(1 << 20);
        if layout.arena_bytes > limit.min(Program::<B>::MAXIMUM_ARENA as usize) {
            return None;
        }
        let arena_bytes = layout.arena_bytes;
        let mut lowering = Lowering {
            activation_offset: packing.activation_offset(),
            cursor: Cursor::new(packing),
            has_halo: alloc::vec![false; program.tensor_count()],
            operations: Vec::new(),
            layout,
            packed,
            packing,
        };
        for (index, step) in (0..).zip(steps) {
            lowering.step(index, step)?;
        }
        let Lowering { operations, layout, .. } = lowering;
        Some((Self { operations, arena_bytes }, layout))
    }
}

/// Returns whether every tensor is written, at least in part, before it is read.
fn is_ordered<B: AsRef<[u8]>>(program: &Program<B>, steps: &[Step]) -> bool {
    let mut written = alloc::vec![false; program.tensor_count()];
    steps.iter().all(|step| {
        let ready = step.reads().all(|id| written[usize::from(id)]);
        if let Some(id) = step.writes() {
            written[usize::from(id)] = true;
        }
        ready
    })
}

struct Lowering<'a> {
    activation_offset: i32,
    cursor: Cursor,
    /// Whether the halo of each tensor has been filled.
    has_halo: Vec<bool>,
    operations: Vec<(u32, Operation)>,
    layout: Layout,
    packed: &'a [u8],
    packing: Packing,
}

impl<'a> Lowering<'a> {
    fn push(&mut self, index: u32, operation: Operation) {
        self.operations.push((index, operation));
    }

    fn stored(&self, integer: i8) -> u8 {
        (i32::from(integer) + self.activation_offset) as u8
    }

    /// Appends the operations of a step. Returns `None` if the kernels do not support it.
    fn step(&mut self, index: u32, step: &Step) -> Option<()> {
        self.fill_halo(index, step);
        if let Some(tile) = step.tile(|id| self.layout.image(id).tensor) {
            return self.conv(index, &tile);
        }
        let [first, second] = self.next_tables(step)?;
        let operation = match step {
            Step::Conv(_) | Step::RowTile(_) | Step::Sparse(_) => return None,
            Step::Quantize(step) => self.quantize(step)?,
            Step::Dequantize(step) => self.dequantize(step)?,
            Step::Add(step) => {
                let scales = [step.scale_a, step.scale_b];
                let kind = strided::BinaryKind::Add;
                self.binary(kind, [step.a, step.b, step.output], scales, step.clamp)
            }
            Step::Multiply(step) => {
                let kind = strided::BinaryKind::Multiply;
                self.binary(kind, [step.a, step.b, step.output], [step.scale; 2], step.clamp)
            }
            Step::MaxPool(step) => self.max_pool(step),
            Step::AveragePool(step) => self.average_pool(step),
            Step::Lookup(step) => self.lookup(step, first)?,
            Step::Softmax(step) => self.softmax(step, first),
            Step::Move(step) => self.copy(step)?,
            Step::Fill(step) => self.fill(step),
            Step::Resize(step) => self.resize(step, [first, second]),
        };
        self.push(index, operation);
        Some(())
    }

    /// Appends the operation that fills the halo of the tensor that a step writes, unless an
    /// earlier step has written to it.
    fn fill_halo(&mut self, index: u32, step: &Step) {
        if let Some(id) = step.writes()
            && !core::mem::replace(&mut self.has_halo[usize::from(id)], true)
            && let Some(halo) = self.layout.image(id).halo(self.activation_offset)
        {
            self.push(index, Operation::Halo(halo));
        }
    }

    /// Returns the tables of a step that is not a convolution. A table that the step does not have
    /// is empty. Returns `None` if a table exceeds the packed weights.
    fn next_tables(&mut self, step: &Step) -> Option<[&'a [u8]; 2]> {
        let mut found: [&'a [u8]; 2] = [&[]; 2];
        for (table, span) in found.iter_mut().zip(tables(step)) {
            *table = slice(self.packed, self.cursor.table(span))?;
        }
        Some(found)
    }

    fn quantize(&self, step: &Quantize) -> Option<Operation> {
        let image = self.layout.image(step.output);
        let copy = in_arena(&step.copy, Side::Target, image)?;
        let zero_point = image.tensor.zero_point;
        let inverse_scale = step.inverse_scale;
        let quantize = strided::Quantize { copy, inverse_scale, zero_point };
        Some(Operation::Quantize(step.port, quantize))
    }

    fn dequantize(&self, step: &Dequantize) -> Option<Operation> {
        let image = self.layout.image(step.input);
        let copy = in_arena(&step.copy, Side::Source, image)?;
        let Tensor { zero_point, scale, .. } = image.tensor;
        Some(Operation::Dequantize(step.port, strided::Dequantize { copy, scale, zero_point }))
    }

    fn max_pool(&self, step: &MaxPool) -> Operation {
        let (input, output) = (self.layout.image(step.input), self.layout.image(step.output));
        Operation::MaxPool(strided::MaxPool {
            input: input.view(),
            input_shape: reference::image(&input.tensor),
            output: output.view(),
            size: output.size(),
            window: reference::window(&step.window),
            clamp: reference::clamp(step.clamp),
        })
    }

    fn average_pool(&self, step: &AveragePool) -> Operation {
        let (input, output) = (self.layout.image(step.input), self.layout.image(step.output));
        Operation::AveragePool(strided::AveragePool {
            input: input.view(),
            input_shape: reference::image(&input.tensor),
            zero_point: input.tensor.zero_point,
            output: output.view(),
            size: output.size(),
            window: reference::window(&step.window),
            scale: step.scale,
            count_include_pad: step.count_include_pad,
            output_zero_point: output.tensor.zero_point,
            clamp: reference::clamp(step.clamp),
        })
    }

    /// Returns `None` if the table does not have 256 entries.
    fn lookup(&self, step: &Lookup, table: &[u8]) -> Option<Operation> {
        let table: &[u8; 256] = table.try_into().ok()?;
        // Both the index and the entries change from i8 to the stored representation.
        let offset_mask = self.activation_offset as u8;
        let stored = core::array::from_fn(|x| {
            table[usize::from(x as u8 ^ offset_mask ^ 0x80)] ^ offset_mask
        });
        Some(self.unary(strided::UnaryKind::Lookup(stored), step.input, step.output))
    }

    fn softmax(&self, step: &Softmax, bytes: &[u8]) -> Operation {
        let (words, _) = bytes.as_chunks::<4>();
        let mut table = [0; 256];
        for (entry, word) in table.iter_mut().zip(words) {
            *entry = u32::from_le_bytes(*word);
        }
        self.unary(strided::UnaryKind::Softmax(table), step.input, step.output)
    }

    fn fill(&self, step: &Fill) -> Operation {
        let image = self.layout.image(step.output);
        Operation::Fill(strided::Fill {
            image: image.view(),
            rows: image.shape.rows,
            length: image.shape.columns * image.shape.channels,
            value: self.stored(step.value),
        })
    }

    fn resize(&self, step: &Resize, [rows, columns]: [&[u8]; 2]) -> Operation {
        let (input, output) = (self.layout.image(step.input), self.layout.image(step.output));
        let resize = strided::Resize {
            input: input.view(),
            input_columns: input.shape.columns,
            output: output.view(),
            size: output.size(),
            channels: output.shape.channels,
        };
        // Copied because they are offsets: they must stay valid even if a mapped file that
        // contains the weights changes after the check.
        let samples = |bytes: &[u8]| Box::<[[u8; 8]]>::from(bytes.as_chunks().0);
        Operation::Resize(resize, [samples(rows), samples(columns)])
    }

    fn conv(&mut self, index: u32, tile: &RowTile) -> Option<()> {
        let step = &tile.conv;
        let output = *self.layout.image(step.output);
        let mut input = *self.layout.image(step.input);
        if let Some(copy) = self.layout.copy(index as usize).copied() {
            if let Some(halo) = copy.halo(self.activation_offset) {
                self.push(index, Operation::Halo(halo));
            }
            let copied = self.unary_between(strided::UnaryKind::Copy, &input, &copy);
            self.push(index, copied);
            input = copy;
        }
        let (inputs, outputs) = (input.tensor.channels, output.tensor.channels);
        let (shape, range) = self.cursor.conv(tile, inputs, outputs);
        let weights = range.start as usize;
        let window = reference::window(&step.window);
        let view = below(input.window(&window), tile.skipped_rows);
        let (target, size) =
            (below(output.view(), tile.first_row), [tile.rows as usize, output.shape.columns]);
        let epilogue = Epilogue {
            zero_point: self.stored(output.tensor.zero_point),
            low: self.stored(step.clamp.low),
            high: self.stored(step.clamp.high),
        };
        let narrow = step.accumulator_bits <= NARROW_BITS
            && slice(self.packed, range).is_some_and(|layer| {
                shape.all_scales(self.packing, layer, |scale| scale < NARROW_SCALE)
            });
        match shape {
            Shape::Depthwise(shape) => {
                let plan = strided::DepthwisePlan {
                    input: view,
                    output: target,
                    size,
                    stride: window.stride,
                    dilation: window.dilation,
                    shape,
                    weights,
                    epilogue,
                    narrow,
                };
                let depthwise = strided::Depthwise::new(plan, self.packing)?;
                self.push(index, Operation::Depthwise(depthwise));
            }
            Shape::Dense(shape) => {
                let across = shape.runs / window.kernel[0];
                let residual = step.residual.map(|residual| {
                    let image = self.layout.image(residual.tensor);
                    strided::Residual {
                        view: below(image.view(), tile.first_row),
                        zero_point: self.stored(image.tensor.zero_point),
                        scale: residual.scale,
                    }
                });
                let plan = strided::ConvPlan {
                    input: View {
                        offset: view.offset,
                        row: window.stride[0] * view.row,
                        pixel: window.stride[1] * view.pixel,
                    },
                    output: target,
                    size,
                    runs: [window.kernel[0], across],
                    run_step: [window.dilation[0] * view.row, window.dilation[1] * view.pixel],
                    group_step: (inputs / step.groups) as usize,
                    shape,
                    weights,
                    residual,
                    epilogue,
                    narrow,
                };
                self.push(index, Operation::Conv(strided::Conv::new(plan, self.packing)?));
            }
        }
        Some(())
    }

    fn binary(
        &self,
        kind: strided::BinaryKind,
        [a, b, output]: [TensorId; 3],
        scales: [f32; 2],
        clamp: Clamp,
    ) -> Operation {
        let [a, b, output] = [a, b, output].map(|id| self.layout.image(id));
        Operation::Binary(strided::Binary {
            kind,
            pairs: Pairs {
                zero_points: [a.tensor.zero_point, b.tensor.zero_point],
                scales,
                zero_point: output.tensor.zero_point,
                clamp: reference::clamp(clamp),
            },
            a: a.view(),
            b: b.view(),
            repeated: b.size() == [1, 1],
            output: output.view(),
            size: output.size(),
            channels: output.shape.channels,
        })
    }

    fn unary(&self, kind: strided::UnaryKind, input: TensorId, output: TensorId) -> Operation {
        self.unary_between(kind, self.layout.image(input), self.layout.image(output))
    }

    fn unary_between(
        &self,
        kind: strided::UnaryKind,
        input: &Placed,
        output: &Placed,
    ) -> Operation {
        let (mut from, mut to) = (input.view(), output.view());
        let (mut size, mut channels) = (output.size(), output.shape.channels);
        if input.size() != size || input.shape.channels != channels {
            // The shapes differ, but both images are contiguous: treat them as one pixel.
            channels *= size[0] * size[1];
            size = [1, 1];
            for view in [&mut from, &mut to] {
                (view.row, view.pixel) = (channels, channels);
            }
        }
        let unary = strided::Unary { kind, input: from, output: to, size, channels };
        Operation::Unary(Box::new(unary))
    }

    fn copy(&self, step: &Move) -> Option<Operation> {
        let (input, output) = (self.layout.image(step.input), self.layout.image(step.output));
        let copy = remap(reference::copy(&step.copy), Side::Source, &input.shape)?;
        let copy = remap(copy, Side::Target, &output.shape)?;
        let linear = step.scale.map(|scale| Linear {
            zero_point: input.tensor.zero_point,
            scale,
            output_zero_point: output.tensor.zero_point,
        });
        let (input, output) = (input.range(), output.range());
        Some(Operation::Move(strided::Move { copy, input, output, linear }))
    }
}

/// Returns the view without its first `rows` rows.
fn below(view: View, rows: u32) -> View {
    View { offset: view.offset + rows as usize * view.row, ..view }
}

/// Converts a strided copy between a program input or output and a tensor to one between the
/// input or output and the arena.
fn in_arena(
    copy: &CopyLayout,
    side: Side,
    image: &Placed,
) -> Option<hardtack_kernels::StridedCopy> {
    let mut copy = remap(reference::copy(copy), side, &image.shape)?;
    match side {
        Side::Source => copy.source_offset += image.view().offset,
        Side::Target => copy.target_offset += image.view().offset,
    }
    Some(copy)
}
