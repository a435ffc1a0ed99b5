//! Models that are more than one integer program: the adapter to tract runs them.

use std::sync::{Arc, Once};

use crate::binding::{Sizes, Slots};
use crate::float::{FloatModel, FloatPlan};
use crate::limits::Control;
use crate::port::Ports;
use crate::processor::Processor;
use crate::profile::OperationTime;
use crate::session::fillable;
use crate::state::{Filling, States};
use crate::{Error, Limits, Model, Tensor};

/// Most plans that are kept.
const PLANS: usize = 8;

/// Warns once in a build that a panic inside tract would end.
fn warn_of_abort() {
    static WARNED: Once = Once::new();
    if cfg!(panic = "abort") {
        WARNED.call_once(|| {
            log::warn!(
                "this build aborts on panics, and a malformed float model can make one; use such \
                 builds for trusted bundles only"
            );
        });
    }
}

/// A loaded model with the plans for the shapes it ran with.
pub(crate) struct Floating {
    model: FloatModel,
    /// The one used last is the last.
    plans: Vec<(Vec<Vec<usize>>, FloatPlan)>,
}

impl Floating {
    pub(crate) fn new(
        model: &Model,
        prepared: bool,
        limits: Limits,
        processor: &Arc<Processor>,
    ) -> Result<Floating, Error> {
        warn_of_abort();
        let model = FloatModel::load_on(model, prepared, limits, processor)?;
        Ok(Floating { model, plans: Vec::new() })
    }

    /// Whether the weights of its integer programs are used where they lie.
    pub(crate) fn is_in_place(&self) -> bool {
        self.model.is_in_place()
    }

    /// Bytes of the largest arena of its integer programs; 0 where it has none.
    pub(crate) fn arena_bytes(&self) -> usize {
        self.model.arena_bytes()
    }

    /// The number of element operations of the plan used last.
    pub(crate) fn operations(&self) -> u64 {
        self.plans.last().map_or(0, |(_, plan)| plan.operations())
    }

    /// Runs the model; the states are filled and kept as `filling` says.
    pub(crate) fn run(
        &mut self,
        ports: &Ports,
        states: &mut States,
        given: &Slots<&Tensor>,
        sizes: &Sizes<'_>,
        (filling, control): (Filling, &Control),
        times: Option<&mut Vec<OperationTime>>,
    ) -> Result<Vec<Tensor>, Error> {
        for (index, port) in ports.inputs.iter().enumerate() {
            if given[index].is_none() {
                let state = fillable(ports, index, port, filling)?;
                states.prepare(state, port, &sizes.shape(port), filling)?;
            }
        }
        let input =
            |index: usize| given[index].or_else(|| states.tensor(ports.state_of_input(index)?));
        let inputs: Vec<&Tensor> = (0..ports.inputs.len()).filter_map(input).collect();
        let plan = self.plan(&inputs)?;
        let outputs = match times {
            None => plan.run_controlled(&inputs, control)?,
            Some(times) => {
                let (outputs, nodes) = plan.run_profiled_controlled(&inputs, control)?;
                times.extend(nodes.into_iter().map(|node| OperationTime {
                    name: node.name,
                    operator: node.operator,
                    duration: node.duration,
                    products: 0,
                }));
                outputs
            }
        };
        if filling == Filling::Kept {
            states.keep_tensors(ports, &outputs);
        }
        Ok(outputs)
    }

    /// The plan for inputs of these shapes, made where there is none.
    fn plan(&mut self, inputs: &[&Tensor]) -> Result<&mut FloatPlan, Error> {
        let fits = |(shapes, _): &(Vec<Vec<usize>>, FloatPlan)| {
            shapes.iter().map(Vec::as_slice).eq(inputs.iter().map(|tensor| tensor.shape()))
        };
        let planned = match self.plans.iter().rposition(fits) {
            Some(found) => self.plans.remove(found),
            None => {
                let shapes: Vec<&[usize]> = inputs.iter().map(|tensor| tensor.shape()).collect();
                let plan = self.model.plan(&shapes)?;
                if self.plans.len() == PLANS {
                    self.plans.remove(0);
                }
                (shapes.into_iter().map(Vec::from).collect(), plan)
            }
        };
        self.plans.push(planned);
        let last = self.plans.len() - 1;
        Ok(&mut self.plans[last].1)
    }

    /// Forgets what plans keep from one run to the next.
    pub(crate) fn reset(&mut self) {
        self.plans.retain_mut(|(_, plan)| plan.reset().is_ok());
    }
}
