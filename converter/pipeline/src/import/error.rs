//! What can be wrong with a model that is imported.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::guard::Stopped;

/// Why a model was not imported.
#[derive(Debug, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ImportError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {problem}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// The file is larger than any ONNX model.
    #[error("{}: has {bytes} bytes, and a model may have {limit}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The largest size that is read.
        limit: u64,
    },
    /// The tensors of the model take more memory than there is.
    #[error(
        "{}: its tensors take {} MiB, and an import needs twice that of the {} MiB of memory that it \
         may take; allow more with --max-memory, where the machine has more",
        path.display(), bytes >> 20, memory_bytes >> 20
    )]
    TooMuchData {
        /// The file.
        path: PathBuf,
        /// Bytes of the file and of the tensors in others.
        bytes: u64,
        /// What the import may take.
        memory_bytes: u64,
    },
    /// The model has more of something than can be converted.
    #[error("the model has {count} {what}, and at most {limit} can be converted")]
    TooMany {
        /// What it has too many of.
        what: String,
        /// How many.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// The file is no ONNX model.
    #[error("{}: is not an ONNX model: {problem}", path.display())]
    NotOnnx {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The model contradicts itself or the ONNX specification.
    #[error("the model is malformed: {0}; check it with onnx.checker")]
    Malformed(String),
    /// A tensor's bytes, which lie in a file beside the model, cannot be had.
    #[error("tensor {tensor:?} keeps its bytes in another file, and {problem}")]
    ExternalData {
        /// The tensor.
        tensor: String,
        /// What is wrong.
        problem: String,
    },
    /// A setting names nothing in the model, or gives it a value it cannot have.
    #[error("--set {name}={value}: {problem}")]
    Setting {
        /// What was to be set.
        name: String,
        /// To what.
        value: String,
        /// What is wrong, and what can be set.
        problem: String,
    },
    /// A node asks for something that would be computed wrongly.
    #[error("in node {node:?} ({operator}): {problem}")]
    Node {
        /// The node.
        node: String,
        /// Its operator.
        operator: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The model has operators that cannot be converted.
    #[error("the model has operators that cannot be converted: {}", list(.0))]
    Unsupported(Vec<UnsupportedOperator>),
    /// The shapes or types of the model do not fit together, or a graph cannot be expressed.
    #[error("the model cannot be converted: {problem}")]
    Graph {
        /// What is wrong, with the node where it is known.
        problem: String,
    },
    /// The import did not end in an orderly way.
    #[error("the import was stopped: {0}")]
    Stopped(Stopped),
    /// The result of the import cannot be kept in a temporary file.
    #[error(
        "{}: the imported model cannot be written there: {problem}; make room, or set TMPDIR to \
         another folder",
        folder.display()
    )]
    Temporary {
        /// The folder for temporary files.
        folder: PathBuf,
        /// Why.
        problem: String,
    },
    /// The process that imports cannot be started or listened to.
    #[error("the import process cannot be used: {0}")]
    #[serde(skip)]
    Process(#[from] std::io::Error),
}

/// An operator that cannot be converted, with the nodes that use it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnsupportedOperator {
    /// The operator, after its domain where that is not the standard one.
    pub operator: String,
    /// Names of the nodes, in the order of the graph.
    pub nodes: Vec<String>,
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
        write!(f, ")")
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
            UnsupportedOperator { operator: "Loop".into(), nodes: vec!["l".into()] },
            UnsupportedOperator { operator: "acme::Magic".into(), nodes },
        ]);
        assert_eq!(
            error.to_string(),
            "the model has operators that cannot be converted: Loop (1 in l); \
             acme::Magic (6 in n0, n1, n2, n3 and 2 more)"
        );
    }
}
