//! The golden section: inputs and their expected outputs, read in place.
//!
//! All numbers are little-endian. Every part starts at a multiple of 8 bytes from the start of
//! the section, with zeros as padding. The section begins with the number of cases. Each case
//! has the number of its inputs and outputs, followed by those tensors. See `FORMAT.md`.

#[cfg(feature = "alloc")]
mod build;
mod content;
mod read;

#[cfg(feature = "alloc")]
pub use build::{GoldenBuilder, GoldenTensor};
pub use content::{Content, Generator};
pub use read::{Case, Golden, Vector};

/// Size in bytes of the section's header, and of a case's header.
const HEAD_BYTES: usize = 8;
/// Size in bytes of a tensor's header. The dimensions, name and elements follow it.
const TENSOR_BYTES: usize = 16;
/// Bit of the rank byte that marks a tensor with generated elements.
const GENERATED: u8 = 0x80;
/// Bit of the rank byte that marks a tensor of which only a strided sample is stored.
const SAMPLED: u8 = 0x40;
/// Every part starts at a multiple of this many bytes.
const PART_ALIGNMENT: usize = 8;
