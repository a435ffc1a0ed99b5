//! The command-line arguments of `hardtack convert` and `hardtack bisect`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use hardtack_converter::PruneTarget;
use hardtack_converter::guard::Limits;

use super::{Quantize, Target, file_name, pair, percent, target};
use crate::support::gates::Latency;

/// The storage type of float weights.
#[derive(Clone, Copy, ValueEnum)]
pub enum Float {
    F32,
    F16,
    Bf16,
}

/// The storage type of the large weight matrices of float layers.
#[derive(Clone, Copy, ValueEnum)]
pub enum Weights {
    /// The type of the other float weights (--float).
    Float,
    /// One byte per weight, and one scale per output channel.
    Int8,
    /// Half a byte per weight, and a scale and a zero point per block of 32 weights. Spatial
    /// convolution kernels are stored as with int8.
    Int4,
}

// Each option is listed under its `help_heading`, and the headings in the order of their first
// option. The flattened structs come last, because their `next_help_heading` holds for all fields
// that follow.
#[derive(Args)]
pub struct Convert {
    /// The ONNX model to convert.
    #[arg(value_name = "MODEL.onnx")]
    pub model: PathBuf,
    /// Bind a named dimension or an input with NAME=VALUE, such as batch=1 or input=1x3x224x224.
    ///
    /// VALUE is the size of a dimension, the shape of an input, or the number that an input always
    /// has (sr=16000). A shape binds the names of its dimensions in all inputs.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair, help_heading = "Input")]
    pub set: Vec<(String, String)>,
    /// Feed OUTPUT back into INPUT at the next inference, such as stateN=state.
    #[arg(long, value_name = "OUTPUT=INPUT", value_parser = pair, help_heading = "Input")]
    pub state: Vec<(String, String)>,
    /// Store the pre-processing, post-processing and labels of SPEC.toml in the bundle.
    #[arg(long, value_name = "SPEC.toml", help_heading = "Input")]
    pub pre: Option<PathBuf>,
    /// Store the class names in FILE, one per line, in the bundle [default: the labels of --pre].
    #[arg(long, value_name = "FILE", help_heading = "Input")]
    pub labels: Option<PathBuf>,
    /// Convert with the samples in FILE or DIR, such as samples.npz [default: random numbers].
    ///
    /// They calibrate INT8, and serve the checks and test vectors of every model. FILE.npz has one
    /// array per input, named after the input, or a single array x; samples are the first
    /// dimension. FILE.npy has one such array. DIR has images or audio files.
    #[arg(long, alias = "calibrate", value_name = "FILE|DIR", help_heading = "Input")]
    pub data: Option<PathBuf>,
    /// Pre-process the samples as in SPEC.toml [default: as in --pre].
    #[arg(
        long,
        alias = "calibrate-pre",
        value_name = "SPEC.toml",
        requires = "data",
        help_heading = "Input"
    )]
    pub data_pre: Option<PathBuf>,
    /// Use at most N samples, such as 64.
    #[arg(
        long,
        value_name = "N",
        requires = "data",
        default_value_t = 128,
        value_parser = clap::value_parser!(u32).range(1..),
        help_heading = "Input"
    )]
    pub samples: u32,
    /// Write the bundle to OUT.tack.
    #[arg(short, long, value_name = "OUT.tack", value_parser = file_name(), help_heading = "Output")]
    pub output: PathBuf,
    /// Also write a compressed bundle for transfer to OUT.tackz.
    ///
    /// Lowers the default of --weight-bits.
    #[arg(long, value_name = "OUT.tackz", value_parser = file_name(), help_heading = "Output")]
    pub transport: Option<PathBuf>,
    /// Write a report with plots of the conversion and its measurements to FILE.html.
    #[arg(long, value_name = "FILE.html", value_parser = file_name(), help_heading = "Output")]
    pub report: Option<PathBuf>,
    /// Name the model NAME, such as keywords [default: the file name of the model].
    #[arg(long, help_heading = "Output")]
    pub name: Option<String>,
    /// Set the version of the model to TEXT, such as 1.2.
    #[arg(long, value_name = "TEXT", default_value = "", help_heading = "Output")]
    pub model_version: String,
    /// Build the bundle for NAME: generic, native, a family or a board, such as rpi5.
    ///
    /// generic packs the weights when the bundle is loaded. native is this machine. The families
    /// are x86-zmm, x86-ymm and neon-dot. For the boards, see `hardtack targets`, or give the path
    /// of a board's .toml file; a board also limits the arena.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "generic",
        value_parser = target,
        help_heading = "Target"
    )]
    pub target: Target,
    /// Limit the arena to SIZE, such as 256KB or 1.5MiB [default: the limit of --target].
    ///
    /// The arena holds the activations of the integer programs. Convolutions are computed in row
    /// tiles to reach the limit, which takes slightly longer.
    #[arg(
        long,
        value_name = "SIZE",
        value_parser = hardtack_targets::bytes,
        help_heading = "Target"
    )]
    pub arena_limit: Option<u64>,
    /// Use INT8 inputs and outputs instead of float, as microcontrollers do.
    ///
    /// The manifest has the scale and zero point of each. The whole model must run in integers.
    #[arg(long, help_heading = "Target")]
    pub integer_io: bool,
    /// Quantize the model to INT8 with the ranges of the calibration data.
    #[arg(long, requires = "data", help_heading = "Quantization")]
    pub int8: bool,
    /// Run large float matmuls in INT8, quantizing activations at run time (dynamic quantization).
    ///
    /// For transformers. Each row of activations has its own scale. Needs no calibration data.
    /// Weights are stored as with --weights int8.
    #[arg(long, help_heading = "Quantization")]
    pub dynamic: bool,
    /// Store the large matrices of float layers as WEIGHTS [default: int8 with --int8 or
    /// --dynamic].
    ///
    /// Needs no calibration data. The default is float without --int8 and --dynamic, and with
    /// --keep-float or --max-error unless --dynamic is given.
    #[arg(long, help_heading = "Quantization")]
    pub weights: Option<Weights>,
    /// Store all other float weights as FLOAT.
    #[arg(long, default_value = "f32", help_heading = "Quantization")]
    pub float: Float,
    /// Prune channels until PART of WHAT is gone, such as macs=30%, bytes=30% or latency=20%.
    ///
    /// WHAT is the multiply-accumulates (macs), the bytes of the weights, or the inference time on
    /// this machine. Prunes whole channels without training; the layers that read them are refitted
    /// on the calibration data.
    #[arg(
        long,
        value_name = "WHAT=PART",
        requires = "data",
        value_parser = prune_target,
        help_heading = "Pruning"
    )]
    pub prune_channels: Option<PruneTarget>,
    /// Store the zeros of sparse layers too.
    ///
    /// On a microcontroller, such layers take more flash but usually less time. The speed on other
    /// devices does not change.
    #[arg(long, requires = "sparsity", help_heading = "Pruning")]
    pub dense: bool,
    /// Compare the bundle with the float model on the labeled data in FILE.npz or DIR.
    ///
    /// FILE.npz, such as labeled.npz, has the arrays x (samples first) and y. DIR has a subfolder
    /// for each class, named after its label or number.
    #[arg(long, value_name = "FILE.npz|DIR", help_heading = "Evaluation")]
    pub evaluate: Option<PathBuf>,
    /// Also convert with each of BITS per weight and report size and accuracy, such as 3,4,6,8.
    ///
    /// Each value takes as long as a conversion.
    #[arg(
        long,
        value_name = "BITS,…",
        requires = "evaluate",
        requires = "int8",
        value_delimiter = ',',
        value_parser = super::quantize::weight_bits,
        help_heading = "Evaluation"
    )]
    pub frontier: Vec<f64>,
    #[command(flatten)]
    pub quantize: Quantize,
    #[command(flatten)]
    pub gates: GateArguments,
    #[command(flatten)]
    pub limits: LimitArguments,
}

impl Convert {
    /// Returns the paths of all files that the conversion writes.
    pub fn outputs(&self) -> Vec<&Path> {
        let more = [&self.transport, &self.report].into_iter().flatten();
        [&self.output].into_iter().chain(more).map(PathBuf::as_path).collect()
    }

    /// The files and folders that the command reads.
    pub fn inputs(&self) -> Vec<&Path> {
        let Convert { data, data_pre, pre, labels, evaluate, gates, .. } = self;
        let more = [data, data_pre, pre, labels, evaluate, &gates.gates];
        let more = more.into_iter().flatten();
        [&self.model].into_iter().chain(more).map(PathBuf::as_path).collect()
    }
}

#[derive(Args)]
pub struct Bisect {
    /// The ONNX model to quantize.
    #[arg(value_name = "MODEL.onnx")]
    pub model: PathBuf,
    /// Report the first layer whose signal-to-quantization-noise ratio is below DB, such as 15.
    #[arg(long, value_name = "DB", default_value_t = 20.0)]
    pub threshold: f64,
    /// Compare the layers on FILE: an image, an audio file or arrays, such as cat.jpg.
    #[arg(long, value_name = "FILE", help_heading = "Input")]
    pub input: PathBuf,
    /// Calibrate with the samples in FILE or DIR, such as samples.npz.
    ///
    /// FILE.npz has one array per input, named after the input, or a single array x; samples are
    /// the first dimension. FILE.npy has one such array. DIR has images or audio files.
    #[arg(long, alias = "calibrate", value_name = "FILE|DIR", help_heading = "Input")]
    pub data: PathBuf,
    /// Use at most N samples, such as 64.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 128,
        value_parser = clap::value_parser!(u32).range(2..),
        help_heading = "Input"
    )]
    pub samples: u32,
    /// Pre-process the input and the calibration data as in SPEC.toml [default: not at all].
    #[arg(long, value_name = "SPEC.toml", help_heading = "Input")]
    pub pre: Option<PathBuf>,
    /// Bind a named dimension or an input with NAME=VALUE, such as batch=1 or input=1x3x224x224.
    ///
    /// VALUE is the size of a dimension, the shape of an input, or the number that an input always
    /// has (sr=16000). A shape binds the names of its dimensions in all inputs.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair, help_heading = "Input")]
    pub set: Vec<(String, String)>,
    #[command(flatten)]
    pub quantize: Quantize,
    #[command(flatten)]
    pub limits: LimitArguments,
}

/// Limits on the resources of a conversion.
#[derive(Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitArguments {
    /// Stop the conversion if it needs more memory than SIZE, such as 2GiB [default: 80 % of the
    /// machine's memory].
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    pub max_memory: Option<u64>,
    /// Stop the conversion after SECONDS, such as 600 [default: 14400 for each conversion that the
    /// options ask for, and 600 for the import].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_time: Option<u64>,
}

impl LimitArguments {
    /// Returns the limits of the process that imports the model.
    pub fn of_import(&self) -> Limits {
        let limits = Limits::default();
        Limits {
            memory_bytes: self.max_memory.unwrap_or(limits.memory_bytes),
            seconds: self.max_time.unwrap_or(limits.seconds),
        }
    }
}

/// Parses a memory limit of at least 64 MiB, which a process needs to start.
fn memory(text: &str) -> Result<u64, String> {
    const LEAST: u64 = 64 << 20;
    let bytes = hardtack_targets::bytes(text)?;
    if bytes >= LEAST { Ok(bytes) } else { Err("a conversion needs at least 64MiB".into()) }
}

/// Quality gates. If the bundle fails one, it is not written and the exit code is 1.
#[derive(Args)]
#[command(next_help_heading = "Gates")]
pub struct GateArguments {
    /// Fail if the bundle is larger than SIZE, such as 1MB or 256KiB [default: no limit].
    ///
    /// If a gate fails, no bundle is written and the exit code is 1.
    #[arg(long, value_name = "SIZE", value_parser = hardtack_targets::bytes)]
    pub max_size: Option<u64>,
    /// Fail if the compressed bundle is larger than SIZE, such as 500KB [default: no limit].
    #[arg(long, value_name = "SIZE", value_parser = hardtack_targets::bytes)]
    pub max_transport: Option<u64>,
    /// Fail if the arena is larger than SIZE, such as 64KiB [default: no limit].
    #[arg(long, value_name = "SIZE", value_parser = hardtack_targets::bytes)]
    pub max_arena: Option<u64>,
    /// Fail if top-1 accuracy is more than PERCENT points below float, such as 0.5% [default: no
    /// limit].
    ///
    /// Measured on the data of --evaluate.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub max_drop: Option<f64>,
    /// Fail if percentile N of the latency on this machine exceeds TIME, such as p95=5ms [default:
    /// no limit].
    #[arg(long, value_name = "pN=TIME", value_parser = crate::support::gates::latency)]
    pub max_latency: Option<Latency>,
    /// Read gates from FILE.toml, such as gates.toml [default: none].
    ///
    /// Keys: max-size = "1MB", max-transport, max-arena, max-drop, max-latency. Gates on the
    /// command line take precedence. With earlier = "report.json", the --json output of an earlier
    /// conversion, fail if a result is worse than there by more than worse = "2%".
    #[arg(long, value_name = "FILE.toml")]
    pub gates: Option<PathBuf>,
}

/// Parses what is pruned and the fraction of it to remove, such as `macs=30%`.
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
    target.ok_or_else(|| "expected macs=PART, bytes=PART or latency=PART, such as macs=30%".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_limits_below_64_mib_are_rejected() {
        assert_eq!(memory("64MiB"), Ok(64 << 20));
        assert!(memory("1MB").is_err() && memory("much").is_err());
    }

    #[test]
    fn prune_targets_need_a_quantity_and_a_percentage() {
        assert_eq!(prune_target("macs=30%"), Ok(PruneTarget::Macs(0.3)));
        assert_eq!(prune_target("bytes=50"), Ok(PruneTarget::Bytes(0.5)));
        for wrong in ["30%", "macs=0%", "macs=100%", "watts=3%", "macs="] {
            assert!(prune_target(wrong).is_err(), "{wrong}");
        }
    }
}
