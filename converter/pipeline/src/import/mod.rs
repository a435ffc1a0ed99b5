//! ONNX file to graph.
//!
//! The file is read and completed ([`ImportOptions`] binds what is open), rewritten until it holds
//! only what can be read rightly, checked for operators that cannot, and translated. Foreign files
//! can exhaust memory or time on this way: [`crate::guard`] keeps them in a process of their own.

mod error;
pub(crate) mod limits;
mod operators;
mod proto;
mod rewrite;
mod tensor;
mod translate;
mod unsupported;

use std::path::Path;

use hardtack::{Constant, Model};
use serde::{Deserialize, Serialize};

pub use error::{ImportError, UnsupportedOperator};

/// Target of the log records that say which stage begins.
pub(crate) const STAGE: &str = "hardtack_converter::import";

/// How a model is imported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportOptions {
    /// Names and values that `--set` gives, in their order. A name is an input (its value the
    /// shape, such as `1x576`, or the number where the input is one), a dimension that the model
    /// names (its value the size), or `batch`, the leading dimensions without a name.
    pub set: Vec<(String, String)>,
}

/// A model as imported.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// The graph with its constants. Inputs and outputs have the names of the file, other nodes
    /// theirs as far as they had one.
    pub model: Model,
    /// What the file is and what became of it.
    pub source: Source,
}

/// What a file is and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// SHA-256 of the file, followed by the bytes of tensors in files beside it.
    pub digest: [u8; 32],
    /// Number of those bytes.
    pub bytes: u64,
    /// Version of the standard operator set.
    pub opset: u32,
    /// The program that wrote the file, with its version; may be empty.
    pub producer: String,
    /// Number of nodes in the file's main graph.
    pub nodes: u64,
    /// Number of elements of all constants in the graph.
    pub parameters: u64,
    /// What was rewritten, one sentence each.
    pub rewritten: Vec<String>,
    /// Names of the classes, where the file had them; may be empty.
    pub labels: Vec<String>,
}

/// Imports an ONNX file in this process.
///
/// # Errors
/// [`ImportError`], which says what was wrong, where, and what to do.
///
/// # Panics
/// On some malformed files; [`crate::guard::import_guarded`] turns that into an error.
pub fn import(path: &Path, options: &ImportOptions) -> Result<Imported, ImportError> {
    log::trace!(target: STAGE, "reading the file");
    let proto::Source { model: mut source, digest, bytes } = proto::read(path)?;
    limits::check(&source)?;
    let nodes = source.graph.as_ref().map_or(0, |graph| graph.node.len()) as u64;
    log::trace!(target: STAGE, "rewriting the graph");
    let context = rewrite::rewrite(&mut source, &options.set)?;
    limits::check_rewritten(&source)?;
    if let Some(graph) = &source.graph {
        let found = unsupported::find(graph, &operators::onnx());
        if !found.is_empty() {
            return Err(ImportError::Unsupported(found));
        }
    }
    let producer = format!("{} {}", source.producer_name, source.producer_version);
    let model = translate::translate(source)?;
    limits::check_ranks(&model.graph)?;
    let source = Source {
        digest,
        bytes,
        opset: u32::try_from(context.opset).unwrap_or(0),
        producer: producer.trim().into(),
        nodes,
        parameters: model.constants.iter().map(elements).sum(),
        rewritten: context.report,
        labels: context.labels,
    };
    Ok(Imported { model, source })
}

fn elements(constant: &Constant) -> u64 {
    match constant {
        Constant::Tensor(tensor) => tensor.len() as u64,
        Constant::Stored(stored) => stored.shape().iter().product::<usize>() as u64,
        Constant::Dims { values, .. } => values.len() as u64,
    }
}
