//! The custom operator for dynamically quantized matmuls.

use hardtack::float::custom_ops::DynamicMatMul;
use tract_hir::internal::*;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;

use super::Read;

/// Reads the operator that [`rewrite::dynamic`](crate::import::rewrite::dynamic) emits. It has one
/// scale for all of x.
pub(super) fn read(_: &ParsingContext, _: &NodeProto) -> Read {
    Ok((expand(Dynamic(DynamicMatMul::new(false))), vec![]))
}

#[derive(Clone, Debug)]
struct Dynamic(DynamicMatMul);

impl Expansion for Dynamic {
    fn name(&self) -> StaticName {
        "DynamicMatMul".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 4)?;
        check_output_arity(outputs, 1)?;
        s.equals(&inputs[0].datum_type, f32::datum_type())?;
        s.equals(&outputs[0].datum_type, f32::datum_type())?;
        s.equals(&inputs[0].rank, &outputs[0].rank)?;
        s.given_2(&inputs[0].shape, &inputs[1].shape, move |s, x, matrix| {
            ensure!(!x.is_empty() && matrix.len() == 2, "its second input is not a matrix");
            let mut shape = x;
            let last = shape.len() - 1;
            shape[last] = matrix[1].clone();
            s.equals(&outputs[0].shape, shape)
        })
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        model.wire_node(prefix, self.0.clone(), inputs)
    }
}
