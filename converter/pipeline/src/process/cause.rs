//! How a child process ended, and its description for users.

use std::fmt;
use std::process::ExitStatus;

use serde::{Deserialize, Serialize};

use super::Limits;

/// The abnormal end of a child process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// The cause.
    pub cause: Cause,
    /// The last known activity, as a phrase such as `reading node a`; empty if unknown.
    pub place: String,
}

/// The cause of an abnormal end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Cause {
    /// The process exceeded its memory limit.
    Memory {
        /// The limit in bytes.
        limit_bytes: u64,
    },
    /// The process exceeded its time limit.
    Time {
        /// The limit in seconds.
        seconds: u64,
    },
    /// The stack overflowed.
    Nesting,
    /// The process panicked.
    Panic {
        /// The first line of the panic message.
        message: String,
    },
    /// The process crashed, for example with a segmentation fault or an abort.
    Crash {
        /// The signal number.
        signal: i32,
    },
    /// The process was killed with SIGKILL, as Linux does when memory runs out.
    Killed,
    /// Another process ended it with a signal.
    Ended {
        /// The signal number.
        signal: i32,
    },
    /// Any other cause.
    Other {
        /// The exit status, as formatted by the standard library.
        status: String,
    },
}

impl Cause {
    /// Returns whether the model is the likely cause.
    pub fn is_the_model(&self) -> bool {
        !matches!(self, Cause::Ended { .. } | Cause::Other { .. })
    }

    /// Determines the cause from the exit status and the last text written to stderr.
    pub fn of(status: ExitStatus, words: &str, limits: &Limits) -> Cause {
        #[cfg(unix)]
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        #[cfg(not(unix))]
        let signal = None;
        match signal {
            Some(signal::PROCESSOR_TIME) => Cause::Time { seconds: limits.seconds },
            _ if words.contains(OUT_OF_MEMORY) => {
                Cause::Memory { limit_bytes: limits.memory_bytes }
            }
            _ if words.contains(OVERFLOW) => Cause::Nesting,
            Some(signal::KILL) => Cause::Killed,
            Some(signal) if signal::OF_CRASHES.iter().any(|(number, _)| *number == signal) => {
                Cause::Crash { signal }
            }
            Some(signal) => Cause::Ended { signal },
            None => Cause::Other { status: status.to_string() },
        }
    }

    /// Returns the cause for a panic. Some code panics if an allocation fails.
    pub fn of_panic(message: &str, limits: &Limits) -> Cause {
        match is_about_memory(message) {
            true => Cause::Memory { limit_bytes: limits.memory_bytes },
            false => Cause::Panic { message: message.lines().next().unwrap_or("").into() },
        }
    }
}

/// Returns whether a panic message reports a failed allocation.
pub(crate) fn is_about_memory(message: &str) -> bool {
    const WORDS: [&str; 4] =
        ["failed to allocate", "memory allocation", "AllocError", "out of memory"];
    WORDS.iter().any(|words| message.contains(words))
}

/// Returns the message of a panic payload.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message").into()
}

/// Messages that the Rust runtime writes before it aborts.
const OUT_OF_MEMORY: &str = "memory allocation of ";
const OVERFLOW: &str = "overflowed its stack";

/// Returns whether a line is a message that a language runtime writes before it aborts the process.
pub(crate) fn is_last_word(line: &str) -> bool {
    const BEGINNINGS: [&str; 8] = [
        OUT_OF_MEMORY,
        "fatal runtime error",
        "malloc",
        "free(): ",
        "corrupted ",
        "double free",
        "munmap_chunk",
        "*** stack smashing",
    ];
    line.contains(OVERFLOW) || BEGINNINGS.iter().any(|beginning| line.starts_with(beginning))
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let advice = match &self.cause {
            Cause::Memory { limit_bytes } => {
                write!(f, "it needs more than {} MiB of memory", limit_bytes >> 20)?;
                "raise the limit with --max-memory if the machine has more"
            }
            Cause::Time { seconds } => {
                write!(f, "it took more than {seconds} seconds")?;
                "raise the limit with --max-time"
            }
            Cause::Nesting => {
                write!(f, "the model is nested too deeply")?;
                CHECK
            }
            Cause::Panic { message } => {
                write!(f, "the model breaks an assumption of the converter ({message})")?;
                CHECK
            }
            Cause::Crash { signal } => {
                let known = signal::OF_CRASHES.iter().find(|(number, _)| number == signal);
                let name = known.map_or("unknown", |(_, name)| *name);
                write!(f, "the model made the converter crash (signal {signal}, {name})")?;
                CHECK
            }
            Cause::Killed => {
                write!(f, "the system ended it, most likely because memory ran out")?;
                "close other programs, or convert the model on a machine with more memory"
            }
            Cause::Ended { signal } => {
                write!(f, "another process stopped it with signal {signal}")?;
                "try again"
            }
            Cause::Other { status } => {
                write!(f, "it ended with {status}")?;
                "try again, and report it if it fails again"
            }
        };
        if !self.place.is_empty() {
            write!(f, " while {}", self.place)?;
        }
        write!(f, "; {advice}")
    }
}

/// The advice for a model that may be invalid.
const CHECK: &str = "check it with onnx.checker, and report it if it is valid";

/// Signal numbers. Where Linux and macOS differ, both are given.
mod signal {
    pub(super) const KILL: i32 = 9;
    pub(super) const PROCESSOR_TIME: i32 = 24;
    /// The signals of crashes.
    pub(super) const OF_CRASHES: [(i32, &str); 6] = [
        (4, "SIGILL"),
        (5, "SIGTRAP"),
        (6, "SIGABRT"),
        (if cfg!(target_os = "linux") { 7 } else { 10 }, "SIGBUS"),
        (8, "SIGFPE"),
        (11, "SIGSEGV"),
    ];
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    const LIMITS: Limits = Limits { memory_bytes: 1 << 30, seconds: 5 };

    fn explained(status: i32, words: &str) -> (Cause, String) {
        let cause = Cause::of(ExitStatus::from_raw(status), words, &LIMITS);
        let stopped = Stopped { cause: cause.clone(), place: "reading node a".into() };
        (cause, stopped.to_string())
    }

    #[test]
    fn each_cause_has_its_message() {
        let bomb = "memory allocation of 1099511627776 bytes failed";
        let overflow = "thread 'main' (1) has overflowed its stack";
        for (status, words, sentence) in [
            (
                24,
                "",
                "it took more than 5 seconds while reading node a; raise the limit with --max-time",
            ),
            (6, bomb, "it needs more than 1024 MiB of memory while reading node a; raise the"),
            (6, overflow, "the model is nested too deeply while reading node a; check it"),
            (6, "", "the model made the converter crash (signal 6, SIGABRT) while reading node a"),
            (
                11,
                "",
                "the model made the converter crash (signal 11, SIGSEGV) while reading node a",
            ),
            (9, "", "the system ended it, most likely because memory ran out while"),
        ] {
            let (cause, text) = explained(status, words);
            assert!(text.starts_with(sentence), "{text}");
            assert!(cause.is_the_model(), "{text}");
        }
    }

    #[test]
    fn signals_of_other_processes_are_not_blamed_on_the_model() {
        for (status, sentence) in [
            (15, "another process stopped it with signal 15 while reading node a; try again"),
            (3 << 8, "it ended with exit status: 3 while"),
        ] {
            let (cause, text) = explained(status, "");
            assert!(text.starts_with(sentence) && !cause.is_the_model(), "{text}");
        }
    }

    #[test]
    fn last_words_are_recognized() {
        for line in ["memory allocation of 9 bytes failed", "malloc(): corrupted top size"] {
            assert!(is_last_word(line), "{line:?}");
        }
        assert!(!is_last_word("error: model.onnx: memory allocation of nodes"));
    }

    #[test]
    fn panics_of_failed_allocations_have_cause_memory() {
        let layout = "failed to allocate Layout { size: 8589934592, align: 32 (1 << 5) }";
        assert_eq!(Cause::of_panic(layout, &LIMITS), Cause::Memory { limit_bytes: 1 << 30 });
        let other = Cause::of_panic("no such axis\nand more", &LIMITS);
        assert_eq!(other, Cause::Panic { message: "no such axis".into() });
    }
}
