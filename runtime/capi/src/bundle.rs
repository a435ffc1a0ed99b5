//! Bundles.

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

/// Opens the bundle of a file with `how`.
///
/// # Safety
/// `path` is NULL or a text that ends with a zero; `bundle` is NULL or can be written.
unsafe fn open(
    path: *const c_char,
    bundle: *mut *mut HardtackBundle,
    how: impl FnOnce(PathBuf) -> Result<Bundle, hardtack::Error>,
) -> Result<(), Failure> {
    // SAFETY: `path` is NULL or a text that ends with a zero.
    let file = unsafe { self::path(path)? };
    // SAFETY: `bundle` is NULL or can be written.
    let mut to = unsafe { Target::new(bundle, 1, "bundle")? };
    to.write([give(HardtackBundle::new(how(file)?)?)]);
    Ok(())
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
    // SAFETY: `path` is NULL or a text that ends with a zero; `bundle` is NULL or can be written.
    guarded(|| unsafe { open(path, bundle, Bundle::open) })
}

/// Opens a bundle that was verified when it was installed and that nobody could change since:
/// sessions do not compare its weights and constants with their digests, and load faster. Damaged
/// weights then give wrong numbers without an error.
///
/// @param path   the file
/// @param bundle gets the bundle
///
/// # Safety
/// `path` is NULL or a text that ends with a zero; `bundle` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_bundle_open_unverified(
    path: *const c_char,
    bundle: *mut *mut HardtackBundle,
) -> HardtackStatus {
    // SAFETY: `path` is NULL or a text that ends with a zero; `bundle` is NULL or can be written.
    guarded(|| unsafe { open(path, bundle, Bundle::open_unverified) })
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
        // SAFETY: `bytes` is NULL or points to `length` bytes, which nobody changes during the call.
        let bytes = unsafe { slice(bytes, length, "bytes")? };
        // SAFETY: `bundle` is NULL or can be written.
        let mut to = unsafe { Target::new(bundle, 1, "bundle")? };
        to.write([give(HardtackBundle::new(Bundle::from_bytes(bytes)?)?)]);
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
        // SAFETY: `bundle` is NULL or an open bundle, which nobody changes.
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
        // SAFETY: `bundle` is NULL or an open bundle, which nobody changes.
        let bundle = unsafe { borrow(bundle, "bundle")? };
        // SAFETY: `digest` is NULL or has room for 32 bytes.
        let mut to = unsafe { Target::new(digest, 32, "digest")? };
        to.write(bundle.bundle.root().0);
        Ok(())
    })
}

/// The name of the model, for as long as the bundle is open; NULL for NULL.
///
/// # Safety
/// `bundle` is NULL or an open bundle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_bundle_name(bundle: *const HardtackBundle) -> *const c_char {
    value_or(ptr::null(), || {
        if bundle.is_null() {
            return Ok(ptr::null());
        }
        // SAFETY: `bundle` is an open bundle, which nobody changes.
        let bundle = unsafe { borrow(bundle, "bundle")? };
        Ok(bundle.name.as_ptr())
    })
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
    value_or(ptr::null(), || {
        if bundle.is_null() {
            return Ok(ptr::null());
        }
        // SAFETY: `bundle` is an open bundle, which nobody changes.
        let bundle = unsafe { borrow(bundle, "bundle")? };
        Ok(bundle.labels.get(index).map_or(ptr::null(), |label| label.as_ptr()))
    })
}

/// Frees a bundle. Its sessions remain usable. Does nothing for NULL.
///
/// # Safety
/// `bundle` is NULL or an open bundle, and is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_bundle_free(bundle: *mut HardtackBundle) {
    value_or((), || {
        // SAFETY: `bundle` is NULL or an open bundle, which nobody uses any more.
        unsafe { free(bundle, "bundle") }
    });
}
