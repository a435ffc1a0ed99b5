//! Finds all unsupported operators before the conversion begins.

use tract_onnx::Onnx;
use tract_onnx::pb::GraphProto;

use super::error::UnsupportedOperator;
use super::node::Node;
use super::operators::{CUSTOM_DOMAIN, DYNAMIC_MAT_MUL, EVALUATE, TREE_ENSEMBLE};
use super::rewrite::scores;

/// The operators of `com.microsoft` that tract reads with the semantics of that domain.
const MICROSOFT: &[&str] = &[
    "BiasGelu",
    "DequantizeLinear",
    "FastGelu",
    "Gelu",
    "QuantizeLinear",
    "QuickGelu",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
];

/// Returns whether an operator of the default domain can be read.
fn is_read(onnx: &Onnx, name: &str) -> bool {
    // tract registers these without a domain, but they belong to other domains.
    onnx.op_register.0.contains_key(name)
        && hardtack_operators::refusal("", name).is_none()
        && !matches!(name, "CategoryMapper" | TREE_ENSEMBLE | DYNAMIC_MAT_MUL | EVALUATE)
}

/// Returns the sorted names of the operators of the default domain that can be read.
#[cfg(test)]
pub(crate) fn operator_names() -> Vec<String> {
    let onnx = super::operators::onnx();
    let names = onnx.op_register.0.keys().map(|name| name.to_string());
    let mut names: Vec<String> = names.filter(|name| is_read(&onnx, name)).collect();
    names.sort();
    names
}

/// Adds the unsupported operators of a graph and its subgraphs to `found`, in order of appearance.
pub(super) fn find(graph: &GraphProto, onnx: &Onnx, found: &mut Vec<UnsupportedOperator>) {
    for node in &graph.node {
        let name = node.op_type.as_str();
        let known = match node.domain.as_str() {
            "" | "ai.onnx" => is_read(onnx, name),
            scores::DOMAIN => name == "ArrayFeatureExtractor",
            "com.microsoft" => MICROSOFT.contains(&name),
            domain => {
                domain == CUSTOM_DOMAIN
                    && matches!(name, TREE_ENSEMBLE | DYNAMIC_MAT_MUL | EVALUATE)
            }
        };
        if !known {
            let domain = if node.domain == "ai.onnx" { "" } else { node.domain.as_str() };
            let reason = hardtack_operators::refusal(domain, name).unwrap_or_default();
            UnsupportedOperator::add(found, node.operator(), node.label(), reason);
        }
        for attribute in &node.attribute {
            attribute.g.iter().chain(&attribute.graphs).for_each(|graph| find(graph, onnx, found));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::operators;
    use super::super::rewrite::testing::{graph, node};
    use super::*;

    #[test]
    fn all_unsupported_operators_are_found_at_once() {
        let nodes = vec![
            node("Loop", &["x"], &["a"], vec![]),
            node("acme::Conv", &["x"], &["b"], vec![]),
            node("Relu", &["x"], &["c"], vec![]),
            node("Loop", &["x"], &["d"], vec![]),
        ];
        let graph = graph(&[("x", &["1"])], nodes, &[], &["a"]);
        let mut found = Vec::new();
        find(&graph, &operators::onnx(), &mut found);
        let found: Vec<(&str, usize)> =
            found.iter().map(|found| (found.operator.as_str(), found.nodes.len())).collect();
        assert_eq!(found, [("Loop", 2), ("acme::Conv", 1)]);
    }
}
