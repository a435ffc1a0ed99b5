//! Inlines the functions that a model defines.

use std::collections::HashMap;

use tract_onnx::pb::{FunctionProto, GraphProto, ModelProto, NodeProto};

use super::emit::Context;
use crate::import::node::Node;
use crate::import::{ImportError, limits};

/// The maximum nesting depth of calls.
const MAX_DEPTH: usize = 32;

/// Inlines all calls of the model's functions.
pub(crate) fn inline_functions(
    model: &mut ModelProto,
    context: &mut Context,
) -> Result<(), ImportError> {
    let functions = std::mem::take(&mut model.functions);
    if functions.is_empty() {
        return Ok(());
    }
    let mut by_name = HashMap::new();
    for function in &functions {
        let domain = function.domain.as_deref().unwrap_or("");
        by_name.insert((domain.to_owned(), function.name.clone().unwrap_or_default()), function);
        for import in &function.opset_import {
            let known = model.opset_import.iter().any(|other| other.domain == import.domain);
            if !known {
                model.opset_import.push(import.clone());
            }
        }
    }
    if let Some(graph) = &model.graph {
        let mut sizes = Sizes { functions: &by_name, known: HashMap::new() };
        sizes.of(&graph.node, 0)?;
    }
    let mut left = limits::MAX_REWRITTEN;
    match &mut model.graph {
        Some(graph) => inline_in(graph, &by_name, context, 0, &mut left),
        None => Ok(()),
    }
}

type Functions<'a> = HashMap<(String, String), &'a FunctionProto>;

/// Computes the number of nodes after inlining, before anything is inlined.
struct Sizes<'a> {
    functions: &'a Functions<'a>,
    known: HashMap<(&'a str, &'a str), usize>,
}

impl<'a> Sizes<'a> {
    /// Returns the number of nodes after inlining, including subgraphs.
    fn of(&mut self, nodes: &'a [NodeProto], depth: usize) -> Result<usize, ImportError> {
        let mut all = 0usize;
        for node in nodes {
            all = all.saturating_add(self.of_node(node, depth)?);
            if all > limits::MAX_REWRITTEN {
                return Err(node.wrong("inlining function calls gives too many nodes"));
            }
        }
        Ok(all)
    }

    fn of_node(&mut self, node: &'a NodeProto, depth: usize) -> Result<usize, ImportError> {
        let key = (node.domain.as_str(), node.op_type.as_str());
        if let Some(size) = self.known.get(&key) {
            return Ok(*size);
        }
        // The map's keys are owned strings.
        let Some(function) = self.functions.get(&(key.0.to_owned(), key.1.to_owned())) else {
            let mut all = 1usize;
            for attribute in &node.attribute {
                for graph in attribute.g.iter().chain(&attribute.graphs) {
                    all = all.saturating_add(self.of(&graph.node, depth)?);
                }
            }
            return Ok(all);
        };
        if depth == MAX_DEPTH {
            return Err(node.wrong("function calls are nested too deeply"));
        }
        let size = self.of(&function.node, depth + 1)?;
        self.known.insert(key, size);
        Ok(size)
    }
}

fn inline_in(
    graph: &mut GraphProto,
    functions: &Functions<'_>,
    context: &mut Context,
    depth: usize,
    left: &mut usize,
) -> Result<(), ImportError> {
    let mut nodes = Vec::new();
    for mut node in std::mem::take(&mut graph.node) {
        let Some(function) = functions.get(&(node.domain.clone(), node.op_type.clone())) else {
            for attribute in &mut node.attribute {
                for inner in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                    inline_in(inner, functions, context, depth, left)?;
                }
            }
            nodes.push(node);
            continue;
        };
        if depth == MAX_DEPTH {
            return Err(node.wrong("function calls are nested too deeply"));
        }
        *left = left
            .checked_sub(limits::count(&function.node))
            .ok_or_else(|| node.wrong("inlining function calls gives too many nodes"))?;
        let mut body =
            GraphProto { node: instance(function, &node, context), ..Default::default() };
        inline_in(&mut body, functions, context, depth + 1, left)?;
        nodes.append(&mut body.node);
    }
    graph.node = nodes;
    Ok(())
}

/// Returns the nodes of a function, with the names and attributes of one call.
fn instance(function: &FunctionProto, call: &NodeProto, context: &mut Context) -> Vec<NodeProto> {
    let mut names: HashMap<String, String> = HashMap::new();
    let given = call.input.iter().cloned().chain(std::iter::repeat(String::new()));
    names.extend(function.input.iter().cloned().zip(given));
    for (formal, actual) in function.output.iter().zip(&call.output) {
        if !actual.is_empty() {
            names.insert(formal.clone(), actual.clone());
        }
    }
    let mut nodes = function.node.clone();
    for node in &mut nodes {
        rename(node, &mut names, call, context);
    }
    nodes
}

fn rename(
    node: &mut NodeProto,
    names: &mut HashMap<String, String>,
    call: &NodeProto,
    context: &mut Context,
) {
    let base = call.label().to_owned();
    for input in node.input.iter_mut().filter(|input| !input.is_empty()) {
        if let Some(name) = names.get(input) {
            *input = name.clone();
        }
    }
    for output in node.output.iter_mut().filter(|output| !output.is_empty()) {
        let fresh = names.entry(output.clone());
        *output = fresh.or_insert_with(|| context.fresh(&format!("{base}.{output}"))).clone();
    }
    node.name = context.fresh(&format!("{base}.{}", node.label().to_owned()));
    let attributes = std::mem::take(&mut node.attribute);
    for mut attribute in attributes {
        if !attribute.ref_attr_name.is_empty() {
            let Some(actual) = call.attribute(&attribute.ref_attr_name) else { continue };
            let name = std::mem::take(&mut attribute.name);
            attribute = tract_onnx::pb::AttributeProto { name, ..actual.clone() };
        }
        for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
            let mut inner = names.clone();
            for input in &mut graph.input {
                let fresh = context.fresh(&format!("{base}.{}", input.name));
                inner.insert(std::mem::replace(&mut input.name, fresh.clone()), fresh);
            }
            for initializer in &mut graph.initializer {
                let fresh = context.fresh(&format!("{base}.{}", initializer.name));
                inner.insert(std::mem::replace(&mut initializer.name, fresh.clone()), fresh);
            }
            for nested in &mut graph.node {
                rename(nested, &mut inner, call, context);
            }
            for output in &mut graph.output {
                if let Some(name) = inner.get(&output.name) {
                    output.name = name.clone();
                }
            }
        }
        node.attribute.push(attribute);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{graph, model, node};
    use super::*;
    use crate::import::node::float;
    use tract_onnx::pb::AttributeProto;

    fn leaky() -> FunctionProto {
        let reference = AttributeProto { ref_attr_name: "slope".into(), ..float("alpha", 0.0) };
        FunctionProto {
            name: Some("Twice".into()),
            domain: Some("own".into()),
            input: vec!["a".into()],
            output: vec!["b".into()],
            attribute: vec!["slope".into()],
            node: vec![
                node("LeakyRelu", &["a"], &["t"], vec![reference.clone()]),
                node("LeakyRelu", &["t"], &["b"], vec![reference]),
            ],
            ..FunctionProto::default()
        }
    }

    #[test]
    fn calls_are_replaced_by_the_nodes_of_the_function() {
        let call =
            |from: &str, to: &str| node("own::Twice", &[from], &[to], vec![float("slope", 0.5)]);
        let calls = vec![call("x", "m"), call("m", "y")];
        let mut model = model(graph(&[("x", &["2"])], calls, &[], &["y"]));
        model.functions = vec![leaky()];
        let mut context = Context::of(&model);
        inline_functions(&mut model, &mut context).unwrap();
        let nodes = &model.graph.as_ref().unwrap().node;
        let edges: Vec<(&str, &str)> =
            nodes.iter().map(|n| (n.input[0].as_str(), n.output[0].as_str())).collect();
        let (t, u) = (edges[0].1, edges[2].1);
        assert_eq!(edges, [("x", t), (t, "m"), ("m", u), (u, "y")]);
        assert_ne!(t, u);
        assert!(nodes.iter().all(|node| node.float("alpha") == Some(0.5)));
    }

    #[test]
    fn recursive_functions_are_rejected() {
        let mut function = leaky();
        // Two calls, so that the size doubles at each level.
        function.node = vec![
            node("own::Twice", &["a"], &["t"], vec![]),
            node("own::Twice", &["t"], &["b"], vec![]),
        ];
        let calls = vec![node("own::Twice", &["x"], &["y"], vec![])];
        let mut model = model(graph(&[("x", &["2"])], calls, &[], &["y"]));
        model.functions = vec![function];
        let mut context = Context::of(&model);
        assert!(inline_functions(&mut model, &mut context).is_err());
    }
}
