//! How many bytes a transport file can stand for.
//!
//! A coded byte takes at least four bits from the coder, none of which is more certain than 24 of
//! 65536, so a byte of the file makes at most 3786 bytes. Zeros between sections take nothing, and the
//! bits of rows without zeros hardly anything; a reader therefore counts what it makes, and refuses a
//! file that asks for more than any packer does.

/// Bytes that each byte of a transport file may make.
pub const BYTES_PER_BYTE: u64 = 4096;
/// Bytes that a transport file may make beyond those: the zeros between sections, and what its first
/// bytes make before they count.
pub const BYTES_FREE: u64 = 64 << 10;

/// The most bytes that a transport file of this length can stand for.
pub const fn most_bytes(transport_bytes: u64) -> u64 {
    BYTES_FREE.saturating_add(transport_bytes.saturating_mul(BYTES_PER_BYTE))
}

/// How many bytes a file has made.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Made(u64);

impl Made {
    /// Whether `more` bytes may be made, where `read` bytes of the file were read.
    pub(crate) fn allows(self, more: u64, read: u64) -> bool {
        self.0.saturating_add(more) <= most_bytes(read)
    }

    /// Counts bytes that were made.
    pub(crate) fn add(&mut self, more: u64) {
        self.0 = self.0.saturating_add(more);
    }

    pub(crate) fn bytes(self) -> u64 {
        self.0
    }
}
