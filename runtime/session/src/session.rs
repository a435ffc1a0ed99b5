//! A session: a model made ready for this machine, with its arena and state.

use std::array;
use std::sync::Arc;
use std::time::Duration;

use hardtack_bundle::DType;
use hardtack_bundle::graph::Graph;
use hardtack_bundle::manifest::MAX_PORTS;
use hardtack_engine::{Observer, Unobserved};
use hardtack_kernels::Isa;

use crate::binding::{self, Sizes, Slots, slots};
use crate::error::Role;
#[cfg(feature = "float")]
use crate::floating::Floating;
use crate::integer::{Integer, expect_length};
use crate::limits::{Canceller, Control, Limits};
use crate::port::{Extent, Port, Ports};
use crate::processor::Processor;
use crate::profile::{OperationTime, Stopwatch};
use crate::state::{Filling, States, zeros};
use crate::{Bundle, Error, Model, Outputs, Tensor, View, ViewMut};

/// How a session is to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether inputs that an output of the run before feeds may be left out. They are zero at
    /// first and after [`Session::reset`].
    pub keep_state: bool,
    /// The kernels that integer programs are to use; `None` is the fastest of this processor.
    pub isa: Option<Isa>,
    /// Threads that integer programs are to use, at least 1. The results do not depend on it.
    pub threads: usize,
    /// What the model may use.
    pub limits: Limits,
}

impl Default for Options {
    /// No kept state, the fastest kernels of this processor, one thread, the default limits.
    fn default() -> Options {
        Options { keep_state: false, isa: None, threads: 1, limits: Limits::default() }
    }
}

/// A model made ready for this machine.
///
/// A session runs one input at a time. For several at once, make several sessions of one
/// [`Bundle`]: they share its weights.
pub struct Session {
    ports: Ports,
    runner: Runner,
    states: States,
    processor: Arc<Processor>,
    options: Options,
    canceller: Canceller,
    operations: u64,
}

enum Runner {
    /// The engine alone. Outputs that the caller does not ask for go into the tensors.
    Integer(Box<Integer>, Vec<Option<Tensor>>),
    #[cfg(feature = "float")]
    Float(Box<Floating>),
}

impl Session {
    /// Loads a bundle's model with default options.
    ///
    /// # Errors
    /// See [`Session::with_options`].
    pub fn new(bundle: &Bundle) -> Result<Session, Error> {
        Session::with_options(bundle, Options::default())
    }

    /// Loads a bundle's model.
    ///
    /// # Errors
    /// Where the bundle's graph, constants or programs are damaged or malformed, where it needs
    /// the feature `float` and this build lacks it, and where the options cannot be met here.
    pub fn with_options(bundle: &Bundle, options: Options) -> Result<Session, Error> {
        let manifest = bundle.manifest()?;
        let isa = options.isa.unwrap_or_else(Isa::detect);
        let model = Model::for_isa(bundle, isa, &options.limits)?;
        model.check_arena(manifest.arena_bytes)?;
        Session::from_model(&model, Ports::of(&manifest), manifest.prepared, options)
    }

    /// Loads a model that is not in a bundle. `prepared` says whether its graph is simplified
    /// already.
    ///
    /// # Errors
    /// As [`Session::with_options`].
    pub fn from_model(
        model: &Model,
        ports: Ports,
        prepared: bool,
        options: Options,
    ) -> Result<Session, Error> {
        check(&ports, &model.graph)?;
        let processor = Processor::new(options.isa, options.threads.max(1))?;
        let runner = match Integer::new(model, &ports, &options.limits, &processor)? {
            Ok(integer) => Runner::Integer(Box::new(integer), vec![None; ports.outputs.len()]),
            #[cfg(feature = "float")]
            Err(_) => {
                Runner::Float(Box::new(Floating::new(model, prepared, options.limits, &processor)?))
            }
            #[cfg(not(feature = "float"))]
            Err(foreign) => {
                let _ = prepared;
                let crate::integer::Foreign { node, operator } = foreign;
                return Err(Error::NeedsFloat { node, operator });
            }
        };
        let states = States::new(ports.states.len());
        let canceller = Canceller::default();
        Ok(Session { ports, runner, states, processor, options, canceller, operations: 0 })
    }

    /// What a run takes, in the order of the model.
    pub fn inputs(&self) -> &[Port] {
        &self.ports.inputs
    }

    /// What a run gives, in the order of the model.
    pub fn outputs(&self) -> &[Port] {
        &self.ports.outputs
    }

    /// The outputs that feed inputs.
    pub fn states(&self) -> &[crate::State] {
        &self.ports.states
    }

    /// Bytes of the arena that integer programs use; of the largest, where there are several.
    pub fn arena_bytes(&self) -> usize {
        match &self.runner {
            Runner::Integer(integer, _) => integer.arena_bytes(),
            #[cfg(feature = "float")]
            Runner::Float(floating) => floating.arena_bytes(),
        }
    }

    /// The instruction set of the kernels that integer programs use.
    pub fn isa(&self) -> Isa {
        self.processor.isa()
    }

    /// Threads that integer programs use.
    pub fn threads(&self) -> usize {
        self.options.threads.max(1)
    }

    /// Products of weights and activations that one thread of this machine can do in a second
    /// with the instruction set of this session, measured for some tens of milliseconds with
    /// everything in registers. `None` for portable code.
    pub fn measure_peak(&self) -> Option<f64> {
        self.processor.peak()
    }

    /// Whether the weights of all integer programs are used where the bundle has them; otherwise
    /// they were packed for this processor when the session was made.
    pub fn is_in_place(&self) -> bool {
        match &self.runner {
            Runner::Integer(integer, _) => integer.is_in_place(),
            #[cfg(feature = "float")]
            Runner::Float(floating) => floating.is_in_place(),
        }
    }

    /// Whether the whole model is one integer program, which the engine runs alone.
    pub fn is_integer(&self) -> bool {
        matches!(self.runner, Runner::Integer(..))
    }

    /// What stops this session's runs from another thread.
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    /// All kept states are zero again.
    pub fn reset(&mut self) {
        self.states.reset();
        #[cfg(feature = "float")]
        if let Runner::Float(floating) = &mut self.runner {
            floating.reset();
        }
    }

    /// Runs the model on named inputs.
    ///
    /// Named dimensions take the sizes that the inputs have. The first run with inputs of new
    /// shapes plans for them; the plans of the last eight are kept. An integer model that is
    /// given several samples runs them one after another.
    ///
    /// # Errors
    /// Where a name, element type or shape is not the model's, an input is missing, or running
    /// fails.
    pub fn run(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Outputs, Error> {
        self.run_filling(inputs, self.filling(), None)
    }

    /// [`Session::run`], with the time that each operation took, in the order they ran.
    /// Measuring itself costs some time.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn run_profiled(
        &mut self,
        inputs: &[(&str, &Tensor)],
    ) -> Result<(Outputs, Vec<OperationTime>), Error> {
        let mut times = Vec::new();
        let outputs = self.run_filling(inputs, self.filling(), Some(&mut times))?;
        Ok((outputs, times))
    }

    /// Runs the model on elements that the caller holds, into memory that the caller holds.
    /// Outputs that are not named are not returned.
    ///
    /// Of a model for which [`Session::is_integer`] holds, no run after the first allocates as
    /// long as the number of samples stays the same.
    ///
    /// # Errors
    /// As [`Session::run`]; also where the number of elements does not tell an input's shape.
    pub fn run_into(
        &mut self,
        inputs: &[(&str, View<'_>)],
        outputs: &mut [(&str, ViewMut<'_>)],
    ) -> Result<(), Error> {
        let filling = self.filling();
        let given = slots(Role::Input, &self.ports.inputs, inputs.iter().copied())?;
        let wanted = slots(
            Role::Output,
            &self.ports.outputs,
            outputs.iter_mut().map(|(name, view)| (*name, view.reborrow())),
        )?;
        check_types(Role::Input, &self.ports.inputs, &given, View::dtype)?;
        check_types(Role::Output, &self.ports.outputs, &wanted, ViewMut::dtype)?;
        let control = self.control();
        match &mut self.runner {
            Runner::Integer(integer, spare) => {
                let (ports, states) = (&self.ports, &mut self.states);
                let run = IntegerRun { integer, spare, ports, states, filling, control };
                run.run(given, wanted, &mut Unobserved)
            }
            #[cfg(feature = "float")]
            Runner::Float(_) => self.run_float_into(&given, wanted, filling),
        }
    }

    #[cfg(feature = "float")]
    fn run_float_into(
        &mut self,
        given: &Slots<View<'_>>,
        wanted: Slots<ViewMut<'_>>,
        filling: Filling,
    ) -> Result<(), Error> {
        let mut tensors = Vec::new();
        for (port, view) in self.ports.inputs.iter().zip(given) {
            let Some(view) = view else { continue };
            let shape = binding::shape_of_length(port, view.len())?;
            tensors.extend(view.to_tensor(&shape).map(|tensor| (port.name.clone(), tensor)));
        }
        let named: Vec<(&str, &Tensor)> =
            tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let outputs = self.run_filling(&named, filling, None)?;
        for ((port, wanted), (_, tensor)) in self.ports.outputs.iter().zip(wanted).zip(&outputs) {
            let (Some(mut target), Some(source)) = (wanted, View::of(tensor)) else { continue };
            expect_length(Role::Output, port, source.len(), target.len())?;
            target.copy_from(source);
        }
        Ok(())
    }

    /// What may use and end the next run, which starts now.
    pub(crate) fn control(&self) -> Control {
        Control::start(&self.canceller, &self.options.limits)
    }

    fn filling(&self) -> Filling {
        if self.options.keep_state { Filling::Kept } else { Filling::Refused }
    }

    /// The limits of this session.
    pub(crate) fn limits(&self) -> &Limits {
        &self.options.limits
    }

    /// The number of element operations of the last run of [`Session::run`] and its kin.
    pub(crate) fn operations(&self) -> u64 {
        self.operations
    }

    pub(crate) fn run_filling(
        &mut self,
        inputs: &[(&str, &Tensor)],
        filling: Filling,
        times: Option<&mut Vec<OperationTime>>,
    ) -> Result<Outputs, Error> {
        let control = self.control();
        self.run_with(inputs, filling, &control, times)
    }

    /// Runs the model as part of something longer that `control` may end.
    pub(crate) fn run_with(
        &mut self,
        inputs: &[(&str, &Tensor)],
        filling: Filling,
        control: &Control,
        times: Option<&mut Vec<OperationTime>>,
    ) -> Result<Outputs, Error> {
        let given = slots(Role::Input, &self.ports.inputs, inputs.iter().copied())?;
        let sizes = Sizes::bind(&self.ports.inputs, &given)?;
        let control = control.clone();
        let tensors = match &mut self.runner {
            Runner::Integer(integer, spare) => {
                let run = IntegerRun {
                    integer,
                    spare,
                    ports: &self.ports,
                    states: &mut self.states,
                    filling,
                    control,
                };
                let (tensors, samples) = run.run_tensors(&given, times)?;
                self.operations = integer.operations().saturating_mul(samples as u64);
                tensors
            }
            #[cfg(feature = "float")]
            Runner::Float(floating) => {
                let (ports, states) = (&self.ports, &mut self.states);
                let control = control.with_memory(self.options.limits.memory_bytes);
                let tensors =
                    floating.run(ports, states, &given, &sizes, (filling, &control), times)?;
                self.operations = floating.operations();
                tensors
            }
        };
        let _ = sizes;
        let names = self.ports.outputs.iter().map(|port| port.name.clone());
        Ok(Outputs(names.zip(tensors).collect()))
    }
}

/// One run of a model that is one integer program.
struct IntegerRun<'s> {
    integer: &'s mut Integer,
    spare: &'s mut [Option<Tensor>],
    ports: &'s Ports,
    states: &'s mut States,
    filling: Filling,
    control: Control,
}

impl<'s> IntegerRun<'s> {
    fn run_tensors(
        self,
        given: &Slots<&Tensor>,
        times: Option<&mut Vec<OperationTime>>,
    ) -> Result<(Vec<Tensor>, usize), Error> {
        let ports = self.ports;
        self.require(given)?;
        let shapes: Vec<_> =
            given[..ports.inputs.len()].iter().map(|tensor| tensor.map(Tensor::shape)).collect();
        let shapes = self.integer.output_shapes(ports, &shapes)?;
        let given = array::from_fn(|index| given[index].and_then(View::of));
        let samples = self.check_lengths(&given, &shapes)?;
        let pairs = ports.outputs.iter().zip(&shapes);
        let mut outputs: Vec<Tensor> =
            pairs.map(|(port, shape)| zeros(port, shape)).collect::<Result<_, _>>()?;
        let mut tensors = outputs.iter_mut();
        let wanted = array::from_fn(|_| tensors.next().and_then(ViewMut::of));
        match times {
            None => self.run(given, wanted, &mut Unobserved)?,
            Some(times) => {
                let mut stopwatch = Stopwatch::default();
                let mut operations: Vec<OperationTime> = self
                    .integer
                    .step_kinds()
                    .enumerate()
                    .map(|(index, kind)| OperationTime {
                        name: self.integer.step_name(index).to_owned(),
                        operator: kind.into(),
                        duration: Duration::ZERO,
                        products: self.integer.products(index),
                    })
                    .collect();
                self.run(given, wanted, &mut stopwatch)?;
                for (operation, duration) in operations.iter_mut().zip(stopwatch.times()) {
                    operation.duration = duration;
                }
                times.append(&mut operations);
            }
        }
        Ok((outputs, samples))
    }

    /// Checks that outputs of these shapes have the elements that the program gives, before memory is
    /// taken for them. Returns the number of samples.
    fn check_lengths(&self, given: &Slots<View<'_>>, shapes: &[Vec<usize>]) -> Result<usize, Error> {
        let samples = self.integer.samples(self.ports, given)?;
        for (index, (port, shape)) in self.ports.outputs.iter().zip(shapes).enumerate() {
            let expected = samples.saturating_mul(self.integer.output_elements(index));
            let stated = shape.iter().fold(1, |all: usize, size| all.saturating_mul(*size));
            expect_length(Role::Output, port, expected, stated)?;
        }
        Ok(samples)
    }

    /// Checks that every input that the program reads is given or can be filled.
    fn require<T>(&self, given: &Slots<T>) -> Result<(), Error> {
        for (index, port) in self.ports.inputs.iter().enumerate() {
            if given[index].is_none() && self.integer.input_elements(index).is_some() {
                fillable(self.ports, index, port, self.filling)?;
            }
        }
        Ok(())
    }

    fn run(
        self,
        given: Slots<View<'_>>,
        mut wanted: Slots<ViewMut<'s>>,
        observer: &mut impl Observer,
    ) -> Result<(), Error> {
        self.require(&given)?;
        let IntegerRun { integer, spare, ports, states, filling, control } = self;
        let samples = integer.samples(ports, &given)?;
        for (index, (port, view)) in ports.inputs.iter().zip(&given).enumerate() {
            let (None, Some(elements)) = (view, integer.input_elements(index)) else { continue };
            if let Some(state) = ports.state_of_input(index) {
                states.prepare(state, port, &[samples.saturating_mul(elements)], filling)?;
            }
        }
        for (index, (port, spare)) in ports.outputs.iter().zip(spare).enumerate() {
            let elements = samples.saturating_mul(integer.output_elements(index));
            match &wanted[index] {
                Some(view) => expect_length(Role::Output, port, elements, view.len())?,
                None => {
                    if spare.as_ref().is_none_or(|spare| spare.len() != elements) {
                        *spare = Some(zeros(port, &[elements])?);
                    }
                    wanted[index] = spare.as_mut().and_then(ViewMut::of);
                }
            }
        }
        {
            let view = |index: usize| {
                let state = || View::of(states.tensor(ports.state_of_input(index)?)?);
                given[index].or_else(state)
            };
            let inputs: Slots<View<'_>> = array::from_fn(view);
            integer.run(samples, &inputs, &mut wanted, &control, observer)?;
        }
        if filling == Filling::Kept {
            states.keep_views(ports, &wanted);
        }
        Ok(())
    }
}

/// The state that an input which was not given is filled from.
pub(crate) fn fillable(
    ports: &Ports,
    input: usize,
    port: &Port,
    filling: Filling,
) -> Result<usize, Error> {
    match (ports.state_of_input(input), filling) {
        (None, _) => Err(binding::missing(Role::Input, port, "")),
        (Some(_), Filling::Refused) => {
            let hint = "; it is a state: give it, or set `Options::keep_state`";
            Err(binding::missing(Role::Input, port, hint))
        }
        (Some(state), _) => Ok(state),
    }
}

fn check_types<T>(
    role: Role,
    ports: &[Port],
    given: &Slots<T>,
    dtype: impl Fn(&T) -> DType,
) -> Result<(), Error> {
    for (port, value) in ports.iter().zip(given) {
        if let Some(given) = value.as_ref().map(&dtype).filter(|dtype| *dtype != port.dtype) {
            let (name, expected) = (port.name.clone(), port.dtype);
            return Err(Error::DType { role, name, expected, given });
        }
    }
    Ok(())
}

/// Checks that ports are those of a graph, have names of their own, and that states fit.
fn check(ports: &Ports, graph: &Graph) -> Result<(), Error> {
    let misfit = |problem: String| Err(Error::Manifest { problem });
    let inputs: Vec<_> = graph
        .inputs
        .iter()
        .filter_map(|input| graph.nodes.get(*input as usize)?.outputs.first())
        .collect();
    let fact = |outlet: &hardtack_bundle::graph::Outlet| {
        graph.nodes.get(outlet.node as usize)?.outputs.get(outlet.slot as usize)
    };
    let outputs: Vec<_> = graph.outputs.iter().filter_map(fact).collect();
    for (role, ports, facts) in
        [(Role::Input, &ports.inputs, inputs), (Role::Output, &ports.outputs, outputs)]
    {
        if ports.len() != facts.len() || ports.len() > MAX_PORTS {
            let (listed, held) = (ports.len(), facts.len());
            return misfit(format!("it lists {listed} {role}s, the graph has {held}"));
        }
        for (index, (port, fact)) in ports.iter().zip(facts).enumerate() {
            let fits = |(extent, dim): (&Extent, &hardtack_bundle::graph::Dim)| match extent {
                Extent::Fixed(size) => dim.value().is_none_or(|value| value == *size as i64),
                Extent::Named(_) => dim.value().is_none(),
            };
            let same = port.dtype == fact.dtype
                && port.dtype != DType::Dim
                && port.shape.len() == fact.shape.len()
                && port.shape.iter().zip(&fact.shape).all(fits);
            if !same {
                return misfit(format!("{role} {port} has another type or shape there"));
            }
            if ports[..index].iter().any(|other| other.name == port.name) {
                return misfit(format!("two {role}s are named {:?}", port.name));
            }
        }
    }
    for state in &ports.states {
        let pair = (ports.inputs.get(state.input), ports.outputs.get(state.output));
        if !matches!(pair, (Some(input), Some(output)) if input.dtype == output.dtype) {
            return misfit("a state does not join an input and an output of one type".into());
        }
    }
    Ok(())
}
