//! Chooses the nodes that are evaluated together.

use std::collections::{HashMap, HashSet};

use hardtack_operators::{ElementType, Model};

use super::trace::Trace;

/// Returns groups of nodes, by index in the main graph: the nodes for which `is_wanted` holds, and
/// those that must be evaluated with them. No group reads from a node that reads from the group.
///
/// Values that tract has no type for do not leave a group. Returns `None` if such a value is an
/// output of the model.
pub(crate) fn groups(
    model: &Model,
    trace: &Trace,
    is_wanted: impl Fn(usize) -> bool,
) -> Option<Vec<Vec<usize>>> {
    let nodes = &model.graph.nodes;
    let mut producer: HashMap<&str, usize> = HashMap::new();
    for (index, node) in nodes.iter().enumerate() {
        producer.extend(node.outputs.iter().map(|name| (name.as_str(), index)));
    }
    let outputs: HashSet<&str> = model.graph.outputs.iter().map(|o| o.name.as_str()).collect();
    let can_leave = |name: &str| trace.get(name).and_then(|t| t.element).is_some_and(has_type);
    if outputs.iter().any(|name| !can_leave(name)) {
        return None;
    }
    let reads: Vec<Vec<usize>> = nodes
        .iter()
        .map(|node| {
            let reads = node.reads().into_iter().filter_map(|name| producer.get(name).copied());
            let reads: HashSet<usize> = reads.collect();
            reads.into_iter().collect()
        })
        .collect();
    // Each node's group, by its representative.
    let mut groups = Groups((0..nodes.len()).collect());
    let mut wanted: Vec<bool> = (0..nodes.len()).map(is_wanted).collect();
    for (index, node) in nodes.iter().enumerate() {
        for name in node.reads() {
            if let Some(from) = producer.get(name).filter(|_| !can_leave(name)) {
                groups.join(*from, index);
                wanted[*from] = true;
                wanted[index] = true;
            }
        }
        if node.outputs.iter().any(|name| !name.is_empty() && !can_leave(name)) {
            wanted[index] = true;
        }
    }
    close(&mut groups, &mut wanted, &reads);
    let mut members: HashMap<usize, Vec<usize>> = HashMap::new();
    for index in (0..nodes.len()).filter(|index| wanted[*index]) {
        members.entry(groups.find(index)).or_default().push(index);
    }
    let mut members: Vec<Vec<usize>> = members.into_values().collect();
    members.sort();
    Some(members)
}

/// Adds to each group of several nodes what lies on a path between two of its nodes.
fn close(groups: &mut Groups, wanted: &mut [bool], reads: &[Vec<usize>]) {
    loop {
        let mut changed = false;
        let count = reads.len();
        let mut sizes: HashMap<usize, usize> = HashMap::new();
        for index in 0..count {
            *sizes.entry(groups.find(index)).or_default() += 1;
        }
        let large: Vec<usize> =
            sizes.into_iter().filter(|(_, size)| *size > 1).map(|(group, _)| group).collect();
        for group in large {
            // Nodes that read from the group, and nodes that the group reads from. The nodes are
            // in topological order.
            let (mut after, mut before) = (vec![false; count], vec![false; count]);
            for index in 0..count {
                let inside = groups.find(index) == group;
                after[index] = inside || reads[index].iter().any(|from| after[*from]);
            }
            for index in (0..count).rev() {
                if groups.find(index) == group || before[index] {
                    before[index] = true;
                    reads[index].iter().for_each(|from| before[*from] = true);
                }
            }
            for index in 0..count {
                if after[index] && before[index] && groups.find(index) != groups.find(group) {
                    groups.join(group, index);
                    wanted[index] = true;
                    changed = true;
                }
            }
        }
        if !changed {
            return;
        }
    }
}

/// Sets of nodes that can be joined.
struct Groups(Vec<usize>);

impl Groups {
    fn find(&self, mut index: usize) -> usize {
        while self.0[index] != index {
            index = self.0[index];
        }
        index
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find(a), self.find(b));
        self.0[a.max(b)] = a.min(b);
    }
}

/// Returns whether values of a type can leave an evaluated model, if only in another type.
pub(crate) fn has_type(element: ElementType) -> bool {
    !matches!(element, ElementType::Text | ElementType::Complex64 | ElementType::Complex128)
}
