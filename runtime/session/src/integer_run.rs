//! One inference of a model that is a single integer program.

use std::array;
use std::time::Duration;

use hardtack_engine::{NoHook, Observer};

use crate::binding::Slots;
use crate::error::Role;
use crate::integer_model::{IntegerModel, expect_length};
use crate::limits::Control;
use crate::port::Ports;
use crate::profile::{OperationTime, Stopwatch};
use crate::state::{StatePolicy, States, fillable, zeros};
use crate::{Error, Tensor, View, ViewMut};

/// One inference of a model that is a single integer program.
pub(crate) struct IntegerRun<'s> {
    pub(crate) integer: &'s mut IntegerModel,
    pub(crate) spare: &'s mut [Option<Tensor>],
    pub(crate) ports: &'s Ports,
    pub(crate) states: &'s mut States,
    pub(crate) state_policy: StatePolicy,
    pub(crate) control: Control,
}

impl<'s> IntegerRun<'s> {
    pub(crate) fn run_tensors(
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
            None => self.run(given, wanted, &mut NoHook)?,
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
                        macs: self.integer.macs(index),
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

    /// Checks that outputs of these shapes have the number of elements that the program writes.
    /// Called before they are allocated. Returns the number of samples.
    fn check_lengths(
        &self,
        given: &Slots<View<'_>>,
        shapes: &[Vec<usize>],
    ) -> Result<usize, Error> {
        let samples = self.integer.samples(self.ports, given)?;
        for (index, (port, shape)) in self.ports.outputs.iter().zip(shapes).enumerate() {
            let expected = samples.saturating_mul(self.integer.output_elements(index));
            let stated = shape.iter().fold(1, |all: usize, size| all.saturating_mul(*size));
            expect_length(Role::Output, port, expected, stated)?;
        }
        Ok(samples)
    }

    /// Checks that every input that the program reads is given or can be filled from a state.
    pub(crate) fn require<T>(&self, given: &Slots<T>) -> Result<(), Error> {
        for (index, port) in self.ports.inputs.iter().enumerate() {
            if given[index].is_none() && self.integer.input_elements(index).is_some() {
                fillable(self.ports, index, port, self.state_policy)?;
            }
        }
        Ok(())
    }

    pub(crate) fn run(
        self,
        given: Slots<View<'_>>,
        mut wanted: Slots<ViewMut<'s>>,
        observer: &mut impl Observer,
    ) -> Result<(), Error> {
        let IntegerRun { integer, spare, ports, states, state_policy, control } = self;
        let samples = integer.samples(ports, &given)?;
        for (index, (port, view)) in ports.inputs.iter().zip(&given).enumerate() {
            let (None, Some(elements)) = (view, integer.input_elements(index)) else { continue };
            if let Some(state) = ports.state_of_input(index) {
                states.prepare(state, port, &[samples.saturating_mul(elements)], state_policy)?;
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
        if state_policy == StatePolicy::Kept {
            states.keep_views(ports, &wanted);
        }
        Ok(())
    }
}
