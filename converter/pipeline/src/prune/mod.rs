//! Structured pruning without training: takes whole channels out of a model, and lets the layers
//! that read them make up for it.

mod cost;
mod flow;
mod groups;
mod importance;
mod layer;
mod matrix;
mod moments;
mod reconstruct;
mod search;
mod shrink;

use hardtack::{Model, Tensor};
use serde::Serialize;

use self::cost::Cost;
use crate::error::Error;

pub use self::cost::Price;

/// What pruning takes away, as a part of what the layers of the model have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PruneTarget {
    /// Multiply-accumulates.
    Macs(f64),
    /// Bytes of real weights.
    Bytes(f64),
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
}

/// Prunes a model by its values on calibration samples; `progress` is told how many of how many
/// are done.
///
/// # Errors
/// Where nothing can be pruned or not as much as asked, or the model cannot be run on a sample.
pub fn prune(
    model: &Model,
    samples: &[Vec<Tensor>],
    target: PruneTarget,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<(Model, PruneReport), Error> {
    let flow = flow::follow(model);
    let groups = groups::groups(model, &flow);
    let cost = Cost::new(model, &flow);
    let mut readers: Vec<usize> = groups.iter().flat_map(|group| group.readers.clone()).collect();
    readers.sort();
    readers.dedup();
    let readers: Vec<&layer::Layer> = readers.iter().map(|layer| &flow.layers[*layer]).collect();
    let covariances = importance::covariances(model, &readers, samples, &mut |done| {
        progress(done, samples.len());
    })?;
    let (groups, curves): (Vec<_>, Vec<_>) = groups
        .into_iter()
        .filter_map(|group| {
            let curve = importance::curve(model, &flow, &group, &covariances)?;
            Some((group, curve))
        })
        .unzip();
    let kept = search::search(&flow, &groups, &curves, &cost, target)
        .map_err(|most| too_much(target, most))?;
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
    };
    Ok((smaller, report))
}

fn too_much(target: PruneTarget, most: f64) -> Error {
    let (name, asked) = match target {
        PruneTarget::Macs(part) => ("macs", part),
        PruneTarget::Bytes(part) => ("bytes", part),
    };
    Error::Options(if most <= 0.0 {
        "--prune-channels: no channels of this model can be removed: every one is read by something \
         that is not understood, or is an input or output of the model; leave the option out"
            .into()
    } else {
        format!(
            "--prune-channels: {name}={:.0}% is asked, and the most that can be had of this model is \
             {name}={:.0}%; ask for less",
            100.0 * asked,
            (100.0 * most).floor()
        )
    })
}
