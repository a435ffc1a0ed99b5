//! Mapping a file into memory.

use std::fs::File;

use memmap2::Mmap;

/// Maps a whole file, to be read.
///
/// Pages are read from the file when they are first touched, so this costs the same for every
/// size. The file may be renamed, replaced by rename or deleted while it is mapped: the mapping
/// keeps the old content. It must not be changed in place. Where another process does so anyway:
///
/// - Truncating it makes the next access to a page beyond the new end raise `SIGBUS`, which ends
///   this process. On Windows the file cannot be truncated while it is mapped.
/// - Writing into it changes bytes under checks that were made. Everything that reads them is
///   safe Rust with bounds checks, so the result is wrong values, an error or a panic.
///
/// [`Bundle::read`](crate::Bundle::read) is the way for files that others may change.
///
/// # Errors
/// Where the system cannot map the file, as with a pipe or a directory.
#[allow(unsafe_code, reason = "the one place that maps a file")]
pub(crate) fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the mapping is read-only and owned by the `Mmap`, so no reference outlives it and
    // this process never writes to it. That no other process changes the file in place is the
    // contract that `Bundle::open` states to its caller; a bundle is installed by writing a new
    // file and renaming it.
    unsafe { Mmap::map(file) }
}
