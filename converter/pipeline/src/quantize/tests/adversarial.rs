//! Converts random networks that are hard to quantize. INT8 must keep their outputs accurate, or
//! the conversion must repair them, warn, or refuse.
//!
//! `HARDTACK_NETWORKS` sets the number of networks and `HARDTACK_SEED` the first seed. With
//! `HARDTACK_VERBOSE`, the test prints every network. For a failure, it prints the smallest part of
//! the network that still fails.

mod layers;
mod networks;
mod outputs;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use hardtack::Tensor;
use hardtack::internal::Model;

use self::networks::{Network, Plan};
use super::super::quantize;
use super::super::scale::Range;
use crate::float_run;
use crate::options::quantize::QuantizeOptions;

/// The number of networks by default, so that the test takes a few seconds.
const NETWORKS: u64 = 16;
/// The number of calibration samples: enough that other samples hardly exceed the ranges of these.
const CALIBRATION: u64 = 512;
/// The number of other samples on which the outputs are judged.
const OTHERS: u64 = 128;
/// The largest relative error of an output without a warning: 20 dB.
const LIMIT: f64 = 0.1;
/// The largest relative error of a repaired output on the calibration data: 15 dB.
const REPAIRED: f64 = 0.178;
/// A column whose deviation is smaller than a group's largest by this factor starts a new group.
const GROUP: f64 = 100.0;
/// A column whose deviation is a smaller part of its magnitude is a constant: f32 rounding alone
/// can make it vary this much.
const CONSTANT: f64 = 1e-5;

/// The least squared deviation of a sample of class probabilities: if all samples have one class,
/// the small differences of the others need no precision.
const OF_DISTRIBUTION: f64 = 0.01;

/// What the conversion did.
#[derive(Clone, Debug, PartialEq)]
enum Action {
    /// INT8 everywhere, without a warning.
    None,
    Warned(String),
    Repaired(String),
    Refused(String),
    Panicked,
}

/// The conversion of one network.
struct Outcome {
    plan: Plan,
    parts: Vec<String>,
    action: Action,
    /// The relative error on other samples than those of the calibration.
    error: f64,
    /// The relative error on the calibration samples.
    calibrated: f64,
}

impl Outcome {
    fn of(plan: &Plan) -> Outcome {
        let network = Network::of(plan);
        let result = catch_unwind(AssertUnwindSafe(|| convert(&network, plan.seed)));
        let (action, error, calibrated) = result.unwrap_or((Action::Panicked, 0.0, 0.0));
        Outcome { plan: plan.clone(), parts: network.parts, action, error, calibrated }
    }

    /// Returns whether a large error goes without a report. The calibration may warn
    /// that new data may be clipped; that does not excuse an error on the calibration data.
    fn is_silent(&self) -> bool {
        match self.action {
            Action::None => self.error > LIMIT,
            Action::Warned(_) => self.calibrated > LIMIT,
            Action::Repaired(_) | Action::Refused(_) => false,
            Action::Panicked => true,
        }
    }

    /// Returns whether the error is large although INT8 alone is not used.
    fn is_far(&self) -> bool {
        matches!(self.action, Action::Repaired(_)) && self.error > REPAIRED
    }

    fn print(&self) {
        println!(
            "{:?}: error {:.4} (calibration {:.4}), {:?}\n    {}",
            self.plan,
            self.error,
            self.calibrated,
            self.action,
            self.parts.join("; "),
        );
    }
}

/// Quantizes a network and measures the error of its outputs.
fn convert(network: &Network, seed: u64) -> (Action, f64, f64) {
    let samples = |indices: std::ops::Range<u64>| -> Vec<Vec<Tensor>> {
        indices.map(|index| network.sample(seed, 1000 + index)).collect()
    };
    let calibration = samples(0..CALIBRATION);
    let others = samples(CALIBRATION..CALIBRATION + OTHERS);
    let settings = QuantizeOptions::default();
    let model = &network.model;
    let quantized = quantize(model, &calibration, &calibration, true, &settings, &mut |_, _| {});
    let quantized = match quantized {
        Ok(quantized) => quantized,
        Err(error) => return (Action::Refused(error.to_string()), 0.0, 0.0),
    };
    let outputs = |model: &Model, samples| float_run::outputs(model, samples).unwrap();
    let seen = outputs(model, &calibration);
    let ranges = ranges(&seen, &network.columns);
    let (float, other): (Vec<_>, Vec<_>) = outputs(model, &others)
        .into_iter()
        .zip(outputs(&quantized.model, &others))
        .filter(|(float, _)| is_within(float, &ranges, &network.columns))
        .unzip();
    let error = worst_error(&float, &other, &network.columns);
    let other = outputs(&quantized.model, &calibration);
    let calibrated = worst_error(&seen, &other, &network.columns);
    let is_repair = |warning: &&String| warning.contains("INT8 alone");
    let action = match (quantized.warnings.iter().find(is_repair), quantized.warnings.first()) {
        (Some(repair), _) => Action::Repaired(repair.clone()),
        (None, Some(warning)) => Action::Warned(warning.clone()),
        (None, None) => Action::None,
    };
    (action, error, calibrated)
}

/// Returns the number of columns of an output along an axis, and the distance between two of them.
fn size_and_stride(output: &Tensor, axis: Option<usize>) -> (usize, usize) {
    match (axis, output.shape()) {
        (Some(axis), shape) => (shape[axis], shape[axis + 1..].iter().product()),
        (None, _) => (1, 1),
    }
}

/// The range of each column of each output.
type Ranges = Vec<Vec<Range>>;

/// Returns the ranges of the columns of outputs.
fn ranges(outputs: &[Vec<Tensor>], columns: &[Option<usize>]) -> Ranges {
    let of = |(output, axis): (usize, &Option<usize>)| {
        let (size, stride) = size_and_stride(&outputs[0][output], *axis);
        let mut ranges = vec![Range::NONE; size];
        for sample in outputs {
            for (element, x) in sample[output].to_f32().into_iter().enumerate() {
                let range = &mut ranges[element / stride % size];
                *range = range.extended(&[x]);
            }
        }
        ranges
    };
    columns.iter().enumerate().map(of).collect()
}

/// Returns whether no output of a sample exceeds these ranges. Calibration cannot show how INT8
/// represents values beyond its own.
fn is_within(sample: &[Tensor], ranges: &Ranges, columns: &[Option<usize>]) -> bool {
    sample.iter().zip(ranges).zip(columns).all(|((output, ranges), axis)| {
        let (size, stride) = size_and_stride(output, *axis);
        output.to_f32().into_iter().enumerate().all(|(element, x)| {
            let Range { low, high } = ranges[element / stride % size];
            !x.is_finite() || (low <= x && x <= high)
        })
    })
}

/// Returns the largest relative error of an output, or of its columns along the axis in `columns`
/// whose deviations differ from the others' by orders of magnitude. Elements whose float value is
/// not finite do not count, unless another model's value is.
fn worst_error(float: &[Vec<Tensor>], other: &[Vec<Tensor>], columns: &[Option<usize>]) -> f64 {
    let mut worst = 0.0f64;
    if float.is_empty() {
        return worst;
    }
    for (output, axis) in columns.iter().enumerate() {
        let (size, stride) = size_and_stride(&float[0][output], *axis);
        let values = |set: &[Vec<Tensor>]| -> Vec<Vec<f64>> {
            let wide = |sample: &Vec<Tensor>| {
                sample[output].to_f32().iter().map(|x| f64::from(*x)).collect()
            };
            set.iter().map(wide).collect()
        };
        let (a, b) = (values(float), values(other));
        let mut columns = vec![Column { probability: true, ..Column::default() }; size];
        for element in 0..a[0].len() {
            let at = |sample: &[f64]| sample[element];
            if a.iter().any(|sample| !at(sample).is_finite()) {
                let hides = |(a, b): (&Vec<f64>, &Vec<f64>)| at(a).is_finite() != at(b).is_finite();
                if a.iter().zip(&b).any(hides) {
                    return f64::INFINITY;
                }
                continue;
            }
            let mean = a.iter().map(|sample| at(sample)).sum::<f64>() / a.len() as f64;
            let column = &mut columns[element / stride % size];
            for (a, b) in a.iter().zip(&b) {
                let error = (at(a) - at(b)).powi(2);
                column.error += if error.is_nan() { f64::INFINITY } else { error };
                column.signal += (at(a) - mean).powi(2);
                column.square += at(a).powi(2);
                column.probability &= (0.0..=1.0).contains(&at(a));
            }
        }
        let is_distribution = |sample: &Vec<f64>| {
            let all = sample.iter().all(|x| (0.0..=1.0).contains(x));
            all && (sample.iter().sum::<f64>() - 1.0).abs() < 1e-3
        };
        if a.iter().all(is_distribution) {
            let sum = |of: fn(&Column) -> f64| columns.iter().map(of).sum::<f64>();
            let signal = sum(|column| column.signal).max(OF_DISTRIBUTION * a.len() as f64);
            worst = worst.max((sum(|column| column.error) / signal).sqrt());
            continue;
        }
        worst = worst.max(worst_of_columns(columns));
    }
    worst
}

/// Sums over the elements of a column.
#[derive(Clone, Copy, Default)]
struct Column {
    /// The squared deviations from the mean over samples.
    signal: f64,
    /// The squared errors.
    error: f64,
    /// The squared values.
    square: f64,
    /// Whether all values are from 0 to 1. These are compared with each other, so a small one needs
    /// no precision of its own.
    probability: bool,
}

/// Returns the largest relative error of a group of columns.
fn worst_of_columns(mut columns: Vec<Column>) -> f64 {
    let is_constant = |column: &Column| column.signal <= CONSTANT.powi(2) * column.square;
    let ratio = |columns: &[Column], of: fn(&Column) -> f64| {
        let error = columns.iter().map(|column| column.error).sum::<f64>();
        let signal = columns.iter().map(of).sum::<f64>();
        if error == 0.0 { 0.0 } else { (error / signal).sqrt() }
    };
    if columns.iter().all(is_constant) {
        return ratio(&columns, |column| column.square);
    }
    if columns.iter().all(|column| column.probability) {
        return ratio(&columns, |column| column.signal);
    }
    columns.retain(|column| !is_constant(column));
    columns.sort_by(|a, b| b.signal.total_cmp(&a.signal));
    let mut worst = 0.0f64;
    while let Some(largest) = columns.first().copied() {
        let small = |column: &Column| column.signal * GROUP.powi(2) < largest.signal;
        let apart = !columns.iter().all(|column| column.probability);
        let end = columns.iter().position(|column| apart && small(column));
        let group: Vec<Column> = columns.drain(..end.unwrap_or(columns.len())).collect();
        worst = worst.max(ratio(&group, |column| column.signal));
    }
    worst
}

/// Returns the smallest part of a network that still fails.
fn shrunk(mut outcome: Outcome) -> Outcome {
    loop {
        let smaller = outcome.plan.smaller().into_iter().map(|plan| Outcome::of(&plan));
        match smaller.into_iter().find(Outcome::is_silent) {
            Some(smaller) => outcome = smaller,
            None => return outcome,
        }
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Converts all networks with these seeds, on all processors.
fn outcomes(seeds: std::ops::Range<u64>) -> Vec<Outcome> {
    let next = AtomicU64::new(seeds.start);
    let work = || {
        let mut outcomes = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return outcomes;
            }
            outcomes.push(Outcome::of(&Plan::new(seed)));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    outcomes.sort_by_key(|outcome| outcome.plan.seed);
    outcomes
}

#[test]
fn no_network_loses_accuracy_silently() {
    let first = setting("HARDTACK_SEED", 0);
    let outcomes = outcomes(first..first + setting("HARDTACK_NETWORKS", NETWORKS));
    let count = |is: &dyn Fn(&Outcome) -> bool| outcomes.iter().filter(|o| is(o)).count();
    println!(
        "{} networks: {} exact, {} repaired, {} warned, {} refused, {} silent; \
         {} repaired ones exceed {REPAIRED} on other samples",
        outcomes.len(),
        count(&|o| o.action == Action::None && !o.is_silent()),
        count(&|o| matches!(o.action, Action::Repaired(_))),
        count(&|o| matches!(o.action, Action::Warned(_)) && !o.is_silent()),
        count(&|o| matches!(o.action, Action::Refused(_))),
        count(&Outcome::is_silent),
        count(&Outcome::is_far),
    );
    let verbose = std::env::var_os("HARDTACK_VERBOSE").is_some();
    let far = |o: &&Outcome| verbose || o.is_far();
    outcomes.iter().filter(far).for_each(Outcome::print);
    let silent: Vec<Outcome> = outcomes.into_iter().filter(Outcome::is_silent).collect();
    let seeds: Vec<u64> = silent.iter().map(|outcome| outcome.plan.seed).collect();
    for outcome in silent {
        println!("silent:");
        outcome.print();
        print!("  shrunk: ");
        shrunk(outcome).print();
    }
    assert!(seeds.is_empty(), "the error of these networks is silent: {seeds:?}");
}
