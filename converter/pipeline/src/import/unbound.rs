//! Inputs with dynamic dimensions or an unknown value, and the `--set` options that bind them.
//!
//! Some models can be converted only for certain sizes. tract then reports a failed rule of its
//! shape inference, which says nothing about the inputs.

use tract_onnx::pb::tensor_shape_proto::Dimension;
use tract_onnx::pb::tensor_shape_proto::dimension::Value;
use tract_onnx::pb::type_proto::Value::TensorType;
use tract_onnx::pb::{GraphProto, ValueInfoProto};

/// The inputs of a model whose shape or value is not fixed. All dynamic dimensions have names.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Unbound {
    /// The names and shapes of inputs with dynamic dimensions.
    shapes: Vec<(String, String)>,
    /// The names of the dynamic dimensions, each with the first axis that has it.
    symbols: Vec<(String, usize)>,
    /// The inputs of one element, if the graph has branches that may depend on their values.
    values: Vec<String>,
}

impl Unbound {
    /// Finds the inputs of a graph that are not fixed.
    pub(super) fn of(graph: &GraphProto) -> Unbound {
        let has_branches = graph.node.iter().any(|node| node.op_type == "If");
        let mut unbound = Unbound::default();
        for input in &graph.input {
            let Some(dims) = dims_of(input) else { continue };
            let mut is_dynamic = false;
            for (axis, dim) in dims.iter().enumerate() {
                let Some(Value::DimParam(name)) = &dim.value else { continue };
                is_dynamic = true;
                let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
                if is_name && unbound.symbols.iter().all(|(known, _)| known != name) {
                    unbound.symbols.push((name.clone(), axis));
                }
            }
            let is_one = dims.iter().all(|dim| matches!(dim.value, Some(Value::DimValue(1))));
            if is_dynamic {
                unbound.shapes.push((input.name.clone(), shape_text(dims)));
            } else if has_branches && is_one && dims.len() < 2 {
                unbound.values.push(input.name.clone());
            }
        }
        unbound
    }

    /// Returns whether these inputs explain a problem of shape inference: it names one of their
    /// dimensions, a dimension other than the batch is dynamic, or a branch depends on a value.
    pub(super) fn explain(&self, problem: &str) -> bool {
        let by_dimension =
            |(name, axis): &(String, usize)| *axis > 0 || problem.contains(&format!("Sym({name})"));
        self.symbols.iter().any(by_dimension) || !self.values.is_empty()
    }

    /// Returns whether all dynamic dimensions are leading dimensions.
    pub(super) fn is_only_batch(&self) -> bool {
        !self.symbols.is_empty() && self.symbols.iter().all(|(_, axis)| *axis == 0)
    }

    /// Describes the inputs, such as `the dynamic shape [batch, 64] of input "x"`.
    pub(super) fn unknown(&self) -> String {
        let shape = |(name, shape): &(String, String)| {
            format!("the dynamic shape {shape} of input {name:?}")
        };
        let value = |name: &String| format!("the unknown value of input {name:?}");
        let shapes = self.shapes.iter().map(shape);
        let mut texts: Vec<String> = shapes.chain(self.values.iter().map(value)).collect();
        match texts.pop() {
            Some(last) if !texts.is_empty() => format!("{} and {last}", texts.join(", ")),
            last => last.unwrap_or_default(),
        }
    }

    /// Returns the options that bind the inputs, such as `--set batch=1 --set length=SIZE`. A size
    /// is the one that `problem` requires, `batch` for a leading dimension, or the word SIZE.
    pub(super) fn settings(&self, problem: &str, batch: &str) -> String {
        let dimensions = self.symbols.iter().map(|(name, axis)| {
            let otherwise = if *axis == 0 { batch } else { "SIZE" };
            format!("--set {name}={}", required_size(name, problem).unwrap_or(otherwise))
        });
        let values = self.values.iter().map(|name| format!("--set {name}=NUMBER"));
        dimensions.chain(values).collect::<Vec<_>>().join(" ")
    }
}

/// Returns the size that a problem requires of a dimension: it is equated with a value.
fn required_size<'p>(name: &str, problem: &'p str) -> Option<&'p str> {
    let after = problem.split_once(&format!("Sym({name}) with Val("));
    let before = problem.split_once(&format!(") with Sym({name})"));
    let size = match (after, before) {
        (Some((_, rest)), _) => rest.split_once(')')?.0,
        (None, Some((rest, _))) => rest.rsplit_once("Val(")?.1,
        (None, None) => return None,
    };
    size.parse::<u32>().is_ok_and(|size| size > 0).then_some(size)
}

/// Gives all dynamic dimensions of inputs the size 1.
pub(super) fn bind_to_one(graph: &mut GraphProto) {
    for input in &mut graph.input {
        let value = input.r#type.as_mut().and_then(|of| of.value.as_mut());
        let Some(TensorType(of)) = value else { continue };
        for dim in of.shape.iter_mut().flat_map(|shape| &mut shape.dim) {
            if matches!(dim.value, None | Some(Value::DimParam(_))) {
                dim.value = Some(Value::DimValue(1));
            }
        }
    }
}

fn dims_of(input: &ValueInfoProto) -> Option<&[Dimension]> {
    let Some(TensorType(of)) = &input.r#type.as_ref()?.value else { return None };
    Some(&of.shape.as_ref()?.dim)
}

fn shape_text(dims: &[Dimension]) -> String {
    let dims: Vec<String> = dims
        .iter()
        .map(|dim| match &dim.value {
            Some(Value::DimValue(size)) => size.to_string(),
            Some(Value::DimParam(name)) => name.clone(),
            None => "?".into(),
        })
        .collect();
    format!("[{}]", dims.join(", "))
}

#[cfg(test)]
mod tests {
    use hardtack_bundle::DType;

    use super::super::rewrite::testing::{graph, input, node};
    use super::*;

    /// Returns the inputs of a model like Silero VAD, which has a branch for each sample rate.
    fn voice(has_branches: bool) -> Unbound {
        let condition = node(if has_branches { "If" } else { "Not" }, &["is_16k"], &["y"], vec![]);
        let inputs: &[(&str, &[&str])] =
            &[("input", &["batch", "input_1"]), ("state", &["2", "state_1", "128"])];
        let mut graph = graph(inputs, vec![condition], &[], &["y"]);
        graph.input.push(input("sr", DType::I64, &[]));
        Unbound::of(&graph)
    }

    #[test]
    fn all_inputs_that_are_not_fixed_are_named() {
        assert_eq!(
            voice(true).unknown(),
            "the dynamic shape [batch, input_1] of input \"input\", the dynamic shape [2, state_1, \
             128] of input \"state\" and the unknown value of input \"sr\""
        );
        assert_eq!(
            voice(true).settings("a failed rule", "1"),
            "--set batch=1 --set input_1=SIZE --set state_1=SIZE --set sr=NUMBER"
        );
        assert!(!voice(false).settings("", "1").contains("sr"));
        let fixed = Unbound::of(&graph(&[("x", &["1", "64"])], vec![], &[], &[]));
        assert_eq!(fixed, Unbound::default());
        assert!(fixed.unknown().is_empty() && fixed.settings("", "1").is_empty());
    }

    #[test]
    fn required_sizes_are_read_from_the_problem() {
        for (problem, size) in [
            ("Impossible to unify Sym(state_1) with Val(1).", Some("1")),
            ("Impossible to unify Val(512) with Sym(state_1).", Some("512")),
            ("Impossible to unify Sym(state_10) with Val(1).", None),
            ("Impossible to unify Sym(state_1) with Val(-1).", None),
            ("Impossible to unify Add([Val(1)]) with Sym(state_1).", None),
        ] {
            assert_eq!(required_size("state_1", problem), size, "{problem}");
        }
    }

    #[test]
    fn a_dynamic_batch_explains_only_problems_that_name_it() {
        let batch = Unbound::of(&graph(&[("x", &["batch", "64"])], vec![], &[], &[]));
        assert!(!batch.explain("a failed rule"));
        assert!(batch.explain("Impossible to unify Val(1) with Sym(batch)."));
        let length = Unbound::of(&graph(&[("x", &["1", "length"])], vec![], &[], &[]));
        assert!(length.explain("a failed rule") && voice(true).explain("a failed rule"));
        assert!(!Unbound::default().explain("Sym(batch)"));
    }
}
