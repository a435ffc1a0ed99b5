//! What the values and shapes of a graph depend on.

use std::collections::{HashMap, HashSet};

use hardtack_operators::{Attribute, Dimension, ElementType, Graph, Model, Node, ValueType};

/// What a value or a shape depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum On {
    /// Nothing but the model.
    Nothing,
    /// The sizes of the inputs.
    Sizes,
    /// The elements of the inputs.
    Data,
}

/// What a value depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dependence {
    /// What the elements depend on.
    pub elements: On,
    /// What the shape depends on; at most what the elements depend on.
    pub shape: On,
}

const CONSTANT: Dependence = Dependence { elements: On::Nothing, shape: On::Nothing };

/// Operators whose results are random.
const RANDOM: [&str; 7] = [
    "Bernoulli",
    "Dropout",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
];

/// Operators whose output shape depends on the elements of any operand.
const SELECTING: [&str; 13] = [
    "Compress",
    "ConcatFromSequence",
    "If",
    "Loop",
    "NonMaxSuppression",
    "NonZero",
    "OptionalGetElement",
    "SequenceAt",
    "SequenceMap",
    "SplitToSequence",
    "StringNormalizer",
    "StringSplit",
    "Unique",
];

/// Returns the operands of an operator whose elements decide the shape of the output.
fn shape_operands(operator: &str) -> &'static [usize] {
    match operator {
        "ConstantOfShape" | "HannWindow" | "HammingWindow" | "BlackmanWindow" => &[0],
        "MelWeightMatrix" => &[0, 1],
        "Range" => &[0, 1, 2],
        "Reshape" | "Expand" | "Tile" | "TopK" | "OneHot" | "Split" | "Squeeze" | "Unsqueeze"
        | "Upsample" | "CenterCropPad" | "AffineGrid" => &[1],
        "Pad" => &[1, 3],
        "Col2Im" | "DFT" => &[1, 2],
        "MaxUnpool" => &[2],
        "STFT" => &[1, 3],
        "Slice" => &[1, 2, 3, 4],
        "Resize" => &[1, 2, 3],
        _ if operator.starts_with("Reduce") => &[1],
        _ => &[],
    }
}

/// Returns what each value of the main graph depends on.
pub(crate) fn dependences(model: &Model) -> HashMap<String, Dependence> {
    let mut found = HashMap::new();
    for input in &model.graph.inputs {
        let is_known = matches!(
            &input.value_type,
            Some(ValueType::Tensor { shape: Some(shape), .. })
                if shape.iter().all(|dim| matches!(dim, Dimension::Size(_)))
        );
        let shape = if is_known { On::Nothing } else { On::Sizes };
        found.insert(input.name.clone(), Dependence { elements: On::Data, shape });
    }
    let functions: HashSet<(&str, &str)> =
        model.functions.iter().map(|f| (f.domain.as_str(), f.name.as_str())).collect();
    for node in &model.graph.nodes {
        let is_function = functions.contains(&(node.domain.as_str(), node.operator.as_str()));
        let dependence = of_node(node, is_function, &found);
        for output in node.outputs.iter().filter(|name| !name.is_empty()) {
            found.insert(output.clone(), dependence);
        }
    }
    found
}

/// Returns whether evaluating a model on synthetic inputs shows anything of use: values that are
/// computed from constants or sizes alone, or values of types that tract lacks.
pub(crate) fn is_needed(model: &Model) -> bool {
    let found = dependences(model);
    let constants = model.graph.initializers.values().map(|constant| constant.element());
    let inputs = model.graph.inputs.iter().filter_map(|input| match &input.value_type {
        Some(ValueType::Tensor { element, .. }) => Some(*element),
        _ => None,
    });
    let constants = constants.filter(|element| element.bits().is_none_or(|bits| bits >= 8));
    let mut types = constants.chain(inputs);
    let quantized = quantized(model);
    let named = |node: &Node| {
        node.operator != "Constant" && !node.outputs.iter().any(|name| quantized.contains(name))
    };
    let computed = |node: &Node| {
        let outputs = node.outputs.iter().filter_map(|output| found.get(output));
        outputs.map(|d| d.elements).any(|on| on != On::Data)
    };
    model.graph.nodes.iter().any(|node| {
        (named(node) && computed(node))
            || makes_other_type(node)
            || is_misread(node, |name| found.get(name).copied())
    }) || types.any(is_other)
        || !model.functions.is_empty()
}

/// Returns whether tract reads a node with another meaning.
///
/// `Mod`: tract gives the remainder the sign of the dividend, and considers its operands
/// commutative. `If` with a condition on dynamic sizes, and what computes it: tract may take
/// different expressions for different numbers. `Slice` with bounds that depend on data: tract does
/// not count negative ones from the end, and does not limit those beyond the end.
pub(crate) fn is_misread(node: &Node, of: impl Fn(&str) -> Option<Dependence>) -> bool {
    let depends = |name: &String, on| of(name).is_some_and(|dependence| dependence.elements == on);
    let mut inputs = node.inputs.iter();
    node.domain.is_empty()
        && match node.operator.as_str() {
            "Mod" => true,
            "If" => inputs.any(|name| depends(name, On::Sizes)),
            "Slice" => inputs.skip(1).any(|name| depends(name, On::Data)),
            _ => false,
        }
}

/// Returns the values that are quantized or dequantized, or computed from such values. Later stages
/// take scales and integers from the nodes that compute them.
pub(crate) fn quantized(model: &Model) -> HashSet<String> {
    let mut found: HashSet<String> = HashSet::new();
    for node in &model.graph.nodes {
        let is_quantized = node.operator.ends_with("QuantizeLinear")
            || node.operator.ends_with("DequantizeLinear")
            || node.reads().into_iter().any(|name| found.contains(name));
        if is_quantized {
            found.extend(node.outputs.iter().cloned());
        }
    }
    found
}

/// Returns whether tract lacks a type.
fn is_other(element: ElementType) -> bool {
    element == ElementType::BF16
        || element.is_narrow_float()
        || element.bits().is_some_and(|bits| bits < 8)
}

/// Returns whether a node converts to a type that tract lacks.
fn makes_other_type(node: &Node) -> bool {
    let types = ["to", "output_dtype"].into_iter().filter_map(|name| node.attributes.get(name));
    let mut types = types.filter_map(|attribute| match attribute {
        Attribute::Int(number) => ElementType::from_number(*number),
        _ => None,
    });
    types.any(is_other)
}

fn of_node(node: &Node, is_function: bool, found: &HashMap<String, Dependence>) -> Dependence {
    let of = |name: &str| found.get(name).copied().unwrap_or(CONSTANT);
    let reads = node.reads();
    let worst = |part: fn(Dependence) -> On| {
        reads.iter().map(|name| part(of(name))).max().unwrap_or(On::Nothing)
    };
    let (elements, shape) = (worst(|d| d.elements), worst(|d| d.shape));
    let random =
        RANDOM.contains(&node.operator.as_str()) || node.subgraphs().any(|graph| has_random(graph));
    if random {
        return Dependence { elements: On::Data, shape };
    }
    if matches!(node.operator.as_str(), "Shape" | "Size") && !is_function {
        return Dependence { elements: shape, shape: On::Nothing };
    }
    if is_function || SELECTING.contains(&node.operator.as_str()) {
        return Dependence { elements, shape: elements };
    }
    let operands = shape_operands(&node.operator).iter();
    let operands = operands.filter_map(|index| node.inputs.get(*index));
    let by_operands = operands.map(|name| of(name).elements).max().unwrap_or(On::Nothing);
    Dependence { elements, shape: shape.max(by_operands) }
}

fn has_random(graph: &Graph) -> bool {
    graph.nodes.iter().any(|node| {
        RANDOM.contains(&node.operator.as_str()) || node.subgraphs().any(|graph| has_random(graph))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hardtack_operators::ValueInfo;

    fn node(operator: &str, inputs: &[&str], output: &str) -> Node {
        Node {
            operator: operator.into(),
            inputs: inputs.iter().map(|name| name.to_string()).collect(),
            outputs: vec![output.into()],
            ..Node::default()
        }
    }

    #[test]
    fn shapes_depend_on_sizes_and_selected_elements_on_data() {
        let shape = vec![Dimension::Named("n".into()), Dimension::Size(3)];
        let value_type = ValueType::Tensor { element: ElementType::F32, shape: Some(shape) };
        let x = ValueInfo { name: "x".into(), value_type: Some(value_type) };
        let nodes = vec![
            node("Shape", &["x"], "s"),
            node("Relu", &["x"], "r"),
            node("Reshape", &["r", "s"], "same"),
            node("NonZero", &["x"], "nz"),
            node("Reshape", &["r", "nz"], "odd"),
            node("Shape", &["s"], "rank"),
        ];
        let graph = Graph::new(vec![x], vec![], Default::default(), nodes);
        let found = dependences(&Model { graph, ..Model::default() });
        let expect = |name: &str, elements, shape| {
            assert_eq!(found[name], Dependence { elements, shape }, "{name}");
        };
        expect("s", On::Sizes, On::Nothing);
        expect("same", On::Data, On::Sizes);
        expect("nz", On::Data, On::Data);
        expect("odd", On::Data, On::Data);
        expect("rank", On::Nothing, On::Nothing);
    }
}
