//! `hardtack bench`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hardtack::{
    Bundle, Extent, Isa, OperationTime, Options, Outputs, Session, Tensor, View, ViewMut,
};
use serde_json::json;

use crate::arguments::Bench;
use crate::output::{self, bytes, print, table};
use crate::{Answer, bundles};

/// Runs before the measured ones.
const WARM_UP: usize = 3;
/// How long to measure where the number of runs is not given.
const MEASURED: Duration = Duration::from_secs(2);
/// Operations that the profile names.
const SLOWEST: usize = 25;

pub fn bench(arguments: &Bench, as_json: bool) -> anyhow::Result<Answer> {
    let isa = match &arguments.isa {
        Some(name) => Some(Isa::from_name(name).with_context(|| {
            let known: Vec<String> = Isa::ALL.iter().map(ToString::to_string).collect();
            format!("--isa {name}: this build knows {}", known.join(", "))
        })?),
        None => None,
    };
    let began = Instant::now();
    let bundle = bundles::open(&arguments.bundle)?;
    let threads = arguments.threads as usize;
    let options = Options { isa, threads, ..Options::default() };
    let mut session = Session::with_options(&bundle, options)
        .with_context(|| arguments.bundle.display().to_string())?;
    let load = began.elapsed();
    let inputs = inputs(&bundle, &session)?;
    let given: Vec<(&str, &Tensor)> = inputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let first_run = Instant::now();
    let outputs = session.run(&given)?;
    let first_result = load + first_run.elapsed();
    let mut runner = Runner::new(&session, &given, outputs);
    for _ in 1..WARM_UP {
        runner.run(&mut session)?;
    }
    let mut times = Vec::new();
    let began = Instant::now();
    loop {
        let enough = match arguments.runs {
            Some(runs) => times.len() >= runs as usize,
            None => times.len() >= 5 && began.elapsed() > MEASURED,
        };
        if enough {
            break;
        }
        let run = Instant::now();
        runner.run(&mut session)?;
        times.push(run.elapsed());
    }
    times.sort();
    let at = |part: f64| times[((times.len() - 1) as f64 * part).round() as usize];
    let profile = if arguments.profile { Some(profile(&mut session, &given)?) } else { None };
    let peak = peak_memory();
    if as_json {
        output::json(&json!({
            "latency_ms": {
                "p50": ms(at(0.5)), "p90": ms(at(0.9)), "p99": ms(at(0.99)), "min": ms(times[0]),
            },
            "runs": times.len(),
            "load_ms": ms(load),
            "first_result_ms": ms(first_result),
            "peak_rss_bytes": peak,
            "arena_bytes": session.arena_bytes(),
            "isa": session.isa().to_string(),
            "threads": arguments.threads,
            "weights": if session.is_in_place() { "in place" } else { "repacked" },
            "integer": session.is_integer(),
            "profile": profile.as_deref().map(|operations| {
                operations.iter().map(|operation| json!({
                    "name": operation.name,
                    "operator": operation.operator,
                    "ms": ms(operation.duration),
                })).collect::<Vec<_>>()
            }),
        }));
        return Ok(Answer::Yes);
    }
    let mut text = format!(
        "latency    {:.3} ms median, {:.3} p90, {:.3} p99, {:.3} least, of {} runs\n\
         load       {:.3} ms; first result after {:.3} ms\n",
        ms(at(0.5)),
        ms(at(0.9)),
        ms(at(0.99)),
        ms(times[0]),
        times.len(),
        ms(load),
        ms(first_result)
    );
    let peak = peak.map_or("unknown".into(), bytes);
    text += &format!(
        "memory     {peak} at most, of it an arena of {}\n\
         runs       {} on {} thread{}\n",
        bytes(session.arena_bytes() as u64),
        if session.is_integer() {
            format!("in integers, kernels {}", session.isa())
        } else {
            "in float, or in part".into()
        },
        arguments.threads,
        if arguments.threads == 1 { "" } else { "s" }
    );
    if let Some(operations) = &profile {
        text += &profile_text(operations);
    }
    print(&text);
    Ok(Answer::Yes)
}

/// Runs a model again and again, as an application does that cares for speed: an integer model
/// into memory that is there already.
struct Runner<'a> {
    inputs: &'a [(&'a str, &'a Tensor)],
    /// `None` where outputs are made anew at each run.
    outputs: Option<Vec<(String, Tensor)>>,
}

impl<'a> Runner<'a> {
    fn new(session: &Session, inputs: &'a [(&'a str, &'a Tensor)], outputs: Outputs) -> Self {
        let owned = || outputs.iter().map(|(name, tensor)| (name.to_owned(), tensor.clone()));
        let outputs = session.is_integer().then(|| owned().collect());
        Runner { inputs, outputs }
    }

    fn run(&mut self, session: &mut Session) -> Result<(), hardtack::Error> {
        let Some(outputs) = &mut self.outputs else { return session.run(self.inputs).map(drop) };
        let inputs: Vec<_> = self
            .inputs
            .iter()
            .filter_map(|(name, tensor)| Some((*name, View::of(tensor)?)))
            .collect();
        let mut outputs: Vec<_> = outputs
            .iter_mut()
            .filter_map(|(name, tensor)| Some((name.as_str(), ViewMut::of(tensor)?)))
            .collect();
        session.run_into(&inputs, &mut outputs)
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The inputs of the first test vector, or zeros.
fn inputs(bundle: &Bundle, session: &Session) -> anyhow::Result<Vec<(String, Tensor)>> {
    if let Some(golden) = bundle.golden()?
        && let Some(case) = golden.cases().next()
    {
        return case
            .inputs()
            .map(|vector| Ok((vector.name.to_owned(), hardtack::golden::tensor(&vector)?)))
            .collect();
    }
    let zeros = session.inputs().iter().map(|port| {
        let size = |extent: &Extent| match extent {
            Extent::Fixed(size) => *size,
            Extent::Named(_) => 1,
        };
        let shape: Vec<usize> = port.shape.iter().map(size).collect();
        match Tensor::zeros(port.dtype, &shape) {
            Some(tensor) => Ok((port.name.clone(), tensor)),
            None => bail!("input {port} has no elements to make up"),
        }
    });
    zeros.collect()
}

/// The median time of each operation over a few runs, in the order they run.
fn profile(
    session: &mut Session,
    inputs: &[(&str, &Tensor)],
) -> anyhow::Result<Vec<OperationTime>> {
    const RUNS: usize = 9;
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        runs.push(session.run_profiled(inputs)?.1);
    }
    let mut operations = runs.remove(0);
    for (index, operation) in operations.iter_mut().enumerate() {
        let others = runs.iter().filter_map(|run| run.get(index)).map(|other| other.duration);
        let mut durations: Vec<Duration> = others.chain([operation.duration]).collect();
        durations.sort();
        operation.duration = durations[durations.len() / 2];
    }
    Ok(operations)
}

fn profile_text(operations: &[OperationTime]) -> String {
    let total: Duration = operations.iter().map(|operation| operation.duration).sum();
    let part = |duration: Duration| {
        format!("{:.1} %", 100.0 * duration.as_secs_f64() / total.as_secs_f64().max(1e-12))
    };
    let mut kinds = BTreeMap::<&str, (usize, Duration)>::new();
    for operation in operations {
        let kind = kinds.entry(&operation.operator).or_default();
        *kind = (kind.0 + 1, kind.1 + operation.duration);
    }
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|(_, (_, duration))| std::cmp::Reverse(*duration));
    let rows = kinds.iter().map(|(kind, (count, duration))| {
        [kind.to_string(), count.to_string(), format!("{:.3}", ms(*duration)), part(*duration)]
    });
    let mut text = format!("\n{}", table(["kind", "count", "ms", "part"], rows));
    let mut slowest: Vec<_> = operations.iter().collect();
    slowest.sort_by_key(|operation| std::cmp::Reverse(operation.duration));
    let rows = slowest.iter().take(SLOWEST).map(|operation| {
        let (name, kind) = (operation.name.clone(), operation.operator.clone());
        [name, kind, format!("{:.3}", ms(operation.duration)), part(operation.duration)]
    });
    text += &format!("\n{}", table(["operation", "kind", "ms", "part"], rows));
    text
}

/// The most memory this process ever had, where the system tells.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
