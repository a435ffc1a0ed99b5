//! A float model whose inner values are looked at.

use std::collections::{HashMap, HashSet};

use hardtack::float::{FloatModel, ObservedPlan};
use hardtack::{Model, Tensor};
use hardtack_bundle::DType;
use hardtack_bundle::graph::{Operator, Outlet};

use crate::error::Error;

/// The float model with all values that matter as outputs.
pub struct Observer {
    model: FloatModel,
    observed: Vec<Outlet>,
    inputs: Vec<Outlet>,
    /// Those that are looked at; `None` is all.
    only: Option<HashSet<Outlet>>,
    plan: Option<ObservedPlan>,
}

impl Observer {
    /// Prepares to see these values of a model. Values that are not f32, and constants, are left
    /// out.
    ///
    /// # Errors
    /// Where the model cannot be loaded.
    pub fn new(
        model: &Model,
        outlets: impl IntoIterator<Item = Outlet>,
    ) -> Result<Observer, Error> {
        let mut model = model.clone();
        let graph = &mut model.graph;
        let mut observed: Vec<Outlet> = outlets.into_iter().collect();
        observed.sort();
        observed.dedup();
        observed.retain(|outlet| {
            let node = &graph.nodes[outlet.node as usize];
            node.outputs[outlet.slot as usize].dtype == DType::F32
                && !matches!(node.operator, Operator::Input | Operator::Constant(_))
        });
        graph.outputs.clone_from(&observed);
        graph.output_names = (0..observed.len()).map(|index| format!("observed.{index}")).collect();
        let inputs = graph.inputs.iter().map(|node| Outlet { node: *node, slot: 0 }).collect();
        let model = FloatModel::load(&model, false)?;
        Ok(Observer { model, observed, inputs, only: None, plan: None })
    }

    /// Runs the model on a sample. `observe` gets the inputs and then every observed value as soon
    /// as it is computed; none is held longer than the model needs it.
    ///
    /// # Errors
    /// Where the model cannot be run on it.
    pub fn run(
        &mut self,
        sample: &[Tensor],
        mut observe: impl FnMut(Outlet, &Tensor),
    ) -> Result<(), Error> {
        let shapes: Vec<&[usize]> = sample.iter().map(Tensor::shape).collect();
        let planned = self.plan.take().filter(|plan| plan.input_shapes() == shapes);
        let plan = self.plan.insert(match planned {
            Some(plan) => plan,
            None => {
                let only = self.only.as_ref();
                let wanted = |index| only.is_none_or(|only| only.contains(&self.observed[index]));
                self.model.plan_observed(&shapes, wanted)?
            }
        });
        self.inputs.iter().zip(sample).for_each(|(input, tensor)| observe(*input, tensor));
        let inputs: Vec<&Tensor> = sample.iter().collect();
        plan.run(&inputs, &mut |index, tensor| observe(self.observed[index], &tensor))?;
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
        self.run(sample, |outlet, tensor| {
            if wanted(outlet) {
                values.insert(outlet, tensor.clone());
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
