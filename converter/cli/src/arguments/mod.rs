//! The command-line arguments.

mod convert;
mod limits;
mod quantize;

use std::path::{Path, PathBuf};

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use hardtack::Isa;
use hardtack::internal::{Packing, family_of};

pub use self::convert::{Bisect, Convert, Float, GateArguments, LimitArguments, Weights};
pub use self::limits::SessionLimits;
pub use self::quantize::{MaxError, Quantize};

const EXIT_CODES: &str = "Exit codes: 0 = success, 1 = negative result (verify, compress, decompress or \
diff refused a bundle, bundles differ, a check or a gate failed, or a model cannot be converted), \
2 = any other error, such as wrong options or a file that cannot be read.\n\
Results go to stdout, messages to stderr.";

/// Convert ONNX models to bundles; inspect, check and run bundles.
#[derive(Parser)]
#[command(name = "hardtack", version, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    pub verb: Verb,
    /// Print the results to stdout as JSON instead of text.
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Subcommand)]
pub enum Verb {
    /// Convert an ONNX model to a bundle.
    ///
    /// The model stays in float unless --int8 or --dynamic is given.
    ///
    /// Example: hardtack convert model.onnx -o model.tack --int8 --data data.npz
    Convert(Box<Convert>),
    /// Find the first INT8 layer that deviates from the float model.
    ///
    /// Quantizes the model to INT8 and compares the output of each layer with the float model on
    /// one input. The exit code is 1 if a layer deviates.
    Bisect(Bisect),
    /// Run a bundle on images, audio files or arrays.
    Run(Run),
    /// Measure the accuracy of a bundle on labeled data.
    Eval(Eval),
    /// Measure the speed of a bundle on this machine or on a remote board.
    Bench(Bench),
    /// Show what a bundle contains and what it needs.
    Inspect(Inspect),
    /// Check the digests of a bundle and run its test vectors on this machine.
    Verify(Verify),
    /// Compress a bundle for transfer (lossless).
    #[command(alias = "pack")]
    Compress(Compress),
    /// Decompress a compressed bundle and verify it.
    #[command(alias = "unpack")]
    Decompress(Decompress),
    /// List the differences between two bundles.
    ///
    /// The exit code is 0 if the bundles are equal and 1 if they differ.
    Diff(Diff),
    /// List the boards that bundles can be built for.
    Targets,
}

/// The device that a bundle is built for.
#[derive(Clone, Debug)]
pub struct Target {
    /// The layout of the packed weights; `None` is the layout of the family `mcu`.
    pub packing: Option<Packing>,
    /// The maximum size of the arena on the device, in bytes; `None` if it is not known.
    pub arena: Option<u64>,
}

/// Parses the name of a family or board, or the path of a board file.
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
        None if name.ends_with(".toml") => hardtack_targets::read(Path::new(name))
            .map_err(|error| crate::output::plain(&error.to_string()).into_owned())?,
        None => {
            return Err("unknown target; use generic, native, a family (x86-zmm, x86-ymm, \
                        neon-dot), a board that `hardtack targets` lists, or the path of a \
                        board's .toml file"
                .into());
        }
    };
    Ok(Target { packing: board.packing(), arena: board.arena })
}

#[derive(Args)]
pub struct Run {
    /// The bundle to run, such as model.tack.
    #[arg(value_name = "BUNDLE")]
    pub bundle: PathBuf,
    /// The images, audio files or .npy arrays to run the model on, such as cat.jpg.
    ///
    /// The pre-processing of the bundle is applied to each.
    #[arg(value_name = "FILE", required_unless_present = "inputs", conflicts_with = "inputs")]
    pub files: Vec<PathBuf>,
    /// Read one array per model input, named after the input, from FILE.npz, such as inputs.npz.
    ///
    /// Or read the array of one input from FILE.npy. States begin with zeros if they are left out.
    /// Other arrays are ignored. The pre-processing of the bundle is not applied.
    #[arg(long, value_name = "FILE.npz|FILE.npy")]
    pub inputs: Option<PathBuf>,
    /// Write the outputs of a single inference to FILE.npz (`-` for standard output).
    #[arg(long, short, value_name = "FILE.npz")]
    pub output: Option<PathBuf>,
    /// Print the N classes with the highest scores, such as 5.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub top_k: u32,
    #[command(flatten)]
    pub limits: SessionLimits,
}

#[derive(Args)]
pub struct Eval {
    /// The bundle to evaluate, such as model.tack.
    #[arg(value_name = "BUNDLE")]
    pub bundle: PathBuf,
    /// Read the labeled samples from FILE.npz or DIR, such as labeled.npz.
    ///
    /// FILE.npz has the arrays x (samples first) and y. DIR has a subfolder for each class, named
    /// after its label or number; or files whose names begin with the number of their class.
    #[arg(long, value_name = "FILE.npz|DIR")]
    pub data: PathBuf,
    /// Also run another BUNDLE and list the samples whose prediction differs, such as float.tack.
    #[arg(long, value_name = "BUNDLE")]
    pub against: Option<PathBuf>,
    #[command(flatten)]
    pub limits: SessionLimits,
}

#[derive(Args)]
pub struct Bench {
    /// The bundle to measure, such as model.tack.
    #[arg(value_name = "BUNDLE")]
    pub bundle: PathBuf,
    /// Run integer programs on N threads (1-1024), such as 4.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: u32,
    /// Measure N inferences, such as 100 [default: as many as fit into 2 seconds].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: Option<u32>,
    /// Also measure and print the time of each operation.
    #[arg(long)]
    pub profile: bool,
    /// Use the integer kernels for instruction set NAME, such as avx2 [default: the best one].
    #[arg(long, value_name = "NAME")]
    pub isa: Option<String>,
    /// Run the benchmark on the board at ADDRESS: user@host (ssh), adb or adb:SERIAL.
    ///
    /// Runs the test vectors first. All files are removed from the board at the end.
    #[arg(long, value_name = "ADDRESS", help_heading = "Remote board")]
    pub board: Option<String>,
    /// Copy the runner FILE to the board [default: hardtack-runner next to this command].
    ///
    /// FILE must be built for the processor of the board, such as hardtack-runner-aarch64.
    #[arg(long, value_name = "FILE", requires = "board", help_heading = "Remote board")]
    pub runner: Option<PathBuf>,
    /// Start the runner through COMMAND, such as qemu-aarch64-static [default: start it directly].
    #[arg(long, value_name = "COMMAND", requires = "board", help_heading = "Remote board")]
    pub wrapper: Option<String>,
    /// Connect with COMMAND, which may have options, such as "ssh -p 2222".
    #[arg(
        long,
        value_name = "COMMAND",
        requires = "board",
        default_value = "ssh",
        help_heading = "Remote board"
    )]
    pub ssh: String,
    /// Limit connecting, and each command on the board, to SECONDS, such as 60.
    #[arg(
        long,
        value_name = "SECONDS",
        requires = "board",
        default_value_t = 600,
        value_parser = clap::value_parser!(u32).range(1..),
        help_heading = "Remote board"
    )]
    pub timeout: u32,
    /// Compare with FILE.json, written by --save; exit with 1 if this measurement is slower.
    #[arg(long, value_name = "FILE.json", help_heading = "Baseline")]
    pub baseline: Option<PathBuf>,
    /// Allow the median latency to be PERCENT slower than the baseline, such as 10%.
    ///
    /// If three times the noise of the two measurements is more, that is allowed.
    #[arg(
        long,
        value_name = "PERCENT",
        requires = "baseline",
        default_value = "5%",
        value_parser = percent,
        help_heading = "Baseline"
    )]
    pub threshold: f64,
    /// Write the measurement to FILE.json for a later --baseline (`-` for standard output).
    #[arg(long, value_name = "FILE.json", help_heading = "Output")]
    pub save: Option<PathBuf>,
    /// Write the measurement to FILE.xml as JUnit test cases (`-` for standard output).
    #[arg(long, value_name = "FILE.xml", help_heading = "Output")]
    pub junit: Option<PathBuf>,
    /// Write the measurement to FILE.md as a table (`-` for standard output).
    #[arg(long, value_name = "FILE.md", help_heading = "Output")]
    pub markdown: Option<PathBuf>,
    #[command(flatten)]
    pub limits: SessionLimits,
}

#[derive(Args)]
pub struct Inspect {
    /// The bundle to inspect, such as model.tack.
    #[arg(value_name = "BUNDLE")]
    pub bundle: PathBuf,
    /// List every node of the graph.
    #[arg(long)]
    pub nodes: bool,
    /// Show the arena offset and the lifetime of each tensor of the integer programs.
    #[arg(long)]
    pub plan: bool,
    /// Draw the arena of the first integer program over time to OUT.svg (`-` for standard output).
    ///
    /// Each tensor is one bar.
    #[arg(long, value_name = "OUT.svg")]
    pub plan_svg: Option<PathBuf>,
    /// Plan the arena for target NAME, such as rpi4 [default: the target of the bundle].
    #[arg(long, value_name = "NAME", value_parser = target)]
    pub target: Option<Target>,
}

#[derive(Args)]
pub struct Verify {
    /// The bundle to verify, such as model.tack.
    #[arg(value_name = "BUNDLE")]
    pub bundle: PathBuf,
    #[command(flatten)]
    pub limits: SessionLimits,
}

#[derive(Args)]
pub struct Compress {
    /// The bundle to compress, such as model.tack.
    #[arg(value_name = "BUNDLE")]
    pub bundle: PathBuf,
    /// Write the compressed bundle to OUT.tackz (`-` for standard output).
    #[arg(short, long, value_name = "OUT.tackz")]
    pub output: PathBuf,
}

#[derive(Args)]
pub struct Decompress {
    /// The compressed bundle, such as model.tackz.
    #[arg(value_name = "FILE.tackz")]
    pub file: PathBuf,
    /// Write the bundle to OUT.tack (`-` for standard output).
    #[arg(short, long, value_name = "OUT.tack")]
    pub output: PathBuf,
    /// Refuse to decompress a bundle larger than SIZE, such as 64MB [default: 4GiB, or the free
    /// disk space if that is less].
    #[arg(long, value_name = "SIZE", value_parser = hardtack_targets::bytes)]
    pub max_size: Option<u64>,
}

#[derive(Args)]
pub struct Diff {
    /// The first bundle, such as old.tack.
    #[arg(value_name = "A")]
    pub a: PathBuf,
    /// The second bundle, such as new.tack.
    #[arg(value_name = "B")]
    pub b: PathBuf,
}

/// Parses `NAME=VALUE`.
fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => {
            Ok((name.into(), value.into()))
        }
        _ => Err("expected two parts with = between them, such as batch=1".into()),
    }
}

/// Parses the path of an output that cannot be standard output (`-`).
fn file_name() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| match path.as_os_str() == "-" {
        true => Err("standard output is not supported here; give the name of a file"),
        false => Ok(path),
    })
}

/// Parses a percentage from 0 to 1000, such as `5%` or `2.5`, and returns it as a fraction.
pub fn percent(text: &str) -> Result<f64, String> {
    let number = text.trim_end_matches('%').trim().parse().ok();
    let part = number.map(|number: f64| number / 100.0).filter(|part| (0.0..=10.0).contains(part));
    part.ok_or_else(|| "expected a percentage, such as 5% or 2.5%".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn clap_accepts_the_definitions() {
        Arguments::command().debug_assert();
    }

    /// Lists the headings in the help of a subcommand, each with the names of its options.
    fn headings(subcommand: &str) -> Vec<String> {
        let command = Arguments::command();
        let subcommand = command.find_subcommand(subcommand).expect("a subcommand");
        let mut headings: Vec<(String, String)> = Vec::new();
        for option in subcommand.get_arguments().filter(|argument| !argument.is_positional()) {
            let heading = option.get_help_heading().unwrap_or("Options");
            let name = option.get_long().expect("each option has a long name");
            match headings.iter_mut().find(|(known, _)| known == heading) {
                Some((_, names)) => *names += &format!(" {name}"),
                None => headings.push((heading.into(), name.into())),
            }
        }
        headings.into_iter().map(|(heading, names)| format!("{heading}: {names}")).collect()
    }

    #[test]
    fn each_option_is_listed_under_its_heading() {
        let expected = [
            "Input: set state pre labels data data-pre samples",
            "Output: output transport report name model-version",
            "Target: target arena-limit integer-io",
            "Quantization: int8 dynamic weights float ranges equalize rounding weight-bits palette \
             keep-float int16 max-error strict-int8",
            "Pruning: prune-channels dense sparsity",
            "Evaluation: evaluate frontier",
            "Gates: max-size max-transport max-arena max-drop max-latency gates",
            "Limits: max-memory max-time",
        ];
        assert_eq!(headings("convert"), expected);
        let expected = [
            "Options: threshold",
            "Input: input data samples pre set",
            "Quantization: ranges equalize rounding weight-bits palette keep-float int16 max-error \
             strict-int8",
            "Pruning: sparsity",
            "Limits: max-memory max-time",
        ];
        assert_eq!(headings("bisect"), expected);
        let limits = "Limits: max-memory max-operations max-run-time";
        let expected = [
            "Options: threads runs profile isa",
            "Remote board: board runner wrapper ssh timeout",
            "Baseline: baseline threshold",
            "Output: save junit markdown",
            limits,
        ];
        assert_eq!(headings("bench"), expected);
        assert_eq!(headings("run"), ["Options: inputs output top-k", limits]);
        assert_eq!(headings("eval"), ["Options: data against", limits]);
        assert_eq!(headings("verify"), [limits]);
        for subcommand in ["inspect", "pack", "unpack", "diff", "targets"] {
            assert!(headings(subcommand).iter().all(|line| line.starts_with("Options: ")));
        }
    }

    #[test]
    fn percentages_become_fractions() {
        assert_eq!((percent("5%"), percent("2.5"), percent("0 %")), (Ok(0.05), Ok(0.025), Ok(0.0)));
        assert!(percent("-1%").is_err() && percent("much").is_err() && percent("nan").is_err());
    }

    #[test]
    fn pairs_need_both_sides() {
        assert_eq!(pair("a=1x2"), Ok(("a".into(), "1x2".into())));
        assert!(pair("a=").is_err() && pair("=1").is_err() && pair("a").is_err());
    }
}
