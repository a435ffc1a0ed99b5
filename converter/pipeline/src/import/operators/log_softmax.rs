//! LogSoftmax, which tract reads as the logarithm of Softmax. That is −∞ for small probabilities.

use tract_core::ops::nn::{Softmax, SoftmaxKind};
use tract_hir::internal::*;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;

use super::{Read, keeps_type_and_shape};

/// The operator set since which LogSoftmax has one axis. Before, it has all axes from the given.
const ONE_AXIS: i64 = 13;

/// Reads LogSoftmax.
pub(super) fn read(context: &ParsingContext, node: &NodeProto) -> Read {
    let one_axis = context.onnx_operator_set_version >= ONE_AXIS;
    let axis = node.get_attr_opt("axis")?.unwrap_or(if one_axis { -1 } else { 1 });
    Ok((expand(LogSoftmax { axis, one_axis }), vec![]))
}

#[derive(Clone, Debug)]
struct LogSoftmax {
    axis: i64,
    one_axis: bool,
}

impl Expansion for LogSoftmax {
    fn name(&self) -> StaticName {
        "LogSoftmax".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        keeps_type_and_shape(s, inputs, outputs)
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let rank = model.outlet_fact(inputs[0])?.rank();
        let axis = if self.axis < 0 { self.axis + rank as i64 } else { self.axis };
        ensure!((0..rank as i64).contains(&axis), "axis {} of a tensor of rank {rank}", self.axis);
        let axis = axis as usize;
        let axes = if self.one_axis { tvec![axis] } else { (axis..rank).collect() };
        let kind = SoftmaxKind::LogSoftmax;
        model.wire_node(prefix, Softmax { axes, quant_output_dt: None, kind }, inputs)
    }
}
