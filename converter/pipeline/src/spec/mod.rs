//! Pre- and post-processing specifications in TOML.
//!
//! At most one of the tables `[image]`, `[audio]` and `[array]` describes the pre-processing of the
//! model's first input. The table `[classify]` describes the post-processing of its first output.
//!
//! Images become `(pixel - mean) / deviation`, with pixels from 0 to 255; `mean` and `deviation`
//! are one number, or one per channel in the order of `colour`:
//!
//! ```toml
//! [image]
//! height = 224
//! width = 224
//! fit = "centre-crop"         # or "stretch", or "letterbox" with fill = 114
//! short_side = 256            # of the image before cropping; with "centre-crop" only
//! colour = "rgb"              # or "bgr", or "gray"
//! order = "nhwc"              # or "nchw"
//! mean = 127.5                # 0 if absent
//! deviation = 127.5           # 1 if absent
//!
//! [classify]
//! softmax = false             # whether the scores are logits; false if absent
//! skip = 1                    # classes before the first label; 0 if absent
//! labels = "labels.txt"       # one per line, in the folder of this file; or a list of strings
//! ```
//!
//! Audio is cut into frames, and each frame becomes a row of features:
//!
//! ```toml
//! [audio]
//! sample_rate = 16000
//! level = "peak"              # scales the loudest sample to 1; "full-scale" (unscaled) if absent
//! window = 480                # samples per frame
//! stride = 320                # samples from one frame to the next
//! frames = 49                 # frames per inference; 0 if absent: one inference per frame
//! feature = "mfcc"            # or "log-mel"; "samples" takes only mean and deviation below
//! spectrum = "magnitude"      # or "power"; "magnitude" if absent
//! bands = 40
//! low_hz = 20
//! high_hz = 4000
//! floor = 1e-6                # added before the logarithm; 1e-6 if absent
//! coefficients = 10           # with "mfcc" only
//! mean = 0                    # of the features; 0 if absent
//! deviation = 1               # 1 if absent
//! ```
//!
//! Arrays become `(x - mean) / deviation`; both are one number, or one for each element of the last
//! dimension:
//!
//! ```toml
//! [array]
//! mean = 83
//! deviation = 1.7102703
//! ```
//!
//! [`Spec::parse`] returns the types that [`ConvertOptions`](crate::ConvertOptions) takes:
//!
//! ```
//! use hardtack_bundle::process::{Postprocess, Preprocess};
//! use hardtack_converter::spec::Spec;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let text = r#"
//!     [array]
//!     mean = 83
//!     deviation = 1.71
//!
//!     [classify]
//!     labels = ["yes", "no"]
//! "#;
//! let spec = Spec::parse(text, "words.toml".as_ref())?;
//! assert!(matches!(spec.preprocess, Some(Preprocess::Array(_))));
//! assert_eq!(spec.postprocess, Some(Postprocess::Classify { softmax: false, skip: 0 }));
//! assert_eq!(spec.labels, ["yes", "no"]);
//! # Ok(())
//! # }
//! ```

mod tables;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use hardtack::process::check;
use hardtack_bundle::process::{Postprocess, Preprocess};
use tables::{ClassifyTable, Labels, Problem, Tables};
use thiserror::Error;

use crate::contained_path::{self, Outside};

/// The maximum size of a specification or labels file in bytes.
const MAX_TEXT: u64 = 16 << 20;

/// The error type of specifications and labels files.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The path.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The specification is not valid.
    #[error("{}:{line}: {problem}", path.display())]
    Setting {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// A description of the problem, and what is allowed.
        problem: String,
    },
    /// The labels file is empty.
    #[error("{}: contains no labels; write one per line, in order of the scores", path.display())]
    NoLabels {
        /// The file.
        path: PathBuf,
    },
}

/// The pre-processing, post-processing and labels of a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spec {
    /// The pre-processing of the first input.
    pub preprocess: Option<Preprocess>,
    /// The post-processing of the first output.
    pub postprocess: Option<Postprocess>,
    /// The names of the classes, in the order of their scores; may be empty.
    pub labels: Vec<String>,
}

impl Spec {
    /// Reads a specification and the labels file that it names.
    ///
    /// # Errors
    /// Returns an [`enum@Error`] that names the file, and the line if there is one.
    ///
    /// # Examples
    ///
    /// ```
    /// use hardtack_converter::spec::Spec;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let specs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/specs");
    /// # std::env::set_current_dir(specs)?;
    /// let spec = Spec::read("mobilenet_v1.toml".as_ref())?;
    /// assert_eq!(spec.labels.len(), 1000);
    /// # Ok(())
    /// # }
    /// ```
    pub fn read(path: &Path) -> Result<Spec, Error> {
        Spec::parse(&read(path)?, path)
    }

    /// Parses a specification. `path` names it in errors; the labels file is read from its folder.
    ///
    /// # Errors
    /// See [`Spec::read`].
    ///
    /// # Examples
    ///
    /// An error names the line:
    ///
    /// ```
    /// use hardtack_converter::spec::Spec;
    ///
    /// let text = "[array]\nmean = 0\ndeviation = 0\n";
    /// let error = Spec::parse(text, "words.toml".as_ref()).unwrap_err();
    /// println!("{error}");
    /// assert!(error.to_string().starts_with("words.toml:3: [array] `deviation` must be"));
    /// ```
    pub fn parse(text: &str, path: &Path) -> Result<Spec, Error> {
        let wrong = |line, problem| Error::Setting { path: path.into(), line, problem };
        let tables: Tables = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let line = text.get(..start).map_or(1, |before| before.matches('\n').count() + 1);
            wrong(line, error.message().replace('\n', "; "))
        })?;
        let wrong_in = |table: &str, Problem(setting, problem): Problem| {
            wrong(line_of(text, table, setting), format!("[{table}] {problem}"))
        };

        let mut preprocess = None;
        let mut first = "";
        for (table, made) in [
            ("image", tables.image.map(|table| table.build().map(Preprocess::Image))),
            ("audio", tables.audio.map(|table| table.build().map(Preprocess::Audio))),
            ("array", tables.array.map(|table| Ok(Preprocess::Array(table.build())))),
        ] {
            let Some(made) = made else { continue };
            if preprocess.is_some() {
                let problem = format!("[{table}] conflicts with [{first}]; keep one of them");
                return Err(wrong(line_of(text, table, ""), problem));
            }
            let made = made.map_err(|problem| wrong_in(table, problem))?;
            check(&made).map_err(|error| match error {
                hardtack::process::Error::Setting { setting, requirement } => {
                    wrong_in(table, Problem(setting, format!("`{setting}` must be {requirement}")))
                }
                other => wrong_in(table, Problem("", other.to_string())),
            })?;
            (preprocess, first) = (Some(made), table);
        }

        let mut spec = Spec { preprocess, ..Spec::default() };
        if let Some(ClassifyTable { softmax, skip, labels }) = tables.classify {
            spec.postprocess = Some(Postprocess::Classify { softmax, skip });
            spec.labels = match labels {
                Labels::None => vec![],
                Labels::List(labels) => labels,
                Labels::File(file) => {
                    let wrong = |problem| {
                        let problem = format!("`labels` names {file:?}, which {problem}");
                        wrong_in("classify", Problem("labels", problem))
                    };
                    read_labels(&labels_beside(path, &file).map_err(wrong)?)?
                }
            };
        }
        Ok(spec)
    }
}

/// Resolves the labels file that a specification names. A specification may be untrusted, so the
/// file must be in the same folder. Otherwise, any of the user's files could end up in a bundle.
fn labels_beside(spec: &Path, labels: &Path) -> Result<PathBuf, String> {
    let folder = spec.parent().unwrap_or(Path::new(""));
    match contained_path::resolve(folder, labels) {
        Ok(path) if path.is_file() => Ok(path),
        Ok(_) => Err("is not a file".into()),
        // Reading it reports the error.
        Err(Outside::Unreadable(_)) => Ok(folder.join(labels)),
        Err(Outside::Elsewhere) => Err("is outside the folder of this file; move it there, write \
                                        the labels as a list, or pass the file with --labels"
            .into()),
    }
}

/// Reads labels, one per line, without surrounding white space. An empty line between labels is an
/// empty label; empty lines at the end are ignored.
///
/// # Errors
/// Returns [`Error::Read`] if the file cannot be read, or [`Error::NoLabels`] if it has no labels.
///
/// # Examples
///
/// ```
/// use hardtack_converter::spec::read_labels;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/data/keyword_spotting");
/// # std::env::set_current_dir(data)?;
/// let labels = read_labels("labels.txt".as_ref())?;
/// assert_eq!((labels.len(), &*labels[9]), (12, "Yes"));
/// # Ok(())
/// # }
/// ```
pub fn read_labels(path: &Path) -> Result<Vec<String>, Error> {
    let text = read(path)?;
    let labels: Vec<String> = text.trim_end().lines().map(|line| line.trim().into()).collect();
    if labels.is_empty() { Err(Error::NoLabels { path: path.into() }) } else { Ok(labels) }
}

fn read(path: &Path) -> Result<String, Error> {
    read_text(path).map_err(|source| Error::Read { path: path.into(), source })
}

/// Reads a text file of at most 16 MiB.
///
/// # Errors
/// When the file cannot be read, is not UTF-8, or is larger.
pub fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_TEXT + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_TEXT {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(text)
}

/// Resolves the name of a file that an untrusted file in `folder` gives.
///
/// # Errors
/// When the name leads out of the folder, or does not name a regular file.
///
/// # Examples
///
/// ```
/// use std::path::Path;
///
/// use hardtack_converter::spec::in_folder;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let specs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/specs");
/// # std::env::set_current_dir(specs)?;
/// assert!(in_folder(Path::new("."), Path::new("imagenet_labels.txt")).is_ok());
/// assert!(in_folder(Path::new("."), Path::new("../README.md")).is_err());
/// # Ok(())
/// # }
/// ```
pub fn in_folder(folder: &Path, name: &Path) -> io::Result<PathBuf> {
    match contained_path::resolve(folder, name) {
        Ok(path) if path.is_file() => Ok(path),
        Ok(_) => Err(io::Error::other("is not a regular file")),
        Err(Outside::Unreadable(error)) => Err(error),
        Err(outside) => Err(io::Error::new(io::ErrorKind::PermissionDenied, outside)),
    }
}

/// Returns the line number, from 1, of a setting in a table, or of the table's header if the
/// setting is not found.
fn line_of(text: &str, table: &str, setting: &str) -> usize {
    let is = |line: &str, start: &str| line.replace([' ', '\t'], "").starts_with(start);
    let header = format!("[{table}]");
    let Some(first) = text.lines().position(|line| is(line, &header)) else { return 1 };
    let within = text.lines().skip(first + 1).take_while(|line| !is(line, "["));
    let assignment = format!("{setting}=");
    let offset = within.take_while(|_| !setting.is_empty()).position(|line| is(line, &assignment));
    first + 1 + offset.map_or(0, |offset| offset + 1)
}

#[cfg(test)]
mod tests;
