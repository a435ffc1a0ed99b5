//! Handles: values of this library that the other side holds.

use crate::status::{Failure, argument, null};

/// A type that handles point to.
pub(crate) trait Handle: Sized {
    /// What the value begins with in memory; other kinds of handles have other tags.
    const TAG: u64;
    /// What it is called in messages, with its article.
    const NAME: &'static str;
}

/// What a handle points to. The pointer that the other side gets is that of the tag.
#[repr(C)]
struct Tagged<T> {
    tag: u64,
    value: T,
}

/// Gives a value away, until [`free`].
pub(crate) fn give<T: Handle>(value: T) -> *mut T {
    Box::into_raw(Box::new(Tagged { tag: T::TAG, value })).cast()
}

/// The value of a handle. A null pointer, a handle of another kind and, mostly, one that was freed
/// are errors.
///
/// # Safety
/// `pointer` is null, or was made by [`give`] for some type and not freed, and stays so for `'a`.
/// Nobody changes the value for `'a`.
pub(crate) unsafe fn borrow<'a, T: Handle>(
    pointer: *const T,
    what: &str,
) -> Result<&'a T, Failure> {
    // SAFETY: the pointer is null or a handle. Where its tag is that of `T`, `give` made it of a
    // `Tagged<T>`, which is there and is not changed.
    unsafe {
        let tagged = checked(pointer, what)?;
        Ok(&(*tagged).value)
    }
}

/// [`borrow`], to be changed.
///
/// # Safety
/// As [`borrow`]; and nobody else uses the value for `'a`.
pub(crate) unsafe fn borrow_mut<'a, T: Handle>(
    pointer: *mut T,
    what: &str,
) -> Result<&'a mut T, Failure> {
    // SAFETY: as in `borrow`; nobody else uses the value.
    unsafe {
        let tagged = checked(pointer, what)?.cast_mut();
        Ok(&mut (*tagged).value)
    }
}

/// Takes a value back and drops it. Nothing for a null pointer.
///
/// # Safety
/// As [`borrow_mut`]; and nobody uses the handle afterwards.
pub(crate) unsafe fn free<T: Handle>(pointer: *mut T, what: &str) -> Result<(), Failure> {
    if pointer.is_null() {
        return Ok(());
    }
    // SAFETY: as in `borrow`. `give` made the handle of a box, and the caller gives it up. The tag is
    // overwritten for good, so that a handle that is used again is found out while nobody else has
    // the memory.
    unsafe {
        let tagged = checked(pointer, what)?.cast_mut();
        (&raw mut (*tagged).tag).write_volatile(0);
        drop(Box::from_raw(tagged));
    }
    Ok(())
}

/// The place of a value of type `T`.
///
/// # Safety
/// `pointer` is null, or a handle that was not freed.
unsafe fn checked<T: Handle>(pointer: *const T, what: &str) -> Result<*const Tagged<T>, Failure> {
    if pointer.is_null() {
        return Err(null(what));
    }
    let tagged = pointer.cast::<Tagged<T>>();
    // SAFETY: every handle begins with its tag, at a multiple of its alignment.
    if !tagged.is_aligned() || unsafe { (&raw const (*tagged).tag).read() } != T::TAG {
        let name = T::NAME;
        return Err(argument(format!("{what} is not {name}, or was freed before")));
    }
    Ok(tagged)
}
