//! What the user asks of a conversion.

use std::path::PathBuf;

use hardtack::Packing;
use hardtack_bundle::DType;
use hardtack_bundle::process::{Postprocess, Preprocess};

use crate::guard;
use crate::prune::PruneTarget;
use crate::quantize;

/// Bits of a weight in matrices of float parts, where the transport form is wanted: with them, the form
/// is 22 % of the float file at most, and what networks do is kept (`docs/quantization.md`).
const SHIPPED_BITS: f64 = 7.5;

/// How the real weights of a bundle are stored. They are widened to f32 when it is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FloatStorage {
    /// Four bytes each, as they are.
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

/// How the large matrices of what runs in float are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MatrixStorage {
    /// As other reals.
    #[default]
    Float,
    /// A byte each, with a scale per output channel.
    Int8,
    /// Half a byte each, with a scale and a zero point per block of 32.
    Int4,
}

impl MatrixStorage {
    /// All there are.
    pub const ALL: [MatrixStorage; 3] =
        [MatrixStorage::Float, MatrixStorage::Int8, MatrixStorage::Int4];

    /// As the command line has it.
    pub fn name(self) -> &'static str {
        match self {
            MatrixStorage::Float => "float",
            MatrixStorage::Int8 => "int8",
            MatrixStorage::Int4 => "int4",
        }
    }
}

/// What the user asks of a conversion.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of the model; the source's file name without its extension where not given.
    pub name: Option<String>,
    /// Version of the model's content.
    pub version: String,
    /// Values for named dimensions and inputs, as `NAME=VALUE` in the order given.
    pub set: Vec<(String, String)>,
    /// What is pruned before that, in whole channels.
    pub prune_channels: Option<PruneTarget>,
    /// Whether the model is quantized to INT8.
    pub int8: bool,
    /// Calibration data: an `.npz` file or a folder of pictures or recordings.
    pub calibration: Option<PathBuf>,
    /// Pre-processing of the calibration data, where they are not what the bundle will be given:
    /// features instead of recordings, say. [`Options::preprocess`] where not given.
    pub calibration_preprocess: Option<Preprocess>,
    /// How many calibration samples are used at most.
    pub samples: usize,
    /// Data on which the error of each layer is measured, where that is not the calibration data.
    pub measure: Option<PathBuf>,
    /// How an INT8 model is quantized.
    pub quantize: quantize::Settings,
    /// How the real weights are stored.
    pub float: FloatStorage,
    /// How the large matrices of what runs in float are stored, where the user says.
    pub weights: Option<MatrixStorage>,
    /// Whether products with such matrices are computed in integers, with activations quantized by
    /// their own range when they are there.
    pub dynamic: bool,
    /// How many bits such a weight of a byte may have in the mean, as an entropy; 8 for as fine as can
    /// be. Where not given, 7.5 if a transport form is asked for, and otherwise 8.
    pub matrix_bits: Option<f64>,
    /// Makes the model's input from what a user has.
    pub preprocess: Option<Preprocess>,
    /// Makes an answer from the model's output.
    pub postprocess: Option<Postprocess>,
    /// Names of the classes.
    pub labels: Vec<String>,
    /// Outputs that feed inputs, as (output, input).
    pub states: Vec<(String, String)>,
    /// The layout of integer weights, which is that of the target's kernels; `None` is that of the
    /// family `mcu`.
    pub packing: Option<Packing>,
    /// The most bytes that the integer programs' arenas may have; convolutions are computed in
    /// strips to reach it.
    pub arena_limit: Option<u64>,
    /// Whether weights for the family `mcu` keep their zeros, however many these are.
    pub dense: bool,
    /// Whether the model takes and gives the i8 of its integer program instead of reals.
    pub integer_io: bool,
    /// Where the bundle's transport form goes too.
    pub transport: Option<PathBuf>,
    /// Whether the model is imported in a guarded child process.
    pub guarded: bool,
    /// What that process may use.
    pub import_limits: guard::Limits,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            name: None,
            version: String::new(),
            set: Vec::new(),
            prune_channels: None,
            int8: false,
            calibration: None,
            calibration_preprocess: None,
            samples: 128,
            measure: None,
            quantize: quantize::Settings::default(),
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
            import_limits: guard::Limits::default(),
        }
    }
}

impl Options {
    /// How the large matrices of what runs in float are stored. INT8 has them in integers too, unless
    /// layers stay in float for the sake of accuracy; and so do products in integers.
    pub fn matrices(&self) -> MatrixStorage {
        let exact = !self.quantize.keep_float.is_empty() || self.quantize.max_error.is_some();
        self.weights.unwrap_or(match self.dynamic || self.int8 && !exact {
            true => MatrixStorage::Int8,
            false => MatrixStorage::Float,
        })
    }

    /// Whether layers are stored without their zeros where that takes clearly less room.
    pub fn sparse(&self) -> bool {
        self.quantize.sparsity.is_some() && !self.dense
    }

    /// How many bits a weight of these may have, where they are bytes and may not be as fine as can be.
    pub fn matrix_bits(&self) -> Option<f64> {
        let shipped = self.transport.as_ref().map(|_| SHIPPED_BITS);
        let bits = self.matrix_bits.or(shipped).filter(|bits| *bits < 8.0);
        bits.filter(|_| self.matrices() == MatrixStorage::Int8)
    }
}
