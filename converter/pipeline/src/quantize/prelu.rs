//! Rewrites PRelu with a slope per channel in forms that run in integers.

use hardtack::Tensor;
use hardtack::internal::Constant;
use hardtack_bundle::DType;
use hardtack_bundle::graph::{Binary, Node, Operator, ValueId};

use crate::graph::constants::float_elements;
use crate::graph::rewriter::Rewriter;

/// Replaces each `x < 0 ? x · slope : x` with `x + (slope − 1) · min(x, 0)`, if the slope varies
/// along one axis. The factor and the addition run in one step. The float results stay the same up
/// to rounding. A slope of one element needs no rewrite, because it becomes a lookup table.
pub(super) fn rewrite(rewriter: &mut Rewriter) {
    for index in 0..rewriter.model.graph.nodes.len() {
        let Some(prelu) = Prelu::of(rewriter, index) else { continue };
        let sum = prelu.add_to(rewriter, index);
        rewriter.redirect(ValueId { node: index as u32, output: 0 }, sum);
    }
}

/// The operands of a PRelu.
struct Prelu {
    x: ValueId,
    /// The comparison of `x` with 0.
    test: ValueId,
    /// The product of `x` and the slope.
    product: ValueId,
    /// The slope, with the rank of `x`.
    slope: Tensor,
}

impl Prelu {
    /// Recognizes the operations of a PRelu that ends in this node.
    fn of(rewriter: &Rewriter, index: usize) -> Option<Prelu> {
        let node = rewriter.node(index);
        let (Operator::Select, &[test, a, b]) = (&node.operator, &node.inputs[..]) else {
            return None;
        };
        let [test, a, b] = [test, a, b].map(|input| rewriter.resolve(input));
        let (kind, [left, right]) = binary(rewriter, test)?;
        let is_zero = |value| matches!(floats(rewriter, value).as_deref(), Some([0.0]));
        let (x, x_first) = match (is_zero(left), is_zero(right)) {
            (false, true) => (left, true),
            (true, false) => (right, false),
            _ => return None,
        };
        // Both branches are 0 at 0.
        let selects_negative = match kind {
            Binary::Less | Binary::LessOrEqual => x_first,
            Binary::Greater | Binary::GreaterOrEqual => !x_first,
            _ => return None,
        };
        let (product, other) = if selects_negative { (a, b) } else { (b, a) };
        let (Binary::Multiply, [left, right]) = binary(rewriter, product)? else { return None };
        let slope = if left == x { right } else { left };
        let fact = rewriter.model.graph.fact(slope);
        let shape = fact.shape.iter().map(|dim| dim.value()?.try_into().ok());
        let shape = shape.collect::<Option<Vec<usize>>>()?;
        let result = &node.outputs[0];
        let of_x = [left, right].contains(&x)
            && other == x
            && rewriter.model.graph.fact(x) == result
            && result.dtype == DType::F32;
        let along_one_axis = shape.len() == result.shape.len()
            && shape.first() == Some(&1)
            && shape.iter().filter(|size| **size != 1).count() == 1;
        let slope = Tensor::new(&shape, floats(rewriter, slope)?).ok()?;
        (of_x && along_one_axis).then_some(Prelu { x, test, product, slope })
    }

    /// Adds the nodes of the integer form, and returns its result.
    fn add_to(self, rewriter: &mut Rewriter, index: usize) -> ValueId {
        let Prelu { x, test, product, slope } = self;
        let ones = vec![1; slope.shape().len()];
        let zero = Tensor::new(&ones, vec![0f32]).expect("one element");
        let factors: Vec<f32> = slope.to_f32().iter().map(|slope| slope - 1.0).collect();
        let factors = Tensor::new(slope.shape(), factors).expect("the shape of the slope");
        let whole = rewriter.node(index).clone();
        let [test, product] =
            [test, product].map(|value| rewriter.node(value.node as usize).name.clone());
        let zero = rewriter.add_constant(format!("{test}.zero"), Constant::Tensor(zero.into()));
        let factors =
            rewriter.add_constant(format!("{product}.factor"), Constant::Tensor(factors.into()));
        let mut binary = |name: String, kind: Binary, inputs: [ValueId; 2]| {
            let (operator, inputs) = (Operator::Binary(kind), inputs.to_vec());
            rewriter.add(Node { name, operator, inputs, outputs: whole.outputs.clone() })
        };
        let below = binary(test, Binary::Minimum, [x, zero]);
        let product = binary(product, Binary::Multiply, [below, factors]);
        binary(whole.name, Binary::Add, [product, x])
    }
}

/// Returns the kind and the operands of the binary operation that computes a value.
fn binary(rewriter: &Rewriter, value: ValueId) -> Option<(Binary, [ValueId; 2])> {
    let node = rewriter.node(value.node as usize);
    match (&node.operator, &node.inputs[..]) {
        (Operator::Binary(kind), &[left, right]) => {
            Some((*kind, [rewriter.resolve(left), rewriter.resolve(right)]))
        }
        _ => None,
    }
}

/// Returns the elements of a float constant.
fn floats(rewriter: &Rewriter, value: ValueId) -> Option<Vec<f32>> {
    rewriter.constant(value)?;
    float_elements(&rewriter.model, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float_run;
    use crate::parity;
    use crate::testing::{Net, noise};

    /// Returns a PRelu with a comparison of this kind, and whether 0 is its first operand.
    fn prelu((kind, zero_first): (Binary, bool), slopes: &[usize]) -> Rewriter {
        let mut net = Net::new();
        let x = net.input(&[2, 3, 4, 4]);
        let (zero, slope) = (net.scalar(0.0, 4), net.noise(slopes));
        let test = match zero_first {
            true => net.binary(kind, &zero, &x),
            false => net.binary(kind, &x, &zero),
        };
        let node = test.value_id.node as usize;
        net.rewriter.model.graph.nodes[node].outputs[0].dtype = DType::Bool;
        let product = net.binary(Binary::Multiply, &x, &slope);
        let less = matches!(kind, Binary::Less | Binary::LessOrEqual);
        let (a, b) = if less != zero_first { (&product, &x) } else { (&x, &product) };
        let y = net.node(Operator::Select, &[&test, a, b], &[2, 3, 4, 4]);
        Rewriter::new(net.finish(&[&y]))
    }

    fn selects(rewriter: &Rewriter) -> usize {
        let nodes = rewriter.model.graph.nodes.iter();
        nodes.filter(|node| node.operator == Operator::Select).count()
    }

    #[test]
    fn slopes_of_each_channel_need_no_selection() {
        let samples = [vec![noise(&[2, 3, 4, 4], 9)]].to_vec();
        for kind in [Binary::Less, Binary::LessOrEqual, Binary::Greater, Binary::GreaterOrEqual] {
            for zero_first in [false, true] {
                let mut rewriter = prelu((kind, zero_first), &[1, 3, 1, 1]);
                let before = float_run::outputs(&rewriter.model, &samples).unwrap();
                rewrite(&mut rewriter);
                let rewriter = Rewriter::new(rewriter.finish());
                assert_eq!(selects(&rewriter), 0, "{kind:?}");
                let after = float_run::outputs(&rewriter.model, &samples).unwrap();
                let difference = parity::compare(&before, &after).of_range;
                assert!(difference < 1e-6, "{kind:?}: {difference}");
            }
        }
    }

    #[test]
    fn other_slopes_stay() {
        for slopes in [[1, 1, 1, 1], [1, 3, 4, 4], [2, 1, 1, 1]] {
            let mut rewriter = prelu((Binary::Less, false), &slopes);
            rewrite(&mut rewriter);
            assert_eq!(selects(&Rewriter::new(rewriter.finish())), 1, "{slopes:?}");
        }
    }
}
