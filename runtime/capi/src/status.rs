//! How calls end.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use hardtack::Error;

use crate::pointer::owned;

/// How a call ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HardtackStatus {
    /// Well.
    Ok = 0,
    /// An argument is NULL, out of range, or no UTF-8.
    Argument = 1,
    /// A file cannot be read.
    File = 2,
    /// The bundle is damaged, or of another version than this library reads.
    Bundle = 3,
    /// This build, or this machine, cannot run the model.
    Unsupported = 4,
    /// Inputs or outputs are not those of the model.
    Mismatch = 5,
    /// The model could not be run.
    Run = 6,
    /// A mistake in this library. Free the session, if there is one: its results and kept states are
    /// no longer meaningful.
    Internal = 7,
    /// The model needs more memory or operations than the limits allow.
    Limit = 8,
    /// The run was cancelled, or took longer than its limit.
    Stopped = 9,
}

/// Why a call failed.
pub(crate) struct Failure {
    status: HardtackStatus,
    message: String,
}

/// An argument that makes no sense.
pub(crate) fn argument(message: impl Into<String>) -> Failure {
    Failure { status: HardtackStatus::Argument, message: message.into() }
}

/// A null pointer where something is needed.
pub(crate) fn null(what: &str) -> Failure {
    argument(format!("{what} is NULL"))
}

/// What does not fit the model.
pub(crate) fn mismatch(message: impl Into<String>) -> Failure {
    Failure { status: HardtackStatus::Mismatch, message: message.into() }
}

fn status_of(error: &Error) -> HardtackStatus {
    match error {
        Error::File { error, .. } => status_of(error),
        Error::Read(_) => HardtackStatus::File,
        Error::Bundle(_)
        | Error::Graph(_)
        | Error::NoGraph
        | Error::Manifest { .. }
        | Error::Constant { .. }
        | Error::Program { .. } => HardtackStatus::Bundle,
        Error::Family { .. }
        | Error::NeedsFloat { .. }
        | Error::Isa { .. }
        | Error::Threads { .. } => HardtackStatus::Unsupported,
        Error::TooManyThreads { .. } => HardtackStatus::Argument,
        Error::Arena { .. } | Error::TestVectors { .. } => HardtackStatus::Bundle,
        Error::Exceeded(_) => HardtackStatus::Limit,
        Error::Stopped(_) => HardtackStatus::Stopped,
        Error::Unknown { .. }
        | Error::Twice { .. }
        | Error::Missing { .. }
        | Error::DType { .. }
        | Error::Shape { .. }
        | Error::Conflict { .. }
        | Error::Length { .. }
        | Error::UnknownShape { .. }
        | Error::State { .. }
        | Error::TooLarge { .. } => HardtackStatus::Mismatch,
        _ => HardtackStatus::Run,
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { status: status_of(&error), message: error.to_string() }
    }
}

impl From<hardtack::process::Error> for Failure {
    fn from(error: hardtack::process::Error) -> Failure {
        mismatch(error.to_string())
    }
}

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

impl Failure {
    /// A panic, whose payload goes no further.
    fn of_panic(panic: Box<dyn Any + Send>) -> Failure {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        let message = format!(
            "Hardtack has made a mistake, please report it: {}",
            text.unwrap_or("no message")
        );
        // Dropping a payload can panic in turn, with another.
        if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
            std::mem::forget(again);
        }
        Failure { status: HardtackStatus::Internal, message }
    }
}

/// Does what a function is for. Where it fails or panics, keeps why, and gives the status.
///
/// Every function of the interface does all its work in here, so that no panic leaves it: one that
/// reached the border would end the process.
fn attempt<T>(call: impl FnOnce() -> Result<T, Failure>) -> Result<T, HardtackStatus> {
    let failure = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(failure)) => failure,
        Err(panic) => Failure::of_panic(panic),
    };
    // At the end of a thread its message may be gone already; then nobody can ask for it.
    let _ = LAST.try_with(|last| last.replace(owned(&failure.message)));
    Err(failure.status)
}

/// [`attempt`], for a function that gives a status.
pub(crate) fn guarded(call: impl FnOnce() -> Result<(), Failure>) -> HardtackStatus {
    attempt(call).map_or_else(|status| status, |()| HardtackStatus::Ok)
}

/// [`attempt`], for a function that gives a value; `otherwise` where it fails.
pub(crate) fn value_or<T>(otherwise: T, call: impl FnOnce() -> Result<T, Failure>) -> T {
    attempt(call).unwrap_or(otherwise)
}

/// The version of this library, such as `0.1.0`.
#[unsafe(no_mangle)]
pub extern "C" fn hardtack_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => panic!("versions have no zeros"),
        };
    value_or(VERSION.as_ptr(), || Ok(VERSION.as_ptr()))
}

/// Why the last call of this thread that failed did so: one sentence, for users. Empty where none
/// has. It stays until the next call of this thread that fails, and until the thread ends.
#[unsafe(no_mangle)]
pub extern "C" fn hardtack_last_error() -> *const c_char {
    const NONE: &CStr = c"";
    value_or(NONE.as_ptr(), || {
        Ok(LAST.try_with(|last| last.borrow().as_ptr()).unwrap_or(NONE.as_ptr()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last() -> String {
        // SAFETY: it is a text of this thread, and no call comes between.
        unsafe { CStr::from_ptr(hardtack_last_error()) }.to_str().unwrap().into()
    }

    #[test]
    fn panics_are_held_back_and_reported() {
        assert_eq!(guarded(|| Ok(())), HardtackStatus::Ok);
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| ()));
        let status = guarded(|| panic!("out of {}", "bounds"));
        std::panic::set_hook(hook);
        assert_eq!(status, HardtackStatus::Internal);
        assert!(last().ends_with("please report it: out of bounds"), "{}", last());
        assert_eq!(guarded(|| Err(argument("a\0b"))), HardtackStatus::Argument);
        assert_eq!(last(), "ab");
        // Neither does the payload, whatever it is.
        struct Payload;
        impl Drop for Payload {
            fn drop(&mut self) {
                panic!("a second time");
            }
        }
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| ()));
        let status = guarded(|| std::panic::panic_any(Payload));
        let value = value_or(3, || panic!("no value"));
        std::panic::set_hook(hook);
        assert_eq!((status, value), (HardtackStatus::Internal, 3));
        assert!(last().ends_with("please report it: no value"), "{}", last());
        assert_eq!(guarded(|| Err(argument("ab"))), HardtackStatus::Argument);
        // Another thread has its own.
        std::thread::spawn(|| assert_eq!(last(), "")).join().unwrap();
    }
}
