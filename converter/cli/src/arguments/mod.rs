//! What the command line may say.

mod convert;
mod limits;
mod quantize;

use std::path::{Path, PathBuf};

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use hardtack::{Isa, Packing, family_of};

pub use self::convert::{Bisect, Convert, Float, GateArguments, LimitArguments, Weights};
pub use self::limits::SessionLimits;
pub use self::quantize::{MaxError, Quantize};

const EXIT_CODES: &str = "Exit codes: 0 done, 1 the answer is no (a bundle refused, a check failed, \
a model that cannot be converted), 2 an error.\nData goes to stdout, words go to stderr.";

/// Makes ONNX models into bundles, looks into bundles, and runs them.
#[derive(Parser)]
#[command(name = "hardtack", version, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    pub verb: Verb,
    /// Print one JSON object on stdout.
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Subcommand)]
pub enum Verb {
    /// Make a bundle of an ONNX model.
    Convert(Box<Convert>),
    /// Find the first layer whose integers depart from the float model on a given input.
    Bisect(Bisect),
    /// Run a bundle on files.
    Run(Run),
    /// Measure a bundle on labelled data.
    Eval(Eval),
    /// Measure how fast a bundle runs.
    Bench(Bench),
    /// Tell what a bundle is and what it needs.
    Inspect(Inspect),
    /// Check a bundle's digests, and run its test vectors on this machine.
    Verify(Verify),
    /// Make the transport form of a bundle: the same bytes, as few as possible.
    Pack(Pack),
    /// Make a bundle of its transport form.
    Unpack(Unpack),
    /// Tell what differs between two bundles.
    Diff(Diff),
    /// List the boards that bundles can be made for.
    Targets,
}

/// What a bundle is made for.
#[derive(Clone, Debug)]
pub struct Target {
    /// The layout of weights; `None` is that of the family `mcu`.
    pub packing: Option<Packing>,
    /// Most bytes that activations may take there.
    pub arena: Option<u64>,
}

/// A family, a board, or the file of a board.
fn target(name: &str) -> Result<Target, String> {
    let family = |packing| Ok(Target { packing, arena: None });
    match name {
        "generic" => return family(None),
        "native" => return family(Isa::detect().packing()),
        _ => {}
    }
    if let Some(packing) =
        Packing::ALL.iter().find(|packing| family_of(Some(**packing)).name() == name)
    {
        return family(Some(*packing));
    }
    let board = match hardtack_targets::board(name) {
        Some(board) => board,
        None if name.ends_with(".toml") => {
            hardtack_targets::read(Path::new(name))
                .map_err(|error| crate::output::plain(&error.to_string()).into_owned())?
        }
        None => {
            return Err("there is no such target; it is generic, native, a family (x86-zmm, \
                        x86-ymm, neon-dot), a board that `hardtack targets` lists, or the .toml \
                        file of one"
                .into());
        }
    };
    Ok(Target { packing: board.packing(), arena: board.arena })
}

#[derive(Args)]
pub struct Run {
    #[arg(value_name = "BUNDLE")]
    pub bundle: PathBuf,
    #[command(flatten)]
    pub limits: SessionLimits,
    /// Pictures, recordings or arrays (.npy), through the bundle's own pre-processing.
    #[arg(value_name = "FILE", required_unless_present = "inputs", conflicts_with = "inputs")]
    pub files: Vec<PathBuf>,
    /// Arrays named as the model's inputs; others are ignored.
    #[arg(long, value_name = "FILE.npz")]
    pub inputs: Option<PathBuf>,
    /// Write the outputs of a single inference to FILE.npz (`-` for standard output).
    #[arg(long, short, value_name = "FILE.npz")]
    pub output: Option<PathBuf>,
    /// Tell this many of the best classes.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub top_k: u32,
}

#[derive(Args)]
pub struct Eval {
    #[arg(value_name = "BUNDLE")]
    pub bundle: PathBuf,
    #[command(flatten)]
    pub limits: SessionLimits,
    /// Arrays x (samples first) and y; or a folder of folders, each with the files of the class
    /// it is named after.
    #[arg(long, value_name = "FILE.npz|DIR")]
    pub data: PathBuf,
    /// Another bundle of the same task: tells the samples whose answer changed.
    #[arg(long, value_name = "BUNDLE")]
    pub against: Option<PathBuf>,
}

#[derive(Args)]
pub struct Bench {
    #[arg(value_name = "BUNDLE")]
    pub bundle: PathBuf,
    #[command(flatten)]
    pub limits: SessionLimits,
    /// Number of threads for integer programs, at most 1024.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: u32,
    /// Number of measured runs; as many as fit into two seconds where not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: Option<u32>,
    /// Tell the time of each operation.
    #[arg(long)]
    pub profile: bool,
    /// Instruction set of the integer kernels; the best of the machine where not given.
    #[arg(long, value_name = "NAME")]
    pub isa: Option<String>,
    /// Measure there and not here: user@host over ssh, or adb, or adb:SERIAL. Checks the test
    /// vectors there first, and leaves nothing behind.
    #[arg(long, value_name = "ADDRESS")]
    pub board: Option<String>,
    /// The runner that is copied to the board, built for it; the one beside this command where not
    /// given.
    #[arg(long, value_name = "FILE", requires = "board")]
    pub runner: Option<PathBuf>,
    /// What the runner is started with there, such as an emulator.
    #[arg(long, value_name = "COMMAND", requires = "board")]
    pub wrapper: Option<String>,
    /// The command that connects, with its options.
    #[arg(long, value_name = "COMMAND", requires = "board", default_value = "ssh")]
    pub ssh: String,
    /// Give up after SECONDS of connecting, or of one command on the board.
    #[arg(long, value_name = "SECONDS", requires = "board", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..))]
    pub timeout: u32,
    /// Compare with a measurement that --save wrote; slower than allowed is exit code 1.
    #[arg(long, value_name = "FILE.json")]
    pub baseline: Option<PathBuf>,
    /// What the median may grow by; three times the noise of both where that is more.
    #[arg(long, value_name = "PERCENT", requires = "baseline", default_value = "5%", value_parser = percent)]
    pub threshold: f64,
    /// Write the measurement to FILE.json, to use it as a baseline later (`-` for standard output).
    #[arg(long, value_name = "FILE.json")]
    pub save: Option<PathBuf>,
    /// Write the measurement as JUnit XML (`-` for standard output).
    #[arg(long, value_name = "FILE.xml")]
    pub junit: Option<PathBuf>,
    /// Write the measurement as a Markdown table (`-` for standard output).
    #[arg(long, value_name = "FILE.md")]
    pub markdown: Option<PathBuf>,
}

#[derive(Args)]
pub struct Inspect {
    #[arg(value_name = "BUNDLE")]
    pub bundle: PathBuf,
    /// List every operation.
    #[arg(long)]
    pub nodes: bool,
    /// Show where each tensor of the integer programs lies in the arena, and when.
    #[arg(long)]
    pub plan: bool,
    /// Draw the arena of the first integer program over time, one bar per tensor (`-` for standard
    /// output).
    #[arg(long, value_name = "OUT.svg")]
    pub plan_svg: Option<PathBuf>,
    /// The plan for this target; as the bundle is packed where not given.
    #[arg(long, value_name = "NAME", value_parser = target)]
    pub target: Option<Target>,
}

#[derive(Args)]
pub struct Verify {
    #[arg(value_name = "BUNDLE")]
    pub bundle: PathBuf,
    #[command(flatten)]
    pub limits: SessionLimits,
}

#[derive(Args)]
pub struct Pack {
    #[arg(value_name = "BUNDLE")]
    pub bundle: PathBuf,
    /// Write the compressed bundle to OUT.tackz (`-` for standard output).
    #[arg(short, long, value_name = "OUT.tackz")]
    pub output: PathBuf,
}

#[derive(Args)]
pub struct Unpack {
    #[arg(value_name = "FILE.tackz")]
    pub file: PathBuf,
    /// Write the bundle to OUT.tack (`-` for standard output).
    #[arg(short, long, value_name = "OUT.tack")]
    pub output: PathBuf,
    /// Refuse to unpack a bundle larger than SIZE, for example 64MB or 1.5GiB [default: 4GiB, or the
    /// free disk space if that is less].
    #[arg(long, value_name = "SIZE", value_parser = hardtack_targets::bytes)]
    pub max_size: Option<u64>,
}

#[derive(Args)]
pub struct Diff {
    #[arg(value_name = "A")]
    pub a: PathBuf,
    #[arg(value_name = "B")]
    pub b: PathBuf,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => {
            Ok((name.into(), value.into()))
        }
        _ => Err("write it as NAME=VALUE".into()),
    }
}

/// Parses an output that must be a file, not `-`.
fn file_name() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| match path.as_os_str() == "-" {
        true => Err("standard output is not supported here; give the name of a file"),
        false => Ok(path),
    })
}

/// A part of a whole, written in hundredths.
pub fn percent(text: &str) -> Result<f64, String> {
    let number = text.trim_end_matches('%').trim().parse().ok();
    let part = number.map(|number: f64| number / 100.0).filter(|part| (0.0..=10.0).contains(part));
    part.ok_or_else(|| "write it as 5% or 2.5%".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn percentages_are_parts() {
        assert_eq!((percent("5%"), percent("2.5"), percent("0 %")), (Ok(0.05), Ok(0.025), Ok(0.0)));
        assert!(percent("-1%").is_err() && percent("much").is_err() && percent("nan").is_err());
    }

    #[test]
    fn pairs_have_both_sides() {
        assert_eq!(pair("a=1x2"), Ok(("a".into(), "1x2".into())));
        assert!(pair("a=").is_err() && pair("=1").is_err() && pair("a").is_err());
    }
}
