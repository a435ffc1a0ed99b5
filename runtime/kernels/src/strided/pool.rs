//! Threads that wait for work.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::boxed::Box;
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

/// Threads that share the parts of operations. They look for work for a while after each
/// operation, and then sleep until there is some.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
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
    /// A [`Work`] in two words, and its number of parts. Written before `begun` rises, read
    /// after.
    work: [AtomicUsize; 2],
    parts: AtomicUsize,
    sleepers: Box<[Sleeper]>,
}

#[derive(Debug, Default)]
struct Sleeper {
    asleep: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Pool {
    /// A pool for so many parts at once, the calling thread's among them; at least 1.
    ///
    /// # Errors
    /// Where the system refuses a thread.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let count = threads.saturating_sub(1);
        let shared = Arc::new(Shared {
            begun: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            busy: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            work: [const { AtomicUsize::new(0) }; 2],
            parts: AtomicUsize::new(0),
            sleepers: (0..count).map(|_| Sleeper::default()).collect(),
        });
        let mut pool = Self { shared, workers: Vec::new() };
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

impl Parallel for Pool {
    fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    fn run(&self, parts: usize, work: &(dyn Fn(usize) + Sync)) {
        let shared = &*self.shared;
        // Another thread's operation, or one within a part: this one runs here.
        if parts <= 1 || self.workers.is_empty() || shared.busy.swap(true, Ordering::Acquire) {
            return (0..parts).for_each(work);
        }
        // SAFETY: both are two words: an address and a table of functions.
        let words: [usize; 2] = unsafe { core::mem::transmute::<Work<'_>, _>(work) };
        for (place, word) in shared.work.iter().zip(words) {
            place.store(word, Ordering::Relaxed);
        }
        shared.parts.store(parts, Ordering::Relaxed);
        shared.done.store(0, Ordering::Relaxed);
        shared.begin();
        let own = catch_unwind(AssertUnwindSafe(|| shared.share(work, parts, 0)));
        let mut spins = 0;
        while shared.done.load(Ordering::Acquire) < self.workers.len() {
            core::hint::spin_loop();
            spins += 1;
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

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.begin();
        for worker in self.workers.drain(..) {
            // Workers catch panics of their work.
            let _ = worker.join();
        }
    }
}

impl Shared {
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
            let words = [0, 1].map(|place: usize| self.work[place].load(Ordering::Relaxed));
            // SAFETY: the words are those of a `Work`, written before `begun` rose. It is
            // borrowed until this thread says that it is done.
            let work: Work<'_> = unsafe { core::mem::transmute(words) };
            let parts = self.parts.load(Ordering::Relaxed);
            let share = AssertUnwindSafe(|| self.share(work, parts, index + 1));
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

    /// The parts of one thread.
    fn share(&self, work: Work<'_>, parts: usize, index: usize) {
        (index..parts).step_by(self.sleepers.len() + 1).for_each(work);
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
