//! Measures the paths of decision trees.

use tract_core::internal::*;

use super::Branch;

/// Checks that no path from a root visits a node twice. Returns the sum, over all roots, of the
/// maximum number of nodes and contributions on a path. Saturates.
pub(super) fn steps(nodes: &[Branch], roots: &[u32]) -> TractResult<u64> {
    #[derive(Clone, Copy, PartialEq)]
    enum Visit {
        Never,
        Open,
        Done,
    }
    let mut visits = vec![Visit::Never; nodes.len()];
    let mut longest = vec![0u64; nodes.len()];
    let mut stack: Vec<(u32, bool)> = roots.iter().map(|root| (*root, false)).collect();
    while let Some((index, leaving)) = stack.pop() {
        let visit = &mut visits[index as usize];
        if leaving {
            *visit = Visit::Done;
            let node = nodes[index as usize];
            longest[index as usize] = match node.test {
                Some(_) => longest[node.yes as usize].max(longest[node.no as usize]) + 1,
                None => u64::from(node.no - node.yes) + 1,
            };
            continue;
        }
        match visit {
            Visit::Done => continue,
            Visit::Open => bail!("node {index} is part of a cycle"),
            Visit::Never => *visit = Visit::Open,
        }
        stack.push((index, true));
        let node = nodes[index as usize];
        if node.test.is_some() {
            for child in [node.yes, node.no] {
                ensure!(visits[child as usize] != Visit::Open, "node {index} is part of a cycle");
                if visits[child as usize] == Visit::Never {
                    stack.push((child, false));
                }
            }
        }
    }
    let paths = roots.iter().map(|root| longest[*root as usize]);
    Ok(paths.fold(0, u64::saturating_add))
}
