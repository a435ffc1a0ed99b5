//! Recognizes short-time Fourier transforms that are expressed as convolutions with windowed sines
//! and cosines. As an STFT operator, they need only the window as weights, and far fewer MACs.

use std::f64::consts::TAU;

use hardtack::internal::Constant;
use hardtack::{Data, Tensor};
use hardtack_bundle::graph::{
    Conv, Dim, Fact, KernelLayout, Node, Operator, Pad, PadMode, Padding, Reshape, Slice, Stft,
    ValueId,
};

use crate::graph::rewriter::Rewriter;

/// The maximum deviation of a kernel from sines and cosines, as a fraction of the window's maximum.
const ROUNDING: f64 = 1e-5;

/// Replaces all such convolutions. Returns their number.
pub(super) fn recognize(rewriter: &mut Rewriter) -> usize {
    let nodes = 0..rewriter.model.graph.nodes.len();
    let convolutions: Vec<usize> = nodes
        .filter(|index| {
            let here = ValueId { node: *index as u32, output: 0 };
            matches!(rewriter.node(*index).operator, Operator::Conv(_))
                && rewriter.resolve(here) == here
        })
        .collect();
    convolutions.into_iter().filter_map(|index| transform(rewriter, index)).count()
}

fn transform(rewriter: &mut Rewriter, index: usize) -> Option<()> {
    let node = rewriter.node(index);
    let Operator::Conv(conv) = &node.operator else { return None };
    let [input, kernel, bias] = node.inputs[..] else { return None };
    let frame = frame(conv)?;
    let window = window(f32s(rewriter, kernel)?, frame)?;
    if f32s(rewriter, bias)?.iter().any(|bias| *bias != 0.0) {
        return None;
    }
    let [stride] = conv.window.strides[..] else { return None };
    let (name, result) = (node.name.clone(), node.outputs[0].clone());
    let [batch, _, frames] = &result.shape[..] else { return None };
    let (batch, frames) = (batch.clone(), frames.clone());
    let input = rewriter.resolve(input);
    let length = rewriter.model.graph.fact(input).shape.get(2)?.clone();

    let window = Constant::Tensor(Tensor::new(&[frame], window).ok()?.into());
    let window = added(rewriter, format!("{name}.window"), window)?;
    let zero = Constant::Tensor(Tensor::new(&[], vec![0f32]).ok()?.into());
    let zero = added(rewriter, format!("{name}.zero"), zero)?;
    let parts = Parts { frame, stride, window, zero, batch, length, frames };
    let mut last = input;
    for (suffix, operator, shape) in parts.steps(&result.shape) {
        last = rewriter.add(Node {
            name: format!("{name}.{suffix}"),
            operator,
            inputs: vec![last],
            outputs: vec![Fact { dtype: result.dtype, shape }],
        });
    }
    rewriter.redirect(ValueId { node: index as u32, output: 0 }, last);
    Some(())
}

/// What a transform consists of.
struct Parts {
    /// The number of samples of a frame.
    frame: usize,
    stride: u32,
    /// The index of the constant with the window.
    window: u32,
    /// The index of the constant 0.
    zero: u32,
    batch: Dim,
    /// The number of samples.
    length: Dim,
    /// The number of frames.
    frames: Dim,
}

impl Parts {
    /// Returns the operators of the transform, each with its name and the shape of its output.
    fn steps(self, result: &[Dim]) -> [(&'static str, Operator, Vec<Dim>); 8] {
        let Parts { frame, stride, window, zero, batch, length, frames } = self;
        let one = || Dim::Value(1);
        let size = |size: usize| Dim::Value(size as i64);
        let bins = frame / 2 + 1;
        // Append imaginary parts of 0, transform, and move both parts to the channel axis.
        [
            ("parts", Operator::AddAxis(3), vec![batch.clone(), one(), length.clone(), one()]),
            (
                "complex",
                Operator::Pad(Pad {
                    pads: vec![(0, 0), (0, 0), (0, 0), (0, 1)],
                    mode: PadMode::Constant(zero),
                }),
                vec![batch.clone(), one(), length, size(2)],
            ),
            (
                "transform",
                Operator::Stft(Stft {
                    axis: 2,
                    frame: frame as u64,
                    stride: u64::from(stride),
                    window: Some(window),
                }),
                vec![batch.clone(), one(), frames.clone(), size(frame), size(2)],
            ),
            (
                "bins",
                Operator::Slice(Slice { axis: 3, start: size(0), end: size(bins) }),
                vec![batch.clone(), one(), frames.clone(), size(bins), size(2)],
            ),
            (
                "apart",
                Operator::MoveAxis((4, 1)),
                vec![batch.clone(), size(2), one(), frames.clone(), size(bins)],
            ),
            (
                "plain",
                Operator::RemoveAxis(2),
                vec![batch.clone(), size(2), frames.clone(), size(bins)],
            ),
            ("moved", Operator::MoveAxis((2, 3)), vec![batch, size(2), size(bins), frames]),
            (
                "joined",
                Operator::Reshape(Reshape {
                    axis: 1,
                    from: vec![size(2), size(bins)],
                    to: vec![size(2 * bins)],
                }),
                result.to_vec(),
            ),
        ]
    }
}

/// Returns the frame length of a convolution with the shape of a transform.
fn frame(conv: &Conv) -> Option<usize> {
    let Conv { window, kernel_layout, groups } = conv;
    let [frame] = window.kernel[..] else { return None };
    let plain = window.padding == Padding::Valid
        || matches!(&window.padding, Padding::Explicit(before, after) if *before == [0] && *after == [0]);
    let fits = *kernel_layout == KernelLayout::Oihw
        && *groups == 1
        && window.dilations == [1]
        && window.input_channels == 1
        && window.output_channels == 2 * (frame / 2 + 1);
    (plain && fits && frame > 1).then_some(frame as usize)
}

/// Returns the window of a kernel whose first half is windowed cosines and whose second half is
/// windowed negative sines.
fn window(kernel: &[f32], frame: usize) -> Option<Vec<f32>> {
    let window = kernel.get(..frame)?;
    let greatest = window.iter().fold(0f64, |greatest, w| greatest.max(f64::from(w.abs())));
    let bins = frame / 2 + 1;
    let mut rows = kernel.chunks_exact(frame).enumerate();
    let fits = rows.all(|(row, values)| {
        let bin = row % bins;
        values.iter().zip(window).enumerate().all(|(at, (value, w))| {
            let (sin, cos) = (TAU * (bin * at % frame) as f64 / frame as f64).sin_cos();
            let expected = f64::from(*w) * if row < bins { cos } else { -sin };
            (f64::from(*value) - expected).abs() <= ROUNDING * greatest
        })
    });
    (fits && greatest > 0.0).then(|| window.to_vec())
}

/// Adds a constant and returns its index.
fn added(rewriter: &mut Rewriter, name: String, constant: Constant) -> Option<u32> {
    let value_id = rewriter.add_constant(name, constant);
    match rewriter.node(value_id.node as usize).operator {
        Operator::Constant(index) => Some(index),
        _ => None,
    }
}

/// Returns the values of an f32 constant.
fn f32s(rewriter: &Rewriter, value_id: ValueId) -> Option<&[f32]> {
    match rewriter.constant(value_id)? {
        Constant::Tensor(tensor) => match tensor.data() {
            Data::F32(values) => Some(values),
            _ => None,
        },
        _ => None,
    }
}
