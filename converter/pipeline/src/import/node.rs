//! Accessors and constructors of protobuf nodes and attributes.

use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::{AttributeProto, NodeProto, TensorProto};

use crate::import::ImportError;

/// Accessors of a node.
pub(crate) trait Node {
    /// Returns the node's name, or the name of its first output if it has none.
    fn label(&self) -> &str;
    /// Returns the operator, preceded by its domain if that is not the standard one.
    fn operator(&self) -> String;
    /// Returns the name of an input, or `None` if it is omitted.
    fn given(&self, index: usize) -> Option<&str>;
    /// Returns the name of an output, or `None` if it is omitted.
    fn wanted(&self, index: usize) -> Option<&str>;
    /// Returns an attribute.
    fn attribute(&self, name: &str) -> Option<&AttributeProto>;
    /// Returns an integer attribute.
    fn int(&self, name: &str) -> Option<i64>;
    /// Returns a float attribute.
    fn float(&self, name: &str) -> Option<f32>;
    /// Returns a string attribute.
    fn text(&self, name: &str) -> Option<&str>;
    /// Returns a list of integers; empty if absent.
    fn ints(&self, name: &str) -> &[i64];
    /// Returns a list of floats; empty if absent.
    fn floats(&self, name: &str) -> &[f32];
    /// Returns a list of strings; empty if absent.
    fn texts(&self, name: &str) -> Vec<String>;
    /// Returns a tensor attribute.
    fn tensor(&self, name: &str) -> Option<&TensorProto>;
    /// Returns an error for this node.
    fn wrong(&self, problem: impl Into<String>) -> ImportError;
}

impl Node for NodeProto {
    fn label(&self) -> &str {
        if self.name.is_empty() {
            self.output.first().map_or("", String::as_str)
        } else {
            &self.name
        }
    }

    fn operator(&self) -> String {
        match self.domain.as_str() {
            "" | "ai.onnx" => self.op_type.clone(),
            domain => format!("{domain}::{}", self.op_type),
        }
    }

    fn given(&self, index: usize) -> Option<&str> {
        self.input.get(index).map(String::as_str).filter(|name| !name.is_empty())
    }

    fn wanted(&self, index: usize) -> Option<&str> {
        self.output.get(index).map(String::as_str).filter(|name| !name.is_empty())
    }

    fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.attribute.iter().find(|attribute| attribute.name == name)
    }

    fn int(&self, name: &str) -> Option<i64> {
        self.attribute(name).map(|attribute| attribute.i)
    }

    fn float(&self, name: &str) -> Option<f32> {
        self.attribute(name).map(|attribute| attribute.f)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.attribute(name).and_then(|attribute| std::str::from_utf8(&attribute.s).ok())
    }

    fn ints(&self, name: &str) -> &[i64] {
        self.attribute(name).map_or(&[], |attribute| &attribute.ints)
    }

    fn floats(&self, name: &str) -> &[f32] {
        self.attribute(name).map_or(&[], |attribute| &attribute.floats)
    }

    fn texts(&self, name: &str) -> Vec<String> {
        self.attribute(name).map_or_else(Vec::new, |attribute| {
            attribute.strings.iter().map(|s| String::from_utf8_lossy(s).into_owned()).collect()
        })
    }

    fn tensor(&self, name: &str) -> Option<&TensorProto> {
        self.attribute(name).and_then(|attribute| attribute.t.as_ref())
    }

    fn wrong(&self, problem: impl Into<String>) -> ImportError {
        ImportError::Node {
            node: self.label().into(),
            operator: self.operator(),
            problem: problem.into(),
        }
    }
}

/// Creates an integer attribute.
pub(crate) fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: AttributeType::Int as i32,
        i: value,
        ..AttributeProto::default()
    }
}

/// Creates a float attribute.
pub(crate) fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: AttributeType::Float as i32,
        f: value,
        ..AttributeProto::default()
    }
}

/// Creates a string attribute.
pub(crate) fn text(name: &str, value: &str) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: AttributeType::String as i32,
        s: value.into(),
        ..AttributeProto::default()
    }
}

/// Creates an attribute with a list of integers.
pub(crate) fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: AttributeType::Ints as i32,
        ints: values.into(),
        ..AttributeProto::default()
    }
}

/// Creates an attribute with a list of floats.
#[cfg(test)]
pub(crate) fn floats(name: &str, values: &[f32]) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: AttributeType::Floats as i32,
        floats: values.into(),
        ..AttributeProto::default()
    }
}

/// Creates a tensor attribute.
pub(crate) fn tensor(name: &str, value: TensorProto) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: AttributeType::Tensor as i32,
        t: Some(value),
        ..AttributeProto::default()
    }
}
