//! Statuses and error messages.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use hardtack::Error;

use crate::pointer::owned;

/// The result of a call.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HardtackStatus {
    /// The call succeeded.
    Ok = 0,
    /// An argument is NULL, out of range, or not UTF-8.
    Argument = 1,
    /// A file cannot be read.
    File = 2,
    /// The bundle is damaged, or has a version that this library does not read.
    Bundle = 3,
    /// This build or this processor cannot run the model.
    Unsupported = 4,
    /// The inputs or outputs do not match the model.
    Mismatch = 5,
    /// The inference failed.
    Run = 6,
    /// A bug in this library. Free the session, if there is one: its results and kept states are no
    /// longer meaningful.
    Internal = 7,
    /// The model needs more memory or operations than the limits allow.
    Limit = 8,
    /// The inference was canceled, or took longer than its limit.
    Stopped = 9,
}

/// Why a call failed.
pub(crate) struct Failure {
    status: HardtackStatus,
    message: String,
}

/// Creates the failure for an invalid argument.
pub(crate) fn argument(message: impl Into<String>) -> Failure {
    Failure { status: HardtackStatus::Argument, message: message.into() }
}

/// Creates the failure for a null pointer in a required argument.
pub(crate) fn null(what: &str) -> Failure {
    argument(format!("{what} is NULL"))
}

/// Creates the failure for inputs or outputs that do not match the model.
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
        Error::ThreadCount { .. } => HardtackStatus::Argument,
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
    /// Converts a panic, whose payload is dropped.
    fn of_panic(panic: Box<dyn Any + Send>) -> Failure {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        let message = format!(
            "internal error in Hardtack, please report it: {}",
            text.unwrap_or("no message")
        );
        // Dropping a payload can panic with another payload, which is leaked.
        if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
            std::mem::forget(again);
        }
        Failure { status: HardtackStatus::Internal, message }
    }
}

/// Calls `call`. If it fails or panics, stores the message and returns the status.
///
/// Every function of the interface does all its work in here, because a panic that leaves an
/// `extern "C"` function aborts the process.
fn attempt<T>(call: impl FnOnce() -> Result<T, Failure>) -> Result<T, HardtackStatus> {
    let failure = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(failure)) => failure,
        Err(panic) => Failure::of_panic(panic),
    };
    // While a thread exits, its message may already be destroyed. Nothing can read it then.
    let _ = LAST.try_with(|last| last.replace(owned(&failure.message)));
    Err(failure.status)
}

/// Runs a function that returns a status; see [`attempt`].
pub(crate) fn guarded(call: impl FnOnce() -> Result<(), Failure>) -> HardtackStatus {
    attempt(call).map_or_else(|status| status, |()| HardtackStatus::Ok)
}

/// Runs a function that returns a value, or `otherwise` if it fails; see [`attempt`].
pub(crate) fn value_or<T>(otherwise: T, call: impl FnOnce() -> Result<T, Failure>) -> T {
    attempt(call).unwrap_or(otherwise)
}

/// Returns the version of this library, such as `0.1.0`.
#[unsafe(no_mangle)]
pub extern "C" fn hardtack_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => panic!("the version has no NUL"),
        };
    value_or(VERSION.as_ptr(), || Ok(VERSION.as_ptr()))
}

/// Returns the error message of the last failed call on this thread, for users. Empty if no call
/// has failed. The string is valid until the next failed call on this thread, or until the thread
/// exits.
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
        // SAFETY: it is a NUL-terminated string, valid because no call fails before it is copied.
        unsafe { CStr::from_ptr(hardtack_last_error()) }.to_str().unwrap().into()
    }

    #[test]
    fn panics_are_caught_and_reported() {
        assert_eq!(guarded(|| Ok(())), HardtackStatus::Ok);
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| ()));
        let status = guarded(|| panic!("out of {}", "bounds"));
        std::panic::set_hook(hook);
        assert_eq!(status, HardtackStatus::Internal);
        assert!(last().ends_with("please report it: out of bounds"), "{}", last());
        assert_eq!(guarded(|| Err(argument("a\0b"))), HardtackStatus::Argument);
        assert_eq!(last(), "ab");
        // A payload that panics when dropped does not leave either.
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
        // Another thread has its own message.
        std::thread::spawn(|| assert_eq!(last(), "")).join().unwrap();
    }
}
