//! A session: a model loaded for this machine, with its arena and state.

use std::sync::Arc;

use hardtack_bundle::DType;
use hardtack_engine::NoHook;
use hardtack_kernels::Isa;

use crate::backend::Backend;
use crate::binding::{self, Sizes, Slots, slots};
use crate::error::Role;
#[cfg(feature = "float")]
use crate::floating::FloatRunner;
use crate::integer_model::IntegerModel;
#[cfg(feature = "float")]
use crate::integer_model::expect_length;
use crate::integer_run::IntegerRun;
use crate::limits::{Canceller, Control, Limits};
use crate::model::Model;
use crate::port::{Port, Ports};
use crate::profile::OperationTime;
use crate::state::{StatePolicy, States};
use crate::{Bundle, Error, Outputs, Tensor, View, ViewMut};

/// Options of a [`Session`].
///
/// # Examples
///
/// ```
/// use hardtack::{Bundle, Isa, SessionOptions, Session};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
/// # std::env::set_current_dir(folder)?;
/// let bundle = Bundle::open("kws_dscnn.tack")?;
/// let isa = Some(Isa::Scalar);
/// let options = SessionOptions { threads: 2, isa, ..SessionOptions::default() };
/// let session = Session::with_options(&bundle, options)?;
/// assert_eq!(session.threads(), 2);
/// assert_eq!(session.isa(), Isa::Scalar);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Whether a state input may be omitted. It then takes the value of its paired output from the
    /// previous inference. For the first inference and after [`Session::reset`], it takes its
    /// default value, or zeros if it has none.
    pub keep_state: bool,
    /// The instruction set of the kernels for integer programs; `None` selects the fastest one that
    /// this processor supports.
    pub isa: Option<Isa>,
    /// The number of threads for integer programs, from 1 to 1024. Results do not depend on it.
    pub threads: usize,
    /// Upper bounds on memory, operations and time.
    pub limits: Limits,
}

impl Default for SessionOptions {
    /// No kept state, the fastest kernels of this processor, one thread, the default limits.
    fn default() -> SessionOptions {
        SessionOptions { keep_state: false, isa: None, threads: 1, limits: Limits::default() }
    }
}

/// A model loaded for this machine.
///
/// A session runs one inference at a time. To run several concurrently, create several sessions
/// from one [`Bundle`]: they share its weights.
///
/// # Examples
///
/// Two threads run one model at the same time:
///
/// ```
/// use hardtack::{Bundle, Session, Tensor};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
/// # std::env::set_current_dir(folder)?;
/// let bundle = Bundle::open("kws_dscnn.tack")?;
/// let features = Tensor::new(&[1, 49, 10, 1], vec![0.5f32; 490]).unwrap();
/// let run = || {
///     let mut session = Session::new(&bundle)?;
///     session.run(&[("mfcc", &features)])
/// };
/// let (first, second) = std::thread::scope(|scope| {
///     let other = scope.spawn(run);
///     (run(), other.join().unwrap())
/// });
/// assert_eq!(first?, second?);
/// # Ok(())
/// # }
/// ```
pub struct Session {
    ports: Ports,
    runner: Runner,
    states: States,
    backend: Arc<Backend>,
    options: SessionOptions,
    canceller: Canceller,
    operations: u64,
}

enum Runner {
    /// The engine alone. The tensors receive the outputs that the caller does not ask for.
    Integer(Box<IntegerModel>, Vec<Option<Tensor>>),
    #[cfg(feature = "float")]
    Float(Box<FloatRunner>),
}

impl Session {
    /// Loads a bundle's model with the default options.
    ///
    /// # Errors
    /// See [`Session::with_options`].
    pub fn new(bundle: &Bundle) -> Result<Session, Error> {
        Session::with_options(bundle, SessionOptions::default())
    }

    /// Loads a bundle's model.
    ///
    /// # Errors
    /// Returns an error if the bundle's graph, constants or programs are damaged or malformed, if
    /// the model needs the feature `float` and this build lacks it, or if this machine cannot
    /// satisfy the options.
    pub fn with_options(bundle: &Bundle, options: SessionOptions) -> Result<Session, Error> {
        let manifest = bundle.manifest()?;
        let isa = options.isa.unwrap_or_else(Isa::detect);
        let model = Model::for_isa(bundle, isa, &options.limits)?;
        model.check_arena(manifest.arena_bytes)?;
        Session::from_model(&model, bundle.ports()?, manifest.prepared, options)
    }

    /// Loads a model that does not come from a bundle. `prepared` states whether its graph is
    /// already simplified.
    ///
    /// # Errors
    /// See [`Session::with_options`].
    ///
    /// # Examples
    ///
    /// Change a model in memory before it runs, here the name of a node:
    ///
    /// ```
    /// use hardtack::{Bundle, SessionOptions, Ports, Session};
    /// use hardtack::internal::Model;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
    /// # std::env::set_current_dir(folder)?;
    /// let bundle = Bundle::open("kws_dscnn.tack")?;
    /// let manifest = bundle.manifest()?;
    /// let mut model = Model::from_bundle(&bundle)?;
    /// model.graph.nodes[0].name = "features".into();
    ///
    /// let (ports, prepared) = (Ports::of(&manifest), manifest.prepared);
    /// let session = Session::from_model(&model, ports, prepared, SessionOptions::default())?;
    /// assert_eq!(session.inputs()[0].name, "mfcc");
    /// # Ok(())
    /// # }
    /// ```
    #[doc(hidden)]
    pub fn from_model(
        model: &Model,
        ports: Ports,
        #[cfg_attr(not(feature = "float"), expect(unused_variables, reason = "for float models"))]
        prepared: bool,
        options: SessionOptions,
    ) -> Result<Session, Error> {
        binding::check(&ports, &model.graph)?;
        let backend = Backend::new(options.isa, options.threads)?;
        let runner = match IntegerModel::new(model, &ports, &options.limits, &backend)? {
            Ok(integer) => Runner::Integer(Box::new(integer), vec![None; ports.outputs.len()]),
            #[cfg(feature = "float")]
            Err(_) => Runner::Float(Box::new(FloatRunner::new(
                model,
                prepared,
                options.limits,
                &backend,
            )?)),
            #[cfg(not(feature = "float"))]
            Err(foreign) => {
                let crate::integer_model::NonIntegerNode { node, operator } = foreign;
                return Err(Error::NeedsFloat { node, operator });
            }
        };
        let states = States::new(ports.states.len());
        let canceller = Canceller::default();
        Ok(Session { ports, runner, states, backend, options, canceller, operations: 0 })
    }

    /// Returns the inputs of the model, in its order.
    ///
    /// # Examples
    ///
    /// Print what a model takes and returns:
    ///
    /// ```
    /// use hardtack::{Bundle, Session};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
    /// # std::env::set_current_dir(folder)?;
    /// let session = Session::new(&Bundle::open("kws_dscnn.tack")?)?;
    /// for port in session.inputs().iter().chain(session.outputs()) {
    ///     println!("{port}");
    /// }
    /// assert_eq!(session.inputs()[0].to_string(), "mfcc: f32[batch, 49, 10, 1]");
    /// # Ok(())
    /// # }
    /// ```
    pub fn inputs(&self) -> &[Port] {
        &self.ports.inputs
    }

    /// Returns the outputs of the model, in its order.
    pub fn outputs(&self) -> &[Port] {
        &self.ports.outputs
    }

    /// Returns the pairs of an output and the input that it feeds in the next inference.
    pub fn states(&self) -> &[crate::State] {
        &self.ports.states
    }

    /// Returns the size of the arena for integer programs, in bytes. If there are several programs,
    /// returns the largest.
    pub fn arena_bytes(&self) -> usize {
        match &self.runner {
            Runner::Integer(integer, _) => integer.arena_bytes(),
            #[cfg(feature = "float")]
            Runner::Float(floating) => floating.arena_bytes(),
        }
    }

    /// Returns the instruction set of the kernels that integer programs use.
    pub fn isa(&self) -> Isa {
        self.backend.isa()
    }

    /// Returns the number of threads that integer programs use.
    pub fn threads(&self) -> usize {
        self.options.threads
    }

    /// Measures the peak rate of one thread with this session's instruction set, in
    /// multiply-accumulates per second. The measurement takes some tens of milliseconds and keeps
    /// all operands in registers. Returns `None` for portable kernels.
    pub fn measure_peak(&self) -> Option<f64> {
        self.backend.peak()
    }

    /// Returns whether all integer programs use their weights directly from the bundle. Otherwise
    /// the weights were packed for this processor when the session was created.
    pub fn is_in_place(&self) -> bool {
        match &self.runner {
            Runner::Integer(integer, _) => integer.is_in_place(),
            #[cfg(feature = "float")]
            Runner::Float(floating) => floating.is_in_place(),
        }
    }

    /// Returns whether the whole model is a single integer program, which needs only the engine.
    pub fn is_integer(&self) -> bool {
        matches!(self.runner, Runner::Integer(..))
    }

    /// Returns a handle that stops this session's inferences from another thread.
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    /// Resets all kept states to their initial values.
    pub fn reset(&mut self) {
        self.states.reset();
        #[cfg(feature = "float")]
        if let Runner::Float(floating) = &mut self.runner {
            floating.reset();
        }
    }

    /// Runs the model on named inputs.
    ///
    /// An input that is left out has its default value ([`Port::default`]), if there is one. Named
    /// dimensions take their sizes from the inputs. The first call with new input shapes
    /// plans the execution for them; the last eight plans are kept. An integer model runs the
    /// samples of a batch one after another.
    ///
    /// # Errors
    /// Returns an error if a name, element type or shape does not match the model, if an input is
    /// missing, or if the inference fails.
    ///
    /// # Examples
    ///
    /// Run two samples at once:
    ///
    /// ```
    /// use hardtack::{Bundle, Session, Tensor};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
    /// # std::env::set_current_dir(folder)?;
    /// let mut session = Session::new(&Bundle::open("kws_dscnn.tack")?)?;
    /// let features = Tensor::new(&[2, 49, 10, 1], vec![0.5f32; 2 * 490]).unwrap();
    /// let outputs = session.run(&[("mfcc", &features)])?;
    /// assert_eq!(outputs.get("probs").unwrap().shape(), [2, 12]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn run(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Outputs, Error> {
        self.run_filling(inputs, self.state_policy(), None)
    }

    /// Runs the model like [`Session::run`] and also returns the time of each operation, in the
    /// order of execution. The measurement itself adds some time.
    ///
    /// # Errors
    /// See [`Session::run`].
    ///
    /// # Examples
    ///
    /// Find the slowest operation:
    ///
    /// ```
    /// use hardtack::{Bundle, Session, Tensor};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
    /// # std::env::set_current_dir(folder)?;
    /// let mut session = Session::new(&Bundle::open("kws_dscnn.tack")?)?;
    /// let features = Tensor::new(&[1, 49, 10, 1], vec![0.5f32; 490]).unwrap();
    /// let (_, times) = session.run_profiled(&[("mfcc", &features)])?;
    /// let slowest = times.iter().max_by_key(|time| time.duration).unwrap();
    /// println!("{} ({}): {:?}", slowest.name, slowest.operator, slowest.duration);
    /// assert!(times.iter().any(|time| time.operator == "Softmax"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn run_profiled(
        &mut self,
        inputs: &[(&str, &Tensor)],
    ) -> Result<(Outputs, Vec<OperationTime>), Error> {
        let mut times = Vec::new();
        let outputs = self.run_filling(inputs, self.state_policy(), Some(&mut times))?;
        Ok((outputs, times))
    }

    /// Runs the model on borrowed input elements and writes the outputs into borrowed memory.
    /// Outputs that are not named are discarded.
    ///
    /// If [`Session::is_integer`] returns `true`, calls after the first do not allocate as long as
    /// the number of samples stays the same.
    ///
    /// # Errors
    /// See [`Session::run`]. Also returns an error if the number of elements does not determine the
    /// shape of an input.
    ///
    /// # Examples
    ///
    /// A loop that reuses its buffers, with a model that takes and returns integers:
    ///
    /// ```
    /// use hardtack::{Bundle, Session, View, ViewMut};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
    /// # std::env::set_current_dir(folder)?;
    /// let mut session = Session::new(&Bundle::open("kws_dscnn_i8.tack")?)?;
    /// let mut features = vec![0i8; 490];
    /// let mut scores = vec![0i8; 12];
    /// for frame in 0..3 {
    ///     features.fill(10 * frame);
    ///     let inputs = [("mfcc", View::from(&features))];
    ///     session.run_into(&inputs, &mut [("probs", ViewMut::from(&mut scores))])?;
    ///     println!("frame {frame}: {scores:?}");
    /// }
    /// assert_ne!(scores, [0; 12]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn run_into(
        &mut self,
        inputs: &[(&str, View<'_>)],
        outputs: &mut [(&str, ViewMut<'_>)],
    ) -> Result<(), Error> {
        let state_policy = self.state_policy();
        let mut given = slots(Role::Input, &self.ports.inputs, inputs.iter().copied())?;
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
                binding::fill(ports, &mut given, View::of);
                let run = IntegerRun { integer, spare, ports, states, state_policy, control };
                run.require(&given)?;
                run.run(given, wanted, &mut NoHook)
            }
            #[cfg(feature = "float")]
            Runner::Float(_) => self.run_float_into(&given, wanted, state_policy),
        }
    }

    #[cfg(feature = "float")]
    fn run_float_into(
        &mut self,
        given: &Slots<View<'_>>,
        wanted: Slots<ViewMut<'_>>,
        state_policy: StatePolicy,
    ) -> Result<(), Error> {
        let mut tensors = Vec::new();
        for (port, view) in self.ports.inputs.iter().zip(given) {
            let Some(view) = view else { continue };
            let shape = binding::shape_of_length(port, view.len())?;
            tensors.extend(view.to_tensor(&shape).map(|tensor| (port.name.clone(), tensor)));
        }
        let named: Vec<(&str, &Tensor)> =
            tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let outputs = self.run_filling(&named, state_policy, None)?;
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

    fn state_policy(&self) -> StatePolicy {
        if self.options.keep_state { StatePolicy::Kept } else { StatePolicy::Refused }
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
        state_policy: StatePolicy,
        times: Option<&mut Vec<OperationTime>>,
    ) -> Result<Outputs, Error> {
        let control = self.control();
        self.run_with(inputs, state_policy, &control, times)
    }

    /// Runs the model as part of something longer that `control` may end.
    pub(crate) fn run_with(
        &mut self,
        inputs: &[(&str, &Tensor)],
        state_policy: StatePolicy,
        control: &Control,
        times: Option<&mut Vec<OperationTime>>,
    ) -> Result<Outputs, Error> {
        let mut given = slots(Role::Input, &self.ports.inputs, inputs.iter().copied())?;
        binding::fill(&self.ports, &mut given, Some);
        #[cfg_attr(
            not(feature = "float"),
            expect(unused_variables, reason = "bound to check them")
        )]
        let sizes = Sizes::bind(&self.ports.inputs, &given)?;
        let control = control.clone();
        let tensors = match &mut self.runner {
            Runner::Integer(integer, spare) => {
                let run = IntegerRun {
                    integer,
                    spare,
                    ports: &self.ports,
                    states: &mut self.states,
                    state_policy,
                    control,
                };
                let (tensors, samples) = run.run_tensors(&given, times)?;
                self.operations = integer.operations().saturating_mul(samples as u64);
                tensors
            }
            #[cfg(feature = "float")]
            Runner::Float(floating) => {
                let (ports, states) = (&self.ports, &mut self.states);
                let tensors =
                    floating.run(ports, states, &given, &sizes, (state_policy, &control), times)?;
                self.operations = floating.operations();
                tensors
            }
        };
        let names = self.ports.outputs.iter().map(|port| port.name.clone());
        Ok(Outputs(names.zip(tensors).collect()))
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
