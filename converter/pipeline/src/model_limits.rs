//! Rejects models that exceed the conversion's compute or memory limit, before they run.

use hardtack::float::work::Counter;
use hardtack_bundle::graph::Graph;

use crate::error::Error;
use crate::process::memory_bytes;

/// The maximum number of MACs of one inference; each element read or written counts as one. Large
/// vision models take a third of it per image.
const MOST_WORK: u64 = 1 << 43;

/// Checks that a model can be run on inputs of these shapes within the limits.
///
/// # Errors
/// Returns [`Error::TooManyMacs`], which names the node with the most MACs, or [`Error::Memory`],
/// which names a node over the memory limit.
pub(crate) fn check(graph: &Graph, shapes: &[Vec<usize>]) -> Result<(), Error> {
    let counter = Counter::of_shapes(graph, shapes, 0);
    let limit = memory_bytes();
    for graph in [graph].into_iter().chain(&graph.bodies) {
        for node in &graph.nodes {
            let bytes = counter.bytes_at_once(graph, node);
            if bytes > limit {
                let (node, operator) = (node.name.clone(), node.operator.name());
                return Err(Error::Memory { node, operator, bytes, limit });
            }
        }
    }
    let (macs, limit) = (counter.total(), MOST_WORK);
    if macs <= limit {
        return Ok(());
    }
    let most = graph.nodes.iter().max_by_key(|node| counter.cost(graph, node));
    let (node, operator) =
        most.map_or_else(Default::default, |node| (node.name.clone(), node.operator.name()));
    Err(Error::TooManyMacs { node, operator, macs, limit })
}

#[cfg(test)]
mod tests {
    use hardtack_bundle::DType;
    use hardtack_bundle::graph::{
        Dim, Einsum, Operator, Scan, ScanInput, ScanOutput, ScanSlice, Unary, ValueId,
    };

    use super::*;
    use crate::testing::Net;

    /// Returns the MACs of each node that has any.
    fn costs(graph: &Graph, shapes: &[Vec<usize>]) -> Vec<u64> {
        let counter = Counter::of_shapes(graph, shapes, 0);
        let costs = graph.nodes.iter().map(|node| counter.cost(graph, node));
        costs.filter(|cost| *cost > 0).collect()
    }

    #[test]
    fn macs_of_convolutions_and_matmuls_are_counted() {
        let mut net = Net::new();
        let x = net.input(&[1, 4, 10, 10]);
        let y = net.conv(&x, 8, &[3, 3], |_| {});
        let y = net.conv(&y, 8, &[3, 3], |conv| conv.groups = 8);
        let model = net.finish(&[&y]);
        assert_eq!(costs(&model.graph, &[]), [8 * 64 * 4 * 9, 8 * 36 * 9]);

        let mut net = Net::new();
        let (a, b) = (net.input(&[2, 3, 5]), net.input(&[1, 5, 7]));
        let einsum = Einsum { expression: "bmk,bkn->bmn".into(), accumulator: DType::F32 };
        let y = net.node(Operator::Einsum(einsum), &[&a, &b], &[2, 3, 7]);
        let model = net.finish(&[&y]);
        assert_eq!(costs(&model.graph, &[]), [2 * 3 * 5 * 7 + 42]);
    }

    #[test]
    fn excessive_macs_are_rejected_before_running() {
        let mut net = Net::new();
        let x = net.input(&[1, 64, 4096, 4096]);
        let y = net.conv(&x, 64, &[31, 31], |_| {});
        let error = check(&net.finish(&[&y]).graph, &[]).unwrap_err();
        let Error::TooManyMacs { macs, operator: "Conv", .. } = error else { panic!("{error}") };
        assert_eq!(macs, 64 * 4066 * 4066 * 64 * 31 * 31);
        assert!(error.to_string().contains("6.5e13 multiply-accumulates"), "{error}");
    }

    #[test]
    fn values_larger_than_memory_are_rejected() {
        let mut net = Net::new();
        let x = net.input(&[1 << 31, 1 << 31]);
        let y = net.unary(Unary::Exp, &x);
        let error = check(&net.finish(&[&y]).graph, &[]).unwrap_err();
        assert!(matches!(error, Error::Memory { bytes: u64::MAX, .. }), "{error}");
    }

    #[test]
    fn a_scan_body_counts_once_per_iteration() {
        let mut net = Net::new();
        let x = net.input(&[100, 8]);
        let slice = ScanSlice { axis: 0, chunk: 1 };
        let output =
            ScanOutput { slices: Some((0, slice)), full_dim: None, last_value: None, state: false };
        let scan = Scan {
            body: 0,
            skip: 0,
            reset_every_turn: true,
            external_state: false,
            inputs: vec![ScanInput::Slice(slice)],
            outputs: vec![output],
        };
        let y = net.unary(Unary::Exp, &x);
        let mut body = Net::new();
        let step = body.input(&[1, 8]);
        let step = body.unary(Unary::Exp, &step);
        let mut model = net.finish(&[&y]);
        model.graph.bodies = vec![body.finish(&[&step]).graph];
        model.graph.nodes[y.value_id.node as usize].operator = Operator::Scan(scan);
        assert_eq!(costs(&model.graph, &[]), [100 * 8 + 800]);
    }

    #[test]
    fn symbols_are_bound_to_the_input_shapes() {
        let mut net = Net::new();
        let x = net.input(&[1, 8]);
        let y = net.unary(Unary::Exp, &x);
        let mut graph = net.finish(&[&y]).graph;
        graph.symbols = vec!["batch".into()];
        for value_id in [x.value_id, y.value_id] {
            let ValueId { node, output: slot } = value_id;
            graph.nodes[node as usize].outputs[slot as usize].shape[0] = Dim::symbol(0);
        }
        assert_eq!(costs(&graph, &[vec![50, 8]]), [400]);
        assert!(check(&graph, &[vec![50, 8]]).is_ok());
        assert!(check(&graph, &[vec![usize::MAX >> 1, 8]]).is_err());
    }
}
