//! Whether two models give the same numbers.

use hardtack::float::FloatModel;
use hardtack::{Constant, Data, Tensor};

use crate::error::Error;
use crate::guard;
use crate::quantize::dynamic;
use crate::resting::{Resting, Sleeper};
use crate::samples::{Source, each};
use crate::work;

/// How far an output may be from the original's: this part of its value …
const RELATIVE: f64 = 1e-3;
/// … and this part of the original's range.
const OF_RANGE: f64 = 1e-4;

/// The difference of two sets of outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Difference {
    /// Largest absolute difference of an element, as a part of the range of the original's
    /// output.
    pub of_range: f64,
    /// Whether some element is further off than rounding explains.
    pub differs: bool,
}

impl Difference {
    /// Of the outputs of one sample. Tensors of another shape or type, and NaN where the
    /// original has none, differ wholly.
    pub fn of(original: &[Tensor], other: &[Tensor]) -> Difference {
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
        // A constant output has no range; its size stands for it.
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

    /// The worse of two.
    pub fn max(self, other: Difference) -> Difference {
        Difference {
            of_range: self.of_range.max(other.of_range),
            differs: self.differs || other.differs,
        }
    }
}

/// Runs a model on each sample. It wakes only to be made ready to run.
///
/// # Errors
/// Where it cannot be loaded or run.
pub fn outputs(model: &dyn Sleeper, samples: &dyn Source) -> Result<Vec<Vec<Tensor>>, Error> {
    let mut plan: Option<(Vec<Vec<usize>>, hardtack::float::FloatPlan)> = None;
    let mut all = Vec::new();
    for sample in each(samples) {
        let sample = sample?;
        let shapes: Vec<Vec<usize>> = sample.iter().map(|t| t.shape().to_vec()).collect();
        if plan.as_ref().is_none_or(|(planned, _)| *planned != shapes) {
            // One at a time is in memory.
            drop(plan.take());
            work::check(model.graph(), &shapes)?;
            let views: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
            let loaded = FloatModel::load(&model.awake()?, false)?;
            let fresh = loaded.into_plan(&views)?;
            plan = Some((shapes, fresh));
        }
        let (_, plan) = plan.as_mut().expect("planned above");
        // Each sample stands on its own: no state may reach it from the one before.
        plan.reset()?;
        all.push(plan.run(&sample.iter().collect::<Vec<_>>())?);
    }
    guard::note("");
    Ok(all)
}

/// How much a model's outputs change when each real input, and then each real weight, changes by
/// one part in a million, up and down in turn (of lists of numbers, which may be sizes, only scales and
/// biases of products in integers): as much as rounding in a few layers does. No rewriting can be held
/// to less.
///
/// # Errors
/// Where it cannot be loaded or run.
pub fn sensitivity(
    model: &dyn Sleeper,
    samples: &dyn Source,
    outputs_of_samples: &[Vec<Tensor>],
) -> Result<Difference, Error> {
    let inputs = each(samples).map(|sample| Ok(sample?.into_owned()));
    let mut inputs = inputs.collect::<Result<Vec<Vec<Tensor>>, Error>>()?;
    inputs.iter_mut().flatten().for_each(disturb);
    let mut weights = model.awake()?;
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
    let by_weights = compare(outputs_of_samples, &outputs(&Resting::new(weights)?, samples)?);
    Ok(by_inputs.max(by_weights))
}

fn disturb(tensor: &mut Tensor) {
    if let Data::F32(values) = tensor.data_mut() {
        for (index, value) in values.iter_mut().enumerate() {
            *value *= if index % 2 == 0 { 1.0 + DISTURBANCE } else { 1.0 - DISTURBANCE };
        }
    }
}

/// One part in about a million.
const DISTURBANCE: f32 = 1.0 / (1 << 20) as f32;

/// The worst difference over samples.
pub fn compare(original: &[Vec<Tensor>], other: &[Vec<Tensor>]) -> Difference {
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
    fn rounding_is_no_difference() {
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
