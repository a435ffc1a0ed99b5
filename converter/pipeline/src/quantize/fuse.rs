//! Replaces patterns of operators by a single operator, so that fewer values are rounded.

use hardtack::internal::Constant;
use hardtack_bundle::graph::{
    Binary, ImageLayout, MaxPool, Node, Operator, Padding, Reduce, Reducer, SumPool, ValueId,
    Window,
};

use crate::graph::rewriter::Rewriter;

/// Replaces a whole-image sum divided by its element count with an average pool, and a whole-image
/// maximum with a max pool. The float results stay the same.
pub(super) fn fuse(rewriter: &mut Rewriter) {
    for index in 0..rewriter.model.graph.nodes.len() {
        let fused = mean(rewriter, index).or_else(|| maximum(rewriter, index));
        if let Some(node) = fused {
            let fused = rewriter.add(node);
            rewriter.redirect(ValueId { node: index as u32, output: 0 }, fused);
        }
    }
}

fn operands(rewriter: &Rewriter, index: usize) -> Option<[ValueId; 2]> {
    match rewriter.node(index).inputs[..] {
        [left, right] => Some([rewriter.resolve(left), rewriter.resolve(right)]),
        _ => None,
    }
}

fn mean(rewriter: &Rewriter, index: usize) -> Option<Node> {
    let node = rewriter.node(index);
    let Operator::Binary(kind @ (Binary::Divide | Binary::Multiply)) = node.operator else {
        return None;
    };
    let [sum, count] = operands(rewriter, index)?;
    let Operator::Reduce(reduce) = &rewriter.node(sum.node as usize).operator else { return None };
    let x = rewriter.resolve(rewriter.node(sum.node as usize).inputs[0]);
    let window = whole_image(rewriter, reduce, x)?;
    let elements = window.kernel[0] as f32 * window.kernel[1] as f32;
    let Constant::Tensor(divisor) = rewriter.constant(count)? else { return None };
    let &[divisor] = divisor.as_f32()? else { return None };
    let divides = match kind {
        Binary::Divide => divisor == elements,
        _ => (divisor * elements - 1.0).abs() < 1e-6,
    };
    if reduce.reducer != Reducer::Sum || !divides {
        return None;
    }
    let operator = Operator::SumPool(SumPool { window, count_include_pad: false, average: true });
    Some(Node { operator, inputs: vec![x], ..node.clone() })
}

fn maximum(rewriter: &Rewriter, index: usize) -> Option<Node> {
    let node = rewriter.node(index);
    let Operator::Reduce(reduce) = &node.operator else { return None };
    let x = rewriter.resolve(node.inputs[0]);
    let window = whole_image(rewriter, reduce, x)?;
    let operator = Operator::MaxPool(MaxPool { window, index_dtype: None });
    (reduce.reducer == Reducer::Maximum).then(|| Node { operator, inputs: vec![x], ..node.clone() })
}

/// Returns the pooling window that covers the image, if `reduce` reduces exactly its spatial axes.
fn whole_image(rewriter: &Rewriter, reduce: &Reduce, x: ValueId) -> Option<Window> {
    let shape = &rewriter.model.graph.fact(x).shape;
    let layout = match (&reduce.axes[..], shape.len()) {
        ([2, 3], 4) => ImageLayout::Nchw,
        ([1, 2], 4) => ImageLayout::Nhwc,
        _ => return None,
    };
    let size = |axis: u32| u32::try_from(shape[axis as usize].value()?).ok();
    let channels = size(if layout == ImageLayout::Nchw { 1 } else { 3 })?;
    Some(Window {
        layout,
        kernel: vec![size(reduce.axes[0])?, size(reduce.axes[1])?],
        strides: vec![1; 2],
        dilations: vec![1; 2],
        padding: Padding::Valid,
        input_channels: channels,
        output_channels: channels,
    })
}
