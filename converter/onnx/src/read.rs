//! Reads protobuf messages as a model.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use half::{bf16, f16};

use hardtack_operators::{
    Attribute, Data, Dimension, ElementType, Function, Graph, Model, Node, Problem, Tensor, Value,
    ValueInfo, ValueType, elements,
};

use crate::proto::{self, AttributeProto, AttributeType, GraphProto, NodeProto, TensorProto};

/// A model that cannot be read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages describe the fields")]
pub enum ReadError {
    #[error("the model has no graph")]
    NoGraph,
    #[error("tensor {tensor:?} {problem}")]
    Tensor { tensor: String, problem: TensorProblem },
    #[error("node {node:?}: attribute {attribute:?} has no supported type")]
    Attribute { node: String, attribute: String },
    #[error("node {node:?}: attribute {attribute:?} is not valid UTF-8")]
    Text { node: String, attribute: String },
}

/// What is wrong with a tensor in a file.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages describe the fields")]
pub enum TensorProblem {
    #[error("has the unknown element type {number}")]
    Type { number: i32 },
    #[error("has the invalid shape {dims:?}")]
    Shape { dims: Vec<i64> },
    #[error("has {found} elements or bytes, which do not match its shape {dims:?}")]
    Length { found: usize, dims: Vec<i64> },
    #[error("has data in another file, which were not read")]
    External,
    #[error("has text that is not valid UTF-8")]
    Text,
    #[error("is sparse, and its indices do not match its values or its shape")]
    Sparse,
}

/// Reads a model. Its external tensors must have been read already.
///
/// # Errors
/// Returns a [`ReadError`] for what the specification does not allow.
pub fn read(model: &proto::ModelProto) -> Result<Model, ReadError> {
    let graph = model.graph.as_ref().ok_or(ReadError::NoGraph)?;
    let functions = model.functions.iter().map(read_function).collect::<Result<_, _>>()?;
    Ok(Model { opsets: opsets(&model.opset_import), functions, graph: read_graph(graph)? })
}

/// Returns the name of a domain; the standard one has two.
fn domain(name: &str) -> String {
    if name == "ai.onnx" { String::new() } else { name.into() }
}

fn opsets(list: &[proto::OperatorSetIdProto]) -> HashMap<String, i64> {
    list.iter().map(|set| (domain(&set.domain), set.version)).collect()
}

fn read_function(function: &proto::FunctionProto) -> Result<Function, ReadError> {
    let names = |names: &[String]| {
        let info = |name: &String| ValueInfo { name: name.clone(), value_type: None };
        names.iter().map(info).collect()
    };
    let nodes = function.node.iter().map(read_node).collect::<Result<_, _>>()?;
    let body = Graph::new(names(&function.input), names(&function.output), BTreeMap::new(), nodes);
    let defaults = function.attribute_proto.iter();
    let defaults = defaults.map(|a| Ok((a.name.clone(), read_attribute(a, &function.name)?)));
    Ok(Function {
        domain: domain(&function.domain),
        name: function.name.clone(),
        overload: function.overload.clone(),
        attributes: function.attribute.clone(),
        defaults: defaults.collect::<Result<_, _>>()?,
        opsets: opsets(&function.opset_import),
        body,
    })
}

fn read_graph(graph: &GraphProto) -> Result<Graph, ReadError> {
    let mut initializers = BTreeMap::new();
    for tensor in &graph.initializer {
        initializers.insert(tensor.name.clone(), Arc::new(read_tensor(tensor)?));
    }
    for sparse in &graph.sparse_initializer {
        let name = sparse.values.as_ref().map_or("", |values| &values.name);
        initializers.insert(name.into(), Arc::new(read_sparse(sparse)?));
    }
    let infos = |infos: &[proto::ValueInfoProto]| infos.iter().map(read_info).collect();
    let nodes = graph.node.iter().map(read_node).collect::<Result<_, _>>()?;
    let mut read = Graph::new(infos(&graph.input), infos(&graph.output), initializers, nodes);
    read.value_info = infos(&graph.value_info);
    Ok(read)
}

fn read_info(info: &proto::ValueInfoProto) -> ValueInfo {
    ValueInfo { name: info.name.clone(), value_type: info.r#type.as_ref().map(read_type) }
}

fn read_type(value_type: &proto::TypeProto) -> ValueType {
    use proto::type_proto::Value as Kind;
    let inner = |element: &proto::type_proto::Element| {
        Box::new(element.elem_type.as_ref().map_or(ValueType::Other, |inner| read_type(inner)))
    };
    match &value_type.value {
        Some(Kind::TensorType(tensor) | Kind::SparseTensorType(tensor)) => {
            let Some(element) = ElementType::from_number(tensor.elem_type.into()) else {
                return ValueType::Other;
            };
            let dimension = |dim: &proto::DimensionProto| match &dim.value {
                Some(proto::dimension::Value::DimValue(size)) => {
                    usize::try_from(*size).map_or(Dimension::Unknown, Dimension::Size)
                }
                Some(proto::dimension::Value::DimParam(name)) if !name.is_empty() => {
                    Dimension::Named(name.clone())
                }
                _ => Dimension::Unknown,
            };
            let shape = tensor.shape.as_ref();
            let shape = shape.map(|shape| shape.dim.iter().map(dimension).collect());
            ValueType::Tensor { element, shape }
        }
        Some(Kind::SequenceType(element)) => ValueType::Sequence(inner(element)),
        Some(Kind::OptionalType(element)) => ValueType::Optional(inner(element)),
        Some(Kind::MapType(_)) | None => ValueType::Other,
    }
}

fn read_node(node: &NodeProto) -> Result<Node, ReadError> {
    let attributes = node.attribute.iter();
    let attributes = attributes.map(|a| Ok((a.name.clone(), read_attribute(a, &node.name)?)));
    Ok(Node {
        name: node.name.clone(),
        domain: domain(&node.domain),
        operator: node.op_type.clone(),
        overload: node.overload.clone(),
        inputs: node.input.clone(),
        outputs: node.output.clone(),
        attributes: attributes.collect::<Result<_, _>>()?,
    })
}

fn read_attribute(attribute: &AttributeProto, node: &str) -> Result<Attribute, ReadError> {
    if !attribute.ref_attr_name.is_empty() {
        return Ok(Attribute::Reference(attribute.ref_attr_name.clone()));
    }
    let unsupported =
        || ReadError::Attribute { node: node.into(), attribute: attribute.name.clone() };
    let text = |bytes: &Vec<u8>| {
        String::from_utf8(bytes.clone())
            .map_err(|_| ReadError::Text { node: node.into(), attribute: attribute.name.clone() })
    };
    Ok(match kind(attribute).ok_or_else(unsupported)? {
        AttributeType::Float => Attribute::Float(attribute.f),
        AttributeType::Int => Attribute::Int(attribute.i),
        AttributeType::String => Attribute::Text(text(&attribute.s)?),
        AttributeType::Tensor => {
            let tensor = attribute.t.as_ref().ok_or_else(unsupported)?;
            Attribute::Tensor(Arc::new(read_tensor(tensor)?))
        }
        AttributeType::SparseTensor => {
            let tensor = attribute.sparse_tensor.as_ref().ok_or_else(unsupported)?;
            Attribute::Tensor(Arc::new(read_sparse(tensor)?))
        }
        AttributeType::Graph => {
            let graph = attribute.g.as_ref().ok_or_else(unsupported)?;
            Attribute::Graph(Arc::new(read_graph(graph)?))
        }
        AttributeType::TypeProto => {
            Attribute::Type(read_type(attribute.tp.as_ref().ok_or_else(unsupported)?))
        }
        AttributeType::Floats => Attribute::Floats(attribute.floats.clone()),
        AttributeType::Ints => Attribute::Ints(attribute.ints.clone()),
        AttributeType::Strings => {
            Attribute::Texts(attribute.strings.iter().map(text).collect::<Result<_, _>>()?)
        }
        AttributeType::Tensors => {
            let tensors = attribute.tensors.iter().map(|t| read_tensor(t).map(Arc::new));
            Attribute::Tensors(tensors.collect::<Result<_, _>>()?)
        }
        AttributeType::Graphs => {
            let graphs = attribute.graphs.iter().map(|g| read_graph(g).map(Arc::new));
            Attribute::Graphs(graphs.collect::<Result<_, _>>()?)
        }
        AttributeType::SparseTensors | AttributeType::TypeProtos | AttributeType::Undefined => {
            return Err(unsupported());
        }
    })
}

/// Returns the type of an attribute. Old files do not state it, and contain only what is set.
fn kind(attribute: &AttributeProto) -> Option<AttributeType> {
    match AttributeType::try_from(attribute.r#type).ok()? {
        AttributeType::Undefined => {}
        stated => return Some(stated),
    }
    Some(if !attribute.ints.is_empty() {
        AttributeType::Ints
    } else if !attribute.floats.is_empty() {
        AttributeType::Floats
    } else if !attribute.strings.is_empty() {
        AttributeType::Strings
    } else if attribute.t.is_some() {
        AttributeType::Tensor
    } else if attribute.g.is_some() {
        AttributeType::Graph
    } else if !attribute.s.is_empty() {
        AttributeType::String
    } else if attribute.f != 0.0 {
        AttributeType::Float
    } else {
        AttributeType::Int
    })
}

/// Reads a tensor. Its data must be in the message.
///
/// # Errors
/// Returns [`ReadError::Tensor`] if its element type, shape, and data do not match.
pub fn read_tensor(tensor: &TensorProto) -> Result<Tensor, ReadError> {
    let wrong = |problem| ReadError::Tensor { tensor: tensor.name.clone(), problem };
    const EXTERNAL: i32 = 1;
    if tensor.data_location == Some(EXTERNAL) {
        return Err(wrong(TensorProblem::External));
    }
    let element = ElementType::from_number(tensor.data_type.into());
    let element = element.ok_or_else(|| wrong(TensorProblem::Type { number: tensor.data_type }))?;
    let dims = || tensor.dims.clone();
    let shape = shape(&tensor.dims).ok_or_else(|| wrong(TensorProblem::Shape { dims: dims() }))?;
    let count = elements(&shape).map_err(|_| wrong(TensorProblem::Shape { dims: dims() }))?;
    let data = match element.bits() {
        Some(bits) if !tensor.raw_data.is_empty() || count == 0 => {
            let found = tensor.raw_data.len();
            if found != (count * bits).div_ceil(8) {
                return Err(wrong(TensorProblem::Length { found, dims: dims() }));
            }
            from_bytes(element, &tensor.raw_data, count)
        }
        _ => from_fields(element, tensor, count),
    };
    let data = data.map_err(wrong)?;
    let found = data.len();
    Tensor::with_type(element, shape, data)
        .map_err(|_| wrong(TensorProblem::Length { found, dims: dims() }))
}

fn shape(dims: &[i64]) -> Option<Vec<usize>> {
    dims.iter().map(|dim| usize::try_from(*dim).ok()).collect()
}

/// Reads elements from bytes of exactly the right number.
fn from_bytes(element: ElementType, bytes: &[u8], count: usize) -> Result<Data, TensorProblem> {
    fn each<const N: usize, T>(bytes: &[u8], convert: impl Fn([u8; N]) -> T) -> Vec<T> {
        bytes.as_chunks::<N>().0.iter().map(|chunk| convert(*chunk)).collect()
    }
    let pair32 = |b: [u8; 8]| {
        let [a, b] = [[b[0], b[1], b[2], b[3]], [b[4], b[5], b[6], b[7]]];
        [f32::from_le_bytes(a), f32::from_le_bytes(b)]
    };
    let pair64 = |b: [u8; 16]| {
        let (mut low, mut high) = ([0; 8], [0; 8]);
        low.copy_from_slice(&b[..8]);
        high.copy_from_slice(&b[8..]);
        [f64::from_le_bytes(low), f64::from_le_bytes(high)]
    };
    use ElementType::*;
    Ok(match element {
        F32 => Data::F32(each(bytes, f32::from_le_bytes)),
        F64 => Data::F64(each(bytes, f64::from_le_bytes)),
        F16 => Data::F16(each(bytes, f16::from_le_bytes)),
        BF16 => Data::BF16(each(bytes, bf16::from_le_bytes)),
        I8 => Data::I8(each(bytes, i8::from_le_bytes)),
        I16 => Data::I16(each(bytes, i16::from_le_bytes)),
        I32 => Data::I32(each(bytes, i32::from_le_bytes)),
        I64 => Data::I64(each(bytes, i64::from_le_bytes)),
        U16 => Data::U16(each(bytes, u16::from_le_bytes)),
        U32 => Data::U32(each(bytes, u32::from_le_bytes)),
        U64 => Data::U64(each(bytes, u64::from_le_bytes)),
        Bool => Data::Bool(bytes.iter().map(|byte| *byte != 0).collect()),
        U8 | F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F8E8M0 => Data::U8(bytes.to_vec()),
        U4 | F4E2M1 => Data::U8(unpack(bytes, 4, count)),
        U2 => Data::U8(unpack(bytes, 2, count)),
        I4 => Data::I8(unpack(bytes, 4, count).iter().map(|v| ((v << 4) as i8) >> 4).collect()),
        I2 => Data::I8(unpack(bytes, 2, count).iter().map(|v| ((v << 6) as i8) >> 6).collect()),
        Complex64 => Data::Complex64(each(bytes, pair32)),
        Complex128 => Data::Complex128(each(bytes, pair64)),
        Text => Data::Text(Vec::new()),
    })
}

/// Returns integers that are packed into bytes, the lowest bits first.
fn unpack(bytes: &[u8], bits: usize, count: usize) -> Vec<u8> {
    let mask = (1u8 << bits) - 1;
    let of_byte = |byte: &u8| {
        (0..8 / bits).map(move |n| n * bits).map({
            let byte = *byte;
            move |shift| (byte >> shift) & mask
        })
    };
    bytes.iter().flat_map(of_byte).take(count).collect()
}

/// Reads elements from the typed field of a tensor without raw data.
fn from_fields(
    element: ElementType,
    tensor: &TensorProto,
    count: usize,
) -> Result<Data, TensorProblem> {
    let ints = &tensor.int32_data;
    let bytes = || ints.iter().map(|v| *v as u8).collect::<Vec<u8>>();
    use ElementType::*;
    Ok(match element {
        F32 => Data::F32(tensor.float_data.clone()),
        F64 => Data::F64(tensor.double_data.clone()),
        F16 => Data::F16(ints.iter().map(|v| f16::from_bits(*v as u16)).collect()),
        BF16 => Data::BF16(ints.iter().map(|v| bf16::from_bits(*v as u16)).collect()),
        I8 => Data::I8(ints.iter().map(|v| *v as i8).collect()),
        I16 => Data::I16(ints.iter().map(|v| *v as i16).collect()),
        I32 => Data::I32(ints.clone()),
        I64 => Data::I64(tensor.int64_data.clone()),
        U16 => Data::U16(ints.iter().map(|v| *v as u16).collect()),
        U32 => Data::U32(tensor.uint64_data.iter().map(|v| *v as u32).collect()),
        U64 => Data::U64(tensor.uint64_data.clone()),
        Bool => Data::Bool(ints.iter().map(|v| *v != 0).collect()),
        U8 | F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F8E8M0 => Data::U8(bytes()),
        U4 | I4 | F4E2M1 | U2 | I2 => {
            let bits = element.bits().unwrap_or(8);
            if ints.len() != (count * bits).div_ceil(8) {
                let dims = tensor.dims.clone();
                return Err(TensorProblem::Length { found: ints.len(), dims });
            }
            from_bytes(element, &bytes(), count)?
        }
        Complex64 => Data::Complex64(tensor.float_data.as_chunks().0.to_vec()),
        Complex128 => Data::Complex128(tensor.double_data.as_chunks().0.to_vec()),
        Text => {
            let texts = tensor.string_data.iter().map(|bytes| String::from_utf8(bytes.clone()));
            Data::Text(texts.collect::<Result<_, _>>().map_err(|_| TensorProblem::Text)?)
        }
    })
}

/// Reads a sparse tensor as a dense one.
fn read_sparse(sparse: &proto::SparseTensorProto) -> Result<Tensor, ReadError> {
    let name = sparse.values.as_ref().map_or("", |values| &values.name);
    let wrong = |problem| ReadError::Tensor { tensor: name.into(), problem };
    let missing = || wrong(TensorProblem::Sparse);
    let values = read_tensor(sparse.values.as_ref().ok_or_else(missing)?)?;
    let places = read_tensor(sparse.indices.as_ref().ok_or_else(missing)?)?;
    let shape = shape(&sparse.dims);
    let shape = shape.ok_or_else(|| wrong(TensorProblem::Shape { dims: sparse.dims.clone() }))?;
    let dense = || -> Result<Tensor, Problem> {
        let count = elements(&shape)?;
        let places_of = places.to_i64()?;
        let bad = || Problem::Invalid(String::new());
        let offsets: Vec<usize> = match places.shape() {
            [n] if *n == values.len() => {
                places_of.iter().map(|v| usize::try_from(*v).map_err(|_| bad())).collect()
            }
            [n, rank] if *n == values.len() && *rank == shape.len() => {
                let strides: Vec<usize> =
                    (0..*rank).map(|axis| shape[axis + 1..].iter().product()).collect();
                let offset = |index: &[i64]| {
                    let mut offset = 0usize;
                    for ((i, size), stride) in index.iter().zip(&shape).zip(&strides) {
                        let i = usize::try_from(*i).ok().filter(|i| i < size).ok_or_else(bad)?;
                        offset += i * stride;
                    }
                    Ok(offset)
                };
                places_of.chunks_exact((*rank).max(1)).map(offset).collect()
            }
            _ => Err(bad()),
        }?;
        // One more element, the zero that fills the rest.
        let zeros = Tensor::from_i128(values.element(), vec![1], vec![0]);
        let mut sources = vec![values.len(); count];
        for (source, offset) in offsets.into_iter().enumerate() {
            *sources.get_mut(offset).ok_or_else(bad)? = source;
        }
        let with_zero = values.followed_by(&zeros?)?;
        with_zero.select(shape.clone(), sources.into_iter())
    };
    dense().map_err(|_| wrong(TensorProblem::Sparse))
}

/// Reads a value of the files that accompany ONNX's own tests.
///
/// # Errors
/// Returns a [`ReadError`] as [`read_tensor`] does.
pub fn read_value(
    sequence: Option<&proto::SequenceProto>,
    optional: Option<&proto::OptionalProto>,
) -> Result<Value, ReadError> {
    if let Some(optional) = optional {
        let inner = match (&optional.tensor_value, &optional.sequence_value) {
            (Some(tensor), _) => Some(Value::from(read_tensor(tensor)?)),
            (None, Some(sequence)) => Some(read_value(Some(sequence), None)?),
            (None, None) => None,
        };
        return Ok(Value::Optional(inner.map(Arc::new)));
    }
    let Some(sequence) = sequence else { return Ok(Value::Optional(None)) };
    let mut values = Vec::new();
    for tensor in &sequence.tensor_values {
        values.push(Value::from(read_tensor(tensor)?));
    }
    for inner in &sequence.sequence_values {
        values.push(read_value(Some(inner), None)?);
    }
    for inner in &sequence.optional_values {
        values.push(read_value(None, Some(inner))?);
    }
    Ok(Value::from(values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_integers_are_unpacked() {
        let tensor = TensorProto {
            dims: vec![3],
            data_type: ElementType::I4.number(),
            raw_data: vec![0x7f, 0x08],
            ..TensorProto::default()
        };
        assert_eq!(read_tensor(&tensor).unwrap().data(), &Data::I8(vec![-1, 7, -8]));
        let tensor = TensorProto {
            dims: vec![5],
            data_type: ElementType::U2.number(),
            int32_data: vec![0b1110_0100, 2],
            ..TensorProto::default()
        };
        assert_eq!(read_tensor(&tensor).unwrap().data(), &Data::U8(vec![0, 1, 2, 3, 2]));
    }

    #[test]
    fn data_must_match_the_shape() {
        for (dims, raw) in [(vec![3], 8), (vec![-1], 4), (vec![i64::MAX, 8], 4), (vec![0], 4)] {
            let tensor = TensorProto {
                dims,
                data_type: 1,
                raw_data: vec![0; raw],
                ..TensorProto::default()
            };
            assert!(matches!(read_tensor(&tensor), Err(ReadError::Tensor { .. })));
        }
    }

    #[test]
    fn sparse_tensors_become_dense() {
        let values = TensorProto {
            dims: vec![2],
            data_type: 1,
            float_data: vec![5.0, 7.0],
            ..TensorProto::default()
        };
        let places = |dims: Vec<i64>, int64_data: Vec<i64>| TensorProto {
            dims,
            data_type: 7,
            int64_data,
            ..TensorProto::default()
        };
        for indices in [places(vec![2], vec![1, 5]), places(vec![2, 2], vec![0, 1, 1, 2])] {
            let sparse = proto::SparseTensorProto {
                values: Some(values.clone()),
                indices: Some(indices),
                dims: vec![2, 3],
            };
            let expected = Tensor::new(vec![2, 3], vec![0f32, 5.0, 0.0, 0.0, 0.0, 7.0]);
            assert_eq!(read_sparse(&sparse).ok(), expected.ok());
        }
        let outside = proto::SparseTensorProto {
            values: Some(values),
            indices: Some(places(vec![2, 2], vec![0, 3, 1, 2])),
            dims: vec![2, 3],
        };
        assert!(read_sparse(&outside).is_err());
    }
}
