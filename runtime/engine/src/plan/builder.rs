//! The program builder.

use alloc::string::String;
use alloc::vec::Vec;

use super::lifetime::{Plan, spans};
use super::place::{Lifetime, place};
use super::weights::Pool;
use super::{BuildError, Placement};
use crate::code::Header;
use crate::packed::Section;
use crate::program::{Port, PortType, Span, Step, Tensor, TensorId};
use crate::{Program, ProgramError, check, names};

/// The alignment of tensors in bytes.
const ALIGNMENT: u64 = 16;

/// Builds a program from tensors, steps and weights.
///
/// Tensors, inputs and outputs are numbered in the order they are added; steps run in the order
/// they are added. [`Builder::finish`] reports errors that depend on the whole program.
///
/// # Examples
///
/// A program that computes `y = |x|`:
///
/// ```
/// use hardtack_engine::program::{PortType, CopyLayout};
/// use hardtack_engine::{Builder, Input, Output, Program};
/// use hardtack_kernels::ReferenceKernels;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut builder = Builder::new();
/// let (input, output) = (builder.input(PortType::F32, 2), builder.output(PortType::F32, 2));
/// let x = builder.tensor("x", [1, 1, 2], 0.5, 0);
/// let y = builder.tensor("y", [1, 1, 2], 0.25, -128);
/// builder.quantize("x", input, x, CopyLayout::contiguous(2))?;
/// builder.lookup("abs", x, y, f32::abs)?;
/// builder.dequantize("y", y, output, CopyLayout::contiguous(2));
/// let built = builder.finish()?;
///
/// let program = Program::parse(&built.code, &built.weights)?;
/// let (mut arena, mut result) = (vec![0; built.plan.arena_bytes as usize], [0.0; 2]);
/// let (inputs, outputs) = ([Input::F32(&[-3.0, 1.5])], &mut [Output::F32(&mut result)]);
/// program.run(&ReferenceKernels::SCALAR, &mut arena, &inputs, outputs)?;
/// assert_eq!(result, [3.0, 1.5]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Builder {
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    pub(super) tensors: Vec<(String, Tensor)>,
    pub(super) steps: Vec<(String, Step)>,
    pub(super) weights: Pool,
    pub(super) arena_limit: Option<u64>,
}

/// A finished program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// The program's code, for [`Program::parse`](crate::Program::parse).
    pub code: Vec<u8>,
    /// The weights section.
    pub weights: Vec<u8>,
    /// The memory plan of the arena.
    pub plan: Plan,
}

impl Builder {
    /// Creates an empty builder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a builder with the contents of an existing program, to change it.
    ///
    /// # Errors
    /// See [`Program::pack`].
    pub fn of<B: AsRef<[u8]>>(program: &Program<B>) -> Result<Self, ProgramError> {
        let name = |name: Option<&str>| name.unwrap_or_default().into();
        let tensors =
            (0..).map_while(|id| Some((name(program.tensor_name(id)), program.tensor(id)?)));
        let steps = program.steps().enumerate();
        Ok(Self {
            inputs: program.inputs().collect(),
            outputs: program.outputs().collect(),
            tensors: tensors.collect(),
            steps: steps.map(|(index, step)| (name(program.step_name(index)), step)).collect(),
            weights: Pool::holding(program.pack(None)?.bytes().to_vec()),
            arena_limit: None,
        })
    }

    /// Adds a program input of `elements` values and returns its index.
    pub fn input(&mut self, element: PortType, elements: u32) -> u16 {
        self.inputs.push(Port { element, elements });
        (self.inputs.len() - 1) as u16
    }

    /// Adds a program output of `elements` values and returns its index.
    pub fn output(&mut self, element: PortType, elements: u32) -> u16 {
        self.outputs.push(Port { element, elements });
        (self.outputs.len() - 1) as u16
    }

    /// Changes all f32 inputs and outputs to i8: the caller passes and receives quantized values.
    pub fn integer_ports(mut self) -> Self {
        for port in self.inputs.iter_mut().chain(&mut self.outputs) {
            if port.element == PortType::F32 {
                port.element = PortType::I8;
            }
        }
        self
    }

    /// Adds a tensor and returns its index.
    pub fn tensor(
        &mut self,
        name: &str,
        [height, width, channels]: [u32; 3],
        scale: f32,
        zero_point: i8,
    ) -> TensorId {
        let tensor = Tensor { offset: 0, height, width, channels, scale, zero_point };
        self.tensors.push((name.into(), tensor));
        (self.tensors.len() - 1) as TensorId
    }

    /// Returns a tensor. Its offset is 0 until the program is finished.
    pub fn get(&self, id: TensorId) -> Option<&Tensor> {
        self.tensors.get(usize::from(id)).map(|(_, tensor)| tensor)
    }

    /// Returns the number of steps so far, which is the index of the next one.
    pub fn step_count(&self) -> usize {
        self.steps.len()
    }

    /// Adds a step. `name` is the name of the model node that it implements.
    pub fn step(&mut self, name: &str, step: Step) {
        self.steps.push((name.into(), step));
    }

    /// Stores bytes in the weights section. Identical contents share one range.
    ///
    /// # Errors
    /// If the section exceeds 4 GiB.
    pub fn bytes(&mut self, content: &[u8]) -> Result<Span, BuildError> {
        self.weights.add(content).ok_or(BuildError::TooMany("weight bytes"))
    }

    /// Stores i8 numbers in the weights section, like [`Builder::bytes`].
    pub fn i8s(&mut self, content: &[i8]) -> Result<Span, BuildError> {
        self.bytes(bytemuck::cast_slice(content))
    }

    /// Stores little-endian i32 numbers in the weights section, like [`Builder::bytes`].
    pub fn i32s(&mut self, content: &[i32]) -> Result<Span, BuildError> {
        let bytes: Vec<u8> = content.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.bytes(&bytes)
    }

    /// Stores little-endian u32 numbers in the weights section, like [`Builder::bytes`].
    pub fn u32s(&mut self, content: &[u32]) -> Result<Span, BuildError> {
        let bytes: Vec<u8> = content.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.bytes(&bytes)
    }

    /// Stores little-endian f32 numbers in the weights section, like [`Builder::bytes`].
    pub fn f32s(&mut self, content: &[f32]) -> Result<Span, BuildError> {
        let bytes: Vec<u8> = content.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.bytes(&bytes)
    }

    /// Plans the arena, encodes the program, and validates it as [`Program::parse`] does.
    pub fn finish(mut self) -> Result<Built, BuildError> {
        self.check_numbers()?;
        self.check_order()?;
        if let Some(limit) = self.arena_limit {
            self.fit(limit)?;
            self.check_numbers()?;
        }
        let (lifetimes, arena_bytes) = self.place()?;
        let weights = core::mem::take(&mut self.weights).into_bytes();
        let code = self.write(arena_bytes, weights.len())?;
        check::program(&code, Section::Plain(&weights)).map_err(|source| self.refused(source))?;

        let tensors = self.tensors.into_iter().zip(lifetimes).map(|((name, tensor), lifetime)| {
            let Lifetime { first, last, .. } = lifetime;
            Placement { name, offset: tensor.offset, bytes: tensor.elements(), first, last }
        });
        let plan = Plan { arena_bytes, tensors: tensors.collect() };
        Ok(Built { code, weights, plan })
    }

    fn check_numbers(&self) -> Result<(), BuildError> {
        for (what, count) in [
            ("inputs", self.inputs.len()),
            ("outputs", self.outputs.len()),
            ("tensors", self.tensors.len()),
        ] {
            if count > usize::from(u16::MAX) {
                return Err(BuildError::TooMany(what));
            }
        }
        for (kind, count) in [("input", self.inputs.len()), ("output", self.outputs.len())] {
            let used = |index: usize| {
                self.steps.iter().any(|(_, step)| match step {
                    Step::Quantize(step) => kind == "input" && usize::from(step.port) == index,
                    Step::Dequantize(step) => kind == "output" && usize::from(step.port) == index,
                    _ => false,
                })
            };
            if let Some(index) = (0..count).find(|&index| !used(index)) {
                return Err(BuildError::UnusedPort { kind, index });
            }
        }
        Ok(())
    }

    /// Checks that all tensors of steps exist and are written before they are read.
    fn check_order(&self) -> Result<(), BuildError> {
        let mut written = alloc::vec![false; self.tensors.len()];
        for (step_name, step) in &self.steps {
            let missing = |id| BuildError::NoTensor { step: step_name.clone(), id };
            for id in step.reads() {
                if !*written.get(usize::from(id)).ok_or_else(|| missing(id))? {
                    let tensor = self.tensors[usize::from(id)].0.clone();
                    return Err(BuildError::Unwritten { step: step_name.clone(), tensor });
                }
            }
            if let Some(id) = step.writes() {
                *written.get_mut(usize::from(id)).ok_or_else(|| missing(id))? = true;
            }
        }
        Ok(())
    }

    pub(super) fn place(&mut self) -> Result<(Vec<Lifetime>, u32), BuildError> {
        let steps = self.steps.iter().map(|(_, step)| *step);
        let lifetimes = spans(self.tensors.len(), steps)
            .into_iter()
            .zip(&self.tensors)
            .map(|(span, (name, tensor))| {
                let (first, last) = span.ok_or_else(|| BuildError::Unused(name.clone()))?;
                Ok(Lifetime { bytes: tensor.elements().into(), first, last })
            })
            .collect::<Result<Vec<_>, BuildError>>()?;
        let (offsets, total) = place(&lifetimes, ALIGNMENT);
        let total = total.try_into().map_err(|_| BuildError::TooMany("arena bytes"))?;
        for ((_, tensor), offset) in self.tensors.iter_mut().zip(offsets) {
            tensor.offset = offset as u32;
        }
        Ok((lifetimes, total))
    }

    fn write(&self, arena_bytes: u32, weights: usize) -> Result<Vec<u8>, BuildError> {
        let mut steps = Vec::new();
        for (name, step) in &self.steps {
            let attributes = step.encode().map_err(|_| BuildError::Encoding(name.clone()))?;
            steps.extend_from_slice(&step.id().to_le_bytes());
            steps.extend_from_slice(&[step.version(), 0]);
            steps.extend_from_slice(&(attributes.len() as u32).to_le_bytes());
            steps.extend_from_slice(&attributes);
        }
        let mut all_names = Vec::new();
        let tensor_names = self.tensors.iter().map(|(name, _)| name);
        for name in tensor_names.chain(self.steps.iter().map(|(name, _)| name)) {
            names::push(&mut all_names, name);
        }
        let number = |count: usize, what| count.try_into().map_err(|_| BuildError::TooMany(what));
        let header = Header {
            arena_bytes,
            weights_bytes: number(weights, "weight bytes")?,
            inputs: self.inputs.len() as u16,
            outputs: self.outputs.len() as u16,
            tensors: self.tensors.len() as u16,
            steps: number(self.steps.len(), "steps")?,
            steps_bytes: number(steps.len(), "step bytes")?,
            names_bytes: number(all_names.len(), "name bytes")?,
        };
        let mut code = Vec::new();
        header.write(&mut code);
        for port in self.inputs.iter().chain(&self.outputs) {
            port.write(&mut code);
        }
        for (_, tensor) in &self.tensors {
            tensor.write(&mut code);
        }
        code.extend_from_slice(&steps);
        code.extend_from_slice(&all_names);
        Ok(code)
    }

    /// Adds the name of the step or tensor to a validation error.
    fn refused(&self, source: ProgramError) -> BuildError {
        let name = match source {
            ProgramError::Tensor { id, .. } => self.tensors.get(id as usize).map(|(name, _)| name),
            ProgramError::Step { index, .. } => {
                self.steps.get(index as usize).map(|(name, _)| name)
            }
            _ => None,
        };
        BuildError::Refused { name: name.cloned().unwrap_or_default(), source }
    }
}
