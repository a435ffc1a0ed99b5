//! Resize in all modes that a bundle supports.

use hardtack_bundle::graph;
use hardtack_bundle::graph::{CoordinateTransform, Interpolation};
use tract_core::internal::*;
use tract_core::ops::nn;
use tract_core::ops::nn::resize::{
    AxisPlan, cubic_weights, is_pixel_replication, linear_weights, lower_nearest_integer_upsample,
    plan_axis, probe_length, resample_axis, window_size,
};
use tract_core::ops::nn::{CoordTransformer, Interpolator, Nearest};

/// The maximum size of an intermediate value, which is resized along some axes only: this multiple
/// of the larger of input and output, or [`MOST_BETWEEN`] elements, whichever is larger.
const BETWEEN: u64 = 16;
const MOST_BETWEEN: u64 = 1 << 22;

/// Resizes by interpolation in all modes, of which tract's operation supports only some. Inputs: x
/// and, depending on the attributes, scales or sizes with one element per axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Resize {
    /// The attributes. Their input indices count x as 0.
    pub attributes: graph::Resize,
}

impl Eq for Resize {}

impl Resize {
    /// The only cubic coefficient that tract's operation supports.
    pub(in crate::float) const CORE_CUBIC_COEFFICIENT: f32 = -0.75;

    /// Returns whether the intermediate values have a limited size. Axes are resized one after the
    /// other.
    pub(in crate::float) fn is_bounded(input: &[usize], output: &[usize]) -> bool {
        let elements = |shape: &mut dyn Iterator<Item = usize>| {
            shape.fold(1u64, |all, size| all.saturating_mul(size.max(1) as u64))
        };
        let ends = elements(&mut input.iter().copied()).max(elements(&mut output.iter().copied()));
        let pairs = input.iter().zip(output).map(|(input, output)| *input.max(output));
        elements(&mut { pairs }) <= ends.saturating_mul(BETWEEN).max(MOST_BETWEEN)
    }

    /// Returns tract's operation if it computes the same.
    pub(in crate::float) fn to_core(&self) -> Option<nn::Resize> {
        let a = &self.attributes;
        let cubic = a.interpolation == Interpolation::Cubic;
        if a.exclude_outside || (cubic && a.cubic_coefficient != Self::CORE_CUBIC_COEFFICIENT) {
            return None;
        }
        let nearest = match a.interpolation {
            Interpolation::NearestRoundPreferCeil => Nearest::RoundPreferCeil,
            Interpolation::NearestRoundPreferFloor | Interpolation::NearestCeil => return None,
            _ => Nearest::Floor,
        };
        Some(nn::Resize {
            coord_transformer: self.coordinates(),
            interpolator: self.interpolator(),
            nearest,
            optional_scales_input: a.scales_input.map(|input| input as usize),
            optional_sizes_input: a.sizes_input.map(|input| input as usize),
        })
    }

    /// Returns a tract operation that is used only to compute output shapes.
    fn shaper(&self) -> nn::Resize {
        nn::Resize {
            coord_transformer: CoordTransformer::HalfPixel,
            interpolator: Interpolator::Linear,
            nearest: Nearest::Floor,
            optional_scales_input: None,
            optional_sizes_input: None,
        }
    }

    fn coordinates(&self) -> CoordTransformer {
        match self.attributes.coordinates {
            CoordinateTransform::HalfPixel => CoordTransformer::HalfPixel,
            CoordinateTransform::AlignCorners => CoordTransformer::AlignCorners,
            CoordinateTransform::Asymmetric => CoordTransformer::Asymmetric,
            CoordinateTransform::PytorchHalfPixel => CoordTransformer::PytorchHalfPixel,
            CoordinateTransform::HalfPixelSymmetric => CoordTransformer::HalfPixelSymmetric,
            CoordinateTransform::TfHalfPixelForNn => CoordTransformer::TfHalfPixelForNn,
        }
    }

    fn interpolator(&self) -> Interpolator {
        match self.attributes.interpolation {
            Interpolation::Linear => Interpolator::Linear,
            Interpolation::Cubic => Interpolator::Cubic,
            Interpolation::NearestFloor
            | Interpolation::NearestRoundPreferCeil
            | Interpolation::NearestRoundPreferFloor
            | Interpolation::NearestCeil => Interpolator::Nearest,
        }
    }

    /// Returns whether to take the right neighbor at this distance from the left one.
    fn prefers_right(&self, distance: f32) -> bool {
        match self.attributes.interpolation {
            Interpolation::NearestRoundPreferCeil => distance >= 0.5,
            Interpolation::NearestRoundPreferFloor => distance > 0.5,
            Interpolation::NearestCeil => true,
            _ => false,
        }
    }

    fn plan(&self, scale: f32, before: usize, after: usize) -> AxisPlan {
        let a = &self.attributes;
        let transform = self.coordinates();
        let interpolator = self.interpolator();
        let window = window_size(&interpolator, false, scale);
        let coordinate = |x| Some(transform.transform(x, scale, before, after));
        let weights = |r: f32, weights: &mut [f32]| match interpolator {
            Interpolator::Linear => linear_weights(r, scale, false, weights),
            Interpolator::Cubic => cubic_weights(r, scale, a.cubic_coefficient, false, weights),
            Interpolator::Nearest => {
                let right = r == 1.0 || self.prefers_right(r);
                weights[0] = !right as u8 as f32;
                weights[1] = right as u8 as f32;
            }
        };
        plan_axis(before, after, window, a.exclude_outside, coordinate, weights)
    }

    fn given<'t, T>(&self, inputs: &'t [T]) -> (Option<&'t T>, Option<&'t T>) {
        let input = |index: Option<u32>| index.and_then(|index| inputs.get(index as usize));
        (input(self.attributes.scales_input), input(self.attributes.sizes_input))
    }
}

impl Op for Resize {
    fn name(&self) -> StaticName {
        "Resize".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Resize {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let (scales, sizes) = self.given(&inputs);
        let x = inputs.first().context("it has no input")?;
        let dtype = x.datum_type();
        let shape = x.shape();
        let output =
            self.shaper().compute_output_shape(shape, scales.map(|t| &**t), sizes.map(|t| &**t))?;
        ensure!(!shape.contains(&0), "its input is empty");
        ensure!(Self::is_bounded(shape, &output), "it needs too much memory between its axes");
        let scales: Vec<f32> = match scales.filter(|scales| scales.len() == shape.len()) {
            Some(scales) => {
                scales.cast_to::<f32>()?.try_as_plain_ram()?.as_slice::<f32>()?.to_vec()
            }
            None => output.iter().zip(shape).map(|(o, i)| *o as f32 / *i as f32).collect(),
        };
        let mut data = x.cast_to::<f32>()?.try_as_plain_ram()?.as_slice::<f32>()?.to_vec();
        let mut shape: TVec<usize> = shape.into();
        for (axis, scale) in scales.into_iter().enumerate() {
            let (before, after) = (shape[axis], output[axis]);
            if before == after && scale == 1.0 {
                continue;
            }
            let plan = self.plan(scale, before, after);
            let mut resampled = vec![0f32; data.len() / before * after];
            resample_axis(&data, &shape, axis, &plan, 0.0, &mut resampled);
            data = resampled;
            shape[axis] = after;
        }
        let output = Tensor::from_shape(&shape, &data)?.cast_to_dt(dtype)?.into_owned();
        Ok(tvec!(output.into_tvalue()))
    }
}

impl TypedOp for Resize {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let (scales, sizes) = self.given(inputs);
        let shape = self.shaper().compute_output_shape(
            &inputs[0].shape,
            scales.and_then(|fact| fact.konst.as_deref()),
            sizes.and_then(|fact| fact.konst.as_deref()),
        )?;
        // tract panics on a negative dimension.
        let negative = shape.iter().find(|dim| dim.as_i64().is_some_and(|dim| dim < 0));
        ensure!(negative.is_none(), "an output size is {negative:?}");
        Ok(tvec!(inputs[0].datum_type.fact(&shape)))
    }

    /// Replaces itself with tract's operation if that computes the same, or with a repetition of
    /// elements.
    fn declutter(
        &self,
        model: &TypedModel,
        node: &TypedNode,
    ) -> TractResult<Option<TypedModelPatch>> {
        let (from, to) = (model.outlet_fact(node.inputs[0])?, &node.outputs[0].fact);
        let bounded = match (from.shape.as_concrete(), to.shape.as_concrete()) {
            (Some(from), Some(to)) => Self::is_bounded(from, to),
            _ => false,
        };
        if let Some(core) = self.to_core().filter(|_| bounded) {
            return TypedModelPatch::replace_single_op(model, node, &node.inputs, core).map(Some);
        }
        rule_if!(matches!(self.interpolator(), Interpolator::Nearest));
        rule_if_some!(input = self.attributes.scales_input);
        rule_if_some!(scales = &model.outlet_fact(node.inputs[input as usize])?.konst);
        let shape = &model.outlet_fact(node.inputs[0])?.shape;
        rule_if!(scales.len() == shape.rank());
        let scales = scales.cast_to::<f32>()?.try_as_plain_ram()?.as_slice::<f32>()?.to_vec();
        rule_if!(scales.iter().all(|scale| *scale >= 1.0 && scale.fract() == 0.0));
        let whole: Vec<usize> = scales.iter().map(|scale| *scale as usize).collect();
        for (axis, scale) in whole.iter().enumerate().filter(|(_, scale)| **scale > 1) {
            rule_if_some!(before = probe_length(&self.coordinates(), &shape[axis]));
            let plan = self.plan(*scale as f32, before, before * scale);
            rule_if!(is_pixel_replication(&plan, *scale));
        }
        lower_nearest_integer_upsample(model, node, &whole)
    }

    as_op!();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(interpolation: Interpolation, exclude_outside: bool) -> Vec<f32> {
        let op = Resize {
            attributes: graph::Resize {
                coordinates: CoordinateTransform::HalfPixel,
                interpolation,
                scales_input: None,
                sizes_input: Some(1),
                cubic_coefficient: -0.5,
                exclude_outside,
            },
        };
        let x = tensor1(&[1f32, 2.0, 3.0, 4.0]);
        let inputs = tvec!(x.into_tvalue(), tensor1(&[6i64]).into_tvalue());
        let y = op.eval(&EvalContext::out_of_plan(), inputs).unwrap().remove(0);
        y.try_as_plain_ram().unwrap().as_slice::<f32>().unwrap().to_vec()
    }

    #[test]
    fn ties_are_rounded_as_the_mode_requires() {
        // Outputs 1 and 4 are at 0.5 and 2.5.
        assert_eq!(
            run(Interpolation::NearestRoundPreferFloor, false),
            [1.0, 1.0, 2.0, 3.0, 3.0, 4.0]
        );
        assert_eq!(run(Interpolation::NearestCeil, false), [1.0, 2.0, 3.0, 3.0, 4.0, 4.0]);
    }

    #[test]
    fn weights_without_outside_neighbors_sum_to_one() {
        let inside = run(Interpolation::Cubic, true);
        let edge = run(Interpolation::Cubic, false);
        assert_ne!(inside[0], edge[0]);
        assert!(inside.iter().all(|y| (0.5..4.5).contains(y)), "{inside:?}");
    }
}
