//! Merges nodes that compute the same from the same inputs, in linear time.
//!
//! This replaces tract's pass `PushSplitDown`, which compares each pair of consumers of a value. If
//! ten thousand nodes read the same zero, that pass takes seconds in each of many iterations.

use std::collections::HashSet;

use tract_core::internal::*;
use tract_core::optim::{OptimizerSession, TypedPass};

/// The name of the tract pass that is replaced.
pub(super) const REPLACED: &str = "PushSplitDown";

/// The pass that merges equal nodes.
#[derive(Clone, Debug)]
pub(super) struct MergeTwins;

impl TypedPass for MergeTwins {
    fn reset(&mut self) -> TractResult<()> {
        Ok(())
    }

    fn next(
        &mut self,
        _: &mut OptimizerSession,
        model: &TypedModel,
    ) -> TractResult<Option<TypedModelPatch>> {
        let outputs: HashSet<usize> =
            model.outputs.iter().filter(|output| output.slot == 0).map(|o| o.node).collect();
        let mut merged: HashSet<usize> = HashSet::new();
        let mut patch = TypedModelPatch::default();
        for node in model.eval_order()? {
            for output in &model.node(node).outputs {
                for (kept, twins) in twins(model, &output.successors, &outputs, &mut merged) {
                    for twin in twins {
                        merge(&mut patch, model, kept, twin)?;
                    }
                }
            }
        }
        Ok(Some(patch).filter(|patch| !patch.is_empty()))
    }
}

/// Groups the consumers of a value: each node that is kept, with the nodes that it replaces.
fn twins(
    model: &TypedModel,
    readers: &[InletId],
    outputs: &HashSet<usize>,
    merged: &mut HashSet<usize>,
) -> Vec<(usize, Vec<usize>)> {
    let mut found: Vec<(usize, Vec<usize>)> = Vec::new();
    // Indices into `found` of nodes with the same inputs and the same kind of operation.
    let mut alike: HashMap<(&[OutletId], Cow<'_, str>), Vec<usize>> = HashMap::new();
    for reader in readers {
        let node = model.node(reader.node);
        if merged.contains(&node.id) {
            continue;
        }
        let alike = alike.entry((&node.inputs, node.op.name())).or_default();
        let twin = alike.iter().copied().find(|place| {
            let kept = found[*place].0;
            // Two nodes that are both outputs cannot be merged.
            let free = !(outputs.contains(&kept) && outputs.contains(&node.id));
            kept != node.id && free && model.node(kept).same_as(node)
        });
        match twin {
            Some(place) => {
                found[place].1.push(node.id);
                merged.insert(node.id);
            }
            None if alike.iter().any(|place| found[*place].0 == node.id) => {}
            None => {
                alike.push(found.len());
                found.push((node.id, Vec::new()));
            }
        }
    }
    found
}

fn merge(
    patch: &mut TypedModelPatch,
    model: &TypedModel,
    kept: usize,
    twin: usize,
) -> TractResult<()> {
    for slot in 0..model.node(twin).outputs.len() {
        let tap = patch.tap_model(model, OutletId::new(kept, slot))?;
        patch.shunt_outside(model, OutletId::new(twin, slot), tap)?;
        patch.obliterate(twin)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tract_core::ops::math;
    use tract_core::optim::Optimizer;

    use super::*;

    /// Runs a pass on a copy of the model and returns the names of the remaining nodes.
    fn left(model: &TypedModel, pass: Box<dyn TypedPass>) -> Vec<String> {
        let mut model = model.clone();
        let optimizer = Optimizer { passes: vec![pass], steps: None };
        optimizer.session().optimize(&mut model).unwrap();
        model.nodes.iter().map(|node| node.name.clone()).collect()
    }

    /// A model in which several nodes compute the same value.
    fn model() -> TypedModel {
        let mut model = TypedModel::default();
        let x = model.add_source("x", f32::fact([4])).unwrap();
        let one = model.add_const("one", tensor1(&[1f32])).unwrap();
        let mut last = Vec::new();
        for index in 0..4 {
            let wired = |model: &mut TypedModel, name: &str, input| {
                let name = format!("{name}{index}");
                model.wire_node(name, math::add(), &[input, one]).unwrap()[0]
            };
            let sum = wired(&mut model, "sum", x);
            let again = wired(&mut model, "again", sum);
            let square = model.wire_node(format!("square{index}"), math::mul(), &[again, again]);
            last.push(square.unwrap()[0]);
        }
        let exp = model.wire_node("exp", math::exp(), &[x]).unwrap()[0];
        last.push(exp);
        model.select_output_outlets(&last).unwrap();
        model
    }

    #[test]
    fn the_same_nodes_are_merged_as_in_tract() {
        let model = model();
        let tracts = Optimizer::declutter().passes.into_iter();
        let tracts = tracts.into_iter().find(|pass| format!("{pass:?}") == REPLACED).unwrap();
        let expected = left(&model, tracts);
        assert_eq!(left(&model, Box::new(MergeTwins)), expected);
        // The squares are outputs and must stay.
        assert!(expected.len() < model.nodes.len() && expected.contains(&"square3".into()));
    }

    #[test]
    fn many_consumers_take_linear_time() {
        let mut model = TypedModel::default();
        let x = model.add_source("x", f32::fact([4])).unwrap();
        let readers: Vec<OutletId> = (0..20_000)
            .map(|index| {
                let id = model
                    .add_node(format!("exp{index}"), math::exp(), tvec!(f32::fact([4])))
                    .unwrap();
                model.add_edge(x, InletId::new(id, 0)).unwrap();
                id.into()
            })
            .collect();
        model.select_output_outlets(&readers[..1]).unwrap();
        let begun = std::time::Instant::now();
        let outputs = HashSet::from([readers[0].node]);
        let successors = &model.node(x.node).outputs[0].successors;
        let found = twins(&model, successors, &outputs, &mut HashSet::new());
        assert_eq!((found.len(), found[0].1.len()), (1, readers.len() - 1));
        assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
    }
}
