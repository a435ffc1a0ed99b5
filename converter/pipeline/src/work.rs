//! What one inference takes, counted on the graph before anything is run: a few bytes of a model can
//! ask for years of work.

use std::collections::HashMap;

use hardtack_bundle::graph::{Fact, Graph, Node, Operator, ScanInput};

use crate::error::Error;
use crate::guard;

/// Most multiply-accumulates of one inference, and elements that are written count as such. Large
/// vision models take a third of that, for one image.
const MOST_WORK: u64 = 1 << 43;
/// What an element costs that is interpolated, transformed or sorted.
const COSTLY: u64 = 16;

/// Checks that a model can be run on inputs of these shapes at all.
///
/// # Errors
/// [`Error::Work`] and [`Error::Memory`], which name the node that takes the most.
pub fn check(graph: &Graph, shapes: &[Vec<usize>]) -> Result<(), Error> {
    let counter = Counter { graph, symbols: bind(graph, shapes) };
    counter.check_memory(graph, guard::memory_bytes())?;
    for body in &graph.bodies {
        counter.check_memory(body, guard::memory_bytes())?;
    }
    let costs = graph.nodes.iter().map(|node| counter.cost(graph, node));
    let costs: Vec<u64> = costs.collect();
    let work = costs.iter().fold(0u64, |all, cost| all.saturating_add(*cost));
    if work <= MOST_WORK {
        return Ok(());
    }
    let (most, _) = costs.iter().enumerate().max_by_key(|(_, cost)| **cost).unwrap_or((0, &0));
    let node = &graph.nodes[most];
    Err(Error::Work {
        node: node.name.clone(),
        operator: node.operator.name(),
        macs: work,
        limit: MOST_WORK,
    })
}

/// The values that symbols get from the shapes of the inputs.
fn bind(graph: &Graph, shapes: &[Vec<usize>]) -> Vec<Option<i64>> {
    let mut symbols = vec![None; graph.symbols.len()];
    for (input, shape) in graph.inputs.iter().zip(shapes) {
        let facts = graph.nodes[*input as usize].outputs.first();
        let dims = facts.into_iter().flat_map(|fact| &fact.shape);
        for (dim, size) in dims.zip(shape) {
            let slot = dim.as_symbol().and_then(|symbol| symbols.get_mut(symbol as usize));
            if let (Some(slot @ None), Ok(size)) = (slot, i64::try_from(*size)) {
                *slot = Some(size);
            }
        }
    }
    symbols
}

struct Counter<'g> {
    /// The outermost graph.
    graph: &'g Graph,
    symbols: Vec<Option<i64>>,
}

impl Counter<'_> {
    /// The dimensions of a value as far as they are known; one that is not counts 1.
    fn dims(&self, fact: &Fact) -> Vec<u64> {
        let size = |value: i64| u64::try_from(value).unwrap_or(0);
        fact.shape.iter().map(|dim| dim.evaluate(&self.symbols).map_or(1, size)).collect()
    }

    fn elements(&self, fact: &Fact) -> u64 {
        product(self.dims(fact))
    }

    fn bytes(&self, fact: &Fact) -> u64 {
        self.elements(fact).saturating_mul(fact.dtype.size().unwrap_or(8) as u64)
    }

    /// Each node reads all its inputs at once, and writes all its outputs: whatever the order of the
    /// nodes, no less memory will do.
    fn check_memory(&self, graph: &Graph, limit: u64) -> Result<(), Error> {
        for node in &graph.nodes {
            let mut inputs = node.inputs.clone();
            inputs.sort();
            inputs.dedup();
            let sum = |all: u64, fact: &Fact| all.saturating_add(self.bytes(fact));
            let read = inputs.iter().map(|input| graph.fact(*input)).fold(0, sum);
            let bytes = read.max(node.outputs.iter().fold(0, sum));
            if bytes > limit {
                let (node, operator) = (node.name.clone(), node.operator.name());
                return Err(Error::Memory { node, operator, bytes, limit });
            }
        }
        Ok(())
    }

    /// Multiply-accumulates of a node, or what counts as such; it may be too little, never too much
    /// by far.
    fn cost(&self, graph: &Graph, node: &Node) -> u64 {
        let sum = |all: u64, fact: &Fact| all.saturating_add(self.elements(fact));
        let read = || node.inputs.iter().map(|input| graph.fact(*input)).fold(0, sum);
        let written = node.outputs.iter().fold(0, sum);
        let input = |index: usize| node.inputs.get(index).map(|input| graph.fact(*input));
        let window = |kernel: &[u32]| product(kernel.iter().map(|size| u64::from(*size)));
        let of_group = |channels: u32, groups: u32| u64::from(channels / groups.max(1)).max(1);
        match &node.operator {
            Operator::Input | Operator::Constant(_) => 0,
            Operator::Conv(conv) => {
                let channels = of_group(conv.window.input_channels, conv.groups);
                written.saturating_mul(window(&conv.window.kernel)).saturating_mul(channels)
            }
            Operator::ConvTranspose(conv) => {
                let channels = of_group(conv.window.output_channels, conv.groups);
                let read = input(0).map_or(0, |fact| self.elements(fact));
                read.saturating_mul(window(&conv.window.kernel)).saturating_mul(channels)
            }
            Operator::MaxPool(pool) => written.saturating_mul(window(&pool.window.kernel)),
            Operator::SumPool(pool) => written.saturating_mul(window(&pool.window.kernel)),
            Operator::Lrn(lrn) => written.saturating_mul(u64::from(lrn.size)),
            Operator::Einsum(einsum) => {
                let facts = node.inputs.iter().map(|input| graph.fact(*input));
                self.einsum(&einsum.expression, facts).saturating_add(written)
            }
            Operator::DynamicMatMul(_) => {
                let depth = input(0).and_then(|fact| self.dims(fact).last().copied());
                written.saturating_mul(depth.unwrap_or(1).max(1))
            }
            Operator::Scan(scan) => {
                let slices = scan.inputs.iter().enumerate().filter_map(|(index, kind)| {
                    let ScanInput::Slice(slice) = kind else { return None };
                    let size = *self.dims(input(index)?).get(slice.axis as usize)?;
                    Some(size / slice.chunk.unsigned_abs().max(1))
                });
                let times = slices.max().unwrap_or(1);
                self.body(scan.body).saturating_mul(times).saturating_add(written)
            }
            Operator::If(branch) => {
                self.body(branch.then_body).max(self.body(branch.else_body)).saturating_add(written)
            }
            Operator::Resize(_)
            | Operator::GridSample(_)
            | Operator::Fft(_)
            | Operator::Stft(_)
            | Operator::TopK(_) => read().max(written).saturating_mul(COSTLY),
            _ => read().max(written),
        }
    }

    /// The work of a body, each time it is run. Bodies nest only in those that come after them.
    fn body(&self, index: u32) -> u64 {
        let Some(body) = self.graph.bodies.get(index as usize) else { return 0 };
        let costs = body.nodes.iter().map(|node| self.cost(body, node));
        costs.fold(0u64, u64::saturating_add)
    }

    /// The product of the sizes of all axes of an expression such as `mk,kn->mn`.
    fn einsum<'f>(&self, expression: &str, facts: impl Iterator<Item = &'f Fact>) -> u64 {
        let (inputs, _) = expression.split_once("->").unwrap_or((expression, ""));
        let mut axes: HashMap<char, u64> = HashMap::new();
        for (letters, fact) in inputs.split(',').zip(facts) {
            for (letter, size) in letters.chars().zip(self.dims(fact)) {
                let axis = axes.entry(letter).or_insert(size);
                *axis = size.max(*axis);
            }
        }
        product(axes.into_values())
    }
}

fn product(sizes: impl IntoIterator<Item = u64>) -> u64 {
    sizes.into_iter().fold(1, u64::saturating_mul)
}

#[cfg(test)]
mod tests {
    use hardtack_bundle::DType;
    use hardtack_bundle::graph::{Dim, Einsum, Outlet, Scan, ScanOutput, ScanSlice, Unary};

    use super::*;
    use crate::testing::Net;

    /// Multiply-accumulates of the nodes of a graph, constants and inputs left out.
    fn costs(graph: &Graph, shapes: &[Vec<usize>]) -> Vec<u64> {
        let counter = Counter { graph, symbols: bind(graph, shapes) };
        let costs = graph.nodes.iter().map(|node| counter.cost(graph, node));
        costs.filter(|cost| *cost > 0).collect()
    }

    #[test]
    fn convolutions_and_products_are_counted() {
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
    fn absurd_work_is_refused_before_it_is_done() {
        let mut net = Net::new();
        let x = net.input(&[1, 64, 4096, 4096]);
        let y = net.conv(&x, 64, &[31, 31], |_| {});
        let error = check(&net.finish(&[&y]).graph, &[]).unwrap_err();
        let Error::Work { macs, operator: "Conv", .. } = error else { panic!("{error}") };
        assert_eq!(macs, 64 * 4066 * 4066 * 64 * 31 * 31);
        assert!(error.to_string().contains("6.5e13 multiply-accumulates"), "{error}");
    }

    #[test]
    fn values_that_no_memory_holds_are_refused() {
        let mut net = Net::new();
        let x = net.input(&[1 << 31, 1 << 31]);
        let y = net.unary(Unary::Exp, &x);
        let error = check(&net.finish(&[&y]).graph, &[]).unwrap_err();
        assert!(matches!(error, Error::Memory { bytes: u64::MAX, .. }), "{error}");
    }

    #[test]
    fn a_body_counts_as_often_as_it_is_run() {
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
        model.graph.nodes[y.outlet.node as usize].operator = Operator::Scan(scan);
        assert_eq!(costs(&model.graph, &[]), [100 * 8 + 800]);
    }

    #[test]
    fn symbols_have_the_values_of_the_inputs() {
        let mut net = Net::new();
        let x = net.input(&[1, 8]);
        let y = net.unary(Unary::Exp, &x);
        let mut graph = net.finish(&[&y]).graph;
        graph.symbols = vec!["batch".into()];
        for outlet in [x.outlet, y.outlet] {
            let Outlet { node, slot } = outlet;
            graph.nodes[node as usize].outputs[slot as usize].shape[0] = Dim::symbol(0);
        }
        assert_eq!(costs(&graph, &[vec![50, 8]]), [400]);
        assert!(check(&graph, &[vec![50, 8]]).is_ok());
        assert!(check(&graph, &[vec![usize::MAX >> 1, 8]]).is_err());
    }
}
