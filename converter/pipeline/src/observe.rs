//! A float model whose inner values are looked at.

use std::collections::HashMap;

use hardtack::float::{FloatModel, FloatPlan};
use hardtack::{Model, Tensor};
use hardtack_bundle::DType;
use hardtack_bundle::graph::{Operator, Outlet};

use crate::error::Error;

/// The float model with all values that matter as outputs.
pub struct Observer {
    model: FloatModel,
    observed: Vec<Outlet>,
    inputs: Vec<Outlet>,
    plan: Option<FloatPlan>,
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
        Ok(Observer { model: FloatModel::load(&model, false)?, observed, inputs, plan: None })
    }

    /// Runs the model on a sample; every observed value, and the inputs.
    ///
    /// # Errors
    /// Where the model cannot be run on it.
    pub fn run(&mut self, sample: &[Tensor]) -> Result<HashMap<Outlet, Tensor>, Error> {
        let shapes: Vec<&[usize]> = sample.iter().map(Tensor::shape).collect();
        let planned = self.plan.take().filter(|plan| plan.input_shapes() == shapes);
        let plan = self.plan.insert(match planned {
            Some(plan) => plan,
            None => self.model.plan(&shapes)?,
        });
        plan.reset()?;
        let outputs = plan.run(&sample.iter().collect::<Vec<_>>())?;
        let mut values: HashMap<Outlet, Tensor> =
            self.observed.iter().copied().zip(outputs).collect();
        values.extend(self.inputs.iter().copied().zip(sample.iter().cloned()));
        Ok(values)
    }
}
