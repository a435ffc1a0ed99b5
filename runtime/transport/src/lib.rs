//! The transport form of a bundle: the same bytes, near their entropy.
//!
//! A transport file (`.tackz`) is specified in `FORMAT.md` beside this crate. [`unpack`] makes the
//! bundle of it again while it arrives, byte for byte, and verifies it on the way: without `std`,
//! without an allocator, and with [`Memory`] of 34 KiB. Its arithmetic is in integers, so that it
//! gives the same bytes on every machine. Feature `alloc` adds `pack`.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "alloc")]
extern crate alloc;

mod block;
mod bound;
mod bytes;
mod coder;
mod counter;
mod history;
mod logistic;
#[cfg(feature = "alloc")]
mod pack;
mod prior;
mod sparse;
mod unpack;
mod weights;

pub use bound::{BYTES_FREE, BYTES_PER_BYTE, most_bytes};
#[cfg(feature = "alloc")]
pub use pack::{PackError, pack};
pub use unpack::{
    DEFAULT_LIMIT, Memory, UnpackError, UnpackOptions, unpack, unpack_in, unpack_with,
};

/// The first eight bytes of every transport file, made as those of a bundle are.
pub const MAGIC: [u8; 8] = *b"\x89TACZ\r\n\x1a";

/// The last version that this crate reads and writes; it reads those before it too.
pub const VERSION: u16 = 2;
/// The first version, which is that of every file without sparse weights.
const FIRST_VERSION: u16 = 1;

/// Most sections of a bundle that has a transport form.
pub const MAX_SECTIONS: usize = 32;

/// Bytes before the header of the bundle.
const HEAD_BYTES: usize = 12;
/// Bytes of the header of a bundle.
const BUNDLE_HEADER_BYTES: usize = 64;
