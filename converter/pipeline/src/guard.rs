//! Isolates untrusted models in child processes.
//!
//! A malformed or malicious ONNX file can make the code that reads or runs it panic, crash, run
//! forever or exhaust memory. Two kinds of child processes of the same program contain that:
//!
//! - [`supervised`] runs a whole task, such as a conversion, in a child with memory and time
//!   limits. A crash of the child is returned as a value. Its temporary files are removed, even if
//!   a signal ends all processes at once.
//! - [`import_guarded`] imports a file in a separate child, which returns the result through a
//!   file. A crash becomes an [`ImportError`] that names the node.
//!
//! A program opts in by calling [`child_main_if_requested`] first in its `main`. Only a program
//! that also calls [`supervised`] is protected while a model runs: [`convert`](crate::convert())
//! itself runs the model in the calling process.
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use hardtack_converter::guard::{self, Ended, Supervision};
//! use hardtack_converter::{Options, Silent, convert};
//!
//! fn main() -> ExitCode {
//!     guard::child_main_if_requested();
//!     let output = "model.tack".into();
//!     let supervision = Supervision { outputs: vec![output], ..Supervision::default() };
//!     let work = || {
//!         let options = Options { guarded: true, ..Options::default() };
//!         match convert("model.onnx".as_ref(), "model.tack".as_ref(), &options, &mut Silent) {
//!             Ok(_) => 0,
//!             Err(error) => {
//!                 eprintln!("{error}");
//!                 1
//!             }
//!         }
//!     };
//!     let mut listen = |event: guard::Event<'_>| {
//!         if let guard::Event::Text(text) = event {
//!             eprint!("{}", String::from_utf8_lossy(text));
//!         }
//!     };
//!     match guard::supervised(&supervision, &mut listen, work) {
//!         Ok(Ended::Code(code)) => ExitCode::from(code),
//!         Ok(Ended::Stopped(stopped)) => {
//!             eprintln!("model.onnx: {stopped}");
//!             ExitCode::from(1)
//!         }
//!         Ok(_) => ExitCode::from(2),
//!         Err(error) => {
//!             eprintln!("{error}");
//!             ExitCode::from(2)
//!         }
//!     }
//! }
//! ```
//!
//! In programs that do not opt in, such as tests, [`import_guarded`] runs on a thread of this
//! process: panics become errors, but neither memory nor time is limited.

mod child;
mod cleaner;
mod ends;
mod importing;
mod machine;
mod place;
mod supervise;
mod transfer;
mod worker;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(crate) use ends::is_about_memory;
pub use ends::{Cause, Stopped};
pub use importing::import_guarded;
pub use place::set_logger;
pub use supervise::{Ended, Event, Supervision, SupervisionError, supervised};
pub use worker::{
    Reporter, is_supervised, send_error, stderr_is_terminal, temporary_folder, unfinished_prefix,
};

#[cfg(doc)]
use crate::import::ImportError;

/// The first argument of an import process.
const IMPORT: &str = "__import";
/// The first argument of a cleaner process.
const CLEAN: &str = "__clean";
/// The environment variable that marks a supervised process.
const SUPERVISED: &str = "HARDTACK_SUPERVISED";
/// The interval at which a child checks that its parent is alive.
const WATCHED_EVERY: Duration = Duration::from_millis(50);
/// Whether this program has called [`child_main_if_requested`].
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// The resource limits of a child process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The maximum address space in bytes, on systems that can limit it.
    pub memory_bytes: u64,
    /// The maximum wall-clock time in seconds.
    pub seconds: u64,
}

impl Limits {
    /// The default time limit of an import in seconds.
    pub const IMPORT_SECONDS: u64 = 600;
}

impl Default for Limits {
    /// Returns 80 % of the memory available to this process, and ten minutes.
    fn default() -> Limits {
        Limits { memory_bytes: machine::memory_bytes(), seconds: Limits::IMPORT_SECONDS }
    }
}

/// Runs the child's part if this process was started as a child. Call it first in `main`, before
/// the program starts threads or reads arguments.
///
/// An import or cleaner process does its work and exits. A supervised process applies its limits
/// and returns, as does a process that is not a child.
pub fn child_main_if_requested() {
    INSTALLED.store(true, Ordering::Relaxed);
    let mut arguments = std::env::args_os().skip(1);
    let served = match arguments.next() {
        Some(first) if first == IMPORT => child::serve(arguments),
        Some(first) if first == CLEAN => cleaner::serve(arguments).map(|()| 0),
        _ => return worker::begin(),
    };
    std::process::exit(served.unwrap_or_else(|| {
        eprintln!("these arguments are for internal use only");
        2
    }));
}

/// Returns the memory limit of this process in bytes: the limit of a child process, or a share of
/// the machine's memory.
pub(crate) fn memory_bytes() -> u64 {
    worker::limit_bytes().unwrap_or_else(machine::memory_bytes)
}

/// Records the current activity of this process for its parent. Does nothing in other processes.
pub(crate) fn note(doing: &str) {
    place::note(doing);
}
