//! Work that is shared out to threads.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Duration;

use crate::error::Problem;
use crate::meter;

/// The number of operations from which threads are watched until they end.
const LARGE: usize = 1 << 26;

/// Decides whether a thread goes on.
pub(super) struct Pace<'a> {
    stopped: &'a AtomicBool,
    pending: Cell<u64>,
}

impl Pace<'_> {
    /// Returns whether to go on after a number of operations, which are counted already.
    pub(super) fn goes_on(&self, operations: usize) -> bool {
        const STEP: u64 = 1 << 16;
        let pending = self.pending.get().saturating_add(operations as u64);
        if pending < STEP {
            self.pending.set(pending);
            return true;
        }
        self.pending.set(0);
        // Only the thread of the evaluation has a meter.
        if meter::pass(pending).is_err() {
            self.stopped.store(true, Ordering::Relaxed);
        }
        !self.stopped.load(Ordering::Relaxed)
    }
}

/// Counts operations, and does the jobs that they are for on several threads. `work` is called once
/// on each; it must return when its [`Pace`] does not go on.
pub(super) fn share_out<J: Send>(
    jobs: Vec<J>,
    threads: usize,
    operations: usize,
    work: impl Fn(&mut dyn Iterator<Item = J>, &Pace<'_>) + Sync,
) -> Result<(), Problem> {
    meter::spend(operations as u64)?;
    let threads = threads.min(jobs.len());
    let (queue, stopped) = (Mutex::new(jobs.into_iter()), AtomicBool::new(false));
    let work = || {
        let pace = Pace { stopped: &stopped, pending: Cell::new(0) };
        let mut jobs = std::iter::from_fn(|| match stopped.load(Ordering::Relaxed) {
            true => None,
            false => queue.lock().ok()?.next(),
        });
        work(&mut jobs, &pace);
    };
    thread::scope(|scope| {
        let (alive, finished) = mpsc::channel::<()>();
        for _ in 1..threads {
            let alive = alive.clone();
            let work = move || {
                let _alive = alive;
                work();
            };
            // If no thread can be started, this one does the work.
            let _ = thread::Builder::new().spawn_scoped(scope, work);
        }
        drop(alive);
        work();
        // The others are stopped if the evaluation must stop, unless they have little to do.
        let interval = Duration::from_millis(5);
        while operations > LARGE
            && finished.recv_timeout(interval) == Err(mpsc::RecvTimeoutError::Timeout)
        {
            if meter::pass(u64::MAX).is_err() {
                stopped.store(true, Ordering::Relaxed);
            }
        }
    });
    if stopped.into_inner() { Err(Problem::Stopped) } else { Ok(()) }
}
