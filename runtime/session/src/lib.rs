#![doc = include_str!("../README.md")]
//!
//! # How it runs
//!
//! [`Bundle::open`] maps the file and reads its header. Weights are read from storage when they are
//! first used. [`Session`] runs integer programs with the engine, in an arena that it allocates
//! once. Everything else runs on f32 kernels or through tract, behind the feature `float`. A model
//! that is a single integer program needs neither, and [`Session::run_into`] runs it without
//! allocating.
//!
//! [`process`] turns images and audio into model inputs as the bundle describes, and turns outputs
//! into class scores. [`golden::check`] checks that this machine reproduces the outputs that were
//! recorded at conversion.
//!
//! # Panics
//!
//! tract, which runs float models, panics on some malformed models. Loading and running convert
//! such a panic into an [`Error`]. This requires panics that unwind: the default, and the setting
//! of this workspace's `device` profile. With the feature `float` and `panic = "abort"`, such a
//! model aborts the process; use that combination only for bundles from trusted sources.
//!
//! # Processes
//!
//! A child process created by `fork` can use and drop its parent's bundles and sessions, and create
//! new ones, if no other thread was using them at the time of the fork. The worker threads of a
//! parent's session do not exist in the child: the session runs on the calling thread instead, with
//! the same results.

#![deny(unsafe_code)]

mod backend;
mod binding;
mod bundle;
mod bytes;
mod error;
#[cfg(feature = "float")]
#[doc(hidden)]
pub mod float;
#[cfg(feature = "float")]
mod floating;
pub mod golden;
mod integer_model;
mod integer_run;
mod limits;
mod map;
pub mod measure;
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
pub use limits::{Canceller, Exceeded, Limits, Resource, Stopped};
pub use outputs::Outputs;
pub use port::{Extent, Port, Ports, State};
pub use profile::OperationTime;
pub use session::{Session, SessionOptions};
pub use tensor::{Data, ShapeError, Tensor};
pub use view::{View, ViewMut};

/// The parts of a bundle in memory, for the converter and the command. No part of the stable
/// interface.
#[doc(hidden)]
pub mod internal {
    pub use hardtack_kernels::packed::Packing;

    pub use crate::bundle::{family_of, packing_of};
    pub use crate::model::{Constant, Model, Program, Stored};
}

/// Compiles the example of the workspace's README.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
