//! Counts the work of one inference on the graph before anything runs, because a few bytes of a
//! model can ask for years of work.

use std::collections::HashMap;

use hardtack_bundle::graph::{Fact, Graph, Node, Operator, ScanInput};

/// The cost per element of operators that interpolate, transform or sort.
const COSTLY: u64 = 16;

/// Counts the element operations of the nodes of a graph.
#[derive(Clone, Debug)]
pub struct Counter<'g> {
    /// The outermost graph.
    graph: &'g Graph,
    symbols: Vec<Option<i64>>,
    each: u64,
    programs: Vec<ProgramWork>,
}

/// The work of one run of an integer program.
#[derive(Clone, Copy, Debug)]
pub struct ProgramWork {
    /// The number of element operations.
    pub operations: u64,
    /// The number of elements of its first output.
    pub outputs: u64,
}

impl<'g> Counter<'g> {
    /// Creates a counter with these values for the graph's symbols. `each` is the overhead of every
    /// node, in element operations, in every iteration of a loop.
    pub fn new(graph: &'g Graph, symbols: Vec<Option<i64>>, each: u64) -> Counter<'g> {
        Counter { graph, symbols, each, programs: Vec::new() }
    }

    /// Sets the work of the integer programs, by index. Without it, a program counts one operation
    /// for each element that it reads or writes.
    pub fn with_programs(self, programs: Vec<ProgramWork>) -> Counter<'g> {
        Counter { programs, ..self }
    }

    /// Creates a counter for inputs of these shapes. `each` is as in [`Counter::new`].
    pub fn of_shapes(graph: &'g Graph, shapes: &[Vec<usize>], each: u64) -> Counter<'g> {
        Counter::new(graph, bind(graph, shapes), each)
    }

    /// Returns the element operations of the whole graph.
    pub fn total(&self) -> u64 {
        self.sum(self.graph)
    }

    fn sum(&self, graph: &Graph) -> u64 {
        let costs = graph.nodes.iter().map(|node| self.cost(graph, node));
        costs.fold(0u64, u64::saturating_add)
    }

    /// Returns the dimensions of a value; an unknown dimension counts as 1.
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

    /// Returns the larger of the bytes that a node of a graph or body reads and those that it
    /// writes. In whatever order the nodes run, the graph needs at least this much memory.
    pub fn bytes_at_once(&self, graph: &Graph, node: &Node) -> u64 {
        let mut inputs = node.inputs.clone();
        inputs.sort();
        inputs.dedup();
        let sum = |all: u64, fact: &Fact| all.saturating_add(self.bytes(fact));
        let read = inputs.iter().map(|input| graph.fact(*input)).fold(0, sum);
        read.max(node.outputs.iter().fold(0, sum))
    }

    /// Returns the element operations of a node of a graph or body: multiply-accumulates, elements
    /// of pooling windows, and one for each element that any other operator reads or writes. This
    /// is an estimate and may be too low. Saturates.
    pub fn cost(&self, graph: &Graph, node: &Node) -> u64 {
        match &node.operator {
            Operator::Input | Operator::Constant(_) => 0,
            _ => self.elements_of(graph, node).saturating_add(self.each),
        }
    }

    fn elements_of(&self, graph: &Graph, node: &Node) -> u64 {
        let sum = |all: u64, fact: &Fact| all.saturating_add(self.elements(fact));
        let read = || node.inputs.iter().map(|input| graph.fact(*input)).fold(0, sum);
        let written = node.outputs.iter().fold(0, sum);
        let input = |index: usize| node.inputs.get(index).map(|input| graph.fact(*input));
        let window = |kernel: &[u32]| product(kernel.iter().map(|size| u64::from(*size)));
        let of_group = |channels: u32, groups: u32| u64::from(channels / groups.max(1)).max(1);
        match &node.operator {
            Operator::Conv(conv) => {
                let channels = of_group(conv.window.input_channels, conv.groups);
                written.saturating_mul(window(&conv.window.kernel)).saturating_mul(channels)
            }
            Operator::ConvTranspose(conv) => {
                let channels = of_group(conv.window.output_channels, conv.groups);
                let read = input(0).map_or(0, |fact| self.elements(fact));
                read.saturating_mul(window(&conv.window.kernel))
                    .saturating_mul(channels)
                    .saturating_add(written)
            }
            Operator::MaxPool(pool) => written.saturating_mul(window(&pool.window.kernel)),
            Operator::SumPool(pool) => written.saturating_mul(window(&pool.window.kernel)),
            Operator::Lrn(lrn) => written.saturating_mul(u64::from(lrn.size)),
            Operator::Einsum(einsum) => {
                let facts = node.inputs.iter().map(|input| graph.fact(*input));
                // tract multiplies two operands with its kernels, and more one element at a time.
                let each = if node.inputs.len() > 2 { COSTLY } else { 1 };
                let products = self.einsum(&einsum.expression, facts).saturating_mul(each);
                products.saturating_add(written)
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
                let turn = self.body(scan.body).saturating_add(self.each);
                turn.saturating_mul(times).saturating_add(written)
            }
            Operator::Program(index) => match self.programs.get(*index as usize) {
                Some(work) => {
                    let output = node.outputs.first().map_or(0, |fact| self.elements(fact));
                    let samples = (output / work.outputs.max(1)).max(1);
                    work.operations.saturating_mul(samples).max(read()).max(written)
                }
                None => read().max(written),
            },
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

    /// Returns the element operations of one run of a body. Bodies refer only to later bodies.
    fn body(&self, index: u32) -> u64 {
        self.graph.bodies.get(index as usize).map_or(0, |body| self.sum(body))
    }

    /// Returns the product of the sizes of all axes of an expression such as `mk,kn->mn`.
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

/// Returns the values of symbols for these input shapes.
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

fn product(sizes: impl IntoIterator<Item = u64>) -> u64 {
    sizes.into_iter().fold(1, u64::saturating_mul)
}
