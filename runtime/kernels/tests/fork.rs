//! A pool in a process that was forked: none of its threads are there, and nothing waits for them.
#![cfg(all(unix, feature = "std"))]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hardtack_kernels::strided::{Parallel, Pool};

/// Whether every part runs once.
fn works(pool: &Pool) -> bool {
    (0..9).all(|parts| {
        let counts: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
        pool.run(parts, &|part| {
            counts[part].fetch_add(1, Ordering::Relaxed);
        });
        counts.iter().all(|count| count.load(Ordering::Relaxed) == 1)
    })
}

/// Forks; fails where the child does not end well within some seconds.
fn in_child(work: impl FnOnce() -> bool) {
    // SAFETY: the child does what `work` does, on one thread, and ends.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "the system refuses to fork");
    if child == 0 {
        let well = catch_unwind(AssertUnwindSafe(work)).unwrap_or(false);
        // SAFETY: ends this process, without what the parent wants to be done at its end.
        unsafe { libc::_exit(if well { 0 } else { 1 }) };
    }
    let began = Instant::now();
    let mut status = -1;
    // SAFETY: `status` can be written.
    while unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) } == 0 {
        if began.elapsed() > Duration::from_secs(30) {
            // SAFETY: it is the child, which has not been waited for.
            unsafe { libc::kill(child, libc::SIGKILL) };
            panic!("the child hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(status, 0, "the child failed");
}

#[test]
fn a_child_runs_frees_and_makes_pools() {
    let pause = Duration::from_millis(30);
    // Workers that sleep at the time, and workers that do not yet.
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
            // A child of a child.
            let reference = pool.as_ref().unwrap();
            in_child(|| {
                in_child(|| works(reference));
                works(reference)
            });
            // The parent has its threads.
            assert!(works(reference));
        }
    }
}

#[test]
fn a_panic_in_a_child_reaches_it() {
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
fn pools_of_too_many_threads_are_refused() {
    for threads in [Pool::MOST + 1, 4_000_000_000, usize::MAX] {
        let error = Pool::new(threads).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    }
}
