//! Runs a program with the reference kernels, in an arena that the caller provides.

use hardtack_kernels::ReferenceKernels;

use super::steps::ReferenceContext;
use crate::code::{Code, is_aligned};
use crate::program::{Port, PortType, Step};
use crate::{Program, RunError};

/// The values of a program input.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// Float values.
    F32(&'a [f32]),
    /// The quantized values of the tensor.
    I8(&'a [i8]),
    /// The quantized values of the tensor plus 128.
    U8(&'a [u8]),
}

/// The buffer for the values of a program output.
#[derive(Debug)]
pub enum Output<'a> {
    /// Float values.
    F32(&'a mut [f32]),
    /// The quantized values of the tensor.
    I8(&'a mut [i8]),
    /// The quantized values of the tensor plus 128.
    U8(&'a mut [u8]),
}

impl Input<'_> {
    fn fits(&self, port: Port) -> bool {
        let (element, length) = match self {
            Self::F32(values) => (PortType::F32, values.len()),
            Self::I8(values) => (PortType::I8, values.len()),
            Self::U8(values) => (PortType::U8, values.len()),
        };
        element == port.element && length as u64 == u64::from(port.elements)
    }
}

impl Output<'_> {
    fn fits(&self, port: Port) -> bool {
        let (element, length) = match self {
            Self::F32(values) => (PortType::F32, values.len()),
            Self::I8(values) => (PortType::I8, values.len()),
            Self::U8(values) => (PortType::U8, values.len()),
        };
        element == port.element && length as u64 == u64::from(port.elements)
    }
}

impl<B: AsRef<[u8]>> Program<B> {
    /// Runs one inference on one sample. The previous contents of the arena do not matter, unless a
    /// malformed program reads elements that it did not write; `Executor` clears
    /// the arena for those. An arena aligned to 16 bytes is fastest.
    ///
    /// # Errors
    /// If the arena, inputs or outputs do not fit, the weights are packed, or their address is no
    /// longer a multiple of 4.
    pub fn run(
        &self,
        kernels: &ReferenceKernels,
        arena: &mut [i8],
        inputs: &[Input<'_>],
        outputs: &mut [Output<'_>],
    ) -> Result<(), RunError> {
        self.run_observed(kernels, arena, inputs, outputs, &mut |_, _, _| {})
    }

    /// Runs like [`Program::run`] and calls `observer` after each step with the step's index, the
    /// step and the arena. Use [`Tensor::in_arena`](crate::program::Tensor::in_arena) to read the
    /// step's output.
    ///
    /// # Examples
    ///
    /// Print the largest element that each step writes:
    ///
    /// ```
    /// use hardtack_engine::program::Step;
    /// use hardtack_engine::{Input, Output, Program};
    /// use hardtack_kernels::ReferenceKernels;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let file = "/../../tests/frozen/programs/kws_dscnn_i8.tack";
    /// # let file = std::fs::read(format!("{}{file}", env!("CARGO_MANIFEST_DIR")))?;
    /// # let (code, weights) = (&file[1024..3431], &file[3456..31_200]);
    /// // `code` and `weights` are the two sections of a bundle that contain the program.
    /// let program = Program::parse(code, weights)?;
    /// let mut arena = vec![0i8; program.arena_bytes()];
    /// let (features, mut scores) = ([0i8; 490], [0i8; 12]);
    /// let (inputs, outputs) = ([Input::I8(&features)], &mut [Output::I8(&mut scores)]);
    /// let mut written = 0;
    /// let mut observer = |index: usize, step: &Step, arena: &[i8]| {
    ///     let output = step.writes().and_then(|id| program.tensor(id));
    ///     if let Some(elements) = output.and_then(|output| output.in_arena(arena)) {
    ///         println!("step {index}: at most {:?}", elements.iter().max());
    ///         written += 1;
    ///     }
    /// };
    /// program.run_observed(&ReferenceKernels::SCALAR, &mut arena, &inputs, outputs, &mut
    /// observer)?; assert!(written > 10);
    /// # Ok(())
    /// # }
    /// ```
    pub fn run_observed(
        &self,
        kernels: &ReferenceKernels,
        arena: &mut [i8],
        inputs: &[Input<'_>],
        outputs: &mut [Output<'_>],
        observer: &mut impl FnMut(usize, &Step, &[i8]),
    ) -> Result<(), RunError> {
        if self.packing().is_some() {
            return Err(RunError::Packed);
        }
        let machine = ReferenceContext { code: self.code(), weights: self.weights(), kernels };
        run(&machine, self.steps(), arena, inputs, outputs, observer)
    }
}

fn run(
    machine: &ReferenceContext<'_>,
    steps: impl Iterator<Item = Step>,
    arena: &mut [i8],
    inputs: &[Input<'_>],
    outputs: &mut [Output<'_>],
    observer: &mut impl FnMut(usize, &Step, &[i8]),
) -> Result<(), RunError> {
    if !is_aligned(machine.weights) {
        return Err(RunError::WeightsAlignment);
    }
    let needed = machine.code.header.arena_bytes as usize;
    let given = arena.len();
    let arena = arena.get_mut(..needed).ok_or(RunError::Arena { needed, given })?;
    check_ports(&machine.code, inputs, outputs)?;
    for (index, step) in steps.enumerate() {
        machine.step(&step, arena, inputs, outputs);
        observer(index, &step, arena);
    }
    Ok(())
}

pub(crate) fn check_ports(
    code: &Code<'_>,
    inputs: &[Input<'_>],
    outputs: &[Output<'_>],
) -> Result<(), RunError> {
    let (expected, given) = (usize::from(code.header.inputs), inputs.len());
    if expected != given {
        return Err(RunError::Inputs { expected, given });
    }
    let (expected, given) = (usize::from(code.header.outputs), outputs.len());
    if expected != given {
        return Err(RunError::Outputs { expected, given });
    }
    for (index, input) in inputs.iter().enumerate() {
        match code.input(index as u16) {
            Some(port) if !input.fits(port) => {
                let Port { element, elements } = port;
                return Err(RunError::Input { index, element, elements });
            }
            _ => {}
        }
    }
    for (index, output) in outputs.iter().enumerate() {
        match code.output(index as u16) {
            Some(port) if !output.fits(port) => {
                let Port { element, elements } = port;
                return Err(RunError::Output { index, element, elements });
            }
            _ => {}
        }
    }
    Ok(())
}
