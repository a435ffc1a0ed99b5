//! A thread pool.

use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::boxed::Box;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle, Thread};
use std::vec::Vec;

use super::Parallel;

/// The number of polls for work, or for its completion, before a thread sleeps or yields: some tens
/// of microseconds, which bridges the gap between two operations but not between two inferences.
const SPINS: usize = 4000;

/// A function that threads call with the indices of parts.
type Work<'a> = &'a (dyn Fn(usize) + Sync);

/// An operation in progress.
struct Task<'a> {
    work: Work<'a>,
    parts: usize,
}

/// A thread pool that runs the parts of operations. After an operation, workers poll for the next
/// one for a short time and then sleep.
///
/// A process created by `fork` does not inherit the threads of its parent. In the child, an
/// inherited pool runs all parts on the calling thread, and dropping it does not wait for workers.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    process: Process,
    /// Whether this process is known to be a fork of the one that created the pool.
    is_orphaned: AtomicBool,
}

#[derive(Debug)]
struct Shared {
    /// The number of operations started. A worker that sees it increase has work.
    begun: AtomicUsize,
    /// The number of workers that have finished the current operation.
    done: AtomicUsize,
    /// Whether an operation is in progress.
    busy: AtomicBool,
    panicked: AtomicBool,
    stop: AtomicBool,
    /// The operation in progress. Written before `begun` increases, read after, and no longer read
    /// once all workers are done.
    task: AtomicPtr<Task<'static>>,
    sleepers: Box<[Sleeper]>,
}

#[derive(Debug, Default)]
struct Sleeper {
    asleep: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Pool {
    /// The maximum number of threads.
    pub const MOST: usize = 1024;

    /// Creates a pool of `threads` threads, including the calling thread. 0 is treated as 1.
    ///
    /// # Errors
    /// If `threads` is more than [`Pool::MOST`], or the system cannot create a thread.
    pub fn new(threads: usize) -> io::Result<Self> {
        if threads > Self::MOST {
            let most = std::format!("the maximum number of threads is {}", Self::MOST);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, most));
        }
        let count = threads.saturating_sub(1);
        let shared = Arc::new(Shared {
            begun: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            busy: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            task: AtomicPtr::new(core::ptr::null_mut()),
            sleepers: (0..count).map(|_| Sleeper::default()).collect(),
        });
        let (process, is_orphaned) = (Process::this(), AtomicBool::new(false));
        let mut pool = Self { shared, workers: Vec::new(), process, is_orphaned };
        for index in 0..count {
            let shared = pool.shared.clone();
            let name = std::format!("hardtack-{}", index + 1);
            let worker = thread::Builder::new().name(name).spawn(move || shared.work(index))?;
            // Succeeds, because it is set once per worker.
            let _ = pool.shared.sleepers[index].thread.set(worker.thread().clone());
            pool.workers.push(worker);
        }
        Ok(pool)
    }
}

// SAFETY: every index belongs to exactly one thread, the caller or a worker, which calls `work`
// with it once (see `Shared::share`). `run` waits until each worker has incremented `done`, even if
// its own part panics. In a forked child, and if an operation is already in progress, `run` calls
// `work` in a loop on the calling thread.
unsafe impl Parallel for Pool {
    fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    fn run(&self, parts: usize, work: &(dyn Fn(usize) + Sync)) {
        let shared = &*self.shared;
        // Run on this thread in a forked child, or if an operation is in progress: one of another
        // thread, or one that contains this one.
        if parts <= 1
            || self.workers.is_empty()
            || self.is_orphaned.load(Ordering::Relaxed)
            || shared.busy.swap(true, Ordering::Acquire)
        {
            return (0..parts).for_each(work);
        }
        // Querying the process ID takes as long as waking a thread, so do it only before waking
        // one, and when a worker is late.
        if shared.is_asleep() && self.find_orphaned() {
            return (0..parts).for_each(work);
        }
        let task = Task { work, parts };
        // Workers use the task only until they are done, and this function waits for that.
        let lent = (&raw const task).cast_mut().cast::<Task<'static>>();
        shared.task.store(lent, Ordering::Relaxed);
        shared.done.store(0, Ordering::Relaxed);
        shared.begin();
        let mut own = catch_unwind(AssertUnwindSafe(|| shared.share(&task, 0)));
        let mut spins = 0;
        while shared.done.load(Ordering::Acquire) < self.workers.len() {
            core::hint::spin_loop();
            spins += 1;
            if spins == SPINS && self.find_orphaned() {
                // A forked child has no workers: run their parts on the calling thread.
                let rest = || (1..=self.workers.len()).for_each(|index| shared.share(&task, index));
                own = own.and_then(|()| catch_unwind(AssertUnwindSafe(rest)));
                break;
            }
            if spins > SPINS {
                thread::yield_now();
            }
        }
        let panicked = shared.panicked.swap(false, Ordering::Relaxed);
        shared.busy.store(false, Ordering::Release);
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        assert!(!panicked, "a part of an operation panicked");
    }
}

impl Pool {
    /// Checks whether this process is a fork of the one that created the pool.
    #[cold]
    fn find_orphaned(&self) -> bool {
        let is_orphaned = !self.process.is_this();
        self.is_orphaned.store(is_orphaned, Ordering::Relaxed);
        is_orphaned
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if !self.process.is_this() {
            // The threads belong to the parent process, so they can be neither joined nor detached.
            self.workers.drain(..).for_each(core::mem::forget);
            return;
        }
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.begin();
        for worker in self.workers.drain(..) {
            // Cannot fail, because workers catch panics.
            let _ = worker.join();
        }
    }
}

/// The identity of a process, on systems where `fork` can copy its memory.
#[derive(Debug)]
struct Process {
    #[cfg(unix)]
    id: u32,
}

impl Process {
    fn this() -> Self {
        Self {
            #[cfg(unix)]
            id: std::process::id(),
        }
    }

    /// Returns whether this is the current process, and not one that it was forked from.
    fn is_this(&self) -> bool {
        #[cfg(unix)]
        return self.id == std::process::id();
        #[cfg(not(unix))]
        true
    }
}

impl Shared {
    /// Returns whether any worker sleeps.
    fn is_asleep(&self) -> bool {
        self.sleepers.iter().any(|sleeper| sleeper.asleep.load(Ordering::Relaxed))
    }

    /// Starts an operation and wakes sleeping workers.
    fn begin(&self) {
        self.begun.fetch_add(1, Ordering::SeqCst);
        for sleeper in &self.sleepers {
            if sleeper.asleep.load(Ordering::SeqCst)
                && let Some(thread) = sleeper.thread.get()
            {
                thread.unpark();
            }
        }
    }

    /// The main loop of a worker.
    fn work(&self, index: usize) {
        let mut seen = 0;
        loop {
            self.wait(index, seen);
            seen += 1;
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            // SAFETY: `run` stored the address of a `Task` before it increased `begun`, and keeps
            // the task alive and unchanged until this thread increments `done`.
            let task = unsafe { &*self.task.load(Ordering::Relaxed) };
            let share = AssertUnwindSafe(|| self.share(task, index + 1));
            if catch_unwind(share).is_err() {
                self.panicked.store(true, Ordering::Relaxed);
            }
            self.done.fetch_add(1, Ordering::Release);
        }
    }

    /// Waits until more than `seen` operations have started.
    fn wait(&self, index: usize, seen: usize) {
        let mut spins = 0;
        while self.begun.load(Ordering::Acquire) == seen {
            core::hint::spin_loop();
            spins += 1;
            if spins > SPINS {
                let sleeper = &self.sleepers[index];
                // A read-modify-write operation, which even emulators order before the next read.
                sleeper.asleep.swap(true, Ordering::SeqCst);
                // Every `begin` from now on sees that this worker sleeps.
                while self.begun.load(Ordering::SeqCst) == seen {
                    thread::park();
                }
                sleeper.asleep.store(false, Ordering::Relaxed);
            }
        }
    }

    /// Runs the parts of one thread: every n-th part for n threads, starting at `index`.
    fn share(&self, task: &Task<'_>, index: usize) {
        (index..task.parts).step_by(self.sleepers.len() + 1).for_each(task.work);
    }
}

// WebAssembly has no threads.
#[cfg(all(test, not(target_family = "wasm")))]
mod tests {
    use super::*;

    #[test]
    fn every_part_runs_once_for_any_number_of_threads() {
        for threads in 1..5 {
            let pool = Pool::new(threads).unwrap();
            assert_eq!(pool.threads(), threads);
            for round in 0..300 {
                let parts = round % 9;
                let counts: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
                pool.run(parts, &|part| {
                    counts[part].fetch_add(1, Ordering::Relaxed);
                    // A nested operation while the pool is busy.
                    pool.run(2, &|_| {});
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
                if round % 100 == 50 {
                    thread::sleep(std::time::Duration::from_millis(3));
                }
            }
        }
    }

    #[test]
    fn a_panic_in_any_part_reaches_the_caller_and_the_pool_stays_usable() {
        let pool = Pool::new(3).unwrap();
        for bad in 0..3 {
            let run = || pool.run(3, &|part| assert_ne!(part, bad, "on purpose"));
            assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
            pool.run(3, &|_| {});
        }
    }
}
