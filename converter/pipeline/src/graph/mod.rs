//! The graph of a model: its constants, shapes, channels, inputs and outputs, and how it is
//! rewritten.

pub(crate) mod channels;
pub(crate) mod constants;
pub(crate) mod io;
pub(crate) mod rewriter;
pub(crate) mod shape;
pub(crate) mod summary;

use hardtack_bundle::graph::ValueId;

/// Returns the first output of a node.
pub(crate) fn first_output(index: usize) -> ValueId {
    ValueId { node: index as u32, output: 0 }
}
