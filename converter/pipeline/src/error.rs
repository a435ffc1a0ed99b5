//! Errors of a conversion.

use std::path::PathBuf;

use crate::atomic_file::WriteError;
use crate::process::{cause, memory_bytes};

/// The error type of [`convert`](crate::convert()).
///
/// # Examples
///
/// ```
/// use hardtack_converter::{Error, ConvertOptions, NoProgress, convert};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/data/keyword_spotting");
/// # let folder = tempfile::tempdir()?;
/// # for name in ["kws_dscnn.onnx", "calibration.npz"] {
/// #     std::fs::copy(format!("{data}/{name}"), folder.path().join(name))?;
/// # }
/// # std::env::set_current_dir(&folder)?;
/// // INT8 needs calibration data.
/// let options = ConvertOptions { int8: true, ..ConvertOptions::default() };
/// let error = convert("kws_dscnn.onnx".as_ref(), "kws.tack".as_ref(), &options, &mut NoProgress);
/// assert!(matches!(error, Err(Error::Options(_))));
/// assert!(!std::fs::exists("kws.tack")?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model could not be imported.
    #[error(transparent)]
    Import(#[from] crate::import::ImportError),
    /// An `.npy` or `.npz` file cannot be read.
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
    /// The model ran out of memory.
    #[error(
        "the model needs more than the {} MiB of memory that the conversion may use; raise the \
         limit with --max-memory if the machine has more",
        limit >> 20
    )]
    OutOfMemory {
        /// The memory limit of the conversion in bytes.
        limit: u64,
    },
    /// Two readings of a model disagree, and the reference implementation cannot replace tract.
    #[error(
        "two readings of the model disagree ({problem}), so nothing was written; please report this \
         with the model"
    )]
    Readings {
        /// The disagreement.
        problem: String,
    },
    /// A file or folder cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The path.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The bundle cannot be written. An existing file is unchanged.
    #[error("{}: cannot be written: {source}; an existing file is unchanged", path.display())]
    Write {
        /// The path.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The output path is a device, pipe or socket, which must not be replaced.
    #[error("{}: is {kind}, not a file; give the name of a file", path.display())]
    NotAFile {
        /// The output path.
        path: PathBuf,
        /// The kind of the existing entry, for example "a character device".
        kind: &'static str,
    },
    /// The folder of the output path does not exist.
    #[error("{}: the folder {} does not exist; create it", path.display(), folder.display())]
    NoFolder {
        /// The output path.
        path: PathBuf,
        /// The missing folder.
        folder: PathBuf,
    },
    /// Calibration data does not fit the model.
    #[error("{}: {problem}", path.display())]
    Data {
        /// The path.
        path: PathBuf,
        /// A description of the problem.
        problem: String,
    },
    /// Samples or weights cannot be written to or read from a temporary file.
    #[error(
        "calibration data or weights cannot be kept in a temporary file: {source}; free space in \
         {folder}, or set TMPDIR to another folder",
        folder = crate::process::worker::temporary_folder().display()
    )]
    Spool {
        /// The cause.
        source: std::io::Error,
    },
    /// A value of the float model is not finite on a calibration sample.
    #[error(
        "node {node:?} outputs {value} on calibration sample {sample}, so it has no range; check \
         that sample and the weights before the node, or keep what reads it in float:{}",
        readers.iter().map(|name| format!(" --keep-float {name}")).collect::<String>()
    )]
    NotFinite {
        /// The name of the node.
        node: String,
        /// The value, which is infinite or NaN.
        value: f32,
        /// The index of the sample, from 0.
        sample: usize,
        /// The names of the nodes that read the value, or of the node itself if none does.
        readers: Vec<String>,
    },
    /// An input is too large to be filled with random numbers.
    #[error(
        "input {input:?} of shape {shape:?} is too large for random numbers; give it a smaller \
         shape with --set {input}=SHAPE, or give real inputs with --data"
    )]
    Input {
        /// The name of the input.
        input: String,
        /// The shape of the input.
        shape: Vec<usize>,
    },
    /// One inference takes more MACs than a conversion allows.
    #[error(
        "one inference takes {:.1e} multiply-accumulates, most of them in node {node:?} \
         ({operator}), and the limit is {:.1e}; give the inputs smaller shapes with --set",
        *macs as f64, *limit as f64
    )]
    TooManyMacs {
        /// The node with the most MACs.
        node: String,
        /// The operator of that node.
        operator: &'static str,
        /// The MACs of the whole model.
        macs: u64,
        /// The maximum number of MACs.
        limit: u64,
    },
    /// One node needs more memory than the conversion's limit.
    #[error(
        "node {node:?} ({operator}) reads or writes {} MiB at once, and the conversion's limit is \
         {} MiB of memory; give the inputs smaller shapes with --set, or raise the limit with \
         --max-memory",
        bytes >> 20, limit >> 20
    )]
    Memory {
        /// The name of the node.
        node: String,
        /// The operator of the node.
        operator: &'static str,
        /// The bytes that it reads or the bytes that it writes, whichever is more.
        bytes: u64,
        /// The memory limit of the conversion in bytes.
        limit: u64,
    },
    /// The options contradict each other, or do not fit the model.
    #[error("{0}")]
    Options(String),
    /// INT8 alone changes the outputs too much, and the options allow nothing else.
    #[error("{0}")]
    Accuracy(String),
    /// A stage changed the model's outputs by more than rounding explains.
    #[error(
        "stage {stage:?} changed the model's outputs by {of_range:.2e} of their range, on \
    {samples} {source_name} samples; nothing was written; please report this with the model"
    )]
    Parity {
        /// The name of the stage.
        stage: &'static str,
        /// The largest difference, as a fraction of the output's range.
        of_range: f64,
        /// The number of samples compared.
        samples: usize,
        /// The source of the samples: `random`, or a file name.
        source_name: String,
    },
    /// The finished bundle cannot be run.
    #[error(
        "nothing was written: the bundle cannot be run: {0}; please report this with the model"
    )]
    Session(#[source] hardtack::Error),
    /// The finished bundle does not reproduce its own test vectors.
    #[error(
        "nothing was written: the bundle does not reproduce its own test vectors (output \
         {output:?} differs by {difference:.3e}); please report this with the model"
    )]
    TestVectors {
        /// The name of the output.
        output: String,
        /// The largest difference of an element.
        difference: f64,
    },
    /// The bundle cannot be compressed.
    #[error("the bundle cannot be compressed: {0}")]
    Transport(#[from] hardtack_transport::PackError),
    /// The model does not fit the bundle format.
    #[error("the model does not fit a bundle: {0}")]
    Bundle(#[from] hardtack_bundle::WriteError),
}

impl From<WriteError> for Error {
    fn from(error: WriteError) -> Error {
        match error {
            WriteError::NotAFile { path, kind } => Error::NotAFile { path, kind },
            WriteError::NoFolder { path, folder } => Error::NoFolder { path, folder },
            WriteError::Write { path, source } => Error::Write { path, source },
        }
    }
}

impl From<hardtack::float::Error> for Error {
    fn from(error: hardtack::float::Error) -> Error {
        match &error {
            // tract panics if an allocation fails; only the message distinguishes that panic.
            hardtack::float::Error::Panic { problem, .. } if cause::is_about_memory(problem) => {
                Error::OutOfMemory { limit: memory_bytes() }
            }
            _ => Error::Run(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_of_failed_allocations_become_out_of_memory() {
        let panic = |problem: &str| {
            let problem = problem.into();
            Error::from(hardtack::float::Error::Panic { doing: "running the model", problem })
        };
        let error = panic("failed to allocate Layout { size: 8589934592, align: 32 (1 << 5) }");
        assert!(matches!(error, Error::OutOfMemory { limit } if limit > 0));
        assert!(matches!(panic("no such axis"), Error::Run(_)));
    }
}
