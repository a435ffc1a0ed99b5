//! `hardtack bench`.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hardtack::{Bundle, Extent, Isa, Options, Outputs, Session, Tensor, View, ViewMut};
use serde_json::json;

use crate::arguments::Bench;
use crate::output::{self, bytes, print};
use crate::profile::Profile;
use crate::{Answer, bundles};

/// How long to run before measuring: until the system has spread the threads over its cores.
const WARM_UP: Duration = Duration::from_millis(200);
/// How long to measure where the number of runs is not given.
const MEASURED: Duration = Duration::from_secs(2);

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
    let began = Instant::now();
    while began.elapsed() < WARM_UP {
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
    let profile = match arguments.profile {
        true => Some(Profile::measure(&mut session, &given, threads)?),
        false => None,
    };
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
            "profile": profile.as_ref().map(Profile::json),
            "peak_gmacs": profile.as_ref().and_then(|profile| profile.peak),
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
         runs       {} on {} thread{}, weights {}\n",
        bytes(session.arena_bytes() as u64),
        if session.is_integer() {
            format!("in integers, kernels {}", session.isa())
        } else {
            "in float, or in part".into()
        },
        arguments.threads,
        if arguments.threads == 1 { "" } else { "s" },
        if session.is_in_place() { "in place" } else { "repacked when loaded" }
    );
    if let Some(profile) = &profile {
        text += &profile.text();
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

pub(crate) fn ms(duration: Duration) -> f64 {
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

/// The most memory this process ever had, where the system tells.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
