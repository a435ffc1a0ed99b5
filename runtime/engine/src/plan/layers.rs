//! Adds steps by their float scales, and computes the constants that each step stores.

use alloc::string::ToString;
use alloc::vec::Vec;

use hardtack_kernels::{
    Requantize, SCALE_BITS, Sample, TERM_SCALE_BITS, prove_accumulator, round_significant,
    softmax_table,
};

use super::{BuildError, Builder};
use crate::check::is_depthwise;
use crate::program::*;

/// A convolution or fully connected layer, the input of [`Builder::conv`].
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    /// The input tensor.
    pub input: TensorId,
    /// The output tensor.
    pub output: TensorId,
    /// The sliding window.
    pub window: Window,
    /// The number of groups.
    pub groups: u32,
    /// The weights in [−127, 127], in the order output channel, kernel row, kernel column, input
    /// channel of the group. This order is independent of the layout in the program.
    pub weights: &'a [i8],
    /// The weight scale of each output channel.
    pub weight_scales: &'a [f32],
    /// The bias of each output channel, in units of input scale · weight scale.
    pub bias: &'a [i32],
    /// A tensor to add before rounding, with the shape of the output.
    pub residual: Option<TensorId>,
    /// Saturation and fused activation.
    pub clamp: Clamp,
}

impl Builder {
    /// Adds a convolution.
    ///
    /// # Errors
    /// If the layer is malformed, or an accumulator can overflow for some input.
    ///
    /// # Examples
    ///
    /// A fully connected layer: `y = 2 · x₀ − x₁`.
    ///
    /// ```
    /// use hardtack_engine::program::{Clamp, Window};
    /// use hardtack_engine::{Builder, Layer};
    /// # use hardtack_engine::program::{PortType, CopyLayout};
    /// # use hardtack_engine::{Input, Output, Program};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut builder = Builder::new();
    /// let x = builder.tensor("x", [1, 1, 2], 0.1, 0);
    /// let y = builder.tensor("y", [1, 1, 1], 0.5, 0);
    /// # let (input, output) = (builder.input(PortType::F32, 2), builder.output(PortType::F32, 1));
    /// # builder.quantize("x", input, x, CopyLayout::contiguous(2))?;
    /// let layer = Layer {
    ///     input: x,
    ///     output: y,
    ///     window: Window { kernel: [1; 2], stride: [1; 2], dilation: [1; 2], pad: [0; 2] },
    ///     groups: 1,
    ///     weights: &[2, -1],
    ///     weight_scales: &[1.0],
    ///     bias: &[0],
    ///     residual: None,
    ///     clamp: Clamp::FULL,
    /// };
    /// builder.conv("y", &layer)?;
    /// # builder.dequantize("y", y, output, CopyLayout::contiguous(1));
    /// # let built = builder.finish()?;
    /// # let program = Program::parse(&built.code, &built.weights)?;
    /// # let (mut arena, mut result) = (vec![0; program.arena_bytes()], [0.0]);
    /// # let outputs = &mut [Output::F32(&mut result)];
    /// # let kernels = &hardtack_kernels::ReferenceKernels::SCALAR;
    /// # program.run(kernels, &mut arena, &[Input::F32(&[3.0, 1.0])], outputs)?;
    /// # assert_eq!(result, [5.0]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn conv(&mut self, name: &str, layer: &Layer<'_>) -> Result<(), BuildError> {
        self.conv_and(name, layer, 1.0)
    }

    /// Adds a convolution that subtracts its residual. If the residual is the result of the same
    /// convolution with a coarser output scale, the output is the rounding error of that result.
    pub fn conv_less(&mut self, name: &str, layer: &Layer<'_>) -> Result<(), BuildError> {
        self.conv_and(name, layer, -1.0)
    }

    fn conv_and(&mut self, name: &str, layer: &Layer<'_>, sign: f32) -> Result<(), BuildError> {
        let (input, output) =
            (self.tensor_of(name, layer.input)?, self.tensor_of(name, layer.output)?);
        let (groups, channels) = (layer.groups, output.channels);
        if groups == 0 || !input.channels.is_multiple_of(groups) || !channels.is_multiple_of(groups)
        {
            return Err(BuildError::Groups { step: name.to_string(), groups });
        }
        let [height, width] = layer.window.kernel.map(u64::from);
        let depth = (height * width).saturating_mul(u64::from(input.channels / groups));
        for (what, expected, given) in [
            ("weights", depth.saturating_mul(channels.into()), layer.weights.len()),
            ("weight_scales", channels.into(), layer.weight_scales.len()),
            ("bias", channels.into(), layer.bias.len()),
        ] {
            if expected != given as u64 || expected == 0 {
                let given = given as u64;
                return Err(BuildError::Elements { step: name.to_string(), what, expected, given });
            }
        }
        if let Some(index) = layer.weights.iter().position(|&weight| weight == i8::MIN) {
            return Err(BuildError::Weight { step: name.to_string(), index });
        }
        let rows = layer.weights.chunks_exact(depth as usize);
        let mut accumulator_bits = 0;
        for (channel, (row, &bias)) in rows.zip(layer.bias).enumerate() {
            let bound = prove_accumulator(row, bias, input.zero_point).map_err(|source| {
                BuildError::Overflow { step: name.to_string(), channel, source }
            })?;
            accumulator_bits = accumulator_bits.max(bound.bits());
        }
        let scales: Vec<f32> = layer
            .weight_scales
            .iter()
            .map(|&scale| {
                let scale = f64::from(input.scale) * f64::from(scale) / f64::from(output.scale);
                round_significant(scale as f32, SCALE_BITS)
            })
            .collect();
        let residual = match layer.residual {
            Some(tensor) => {
                let scale = self.tensor_of(name, tensor)?.scale;
                Some(Residual { tensor, scale: sign * term_scale(scale, output.scale) })
            }
            None => None,
        };
        let depthwise = is_depthwise(groups, input.channels, channels);
        let step = Conv {
            input: layer.input,
            output: layer.output,
            window: layer.window,
            groups,
            weights: self.i8s(&lay_out(layer.weights, depth as usize, depthwise))?,
            bias: self.i32s(layer.bias)?,
            scales: self.f32s(&scales)?,
            accumulator_bits,
            residual,
            clamp: layer.clamp,
        };
        self.step(name, Step::Conv(step));
        Ok(())
    }

    /// Adds an addition. `b` has the shape of the output, or 1×1×channels.
    pub fn add(
        &mut self,
        name: &str,
        [a, b]: [TensorId; 2],
        output: TensorId,
        clamp: Clamp,
    ) -> Result<(), BuildError> {
        let (scale_a, scale_b) = self.term_scales(name, [a, b], output)?;
        self.step(name, Step::Add(Add { a, b, output, scale_a, scale_b, clamp }));
        Ok(())
    }

    /// Adds a subtraction, a − b. `b` has the shape of the output, or 1×1×channels.
    pub fn subtract(
        &mut self,
        name: &str,
        [a, b]: [TensorId; 2],
        output: TensorId,
        clamp: Clamp,
    ) -> Result<(), BuildError> {
        let (scale_a, scale_b) = self.term_scales(name, [a, b], output)?;
        self.step(name, Step::Add(Add { a, b, output, scale_a, scale_b: -scale_b, clamp }));
        Ok(())
    }

    /// Adds an element-wise multiplication. `b` has the shape of the output, or 1×1×channels.
    pub fn multiply(
        &mut self,
        name: &str,
        [a, b]: [TensorId; 2],
        output: TensorId,
        clamp: Clamp,
    ) -> Result<(), BuildError> {
        let scales = [a, b, output].map(|id| self.tensor_of(name, id).map(|tensor| tensor.scale));
        let [scale_a, scale_b, scale] = scales;
        let scale = f64::from(scale_a?) * f64::from(scale_b?) / f64::from(scale?);
        let scale = round_significant(scale as f32, SCALE_BITS);
        self.step(name, Step::Multiply(Multiply { a, b, output, scale, clamp }));
        Ok(())
    }

    /// Adds a max pooling. Input and output must have the same scale and zero point.
    pub fn max_pool(
        &mut self,
        name: &str,
        input: TensorId,
        output: TensorId,
        window: Window,
        clamp: Clamp,
    ) {
        self.step(name, Step::MaxPool(MaxPool { input, output, window, clamp }));
    }

    /// Adds an average pooling. With `count_include_pad`, padding elements count in the divisor.
    pub fn average_pool(
        &mut self,
        name: &str,
        input: TensorId,
        output: TensorId,
        window: Window,
        count_include_pad: bool,
        clamp: Clamp,
    ) -> Result<(), BuildError> {
        let ratio = f64::from(self.tensor_of(name, input)?.scale)
            / f64::from(self.tensor_of(name, output)?.scale);
        let [height, width] = window.kernel.map(f64::from);
        let scale = if count_include_pad { ratio / (height * width) } else { ratio };
        let scale = round_significant(scale as f32, SCALE_BITS);
        let step = AveragePool { input, output, window, scale, count_include_pad, clamp };
        self.step(name, Step::AveragePool(step));
        Ok(())
    }

    /// Adds an element-wise function as a lookup table (LUT): evaluates `function` for all 256
    /// values of the input. NaN becomes the output's zero point.
    pub fn lookup(
        &mut self,
        name: &str,
        input: TensorId,
        output: TensorId,
        function: impl Fn(f32) -> f32,
    ) -> Result<(), BuildError> {
        let (from, to) = (self.tensor_of(name, input)?, self.tensor_of(name, output)?);
        let full = hardtack_kernels::Clamp { low: i8::MIN, high: i8::MAX };
        let requantize = Requantize::new(to.zero_point, full);
        let table: [i8; 256] = core::array::from_fn(|index| {
            let integer = index as i32 - 128 - i32::from(from.zero_point);
            let value = f64::from(function(integer as f32 * from.scale)) / f64::from(to.scale);
            requantize.apply(if value.is_nan() { 0.0 } else { value as f32 })
        });
        let table = self.i8s(&table)?;
        self.step(name, Step::Lookup(Lookup { input, output, table }));
        Ok(())
    }

    /// Adds a strided copy. It requantizes if the scale or zero point of input and output differ.
    pub fn copy(
        &mut self,
        name: &str,
        input: TensorId,
        output: TensorId,
        copy: CopyLayout,
    ) -> Result<(), BuildError> {
        let (from, to) = (self.tensor_of(name, input)?, self.tensor_of(name, output)?);
        let same = from.scale == to.scale && from.zero_point == to.zero_point;
        let scale = (!same).then(|| term_scale(from.scale, to.scale));
        self.step(name, Step::Move(Move { input, output, copy, scale }));
        Ok(())
    }

    /// Fills a tensor with a quantized constant.
    pub fn fill(&mut self, name: &str, output: TensorId, value: f32) -> Result<(), BuildError> {
        let tensor = self.tensor_of(name, output)?;
        let full = hardtack_kernels::Clamp { low: i8::MIN, high: i8::MAX };
        let value = Requantize::new(tensor.zero_point, full).apply(value / tensor.scale);
        self.step(name, Step::Fill(Fill { output, value }));
        Ok(())
    }

    /// Adds a resize by linear interpolation, with one sample per output row and output column.
    /// Input and output must have the same scale and zero point.
    pub fn resize(
        &mut self,
        name: &str,
        input: TensorId,
        output: TensorId,
        rows: &[Sample],
        columns: &[Sample],
    ) -> Result<(), BuildError> {
        let bytes = |samples: &[Sample]| -> Vec<u8> {
            samples.iter().flat_map(|sample| sample.to_bytes()).collect()
        };
        let (rows, columns) = (self.bytes(&bytes(rows))?, self.bytes(&bytes(columns))?);
        self.step(name, Step::Resize(Resize { input, output, rows, columns }));
        Ok(())
    }

    /// Adds a softmax over channels. The output must have scale 1/256 and zero point −128.
    pub fn softmax(
        &mut self,
        name: &str,
        input: TensorId,
        output: TensorId,
    ) -> Result<(), BuildError> {
        let table = softmax_table(self.tensor_of(name, input)?.scale);
        let table = self.u32s(&table)?;
        self.step(name, Step::Softmax(Softmax { input, output, table }));
        Ok(())
    }

    /// Adds a strided copy from program input `port` to a tensor, which quantizes f32 values.
    pub fn quantize(
        &mut self,
        name: &str,
        port: u16,
        output: TensorId,
        copy: CopyLayout,
    ) -> Result<(), BuildError> {
        let inverse_scale = 1.0 / self.tensor_of(name, output)?.scale;
        self.step(name, Step::Quantize(Quantize { port, output, inverse_scale, copy }));
        Ok(())
    }

    /// Adds a strided copy from a tensor to program output `port`, which dequantizes to f32.
    pub fn dequantize(&mut self, name: &str, input: TensorId, port: u16, copy: CopyLayout) {
        self.step(name, Step::Dequantize(Dequantize { input, port, copy }));
    }

    fn tensor_of(&self, step: &str, id: TensorId) -> Result<Tensor, BuildError> {
        let missing = || BuildError::NoTensor { step: step.to_string(), id };
        self.get(id).copied().ok_or_else(missing)
    }

    fn term_scales(
        &self,
        name: &str,
        [a, b]: [TensorId; 2],
        output: TensorId,
    ) -> Result<(f32, f32), BuildError> {
        let output = self.tensor_of(name, output)?.scale;
        let (a, b) = (self.tensor_of(name, a)?.scale, self.tensor_of(name, b)?.scale);
        Ok((term_scale(a, output), term_scale(b, output)))
    }
}

/// Returns the scale of an addend relative to the output, rounded as the kernels require.
fn term_scale(scale: f32, output: f32) -> f32 {
    let ratio = f64::from(scale) / f64::from(output);
    round_significant(ratio as f32, TERM_SCALE_BITS)
}

/// Converts weights to the layout of the family `mcu`. `depth` is the number of weights per output
/// channel.
fn lay_out(weights: &[i8], depth: usize, depthwise: bool) -> Vec<i8> {
    let rows = weights.chunks_exact(depth);
    if depthwise {
        return (0..depth).flat_map(|tap| rows.clone().map(move |row| row[tap])).collect();
    }
    let padding = depth.next_multiple_of(4) - depth;
    rows.flat_map(|row| row.iter().copied().chain(core::iter::repeat_n(0, padding))).collect()
}
