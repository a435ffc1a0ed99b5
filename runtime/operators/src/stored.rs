//! The form in which a model is stored in a bundle.
//!
//! Graphs within attributes are bytes within bytes, so that the depth of a foreign model is checked
//! before it is decoded.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::element_type::ElementType;
use crate::evaluate::MAX_DEPTH;
use crate::model::{Attribute, Dimension, Function, Graph, Model, Node, ValueInfo, ValueType};
use crate::tensor::{Data, Tensor};

/// A stored model that cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoredError {
    /// The bytes do not encode a model.
    #[error("the bytes are not an encoded model")]
    Encoding,
    /// A tensor's type, shape and elements do not match.
    #[error("a tensor's type, shape and elements do not match")]
    Tensor,
    /// Subgraphs are nested too deeply.
    #[error("subgraphs are nested more than {MAX_DEPTH} deep")]
    Depth,
}

#[derive(Serialize, Deserialize)]
struct StoredModel {
    opsets: BTreeMap<String, i64>,
    functions: Vec<StoredFunction>,
    graph: StoredGraph,
}

#[derive(Serialize, Deserialize)]
struct StoredFunction {
    domain: String,
    name: String,
    overload: String,
    attributes: Vec<String>,
    defaults: BTreeMap<String, StoredAttribute>,
    opsets: BTreeMap<String, i64>,
    body: StoredGraph,
}

#[derive(Serialize, Deserialize)]
struct StoredGraph {
    inputs: Vec<StoredInfo>,
    outputs: Vec<StoredInfo>,
    initializers: Vec<(String, StoredTensor)>,
    nodes: Vec<StoredNode>,
}

#[derive(Serialize, Deserialize)]
struct StoredInfo {
    name: String,
    /// The kinds of nested types from the outside in, and the tensor at the end, if there is one.
    kinds: Option<(Vec<StoredKind>, Option<StoredTensorType>)>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum StoredKind {
    Sequence,
    Optional,
}

#[derive(Serialize, Deserialize)]
struct StoredTensorType {
    element: i32,
    shape: Option<Vec<StoredDimension>>,
}

#[derive(Serialize, Deserialize)]
enum StoredDimension {
    Size(u64),
    Named(String),
    Unknown,
}

#[derive(Serialize, Deserialize)]
struct StoredNode {
    name: String,
    domain: String,
    operator: String,
    overload: String,
    inputs: Vec<String>,
    outputs: Vec<String>,
    attributes: BTreeMap<String, StoredAttribute>,
}

#[derive(Serialize, Deserialize)]
enum StoredAttribute {
    Int(i64),
    Float(f32),
    Text(String),
    Tensor(StoredTensor),
    /// An encoded [`StoredGraph`].
    Graph(Vec<u8>),
    Type(StoredInfo),
    Ints(Vec<i64>),
    Floats(Vec<f32>),
    Texts(Vec<String>),
    Tensors(Vec<StoredTensor>),
    Graphs(Vec<Vec<u8>>),
    Reference(String),
}

#[derive(Serialize, Deserialize)]
struct StoredTensor {
    element: i32,
    shape: Vec<u64>,
    data: Data,
}

impl Model {
    /// Encodes the model.
    ///
    /// # Errors
    /// Returns [`StoredError::Encoding`] if the encoder fails.
    pub fn to_bytes(&self) -> Result<Vec<u8>, StoredError> {
        let sorted = |opsets: &HashMap<String, i64>| {
            opsets.iter().map(|(domain, version)| (domain.clone(), *version)).collect()
        };
        let functions = self.functions.iter().map(|function| {
            Ok(StoredFunction {
                domain: function.domain.clone(),
                name: function.name.clone(),
                overload: function.overload.clone(),
                attributes: function.attributes.clone(),
                defaults: store_attributes(&function.defaults)?,
                opsets: sorted(&function.opsets),
                body: store_graph(&function.body)?,
            })
        });
        let stored = StoredModel {
            opsets: sorted(&self.opsets),
            functions: functions.collect::<Result<_, _>>()?,
            graph: store_graph(&self.graph)?,
        };
        postcard::to_allocvec(&stored).map_err(|_| StoredError::Encoding)
    }

    /// Decodes a model.
    ///
    /// # Errors
    /// Returns a [`StoredError`] if the bytes do not encode a model.
    pub fn from_bytes(bytes: &[u8]) -> Result<Model, StoredError> {
        let stored: StoredModel = exact(bytes)?;
        let functions = stored.functions.into_iter().map(|function| {
            Ok(Function {
                domain: function.domain,
                name: function.name,
                overload: function.overload,
                attributes: function.attributes,
                defaults: load_attributes(function.defaults, 1)?,
                opsets: function.opsets.into_iter().collect(),
                body: load_graph(function.body, 1)?,
            })
        });
        Ok(Model {
            opsets: stored.opsets.into_iter().collect(),
            functions: functions.collect::<Result<_, _>>()?,
            graph: load_graph(stored.graph, 0)?,
        })
    }
}

fn exact<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, StoredError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        _ => Err(StoredError::Encoding),
    }
}

fn store_graph(graph: &Graph) -> Result<StoredGraph, StoredError> {
    let infos = |infos: &[ValueInfo]| infos.iter().map(store_info).collect();
    let nodes = graph.nodes.iter().map(|node| {
        Ok(StoredNode {
            name: node.name.clone(),
            domain: node.domain.clone(),
            operator: node.operator.clone(),
            overload: node.overload.clone(),
            inputs: node.inputs.clone(),
            outputs: node.outputs.clone(),
            attributes: store_attributes(&node.attributes)?,
        })
    });
    let initializers = graph.initializers.iter();
    Ok(StoredGraph {
        inputs: infos(&graph.inputs),
        outputs: infos(&graph.outputs),
        initializers: initializers.map(|(name, t)| (name.clone(), store_tensor(t))).collect(),
        nodes: nodes.collect::<Result<_, _>>()?,
    })
}

fn load_graph(stored: StoredGraph, depth: usize) -> Result<Graph, StoredError> {
    if depth > MAX_DEPTH {
        return Err(StoredError::Depth);
    }
    let infos = |infos: Vec<StoredInfo>| infos.into_iter().map(load_info).collect();
    let nodes = stored.nodes.into_iter().map(|node| {
        Ok(Node {
            name: node.name,
            domain: node.domain,
            operator: node.operator,
            overload: node.overload,
            inputs: node.inputs,
            outputs: node.outputs,
            attributes: load_attributes(node.attributes, depth + 1)?,
        })
    });
    let initializers = stored.initializers.into_iter();
    let initializers = initializers.map(|(name, t)| Ok((name, Arc::new(load_tensor(t)?))));
    Ok(Graph::new(
        infos(stored.inputs),
        infos(stored.outputs),
        initializers.collect::<Result<_, _>>()?,
        nodes.collect::<Result<_, _>>()?,
    ))
}

type Attributes = BTreeMap<String, Attribute>;

fn store_attributes(
    attributes: &Attributes,
) -> Result<BTreeMap<String, StoredAttribute>, StoredError> {
    let bytes = |graph: &Arc<Graph>| {
        postcard::to_allocvec(&store_graph(graph)?).map_err(|_| StoredError::Encoding)
    };
    let store = |attribute: &Attribute| {
        Ok(match attribute {
            Attribute::Int(value) => StoredAttribute::Int(*value),
            Attribute::Float(value) => StoredAttribute::Float(*value),
            Attribute::Text(value) => StoredAttribute::Text(value.clone()),
            Attribute::Tensor(value) => StoredAttribute::Tensor(store_tensor(value)),
            Attribute::Graph(graph) => StoredAttribute::Graph(bytes(graph)?),
            Attribute::Type(value) => StoredAttribute::Type(store_info(&ValueInfo {
                name: String::new(),
                value_type: Some(value.clone()),
            })),
            Attribute::Ints(values) => StoredAttribute::Ints(values.clone()),
            Attribute::Floats(values) => StoredAttribute::Floats(values.clone()),
            Attribute::Texts(values) => StoredAttribute::Texts(values.clone()),
            Attribute::Tensors(values) => {
                StoredAttribute::Tensors(values.iter().map(|t| store_tensor(t)).collect())
            }
            Attribute::Graphs(graphs) => {
                StoredAttribute::Graphs(graphs.iter().map(bytes).collect::<Result<_, _>>()?)
            }
            Attribute::Reference(name) => StoredAttribute::Reference(name.clone()),
        })
    };
    attributes.iter().map(|(name, value)| Ok((name.clone(), store(value)?))).collect()
}

fn load_attributes(
    stored: BTreeMap<String, StoredAttribute>,
    depth: usize,
) -> Result<Attributes, StoredError> {
    let graph = |bytes: Vec<u8>| load_graph(exact(&bytes)?, depth).map(Arc::new);
    let load = |attribute: StoredAttribute| {
        Ok(match attribute {
            StoredAttribute::Int(value) => Attribute::Int(value),
            StoredAttribute::Float(value) => Attribute::Float(value),
            StoredAttribute::Text(value) => Attribute::Text(value),
            StoredAttribute::Tensor(value) => Attribute::Tensor(Arc::new(load_tensor(value)?)),
            StoredAttribute::Graph(bytes) => Attribute::Graph(graph(bytes)?),
            StoredAttribute::Type(info) => {
                Attribute::Type(load_info(info).value_type.ok_or(StoredError::Encoding)?)
            }
            StoredAttribute::Ints(values) => Attribute::Ints(values),
            StoredAttribute::Floats(values) => Attribute::Floats(values),
            StoredAttribute::Texts(values) => Attribute::Texts(values),
            StoredAttribute::Tensors(values) => {
                let tensors = values.into_iter().map(|tensor| load_tensor(tensor).map(Arc::new));
                Attribute::Tensors(tensors.collect::<Result<_, _>>()?)
            }
            StoredAttribute::Graphs(graphs) => {
                Attribute::Graphs(graphs.into_iter().map(graph).collect::<Result<_, _>>()?)
            }
            StoredAttribute::Reference(name) => Attribute::Reference(name),
        })
    };
    stored.into_iter().map(|(name, value)| Ok((name, load(value)?))).collect()
}

fn store_info(info: &ValueInfo) -> StoredInfo {
    let kinds = info.value_type.as_ref().map(|value_type| {
        let (mut kinds, mut inner) = (Vec::new(), value_type);
        loop {
            inner = match inner {
                ValueType::Sequence(element) => {
                    kinds.push(StoredKind::Sequence);
                    element
                }
                ValueType::Optional(element) => {
                    kinds.push(StoredKind::Optional);
                    element
                }
                ValueType::Tensor { element, shape } => {
                    let dimension = |dimension: &Dimension| match dimension {
                        Dimension::Size(size) => StoredDimension::Size(*size as u64),
                        Dimension::Named(name) => StoredDimension::Named(name.clone()),
                        Dimension::Unknown => StoredDimension::Unknown,
                    };
                    let shape = shape.as_ref().map(|shape| shape.iter().map(dimension).collect());
                    break (kinds, Some(StoredTensorType { element: element.number(), shape }));
                }
                ValueType::Other => break (kinds, None),
            };
        }
    });
    StoredInfo { name: info.name.clone(), kinds }
}

fn load_info(stored: StoredInfo) -> ValueInfo {
    let value_type = stored.kinds.map(|(mut kinds, tensor)| {
        let innermost = tensor.and_then(|tensor| {
            let element = ElementType::from_number(tensor.element.into())?;
            let dimension = |dimension| match dimension {
                StoredDimension::Size(size) => {
                    usize::try_from(size).map_or(Dimension::Unknown, Dimension::Size)
                }
                StoredDimension::Named(name) => Dimension::Named(name),
                StoredDimension::Unknown => Dimension::Unknown,
            };
            let shape = tensor.shape.map(|shape| shape.into_iter().map(dimension).collect());
            Some(ValueType::Tensor { element, shape })
        });
        // Types that are nested more deeply than models are of no use, and deep to drop.
        kinds.truncate(MAX_DEPTH);
        let innermost = innermost.unwrap_or(ValueType::Other);
        kinds.into_iter().rev().fold(innermost, |inner, kind| match kind {
            StoredKind::Sequence => ValueType::Sequence(Box::new(inner)),
            StoredKind::Optional => ValueType::Optional(Box::new(inner)),
        })
    });
    ValueInfo { name: stored.name, value_type }
}

fn store_tensor(tensor: &Tensor) -> StoredTensor {
    StoredTensor {
        element: tensor.element().number(),
        shape: tensor.shape().iter().map(|size| *size as u64).collect(),
        data: tensor.data().clone(),
    }
}

fn load_tensor(stored: StoredTensor) -> Result<Tensor, StoredError> {
    let element = ElementType::from_number(stored.element.into()).ok_or(StoredError::Tensor)?;
    let shape = stored.shape.into_iter().map(usize::try_from).collect::<Result<Vec<_>, _>>();
    Tensor::with_type(element, shape.map_err(|_| StoredError::Tensor)?, stored.data)
        .map_err(|_| StoredError::Tensor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> Graph {
        let mut graph = Graph::default();
        for _ in 0..depth {
            let attributes = [("body".to_string(), Attribute::Graph(Arc::new(graph)))];
            let node = Node { attributes: attributes.into(), ..Node::default() };
            graph = Graph { nodes: vec![node], ..Graph::default() };
            graph.prepare();
        }
        graph
    }

    #[test]
    fn models_survive_the_round_trip() {
        let value_type = ValueType::Sequence(Box::new(ValueType::Tensor {
            element: ElementType::F16,
            shape: Some(vec![Dimension::Named("n".into()), Dimension::Size(3)]),
        }));
        let mut graph = nested(3);
        let tensor = Tensor::new(vec![2], vec!["a".to_string(), "b".to_string()]).unwrap();
        graph.initializers.insert("t".into(), Arc::new(tensor));
        graph.inputs.push(ValueInfo { name: "x".into(), value_type: Some(value_type) });
        graph.prepare();
        let opsets = HashMap::from([(String::new(), 21)]);
        let model = Model { opsets, functions: vec![Function::default()], graph };
        assert_eq!(Model::from_bytes(&model.to_bytes().unwrap()), Ok(model));
    }

    #[test]
    fn deep_models_are_refused() {
        let model = |depth| Model { graph: nested(depth), ..Model::default() };
        let bytes = |depth| model(depth).to_bytes().unwrap();
        assert!(Model::from_bytes(&bytes(MAX_DEPTH)).is_ok());
        assert_eq!(Model::from_bytes(&bytes(MAX_DEPTH + 1)), Err(StoredError::Depth));
        assert_eq!(Model::from_bytes(&[1, 2, 3]), Err(StoredError::Encoding));
    }
}
