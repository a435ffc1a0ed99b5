//! Running a program on inputs of the caller, in an arena of the caller.

use hardtack_kernels::Kernels;

use crate::code::{Code, is_aligned};
use crate::execute::Machine;
use crate::program::{Port, PortType, Step};
use crate::{Program, RunError};

/// The values of an input port.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// Real values.
    F32(&'a [f32]),
    /// The integers of the tensor.
    I8(&'a [i8]),
    /// The integers of the tensor, raised by 128.
    U8(&'a [u8]),
}

/// Where the values of an output port go.
#[derive(Debug)]
pub enum Output<'a> {
    /// Real values.
    F32(&'a mut [f32]),
    /// The integers of the tensor.
    I8(&'a mut [i8]),
    /// The integers of the tensor, raised by 128.
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
    /// Runs the program once, on one sample. The arena's content before does not matter;
    /// a multiple of 16 is the best address for it.
    pub fn run(
        &self,
        kernels: &Kernels,
        arena: &mut [i8],
        inputs: &[Input<'_>],
        outputs: &mut [Output<'_>],
    ) -> Result<(), RunError> {
        self.run_observed(kernels, arena, inputs, outputs, &mut |_, _, _| {})
    }

    /// [`Program::run`], with someone looking on: called after each step with its number, itself
    /// and the arena, where what it wrote is
    /// ([`Tensor::in_arena`](crate::program::Tensor::in_arena)).
    pub fn run_observed(
        &self,
        kernels: &Kernels,
        arena: &mut [i8],
        inputs: &[Input<'_>],
        outputs: &mut [Output<'_>],
        observer: &mut impl FnMut(usize, &Step, &[i8]),
    ) -> Result<(), RunError> {
        if self.packing().is_some() {
            return Err(RunError::Packed);
        }
        let machine = Machine { code: self.code(), weights: self.weights(), kernels };
        run(&machine, self.steps(), arena, inputs, outputs, observer)
    }
}

fn run(
    machine: &Machine<'_>,
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
