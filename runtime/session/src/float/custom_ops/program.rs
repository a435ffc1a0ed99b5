//! Runs integer programs of the engine as a tract operation.

use std::fmt;
use std::sync::Arc;

use hardtack_engine::program::{Port, PortType};
use hardtack_engine::{Aligned, Executor, Input, NoHook, Output};
use tract_core::internal::*;

use crate::backend::{Backend, NotReady};
use crate::float::run::control;
use crate::float::work::ProgramWork;
use crate::integer_model::Controlled;
use crate::model::Program;
use crate::{Bytes, Limits};

/// A prepared program and the bytes that it was parsed from.
pub(in crate::float) struct Engine {
    executor: Executor<Bytes>,
    backend: Arc<Backend>,
    program: Program,
}

impl Engine {
    /// Parses, checks and prepares a program.
    pub fn new(
        program: &Program,
        backend: &Arc<Backend>,
        limits: &Limits,
    ) -> Result<Engine, NotReady> {
        let executor = backend.ready(program, limits)?;
        Ok(Engine { executor, backend: backend.clone(), program: program.clone() })
    }

    pub fn arena_bytes(&self) -> usize {
        self.executor.arena_bytes()
    }

    /// Returns the number of bytes of weights that were repacked for this processor.
    pub fn packed_bytes(&self) -> usize {
        self.executor.packed_bytes()
    }

    /// What one run takes.
    pub fn work(&self) -> ProgramWork {
        let program = self.executor.program();
        let outputs = program.outputs().next().map_or(1, |port| port.elements.into());
        ProgramWork { operations: program.operations(), outputs }
    }

    pub fn is_in_place(&self) -> bool {
        self.executor.is_in_place()
    }
}

/// An integer program. Its inputs and outputs are those of the program, in shapes that the caller
/// chooses. It runs once for each sample of a batch.
#[derive(Clone)]
pub struct EngineProgram {
    engine: Arc<Engine>,
    outputs: TVec<TypedFact>,
}

impl EngineProgram {
    /// Creates the operation for a program whose outputs have these types and shapes.
    ///
    /// # Errors
    /// Returns an error if the program is malformed or exceeds the default [`Limits`].
    pub fn new(program: &Program, outputs: TVec<TypedFact>) -> Result<Self, crate::Error> {
        let engine = Engine::new(program, &Backend::detect(), &Limits::default());
        let engine = engine.map_err(|error| error.of(0))?;
        Ok(Self::from_engine(Arc::new(engine), outputs))
    }

    pub(in crate::float) fn from_engine(engine: Arc<Engine>, outputs: TVec<TypedFact>) -> Self {
        Self { engine, outputs }
    }

    /// Returns the size of the arena in bytes.
    pub(in crate::float) fn arena_bytes(&self) -> usize {
        self.engine.arena_bytes()
    }

    /// Returns the program.
    pub fn program(&self) -> &Program {
        &self.engine.program
    }
}

impl fmt::Debug for EngineProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = self.engine.executor.steps().len();
        write!(f, "EngineProgram({steps} steps, {:?})", self.outputs)
    }
}

impl PartialEq for EngineProgram {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.engine, &other.engine) && self.outputs == other.outputs
    }
}

impl Eq for EngineProgram {}

impl Op for EngineProgram {
    fn name(&self) -> StaticName {
        "EngineProgram".into()
    }

    op_as_typed_op!();
}

impl EvalOp for EngineProgram {
    not_out_of_plan!();

    fn state(&self, _: &EvalContext) -> TractResult<Option<Box<dyn OpState>>> {
        let bytes = self.engine.arena_bytes();
        let arena = Aligned::try_zeroed(bytes);
        let arena = arena.with_context(|| format!("there is no memory for {bytes} bytes"))?;
        Ok(Some(Box::new(Arena(arena))))
    }
}

impl TypedOp for EngineProgram {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let program = self.engine.executor.program();
        let inputs: Vec<&TypedFact> = inputs.to_vec();
        let outputs: Vec<&TypedFact> = self.outputs.iter().collect();
        let mut batch = None;
        let ports = [
            (inputs, program.inputs().collect::<Vec<_>>(), "inputs"),
            (outputs, program.outputs().collect(), "outputs"),
        ];
        for (facts, ports, side) in ports {
            let (given, expected) = (facts.len(), ports.len());
            ensure!(given == expected, "its program has {expected} {side}, not {given}");
            for (fact, port) in facts.iter().zip(&ports) {
                ensure!(
                    fact.datum_type == element(*port),
                    "its {side} are {:?}, but its program has {:?}",
                    fact.datum_type,
                    port.element
                );
                let Some(shape) = fact.shape.as_concrete() else { continue };
                let samples = samples(shape.iter().product(), *port)?;
                ensure!(
                    *batch.get_or_insert(samples) == samples,
                    "its inputs and outputs differ in their number of samples"
                );
            }
        }
        Ok(self.outputs.clone())
    }

    as_op!();
}

/// The arena of one stream of inferences.
#[derive(Clone, Debug)]
struct Arena(Aligned);

impl OpState for Arena {
    fn eval(
        &mut self,
        context: &EvalContext,
        op: &dyn Op,
        inputs: TVec<TValue>,
    ) -> TractResult<TVec<TValue>> {
        let op = op.downcast_ref::<EngineProgram>().context("the state is of another operation")?;
        let executor = &op.engine.executor;
        let program = executor.program();
        let mut outputs = op
            .outputs
            .iter()
            .map(|fact| {
                let shape = fact.shape.eval_to_usize(context.symbols)?;
                Tensor::zero_dt(fact.datum_type, &shape)
            })
            .collect::<TractResult<Vec<Tensor>>>()?;
        ensure!(inputs.len() == program.inputs().len(), "its number of inputs is wrong");
        let mut batch = None;
        let inputs_and_outputs = inputs.iter().map(|input| input.len()).zip(program.inputs());
        let all = outputs.iter().map(|output| output.len()).zip(program.outputs());
        for (length, port) in inputs_and_outputs.chain(all) {
            let samples = samples(length, port)?;
            ensure!(
                *batch.get_or_insert(samples) == samples,
                "its inputs and outputs differ in their number of samples"
            );
        }
        let control = control(context);
        for sample in 0..batch.unwrap_or(1) {
            control.check()?;
            let range = |port: Port| {
                let elements = port.elements as usize;
                sample * elements..(sample + 1) * elements
            };
            let views = inputs
                .iter()
                .map(|input| input.try_as_plain_ram())
                .collect::<TractResult<Vec<_>>>()?;
            let mut given = Vec::with_capacity(views.len());
            for (view, port) in views.iter().zip(program.inputs()) {
                given.push(match port.element {
                    PortType::F32 => Input::F32(&view.as_slice::<f32>()?[range(port)]),
                    PortType::I8 => Input::I8(&view.as_slice::<i8>()?[range(port)]),
                    PortType::U8 => Input::U8(&view.as_slice::<u8>()?[range(port)]),
                });
            }
            let mut views = outputs
                .iter_mut()
                .map(|output| output.try_as_plain_ram_mut())
                .collect::<TractResult<Vec<_>>>()?;
            let mut wanted = Vec::with_capacity(views.len());
            for (view, port) in views.iter_mut().zip(program.outputs()) {
                wanted.push(match port.element {
                    PortType::F32 => Output::F32(&mut view.as_slice_mut::<f32>()?[range(port)]),
                    PortType::I8 => Output::I8(&mut view.as_slice_mut::<i8>()?[range(port)]),
                    PortType::U8 => Output::U8(&mut view.as_slice_mut::<u8>()?[range(port)]),
                });
            }
            let (pool, arena) = (op.engine.backend.pool(), self.0.bytes_mut());
            let mut unobserved = NoHook;
            let mut controlled = Controlled::new(&control, &mut unobserved);
            let ran = executor.run_observed(pool, arena, &given, &mut wanted, &mut controlled);
            controlled.stopped()?;
            ran.map_err(|error| format_err!("{error}"))?;
        }
        Ok(outputs.into_iter().map(|output| output.into_tvalue()).collect())
    }

    fn reset_lanes(&mut self, _: &[LaneId]) -> TractResult<()> {
        Ok(())
    }
}

fn element(port: Port) -> DatumType {
    match port.element {
        PortType::F32 => DatumType::F32,
        PortType::I8 => DatumType::I8,
        PortType::U8 => DatumType::U8,
    }
}

/// Returns the number of samples in this many elements.
fn samples(elements: usize, port: Port) -> TractResult<usize> {
    let each = port.elements as usize;
    ensure!(
        each > 0 && elements.is_multiple_of(each),
        "{elements} elements are not a multiple of the {each} in a sample of its program"
    );
    Ok(elements / each)
}
