//! How the integers of ports stand for reals.

use crate::Program;
use crate::program::{Step, TensorId};

impl<B: AsRef<[u8]>> Program<B> {
    /// Scale and zero point of what an input port becomes: `real = scale · (integer − zero
    /// point)`. `None` where the port's elements become tensors of several, or there is no such
    /// port.
    pub fn input_quantization(&self, port: u16) -> Option<(f32, i8)> {
        self.shared(|step| match step {
            Step::Quantize(step) if step.port == port => Some(step.output),
            _ => None,
        })
    }

    /// Scale and zero point of what an output port is made of, in the same way.
    pub fn output_quantization(&self, port: u16) -> Option<(f32, i8)> {
        self.shared(|step| match step {
            Step::Dequantize(step) if step.port == port => Some(step.input),
            _ => None,
        })
    }

    /// What the chosen tensors all have.
    fn shared(&self, choose: impl Fn(&Step) -> Option<TensorId>) -> Option<(f32, i8)> {
        let mut tensors = self.steps().filter_map(|step| self.tensor(choose(&step)?));
        let first = tensors.next().map(|tensor| (tensor.scale, tensor.zero_point))?;
        tensors.all(|tensor| (tensor.scale, tensor.zero_point) == first).then_some(first)
    }
}
