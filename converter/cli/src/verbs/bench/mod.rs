//! `hardtack bench`: measures on this machine or on a board, and compares with a baseline.

mod baseline;
mod board;
mod remote;
mod report;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hardtack::golden::named;
use hardtack::measure::Subject;
use hardtack::{Isa, SessionOptions};
use serde_json::{Value, json};

use crate::arguments::Bench;
use crate::output::{self, file, say};
use crate::support::profile::Profile;
use crate::{output::Answer, support::bundles};

use self::baseline::Verdict;

pub fn bench(arguments: &Bench, as_json: bool) -> anyhow::Result<Answer> {
    let outputs: Vec<&Path> = [&arguments.save, &arguments.junit, &arguments.markdown]
        .into_iter()
        .filter_map(|output| output.as_deref())
        .collect();
    let mut inputs: Vec<&Path> = vec![&arguments.bundle];
    inputs.extend(arguments.runner.as_deref());
    file::check(&outputs, &inputs, as_json)?;
    let baseline = arguments.baseline.as_deref().map(baseline::read).transpose()?;
    let (mut measured, profile) = match &arguments.board {
        Some(address) => (board::bench(arguments, address)?, None),
        None => here(arguments)?,
    };
    let verdict = match &baseline {
        Some(baseline) => Some(Verdict::of(baseline, &measured, arguments.threshold)?),
        None => None,
    };
    if let Some(verdict) = &verdict {
        measured["baseline"] = verdict.json();
    }
    let name = arguments.bundle.display().to_string();
    if let Some(path) = &arguments.save {
        file::write_text(path, &(output::json_text(&measured) + "\n"))?;
    }
    if let Some(path) = &arguments.junit {
        file::write_text(path, &report::junit(&name, &measured, verdict.as_ref()))?;
    }
    if let Some(path) = &arguments.markdown {
        file::write_text(path, &report::markdown(&name, &measured, verdict.as_ref()))?;
    }
    if as_json {
        output::json(&measured);
    } else {
        let mut text = report::text(&measured);
        if let Some(profile) = &profile {
            text += &profile.text();
        }
        file::summary(&outputs, &text);
    }
    let golden = measured["golden"] != json!("different");
    if !golden {
        say(&format!("{name}: the test vectors failed on the board; its results are wrong"));
    }
    if let Some(verdict) = &verdict {
        say(&verdict.sentence());
    }
    let holds = golden && verdict.is_none_or(|verdict| verdict.holds());
    Ok(if holds { Answer::Yes } else { Answer::No })
}

/// Measures on this machine.
fn here(arguments: &Bench) -> anyhow::Result<(Value, Option<Profile>)> {
    let isa = arguments.isa.as_deref().map(isa).transpose()?;
    let began = Instant::now();
    let bundle = bundles::open(&arguments.bundle)?;
    let threads = arguments.threads as usize;
    let limits = arguments.limits.limits();
    let options = SessionOptions { isa, threads, limits, ..SessionOptions::default() };
    let mut subject = Subject::new(&bundle, options, began)
        .with_context(|| arguments.bundle.display().to_string())?;
    let measurement = subject.measure(arguments.runs.map(|runs| runs as usize))?;
    let profile = match arguments.profile {
        true => Some(Profile::measure(&mut subject.session, &named(&subject.inputs), threads)?),
        false => None,
    };
    let mut measured: Value = serde_json::from_str(&measurement.json())?;
    measured["bundle"] = bundle.root().to_string().into();
    if let Some(profile) = &profile {
        measured["profile"] = profile.json();
        measured["peak_gmacs"] = profile.peak.into();
    }
    Ok((measured, profile))
}

/// Parses the name of an instruction set.
fn isa(name: &str) -> anyhow::Result<Isa> {
    Isa::from_name(name).with_context(|| {
        let known: Vec<String> = Isa::ALL.iter().map(ToString::to_string).collect();
        format!("--isa {name}: unknown instruction set; use one of {}", known.join(", "))
    })
}

/// Returns a duration in milliseconds.
pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
