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
//! use hardtack_converter::{ConvertOptions, NoProgress, convert};
//!
//! fn main() -> ExitCode {
//!     guard::child_main_if_requested();
//!     let output = "model.tack".into();
//!     let supervision = Supervision { outputs: vec![output], ..Supervision::default() };
//!     let work = || {
//!         let options = ConvertOptions { guarded: true, ..ConvertOptions::default() };
//!         match convert("model.onnx".as_ref(), "model.tack".as_ref(), &options, &mut NoProgress) {
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
mod importing;
mod panics;
mod supervise;
mod transfer;

use std::sync::atomic::{AtomicBool, Ordering};

use crate::process::worker;

pub use self::importing::import_guarded;
pub use self::supervise::{Ended, Event, Supervision, SupervisionError, supervised};
pub use crate::process::Limits;
pub use crate::process::activity::set_logger;
pub use crate::process::cause::{Cause, Stopped};
pub use crate::process::worker::{
    Reporter, is_supervised, send_error, stderr_is_terminal, temporary_folder, unfinished_prefix,
};

#[cfg(doc)]
use crate::import::ImportError;

/// The first argument of an import process.
const IMPORT: &str = "__import";
/// The first argument of a cleaner process.
const CLEAN: &str = "__clean";
/// Whether this program has called [`child_main_if_requested`].
static INSTALLED: AtomicBool = AtomicBool::new(false);

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
