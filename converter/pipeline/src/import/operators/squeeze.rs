//! Squeeze, with or without axes.
//!
//! tract's reader requires axes before operator set 13. Since then, it keeps the dynamic dimensions
//! of a node without axes, although they may be 1 when the model runs.

use tract_hir::internal::*;
use tract_hir::ops::array;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;

use super::Read;

/// Reads Squeeze.
pub(super) fn read(_: &ParsingContext, node: &NodeProto) -> Read {
    Ok((expand(Squeeze { axes: node.get_attr_opt_vec("axes")?.unwrap_or_default() }), vec![]))
}

#[derive(Clone, Debug)]
struct Squeeze {
    /// The removed axes; empty for all of size 1. A second input has precedence.
    axes: Vec<i64>,
}

/// Returns tract's operation for these axes of a shape.
fn operation(axes: &[i64], shape: &[TDim]) -> TractResult<array::Squeeze> {
    let axes = if axes.is_empty() {
        let text = || shape.iter().map(TDim::to_string).collect::<Vec<_>>().join(", ");
        ensure!(
            shape.iter().all(|dim| dim.to_i64().is_ok()),
            "Squeeze without axes needs a fixed input shape, but its input has shape [{}]",
            text()
        );
        let ones = shape.iter().enumerate().filter(|(_, dim)| dim.is_one());
        ones.map(|(axis, _)| axis as isize).collect()
    } else {
        let rank = shape.len() as i64;
        if let Some(axis) = axes.iter().find(|axis| !(-rank..rank).contains(*axis)) {
            bail!("axis {axis} of a tensor of rank {rank}");
        }
        let mut axes: Vec<isize> = axes.iter().map(|axis| axis.rem_euclid(rank) as isize).collect();
        // tract removes the axes in reverse order.
        axes.sort_unstable();
        axes
    };
    Ok(array::Squeeze::new(Some(axes)))
}

fn elements(axes: &Tensor) -> TractResult<Vec<i64>> {
    Ok(axes.cast_to::<i64>()?.try_as_plain_ram()?.as_slice::<i64>()?.to_vec())
}

impl Expansion for Squeeze {
    fn name(&self) -> StaticName {
        "Squeeze".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        ensure!(matches!(inputs.len(), 1 | 2), "it has {} inputs", inputs.len());
        check_output_arity(outputs, 1)?;
        s.equals(&outputs[0].datum_type, &inputs[0].datum_type)?;
        let shaped = move |s: &mut Solver<'r>, axes: &[i64], shape: &[TDim]| {
            s.equals(&outputs[0].shape, operation(axes, shape)?.output_shape(shape)?)
        };
        match inputs {
            [x, axes] => s.given_2(&x.shape, &axes.value, move |s, shape, axes| {
                shaped(s, &elements(&axes)?, &shape)
            }),
            _ => s.given(&inputs[0].shape, move |s, shape| shaped(s, &self.axes, &shape)),
        }
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let shape = model.outlet_fact(inputs[0])?.shape.to_tvec();
        let axes = match inputs {
            [_, axes] => {
                let axes = model.outlet_fact(*axes)?.konst.clone();
                let axes = axes.context("its axes must be a constant")?;
                elements(&axes)?
            }
            _ => self.axes.clone(),
        };
        operation(&axes, &shape)?.wire(prefix, model, &inputs[..1])
    }
}

#[cfg(test)]
mod tests {
    use crate::import::node::ints;
    use crate::import::rewrite;
    use crate::import::rewrite::testing::{graph, model, node};
    use crate::import::translate::translate;
    use hardtack::Tensor as Ours;
    use tract_onnx::pb::AttributeProto;

    /// Returns the sizes of the output for an input of these dimensions, or the error.
    fn squeezed(
        dims: &[&str],
        opset: i64,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) -> Result<Vec<i64>, String> {
        let axes = Ours::new(&[2], vec![-1i64, 0]).unwrap();
        let squeeze = node("Squeeze", inputs, &["y"], attributes);
        let mut model = model(graph(&[("x", dims)], vec![squeeze], &[("axes", axes)], &["y"]));
        model.opset_import[0].version = opset;
        rewrite::rewrite_unbound(&mut model).map_err(|error| error.to_string())?;
        let model = translate(model).map_err(|error| error.to_string())?;
        let shape = &model.graph.fact(model.graph.outputs[0]).shape;
        Ok(shape.iter().map(|dim| dim.value().unwrap()).collect())
    }

    #[test]
    fn all_axes_of_size_1_are_removed_unless_some_are_given() {
        let dims = ["1", "3", "1", "2", "1"];
        for opset in [7, 11, 13, 21] {
            assert_eq!(squeezed(&dims, opset, &["x"], vec![]), Ok(vec![3, 2]), "{opset}");
        }
        let axes = || vec![ints("axes", &[-1, 0])];
        assert_eq!(squeezed(&dims, 11, &["x"], axes()), Ok(vec![3, 1, 2]));
        assert_eq!(squeezed(&dims, 13, &["x", "axes"], vec![]), Ok(vec![3, 1, 2]));
    }

    #[test]
    fn dynamic_shapes_need_axes() {
        for (dims, opset) in [(["1", "n", "2"], 11), (["n", "1", "2"], 11), (["n", "1", "2"], 13)] {
            let error = squeezed(&dims, opset, &["x"], vec![]).unwrap_err();
            assert!(error.contains("--set n="), "{error}");
        }
        assert!(squeezed(&["1", "2"], 11, &["x"], vec![ints("axes", &[1])]).is_err());
    }
}
