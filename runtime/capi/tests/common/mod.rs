//! Helpers of the interface tests.
#![allow(dead_code, reason = "each test uses only some helpers")]

use std::ffi::{CStr, CString, c_char};
use std::path::Path;
use std::ptr::{null, null_mut};

use hardtack_capi::HardtackStatus as Status;
use hardtack_capi::*;

pub fn frozen(name: &str) -> CString {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/frozen/programs");
    CString::new(folder.join(name).to_str().unwrap()).unwrap()
}

pub fn text(text: *const c_char) -> String {
    assert!(!text.is_null());
    // SAFETY: the library returns NUL-terminated strings.
    unsafe { CStr::from_ptr(text) }.to_str().unwrap().into()
}

pub fn last() -> String {
    text(hardtack_last_error())
}

pub fn bundle(name: &str) -> *mut HardtackBundle {
    let mut bundle = null_mut();
    // SAFETY: both pointers are valid.
    let status = unsafe { hardtack_bundle_open(frozen(name).as_ptr(), &mut bundle) };
    assert_eq!(status, Status::Ok, "{}", last());
    bundle
}

pub fn session(name: &str) -> *mut HardtackSession {
    session_with(name, null())
}

pub fn session_with(name: &str, options: *const HardtackOptions) -> *mut HardtackSession {
    let (bundle, mut session) = (bundle(name), null_mut());
    // SAFETY: the pointers are valid, and the bundle is not used after it is freed.
    unsafe {
        let status = hardtack_session_new(bundle, options, &mut session);
        assert_eq!(status, Status::Ok, "{}", last());
        hardtack_bundle_free(bundle);
    }
    session
}

pub fn tensor(dtype: HardtackType, bytes: &[u8]) -> HardtackTensor {
    let data = bytes.as_ptr().cast();
    let (shape, name) = ([0; HARDTACK_MAX_RANK], null());
    HardtackTensor { name, dtype: dtype as u32, rank: 0, shape, data, bytes: bytes.len() }
}

pub fn buffer(dtype: HardtackType, bytes: &mut [u8]) -> HardtackBuffer {
    let data = bytes.as_mut_ptr().cast();
    HardtackBuffer { name: null(), dtype: dtype as u32, data, bytes: bytes.len() }
}

pub const NOTHING: HardtackTensor = HardtackTensor {
    name: null(),
    dtype: 0,
    rank: 0,
    shape: [0; HARDTACK_MAX_RANK],
    data: null(),
    bytes: 0,
};
