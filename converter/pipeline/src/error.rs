//! What can go wrong in a conversion.

use std::path::PathBuf;

use crate::guard;
use crate::whole::WriteError;

/// Why a model was not converted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model was not imported.
    #[error(transparent)]
    Import(#[from] crate::import::ImportError),
    /// A file of arrays cannot be read.
    #[error(transparent)]
    Arrays(#[from] crate::arrays::Error),
    /// The settings for pre- and post-processing cannot be used.
    #[error(transparent)]
    Spec(#[from] crate::spec::Error),
    /// The settings for pre-processing do not fit the model.
    #[error("the pre-processing does not fit the model: {0}")]
    Process(#[from] hardtack::process::Error),
    /// The model cannot be run.
    #[error(transparent)]
    Run(hardtack::float::Error),
    /// There was not enough memory to run the model.
    #[error(
        "the model needs more than the {} MiB of memory that the conversion may take; allow more with \
         --max-memory, where the machine has more",
        limit >> 20
    )]
    OutOfMemory {
        /// What the conversion may take.
        limit: u64,
    },
    /// A file or folder cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The bundle cannot be written. What was there before still is.
    #[error("{}: cannot be written: {source}; what was there before is unchanged", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The output path is a device, pipe or socket, which must not be replaced.
    #[error("{}: is {kind}, not a file; give the name of a file", path.display())]
    NotAFile {
        /// The output path.
        path: PathBuf,
        /// What is there, for example "a character device".
        kind: &'static str,
    },
    /// Data does not fit the model.
    #[error("{}: {problem}", path.display())]
    Data {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Samples cannot be kept in a temporary file.
    #[error(
        "calibration data cannot be kept in a temporary file: {source}; make room in {folder}, or set \
         TMPDIR to another folder",
        folder = crate::guard::temporary_folder().display()
    )]
    Spool {
        /// Why.
        source: std::io::Error,
    },
    /// A value of the float model is not finite on a calibration sample.
    #[error(
        "{node:?} gives {value} on calibration sample {sample}, so it has no range; look at that \
         sample and at the weights before the node, or keep the node in float with --keep-float"
    )]
    NotFinite {
        /// The node.
        node: String,
        /// What it gives.
        value: f32,
        /// Which sample, from 0.
        sample: usize,
    },
    /// An input is too large to be filled with random numbers.
    #[error(
        "input {input:?} of shape {shape:?} is too large to be filled with random numbers; give it a \
         smaller shape with --set {input}=SHAPE, or calibration data with --calibrate"
    )]
    Input {
        /// The input.
        input: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// One inference takes more work than a conversion can do.
    #[error(
        "one inference takes {:.1e} multiply-accumulates, most of them in node {node:?} \
         ({operator}), and at most {:.1e} can be converted; give the inputs smaller shapes with --set",
        *macs as f64, *limit as f64
    )]
    Work {
        /// The node that takes the most.
        node: String,
        /// Its operator.
        operator: &'static str,
        /// How many.
        macs: u64,
        /// See above.
        limit: u64,
    },
    /// One node takes more memory than the conversion may have.
    #[error(
        "node {node:?} ({operator}) reads or writes {} MiB at once, and the conversion may take {} \
         MiB of memory; give the inputs smaller shapes with --set, or allow more with --max-memory",
        bytes >> 20, limit >> 20
    )]
    Memory {
        /// The node.
        node: String,
        /// Its operator.
        operator: &'static str,
        /// Bytes of what it reads or of what it writes, whichever is more.
        bytes: u64,
        /// What the conversion may take.
        limit: u64,
    },
    /// The options do not fit together, or do not fit the model.
    #[error("{0}")]
    Options(String),
    /// A stage changed the model's numbers.
    #[error(
        "the stage {stage:?} changed the model's numbers by {of_range:.2e} of their range, on \
         {samples} {source_name} samples; nothing was written, please report the model"
    )]
    Parity {
        /// The stage.
        stage: &'static str,
        /// Largest difference as a part of the output's range.
        of_range: f64,
        /// How many samples.
        samples: usize,
        /// Where they came from.
        source_name: String,
    },
    /// The bundle has no transport form.
    #[error("the bundle has no transport form: {0}")]
    Transport(#[from] hardtack_transport::PackError),
    /// The model does not fit the bundle format.
    #[error("the model does not fit a bundle: {0}")]
    Bundle(#[from] hardtack_bundle::WriteError),
}

impl From<WriteError> for Error {
    fn from(error: WriteError) -> Error {
        match error {
            WriteError::NotAFile { path, kind } => Error::NotAFile { path, kind },
            WriteError::Write { path, source } => Error::Write { path, source },
        }
    }
}

impl From<hardtack::float::Error> for Error {
    fn from(error: hardtack::float::Error) -> Error {
        match &error {
            // tract panics if an allocation fails; only the message distinguishes that panic from others.
            hardtack::float::Error::Panic { problem, .. } if guard::is_about_memory(problem) => {
                Error::OutOfMemory { limit: guard::memory_bytes() }
            }
            _ => Error::Run(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn want_of_memory_is_told_from_other_panics() {
        let panic = |problem: &str| {
            let problem = problem.into();
            Error::from(hardtack::float::Error::Panic { doing: "running the model", problem })
        };
        let error = panic("failed to allocate Layout { size: 8589934592, align: 32 (1 << 5) }");
        assert!(matches!(error, Error::OutOfMemory { limit } if limit > 0));
        assert!(matches!(panic("no such axis"), Error::Run(_)));
    }
}
