//! Reads sample inputs from arrays, images and audio files.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use hardtack::Tensor;
use hardtack::process::{self, Preprocessor};
use hardtack_bundle::graph::{Dim, Graph};

use super::{SampleSource as _, Spool, row};
use crate::arrays::{Archive, Description, cast};
use crate::error::Error;
use crate::graph::io::{Endpoint, Signature};

/// The file extensions of images and audio files that can be read.
const FILES: [&str; 4] = ["jpg", "jpeg", "png", "wav"];
/// The file extensions of other images and audio files.
const OTHERS: [&str; 11] =
    ["gif", "bmp", "webp", "tif", "tiff", "avif", "heic", "mp3", "flac", "ogg", "opus"];

/// Returns the extension of a file in lower case; empty if it has none.
fn extension(path: &Path) -> String {
    path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default()
}

/// Lists the images and audio files of a folder and its subfolders, sorted by path. If no file has
/// a format that can be read, lists those of other formats, so that reading them gives an error
/// that names their format.
///
/// # Errors
/// Returns [`Error::Read`] if a folder cannot be read.
///
/// # Examples
///
/// ```
/// use std::path::Path;
///
/// use hardtack_converter::samples::files;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/data");
/// # std::env::set_current_dir(data)?;
/// let photos = files(Path::new("photos"))?;
/// assert_eq!(photos, [Path::new("photos/beach.jpg"), Path::new("photos/cat.jpg")]);
/// # Ok(())
/// # }
/// ```
pub fn files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let (mut found, mut others) = (Vec::new(), Vec::new());
    let mut folders = vec![folder.to_path_buf()];
    // Symbolic links may form cycles.
    let mut seen = HashSet::new();
    while let Some(folder) = folders.pop() {
        let read = |source| Error::Read { path: folder.clone(), source };
        if !seen.insert(folder.canonicalize().map_err(read)?) {
            continue;
        }
        for entry in std::fs::read_dir(&folder).map_err(read)? {
            let path = entry.map_err(read)?.path();
            let extension = extension(&path);
            if path.is_dir() {
                folders.push(path);
            } else if FILES.contains(&&*extension) && path.is_file() {
                found.push(path);
            } else if OTHERS.contains(&&*extension) && path.is_file() {
                others.push(path);
            }
        }
    }
    let mut listed = if found.is_empty() { others } else { found };
    listed.sort();
    Ok(listed)
}

/// What is read, and the inputs that it must fit.
pub(super) struct Reader<'r> {
    pub path: &'r Path,
    /// The maximum number of samples.
    pub limit: usize,
    pub graph: &'r Graph,
    pub signature: &'r Signature,
    pub preprocessor: &'r Preprocessor,
}

/// Where the values of an input come from.
enum Origin {
    /// The array of this name, which fits the input.
    Array(String),
    /// The array of this name, after pre-processing.
    Raw(String),
    /// The initial value of the input.
    Initial,
}

impl Reader<'_> {
    /// Reads the samples, and adds a sentence to `notes` for each array that is cast.
    pub(super) fn read(&self, notes: &mut Vec<String>) -> Result<Spool, Error> {
        let extension = extension(self.path);
        if self.path.is_dir() {
            self.files(files(self.path)?)
        } else if FILES.iter().chain(&OTHERS).any(|known| *known == extension) {
            self.files(vec![self.path.into()])
        } else {
            self.arrays(notes)
        }
    }

    fn problem(&self, problem: impl Into<String>) -> Error {
        Error::Data { path: self.path.into(), problem: problem.into() }
    }

    fn files(&self, files: Vec<PathBuf>) -> Result<Spool, Error> {
        let mut spool = Spool::new()?;
        let data = self.signature.data_input();
        for path in files {
            let inputs = self.preprocessor.file(&path).map_err(|error| match error {
                process::Error::File { path, error } => {
                    Error::Data { path, problem: error.to_string() }
                }
                error => Error::Data { path: path.clone(), problem: error.to_string() },
            })?;
            for input in inputs.take(self.limit - spool.count()) {
                let sample = self.signature.inputs.iter().enumerate().map(|(index, endpoint)| {
                    match index == data {
                        true => Ok(input.clone()),
                        false => self.initial(endpoint, index),
                    }
                });
                spool.push(&sample.collect::<Result<Vec<Tensor>, Error>>()?)?;
            }
            if spool.count() >= self.limit {
                break;
            }
        }
        Ok(spool)
    }

    /// Returns the initial value of an input.
    fn initial(&self, endpoint: &Endpoint, index: usize) -> Result<Tensor, Error> {
        let shape = &self.graph.nodes[self.graph.inputs[index] as usize].outputs[0].shape;
        endpoint.initial(shape).ok_or_else(|| {
            self.problem(format!(
                "it has no values for input {:?}; give an .npz file with an array for each input",
                endpoint.name
            ))
        })
    }

    fn arrays(&self, notes: &mut Vec<String>) -> Result<Spool, Error> {
        let mut archive = self.open()?;
        let mut chosen = Vec::new();
        for (index, origin) in self.origins(&mut archive)?.into_iter().enumerate() {
            chosen.push(match &origin {
                Origin::Array(name) | Origin::Raw(name) => {
                    self.check(&mut archive, name, &origin, index)?;
                    let array = archive.read_rows(name, self.limit)?;
                    let array = array.expect("an array of this name exists");
                    (Some(self.cast(array, name, &origin, index, notes)?), origin)
                }
                Origin::Initial => (None, origin),
            });
        }
        let counts = chosen.iter().filter_map(|(array, _)| Some(array.as_ref()?.shape()[0]));
        let mut spool = Spool::new()?;
        for at in 0..counts.min().unwrap_or(0).min(self.limit) {
            let mut inputs = Vec::new();
            for (index, (array, origin)) in chosen.iter().enumerate() {
                let sample = array.as_ref().map(|array| row(array, at));
                inputs.push(match (sample, origin) {
                    (None, _) | (_, Origin::Initial) => {
                        self.initial(&self.signature.inputs[index], index)?
                    }
                    (Some(sample), Origin::Raw(name)) => self
                        .preprocessor
                        .array(&sample)
                        .map_err(|error| self.problem(format!("array {name:?}: {error}")))?,
                    (Some(sample), Origin::Array(_)) => {
                        let shape = fit(sample.shape(), self.shape(index));
                        sample.reshape(&shape.expect("compared before")).expect("a view of it")
                    }
                });
            }
            spool.push(&inputs)?;
        }
        Ok(spool)
    }

    /// Opens the file. The array of an `.npy` file has the name of the file if that is an input,
    /// and the name `x` otherwise.
    fn open(&self) -> Result<Archive, Error> {
        if extension(self.path) != "npy" {
            return Ok(Archive::open(self.path)?);
        }
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy();
        let is_input = self.signature.inputs.iter().any(|input| input.name == stem);
        Ok(Archive::of_array(self.path, if is_input { &stem } else { "x" }))
    }

    /// Returns the dimensions of an input.
    fn shape(&self, input: usize) -> &[Dim] {
        &self.graph.nodes[self.graph.inputs[input] as usize].outputs[0].shape
    }

    /// Chooses the origin of each input by name.
    fn origins(&self, archive: &mut Archive) -> Result<Vec<Origin>, Error> {
        let (inputs, data) = (&self.signature.inputs, self.signature.data_input());
        let is_only = inputs.iter().filter(|input| !input.is_optional()).count() <= 1;
        let mut origins = Vec::new();
        for (index, input) in inputs.iter().enumerate() {
            let takes_raw = is_only && index == data;
            let name = &input.name;
            origins.push(match (archive.has(name), takes_raw && archive.has("x")) {
                // The array of an input that is named x may be raw too.
                (true, true) if name == "x" && self.accepts(archive)? => Origin::Raw("x".into()),
                (true, _) => Origin::Array(name.clone()),
                (false, true) => Origin::Raw("x".into()),
                (false, false) if input.is_optional() && !takes_raw => Origin::Initial,
                (false, false) => {
                    let list = list(archive);
                    return Err(self.problem(match takes_raw {
                        true => format!(
                            "it has neither an array {name:?} nor an array \"x\" of samples; it \
                             has {list}"
                        ),
                        false => format!(
                            "it has no array {name:?} for the model's input of that name; it has \
                             {list}"
                        ),
                    }));
                }
            });
        }
        Ok(origins)
    }

    /// Returns whether the pre-processing accepts the samples of the array `x`.
    fn accepts(&self, archive: &mut Archive) -> Result<bool, Error> {
        let described = archive.describe("x")?;
        Ok(described.is_some_and(|Description { dtype, shape }| {
            let sample = shape.get(1..).unwrap_or_default();
            self.preprocessor.accepts_sample(dtype, sample).is_ok()
        }))
    }

    /// Checks the shape of an array before its elements are read.
    fn check(
        &self,
        archive: &mut Archive,
        name: &str,
        origin: &Origin,
        index: usize,
    ) -> Result<(), Error> {
        let described = archive.describe(name)?.expect("an array of this name exists");
        let Description { dtype, shape } = described;
        let Some((_, sample)) = shape.split_first() else {
            return Err(self.problem(format!(
                "array {name:?} is a scalar; its first dimension must be the samples"
            )));
        };
        match origin {
            Origin::Raw(_) => self
                .preprocessor
                .accepts_sample(dtype, sample)
                .map_err(|error| self.problem(format!("array {name:?}: {error}"))),
            _ if fit(sample, self.shape(index)).is_none() => Err(self.problem(format!(
                "the array for {name:?} has samples of shape {sample:?}, but the model expects {}",
                self.signature.shape_text(self.shape(index)),
            ))),
            _ => Ok(()),
        }
    }

    /// Casts an array that is not pre-processed to the type of its input.
    fn cast(
        &self,
        array: Tensor,
        name: &str,
        origin: &Origin,
        index: usize,
        notes: &mut Vec<String>,
    ) -> Result<Tensor, Error> {
        let to = match origin {
            Origin::Raw(_) => self.preprocessor.unprocessed_type(),
            _ => Some(self.graph.nodes[self.graph.inputs[index] as usize].outputs[0].dtype),
        };
        let (from, input) = (array.dtype(), &self.signature.inputs[index].name);
        let Some(to) = to.filter(|to| *to != from) else { return Ok(array) };
        notes.push(format!(
            "{}: array {name:?} is {from}; it is cast to {to}, the type of input {input:?}",
            self.path.display()
        ));
        cast(array, to).map_err(|error| {
            self.problem(format!(
                "array {name:?} does not fit input {input:?}: {error}; save it as {to}, with values \
                 in its range"
            ))
        })
    }
}

/// Lists the names and shapes of the arrays, for error messages.
fn list(archive: &mut Archive) -> String {
    let names: Vec<String> = archive.names().map(str::to_owned).collect();
    let mut texts = Vec::new();
    for name in names {
        texts.push(match archive.describe(&name) {
            Ok(Some(described)) => format!("{name} {:?}", described.shape),
            _ => name,
        });
    }
    texts.join(", ")
}

/// Returns the shape of a sample with a batch dimension of 1 added if it is missing, or `None` if
/// it does not fit the input.
fn fit(sample: &[usize], expected: &[Dim]) -> Option<Vec<usize>> {
    let fits = |shape: &[usize]| {
        shape.len() == expected.len()
            && shape.iter().zip(expected).all(|(n, dim)| dim.value().is_none_or(|d| d == *n as i64))
    };
    let batched = [&[1], sample].concat();
    [sample.to_vec(), batched].into_iter().find(|shape| fits(shape))
}
