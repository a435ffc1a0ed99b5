//! The inputs and outputs of a model, as recorded in the manifest.

use hardtack_bundle::DType;
use hardtack_bundle::graph::{Dim, Fact, Graph, Token};
use hardtack_bundle::manifest::{self, Extent, Layout, Quantization};
use hardtack_bundle::process::{ChannelOrder, Preprocess};

use crate::error::Error;

/// A dimension of an input or output.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Size {
    /// A fixed size.
    Fixed(u64),
    /// A dynamic size, given by name or expression.
    Named(String),
}

/// An input or output of a model.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The name in the source model.
    pub name: String,
    dtype: DType,
    shape: Vec<Size>,
    layout: Layout,
    quantization: Option<Quantization>,
}

/// The inputs and outputs of a model.
///
/// # Examples
///
/// ```
/// use hardtack_converter::Signature;
/// use hardtack_converter::import::{ImportOptions, import};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/data/keyword_spotting");
/// # std::env::set_current_dir(data)?;
/// let imported = import("kws_dscnn.onnx".as_ref(), &ImportOptions::default())?;
/// let signature = Signature::of(&imported.model.graph, None);
/// assert_eq!(signature.inputs[0].name, "mfcc");
/// assert_eq!(signature.outputs[0].name, "probs");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Signature {
    /// The inputs, in the graph's order.
    pub inputs: Vec<Endpoint>,
    /// The outputs, in the graph's order.
    pub outputs: Vec<Endpoint>,
    symbols: Vec<String>,
}

impl Signature {
    /// Returns the inputs and outputs of a graph. `preprocess` gives the layout of the first input.
    pub fn of(graph: &Graph, preprocess: Option<&Preprocess>) -> Signature {
        let layout = match preprocess {
            Some(Preprocess::Image(image)) => match image.order {
                ChannelOrder::Nchw => Layout::Nchw,
                ChannelOrder::Nhwc => Layout::Nhwc,
            },
            _ => Layout::Plain,
        };
        let port = |name: &str, fact: &Fact, layout| Endpoint {
            name: name.into(),
            dtype: fact.dtype,
            shape: fact.shape.iter().map(|dim| size_of(dim, &graph.symbols)).collect(),
            layout,
            quantization: None,
        };
        let inputs = graph.inputs.iter().enumerate().map(|(index, node)| {
            let node = &graph.nodes[*node as usize];
            port(&node.name, &node.outputs[0], if index == 0 { layout } else { Layout::Plain })
        });
        let outputs = graph.outputs.iter().zip(&graph.output_names);
        Signature {
            inputs: inputs.collect(),
            outputs: outputs
                .map(|(value_id, name)| port(name, graph.fact(*value_id), Layout::Plain))
                .collect(),
            symbols: graph.symbols.clone(),
        }
    }

    /// Formats a shape for messages, such as `[batch, 3, 224, 224]`.
    pub fn shape_text(&self, shape: &[Dim]) -> String {
        let dims: Vec<String> = shape
            .iter()
            .map(|dim| match size_of(dim, &self.symbols) {
                Size::Fixed(n) => n.to_string(),
                Size::Named(name) => name,
            })
            .collect();
        format!("[{}]", dims.join(", "))
    }
}

impl Endpoint {
    /// Converts to the manifest's type.
    ///
    /// # Errors
    /// Returns [`Error::Options`] if it has more than [`manifest::MAX_RANK`] dimensions.
    pub fn manifest_port(&self) -> Result<manifest::Port<'_>, Error> {
        let mut shape = heapless::Vec::new();
        for size_of in &self.shape {
            let size_of = match size_of {
                Size::Fixed(n) => Extent::Fixed(*n),
                Size::Named(name) => Extent::Named(name),
            };
            shape.push(size_of).map_err(|_| {
                Error::Options(format!(
                    "{:?} has {} dimensions; inputs and outputs of a bundle have at most {}",
                    self.name,
                    self.shape.len(),
                    manifest::MAX_RANK
                ))
            })?;
        }
        Ok(manifest::Port {
            name: &self.name,
            dtype: self.dtype,
            shape,
            layout: self.layout,
            quantization: self.quantization,
        })
    }

    /// Returns whether the element type is f32.
    pub fn is_float(&self) -> bool {
        self.dtype == DType::F32
    }

    /// Changes the element type to i8 with this scale and zero point.
    pub fn quantize(&mut self, quantization: Quantization) {
        self.dtype = DType::I8;
        self.quantization = Some(quantization);
    }
}

fn size_of(dim: &Dim, symbols: &[String]) -> Size {
    match dim {
        Dim::Value(value) => Size::Fixed(u64::try_from(*value).unwrap_or(0)),
        Dim::Expression(tokens) => Size::Named(text(tokens, symbols)),
    }
}

/// Formats a dimension expression in infix notation.
fn text(tokens: &[Token], symbols: &[String]) -> String {
    let mut stack: Vec<String> = Vec::new();
    for token in tokens {
        let mut join = |count: u32, with: &str| {
            let at = stack.len().saturating_sub(count as usize);
            format!("({})", stack.split_off(at).join(with))
        };
        let part = match *token {
            Token::Value(value) => value.to_string(),
            Token::Symbol(index) => symbols.get(index as usize).cloned().unwrap_or_default(),
            Token::Add(count) => join(count, "+"),
            Token::Multiply(count) => join(count, "*"),
            Token::Minimum(count) => format!("min{}", join(count, ",")),
            Token::Maximum(count) => format!("max{}", join(count, ",")),
            Token::Broadcast(count) => format!("broadcast{}", join(count, ",")),
            Token::GreaterOrEqual => join(2, ">="),
            Token::Equal => join(2, "=="),
            Token::Divide(divisor) => format!("({}/{divisor})", stack.pop().unwrap_or_default()),
        };
        stack.push(part);
    }
    let text = stack.pop().unwrap_or_default();
    match text.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')) {
        Some(inner) if !inner.contains(['(', ')']) => inner.into(),
        _ => text,
    }
}
