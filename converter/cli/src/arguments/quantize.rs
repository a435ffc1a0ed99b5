//! What the command line may say of how a network is quantized.

use clap::Args;
use hardtack_converter::quantize::{Equalize, Int16, Method, Rounding, Settings, Sparsity};

use super::percent;

/// How a network is quantized.
#[derive(Args)]
#[command(next_help_heading = "Quantization")]
pub struct Quantize {
    /// How the ranges of activations are chosen: min-max, moving-average, percentile, entropy, mse,
    /// or auto, which takes for each tensor the one of least error.
    #[arg(long, value_name = "METHOD", default_value = "auto", value_parser = method)]
    pub ranges: Method,
    /// Factors for the channels of a value, so that one scale suits them all: auto, where they make the
    /// error over calibration data much smaller, or off. The float model's results stay the same.
    #[arg(long, value_name = "HOW", default_value = "auto", value_parser = equalize)]
    pub equalize: Equalize,
    /// How weights are rounded: adaptive, so that the outputs of their layer are nearest to the real
    /// ones over calibration data, or nearest, each by itself.
    #[arg(long, value_name = "HOW", default_value = "adaptive", value_parser = rounding)]
    pub rounding: Rounding,
    /// How many bits a weight may have in the mean, from 1 to 8: steps become coarser, the error is
    /// spread over the layers so that the whole is least, and the transport form becomes smaller. A
    /// run takes as long as before. Where --transport is given, 6, and 7.5 for matrices of what runs in
    /// float; 8 leaves steps as fine as they can be.
    #[arg(long, value_name = "BITS", value_parser = weight_bits)]
    pub weight_bits: Option<f64>,
    /// Make weights zero, without training: this part of each layer's (50%), or all but so many of so
    /// many side by side (2:4). What their outputs lack, others make good. Zeros are not stored (but
    /// for --dense), so that the bundle becomes smaller too.
    #[arg(long, value_name = "PART|N:M")]
    pub sparsity: Option<Sparsity>,
    /// Let the weights of a layer be at most so many different integers, from 2 to 64, 0 among them: the
    /// transport form becomes smaller; a run takes as long as before.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(2..=64))]
    pub palette: Option<u8>,
    /// Keep a node in float, by its name in the ONNX file, with the functions right after it.
    #[arg(long, value_name = "NODE")]
    pub keep_float: Vec<String>,
    /// Give the values of a node, by its name in the ONNX file, and of the functions right after it 16
    /// bits; or those of all nodes (all). Weights keep 8, so that the bundle stays small; a layer is
    /// computed two to four times, and a detector took five times as long.
    #[arg(long, value_name = "NODE")]
    pub int16: Vec<String>,
    /// Give layers 16 bits, or keep them in float, until the outputs' error over calibration data is
    /// at most this: root mean square difference from the float model, of the outputs' root mean
    /// square. Those that take away the most error for their time come first. auto: try smaller and
    /// smaller errors until the accuracy keeps --max-drop.
    #[arg(long, value_name = "PERCENT|auto", value_parser = max_error)]
    pub max_error: Option<MaxError>,
}

impl Quantize {
    /// The same for the converter.
    pub fn settings(&self) -> Settings {
        Settings {
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
        }
    }
}

/// The error that the outputs may have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MaxError {
    /// This part of their size.
    Part(f64),
    /// As much as the accuracy allows.
    Auto,
}

fn max_error(text: &str) -> Result<MaxError, String> {
    match text {
        "auto" => Ok(MaxError::Auto),
        _ => percent(text).map(MaxError::Part).map_err(|error| format!("{error}, or as auto")),
    }
}

pub(super) fn weight_bits(text: &str) -> Result<f64, String> {
    let bits = text.parse().ok().filter(|bits: &f64| (1.0..=8.0).contains(bits));
    bits.ok_or_else(|| "it is a number from 1 to 8".into())
}

fn equalize(name: &str) -> Result<Equalize, String> {
    match name {
        "auto" => Ok(Equalize::Auto),
        "off" => Ok(Equalize::Off),
        _ => Err("channels are equalized auto or off".into()),
    }
}

fn rounding(name: &str) -> Result<Rounding, String> {
    match name {
        "adaptive" => Ok(Rounding::Adaptive),
        "nearest" => Ok(Rounding::Nearest),
        _ => Err("weights are rounded adaptive or nearest".into()),
    }
}

fn method(name: &str) -> Result<Method, String> {
    let methods = || [Method::Auto].into_iter().chain(Method::ALL);
    methods().find(|method| method.name() == name).ok_or_else(|| {
        let names: Vec<&str> = methods().map(Method::name).collect();
        format!("there is no such method; it is one of {}", names.join(", "))
    })
}
