//! Keeps foreign models away from the process of the user.
//!
//! A malformed or malicious ONNX file can make whatever reads or runs it panic, crash, run for ever,
//! or ask for more memory than there is. Two kinds of child processes of the same program take that
//! upon themselves:
//!
//! - [`supervised`] does a whole piece of work, such as a conversion, in a child with limits of memory
//!   and time. Whatever happens to the child becomes an answer, and its temporary files go, even where
//!   a signal ends all processes at once.
//! - [`import_guarded`] reads a file in a child of its own, which gives the result back through a
//!   file. What happens to it becomes an [`ImportError`] that names the node.
//!
//! A program takes part by calling [`child_main_if_requested`] first in its `main`. Only a program
//! that also calls [`supervised`] is protected from what happens while a model runs:
//! [`convert`](crate::convert()) by itself runs it in the process that calls it.
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
//! In programs that do not take part, such as tests, [`import_guarded`] runs on a thread of this
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

/// The first argument that makes a process the importing one.
const IMPORT: &str = "__import";
/// The first argument that makes a process a cleaner.
const CLEAN: &str = "__clean";
/// The variable that makes a process a supervised one.
const SUPERVISED: &str = "HARDTACK_SUPERVISED";
/// How often a child looks whether the process that started it is there.
const WATCHED_EVERY: Duration = Duration::from_millis(50);
/// Whether this program can be started as one of these.
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// What a child process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Address space in bytes, where the system can limit it.
    pub memory_bytes: u64,
    /// Seconds on the clock.
    pub seconds: u64,
}

impl Limits {
    /// How long an import may take unless something else is said.
    pub const IMPORT_SECONDS: u64 = 600;
}

impl Default for Limits {
    /// 80 % of the memory that this process may have on this machine, and ten minutes.
    fn default() -> Limits {
        Limits { memory_bytes: machine::memory_bytes(), seconds: Limits::IMPORT_SECONDS }
    }
}

/// Does the work of a child process, where this one was started to be one: imports, or cleans up, and
/// ends; or makes this process a supervised one, and returns. Programs call it first in `main`,
/// before they start threads or read arguments.
pub fn child_main_if_requested() {
    INSTALLED.store(true, Ordering::Relaxed);
    let mut arguments = std::env::args_os().skip(1);
    let served = match arguments.next() {
        Some(first) if first == IMPORT => child::serve(arguments),
        Some(first) if first == CLEAN => cleaner::serve(arguments).map(|()| 0),
        _ => return worker::begin(),
    };
    std::process::exit(served.unwrap_or_else(|| {
        eprintln!("this form of the program is for itself alone");
        2
    }));
}

/// The most bytes of memory that this process may take: its limit, if it is supervised, or a share of
/// what the machine has.
pub(crate) fn memory_bytes() -> u64 {
    worker::limit_bytes().unwrap_or_else(machine::memory_bytes)
}

/// Notes what this process does, for whoever watches it.
pub(crate) fn note(doing: &str) {
    place::note(doing);
}
