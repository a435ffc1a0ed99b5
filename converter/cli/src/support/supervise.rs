//! Subcommands that run in a supervised process.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use hardtack_converter::guard::{self, Ended, Event, Limits, Stopped, Supervision};
use serde_json::json;

use crate::arguments::{Bisect, Convert, LimitArguments, MaxError};
use crate::output::Answer;
use crate::output::{self, say};
use crate::support::progress::Bar;

/// The default time limit of one conversion: four hours.
const SECONDS: u64 = 4 * 60 * 60;

/// A subcommand to supervise.
pub struct Supervised<'a> {
    /// The ONNX file that it reads.
    pub model: &'a Path,
    /// The limits that the user gave.
    pub limits: &'a LimitArguments,
    /// The maximum number of conversions that it performs; multiplies the default time limit.
    pub conversions: u64,
    /// The files that it writes.
    pub outputs: Vec<PathBuf>,
    /// Whether the results are printed as JSON.
    pub as_json: bool,
}

/// Describes `hardtack convert` for supervision.
pub fn of_convert(arguments: &Convert, as_json: bool) -> Supervised<'_> {
    let outputs =
        [Some(&arguments.output), arguments.transport.as_ref(), arguments.report.as_ref()];
    // Each value of --frontier is a conversion, and so is each error that --max-error auto tries.
    let errors = match arguments.quantize.max_error {
        Some(MaxError::Auto) => crate::verbs::convert::ERRORS.len(),
        _ => 0,
    };
    Supervised {
        model: &arguments.model,
        limits: &arguments.limits,
        conversions: (1 + arguments.frontier.len() + errors) as u64,
        outputs: outputs.into_iter().flatten().cloned().collect(),
        as_json,
    }
}

/// Describes `hardtack bisect` for supervision.
pub fn of_bisect(arguments: &Bisect, as_json: bool) -> Supervised<'_> {
    Supervised {
        model: &arguments.model,
        limits: &arguments.limits,
        conversions: 1,
        outputs: Vec::new(),
        as_json,
    }
}

impl Supervised<'_> {
    /// Runs `work` in a supervised process and returns its exit code.
    ///
    /// # Errors
    /// If the process cannot be started or supervised.
    pub fn run(self, work: impl FnOnce() -> u8) -> anyhow::Result<u8> {
        let seconds = SECONDS.saturating_mul(self.conversions);
        let limits = Limits {
            memory_bytes: self.limits.max_memory.unwrap_or(Limits::default().memory_bytes),
            seconds: self.limits.max_time.unwrap_or(seconds),
        };
        let supervision = Supervision { limits, outputs: self.outputs };
        let mut bar: Option<Bar> = None;
        let mut listen = |event: Event<'_>| match event {
            Event::Stage(name) => {
                bar.get_or_insert_with(|| Bar::new(self.as_json)).show_stage(name);
            }
            Event::Step(done, of) => {
                if let Some(bar) = &mut bar {
                    bar.show_step(done, of);
                }
            }
            Event::Finished => drop(bar.take()),
            Event::Error(text) => output::error(&anyhow!(text.to_owned())),
            Event::Text(text) => match &bar {
                Some(bar) => bar.suspend(|| forward(text)),
                None => forward(text),
            },
            _ => {}
        };
        match guard::supervised(&supervision, &mut listen, work)? {
            Ended::Code(code) => Ok(code),
            Ended::Stopped(stopped) => Ok(refusal(self.model, &stopped, self.as_json)),
            other => Err(anyhow!("the supervised process ended unexpectedly: {other:?}")),
        }
    }
}

/// Writes the output of the supervised process to stderr.
fn forward(text: &[u8]) {
    let _ = std::io::stderr().lock().write_all(text);
}

/// Reports why the process was stopped and returns the exit code.
fn refusal(model: &Path, stopped: &Stopped, as_json: bool) -> u8 {
    let sentence = format!("{}: the conversion was stopped: {stopped}", model.display());
    if !stopped.cause.is_the_model() {
        output::error(&anyhow!(sentence));
        return crate::output::ERROR;
    }
    if as_json {
        output::json(&json!({ "model": model, "refused": stopped.to_string() }));
    }
    say(&sentence);
    crate::output::code(Answer::No)
}
