//! Models that are a single integer program. The engine runs them alone.

use std::array;
use std::sync::Arc;

use hardtack_bundle::DType;
use hardtack_bundle::graph::{Fact, Graph, Node, Operator};
use hardtack_bundle::manifest::MAX_PORTS;
use hardtack_engine::program::PortType;
use hardtack_engine::{Aligned, Executor, Input, Observer, Output};

use crate::backend::Backend;
use crate::error::Role;
use crate::limits::{Control, Limits, Stopped};
use crate::model::Model;
use crate::port::{Extent, Port, Ports};
use crate::{Bytes, Error, View, ViewMut};

/// A model whose graph consists of its inputs and one program that computes all outputs.
pub(crate) struct IntegerModel {
    executor: Executor<Bytes>,
    backend: Arc<Backend>,
    arena: Aligned,
    /// For each input of the program, the input of the model that it reads.
    inputs: Vec<Place>,
    /// For each output of the model, the output of the program that computes it.
    outputs: Vec<Place>,
    symbols: usize,
    /// The number of element operations of one sample.
    operations: u64,
    input_facts: Vec<Fact>,
    output_facts: Vec<Fact>,
}

/// An index and size that connect an input or output of the model with one of the program.
struct Place {
    index: usize,
    /// The number of elements in one sample.
    elements: usize,
}

/// A node that makes a model more than a single integer program: its name and operator.
#[cfg_attr(feature = "float", expect(dead_code, reason = "`float` runs such a model"))]
pub(crate) struct NonIntegerNode {
    pub(crate) node: String,
    pub(crate) operator: &'static str,
}

impl NonIntegerNode {
    fn of(node: &Node) -> NonIntegerNode {
        NonIntegerNode { node: node.name.clone(), operator: node.operator.name() }
    }
}

impl IntegerModel {
    /// Prepares a model that is a single integer program. For any other model, the inner error
    /// names a node that is not part of one.
    pub(crate) fn new(
        model: &Model,
        ports: &Ports,
        limits: &Limits,
        backend: &Arc<Backend>,
    ) -> Result<Result<IntegerModel, NonIntegerNode>, Error> {
        let graph = &model.graph;
        let (node, program) = match only_program(graph) {
            Ok(found) => found,
            Err(foreign) => return Ok(Err(foreign)),
        };
        let misfit = || Error::Manifest {
            problem: format!(
                "the inputs and outputs of node {:?} do not match its program",
                node.name
            ),
        };
        let parts = model.programs.get(program).ok_or_else(misfit)?;
        let executor = backend.ready(parts, limits).map_err(|error| error.of(program))?;
        let parsed = executor.program();

        let mut inputs = Vec::new();
        if parsed.inputs().len() != node.inputs.len() {
            return Err(misfit());
        }
        for (port, value_id) in parsed.inputs().zip(&node.inputs) {
            let Some(index) = graph.inputs.iter().position(|input| *input == value_id.node) else {
                return Ok(Err(NonIntegerNode::of(node)));
            };
            let elements = port.elements as usize;
            if !fits(&ports.inputs[index], port.element, elements) {
                return Err(misfit());
            }
            inputs.push(Place { index, elements });
        }

        let given: Vec<_> = parsed.outputs().collect();
        let mut outputs: Vec<Place> = Vec::new();
        for (index, value_id) in graph.outputs.iter().enumerate() {
            let slot = value_id.output as usize;
            let of_program = graph.nodes.get(value_id.node as usize).is_some_and(|own| own == node);
            if !of_program || outputs.iter().any(|other| other.index == slot) {
                return Ok(Err(NonIntegerNode::of(node)));
            }
            let port = given.get(slot).ok_or_else(misfit)?;
            let elements = port.elements as usize;
            if !fits(&ports.outputs[index], port.element, elements) {
                return Err(misfit());
            }
            outputs.push(Place { index: slot, elements });
        }
        if outputs.len() != given.len() || inputs.len() > MAX_PORTS || outputs.len() > MAX_PORTS {
            return Ok(Err(NonIntegerNode::of(node)));
        }

        let (bytes, operations) = (executor.arena_bytes(), executor.program().operations());
        let arena = Aligned::try_zeroed(bytes).ok_or(Error::OutOfMemory { bytes })?;
        let input_fact = |input: &u32| graph.nodes[*input as usize].outputs[0].clone();
        Ok(Ok(IntegerModel {
            executor,
            backend: backend.clone(),
            arena,
            inputs,
            outputs,
            symbols: graph.symbols.len(),
            operations,
            input_facts: graph.inputs.iter().map(input_fact).collect(),
            output_facts: graph
                .outputs
                .iter()
                .map(|value_id| graph.fact(*value_id).clone())
                .collect(),
        }))
    }

    pub(crate) fn arena_bytes(&self) -> usize {
        self.executor.arena_bytes()
    }

    /// The number of element operations of one sample.
    pub(crate) fn operations(&self) -> u64 {
        self.operations
    }

    /// Returns whether the weights are used directly from the bundle.
    pub(crate) fn is_in_place(&self) -> bool {
        self.executor.is_in_place()
    }

    /// Returns the number of multiply-accumulates in step `index`.
    pub(crate) fn macs(&self, index: usize) -> u64 {
        self.executor.macs(index)
    }

    /// Returns the name of the node that step `index` implements, or an empty name if unknown.
    pub(crate) fn step_name(&self, index: usize) -> &str {
        self.executor.program().step_name(index).unwrap_or_default()
    }

    /// Returns the kind of each step.
    pub(crate) fn step_kinds(&self) -> impl ExactSizeIterator<Item = &'static str> {
        self.executor.steps().iter().map(|step| step.kind())
    }

    /// Returns the number of elements in one sample of an output.
    pub(crate) fn output_elements(&self, output: usize) -> usize {
        self.outputs[output].elements
    }

    /// Returns the number of elements in one sample of an input; `None` if the program does not
    /// read it.
    pub(crate) fn input_elements(&self, input: usize) -> Option<usize> {
        self.inputs.iter().find(|place| place.index == input).map(|place| place.elements)
    }

    /// Returns the number of samples in the given inputs; 1 if the program reads none of them.
    pub(crate) fn samples(
        &self,
        ports: &Ports,
        inputs: &[Option<View<'_>>],
    ) -> Result<usize, Error> {
        let mut samples = None;
        for (port, view) in ports.inputs.iter().zip(inputs) {
            if let (Some(view), Some(fixed)) = (view, fixed_elements(port)) {
                expect_length(Role::Input, port, fixed, view.len())?;
            }
        }
        for place in &self.inputs {
            let Some(view) = inputs[place.index] else { continue };
            let port = &ports.inputs[place.index];
            let held = view.len() / place.elements;
            if view.len() % place.elements != 0 {
                return Err(Error::Length {
                    role: Role::Input,
                    name: port.name.clone(),
                    expected: format!("a multiple of {}", place.elements),
                    given: view.len(),
                });
            }
            match samples {
                Some(samples) if samples != held => {
                    expect_length(Role::Input, port, samples * place.elements, view.len())?;
                }
                _ => samples = Some(held),
            }
        }
        Ok(samples.unwrap_or(1))
    }

    /// Runs the samples one after another. `inputs` and `outputs` are those of the model and hold
    /// `samples` samples each. Inputs that the program does not read may be `None`. Does not
    /// allocate.
    pub(crate) fn run(
        &mut self,
        samples: usize,
        inputs: &[Option<View<'_>>],
        outputs: &mut [Option<ViewMut<'_>>],
        control: &Control,
        observer: &mut impl Observer,
    ) -> Result<(), Error> {
        let mut observer = Controlled::new(control, observer);
        for sample in 0..samples {
            let mut from: [Input<'_>; MAX_PORTS] = array::from_fn(|_| Input::F32(&[]));
            for (input, place) in from.iter_mut().zip(&self.inputs) {
                if let Some(view) = inputs[place.index] {
                    *input = view.sample(sample, place.elements).for_engine();
                }
            }
            let mut to: [Output<'_>; MAX_PORTS] = array::from_fn(|_| Output::F32(&mut []));
            for (view, place) in outputs.iter_mut().zip(&self.outputs) {
                if let Some(view) = view {
                    to[place.index] =
                        view.reborrow().into_sample(sample, place.elements).for_engine();
                }
            }
            let (from, to) = (&from[..self.inputs.len()], &mut to[..self.outputs.len()]);
            let (pool, arena) = (self.backend.pool(), self.arena.bytes_mut());
            let ran = self.executor.run_observed(pool, arena, from, to, &mut observer);
            observer.stopped()?;
            ran?;
        }
        Ok(())
    }

    /// Computes the output shapes from the input shapes; the shape of an omitted input is `None`.
    pub(crate) fn output_shapes(
        &self,
        ports: &Ports,
        inputs: &[Option<&[usize]>],
    ) -> Result<Vec<Vec<usize>>, Error> {
        let mut symbols = vec![None; self.symbols];
        for (fact, shape) in self.input_facts.iter().zip(inputs.iter().copied()) {
            for (dim, size) in fact.shape.iter().zip(shape.unwrap_or_default()) {
                let symbol = dim.as_symbol().and_then(|symbol| symbols.get_mut(symbol as usize));
                if let Some(symbol) = symbol {
                    *symbol = i64::try_from(*size).ok();
                }
            }
        }
        let size =
            |dim: &hardtack_bundle::graph::Dim| usize::try_from(dim.evaluate(&symbols)?).ok();
        let shape = |(port, fact): (&Port, &Fact)| {
            let shape: Option<Vec<usize>> = fact.shape.iter().map(size).collect();
            shape.ok_or_else(|| Error::OutputShape { name: port.name.clone() })
        };
        ports.outputs.iter().zip(&self.output_facts).map(shape).collect()
    }
}

/// An observer that stops the inference when its control requires it.
pub(crate) struct Controlled<'c, O> {
    control: &'c Control,
    stopped: Option<Stopped>,
    observer: &'c mut O,
}

impl<'c, O> Controlled<'c, O> {
    /// A watch that asks `control` before each step, and passes steps on to `observer`.
    pub(crate) fn new(control: &'c Control, observer: &'c mut O) -> Self {
        Controlled { control, stopped: None, observer }
    }

    /// The reason why the run ended early, as an error.
    pub(crate) fn stopped(&self) -> Result<(), Stopped> {
        self.stopped.map_or(Ok(()), Err)
    }
}

impl<O: Observer> Observer for Controlled<'_, O> {
    fn should_continue(&mut self) -> bool {
        self.stopped = self.control.check().err();
        self.stopped.is_none()
    }

    fn before(&mut self, index: usize) {
        self.observer.before(index);
    }

    fn after(&mut self, index: usize) {
        self.observer.after(index);
    }
}

/// Returns the program node and the index of its program if all other nodes are inputs.
fn only_program(graph: &Graph) -> Result<(&Node, usize), NonIntegerNode> {
    let mut found = None;
    for node in &graph.nodes {
        match node.operator {
            Operator::Input => {}
            Operator::Program(program) if found.is_none() => found = Some((node, program as usize)),
            _ => return Err(NonIntegerNode::of(node)),
        }
    }
    let none = || {
        graph
            .nodes
            .last()
            .map_or(NonIntegerNode { node: "".into(), operator: "" }, NonIntegerNode::of)
    };
    found.ok_or_else(none)
}

/// Returns whether an input or output of the model holds whole samples of the program's.
fn fits(port: &Port, element: PortType, elements: usize) -> bool {
    let dtype = match element {
        PortType::F32 => DType::F32,
        PortType::I8 => DType::I8,
        PortType::U8 => DType::U8,
    };
    port.dtype == dtype && fixed_elements(port).is_none_or(|all| all % elements == 0)
}

/// Returns the number of elements of an input or output without named dimensions.
pub(crate) fn fixed_elements(port: &Port) -> Option<usize> {
    port.shape.iter().try_fold(1usize, |all, extent| match extent {
        Extent::Fixed(size) => all.checked_mul(*size),
        Extent::Named(_) => None,
    })
}

/// Returns an error unless `given` is the expected number of elements.
pub(crate) fn expect_length(
    role: Role,
    port: &Port,
    expected: usize,
    given: usize,
) -> Result<(), Error> {
    if given == expected {
        return Ok(());
    }
    Err(Error::Length { role, name: port.name.clone(), expected: expected.to_string(), given })
}
