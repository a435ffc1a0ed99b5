//! `hardtack bench`.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use hardtack::golden::named;
use hardtack::measure::{Subject, peak_memory, percentile};
use hardtack::{Isa, Options};
use serde_json::json;

use crate::arguments::Bench;
use crate::output::{self, bytes, print};
use crate::profile::Profile;
use crate::{Answer, bundles};

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
    let mut subject = Subject::new(&bundle, options, began)
        .with_context(|| arguments.bundle.display().to_string())?;
    let times = subject.latencies(arguments.runs.map(|runs| runs as usize))?;
    let at = |part: f64| ms(percentile(&times, part));
    let Subject { mut session, inputs, load, first_result, .. } = subject;
    let profile = match arguments.profile {
        true => Some(Profile::measure(&mut session, &named(&inputs), threads)?),
        false => None,
    };
    let peak = peak_memory();
    if as_json {
        output::json(&json!({
            "latency_ms": {
                "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "min": at(0.0),
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
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.0),
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

pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
