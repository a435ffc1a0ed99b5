//! Bundle handles.

use std::ffi::{CString, c_char};
use std::path::PathBuf;
use std::ptr;

use hardtack::Bundle;

use crate::handle::{Handle, borrow, free, give};
use crate::pointer::{Target, owned, path, slice};
use crate::status::{Failure, HardtackStatus, guarded, value_or};

/// An open bundle.
pub struct HardtackBundle {
    pub(crate) bundle: Bundle,
    name: CString,
    pub(crate) labels: Vec<CString>,
}

impl Handle for HardtackBundle {
    const TAG: u64 = u64::from_le_bytes(*b"HTbundle");
    const NAME: &'static str = "a bundle";
}

impl HardtackBundle {
    fn new(bundle: Bundle) -> Result<HardtackBundle, Failure> {
        let name = owned(bundle.manifest()?.name);
        let labels = bundle.labels()?.iter().flat_map(|labels| labels.iter()).map(owned).collect();
        Ok(HardtackBundle { bundle, name, labels })
    }
}

/// Opens the bundle in a file with `how`.
///
/// # Safety
/// `path` is NULL or a NUL-terminated string; `bundle` is NULL or valid for writes.
unsafe fn open(
    path: *const c_char,
    bundle: *mut *mut HardtackBundle,
    how: impl FnOnce(PathBuf) -> Result<Bundle, hardtack::Error>,
) -> Result<(), Failure> {
    // SAFETY: `path` is NULL or a NUL-terminated string.
    let file = unsafe { self::path(path)? };
    // SAFETY: `bundle` is NULL or valid for writes.
    let mut to = unsafe { Target::new(bundle, 1, "bundle")? };
    to.write([give(HardtackBundle::new(how(file)?)?)]);
    Ok(())
}

/// Opens a bundle by mapping its file into memory. Do not modify the file in place while the bundle
/// is in use.
///
/// @param path   the path of the bundle
/// @param bundle receives the bundle
///
/// # Safety
/// `path` is NULL or a NUL-terminated string; `bundle` is NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_bundle_open(
    path: *const c_char,
    bundle: *mut *mut HardtackBundle,
) -> HardtackStatus {
    // SAFETY: `path` is NULL or a NUL-terminated string; `bundle` is NULL or valid for writes.
    guarded(|| unsafe { open(path, bundle, Bundle::open) })
}

/// Opens a bundle without verification. Use it only for a bundle that was verified when it was
/// installed and cannot have changed since. Sessions load faster because they do not check the
/// digests of weights and constants. Damaged weights give wrong results without an error.
///
/// @param path   the path of the bundle
/// @param bundle receives the bundle
///
/// # Safety
/// `path` is NULL or a NUL-terminated string; `bundle` is NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_bundle_open_unverified(
    path: *const c_char,
    bundle: *mut *mut HardtackBundle,
) -> HardtackStatus {
    // SAFETY: `path` is NULL or a NUL-terminated string; `bundle` is NULL or valid for writes.
    guarded(|| unsafe { open(path, bundle, Bundle::open_unverified) })
}

/// Opens a bundle from memory. Copies the bytes.
///
/// @param bytes  the bytes of the bundle
/// @param length the number of bytes
/// @param bundle receives the bundle
///
/// # Safety
/// `bytes` is NULL or points to `length` bytes; `bundle` is NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_bundle_copy(
    bytes: *const u8,
    length: usize,
    bundle: *mut *mut HardtackBundle,
) -> HardtackStatus {
    guarded(|| {
        // SAFETY: `bytes` is NULL or points to `length` bytes, which do not change during the call.
        let bytes = unsafe { slice(bytes, length, "bytes")? };
        // SAFETY: `bundle` is NULL or valid for writes.
        let mut to = unsafe { Target::new(bundle, 1, "bundle")? };
        to.write([give(HardtackBundle::new(Bundle::from_bytes(bytes)?)?)]);
        Ok(())
    })
}

/// Reads the whole bundle and checks every digest. Call it after downloading or copying a bundle.
///
/// # Safety
/// `bundle` is NULL or an open bundle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_bundle_verify(bundle: *const HardtackBundle) -> HardtackStatus {
    guarded(|| {
        // SAFETY: `bundle` is NULL or an open bundle, and bundles are immutable.
        let bundle = unsafe { borrow(bundle, "bundle")? };
        Ok(bundle.bundle.verify()?)
    })
}

/// Writes the 32 bytes of the root digest (SHA-256), which identifies the bundle.
///
/// # Safety
/// `bundle` is NULL or an open bundle; `digest` is NULL or valid for writes of 32 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_bundle_digest(
    bundle: *const HardtackBundle,
    digest: *mut u8,
) -> HardtackStatus {
    guarded(|| {
        // SAFETY: `bundle` is NULL or an open bundle, and bundles are immutable.
        let bundle = unsafe { borrow(bundle, "bundle")? };
        // SAFETY: `digest` is NULL or valid for writes of 32 bytes.
        let mut to = unsafe { Target::new(digest, 32, "digest")? };
        to.write(bundle.bundle.root().0);
        Ok(())
    })
}

/// Returns the name of the model, or NULL for NULL. The string is valid until the bundle is freed.
///
/// # Safety
/// `bundle` is NULL or an open bundle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_bundle_name(bundle: *const HardtackBundle) -> *const c_char {
    value_or(ptr::null(), || {
        if bundle.is_null() {
            return Ok(ptr::null());
        }
        // SAFETY: `bundle` is an open bundle, and bundles are immutable.
        let bundle = unsafe { borrow(bundle, "bundle")? };
        Ok(bundle.name.as_ptr())
    })
}

/// Returns the label of class `index`, or NULL if there is none. The string is valid until the
/// bundle is freed.
///
/// # Safety
/// `bundle` is NULL or an open bundle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_bundle_label(
    bundle: *const HardtackBundle,
    index: usize,
) -> *const c_char {
    value_or(ptr::null(), || {
        if bundle.is_null() {
            return Ok(ptr::null());
        }
        // SAFETY: `bundle` is an open bundle, and bundles are immutable.
        let bundle = unsafe { borrow(bundle, "bundle")? };
        Ok(bundle.labels.get(index).map_or(ptr::null(), |label| label.as_ptr()))
    })
}

/// Frees a bundle. Its sessions remain usable. Does nothing for NULL.
///
/// # Safety
/// `bundle` is NULL or an open bundle, and is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_bundle_free(bundle: *mut HardtackBundle) {
    value_or((), || {
        // SAFETY: `bundle` is NULL or an open bundle, which is not used during or after the call.
        unsafe { free(bundle, "bundle") }
    });
}
