//! The graph of a model: its constants, shapes, channels, inputs and outputs, and how it is
//! rewritten.

pub(crate) mod channels;
pub(crate) mod constants;
pub(crate) mod io;
pub(crate) mod rewriter;
pub(crate) mod shape;
pub(crate) mod summary;

use hardtack_bundle::graph::Outlet;

/// Returns the first output of a node.
pub(crate) fn first_output(index: usize) -> Outlet {
    Outlet { node: index as u32, slot: 0 }
}
