//! Inlines the taken branch of `If` nodes whose condition does not depend on any input.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, ValueInfoProto};

use super::emit::Context;
use crate::import::limits::MAX_BRANCHES;
use crate::import::node::Node;
use crate::import::{ImportError, translate};

/// Evaluates and inlines all such `If` nodes, until nothing changes.
pub(crate) fn inline_branches(
    model: &mut ModelProto,
    context: &mut Context,
) -> Result<(), ImportError> {
    let mut undecided: HashSet<String> = HashSet::new();
    let (mut inlined, mut decided) = (0, 0);
    while let Some(graph) = &model.graph {
        let open = |node: &NodeProto| {
            node.op_type == "If" && node.given(0).is_some_and(|name| !undecided.contains(name))
        };
        let Some(at) = graph.node.iter().position(open) else { break };
        let condition = graph.node[at].input[0].clone();
        decided += 1;
        if decided > MAX_BRANCHES {
            let (what, limit) = ("If nodes with different conditions".into(), MAX_BRANCHES);
            return Err(ImportError::TooMany { what, count: decided, limit });
        }
        match evaluate(model, &condition) {
            Some(taken) => {
                inline(model, at, taken, context)?;
                inlined += 1;
            }
            None => {
                undecided.insert(condition);
            }
        }
    }
    if inlined > 0 {
        context.note(format!(
            "{inlined} If nodes have constant conditions and are replaced by the branch taken"
        ));
    }
    Ok(())
}

/// Returns the value of a condition if it is constant for the given input shapes.
fn evaluate(model: &ModelProto, condition: &str) -> Option<bool> {
    let graph = model.graph.as_ref()?;
    let producer: HashMap<&str, usize> = graph
        .node
        .iter()
        .enumerate()
        .flat_map(|(index, node)| node.output.iter().map(move |output| (output.as_str(), index)))
        .collect();
    let mut needed: HashSet<usize> = HashSet::new();
    let mut names: HashSet<&str> = HashSet::new();
    let mut stack = vec![condition];
    while let Some(name) = stack.pop() {
        names.insert(name);
        if let Some(index) = producer.get(name)
            && needed.insert(*index)
        {
            stack.extend(graph.node[*index].input.iter().map(String::as_str));
        }
    }
    let nodes = graph.node.iter().enumerate().filter(|(index, _)| needed.contains(index));
    let nodes: Vec<NodeProto> = nodes.map(|(_, node)| node.clone()).collect();
    if nodes.iter().any(|node| node.op_type == "If") {
        return None;
    }
    let part = GraphProto {
        name: "condition".into(),
        node: nodes,
        initializer: graph
            .initializer
            .iter()
            .filter(|initializer| names.contains(initializer.name.as_str()))
            .cloned()
            .collect(),
        input: graph
            .input
            .iter()
            .filter(|input| names.contains(input.name.as_str()))
            .cloned()
            .collect(),
        output: vec![ValueInfoProto { name: condition.into(), ..ValueInfoProto::default() }],
        ..GraphProto::default()
    };
    let part = ModelProto {
        ir_version: model.ir_version,
        opset_import: model.opset_import.clone(),
        graph: Some(part),
        ..ModelProto::default()
    };
    translate::constant_output(&part)
}

/// Replaces an `If` by the nodes of a branch, under unique names.
fn inline(
    model: &mut ModelProto,
    at: usize,
    taken: bool,
    context: &mut Context,
) -> Result<(), ImportError> {
    let Some(graph) = &mut model.graph else { return Ok(()) };
    let mut node = graph.node.remove(at);
    let attribute = if taken { "then_branch" } else { "else_branch" };
    let position = node.attribute.iter().position(|other| other.name == attribute);
    let branch = position.and_then(|position| node.attribute.swap_remove(position).g);
    let mut branch = branch.ok_or_else(|| node.wrong(format!("it has no {attribute}")))?;
    if branch.output.len() != node.output.len() {
        return Err(node.wrong("its branches have a different number of outputs"));
    }

    let mut names: HashMap<String, String> = HashMap::new();
    let initializers = branch.initializer.iter().map(|initializer| &initializer.name);
    let outputs = branch.node.iter().flat_map(|inner| &inner.output);
    for own in initializers.chain(outputs).filter(|name| !name.is_empty()) {
        let fresh = context.fresh(own);
        names.insert(own.clone(), fresh);
    }
    let mut links = Vec::new();
    for (inner, outer) in branch.output.iter().zip(&node.output) {
        if outer.is_empty() {
            continue;
        }
        let of_node = branch.node.iter().any(|node| node.output.contains(&inner.name));
        let free = names.get(&inner.name).is_some_and(|name| !node.output.contains(name));
        if of_node && free {
            names.insert(inner.name.clone(), outer.clone());
        } else {
            let from = names.get(&inner.name).unwrap_or(&inner.name).clone();
            links.push(NodeProto {
                name: context.fresh(&format!("{outer}.link")),
                op_type: "Identity".into(),
                input: vec![from],
                output: vec![outer.clone()],
                ..NodeProto::default()
            });
        }
    }
    for initializer in &mut branch.initializer {
        rename(&mut initializer.name, &names);
    }
    for inner in &mut branch.node {
        inner.name = context.fresh(inner.label());
        rename_node(inner, &names);
    }
    graph.initializer.append(&mut branch.initializer);
    branch.node.append(&mut links);
    graph.node.splice(at..at, branch.node);
    Ok(())
}

fn rename(name: &mut String, names: &HashMap<String, String>) {
    if let Some(new) = names.get(name.as_str()) {
        *name = new.clone();
    }
}

fn rename_node(node: &mut NodeProto, names: &HashMap<String, String>) {
    for name in node.input.iter_mut().chain(&mut node.output) {
        rename(name, names);
    }
    for attribute in &mut node.attribute {
        for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
            graph.node.iter_mut().for_each(|inner| rename_node(inner, names));
            graph.output.iter_mut().for_each(|output| rename(&mut output.name, names));
        }
    }
}
