//! Translates protobuf to the bundle's graph through tract: infers shapes and types, then maps each
//! operation to the operator table.

use std::panic::{AssertUnwindSafe, catch_unwind};

use hardtack::internal::Model;
use tract_core::ops::cast::cast;
use tract_hir::internal::*;
use tract_onnx::model::ParseResult;
use tract_onnx::pb::ModelProto;

use super::error::{ImportError, UnsupportedOperator};
use super::operators;
use super::unbound::Unbound;
use crate::process::activity::STAGE;

/// Translates a rewritten model. The protobuf's tensors are freed before the result's are created.
pub(super) fn translate(proto: ModelProto) -> Result<Model, ImportError> {
    // The shapes of inner values in files are often wrong. Use them only if inference fails.
    let typed = match typed(&proto, true) {
        Ok(typed) => typed,
        Err(error) => typed_or(&proto, error)?,
    };
    let outputs = proto.graph.into_iter().flat_map(|graph| graph.output);
    let output_names = outputs.map(|output| output.name).collect();
    let mut model = hardtack::float::save(&typed).map_err(save_error)?;
    model.graph.output_names = output_names;
    Ok(model)
}

/// Returns the value of a graph's only output if it is a boolean that does not depend on inputs.
pub(super) fn constant_output(proto: &ModelProto) -> Option<bool> {
    let evaluate = || -> TractResult<Option<bool>> {
        let mut model = parse(proto, true)?;
        model.analyse(false)?;
        if let Some(value) = model.output_fact(0)?.value.concretize() {
            return Ok(Some(value.cast_to_scalar::<bool>()?));
        }
        let model = model.into_typed()?.into_decluttered()?;
        match &model.output_fact(0)?.konst {
            Some(value) => Ok(Some(value.cast_to_scalar::<bool>()?)),
            None => Ok(None),
        }
    };
    catch_unwind(AssertUnwindSafe(evaluate)).ok()?.ok()?
}

fn parse(proto: &ModelProto, ignore_value_info: bool) -> TractResult<InferenceModel> {
    let onnx = operators::onnx().with_ignore_value_info(ignore_value_info);
    let ParseResult { model, unresolved_inputs, .. } = onnx.parse(proto, None)?;
    ensure!(unresolved_inputs.is_empty(), "undefined inputs {unresolved_inputs:?}");
    Ok(model)
}

fn typed(proto: &ModelProto, ignore_value_info: bool) -> TractResult<TypedModel> {
    let mut model = parse(proto, ignore_value_info)?;
    model.analyse(false)?;
    log::trace!(target: STAGE, "inferring the types of operators");
    let mut model = model.into_typed()?;
    for index in 0..model.outputs.len() {
        let outlet = model.outputs[index];
        if model.outlet_fact(outlet)?.datum_type == TDim::datum_type() {
            let name = format!("{}.integers", model.node(outlet.node).name);
            model.outputs[index] = model.wire_node(name, cast(i64::datum_type()), &[outlet])?[0];
        }
    }
    Ok(model)
}

/// Infers the types with the shapes of inner values in the file, after `first` without them.
fn typed_or(proto: &ModelProto, first: TractError) -> Result<TypedModel, ImportError> {
    typed(proto, false).map_err(|_| {
        let problem = message(&first);
        let inputs = proto.graph.as_ref().map(Unbound::of).unwrap_or_default();
        // A file that cannot be parsed has another problem than its shapes.
        if inputs.explain(&problem) && parse(proto, true).is_ok() {
            log::debug!("{problem}");
            let (unknown, settings) = (inputs.unknown(), inputs.settings(&problem));
            return ImportError::Unbound { unknown, settings };
        }
        let advice = match inputs.settings(&problem) {
            settings if settings.is_empty() => String::new(),
            settings => format!("; it has dynamic dimensions, which {settings} binds"),
        };
        ImportError::Graph { problem: format!("{problem}{advice}") }
    })
}

/// Joins the chain of an error's causes, without repetitions.
fn message(error: &TractError) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string().trim().replace('\n', " ");
        if !text.is_empty() && !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
    }
    parts.join(": ")
}

fn save_error(error: hardtack::float::Error) -> ImportError {
    match error {
        hardtack::float::Error::NoPlace { nodes } => {
            let mut found: Vec<UnsupportedOperator> = Vec::new();
            for (node, operator) in nodes {
                match found.iter_mut().find(|other| other.operator == operator) {
                    Some(other) => other.nodes.push(node),
                    None => found.push(UnsupportedOperator { operator, nodes: vec![node] }),
                }
            }
            ImportError::Unsupported(found)
        }
        other => ImportError::Graph { problem: other.to_string() },
    }
}
