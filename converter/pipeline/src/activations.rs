//! Runs a float model and reports its intermediate values.

use std::collections::{HashMap, HashSet};

use hardtack::Tensor;
use hardtack::float::{FloatModel, ObservedPlan};
use hardtack_bundle::DType;
use hardtack_bundle::graph::{Operator, ValueId};

use crate::error::Error;
use crate::offloaded_model::ModelSource;

/// A float model with the observed values as its outputs.
pub(crate) struct Observer<'m> {
    model: &'m dyn ModelSource,
    observed: Vec<ValueId>,
    inputs: Vec<ValueId>,
    /// The subset of `observed` that is reported; `None` reports all.
    only: Option<HashSet<ValueId>>,
    plan: Option<ObservedPlan>,
}

impl<'m> Observer<'m> {
    /// Creates an observer of these values. Constants and values that are not f32 are ignored. The
    /// weights are loaded only while a plan is made.
    pub(crate) fn new(
        model: &'m dyn ModelSource,
        value_ids: impl IntoIterator<Item = ValueId>,
    ) -> Observer<'m> {
        let graph = model.graph();
        let mut observed: Vec<ValueId> = value_ids.into_iter().collect();
        observed.sort();
        observed.dedup();
        observed.retain(|value_id| {
            let node = &graph.nodes[value_id.node as usize];
            node.outputs[value_id.output as usize].dtype == DType::F32
                && !matches!(node.operator, Operator::Input | Operator::Constant(_))
        });
        let inputs = graph.inputs.iter().map(|node| ValueId { node: *node, output: 0 }).collect();
        Observer { model, observed, inputs, only: None, plan: None }
    }

    /// Plans the model for inputs of these shapes, with the observed values as its outputs.
    fn planned(&self, shapes: &[&[usize]]) -> Result<ObservedPlan, Error> {
        let mut model = self.model.load()?;
        let names = 0..self.observed.len();
        model.graph.outputs.clone_from(&self.observed);
        model.graph.output_names = names.map(|index| format!("observed.{index}")).collect();
        let only = self.only.as_ref();
        let wanted = |index| only.is_none_or(|only| only.contains(&self.observed[index]));
        let loaded = FloatModel::load(&model, false)?;
        drop(model);
        Ok(loaded.plan_observed(shapes, wanted)?)
    }

    /// Runs the model on a sample. Calls `observe` with the shape and elements of each f32 input,
    /// and then of each observed value as soon as it is computed. No value is kept longer than the
    /// model needs it.
    ///
    /// # Errors
    /// Returns an error if the model cannot be loaded or run.
    pub(crate) fn run(
        &mut self,
        sample: &[Tensor],
        mut observe: impl FnMut(ValueId, &[usize], &[f32]),
    ) -> Result<(), Error> {
        let shapes: Vec<&[usize]> = sample.iter().map(Tensor::shape).collect();
        let planned = self.plan.take().filter(|plan| plan.input_shapes() == shapes);
        let planned = planned.map_or_else(|| self.planned(&shapes), Ok)?;
        let plan = self.plan.insert(planned);
        for (input, tensor) in self.inputs.iter().zip(sample) {
            if let Some(values) = tensor.as_f32() {
                observe(*input, tensor.shape(), values);
            }
        }
        let inputs: Vec<&Tensor> = sample.iter().collect();
        plan.run(&inputs, &mut |index, shape, values| {
            observe(self.observed[index], shape, values);
        })?;
        Ok(())
    }

    /// Runs the model on a sample and returns the observed values and inputs that `wanted` selects.
    ///
    /// # Errors
    /// Returns an error if the model cannot be loaded or run.
    pub(crate) fn values(
        &mut self,
        sample: &[Tensor],
        wanted: impl Fn(ValueId) -> bool,
    ) -> Result<HashMap<ValueId, Tensor>, Error> {
        let mut values = HashMap::new();
        self.run(sample, |value_id, shape, elements| {
            if wanted(value_id) {
                values
                    .extend(Tensor::new(shape, elements.to_vec()).map(|tensor| (value_id, tensor)));
            }
        })?;
        Ok(values)
    }

    /// Restricts the observer to these values, and runs only the parts of the model that they need.
    /// The values stay bit-exact, as tract optimizes the model for all originally observed values.
    pub(crate) fn only(&mut self, value_ids: HashSet<ValueId>) {
        self.only = Some(value_ids);
        self.unload();
    }

    /// Frees the plan and its memory. The next run plans the model again.
    pub(crate) fn unload(&mut self) {
        self.plan = None;
    }
}
