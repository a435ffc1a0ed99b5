//! What the command line may say of a conversion.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use hardtack_converter::PruneTarget;
use hardtack_converter::guard::Limits;

use super::{Quantize, Target, file_name, pair, percent, target};
use crate::gates::Latency;

/// How real weights are stored.
#[derive(Clone, Copy, ValueEnum)]
pub enum Float {
    F32,
    F16,
    Bf16,
}

/// How the large matrices of what runs in float are stored.
#[derive(Clone, Copy, ValueEnum)]
pub enum Weights {
    Float,
    Int8,
    Int4,
}

#[derive(Args)]
pub struct Convert {
    /// The model.
    #[arg(value_name = "MODEL.onnx")]
    pub model: PathBuf,
    /// Where the bundle goes.
    #[arg(short, long, value_name = "OUT.tack", value_parser = file_name())]
    pub output: PathBuf,
    /// Write the bundle's transport form too.
    #[arg(long, value_name = "OUT.tackz", value_parser = file_name())]
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
    /// How the large matrices of what runs in float are stored: int8, a byte each with a scale per
    /// output channel; int4, half a byte each with a scale and a zero point per block of 32, but for
    /// kernels that slide; or float, as other weights. Needs no calibration data. int8 where --int8 is
    /// given without --keep-float and --max-error.
    #[arg(long)]
    pub weights: Option<Weights>,
    /// Compute products of what runs in float with its large matrices in integers: activations are
    /// quantized when they are there, each row by its own range. For transformers. Needs no
    /// calibration data; matrices are stored as --weights int8 does it.
    #[arg(long)]
    pub dynamic: bool,
    /// What the bundle is made for: generic (weights are packed when it is loaded), native (this
    /// machine), a family of processors (x86-zmm, x86-ymm, neon-dot), or a board, which also
    /// limits the arena (see `hardtack targets`; or the .toml file of one).
    #[arg(long, value_name = "NAME", default_value = "generic", value_parser = target)]
    pub target: Target,
    /// Let the integer programs use no more memory for activations: 256KB, 1.5MiB, or bytes.
    /// Convolutions are computed in strips to reach it, which takes a little longer.
    #[arg(long, value_name = "SIZE", value_parser = hardtack_targets::bytes)]
    pub arena_limit: Option<u64>,
    /// Let weights keep their zeros, however many these are. A microcontroller then takes more flash
    /// for them, and mostly less time; other devices run the same either way.
    #[arg(long)]
    pub dense: bool,
    /// Take and give i8 instead of reals, as microcontrollers do; the manifest tells scale and
    /// zero point of each. The model must be in integers throughout.
    #[arg(long)]
    pub integer_io: bool,
    /// Compare float with the bundle on labelled data: arrays x (samples first) and y; or a folder
    /// of folders, each with the files of the class it is named after.
    #[arg(long, value_name = "FILE.npz|DIR")]
    pub evaluate: Option<PathBuf>,
    /// Convert with each of these numbers of bits per weight, too, and tell size and accuracy of
    /// each: 3,3.5,4,5,6,8. Takes as long as so many conversions.
    #[arg(
        long,
        value_name = "BITS,…",
        requires = "evaluate",
        requires = "int8",
        value_delimiter = ',',
        value_parser = super::quantize::weight_bits
    )]
    pub frontier: Vec<f64>,
    /// Write what was done and measured as a page to look at.
    #[arg(long, value_name = "FILE.html", value_parser = file_name())]
    pub report: Option<PathBuf>,
    /// Name of the model; the file's name where not given.
    #[arg(long)]
    pub name: Option<String>,
    /// Version of the model's content.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub model_version: String,
    #[command(flatten)]
    pub limits: LimitArguments,
    // Groups of options come last: their headings hold for all that follows.
    #[command(flatten)]
    pub quantize: Quantize,
    #[command(flatten)]
    pub gates: GateArguments,
}

impl Convert {
    /// Returns the paths of all files that the conversion writes.
    pub fn outputs(&self) -> Vec<&Path> {
        let more = [&self.transport, &self.report].into_iter().flatten();
        [&self.output].into_iter().chain(more).map(PathBuf::as_path).collect()
    }

    /// The files and folders that the command reads.
    pub fn inputs(&self) -> Vec<&Path> {
        let Convert { calibrate, calibrate_pre, pre, labels, evaluate, gates, .. } = self;
        let more = [calibrate, calibrate_pre, pre, labels, evaluate, &gates.gates];
        let more = more.into_iter().flatten();
        [&self.model].into_iter().chain(more).map(PathBuf::as_path).collect()
    }
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
    pub limits: LimitArguments,
    #[command(flatten)]
    pub quantize: Quantize,
}

/// What a conversion may take.
#[derive(Args)]
pub struct LimitArguments {
    /// Stop the conversion if it needs more memory than this, such as 2GiB, 500MB or a number of bytes
    /// [default: 80 % of the machine's memory].
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    pub max_memory: Option<u64>,
    /// Stop the conversion after this many seconds, such as 600 [default: 14400 for each conversion that
    /// the options ask for, and 600 for the import].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_time: Option<u64>,
}

impl LimitArguments {
    /// What the process may use that reads the model.
    pub fn of_import(&self) -> Limits {
        let limits = Limits::default();
        Limits {
            memory_bytes: self.max_memory.unwrap_or(limits.memory_bytes),
            seconds: self.max_time.unwrap_or(limits.seconds),
        }
    }
}

/// An amount of memory that a process can live with.
fn memory(text: &str) -> Result<u64, String> {
    const LEAST: u64 = 64 << 20;
    let bytes = hardtack_targets::bytes(text)?;
    if bytes >= LEAST { Ok(bytes) } else { Err("a conversion needs 64MiB at least".into()) }
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

    #[test]
    fn a_process_needs_some_memory() {
        assert_eq!(memory("64MiB"), Ok(64 << 20));
        assert!(memory("1MB").is_err() && memory("much").is_err());
    }

    #[test]
    fn prune_targets_are_parts_of_something() {
        assert_eq!(prune_target("macs=30%"), Ok(PruneTarget::Macs(0.3)));
        assert_eq!(prune_target("bytes=50"), Ok(PruneTarget::Bytes(0.5)));
        for wrong in ["30%", "macs=0%", "macs=100%", "watts=3%", "macs="] {
            assert!(prune_target(wrong).is_err(), "{wrong}");
        }
    }
}
