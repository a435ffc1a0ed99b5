//! Turns panics of an import into errors.

use std::panic::AssertUnwindSafe;
use std::thread;

use crate::import::{ImportError, Imported};
use crate::process::cause::{Cause, Stopped, panic_message};

/// The stack size of the import thread in bytes, enough for deeply nested expressions.
const STACK: usize = 64 << 20;

/// Runs an import on a thread with a large stack, and turns a panic into an error.
pub(super) fn on_thread(
    import: impl FnOnce() -> Result<Imported, ImportError> + Send,
    panicked: impl FnOnce(String) -> Cause + Send,
) -> Result<Imported, ImportError> {
    let guarded = || {
        std::panic::catch_unwind(AssertUnwindSafe(import)).unwrap_or_else(|panic| {
            let cause = panicked(panic_message(&*panic));
            Err(ImportError::Stopped(Stopped { cause, place: String::new() }))
        })
    };
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("import".into()).stack_size(STACK);
        builder.spawn_scoped(scope, guarded)?.join().unwrap_or_else(|panic| {
            let cause = Cause::Panic { message: panic_message(&*panic) };
            Err(ImportError::Stopped(Stopped { cause, place: String::new() }))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_become_errors() {
        let cause = |message: String| Cause::Panic { message };
        let error = on_thread(|| panic!("no such {}", "axis"), cause).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the import was stopped: the model breaks an assumption of the converter (no such axis); \
             check it with onnx.checker, and report it if it is valid"
        );
    }
}
