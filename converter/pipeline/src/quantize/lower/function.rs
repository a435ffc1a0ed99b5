//! Lowers unary element-wise functions to lookup tables over the integers of their input. For int16
//! inputs, the tables also cover what the low tensor may add.
//!
//! A table is built only when another operation needs the function's value. So a composition of
//! functions becomes one table, without intermediate rounding.

use hardtack::Tensor;
use hardtack_bundle::DType;
use hardtack_bundle::graph::ValueId;

use super::Lowering;
use crate::graph::constants::{float_elements, is_constant};
use crate::graph::first_output;
use crate::quantize::float_reason::FloatReason;
use crate::quantize::function;
use crate::quantize::scale::{Quantization, Range};

/// A unary function, evaluated at every integer of its input.
pub(super) struct Function {
    /// The input value.
    pub of: ValueId,
    /// The results at the points of the input, in the order of `Lowering::points`.
    results: Tensor,
}

impl Lowering<'_> {
    /// Records a node as a unary function. Returns `false` if it is not one.
    pub(super) fn function(&mut self, index: usize) -> Result<bool, FloatReason> {
        let node = &self.model.graph.nodes[index];
        let shape = self.fact_shape(first_output(index))?;
        let mut of = None;
        for input in &node.inputs {
            if is_constant(self.model, *input) {
                if self.model.graph.fact(*input).shape.iter().any(|dim| dim.value() != Some(1)) {
                    return Ok(false);
                }
                continue;
            }
            let value = self.functions.get(input).map_or(*input, |function| function.of);
            if *of.get_or_insert(value) != value || self.fact_shape(*input)? != shape {
                return Ok(false);
            }
        }
        let of = of.ok_or(FloatReason::OnlyConstants)?;
        if self.model.graph.fact(of).dtype != DType::F32 {
            return Err(FloatReason::IntegerArithmetic);
        }
        let results = self.evaluate(index, of)?;
        self.functions.insert(first_output(index), Function { of, results });
        Ok(true)
    }

    /// Evaluates a node at all points of the value that it is a function of.
    fn evaluate(&mut self, index: usize, of: ValueId) -> Result<Tensor, FloatReason> {
        let node = &self.model.graph.nodes[index];
        let order = self.high_view(of)?.order();
        let tensors = self.int16_tensors_of(of, &order)?;
        let points = self.points(tensors);
        let count = points.len();
        let mut inputs = Vec::new();
        for input in &node.inputs {
            let tensor = if *input == of {
                Tensor::new(&[count], points.clone()).ok()
            } else if let Some(function) = self.functions.get(input) {
                Some(function.results.clone())
            } else {
                let values =
                    float_elements(self.model, *input).ok_or(FloatReason::ConstantNotFloat)?;
                Tensor::new(&[1], values).ok()
            };
            inputs.push(tensor.ok_or(FloatReason::ConstantNotScalar)?);
        }
        function::evaluate(self.model, index, inputs, count)
    }

    /// Emits the lookup table of a value, if it is a function. `prequantized` is the QuantizeLinear
    /// output that reads it, and its scale; if given, the table writes that instead.
    pub(super) fn look_up(
        &mut self,
        value: ValueId,
        prequantized: Option<(ValueId, Quantization)>,
    ) -> Result<bool, FloatReason> {
        let Some(function) = self.functions.get(&value) else { return Ok(false) };
        let of = function.of;
        let results = function.results.as_f32().ok_or(FloatReason::ResultNotFloat)?.to_vec();
        let order = self.high_view(of)?.order();
        if let (None, Some(int16)) = (prequantized, self.int16_quantization(value)) {
            let of = self.int16_tensors_of(of, &order)?;
            self.int16_function(value, of, &results, &order, int16)?;
            return Ok(true);
        }
        let from = self.dense(of, &order)?;
        let read = self.quantization_of(from);
        let (written, quantization) = match prequantized {
            Some(prequantized) => prequantized,
            None if only_clamps(read, &results[..256]) => (value, read),
            None => {
                let reached = Range::NONE.extended(&results[..256]);
                (value, self.quantization(value).unwrap_or_else(|_| Quantization::of(reached)))
            }
        };
        let to = self.tensor(written, &order, quantization)?;
        let Quantization { scale, zero_point } = read;
        self.builder.lookup(self.name(written.node as usize), from, to, |real| {
            let place = (real / scale).round() as i32 + i32::from(zero_point) + 128;
            results[place.clamp(0, 255) as usize]
        })?;
        self.written(written, to, &order)?;
        Ok(true)
    }
}

/// Returns whether a function only clamps its input. The scale of the input then represents the
/// results exactly, and any other scale would round them again.
fn only_clamps(read: Quantization, results: &[f32]) -> bool {
    let reached = Range::NONE.extended(results);
    (i8::MIN..=i8::MAX).zip(results).all(|(integer, result)| {
        *result == read.dequantize(integer).max(reached.low).min(reached.high)
    })
}
