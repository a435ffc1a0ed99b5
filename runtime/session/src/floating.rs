//! Models that are not a single integer program. They run through the adapter to tract.

use std::sync::{Arc, Once};

use crate::backend::Backend;
use crate::binding::{Sizes, Slots};
use crate::float::{FloatModel, FloatPlan};
use crate::limits::Control;
use crate::model::Model;
use crate::port::Ports;
use crate::profile::OperationTime;
use crate::state::{StatePolicy, States, fillable};
use crate::{Error, Limits, Tensor};

/// The maximum number of plans that are kept.
const PLANS: usize = 8;

/// Logs a warning, once, if this build aborts on panics and so cannot catch those of tract.
fn warn_of_abort() {
    static WARNED: Once = Once::new();
    if cfg!(panic = "abort") {
        WARNED.call_once(|| {
            log::warn!(
                "this build aborts on panics, and a malformed float model can cause one; use such \
                 builds only for bundles from trusted sources"
            );
        });
    }
}

/// A loaded model with plans for recent input shapes.
pub(crate) struct FloatRunner {
    model: FloatModel,
    /// The plans with their input shapes, least recently used first.
    plans: Vec<(Vec<Vec<usize>>, FloatPlan)>,
}

impl FloatRunner {
    pub(crate) fn new(
        model: &Model,
        prepared: bool,
        limits: Limits,
        backend: &Arc<Backend>,
    ) -> Result<FloatRunner, Error> {
        warn_of_abort();
        let model = FloatModel::load_on(model, prepared, limits, backend)?;
        Ok(FloatRunner { model, plans: Vec::new() })
    }

    /// Returns whether the weights of its integer programs are used directly from the bundle.
    pub(crate) fn is_in_place(&self) -> bool {
        self.model.is_in_place()
    }

    /// Returns the size in bytes of the largest arena of its integer programs; 0 if it has none.
    pub(crate) fn arena_bytes(&self) -> usize {
        self.model.arena_bytes()
    }

    /// The number of element operations of the plan used last.
    pub(crate) fn operations(&self) -> u64 {
        self.plans.last().map_or(0, |(_, plan)| plan.operations())
    }

    /// Runs the model. `state_policy` determines how states are filled and whether they are kept.
    pub(crate) fn run(
        &mut self,
        ports: &Ports,
        states: &mut States,
        given: &Slots<&Tensor>,
        sizes: &Sizes<'_>,
        (state_policy, control): (StatePolicy, &Control),
        times: Option<&mut Vec<OperationTime>>,
    ) -> Result<Vec<Tensor>, Error> {
        for (index, port) in ports.inputs.iter().enumerate() {
            if given[index].is_none() {
                let state = fillable(ports, index, port, state_policy)?;
                states.prepare(state, port, &sizes.shape(port), state_policy)?;
            }
        }
        let input =
            |index: usize| given[index].or_else(|| states.tensor(ports.state_of_input(index)?));
        let inputs: Vec<&Tensor> = (0..ports.inputs.len()).filter_map(input).collect();
        let plan = self.plan(&inputs, control)?;
        let outputs = match times {
            None => plan.run_controlled(&inputs, control)?,
            Some(times) => {
                let (outputs, nodes) = plan.run_profiled_controlled(&inputs, control)?;
                times.extend(nodes.into_iter().map(|node| OperationTime {
                    name: node.name,
                    operator: node.operator,
                    duration: node.duration,
                    macs: 0,
                }));
                outputs
            }
        };
        if state_policy == StatePolicy::Kept {
            states.keep_tensors(ports, &outputs);
        }
        Ok(outputs)
    }

    /// Returns the plan for inputs of these shapes, creating it if necessary.
    fn plan(&mut self, inputs: &[&Tensor], control: &Control) -> Result<&mut FloatPlan, Error> {
        let fits = |(shapes, _): &(Vec<Vec<usize>>, FloatPlan)| {
            shapes.iter().map(Vec::as_slice).eq(inputs.iter().map(|tensor| tensor.shape()))
        };
        let planned = match self.plans.iter().rposition(fits) {
            Some(found) => self.plans.remove(found),
            None => {
                let shapes: Vec<&[usize]> = inputs.iter().map(|tensor| tensor.shape()).collect();
                let plan = self.model.plan_controlled(&shapes, control)?;
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

    /// Clears the state that plans keep between inferences.
    pub(crate) fn reset(&mut self) {
        self.plans.retain_mut(|(_, plan)| plan.reset().is_ok());
    }
}
