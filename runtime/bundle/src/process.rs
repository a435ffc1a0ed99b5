//! Pre- and post-processing: how a picture or a recording becomes the model's input, and how
//! the model's output becomes an answer.

use heapless::Vec;
use serde::{Deserialize, Serialize};

/// Most channels that have means and deviations of their own.
pub const MAX_CHANNELS: usize = 16;

/// Order of the colour channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Colour {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
    /// One channel: 0.299 red + 0.587 green + 0.114 blue.
    Gray,
}

/// How a picture gets the model's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fit {
    /// Height and width are scaled on their own.
    Stretch,
    /// The shorter side is scaled to `short_side`, then the centre is cut out.
    CentreCrop {
        /// Length of the shorter side before the cut, in pixels.
        short_side: u32,
    },
    /// The whole picture is scaled to fit, placed at the top left, and the rest is filled.
    Letterbox {
        /// Value of the filled pixels' channels, 0 to 255.
        fill: u8,
    },
}

/// Order of the dimensions of the model's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChannelOrder {
    /// Batch, channels, height, width.
    Nchw,
    /// Batch, height, width, channels.
    Nhwc,
}

/// A picture: `(pixel − mean) / deviation`, pixel from 0 to 255.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// Height of the model's input in pixels.
    pub height: u32,
    /// Width of the model's input in pixels.
    pub width: u32,
    /// How a picture gets that size (bilinear, with antialiasing where it shrinks).
    pub fit: Fit,
    /// Order of the colour channels in the model's input; `mean` and `deviation` follow it.
    pub colour: Colour,
    /// Order of the dimensions in the model's input.
    pub order: ChannelOrder,
    /// Subtracted, one a channel, or one for all.
    pub mean: Vec<f32, MAX_CHANNELS>,
    /// Divided by, one a channel, or one for all.
    pub deviation: Vec<f32, MAX_CHANNELS>,
}

/// What a frame of audio becomes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AudioFeature {
    /// The samples themselves, from −1 to 1; frames overlap by `window − stride`.
    Samples,
    /// Natural logarithm of the energies in triangular mel bands (mel = 1127 · ln(1 + Hz / 700)).
    LogMel {
        /// Number of mel bands.
        bands: u16,
        /// Lower edge of the first band, Hz.
        low_hz: f32,
        /// Upper edge of the last band, Hz.
        high_hz: f32,
        /// Added to an energy before the logarithm.
        floor: f32,
    },
    /// The first coefficients of the discrete cosine transform (II) of the log-mel energies,
    /// scaled by √(2 / bands).
    Mfcc {
        /// Number of mel bands.
        bands: u16,
        /// Lower edge of the first band, Hz.
        low_hz: f32,
        /// Upper edge of the last band, Hz.
        high_hz: f32,
        /// Added to an energy before the logarithm.
        floor: f32,
        /// How many coefficients are kept.
        coefficients: u16,
    },
}

/// How loud the samples are made before anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// As recorded: the greatest number of the file's sample type is 1.
    FullScale,
    /// The whole recording is divided by its greatest sample, then clamped to −1 to 1.
    Peak,
}

/// What the mel bands sum, of the Fourier transform of a frame that is padded with silence to
/// the next power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Spectrum {
    /// Absolute values.
    Magnitude,
    /// Their squares.
    Power,
}

/// A recording: frames of a window, each turned into a row of features.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Audio {
    /// Samples per second that the model expects. Other rates are refused.
    pub sample_rate: u32,
    /// How loud the samples are made.
    pub level: Level,
    /// Samples per frame (periodic Hann window, except for [`AudioFeature::Samples`]).
    pub window: u32,
    /// Samples from one frame to the next.
    pub stride: u32,
    /// Frames the model's input holds; shorter recordings are padded with silence, longer ones
    /// take several runs of the model, the last of which ends with the recording. 0: one run per
    /// frame, the first of which has `stride` samples, after silence.
    pub frames: u32,
    /// What the mel bands sum; [`AudioFeature::Samples`] has none.
    pub spectrum: Spectrum,
    /// What a frame becomes.
    pub feature: AudioFeature,
    /// Subtracted from each feature.
    pub mean: f32,
    /// Divided by.
    pub deviation: f32,
}

/// An array that is nearly what the model expects: `(x − mean) / deviation`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Array {
    /// Subtracted, one for the last axis' each element, or one for all.
    pub mean: Vec<f32, MAX_CHANNELS>,
    /// Divided by, one for the last axis' each element, or one for all.
    pub deviation: Vec<f32, MAX_CHANNELS>,
}

/// What makes the model's first input from what a user has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preprocess {
    /// From a picture.
    Image(Image),
    /// From a recording.
    Audio(Audio),
    /// From an array.
    Array(Array),
}

/// What makes an answer from the model's first output.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Postprocess {
    /// Scores of classes: the greatest with their labels.
    Classify {
        /// Whether the scores are logits that softmax turns into probabilities.
        softmax: bool,
        /// Classes before the first label, such as a background class.
        skip: u16,
    },
}
