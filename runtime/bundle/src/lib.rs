//! The Hardtack bundle: its file format, its manifest and its operator table.
//!
//! A bundle is one file (`.tack`) that holds everything a device needs to run a model.
//! `FORMAT.md` in this crate's folder specifies the bytes. Reading needs neither `std` nor an
//! allocator. One feature adds more:
//!
//! - `alloc`: the writer and the graph.
//!
//! [`Bundle::parse`] opens a bundle in memory. It reads only the header and the section table.
//! [`Bundle::verify`] reads the whole bundle, checks every digest and returns a [`Verified`].
//! [`StreamVerifier`] makes the same checks while a bundle arrives in chunks.
//!
//! ```
//! use hardtack_bundle::{Bundle, Error};
//!
//! fn describe(file: &[u8]) -> Result<(), Error> {
//!     let bundle = Bundle::parse(file)?.verify()?;
//!     println!("{} {}", bundle.manifest()?.name, bundle.root());
//!     for section in bundle.sections() {
//!         println!("{}: {} bytes", section.kind, section.bytes.len());
//!     }
//!     Ok(())
//! }
//! assert!(describe(b"not a bundle").is_err());
//! ```
#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "alloc")]
extern crate alloc;

mod bundle;
mod default;
mod digest;
mod dtype;
mod error;
pub mod golden;
#[cfg(feature = "alloc")]
pub mod graph;
mod header;
mod labels;
pub mod manifest;
pub mod process;
mod readings;
mod section;
mod stream;
mod table;
#[cfg(feature = "alloc")]
mod write;

pub use bundle::{Bundle, Verified};
pub use default::{Defaults, InputDefault};
pub use digest::Digest;
pub use dtype::DType;
pub use error::Error;
pub use golden::Golden;
pub use header::{ALIGNMENT, FORMAT_VERSION, FormatVersion, MAGIC, MAX_SECTIONS, SLACK};
pub use labels::Labels;
pub use manifest::Manifest;
pub use readings::Readings;
pub use section::{Family, Section, SectionKind};
pub use stream::{StreamError, StreamVerifier, Summary, verify_stream};
#[cfg(feature = "alloc")]
pub use write::{Sealed, WriteError, Writer};
