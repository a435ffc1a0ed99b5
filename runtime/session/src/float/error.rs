//! Errors of the adapter to tract.

use hardtack_bundle::graph::GraphError;
use hardtack_engine::ProgramError;

use super::custom_ops::OperandError;
use crate::limits::{Exceeded, Stopped};

/// An error of loading, running or exporting a graph.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A reference in the graph is invalid.
    #[error("the graph is not well-formed: {0}")]
    Graph(GraphError),
    /// The attributes or inputs of a node do not match its operator.
    #[error("node {node:?} ({operator}): {problem}")]
    Node {
        /// The name of the node.
        node: String,
        /// The operator of the node.
        operator: &'static str,
        /// What is wrong with the node.
        problem: String,
    },
    /// A constant does not match its entry in the graph.
    #[error("constant {index}: {problem}")]
    Constant {
        /// The index of the constant.
        index: usize,
        /// What is wrong with the constant.
        problem: &'static str,
    },
    /// An integer program is malformed.
    #[error("program {index}: {source}")]
    Program {
        /// The index of the program.
        index: usize,
        /// The error in the program.
        source: ProgramError,
    },
    /// A value needs more memory than the limit allows.
    #[error(
        "the value of node {node:?} takes {bytes} bytes, beyond the limit of {limit}; use smaller \
         inputs or raise the limit"
    )]
    TooLarge {
        /// The name of the node that computes the value.
        node: String,
        /// The size of the value in bytes.
        bytes: u64,
        /// The limit in bytes; see [`Limits::memory_bytes`](crate::Limits::memory_bytes).
        limit: u64,
    },
    /// The model needs more than a limit allows.
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
    /// The inference was stopped early.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// A bundle cannot represent some operators.
    #[error("{} that a bundle cannot represent: {}", count(.nodes), list(.nodes))]
    NoPlace {
        /// The name and operator of each such node.
        nodes: Vec<(String, String)>,
    },
    /// The number of inputs does not match the model.
    #[error("the model takes {expected} inputs, not {given}")]
    InputCount {
        /// The number of inputs of the model.
        expected: usize,
        /// The number of inputs that were given.
        given: usize,
    },
    /// The type or shape of an input does not match the model.
    #[error("input {index} ({name:?}): {problem}")]
    Input {
        /// The index of the input.
        index: usize,
        /// The name of the input.
        name: String,
        /// What is wrong with the input.
        problem: String,
    },
    /// tract reported an error.
    #[error("{doing} failed: {problem}")]
    Tract {
        /// The step that failed.
        doing: &'static str,
        /// The error message of tract.
        problem: String,
    },
    /// tract panicked. In builds that abort on panics, the process ends instead.
    #[error("{doing} failed inside tract: {problem}; please report the model")]
    Panic {
        /// The step that failed.
        doing: &'static str,
        /// The message of the panic.
        problem: String,
    },
}

fn count(nodes: &[(String, String)]) -> String {
    match nodes.len() {
        1 => "an operator".into(),
        n => format!("{n} operators"),
    }
}

fn list(nodes: &[(String, String)]) -> String {
    let names: Vec<String> = nodes.iter().map(|(node, op)| format!("{op} ({node:?})")).collect();
    names.join(", ")
}

/// The reason why a node is refused. The caller adds which node it is.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    /// What is wrong with the node.
    #[error("{0}")]
    Text(String),
    /// An output of the node takes this many bytes.
    #[error("its value takes {0} bytes")]
    TooLarge(u64),
    /// The model needs more than a limit allows.
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
    /// Loading was stopped early.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl From<&str> for Problem {
    fn from(problem: &str) -> Self {
        Problem::Text(problem.into())
    }
}

impl From<String> for Problem {
    fn from(problem: String) -> Self {
        Problem::Text(problem)
    }
}

impl From<OperandError> for Problem {
    fn from(error: OperandError) -> Self {
        Problem::Text(error.to_string())
    }
}

impl From<tract_core::prelude::TractError> for Problem {
    fn from(error: tract_core::prelude::TractError) -> Self {
        match (error.downcast_ref(), error.downcast_ref()) {
            (Some(stopped), _) => Problem::Stopped(*stopped),
            (_, Some(exceeded)) => Problem::Exceeded(*exceeded),
            _ => Problem::Text(format!("{error:#}")),
        }
    }
}

/// The error of a body, as the reason why its node is refused.
impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Exceeded(exceeded) => Problem::Exceeded(exceeded),
            Error::Stopped(stopped) => Problem::Stopped(stopped),
            error => Problem::Text(error.to_string()),
        }
    }
}

/// Returns the problem as an error unless the condition holds.
pub(super) fn require(holds: bool, problem: &str) -> Result<(), Problem> {
    if holds { Ok(()) } else { Err(problem.into()) }
}

/// Converts an error of tract, joining its chain of causes into one line.
pub(super) fn tract(doing: &'static str) -> impl FnOnce(tract_core::prelude::TractError) -> Error {
    move |error| match error.into() {
        Problem::Stopped(stopped) => Error::Stopped(stopped),
        Problem::Exceeded(exceeded) => Error::Exceeded(exceeded),
        problem => Error::Tract { doing, problem: problem.to_string() },
    }
}

/// Calls tract and returns the message of a panic as an error. Requires that panics unwind.
pub(super) fn catch<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).map_err(|panic| {
        panic
            .downcast_ref::<&str>()
            .map(|text| text.to_string())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "a panic without a message".into())
    })
}

/// Calls tract and converts a panic to [`Error::Panic`].
pub(super) fn guard<T>(
    doing: &'static str,
    run: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    catch(run).unwrap_or_else(|problem| Err(Error::Panic { doing, problem }))
}
