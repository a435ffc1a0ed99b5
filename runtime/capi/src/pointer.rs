//! What comes over the border: pointers, that may be null.

use std::ffi::{CStr, CString, c_char};
use std::path::PathBuf;

use crate::status::{Failure, argument, null};

/// A copy of what a pointer points to.
///
/// # Safety
/// It is null, or points to a `T`.
pub(crate) unsafe fn read<T: Copy>(pointer: *const T, what: &str) -> Result<T, Failure> {
    fits(pointer, 1, what)?;
    // SAFETY: it is not null and aligned, and so points to a `T`.
    Ok(unsafe { pointer.read() })
}

/// `count` elements in a row.
///
/// # Safety
/// It is null, or points to as many elements, which stay for `'a` and which nobody changes.
pub(crate) unsafe fn slice<'a, T>(
    pointer: *const T,
    count: usize,
    what: &str,
) -> Result<&'a [T], Failure> {
    if count == 0 {
        return Ok(&[]);
    }
    fits(pointer, count, what)?;
    // SAFETY: it is not null, aligned and not too long, and points to that many elements, which stay
    // and do not change.
    Ok(unsafe { std::slice::from_raw_parts(pointer, count) })
}

/// The same, to be changed.
///
/// # Safety
/// It is null, or points to as many elements, which stay for `'a` and which nobody else uses.
pub(crate) unsafe fn slice_mut<'a, T>(
    pointer: *mut T,
    count: usize,
    what: &str,
) -> Result<&'a mut [T], Failure> {
    if count == 0 {
        return Ok(&mut []);
    }
    fits(pointer, count, what)?;
    // SAFETY: it is not null, aligned and not too long, and points to that many elements, which stay
    // and which nobody else uses.
    Ok(unsafe { std::slice::from_raw_parts_mut(pointer, count) })
}

/// Where results go: what lies there before does not matter, and is not read.
#[derive(Debug)]
pub(crate) struct Target<T> {
    start: *mut T,
    count: usize,
}

impl<T> Target<T> {
    /// Room for `count` results.
    ///
    /// # Safety
    /// `pointer` is null, or that many can be written there for as long as the target is there.
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

    /// Writes results, as many as there is room for.
    pub(crate) fn write(&mut self, results: impl IntoIterator<Item = T>) {
        for (index, result) in results.into_iter().take(self.count).enumerate() {
            // SAFETY: `new` found the pointer neither null nor unaligned, and was promised that so
            // many can be written.
            unsafe { self.start.add(index).write(result) };
        }
    }
}

/// Whether a pointer can be one to `count` elements.
fn fits<T>(pointer: *const T, count: usize, what: &str) -> Result<(), Failure> {
    if pointer.is_null() {
        return Err(null(what));
    }
    if !pointer.is_aligned() {
        let alignment = align_of::<T>();
        return Err(argument(format!("{what} does not lie at a multiple of {alignment} bytes")));
    }
    if count > isize::MAX as usize / size_of::<T>().max(1) {
        return Err(argument(format!("{what} is larger than memory")));
    }
    Ok(())
}

/// A text that ends with a zero.
///
/// # Safety
/// It is null, or points to bytes of which one is zero, which stay for `'a`.
pub(crate) unsafe fn text<'a>(pointer: *const c_char, what: &str) -> Result<&'a str, Failure> {
    if pointer.is_null() {
        return Err(null(what));
    }
    // SAFETY: it is not null, and so points to bytes that end with a zero and stay.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map_err(|_| argument(format!("{what} is not UTF-8")))
}

/// A path, of any bytes where the system allows that.
///
/// # Safety
/// As [`text`].
pub(crate) unsafe fn path(pointer: *const c_char) -> Result<PathBuf, Failure> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt as _;
        if pointer.is_null() {
            return Err(null("path"));
        }
        // SAFETY: it is not null, and so points to bytes that end with a zero and stay.
        let bytes = unsafe { CStr::from_ptr(pointer) }.to_bytes();
        Ok(std::ffi::OsStr::from_bytes(bytes).into())
    }
    #[cfg(not(unix))]
    // SAFETY: as of this function.
    unsafe {
        text(pointer, "path").map(PathBuf::from)
    }
}

/// A text for the other side. Zeros, which end texts there, are left out.
pub(crate) fn owned(text: &str) -> CString {
    CString::new(text.replace('\0', "")).expect("it has no zeros")
}
