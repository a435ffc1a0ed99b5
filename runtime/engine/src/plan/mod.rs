//! Builds programs from tensors, steps and weights, and plans their arena.

mod builder;
mod error;
mod layers;
mod lifetime;
mod place;
mod row_tiles;
mod sparse;
mod weights;

pub use builder::{Builder, Built};
pub use error::BuildError;
pub use layers::Layer;
pub(crate) use lifetime::spans;
pub use lifetime::{Placement, Plan};
pub(crate) use place::{Lifetime, place};
pub use sparse::SparseLayer;
