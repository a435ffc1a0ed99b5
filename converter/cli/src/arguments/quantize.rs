//! The command-line options that choose how a network is quantized.

use clap::Args;
use hardtack_converter::{Equalize, Int16, QuantizeOptions, RangeMethod, Rounding, Sparsity};

use super::percent;

/// Options of the quantization.
#[derive(Args)]
#[command(next_help_heading = "Quantization")]
pub struct Quantize {
    /// Choose activation ranges by METHOD, such as min-max.
    ///
    /// METHOD is min-max, moving-average, percentile, entropy, mse or auto. auto tries ranges that
    /// clip nothing that changes a result, and mse, and uses those with the more accurate outputs.
    #[arg(long, value_name = "METHOD", default_value = "auto", value_parser = method)]
    pub ranges: RangeMethod,
    /// Scale the channels of activations to similar ranges by HOW: auto or off.
    ///
    /// Cross-layer equalization: auto scales only where that reduces the error on the calibration
    /// data considerably. The results of the float model do not change.
    #[arg(long, value_name = "HOW", default_value = "auto", value_parser = equalize)]
    pub equalize: Equalize,
    /// Round weights by HOW: adaptive (GPTQ) or nearest.
    ///
    /// adaptive minimizes the error of each layer's output on the calibration data. nearest rounds
    /// each weight on its own.
    #[arg(long, value_name = "HOW", default_value = "adaptive", value_parser = rounding)]
    pub rounding: Rounding,
    /// Use BITS per weight on average (1-8), such as 4.5 [default: 8; with --transport, 6].
    ///
    /// Bits are allocated across layers to minimize the total error. Shrinks the compressed bundle;
    /// speed is unchanged. With --transport, the default is 7.5 for the matrices of float layers.
    #[arg(long, value_name = "BITS", value_parser = weight_bits)]
    pub weight_bits: Option<f64>,
    /// Set PART of each layer's weights to zero, or all but N of every M, such as 50% or 2:4.
    ///
    /// Needs no training: the remaining weights are adjusted to compensate. Zeros are not stored,
    /// so the bundle shrinks too, unless --dense is given.
    #[arg(long, value_name = "PART|N:M", help_heading = "Pruning")]
    pub sparsity: Option<Sparsity>,
    /// Limit each layer to N different weights (2-64), such as 16 [default: no limit].
    ///
    /// One of them is 0. Shrinks the compressed bundle; speed is unchanged.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(2..=64))]
    pub palette: Option<u8>,
    /// Keep NODE in float, such as Resize_12. Can be repeated.
    ///
    /// NODE is a name in the ONNX file, and stands for all nodes that the import made of it. The
    /// element-wise functions right after it stay in float too.
    #[arg(long, value_name = "NODE")]
    pub keep_float: Vec<String>,
    /// Use 16-bit activations for NODE, such as Conv_3, or all. Can be repeated.
    ///
    /// NODE is a name in the ONNX file, and stands for all nodes that the import made of it. The
    /// element-wise functions right after it are included. Weights keep 8 bits, so the bundle stays
    /// small. Each layer is computed two to four times (a detector took five times as long).
    #[arg(long, value_name = "NODE")]
    pub int16: Vec<String>,
    /// Use 16 bits or float where needed to limit the output error to PERCENT, such as 1%, or auto.
    ///
    /// The error is the RMS difference from the float model on the calibration data, divided by
    /// the RMS deviation of its outputs from their mean. Layers that remove the most error for
    /// their work are chosen first. auto tries smaller and smaller errors until the accuracy passes
    /// --max-drop. The default is 10% for outputs that are one vector, such as class scores, 2% for
    /// outputs with several values for each of many places, such as boxes, and 4% for all others.
    /// 100% accepts any error.
    #[arg(long, value_name = "PERCENT|auto", value_parser = max_error)]
    pub max_error: Option<MaxError>,
    /// Fail if INT8 alone is too inaccurate, instead of using 16 bits or float.
    #[arg(long, conflicts_with = "max_error")]
    pub strict_int8: bool,
}

impl Quantize {
    /// Returns the settings for the converter.
    pub fn settings(&self) -> QuantizeOptions {
        QuantizeOptions {
            method: self.ranges,
            equalize: self.equalize,
            rounding: self.rounding,
            weight_bits: self.weight_bits,
            sparsity: self.sparsity,
            palette: self.palette.map(usize::from),
            keep_float: self.keep_float.clone(),
            int16: match self.int16.iter().any(|node| node == "all") {
                true => Int16::All,
                false => Int16::Nodes(self.int16.clone()),
            },
            max_error: match self.max_error {
                Some(MaxError::Part(part)) => Some(part),
                Some(MaxError::Auto) | None => None,
            },
            strict_int8: self.strict_int8,
        }
    }
}

/// The maximum error of the outputs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MaxError {
    /// This fraction of the RMS of the outputs.
    Part(f64),
    /// The largest error with which the accuracy passes `--max-drop`.
    Auto,
}

/// Parses a percentage or `auto`.
fn max_error(text: &str) -> Result<MaxError, String> {
    match text {
        "auto" => Ok(MaxError::Auto),
        _ => percent(text).map(MaxError::Part).map_err(|error| format!("{error}, or auto")),
    }
}

/// Parses a number of bits per weight.
pub(super) fn weight_bits(text: &str) -> Result<f64, String> {
    let bits = text.parse().ok().filter(|bits: &f64| (1.0..=8.0).contains(bits));
    bits.ok_or_else(|| "expected a number from 1 to 8".into())
}

fn equalize(name: &str) -> Result<Equalize, String> {
    match name {
        "auto" => Ok(Equalize::Auto),
        "off" => Ok(Equalize::Off),
        _ => Err("expected auto or off".into()),
    }
}

fn rounding(name: &str) -> Result<Rounding, String> {
    match name {
        "adaptive" => Ok(Rounding::Adaptive),
        "nearest" => Ok(Rounding::Nearest),
        _ => Err("expected adaptive or nearest".into()),
    }
}

fn method(name: &str) -> Result<RangeMethod, String> {
    let methods = || [RangeMethod::Auto].into_iter().chain(RangeMethod::ALL);
    methods().find(|method| method.name() == name).ok_or_else(|| {
        let names: Vec<&str> = methods().map(RangeMethod::name).collect();
        format!("unknown method; use one of {}", names.join(", "))
    })
}
