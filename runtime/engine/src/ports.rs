//! The quantization parameters of a program's inputs and outputs.

use crate::Program;
use crate::program::{Step, TensorId};

impl<B: AsRef<[u8]>> Program<B> {
    /// Returns the scale and zero point of an input: `float = scale · (integer − zero point)`.
    /// `None` if the input does not exist, or feeds tensors with different parameters.
    pub fn input_quantization(&self, port: u16) -> Option<(f32, i8)> {
        self.shared(|step| match step {
            Step::Quantize(step) if step.port == port => Some(step.output),
            _ => None,
        })
    }

    /// Returns the scale and zero point of an output. `None` if the output does not exist, or is
    /// assembled from tensors with different parameters.
    pub fn output_quantization(&self, port: u16) -> Option<(f32, i8)> {
        self.shared(|step| match step {
            Step::Dequantize(step) if step.port == port => Some(step.input),
            _ => None,
        })
    }

    /// Returns the scale and zero point if they are the same for all chosen tensors.
    fn shared(&self, choose: impl Fn(&Step) -> Option<TensorId>) -> Option<(f32, i8)> {
        let mut tensors = self.steps().filter_map(|step| self.tensor(choose(&step)?));
        let first = tensors.next().map(|tensor| (tensor.scale, tensor.zero_point))?;
        tensors.all(|tensor| (tensor.scale, tensor.zero_point) == first).then_some(first)
    }
}
