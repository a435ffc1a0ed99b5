//! Runs single steps: converts their attributes to the arguments of reference kernels.

use hardtack_kernels::{self as kernels, Image, ReferenceKernels};

use crate::arena;
use crate::code::Code;
use crate::program::*;
use crate::{Input, Output};

/// A dense or sparse convolution kernel.
type ConvKernel = fn(&kernels::Conv<'_>, &mut [i8]);

/// The context of an inference. The program, inputs and outputs have been checked.
pub(crate) struct ReferenceContext<'a> {
    pub(crate) code: Code<'a>,
    pub(crate) weights: &'a [u8],
    pub(crate) kernels: &'a ReferenceKernels,
}

impl<'a> ReferenceContext<'a> {
    /// Runs one step. Not inlined, so that code size builds contain it only once.
    #[inline(never)]
    pub(crate) fn step(
        &self,
        step: &Step,
        arena: &mut [i8],
        inputs: &[Input<'_>],
        outputs: &mut [Output<'_>],
    ) {
        match step {
            Step::Quantize(step) => self.quantize(step, arena, &inputs[usize::from(step.port)]),
            Step::Dequantize(step) => {
                self.dequantize(step, arena, &mut outputs[usize::from(step.port)]);
            }
            Step::Conv(_) | Step::RowTile(_) => {
                let tile = step.tile(|id| self.tensor(id)).expect("it is a convolution");
                self.conv(&tile, self.kernels.conv, arena);
            }
            #[cfg(feature = "sparse")]
            Step::Sparse(tile) => self.conv(tile, self.kernels.sparse, arena),
            Step::Add(step) => self.add(step, arena),
            Step::Multiply(step) => self.multiply(step, arena),
            Step::MaxPool(step) => self.max_pool(step, arena),
            Step::AveragePool(step) => self.average_pool(step, arena),
            Step::Lookup(step) => {
                let (output, around) = arena::split(arena, &self.tensor(step.output));
                let table = self.span::<i8>(step.table).try_into().expect("256 entries");
                (self.kernels.lookup)(table, around.tensor(&self.tensor(step.input)), output);
            }
            Step::Move(step) => self.copy(step, arena),
            Step::Fill(step) => arena[arena::range(&self.tensor(step.output))].fill(step.value),
            Step::Resize(step) => self.resize(step, arena),
            Step::Softmax(step) => self.softmax(step, arena),
        }
    }

    fn tensor(&self, id: TensorId) -> Tensor {
        self.code.tensor(id).expect("tensors of steps were checked")
    }

    fn span<T: bytemuck::AnyBitPattern>(&self, span: Span) -> &'a [T] {
        let start = span.offset as usize;
        bytemuck::cast_slice(&self.weights[start..start + span.length as usize])
    }

    fn quantize(&self, step: &Quantize, arena: &mut [i8], input: &Input<'_>) {
        let tensor = self.tensor(step.output);
        let output = &mut arena[arena::range(&tensor)];
        let copy = copy(&step.copy);
        match *input {
            Input::F32(input) => {
                let (inverse_scale, zero_point) = (step.inverse_scale, tensor.zero_point);
                let step = kernels::Quantize { input, copy, inverse_scale, zero_point };
                (self.kernels.quantize)(&step, output);
            }
            Input::I8(input) => self.exchange(input, copy, output),
            Input::U8(input) => offset_bytes(&copy, input, bytemuck::cast_slice_mut(output)),
        }
    }

    /// Copies i8 values between an input or output and a tensor.
    fn exchange(&self, input: &[i8], copy: kernels::StridedCopy, output: &mut [i8]) {
        let moved = kernels::Move { input, copy, scale: None, zero_point: 0, output_zero_point: 0 };
        (self.kernels.copy)(&moved, output);
    }

    fn dequantize(&self, step: &Dequantize, arena: &[i8], output: &mut Output<'_>) {
        let tensor = self.tensor(step.input);
        let input = &arena[arena::range(&tensor)];
        let copy = copy(&step.copy);
        match output {
            Output::F32(output) => {
                let Tensor { scale, zero_point, .. } = tensor;
                let step = kernels::Dequantize { input, copy, scale, zero_point };
                (self.kernels.dequantize)(&step, output);
            }
            Output::I8(output) => self.exchange(input, copy, output),
            Output::U8(output) => offset_bytes(&copy, bytemuck::cast_slice(input), output),
        }
    }

    fn conv(&self, tile: &RowTile, kernel: ConvKernel, arena: &mut [i8]) {
        const CHECKED: &str = "row tiles were checked";
        let step = &tile.conv;
        let input = tile.input(&self.tensor(step.input)).expect(CHECKED);
        let output = tile.output(&self.tensor(step.output)).expect(CHECKED);
        let (target, around) = arena::split(arena, &output);
        let residual = step.residual.map(|residual| {
            let tensor = tile.output(&self.tensor(residual.tensor)).expect(CHECKED);
            kernels::Residual {
                values: around.tensor(&tensor),
                zero_point: tensor.zero_point,
                scale: residual.scale,
            }
        });
        let conv = kernels::Conv {
            input: around.tensor(&input),
            input_shape: image(&input),
            zero_point: input.zero_point,
            output_shape: image(&output),
            window: window(&step.window),
            groups: step.groups as usize,
            weights: self.span(step.weights),
            bias: self.span(step.bias),
            scales: self.span(step.scales),
            residual,
            output_zero_point: output.zero_point,
            clamp: clamp(step.clamp),
        };
        kernel(&conv, target);
    }

    fn add(&self, step: &Add, arena: &mut [i8]) {
        let (a, b) = (self.tensor(step.a), self.tensor(step.b));
        let output = self.tensor(step.output);
        let (target, around) = arena::split(arena, &output);
        let add = kernels::Add {
            a: around.tensor(&a),
            b: around.tensor(&b),
            zero_point_a: a.zero_point,
            zero_point_b: b.zero_point,
            scale_a: step.scale_a,
            scale_b: step.scale_b,
            zero_point: output.zero_point,
            clamp: clamp(step.clamp),
        };
        (self.kernels.add)(&add, target);
    }

    fn multiply(&self, step: &Multiply, arena: &mut [i8]) {
        let (a, b) = (self.tensor(step.a), self.tensor(step.b));
        let output = self.tensor(step.output);
        let (target, around) = arena::split(arena, &output);
        let multiply = kernels::Multiply {
            a: around.tensor(&a),
            b: around.tensor(&b),
            zero_point_a: a.zero_point,
            zero_point_b: b.zero_point,
            scale: step.scale,
            zero_point: output.zero_point,
            clamp: clamp(step.clamp),
        };
        (self.kernels.multiply)(&multiply, target);
    }

    fn max_pool(&self, step: &MaxPool, arena: &mut [i8]) {
        let (input, output) = (self.tensor(step.input), self.tensor(step.output));
        let (target, around) = arena::split(arena, &output);
        let pool = kernels::MaxPool {
            input: around.tensor(&input),
            input_shape: image(&input),
            output_shape: image(&output),
            window: window(&step.window),
            clamp: clamp(step.clamp),
        };
        (self.kernels.max_pool)(&pool, target);
    }

    fn average_pool(&self, step: &AveragePool, arena: &mut [i8]) {
        let (input, output) = (self.tensor(step.input), self.tensor(step.output));
        let (target, around) = arena::split(arena, &output);
        let pool = kernels::AveragePool {
            input: around.tensor(&input),
            input_shape: image(&input),
            zero_point: input.zero_point,
            output_shape: image(&output),
            window: window(&step.window),
            scale: step.scale,
            count_include_pad: step.count_include_pad,
            output_zero_point: output.zero_point,
            clamp: clamp(step.clamp),
        };
        (self.kernels.average_pool)(&pool, target);
    }

    fn copy(&self, step: &Move, arena: &mut [i8]) {
        let (input, output) = (self.tensor(step.input), self.tensor(step.output));
        let (target, around) = arena::split(arena, &output);
        let moved = kernels::Move {
            input: around.tensor(&input),
            copy: copy(&step.copy),
            scale: step.scale,
            zero_point: input.zero_point,
            output_zero_point: output.zero_point,
        };
        (self.kernels.copy)(&moved, target);
    }

    fn resize(&self, step: &Resize, arena: &mut [i8]) {
        let input = self.tensor(step.input);
        let (target, around) = arena::split(arena, &self.tensor(step.output));
        let resize = kernels::Resize {
            input: around.tensor(&input),
            input_shape: image(&input),
            rows: self.span(step.rows),
            columns: self.span(step.columns),
        };
        (self.kernels.resize)(&resize, target);
    }

    fn softmax(&self, step: &Softmax, arena: &mut [i8]) {
        let input = self.tensor(step.input);
        let (target, around) = arena::split(arena, &self.tensor(step.output));
        let softmax = kernels::Softmax {
            input: around.tensor(&input),
            channels: input.channels as usize,
            table: self.span(step.table).try_into().expect("256 entries"),
        };
        (self.kernels.softmax)(&softmax, target);
    }
}

pub(crate) fn image(tensor: &Tensor) -> Image {
    Image {
        height: tensor.height as usize,
        width: tensor.width as usize,
        channels: tensor.channels as usize,
    }
}

pub(crate) fn window(window: &Window) -> kernels::Window {
    kernels::Window {
        kernel: window.kernel.map(usize::from),
        stride: window.stride.map(usize::from),
        dilation: window.dilation.map(usize::from),
        pad: window.pad.map(usize::from),
    }
}

pub(crate) fn copy(copy: &CopyLayout) -> kernels::StridedCopy {
    kernels::StridedCopy {
        dims: copy.dims.map(|dim| dim as usize),
        source_offset: copy.source_offset as usize,
        source_strides: copy.source_strides.map(|stride| stride as usize),
        target_offset: copy.target_offset as usize,
        target_strides: copy.target_strides.map(|stride| stride as usize),
    }
}

pub(crate) fn clamp(clamp: Clamp) -> kernels::Clamp {
    kernels::Clamp { low: clamp.low, high: clamp.high }
}

/// Copies between a tensor and a u8 input or output by inverting the highest bit, which adds or
/// subtracts 128. Not inlined, so that both directions share the code.
#[inline(never)]
fn offset_bytes(copy: &kernels::StridedCopy, from: &[u8], to: &mut [u8]) {
    copy.apply(from, to, |byte| byte ^ 0x80);
}
