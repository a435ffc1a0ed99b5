//! Runs a model on samples.

use hardtack::Tensor;
use hardtack::float::{FloatModel, FloatPlan};

use crate::error::Error;
use crate::model_limits;
use crate::offloaded_model::ModelSource;
use crate::process::activity;
use crate::samples::{SampleSource, each};

/// Runs a model on each sample and returns the outputs. Weights are loaded only to make a plan.
///
/// # Errors
/// Returns an error if the model cannot be loaded or run.
pub(crate) fn outputs(
    model: &dyn ModelSource,
    samples: &dyn SampleSource,
) -> Result<Vec<Vec<Tensor>>, Error> {
    let mut all = Vec::new();
    each_output(model, samples, |_, outputs| {
        all.push(outputs);
        Ok(())
    })?;
    Ok(all)
}

/// Like [`outputs`], but passes the index of each sample and its outputs to `visit`.
///
/// # Errors
/// Returns an error if the model cannot be loaded or run, or the first error of `visit`.
pub(crate) fn each_output(
    model: &dyn ModelSource,
    samples: &dyn SampleSource,
    mut visit: impl FnMut(usize, Vec<Tensor>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut plan: Option<(Vec<Vec<usize>>, FloatPlan)> = None;
    for (index, sample) in each(samples).enumerate() {
        let sample = sample?;
        let shapes: Vec<Vec<usize>> = sample.iter().map(|t| t.shape().to_vec()).collect();
        if plan.as_ref().is_none_or(|(planned, _)| *planned != shapes) {
            // Only one plan at a time is in memory.
            drop(plan.take());
            model_limits::check(model.graph(), &shapes)?;
            let views: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
            let loaded = FloatModel::load(&model.load()?, false)?;
            let fresh = loaded.into_plan(&views)?;
            plan = Some((shapes, fresh));
        }
        let (_, plan) = plan.as_mut().expect("planned above");
        // Samples are independent: clear the state of the previous one.
        plan.reset()?;
        visit(index, plan.run(&sample.iter().collect::<Vec<_>>())?)?;
    }
    activity::note("");
    Ok(())
}
