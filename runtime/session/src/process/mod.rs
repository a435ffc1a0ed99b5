//! Pre- and post-processing that a bundle describes. [`Preprocessor`] turns an image, audio or an
//! array into the model's first input. [`Postprocessor`] turns its first output into classes.
//!
//! Arrays need no feature of this crate. Decoding JPEG and PNG needs `image`, and audio needs
//! `audio`.
//!
//! Classify one sample:
//!
//! ```
//! use hardtack::process::{Postprocessor, Preprocessor};
//! use hardtack::{Bundle, Session, Tensor};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/firmware/data/seven.bin");
//! # let features = std::fs::read(path)?.into_iter().map(|byte| byte as i8).collect::<Vec<_>>();
//! # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
//! # std::env::set_current_dir(folder)?;
//! let bundle = Bundle::open("kws_dscnn_i8.tack")?;
//! let mut session = Session::new(&bundle)?;
//! let manifest = bundle.manifest()?;
//! let (input, output) = (&manifest.inputs[0], &manifest.outputs[0]);
//! let pre = Preprocessor::new(bundle.preprocess()?.unwrap(), input)?;
//! let labels = bundle.labels()?.unwrap();
//! let post = Postprocessor::new(bundle.postprocess()?.unwrap(), output, labels.iter());
//!
//! // `features` are 49 × 10 integers, of the kind that the model was trained on.
//! let sample = pre.array(&Tensor::new(&[49, 10], features).unwrap())?;
//! let outputs = session.run(&[(input.name, &sample)])?;
//! let best = post.top(&outputs[0].1, 1)?[0];
//! println!("{} {:.2}", best.label.unwrap(), best.score);
//! # Ok(())
//! # }
//! ```

mod array;
#[cfg(feature = "audio")]
mod audio;
mod check;
#[cfg(feature = "image")]
mod decode;
mod error;
#[cfg_attr(
    not(all(feature = "image", feature = "audio")),
    allow(dead_code, reason = "only decoders compare formats")
)]
mod format;
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
pub use post::{Class, Postprocessor, dequantize};

use crate::Tensor;
use format::Content;
use input::Target;

/// The maximum size of a file, in bytes.
const MAX_FILE: u64 = 1 << 30;

/// Reads a file of at most [`MAX_FILE`] bytes.
fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let file = File::open(path).map_err(Error::Read)?;
    let mut length = file.metadata().map_err(Error::Read)?.len();
    let mut bytes = Vec::new();
    if length <= MAX_FILE {
        // The length of a pipe is known only at its end.
        file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(Error::Read)?;
        length = bytes.len() as u64;
    }
    if length > MAX_FILE { Err(Error::LargeFile { limit: MAX_FILE }) } else { Ok(bytes) }
}

/// Turns images, audio or arrays into a model's first input.
///
/// # Examples
///
/// ```
/// use hardtack::process::Preprocessor;
/// use hardtack::{Bundle, Tensor};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
/// # std::env::set_current_dir(folder)?;
/// let bundle = Bundle::open("kws_dscnn_i8.tack")?;
/// let manifest = bundle.manifest()?;
/// let settings = bundle.preprocess()?.ok_or("the bundle describes no pre-processing")?;
/// let preprocessor = Preprocessor::new(settings, &manifest.inputs[0])?;
///
/// let features = Tensor::new(&[49, 10], vec![83i8; 490]).unwrap();
/// let input = preprocessor.array(&features)?;
/// assert_eq!(input.shape(), [1, 49, 10, 1]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Preprocessor {
    /// The pre-processing; `None` only converts arrays to the type and shape of the input.
    process: Option<Preprocess>,
    target: Target,
}

impl Preprocessor {
    /// Creates the pre-processing that a bundle describes for its first input.
    ///
    /// # Errors
    /// Returns [`Error::Setting`] if a setting is invalid, and [`Error::Shape`] if the result would
    /// not match the input.
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

    /// Creates the pre-processing for a bundle that describes none. It converts arrays to the
    /// element type of the input and adds a missing batch dimension.
    ///
    /// # Examples
    ///
    /// ```
    /// use hardtack::process::Preprocessor;
    /// use hardtack::{Bundle, Tensor};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
    /// # std::env::set_current_dir(folder)?;
    /// let bundle = Bundle::open("kws_dscnn_i8.tack")?;
    /// let manifest = bundle.manifest()?;
    /// let preprocessor = Preprocessor::identity(&manifest.inputs[0]);
    /// let features = Tensor::new(&[49, 10], vec![0.5f32; 490]).unwrap();
    /// let input = preprocessor.array(&features)?;
    /// assert_eq!((input.dtype(), input.shape()), (hardtack::DType::I8, &[1, 49, 10, 1][..]));
    /// # Ok(())
    /// # }
    /// ```
    pub fn identity(input: &Port<'_>) -> Preprocessor {
        Preprocessor { process: None, target: Target::of(input) }
    }

    /// Reads a file of the kind that the model takes: JPEG or PNG for images, WAV for audio.
    ///
    /// # Errors
    /// Returns [`Error::File`], which names the file and contains the reason.
    ///
    /// # Examples
    ///
    /// Read a photo, with the feature `image`:
    ///
    /// ```
    /// use std::path::Path;
    ///
    /// use hardtack::process::Preprocessor;
    /// # use hardtack_bundle::manifest::{Extent, Layout, Port};
    /// # use hardtack_bundle::process::{ChannelOrder, Colour, Fit, Image, Preprocess};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/data");
    /// # std::env::set_current_dir(data)?;
    /// # let process = Preprocess::Image(Image {
    /// #     height: 128,
    /// #     width: 128,
    /// #     fit: Fit::Stretch,
    /// #     colour: Colour::Rgb,
    /// #     order: ChannelOrder::Nhwc,
    /// #     mean: [127.5].into_iter().collect(),
    /// #     deviation: [127.5].into_iter().collect(),
    /// # });
    /// # let input = Port {
    /// #     name: "image",
    /// #     dtype: hardtack::DType::F32,
    /// #     shape: [1, 128, 128, 3].map(Extent::Fixed).into_iter().collect(),
    /// #     layout: Layout::Nhwc,
    /// #     quantization: None,
    /// # };
    /// // `process` and `input` come from the bundle.
    /// let preprocessor = Preprocessor::new(process, &input)?;
    /// # #[cfg(feature = "image")]
    /// for tensor in preprocessor.file(Path::new("photos/cat.jpg"))? {
    ///     assert_eq!(tensor.shape(), [1, 128, 128, 3]);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn file(&self, path: &Path) -> Result<Inputs, Error> {
        read(path)
            .and_then(|bytes| self.bytes(&bytes))
            .map_err(|error| Error::File { path: path.into(), error: error.into() })
    }

    /// Decodes the content of such a file.
    ///
    /// # Errors
    /// Returns an error if the content is of another kind, cannot be decoded or does not match the
    /// model, or if this build lacks the feature that decodes it.
    pub fn bytes(&self, bytes: &[u8]) -> Result<Inputs, Error> {
        match &self.process {
            #[cfg(feature = "image")]
            Some(Preprocess::Image(image)) => {
                format::check(bytes, Content::Image)?;
                let decoded = decode::decode(bytes)?;
                let values = image::picture(image, &decoded.picture())?;
                let tensor = Tensor::new(&image::shape(image, 1), values)
                    .expect("the image has the size of the input");
                let run = std::iter::once(self.target.finish(tensor)?);
                Ok(Inputs { runs: Box::new(run), period: None })
            }
            #[cfg(not(feature = "image"))]
            Some(Preprocess::Image(_)) => {
                let _ = bytes;
                Err(Error::Feature { content: "images", feature: "image" })
            }
            #[cfg(feature = "audio")]
            Some(Preprocess::Audio(_)) => {
                format::check(bytes, Content::Audio)?;
                let recording = wav::read(bytes)?;
                self.samples(recording.samples, recording.sample_rate)
            }
            #[cfg(not(feature = "audio"))]
            Some(Preprocess::Audio(_)) => {
                Err(Error::Feature { content: "audio", feature: "audio" })
            }
            Some(Preprocess::Array(_)) | None => Err(self.takes_arrays(bytes)),
        }
    }

    /// Returns the error for a file with this content if the model takes arrays.
    fn takes_arrays(&self, bytes: &[u8]) -> Error {
        let image = || self.target.image_table().unwrap_or_else(|| "[image]".into());
        let (content, table) = match format::content_of(bytes) {
            Some(Content::Image) => ("images", image()),
            Some(Content::Audio) => ("audio", "[audio]".into()),
            None => ("such files", "[image] or [audio]".into()),
        };
        Error::TakesArrays { content, table }
    }

    /// Returns the element type that arrays must have if they are given to the model unprocessed;
    /// `None` if the pre-processing converts them, or if floats are quantized for the input.
    pub fn unprocessed_type(&self) -> Option<DType> {
        self.process.is_none().then(|| self.target.unquantized_type()).flatten()
    }

    /// Converts one sample that is already an array.
    ///
    /// - Image: pixels from 0 to 255 of shape `[height, width]`, `[height, width, channels]` or
    ///   `[samples, height, width, channels]`. There are 1, 3 (RGB) or 4 (RGBA) channels; the alpha
    ///   channel is ignored. Resized and normalized like images from files.
    /// - Audio: `[samples]` at the model's sample rate, for at most one inference. Integers are
    ///   scaled like the samples of WAV files; floats range from −1 to 1. Floats with more than one
    ///   dimension are computed features in the shape of the input, and are not processed.
    /// - Array: any shape that can be reshaped to the input without transposing.
    ///
    /// # Errors
    /// Returns [`Error::Array`] or [`Error::Shape`] if the array does not match the model.
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

    /// Checks whether [`Preprocessor::array`] accepts arrays of this element type and shape. Call
    /// it before reading an array from an untrusted file, so that arrays that do not match the
    /// model are never loaded.
    ///
    /// # Errors
    /// Returns the errors of [`Preprocessor::array`] that depend on type and shape only.
    ///
    /// # Examples
    ///
    /// ```
    /// use hardtack::process::Preprocessor;
    /// use hardtack::{Bundle, DType};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
    /// # std::env::set_current_dir(folder)?;
    /// let bundle = Bundle::open("kws_dscnn.tack")?;
    /// let manifest = bundle.manifest()?;
    /// let preprocessor = Preprocessor::identity(&manifest.inputs[0]);
    /// assert!(preprocessor.accepts(DType::F32, &[49, 10]).is_ok());
    /// assert!(preprocessor.accepts(DType::F32, &[1_000_000, 7]).is_err());
    /// # Ok(())
    /// # }
    /// ```
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
                Err(Error::Feature { content: "audio", feature: "audio" })
            }
        }
    }

    /// Checks whether an array is a sample for this model rather than for another one. Rejects what
    /// [`Preprocessor::accepts`] rejects. For images, it also rejects arrays of another size,
    /// except u8 pixels with the channels of the model, which are resized.
    ///
    /// Call it for each array of a data set: [`Preprocessor::array`] resizes arrays that are not
    /// images too.
    ///
    /// # Errors
    /// Returns [`Error::NotImages`] or the errors of [`Preprocessor::accepts`].
    ///
    /// # Examples
    ///
    /// ```
    /// use hardtack::DType;
    /// use hardtack::process::Preprocessor;
    /// # use hardtack_bundle::manifest::{Extent, Layout, Port};
    /// # use hardtack_bundle::process::{ChannelOrder, Colour, Fit, Image, Preprocess};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let process = Preprocess::Image(Image {
    /// #     height: 128,
    /// #     width: 128,
    /// #     fit: Fit::Stretch,
    /// #     colour: Colour::Rgb,
    /// #     order: ChannelOrder::Nhwc,
    /// #     mean: [127.5].into_iter().collect(),
    /// #     deviation: [127.5].into_iter().collect(),
    /// # });
    /// # let input = Port {
    /// #     name: "image",
    /// #     dtype: DType::F32,
    /// #     shape: [1, 128, 128, 3].map(Extent::Fixed).into_iter().collect(),
    /// #     layout: Layout::Nhwc,
    /// #     quantization: None,
    /// # };
    /// // `process` and `input` come from a bundle for RGB images of 128 × 128 pixels.
    /// let preprocessor = Preprocessor::new(process, &input)?;
    /// assert!(preprocessor.accepts_sample(DType::F32, &[128, 128, 3]).is_ok());
    /// assert!(preprocessor.accepts_sample(DType::U8, &[480, 640, 3]).is_ok());
    /// // The features of an audio model could be read as a gray image.
    /// assert!(preprocessor.accepts_sample(DType::I8, &[49, 10, 1]).is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn accepts_sample(&self, dtype: DType, shape: &[usize]) -> Result<(), Error> {
        if let Some(Preprocess::Image(spec)) = &self.process
            && !shape.contains(&0)
        {
            image::check_sample(spec, dtype, shape)?;
        }
        self.accepts(dtype, shape)
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
        Err(Error::Feature { content: "audio", feature: "audio" })
    }

    /// Processes single-channel audio with samples from −1 to 1.
    ///
    /// # Errors
    /// Returns [`Error::Rate`] if the sample rate is not the model's, [`Error::EmptyRecording`] if
    /// there are no samples, [`Error::NotFinite`] if one is infinite or NaN, and
    /// [`Error::TakesNoRecording`] if the model does not take audio.
    #[cfg(feature = "audio")]
    pub fn samples(&self, samples: Vec<f32>, sample_rate: u32) -> Result<Inputs, Error> {
        let Some(Preprocess::Audio(spec)) = &self.process else {
            return Err(Error::TakesNoRecording);
        };
        let frames = audio::Frames::new(spec, samples, sample_rate)?;
        let (period, target) = (frames.period(), self.target.clone());
        let fitted = move |run| target.finish(run).expect("`new` checked the shape");
        Ok(Inputs { runs: Box::new(frames.map(fitted)), period })
    }
}

/// An iterator over the inputs of consecutive inferences, computed on demand.
pub struct Inputs {
    runs: Box<dyn ExactSizeIterator<Item = Tensor> + Send>,
    period: Option<f64>,
}

impl Inputs {
    /// Returns the seconds of audio between inferences if each takes one frame.
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
