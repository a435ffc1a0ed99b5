//! The parts of process isolation that other stages use: the limits of this process, its current
//! activity for its parent, and why a child process ended.

pub(crate) mod activity;
pub(crate) mod cause;
mod machine;
pub(crate) mod worker;

use std::time::Duration;

/// The environment variable that marks a supervised process.
pub(crate) const SUPERVISED: &str = "HARDTACK_SUPERVISED";
/// The interval at which a child checks that its parent is alive.
pub(crate) const WATCHED_EVERY: Duration = Duration::from_millis(50);

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

/// Returns the memory limit of this process in bytes: the limit of a child process, or a share of
/// the machine's memory.
pub(crate) fn memory_bytes() -> u64 {
    worker::limit_bytes().unwrap_or_else(machine::memory_bytes)
}
