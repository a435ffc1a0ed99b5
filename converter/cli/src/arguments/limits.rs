//! Options that bound what a bundle may use.

use std::time::Duration;

use clap::Args;
use hardtack::Limits;

/// What loading and running a bundle may use.
#[derive(Args, Clone, Copy)]
pub struct SessionLimits {
    /// Refuse a model that needs more memory: 64MB, 1.5GiB, or bytes. Default: 4GiB.
    #[arg(long, value_name = "SIZE", value_parser = hardtack_targets::bytes, help_heading = "Limits")]
    max_memory: Option<u64>,
    /// Refuse a model of more operations per inference, such as 1000000000. Default: 2^41.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    max_operations: Option<u64>,
    /// Stop an inference after this many seconds, such as 0.5. Default: no limit.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, help_heading = "Limits")]
    max_run_time: Option<Duration>,
}

impl SessionLimits {
    /// The limits for a session.
    pub fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        if let Some(bytes) = self.max_memory {
            limits = limits.with_memory_bytes(bytes);
        }
        if let Some(operations) = self.max_operations {
            limits = limits.with_operations(operations);
        }
        if let Some(time) = self.max_run_time {
            limits = limits.with_run_time(time);
        }
        limits
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.filter(|time| !time.is_zero()).ok_or_else(|| "write it in seconds, such as 0.5".into())
}
