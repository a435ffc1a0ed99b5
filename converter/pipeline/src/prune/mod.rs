//! Structured pruning without training: removes whole channels from a model, and refits the layers
//! that read them to compensate.

mod cost;
mod flow;
mod groups;
mod importance;
mod latency;
mod matrix;
mod patches;
mod reconstruct;
mod search;
mod second_order;
mod shrink;
#[cfg(test)]
mod tests;

use hardtack::internal::Model;

use self::cost::Cost;
use self::latency::Stopwatch;
use self::reconstruct::Refit;
use self::search::Search;
use crate::error::Error;
use crate::options::prune::PruneTarget;
use crate::report::{GroupReport, PruneReport};
use crate::samples::SampleSource;

/// The minimum number of output positions per weight of an output channel. With fewer, a refitted
/// layer overfits the samples.
const PLACES: f64 = 2.0;
/// The minimum additional fraction of MACs removed in each attempt to reach a latency.
const STEP: f64 = 0.01;

/// Prunes a model, based on its activations on calibration samples. `progress` is called with the
/// number of completed steps and the number of all steps.
///
/// # Errors
/// Returns an error if the target cannot be reached, or if the model cannot be run.
pub(crate) fn prune(
    model: &Model,
    samples: &dyn SampleSource,
    target: PruneTarget,
    int8: bool,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<(Model, PruneReport), Error> {
    let flow = flow::follow(model);
    let groups = groups::groups(model, &flow);
    let cost = Cost::new(model, &flow);
    let mut readers: Vec<usize> = groups.iter().flat_map(|group| group.readers.clone()).collect();
    readers.sort();
    readers.dedup();
    let readers: Vec<&crate::graph::channels::Layer> =
        readers.iter().map(|layer| &flow.layers[*layer]).collect();
    let covariances = importance::covariances(model, &readers, samples, &mut |done| {
        progress(done, samples.count());
    })?;
    let (groups, curves): (Vec<_>, Vec<_>) = groups
        .into_iter()
        .filter_map(|group| {
            let curve = importance::curve(model, &flow, &group, &covariances)?;
            Some((group, curve))
        })
        .unzip();
    let search = |part, measure| {
        let search = Search::new(&flow, &groups, &curves, &cost, measure).without(part);
        search.map_err(|most| too_much(target, most))
    };
    let (kept, latency) = match target {
        PruneTarget::Macs(part) => (search(part, |price| price.macs)?, None),
        PruneTarget::Bytes(part) => (search(part, |price| price.bytes)?, None),
        PruneTarget::Latency(part) => {
            let mut stopwatch = Stopwatch::new(model, int8, samples)?;
            let time = |kept: &[bool]| stopwatch.part(&shrink::shrink(model, &flow, kept));
            let (kept, left) = faster(part, |part| search(part, |price| price.macs), time)?;
            (kept, Some(left))
        }
    };
    let smaller = shrink::shrink(model, &flow, &kept);
    let (smaller, refits) =
        reconstruct::reconstruct(model, &flow, &kept, smaller, samples, progress)?;
    let report = |group: &groups::Group| {
        let errors = refits.iter().filter(|refit| group.readers.contains(&refit.layer));
        let errors: Vec<f64> = errors.map(|refit| refit.error).collect();
        GroupReport {
            name: group.name.clone(),
            before: group.units.len(),
            after: group.units.iter().filter(|unit| kept[**unit]).count(),
            error: errors.iter().sum::<f64>() / errors.len().max(1) as f64,
        }
    };
    let groups = groups.iter().map(report).filter(|group| group.after < group.before).collect();
    let report = PruneReport {
        groups,
        before: cost.of(&flow, &vec![true; flow.units()]),
        after: cost.of(&flow, &kept),
        latency,
        warning: too_few(&refits, samples.count()),
    };
    Ok((smaller, report))
}

/// Returns a warning if layers were refitted on too few samples.
fn too_few(refits: &[Refit], samples: usize) -> Option<String> {
    let few = refits.iter().filter(|refit| refit.places < PLACES).count();
    let least = refits.iter().map(|refit| refit.places).fold(f64::INFINITY, f64::min);
    (few > 0).then(|| {
        format!(
            "{few} of the {} layers that were refitted had fewer than {PLACES} output positions \
             per weight of a channel in the {samples} samples (minimum {least:.2}) and may \
             overfit; calibrate on {} samples or more, or prune less",
            refits.len(),
            (samples as f64 * PLACES / least.max(f64::MIN_POSITIVE)).ceil(),
        )
    })
}

/// Removes more and more MACs until the fraction `part` of the time is removed. Returns whether
/// each unit is kept, and the remaining fraction of the time.
fn faster(
    part: f64,
    search: impl Fn(f64) -> Result<Vec<bool>, Error>,
    mut time: impl FnMut(&[bool]) -> Result<f64, Error>,
) -> Result<(Vec<bool>, f64), Error> {
    let (mut macs, mut most) = (part, 0f64);
    loop {
        let Ok(kept) = search(macs) else {
            return Err(too_much(PruneTarget::Latency(part), most));
        };
        let left = time(&kept)?;
        if left <= 1.0 - part {
            return Ok((kept, left));
        }
        most = most.max(1.0 - left);
        macs += (left - (1.0 - part)).max(STEP);
    }
}

fn too_much(target: PruneTarget, most: f64) -> Error {
    let (name, asked) = match target {
        PruneTarget::Macs(part) => ("macs", part),
        PruneTarget::Bytes(part) => ("bytes", part),
        PruneTarget::Latency(part) => ("latency", part),
    };
    Error::Options(if most <= 0.0 {
        "--prune-channels: no channels of this model can be removed: each is an input or output of \
         the model, or read by an operator that pruning does not support; omit the option"
            .into()
    } else {
        format!(
            "--prune-channels: {name}={}% cannot be reached; the maximum found for this model is \
             {name}={}%",
            percent(asked),
            percent(most)
        )
    })
}

/// Converts a fraction to percent, rounded down to one decimal.
fn percent(part: f64) -> f64 {
    (1000.0 * part + 1e-6).floor() / 10.0
}
