//! What integer programs run on.

use std::sync::Arc;
use std::time::Instant;

use hardtack_engine::{Executor, ProgramError};
use hardtack_kernels::Isa;
use hardtack_kernels::strided::{Kernels, Pool};

use crate::{Bytes, Error, Exceeded, Limits, Program};

/// An instruction set and threads.
#[derive(Debug)]
pub(crate) struct Processor {
    isa: Isa,
    pool: Pool,
}

/// Why a program cannot be made ready.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NotReady {
    /// The program is not sound.
    Program(ProgramError),
    /// It needs more than a limit allows.
    Exceeded(Exceeded),
}

impl NotReady {
    /// The error for program number `program` of a model.
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

impl Processor {
    /// The most threads that a session may have: more than any processor makes use of, and few enough
    /// that a wrong number costs neither the memory nor the threads of the system. The same on every
    /// machine, so that options that work on one work on another.
    pub(crate) const MOST_THREADS: usize = Pool::MOST;

    /// So many threads, with this instruction set or the best there is.
    ///
    /// # Errors
    /// Where the processor does not have the instruction set, where there are more than
    /// [`Processor::MOST_THREADS`], for which nothing is allocated, and where the system refuses one.
    pub(crate) fn new(isa: Option<Isa>, threads: usize) -> Result<Arc<Processor>, Error> {
        if threads > Self::MOST_THREADS {
            return Err(Error::TooManyThreads { threads, most: Self::MOST_THREADS });
        }
        let isa = match isa {
            Some(isa) if !isa.is_supported() => return Err(Error::Isa { isa }),
            Some(isa) => isa,
            None => Isa::detect(),
        };
        // An instruction set without kernels of its own runs portable code.
        let isa = if Kernels::for_isa(isa).is_some() { isa } else { Isa::Scalar };
        let pool = Pool::new(threads).map_err(|error| Error::Threads { threads, error })?;
        Ok(Arc::new(Processor { isa, pool }))
    }

    /// One thread, with the best instruction set there is.
    #[cfg(feature = "float")]
    pub(crate) fn detect() -> Arc<Processor> {
        Processor::new(None, 1).expect("one thread is this one")
    }

    pub(crate) fn isa(&self) -> Isa {
        self.isa
    }

    /// Products in a second of one thread that does nothing else; `None` for portable code.
    pub(crate) fn peak(&self) -> Option<f64> {
        let kernels = Kernels::for_isa(self.isa)?;
        let measure = || {
            let began = Instant::now();
            let products = kernels.peak(100_000);
            products as f64 / began.elapsed().as_secs_f64()
        };
        // The best of some: others may have the processor for a while.
        (0..10).map(|_| measure()).reduce(f64::max)
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Checks a program and makes it ready to run, within limits.
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
    fn too_many_threads_are_refused() {
        let most = Processor::MOST_THREADS;
        for threads in [most + 1, 4_000_000_000, usize::MAX] {
            let error = Processor::new(None, threads).unwrap_err();
            let is_typed = matches!(error, Error::TooManyThreads { threads: t, most: m }
                if t == threads && m == most);
            assert!(is_typed, "{error}");
        }
    }
}
