//! What can go wrong between opening a bundle and its results.

use std::path::{Path, PathBuf};

use hardtack_bundle::DType;
use hardtack_bundle::graph::GraphError;
use hardtack_engine::{ProgramError, RunError};
use hardtack_kernels::Isa;

use crate::limits::{Exceeded, Stopped};
use crate::port::{Dims, Extent};

/// Why a bundle could not be opened, loaded or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
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
    /// The file is not a sound bundle.
    #[error(transparent)]
    Bundle(#[from] hardtack_bundle::Error),
    /// The graph is not sound.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// There is no graph.
    #[error("the bundle has no graph to run; convert the model again")]
    NoGraph,
    /// The ports do not fit the graph.
    #[error("the bundle's manifest does not fit its graph: {problem}; convert the model again")]
    Manifest {
        /// What is wrong.
        problem: String,
    },
    /// The content of a constant is malformed.
    #[error("constant {index} of the bundle's graph is malformed; convert the model again")]
    Constant {
        /// Its index in the graph.
        index: usize,
    },
    /// An integer program is not sound.
    #[error("integer program {program}: {error}")]
    Program {
        /// Its number in the bundle.
        program: usize,
        /// What is wrong.
        #[source]
        error: ProgramError,
    },
    /// The bundle has the weights of a program for other processors only.
    #[error(
        "the weights of integer program {program} are packed for {found} only, which this release \
         does not know; convert the model with the converter of this release"
    )]
    Family {
        /// Number of the program.
        program: u16,
        /// What the bundle has, by name.
        found: String,
    },
    /// A model that is not fully integer, in a build without the feature `float`.
    #[error(
        "the model runs {operator} (node {node:?}) in float, which this build leaves out; enable \
         the feature `float` of the crate `hardtack`, or convert the model to integers throughout"
    )]
    NeedsFloat {
        /// The first node that needs it.
        node: String,
        /// Its operator.
        operator: &'static str,
    },
    /// The kernels that were asked for do not run here.
    #[error("this processor cannot run the kernels for {isa}")]
    Isa {
        /// What they need.
        isa: Isa,
    },
    /// More threads were asked for than a session may have.
    #[error("{threads} threads are too many for a session; ask for at most {most}")]
    TooManyThreads {
        /// How many were wanted.
        threads: usize,
        /// The most there may be.
        most: usize,
    },
    /// The system refuses threads.
    #[error("{threads} threads cannot be started: {error}")]
    Threads {
        /// How many were wanted.
        threads: usize,
        /// What the system says.
        error: std::io::Error,
    },
    /// The part of the model that runs in float has an error.
    #[cfg(feature = "float")]
    #[error(transparent)]
    Float(crate::float::Error),
    /// The model needs more than a limit allows.
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
    /// The run was ended early.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The manifest states another arena than the integer programs need.
    #[error(
        "the bundle's manifest states an arena of {stated} bytes, and its integer programs need \
         {needed}; convert the model again"
    )]
    Arena {
        /// What the manifest states.
        stated: u64,
        /// What the programs need.
        needed: u64,
    },
    /// No input or output has this name.
    #[error("the model has no {role} {name:?}; it has {known}")]
    Unknown {
        /// Input or output.
        role: Role,
        /// The name that was given.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// A name was given twice.
    #[error("{role} {name:?} was given twice")]
    Twice {
        /// Input or output.
        role: Role,
        /// Its name.
        name: String,
    },
    /// An input or output was not given.
    #[error("{role} {port} was not given{hint}")]
    Missing {
        /// Input or output.
        role: Role,
        /// Name, element type and shape.
        port: String,
        /// What to do, beginning with a semicolon, where it is more than to give it.
        hint: &'static str,
    },
    /// An element type is not the model's.
    #[error("{role} {name:?} has elements of type {expected}, but {given} was given")]
    DType {
        /// Input or output.
        role: Role,
        /// Its name.
        name: String,
        /// The model's.
        expected: DType,
        /// The caller's.
        given: DType,
    },
    /// A shape is not the model's.
    #[error("input {name:?} takes the shape {}, but {} was given", Dims(expected), Dims(given))]
    Shape {
        /// Name of the input.
        name: String,
        /// The model's.
        expected: Vec<Extent>,
        /// The caller's.
        given: Vec<usize>,
    },
    /// Two inputs give a named dimension two sizes.
    #[error(
        "dimension {dimension:?} is {first} in input {first_input:?}, but {second} in input \
         {second_input:?}; give both the same size"
    )]
    Conflict {
        /// Name of the dimension.
        dimension: String,
        /// The input that gave it a size first.
        first_input: String,
        /// That size.
        first: usize,
        /// The input that gave it another.
        second_input: String,
        /// That size.
        second: usize,
    },
    /// A number of elements does not fit.
    #[error("{role} {name:?} takes {expected} elements, but {given} were given")]
    Length {
        /// Input or output.
        role: Role,
        /// Its name.
        name: String,
        /// What it takes.
        expected: String,
        /// Elements of the caller.
        given: usize,
    },
    /// The number of elements alone does not tell the shape.
    #[error(
        "the number of elements does not tell the shape {} of input {name:?}; use `Session::run`, \
         which takes tensors",
        Dims(shape)
    )]
    UnknownShape {
        /// Name of the input.
        name: String,
        /// The model's shape.
        shape: Vec<Extent>,
    },
    /// A kept state has another shape than the inputs of this run ask for.
    #[error(
        "the state kept for input {name:?} has the shape {}, which does not fit the other inputs \
         of this run ({}); call `Session::reset` between sequences",
        Dims(kept),
        Dims(needed)
    )]
    State {
        /// Name of the input.
        name: String,
        /// Shape of the state.
        kept: Vec<usize>,
        /// Shape that fits.
        needed: Vec<usize>,
    },
    /// A tensor would have more elements than this machine can count or hold.
    #[error("{name:?} of shape {} is too large for this machine", Dims(shape))]
    TooLarge {
        /// Name of the input or output.
        name: String,
        /// Its shape.
        shape: Vec<u64>,
    },
    /// The system has no memory for the arena of an integer program.
    #[error("there is no memory for the {bytes} bytes that the model works in")]
    OutOfMemory {
        /// The number of bytes.
        bytes: usize,
    },
    /// A size that the model's outputs need cannot be computed.
    #[error("the shape of output {name:?} does not follow from the shapes of the inputs")]
    OutputShape {
        /// Name of the output.
        name: String,
    },
    /// The bundle's test vectors are too large to be generated.
    #[error(
        "the bundle's test vectors stand for {elements} generated elements, beyond the limit of \
         {limit}; convert the model again with fewer test vectors"
    )]
    TestVectors {
        /// Elements of all generated vectors.
        elements: u64,
        /// The maximum.
        limit: u64,
    },
    /// A test vector is of an output that the model does not have.
    #[error("the bundle has test vectors of an output {name:?}, which its model does not have")]
    TestVector {
        /// The name of the output.
        name: String,
    },
    /// The engine refused a run.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// Which side of a model is spoken of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// What the caller gives.
    Input,
    /// What the caller gets.
    Output,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Role::Input => "input",
            Role::Output => "output",
        })
    }
}

#[cfg(feature = "float")]
impl From<crate::float::Error> for Error {
    fn from(error: crate::float::Error) -> Error {
        match error {
            crate::float::Error::Exceeded(exceeded) => Error::Exceeded(exceeded),
            crate::float::Error::Stopped(stopped) => Error::Stopped(stopped),
            error => Error::Float(error),
        }
    }
}

impl Error {
    pub(crate) fn of_file(self, path: &Path) -> Error {
        Error::File { path: path.into(), error: self.into() }
    }
}
