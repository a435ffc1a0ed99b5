//! Handles: values of this library that the C caller holds.

use crate::status::{Failure, argument, null};

/// A type that a handle can point to.
pub(crate) trait Handle: Sized {
    /// The tag at the start of the value in memory, unique to this kind of handle.
    const TAG: u64;
    /// The name of the kind in error messages, with its article.
    const NAME: &'static str;
}

/// The allocation behind a handle. The handle is the address of `tag`.
#[repr(C)]
struct Tagged<T> {
    tag: u64,
    value: T,
}

/// Moves a value to the heap and returns its handle. [`free`] drops it.
pub(crate) fn give<T: Handle>(value: T) -> *mut T {
    Box::into_raw(Box::new(Tagged { tag: T::TAG, value })).cast()
}

/// Returns the value of a handle. Returns an error for a null pointer, for a handle of another kind
/// and, in most cases, for a freed handle.
///
/// # Safety
/// `pointer` is null, or a handle from [`give`] of any kind that is not freed before the end of
/// `'a`. The value is not mutated during `'a`.
pub(crate) unsafe fn borrow<'a, T: Handle>(
    pointer: *const T,
    what: &str,
) -> Result<&'a T, Failure> {
    // SAFETY: `pointer` is null or a live handle. If its tag is that of `T`, `give` allocated a
    // `Tagged<T>` there, which lives and is not mutated for `'a`.
    unsafe {
        let tagged = checked(pointer, what)?;
        Ok(&(*tagged).value)
    }
}

/// Returns the value of a handle for mutation. Returns the errors of [`borrow`].
///
/// # Safety
/// The conditions of [`borrow`] hold, and nothing else accesses the value during `'a`.
pub(crate) unsafe fn borrow_mut<'a, T: Handle>(
    pointer: *mut T,
    what: &str,
) -> Result<&'a mut T, Failure> {
    // SAFETY: `pointer` is null or a live handle, so a matching tag means that it points to a
    // `Tagged<T>`. Nothing else accesses the value during `'a`.
    unsafe {
        let tagged = checked(pointer, what)?.cast_mut();
        Ok(&mut (*tagged).value)
    }
}

/// Drops the value of a handle. Does nothing for a null pointer.
///
/// # Safety
/// The conditions of [`borrow_mut`] hold, and the handle is not used afterwards.
pub(crate) unsafe fn free<T: Handle>(pointer: *mut T, what: &str) -> Result<(), Failure> {
    if pointer.is_null() {
        return Ok(());
    }
    // SAFETY: `pointer` is a live handle, so a matching tag means that `give` got it from
    // `Box<Tagged<T>>::into_raw`. Nothing else uses it during or after the call. The volatile write
    // clears the tag, so that a use after free is detected until the memory is reused.
    unsafe {
        let tagged = checked(pointer, what)?.cast_mut();
        (&raw mut (*tagged).tag).write_volatile(0);
        drop(Box::from_raw(tagged));
    }
    Ok(())
}

/// Checks that a handle points to a value of type `T`.
///
/// # Safety
/// `pointer` is null, or a handle that is not freed.
unsafe fn checked<T: Handle>(pointer: *const T, what: &str) -> Result<*const Tagged<T>, Failure> {
    if pointer.is_null() {
        return Err(null(what));
    }
    let tagged = pointer.cast::<Tagged<T>>();
    // SAFETY: every handle points to its tag, which is readable because the pointer is aligned.
    if !tagged.is_aligned() || unsafe { (&raw const (*tagged).tag).read() } != T::TAG {
        let name = T::NAME;
        return Err(argument(format!("{what} is not {name}, or was freed before")));
    }
    Ok(tagged)
}
