//! Errors of an import.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::process::cause::Stopped;

/// The error type of imports.
#[derive(Debug, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ImportError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {problem}", path.display())]
    Read {
        /// The path.
        path: PathBuf,
        /// The cause.
        problem: String,
    },
    /// The file is larger than any ONNX model.
    #[error("{}: has {bytes} bytes; the maximum is {limit}", path.display())]
    TooLarge {
        /// The path.
        path: PathBuf,
        /// The size of the file in bytes.
        bytes: u64,
        /// The maximum size in bytes.
        limit: u64,
    },
    /// The tensors of the model exceed the memory limit.
    #[error(
        "{}: its tensors take {} MiB, and the import needs twice that, with a limit of {} MiB of \
         memory; raise the limit with --max-memory if the machine has more",
        path.display(), bytes >> 20, memory_bytes >> 20
    )]
    TooMuchData {
        /// The path.
        path: PathBuf,
        /// The bytes of the file and of its external tensors.
        bytes: u64,
        /// The memory limit in bytes.
        memory_bytes: u64,
    },
    /// The model exceeds a limit.
    #[error("the model has {count} {what}; the maximum is {limit}")]
    TooMany {
        /// The counted items, for example `nodes`.
        what: String,
        /// The number of items.
        count: usize,
        /// The maximum number of items.
        limit: usize,
    },
    /// The file is not an ONNX model.
    #[error("{}: is not an ONNX model: {problem}", path.display())]
    NotOnnx {
        /// The path.
        path: PathBuf,
        /// A description of the problem.
        problem: String,
    },
    /// The model contradicts itself or the ONNX specification.
    #[error("the model is malformed: {0}; check it with onnx.checker")]
    Malformed(String),
    /// The external data of a tensor cannot be read.
    #[error("external data of tensor {tensor:?}: {problem}")]
    ExternalData {
        /// The name of the tensor.
        tensor: String,
        /// A description of the problem.
        problem: String,
    },
    /// A `--set` option names nothing in the model, or has an invalid value.
    #[error("--set {name}={value}: {problem}")]
    Setting {
        /// The name of the setting.
        name: String,
        /// The value of the setting.
        value: String,
        /// A description of the problem, and what can be set.
        problem: String,
    },
    /// A node is malformed, or uses an unsupported feature.
    #[error("in node {node:?} ({operator}): {problem}")]
    Node {
        /// The name of the node.
        node: String,
        /// The operator of the node.
        operator: String,
        /// A description of the problem, and its remedy.
        problem: String,
    },
    /// The model has operators that cannot be converted.
    #[error("the model has operators that cannot be converted: {}", list(.0))]
    Unsupported(Vec<UnsupportedOperator>),
    /// The shapes or types of the model do not fit together, or the graph cannot be represented.
    #[error("the model cannot be converted: {problem}")]
    Graph {
        /// A description of the problem, with the node if it is known.
        problem: String,
    },
    /// The model cannot be converted for every size or value of its inputs.
    #[error("the model cannot be converted with {unknown}; pass {settings}")]
    Unbound {
        /// The dynamic shapes and the unknown values of inputs.
        unknown: String,
        /// The `--set` options that bind them.
        settings: String,
    },
    /// The import crashed, or exceeded a limit.
    #[error("the import was stopped: {0}")]
    Stopped(Stopped),
    /// The result of the import cannot be written to a temporary file.
    #[error(
        "{}: cannot write the imported model: {problem}; free space, or set TMPDIR to another \
         folder",
        folder.display()
    )]
    Temporary {
        /// The folder for temporary files.
        folder: PathBuf,
        /// The cause.
        problem: String,
    },
    /// The import process cannot be started or supervised.
    #[error("cannot start or supervise the import process: {0}")]
    #[serde(skip)]
    Process(#[from] std::io::Error),
}

/// An unsupported operator, with the nodes that use it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnsupportedOperator {
    /// The operator, preceded by its domain if that is not the standard one.
    pub operator: String,
    /// The names of the nodes, in the order of the graph.
    pub nodes: Vec<String>,
    /// Why it is refused, and the cure; empty if nothing is known of the operator.
    pub reason: String,
}

impl UnsupportedOperator {
    /// Adds a node to those of its operator that are refused for the same reason.
    pub(crate) fn add(found: &mut Vec<Self>, operator: String, node: &str, reason: &str) {
        let is_same = |other: &&mut Self| other.operator == operator && other.reason == reason;
        match found.iter_mut().find(is_same) {
            Some(other) => other.nodes.push(node.into()),
            None => found.push(Self { operator, nodes: vec![node.into()], reason: reason.into() }),
        }
    }
}

impl fmt::Display for UnsupportedOperator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 4;
        let shown = &self.nodes[..self.nodes.len().min(SHOWN)];
        let more = self.nodes.len() - shown.len();
        write!(f, "{} ({} in {}", self.operator, self.nodes.len(), shown.join(", "))?;
        if more > 0 {
            write!(f, " and {more} more")?;
        }
        write!(f, ")")?;
        if !self.reason.is_empty() {
            write!(f, ", because {}", self.reason)?;
        }
        Ok(())
    }
}

fn list(operators: &[UnsupportedOperator]) -> String {
    let all: Vec<String> = operators.iter().map(|operator| operator.to_string()).collect();
    all.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsupported_operators_are_counted_and_named() {
        let nodes = (0..6).map(|n| format!("n{n}")).collect();
        let error = ImportError::Unsupported(vec![
            UnsupportedOperator {
                operator: "RandomNormal".into(),
                nodes: vec!["l".into()],
                reason: "its results are random".into(),
            },
            UnsupportedOperator { operator: "acme::Magic".into(), nodes, reason: String::new() },
        ]);
        assert_eq!(
            error.to_string(),
            "the model has operators that cannot be converted: RandomNormal (1 in l), \
             because its results are random; acme::Magic (6 in n0, n1, n2, n3 and 2 more)"
        );
    }
}
