//! The fold stage: folds constants, fuses scales and offsets into convolutions, removes identities
//! and simplifies channel shuffles.

mod batch_norm;
mod constants;
mod dequantized;
mod fourier;
mod identities;
mod shuffles;

use hardtack::internal::Model;
use hardtack_bundle::graph::{Node, Operator};

use crate::graph::rewriter::Rewriter;

/// The maximum number of rounds: one rewrite may enable another.
const ROUNDS: usize = 8;

/// Folds a model. Its outputs stay the same up to rounding.
pub(crate) fn fold(mut model: Model) -> Model {
    for _ in 0..ROUNDS {
        let mut rewriter = Rewriter::new(model);
        let changes = constants::fold(&mut rewriter)
            + identities::drop(&mut rewriter)
            + dequantized::rearrange(&mut rewriter)
            + batch_norm::merge(&mut rewriter)
            + fourier::recognize(&mut rewriter)
            + shuffles::replace(&mut rewriter);
        model = rewriter.finish();
        if changes == 0 {
            break;
        }
    }
    model
}

/// Dequantizes block-quantized weights to f32, which every stage can change.
pub(crate) fn real_blocks(model: Model) -> Model {
    let mut rewriter = Rewriter::new(model);
    let blocks = |node: &Node| matches!(node.operator, Operator::DequantizeBlocks(_));
    constants::compute(&mut rewriter, |_, node| blocks(node), usize::MAX);
    rewriter.finish()
}

#[cfg(test)]
mod tests {
    use hardtack::Tensor;
    use hardtack::internal::Constant;
    use hardtack_bundle::DType;
    use hardtack_bundle::graph::{
        Binary, DequantizeBlocks, DequantizeLinear, Dim, Gather, KernelLayout, Padding, Reshape,
        Unary,
    };

    use super::*;
    use crate::float_run;
    use crate::parity;
    use crate::testing::{Net, noise};

    /// Returns the number of nodes other than inputs and constants.
    fn operations(model: &Model) -> usize {
        let nodes = model.graph.nodes.iter();
        nodes.filter(|n| !matches!(n.operator, Operator::Input | Operator::Constant(_))).count()
    }

    fn keeps_numbers(model: &Model, shape: &[usize]) -> Model {
        let samples = vec![vec![noise(shape, 7)], vec![noise(shape, 8)]];
        let folded = fold(model.clone());
        let before = float_run::outputs(model, &samples).unwrap();
        let after = float_run::outputs(&folded, &samples).unwrap();
        assert!(!parity::compare(&before, &after).differs);
        folded
    }

    #[test]
    fn batch_normalization_is_fused_into_the_convolution() {
        for groups in [1, 2, 4] {
            let mut net = Net::new();
            let x = net.input(&[1, 4, 5, 5]);
            let y = net.conv(&x, 4, &[3, 3], |conv| conv.groups = groups);
            let mut steps = vec![y];
            for kind in [Binary::Subtract, Binary::Divide, Binary::Multiply, Binary::Add] {
                let channels = Tensor::new(&[1, 4, 1, 1], vec![0.5f32, 2.0, -1.5, 3.0]).unwrap();
                let channels = net.constant(channels);
                let last = steps.last().unwrap().clone();
                steps.push(net.binary(kind, &last, &channels));
            }
            let model = net.finish(&[steps.last().unwrap()]);
            assert_eq!(operations(&keeps_numbers(&model, &[1, 4, 5, 5])), 1, "{groups} groups");
        }
    }

    #[test]
    fn a_channel_shuffle_becomes_strided_slices() {
        let dims = |shape: &[i64]| shape.iter().map(|size| Dim::Value(*size)).collect::<Vec<_>>();
        let reshape =
            |from: &[i64], to: &[i64]| Reshape { axis: 0, from: dims(from), to: dims(to) };
        let mut net = Net::new();
        let x = net.input(&[1, 8, 3, 3]);
        let groups = Operator::Reshape(reshape(&[1, 8, 3, 3], &[4, 2, 9]));
        let groups = net.node(groups, &[&x], &[4, 2, 9]);
        let swapped = net.node(Operator::MoveAxis((1, 0)), &[&groups], &[2, 4, 9]);
        let split = Operator::Reshape(reshape(&[2, 4, 9], &[2, 1, 4, 3, 3]));
        let split = net.node(split, &[&swapped], &[2, 1, 4, 3, 3]);
        let halves = [0i64, -1].map(|index| {
            let index = net.constant(Tensor::new(&[], vec![index]).unwrap());
            let gather = Operator::Gather(Gather { axis: 0, output_dtype: None });
            let half = net.node(gather, &[&split, &index], &[1, 4, 3, 3]);
            net.conv(&half, 4, &[1, 1], |_| {})
        });
        let model = net.finish(&[&halves[0], &halves[1]]);
        let folded = keeps_numbers(&model, &[1, 8, 3, 3]);
        let batches = folded.graph.nodes.iter().filter(|node| node.outputs[0].shape.len() == 4);
        assert!(batches.clone().all(|node| node.outputs[0].shape[0].value() != Some(2)));
        // A slice and a downsampling for each half, one of which starts at the first channel.
        assert!(operations(&folded) <= 6, "{}", operations(&folded));
    }

    #[test]
    fn a_convolution_with_other_readers_is_not_changed() {
        let mut net = Net::new();
        let x = net.input(&[1, 4, 5, 5]);
        let y = net.conv(&x, 4, &[1, 1], |_| {});
        let two = net.scalar(2.0, 4);
        let scaled = net.binary(Binary::Multiply, &y, &two);
        let model = net.finish(&[&y, &scaled]);
        assert_eq!(operations(&keeps_numbers(&model, &[1, 4, 5, 5])), 2);
    }

    #[test]
    fn kernels_are_scaled_in_every_layout() {
        for layout in [KernelLayout::Oihw, KernelLayout::Ohwi, KernelLayout::Hwio] {
            let mut net = Net::new();
            let x = net.input(&[1, 4, 5, 5]);
            let y = net.conv(&x, 4, &[4, 4], |conv| {
                conv.kernel_layout = layout;
                conv.window.padding = Padding::SameUpper;
            });
            let channels = Tensor::new(&[1, 4, 1, 1], vec![0.5f32, 2.0, -1.5, 3.0]).unwrap();
            let channels = net.constant(channels);
            let y = net.binary(Binary::Multiply, &y, &channels);
            let model = net.finish(&[&y]);
            assert_eq!(operations(&keeps_numbers(&model, &[1, 4, 5, 5])), 1, "{layout:?}");
        }
    }

    /// Returns a convolution whose kernel is a windowed Fourier transform of 16 samples, with one
    /// weight off by `change`.
    fn transform(change: f32) -> Model {
        let turn = |bin: usize, at: usize| std::f64::consts::TAU * (bin * at) as f64 / 16.0;
        let window = |at: usize| 0.5 - 0.5 * turn(1, at).cos();
        let (real, imaginary) = (0..9, 0..9);
        let real = real.flat_map(|k| (0..16).map(move |n| window(n) * turn(k, n).cos()));
        let imaginary = imaginary.flat_map(|k| (0..16).map(move |n| -window(n) * turn(k, n).sin()));
        let mut basis: Vec<f32> = real.chain(imaginary).map(|value| value as f32).collect();
        basis[100] += change;
        let mut net = Net::new();
        let x = net.input(&[2, 1, 40]);
        let y = net.conv(&x, 18, &[16], |conv| conv.window.strides = vec![8]);
        let kernel = net.constant(Tensor::new(&[18, 1, 16], basis).unwrap());
        let bias = net.constant(Tensor::new(&[18], vec![0f32; 18]).unwrap());
        let inputs = &mut net.rewriter.model.graph.nodes[y.value_id.node as usize].inputs;
        (inputs[1], inputs[2]) = (kernel.value_id, bias.value_id);
        let y = net.unary(Unary::Abs, &y);
        net.finish(&[&y])
    }

    #[test]
    fn a_fourier_transform_stores_only_its_window() {
        let elements = |model: &Model| {
            let tensors = model.graph.constants.iter();
            tensors.map(|constant| constant.shape.iter().product::<u64>()).sum::<u64>()
        };
        let folded = keeps_numbers(&transform(0.0), &[2, 1, 40]);
        let is_transform = |model: &Model| {
            model.graph.nodes.iter().any(|node| matches!(node.operator, Operator::Stft(_)))
        };
        assert!(is_transform(&folded));
        assert_eq!(elements(&folded), 16 + 1);
        assert!(!is_transform(&keeps_numbers(&transform(1e-3), &[2, 1, 40])));
    }

    #[test]
    fn nodes_that_depend_only_on_constants_are_folded() {
        let mut net = Net::new();
        let x = net.input(&[1, 4]);
        let (a, b) = (net.noise(&[1, 4]), net.noise(&[1, 4]));
        let sum = net.binary(Binary::Add, &a, &b);
        let sum = net.unary(Unary::Exp, &sum);
        let y = net.binary(Binary::Multiply, &x, &sum);
        let model = net.finish(&[&y]);
        let folded = keeps_numbers(&model, &[1, 4]);
        assert_eq!(operations(&folded), 1);
        assert_eq!(folded.constants.len(), 1, "unused constants are removed");
    }

    #[test]
    fn integer_weights_stay_integers() {
        let mut net = Net::new();
        let x = net.input(&[1, 4]);
        let q = net.constant(Tensor::new(&[1, 4], vec![1i8, -2, 3, -4]).unwrap());
        let (scale, zero) =
            (net.constant(Tensor::scalar(0.5f32)), net.constant(Tensor::scalar(0i8)));
        let dequantize = DequantizeLinear { dtype: DType::F32, axis: None };
        let w = net.node(Operator::DequantizeLinear(dequantize), &[&q, &scale, &zero], &[1, 4]);
        let y = net.binary(Binary::Multiply, &x, &w);
        let folded = keeps_numbers(&net.finish(&[&y]), &[1, 4]);
        let integers = |constant: &Constant| matches!(constant, Constant::Tensor(tensor) if tensor.dtype() == DType::I8);
        assert!(folded.constants.iter().any(integers));
    }

    #[test]
    fn blocks_are_dequantized_only_on_request() {
        let mut net = Net::new();
        let x = net.input(&[4, 2]);
        let q = net.constant(Tensor::new(&[4, 2], vec![1u8, 2, 3, 4, 5, 6, 7, 8]).unwrap());
        let scales = net.constant(Tensor::new(&[2, 2], vec![0.5f32, 1.0, 2.0, 4.0]).unwrap());
        let zero = net.constant(Tensor::scalar(8u8));
        let blocks = DequantizeBlocks { dtype: DType::F32, axis: 0, block: 2 };
        let operator = Operator::DequantizeBlocks(blocks);
        let w = net.node(operator, &[&q, &scales, &zero], &[4, 2]);
        let y = net.binary(Binary::Multiply, &x, &w);
        let folded = keeps_numbers(&net.finish(&[&y]), &[4, 2]);
        assert_eq!(operations(&folded), 2);
        assert_eq!(operations(&keeps_numbers(&real_blocks(folded), &[4, 2])), 1);
    }

    #[test]
    fn identity_nodes_are_removed() {
        let mut net = Net::new();
        let x = net.input(&[1, 4]);
        let same = net.node(Operator::MoveAxis((1, 1)), &[&x], &[1, 4]);
        let same = net.node(Operator::Concat(1), &[&same], &[1, 4]);
        let y = net.unary(Unary::Tanh, &same);
        let folded = keeps_numbers(&net.finish(&[&y]), &[1, 4]);
        assert_eq!(operations(&folded), 1);
    }
}
