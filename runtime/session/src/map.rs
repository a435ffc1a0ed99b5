//! Maps a file into memory.

use std::fs::File;

use memmap2::Mmap;

/// Maps a whole file for reading.
///
/// The system reads pages from the file when they are first accessed, so the time does not depend
/// on the size. The file may be renamed, replaced by rename or deleted while it is mapped: the
/// mapping keeps the old content.
///
/// # Assumption
/// Nobody changes the file in place, by writing or truncating, while it is mapped.
/// [`Bundle::open`](crate::Bundle::open) requires this of its caller. For files that others may
/// change, use [`Bundle::read`](crate::Bundle::read). To install another bundle under the same
/// path, write a new file and rename it.
///
/// # If the assumption does not hold
/// Rust assumes that bytes behind a shared reference do not change, so the language guarantees
/// nothing. In practice, this code behaves as follows:
///
/// - After truncation, the next access to a page beyond the new end raises `SIGBUS` on Unix, which
///   ends the process. Windows does not truncate a mapped file.
/// - After writing, the bytes differ from those that were verified.
///   - *Weights, biases and scales* are read by kernels through raw pointers, without checks. They
///     are operands of arithmetic only, never offsets, counts or sizes: those were computed when
///     the program was prepared and are stored in this process. The results are wrong, but no other
///     memory is read or written.
///   - *Tables* of kernels for an instruction set (lookups, softmax, and the sampling positions of
///     an interpolation) were copied when the program was prepared.
///   - *Programs*, and the parts of their weights that the reference implementation reads (tables,
///     sparse weights), do hold offsets and sizes. Safe code with bounds checks reads them during
///     every inference: the result is an error, a panic or wrong values. The check and the use read
///     the bytes separately only if the compiler emits two reads.
///   - *Graph, manifest, labels* and similar sections are decoded by safe code into memory of this
///     process. Text is checked to be UTF-8 and then copied; a change in between yields an invalid
///     string.
///   - *Constants* are copied when a model is planned.
///
/// # Errors
/// Returns an error if the system cannot map the file, for example a pipe or a directory.
#[allow(unsafe_code, reason = "the one place that maps a file")]
pub(crate) fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the mapping is read-only and the `Mmap` owns it, so no reference outlives it and
    // nothing is written through it. Code cannot ensure that the file stays unchanged; the
    // documentation above requires it of the caller.
    unsafe { Mmap::map(file) }
}
