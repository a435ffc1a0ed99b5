//! Compares the outputs of two models.

use hardtack::internal::Constant;
use hardtack::{Data, Tensor};

use crate::error::Error;
use crate::float_run::outputs;
use crate::offloaded_model::{ModelSource, OffloadedModel};
use crate::samples::{SampleSource, each};
use crate::storage::dynamic;

/// The tolerance of an output element, as a fraction of its value.
const RELATIVE: f64 = 1e-3;
/// The additional tolerance of an output element, as a fraction of the original output's range.
const OF_RANGE: f64 = 1e-4;

/// The difference between two sets of outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Difference {
    /// The largest absolute difference of an element, as a fraction of the original output's range.
    pub of_range: f64,
    /// Whether some element exceeds the tolerance for rounding.
    pub differs: bool,
}

impl Difference {
    /// Compares the outputs of one sample. The difference is infinite for tensors of another shape
    /// or type, and for NaN where the original has none.
    pub(crate) fn of(original: &[Tensor], other: &[Tensor]) -> Difference {
        let mut worst = Difference::default();
        if original.len() != other.len() {
            return Difference { of_range: f64::INFINITY, differs: true };
        }
        for (a, b) in original.iter().zip(other) {
            worst = worst.max(Difference::of_tensors(a, b));
        }
        worst
    }

    fn of_tensors(original: &Tensor, other: &Tensor) -> Difference {
        if original.shape() != other.shape() || original.dtype() != other.dtype() {
            return Difference { of_range: f64::INFINITY, differs: true };
        }
        let (a, b) = (original.to_f32(), other.to_f32());
        let finite = a.iter().filter(|x| x.is_finite());
        let low = finite.clone().copied().fold(f32::INFINITY, f32::min) as f64;
        let high = finite.copied().fold(f32::NEG_INFINITY, f32::max) as f64;
        // A constant output has no range; use its magnitude instead.
        let range = if high > low { high - low } else { high.abs().max(f64::MIN_POSITIVE) };
        let mut worst = Difference::default();
        for (x, y) in a.iter().zip(&b) {
            let (x, y) = (*x as f64, *y as f64);
            if x == y || (x.is_nan() && y.is_nan()) {
                continue;
            }
            let off = (x - y).abs();
            let off = if off.is_nan() { f64::INFINITY } else { off };
            worst = worst.max(Difference {
                of_range: off / range,
                differs: off > RELATIVE * x.abs() + OF_RANGE * range,
            });
        }
        worst
    }

    /// Returns the worse of two differences.
    pub(crate) fn max(self, other: Difference) -> Difference {
        Difference {
            of_range: self.of_range.max(other.of_range),
            differs: self.differs || other.differs,
        }
    }
}

/// Measures how much a model's outputs change when its f32 inputs, and then its f32 weights, are
/// scaled alternately up and down by one part in a million. That is comparable to the rounding of a
/// few layers, so no rewriting can be required to change the outputs less.
///
/// Constants of rank 0 or 1 may be sizes, so they are left unchanged, except the scales and biases
/// of dynamically quantized matmuls.
///
/// # Errors
/// Returns an error if the model cannot be loaded or run.
pub(crate) fn sensitivity(
    model: &dyn ModelSource,
    samples: &dyn SampleSource,
    outputs_of_samples: &[Vec<Tensor>],
) -> Result<Difference, Error> {
    let inputs = each(samples).map(|sample| Ok(sample?.into_owned()));
    let mut inputs = inputs.collect::<Result<Vec<Vec<Tensor>>, Error>>()?;
    inputs.iter_mut().flatten().for_each(disturb);
    let mut weights = model.load()?;
    let of_products = dynamic::constants(model.graph());
    for (index, constant) in weights.constants.iter_mut().enumerate() {
        if let Constant::Tensor(tensor) = constant
            && (tensor.shape().len() > 1 || of_products.contains(&(index as u32)))
        {
            let mut disturbed = Tensor::clone(tensor);
            disturb(&mut disturbed);
            *tensor = disturbed.into();
        }
    }
    let by_inputs = compare(outputs_of_samples, &outputs(model, &inputs)?);
    let by_weights =
        compare(outputs_of_samples, &outputs(&OffloadedModel::new(weights)?, samples)?);
    Ok(by_inputs.max(by_weights))
}

fn disturb(tensor: &mut Tensor) {
    if let Data::F32(values) = tensor.data_mut() {
        for (index, value) in values.iter_mut().enumerate() {
            *value *= if index % 2 == 0 { 1.0 + DISTURBANCE } else { 1.0 - DISTURBANCE };
        }
    }
}

/// The relative disturbance, about one part in a million.
const DISTURBANCE: f32 = 1.0 / (1 << 20) as f32;

/// Returns the worst difference over all samples.
pub(crate) fn compare(original: &[Vec<Tensor>], other: &[Vec<Tensor>]) -> Difference {
    original
        .iter()
        .zip(other)
        .map(|(a, b)| Difference::of(a, b))
        .fold(Difference::default(), Difference::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(values: &[f32]) -> Tensor {
        Tensor::new(&[values.len()], values.to_vec()).unwrap()
    }

    #[test]
    fn rounding_is_within_the_tolerance() {
        let a = [tensor(&[0.0, 1.0, 10.0])];
        assert!(!Difference::of(&a, &[tensor(&[0.0005, 1.0005, 10.005])]).differs);
        assert!(Difference::of(&a, &[tensor(&[0.0, 1.1, 10.0])]).differs);
    }

    #[test]
    fn nan_and_other_shapes_differ() {
        let a = [tensor(&[0.0, 1.0])];
        assert!(Difference::of(&a, &[tensor(&[f32::NAN, 1.0])]).differs);
        assert!(Difference::of(&a, &[tensor(&[0.0])]).differs);
        assert!(Difference::of(&a, &[]).differs);
    }
}
