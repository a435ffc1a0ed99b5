//! Models that are more than one integer program: the adapter to tract runs them.

use crate::binding::{Sizes, Slots};
use crate::float::{FloatModel, FloatPlan};
use crate::port::Ports;
use crate::profile::OperationTime;
use crate::session::fillable;
use crate::state::{Filling, States};
use crate::{Error, Model, Tensor};

/// Most plans that are kept.
const PLANS: usize = 8;

/// A loaded model with the plans for the shapes it ran with.
pub(crate) struct Floating {
    model: FloatModel,
    /// The one used last is the last.
    plans: Vec<(Vec<Vec<usize>>, FloatPlan)>,
    arena_bytes: usize,
}

impl Floating {
    pub(crate) fn new(model: &Model, prepared: bool) -> Result<Floating, Error> {
        let mut arena_bytes = 0;
        for (program, parts) in model.programs.iter().enumerate() {
            let parsed = hardtack_engine::Program::parse(&parts.code[..], &parts.weights[..])
                .map_err(|error| Error::Program { program, error })?;
            arena_bytes = parsed.arena_bytes().max(arena_bytes);
        }
        let model = FloatModel::load(model, prepared)?;
        Ok(Floating { model, plans: Vec::new(), arena_bytes })
    }

    /// Bytes of the largest arena of its integer programs; 0 where it has none.
    pub(crate) fn arena_bytes(&self) -> usize {
        self.arena_bytes
    }

    /// Runs the model; the states are filled and kept as `filling` says.
    pub(crate) fn run(
        &mut self,
        ports: &Ports,
        states: &mut States,
        given: &Slots<&Tensor>,
        sizes: &Sizes<'_>,
        filling: Filling,
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
            None => plan.run(&inputs)?,
            Some(times) => {
                let (outputs, nodes) = plan.run_profiled(&inputs)?;
                times.extend(nodes.into_iter().map(|node| OperationTime {
                    name: node.name,
                    operator: node.operator,
                    duration: node.duration,
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
