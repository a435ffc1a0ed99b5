//! Opens a bundle and runs it: the crate that applications link.
//!
//! ```no_run
//! use hardtack::{Bundle, Session, Tensor};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let bundle = Bundle::open("model.tack")?;
//! let mut session = Session::new(&bundle)?;
//! for input in session.inputs() {
//!     println!("takes {input}"); // takes image: f32[batch, 3, 224, 224]
//! }
//! let image = Tensor::new(&[1, 3, 224, 224], vec![0.0f32; 3 * 224 * 224]).ok_or("shape")?;
//! let outputs = session.run(&[("image", &image)])?;
//! for (name, tensor) in &outputs {
//!     println!("{name}: {:?}", tensor.shape());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [`Bundle::open`] maps the file and reads its header; weights are read from storage when a run
//! first needs them. [`Session`] runs integer programs with the engine, in an arena made once.
//! Everything else runs through tract, behind the feature `float`; a model that is one integer
//! program needs neither tract nor, with [`Session::run_into`], an allocation per run.
//!
//! [`process`] makes inputs of pictures and recordings as the bundle says, and classes of
//! outputs. [`golden::check`] tells whether this machine gives the results that the model gave
//! where it was converted.
//!
//! # Panics
//!
//! The part that runs float models, tract, panics on some malformed models. Loading and running turn
//! such a panic into an [`Error`], which takes a build whose panics unwind, as they do by default and
//! with the profile `device` of this workspace. A build with the feature `float` and
//! `panic = "abort"` ends instead: it is for bundles from trusted sources only.
//!
//! # Processes
//!
//! In a child process after `fork`, bundles and sessions of the parent can be used and dropped, and
//! new ones made, if no other thread was using them when it was forked. The threads of a session of
//! the parent are not there: what it runs, it runs on the calling thread, with the same results.
//!
//! # Features
//!
//! - `float` (default): models that are not integer throughout.
//! - `image`: JPEG and PNG for pre-processing.
//! - `audio`: WAV and spectral features for pre-processing.
//! - `export`: for the converter.

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
mod limits;
mod map;
pub mod measure;
mod model;
mod outputs;
mod port;
pub mod process;
mod processor;
mod profile;
mod session;
mod state;
mod tensor;
mod view;

pub use bundle::{Bundle, family_of, packing_of};
pub use bytes::Bytes;
pub use error::{Error, Role};
pub use hardtack_bundle::DType;
pub use hardtack_kernels::Isa;
pub use hardtack_kernels::packed::Packing;
pub use limits::{Canceller, Exceeded, Limits, Resource, Stopped};
pub use model::{Constant, Model, Program, Stored};
pub use outputs::Outputs;
pub use port::{Extent, Port, Ports, State};
pub use profile::OperationTime;
pub use session::{Options, Session};
pub use tensor::{Data, Tensor};
pub use view::{View, ViewMut};
