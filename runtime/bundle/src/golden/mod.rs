//! The golden section: inputs with the outputs they must give, read where they lie.
//!
//! All numbers are little-endian, and everything starts at a multiple of 8 bytes from the start
//! of the section, with zeros between. The section begins with the number of cases; each case
//! is the numbers of its inputs and outputs, followed by those tensors. See `FORMAT.md`.

#[cfg(feature = "alloc")]
mod build;
mod content;
mod read;

#[cfg(feature = "alloc")]
pub use build::{GoldenBuilder, GoldenTensor};
pub use content::{Content, Generator};
pub use read::{Case, Golden, Vector};

/// Bytes of the section's head, and of a case's head.
const HEAD_BYTES: usize = 8;
/// Bytes of a tensor's head; its dimensions, name and elements follow.
const TENSOR_BYTES: usize = 16;
/// Bit of the rank byte that says that the elements are generated.
const GENERATED: u8 = 0x80;
/// Bit of the rank byte that says that only every so many elements are stored.
const SAMPLED: u8 = 0x40;
/// Every part starts at a multiple of this.
const PART_ALIGNMENT: usize = 8;
