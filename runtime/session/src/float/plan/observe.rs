//! Plans that hand their outputs over while they run.

use tract_core::internal::*;
use tract_core::ops::konst::Const;

use super::super::error::{Error, guard, tract};
use super::super::run::{Watch, begin, run};
use super::{FloatModel, FloatPlan};
use crate::Tensor as Ours;
use crate::limits::Control;

/// A model ready to run of which every value of f32 may be an output: each is handed over as soon as
/// it is computed, and lives no longer than what reads it needs it. The numbers are those of a
/// [`FloatPlan`] of the same model.
pub struct ObservedPlan {
    plan: FloatPlan,
    /// The outputs that are looked at, by their place among all, and where they come from.
    outputs: Vec<(usize, OutletId)>,
}

impl FloatModel {
    /// As [`FloatModel::into_plan`], to look one by one at the outputs that `wanted` tells by their place.
    /// What only others need is not run.
    ///
    /// # Errors
    /// As [`FloatModel::plan`].
    pub fn plan_observed(
        mut self,
        shapes: &[&[usize]],
        wanted: impl Fn(usize) -> bool,
    ) -> Result<ObservedPlan, Error> {
        let mut model = self.optimized(shapes)?;
        let wanted: Vec<usize> = (0..model.outputs.len()).filter(|index| wanted(*index)).collect();
        model.outputs = wanted.iter().map(|index| model.outputs[*index]).collect();
        model.compact().map_err(tract("leaving out what is not looked at"))?;
        let outputs = wanted.into_iter().zip(model.outputs.iter().copied()).collect();
        model.outputs = ends(&model)?;
        Ok(ObservedPlan { plan: self.planned(model, shapes)?, outputs })
    }
}

/// Gets the place of an output among all, its shape and its elements.
pub type Observe<'a> = dyn FnMut(usize, &[usize], &[f32]) + 'a;

/// Those of a model's outputs that the others are computed on the way to.
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
    /// The shapes of the inputs.
    pub fn input_shapes(&self) -> &[Vec<usize>] {
        self.plan.input_shapes()
    }

    /// Runs the model once, from a fresh state. `observe` gets its outputs in the order they are
    /// computed.
    ///
    /// # Errors
    /// As [`FloatPlan::run`].
    pub fn run(&mut self, inputs: &[&Ours], observe: &mut Observe<'_>) -> Result<(), Error> {
        self.plan.reset()?;
        let inputs = self.plan.inputs(inputs)?;
        let state = &mut self.plan.state;
        let outputs = &self.outputs;
        let ends = &self.plan.plan.model().outputs;
        let mut handover = Handover { outputs, ends, observe };
        guard("running the model", || {
            // Constants are no steps of a plan.
            for node in &self.plan.plan.model().nodes {
                if let Some(constant) = node.op_as::<Const>() {
                    handover
                        .hand_over(node, &[constant.val().clone().into_tvalue()])
                        .map_err(tract("reading a constant"))?;
                }
            }
            let (plan, control) = (&*self.plan.plan, Control::default());
            begin(state, &control);
            let ran = run(plan, state, inputs, &control, &mut handover);
            ran.map(drop).map_err(tract("running the model"))
        })
    }
}

/// Hands the outputs of a run over as soon as they are computed.
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
        // The plan would keep what nothing reads any more to its end.
        if self.ends.iter().any(|end| end.node == node.id) {
            values.fill_with(|| Tensor::default().into_tvalue());
        }
        Ok(())
    }
}
