//! What the command line may say.

use std::path::{Path, PathBuf};

use crate::gates::Latency;
use clap::{Args, Parser, Subcommand, ValueEnum};
use hardtack::{Isa, Packing, family_of};
use hardtack_converter::PruneTarget;
use hardtack_converter::quantize::{Method, Rounding, Settings, Sparsity};

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

/// How real weights are stored.
#[derive(Clone, Copy, ValueEnum)]
pub enum Float {
    F32,
    F16,
    Bf16,
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
            hardtack_targets::read(Path::new(name)).map_err(|error| error.to_string())?
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
pub struct Convert {
    /// The model.
    #[arg(value_name = "MODEL.onnx")]
    pub model: PathBuf,
    /// Where the bundle goes.
    #[arg(short, long, value_name = "OUT.tack")]
    pub output: PathBuf,
    /// Write the bundle's transport form too.
    #[arg(long, value_name = "OUT.tackz")]
    pub transport: Option<PathBuf>,
    /// Take whole channels out, without training, until this part of the multiply-accumulates, of
    /// the bytes of weights, or of the time of a run on this machine is gone: macs=30%, bytes=30%,
    /// latency=20%. The layers that read them are fitted anew.
    #[arg(long, value_name = "WHAT=PART", requires = "calibrate", value_parser = prune_target)]
    pub prune_channels: Option<PruneTarget>,
    /// Quantize to INT8, by the ranges of calibration data.
    #[arg(long, requires = "calibrate")]
    pub int8: bool,
    /// Calibration data: arrays named as the inputs with samples first, or one array x; or a
    /// folder of pictures or recordings.
    #[arg(long, value_name = "FILE.npz|DIR")]
    pub calibrate: Option<PathBuf>,
    /// Pre-processing of the calibration data, where it is another than the bundle's.
    #[arg(long, value_name = "SPEC.toml", requires = "calibrate")]
    pub calibrate_pre: Option<PathBuf>,
    /// Use this many calibration samples at most.
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    pub samples: u32,
    #[command(flatten)]
    pub quantize: Quantize,
    #[command(flatten)]
    pub gates: GateArguments,
    /// Pre- and post-processing, and labels, that the bundle takes along.
    #[arg(long, value_name = "SPEC.toml")]
    pub pre: Option<PathBuf>,
    /// Names of the classes, one a line.
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// Bind a named dimension or an input: batch=1, sr=16000, input=1x3x224x224.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub set: Vec<(String, String)>,
    /// Feed an output back into an input at the next run.
    #[arg(long, value_name = "OUTPUT=INPUT", value_parser = pair)]
    pub state: Vec<(String, String)>,
    /// How real weights are stored.
    #[arg(long, default_value = "f32")]
    pub float: Float,
    /// What the bundle is made for: generic (weights are packed when it is loaded), native (this
    /// machine), a family of processors (x86-zmm, x86-ymm, neon-dot), or a board, which also
    /// limits the arena (see `hardtack targets`; or the .toml file of one).
    #[arg(long, value_name = "NAME", default_value = "generic", value_parser = target)]
    pub target: Target,
    /// Let the integer programs use no more memory for activations: 256KB, 1.5MiB, or bytes.
    /// Convolutions are computed in strips to reach it, which takes a little longer.
    #[arg(long, value_name = "SIZE", value_parser = hardtack_targets::bytes)]
    pub arena_limit: Option<u64>,
    /// Take and give i8 instead of reals, as microcontrollers do; the manifest tells scale and
    /// zero point of each. The model must be in integers throughout.
    #[arg(long)]
    pub integer_io: bool,
    /// Compare float with the bundle on labelled data: arrays x (samples first) and y; or a folder
    /// of folders, each with the files of the class it is named after.
    #[arg(long, value_name = "FILE.npz|DIR")]
    pub evaluate: Option<PathBuf>,
    /// Write what was done and measured as a page to look at.
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
    /// Name of the model; the file's name where not given.
    #[arg(long)]
    pub name: Option<String>,
    /// Version of the model's content.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub model_version: String,
}

#[derive(Args)]
pub struct Bisect {
    /// The model.
    #[arg(value_name = "MODEL.onnx")]
    pub model: PathBuf,
    /// The input: a picture, a recording, or arrays as --calibrate takes them.
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    /// A layer departs whose signal to noise ratio is less than this, in dB.
    #[arg(long, value_name = "DB", default_value_t = 20.0)]
    pub threshold: f64,
    /// Calibration data, as for convert.
    #[arg(long, value_name = "FILE.npz|DIR")]
    pub calibrate: PathBuf,
    /// Use this many calibration samples at most.
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(2..))]
    pub samples: u32,
    /// Pre-processing of the input and of the calibration data.
    #[arg(long, value_name = "SPEC.toml")]
    pub pre: Option<PathBuf>,
    /// Bind a named dimension or an input: batch=1, sr=16000, input=1x3x224x224.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub set: Vec<(String, String)>,
    #[command(flatten)]
    pub quantize: Quantize,
}

/// What a bundle must keep: else none is written, and the exit code is 1.
#[derive(Args)]
#[command(next_help_heading = "Gates")]
pub struct GateArguments {
    /// The most bytes of the bundle: 1MB, 256KiB.
    #[arg(long, value_name = "SIZE", value_parser = hardtack_targets::bytes)]
    pub max_size: Option<u64>,
    /// The most bytes of its transport form.
    #[arg(long, value_name = "SIZE", value_parser = hardtack_targets::bytes)]
    pub max_transport: Option<u64>,
    /// The most bytes of the arena.
    #[arg(long, value_name = "SIZE", value_parser = hardtack_targets::bytes)]
    pub max_arena: Option<u64>,
    /// The most that top-1 on the data of --evaluate may fall from the float model's, in points.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub max_drop: Option<f64>,
    /// The most time that so many of a hundred runs take on this machine: p95=5ms.
    #[arg(long, value_name = "pN=TIME", value_parser = crate::gates::latency)]
    pub max_latency: Option<Latency>,
    /// A file of these, for a repository: max-size = "1MB", …; and of an earlier report (the --json
    /// of a conversion) that nothing may be worse than: earlier = "report.json", worse = "2%".
    #[arg(long, value_name = "FILE.toml")]
    pub gates: Option<PathBuf>,
}

/// How a network is quantized.
#[derive(Args)]
#[command(next_help_heading = "Quantization")]
pub struct Quantize {
    /// How the ranges of activations are chosen: min-max, moving-average, percentile, entropy, mse,
    /// or auto, which takes for each tensor the one of least error.
    #[arg(long, value_name = "METHOD", default_value = "auto", value_parser = method)]
    pub ranges: Method,
    /// How weights are rounded: adaptive, so that the outputs of their layer are nearest to the real
    /// ones over calibration data, or nearest, each by itself.
    #[arg(long, value_name = "HOW", default_value = "adaptive", value_parser = rounding)]
    pub rounding: Rounding,
    /// How many bits a weight may have in the mean, from 1 to 8: steps become coarser, the error is
    /// spread over the layers so that the whole is least, and the transport form becomes smaller. A
    /// run takes as long as before. 6 where --transport is given; 8 leaves steps as fine as they can be.
    #[arg(long, value_name = "BITS", value_parser = weight_bits)]
    pub weight_bits: Option<f64>,
    /// Make weights zero, without training: this part of each layer's (50%), or all but so many of so
    /// many side by side (2:4). What their outputs lack, others make good. The transport form becomes
    /// smaller; a run takes as long as before.
    #[arg(long, value_name = "PART|N:M")]
    pub sparsity: Option<Sparsity>,
    /// Keep a node in float, by its name in the ONNX file, with the functions right after it.
    #[arg(long, value_name = "NODE")]
    pub keep_float: Vec<String>,
    /// Keep layers in float until the outputs' error over calibration data is at most this: root
    /// mean square difference from the float model, of the outputs' root mean square. Those that
    /// take away the most error for their time come first.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub max_error: Option<f64>,
}

fn weight_bits(text: &str) -> Result<f64, String> {
    let bits = text.parse().ok().filter(|bits: &f64| (1.0..=8.0).contains(bits));
    bits.ok_or_else(|| "it is a number from 1 to 8".into())
}

fn rounding(name: &str) -> Result<Rounding, String> {
    match name {
        "adaptive" => Ok(Rounding::Adaptive),
        "nearest" => Ok(Rounding::Nearest),
        _ => Err("weights are rounded adaptive or nearest".into()),
    }
}

impl Quantize {
    /// The same for the converter.
    pub fn settings(&self) -> Settings {
        Settings {
            method: self.ranges,
            rounding: self.rounding,
            weight_bits: self.weight_bits,
            sparsity: self.sparsity,
            keep_float: self.keep_float.clone(),
            max_error: self.max_error,
        }
    }
}

fn method(name: &str) -> Result<Method, String> {
    let methods = || [Method::Auto].into_iter().chain(Method::ALL);
    methods().find(|method| method.name() == name).ok_or_else(|| {
        let names: Vec<&str> = methods().map(Method::name).collect();
        format!("there is no such method; it is one of {}", names.join(", "))
    })
}

#[derive(Args)]
pub struct Run {
    #[arg(value_name = "BUNDLE")]
    pub bundle: PathBuf,
    /// Pictures, recordings or arrays (.npy), through the bundle's own pre-processing.
    #[arg(value_name = "FILE", required_unless_present = "inputs", conflicts_with = "inputs")]
    pub files: Vec<PathBuf>,
    /// Arrays named as the model's inputs; others are ignored.
    #[arg(long, value_name = "FILE.npz")]
    pub inputs: Option<PathBuf>,
    /// Write the outputs of a single run as arrays.
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
    /// Number of threads for integer programs.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
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
    /// Give up after so many seconds of one command on the board.
    #[arg(long, value_name = "SECONDS", requires = "board", default_value_t = 600)]
    pub timeout: u32,
    /// Compare with a measurement that --save wrote; slower than allowed is exit code 1.
    #[arg(long, value_name = "FILE.json")]
    pub baseline: Option<PathBuf>,
    /// What the median may grow by; three times the noise of both where that is more.
    #[arg(long, value_name = "PERCENT", requires = "baseline", default_value = "5%", value_parser = percent)]
    pub threshold: f64,
    /// Write the measurement, to be a baseline.
    #[arg(long, value_name = "FILE.json")]
    pub save: Option<PathBuf>,
    /// Write it as JUnit's XML.
    #[arg(long, value_name = "FILE.xml")]
    pub junit: Option<PathBuf>,
    /// Write it as a table in Markdown.
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
    /// Draw it: the arena over time, one bar a tensor. With several programs, the first.
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
}

#[derive(Args)]
pub struct Pack {
    #[arg(value_name = "BUNDLE")]
    pub bundle: PathBuf,
    /// Where the transport form goes.
    #[arg(short, long, value_name = "OUT.tackz")]
    pub output: PathBuf,
}

#[derive(Args)]
pub struct Unpack {
    #[arg(value_name = "FILE.tackz")]
    pub file: PathBuf,
    /// Where the bundle goes.
    #[arg(short, long, value_name = "OUT.tack")]
    pub output: PathBuf,
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

/// A part of a whole, written in hundredths.
pub fn percent(text: &str) -> Result<f64, String> {
    let number = text.trim_end_matches('%').trim().parse().ok();
    let part = number.map(|number: f64| number / 100.0).filter(|part| (0.0..=10.0).contains(part));
    part.ok_or_else(|| "write it as 5% or 2.5%".into())
}

/// What is pruned, and the part of it.
fn prune_target(text: &str) -> Result<PruneTarget, String> {
    let target = text.split_once('=').and_then(|(name, part)| {
        let part = percent(part).ok().filter(|part| *part > 0.0 && *part < 1.0)?;
        match name {
            "macs" => Some(PruneTarget::Macs(part)),
            "bytes" => Some(PruneTarget::Bytes(part)),
            "latency" => Some(PruneTarget::Latency(part)),
            _ => None,
        }
    });
    target.ok_or_else(|| "write it as macs=30%, bytes=30% or latency=20%".into())
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
    fn prune_targets_are_parts_of_something() {
        assert_eq!(prune_target("macs=30%"), Ok(PruneTarget::Macs(0.3)));
        assert_eq!(prune_target("bytes=50"), Ok(PruneTarget::Bytes(0.5)));
        for wrong in ["30%", "macs=0%", "macs=100%", "watts=3%", "macs="] {
            assert!(prune_target(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn pairs_have_both_sides() {
        assert_eq!(pair("a=1x2"), Ok(("a".into(), "1x2".into())));
        assert!(pair("a=").is_err() && pair("=1").is_err() && pair("a").is_err());
    }
}
