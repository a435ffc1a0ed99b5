//! Imports an ONNX file as a graph.
//!
//! The file is read, its dynamic dimensions are bound ([`ImportOptions`]), and nodes that tract
//! does not read correctly are rewritten. Then it is checked for unsupported operators and
//! translated. Untrusted files can exhaust memory or time: [`crate::guard`] isolates them.

mod error;
mod evaluated;
pub(crate) mod limits;
mod node;
mod operators;
mod proto;
pub(crate) mod reference;
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
    /// The nodes that the bundle's evaluator of ONNX operators runs, in addition to those that
    /// nothing else can run.
    pub evaluated: Evaluated,
}

/// A choice of nodes for the evaluator of ONNX operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Evaluated {
    /// The nodes with these names for their first outputs.
    Nodes(Vec<String>),
    /// All nodes.
    All,
}

impl Default for Evaluated {
    fn default() -> Evaluated {
        Evaluated::Nodes(Vec::new())
    }
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
    /// Why the whole model is evaluated by the reference implementation of ONNX, if it is.
    pub evaluated: Option<Evaluation>,
    /// The names of the classes, if the file has them; may be empty.
    pub labels: Vec<String>,
    /// The default values of inputs, by name.
    pub defaults: Vec<(String, DefaultValue)>,
}

/// The default value of an input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefaultValue {
    /// The dimensions, outermost first.
    pub shape: Vec<usize>,
    /// The elements in the type of the input, row-major, little-endian.
    pub bytes: Vec<u8>,
}

/// Why a whole model is evaluated by the reference implementation of ONNX.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The reason, one sentence.
    pub reason: String,
    /// The dynamic shapes and unknown values, and the `--set` options that bind them, if they are
    /// the reason.
    pub unbound: Option<(String, String)>,
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
/// let set = vec![("batch".into(), "1".into())];
/// let options = ImportOptions { set, ..ImportOptions::default() };
/// let imported = import("kws_dscnn.onnx".as_ref(), &options)?;
/// println!("{} nodes from {}", imported.source.nodes, imported.source.producer);
/// assert_eq!((imported.source.opset, imported.source.parameters), (13, 22_605));
/// # Ok(())
/// # }
/// ```
pub fn import(path: &Path, options: &ImportOptions) -> Result<Imported, ImportError> {
    let mut evaluated = options.evaluated.clone();
    let mut reason = None;
    for _ in 0..ATTEMPTS {
        let failed = match attempt(path, options, &evaluated) {
            Ok(imported) => return Ok(with_reason(imported, reason)),
            Err(failed) => failed,
        };
        evaluated = match (failed.next, evaluated) {
            (Some(Next::Nodes(nodes)), Evaluated::Nodes(mut known)) => {
                known.extend(nodes);
                Evaluated::Nodes(known)
            }
            (Some(_), Evaluated::Nodes(_)) => {
                reason = Some(failed.error);
                Evaluated::All
            }
            (None, _) | (_, Evaluated::All) => return Err(failed.error),
        };
    }
    let imported = attempt(path, options, &Evaluated::All).map_err(|failed| failed.error)?;
    Ok(with_reason(imported, reason))
}

/// Adds the reason why the whole model is evaluated.
fn with_reason(mut imported: Imported, reason: Option<ImportError>) -> Imported {
    if let Some(reason) = reason {
        let unbound = match &reason {
            ImportError::Unbound { unknown, settings } => Some((unknown.clone(), settings.clone())),
            _ => None,
        };
        imported.source.evaluated = Some(Evaluation { reason: reason.to_string(), unbound });
    }
    imported
}

/// The number of imports that are tried, each with more nodes evaluated.
const ATTEMPTS: usize = 6;

/// An attempt to import a model that failed.
struct Failed {
    error: ImportError,
    /// What to evaluate in the next attempt; `None` if that cannot help.
    next: Option<Next>,
}

/// What to evaluate in the next attempt.
enum Next {
    /// These nodes too, by their first outputs.
    Nodes(Vec<String>),
    /// The whole model.
    All,
}

impl From<ImportError> for Failed {
    fn from(error: ImportError) -> Failed {
        Failed { error, next: None }
    }
}

/// Imports a file with a choice of evaluated nodes.
fn attempt(
    path: &Path,
    options: &ImportOptions,
    evaluated: &Evaluated,
) -> Result<Imported, Failed> {
    log::trace!(target: STAGE, "reading the file");
    let proto::ModelFile { model: mut source, digest, bytes, four_bits } = proto::read(path)?;
    limits::check(&source)?;
    let nodes = source.graph.as_ref().map_or(0, |graph| graph.node.len()) as u64;
    let mut context = rewrite::begin(&mut source, &options.set)?;
    let original = match &mut source.graph {
        Some(graph) => Some(evaluate(path, graph, &mut context, evaluated)?),
        None => None,
    };
    let producer = format!("{} {}", source.producer_name, source.producer_version);
    let checked = proto::check_types(&mut source, &four_bits);
    let model = checked.and_then(|()| read(source, &mut context)).map_err(|error| {
        let next = original.as_ref().and_then(|original| original.next(&error));
        Failed { error, next }
    })?;
    let source = SourceFile {
        digest,
        bytes,
        opset: u32::try_from(context.opset).unwrap_or(0),
        producer: producer.trim().into(),
        nodes,
        parameters: model.constants.iter().map(elements).sum(),
        rewritten: context.report,
        evaluated: None,
        labels: context.labels,
        defaults: context
            .defaults
            .into_iter()
            .map(|(name, value)| {
                let (shape, bytes) = (value.shape().into(), value.to_bytes());
                (name, DefaultValue { shape, bytes })
            })
            .collect(),
    };
    Ok(Imported { model, source })
}

/// Rewrites a model and translates it to the bundle's graph.
fn read(
    mut source: tract_onnx::pb::ModelProto,
    context: &mut rewrite::emit::Context,
) -> Result<Model, ImportError> {
    log::trace!(target: STAGE, "rewriting the graph");
    rewrite::rewrite(&mut source, context)?;
    limits::check_rewritten(&source)?;
    let mut refused = std::mem::take(&mut context.refused);
    if let Some(graph) = &source.graph {
        unsupported::find(graph, &operators::onnx(), &mut refused);
    }
    if !refused.is_empty() {
        return Err(ImportError::Unsupported(refused));
    }
    let model = translate::translate(source)?;
    limits::check_ranks(&model.graph)?;
    Ok(model)
}

/// The nodes of a model's main graph, and whether they can be evaluated.
struct Original {
    /// The name and the first output of each node.
    nodes: Vec<(String, String)>,
    /// Whether the evaluator has all operators of the model.
    can_evaluate: bool,
    /// Whether all nodes must be evaluated or none.
    only_whole: bool,
}

impl Original {
    /// Returns what to evaluate after an error.
    fn next(&self, error: &ImportError) -> Option<Next> {
        if !self.can_evaluate {
            return None;
        }
        if self.only_whole {
            return matches!(
                error,
                ImportError::Unsupported(_)
                    | ImportError::Node { .. }
                    | ImportError::Graph { .. }
                    | ImportError::Unbound { .. }
                    | ImportError::Malformed(_)
            )
            .then_some(Next::All);
        }
        let names: Vec<&str> = match error {
            ImportError::Unsupported(operators) => {
                operators.iter().flat_map(|o| &o.nodes).map(String::as_str).collect()
            }
            ImportError::Node { node, .. } => vec![node],
            ImportError::Graph { .. } | ImportError::Unbound { .. } | ImportError::Malformed(_) => {
                return Some(Next::All);
            }
            _ => return None,
        };
        let found: Option<Vec<String>> =
            names.into_iter().map(|name| self.output_of(name)).collect();
        Some(found.map_or(Next::All, Next::Nodes))
    }

    /// Returns the first output of the node that a node of the rewritten graph comes from. Its name
    /// is that of the original, or begins with it.
    fn output_of(&self, name: &str) -> Option<String> {
        let comes_from = |original: &str| {
            let rest = name.strip_prefix(original);
            !original.is_empty()
                && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let found = self.nodes.iter().filter(|(own, output)| comes_from(own) || comes_from(output));
        found.max_by_key(|(own, _)| own.len()).map(|(_, output)| output.clone())
    }
}

/// Folds what does not depend on the inputs, and replaces nodes by evaluated ones.
fn evaluate(
    path: &Path,
    graph: &mut tract_onnx::pb::GraphProto,
    context: &mut rewrite::emit::Context,
    choice: &Evaluated,
) -> Result<Original, ImportError> {
    log::trace!(target: STAGE, "evaluating the model on synthetic inputs");
    let mut model = evaluated::load(path, graph)?;
    evaluated::densify(graph, &model);
    let nodes = model.graph.nodes.iter();
    let nodes =
        nodes.map(|node| (node.name.clone(), node.outputs.first().cloned().unwrap_or_default()));
    let mut original = Original { nodes: nodes.collect(), can_evaluate: true, only_whole: false };
    let none = matches!(choice, Evaluated::Nodes(nodes) if nodes.is_empty());
    evaluated::widen_types(graph);
    if none && !evaluated::is_needed(&model) {
        return Ok(original);
    }
    let Some(trace) = evaluated::trace(&model) else {
        original.can_evaluate = false;
        return Ok(original);
    };
    if trace.has_run {
        evaluated::fold(graph, &mut model, &trace);
    }
    match choice {
        Evaluated::Nodes(_) if !trace.has_run => original.only_whole = true,
        Evaluated::All => {
            evaluated::replace_all(graph, &model, &trace);
        }
        Evaluated::Nodes(nodes) => {
            let wanted = |output: &str| nodes.iter().any(|name| name == output);
            let operators = evaluated::replace_unsupported(graph, &model, &trace, wanted);
            if let Some(operators) = operators.filter(|operators| !operators.is_empty()) {
                context.note(format!(
                    "evaluated by the reference implementation of ONNX: {}",
                    operators.join(", ")
                ));
            }
        }
    }
    Ok(original)
}

fn elements(constant: &Constant) -> u64 {
    match constant {
        Constant::Tensor(tensor) => tensor.len() as u64,
        Constant::Stored(stored) => stored.shape().iter().product::<usize>() as u64,
        Constant::Dims { values, .. } => values.len() as u64,
    }
}
