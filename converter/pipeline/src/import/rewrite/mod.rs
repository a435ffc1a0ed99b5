//! Protobuf rewrites: features that tract does not support, or computes wrongly, are replaced by
//! equivalent nodes, or rejected with an error that gives a remedy.

pub(super) mod activations;
pub(super) mod bind;
pub(super) mod branch;
mod defaults;
pub(super) mod dequantized;
pub(super) mod dynamic;
pub(super) mod emit;
pub(super) mod functions;
pub(super) mod ignored;
pub(super) mod legacy;
pub(super) mod ml;
mod pairwise_coupling;
pub(super) mod quantized;
pub(super) mod recurrent;
pub(super) mod scores;
pub(super) mod sizes;
pub(super) mod svm;
#[cfg(test)]
pub(super) mod testing;
pub(super) mod tidy;
pub(super) mod trees;

use emit::{Context, NodeRewrite, rewrite_nodes};
use tract_onnx::pb::{ModelProto, OperatorSetIdProto};

use super::ImportError;

/// The operator set version of models that do not name one.
const DEFAULT_OPSET: i64 = 13;

/// The rewrites of single nodes, in the order of application.
const REWRITES: &[&NodeRewrite] = &[
    &sizes::rewrite,
    &ignored::rewrite,
    &activations::rewrite,
    &legacy::rewrite,
    &ml::rewrite,
    &trees::rewrite,
    &dequantized::rewrite,
    &quantized::rewrite,
    &quantized::rewrite_fused,
    &recurrent::rewrite,
];

/// Names the operator set if the model does not, and binds the inputs. `settings` are the names and
/// values of `--set`.
pub(super) fn begin(
    model: &mut ModelProto,
    settings: &[(String, String)],
) -> Result<Context, ImportError> {
    if !model.opset_import.iter().any(|import| matches!(&*import.domain, "" | "ai.onnx")) {
        model
            .opset_import
            .push(OperatorSetIdProto { domain: String::new(), version: DEFAULT_OPSET });
    }
    let mut context = Context::of(model);
    if let Some(graph) = &mut model.graph {
        bind::bind(graph, settings, &mut context)?;
    }
    Ok(context)
}

/// Applies all rewrites to a model.
pub(super) fn rewrite(model: &mut ModelProto, context: &mut Context) -> Result<(), ImportError> {
    functions::inline_functions(model, context)?;
    if let Some(graph) = &mut model.graph {
        tidy::tidy(graph)?;
        dequantized::parameters(graph, context);
        dynamic::rewrite(graph, context);
        for rewrite in REWRITES {
            rewrite_nodes(graph, context, *rewrite)?;
        }
        tidy::tidy(graph)?;
    }
    branch::inline_branches(model, context)?;
    if let Some(graph) = &mut model.graph {
        tidy::tidy(graph)?;
    }
    Ok(())
}

/// Binds nothing, and applies all rewrites.
#[cfg(test)]
pub(super) fn rewrite_unbound(model: &mut ModelProto) -> Result<Context, ImportError> {
    let mut context = begin(model, &[])?;
    rewrite(model, &mut context)?;
    Ok(context)
}
