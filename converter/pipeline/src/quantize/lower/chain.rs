//! What follows an operation directly and is computed with it: factors, bias, addition, limits, and
//! the scale that the source states for the result.

use hardtack::Data;
use hardtack_bundle::graph::{Binary, Operator, Outlet};

use super::super::region::is_constant;
use super::super::scale::{Quantization, Range};
use super::super::weights::{keeps_elements, reals};
use super::{Lowering, outlet};

/// Operations computed together.
pub struct Chain {
    /// The node whose value comes out.
    pub last: usize,
    /// Multiplies each output channel, before anything else.
    pub factors: Option<Vec<f32>>,
    /// Added to each output channel after that.
    pub bias: Vec<Vec<f32>>,
    /// A value added before the limits.
    pub residual: Option<Outlet>,
    /// Limits of the result.
    pub limits: Range,
    /// The result's scale and zero point as the source states them.
    pub stated: Option<Quantization>,
    /// The nodes after the first.
    pub absorbed: Vec<usize>,
}

/// What a chain may hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Allow {
    /// Limits and a stated scale.
    Limits,
    /// Also factors, bias and addition; the number of output channels, at the last axis.
    Sums {
        /// How many output channels there are, at this axis of the value without its batch.
        channels: usize,
        /// Their axis.
        axis: usize,
        /// Whether a computed value may be added, and not only a bias.
        values: bool,
    },
}

impl Lowering<'_> {
    /// The chain that begins at a node.
    pub fn chain(&self, head: usize, allow: Allow) -> Chain {
        let open = Range { low: f32::NEG_INFINITY, high: f32::INFINITY };
        let mut chain = Chain {
            last: head,
            factors: None,
            bias: Vec::new(),
            residual: None,
            limits: open,
            stated: None,
            absorbed: Vec::new(),
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
            chain.absorbed.push(next);
            chain.last = next;
            if chain.stated.is_some() {
                break;
            }
        }
        chain
    }

    /// The node of the region that alone reads a node's value.
    fn only_reader(&self, index: usize) -> Option<usize> {
        match self.uses.get(&outlet(index)).map(Vec::as_slice) {
            Some([Some(reader)]) => {
                let free =
                    self.region.nodes.contains(reader) && !self.absorbed.contains_key(reader);
                free.then_some(*reader)
            }
            _ => None,
        }
    }

    /// Adds a node to a chain; whether it could.
    fn append(&self, chain: &mut Chain, next: usize, sums: Option<(usize, usize, bool)>) -> bool {
        let node = &self.model.graph.nodes[next];
        match node.operator {
            Operator::QuantizeLinear(_) => {
                chain.stated = self.stated(next);
                chain.stated.is_some()
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
                let before = outlet(chain.last);
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
                let before = outlet(chain.last);
                let Some(other) = node.inputs.iter().copied().find(|input| *input != before) else {
                    return false;
                };
                if is_constant(self.model, other) {
                    // A bias after another value was added is still a bias.
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

    /// One element per channel of a constant; the axis does not count the batch.
    pub fn per_channel(&self, constant: Outlet, channels: usize, axis: usize) -> Option<Vec<f32>> {
        let values = reals(self.model, constant)?;
        if values.len() == 1 {
            return Some(vec![values[0]; channels]);
        }
        let shape = &self.model.graph.fact(constant).shape;
        let fits = values.len() == channels
            && shape.get(axis + 1).and_then(|dim| dim.value()) == Some(channels as i64);
        fits.then_some(values)
    }

    /// What the source states for a value, where only operations that keep its elements stand
    /// between.
    pub fn stated_ahead(&self, mut value: Outlet) -> Option<Quantization> {
        loop {
            let [Some(reader)] = self.uses.get(&value)?[..] else { return None };
            let operator = &self.model.graph.nodes[reader].operator;
            match operator {
                Operator::QuantizeLinear(_) => return self.stated(reader),
                _ if keeps_elements(operator) => value = outlet(reader),
                _ => return None,
            }
        }
    }

    /// The scale and zero point that a quantization or dequantization states.
    pub fn stated(&self, index: usize) -> Option<Quantization> {
        let [_, scale, zero_point] = self.model.graph.nodes[index].inputs[..] else { return None };
        let &[scale] = self.constant(scale)?.as_f32()? else { return None };
        let zero_point = match self.constant(zero_point)?.data() {
            Data::I8(values) => *values.first()?,
            Data::U8(values) => (i16::from(*values.first()?) - 128) as i8,
            _ => return None,
        };
        (scale > 0.0 && scale.is_finite()).then_some(Quantization { scale, zero_point })
    }

    /// Scale and zero point of a chain's result: stated, or measured, or what follows from those of
    /// the values that it reads.
    pub fn result(&self, chain: &Chain, follows: Quantization) -> Quantization {
        let known = chain.stated.or_else(|| self.quantization(outlet(chain.last)).ok());
        known.unwrap_or(follows)
    }

    /// Marks a chain's nodes as done by its first node.
    pub fn absorb(&mut self, chain: &Chain) {
        for node in &chain.absorbed {
            self.absorbed.insert(*node, chain.last);
        }
    }
}
