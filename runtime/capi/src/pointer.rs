//! What comes over the border: pointers, that may be null.

use std::ffi::{CStr, CString, c_char};
use std::path::PathBuf;

use crate::status::{Failure, argument};

/// What a pointer points to.
///
/// # Safety
/// It is null, or points to a `T` that stays for `'a` and that nobody changes.
pub(crate) unsafe fn borrow<'a, T>(pointer: *const T, what: &str) -> Result<&'a T, Failure> {
    // SAFETY: as the caller promises.
    unsafe { pointer.as_ref() }.ok_or_else(|| null(what))
}

/// What a pointer points to, to be changed.
///
/// # Safety
/// It is null, or points to a `T` that stays for `'a` and that nobody else uses.
pub(crate) unsafe fn borrow_mut<'a, T>(pointer: *mut T, what: &str) -> Result<&'a mut T, Failure> {
    // SAFETY: as the caller promises.
    unsafe { pointer.as_mut() }.ok_or_else(|| null(what))
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
    // SAFETY: it is not null, aligned and not too long; the rest is as the caller promises.
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
    // SAFETY: it is not null, aligned and not too long; the rest is as the caller promises.
    Ok(unsafe { std::slice::from_raw_parts_mut(pointer, count) })
}

fn fits<T>(pointer: *const T, count: usize, what: &str) -> Result<(), Failure> {
    if pointer.is_null() {
        return Err(null(what));
    }
    if !pointer.is_aligned() {
        let (alignment, name) = (align_of::<T>(), std::any::type_name::<T>());
        return Err(argument(format!(
            "{what} lies at no multiple of {alignment}, where {name} must"
        )));
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
    // SAFETY: it is not null; the rest is as the caller promises.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map_err(|_| argument(format!("{what} is no UTF-8")))
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
        // SAFETY: it is not null; the rest is as the caller promises.
        let bytes = unsafe { CStr::from_ptr(pointer) }.to_bytes();
        Ok(std::ffi::OsStr::from_bytes(bytes).into())
    }
    #[cfg(not(unix))]
    // SAFETY: as the caller promises.
    unsafe {
        text(pointer, "path").map(PathBuf::from)
    }
}

/// A text for the other side. Zeros, which end texts there, are left out.
pub(crate) fn owned(text: &str) -> CString {
    CString::new(text.replace('\0', "")).expect("it has no zeros")
}

fn null(what: &str) -> Failure {
    argument(format!("{what} is NULL"))
}
