//! Opens a bundle and runs it: the crate that applications link.

#![deny(unsafe_code)]

mod binding;
mod bundle;
mod bytes;
mod error;
#[cfg(feature = "float")]
pub mod float;
#[cfg(feature = "float")]
mod floating;
pub mod golden;
mod integer;
mod map;
mod model;
mod outputs;
mod port;
pub mod process;
mod profile;
mod session;
mod state;
mod tensor;
mod view;

pub use bundle::Bundle;
pub use bytes::Bytes;
pub use error::{Error, Role};
pub use hardtack_bundle::DType;
pub use hardtack_kernels::Isa;
pub use model::{Constant, Model, Program};
pub use outputs::Outputs;
pub use port::{Extent, Port, Ports, State};
pub use profile::OperationTime;
pub use session::{Options, Session};
pub use tensor::{Data, Tensor};
pub use view::{View, ViewMut};
