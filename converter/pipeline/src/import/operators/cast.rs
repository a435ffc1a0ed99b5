//! Cast. tract converts to its dimension type in place of int64, through 32 bits.

use tract_core::ops::cast::cast;
use tract_hir::internal::*;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;

use super::Read;

pub(super) fn read(_: &ParsingContext, node: &NodeProto) -> Read {
    Ok((expand(Cast { to: node.get_attr("to")? }), vec![]))
}

#[derive(Clone, Debug)]
struct Cast {
    to: DatumType,
}

impl Cast {
    /// Returns the type of the output for a type of the input. Integers and booleans that become
    /// int64 may be dimensions.
    fn output_type(&self, from: DatumType) -> DatumType {
        match self.to {
            DatumType::I64 if !from.is_float() => DatumType::TDim,
            to => to,
        }
    }
}

impl Expansion for Cast {
    fn name(&self) -> StaticName {
        "Cast".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, 1)?;
        s.equals(&outputs[0].shape, &inputs[0].shape)?;
        s.given(&inputs[0].datum_type, |s, from| {
            s.equals(&outputs[0].datum_type, self.output_type(from))
        })
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let from = model.outlet_fact(inputs[0])?.datum_type;
        model.wire_node(prefix, cast(self.output_type(from)), inputs)
    }
}
