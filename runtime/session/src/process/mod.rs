//! Pre- and post-processing as a bundle describes it: from a picture, a recording or an array to
//! the model's first input, and from its first output to an answer.
//!
//! Arrays need no feature of this crate; decoding JPEG and PNG needs `image`, recordings need
//! `audio`.

mod array;
#[cfg(feature = "audio")]
mod audio;
mod check;
#[cfg(feature = "image")]
mod decode;
mod error;
mod image;
mod input;
mod post;
mod resize;
#[cfg(feature = "audio")]
mod spectrum;
#[cfg(feature = "audio")]
mod wav;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use hardtack_bundle::DType;
use hardtack_bundle::manifest::Port;
use hardtack_bundle::process::Preprocess;

pub use check::check;
pub use error::Error;
pub use post::{Class, Postprocessor, reals};

use crate::Tensor;
use input::Target;

/// Maximum size in bytes of a file that is read.
const MAX_FILE: u64 = 1 << 30;

/// Reads a file of at most [`MAX_FILE`] bytes.
fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let file = File::open(path).map_err(Error::Read)?;
    let mut length = file.metadata().map_err(Error::Read)?.len();
    let mut bytes = Vec::new();
    if length <= MAX_FILE {
        // The length of a pipe is only known at its end.
        file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(Error::Read)?;
        length = bytes.len() as u64;
    }
    if length > MAX_FILE { Err(Error::LargeFile { limit: MAX_FILE }) } else { Ok(bytes) }
}

/// Makes a model's first input from what a user has.
#[derive(Clone, Debug)]
pub struct Preprocessor {
    /// `None`: arrays are taken as they are.
    process: Option<Preprocess>,
    target: Target,
}

impl Preprocessor {
    /// A bundle's pre-processing for its first input.
    ///
    /// # Errors
    /// [`Error::Setting`] where a setting has no meaning, [`Error::Shape`] where what would be
    /// made does not fit the input.
    pub fn new(process: Preprocess, input: &Port<'_>) -> Result<Preprocessor, Error> {
        check(&process)?;
        let target = Target::of(input);
        match &process {
            Preprocess::Image(image) => {
                target.shape_for(&image::shape(image, 1))?;
            }
            Preprocess::Audio(audio) => {
                target.shape_for(&check::audio_shape(audio))?;
            }
            Preprocess::Array(_) => {}
        }
        Ok(Preprocessor { process: Some(process), target })
    }

    /// For a bundle without pre-processing: arrays get the input's element type and, where they
    /// lack the dimension of samples, its shape.
    pub fn identity(input: &Port<'_>) -> Preprocessor {
        Preprocessor { process: None, target: Target::of(input) }
    }

    /// Reads a file of the kind that the bundle is made for: JPEG or PNG, or WAV.
    ///
    /// # Errors
    /// [`Error::File`], which names the file, with the reason.
    pub fn file(&self, path: &Path) -> Result<Inputs, Error> {
        read(path)
            .and_then(|bytes| self.bytes(&bytes))
            .map_err(|error| Error::File { path: path.into(), error: error.into() })
    }

    /// Reads the content of such a file.
    ///
    /// # Errors
    /// Where the content is of another kind, cannot be decoded or does not fit the model, and
    /// where this build lacks the feature that decodes it.
    pub fn bytes(&self, bytes: &[u8]) -> Result<Inputs, Error> {
        match &self.process {
            #[cfg(feature = "image")]
            Some(Preprocess::Image(image)) => {
                let decoded = decode::decode(bytes)?;
                let values = image::picture(image, &decoded.picture())?;
                let tensor = Tensor::new(&image::shape(image, 1), values)
                    .expect("a picture of the model's size");
                let run = std::iter::once(self.target.finish(tensor)?);
                Ok(Inputs { runs: Box::new(run), period: None })
            }
            #[cfg(not(feature = "image"))]
            Some(Preprocess::Image(_)) => {
                let _ = bytes;
                Err(Error::Feature { content: "pictures", feature: "image" })
            }
            #[cfg(feature = "audio")]
            Some(Preprocess::Audio(_)) => {
                let recording = wav::read(bytes)?;
                self.samples(recording.samples, recording.sample_rate)
            }
            #[cfg(not(feature = "audio"))]
            Some(Preprocess::Audio(_)) => {
                Err(Error::Feature { content: "recordings", feature: "audio" })
            }
            Some(Preprocess::Array(_)) | None => Err(Error::TakesArrays),
        }
    }

    /// One sample that is already an array.
    ///
    /// - Picture: raw pixels from 0 to 255, `[height, width, channels]`, `[height, width]`, or
    ///   several with their number in front; 1, 3 (red, green, blue) or 4 channels, of which the
    ///   fourth (opacity) is ignored. Fitted and normalised as pictures from files are.
    /// - Recording: `[samples]` at the model's rate, of at most one run; integers count as sample
    ///   types of files do, floats are from −1 to 1. Floats that have the shape of the input are
    ///   features that somebody computed already, and are taken as they are.
    /// - Array: any shape that is the input's but for dimensions of 1.
    ///
    /// # Errors
    /// [`Error::Array`] or [`Error::Shape`] where the array does not fit the model.
    pub fn array(&self, sample: &Tensor) -> Result<Tensor, Error> {
        if sample.is_empty() {
            return Err(Error::EmptyArray { shape: sample.shape().into() });
        }
        match &self.process {
            None => self.target.finish(sample.clone()),
            Some(Preprocess::Array(spec)) => {
                self.target.finish(array::normalise(spec, sample.clone())?)
            }
            Some(Preprocess::Image(spec)) => self.target.finish(image::array(spec, sample)?),
            Some(Preprocess::Audio(spec)) => {
                if input::is_float(sample.dtype()) && sample.shape().len() > 1 {
                    return self.target.finish(sample.clone());
                }
                self.recording(spec, sample)
            }
        }
    }

    /// Checks whether [`Preprocessor::array`] accepts arrays of this element type and shape. Call it
    /// before reading an array from an untrusted file, so that arrays that do not fit the model are
    /// never loaded.
    ///
    /// # Errors
    /// The errors of [`Preprocessor::array`] that depend on type and shape only.
    pub fn accepts(&self, dtype: DType, shape: &[usize]) -> Result<(), Error> {
        if shape.contains(&0) {
            return Err(Error::EmptyArray { shape: shape.into() });
        }
        match &self.process {
            None | Some(Preprocess::Array(_)) => self.target.shape_for(shape).map(drop),
            Some(Preprocess::Image(spec)) => {
                let image::Pixels { samples, height, width, .. } = image::pixels(spec, shape)?;
                image::check_size(height as u64, width as u64)?;
                self.target.shape_for(&image::shape(spec, samples)).map(drop)
            }
            Some(Preprocess::Audio(_)) if input::is_float(dtype) && shape.len() > 1 => {
                self.target.shape_for(shape).map(drop)
            }
            #[cfg(feature = "audio")]
            Some(Preprocess::Audio(spec)) => {
                wav::check_shape(shape)?;
                match audio::runs(spec, shape.iter().copied().max().unwrap_or(1)) {
                    1 => Ok(()),
                    runs => Err(Error::SeveralRuns { runs }),
                }
            }
            #[cfg(not(feature = "audio"))]
            Some(Preprocess::Audio(_)) => {
                Err(Error::Feature { content: "recordings", feature: "audio" })
            }
        }
    }

    #[cfg(feature = "audio")]
    fn recording(
        &self,
        spec: &hardtack_bundle::process::Audio,
        sample: &Tensor,
    ) -> Result<Tensor, Error> {
        let mut inputs = self.samples(wav::from_array(sample)?, spec.sample_rate)?;
        match (inputs.next(), inputs.len()) {
            (Some(input), 0) => Ok(input),
            (_, more) => Err(Error::SeveralRuns { runs: more + 1 }),
        }
    }

    #[cfg(not(feature = "audio"))]
    fn recording(&self, _: &hardtack_bundle::process::Audio, _: &Tensor) -> Result<Tensor, Error> {
        Err(Error::Feature { content: "recordings", feature: "audio" })
    }

    /// A recording of one channel, from −1 to 1.
    ///
    /// # Errors
    /// [`Error::Rate`] where the rate is not the model's, [`Error::EmptyRecording`] without
    /// samples, [`Error::TakesNoRecording`] where the model takes something else.
    #[cfg(feature = "audio")]
    pub fn samples(&self, samples: Vec<f32>, sample_rate: u32) -> Result<Inputs, Error> {
        let Some(Preprocess::Audio(spec)) = &self.process else {
            return Err(Error::TakesNoRecording);
        };
        let frames = audio::Frames::new(spec, samples, sample_rate)?;
        let (period, target) = (frames.period(), self.target.clone());
        let fitted = move |run| target.finish(run).expect("the shape fitted in `new`");
        Ok(Inputs { runs: Box::new(frames.map(fitted)), period })
    }
}

/// The inputs of consecutive runs of the model, made as they are asked for.
pub struct Inputs {
    runs: Box<dyn ExactSizeIterator<Item = Tensor> + Send>,
    period: Option<f64>,
}

impl Inputs {
    /// Seconds of the recording from one run to the next, where each run takes one frame.
    pub fn period(&self) -> Option<f64> {
        self.period
    }
}

impl Iterator for Inputs {
    type Item = Tensor;

    fn next(&mut self) -> Option<Tensor> {
        self.runs.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.runs.size_hint()
    }
}

impl ExactSizeIterator for Inputs {}

#[cfg(test)]
mod tests;
