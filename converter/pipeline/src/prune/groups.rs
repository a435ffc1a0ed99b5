//! Groups of channels that can be pruned independently within each group.

use std::collections::BTreeMap;

use hardtack::internal::Model;

use super::flow::Flow;
use crate::graph::channels::{KEPT, Unit};

/// Units of which any may be removed while others stay.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// The name of the first node whose output has them.
    pub name: String,
    /// The units.
    pub units: Vec<Unit>,
    /// The layers that sum over them, as indices in [`Flow::layers`].
    pub readers: Vec<usize>,
}

/// Returns the groups of a model, in the order of its nodes. All units of a group occur in the same
/// values, so no value loses all its channels while the group keeps a unit.
pub(super) fn groups(model: &Model, flow: &Flow) -> Vec<Group> {
    let mut within: Vec<Vec<usize>> = vec![Vec::new(); flow.units()];
    for (node, layout) in flow.channels.layouts().iter().enumerate() {
        for unit in layout.iter().flat_map(|layout| &layout.units) {
            if within[*unit].last() != Some(&node) {
                within[*unit].push(node);
            }
        }
    }
    let mut by_nodes: BTreeMap<&[usize], Vec<Unit>> = BTreeMap::new();
    for (unit, nodes) in within.iter().enumerate() {
        if unit != KEPT && !nodes.is_empty() {
            by_nodes.entry(nodes).or_default().push(unit);
        }
    }
    let group = |(nodes, units): (&[usize], Vec<Unit>)| {
        let sums = |layer: &usize| {
            let layer = &flow.layers[*layer];
            layer.groups == 1 && layer.reads.contains(&units[0])
        };
        Group {
            name: model.graph.nodes[nodes[0]].name.clone(),
            readers: (0..flow.layers.len()).filter(sums).collect(),
            units,
        }
    };
    let groups = by_nodes.into_iter().map(group);
    groups.filter(|group| group.units.len() > 1 && !group.readers.is_empty()).collect()
}
