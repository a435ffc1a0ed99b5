//! What can go wrong between a graph and tract.

use hardtack_bundle::graph::GraphError;
use hardtack_engine::ProgramError;

use super::ops::OperandError;
use crate::limits::{Exceeded, Stopped};

/// Why a graph could not be loaded, run or exported.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The graph's references are not sound.
    #[error("the graph is not well-formed: {0}")]
    Graph(GraphError),
    /// A node's attributes or inputs do not fit its operator.
    #[error("node {node:?} ({operator}): {problem}")]
    Node {
        /// Name of the node.
        node: String,
        /// Its operator.
        operator: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// A constant does not fit its entry in the graph.
    #[error("constant {index}: {problem}")]
    Constant {
        /// Index of the constant.
        index: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// An integer program cannot be read.
    #[error("program {index}: {source}")]
    Program {
        /// Index of the program.
        index: usize,
        /// What is wrong.
        source: ProgramError,
    },
    /// A value would take more memory than allowed.
    #[error(
        "the value of node {node:?} takes {bytes} bytes, beyond the limit of {limit}; use smaller \
         inputs or raise the limit"
    )]
    TooLarge {
        /// Name of the node.
        node: String,
        /// Size of the value.
        bytes: u64,
        /// See [`Limits::memory_bytes`](crate::Limits::memory_bytes).
        limit: u64,
    },
    /// The model needs more than a limit allows.
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
    /// The run was ended early.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// Operators that have no place in the operator table.
    #[error("{} without a place in a bundle: {}", count(.nodes), list(.nodes))]
    NoPlace {
        /// Name and operator of each node concerned.
        nodes: Vec<(String, String)>,
    },
    /// Not as many inputs as the model has.
    #[error("the model takes {expected} inputs, not {given}")]
    InputCount {
        /// How many the model has.
        expected: usize,
        /// How many were given.
        given: usize,
    },
    /// An input is not of the type or shape the model takes.
    #[error("input {index} ({name:?}): {problem}")]
    Input {
        /// Index of the input.
        index: usize,
        /// Its name.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// tract reported an error.
    #[error("{doing} failed: {problem}")]
    Tract {
        /// What was being done.
        doing: &'static str,
        /// tract's own words.
        problem: String,
    },
    /// tract panicked. Where panics abort, the process ends instead.
    #[error("{doing} failed inside tract: {problem}; please report the model")]
    Panic {
        /// What was being done.
        doing: &'static str,
        /// The panic's message.
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

/// What is wrong with a node; whoever walks the graph knows which.
#[derive(Debug)]
pub(super) struct Problem(pub String);

impl From<&str> for Problem {
    fn from(problem: &str) -> Self {
        Problem(problem.into())
    }
}

impl From<String> for Problem {
    fn from(problem: String) -> Self {
        Problem(problem)
    }
}

impl From<OperandError> for Problem {
    fn from(error: OperandError) -> Self {
        Problem(error.to_string())
    }
}

impl From<tract_core::prelude::TractError> for Problem {
    fn from(error: tract_core::prelude::TractError) -> Self {
        Problem(format!("{error:#}"))
    }
}

/// The problem, unless the condition holds.
pub(super) fn require(holds: bool, problem: &str) -> Result<(), Problem> {
    if holds { Ok(()) } else { Err(problem.into()) }
}

/// Turns tract's error chain into one sentence.
pub(super) fn tract(doing: &'static str) -> impl FnOnce(tract_core::prelude::TractError) -> Error {
    move |error| match (error.downcast_ref(), error.downcast_ref()) {
        (Some(stopped), _) => Error::Stopped(*stopped),
        (_, Some(exceeded)) => Error::Exceeded(*exceeded),
        _ => Error::Tract { doing, problem: format!("{error:#}") },
    }
}

/// Runs something of tract's and gives the message of a panic, where panics unwind.
pub(super) fn catch<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).map_err(|panic| {
        panic
            .downcast_ref::<&str>()
            .map(|text| text.to_string())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "a panic without a message".into())
    })
}

/// Runs something of tract's and turns a panic into an error.
pub(super) fn guard<T>(
    doing: &'static str,
    run: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    catch(run).unwrap_or_else(|problem| Err(Error::Panic { doing, problem }))
}
