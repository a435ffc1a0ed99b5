//! Structured pruning without training: takes whole channels out of a model, and lets the layers
//! that read them make up for it.

mod cost;
mod flow;
mod groups;
mod importance;
mod latency;
mod matrix;
mod moments;
mod patches;
mod reconstruct;
mod search;
mod shrink;
#[cfg(test)]
mod tests;

use std::fmt;

use hardtack::Model;
use serde::Serialize;

use self::cost::Cost;
use self::latency::Stopwatch;
use self::reconstruct::Refit;
use self::search::Search;
use crate::error::Error;
use crate::samples::Source;

pub use self::cost::Price;

/// Places of the samples for each weight of an output channel: with fewer, a layer fits the samples
/// and not what they stand for.
const PLACES: f64 = 2.0;
/// What is taken away at least in each try for a latency, of multiply-accumulates.
const STEP: f64 = 0.01;

/// What pruning takes away, as a part of what the layers of the model have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PruneTarget {
    /// Multiply-accumulates.
    Macs(f64),
    /// Bytes of real weights.
    Bytes(f64),
    /// The time of a run on this machine, in INT8 where that is asked for.
    Latency(f64),
}

impl fmt::Display for PruneTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, part) = match self {
            PruneTarget::Macs(part) => ("macs", part),
            PruneTarget::Bytes(part) => ("bytes", part),
            PruneTarget::Latency(part) => ("latency", part),
        };
        write!(f, "{what}={}%", 100.0 * part)
    }
}

/// A group of channels that went through the same values.
#[derive(Clone, Debug, Serialize)]
pub struct GroupReport {
    /// The layer that makes them.
    pub name: String,
    /// Channels before.
    pub before: usize,
    /// Channels after.
    pub after: usize,
    /// Squared error of the layers that read them, after these were fitted, as a part of their
    /// outputs' variance: the mean over them.
    pub error: f64,
}

/// What was pruned.
#[derive(Clone, Debug, Serialize)]
pub struct PruneReport {
    /// The groups of channels that lost some.
    pub groups: Vec<GroupReport>,
    /// What its layers cost before.
    pub before: Price,
    /// What they cost after.
    pub after: Price,
    /// The part of the time that is left, where that was the target.
    pub latency: Option<f64>,
    /// What the user should know of it.
    #[serde(skip)]
    pub warning: Option<String>,
}

/// Prunes a model by its values on calibration samples; `progress` is told how many of how many
/// are done.
///
/// # Errors
/// Where nothing can be pruned or not as much as asked, or the model cannot be run on a sample.
pub fn prune(
    model: &Model,
    samples: &dyn Source,
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
    let readers: Vec<&crate::channels::Layer> =
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

/// A warning where layers were fitted anew on too little.
fn too_few(refits: &[Refit], samples: usize) -> Option<String> {
    let few = refits.iter().filter(|refit| refit.places < PLACES).count();
    let least = refits.iter().map(|refit| refit.places).fold(f64::INFINITY, f64::min);
    (few > 0).then(|| {
        format!(
            "{few} of the {} layers that were fitted anew saw fewer than {PLACES} places of the \
             {samples} samples for each weight of a channel, the least {least:.2}, and may fit only \
             these; calibrate on {} samples or more, or prune less",
            refits.len(),
            (samples as f64 * PLACES / least.max(f64::MIN_POSITIVE)).ceil(),
        )
    })
}

/// Fewer and fewer multiply-accumulates, until this part of the time is gone: the units that are
/// kept, and the part of the time that is left.
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
        "--prune-channels: no channels of this model can be removed: each is read by something \
         that is not understood, or is an input or output of the model; leave the option out"
            .into()
    } else {
        format!(
            "--prune-channels: {name}={}% is asked, and the most that was found for this model is \
             {name}={}%; ask for less",
            percent(asked),
            percent(most)
        )
    })
}

/// Hundredths, to one digit after the point, rounded down.
fn percent(part: f64) -> f64 {
    (1000.0 * part + 1e-6).floor() / 10.0
}
