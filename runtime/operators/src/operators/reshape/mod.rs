//! Operators that move the elements of a tensor, or give it another shape.

use crate::call::{Call, Operator};
use crate::error::Problem;
use crate::shape;
use crate::tensor::Tensor;
use crate::value::Value;

mod arrange;
pub(super) mod movement;
mod part;

/// Returns the implementation of an operator of this family.
pub(super) fn find(domain: &str, name: &str) -> Option<Operator> {
    Some(match (domain, name) {
        ("", "CenterCropPad") => part::center_crop_pad,
        ("", "Concat") => part::concat,
        ("", "DepthToSpace") => arrange::depth_to_space,
        ("", "Expand") => arrange::expand,
        ("", "Flatten") => flatten,
        ("", "Identity") => identity,
        ("", "Reshape") => reshape,
        ("", "ReverseSequence") => arrange::reverse_sequence,
        ("", "Shape") => shape_of,
        ("", "Size") => size,
        ("", "Slice") => part::slice,
        ("", "SpaceToDepth") => arrange::space_to_depth,
        ("", "Split") => part::split,
        ("", "Squeeze") => squeeze,
        ("", "Tile") => arrange::tile,
        ("", "Transpose") => arrange::transpose,
        ("", "Trilu") => arrange::trilu,
        ("", "Unsqueeze") => unsqueeze,
        _ => return None,
    })
}

/// Returns a list that is an attribute before a version of the operator set, and an input since.
pub(super) fn list(
    call: &Call<'_>,
    name: &'static str,
    index: usize,
    since: i64,
) -> Result<Option<Vec<i64>>, Problem> {
    if call.version < since {
        Ok(call.ints(name)?.map(<[i64]>::to_vec))
    } else {
        call.optional_ints(index)
    }
}

/// Returns a list as [`list`] does, which must be given.
pub(super) fn required_list(
    call: &Call<'_>,
    name: &'static str,
    index: usize,
    since: i64,
) -> Result<Vec<i64>, Problem> {
    list(call, name, index, since)?.ok_or(if call.version < since {
        Problem::MissingAttribute { name }
    } else {
        Problem::MissingInput { index }
    })
}

/// Gives a tensor another shape. A size of 0 is that of the input, and one of -1 is what is left.
fn reshape(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let target = call.tensor(1)?.to_i64()?;
    let allow_zero = call.flag("allowzero", false)?;
    let mut sizes = Vec::with_capacity(target.len());
    let mut inferred = None;
    for (axis, size) in target.iter().enumerate() {
        sizes.push(match *size {
            0 if !allow_zero => {
                let missing = Problem::Axis { axis: axis as i64, rank: x.rank() };
                *x.shape().get(axis).ok_or(missing)?
            }
            -1 if inferred.is_none() => {
                inferred = Some(axis);
                1
            }
            size => shape::size(size)?,
        });
    }
    if let Some(axis) = inferred {
        let known = shape::elements(&sizes)?;
        let size = x.len().checked_div(known).filter(|size| size * known == x.len());
        sizes[axis] = size.ok_or_else(|| {
            let len = x.len();
            Problem::Invalid(format!("shape {target:?} leaves no size for -1 with {len} elements"))
        })?;
    }
    Ok(vec![x.reshaped(sizes)?.into()])
}

/// Flattens a tensor to a matrix: the axes before `axis` to rows, the others to columns.
fn flatten(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let axis = call.int_or("axis", 1)?;
    // The axis may be the rank, which makes one column.
    let axis = match usize::try_from(axis) {
        Ok(axis) if axis == x.rank() => axis,
        _ => shape::axis(axis, x.rank())?,
    };
    let (rows, columns) = x.shape().split_at(axis);
    let matrix = vec![shape::elements(rows)?, shape::elements(columns)?];
    Ok(vec![x.reshaped(matrix)?.into()])
}

/// Removes axes of size 1: those in `axes`, or all.
fn squeeze(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let axes = list(call, "axes", 1, 13)?;
    let axes = axes.map(|axes| shape::axes(&axes, x.rank())).transpose()?;
    if let Some(axis) = axes.iter().flatten().find(|axis| x.shape()[**axis] != 1) {
        let expected = format!("have size 1 in axis {axis}");
        return Err(Problem::InputShape { index: 0, shape: x.shape().to_vec(), expected });
    }
    let sizes = x.shape().iter().enumerate();
    let kept = sizes.filter(|(axis, size)| match &axes {
        Some(axes) => !axes.contains(axis),
        None => **size != 1,
    });
    let kept = kept.map(|(_, size)| *size).collect();
    Ok(vec![x.reshaped(kept)?.into()])
}

/// Inserts axes of size 1 at the places that they have in the result.
fn unsqueeze(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let axes = required_list(call, "axes", 1, 13)?;
    let rank = x.rank() + axes.len();
    let axes = shape::axes(&axes, rank)?;
    let mut sizes = x.shape().iter().copied();
    let extended = (0..rank).map(|axis| match axes.contains(&axis) {
        true => 1,
        false => sizes.next().unwrap_or(1),
    });
    Ok(vec![x.reshaped(extended.collect())?.into()])
}

/// Returns its input.
fn identity(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    Ok(vec![call.value(0)?.clone()])
}

/// Returns the sizes of the axes from `start` to `end`.
fn shape_of(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let rank = x.rank() as i64;
    let clamp = |axis: i64| {
        let positive = if axis < 0 { axis.saturating_add(rank) } else { axis };
        positive.clamp(0, rank) as usize
    };
    let start = clamp(call.int_or("start", 0)?);
    let end = clamp(call.int_or("end", rank)?);
    let sizes = x.shape().get(start..end).unwrap_or(&[]);
    Ok(vec![Tensor::vector(sizes.iter().map(|size| *size as i64).collect::<Vec<_>>()).into()])
}

/// Returns the number of elements.
fn size(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    Ok(vec![Tensor::scalar(call.tensor(0)?.len() as i64).into()])
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::evaluate::NoObserver;
    use crate::model::{Attribute, Graph, Model, Node, ValueInfo};

    /// Evaluates an operator with one output.
    pub(in crate::operators) fn evaluate(
        operator: &str,
        version: i64,
        inputs: Vec<Tensor>,
        attributes: &[(&str, Attribute)],
    ) -> Result<Vec<Tensor>, Problem> {
        outputs(operator, version, inputs, attributes, 1)
    }

    /// Evaluates an operator with a number of outputs.
    pub(in crate::operators) fn outputs(
        operator: &str,
        version: i64,
        inputs: Vec<Tensor>,
        attributes: &[(&str, Attribute)],
        outputs: usize,
    ) -> Result<Vec<Tensor>, Problem> {
        let attributes = attributes.iter().map(|(name, value)| (name.to_string(), value.clone()));
        let names: Vec<String> = (0..outputs).map(|index| format!("y{index}")).collect();
        let info = |name: &String| ValueInfo { name: name.clone(), value_type: None };
        let mut graph = Graph { outputs: names.iter().map(info).collect(), ..Graph::default() };
        graph.nodes = vec![Node {
            operator: operator.into(),
            inputs: (0..inputs.len()).map(|index| format!("x{index}")).collect(),
            outputs: names,
            attributes: attributes.collect(),
            ..Node::default()
        }];
        graph.prepare();
        let opsets = HashMap::from([(String::new(), version)]);
        let model = Model { opsets, graph, ..Model::default() };
        let inputs = inputs.into_iter().enumerate();
        let inputs = inputs.map(|(index, x)| (format!("x{index}"), x.into())).collect();
        let values = model.run(inputs, &mut NoObserver).map_err(|error| error.problem)?;
        values.iter().map(|value| value.tensor().cloned()).collect()
    }

    fn reshaped(from: &[usize], to: &[i64], allow_zero: i64) -> Option<Vec<usize>> {
        let x = Tensor::new(from.to_vec(), vec![0f32; from.iter().product()]).unwrap();
        let attributes = [("allowzero", Attribute::Int(allow_zero))];
        let y = evaluate("Reshape", 14, vec![x, Tensor::vector(to.to_vec())], &attributes);
        Some(y.ok()?.first()?.shape().to_vec())
    }

    #[test]
    fn a_size_is_inferred_only_if_there_is_one() {
        assert_eq!(reshaped(&[2, 3], &[0, -1, 1], 0), Some(vec![2, 3, 1]));
        assert_eq!(reshaped(&[1], &[], 0), Some(vec![]));
        assert_eq!(reshaped(&[0, 3], &[5, 0], 1), Some(vec![5, 0]));
        assert_eq!(reshaped(&[0, 3], &[5, 0], 0), None);
        assert_eq!(reshaped(&[0, 3], &[0, -1], 0), None);
        assert_eq!(reshaped(&[2, 3], &[-1, -1], 0), None);
        assert_eq!(reshaped(&[2, 3], &[4, -1], 0), None);
        assert_eq!(reshaped(&[2, 3], &[i64::MAX, i64::MAX, -1], 0), None);
    }

    #[test]
    fn huge_sizes_beside_empty_axes_are_refused() {
        let x = Tensor::new(vec![0, 1], Vec::<f32>::new()).unwrap();
        for operator in ["Tile", "Expand"] {
            let y =
                evaluate(operator, 13, vec![x.clone(), Tensor::vector(vec![1, 1i64 << 60])], &[]);
            assert!(matches!(y, Err(Problem::TooLarge { .. })));
        }
        let pads = Tensor::vector(vec![0, 1i64 << 60, 0, 0]);
        let y = evaluate("Pad", 18, vec![x, pads], &[]);
        assert!(matches!(y, Err(Problem::TooLarge { .. })));
    }
}
