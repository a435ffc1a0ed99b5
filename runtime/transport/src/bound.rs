//! The maximum expansion of a compressed bundle.
//!
//! The expansion of entropy-coded bytes is bounded: each needs at least four coded bits, and the
//! probability of a bit is at most 65512/65536. So one compressed byte expands to at most 3786
//! bytes. Blocks of zeros need no coded bits at all. A reader therefore counts its output, and
//! rejects a file that expands more than the compressor allows.

/// Maximum number of output bytes per compressed byte.
pub const BYTES_PER_BYTE: u64 = 4096;
/// Number of output bytes that are allowed in addition, for padding and for fluctuations.
pub const BYTES_FREE: u64 = 64 << 10;

/// Returns the maximum size of the bundle in a compressed file of this length, in bytes.
///
/// # Examples
///
/// ```
/// use hardtack_transport::most_bytes;
///
/// // A compressed file of 10 kB cannot expand to 50 MB.
/// assert!(most_bytes(10_000) < 50_000_000);
/// ```
pub const fn most_bytes(transport_bytes: u64) -> u64 {
    BYTES_FREE.saturating_add(transport_bytes.saturating_mul(BYTES_PER_BYTE))
}

/// A counter of output bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Made(u64);

impl Made {
    /// Returns whether `more` output bytes are allowed after `read` compressed bytes.
    pub(crate) fn allows(self, more: u64, read: u64) -> bool {
        self.0.saturating_add(more) <= most_bytes(read)
    }

    /// Adds output bytes.
    pub(crate) fn add(&mut self, more: u64) {
        self.0 = self.0.saturating_add(more);
    }

    pub(crate) fn bytes(self) -> u64 {
        self.0
    }
}
