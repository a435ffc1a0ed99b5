//! Nodes that the bundle's evaluator of ONNX operators runs, because neither the operator table nor
//! tract covers them.
//!
//! The model is read a second time, independently of tract, and evaluated on synthetic inputs
//! ([`trace`]). The trace shows the types and shapes of all values, and the values that do not
//! depend on the inputs. Such values become initializers ([`fold`]), which decides the branches of
//! `If` and the shapes that are computed. Nodes that tract cannot read become nodes of this crate's
//! own operator [`EVALUATE`](super::operators::EVALUATE) ([`emit`]).

mod dependence;
mod emit;
mod fit;
mod fold;
mod partition;
mod source;
mod synthetic;
mod trace;

pub(crate) use dependence::is_needed;
pub(crate) use emit::{replace_all, replace_unsupported, widen_types};
pub(crate) use fold::{densify, fold};
pub(crate) use source::{load, read};
pub(crate) use trace::trace;
