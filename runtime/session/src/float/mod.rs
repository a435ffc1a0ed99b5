//! The adapter to tract. It converts graphs of the bundle's operators to tract models and, for the
//! converter, back. No other module of the runtime depends on tract.
//!
//! `FloatModel::load` checks a `Model`, and `FloatModel::plan` prepares it for
//! given input shapes. With the feature `export`, `save` converts a tract model to a
//! `Model`, `prepare` simplifies a model ahead of time, and `evaluate`
//! evaluates single nodes.

mod budget;
pub mod custom_ops;
mod dims;
mod elements;
mod error;
#[cfg(feature = "export")]
mod evaluate;
mod fold;
#[cfg(test)]
mod hostile;
mod load;
mod measure;
mod memory;
mod optimize;
mod plan;
mod run;
#[cfg(feature = "export")]
mod save;
mod tensors;
mod translate;
mod twins;
mod value_size;
pub mod work;

pub use error::Error;
#[cfg(feature = "export")]
pub use evaluate::{evaluate, prepare};
#[cfg(feature = "export")]
pub use plan::ObservedPlan;
pub use plan::{FloatModel, FloatPlan, NodeTime};
#[cfg(feature = "export")]
pub use save::{NonIntegerNode, save, save_with};
