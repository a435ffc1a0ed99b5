//! Plans that pass their outputs to a callback while they run.

use tract_core::internal::*;
use tract_core::ops::konst::Const;

use super::super::error::{Error, guard, tract};
use super::super::run::{Watch, begin, run};
use super::{FloatModel, FloatPlan, control};
use crate::Tensor as Ours;

/// A plan in which every f32 value may be an output. Each output is passed to a callback as soon as
/// it is computed, and is freed once no operation needs it. The values are those of a [`FloatPlan`]
/// of the same model.
pub struct ObservedPlan {
    plan: FloatPlan,
    /// The observed outputs: the index among all outputs, and the tract value.
    outputs: Vec<(usize, OutletId)>,
}

impl FloatModel {
    /// Prepares the model like [`FloatModel::into_plan`], to observe the outputs whose indices
    /// `wanted` selects. Operations that only other outputs need are removed.
    ///
    /// # Errors
    /// See [`FloatModel::plan`].
    pub fn plan_observed(
        mut self,
        shapes: &[&[usize]],
        wanted: impl Fn(usize) -> bool,
    ) -> Result<ObservedPlan, Error> {
        let budget = self.budget(&control(&self.limits))?;
        let mut model = self.optimized(shapes, &budget)?;
        let wanted: Vec<usize> = (0..model.outputs.len()).filter(|index| wanted(*index)).collect();
        model.outputs = wanted.iter().map(|index| model.outputs[*index]).collect();
        model.compact().map_err(tract("removing unobserved operations"))?;
        let outputs = wanted.into_iter().zip(model.outputs.iter().copied()).collect();
        model.outputs = ends(&model)?;
        Ok(ObservedPlan { plan: self.planned(model, shapes, &budget)?, outputs })
    }
}

/// A callback that receives the index of an output, its shape and its elements.
pub type Observe<'a> = dyn FnMut(usize, &[usize], &[f32]) + 'a;

/// Returns the outputs of a model that no other output depends on.
fn ends(model: &TypedModel) -> Result<Vec<OutletId>, Error> {
    let order = model.eval_order().map_err(tract("ordering the nodes"))?;
    let mut passed = vec![false; model.nodes.len()];
    let mut ends = Vec::new();
    for node in order.into_iter().rev() {
        if !passed[node] {
            ends.extend(model.outputs.iter().copied().find(|output| output.node == node));
        }
        model.node(node).inputs.iter().for_each(|input| passed[input.node] = true);
    }
    Ok(ends)
}

impl ObservedPlan {
    /// Returns the shapes of the inputs.
    pub fn input_shapes(&self) -> &[Vec<usize>] {
        self.plan.input_shapes()
    }

    /// Runs the model once like [`FloatPlan::run`], with reset state. Calls `observe` with each
    /// output, in the order of computation.
    ///
    /// # Errors
    /// See [`FloatPlan::run`].
    pub fn run(&mut self, inputs: &[&Ours], observe: &mut Observe<'_>) -> Result<(), Error> {
        self.plan.reset()?;
        let inputs = self.plan.inputs(inputs)?;
        let control = self.plan.with_memory(&control(&self.plan.limits));
        let state = &mut self.plan.state;
        let outputs = &self.outputs;
        let ends = &self.plan.plan.model().outputs;
        let mut handover = Handover { outputs, ends, observe };
        guard("running the model", || {
            // A plan has no steps for constants.
            for node in &self.plan.plan.model().nodes {
                if let Some(constant) = node.op_as::<Const>() {
                    handover
                        .hand_over(node, &[constant.val().clone().into_tvalue()])
                        .map_err(tract("reading a constant"))?;
                }
            }
            begin(state, &control);
            let ran = run(&self.plan.plan, state, inputs, &control, &mut handover);
            ran.map(drop).map_err(tract("running the model"))
        })
    }
}

/// Passes outputs to the callback as soon as they are computed.
struct Handover<'a, 'o> {
    outputs: &'a [(usize, OutletId)],
    ends: &'a [OutletId],
    observe: &'a mut Observe<'o>,
}

impl Handover<'_, '_> {
    fn hand_over(&mut self, node: &TypedNode, values: &[TValue]) -> TractResult<()> {
        for (index, output) in self.outputs.iter().filter(|(_, output)| output.node == node.id) {
            let value = &values[output.slot];
            (self.observe)(*index, value.shape(), value.try_as_plain_ram()?.as_slice::<f32>()?);
        }
        Ok(())
    }
}

impl Watch for Handover<'_, '_> {
    fn after(&mut self, node: &TypedNode, values: &mut TVec<TValue>) -> TractResult<()> {
        self.hand_over(node, values)?;
        // Free these values now: the plan would keep its outputs until the end.
        if self.ends.iter().any(|end| end.node == node.id) {
            values.fill_with(|| Tensor::default().into_tvalue());
        }
        Ok(())
    }
}
