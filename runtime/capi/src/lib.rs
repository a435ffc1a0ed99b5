//! The C interface: open a bundle and run it, from any language.
//!
//! `include/hardtack.h` is made of this crate by cbindgen, and a test holds them together. The
//! rules of the interface:
//!
//! - Handles are opaque. Whoever gets one frees it; freeing a bundle leaves its sessions whole.
//! - A function that can fail gives a [`HardtackStatus`], writes nothing where it fails, and leaves
//!   a sentence for [`hardtack_last_error`] of the same thread.
//! - A null pointer where something is needed, one that is not aligned, a handle of another kind and
//!   outputs that share memory are errors and no crash. So is, mostly, a handle that was freed. Other
//!   wrong pointers cannot be distinguished from right ones: that is what `unsafe` promises here.
//! - No panic passes: all work is done in `guarded` or `value_or`. Where panics abort they end the
//!   process, and this library is not built that way: see the profiles in the workspace's `Cargo.toml`.
//! - In a child process after `fork`, bundles and sessions of the parent can be used and freed, and new
//!   ones made, as long as no thread was using them at the time of the fork. What a session of the parent
//!   runs there runs on one thread, and gives the same results.

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
