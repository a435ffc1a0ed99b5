//! Replaces nodes by this crate's operator for evaluated ONNX.

use std::collections::HashSet;

use hardtack_operators::{ElementType, Graph, Model, ValueInfo, ValueType};
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::type_proto::Value::TensorType;
use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto};

use super::dependence::{On, is_misread};
use super::fit::expression;
use super::partition::{groups, has_type};
use super::trace::{Trace, Traced};
use crate::import::node::ints;
use crate::import::operators::{CUSTOM_DOMAIN, EVALUATE};

/// Replaces the nodes that `is_unsupported` selects, by name of their first output, with evaluated
/// ones. Returns the operators that are evaluated; `None` if the model cannot be split like this.
pub(crate) fn replace_unsupported(
    graph: &mut GraphProto,
    model: &Model,
    trace: &Trace,
    is_unsupported: impl Fn(&str) -> bool,
) -> Option<Vec<String>> {
    let deciding = deciding(model, trace);
    let wanted = |index: usize| {
        let node = &model.graph.nodes[index];
        node.outputs.iter().any(|output| is_unsupported(output))
            || uses_other_type(model, trace, index)
            || deciding.contains(&index)
            || is_misread(node, |name| trace.get(name).map(|traced| traced.dependence))
    };
    let groups = groups(model, trace, wanted)?;
    let mut operators = Vec::new();
    for group in groups {
        let names = group.iter().map(|index| model.graph.nodes[*index].qualified_operator());
        operators.extend(names);
        replace(graph, model, trace, &group)?;
    }
    operators.sort();
    operators.dedup();
    Some(operators)
}

/// Returns the nodes that compute conditions of `If` from dynamic sizes.
fn deciding(model: &Model, trace: &Trace) -> HashSet<usize> {
    let by_sizes =
        |name: &str| trace.get(name).is_some_and(|traced| traced.dependence.elements == On::Sizes);
    let (mut found, mut names) = (HashSet::new(), HashSet::new());
    for (index, node) in model.graph.nodes.iter().enumerate().rev() {
        if node.domain.is_empty() && node.operator == "If" {
            names.extend(node.inputs.iter().filter(|name| by_sizes(name)));
        }
        if node.operator != "Shape" && node.outputs.iter().any(|output| names.contains(output)) {
            found.insert(index);
            names.extend(node.inputs.iter().filter(|name| by_sizes(name)));
        }
    }
    found
}

/// Replaces all nodes by one evaluated node.
pub(crate) fn replace_all(graph: &mut GraphProto, model: &Model, trace: &Trace) -> Option<()> {
    let all: Vec<usize> = (0..model.graph.nodes.len()).collect();
    replace(graph, model, trace, &all)
}

/// Returns whether a node reads or writes values of a type that tract lacks. Integers
/// of 4 and 2 bits are passed as those of 8 bits, so only the nodes that compute them matter.
fn uses_other_type(model: &Model, trace: &Trace, index: usize) -> bool {
    let node = &model.graph.nodes[index];
    let mut names = node.inputs.iter().chain(&node.outputs);
    let element = |name: &String| trace.get(name).and_then(|traced| traced.element);
    let is_other = |element| passed_as(element) != element;
    let is_small = |element| matches!(passed_as(element), ElementType::I8 | ElementType::U8);
    names.any(|name| {
        element(name).is_some_and(|e| is_other(e) && (!is_small(e) || e.is_narrow_float()))
    }) || node.outputs.iter().any(|name| element(name).is_some_and(is_other))
}

/// Replaces the types of inputs that tract lacks by those in which they are passed.
pub(crate) fn widen_types(graph: &mut GraphProto) {
    for input in &mut graph.input {
        let value = input.r#type.as_mut().and_then(|of| of.value.as_mut());
        if let Some(TensorType(tensor)) = value
            && let Some(element) = ElementType::from_number(tensor.elem_type.into())
        {
            tensor.elem_type = passed_as(element).number();
        }
    }
}

/// Returns the type in which values of a type are passed to other nodes and to the caller: bf16 as
/// f32, integers of 4 and 2 bits as those of 8 bits, and floats of 8 and 4 bits by their encoding.
pub(super) fn passed_as(element: ElementType) -> ElementType {
    match element {
        ElementType::BF16 => ElementType::F32,
        ElementType::I4 | ElementType::I2 => ElementType::I8,
        ElementType::U4 | ElementType::U2 => ElementType::U8,
        narrow if narrow.is_narrow_float() => ElementType::U8,
        other => other,
    }
}

fn replace(graph: &mut GraphProto, model: &Model, trace: &Trace, group: &[usize]) -> Option<()> {
    let nodes = &model.graph.nodes;
    let members: HashSet<usize> = group.iter().copied().collect();
    let written: HashSet<&str> = group
        .iter()
        .flat_map(|index| &nodes[*index].outputs)
        .map(String::as_str)
        .filter(|name| !name.is_empty())
        .collect();
    let mut read: Vec<&str> = Vec::new();
    for index in group {
        let mut names: Vec<&str> = nodes[*index].reads().into_iter().collect();
        names.sort();
        for name in names {
            if !written.contains(name) && !read.contains(&name) {
                read.push(name);
            }
        }
    }
    // Values that other nodes or the caller read. An output of the model may be an input of it.
    let mut left: HashSet<&str> = model.graph.outputs.iter().map(|o| o.name.as_str()).collect();
    for (index, node) in nodes.iter().enumerate() {
        if !members.contains(&index) {
            left.extend(node.reads());
        }
    }
    let mut leaving: Vec<&str> = written.iter().copied().filter(|n| left.contains(n)).collect();
    leaving.sort();
    if leaving.is_empty() {
        remove(graph, &written);
        return Some(());
    }
    // Small constants, and those that tract has no type for, are part of the evaluated model.
    let constants = &model.graph.initializers;
    let outside: HashSet<&str> = graph.initializer.iter().map(|i| i.name.as_str()).collect();
    let (inside, inputs): (Vec<&str>, Vec<&str>) = read.into_iter().partition(|name| {
        constants.get(*name).is_some_and(|constant| {
            let element = constant.element();
            let is_passed = has_type(element) && passed_as(element) == element;
            constant.len() <= INSIDE || !is_passed || !outside.contains(*name)
        })
    });
    let info = |name: &&str| {
        let element = trace.get(name).and_then(|traced| traced.element)?;
        let value_type = Some(ValueType::Tensor { element, shape: None });
        Some(ValueInfo { name: name.to_string(), value_type })
    };
    let part = Graph::new(
        inputs.iter().map(info).collect::<Option<_>>()?,
        leaving.iter().map(info).collect::<Option<_>>()?,
        inside.iter().map(|name| (name.to_string(), constants[*name].clone())).collect(),
        group.iter().map(|index| nodes[*index].clone()).collect(),
    );
    let part =
        Model { opsets: model.opsets.clone(), functions: model.functions.clone(), graph: part };
    let node = evaluated(&part, &inputs, &leaving, trace)?;
    remove(graph, &written);
    graph.node.push(node);
    // Constants that are within the evaluated model may have types that tract lacks.
    let read: HashSet<String> = graph.node.iter().flat_map(reads).collect();
    let outputs: HashSet<&str> = graph.output.iter().map(|output| output.name.as_str()).collect();
    graph.initializer.retain(|constant| {
        read.contains(&constant.name) || outputs.contains(constant.name.as_str())
    });
    Some(())
}

/// The maximum number of elements of a constant within an evaluated model.
const INSIDE: usize = 64;

fn remove(graph: &mut GraphProto, written: &HashSet<&str>) {
    graph.node.retain(|node| !node.output.iter().any(|name| written.contains(name.as_str())));
}

/// Returns the names that a node reads, also in its subgraphs.
fn reads(node: &NodeProto) -> Vec<String> {
    let mut names = node.input.clone();
    for attribute in &node.attribute {
        for graph in attribute.g.iter().chain(&attribute.graphs) {
            names.extend(graph.node.iter().flat_map(reads));
            names.extend(graph.output.iter().map(|output| output.name.clone()));
        }
    }
    names
}

/// Returns the node of an evaluated model.
fn evaluated(part: &Model, inputs: &[&str], outputs: &[&str], trace: &Trace) -> Option<NodeProto> {
    let mut types = Vec::new();
    let mut shapes = Vec::new();
    for name in outputs {
        let traced = trace.get(name)?;
        let element = traced.element.filter(|element| has_type(*element))?;
        types.push(i64::from(passed_as(element).number()));
        shapes.push(shape(name, traced, trace)?.into_bytes());
    }
    let bytes = part.to_bytes().ok()?;
    let model = AttributeProto {
        name: "model".into(),
        r#type: AttributeType::String as i32,
        s: bytes,
        ..AttributeProto::default()
    };
    let shapes = AttributeProto {
        name: "shapes".into(),
        r#type: AttributeType::Strings as i32,
        strings: shapes,
        ..AttributeProto::default()
    };
    Some(NodeProto {
        name: outputs.first()?.to_string(),
        op_type: EVALUATE.into(),
        domain: CUSTOM_DOMAIN.into(),
        input: inputs.iter().map(|name| name.to_string()).collect(),
        output: outputs.iter().map(|name| name.to_string()).collect(),
        attribute: vec![model, ints("types", &types), shapes],
        ..NodeProto::default()
    })
}

/// Returns the shape of a value as expressions, separated by commas. A size that depends on data
/// gets a name of its own.
fn shape(name: &str, traced: &Traced, trace: &Trace) -> Option<String> {
    let rank = traced.shapes.first()?.len();
    if traced.shapes.len() != trace.sizes.len() || traced.shapes.iter().any(|s| s.len() != rank) {
        return None;
    }
    let mut sizes = Vec::new();
    for axis in 0..rank {
        let values: Vec<usize> = traced.shapes.iter().map(|shape| shape[axis]).collect();
        let known = match traced.dependence.shape {
            On::Nothing => Some(values[0].to_string()),
            On::Sizes if trace.is_empty => None,
            On::Sizes => expression(&values, &trace.sizes),
            On::Data => None,
        };
        sizes.push(known.unwrap_or_else(|| {
            let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
            let name: String = name.chars().map(plain).collect();
            format!("size_of_{name}_{axis}")
        }));
    }
    Some(sizes.join(","))
}
