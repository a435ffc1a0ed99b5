//! Resize of all operator sets, with scales or sizes expanded to all axes.

use hardtack::float::custom_ops;
use hardtack_bundle::graph::{self, CoordinateTransform, Interpolation};
use tract_hir::internal::*;
use tract_onnx::model::{ParsingContext, optional_inputs};
use tract_onnx::pb::NodeProto;

use super::Read;

/// The maximum scale. Larger scales are mistakes, and their products overflow 64 bits.
const LARGEST_SCALE: f32 = (1 << 24) as f32;

/// Reads Resize.
pub(super) fn read(context: &ParsingContext, node: &NodeProto) -> Read {
    let coordinates = match node.get_attr_opt("coordinate_transformation_mode")? {
        None | Some("half_pixel") => CoordinateTransform::HalfPixel,
        Some("align_corners") => CoordinateTransform::AlignCorners,
        Some("asymmetric") => CoordinateTransform::Asymmetric,
        Some("pytorch_half_pixel") => CoordinateTransform::PytorchHalfPixel,
        Some("half_pixel_symmetric") => CoordinateTransform::HalfPixelSymmetric,
        Some("tf_half_pixel_for_nn") => CoordinateTransform::TfHalfPixelForNn,
        Some(other) => bail!("coordinate_transformation_mode {other} is not supported"),
    };
    let nearest = match node.get_attr_opt("nearest_mode")? {
        None | Some("round_prefer_floor") => Interpolation::NearestRoundPreferFloor,
        Some("round_prefer_ceil") => Interpolation::NearestRoundPreferCeil,
        Some("floor") => Interpolation::NearestFloor,
        Some("ceil") => Interpolation::NearestCeil,
        Some(other) => bail!("nearest_mode {other} is not known"),
    };
    let interpolation = match node.get_attr_opt("mode")? {
        None | Some("nearest") => nearest,
        Some("linear") => Interpolation::Linear,
        Some("cubic") => Interpolation::Cubic,
        Some(other) => bail!("mode {other} is not known"),
    };
    let mut inputs = optional_inputs(node).skip(1);
    if context.onnx_operator_set_version >= 11 {
        let _region = inputs.next();
    }
    Ok((
        expand(Resize {
            attributes: graph::Resize {
                coordinates,
                interpolation,
                scales_input: None,
                sizes_input: None,
                cubic_coefficient: node.get_attr_opt("cubic_coeff_a")?.unwrap_or(-0.75),
                exclude_outside: node.get_attr_opt("exclude_outside")?.unwrap_or(0i64) != 0,
            },
            axes: node.get_attr_opt_vec("axes")?,
            scales: inputs.next().flatten(),
            sizes: inputs.next().flatten(),
        }),
        vec![],
    ))
}

#[derive(Clone, Debug)]
struct Resize {
    attributes: graph::Resize,
    /// The axes that scales and sizes apply to; `None` for all.
    axes: Option<Vec<i64>>,
    scales: Option<usize>,
    sizes: Option<usize>,
}

impl Resize {
    fn axes(&self, rank: usize) -> TractResult<Vec<usize>> {
        let Some(axes) = &self.axes else { return Ok((0..rank).collect()) };
        let positive = |axis: &i64| {
            let positive = if *axis < 0 { axis + rank as i64 } else { *axis };
            ensure!((0..rank as i64).contains(&positive), "axis {axis} of a tensor of rank {rank}");
            Ok(positive as usize)
        };
        axes.iter().map(positive).collect()
    }

    /// Returns one scale for each axis of the tensor.
    fn all_scales(&self, scales: &Tensor, rank: usize) -> TractResult<Vec<f32>> {
        let scales = scales.cast_to::<f32>()?;
        let scales = scales.try_as_plain_ram()?.as_slice::<f32>()?.to_vec();
        let axes = self.axes(rank)?;
        ensure!(axes.len() == scales.len(), "{} scales for {} axes", scales.len(), axes.len());
        let fits = |scale: &f32| *scale > 0.0 && *scale <= LARGEST_SCALE;
        ensure!(scales.iter().all(fits), "scales must be greater than 0 and at most 2^24");
        let mut all = vec![1.0; rank];
        for (axis, scale) in axes.into_iter().zip(scales) {
            all[axis] = scale;
        }
        Ok(all)
    }

    /// Returns one size for each axis of the tensor.
    fn all_sizes(&self, sizes: &Tensor, shape: &[TDim]) -> TractResult<Vec<TDim>> {
        let sizes = sizes.cast_to::<TDim>()?;
        let sizes = sizes.try_as_plain_ram()?.as_slice::<TDim>()?.to_vec();
        let axes = self.axes(shape.len())?;
        ensure!(axes.len() == sizes.len(), "{} sizes for {} axes", sizes.len(), axes.len());
        let mut all = shape.to_vec();
        for (axis, size) in axes.into_iter().zip(sizes) {
            all[axis] = size;
        }
        Ok(all)
    }

    fn rules_for_scales<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
        scales: usize,
    ) -> InferenceResult {
        s.given_2(&inputs[0].shape, &inputs[scales].value, move |s, shape, scales| {
            for (axis, scale) in self.all_scales(&scales, shape.len())?.into_iter().enumerate() {
                let size = if scale.round() == scale {
                    shape[axis].clone() * scale as usize
                } else if let Ok(size) = shape[axis].to_usize() {
                    ((size as f32 * scale) as usize).to_dim()
                } else {
                    bail!("the dynamic size {} cannot be scaled by {scale}", shape[axis])
                };
                s.equals(&outputs[0].shape[axis], size)?;
            }
            Ok(())
        })
    }

    fn rules_for_sizes<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
        sizes: usize,
    ) -> InferenceResult {
        s.given_2(&inputs[0].shape, &inputs[sizes].value, move |s, shape, sizes| {
            for (axis, size) in self.all_sizes(&sizes, &shape)?.into_iter().enumerate() {
                s.equals(&outputs[0].shape[axis], size)?;
            }
            Ok(())
        })
    }
}

impl Expansion for Resize {
    fn name(&self) -> StaticName {
        "Resize".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_output_arity(outputs, 1)?;
        s.equals(&inputs[0].datum_type, &outputs[0].datum_type)?;
        s.equals(&inputs[0].rank, &outputs[0].rank)?;
        match (self.scales, self.sizes) {
            (Some(scales), None) => self.rules_for_scales(s, inputs, outputs, scales),
            (None, Some(sizes)) => self.rules_for_sizes(s, inputs, outputs, sizes),
            (Some(scales), Some(sizes)) => s.given(&inputs[scales].shape[0], move |s, count| {
                if count == 0.to_dim() {
                    self.rules_for_sizes(s, inputs, outputs, sizes)
                } else {
                    self.rules_for_scales(s, inputs, outputs, scales)
                }
            }),
            (None, None) => bail!("it has neither scales nor sizes"),
        }
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let shape = model.outlet_fact(inputs[0])?.shape.to_tvec();
        let constant = |model: &TypedModel, slot: Option<usize>| -> TractResult<_> {
            let Some(slot) = slot else { return Ok(None) };
            let value = model.outlet_fact(inputs[slot])?.konst.clone();
            Ok(Some(value.context("scales and sizes must be constants")?))
        };
        let mut attributes = self.attributes.clone();
        let given = match constant(model, self.scales)?.filter(|scales| scales.len() > 0) {
            Some(scales) => {
                attributes.scales_input = Some(1);
                let scales = tensor1(&self.all_scales(&scales, shape.len())?);
                model.add_const(format!("{prefix}.scales"), scales)?
            }
            None => {
                attributes.sizes_input = Some(1);
                let sizes = constant(model, self.sizes)?;
                let sizes = sizes.context("it has neither scales nor sizes")?;
                let sizes = tensor1(&self.all_sizes(&sizes, &shape)?);
                model.add_const(format!("{prefix}.sizes"), sizes)?
            }
        };
        model.wire_node(prefix, custom_ops::Resize { attributes }, &[inputs[0], given])
    }
}

#[cfg(test)]
mod tests {
    use hardtack::Tensor;
    use hardtack_bundle::DType;

    use crate::import::node::ints;
    use crate::import::rewrite::testing::{graph, input, model, node};
    use crate::import::translate::translate;
    use crate::options::quantize::QuantizeOptions;
    use crate::quantize::quantize;
    use crate::testing::noise;

    /// Imports a Conv followed by a Resize, and returns the reasons why nodes stay in float.
    fn float_reasons(batch: &str, axes: &[i64], constant: (&str, Tensor)) -> Vec<String> {
        let inputs: &[&str] = match constant.0 {
            "sizes" => &["c", "", "", "sizes"],
            _ => &["c", "", "scales"],
        };
        let attributes = if axes.is_empty() { vec![] } else { vec![ints("axes", axes)] };
        let nodes = vec![
            node("Conv", &["x", "w"], &["c"], vec![]),
            node("Resize", inputs, &["y"], attributes),
        ];
        let mut graph = graph(&[], nodes, &[("w", noise(&[4, 3, 1, 1], 1)), constant], &["y"]);
        graph.input.push(input("x", DType::F32, &[batch, "3", "8", "8"]));
        let mut model = model(graph);
        model.opset_import[0].version = 18;
        let imported = translate(model).unwrap();
        let samples: Vec<Vec<Tensor>> =
            (0..4).map(|seed| vec![noise(&[1, 3, 8, 8], seed)]).collect();
        let settings = QuantizeOptions::default();
        let quantized =
            quantize(&imported, &samples, &samples, true, &settings, &mut |_, _| {}).unwrap();
        quantized.left_in_float.into_iter().map(|left| left.reason).collect()
    }

    #[test]
    fn constant_scales_and_sizes_run_in_integers() {
        let sizes = |sizes: &[i64]| ("sizes", Tensor::new(&[sizes.len()], sizes.to_vec()).unwrap());
        let scales =
            |scales: &[f32]| ("scales", Tensor::new(&[scales.len()], scales.to_vec()).unwrap());
        for (batch, axes, constant) in [
            ("1", &[][..], scales(&[1.0, 1.0, 2.0, 1.5])),
            ("1", &[], sizes(&[1, 4, 16, 12])),
            ("1", &[2, 3], sizes(&[16, 12])),
            ("batch", &[2, 3], scales(&[2.0, 1.5])),
            ("batch", &[-1, 2], sizes(&[11, 16])),
            ("batch", &[3], sizes(&[5])),
        ] {
            let name = format!("batch {batch}, axes {axes:?}, {}", constant.0);
            assert_eq!(float_reasons(batch, axes, constant), [""; 0], "{name}");
        }
    }
}
