//! The options of INT8 quantization.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// Options of quantization.
///
/// # Examples
///
/// ```
/// use hardtack_converter::{ConvertOptions, QuantizeOptions, RangeMethod};
///
/// let quantize = QuantizeOptions {
///     method: RangeMethod::Percentile,
///     keep_float: vec!["Softmax_12".into()],
///     max_error: Some(0.02),
///     ..QuantizeOptions::default()
/// };
/// let texts = quantize.texts();
/// assert_eq!(texts[0], ("ranges".into(), "percentile".into()));
/// let options = ConvertOptions { int8: true, quantize, ..ConvertOptions::default() };
/// ```
#[derive(Clone, Debug, Default)]
pub struct QuantizeOptions {
    /// The method that chooses the ranges of activations.
    pub method: RangeMethod,
    /// Whether cross-layer equalization runs.
    pub equalize: Equalize,
    /// The rounding mode of weights.
    pub rounding: Rounding,
    /// The target average entropy of a weight, in bits. Fewer bits mean coarser steps and a smaller
    /// compressed bundle; 8 or more mean full resolution. `None` means 6 if a compressed bundle is
    /// written and nothing else determines the weights, and full resolution otherwise.
    pub weight_bits: Option<f64>,
    /// The weights to prune to zero. Depthwise layers are not pruned.
    pub sparsity: Option<Sparsity>,
    /// The maximum number of distinct integers among the weights of a layer.
    pub palette: Option<usize>,
    /// Names of nodes that stay in float. `name` also stands for the nodes named `name.suffix`.
    pub keep_float: Vec<String>,
    /// The nodes with int16 activations.
    pub int16: Int16,
    /// The maximum error of the worst output over calibration data: the RMS difference divided by
    /// the RMS deviation of the float output from its mean over samples. Layers get int16
    /// activations, int16 weights or float to meet it. `None` means 10 % (20 dB) for outputs that
    /// are one vector per sample, such as class scores, 2 % (34 dB) for several values for each of
    /// many places, such as boxes, and 4 % (28 dB) for all others, such as estimates, embeddings or
    /// masks.
    pub max_error: Option<f64>,
    /// Refuses to convert a model that INT8 alone makes too inaccurate, instead of using int16 or
    /// float.
    pub strict_int8: bool,
}

impl QuantizeOptions {
    /// Returns whether weights may have more than 8 bits: not if the user asks for fewer bits, for
    /// zeros or for palettes.
    pub(crate) fn allows_int16_weights(&self) -> bool {
        let all_bits = self.weight_bits.is_none_or(|bits| bits >= 8.0);
        all_bits && self.sparsity.is_none() && self.palette.is_none()
    }

    /// Returns the settings that differ from the defaults, as named in a bundle's provenance.
    pub fn texts(&self) -> Vec<(String, String)> {
        let mut texts = Vec::new();
        let mut text = |name: &str, value: Option<String>| {
            texts.extend(value.map(|value| (name.to_string(), value)));
        };
        text("ranges", (self.method != RangeMethod::Auto).then(|| self.method.name().into()));
        text("rounding", (self.rounding == Rounding::Nearest).then(|| "nearest".into()));
        text("equalize", (self.equalize == Equalize::Off).then(|| "off".into()));
        text("weight-bits", self.weight_bits.map(|bits| bits.to_string()));
        text("sparsity", self.sparsity.map(|sparsity| sparsity.to_string()));
        text("palette", self.palette.map(|count| count.to_string()));
        text("strict-int8", self.strict_int8.then(|| "true".into()));
        text("max-error", self.max_error.map(|error| format!("{}%", 100.0 * error)));
        // Node names share one entry because a manifest holds only a few.
        let listed = |nodes: &[String]| (!nodes.is_empty()).then(|| nodes.join(", "));
        match &self.int16 {
            Int16::All => text("int16", Some("all".into())),
            Int16::Nodes(nodes) => text("int16", listed(nodes)),
        }
        text("keep-float", listed(&self.keep_float));
        texts
    }

    /// Checks that the settings fit each other.
    ///
    /// # Errors
    /// Returns an error if two settings conflict.
    pub fn check(&self) -> Result<(), Error> {
        if self.strict_int8 && self.max_error.is_some() {
            return Err(Error::Options(
                "--strict-int8 refuses the 16 bits and float that --max-error asks for; give only \
                 one"
                .into(),
            ));
        }
        if self.palette.is_some() && self.weight_bits.is_some() {
            return Err(Error::Options(
                "--palette and --weight-bits both choose the integers of the weights; give only one"
                    .into(),
            ));
        }
        let adaptive =
            self.weight_bits.is_some() || self.sparsity.is_some() || self.palette.is_some();
        if self.rounding == Rounding::Nearest && adaptive {
            return Err(Error::Options(
                "--weight-bits, --sparsity and --palette need --rounding adaptive, which adjusts \
                 other weights to compensate for the error"
                    .into(),
            ));
        }
        Ok(())
    }
}

/// The method that chooses a range.
///
/// # Examples
///
/// ```
/// use hardtack_converter::RangeMethod;
///
/// let names = RangeMethod::ALL.map(RangeMethod::name);
/// assert_eq!(names, ["min-max", "moving-average", "percentile", "entropy", "mse"]);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RangeMethod {
    /// The better of two for the outputs of the network: [`Mse`](RangeMethod::Mse), and the minimum
    /// and maximum without ends at which the element-wise ops that read the value are constant.
    #[default]
    Auto,
    /// The minimum and maximum.
    MinMax,
    /// The exponential moving average of each sample's minimum and maximum.
    MovingAverage,
    /// Clips one in 10 000 values at each end.
    Percentile,
    /// The least Kullback–Leibler divergence between the quantized and the float distribution
    /// (Migacz, "8-bit inference with TensorRT", 2017).
    Entropy,
    /// The least squared error.
    Mse,
}

impl RangeMethod {
    /// All methods except [`Auto`](RangeMethod::Auto).
    pub const ALL: [RangeMethod; 5] = [
        RangeMethod::MinMax,
        RangeMethod::MovingAverage,
        RangeMethod::Percentile,
        RangeMethod::Entropy,
        RangeMethod::Mse,
    ];

    /// Returns the name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            RangeMethod::Auto => "auto",
            RangeMethod::MinMax => "min-max",
            RangeMethod::MovingAverage => "moving-average",
            RangeMethod::Percentile => "percentile",
            RangeMethod::Entropy => "entropy",
            RangeMethod::Mse => "mse",
        }
    }
}

/// Whether cross-layer equalization rescales the channels of activations to share one scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Equalize {
    /// Rescales channels where that greatly reduces the estimated error.
    #[default]
    Auto,
    /// Leaves channels unchanged.
    Off,
}

/// The nodes with int16 activations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Int16 {
    /// Every node that supports int16.
    All,
    /// The nodes with these names, and the unary element-wise ops that follow them.
    Nodes(Vec<String>),
}

impl Default for Int16 {
    fn default() -> Int16 {
        Int16::Nodes(Vec::new())
    }
}

/// The rounding mode of weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rounding {
    /// GPTQ: minimizes the error of each layer's outputs over calibration data.
    #[default]
    Adaptive,
    /// Rounds each weight to the nearest integer.
    Nearest,
}

/// The weights to prune.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sparsity {
    /// This fraction of each layer's weights, from 0 to 1.
    Part(f64),
    /// N:M structured sparsity: keeps `kept` of every `of` consecutive weights of a row.
    Pattern {
        /// The number of weights to keep (N).
        kept: usize,
        /// The number of consecutive weights (M).
        of: usize,
    },
}

impl FromStr for Sparsity {
    type Err = String;

    fn from_str(text: &str) -> Result<Sparsity, String> {
        let wrong = || "expected a percentage such as 50%, or a pattern such as 2:4".to_string();
        if let Some((kept, of)) = text.split_once(':') {
            let (kept, of) = (kept.parse().map_err(|_| wrong())?, of.parse().map_err(|_| wrong())?);
            return match 0 < kept && kept < of && of <= 64 {
                true => Ok(Sparsity::Pattern { kept, of }),
                false => Err(wrong()),
            };
        }
        let part = text.strip_suffix('%').and_then(|part| part.trim().parse::<f64>().ok());
        let part = part.map(|part| part / 100.0).filter(|part| (0.0..1.0).contains(part));
        part.map(Sparsity::Part).ok_or_else(wrong)
    }
}

impl fmt::Display for Sparsity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sparsity::Part(part) => write!(f, "{}%", 100.0 * part),
            Sparsity::Pattern { kept, of } => write!(f, "{kept}:{of}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_and_patterns_are_parsed_and_printed() {
        for text in ["50%", "2:4", "1:4", "12.5%"] {
            assert_eq!(text.parse::<Sparsity>().unwrap().to_string(), text);
        }
        for text in ["", "2", "4:2", "0:4", "100%", "-5%", "a:b", "2:2"] {
            assert!(text.parse::<Sparsity>().is_err(), "{text}");
        }
    }
}
