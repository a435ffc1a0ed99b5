//! Validates a program, so that no input can cause an out-of-bounds access at run time.

#[cfg(feature = "sparse")]
use hardtack_kernels::sparse::Sparse;
use hardtack_kernels::{SCALE_BITS, Sample, TERM_SCALE_BITS, is_significant};

use crate::code::{Code, Header};
use crate::packed::{Section, slice};
use crate::program::*;
use crate::{Problem, ProgramError, arena, names};

/// The range of valid scales, about 2⁻⁶⁴ to 2⁶⁴. The product of two scales is a normal f32.
const SCALES: core::ops::RangeInclusive<f32> = 5.421_011e-20..=1.844_674_4e19;
/// The largest number of window elements. The sum of that many activations fits in an i32.
const MAXIMUM_WINDOW: u64 = 1 << 23;

/// Checks a whole program, except for the alignment of its weights in memory.
#[inline(never)]
pub(crate) fn program(code: &[u8], weights: Section<'_>) -> Result<Header, ProgramError> {
    let code = Code::parse(code)?;
    let header = code.header;
    if header.arena_bytes > crate::Program::<&[u8]>::MAXIMUM_ARENA {
        return Err(ProgramError::Arena(header.arena_bytes));
    }
    weights.check_length(header.weights_bytes)?;
    let mut checker = Checker { code, section: weights, layers: [None; RowTile::LONGEST_REUSE] };
    for id in 0..header.tensors {
        checker
            .tensor_record(id)
            .map_err(|problem| ProgramError::Tensor { id: id.into(), problem })?;
    }
    for (index, step) in (0..).zip(code.steps()) {
        let step = step?;
        checker.step(&step).map_err(|problem| ProgramError::Step {
            index,
            kind: step.kind(),
            problem,
        })?;
    }
    checker.section.check_end()?;
    #[cfg(feature = "alloc")]
    check_overlap(code)?;
    let count = usize::from(header.tensors) + header.steps as usize;
    if !names::are_well_formed(code.names(), count) {
        return Err(ProgramError::Names);
    }
    Ok(header)
}

/// Checks that any two weight ranges are identical or disjoint.
#[cfg(feature = "alloc")]
fn check_overlap(code: Code<'_>) -> Result<(), ProgramError> {
    let spans = code.steps().flatten().flat_map(|step| step.spans());
    let mut ranges: alloc::vec::Vec<(u32, u32)> =
        spans.filter(|span| span.length > 0).map(|span| (span.offset, span.length)).collect();
    ranges.sort_unstable();
    ranges.dedup();
    for pair in ranges.windows(2) {
        let ((offset, length), (next, _)) = (pair[0], pair[1]);
        if u64::from(next) < u64::from(offset) + u64::from(length) {
            return Err(ProgramError::WeightsOverlap { offset: next });
        }
    }
    Ok(())
}

fn ensure(condition: bool, problem: Problem) -> Result<(), Problem> {
    if condition { Ok(()) } else { Err(problem) }
}

struct Checker<'a> {
    code: Code<'a>,
    section: Section<'a>,
    /// The last convolutions and row tiles, the most recent first.
    layers: [Option<Layer>; RowTile::LONGEST_REUSE],
}

/// Everything that determines the packed weights of a convolution. A row tile can reuse the
/// packed weights of an equal layer.
#[derive(Clone, Copy, PartialEq)]
struct Layer {
    spans: [Span; 3],
    kernel: [u16; 2],
    dilation: u16,
    groups: u32,
    channels: [u32; 2],
    zero_point: i8,
    /// Whether the convolution has a residual, and whether its weights are sparse.
    kind: [bool; 2],
}

impl Layer {
    fn new(step: &Conv, input: &Tensor, outputs: u32, sparse: bool) -> Self {
        Self {
            spans: [step.weights, step.bias, step.scales],
            kernel: step.window.kernel,
            dilation: step.window.dilation[1],
            groups: step.groups,
            channels: [input.channels, outputs],
            zero_point: input.zero_point,
            kind: [step.residual.is_some(), sparse],
        }
    }
}

impl<'a> Checker<'a> {
    fn tensor_record(&self, id: TensorId) -> Result<(), Problem> {
        let tensor = self.tensor(id)?;
        let dims = [tensor.height, tensor.width, tensor.channels];
        ensure(dims.iter().all(|&dim| dim > 0), Problem::EmptyDimension)?;
        let elements = dims.iter().try_fold(1u32, |product, &dim| product.checked_mul(dim));
        let end = elements.and_then(|elements| elements.checked_add(tensor.offset));
        ensure(
            tensor.offset.is_multiple_of(16)
                && end.is_some_and(|end| end <= self.code.header.arena_bytes),
            Problem::OutsideArena,
        )?;
        ensure(SCALES.contains(&tensor.scale), Problem::Scale)?;
        ensure(self.code.tensor_padding(id).iter().all(|&byte| byte == 0), Problem::Attributes)
    }

    fn tensor(&self, id: TensorId) -> Result<Tensor, Problem> {
        self.code.tensor(id).ok_or(Problem::NoTensor(id))
    }

    fn step(&mut self, step: &Step) -> Result<(), Problem> {
        if let Some(output) = step.writes() {
            let written = arena::range(&self.tensor(output)?);
            for id in step.reads() {
                let read = arena::range(&self.tensor(id)?);
                let apart = read.end <= written.start || written.end <= read.start;
                ensure(apart, Problem::Overlap(id))?;
            }
        }
        match step {
            Step::Quantize(step) => self.quantize(step),
            Step::Dequantize(step) => self.dequantize(step),
            Step::Conv(conv) => {
                let rows = self.tensor(conv.output)?.height;
                self.conv(&RowTile::whole(*conv, rows), false)
            }
            Step::RowTile(tile) => self.conv(tile, false),
            #[cfg(feature = "sparse")]
            Step::Sparse(tile) => self.conv(tile, true),
            Step::Add(step) => {
                scale(step.scale_a.abs(), TERM_SCALE_BITS)?;
                scale(step.scale_b.abs(), TERM_SCALE_BITS)?;
                clamp(step.clamp)?;
                self.operands(step.a, step.b, step.output)
            }
            Step::Multiply(step) => {
                scale(step.scale, SCALE_BITS)?;
                clamp(step.clamp)?;
                self.operands(step.a, step.b, step.output)
            }
            Step::MaxPool(step) => {
                clamp(step.clamp)?;
                self.same_quantization(step.input, step.output)?;
                self.channel_window(&step.window, step.input, step.output)
            }
            Step::AveragePool(step) => {
                scale(step.scale, SCALE_BITS)?;
                clamp(step.clamp)?;
                self.channel_window(&step.window, step.input, step.output)
            }
            Step::Lookup(step) => {
                let (input, output) = (self.tensor(step.input)?, self.tensor(step.output)?);
                ensure(input.elements() == output.elements(), Problem::Shape)?;
                self.table(step.table, 256).map(drop)
            }
            Step::Move(step) => {
                let (input, output) = (self.tensor(step.input)?, self.tensor(step.output)?);
                step.scale.map_or(Ok(()), |value| scale(value, TERM_SCALE_BITS))?;
                copy(&step.copy, input.elements(), output.elements())
            }
            Step::Fill(step) => self.tensor(step.output).map(drop),
            Step::Resize(step) => self.resize(step),
            Step::Softmax(step) => self.softmax(step),
        }
    }

    fn quantize(&self, step: &Quantize) -> Result<(), Problem> {
        let port = self.code.input(step.port).ok_or(Problem::NoPort(step.port))?;
        ensure(SCALES.contains(&step.inverse_scale), Problem::Scale)?;
        copy(&step.copy, port.elements, self.tensor(step.output)?.elements())
    }

    fn dequantize(&self, step: &Dequantize) -> Result<(), Problem> {
        let port = self.code.output(step.port).ok_or(Problem::NoPort(step.port))?;
        copy(&step.copy, self.tensor(step.input)?.elements(), port.elements)
    }

    fn conv(&mut self, tile: &RowTile, sparse: bool) -> Result<(), Problem> {
        let step = &tile.conv;
        let whole = self.tensor(step.output)?;
        let input = tile.input(&self.tensor(step.input)?).ok_or(Problem::Rows)?;
        let output = tile.output(&whole).ok_or(Problem::Rows)?;
        ensure(tile.skipped_rows == 0 || step.window.pad[0] == 0, Problem::Rows)?;
        clamp(step.clamp)?;
        window(&step.window, &input, &output)?;
        let (groups, channels) = (step.groups, output.channels);
        ensure(
            groups > 0 && input.channels.is_multiple_of(groups) && channels.is_multiple_of(groups),
            Problem::Groups,
        )?;
        if sparse {
            #[cfg(feature = "sparse")]
            self.sparse(step, input.channels, channels)?;
        } else {
            let bytes = weights_bytes(&step.window, groups, input.channels, channels);
            self.span(step.weights, bytes)?;
        }
        self.span(step.bias, 4 * u64::from(channels))?;
        self.span(step.scales, 4 * u64::from(channels))?;
        ensure(step.accumulator_bits <= 32, Problem::Attributes)?;
        let layer = Layer::new(step, &input, channels, sparse);
        let shared = match tile.reuse_weights_of {
            0 => Some(layer),
            back => self.layers.get(usize::from(back) - 1).copied().flatten(),
        };
        ensure(shared == Some(layer), Problem::Shares)?;
        self.layers.rotate_right(1);
        self.layers[0] = Some(layer);
        let is_scale = |value: f32| scale(value, SCALE_BITS).is_ok();
        let scales = match &mut self.section {
            Section::Plain(weights) => {
                let Span { offset, length } = step.scales;
                words(&weights[offset as usize..][..length as usize])
                    .all(|value| is_scale(f32::from_bits(value)))
            }
            Section::Packed(packed, cursor) => {
                let (shape, range) = cursor.conv(tile, input.channels, channels);
                let layer = slice(packed, range).ok_or(Problem::OutsideWeights)?;
                ensure(shape.has_zero_padding(cursor.packing(), layer), Problem::WeightPadding)?;
                shape.all_scales(cursor.packing(), layer, is_scale)
            }
        };
        ensure(scales, Problem::Scale)?;
        if let Some(residual) = step.residual {
            scale(residual.scale.abs(), TERM_SCALE_BITS)?;
            ensure(shape(&self.tensor(residual.tensor)?) == shape(&whole), Problem::Shape)?;
        }
        Ok(())
    }

    /// Checks sparse weights.
    #[cfg(feature = "sparse")]
    fn sparse(&self, step: &Conv, inputs: u32, outputs: u32) -> Result<(), Problem> {
        ensure(!is_depthwise(step.groups, inputs, outputs), Problem::Sparse)?;
        let Span { offset, length } = step.weights;
        self.span(step.weights, length.into())?;
        // Packed weights are dense.
        let Section::Plain(weights) = self.section else { return Ok(()) };
        let bytes = bytemuck::cast_slice(&weights[offset as usize..][..length as usize]);
        let form = Sparse::new(bytes, outputs as usize, depth(step, inputs));
        ensure(form.is_some_and(|form| form.is_valid()), Problem::Sparse)
    }

    fn resize(&mut self, step: &Resize) -> Result<(), Problem> {
        let (input, output) = (self.tensor(step.input)?, self.tensor(step.output)?);
        self.same_quantization(step.input, step.output)?;
        ensure(input.channels == output.channels, Problem::Shape)?;
        for (table, count, size) in
            [(step.rows, output.height, input.height), (step.columns, output.width, input.width)]
        {
            let (samples, _) = self.table(table, 8 * u64::from(count))?.as_chunks::<8>();
            for &sample in samples {
                let Sample { first, second, weight } = Sample::from_bytes(sample);
                let inside = u32::from(first.max(second)) < size;
                ensure(inside && (0..=2048).contains(&weight), Problem::Table)?;
            }
        }
        Ok(())
    }

    fn softmax(&mut self, step: &Softmax) -> Result<(), Problem> {
        let (input, output) = (self.tensor(step.input)?, self.tensor(step.output)?);
        ensure(shape(&input) == shape(&output), Problem::Shape)?;
        let known = output.scale == 1.0 / 256.0 && output.zero_point == i8::MIN;
        ensure(known, Problem::Quantization)?;
        let mut table = words(self.table(step.table, 1024)?);
        ensure(table.clone().next().is_some_and(|first| first > 0), Problem::Table)?;
        ensure(table.all(|entry| entry <= 1 << 24), Problem::Table)
    }

    /// Checks that `span` has `expected` bytes and lies within the weights section of the family
    /// `mcu`.
    fn span(&self, span: Span, expected: u64) -> Result<(), Problem> {
        let Span { offset, length } = span;
        ensure(u64::from(length) == expected, Problem::SpanLength { expected, given: length })?;
        let end = u64::from(offset) + u64::from(length);
        let inside = offset.is_multiple_of(16) && end <= self.code.header.weights_bytes.into();
        ensure(inside, Problem::OutsideWeights)
    }

    /// Returns the bytes of a table after checking that it has `expected` bytes.
    fn table(&mut self, span: Span, expected: u64) -> Result<&'a [u8], Problem> {
        self.span(span, expected)?;
        self.section.table(span)
    }

    fn same_quantization(&self, a: TensorId, b: TensorId) -> Result<(), Problem> {
        let (a, b) = (self.tensor(a)?, self.tensor(b)?);
        let same = a.scale == b.scale && a.zero_point == b.zero_point;
        ensure(same, Problem::Quantization)
    }

    /// Checks the shapes of a binary element-wise operation. `b` may be broadcast over all pixels.
    fn operands(&self, a: TensorId, b: TensorId, output: TensorId) -> Result<(), Problem> {
        let (a, b, output) = (self.tensor(a)?, self.tensor(b)?, self.tensor(output)?);
        let repeated = [1, 1, output.channels];
        let fits = shape(&b) == shape(&output) || shape(&b) == repeated;
        ensure(fits && shape(&a) == shape(&output), Problem::Shape)
    }

    /// Checks a window that slides over each channel separately.
    fn channel_window(
        &self,
        of: &Window,
        input: TensorId,
        output: TensorId,
    ) -> Result<(), Problem> {
        let (input, output) = (self.tensor(input)?, self.tensor(output)?);
        ensure(input.channels == output.channels, Problem::Shape)?;
        window(of, &input, &output)
    }
}

fn window(window: &Window, input: &Tensor, output: &Tensor) -> Result<(), Problem> {
    let elements = u64::from(window.kernel[0]) * u64::from(window.kernel[1]);
    ensure((1..=MAXIMUM_WINDOW).contains(&elements), Problem::Window)?;
    for (axis, input, output) in [(0, input.height, output.height), (1, input.width, output.width)]
    {
        let [kernel, stride, dilation, pad] =
            [window.kernel, window.stride, window.dilation, window.pad]
                .map(|of| u64::from(of[axis]));
        let last = u64::from(output - 1) * stride + (kernel - 1) * dilation;
        // The padding below and to the right is limited to u16, like the padding above and to the
        // left.
        let end = u64::from(input) + pad + u64::from(u16::MAX);
        ensure(stride > 0 && dilation > 0 && last < end, Problem::Window)?;
    }
    Ok(())
}

/// Returns the bytes of a convolution's dense weights in the family `mcu`. Saturates.
pub(crate) fn weights_bytes(window: &Window, groups: u32, inputs: u32, outputs: u32) -> u64 {
    let elements = u64::from(window.kernel[0]) * u64::from(window.kernel[1]);
    if is_depthwise(groups, inputs, outputs) {
        return elements * u64::from(outputs);
    }
    let depth = elements.saturating_mul((inputs / groups).into());
    depth.checked_next_multiple_of(4).unwrap_or(u64::MAX).saturating_mul(outputs.into())
}

/// Returns the number of weights per output channel of a convolution. Saturates.
#[cfg(feature = "sparse")]
pub(crate) fn depth(step: &Conv, inputs: u32) -> usize {
    let [height, width] = step.window.kernel.map(usize::from);
    (height * width).saturating_mul((inputs / step.groups) as usize)
}

/// Returns whether a convolution with these channel counts is depthwise.
pub(crate) fn is_depthwise(groups: u32, inputs: u32, outputs: u32) -> bool {
    groups > 1 && groups == inputs && groups == outputs
}

fn shape(tensor: &Tensor) -> [u32; 3] {
    [tensor.height, tensor.width, tensor.channels]
}

/// Checks a requantization scale: 0 or in the valid range, with at most `bits` significant bits.
fn scale(value: f32, bits: u32) -> Result<(), Problem> {
    let in_range = value.to_bits() == 0 || SCALES.contains(&value);
    ensure(in_range && is_significant(value, bits), Problem::Scale)
}

fn clamp(clamp: Clamp) -> Result<(), Problem> {
    ensure(clamp.low <= clamp.high, Problem::Clamp)
}

/// Checks that a strided copy stays within `source` source elements and `target` destination
/// elements, and copies no more elements than the larger of the two has.
fn copy(copy: &CopyLayout, source: u32, target: u32) -> Result<(), Problem> {
    let last = |offset: u32, strides: &[u32; 6]| {
        copy.dims.iter().zip(strides).try_fold(u64::from(offset), |last, (&dim, &stride)| {
            let along = u64::from(dim.checked_sub(1)?).checked_mul(stride.into())?;
            last.checked_add(along)
        })
    };
    let inside = |last: Option<u64>, size: u32| last.is_some_and(|last| last < size.into());
    let count = copy.dims.iter().try_fold(1u32, |count, &dim| count.checked_mul(dim));
    ensure(
        inside(last(copy.source_offset, &copy.source_strides), source)
            && inside(last(copy.target_offset, &copy.target_strides), target)
            && count.is_some_and(|count| count <= source.max(target)),
        Problem::CopyLayout,
    )
}

/// Returns the little-endian u32 numbers in `bytes`.
fn words(bytes: &[u8]) -> impl Iterator<Item = u32> + Clone {
    bytes.as_chunks::<4>().0.iter().map(|&word| u32::from_le_bytes(word))
}
