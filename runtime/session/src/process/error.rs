//! What can be wrong with what a user gives, and with a bundle's settings.

use std::path::PathBuf;

use hardtack_bundle::DType;
use thiserror::Error;

/// Why an input or an answer cannot be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting of the bundle has no meaning.
    #[error("pre-processing: `{setting}` must be {requirement}")]
    Setting {
        /// Name of the setting.
        setting: &'static str,
        /// What it must be.
        requirement: String,
    },
    /// What was made does not fit the model's input.
    #[error("input `{input}` takes the shape {}, but got {}", shape(wanted), plain(got))]
    Shape {
        /// Name of the input.
        input: String,
        /// Shape of the array.
        got: Vec<usize>,
        /// Shape of the input; `None` is any size.
        wanted: Vec<Option<usize>>,
    },
    /// The file has an error; `error` says which.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        error: Box<Error>,
    },
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[source] std::io::Error),
    /// The file is too large to be read.
    #[error("the file has more than {limit} bytes; use a smaller image or shorter audio")]
    LargeFile {
        /// Maximum size of a file in bytes.
        limit: u64,
    },
    /// Not a picture that can be decoded.
    #[error("not a picture that can be decoded ({0}); give JPEG or PNG")]
    Picture(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The picture has too many pixels, or none.
    #[error(
        "the picture is {width} × {height}; it may have {pixels} pixels and sides from 1 to \
         {side}: make it smaller"
    )]
    PictureSize {
        /// Height in pixels.
        height: u64,
        /// Width in pixels.
        width: u64,
        /// Most pixels accepted.
        pixels: u64,
        /// Longest side accepted.
        side: u64,
    },
    /// The images of an array become too many values.
    #[error(
        "{images} images become {values} values, and {limit} are accepted; give fewer at a time"
    )]
    TooManyImages {
        /// The number of images.
        images: usize,
        /// The number of values that they become.
        values: u64,
        /// The maximum.
        limit: u64,
    },
    /// Not a recording that can be read.
    #[error(
        "not a recording that can be read ({0}); give WAV with 8 to 32-bit integers or 32-bit \
         floats"
    )]
    Recording(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The recording has no samples.
    #[error("the recording has no samples")]
    EmptyRecording,
    /// The recording has too many samples.
    #[error("the recording has more than {limit} samples; cut it into shorter files")]
    LongRecording {
        /// Most samples accepted.
        limit: usize,
    },
    /// A sample is not a number.
    #[error("sample {index} of the recording is not a finite number")]
    NotFinite {
        /// Index of the sample.
        index: usize,
    },
    /// The recording has another sample rate than the model expects.
    #[error(
        "the recording has {got} samples per second, the model expects {wanted}; resample it, for \
         example with `sox in.wav -r {wanted} out.wav`"
    )]
    Rate {
        /// Samples per second of the recording.
        got: u32,
        /// Samples per second that the model expects.
        wanted: u32,
    },
    /// The array's numbers are not a recording's.
    #[error("a recording as an array holds i8, i16, i32 or floats from −1 to 1, not {dtype}")]
    SampleType {
        /// Element type of the array.
        dtype: DType,
    },
    /// The recording given as one sample is longer than one run of the model takes.
    #[error(
        "the recording takes {runs} runs of the model, but one sample is one run; cut it to what \
         one run takes"
    )]
    SeveralRuns {
        /// Runs it takes.
        runs: usize,
    },
    /// The array has a shape that the pre-processing cannot use.
    #[error("an array of shape {} was given, but the pre-processing takes {wanted}", plain(shape))]
    Array {
        /// Shape of the array.
        shape: Vec<usize>,
        /// What it takes.
        wanted: String,
    },
    /// The array has no elements.
    #[error("the array of shape {} has no elements", plain(shape))]
    EmptyArray {
        /// Shape of the array.
        shape: Vec<usize>,
    },
    /// The model takes arrays, not files of pictures or recordings.
    #[error("the bundle has no pre-processing for pictures or recordings; give an array (.npy)")]
    TakesArrays,
    /// The model takes no recordings.
    #[error("the bundle has no pre-processing for recordings")]
    TakesNoRecording,
    /// This build cannot decode the content.
    #[error("this build cannot decode {content}; build hardtack with its feature `{feature}`")]
    Feature {
        /// What cannot be decoded.
        content: &'static str,
        /// The feature that can.
        feature: &'static str,
    },
    /// The output is not the scores of one sample.
    #[error(
        "an output of shape {} cannot be ranked: it must hold the scores of one sample, or one \
         class",
        plain(shape)
    )]
    Output {
        /// Shape of the output.
        shape: Vec<usize>,
    },
    /// The model's answer is not the number of a class.
    #[error("the output {value} is not the number of a class")]
    NotAClass {
        /// The answer.
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
