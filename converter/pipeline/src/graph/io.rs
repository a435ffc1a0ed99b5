//! The inputs and outputs of a model, as recorded in the manifest.

use hardtack::Tensor;
use hardtack_bundle::DType;
use hardtack_bundle::graph::{Dim, Fact, Graph, Token};
use hardtack_bundle::manifest::{self, Extent, Layout, Quantization};
use hardtack_bundle::process::{ChannelOrder, Preprocess};

use crate::error::Error;
use crate::import::DefaultValue;

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
    /// The value of an input that is left out; `None` if it must be given.
    pub(crate) initial: Option<Initial>,
}

/// The value of an input that is left out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Initial {
    /// Zeros: the input is a state.
    Zeros,
    /// The default value of the input in the ONNX file.
    Value(Tensor),
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
            initial: None,
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

    /// Returns the indices of the output and the input of each state.
    ///
    /// # Errors
    /// Returns [`Error::Options`] if a name is unknown, or if the values cannot be exchanged.
    pub(crate) fn states(&self, states: &[(String, String)]) -> Result<Vec<(u8, u8)>, Error> {
        if states.len() > manifest::MAX_PORTS {
            return Err(Error::Options(format!(
                "there are {} --state options; join some values with Concat, because a bundle has \
                 at most {} states",
                states.len(),
                manifest::MAX_PORTS
            )));
        }
        let mut found: Vec<(u8, u8)> = Vec::new();
        for (output_name, input_name) in states {
            let wrong = |problem: String| {
                Err(Error::Options(format!("--state {output_name}={input_name}: {problem}")))
            };
            let place = |list: &[Endpoint], name: &str| list.iter().position(|e| e.name == *name);
            let (output, input) =
                (place(&self.outputs, output_name), place(&self.inputs, input_name));
            let (Some(output), Some(input)) = (output, input) else {
                let swapped = (place(&self.outputs, input_name), place(&self.inputs, output_name));
                if let (Some(_), Some(_)) = swapped {
                    return wrong(format!(
                        "the output comes first; pass --state {input_name}={output_name}"
                    ));
                }
                let (role, name, list) = match output {
                    None => ("output", output_name, &self.outputs),
                    Some(_) => ("input", input_name, &self.inputs),
                };
                let names: Vec<&str> = list.iter().map(|endpoint| &*endpoint.name).collect();
                return wrong(format!(
                    "the model has no {role} {name:?}; pass --state OUTPUT=INPUT, where {} is one \
                     of {}",
                    role.to_uppercase(),
                    names.join(", ")
                ));
            };
            if found.iter().any(|(_, other)| usize::from(*other) == input) {
                return wrong(format!(
                    "input {input_name:?} has a state already; keep one --state option for it"
                ));
            }
            let (from, to) = (&self.outputs[output], &self.inputs[input]);
            if from.dtype != to.dtype || from.quantization != to.quantization {
                let cure = match from.quantization.is_some() || to.quantization.is_some() {
                    true => "omit --integer-io, or the state",
                    false => "add a Cast to the model, or name values of the same type",
                };
                return wrong(format!(
                    "the output is {} and the input {}; {cure}",
                    from.type_text(),
                    to.type_text()
                ));
            }
            let fits = |(from, to): (&Size, &Size)| match (from, to) {
                (Size::Fixed(from), Size::Fixed(to)) => from == to,
                // A dynamic dimension may grow with each inference.
                _ => true,
            };
            let same =
                from.shape.len() == to.shape.len() && from.shape.iter().zip(&to.shape).all(fits);
            if !same {
                return wrong(format!(
                    "the output is {} and the input {}; name values of the same shape, or change \
                     the shape of the input with --set",
                    from.type_text(),
                    to.type_text()
                ));
            }
            found.push((output as u8, input as u8));
        }
        Ok(found)
    }

    /// Gives inputs the default values of an ONNX file, by name. That of a state is its initial
    /// value.
    pub(crate) fn set_defaults(&mut self, defaults: &[(String, DefaultValue)]) {
        for (name, DefaultValue { shape, bytes }) in defaults {
            let Some(input) = self.inputs.iter_mut().find(|input| input.name == *name) else {
                continue;
            };
            if let Some(value) = Tensor::from_bytes(input.dtype, shape, bytes) {
                input.initial = Some(Initial::Value(value));
            }
        }
    }

    /// Returns the index of the first input that must be given: the one that pre-processing is for.
    pub fn data_input(&self) -> usize {
        self.inputs.iter().position(|input| !input.is_optional()).unwrap_or(0)
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
    /// Formats the type and shape for messages, such as `f32[batch, 3]`.
    fn type_text(&self) -> String {
        let dims: Vec<String> = self
            .shape
            .iter()
            .map(|size| match size {
                Size::Fixed(n) => n.to_string(),
                Size::Named(name) => name.clone(),
            })
            .collect();
        let scale = self.quantization.map(|of| format!(" with scale {}", of.scale));
        format!("{}[{}]{}", self.dtype, dims.join(", "), scale.unwrap_or_default())
    }

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

    /// Returns whether the input may be left out.
    pub fn is_optional(&self) -> bool {
        self.initial.is_some()
    }

    /// Returns the default value of the input in the ONNX file.
    pub(crate) fn default(&self) -> Option<&Tensor> {
        match self.initial.as_ref()? {
            Initial::Value(value) => Some(value),
            Initial::Zeros => None,
        }
    }

    /// Returns the value of an input that is left out, or `None` if it must be given. Dynamic
    /// dimensions of `shape`, that of the input, have the size 1.
    pub fn initial(&self, shape: &[Dim]) -> Option<Tensor> {
        match self.initial.as_ref()? {
            Initial::Value(value) => Some(value.clone()),
            Initial::Zeros => {
                let sizes =
                    shape.iter().map(|dim| dim.value().map_or(Some(1), |n| n.try_into().ok()));
                Tensor::zeros(self.dtype, &sizes.collect::<Option<Vec<usize>>>()?)
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(name: &str, dtype: DType, shape: &[Size]) -> Endpoint {
        let (name, shape) = (name.into(), shape.to_vec());
        Endpoint { name, dtype, shape, layout: Layout::Plain, quantization: None, initial: None }
    }

    #[test]
    fn states_that_do_not_fit_have_a_remedy() {
        let [one, four, n] = [Size::Fixed(1), Size::Fixed(4), Size::Named("n".into())];
        let signature = Signature {
            inputs: vec![
                endpoint("x", DType::F32, &[one.clone(), n.clone()]),
                endpoint("s", DType::F32, &[one.clone(), four.clone()]),
            ],
            outputs: vec![
                endpoint("y", DType::F32, &[one.clone(), four.clone()]),
                endpoint("z", DType::F32, &[four.clone(), four.clone()]),
                endpoint("flat", DType::F32, &[four]),
                endpoint("c", DType::I32, &[one, n]),
            ],
            symbols: vec![],
        };
        let states = |pairs: &[(&str, &str)]| {
            let pairs: Vec<_> = pairs.iter().map(|(o, i)| ((*o).into(), (*i).into())).collect();
            signature.states(&pairs).map_err(|error| error.to_string())
        };
        assert_eq!(states(&[("y", "s"), ("y", "x")]).unwrap(), [(0, 1), (0, 0)]);
        for (pairs, problem) in [
            (
                &[("q", "s")][..],
                "no output \"q\"; pass --state OUTPUT=INPUT, where OUTPUT is one of",
            ),
            (&[("y", "q")], "where INPUT is one of x, s"),
            (&[("s", "y")], "the output comes first; pass --state y=s"),
            (&[("z", "s")], "the output is f32[4, 4] and the input f32[1, 4]; name values of the"),
            (&[("flat", "s")], "change the shape of the input with --set"),
            (&[("c", "x")], "the output is i32[1, n] and the input f32[1, n]; add a Cast"),
            (&[("y", "s"), ("y", "s")], "has a state already; keep one --state option"),
            (&[("y", "s"); 33], "there are 33 --state options"),
        ] {
            let message = states(pairs).unwrap_err();
            assert!(message.contains(problem), "{message}");
        }
    }
}
