//! Errors of opening, loading and running a bundle.

use std::path::{Path, PathBuf};

use hardtack_bundle::DType;
use hardtack_bundle::graph::GraphError;
use hardtack_engine::{ProgramError, RunError};
use hardtack_kernels::Isa;

use crate::limits::{Exceeded, Stopped};
use crate::port::{Dims, Extent};

/// Why a bundle could not be opened, loaded or run.
///
/// # Examples
///
/// ```
/// use hardtack::{Bundle, Error, Session, Tensor};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
/// # std::env::set_current_dir(folder)?;
/// let mut session = Session::new(&Bundle::open("kws_dscnn.tack")?)?;
/// let wrong = Tensor::new(&[1, 10], vec![0.5f32; 10]).unwrap();
/// match session.run(&[("mfcc", &wrong)]) {
///     Err(Error::Shape { name, .. }) => assert_eq!(name, "mfcc"),
///     other => panic!("{other:?}"),
/// }
/// let error = session.run(&[("sound", &wrong)]).unwrap_err();
/// assert_eq!(error.to_string(), "the model has no input \"sound\"; it has \"mfcc\"");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An error in a bundle file.
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
    /// The file is not a valid bundle.
    #[error(transparent)]
    Bundle(#[from] hardtack_bundle::Error),
    /// The graph is malformed.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The bundle has no graph.
    #[error("the bundle has no graph to run; convert the model again")]
    NoGraph,
    /// The inputs, outputs or states in the manifest do not match the graph.
    #[error("the bundle's manifest does not match its graph: {problem}; convert the model again")]
    Manifest {
        /// The first mismatch.
        problem: String,
    },
    /// The content of a constant is malformed.
    #[error("constant {index} of the bundle's graph is malformed; convert the model again")]
    Constant {
        /// The index of the constant in the graph.
        index: usize,
    },
    /// An integer program is malformed.
    #[error("integer program {program}: {error}")]
    Program {
        /// The index of the program in the bundle.
        program: usize,
        /// The error.
        #[source]
        error: ProgramError,
    },
    /// The bundle has weights of a program only for kernel families that this release does not
    /// know.
    #[error(
        "the weights of integer program {program} are packed for {found} only, which this release \
         does not know; convert the model with the converter of this release"
    )]
    Family {
        /// The index of the program in the bundle.
        program: u16,
        /// The names of the kernel families, separated by commas.
        found: String,
    },
    /// The model is not fully integer and this build lacks the feature `float`.
    #[error(
        "the model runs {operator} (node {node:?}) in float, which this build does not support; \
         enable the feature `float` of the crate `hardtack`, or convert the model to integers only"
    )]
    NeedsFloat {
        /// The name of the first node that runs in float.
        node: String,
        /// The operator of that node.
        operator: &'static str,
    },
    /// This processor cannot run the requested kernels.
    #[error("this processor cannot run the kernels for {isa}")]
    Isa {
        /// The instruction set that the kernels require.
        isa: Isa,
    },
    /// No threads were requested, or more than a session may use.
    #[error("a session cannot use {threads} threads; use 1 to {most}")]
    ThreadCount {
        /// The requested number of threads.
        threads: usize,
        /// The maximum number of threads.
        most: usize,
    },
    /// The operating system could not start the threads.
    #[error("cannot start {threads} threads: {error}")]
    Threads {
        /// The requested number of threads.
        threads: usize,
        /// The error of the operating system.
        error: std::io::Error,
    },
    /// Loading or running the float part of the model failed.
    #[cfg(feature = "float")]
    #[error(transparent)]
    Float(crate::float::Error),
    /// The model needs more than a limit allows.
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
    /// The inference was stopped early.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The manifest states a smaller arena than the integer programs need.
    #[error(
        "the bundle's manifest states an arena of {stated} bytes, but its integer programs need \
         {needed}; convert the model again"
    )]
    Arena {
        /// The number of bytes in the manifest.
        stated: u64,
        /// The number of bytes that the programs need.
        needed: u64,
    },
    /// No input or output has this name.
    #[error("the model has no {role} {name:?}; it has {known}")]
    Unknown {
        /// Whether an input or an output was named.
        role: Role,
        /// The unknown name.
        name: String,
        /// The names of the model's inputs or outputs.
        known: String,
    },
    /// An input or output was given twice.
    #[error("{role} {name:?} was given twice")]
    Twice {
        /// Whether it is an input or an output.
        role: Role,
        /// The repeated name.
        name: String,
    },
    /// A required input or output was not given.
    #[error("{role} {port} was not given{hint}")]
    Missing {
        /// Whether it is an input or an output.
        role: Role,
        /// The name, element type and shape.
        port: String,
        /// What else the caller can do, starting with a semicolon; may be empty.
        hint: &'static str,
    },
    /// An element type does not match the model.
    #[error("{role} {name:?} has elements of type {expected}, but {given} was given")]
    DType {
        /// Whether it is an input or an output.
        role: Role,
        /// The name of the input or output.
        name: String,
        /// The element type in the model.
        expected: DType,
        /// The element type that the caller gave.
        given: DType,
    },
    /// An input shape does not match the model.
    #[error("input {name:?} takes the shape {}, but {} was given", Dims(expected), Dims(given))]
    Shape {
        /// The name of the input.
        name: String,
        /// The shape in the model.
        expected: Vec<Extent>,
        /// The shape that the caller gave.
        given: Vec<usize>,
    },
    /// Two inputs give different sizes to the same named dimension.
    #[error(
        "dimension {dimension:?} is {first} in input {first_input:?}, but {second} in input \
         {second_input:?}; give both the same size"
    )]
    Conflict {
        /// The name of the dimension.
        dimension: String,
        /// The input that set the size.
        first_input: String,
        /// The size in that input.
        first: usize,
        /// The input with a different size.
        second_input: String,
        /// The size in that input.
        second: usize,
    },
    /// An input or output has the wrong number of elements.
    #[error("{role} {name:?} takes {expected} elements, but {given} were given")]
    Length {
        /// Whether it is an input or an output.
        role: Role,
        /// The name of the input or output.
        name: String,
        /// The number of elements that it takes.
        expected: String,
        /// The number of elements that the caller gave.
        given: usize,
    },
    /// The number of elements does not determine the shape of an input.
    #[error(
        "the number of elements does not determine the shape {} of input {name:?}; use \
         `Session::run`, which takes tensors",
        Dims(shape)
    )]
    UnknownShape {
        /// The name of the input.
        name: String,
        /// The shape in the model.
        shape: Vec<Extent>,
    },
    /// The shape of a kept state does not match the inputs of this inference.
    #[error(
        "the state kept for input {name:?} has the shape {}, but the other inputs need {}; call \
         `Session::reset` between sequences",
        Dims(kept),
        Dims(needed)
    )]
    State {
        /// The name of the input.
        name: String,
        /// The shape of the kept state.
        kept: Vec<usize>,
        /// The shape that matches the other inputs.
        needed: Vec<usize>,
    },
    /// A tensor has more elements than this machine can address or allocate.
    #[error("{name:?} of shape {} is too large for this machine", Dims(shape))]
    TooLarge {
        /// The name of the input or output.
        name: String,
        /// The shape of the tensor.
        shape: Vec<u64>,
    },
    /// The arena of an integer program cannot be allocated.
    #[error("cannot allocate the {bytes} bytes of the arena")]
    OutOfMemory {
        /// The number of bytes.
        bytes: usize,
    },
    /// The shape of an output cannot be computed from the shapes of the inputs.
    #[error("the shape of output {name:?} cannot be computed from the shapes of the inputs")]
    OutputShape {
        /// The name of the output.
        name: String,
    },
    /// The bundle's test vectors have too many generated elements.
    #[error(
        "the bundle's test vectors have {elements} generated elements, beyond the limit of \
         {limit}; convert the model again with fewer test vectors"
    )]
    TestVectors {
        /// The number of elements of all generated test vectors.
        elements: u64,
        /// The maximum number of elements.
        limit: u64,
    },
    /// A test vector names an output that the model does not have.
    #[error("a test vector of the bundle names output {name:?}, which the model does not have")]
    TestVector {
        /// The name of the output.
        name: String,
    },
    /// The engine reported an error.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// The side of a model that an error refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// An input.
    Input,
    /// An output.
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
