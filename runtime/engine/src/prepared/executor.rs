//! Runs a program with the kernels of an instruction set.

use alloc::vec::Vec;

use hardtack_kernels::strided::{self, Parallel};
use hardtack_kernels::{Isa, ReferenceKernels};

use super::coverage::reads_only_written;
use super::lower::{KernelContext, Lowered};
use crate::program::Step;
use crate::reference::{ReferenceContext, check_ports};
use crate::{Aligned, Input, Output, Program, ProgramError, RunError};

/// Callbacks during an inference.
pub trait Observer {
    /// Returns whether to continue. Called before each operation.
    fn should_continue(&mut self) -> bool {
        true
    }

    /// Called before each operation of step `index`. A step can consist of several operations.
    fn before(&mut self, _index: usize) {}

    /// Called after each operation of step `index`.
    fn after(&mut self, _index: usize) {}
}

/// An observer that does nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHook;

impl Observer for NoHook {}

/// A program prepared for an instruction set: its steps lowered to kernel operations, and its
/// weights in the layout of the kernels. Weights that already have this layout are used in place.
///
/// # Examples
///
/// ```
/// use hardtack_engine::{Aligned, Executor, Input, Output, Program};
/// use hardtack_kernels::Isa;
/// use hardtack_kernels::strided::Alone;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let file = "/../../tests/frozen/programs/kws_dscnn_i8.tack";
/// # let file = std::fs::read(format!("{}{file}", env!("CARGO_MANIFEST_DIR")))?;
/// # let (code, weights) = (&file[1024..3431], &file[3456..31_200]);
/// // `code` and `weights` are the two sections of a bundle that contain the program.
/// let executor = Executor::new(Program::parse(code, weights)?, Isa::detect())?;
/// let mut arena = Aligned::zeroed(executor.arena_bytes());
/// let (features, mut scores) = ([0i8; 490], [0i8; 12]);
/// let outputs = &mut [Output::I8(&mut scores)];
/// executor.run(&Alone, arena.bytes_mut(), &[Input::I8(&features)], outputs)?;
/// assert!(scores.iter().any(|score| *score > -128));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Executor<B> {
    program: Program<B>,
    steps: Vec<Step>,
    isa: Isa,
    /// `None` if the reference kernels run the steps directly.
    lowered: Option<(&'static strided::Kernels, Lowered)>,
    /// The weights in a different layout than the program's, if they were converted.
    packed: Option<Aligned>,
    /// Whether the arena is cleared before each inference, because the program may read elements
    /// that it did not write.
    clears: bool,
}

impl<B: AsRef<[u8]>> Executor<B> {
    /// Prepares a program. Uses the reference kernels if the processor does not support `isa` or
    /// if the optimized kernels cannot run the program.
    ///
    /// # Errors
    /// See [`Program::pack`].
    pub fn new(program: Program<B>, isa: Isa) -> Result<Self, ProgramError> {
        let steps: Vec<Step> = program.steps().collect();
        let given = program.packing();
        let clears = !reads_only_written(&program, &steps);
        if let Some(kernels) = strided::Kernels::for_isa(isa) {
            let packing = kernels.packing();
            let in_place =
                given == Some(packing) && program.weights().as_ptr().addr().is_multiple_of(64);
            let packed = if in_place { None } else { Some(program.pack(Some(packing))?) };
            let weights = packed.as_ref().map_or(program.weights(), Aligned::bytes);
            if let Some(lowered) = Lowered::new(&program, &steps, weights, packing) {
                let lowered = Some((kernels, lowered));
                return Ok(Self { program, steps, isa, lowered, packed, clears });
            }
        }
        let packed = if given.is_none() { None } else { Some(program.pack(None)?) };
        Ok(Self { program, steps, isa: Isa::Scalar, lowered: None, packed, clears })
    }

    /// Returns the program.
    pub fn program(&self) -> &Program<B> {
        &self.program
    }

    /// Returns the steps in execution order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Returns the instruction set of the kernels in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Returns whether the program's weights are used in place, without a converted copy.
    pub fn is_in_place(&self) -> bool {
        self.packed.is_none()
    }

    /// Returns the bytes of the converted copy of the weights; 0 if they are used in place.
    pub fn packed_bytes(&self) -> usize {
        self.packed.as_ref().map_or(0, |packed| packed.bytes().len())
    }

    /// Returns the arena size in bytes that an inference needs. An arena aligned to 64 bytes is
    /// fastest.
    pub fn arena_bytes(&self) -> usize {
        match &self.lowered {
            Some((_, lowered)) => lowered.arena_bytes,
            None => self.program.arena_bytes(),
        }
    }

    /// Returns the multiply-accumulates (MACs) of step `index`. Only convolutions count; always 0
    /// with the reference kernels.
    pub fn macs(&self, index: usize) -> u64 {
        let Some((_, lowered)) = &self.lowered else { return 0 };
        let of_step = lowered.operations.iter().filter(|(step, _)| *step as usize == index);
        of_step.map(|(_, operation)| KernelContext::macs(operation)).sum()
    }

    /// Runs one inference on one sample, split over the threads of `parallel`. The previous
    /// contents of the arena do not matter. The outputs are identical to those of
    /// [`Program::run`].
    ///
    /// # Errors
    /// If the arena, inputs or outputs do not fit the program.
    pub fn run(
        &self,
        parallel: &dyn Parallel,
        arena: &mut [u8],
        inputs: &[Input<'_>],
        outputs: &mut [Output<'_>],
    ) -> Result<(), RunError> {
        self.run_observed(parallel, arena, inputs, outputs, &mut NoHook)
    }

    /// Runs like [`Executor::run`] with callbacks to `observer`.
    ///
    /// # Errors
    /// As [`Executor::run`], and [`RunError::Stopped`] if the observer stops the inference.
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
        if self.clears {
            arena.fill(0);
        }
        let weights = match &self.packed {
            Some(packed) => packed.bytes(),
            None => self.program.weights(),
        };
        match &self.lowered {
            Some((kernels, lowered)) => {
                let machine = KernelContext { kernels, weights, parallel };
                for (step, operation) in &lowered.operations {
                    if !observer.should_continue() {
                        return Err(RunError::Stopped);
                    }
                    observer.before(*step as usize);
                    machine.run(operation, arena, inputs, outputs);
                    observer.after(*step as usize);
                }
            }
            None => {
                let machine =
                    ReferenceContext { code, weights, kernels: &ReferenceKernels::SCALAR };
                let arena = bytemuck::cast_slice_mut(arena);
                for (index, step) in self.steps.iter().enumerate() {
                    if !observer.should_continue() {
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
