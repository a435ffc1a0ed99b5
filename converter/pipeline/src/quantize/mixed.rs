//! Which layers stay in float so that the outputs keep an error budget: those that take away the
//! most error for the time they cost, both measured.

use std::time::Instant;

use hardtack::float::{FloatModel, FloatPlan};
use hardtack::{Model, Tensor};
use hardtack_bundle::graph::{Operator, Outlet};

use super::calibrate::Calibration;
use super::region::{self, Refused};
use super::{assemble, function};
use crate::error::Error;

/// Samples that are run to measure error and time.
const MEASURED: usize = 4;
/// Runs of a sample, of which the fastest counts.
const RUNS: usize = 2;
/// So many of the kept layers are tried as integers once more, in the end.
const GIVEN_BACK: usize = 24;

/// What a mix of integers and float does.
#[derive(Clone, Copy, Debug)]
struct Measured {
    /// Root mean square error of the worst output, as a part of its root mean square.
    error: f64,
    /// Seconds of a run.
    seconds: f64,
}

/// A layer, and what follows it without weights of its own.
struct Candidate {
    nodes: Vec<usize>,
    /// With it in integers and all other layers in float.
    alone: Measured,
}

/// Refuses layers until the error is at most `budget`, and says of each why.
///
/// # Errors
/// Where the model cannot be run, or no mix keeps the budget.
pub fn keep_in_float(
    model: &Model,
    calibration: &Calibration,
    refused: &mut Refused,
    samples: &[Vec<Tensor>],
    budget: f64,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<(), Error> {
    let samples = &samples[..samples.len().min(MEASURED)];
    let mut search = Search { model, calibration, samples, float: Vec::new() };
    let (outputs, float_seconds) = search.run(model)?;
    search.float = outputs;
    let integer = search.measure(refused, &[])?;
    if integer.error <= budget {
        return Ok(());
    }
    let layers: Vec<usize> = region::regions(model, refused)
        .iter()
        .flat_map(|region| region.nodes.clone())
        .filter(|index| {
            matches!(model.graph.nodes[*index].operator, Operator::Conv(_) | Operator::Einsum(_))
        })
        .collect();
    let groups: Vec<Vec<usize>> =
        layers.iter().map(|layer| with_followers(model, *layer)).collect();
    let mut candidates = Vec::new();
    for (done, nodes) in groups.iter().enumerate() {
        progress(done, groups.len());
        let others: Vec<&[usize]> =
            groups.iter().filter(|other| *other != nodes).map(Vec::as_slice).collect();
        let alone = search.measure(refused, &others)?;
        candidates.push(Candidate { nodes: nodes.clone(), alone });
    }
    // Errors of several layers are nearly independent, so that their squares add up. Alone, many a
    // layer saves nothing, as its values are converted before and after it; beside others it does.
    let usual = float_seconds / candidates.len().max(1) as f64;
    let worth = |candidate: &Candidate| {
        let saved = float_seconds - candidate.alone.seconds;
        candidate.alone.error.powi(2) / saved.max(usual)
    };
    candidates.sort_by(|a, b| worth(b).total_cmp(&worth(a)));
    let lists: Vec<&[usize]> = candidates.iter().map(|c| c.nodes.as_slice()).collect();

    // The fewest of the best that keep the budget.
    let (mut least, mut enough) = (0, lists.len());
    while least < enough {
        let middle = usize::midpoint(least, enough);
        match search.measure(refused, &lists[..middle])?.error <= budget {
            true => enough = middle,
            false => least = middle + 1,
        }
    }
    let mut kept: Vec<usize> = (0..enough).collect();
    let mut reached = search.measure(refused, &lists[..enough])?;
    if reached.error > budget {
        return Err(Error::Options(format!(
            "an error of {:.2} % is asked for, and with all layers in float {:.2} % are left; \
             allow more",
            100.0 * budget,
            100.0 * reached.error
        )));
    }
    for given in kept.clone().into_iter().rev().take(GIVEN_BACK) {
        let without: Vec<&[usize]> =
            kept.iter().filter(|other| **other != given).map(|other| lists[*other]).collect();
        let measured = search.measure(refused, &without)?;
        if measured.error <= budget {
            kept.retain(|other| *other != given);
            reached = measured;
        }
    }
    let percent = |error: f64| format!("{:.2} %", 100.0 * error);
    for index in kept {
        let Candidate { nodes, alone } = &candidates[index];
        for node in nodes {
            let reason = format!(
                "in integers it alone makes the outputs' error {}, and saves {:.0} µs a run; with \
                 what is kept the error is {}, without {}",
                percent(alone.error),
                1e6 * (float_seconds - alone.seconds).max(0.0),
                percent(reached.error),
                percent(integer.error),
            );
            refused.insert(*node, reason);
        }
    }
    Ok(())
}

/// A layer and the functions of what it gives.
pub fn with_followers(model: &Model, layer: usize) -> Vec<usize> {
    let value = Outlet { node: layer as u32, slot: 0 };
    std::iter::once(layer).chain(function::of(model, value)).collect()
}

/// Measures mixes of one model.
struct Search<'a> {
    model: &'a Model,
    calibration: &'a Calibration,
    samples: &'a [Vec<Tensor>],
    /// What the float model gives.
    float: Vec<Vec<Tensor>>,
}

impl Search<'_> {
    /// With these nodes in float besides those refused before.
    fn measure(&self, refused: &Refused, kept: &[&[usize]]) -> Result<Measured, Error> {
        let mut refused = refused.clone();
        let nodes = kept.iter().flat_map(|nodes| nodes.iter());
        refused.extend(nodes.map(|node| (*node, String::new())));
        let (regions, lowered) = assemble::lower(self.model, self.calibration, &Default::default(), &mut refused);
        let mixed = assemble::assemble(self.model.clone(), &regions, lowered);
        let (outputs, seconds) = self.run(&mixed)?;
        Ok(Measured { error: relative_error(&self.float, &outputs), seconds })
    }

    /// Outputs on each sample, and the mean seconds of a run.
    fn run(&self, model: &Model) -> Result<(Vec<Vec<Tensor>>, f64), Error> {
        let loaded = FloatModel::load(model, false)?;
        let (mut all, mut seconds) = (Vec::new(), 0.0);
        let mut planned: Option<FloatPlan> = None;
        for sample in self.samples {
            let shapes: Vec<&[usize]> = sample.iter().map(Tensor::shape).collect();
            let plan = planned.take().filter(|plan| plan.input_shapes() == shapes);
            let plan = planned.insert(match plan {
                Some(plan) => plan,
                None => loaded.plan(&shapes)?,
            });
            let inputs: Vec<&Tensor> = sample.iter().collect();
            let mut fastest = f64::INFINITY;
            let mut outputs = Vec::new();
            for _ in 0..RUNS {
                plan.reset()?;
                let began = Instant::now();
                outputs = plan.run(&inputs)?;
                fastest = fastest.min(began.elapsed().as_secs_f64());
            }
            all.push(outputs);
            seconds += fastest / self.samples.len() as f64;
        }
        Ok((all, seconds))
    }
}

/// Root mean square difference of the worst output over all samples, as a part of its root mean
/// square.
pub fn relative_error(original: &[Vec<Tensor>], other: &[Vec<Tensor>]) -> f64 {
    let outputs = original.first().map_or(0, Vec::len);
    let of = |output: usize| {
        let (mut signal, mut noise) = (0.0, 0.0);
        for (a, b) in original.iter().zip(other) {
            for (a, b) in a[output].to_f32().iter().zip(b[output].to_f32()) {
                signal += f64::from(*a).powi(2);
                noise += f64::from(*a - b).powi(2);
            }
        }
        (noise / signal.max(f64::MIN_POSITIVE)).sqrt()
    };
    (0..outputs).map(of).fold(0.0, f64::max)
}
