//! The C interface: open a bundle and run it, from any language.
//!
//! `include/hardtack.h` is made of this crate by cbindgen, and a test holds them together. The
//! rules of the interface:
//!
//! - Handles are opaque. Whoever gets one frees it; freeing a bundle leaves its sessions whole.
//! - A function that can fail gives a [`HardtackStatus`], writes nothing where it fails, and leaves
//!   a sentence for [`hardtack_last_error`] of the same thread.
//! - A null pointer where something is needed is an error and no crash. Other wrong pointers cannot
//!   be told from right ones: that is what `unsafe` promises here.
//! - No panic passes. In builds whose panics abort (`--profile device`), one ends the process.

mod bundle;
mod classify;
mod pointer;
mod session;
mod status;
mod tensor;

pub use bundle::*;
pub use classify::*;
pub use session::*;
pub use status::*;
pub use tensor::*;
