//! Imports an ONNX file as a graph.
//!
//! The file is read, its dynamic dimensions are bound ([`ImportOptions`]), and nodes that tract
//! does not read correctly are rewritten. Then it is checked for unsupported operators and
//! translated. Untrusted files can exhaust memory or time: [`crate::guard`] isolates them.

mod error;
pub(crate) mod limits;
mod node;
mod operators;
mod proto;
mod rewrite;
mod tensor;
mod translate;
mod unbound;
mod unsupported;

use std::path::Path;

use hardtack::internal::{Constant, Model};
use serde::{Deserialize, Serialize};

use crate::process::activity::STAGE;

pub use error::{ImportError, UnsupportedOperator};
#[cfg(test)]
pub(crate) use unsupported::operator_names;

/// The options of an import.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportOptions {
    /// The names and values of `--set`, in order. A name is one of:
    ///
    /// - an input: the value is its shape, such as `1x576`, or the number for an input of one
    ///   element. A shape binds the names of its dimensions in all inputs
    /// - a named dimension: the value is its size
    /// - `batch`: the value is the size of all unnamed leading dimensions
    /// - `INPUT_AXIS`, such as `image_2`: the value is the size of another unnamed dimension
    pub set: Vec<(String, String)>,
}

/// An imported model.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// The graph with its constants. Inputs, outputs and named nodes keep their names.
    pub model: Model,
    /// The description of the file.
    pub source: SourceFile,
}

/// The description of an ONNX file and of its import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// The SHA-256 digest of the file, followed by the bytes of its external tensors.
    pub digest: [u8; 32],
    /// The number of those bytes.
    pub bytes: u64,
    /// The version of the standard operator set.
    pub opset: u32,
    /// The program that wrote the file, with its version; may be empty.
    pub producer: String,
    /// The number of nodes in the file's main graph.
    pub nodes: u64,
    /// The number of elements of all constants in the imported graph.
    pub parameters: u64,
    /// The rewrites that were made, one sentence each.
    pub rewritten: Vec<String>,
    /// The names of the classes, if the file has them; may be empty.
    pub labels: Vec<String>,
}

/// Imports an ONNX file in this process.
///
/// # Errors
/// Returns an [`ImportError`].
///
/// # Panics
/// Panics on some malformed files; [`crate::guard::import_guarded`] turns that into an error.
///
/// # Examples
///
/// ```
/// use hardtack_converter::import::{ImportOptions, import};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/data/keyword_spotting");
/// # std::env::set_current_dir(data)?;
/// let options = ImportOptions { set: vec![("batch".into(), "1".into())] };
/// let imported = import("kws_dscnn.onnx".as_ref(), &options)?;
/// println!("{} nodes from {}", imported.source.nodes, imported.source.producer);
/// assert_eq!((imported.source.opset, imported.source.parameters), (13, 22_605));
/// # Ok(())
/// # }
/// ```
pub fn import(path: &Path, options: &ImportOptions) -> Result<Imported, ImportError> {
    log::trace!(target: STAGE, "reading the file");
    let proto::ModelFile { model: mut source, digest, bytes } = proto::read(path)?;
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
    let source = SourceFile {
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
