//! Pointers from C callers, which may be null.

use std::ffi::{CStr, CString, c_char};
use std::path::PathBuf;

use crate::status::{Failure, argument, null};

/// Copies the value that a pointer points to.
///
/// # Safety
/// `pointer` is null, unaligned, or points to a `T`.
pub(crate) unsafe fn read<T: Copy>(pointer: *const T, what: &str) -> Result<T, Failure> {
    fits(pointer, 1, what)?;
    // SAFETY: `pointer` is not null and is aligned, so it points to a `T`.
    Ok(unsafe { pointer.read() })
}

/// Returns a slice of `count` elements.
///
/// # Safety
/// `pointer` is null, unaligned, or points to `count` elements that live and are not mutated for
/// `'a`.
pub(crate) unsafe fn slice<'a, T>(
    pointer: *const T,
    count: usize,
    what: &str,
) -> Result<&'a [T], Failure> {
    if count == 0 {
        return Ok(&[]);
    }
    fits(pointer, count, what)?;
    // SAFETY: `pointer` is not null, is aligned, and points to `count` elements of at most
    // `isize::MAX` bytes, which live and are not mutated for `'a`.
    Ok(unsafe { std::slice::from_raw_parts(pointer, count) })
}

/// Returns a mutable slice of `count` elements.
///
/// # Safety
/// `pointer` is null, unaligned, or points to `count` elements that live for `'a` and that nothing
/// else accesses during `'a`.
pub(crate) unsafe fn slice_mut<'a, T>(
    pointer: *mut T,
    count: usize,
    what: &str,
) -> Result<&'a mut [T], Failure> {
    if count == 0 {
        return Ok(&mut []);
    }
    fits(pointer, count, what)?;
    // SAFETY: `pointer` is not null, is aligned, and points to `count` elements of at most
    // `isize::MAX` bytes, which live for `'a` and which nothing else accesses.
    Ok(unsafe { std::slice::from_raw_parts_mut(pointer, count) })
}

/// Memory of the caller for results. It may be uninitialized and is never read.
#[derive(Debug)]
pub(crate) struct Target<T> {
    start: *mut T,
    count: usize,
}

impl<T> Target<T> {
    /// Checks the pointer to memory for `count` results.
    ///
    /// # Safety
    /// `pointer` is null, unaligned, or valid for writes of `count` elements while the target
    /// lives.
    pub(crate) unsafe fn new(
        pointer: *mut T,
        count: usize,
        what: &str,
    ) -> Result<Target<T>, Failure> {
        if count > 0 {
            fits(pointer, count, what)?;
        }
        Ok(Target { start: pointer, count })
    }

    /// Writes results, at most `count`.
    pub(crate) fn write(&mut self, results: impl IntoIterator<Item = T>) {
        for (index, result) in results.into_iter().take(self.count).enumerate() {
            // SAFETY: `new` checked that `start` is not null and is aligned, so it is valid for
            // writes of `count` elements, and `index < count`.
            unsafe { self.start.add(index).write(result) };
        }
    }
}

/// Checks that a pointer is not null, is aligned, and that `count` elements fit into memory.
fn fits<T>(pointer: *const T, count: usize, what: &str) -> Result<(), Failure> {
    if pointer.is_null() {
        return Err(null(what));
    }
    if !pointer.is_aligned() {
        let alignment = align_of::<T>();
        return Err(argument(format!("{what} is not aligned to {alignment} bytes")));
    }
    if count > isize::MAX as usize / size_of::<T>().max(1) {
        return Err(argument(format!("{what} is larger than memory")));
    }
    Ok(())
}

/// Returns a NUL-terminated string.
///
/// # Safety
/// `pointer` is null, or points to a NUL-terminated string that lives and is not mutated for `'a`.
pub(crate) unsafe fn text<'a>(pointer: *const c_char, what: &str) -> Result<&'a str, Failure> {
    if pointer.is_null() {
        return Err(null(what));
    }
    // SAFETY: `pointer` is not null, so it is a NUL-terminated string that lives for `'a`.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map_err(|_| argument(format!("{what} is not UTF-8")))
}

/// Returns a path, which may be any bytes on Unix and is UTF-8 elsewhere.
///
/// # Safety
/// `pointer` is null, or points to a NUL-terminated string that is not mutated during the call.
pub(crate) unsafe fn path(pointer: *const c_char) -> Result<PathBuf, Failure> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt as _;
        if pointer.is_null() {
            return Err(null("path"));
        }
        // SAFETY: `pointer` is not null, so it is a NUL-terminated string.
        let bytes = unsafe { CStr::from_ptr(pointer) }.to_bytes();
        Ok(std::ffi::OsStr::from_bytes(bytes).into())
    }
    #[cfg(not(unix))]
    // SAFETY: `pointer` is null or a NUL-terminated string, and the result is copied.
    unsafe {
        text(pointer, "path").map(PathBuf::from)
    }
}

/// Copies a string for the C caller, without NUL characters.
pub(crate) fn owned(text: &str) -> CString {
    CString::new(text.replace('\0', "")).expect("NUL characters are removed")
}
