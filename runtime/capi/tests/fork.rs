//! Forks of a process that has sessions.
#![cfg(unix)]

mod common;

use std::ptr::null_mut;
use std::time::{Duration, Instant};

use common::*;
use hardtack_capi::HardtackStatus as Status;
use hardtack_capi::*;

/// Runs the model and returns the output, or `None` on failure.
fn answer(session: *mut HardtackSession) -> Option<[u8; 12]> {
    let (input, mut own) = ([3u8; 490], [0u8; 12]);
    let (given, to) = (tensor(HardtackType::I8, &input), buffer(HardtackType::I8, &mut own));
    // SAFETY: the session is not freed, and all other pointers are valid.
    let run = unsafe { hardtack_session_run_into(session, &given, 1, &to, 1) };
    (run == Status::Ok).then_some(own)
}

/// Runs `work` in a forked child. Panics if the child fails or does not exit within seconds.
fn in_child(work: impl FnOnce() -> bool) {
    // SAFETY: the child only calls `work`, on one thread, and exits.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork failed");
    if child == 0 {
        let well = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or(false);
        // SAFETY: `_exit` ends this process without running the parent's exit handlers.
        unsafe { libc::_exit(if well { 0 } else { 1 }) };
    }
    let began = Instant::now();
    let mut status = -1;
    // SAFETY: `status` is valid for writes.
    while unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) } == 0 {
        if began.elapsed() > Duration::from_secs(60) {
            // SAFETY: `child` is the process ID of a child that has not been waited for.
            unsafe { libc::kill(child, libc::SIGKILL) };
            panic!("the child hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(status, 0, "the child failed");
}

#[test]
fn a_child_runs_frees_and_creates_sessions() {
    let options = HardtackOptions { threads: 4, ..hardtack_options() };
    let bundle = bundle("kws_dscnn_i8.tack");
    for pause in [0, 30] {
        let session = session_with("kws_dscnn_i8.tack", &options);
        let expected = answer(session);
        assert!(expected.is_some(), "{}", last());
        std::thread::sleep(Duration::from_millis(pause));
        in_child(|| {
            let (first, second) = (answer(session), answer(session));
            // SAFETY: the session is not used afterwards in this process.
            unsafe { hardtack_session_free(session) };
            first == expected && second == expected
        });
        in_child(|| {
            let mut own = null_mut();
            // SAFETY: the bundle is open, the other pointers are valid, and the session is not used
            // afterwards.
            unsafe {
                let made = hardtack_session_new(bundle, &options, &mut own);
                let same = made == Status::Ok && answer(own) == expected;
                hardtack_session_free(own);
                hardtack_bundle_free(bundle);
                same && answer(session) == expected
            }
        });
        assert_eq!(answer(session), expected);
        // SAFETY: the session is not used afterwards.
        unsafe { hardtack_session_free(session) };
    }
    // SAFETY: the bundle is not used afterwards.
    unsafe { hardtack_bundle_free(bundle) };
}
