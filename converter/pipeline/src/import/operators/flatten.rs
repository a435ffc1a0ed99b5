//! Flatten of more than one dynamic dimension, which tract's reader rejects.

use tract_hir::internal::*;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;

use super::Read;

/// Reads Flatten.
pub(super) fn read(_: &ParsingContext, node: &NodeProto) -> Read {
    Ok((expand(Flatten { axis: node.get_attr_opt("axis")?.unwrap_or(1) }), vec![]))
}

#[derive(Clone, Debug)]
struct Flatten {
    axis: i64,
}

impl Flatten {
    fn axis(&self, rank: usize) -> TractResult<usize> {
        let axis = if self.axis < 0 { self.axis + rank as i64 } else { self.axis };
        ensure!((0..=rank as i64).contains(&axis), "axis {} of a tensor of rank {rank}", self.axis);
        Ok(axis as usize)
    }
}

impl Expansion for Flatten {
    fn name(&self) -> StaticName {
        "Flatten".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, 1)?;
        s.equals(&outputs[0].datum_type, &inputs[0].datum_type)?;
        s.equals(&outputs[0].rank, 2)?;
        s.given(&inputs[0].shape, move |s, shape| {
            let axis = self.axis(shape.len())?;
            s.equals(&outputs[0].shape[0], shape[..axis].iter().product::<TDim>())?;
            s.equals(&outputs[0].shape[1], shape[axis..].iter().product::<TDim>())
        })
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let shape = model.outlet_fact(inputs[0])?.shape.to_tvec();
        let axis = self.axis(shape.len())?;
        let mut outlet = inputs[0];
        for (at, part) in [&shape[..axis], &shape[axis..]].into_iter().enumerate() {
            let op = match part {
                [_] => continue,
                [] => AxisOp::Add(at),
                [_, ones @ ..] if ones.iter().all(TDim::is_one) => {
                    for index in 0..ones.len() {
                        let name = format!("{prefix}.remove.{at}.{index}");
                        outlet = model.wire_node(name, AxisOp::Rm(at + 1), &[outlet])?[0];
                    }
                    continue;
                }
                part => AxisOp::Reshape(at, part.into(), tvec![part.iter().product::<TDim>()]),
            };
            outlet = model.wire_node(format!("{prefix}.{at}"), op, &[outlet])?[0];
        }
        Ok(tvec![outlet])
    }
}
