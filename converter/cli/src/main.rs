//! The `hardtack` command: converts ONNX models to bundles, inspects bundles, and runs them.

#![forbid(unsafe_code)]

mod arguments;
mod output;
mod report;
mod support;
mod verbs;

use std::process::ExitCode;

use clap::Parser as _;
use hardtack_converter::guard;

use crate::arguments::{Arguments, Verb};
use crate::output::{Answer, ERROR, code};
use crate::support::supervise;
use crate::verbs::*;

fn main() -> ExitCode {
    guard::child_main_if_requested();
    log_words();
    let arguments = Arguments::parse();
    let json = arguments.json;
    // Subcommands that read or run an untrusted model do so in a supervised process.
    let code = match &arguments.verb {
        Verb::Convert(convert) => {
            supervise::of_convert(convert, json).run(|| exit_code(answer(&arguments).map(code)))
        }
        Verb::Bisect(bisect) => {
            supervise::of_bisect(bisect, json).run(|| exit_code(answer(&arguments).map(code)))
        }
        _ => answer(&arguments).map(code),
    };
    ExitCode::from(exit_code(code))
}

/// Installs a logger that writes to stderr, filtered by `RUST_LOG`.
fn log_words() {
    let mut builder =
        env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("error"));
    builder.format_timestamp(None);
    if guard::is_supervised() && guard::stderr_is_terminal() {
        // stderr is a pipe to the supervisor, which writes to a terminal.
        builder.write_style(env_logger::WriteStyle::Always);
    }
    let logger = builder.build();
    let level = logger.filter();
    let _ = guard::set_logger(Box::new(logger), level);
}

/// Runs the subcommand.
fn answer(arguments: &Arguments) -> anyhow::Result<Answer> {
    let json = arguments.json;
    match &arguments.verb {
        Verb::Convert(arguments) => convert::convert(arguments, json),
        Verb::Bisect(arguments) => bisect::bisect(arguments, json),
        Verb::Run(arguments) => run::run(arguments, json),
        Verb::Eval(arguments) => eval::eval(arguments, json),
        Verb::Bench(arguments) => bench::bench(arguments, json),
        Verb::Inspect(arguments) => inspect::inspect(arguments, json),
        Verb::Verify(arguments) => verify::verify(arguments, json),
        Verb::Compress(arguments) => compress::compress(arguments, json),
        Verb::Decompress(arguments) => decompress::decompress(arguments, json),
        Verb::Diff(arguments) => diff::diff(arguments, json),
        Verb::Targets => Ok(targets::targets(json)),
    }
}

/// Returns the exit code; reports the error if there is one.
fn exit_code(code: anyhow::Result<u8>) -> u8 {
    code.unwrap_or_else(|error| {
        match guard::is_supervised() {
            true => guard::send_error(&output::sentence(&error)),
            false => output::error(&error),
        }
        ERROR
    })
}
