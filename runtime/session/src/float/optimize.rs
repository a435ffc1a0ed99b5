//! Runs tract's optimization passes with less memory: constants are freed once nothing uses them.

use tract_core::internal::*;
use tract_core::ops::cnn::{Conv, MaxPool, SumPool};
use tract_core::ops::scan::Scan as TractScan;
use tract_core::optim::{Optimizer, OptimizerSession, TypedPass};

use super::budget::Budget;
use super::custom_ops::{Check, Fit, Scan, check_fixed, fix_shapes};
use super::elements;
use super::measure::bound_elements;
use super::{memory, twins};

/// The number of bytes of new constants after which a pass stops, so that the constants that they
/// replace can be freed.
const MADE: u64 = 1 << 20;

/// An optimization that splits nodes may multiply their number by this, plus [`ALWAYS`]. tract
/// splits a node for each range of each axis in which masks differ.
const GROWTH: usize = 32;
const ALWAYS: usize = 4096;

/// Simplifies a model like [`TypedModel::declutter`], with less memory.
pub(super) fn declutter(model: &mut TypedModel, budget: &Budget) -> TractResult<()> {
    thrifty(Optimizer::declutter(), model, budget).session().optimize(model)
}

/// Optimizes a model like [`TypedModel::optimize`], with less memory.
fn optimize(model: &mut TypedModel, budget: &Budget) -> TractResult<()> {
    let optimizer = thrifty(Optimizer::codegen(), model, budget);
    model.optimize_with_session(&mut optimizer.session())
}

/// Optimizes a model for running. Declutters it first unless `simplified`.
pub(super) fn ready(model: &mut TypedModel, simplified: bool, budget: &Budget) -> TractResult<()> {
    if !simplified {
        declutter(model, budget)?;
    }
    check_windows(model, budget)?;
    own_loops(model, budget)?;
    optimize(model, budget)?;
    // Bodies were counted when they were optimized.
    budget.take_kept(memory::of_packed(model))?;
    check_fixed(model)
}

/// Replaces tract's loops in a decluttered model with the checked ones of this crate. Their bodies
/// are optimized here, because tract would do so without the checks of this crate.
fn own_loops(model: &mut TypedModel, budget: &Budget) -> TractResult<()> {
    for node in &mut model.nodes {
        let Some(scan) = node.op_as::<TractScan>() else { continue };
        let facts = node.outputs.iter().map(|output| output.fact.clone()).collect();
        let mut body = scan.body.clone();
        ready(&mut body, false, budget)?;
        node.op = Box::new(Scan::new(scan, TypedSimplePlan::new(body)?, facts)?);
    }
    Ok(())
}

/// Checks the windows of a decluttered model: decluttering may have moved padding into them. Their
/// lists count against the memory limit before tract makes them.
fn check_windows(model: &TypedModel, budget: &Budget) -> TractResult<()> {
    for node in &model.nodes {
        let pool = if let Some(op) = node.op_as::<Conv>() {
            &op.pool_spec
        } else if let Some(op) = node.op_as::<MaxPool>() {
            &op.pool_spec
        } else if let Some(op) = node.op_as::<SumPool>() {
            &op.pool_spec
        } else {
            // The windows of a loop are checked when its body is decluttered.
            continue;
        };
        let input = node.inputs.first().context("a window has no input")?;
        let bytes = Check::windows(&Fit::new(pool, None), model.outlet_fact(*input)?)?;
        budget.take_kept(bytes)?;
    }
    Ok(())
}

/// Checks that a patch does not rely on sizes that are no longer known.
///
/// A size that is known may be relied upon without another comparison, so it must stay known. tract
/// considers an unknown size compatible with any other.
fn check_known(model: &TypedModel, patch: &TypedModelPatch) -> TractResult<()> {
    let known = |fact: &TypedFact| fact.shape.as_concrete().is_some();
    let pairs = patch.taps.iter().map(|(inner, outer)| (inner, outer, false));
    for (inner, outer, shunt) in pairs.chain(patch.shunts.iter().map(|(o, i)| (i, o, true))) {
        let (inside, outside) = (patch.model.outlet_fact(*inner)?, model.outlet_fact(*outer)?);
        let (relied, given) = if shunt { (outside, inside) } else { (inside, outside) };
        ensure!(
            !known(relied) || known(given),
            "an optimization of node {:?} relies on the shape {:?}, but it is {:?}",
            model.node(outer.node).name,
            relied.shape,
            given.shape
        );
    }
    Ok(())
}

/// The tract pass that is left out. It annotates values with the elements that matter, which no
/// operation of ours uses, and its expressions double with each mask of a value.
const LEFT_OUT: &str = "PropagateRoi";

/// The number of nodes, also of bodies.
fn nodes(model: &TypedModel) -> usize {
    let bodies = model.nodes.iter().filter_map(|node| node.op_as::<TractScan>());
    model.nodes.len() + bodies.map(|scan| nodes(&scan.body)).sum::<usize>()
}

fn thrifty(optimizer: Optimizer, model: &TypedModel, budget: &Budget) -> Optimizer {
    let most = nodes(model).saturating_mul(GROWTH).saturating_add(ALWAYS);
    let passes = optimizer.passes.into_iter().filter(|pass| format!("{pass:?}") != LEFT_OUT);
    let passes = passes.map(|pass| match format!("{pass:?}").as_str() {
        // The types of these passes are private to tract.
        twins::REPLACED => Box::new(twins::MergeTwins) as Box<dyn TypedPass>,
        elements::REPLACED => Box::new(elements::PropagateElements),
        _ => pass,
    });
    let passes = passes.map(|pass| {
        let budget = budget.clone();
        Box::new(Thrifty { pass, made: 0, started: false, most, budget }) as Box<dyn TypedPass>
    });
    Optimizer { passes: passes.collect(), ..optimizer }
}

/// A pass that stops early after it has created many constants. The session then drops unused nodes
/// and runs the pass again until it finds nothing to do. Fails if the constants exceed the budget.
#[derive(Clone, Debug)]
struct Thrifty {
    pass: Box<dyn TypedPass>,
    /// The number of bytes of constants created since the pass started.
    made: u64,
    /// Whether the pass has looked at the model.
    started: bool,
    /// The maximum number of nodes, with those that are no longer used.
    most: usize,
    budget: Budget,
}

impl TypedPass for Thrifty {
    fn reset(&mut self) -> TractResult<()> {
        self.made = 0;
        self.started = false;
        self.pass.reset()
    }

    fn next(
        &mut self,
        session: &mut OptimizerSession,
        model: &TypedModel,
    ) -> TractResult<Option<TypedModelPatch>> {
        self.budget.control.check()?;
        if self.made >= MADE {
            return Ok(None);
        }
        let count = model.nodes.len();
        ensure!(count <= self.most, "it grew to {count} nodes; the model is too complicated");
        if !self.started {
            self.budget.check_memory(memory::of_constants(model))?;
            self.started = true;
        }
        let mut patch = self.pass.next(session, model)?;
        if let Some(patch) = &mut patch {
            check_known(model, patch)?;
            fix_shapes(&mut patch.model)?;
            let nodes = patch.model.nodes.iter_mut();
            let outputs = nodes.flat_map(|node| &mut node.outputs);
            outputs.for_each(|output| bound_elements(&mut output.fact));
        }
        let outputs = patch.iter().flat_map(|patch| &patch.model.nodes).flat_map(|n| &n.outputs);
        let constants = outputs.filter(|output| output.fact.konst.is_some());
        self.made += constants
            .filter_map(|constant| u64::try_from(constant.fact.mem_size().as_i64()?).ok())
            .sum::<u64>();
        Ok(patch)
    }

    fn run_direct(&mut self, model: &mut TypedModel) -> TractResult<bool> {
        self.budget.control.check()?;
        self.pass.run_direct(model)
    }
}

#[cfg(test)]
mod tests {
    use tract_core::ops::math;

    use super::*;

    #[test]
    fn tract_still_has_the_pass_that_is_left_out() {
        let passes = Optimizer::declutter().passes;
        assert!(passes.iter().any(|pass| format!("{pass:?}") == LEFT_OUT));
    }

    /// A patch may replace an unknown size by a known one, but never rely on an unknown size as if
    /// it were known.
    #[test]
    fn patches_that_rely_on_unknown_sizes_are_refused() {
        let model = |known: bool| {
            let mut model = TypedModel::default();
            let size = if known { 5.to_dim() } else { model.symbols.sym("s").to_dim() };
            let x = model.add_source("x", f32::fact([size])).unwrap();
            let y = model.wire_node("y", math::exp(), &[x]).unwrap();
            model.select_output_outlets(&y).unwrap();
            (model, x, y[0])
        };
        let check = |known: bool, inside: bool| {
            let (model, x, y) = model(known);
            let mut patch = TypedModelPatch::default();
            let tap = patch.tap_model(&model, x).unwrap();
            let size = if inside { 5.to_dim() } else { model.symbols.sym("s").to_dim() };
            patch.set_outlet_fact(tap, f32::fact([size])).unwrap();
            let replaced = patch.wire_node("z", math::exp(), &[tap]).unwrap()[0];
            patch.shunt_outside(&model, y, replaced).unwrap();
            check_known(&model, &patch).is_ok()
        };
        assert!(check(true, true) && check(false, false));
        // The tap is believed to be known, or the replacement is unknown.
        assert!(!check(false, true));
        assert!(!check(true, false));
    }
}
