//! Threads that wait for work.

use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::boxed::Box;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle, Thread};
use std::vec::Vec;

use super::Parallel;

/// How often a thread looks for work, or for the end of it, before it lets others run: some
/// tens of microseconds, the time between two operations and not that between two inputs.
const SPINS: usize = 4000;

/// A function that threads call with numbers of parts.
type Work<'a> = &'a (dyn Fn(usize) + Sync);

/// An operation, while it is at work.
struct Task<'a> {
    work: Work<'a>,
    parts: usize,
}

/// Threads that share the parts of operations. They look for work for a while after each
/// operation, and then sleep until there is some.
///
/// A process made by `fork` has none of its parent's threads. There a pool of the parent runs all
/// parts on the calling thread, and is dropped without waiting for anyone.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    process: Process,
    /// Whether this process was found to be another.
    is_orphaned: AtomicBool,
}

#[derive(Debug)]
struct Shared {
    /// Number of operations begun; the worker that sees it rise has work.
    begun: AtomicUsize,
    /// Workers that are done with the last.
    done: AtomicUsize,
    /// Whether there is an operation at work.
    busy: AtomicBool,
    panicked: AtomicBool,
    stop: AtomicBool,
    /// The operation at work. Written before `begun` rises, read after, and not any more once all
    /// workers are done.
    task: AtomicPtr<Task<'static>>,
    sleepers: Box<[Sleeper]>,
}

#[derive(Debug, Default)]
struct Sleeper {
    asleep: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Pool {
    /// The most parts at once that a pool can be for.
    pub const MOST: usize = 1024;

    /// A pool for so many parts at once, the calling thread's among them; at least 1.
    ///
    /// # Errors
    /// Where `threads` is more than [`Pool::MOST`], and where the system refuses a thread.
    pub fn new(threads: usize) -> io::Result<Self> {
        if threads > Self::MOST {
            let most = std::format!("at most {} threads are possible", Self::MOST);
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
            // Set once for each worker.
            let _ = pool.shared.sleepers[index].thread.set(worker.thread().clone());
            pool.workers.push(worker);
        }
        Ok(pool)
    }
}

// SAFETY: every number belongs to one thread, the caller's or a worker's, which calls `work` with it
// once: see `Shared::share`. `run` waits until each worker said that it is done, also where its own
// part panics. In a child process, and where an operation is at work already, one call follows the
// other.
unsafe impl Parallel for Pool {
    fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    fn run(&self, parts: usize, work: &(dyn Fn(usize) + Sync)) {
        let shared = &*self.shared;
        // Another thread's operation, one within a part, or a child's: this one runs here.
        if parts <= 1
            || self.workers.is_empty()
            || self.is_orphaned.load(Ordering::Relaxed)
            || shared.busy.swap(true, Ordering::Acquire)
        {
            return (0..parts).for_each(work);
        }
        // Asking the system which process this is takes as long as waking a thread, so it is only
        // asked before one is woken, and when one is late.
        if shared.is_asleep() && self.find_orphaned() {
            return (0..parts).for_each(work);
        }
        let task = Task { work, parts };
        // Workers use it only until they are done, for which this function waits.
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
                // The child process has no workers: the calling thread does their parts.
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
    /// Whether this process is not the one that has the workers.
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
            // Their threads are those of the parent: there is nobody to wait for, and nothing that
            // could be detached.
            self.workers.drain(..).for_each(core::mem::forget);
            return;
        }
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.begin();
        for worker in self.workers.drain(..) {
            // Workers catch panics of their work.
            let _ = worker.join();
        }
    }
}

/// A process, where there can be others with the same memory.
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

    /// Whether it is this one, and not one that this one was forked from.
    fn is_this(&self) -> bool {
        #[cfg(unix)]
        return self.id == std::process::id();
        #[cfg(not(unix))]
        true
    }
}

impl Shared {
    /// Whether a worker sleeps.
    fn is_asleep(&self) -> bool {
        self.sleepers.iter().any(|sleeper| sleeper.asleep.load(Ordering::Relaxed))
    }

    /// Tells the workers that there is work.
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

    /// The life of a worker.
    fn work(&self, index: usize) {
        let mut seen = 0;
        loop {
            self.wait(index, seen);
            seen += 1;
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            // SAFETY: `run` wrote the address of a `Task` before `begun` rose, and keeps the task
            // until this thread says that it is done. Nobody changes it.
            let task = unsafe { &*self.task.load(Ordering::Relaxed) };
            let share = AssertUnwindSafe(|| self.share(task, index + 1));
            if catch_unwind(share).is_err() {
                self.panicked.store(true, Ordering::Relaxed);
            }
            self.done.fetch_add(1, Ordering::Release);
        }
    }

    /// Waits until more than `seen` operations have begun.
    fn wait(&self, index: usize, seen: usize) {
        let mut spins = 0;
        while self.begun.load(Ordering::Acquire) == seen {
            core::hint::spin_loop();
            spins += 1;
            if spins > SPINS {
                let sleeper = &self.sleepers[index];
                // Read and written at once, so that even emulators keep it before the next read.
                sleeper.asleep.swap(true, Ordering::SeqCst);
                // Whoever begins after this has seen that it sleeps.
                while self.begun.load(Ordering::SeqCst) == seen {
                    thread::park();
                }
                sleeper.asleep.store(false, Ordering::Relaxed);
            }
        }
    }

    /// The parts of one thread: every n-th of n threads, so that each part is one thread's.
    fn share(&self, task: &Task<'_>, index: usize) {
        (index..task.parts).step_by(self.sleepers.len() + 1).for_each(task.work);
    }
}

// WebAssembly has no threads.
#[cfg(all(test, not(target_family = "wasm")))]
mod tests {
    use super::*;

    #[test]
    fn every_part_runs_once_whatever_the_number_of_threads() {
        for threads in 1..5 {
            let pool = Pool::new(threads).unwrap();
            assert_eq!(pool.threads(), threads);
            for round in 0..300 {
                let parts = round % 9;
                let counts: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
                pool.run(parts, &|part| {
                    counts[part].fetch_add(1, Ordering::Relaxed);
                    // From within, and while the pool is busy.
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
    fn a_panic_of_any_part_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(3).unwrap();
        for bad in 0..3 {
            let run = || pool.run(3, &|part| assert_ne!(part, bad, "on purpose"));
            assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
            pool.run(3, &|_| {});
        }
    }
}
