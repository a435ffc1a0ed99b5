//! Translates protobuf to the bundle's graph through tract: infers shapes and types, then maps each
//! operation to the operator table.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use hardtack::internal::Model;
use tract_core::ops::cast::cast;
use tract_hir::internal::*;
use tract_onnx::model::ParseResult;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto};

use super::error::{ImportError, UnsupportedOperator};
use super::operators;
use super::unbound::{Unbound, bind_to_one};
use crate::process::activity::STAGE;

/// Translates a rewritten model. The protobuf's tensors are freed before the result's are created.
pub(super) fn translate(mut proto: ModelProto) -> Result<Model, ImportError> {
    let outputs = proto.graph.iter().flat_map(|graph| &graph.output);
    let output_names = outputs.map(|output| output.name.clone()).collect();
    proto.graph.iter_mut().for_each(copy_passed_values);
    // The shapes of inner values in files are often wrong. Use them only if inference fails.
    let typed = match typed(&proto, true) {
        Ok(typed) => typed,
        Err(error) => typed_or(&mut proto, error)?,
    };
    drop(proto);
    let mut model = hardtack::float::save(&typed).map_err(save_error)?;
    model.graph.output_names = output_names;
    Ok(model)
}

/// Adds an operation for each output that is an input or a constant: tract would forget its type.
fn copy_passed_values(graph: &mut GraphProto) {
    let inputs = graph.input.iter().map(|input| &input.name);
    let sources: HashSet<String> =
        inputs.chain(graph.initializer.iter().map(|constant| &constant.name)).cloned().collect();
    for (index, output) in graph.output.iter_mut().enumerate() {
        if sources.contains(&output.name) {
            let name = format!("{}.output_{index}", output.name);
            graph.node.push(NodeProto {
                name: name.clone(),
                op_type: "Identity".into(),
                input: vec![std::mem::replace(&mut output.name, name.clone())],
                output: vec![name],
                ..NodeProto::default()
            });
        }
    }
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
fn typed_or(proto: &mut ModelProto, first: TractError) -> Result<TypedModel, ImportError> {
    typed(proto, false).map_err(|_| {
        let problem = message(&first);
        log::debug!("{problem}");
        let inputs = proto.graph.as_ref().map(Unbound::of).unwrap_or_default();
        let settings = inputs.settings(&problem, "1");
        let failure = Failure::of(&problem);
        if let Some((problem, advice)) = failure.constant_needed() {
            let dynamic = match settings.is_empty() {
                true => String::new(),
                false => {
                    format!("; if it depends on the dimensions of an input, pass {settings}")
                }
            };
            return failure.error(format!("{problem}; {advice}{dynamic}"));
        }
        // A file that cannot be parsed has another problem than its shapes.
        if parse(proto, true).is_ok()
            && (inputs.explain(&problem) || (inputs.is_only_batch() && fits_batch_of_one(proto)))
        {
            // A batch of size 1 is no advice if the model does not run on one.
            let settings = match inputs.is_only_batch() && !fits_batch_of_one(proto) {
                true => inputs.settings(&problem, "SIZE"),
                false => settings,
            };
            return ImportError::Unbound { unknown: inputs.unknown(), settings };
        }
        // A batch of size 1 was tried.
        let advice = match settings.is_empty() || inputs.is_only_batch() {
            true => String::new(),
            false => format!("; it has dynamic dimensions, which {settings} binds"),
        };
        failure.error(format!("{}{advice}", failure.problem))
    })
}

/// Returns whether types can be inferred if all dynamic dimensions have size 1.
fn fits_batch_of_one(proto: &mut ModelProto) -> bool {
    let Some(graph) = &mut proto.graph else { return false };
    let inputs = graph.input.clone();
    bind_to_one(graph);
    let fits = catch_unwind(AssertUnwindSafe(|| typed(proto, true).is_ok()));
    if let Some(graph) = &mut proto.graph {
        graph.input = inputs;
    }
    fits.unwrap_or(false)
}

/// A failure of tract to read a model, split into its parts.
#[derive(Debug, PartialEq)]
struct Failure<'p> {
    /// The node and its operator, if the message names them.
    node: Option<(&'p str, &'p str)>,
    /// The cause, without tract's names for its own steps.
    problem: &'p str,
}

impl Failure<'_> {
    fn of(problem: &str) -> Failure<'_> {
        let split = || {
            // Building node NAME (OPERATOR): problem
            if let Some(rest) = problem.strip_prefix("Building node ") {
                let (node, problem) = rest.split_once("): ")?;
                return Some((node.rsplit_once(" (")?, problem));
            }
            // Translating node #12 "NAME" OPERATOR ToTypedTranslator: problem
            let rest = problem
                .strip_prefix("Translating node #")
                .or_else(|| problem.strip_prefix("Failed analyse for node #"))?;
            let (name, rest) = rest.split_once(" \"")?.1.split_once("\" ")?;
            let (operator, problem) = rest.split_once(": ")?;
            let operator = operator.strip_suffix(" ToTypedTranslator").unwrap_or(operator);
            Some(((name, operator), problem))
        };
        match split() {
            Some((node, problem)) => Failure { node: Some(node), problem },
            None => Failure { node: None, problem },
        }
    }

    /// Returns a problem and its remedy if an input of the node must be a constant.
    fn constant_needed(&self) -> Option<(&'static str, &'static str)> {
        const CONSTANT: &str =
            "store them as an initializer, or export the model with constant folding";
        match self.problem {
            "Expect padding to be constant" => Some(("its pads are not constant", CONSTANT)),
            "Axes must be a constant" => Some(("its axes are not constant", CONSTANT)),
            "Pad constant input must be constant" => Some((
                "its padding value is not constant",
                "store it as an initializer, or pad with 0 and add the value with Where",
            )),
            "scales and sizes must be constants" => {
                Some(("its scales or sizes are not constant", CONSTANT))
            }
            _ => None,
        }
    }

    /// Returns the error of this node with another description.
    fn error(&self, problem: String) -> ImportError {
        let problem = plain(&problem);
        match self.node {
            Some((node, operator)) => {
                ImportError::Node { node: node.into(), operator: operator.into(), problem }
            }
            None => ImportError::Graph { problem },
        }
    }
}

/// Removes tract's names for its own steps and types from a problem.
fn plain(problem: &str) -> String {
    let after_rule = problem.split_once("Applying rule ").map(|(_, rest)| {
        // The rule ends with a brace or a parenthesis.
        rest.split_once("}: ").or_else(|| rest.split_once("): ")).map_or(rest, |(_, rest)| rest)
    });
    let problem = after_rule.unwrap_or(problem);
    let mut rest = problem.strip_prefix("Infering facts: ").unwrap_or(problem);
    let mut plain = String::new();
    while let Some(at) = ["Val(", "Sym("].iter().filter_map(|name| rest.find(name)).min() {
        let (before, wrapped) = (&rest[..at], &rest[at + "Val(".len()..]);
        let (value, after) = wrapped.split_once(')').unwrap_or((wrapped, ""));
        plain += before;
        plain += value;
        rest = after;
    }
    plain + rest
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
                UnsupportedOperator::add(&mut found, operator, &node, "");
            }
            ImportError::Unsupported(found)
        }
        other => ImportError::Graph { problem: other.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use hardtack::Tensor;
    use hardtack_bundle::DType;

    use super::super::node::{int, text};
    use super::super::rewrite::testing::{graph, input, model, node};
    use super::*;

    #[test]
    fn failures_name_the_node_without_the_steps_of_tract() {
        for (message, node, problem) in [
            (
                "Translating node #12 \"a b/c\" MultiBroadcastTo ToTypedTranslator: too bad: so",
                Some(("a b/c", "MultiBroadcastTo")),
                "too bad: so",
            ),
            ("Failed analyse for node #2 \"pd\" Pad: no", Some(("pd", "Pad")), "no"),
            ("Building node x (1) (Pad): no", Some(("x (1)", "Pad")), "no"),
            ("undefined inputs", None, "undefined inputs"),
        ] {
            assert_eq!(Failure::of(message), Failure { node, problem }, "{message}");
        }
    }

    #[test]
    fn inputs_that_must_be_constant_have_a_remedy() {
        let pads = ("p", Tensor::new(&[2], vec![1i64, 1]).unwrap());
        let cases: [(&[&str], _, _); 3] = [
            (&["x", "q"], "its pads are not constant", "initializer"),
            (&["x", "p", "", "q"], "its axes are not constant", "initializer"),
            (&["x", "p", "v"], "its padding value is not constant", "Where"),
        ];
        for (inputs, problem, remedy) in cases {
            let pad = node("Pad", inputs, &["y"], vec![text("mode", "constant")]);
            let mut graph =
                graph(&[("x", &["4"]), ("v", &[])], vec![pad], std::slice::from_ref(&pads), &["y"]);
            let length = if inputs.len() == 4 { "1" } else { "2" };
            graph.input.push(input("q", DType::I64, &[length]));
            let mut model = model(graph);
            model.opset_import[0].version = 18;
            let error = translate(model).unwrap_err().to_string();
            assert!(error.starts_with("in node \"y_node\" (Pad): "), "{error}");
            assert!(error.contains(problem) && error.contains(remedy), "{error}");
        }
    }

    #[test]
    fn names_of_inner_steps_are_removed() {
        let problem = "Infering facts: Applying rule GivenRule { (inputs[0].shape, inputs[1]) }: \
                       Reshaping [Val(1)] to [Val(7), Sym(n)]: volume mismatch (vol=1)";
        assert_eq!(plain(problem), "Reshaping [1] to [7, n]: volume mismatch (vol=1)");
        assert_eq!(plain("Infering facts: Wrong rank Val(2"), "Wrong rank 2");
        assert_eq!(plain("axis 7 is out of range"), "axis 7 is out of range");
    }

    #[test]
    fn a_batch_that_no_single_sample_fits_has_no_size_in_the_advice() {
        let shape = Tensor::new(&[3], vec![7i64, 11, 13]).unwrap();
        let reshaped = |size: &str| {
            let nodes = vec![node("Reshape", &["x", "shape"], &["y"], vec![])];
            translate(model(graph(&[("x", &[size])], nodes, &[("shape", shape.clone())], &["y"])))
        };
        let error = reshaped("n").unwrap_err().to_string();
        assert!(error.ends_with("dynamic shape [n] of input \"x\"; pass --set n=SIZE"), "{error}");
        reshaped("1001").unwrap();
        let error = reshaped("1").unwrap_err().to_string();
        assert!(!error.contains("Val(") && !error.contains("Rule"), "{error}");
    }

    #[test]
    fn a_batch_that_must_be_fixed_is_named() {
        // tract does not follow a size through a cast to i32, which tf2onnx writes.
        let list = |values: &[i64]| Tensor::new(&[values.len()], values.to_vec()).unwrap();
        let expanded = |batch: &str| {
            let nodes = vec![
                node("Shape", &["x"], &["all"], vec![]),
                node("Cast", &["all"], &["small"], vec![int("to", 6)]),
                node("Slice", &["small", "zero", "one", "zero"], &["n"], vec![]),
                node("Concat", &["n", "three"], &["sizes"], vec![int("axis", 0)]),
                node("Cast", &["sizes"], &["large"], vec![int("to", 7)]),
                node("Expand", &["w", "large"], &["y"], vec![]),
            ];
            let constants = [
                ("zero", list(&[0])),
                ("one", list(&[1])),
                ("three", Tensor::new(&[1], vec![3i32]).unwrap()),
                ("w", Tensor::new(&[1, 3], vec![1f32; 3]).unwrap()),
            ];
            translate(model(graph(&[("x", &[batch, "4"])], nodes, &constants, &["y"])))
        };
        assert_eq!(
            expanded("batch").unwrap_err().to_string(),
            "the model cannot be converted with the dynamic shape [batch, 4] of input \"x\"; pass \
             --set batch=1"
        );
        expanded("2").unwrap();
    }
}
