//! Mapping a file into memory.

use std::fs::File;

use memmap2::Mmap;

/// Maps a whole file, to be read.
///
/// Pages are read from the file when they are first touched, so this costs the same for every
/// size. The file may be renamed, replaced by rename or deleted while it is mapped: the mapping
/// keeps the old content.
///
/// # What is assumed
/// Nobody changes the file in place, by writing or truncating, while it is mapped. This is what
/// [`Bundle::open`](crate::Bundle::open) asks of its caller; [`Bundle::read`](crate::Bundle::read) is
/// the way for files that others may change. To install another bundle under the same path, write a
/// new file and rename it.
///
/// # What happens otherwise
/// Rust takes bytes behind a reference for constant, so that nothing is promised. What this code
/// does is this:
///
/// - After truncation, the next access to a page beyond the new end raises `SIGBUS` on Unix, which
///   ends the process. Windows does not truncate a file that is mapped.
/// - After writing, the bytes are others than those that were compared with digests and checked.
///   - *Weights, biases and scales* are read by kernels through raw pointers, without checks. They are
///     numbers for the arithmetic and never places, counts or sizes: places and sizes were worked out
///     when the program was made ready, and lie in memory of this process. So results are wrong, and
///     nothing else is read or written.
///   - *Tables* of kernels for an instruction set (lookups, softmax, and the places where an
///     interpolation samples) were copied when the program was made ready.
///   - *Programs*, and what the reference implementation reads of their weights (tables, weights
///     without their zeros), do hold places and sizes and are read during every run, by safe code with
///     bounds checks: the result is an error, a panic or wrong values. The check and the use are two
///     reads only if the compiler makes them so.
///   - *Graph, manifest, labels* and the like are decoded by safe code into memory of this process.
///     Texts are checked to be UTF-8 and then copied; one that changes between is an invalid text.
///   - *Constants* are copied when a model is planned.
///
/// # Errors
/// Where the system cannot map the file, as with a pipe or a directory.
#[allow(unsafe_code, reason = "the one place that maps a file")]
pub(crate) fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the mapping is read-only and owned by the `Mmap`, so no reference outlives it and nothing
    // is written through it. That the file is not changed in place is assumed, as said above: no code
    // can make sure of it.
    unsafe { Mmap::map(file) }
}
