//! Which layers get activations of 16 bits, or stay in float, so that the outputs keep an error
//! budget: those that take away the most error for the time they cost, both measured.

use std::collections::HashMap;
use std::time::Instant;

use hardtack::float::{FloatModel, FloatPlan};
use hardtack::{Model, Tensor};
use hardtack_bundle::graph::{Operator, Outlet};

use super::calibrate::Calibration;
use super::region::{self, Refused};
use super::{Int16Nodes, assemble, function};
use crate::error::Error;
use crate::samples::{First, Source, each};

/// Samples that are run to measure error and time.
const MEASURED: usize = 4;
/// Runs of a sample, of which the fastest counts.
const RUNS: usize = 2;
/// So many of the layers that are not in 8 bits are tried so once more, in the end.
const GIVEN_BACK: usize = 24;

/// What a mix of integers and float does.
#[derive(Clone, Copy, Debug)]
struct Measured {
    /// Root mean square error of the worst output, as a part of its root mean square.
    error: f64,
    /// Seconds of a run.
    seconds: f64,
}

/// What a layer and its followers are computed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Int8,
    /// Activations of 16 bits.
    Int16,
    Float,
}

/// A layer, and what follows it without weights of its own.
struct Candidate {
    nodes: Vec<usize>,
    /// With it in 8 bits and all other layers in float.
    alone: Measured,
}

/// Gives layers 16 bits, and where these are not enough refuses them, until the error is at most
/// `budget`; says of each why.
///
/// # Errors
/// Where the model cannot be run, or no mix keeps the budget.
pub fn search(
    model: &Model,
    calibration: &Calibration,
    (int16, refused): (&mut Int16Nodes, &mut Refused),
    samples: &dyn Source,
    budget: f64,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<(), Error> {
    let samples = &First(samples, MEASURED);
    let mut search = Search { model, calibration, samples, float: Vec::new() };
    let (outputs, float_seconds) = search.run(model)?;
    search.float = outputs;
    let integer = search.measure(int16, refused, [].into_iter())?;
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
        let others = groups.iter().filter(|other| *other != nodes);
        let others = others.map(|nodes| (nodes.as_slice(), Form::Float));
        let alone = search.measure(&HashMap::new(), refused, others)?;
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
    let count = candidates.len();
    let measure = |forms: &[Form]| {
        let nodes = candidates.iter().map(|candidate| candidate.nodes.as_slice());
        search.measure(int16, refused, nodes.zip(forms.iter().copied()))
    };
    // The worst in float, the next in 16 bits.
    let mix = |float: usize, wide: usize| {
        let form = |place| match place {
            _ if place < float => Form::Float,
            _ if place < wide => Form::Int16,
            _ => Form::Int8,
        };
        (0..count).map(form).collect::<Vec<Form>>()
    };
    let float = fewest(0..count, budget, |float| measure(&mix(float, count)))?;
    let wide = fewest(float..count, budget, |wide| measure(&mix(float, wide)))?;
    let mut forms = mix(float, wide);
    let mut reached = measure(&forms)?;
    if reached.error > budget {
        return Err(Error::Options(format!(
            "an error of {:.2} % is asked for, and with all layers in float {:.2} % are left; \
             allow more",
            100.0 * budget,
            100.0 * reached.error
        )));
    }
    for place in (0..wide).rev().take(GIVEN_BACK) {
        let cheaper: &[Form] = match forms[place] {
            Form::Float => &[Form::Int8, Form::Int16],
            _ => &[Form::Int8],
        };
        for form in cheaper {
            let kept = std::mem::replace(&mut forms[place], *form);
            let measured = measure(&forms)?;
            if measured.error <= budget {
                reached = measured;
                break;
            }
            forms[place] = kept;
        }
    }
    let percent = |error: f64| format!("{:.2} %", 100.0 * error);
    for (Candidate { nodes, alone }, form) in candidates.iter().zip(forms) {
        let reason = format!(
            "in 8 bits it alone makes the outputs' error {}, and saves {:.0} µs a run beside float; \
             with this mix the error is {} and a run takes {:.0} µs, without {} and {:.0} µs",
            percent(alone.error),
            1e6 * (float_seconds - alone.seconds).max(0.0),
            percent(reached.error),
            1e6 * reached.seconds,
            percent(integer.error),
            1e6 * integer.seconds,
        );
        for node in nodes {
            match form {
                Form::Int8 => continue,
                Form::Int16 => int16.insert(*node, reason.clone()),
                Form::Float => refused.insert(*node, reason.clone()),
            };
        }
    }
    Ok(())
}

/// The least number of a range with which the budget is kept, if its end is enough.
fn fewest(
    numbers: std::ops::Range<usize>,
    budget: f64,
    measure: impl Fn(usize) -> Result<Measured, Error>,
) -> Result<usize, Error> {
    let (mut least, mut enough) = (numbers.start, numbers.end);
    while least < enough {
        let middle = usize::midpoint(least, enough);
        match measure(middle)?.error <= budget {
            true => enough = middle,
            false => least = middle + 1,
        }
    }
    Ok(enough)
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
    samples: &'a dyn Source,
    /// What the float model gives.
    float: Vec<Vec<Tensor>>,
}

impl Search<'_> {
    /// With these nodes in other forms besides those chosen before.
    fn measure<'n>(
        &self,
        int16: &Int16Nodes,
        refused: &Refused,
        forms: impl Iterator<Item = (&'n [usize], Form)>,
    ) -> Result<Measured, Error> {
        let (mut int16, mut refused) = (int16.clone(), refused.clone());
        for (nodes, form) in forms {
            let told = nodes.iter().map(|node| (*node, String::new()));
            match form {
                Form::Int8 => {}
                Form::Int16 => int16.extend(told),
                Form::Float => refused.extend(told),
            }
        }
        let (regions, lowered) =
            assemble::lower(self.model, self.calibration, &int16, &mut refused);
        let mixed = assemble::assemble(self.model.clone(), &regions, lowered);
        let (outputs, seconds) = self.run(&mixed)?;
        Ok(Measured { error: relative_error(&self.float, &outputs), seconds })
    }

    /// Outputs on each sample, and the mean seconds of a run.
    fn run(&self, model: &Model) -> Result<(Vec<Vec<Tensor>>, f64), Error> {
        let loaded = FloatModel::load(model, false)?;
        let (mut all, mut seconds) = (Vec::new(), 0.0);
        let mut planned: Option<FloatPlan> = None;
        for sample in each(self.samples) {
            let sample = sample?;
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
            seconds += fastest / self.samples.count() as f64;
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
