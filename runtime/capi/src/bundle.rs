//! Bundles.

use std::ffi::{CString, c_char};
use std::ptr;

use hardtack::Bundle;

use crate::pointer::{borrow, borrow_mut, owned, path, slice};
use crate::status::{Failure, HardtackStatus, guarded};

/// An open bundle.
pub struct HardtackBundle {
    pub(crate) bundle: Bundle,
    name: CString,
    pub(crate) labels: Vec<CString>,
}

impl HardtackBundle {
    fn new(bundle: Bundle) -> Result<Box<HardtackBundle>, Failure> {
        let name = owned(bundle.manifest()?.name);
        let labels = bundle.labels()?.iter().flat_map(|labels| labels.iter()).map(owned).collect();
        Ok(Box::new(HardtackBundle { bundle, name, labels }))
    }
}

/// Opens a bundle by mapping its file, which nobody may change in place while it is in use.
///
/// @param path   the file
/// @param bundle gets the bundle
///
/// # Safety
/// `path` is NULL or a text that ends with a zero; `bundle` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_bundle_open(
    path: *const c_char,
    bundle: *mut *mut HardtackBundle,
) -> HardtackStatus {
    guarded(|| {
        // SAFETY: as the caller promises.
        let (file, to) = unsafe { (self::path(path)?, borrow_mut(bundle, "bundle")?) };
        *to = Box::into_raw(HardtackBundle::new(Bundle::open(file)?)?);
        Ok(())
    })
}

/// Opens a bundle that lies in memory, by copying it.
///
/// @param bytes  its bytes
/// @param length how many
/// @param bundle gets the bundle
///
/// # Safety
/// `bytes` is NULL or points to `length` bytes; `bundle` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_bundle_copy(
    bytes: *const u8,
    length: usize,
    bundle: *mut *mut HardtackBundle,
) -> HardtackStatus {
    guarded(|| {
        // SAFETY: as the caller promises.
        let (bytes, to) =
            unsafe { (slice(bytes, length, "bytes")?, borrow_mut(bundle, "bundle")?) };
        *to = Box::into_raw(HardtackBundle::new(Bundle::from_bytes(bytes)?)?);
        Ok(())
    })
}

/// Reads the whole bundle and compares every digest: after it was downloaded or copied.
///
/// # Safety
/// `bundle` is NULL or an open bundle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_bundle_verify(bundle: *const HardtackBundle) -> HardtackStatus {
    guarded(|| {
        // SAFETY: as the caller promises.
        let bundle = unsafe { borrow(bundle, "bundle")? };
        Ok(bundle.bundle.verify()?)
    })
}

/// Tells the 32 bytes of the digest that names the bundle (SHA-256).
///
/// # Safety
/// `bundle` is NULL or an open bundle; `digest` is NULL or has room for 32 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_bundle_digest(
    bundle: *const HardtackBundle,
    digest: *mut u8,
) -> HardtackStatus {
    guarded(|| {
        // SAFETY: as the caller promises.
        let (bundle, to) =
            unsafe { (borrow(bundle, "bundle")?, borrow_mut(digest.cast(), "digest")?) };
        *to = bundle.bundle.root().0;
        Ok(())
    })
}

/// The name of the model, for as long as the bundle is open; NULL for NULL.
///
/// # Safety
/// `bundle` is NULL or an open bundle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_bundle_name(bundle: *const HardtackBundle) -> *const c_char {
    // SAFETY: as the caller promises.
    unsafe { bundle.as_ref() }.map_or(ptr::null(), |bundle| bundle.name.as_ptr())
}

/// The name of class number `index`, for as long as the bundle is open; NULL where there is none.
///
/// # Safety
/// `bundle` is NULL or an open bundle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_bundle_label(
    bundle: *const HardtackBundle,
    index: usize,
) -> *const c_char {
    // SAFETY: as the caller promises.
    let label = unsafe { bundle.as_ref() }.and_then(|bundle| bundle.labels.get(index));
    label.map_or(ptr::null(), |label| label.as_ptr())
}

/// Closes a bundle. Sessions of it stay whole.
///
/// # Safety
/// `bundle` is NULL or an open bundle, and is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_bundle_free(bundle: *mut HardtackBundle) {
    if !bundle.is_null() {
        // SAFETY: it was made by `Box::into_raw`, and the caller gives it up.
        drop(unsafe { Box::from_raw(bundle) });
    }
}
