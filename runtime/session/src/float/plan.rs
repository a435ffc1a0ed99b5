//! Loads models and prepares them to run with given input shapes.

#[cfg(feature = "export")]
mod observe;

use std::sync::Arc;
use std::time::{Duration, Instant};

use hardtack_bundle::DType;
use hardtack_bundle::graph::{Dim, Fact};
use tract_core::internal::*;

use super::budget::Budget;
use super::custom_ops::{Engine, RegionOp, Regions, of_trees};
use super::error::{Error, guard, tract};
use super::load::{Loader, Purpose};
use super::memory;
use super::optimize::ready;
use super::run::{NoWatch, Watch, begin, run};
use super::tensors::{dtype_to_tract, from_tract, to_tract};
use super::work::Counter;
use crate::backend::{Backend, NotReady};
use crate::limits::{Canceller, Control};
use crate::model::{Constant, Model};
use crate::{Limits, Tensor as Ours};

#[cfg(feature = "export")]
pub use observe::ObservedPlan;

/// The overhead of running one node, in element operations: about a microsecond.
const NODE_OPERATIONS: u64 = 16384;
/// The memory limit of [`FloatModel::load`].
const LOADED_BYTES: u64 = 64 << 30;

/// A checked model whose input shapes may be dynamic. Clones are cheap, because they share the
/// constants.
#[derive(Clone)]
pub struct FloatModel {
    model: Arc<Model>,
    engines: Arc<[Arc<Engine>]>,
    backend: Arc<Backend>,
    inputs: Arc<[Fact]>,
    outputs: Arc<[Fact]>,
    prepared: bool,
    limits: Limits,
}

/// Starts the control of a call that only the limits can stop.
fn control(limits: &Limits) -> Control {
    Control::start(&Canceller::default(), limits)
}

impl FloatModel {
    /// Checks a model, with a memory limit of 64 GiB and no other limit. `prepared` states that the
    /// model was simplified ahead of time, so that planning can skip this step.
    ///
    /// # Errors
    /// Returns the first error in the model.
    pub fn load(model: &Model, prepared: bool) -> Result<FloatModel, Error> {
        let limits = Limits::NONE.with_memory_bytes(LOADED_BYTES);
        Self::load_on(model, prepared, limits, &Backend::detect())
    }

    /// Checks a model like [`FloatModel::load`], with the limits of the caller.
    ///
    /// # Errors
    /// Returns the first error in the model, or the limit that it exceeds.
    pub fn load_with(model: &Model, prepared: bool, limits: Limits) -> Result<FloatModel, Error> {
        Self::load_on(model, prepared, limits, &Backend::detect())
    }

    /// Returns whether the weights of all integer programs are used directly from the bundle.
    pub(crate) fn is_in_place(&self) -> bool {
        self.engines.iter().all(|engine| engine.is_in_place())
    }

    /// Returns the size in bytes of the largest arena of the integer programs; 0 if there are none.
    pub(crate) fn arena_bytes(&self) -> usize {
        self.engines.iter().map(|engine| engine.arena_bytes()).max().unwrap_or(0)
    }

    pub(crate) fn load_on(
        model: &Model,
        prepared: bool,
        limits: Limits,
        backend: &Arc<Backend>,
    ) -> Result<FloatModel, Error> {
        let control = control(&limits);
        check(model)?;
        let engines = engines(model, backend, &limits)?;
        let graph = &model.graph;
        let inputs = graph.inputs.iter().filter_map(|index| {
            graph.nodes.get(*index as usize).and_then(|node| node.outputs.first()).cloned()
        });
        let loaded = FloatModel {
            inputs: inputs.collect(),
            outputs: graph.outputs.iter().map(|outlet| graph.fact(*outlet).clone()).collect(),
            model: Arc::new(model.clone()),
            engines: engines.into(),
            backend: backend.clone(),
            prepared,
            limits,
        };
        // Without dynamic shapes, planning finds every error.
        if !graph.symbols.is_empty() {
            loaded.build(&[], None, Regions::default(), &loaded.budget(&control)?)?;
        }
        Ok(loaded)
    }

    /// Returns the types and shapes of the inputs, in terms of the graph's symbols.
    pub fn inputs(&self) -> &[Fact] {
        &self.inputs
    }

    /// Returns the types and shapes of the outputs, in terms of the graph's symbols.
    pub fn outputs(&self) -> &[Fact] {
        &self.outputs
    }

    /// Prepares the model to run on inputs of these shapes, outermost dimension first.
    ///
    /// # Errors
    /// Returns an error if a shape does not match the model, if a symbol would have two values, or
    /// if the model cannot run on such inputs.
    pub fn plan(&self, shapes: &[&[usize]]) -> Result<FloatPlan, Error> {
        self.plan_controlled(shapes, &control(&self.limits))
    }

    /// Prepares the model like [`FloatModel::plan`]. `control` may stop it early.
    pub(crate) fn plan_controlled(
        &self,
        shapes: &[&[usize]],
        control: &Control,
    ) -> Result<FloatPlan, Error> {
        let budget = self.budget(control)?;
        let values = self.bound(shapes)?;
        let regions = Regions::compile(&self.model, &values, &self.backend, &budget)?;
        budget.take_kept(regions.bytes())?;
        let mut model = self.shaped(shapes, &values, regions, &budget)?;
        self.optimize(&mut model, &budget)?;
        self.planned(model, shapes, &budget)
    }

    /// Prepares the model like [`FloatModel::plan`]. Frees the model's constants before the plan
    /// creates its own, so that both are never in memory together.
    ///
    /// # Errors
    /// See [`FloatModel::plan`].
    #[cfg(feature = "export")]
    pub fn into_plan(mut self, shapes: &[&[usize]]) -> Result<FloatPlan, Error> {
        let budget = self.budget(&control(&self.limits))?;
        let model = self.optimized(shapes, &budget)?;
        self.planned(model, shapes, &budget)
    }

    /// Returns the optimized tract model for inputs of these shapes. Afterwards, `self` has no
    /// constants.
    #[cfg(feature = "export")]
    fn optimized(&mut self, shapes: &[&[usize]], budget: &Budget) -> Result<TypedModel, Error> {
        let values = self.bound(shapes)?;
        let mut model = self.shaped(shapes, &values, Regions::default(), budget)?;
        self.model = Arc::new(Model { constants: Vec::new(), ..Model::clone(&self.model) });
        self.optimize(&mut model, budget)?;
        Ok(model)
    }

    /// Returns the unoptimized tract model for inputs of these shapes, with regions as single
    /// operations.
    fn shaped(
        &self,
        shapes: &[&[usize]],
        values: &[Option<i64>],
        regions: Regions,
        budget: &Budget,
    ) -> Result<TypedModel, Error> {
        let input_shapes: Vec<Vec<usize>> = shapes.iter().map(|shape| shape.to_vec()).collect();
        self.build(values, Some(&input_shapes), regions, budget)
    }

    /// Returns the value of each symbol, after checking the number of operations.
    fn bound(&self, shapes: &[&[usize]]) -> Result<Vec<Option<i64>>, Error> {
        let values = self.bind(shapes)?;
        self.limits.check_operations(self.operations(&values))?;
        Ok(values)
    }

    /// The number of element operations of one run with these values of the symbols.
    fn operations(&self, values: &[Option<i64>]) -> u64 {
        let programs = self.engines.iter().map(|engine| engine.work()).collect();
        let counter = Counter::new(&self.model.graph, values.to_vec(), NODE_OPERATIONS);
        counter.with_programs(programs).total()
    }

    /// Optimizes a model for this machine.
    fn optimize(&self, model: &mut TypedModel, budget: &Budget) -> Result<(), Error> {
        guard("preparing the model", || {
            ready(model, self.prepared, budget).map_err(tract("optimizing the model"))
        })
    }

    /// Plans the order of operations of an optimized model.
    fn planned(
        &self,
        model: TypedModel,
        shapes: &[&[usize]],
        budget: &Budget,
    ) -> Result<FloatPlan, Error> {
        let input_shapes = shapes.iter().map(|shape| shape.to_vec()).collect();
        let plan = guard("planning the model", || {
            TypedSimplePlan::new(model).map_err(tract("planning the model"))
        })?;
        let planned_bytes = budget.check_memory(memory::of_plan(&plan))?;
        let state = spawn(&plan)?;
        let dtypes = self.inputs.iter().map(|fact| dtype_to_tract(fact.dtype)).collect();
        let names = self.model.graph.inputs.iter();
        let names = names.map(|index| self.model.graph.nodes[*index as usize].name.clone());
        let operations = self.operations(&self.bind(shapes)?);
        let operations = operations.saturating_add(of_trees(plan.model()));
        self.limits.check_operations(operations)?;
        let (names, limits) = (names.collect(), self.limits);
        Ok(FloatPlan {
            plan,
            state,
            names,
            dtypes,
            input_shapes,
            operations,
            planned_bytes,
            limits,
        })
    }

    fn build(
        &self,
        values: &[Option<i64>],
        shapes: Option<&[Vec<usize>]>,
        regions: Regions,
        budget: &Budget,
    ) -> Result<TypedModel, Error> {
        let (budget, backend) = (budget.clone(), &self.backend);
        let mut loader =
            Loader::new(&self.model, &self.engines, backend, values, Purpose::Run, budget);
        loader.regions = regions;
        loader.take_constants()?;
        loader.model(shapes)
    }

    /// Returns the budget of one call, from which the constants of the bundle that were copied are
    /// taken.
    fn budget(&self, control: &Control) -> Result<Budget, Error> {
        let budget = Budget::new(control.clone(), self.limits.memory_bytes);
        budget.take_kept(self.model.constant_bytes())?;
        Ok(budget)
    }

    /// Returns the value of each symbol for these input shapes.
    fn bind(&self, shapes: &[&[usize]]) -> Result<Vec<Option<i64>>, Error> {
        if shapes.len() != self.inputs.len() {
            let (expected, given) = (self.inputs.len(), shapes.len());
            return Err(Error::InputCount { expected, given });
        }
        let graph = &self.model.graph;
        let mut values: Vec<Option<i64>> = vec![None; graph.symbols.len()];
        let wrong = |index: usize, problem: String| {
            let name = graph.nodes[graph.inputs[index] as usize].name.clone();
            Error::Input { index, name, problem }
        };
        for (index, (fact, shape)) in self.inputs.iter().zip(shapes).enumerate() {
            if fact.shape.len() != shape.len() {
                let (expected, given) = (fact.shape.len(), shape.len());
                let problem = format!("it has {expected} dimensions, but {shape:?} has {given}");
                return Err(wrong(index, problem));
            }
            for (dim, given) in fact.shape.iter().zip(*shape) {
                if let Some(symbol) = dim.as_symbol() {
                    values[symbol as usize].get_or_insert(*given as i64);
                }
            }
        }
        for (index, (fact, shape)) in self.inputs.iter().zip(shapes).enumerate() {
            for (axis, (dim, given)) in fact.shape.iter().zip(*shape).enumerate() {
                match dim.evaluate(&values) {
                    Some(expected) if expected == *given as i64 => {}
                    Some(expected) => {
                        let problem = format!("dimension {axis} is {expected}, not {given}");
                        return Err(wrong(index, problem));
                    }
                    None => {
                        let problem = format!(
                            "dimension {axis} is an expression of symbols that no input determines"
                        );
                        return Err(wrong(index, problem));
                    }
                }
            }
        }
        Ok(values)
    }
}

/// A model ready to run on inputs of fixed shapes, with the state that it keeps between inferences.
/// A clone starts with a copy of this state and then runs independently, for example in another
/// thread.
#[derive(Clone)]
pub struct FloatPlan {
    plan: Arc<TypedSimplePlan>,
    state: TypedSimpleState,
    names: Vec<String>,
    dtypes: Vec<DatumType>,
    input_shapes: Vec<Vec<usize>>,
    operations: u64,
    /// The number of bytes that a run takes, without values whose size is unknown.
    planned_bytes: u64,
    limits: Limits,
}

/// The time of one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeTime {
    /// The name of the node. Operations created from the same node share the start of their names.
    pub name: String,
    /// The name of the operation in tract.
    pub operator: String,
    /// The time taken.
    pub duration: Duration,
}

/// Measures the time of each operation.
struct Times {
    began: Instant,
    nodes: Vec<NodeTime>,
}

impl Watch for Times {
    fn before(&mut self) {
        self.began = Instant::now();
    }

    fn after(&mut self, node: &TypedNode, _: &mut TVec<TValue>) -> TractResult<()> {
        self.nodes.push(NodeTime {
            name: node.name.clone(),
            operator: node.op.name().into_owned(),
            duration: self.began.elapsed(),
        });
        Ok(())
    }
}

impl FloatPlan {
    /// The number of element operations of one run.
    pub(crate) fn operations(&self) -> u64 {
        self.operations
    }

    /// Returns the number of regions that run on our own kernels.
    pub fn regions(&self) -> usize {
        self.plan.model().nodes.iter().filter(|node| node.op_is::<RegionOp>()).count()
    }

    /// Returns the shapes of the inputs.
    pub fn input_shapes(&self) -> &[Vec<usize>] {
        &self.input_shapes
    }

    /// Runs the model once, with the limits that it was loaded with.
    ///
    /// # Errors
    /// Returns an error if the inputs do not have the model's types and the plan's shapes, if the
    /// model exceeds a limit, or if it fails on these values. After an error, the state between
    /// inferences is reset.
    pub fn run(&mut self, inputs: &[&Ours]) -> Result<Vec<Ours>, Error> {
        self.run_controlled(inputs, &control(&self.limits))
    }

    /// Runs the model once like [`FloatPlan::run`]. `control` may stop it early.
    pub(crate) fn run_controlled(
        &mut self,
        inputs: &[&Ours],
        control: &Control,
    ) -> Result<Vec<Ours>, Error> {
        self.run_watched(inputs, control, &mut NoWatch)
    }

    /// Runs the model once and also returns the time of each operation, in order of execution.
    ///
    /// # Errors
    /// See [`FloatPlan::run`].
    pub fn run_profiled(&mut self, inputs: &[&Ours]) -> Result<(Vec<Ours>, Vec<NodeTime>), Error> {
        self.run_profiled_controlled(inputs, &control(&self.limits))
    }

    /// Runs the model once like [`FloatPlan::run_profiled`]. `control` may stop it early.
    pub(crate) fn run_profiled_controlled(
        &mut self,
        inputs: &[&Ours],
        control: &Control,
    ) -> Result<(Vec<Ours>, Vec<NodeTime>), Error> {
        let mut times = Times { began: Instant::now(), nodes: Vec::new() };
        let outputs = self.run_watched(inputs, control, &mut times)?;
        Ok((outputs, times.nodes))
    }

    fn run_watched(
        &mut self,
        inputs: &[&Ours],
        control: &Control,
        watch: &mut impl Watch,
    ) -> Result<Vec<Ours>, Error> {
        let inputs = self.inputs(inputs)?;
        let control = self.with_memory(control);
        let (plan, state) = (&*self.plan, &mut self.state);
        begin(state, &control);
        let outputs = guard("running the model", || {
            run(plan, state, inputs, &control, watch).map_err(tract("running the model"))
        });
        self.outputs(outputs)
    }

    /// Returns the control of a run that starts now, with the memory that the plan leaves.
    fn with_memory(&self, control: &Control) -> Control {
        control.clone().with_memory(self.planned_bytes, self.limits.memory_bytes)
    }

    /// Resets the state that the model keeps between inferences.
    ///
    /// # Errors
    /// Returns an error if a new state cannot be created.
    pub fn reset(&mut self) -> Result<(), Error> {
        self.state = spawn(&self.plan)?;
        Ok(())
    }

    fn inputs(&self, inputs: &[&Ours]) -> Result<TVec<TValue>, Error> {
        if inputs.len() != self.dtypes.len() {
            let (expected, given) = (self.dtypes.len(), inputs.len());
            return Err(Error::InputCount { expected, given });
        }
        let mut values = tvec!();
        for (index, input) in inputs.iter().enumerate() {
            let (dtype, shape) = (self.dtypes[index], &self.input_shapes[index]);
            let wrong = |problem: String| {
                let name = self.names[index].clone();
                Error::Input { index, name, problem }
            };
            if dtype_to_tract(input.dtype()) != dtype {
                let given = input.dtype();
                return Err(wrong(format!("it must be {dtype:?}, not {given}").to_lowercase()));
            }
            if input.shape() != shape {
                return Err(wrong(format!("its shape must be {shape:?}, not {:?}", input.shape())));
            }
            values.push(to_tract(input).map_err(tract("reading an input"))?.into_tvalue());
        }
        Ok(values)
    }

    fn outputs(&mut self, outputs: Result<TVec<TValue>, Error>) -> Result<Vec<Ours>, Error> {
        let outputs = match outputs {
            Ok(outputs) => outputs,
            Err(error) => {
                self.reset()?;
                return Err(error);
            }
        };
        outputs
            .iter()
            .map(|value| from_tract(value))
            .collect::<TractResult<_>>()
            .map_err(tract("reading an output"))
    }
}

fn spawn(plan: &Arc<TypedSimplePlan>) -> Result<TypedSimpleState, Error> {
    guard("preparing an inference", || plan.spawn().map_err(tract("preparing an inference")))
}

/// Prepares the integer programs of a model.
pub(super) fn engines(
    model: &Model,
    backend: &Arc<Backend>,
    limits: &Limits,
) -> Result<Vec<Arc<Engine>>, Error> {
    // Each program may use the memory that the programs before it left.
    let mut left = *limits;
    let mut engine = |(index, program)| match Engine::new(program, backend, &left) {
        Ok(engine) => {
            left.memory_bytes = left.memory_bytes.saturating_sub(engine.packed_bytes() as u64);
            Ok(Arc::new(engine))
        }
        Err(NotReady::Program(source)) => Err(Error::Program { index, source }),
        Err(NotReady::Exceeded(exceeded)) => Err(Error::Exceeded(exceeded)),
    };
    model.programs.iter().enumerate().map(&mut engine).collect()
}

/// Checks references, and constants against their entries, without tract.
pub(super) fn check(model: &Model) -> Result<(), Error> {
    model.graph.check().map_err(Error::Graph)?;
    let wrong = |index, problem| Err(Error::Constant { index, problem });
    let (entries, constants) = (&model.graph.constants, &model.constants);
    if entries.len() != constants.len() {
        let index = entries.len().min(constants.len());
        return wrong(index, "the graph lists a different number of constants");
    }
    for (index, (entry, constant)) in entries.iter().zip(constants).enumerate() {
        let (dtype, shape) = match constant {
            Constant::Tensor(tensor) => (tensor.dtype(), tensor.shape()),
            Constant::Stored(stored) => (stored.dtype(), stored.shape()),
            Constant::Dims { shape, values } => {
                let elements = shape.iter().try_fold(1usize, |all, dim| all.checked_mul(*dim));
                if elements != Some(values.len()) {
                    return wrong(index, "its number of elements does not match its shape");
                }
                let symbols = model.graph.symbols.len();
                if !values.iter().all(|dim: &Dim| dim.is_sound(symbols)) {
                    return wrong(index, "it has a malformed dimension");
                }
                (DType::Dim, shape.as_slice())
            }
        };
        let half = entry.dtype == DType::F32 && matches!(dtype, DType::F16 | DType::BF16);
        if dtype != entry.dtype && !half {
            return wrong(index, "its type differs from the one in the graph");
        }
        if !shape.iter().map(|dim| *dim as u64).eq(entry.shape.iter().copied()) {
            return wrong(index, "its shape differs from the one in the graph");
        }
    }
    Ok(())
}
