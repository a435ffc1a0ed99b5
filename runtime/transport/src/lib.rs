//! Compressed bundles: the same bytes, entropy-coded for transfer.
//!
//! `FORMAT.md` in this crate's folder specifies compressed bundles (`.tackz`). [`unpack`]
//! decompresses a bundle while it arrives, byte for byte, and verifies it. It needs neither `std`
//! nor an allocator, only [`Memory`] of 34 KiB. Its arithmetic uses integers, so the result is the
//! same on every machine. The feature `alloc` adds `pack`, which compresses a bundle.
//!
//! Compress a bundle, with the feature `alloc`, and decompress it:
//!
//! ```
//! # #[cfg(feature = "alloc")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
//! # std::env::set_current_dir(folder)?;
//! let bundle = std::fs::read("kws_dscnn.tack")?;
//! let compressed = hardtack_transport::pack(&bundle)?;
//! assert!(compressed.len() < bundle.len());
//!
//! let mut decompressed = Vec::new();
//! let summary = hardtack_transport::unpack(&compressed[..], &mut decompressed)?;
//! assert_eq!(decompressed, bundle);
//! assert_eq!(summary.length, bundle.len() as u64);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "alloc"))]
//! # fn main() {}
//! ```
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

/// The magic number: the first eight bytes of every compressed bundle. It has the same form as
/// that of a bundle.
pub const MAGIC: [u8; 8] = *b"\x89TACZ\r\n\x1a";

/// The newest version of the compressed format that this crate writes. It reads all older versions.
pub const VERSION: u16 = 2;
/// The first version. Files without blocks of sparse weights have this version.
const FIRST_VERSION: u16 = 1;

/// The maximum number of sections of a bundle that can be compressed.
pub const MAX_SECTIONS: usize = 32;

/// Number of bytes before the header of the bundle.
const HEAD_BYTES: usize = 12;
/// Size of the bundle's header in bytes.
const BUNDLE_HEADER_BYTES: usize = 64;
