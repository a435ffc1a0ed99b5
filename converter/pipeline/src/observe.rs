//! A float model whose inner values are looked at.

use std::collections::{HashMap, HashSet};

use hardtack::Tensor;
use hardtack::float::{FloatModel, ObservedPlan};
use hardtack_bundle::DType;
use hardtack_bundle::graph::{Operator, Outlet};

use crate::error::Error;
use crate::resting::Sleeper;

/// The float model with all values that matter as outputs.
pub struct Observer<'m> {
    model: &'m dyn Sleeper,
    observed: Vec<Outlet>,
    inputs: Vec<Outlet>,
    /// Those that are looked at; `None` is all.
    only: Option<HashSet<Outlet>>,
    plan: Option<ObservedPlan>,
}

impl<'m> Observer<'m> {
    /// Prepares to see these values of a model, which wakes only to be made ready to run. Values that
    /// are not f32, and constants, are left out.
    pub fn new(model: &'m dyn Sleeper, outlets: impl IntoIterator<Item = Outlet>) -> Observer<'m> {
        let graph = model.graph();
        let mut observed: Vec<Outlet> = outlets.into_iter().collect();
        observed.sort();
        observed.dedup();
        observed.retain(|outlet| {
            let node = &graph.nodes[outlet.node as usize];
            node.outputs[outlet.slot as usize].dtype == DType::F32
                && !matches!(node.operator, Operator::Input | Operator::Constant(_))
        });
        let inputs = graph.inputs.iter().map(|node| Outlet { node: *node, slot: 0 }).collect();
        Observer { model, observed, inputs, only: None, plan: None }
    }

    /// The model ready to run, with the observed values as its outputs.
    fn planned(&self, shapes: &[&[usize]]) -> Result<ObservedPlan, Error> {
        let mut model = self.model.awake()?;
        let names = 0..self.observed.len();
        model.graph.outputs.clone_from(&self.observed);
        model.graph.output_names = names.map(|index| format!("observed.{index}")).collect();
        let only = self.only.as_ref();
        let wanted = |index| only.is_none_or(|only| only.contains(&self.observed[index]));
        let loaded = FloatModel::load(&model, false)?;
        drop(model);
        Ok(loaded.plan_observed(shapes, wanted)?)
    }

    /// Runs the model on a sample. `observe` gets the shape and the elements of the inputs and then
    /// of every observed value as soon as it is computed; none is held longer than the model needs it.
    /// Inputs that are not f32 are left out.
    ///
    /// # Errors
    /// Where the model cannot be run on it.
    pub fn run(
        &mut self,
        sample: &[Tensor],
        mut observe: impl FnMut(Outlet, &[usize], &[f32]),
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

    /// Those values of a sample that `wanted` tells, all at once.
    ///
    /// # Errors
    /// Where the model cannot be run on it.
    pub fn values(
        &mut self,
        sample: &[Tensor],
        wanted: impl Fn(Outlet) -> bool,
    ) -> Result<HashMap<Outlet, Tensor>, Error> {
        let mut values = HashMap::new();
        self.run(sample, |outlet, shape, elements| {
            if wanted(outlet) {
                values.extend(Tensor::new(shape, elements.to_vec()).map(|tensor| (outlet, tensor)));
            }
        })?;
        Ok(values)
    }

    /// Looks at these values alone from now on, and runs no more of the model than they need. They
    /// are the same to the bit, as what tract makes of a model depends on all that was named first.
    pub fn only(&mut self, outlets: HashSet<Outlet>) {
        self.only = Some(outlets);
        self.rest();
    }

    /// Gives back what the model takes to run; the next run makes it anew.
    pub fn rest(&mut self) {
        self.plan = None;
    }
}
