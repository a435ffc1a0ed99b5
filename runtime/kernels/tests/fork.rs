//! A thread pool in a forked process, which has none of its threads and must not wait for them.
#![cfg(all(unix, feature = "std"))]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hardtack_kernels::strided::{Parallel, Pool};

/// Returns whether every part runs exactly once.
fn works(pool: &Pool) -> bool {
    (0..9).all(|parts| {
        let counts: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
        pool.run(parts, &|part| {
            counts[part].fetch_add(1, Ordering::Relaxed);
        });
        counts.iter().all(|count| count.load(Ordering::Relaxed) == 1)
    })
}

/// Runs `work` in a forked child. Fails if it returns false or does not finish within 30 seconds.
fn in_child(work: impl FnOnce() -> bool) {
    // SAFETY: the child runs only `work` on its single thread, and then exits.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork failed");
    if child == 0 {
        let well = catch_unwind(AssertUnwindSafe(work)).unwrap_or(false);
        // SAFETY: ends the child process without running the parent's exit handlers.
        unsafe { libc::_exit(if well { 0 } else { 1 }) };
    }
    let began = Instant::now();
    let mut status = -1;
    // SAFETY: `status` is valid for writes.
    while unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) } == 0 {
        if began.elapsed() > Duration::from_secs(30) {
            // SAFETY: `child` has not been reaped, so the process ID is still valid.
            unsafe { libc::kill(child, libc::SIGKILL) };
            panic!("the child hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(status, 0, "the child failed");
}

#[test]
fn a_child_can_run_drop_and_create_pools() {
    let pause = Duration::from_millis(30);
    // With workers that sleep, and with workers that still poll.
    for pause in [pause, Duration::ZERO] {
        for _ in 0..3 {
            let mut pool = Some(Pool::new(4).unwrap());
            let reference = pool.as_ref().unwrap();
            assert!(works(reference));
            std::thread::sleep(pause);
            in_child(|| works(reference) && works(reference));
            in_child(|| {
                let own = Pool::new(3).unwrap();
                works(&own) && works(reference) && {
                    drop(own);
                    true
                }
            });
            assert!(works(reference));
            std::thread::sleep(pause);
            in_child(|| {
                drop(pool.take());
                true
            });
            // A grandchild.
            let reference = pool.as_ref().unwrap();
            in_child(|| {
                in_child(|| works(reference));
                works(reference)
            });
            // The pool still works in the parent.
            assert!(works(reference));
        }
    }
}

#[test]
fn a_panic_in_a_child_reaches_its_caller() {
    let pool = Pool::new(4).unwrap();
    std::panic::set_hook(Box::new(|_| ()));
    for bad in 0..4 {
        assert!(works(&pool));
        in_child(|| {
            let run = || pool.run(4, &|part| assert_ne!(part, bad));
            catch_unwind(AssertUnwindSafe(run)).is_err() && works(&pool)
        });
    }
}

#[test]
fn pools_with_too_many_threads_are_rejected() {
    for threads in [Pool::MOST + 1, 4_000_000_000, usize::MAX] {
        let error = Pool::new(threads).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    }
}
