//! The C interface: opens and runs bundles from any language.
//!
//! cbindgen generates `include/hardtack.h` from this crate, and a test checks that the two match.
//! The rules of the interface:
//!
//! - Handles are opaque, and the caller frees them. The sessions of a bundle remain usable after
//!   the bundle is freed.
//! - A function that can fail returns a [`HardtackStatus`]. If it fails, it writes nothing, and
//!   [`hardtack_last_error`] on the same thread returns the reason.
//! - A null pointer for a required argument, an unaligned pointer, a handle of another kind, and
//!   outputs that share memory are errors and do not crash. So is a freed handle in most cases.
//!   Other invalid pointers cannot be detected: the caller of these `unsafe` functions must avoid
//!   them.
//! - No panic crosses the interface: all work happens in `guarded` or `value_or`. This needs panics
//!   that unwind, so the library is built with the profiles in the workspace's `Cargo.toml`.
//! - In a child process after `fork`, the bundles and sessions of the parent can be used and freed,
//!   and new ones created, if no thread was using them at the time of the fork. A session of the
//!   parent runs on one thread there, with the same results.

mod bundle;
mod canceller;
mod classify;
mod handle;
mod options;
mod pointer;
mod session;
mod status;
mod tensor;

pub use bundle::*;
pub use canceller::*;
pub use classify::*;
pub use options::*;
pub use session::*;
pub use status::*;
pub use tensor::*;
