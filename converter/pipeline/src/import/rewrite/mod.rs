//! Protobuf rewrites: features that tract does not support, or computes wrongly, are replaced by
//! equivalent nodes, or rejected with an error that gives a remedy.

pub mod bind;
pub mod branch;
pub mod dequantized;
pub mod dynamic;
pub mod emit;
pub mod functions;
pub mod ignored;
pub mod legacy;
pub mod ml;
pub mod node;
pub mod quantized;
pub mod recurrent;
pub mod sizes;
pub mod svm;
#[cfg(test)]
pub mod testing;
pub mod tidy;
pub mod trees;

use tract_onnx::pb::{ModelProto, OperatorSetIdProto};

use super::ImportError;
use emit::{Context, NodeRewrite, rewrite_nodes};

/// The operator set version of models that do not name one.
const DEFAULT_OPSET: i64 = 13;

/// The rewrites of single nodes, in the order of application.
const REWRITES: &[&NodeRewrite] = &[
    &sizes::rewrite,
    &ignored::rewrite,
    &legacy::rewrite,
    &ml::rewrite,
    &trees::rewrite,
    &dequantized::rewrite,
    &quantized::rewrite,
    &quantized::rewrite_fused,
    &recurrent::rewrite,
];

/// Applies all rewrites to a model. `settings` are the names and values of `--set`.
pub fn rewrite(
    model: &mut ModelProto,
    settings: &[(String, String)],
) -> Result<Context, ImportError> {
    if !model.opset_import.iter().any(|import| matches!(&*import.domain, "" | "ai.onnx")) {
        model
            .opset_import
            .push(OperatorSetIdProto { domain: String::new(), version: DEFAULT_OPSET });
    }
    let mut context = Context::of(model);
    functions::inline_functions(model, &mut context)?;
    if let Some(graph) = &mut model.graph {
        bind::bind(graph, settings, &mut context)?;
        tidy::tidy(graph)?;
        dequantized::parameters(graph, &mut context);
        dynamic::rewrite(graph, &mut context);
        for rewrite in REWRITES {
            rewrite_nodes(graph, &mut context, *rewrite)?;
        }
        tidy::tidy(graph)?;
    }
    branch::inline_branches(model, &mut context)?;
    if let Some(graph) = &mut model.graph {
        tidy::tidy(graph)?;
    }
    Ok(context)
}
