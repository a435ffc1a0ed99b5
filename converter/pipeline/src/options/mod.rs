//! The options of a conversion.

pub(crate) mod prune;
pub(crate) mod quantize;

use std::path::PathBuf;

use hardtack::internal::Packing;
use hardtack_bundle::DType;
use hardtack_bundle::process::{Postprocess, Preprocess};

use self::prune::PruneTarget;
use self::quantize::Rounding;
use crate::process::Limits;

/// The default average bits per weight of INT8 layers when a compressed bundle is written. The
/// output error hardly grows with 6 bits.
const COMPRESSED_BITS: f64 = 6.0;
/// The same for the matrices of float layers, which are quantized without calibration data.
const COMPRESSED_MATRIX_BITS: f64 = 7.5;
/// At least this many bits per weight keep the full resolution.
const FULL_BITS: f64 = 8.0;

/// The storage type of float weights in a bundle. They are converted to f32 when it is loaded.
///
/// # Examples
///
/// Store float weights in half the space:
///
/// ```
/// use hardtack_converter::{FloatStorage, ConvertOptions, NoProgress, convert};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/data/keyword_spotting");
/// # let folder = tempfile::tempdir()?;
/// # for name in ["kws_dscnn.onnx", "calibration.npz"] {
/// #     std::fs::copy(format!("{data}/{name}"), folder.path().join(name))?;
/// # }
/// # std::env::set_current_dir(&folder)?;
/// let options = ConvertOptions { float: FloatStorage::F16, ..ConvertOptions::default() };
/// let (onnx, bundle) = ("kws_dscnn.onnx".as_ref(), "kws.tack".as_ref());
/// let report = convert(onnx, bundle, &options, &mut NoProgress)?;
/// assert!(report.bundle_bytes < report.source_bytes);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FloatStorage {
    /// IEEE 754 binary32, unchanged.
    #[default]
    F32,
    /// IEEE 754 binary16.
    F16,
    /// bfloat16.
    Bf16,
}

impl FloatStorage {
    /// The element type of the stored bytes.
    pub fn dtype(self) -> DType {
        match self {
            FloatStorage::F32 => DType::F32,
            FloatStorage::F16 => DType::F16,
            FloatStorage::Bf16 => DType::BF16,
        }
    }
}

/// The storage type of the large constant matrices of float layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MatrixStorage {
    /// Float, with the type of [`ConvertOptions::float`].
    #[default]
    Float,
    /// i8, with a scale per output channel.
    Int8,
    /// 4 bits per weight, with a scale and a zero point per block of 32.
    Int4,
}

impl MatrixStorage {
    /// All variants.
    pub const ALL: [MatrixStorage; 3] =
        [MatrixStorage::Float, MatrixStorage::Int8, MatrixStorage::Int4];

    /// Returns the name used on the command line.
    pub fn name(self) -> &'static str {
        match self {
            MatrixStorage::Float => "float",
            MatrixStorage::Int8 => "int8",
            MatrixStorage::Int4 => "int4",
        }
    }
}

/// The options of a conversion.
///
/// # Examples
///
/// Quantize a model to INT8 with calibration data:
///
/// ```
/// use hardtack_converter::{ConvertOptions, NoProgress, convert};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/data/keyword_spotting");
/// # let folder = tempfile::tempdir()?;
/// # for name in ["kws_dscnn.onnx", "calibration.npz"] {
/// #     std::fs::copy(format!("{data}/{name}"), folder.path().join(name))?;
/// # }
/// # std::env::set_current_dir(&folder)?;
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/specs/keyword_features.toml");
/// # let preprocess = hardtack_converter::spec::Spec::read(path.as_ref())?.preprocess;
/// let options = ConvertOptions {
///     int8: true,
///     calibration: Some("calibration.npz".into()),
///     samples: 32,
/// #   preprocess,
///     ..ConvertOptions::default()
/// };
/// let (onnx, bundle) = ("kws_dscnn.onnx".as_ref(), "kws.tack".as_ref());
/// let report = convert(onnx, bundle, &options, &mut NoProgress)?;
/// assert!(report.float_nodes.is_empty());
/// assert!(report.bundle_bytes < report.source_bytes / 2);
/// # Ok(())
/// # }
/// ```
///
/// Convert a model that keeps a state between inferences. The session then fills the input `state`:
///
/// ```
/// use hardtack::{Bundle, Session, Tensor};
/// use hardtack_converter::{ConvertOptions, NoProgress, convert};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/data/voice_detection");
/// # let folder = tempfile::tempdir()?;
/// # std::fs::copy(format!("{data}/silero_vad.onnx"), folder.path().join("silero_vad.onnx"))?;
/// # std::env::set_current_dir(&folder)?;
/// let set = [("sr", "16000"), ("input", "1x576"), ("state", "2x1x128")];
/// let options = ConvertOptions {
///     set: set.map(|(name, value)| (name.into(), value.into())).into(),
///     states: vec![("stateN".into(), "state".into())],
///     ..ConvertOptions::default()
/// };
/// convert("silero_vad.onnx".as_ref(), "vad.tack".as_ref(), &options, &mut NoProgress)?;
///
/// let options = hardtack::SessionOptions { keep_state: true, ..Default::default() };
/// let mut session = Session::with_options(&Bundle::open("vad.tack")?, options)?;
/// let silence = Tensor::new(&[1, 576], vec![0.0f32; 576]).unwrap();
/// let outputs = session.run(&[("input", &silence)])?;
/// assert!(outputs.get("output").unwrap().to_f32()[0] < 0.5);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ConvertOptions {
    /// The name of the model. Defaults to the source's file name without its extension.
    pub name: Option<String>,
    /// The version of the model, as free text.
    pub version: String,
    /// Values for named dimensions and inputs, as `NAME=VALUE` in the order given.
    pub set: Vec<(String, String)>,
    /// The target of channel pruning, which runs before quantization. `None` prunes nothing.
    pub prune_channels: Option<PruneTarget>,
    /// Whether the model is quantized to INT8.
    pub int8: bool,
    /// Calibration data: an `.npz` file, or a folder of images or audio files.
    pub calibration: Option<PathBuf>,
    /// Pre-processing of the calibration data, if it differs from the bundle's input, for example
    /// features instead of audio files. Defaults to [`ConvertOptions::preprocess`].
    pub calibration_preprocess: Option<Preprocess>,
    /// The maximum number of calibration samples.
    pub samples: usize,
    /// Data on which the error of each layer is measured. Defaults to the calibration data.
    pub measure: Option<PathBuf>,
    /// The settings of INT8 quantization.
    pub quantize: quantize::QuantizeOptions,
    /// The storage type of float weights.
    pub float: FloatStorage,
    /// The storage type of float layers' large matrices; `None` lets
    /// [`ConvertOptions::matrices`] choose.
    pub weights: Option<MatrixStorage>,
    /// Dynamic quantization: whether matmuls with these matrices run in INT8, with activations
    /// quantized at run time.
    pub dynamic: bool,
    /// The average entropy of an INT8 weight in these matrices, in bits; 8 is the finest. Defaults
    /// to 7.5 if a compressed bundle is written, and otherwise to 8.
    pub matrix_bits: Option<f64>,
    /// Converts an image, audio file or array to the model's first input.
    pub preprocess: Option<Preprocess>,
    /// Converts the model's first output to an answer, such as a class.
    pub postprocess: Option<Postprocess>,
    /// The names of the classes, in the order of their scores.
    pub labels: Vec<String>,
    /// The state of a stateful model: outputs that feed inputs of the next inference, as
    /// (output name, input name).
    pub states: Vec<(String, String)>,
    /// The layout of integer weights for the target's kernels. `None` is that of the `mcu` family.
    pub packing: Option<Packing>,
    /// The maximum arena size of the integer programs in bytes, reached by row tiles if necessary.
    pub arena_limit: Option<u64>,
    /// Whether weights of the `mcu` family are stored densely, even if most of them are zero.
    pub dense: bool,
    /// Whether inputs and outputs are the i8 tensors of the integer program instead of f32.
    pub integer_io: bool,
    /// The path of the compressed bundle, if one is to be written as well.
    pub transport: Option<PathBuf>,
    /// Whether the model is imported in a guarded child process.
    pub guarded: bool,
    /// The memory and time limits of that process.
    pub import_limits: Limits,
}

impl Default for ConvertOptions {
    fn default() -> Self {
        ConvertOptions {
            name: None,
            version: String::new(),
            set: Vec::new(),
            prune_channels: None,
            int8: false,
            calibration: None,
            calibration_preprocess: None,
            samples: 128,
            measure: None,
            quantize: quantize::QuantizeOptions::default(),
            float: FloatStorage::F32,
            weights: None,
            dynamic: false,
            matrix_bits: None,
            preprocess: None,
            postprocess: None,
            labels: Vec::new(),
            states: Vec::new(),
            packing: None,
            arena_limit: None,
            dense: false,
            integer_io: false,
            transport: None,
            guarded: false,
            import_limits: Limits::default(),
        }
    }
}

impl ConvertOptions {
    /// Returns the options with the defaults that depend on other options filled in.
    pub(crate) fn resolved(&self) -> ConvertOptions {
        let mut options = self.clone();
        let free = self.quantize.rounding == Rounding::Adaptive && self.quantize.palette.is_none();
        let default = self.int8 && self.transport.is_some() && free;
        let bits = self.quantize.weight_bits.or(default.then_some(COMPRESSED_BITS));
        options.quantize.weight_bits = bits.filter(|bits| *bits < FULL_BITS);
        options
    }

    /// Returns the storage type of float layers' large matrices. Without an explicit choice, it is
    /// INT8 for dynamic quantization, and for static INT8 unless options keep layers in float.
    /// [`convert`](crate::convert) also stores float if accuracy keeps layers in float.
    ///
    /// # Examples
    ///
    /// ```
    /// use hardtack_converter::{MatrixStorage, ConvertOptions};
    ///
    /// assert_eq!(ConvertOptions::default().matrices(), MatrixStorage::Float);
    /// let options = ConvertOptions { dynamic: true, ..ConvertOptions::default() };
    /// assert_eq!(options.matrices(), MatrixStorage::Int8);
    /// ```
    pub fn matrices(&self) -> MatrixStorage {
        let exact = !self.quantize.keep_float.is_empty() || self.quantize.max_error.is_some();
        self.weights.unwrap_or(match self.dynamic || self.int8 && !exact {
            true => MatrixStorage::Int8,
            false => MatrixStorage::Float,
        })
    }

    /// Returns whether layers are stored in sparse form where that is clearly smaller.
    pub fn sparse(&self) -> bool {
        self.quantize.sparsity.is_some() && !self.dense
    }

    /// Returns the average bits per weight of [`ConvertOptions::matrices`] if they are INT8 and the
    /// target is below 8.
    pub fn matrix_bits(&self) -> Option<f64> {
        let default = self.transport.as_ref().map(|_| COMPRESSED_MATRIX_BITS);
        let bits = self.matrix_bits.or(default).filter(|bits| *bits < FULL_BITS);
        bits.filter(|_| self.matrices() == MatrixStorage::Int8)
    }
}
