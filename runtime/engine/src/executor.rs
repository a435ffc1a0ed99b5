//! A program made ready for the instruction set of a processor.

use alloc::vec::Vec;

use hardtack_kernels::strided::{self, Parallel};
use hardtack_kernels::{Isa, Kernels};

use crate::execute;
use crate::lower::{Lowered, Machine};
use crate::program::Step;
use crate::run::check_ports;
use crate::{Aligned, Input, Output, Program, ProgramError, RunError};

/// Looks on while a program runs.
pub trait Observer {
    /// Whether the run is to go on. Asked before each operation.
    fn goes_on(&mut self) -> bool {
        true
    }

    /// Before what step number `index` became; a step may have become several operations.
    fn before(&mut self, _index: usize) {}

    /// After it.
    fn after(&mut self, _index: usize) {}
}

/// Nobody looks on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {}

/// A program made ready for an instruction set: what its steps become there, and the weights as
/// the kernels read them, where they lie if they are packed for it already.
#[derive(Debug)]
pub struct Executor<B> {
    program: Program<B>,
    steps: Vec<Step>,
    isa: Isa,
    /// `None`: the definition runs the steps as they are.
    lowered: Option<(&'static strided::Kernels, Lowered)>,
    /// Weights in another layout than the program's.
    packed: Option<Aligned>,
}

impl<B: AsRef<[u8]>> Executor<B> {
    /// Readies a program. Where the processor does not have `isa`, portable code runs it.
    ///
    /// # Errors
    /// As [`Program::pack`].
    pub fn new(program: Program<B>, isa: Isa) -> Result<Self, ProgramError> {
        let steps: Vec<Step> = program.steps().collect();
        let given = program.packing();
        if let Some(kernels) = strided::Kernels::for_isa(isa) {
            let packing = kernels.packing();
            let in_place =
                given == Some(packing) && program.weights().as_ptr().addr().is_multiple_of(64);
            let packed = if in_place { None } else { Some(program.pack(Some(packing))?) };
            let weights = packed.as_ref().map_or(program.weights(), Aligned::bytes);
            if let Some(lowered) = Lowered::new(&program, &steps, weights, packing) {
                let lowered = Some((kernels, lowered));
                return Ok(Self { program, steps, isa, lowered, packed });
            }
        }
        let packed = if given.is_none() { None } else { Some(program.pack(None)?) };
        Ok(Self { program, steps, isa: Isa::Scalar, lowered: None, packed })
    }

    /// The program.
    pub fn program(&self) -> &Program<B> {
        &self.program
    }

    /// The steps in order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The instruction set it runs with.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Whether the weights are used where they lie.
    pub fn is_in_place(&self) -> bool {
        self.packed.is_none()
    }

    /// Bytes of weights that were packed for this executor; 0 if they are used where they lie.
    pub fn packed_bytes(&self) -> usize {
        self.packed.as_ref().map_or(0, |packed| packed.bytes().len())
    }

    /// Bytes of the arena that a run needs; a multiple of 64 is the best address for it.
    pub fn arena_bytes(&self) -> usize {
        match &self.lowered {
            Some((_, lowered)) => lowered.arena_bytes,
            None => self.program.arena_bytes(),
        }
    }

    /// Products of a weight and an activation in what step number `index` became.
    pub fn products(&self, index: usize) -> u64 {
        let Some((_, lowered)) = &self.lowered else { return 0 };
        let of_step = lowered.operations.iter().filter(|(step, _)| *step as usize == index);
        of_step.map(|(_, operation)| Machine::products(operation)).sum()
    }

    /// Runs the program once, on one sample, in as many parts at once as `parallel` can. The
    /// arena's content before does not matter. Gives the same bytes as [`Program::run`].
    pub fn run(
        &self,
        parallel: &dyn Parallel,
        arena: &mut [u8],
        inputs: &[Input<'_>],
        outputs: &mut [Output<'_>],
    ) -> Result<(), RunError> {
        self.run_observed(parallel, arena, inputs, outputs, &mut Unobserved)
    }

    /// [`Executor::run`], with someone looking on.
    pub fn run_observed(
        &self,
        parallel: &dyn Parallel,
        arena: &mut [u8],
        inputs: &[Input<'_>],
        outputs: &mut [Output<'_>],
        observer: &mut impl Observer,
    ) -> Result<(), RunError> {
        let (needed, given) = (self.arena_bytes(), arena.len());
        let arena = arena.get_mut(..needed).ok_or(RunError::Arena { needed, given })?;
        let code = self.program.code();
        check_ports(&code, inputs, outputs)?;
        let weights = match &self.packed {
            Some(packed) => packed.bytes(),
            None => self.program.weights(),
        };
        match &self.lowered {
            Some((kernels, lowered)) => {
                let machine = Machine { kernels, weights, parallel };
                for (step, operation) in &lowered.operations {
                    if !observer.goes_on() {
                        return Err(RunError::Stopped);
                    }
                    observer.before(*step as usize);
                    machine.run(operation, arena, inputs, outputs);
                    observer.after(*step as usize);
                }
            }
            None => {
                let machine = execute::Machine { code, weights, kernels: &Kernels::SCALAR };
                let arena = bytemuck::cast_slice_mut(arena);
                for (index, step) in self.steps.iter().enumerate() {
                    if !observer.goes_on() {
                        return Err(RunError::Stopped);
                    }
                    observer.before(index);
                    machine.step(step, arena, inputs, outputs);
                    observer.after(index);
                }
            }
        }
        Ok(())
    }
}
