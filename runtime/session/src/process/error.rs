//! Errors in the data that a user gives and in the settings of a bundle.

use std::path::PathBuf;

use hardtack_bundle::DType;
use thiserror::Error;

/// The reason why pre- or post-processing failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting of the bundle is invalid.
    #[error("pre-processing: `{setting}` must be {requirement}")]
    Setting {
        /// The name of the setting.
        setting: &'static str,
        /// The values that are allowed.
        requirement: String,
    },
    /// The shape of the pre-processed data does not match the model's input.
    #[error("input `{input}` takes the shape {}, but got {}", shape(wanted), plain(got))]
    Shape {
        /// The name of the input.
        input: String,
        /// The shape of the data.
        got: Vec<usize>,
        /// The shape of the input; `None` stands for any size.
        wanted: Vec<Option<usize>>,
    },
    /// Processing a file failed.
    #[error("{}: {error}", path.display())]
    File {
        /// The path of the file.
        path: PathBuf,
        /// The error.
        #[source]
        error: Box<Error>,
    },
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[source] std::io::Error),
    /// The file is too large.
    #[error("the file has more than {limit} bytes; use a smaller image or shorter audio")]
    LargeFile {
        /// The maximum size of a file in bytes.
        limit: u64,
    },
    /// The image cannot be decoded.
    #[error("cannot decode the image ({0}); use JPEG or PNG")]
    Picture(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The file has a format that cannot be read.
    #[error("is {format}; convert it to {readable}")]
    Format {
        /// The format with its article, such as `a GIF`.
        format: &'static str,
        /// The formats that can be read.
        readable: &'static str,
    },
    /// The file has content of another kind than the model takes.
    #[error("is {format}, but the model takes {readable}")]
    Content {
        /// The format of the file with its article, such as `a WAV`.
        format: &'static str,
        /// The formats that the model takes.
        readable: &'static str,
    },
    /// The image has no pixels or too many.
    #[error(
        "the image is {width} × {height} pixels; it may have {pixels} pixels and sides from 1 to \
         {side}: make it smaller"
    )]
    PictureSize {
        /// The height in pixels.
        height: u64,
        /// The width in pixels.
        width: u64,
        /// The maximum number of pixels.
        pixels: u64,
        /// The maximum side in pixels.
        side: u64,
    },
    /// The images of an array have too many values after pre-processing.
    #[error(
        "{images} images have {values} values after pre-processing, beyond the limit of {limit}; \
         pass fewer images at a time"
    )]
    TooManyImages {
        /// The number of images.
        images: usize,
        /// The number of values after pre-processing.
        values: u64,
        /// The maximum number of values.
        limit: u64,
    },
    /// The audio cannot be decoded.
    #[error(
        "cannot decode the audio ({0}); use WAV with 8 to 32-bit integer or 32-bit float samples"
    )]
    Recording(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The audio has no samples.
    #[error("the audio has no samples")]
    EmptyRecording,
    /// The audio has too many samples.
    #[error("the audio has more than {limit} samples; cut it into shorter files")]
    LongRecording {
        /// The maximum number of samples.
        limit: usize,
    },
    /// A sample is infinite or NaN.
    #[error("sample {index} of the audio is not a finite number")]
    NotFinite {
        /// The index of the sample.
        index: usize,
    },
    /// The sample rate of the audio is not the one that the model expects.
    #[error(
        "the audio has a sample rate of {got} Hz, but the model expects {wanted} Hz; resample it, \
         for example with `sox in.wav -r {wanted} out.wav`"
    )]
    Rate {
        /// The sample rate of the audio in Hz.
        got: u32,
        /// The sample rate that the model expects in Hz.
        wanted: u32,
    },
    /// The element type of an array does not represent audio samples.
    #[error("an audio array must hold i8, i16, i32 or floats from −1 to 1, not {dtype}")]
    SampleType {
        /// The element type of the array.
        dtype: DType,
    },
    /// The audio given as one sample is longer than the input of one inference.
    #[error(
        "the audio takes {runs} inferences, but one sample must fit one inference; cut it to that \
         length"
    )]
    SeveralRuns {
        /// The number of inferences that the audio takes.
        runs: usize,
    },
    /// The pre-processing cannot use an array of this shape.
    #[error("an array of shape {} was given, but the pre-processing takes {wanted}", plain(shape))]
    Array {
        /// The shape of the array.
        shape: Vec<usize>,
        /// The arrays that the pre-processing takes.
        wanted: String,
    },
    /// The array does not hold images for the model.
    #[error(
        "an array of shape {} and type {dtype} was given, but the model expects {}, or u8 images \
         of shape [height, width, {}], which are resized",
        plain(shape), plain(wanted), wanted[2]
    )]
    NotImages {
        /// The shape of the array.
        shape: Vec<usize>,
        /// The element type of the array.
        dtype: DType,
        /// The height, width and channels of the model's images.
        wanted: [usize; 3],
    },
    /// The array has no elements.
    #[error("the array of shape {} has no elements", plain(shape))]
    EmptyArray {
        /// The shape of the array.
        shape: Vec<usize>,
    },
    /// The model takes arrays, not image or audio files.
    #[error(
        "the model has no pre-processing for {content}; convert it with --pre SPEC.toml, where \
         SPEC.toml has the table {table}, or pass an array (.npy)"
    )]
    TakesArrays {
        /// The kind of content of the file.
        content: &'static str,
        /// The table that describes the pre-processing, with the settings that the input requires.
        table: String,
    },
    /// The model does not take audio.
    #[error("the bundle has no pre-processing for audio")]
    TakesNoRecording,
    /// This build lacks the feature that decodes the content.
    #[error("this build cannot decode {content}; build hardtack with its feature `{feature}`")]
    Feature {
        /// The kind of content.
        content: &'static str,
        /// The feature of this crate that decodes it.
        feature: &'static str,
    },
    /// The output does not hold the scores of one sample.
    #[error(
        "cannot rank an output of shape {}: it must hold the scores of one sample or a single \
         class index",
        plain(shape)
    )]
    Output {
        /// The shape of the output.
        shape: Vec<usize>,
    },
    /// The output of the model is not a class index.
    #[error("the output {value} is not a class index")]
    NotAClass {
        /// The value of the output.
        value: i64,
    },
}

fn plain(dimensions: &[usize]) -> String {
    format!("{dimensions:?}")
}

fn shape(dimensions: &[Option<usize>]) -> String {
    let dimensions: Vec<String> = dimensions
        .iter()
        .map(|dimension| dimension.map_or("any".to_owned(), |size| size.to_string()))
        .collect();
    format!("[{}]", dimensions.join(", "))
}
