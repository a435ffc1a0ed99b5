//! Reading and making nodes.

use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::{AttributeProto, NodeProto, TensorProto};

use crate::import::ImportError;

/// What rewrites ask a node.
pub trait Node {
    /// The node's name, or its first output's where it has none.
    fn label(&self) -> &str;
    /// The operator, after its domain where that is not the standard one.
    fn operator(&self) -> String;
    /// The name of an input that is given.
    fn given(&self, index: usize) -> Option<&str>;
    /// The name of an output that is wanted.
    fn wanted(&self, index: usize) -> Option<&str>;
    /// An attribute.
    fn attribute(&self, name: &str) -> Option<&AttributeProto>;
    /// An integer attribute.
    fn int(&self, name: &str) -> Option<i64>;
    /// A real attribute.
    fn float(&self, name: &str) -> Option<f32>;
    /// A text attribute.
    fn text(&self, name: &str) -> Option<&str>;
    /// A list of integers; empty if absent.
    fn ints(&self, name: &str) -> &[i64];
    /// A list of real numbers; empty if absent.
    fn floats(&self, name: &str) -> &[f32];
    /// A list of texts; empty if absent.
    fn texts(&self, name: &str) -> Vec<String>;
    /// A tensor attribute.
    fn tensor(&self, name: &str) -> Option<&TensorProto>;
    /// An error about this node.
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

/// An integer attribute.
pub fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: AttributeType::Int as i32,
        i: value,
        ..AttributeProto::default()
    }
}

/// A real attribute.
pub fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: AttributeType::Float as i32,
        f: value,
        ..AttributeProto::default()
    }
}

/// A text attribute.
pub fn text(name: &str, value: &str) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: AttributeType::String as i32,
        s: value.into(),
        ..AttributeProto::default()
    }
}

/// A list of integers.
pub fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: AttributeType::Ints as i32,
        ints: values.into(),
        ..AttributeProto::default()
    }
}

/// A tensor attribute.
pub fn tensor(name: &str, value: TensorProto) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: AttributeType::Tensor as i32,
        t: Some(value),
        ..AttributeProto::default()
    }
}
