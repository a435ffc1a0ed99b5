//! A call of an operator: a node with its operands, and typed access to both.

use std::sync::Arc;

use crate::error::Problem;
use crate::evaluate::Frame;
use crate::model::{Attribute, Graph, Node, ValueType};
use crate::operators;
use crate::tensor::Tensor;
use crate::value::Value;

/// An implementation of an operator. It returns at least the outputs that the node names.
pub(crate) type Operator = fn(&Call<'_>) -> Result<Vec<Value>, Problem>;

/// A node to be evaluated.
pub(crate) struct Call<'a> {
    /// The node.
    pub(crate) node: &'a Node,
    /// The version of the operator set that defines the operator.
    pub(crate) version: i64,
    /// The operands; `None` for an omitted one.
    pub(crate) inputs: Vec<Option<Value>>,
    /// The values that subgraphs can read.
    pub(crate) frame: &'a Frame<'a>,
}

impl Call<'_> {
    /// Returns the number of inputs, omitted ones included.
    pub(crate) fn len(&self) -> usize {
        self.inputs.len()
    }

    /// Returns an operand that may be omitted.
    pub(crate) fn optional(&self, index: usize) -> Option<&Value> {
        self.inputs.get(index)?.as_ref()
    }

    /// Returns an operand.
    pub(crate) fn value(&self, index: usize) -> Result<&Value, Problem> {
        self.optional(index).ok_or(Problem::MissingInput { index })
    }

    /// Returns an operand that is a tensor.
    pub(crate) fn tensor(&self, index: usize) -> Result<&Tensor, Problem> {
        self.value(index)?.tensor()
    }

    /// Returns a tensor that may be omitted.
    pub(crate) fn optional_tensor(&self, index: usize) -> Result<Option<&Tensor>, Problem> {
        self.optional(index).map(Value::tensor).transpose()
    }

    /// Returns all operands as tensors; none may be omitted.
    pub(crate) fn tensors(&self) -> Result<Vec<&Tensor>, Problem> {
        (0..self.len()).map(|index| self.tensor(index)).collect()
    }

    /// Returns the elements of an optional integer operand, such as axes.
    pub(crate) fn optional_ints(&self, index: usize) -> Result<Option<Vec<i64>>, Problem> {
        self.optional_tensor(index)?.map(Tensor::to_i64).transpose()
    }

    /// Returns whether the node names an output.
    pub(crate) fn wants(&self, output: usize) -> bool {
        self.node.outputs.get(output).is_some_and(|name| !name.is_empty())
    }

    /// Returns an attribute.
    pub(crate) fn attribute(&self, name: &str) -> Option<&Attribute> {
        match self.node.attributes.get(name)? {
            Attribute::Reference(outer) => self.frame.attribute(outer),
            attribute => Some(attribute),
        }
    }

    fn wrong(name: &str, wanted: &'static str) -> Problem {
        Problem::AttributeType { name: name.into(), wanted }
    }

    /// Returns an integer attribute.
    pub(crate) fn int(&self, name: &str) -> Result<Option<i64>, Problem> {
        match self.attribute(name) {
            None => Ok(None),
            Some(Attribute::Int(value)) => Ok(Some(*value)),
            Some(_) => Err(Self::wrong(name, "an integer")),
        }
    }

    /// Returns an integer attribute with a default value.
    pub(crate) fn int_or(&self, name: &str, default: i64) -> Result<i64, Problem> {
        Ok(self.int(name)?.unwrap_or(default))
    }

    /// Returns whether an integer attribute is not 0.
    pub(crate) fn flag(&self, name: &str, default: bool) -> Result<bool, Problem> {
        Ok(self.int(name)?.map_or(default, |value| value != 0))
    }

    /// Returns a float attribute.
    pub(crate) fn float(&self, name: &str) -> Result<Option<f32>, Problem> {
        match self.attribute(name) {
            None => Ok(None),
            Some(Attribute::Float(value)) => Ok(Some(*value)),
            Some(_) => Err(Self::wrong(name, "a float")),
        }
    }

    /// Returns a float attribute with a default value.
    pub(crate) fn float_or(&self, name: &str, default: f32) -> Result<f32, Problem> {
        Ok(self.float(name)?.unwrap_or(default))
    }

    /// Returns a string attribute.
    pub(crate) fn text(&self, name: &str) -> Result<Option<&str>, Problem> {
        match self.attribute(name) {
            None => Ok(None),
            Some(Attribute::Text(value)) => Ok(Some(value)),
            Some(_) => Err(Self::wrong(name, "a string")),
        }
    }

    /// Returns a list of integers.
    pub(crate) fn ints(&self, name: &str) -> Result<Option<&[i64]>, Problem> {
        match self.attribute(name) {
            None => Ok(None),
            Some(Attribute::Ints(values)) => Ok(Some(values)),
            Some(_) => Err(Self::wrong(name, "a list of integers")),
        }
    }

    /// Returns a list of floats.
    pub(crate) fn floats(&self, name: &str) -> Result<Option<&[f32]>, Problem> {
        match self.attribute(name) {
            None => Ok(None),
            Some(Attribute::Floats(values)) => Ok(Some(values)),
            // An empty list is stored without a type by some exporters.
            Some(Attribute::Ints(values)) if values.is_empty() => Ok(Some(&[])),
            Some(_) => Err(Self::wrong(name, "a list of floats")),
        }
    }

    /// Returns a list of strings.
    pub(crate) fn texts(&self, name: &str) -> Result<Option<&[String]>, Problem> {
        match self.attribute(name) {
            None => Ok(None),
            Some(Attribute::Texts(values)) => Ok(Some(values)),
            Some(_) => Err(Self::wrong(name, "a list of strings")),
        }
    }

    /// Returns a tensor attribute.
    pub(crate) fn tensor_attribute(&self, name: &str) -> Result<Option<&Arc<Tensor>>, Problem> {
        match self.attribute(name) {
            None => Ok(None),
            Some(Attribute::Tensor(value)) => Ok(Some(value)),
            Some(_) => Err(Self::wrong(name, "a tensor")),
        }
    }

    /// Returns a type attribute.
    pub(crate) fn type_attribute(&self, name: &str) -> Result<Option<&ValueType>, Problem> {
        match self.attribute(name) {
            None => Ok(None),
            Some(Attribute::Type(value)) => Ok(Some(value)),
            Some(_) => Err(Self::wrong(name, "a type")),
        }
    }

    /// Returns a graph attribute, which must exist.
    pub(crate) fn graph(&self, name: &'static str) -> Result<&Graph, Problem> {
        match self.attribute(name) {
            None => Err(Problem::MissingAttribute { name }),
            Some(Attribute::Graph(graph)) => Ok(graph),
            Some(_) => Err(Self::wrong(name, "a graph")),
        }
    }

    /// Evaluates a subgraph with values for its inputs, and returns its outputs.
    pub(crate) fn run(&self, graph: &Graph, inputs: Vec<Value>) -> Result<Vec<Value>, Problem> {
        self.frame.run_subgraph(graph, inputs)
    }

    /// Evaluates another operator of the standard domain, to define this one by it. `version` is
    /// that of the operator set.
    pub(crate) fn apply(
        &self,
        operator: &str,
        version: i64,
        inputs: Vec<Option<Value>>,
        attributes: &[(&str, Attribute)],
    ) -> Result<Vec<Value>, Problem> {
        let attributes = attributes.iter().map(|(name, value)| (name.to_string(), value.clone()));
        let node = Node {
            name: self.node.name.clone(),
            operator: operator.into(),
            outputs: vec![String::from("output")],
            attributes: attributes.collect(),
            ..Node::default()
        };
        let function = operators::find("", operator).ok_or(Problem::UnknownOperator { version })?;
        function(&Call { node: &node, version, inputs, frame: self.frame })
    }
}
