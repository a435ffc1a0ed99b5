//! Finds the nodes that options name.

use hardtack::internal::Model;
use hardtack_bundle::graph::Operator;

use super::equalize::Parts;
use super::float_reason::{FloatReason, Int16Reason};
use super::mixed_precision;
use super::partition::{FloatReasons, Int16Nodes};
use crate::error::Error;
use crate::options::quantize::Int16;

/// Returns the nodes that the user keeps in float, and the unary element-wise ops that follow them.
pub(super) fn kept(model: &Model, parts: &Parts, names: &[String]) -> Result<FloatReasons, Error> {
    let nodes = named(model, parts, "--keep-float", names)?;
    Ok(nodes.into_iter().map(|node| (node, FloatReason::KeepFloat)).collect())
}

/// Returns the nodes that use int16 because the user asks for it.
pub(super) fn int16_nodes(
    model: &Model,
    parts: &Parts,
    int16: &Int16,
) -> Result<Int16Nodes, Error> {
    let nodes = match int16 {
        Int16::All => (0..model.graph.nodes.len()).collect(),
        Int16::Nodes(names) => named(model, parts, "--int16", names)?,
    };
    let activations = nodes.into_iter().map(|node| (node, Int16Reason::Requested)).collect();
    Ok(Int16Nodes { activations, ..Int16Nodes::default() })
}

/// Returns the indices of the nodes with these names, and the unary element-wise ops after them.
/// All parts of a split layer have its name. `name` also stands for the nodes named `name.suffix`.
fn named(
    model: &Model,
    parts: &Parts,
    option: &str,
    names: &[String],
) -> Result<Vec<usize>, Error> {
    let whole_name = |name| parts.get(name).map_or(name, String::as_str);
    let mut found = Vec::new();
    for name in names {
        let nodes = &model.graph.nodes;
        let named = |index: &usize| {
            let node = &nodes[*index];
            let constant = matches!(node.operator, Operator::Constant(_));
            let part = whole_name(&node.name).strip_prefix(name.as_str());
            let is_part = part.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
            node.name == *name || (!constant && is_part)
        };
        let before = found.len();
        for index in (0..nodes.len()).filter(named) {
            found.extend(mixed_precision::with_followers(model, index));
        }
        if found.len() == before {
            let others = nodes.iter().filter(|n| !matches!(n.operator, Operator::Constant(_)));
            let others = others.map(|node| whole_name(&node.name));
            let mut similar: Vec<&str> = others
                .filter(|other| {
                    let (a, b) = (other.to_lowercase(), name.to_lowercase());
                    a.contains(&b) || b.contains(&a)
                })
                .collect();
            similar.dedup();
            similar.truncate(5);
            return Err(Error::Options(format!(
                "{option} {name:?}: the model has no node with this name{}; `hardtack inspect \
                 --nodes` lists the nodes of a float bundle",
                match similar[..] {
                    [] => String::new(),
                    _ => format!(" (similar names: {})", similar.join(", ")),
                }
            )));
        }
    }
    Ok(found)
}
