//! Options that limit the resources of a session.

use std::time::Duration;

use clap::Args;
use hardtack::Limits;

/// Limits on loading and running a bundle.
#[derive(Args, Clone, Copy)]
#[command(next_help_heading = "Limits")]
pub struct SessionLimits {
    /// Refuse a model that needs more memory than SIZE, such as 64MB or 1.5GiB [default: 4GiB].
    #[arg(long, value_name = "SIZE", value_parser = hardtack_targets::bytes)]
    max_memory: Option<u64>,
    /// Refuse a model with more than N operations per inference, such as 1000000 [default: 2^41].
    #[arg(long, value_name = "N")]
    max_operations: Option<u64>,
    /// Stop loading or an inference after SECONDS, such as 0.5 [default: no limit].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    max_run_time: Option<Duration>,
}

impl SessionLimits {
    /// Returns the limits for a session.
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

/// Parses a positive number of seconds.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds
        .filter(|time| !time.is_zero())
        .ok_or_else(|| "expected a positive number of seconds, such as 0.5".into())
}
