//! The backend of integer programs: an instruction set and a thread pool.

use std::sync::Arc;
use std::time::Instant;

use hardtack_engine::{Executor, ProgramError};
use hardtack_kernels::Isa;
use hardtack_kernels::strided::{Kernels, Pool};

use crate::model::Program;
use crate::{Bytes, Error, Exceeded, Limits};

/// An instruction set and a thread pool.
#[derive(Debug)]
pub(crate) struct Backend {
    isa: Isa,
    pool: Pool,
}

/// The reason why a program cannot be prepared.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NotReady {
    /// The program is malformed.
    Program(ProgramError),
    /// The program exceeds a limit.
    Exceeded(Exceeded),
}

impl NotReady {
    /// Returns the error for the program with index `program` of a model.
    pub(crate) fn of(self, program: usize) -> Error {
        match self {
            NotReady::Program(error) => Error::Program { program, error },
            NotReady::Exceeded(exceeded) => Error::Exceeded(exceeded),
        }
    }
}

impl From<ProgramError> for NotReady {
    fn from(error: ProgramError) -> NotReady {
        NotReady::Program(error)
    }
}

impl From<Exceeded> for NotReady {
    fn from(exceeded: Exceeded) -> NotReady {
        NotReady::Exceeded(exceeded)
    }
}

impl Backend {
    /// The maximum number of threads of a session. It is more than any processor can use, and small
    /// enough that a mistaken value exhausts neither memory nor the threads of the system. It is
    /// the same on every machine, so that options are portable.
    pub(crate) const MOST_THREADS: usize = Pool::MOST;

    /// Creates a backend with this number of threads and this instruction set; `None` selects the
    /// best one available.
    ///
    /// # Errors
    /// Returns an error if the processor lacks the instruction set, if `threads` exceeds
    /// [`Backend::MOST_THREADS`] (before anything is allocated), or if the system cannot start a
    /// thread.
    pub(crate) fn new(isa: Option<Isa>, threads: usize) -> Result<Arc<Backend>, Error> {
        if !(1..=Self::MOST_THREADS).contains(&threads) {
            return Err(Error::ThreadCount { threads, most: Self::MOST_THREADS });
        }
        let isa = match isa {
            Some(isa) if !isa.is_supported() => return Err(Error::Isa { isa }),
            Some(isa) => isa,
            None => Isa::detect(),
        };
        // An instruction set without its own kernels runs portable code.
        let isa = if Kernels::for_isa(isa).is_some() { isa } else { Isa::Scalar };
        let pool = Pool::new(threads).map_err(|error| Error::Threads { threads, error })?;
        Ok(Arc::new(Backend { isa, pool }))
    }

    /// Creates a backend with one thread and the best instruction set available.
    #[cfg(feature = "float")]
    pub(crate) fn detect() -> Arc<Backend> {
        Backend::new(None, 1).expect("one thread with a detected ISA never fails")
    }

    pub(crate) fn isa(&self) -> Isa {
        self.isa
    }

    /// Measures the peak multiply-accumulates per second of one thread; `None` for portable code.
    pub(crate) fn peak(&self) -> Option<f64> {
        let kernels = Kernels::for_isa(self.isa)?;
        let measure = || {
            let began = Instant::now();
            let macs = kernels.peak(100_000);
            macs as f64 / began.elapsed().as_secs_f64()
        };
        // Take the best of 10 measurements: other processes may use the processor for a while.
        (0..10).map(|_| measure()).reduce(f64::max)
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Checks a program against the limits and prepares it to run.
    pub(crate) fn ready(
        &self,
        program: &Program,
        limits: &Limits,
    ) -> Result<Executor<Bytes>, NotReady> {
        let program = program.parse()?;
        limits.check_operations(program.operations())?;
        let outputs = program.output_bytes();
        limits.check_memory(program.memory_bytes(self.isa)?.saturating_add(outputs))?;
        let executor = Executor::new(program, self.isa)?;
        // The kernels of this processor may need a larger arena than the program states.
        let needed = executor.arena_bytes() as u64 + executor.packed_bytes() as u64;
        limits.check_memory(needed.saturating_add(outputs))?;
        Ok(executor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thread_counts_out_of_range_are_an_error() {
        let most = Backend::MOST_THREADS;
        for threads in [0, most + 1, 4_000_000_000, usize::MAX] {
            let error = Backend::new(None, threads).unwrap_err();
            let is_typed = matches!(error, Error::ThreadCount { threads: t, most: m }
                if t == threads && m == most);
            assert!(is_typed, "{error}");
        }
    }
}
