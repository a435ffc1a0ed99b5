//! How a watched process ended, in words.

use std::fmt;
use std::process::ExitStatus;

use serde::{Deserialize, Serialize};

use super::Limits;

/// A process that did not end by itself, or not in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// Why.
    pub cause: Cause,
    /// What it was doing, as a part of a sentence; empty where that is not known.
    pub place: String,
}

/// Why a process did not end in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Cause {
    /// It asked for more memory than it may have.
    Memory {
        /// What it may have.
        limit_bytes: u64,
    },
    /// It took more time than it may take.
    Time {
        /// What it may take.
        seconds: u64,
    },
    /// The stack was not deep enough.
    Nesting,
    /// It panicked.
    Panic {
        /// The panic's message.
        message: String,
    },
    /// The processor or the C library stopped it with this signal.
    Crash {
        /// Number of the signal.
        signal: i32,
    },
    /// The system ended it, which it does where memory runs out.
    Killed,
    /// Another process ended it with this signal.
    Ended {
        /// Number of the signal.
        signal: i32,
    },
    /// It ended in another way.
    Other {
        /// How, in the system's words.
        status: String,
    },
}

impl Cause {
    /// Whether the model is the likely cause.
    pub fn is_the_model(&self) -> bool {
        !matches!(self, Cause::Ended { .. } | Cause::Other { .. })
    }

    /// The cause of the end of a process that wrote these last words.
    pub(super) fn of(status: ExitStatus, words: &str, limits: &Limits) -> Cause {
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

    /// A panic. Some code also panics if an allocation fails.
    pub(super) fn of_panic(message: &str, limits: &Limits) -> Cause {
        match is_about_memory(message) {
            true => Cause::Memory { limit_bytes: limits.memory_bytes },
            false => Cause::Panic { message: message.lines().next().unwrap_or("").into() },
        }
    }
}

/// Whether the message of a panic says that memory could not be had.
pub(crate) fn is_about_memory(message: &str) -> bool {
    const WORDS: [&str; 4] =
        ["failed to allocate", "memory allocation", "AllocError", "out of memory"];
    WORDS.iter().any(|words| message.contains(words))
}

/// The message of a panic.
pub(super) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message").into()
}

/// What Rust writes before it aborts.
const OUT_OF_MEMORY: &str = "memory allocation of ";
const OVERFLOW: &str = "overflowed its stack";

/// Whether a line is of those that are written by the runtime of a process that is about to die.
pub(super) fn is_last_word(line: &str) -> bool {
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
                "allow more with --max-memory, where the machine has more"
            }
            Cause::Time { seconds } => {
                write!(f, "it took more than {seconds} seconds")?;
                "allow more with --max-time"
            }
            Cause::Nesting => {
                write!(f, "the model nests too deep")?;
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
                "end other programs, or convert it on a machine with more memory"
            }
            Cause::Ended { signal } => {
                write!(f, "another process ended it with signal {signal}")?;
                "start it again"
            }
            Cause::Other { status } => {
                write!(f, "it ended with {status}")?;
                "start it again, and report it if that does not help"
            }
        };
        if !self.place.is_empty() {
            write!(f, " while {}", self.place)?;
        }
        write!(f, "; {advice}")
    }
}

/// What to do about a model that nobody understands.
const CHECK: &str = "check it with onnx.checker, and report it if it is valid";

/// Numbers that POSIX systems share, and those of Linux and macOS where they differ.
mod signal {
    pub const KILL: i32 = 9;
    pub const PROCESSOR_TIME: i32 = 24;
    /// Those that a process brings upon itself.
    pub const OF_CRASHES: [(i32, &str); 6] = [
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
    fn each_end_has_its_words() {
        let bomb = "memory allocation of 1099511627776 bytes failed";
        let overflow = "thread 'main' (1) has overflowed its stack";
        for (status, words, sentence) in [
            (
                24,
                "",
                "it took more than 5 seconds while reading node a; allow more with --max-time",
            ),
            (6, bomb, "it needs more than 1024 MiB of memory while reading node a; allow more"),
            (6, overflow, "the model nests too deep while reading node a; check it"),
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
    fn what_others_do_is_not_the_models_fault() {
        for (status, sentence) in [
            (15, "another process ended it with signal 15 while reading node a; start it again"),
            (3 << 8, "it ended with exit status: 3 while"),
        ] {
            let (cause, text) = explained(status, "");
            assert!(text.starts_with(sentence) && !cause.is_the_model(), "{text}");
        }
    }

    #[test]
    fn last_words_are_known() {
        for line in ["memory allocation of 9 bytes failed", "malloc(): corrupted top size"] {
            assert!(is_last_word(line), "{line:?}");
        }
        assert!(!is_last_word("error: model.onnx: memory allocation of nodes"));
    }

    #[test]
    fn a_panic_about_memory_is_about_memory() {
        let layout = "failed to allocate Layout { size: 8589934592, align: 32 (1 << 5) }";
        assert_eq!(Cause::of_panic(layout, &LIMITS), Cause::Memory { limit_bytes: 1 << 30 });
        let other = Cause::of_panic("no such axis\nand more", &LIMITS);
        assert_eq!(other, Cause::Panic { message: "no such axis".into() });
    }
}
