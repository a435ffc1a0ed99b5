//! Preprocessing of images, audio and arrays into the model's first input, and postprocessing of
//! its first output.

use heapless::Vec;
use serde::{Deserialize, Serialize};

/// The maximum number of channels with separate means and deviations.
pub const MAX_CHANNELS: usize = 16;

/// The order of the color channels.
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

/// How an image is resized to the model's input size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fit {
    /// Scale height and width independently.
    Stretch,
    /// Scale the shorter side to `short_side`, then crop the center.
    CentreCrop {
        /// The length of the shorter side before the crop, in pixels.
        short_side: u32,
    },
    /// Scale the whole image to fit, place it at the top left, and fill the rest.
    Letterbox {
        /// The value of all channels of the filled pixels, 0 to 255.
        fill: u8,
    },
}

/// The order of the dimensions of the model's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChannelOrder {
    /// Batch, channels, height, width.
    Nchw,
    /// Batch, height, width, channels.
    Nhwc,
}

/// Image preprocessing: `(pixel − mean) / deviation`, where pixel values are 0 to 255.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// The height of the model's input in pixels.
    pub height: u32,
    /// The width of the model's input in pixels.
    pub width: u32,
    /// How images are resized: bilinear, with antialiasing when downscaling.
    pub fit: Fit,
    /// The order of the color channels in the model's input, in `mean` and in `deviation`.
    pub colour: Colour,
    /// The order of the dimensions in the model's input.
    pub order: ChannelOrder,
    /// The mean to subtract: one value per channel, or one for all channels.
    pub mean: Vec<f32, MAX_CHANNELS>,
    /// The deviation to divide by: one value per channel, or one for all channels.
    pub deviation: Vec<f32, MAX_CHANNELS>,
}

/// The features that are computed from one frame of audio.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AudioFeature {
    /// The samples, from −1 to 1. Frames overlap by `window − stride` samples.
    Samples,
    /// The natural logarithm of the energies in triangular mel bands
    /// (mel = 1127 · ln(1 + Hz / 700)).
    LogMel {
        /// The number of mel bands.
        bands: u16,
        /// The lower edge of the first band, in Hz.
        low_hz: f32,
        /// The upper edge of the last band, in Hz.
        high_hz: f32,
        /// The value added to each energy before the logarithm.
        floor: f32,
    },
    /// The first coefficients of the type II discrete cosine transform of the log-mel energies,
    /// scaled by √(2 / bands).
    Mfcc {
        /// The number of mel bands.
        bands: u16,
        /// The lower edge of the first band, in Hz.
        low_hz: f32,
        /// The upper edge of the last band, in Hz.
        high_hz: f32,
        /// The value added to each energy before the logarithm.
        floor: f32,
        /// The number of coefficients to keep.
        coefficients: u16,
    },
}

/// How the samples are normalized, before all other steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Full scale: the maximum of the file's sample type becomes 1.
    FullScale,
    /// Divide all samples by the largest one, then clamp them to −1 to 1.
    Peak,
}

/// The values that each mel band sums. They come from the Fourier transform of a frame, padded
/// with zeros to the next power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Spectrum {
    /// The magnitudes.
    Magnitude,
    /// The squared magnitudes.
    Power,
}

/// Audio preprocessing: splits the audio into frames and computes a row of features for each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Audio {
    /// The sample rate that the model expects, in Hz. Audio with other rates is rejected.
    pub sample_rate: u32,
    /// How the samples are normalized.
    pub level: Level,
    /// The frame length in samples. Frames get a periodic Hann window, except for
    /// [`AudioFeature::Samples`].
    pub window: u32,
    /// The distance between the starts of two frames, in samples.
    pub stride: u32,
    /// The number of frames in the model's input. Shorter audio is padded with silence. Longer
    /// audio takes several inferences, of which the last ends at the end of the audio. 0: one
    /// inference per frame, where the first frame is silence followed by `stride` samples.
    pub frames: u32,
    /// The values that each mel band sums. Unused for [`AudioFeature::Samples`].
    pub spectrum: Spectrum,
    /// The features of a frame.
    pub feature: AudioFeature,
    /// The mean to subtract from each feature.
    pub mean: f32,
    /// The deviation to divide by.
    pub deviation: f32,
}

/// Preprocessing of an array that only needs normalization: `(x − mean) / deviation`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Array {
    /// The mean to subtract: one value per element of the last axis, or one for all.
    pub mean: Vec<f32, MAX_CHANNELS>,
    /// The deviation to divide by: one value per element of the last axis, or one for all.
    pub deviation: Vec<f32, MAX_CHANNELS>,
}

/// How the model's first input is computed from the user's data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preprocess {
    /// From an image.
    Image(Image),
    /// From audio.
    Audio(Audio),
    /// From an array.
    Array(Array),
}

/// How the model's first output is interpreted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Postprocess {
    /// Classification: the output holds one score per class.
    Classify {
        /// Whether the scores are logits, to which softmax must be applied.
        softmax: bool,
        /// The number of classes before the first label, such as a background class.
        skip: u16,
    },
}
