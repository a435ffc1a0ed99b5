//! Chains: nodes that are computed together with the convolution or matmul before them.

use std::collections::{HashMap, HashSet};

use hardtack_bundle::graph::{Binary, Operator, ValueId};
use hardtack_kernels::float::{Clamp, maximum, minimum};

use super::Builder;
use crate::Region;

/// What follows a convolution or matmul and is computed with it: `clamp(x + bias + residual)`.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    /// The last node.
    pub(super) last: u32,
    /// A constant that is added, with as many dimensions as the result.
    pub(super) bias: Option<ValueId>,
    /// A value of the shape of the result that is added.
    pub(super) residual: Option<ValueId>,
    pub(super) clamp: Clamp,
    /// Whether one operand of the convolution or matmul is constant.
    has_weights: bool,
}

/// The role of a node in a chain.
pub(super) enum Place {
    /// It is computed with a later node.
    Inside,
    /// It is the last node of the chain that starts at this node.
    Last(u32),
}

impl Builder<'_> {
    /// Finds the chains of a region. Returns the role of each node that is part of one.
    pub(super) fn find_chains(&mut self, region: &Region) -> HashMap<u32, Place> {
        let mut readers: HashMap<ValueId, Vec<u32>> = HashMap::new();
        for (index, node) in (0..).zip(&self.graph.nodes) {
            for input in &node.inputs {
                readers.entry(*input).or_default().push(index);
            }
        }
        let kept: HashSet<ValueId> = region.outputs.iter().copied().collect();
        let (mut places, mut taken) = (HashMap::new(), HashSet::new());
        // The later of two convolutions that are added takes the sum.
        for head in region.nodes.iter().rev() {
            let node = &self.graph.nodes[*head as usize];
            if !matches!(node.operator, Operator::Conv(_) | Operator::Einsum(_)) {
                continue;
            }
            let Some(outputs) = self.output_axes(*head) else { continue };
            let mut chain = Chain {
                last: *head,
                bias: None,
                residual: None,
                clamp: Clamp::FULL,
                has_weights: node.inputs.iter().any(|input| self.is_constant(*input)),
            };
            while let Some(next) = self.next(&chain, &outputs, region, &readers, &kept) {
                if !taken.insert(next.last) {
                    break;
                }
                places.insert(chain.last, Place::Inside);
                chain = next;
                places.insert(chain.last, Place::Last(*head));
            }
            self.chains.insert(*head, chain);
        }
        places
    }

    /// Returns the axes of the result along which a convolution or matmul may add a constant.
    fn output_axes(&self, head: u32) -> Option<Vec<usize>> {
        let node = &self.graph.nodes[head as usize];
        match &node.operator {
            Operator::Conv(a) => {
                let [dims, result] = [*node.inputs.first()?, ValueId { node: head, output: 0 }]
                    .map(|value| self.dims(value));
                Some(vec![self.slide(&a.window, &dims?, &result?)?.axes.channel])
            }
            Operator::Einsum(a) => {
                super::einsum::output_axes(&a.expression, self.is_constant(*node.inputs.first()?))
            }
            _ => None,
        }
    }

    /// Extends a chain by the only reader of its result, if this can be computed with it.
    fn next(
        &self,
        chain: &Chain,
        outputs: &[usize],
        region: &Region,
        readers: &HashMap<ValueId, Vec<u32>>,
        kept: &HashSet<ValueId>,
    ) -> Option<Chain> {
        let value = ValueId { node: chain.last, output: 0 };
        let [reader] = readers.get(&value)?.as_slice() else { return None };
        if kept.contains(&value) || region.nodes.binary_search(reader).is_err() {
            return None;
        }
        let node = &self.graph.nodes[*reader as usize];
        let mut next = Chain { last: *reader, ..chain.clone() };
        let Operator::Binary(function) = node.operator else { return None };
        let [a, b] = node.inputs.as_slice() else { return None };
        if a == b {
            return None;
        }
        let other = if *a == value { *b } else { *a };
        let dims = self.dims(value)?;
        if self.dims(ValueId { node: *reader, output: 0 })? != dims {
            return None;
        }
        match function {
            Binary::Add if chain.clamp == Clamp::FULL => {
                if self.is_constant(other) {
                    // A matmul of two computed operands has no place for a bias.
                    chain.has_weights.then_some(())?;
                    (chain.bias.is_none() && chain.residual.is_none()).then_some(())?;
                    let own = self.dims(other)?;
                    let varies = |axis: &usize| own[*axis] != 1 && !outputs.contains(axis);
                    (own.len() == dims.len() && !(0..own.len()).any(|axis| varies(&axis)))
                        .then_some(())?;
                    next.bias = Some(other);
                } else {
                    let wide = outputs.iter().filter(|axis| dims[**axis] > 1).count();
                    let fits = chain.residual.is_none() && wide <= 1 && self.dims(other)? == dims;
                    fits.then_some(())?;
                    next.residual = Some(other);
                }
            }
            Binary::Maximum | Binary::Minimum => {
                let constant = self.constant(other)?;
                let [limit] = *constant else { return None };
                let Clamp { low, high } = chain.clamp;
                // A later limit applies to both of the limits before it.
                next.clamp = match function {
                    _ if limit.is_nan() => return None,
                    Binary::Maximum => {
                        Clamp { low: maximum(low, limit), high: maximum(high, limit) }
                    }
                    _ => Clamp { low: minimum(low, limit), high: minimum(high, limit) },
                };
            }
            _ => return None,
        }
        Some(next)
    }
}
