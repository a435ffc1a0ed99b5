//! The custom operator for ensembles of decision trees.

use hardtack::float::custom_ops;
use hardtack_bundle::graph::{TreeAggregate, TreeTransform};
use tract_hir::internal::*;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;

use super::Read;

/// Reads the operator that [`rewrite::trees`](crate::import::rewrite::trees) emits.
pub(super) fn read(_: &ParsingContext, node: &NodeProto) -> Read {
    let aggregate = match node.get_attr::<i64>("aggregate")? {
        0 => TreeAggregate::Sum,
        1 => TreeAggregate::Average,
        2 => TreeAggregate::Minimum,
        3 => TreeAggregate::Maximum,
        other => bail!("unknown aggregate {other}"),
    };
    let op = custom_ops::TreeEnsemble {
        targets: node.get_attr("targets")?,
        aggregate,
        transform: TreeTransform::None,
        binary: false,
    };
    Ok((expand(Trees(op)), vec![]))
}

#[derive(Clone, Debug)]
struct Trees(custom_ops::TreeEnsemble);

impl Expansion for Trees {
    fn name(&self) -> StaticName {
        "TreeEnsemble".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        const INPUTS: usize = 12;
        check_input_arity(inputs, INPUTS)?;
        check_output_arity(outputs, 1)?;
        s.equals(&inputs[0].datum_type, f32::datum_type())?;
        s.equals(&inputs[0].rank, 2)?;
        s.equals(&outputs[0].datum_type, f32::datum_type())?;
        s.equals(&outputs[0].rank, 2)?;
        s.equals(&outputs[0].shape[0], &inputs[0].shape[0])?;
        s.equals(&outputs[0].shape[1], self.0.targets.to_dim())
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
