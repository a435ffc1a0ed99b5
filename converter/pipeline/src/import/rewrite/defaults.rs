//! Inputs with default values.

use std::collections::HashSet;

use hardtack::Tensor;
use hardtack_bundle::DType;
use hardtack_bundle::manifest::MAX_PORTS;
use tract_onnx::pb::{GraphProto, NodeProto, ValueInfoProto};

use super::emit::Context;
use crate::import::tensor;

/// Sorts out inputs that have an initializer. Old files list all constants as inputs. In newer
/// files, the initializer is the default value of the input: it moves to the context, and the input
/// follows those that must be given. Some exporters of newer files list all weights too, which then
/// stay constants.
pub(super) fn sort(graph: &mut GraphProto, context: &mut Context) {
    let valued: HashSet<&str> =
        graph.initializer.iter().map(|initializer| initializer.name.as_str()).collect();
    let (defaulted, given): (Vec<ValueInfoProto>, Vec<ValueInfoProto>) =
        std::mem::take(&mut graph.input)
            .into_iter()
            .partition(|input| valued.contains(input.name.as_str()));
    graph.input = given;
    if defaulted.is_empty() || !context.has_defaults {
        return;
    }
    let is_weight =
        |input: &ValueInfoProto| graph.node.iter().any(|node| reads_weight(node, input));
    if graph.input.len() + defaulted.len() > MAX_PORTS || defaulted.iter().any(is_weight) {
        context.note(format!(
            "{} constants that the file lists as inputs, such as {:?}, keep their values; remove \
             the initializers of those that are inputs",
            defaulted.len(),
            defaulted[0].name
        ));
        return;
    }
    for input in defaulted {
        let at = graph.initializer.iter().position(|constant| constant.name == input.name);
        let Some(at) = at else { continue };
        // A type that a bundle's input cannot have stays a constant.
        let Some(value) = tensor::load(&graph.initializer[at]).filter(is_number) else { continue };
        graph.initializer.remove(at);
        context.defaults.push((input.name.clone(), value));
        graph.input.push(input);
    }
}

/// Returns whether a node reads an input as the weights of a layer.
fn reads_weight(node: &NodeProto, input: &ValueInfoProto) -> bool {
    let weights = match node.op_type.as_str() {
        "Conv" | "ConvTranspose" | "Gemm" | "MatMul" | "BatchNormalization" | "LSTM" | "GRU"
        | "RNN" => node.input.get(1..),
        "Gather" => node.input.get(..1),
        _ => None,
    };
    weights.is_some_and(|weights| weights.contains(&input.name))
}

/// Returns whether a bundle's input can have the type of a value.
fn is_number(value: &Tensor) -> bool {
    !matches!(value.dtype(), DType::BF16 | DType::Dim)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{graph, node};
    use super::*;
    use tract_onnx::pb::ModelProto;

    /// Sorts the inputs `x` and `w` of a node of this operator, where `w` has an initializer.
    fn sorted(operator: &str, ir_version: i64) -> (Vec<String>, usize, Context) {
        let nodes = vec![node(operator, &["x", "w"], &["y"], vec![])];
        let half = Tensor::scalar(0.5f32);
        let inputs: [(&str, &[&str]); 2] = [("w", &[]), ("x", &["2"])];
        let mut graph = graph(&inputs, nodes, &[("w", half)], &["y"]);
        let model = ModelProto { ir_version, ..ModelProto::default() };
        let mut context = Context::of(&model);
        sort(&mut graph, &mut context);
        let names = graph.input.iter().map(|input| input.name.clone()).collect();
        (names, graph.initializer.len(), context)
    }

    #[test]
    fn defaults_of_new_files_stay_inputs() {
        let (names, constants, context) = sorted("Sub", 4);
        assert_eq!((names, constants), (vec!["x".to_owned(), "w".into()], 0));
        assert_eq!(context.defaults, [("w".into(), Tensor::scalar(0.5f32))]);
    }

    #[test]
    fn weights_and_constants_of_old_files_are_no_inputs() {
        let (names, constants, context) = sorted("Sub", 3);
        assert_eq!((names, constants), (vec!["x".to_owned()], 1));
        assert_eq!((context.defaults.len(), context.report.len()), (0, 0));
        let (names, constants, context) = sorted("MatMul", 8);
        assert_eq!((names, constants), (vec!["x".to_owned()], 1));
        assert!(context.report[0].contains("keep their values"), "{:?}", context.report);
    }
}
