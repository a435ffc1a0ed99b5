//! Gathers from integer tables: rows are gathered first and then dequantized, so the table stays in
//! integers at run time.

use hardtack::Data;
use hardtack::internal::{Constant, Model};
use hardtack_bundle::DType;
use hardtack_bundle::graph::{Binary, DequantizeBlocks, DequantizeLinear, Dim, Fact, Gather};
use hardtack_bundle::graph::{Node, Operator, ValueId};

use crate::graph::rewriter::Rewriter;

/// Moves gathers before the dequantization of their table. The results are bit-identical.
pub(crate) fn gather_integers(model: Model) -> Model {
    let mut rewriter = Rewriter::new(model);
    for index in 0..rewriter.model.graph.nodes.len() {
        if rearrange(&mut rewriter, index).is_none() {
            rearrange_blocks(&mut rewriter, index);
        }
    }
    rewriter.finish()
}

/// Rearranges a gather from a table with one scale per row and zero points of 0.
fn rearrange(rewriter: &mut Rewriter, index: usize) -> Option<()> {
    let gather = rewriter.node(index).clone();
    let Operator::Gather(Gather { axis: 0, output_dtype: None }) = gather.operator else {
        return None;
    };
    let [table, indices] = gather.inputs[..] else { return None };
    let dequantize = rewriter.node(table.node as usize).clone();
    let Operator::DequantizeLinear(DequantizeLinear { dtype: DType::F32, axis: Some(0) }) =
        dequantize.operator
    else {
        return None;
    };
    let [integers, scales, zeros] = dequantize.inputs[..] else { return None };
    let constants = [integers, scales, zeros].map(|value_id| rewriter.constant(value_id));
    let [
        Some(Constant::Tensor(values)),
        Some(Constant::Tensor(steps)),
        Some(Constant::Tensor(zero)),
    ] = constants
    else {
        return None;
    };
    let (Data::I8(_), Data::F32(_), [rows, rest @ ..]) =
        (values.data(), steps.data(), values.shape())
    else {
        return None;
    };
    (steps.shape() == [*rows] && zero.to_f32().iter().all(|zero| *zero == 0.0)).then_some(())?;

    let [fact] = &gather.outputs[..] else { return None };
    let (fact, looked_up) = (fact.clone(), fact.shape.len().checked_sub(rest.len())?);
    let mut add = |suffix: &str, operator, inputs: &[ValueId], dtype, shape: &[Dim]| {
        rewriter.add(Node {
            name: format!("{}.{suffix}", gather.name),
            operator,
            inputs: inputs.into(),
            outputs: vec![Fact { dtype, shape: shape.into() }],
        })
    };
    let shape = &fact.shape[..];
    let take = Operator::Gather(Gather { axis: 0, output_dtype: None });
    let taken = add("integers", take.clone(), &[integers, indices], DType::I8, shape);
    let floats = add("reals", Operator::Cast(DType::F32), &[taken], DType::F32, shape);
    let mut shape = shape[..looked_up].to_vec();
    let mut scale = add("scales", take, &[scales, indices], DType::F32, &shape);
    for axis in looked_up..fact.shape.len() {
        shape.push(Dim::Value(1));
        let operator = Operator::AddAxis(axis as u32);
        scale = add(&format!("scales.{axis}"), operator, &[scale], DType::F32, &shape);
    }
    let product = rewriter.add(Node {
        name: gather.name,
        operator: Operator::Binary(Binary::Multiply),
        inputs: vec![floats, scale],
        outputs: vec![fact],
    });
    rewriter.redirect(ValueId { node: index as u32, output: 0 }, product);
    Some(())
}

/// Rearranges a gather from a table with scales per block.
fn rearrange_blocks(rewriter: &mut Rewriter, index: usize) -> Option<()> {
    let gather = rewriter.node(index).clone();
    let Operator::Gather(Gather { axis: 0, output_dtype: None }) = gather.operator else {
        return None;
    };
    let [table, indices] = gather.inputs[..] else { return None };
    let dequantize = rewriter.node(table.node as usize).clone();
    let Operator::DequantizeBlocks(blocks) = &dequantize.operator else { return None };
    let [integers, scales, zeros] = dequantize.inputs[..] else { return None };
    let [fact] = &gather.outputs[..] else { return None };
    let rank = dequantize.outputs[0].shape.len();
    let before = fact.shape.len().checked_sub(rank)?;
    (blocks.axis > 0).then_some(())?;

    let mut rows = |suffix: &str, from: ValueId| {
        let Fact { dtype, shape } = rewriter.model.graph.fact(rewriter.resolve(from)).clone();
        if shape.len() < rank {
            return from;
        }
        let shape = fact.shape[..=before].iter().chain(&shape[1..]).cloned().collect();
        rewriter.add(Node {
            name: format!("{}.{suffix}", gather.name),
            operator: Operator::Gather(Gather { axis: 0, output_dtype: None }),
            inputs: vec![from, indices],
            outputs: vec![Fact { dtype, shape }],
        })
    };
    let inputs = [("integers", integers), ("scales", scales), ("zeros", zeros)];
    let inputs = inputs.map(|(suffix, from)| rows(suffix, from)).into();
    let axis = blocks.axis + before as u32;
    let operator = Operator::DequantizeBlocks(DequantizeBlocks { axis, ..blocks.clone() });
    let name = gather.name.clone();
    let floats = rewriter.add(Node { name, operator, inputs, outputs: gather.outputs.clone() });
    rewriter.redirect(ValueId { node: index as u32, output: 0 }, floats);
    Some(())
}

#[cfg(test)]
mod tests {
    use hardtack::Tensor;

    use super::*;
    use crate::float_run;
    use crate::testing::{Net, noise};

    /// Returns a model that adds rows 1, 0 and 1 of a table with this zero point to its input.
    fn looked_up(zero: i8) -> Model {
        let mut net = Net::new();
        let x = net.input(&[3, 2]);
        let table = net.constant(Tensor::new(&[2, 2], vec![1i8, -127, 3, 50]).unwrap());
        let scales = net.constant(Tensor::new(&[2], vec![0.1f32, 0.7]).unwrap());
        let zeros = net.constant(Tensor::new(&[2], vec![zero; 2]).unwrap());
        let dequantize = DequantizeLinear { dtype: DType::F32, axis: Some(0) };
        let operator = Operator::DequantizeLinear(dequantize);
        let floats = net.node(operator, &[&table, &scales, &zeros], &[2, 2]);
        let rows = net.constant(Tensor::new(&[3], vec![1i64, 0, 1]).unwrap());
        let gather = Gather { axis: 0, output_dtype: None };
        let taken = net.node(Operator::Gather(gather), &[&floats, &rows], &[3, 2]);
        let sum = net.binary(Binary::Add, &x, &taken);
        net.finish(&[&sum])
    }

    fn dequantizes(model: &Model) -> bool {
        let dequantize = |node: &Node| matches!(node.operator, Operator::DequantizeLinear(_));
        model.graph.nodes.iter().any(dequantize)
    }

    #[test]
    fn rows_are_gathered_before_they_are_dequantized() {
        let model = looked_up(0);
        let samples = vec![vec![noise(&[3, 2], 5)]];
        let before = float_run::outputs(&model, &samples).unwrap();
        let after = gather_integers(model);
        assert!(!dequantizes(&after));
        assert_eq!(float_run::outputs(&after, &samples).unwrap(), before);
    }

    #[test]
    fn tables_with_nonzero_zero_points_are_left_unchanged() {
        assert!(dequantizes(&gather_integers(looked_up(1))));
    }

    #[test]
    fn rows_of_blocks_are_gathered_with_their_scales() {
        let mut net = Net::new();
        let x = net.input(&[3, 4]);
        let table = (0..8).map(|at| (at * 5 % 16) as u8).collect::<Vec<_>>();
        let table = net.constant(Tensor::new(&[2, 4], table).unwrap());
        let scales = net.constant(Tensor::new(&[2, 2], vec![0.1f32, 0.7, 3.0, -1.0]).unwrap());
        let zeros = net.constant(Tensor::new(&[2, 2], vec![8u8, 0, 3, 15]).unwrap());
        let dequantize = DequantizeBlocks { dtype: DType::F32, axis: 1, block: 3 };
        let operator = Operator::DequantizeBlocks(dequantize);
        let floats = net.node(operator, &[&table, &scales, &zeros], &[2, 4]);
        let rows = net.constant(Tensor::new(&[3], vec![1i64, 0, 1]).unwrap());
        let gather = Gather { axis: 0, output_dtype: None };
        let taken = net.node(Operator::Gather(gather), &[&floats, &rows], &[3, 4]);
        let sum = net.binary(Binary::Add, &x, &taken);
        let model = net.finish(&[&sum]);
        let samples = vec![vec![noise(&[3, 4], 5)]];
        let before = float_run::outputs(&model, &samples).unwrap();
        let after = gather_integers(model);
        let looked_up = |node: &Node| matches!(node.operator, Operator::Gather(_));
        assert_eq!(after.graph.nodes.iter().filter(|node| looked_up(node)).count(), 3);
        assert_eq!(float_run::outputs(&after, &samples).unwrap(), before);
    }
}
