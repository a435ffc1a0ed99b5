//! Operator fusion: finds the operations after another one that are computed in the same step.
//! These are channel factors, bias, addition, limits, and the scale of a pre-quantized result.

use hardtack::Data;
use hardtack_bundle::graph::{Binary, Operator, ValueId};

use super::Lowering;
use crate::graph::constants::{float_elements, is_constant, keeps_elements};
use crate::graph::first_output;
use crate::quantize::scale::{Quantization, Range};

/// Operations that are computed in one step.
pub(super) struct Chain {
    /// The node whose value the chain produces.
    pub last: usize,
    /// The factor of each output channel, applied first.
    pub factors: Option<Vec<f32>>,
    /// Biases of the output channels, added after the factors.
    pub bias: Vec<Vec<f32>>,
    /// A value that is added before the limits.
    pub residual: Option<ValueId>,
    /// The limits of the result.
    pub limits: Range,
    /// The scale and zero point of the result, if the source is pre-quantized.
    pub prequantized: Option<Quantization>,
    /// The nodes after the first.
    pub fused: Vec<usize>,
}

/// The operations that a chain may contain.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Allow {
    /// Limits and a pre-quantized scale.
    Limits,
    /// Also factors, bias and addition.
    Sums {
        /// The number of output channels.
        channels: usize,
        /// The axis of the output channels, without the batch.
        axis: usize,
        /// Whether a computed value may be added, and not only a bias.
        values: bool,
    },
}

impl Lowering<'_> {
    /// Returns the chain that begins at a node.
    pub(super) fn chain(&self, head: usize, allow: Allow) -> Chain {
        let open = Range { low: f32::NEG_INFINITY, high: f32::INFINITY };
        let mut chain = Chain {
            last: head,
            factors: None,
            bias: Vec::new(),
            residual: None,
            limits: open,
            prequantized: None,
            fused: Vec::new(),
        };
        while let Some(next) = self.only_reader(chain.last) {
            let limited = chain.limits != open;
            let sums = match allow {
                Allow::Sums { channels, axis, values } if !limited => {
                    Some((channels, axis, values))
                }
                _ => None,
            };
            if !self.append(&mut chain, next, sums) {
                break;
            }
            chain.fused.push(next);
            chain.last = next;
            if chain.prequantized.is_some() {
                break;
            }
        }
        chain
    }

    /// Returns the only reader of a node's value, if it is in the partition and not yet fused.
    fn only_reader(&self, index: usize) -> Option<usize> {
        match self.uses.get(&first_output(index)).map(Vec::as_slice) {
            Some([Some(reader)]) => {
                let free =
                    self.partition.nodes.contains(reader) && !self.fused.contains_key(reader);
                free.then_some(*reader)
            }
            _ => None,
        }
    }

    /// Appends a node to a chain. Returns whether that is possible.
    fn append(&self, chain: &mut Chain, next: usize, sums: Option<(usize, usize, bool)>) -> bool {
        let node = &self.model.graph.nodes[next];
        match node.operator {
            Operator::QuantizeLinear(_) => {
                chain.prequantized = self.prequantized(next);
                chain.prequantized.is_some()
            }
            Operator::Binary(kind @ (Binary::Maximum | Binary::Minimum)) => {
                let limit = node.inputs.iter().find_map(|input| self.scalar(*input));
                let Some(limit) = limit else { return false };
                let Range { low, high } = chain.limits;
                chain.limits = match kind {
                    Binary::Maximum => Range { low: low.max(limit), high: high.max(limit) },
                    _ => Range { low: low.min(limit), high: high.min(limit) },
                };
                true
            }
            Operator::Binary(kind @ (Binary::Multiply | Binary::Divide)) => {
                let Some((channels, axis, _)) = sums.filter(|_| chain.residual.is_none()) else {
                    return false;
                };
                let before = first_output(chain.last);
                let other = node.inputs.iter().copied().find(|input| *input != before);
                let Some(other) = other.filter(|other| is_constant(self.model, *other)) else {
                    return false;
                };
                let Some(mut factors) = self.per_channel(other, channels, axis) else {
                    return false;
                };
                if kind == Binary::Divide {
                    if node.inputs[0] != before || factors.contains(&0.0) {
                        return false;
                    }
                    factors.iter_mut().for_each(|factor| *factor = 1.0 / *factor);
                }
                for numbers in chain.bias.iter_mut().chain(&mut chain.factors) {
                    numbers.iter_mut().zip(&factors).for_each(|(number, factor)| *number *= factor);
                }
                chain.factors.get_or_insert(factors);
                true
            }
            Operator::Binary(Binary::Add) => {
                let Some((channels, axis, values)) = sums else { return false };
                let before = first_output(chain.last);
                let Some(other) = node.inputs.iter().copied().find(|input| *input != before) else {
                    return false;
                };
                if is_constant(self.model, other) {
                    // A constant added after the residual is still a bias.
                    return match self.per_channel(other, channels, axis) {
                        Some(bias) => {
                            chain.bias.push(bias);
                            true
                        }
                        None => false,
                    };
                }
                let same = self.model.graph.fact(other) == &node.outputs[0];
                if same && values && chain.residual.is_none() {
                    chain.residual = Some(other);
                    return true;
                }
                false
            }
            _ => false,
        }
    }

    /// Returns one element of a constant per channel. The axis excludes the batch.
    pub(super) fn per_channel(
        &self,
        constant: ValueId,
        channels: usize,
        axis: usize,
    ) -> Option<Vec<f32>> {
        let values = float_elements(self.model, constant)?;
        if values.len() == 1 {
            return Some(vec![values[0]; channels]);
        }
        let shape = &self.model.graph.fact(constant).shape;
        let fits = values.len() == channels
            && shape.get(axis + 1).and_then(|dim| dim.value()) == Some(channels as i64);
        fits.then_some(values)
    }

    /// Returns the scale and zero point that a pre-quantized source defines for a value, if only
    /// operations that keep its elements lie in between.
    pub(super) fn prequantized_after(&self, mut value: ValueId) -> Option<Quantization> {
        loop {
            let [Some(reader)] = self.uses.get(&value)?[..] else { return None };
            let operator = &self.model.graph.nodes[reader].operator;
            match operator {
                Operator::QuantizeLinear(_) => return self.prequantized(reader),
                _ if keeps_elements(operator) => value = first_output(reader),
                _ => return None,
            }
        }
    }

    /// Returns the scale and zero point of a QuantizeLinear or DequantizeLinear node.
    pub(super) fn prequantized(&self, index: usize) -> Option<Quantization> {
        let [_, scale, zero_point] = self.model.graph.nodes[index].inputs[..] else { return None };
        let &[scale] = self.constant(scale)?.as_f32()? else { return None };
        let zero_point = match self.constant(zero_point)?.data() {
            Data::I8(values) => *values.first()?,
            Data::U8(values) => (i16::from(*values.first()?) - 128) as i8,
            _ => return None,
        };
        (scale > 0.0 && scale.is_finite()).then_some(Quantization { scale, zero_point })
    }

    /// Returns the scale and zero point of a chain's result: from a pre-quantized source, else from
    /// calibration, else `follows`, which is derived from the chain's inputs.
    pub(super) fn result(&self, chain: &Chain, follows: Quantization) -> Quantization {
        let known = chain.prequantized.or_else(|| self.quantization(first_output(chain.last)).ok());
        known.unwrap_or(follows)
    }

    /// Marks the nodes of a chain as fused into its first node.
    pub(super) fn fuse(&mut self, chain: &Chain) {
        for node in &chain.fused {
            self.fused.insert(*node, chain.last);
        }
    }
}
