//! The adapter to tract: graphs of the operator table become tract models, and, for the
//! converter, back. Nothing else in the runtime names tract.
//!
//! [`FloatModel::load`] checks a [`Model`](crate::Model) and [`FloatModel::plan`] makes it
//! runnable for given input shapes. With the feature `export`, [`save`] is the way back,
//! [`prepare`] simplifies a model ahead of time, and [`evaluate`] computes single nodes.

mod dims;
mod error;
#[cfg(feature = "export")]
mod evaluate;
#[cfg(test)]
mod hostile;
mod load;
mod memory;
mod operators;
pub mod ops;
mod optimize;
mod plan;
mod run;
#[cfg(feature = "export")]
mod save;
mod tensors;
mod twins;
pub mod work;

pub use error::Error;
#[cfg(feature = "export")]
pub use evaluate::{evaluate, prepare};
#[cfg(feature = "export")]
pub use plan::ObservedPlan;
pub use plan::{FloatModel, FloatPlan, NodeTime};
#[cfg(feature = "export")]
pub use save::{Foreign, save, save_with};
