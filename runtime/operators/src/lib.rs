#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(unreachable_pub)]

mod call;
mod element_type;
mod error;
mod evaluate;
mod meter;
mod model;
mod narrow;
mod numbers;
mod operators;
mod shape;
mod stored;
mod tensor;
mod value;

pub use element_type::ElementType;
pub use error::{Error, Problem};
pub use evaluate::{NoObserver, Observer};
pub use meter::Limits;
pub use model::{Attribute, Dimension, Function, Graph, Model, Node, ValueInfo, ValueType};
pub use operators::{is_known, refusal};
pub use shape::elements;
pub use stored::StoredError;
pub use tensor::{Data, Element, Tensor};
pub use value::Value;
