//! The `hardtack` command: makes bundles, looks into them, and runs them.

#![forbid(unsafe_code)]

mod arguments;
mod aside;
mod bench;
mod bisect;
mod bundles;
mod compare;
mod convert;
mod diff;
mod eval;
mod foreign;
mod frontier;
mod gates;
mod inspect;
mod labelled;
mod memory;
mod output;
mod pack;
mod plan;
mod profile;
mod progress;
mod report;
mod run;
mod summary;
mod targets;
mod unpack;
mod verify;

use std::process::ExitCode;

use clap::Parser as _;

use crate::arguments::{Arguments, Verb};

/// What a verb found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Done, or yes.
    Yes,
    /// The answer is no: a bundle refused, a check failed, a model that cannot be converted.
    No,
}

fn main() -> ExitCode {
    hardtack_converter::guard::child_main_if_requested();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("error"))
        .format_timestamp(None)
        .init();
    let arguments = Arguments::parse();
    if let Verb::Convert(_) = arguments.verb {
        memory::give_back();
    }
    let json = arguments.json;
    let answer = match &arguments.verb {
        Verb::Convert(arguments) => convert::convert(arguments, json),
        Verb::Bisect(arguments) => bisect::bisect(arguments, json),
        Verb::Run(arguments) => run::run(arguments, json),
        Verb::Eval(arguments) => eval::eval(arguments, json),
        Verb::Bench(arguments) => bench::bench(arguments, json),
        Verb::Inspect(arguments) => inspect::inspect(arguments, json),
        Verb::Verify(arguments) => verify::verify(arguments, json),
        Verb::Pack(arguments) => pack::pack(arguments, json),
        Verb::Unpack(arguments) => unpack::unpack(arguments, json),
        Verb::Diff(arguments) => diff::diff(arguments, json),
        Verb::Targets => Ok(targets::targets(json)),
    };
    match answer {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Err(error) => {
            output::error(&error);
            ExitCode::from(2)
        }
    }
}
