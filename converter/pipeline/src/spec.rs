//! The settings of pre- and post-processing, as a user writes them in TOML.
//!
//! At most one of the tables `[image]`, `[audio]` and `[array]` says what makes the model's first
//! input, and `[classify]` what makes an answer from its first output.
//!
//! Pictures become `(pixel - mean) / deviation`, the pixel from 0 to 255; `mean` and `deviation`
//! are a number, or one for each channel in the order of `colour`:
//!
//! ```toml
//! [image]
//! height = 224
//! width = 224
//! fit = "centre-crop"         # or "stretch", or "letterbox" with fill = 114
//! short_side = 256            # of the picture before the cut; with "centre-crop" only
//! colour = "rgb"              # or "bgr", or "gray"
//! order = "nhwc"              # or "nchw"
//! mean = 127.5                # 0 if absent
//! deviation = 127.5           # 1 if absent
//!
//! [classify]
//! softmax = false             # whether the scores are logits; false if absent
//! skip = 1                    # classes before the first label; 0 if absent
//! labels = "labels.txt"       # one a line, in the folder of this file; or a list of strings
//! ```
//!
//! Recordings are cut into frames, and each frame becomes a row of features:
//!
//! ```toml
//! [audio]
//! sample_rate = 16000
//! level = "peak"              # loudest sample becomes 1; "full-scale", as recorded, if absent
//! window = 480                # samples per frame
//! stride = 320                # samples from one frame to the next
//! frames = 49                 # that one run takes; 0 for one run per frame, if absent
//! feature = "mfcc"            # or "log-mel", or "samples", which has none of what follows
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
//! Arrays become `(x - mean) / deviation`, one number for all or one for each element of the last
//! dimension:
//!
//! ```toml
//! [array]
//! mean = 83
//! deviation = 1.7102703
//! ```

mod tables;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use hardtack::process::check;
use hardtack_bundle::process::{Postprocess, Preprocess};
use thiserror::Error;

use crate::inside::{self, Outside};
use tables::{ClassifyTable, Labels, Problem, Tables};

/// Maximum size in bytes of a specification and of a file of labels.
const MAX_TEXT: u64 = 16 << 20;

/// What is wrong with a specification or a file of labels.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The specification says something that has no meaning.
    #[error("{}:{line}: {problem}", path.display())]
    Setting {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong and what is allowed.
        problem: String,
    },
    /// The file of labels has none.
    #[error("{}: holds no labels; write one a line, in the order of the scores", path.display())]
    NoLabels {
        /// The file.
        path: PathBuf,
    },
}

/// Pre-processing, post-processing and labels of a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spec {
    /// What makes the first input.
    pub preprocess: Option<Preprocess>,
    /// What makes an answer from the first output.
    pub postprocess: Option<Postprocess>,
    /// Names of the classes, in the order of their scores; may be empty.
    pub labels: Vec<String>,
}

impl Spec {
    /// Reads a specification and the file of labels that it names.
    ///
    /// # Errors
    /// [`enum@Error`], each of which names the file, and the line where there is one.
    pub fn read(path: &Path) -> Result<Spec, Error> {
        Spec::parse(&read(path)?, path)
    }

    /// Parses a specification. `path` is for messages, and labels are searched beside it.
    ///
    /// # Errors
    /// As [`Spec::read`].
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
                let problem = format!("[{table}] cannot stand beside [{first}]; keep one of them");
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
/// file must be in the same folder; otherwise any file of the user could end up in a bundle.
fn labels_beside(spec: &Path, labels: &Path) -> Result<PathBuf, String> {
    let folder = spec.parent().unwrap_or(Path::new(""));
    match inside::resolve(folder, labels) {
        Ok(path) if path.is_file() => Ok(path),
        Ok(_) => Err("is not a file".into()),
        // Reading it reports the error.
        Err(Outside::Unreadable(_)) => Ok(folder.join(labels)),
        Err(Outside::Elsewhere) => Err("is outside the folder of this file; move it there, write \
                                        the labels as a list, or pass the file with --labels"
            .into()),
    }
}

/// Reads labels, one a line. White space around them is not theirs, and empty lines count only
/// between labels.
///
/// # Errors
/// [`Error::Read`], or [`Error::NoLabels`] where there are none.
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
pub fn in_folder(folder: &Path, name: &Path) -> io::Result<PathBuf> {
    match inside::resolve(folder, name) {
        Ok(path) if path.is_file() => Ok(path),
        Ok(_) => Err(io::Error::other("is not a regular file")),
        Err(Outside::Unreadable(error)) => Err(error),
        Err(outside) => Err(io::Error::new(io::ErrorKind::PermissionDenied, outside)),
    }
}

/// The line, from 1, of a setting in a table, or else of the table's header.
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
