//! A graph rewriter: values are redirected, nodes and constants are added in any order, and the
//! result is sorted topologically and contains nothing unused.

use std::collections::HashMap;

use hardtack::internal::{Constant, Model};
use hardtack_bundle::DType;
use hardtack_bundle::graph::{self, Dim, Fact, Graph, Node, Operator, PadMode, ValueId};

/// A model under modification.
pub(crate) struct Rewriter {
    /// The model. Nodes are appended at the end, and may read any other node.
    pub model: Model,
    redirected: HashMap<ValueId, ValueId>,
}

impl Rewriter {
    /// Creates an editor of a model.
    pub(crate) fn new(model: Model) -> Rewriter {
        Rewriter { model, redirected: HashMap::new() }
    }

    /// Returns the node at an index.
    pub(crate) fn node(&self, index: usize) -> &Node {
        &self.model.graph.nodes[index]
    }

    /// Follows the redirections of a value to its current replacement.
    pub(crate) fn resolve(&self, mut value_id: ValueId) -> ValueId {
        while let Some(next) = self.redirected.get(&value_id) {
            value_id = *next;
        }
        value_id
    }

    /// Makes all readers of `from` read `to` instead. Does nothing if that would form a cycle.
    pub(crate) fn redirect(&mut self, from: ValueId, to: ValueId) {
        if self.resolve(to) != from {
            self.redirected.insert(from, to);
        }
    }

    /// Returns the content of a value if it is a constant.
    pub(crate) fn constant(&self, value_id: ValueId) -> Option<&Constant> {
        match self.model.graph.nodes[self.resolve(value_id).node as usize].operator {
            Operator::Constant(index) => self.model.constants.get(index as usize),
            _ => None,
        }
    }

    /// Adds a constant and its node. Returns the node's output.
    pub(crate) fn add_constant(&mut self, name: String, constant: Constant) -> ValueId {
        let (dtype, shape): (DType, &[usize]) = match &constant {
            Constant::Tensor(tensor) => (tensor.dtype(), tensor.shape()),
            Constant::Stored(stored) => (stored.dtype(), stored.shape()),
            Constant::Dims { shape, .. } => (DType::Dim, shape),
        };
        let record = graph::Constant {
            dtype,
            stored: dtype,
            shape: shape.iter().map(|d| *d as u64).collect(),
            offset: 0,
            length: 0,
        };
        let fact = Fact { dtype, shape: shape.iter().map(|d| Dim::Value(*d as i64)).collect() };
        let index = self.model.constants.len() as u32;
        self.model.graph.constants.push(record);
        self.model.constants.push(constant);
        self.add(Node {
            name,
            operator: Operator::Constant(index),
            inputs: Vec::new(),
            outputs: vec![fact],
        })
    }

    /// Adds a node. Returns its first output.
    pub(crate) fn add(&mut self, node: Node) -> ValueId {
        self.model.graph.nodes.push(node);
        ValueId { node: self.model.graph.nodes.len() as u32 - 1, output: 0 }
    }

    /// Counts the uses of each value, by nodes and as a graph output.
    pub(crate) fn uses(&self) -> HashMap<ValueId, usize> {
        let mut uses = HashMap::new();
        let graph = &self.model.graph;
        let read = graph.nodes.iter().flat_map(|node| &node.inputs).chain(&graph.outputs);
        for value_id in read {
            *uses.entry(self.resolve(*value_id)).or_default() += 1;
        }
        uses
    }

    /// Returns the modified model in topological order, without unused nodes, constants and bodies.
    /// Equal constants are merged.
    pub(crate) fn finish(self) -> Model {
        let Rewriter { model, redirected } = self;
        let resolve = |mut value_id: ValueId| {
            while let Some(next) = redirected.get(&value_id) {
                value_id = *next;
            }
            value_id
        };
        let Model { mut graph, constants, programs } = model;
        for node in &mut graph.nodes {
            node.inputs.iter_mut().for_each(|value_id| *value_id = resolve(*value_id));
        }
        graph.outputs.iter_mut().for_each(|value_id| *value_id = resolve(*value_id));

        let order = order(&graph);
        let mut place = vec![u32::MAX; graph.nodes.len()];
        let mut old: Vec<Option<Node>> = graph.nodes.into_iter().map(Some).collect();
        graph.nodes = Vec::with_capacity(order.len());
        for index in order {
            place[index] = graph.nodes.len() as u32;
            graph.nodes.push(old[index].take().expect("each node is placed once"));
        }
        let moved = |value_id: &mut ValueId| value_id.node = place[value_id.node as usize];
        graph.nodes.iter_mut().flat_map(|node| &mut node.inputs).for_each(moved);
        graph.outputs.iter_mut().for_each(moved);
        graph.inputs.iter_mut().for_each(|node| *node = place[*node as usize]);
        keep_named_bodies(&mut graph);
        keep_named_constants(Model { graph, constants, programs })
    }
}

/// Returns the indices of the inputs and of all nodes that the outputs depend on, in a topological
/// order that otherwise follows the current order.
fn order(graph: &Graph) -> Vec<usize> {
    let count = graph.nodes.len();
    let mut needed = vec![false; count];
    let mut pending: Vec<usize> = graph.outputs.iter().map(|o| o.node as usize).collect();
    pending.extend(graph.inputs.iter().map(|node| *node as usize));
    while let Some(index) = pending.pop() {
        if !std::mem::replace(&mut needed[index], true) {
            pending.extend(graph.nodes[index].inputs.iter().map(|o| o.node as usize));
        }
    }
    let mut placed = vec![false; count];
    let mut order = Vec::new();
    for first in (0..count).filter(|index| needed[*index]) {
        let mut stack = vec![(first, 0)];
        while let Some((index, input)) = stack.pop() {
            if placed[index] {
                continue;
            }
            match graph.nodes[index].inputs.get(input) {
                Some(value_id) => {
                    stack.push((index, input + 1));
                    stack.push((value_id.node as usize, 0));
                }
                None => {
                    placed[index] = true;
                    order.push(index);
                }
            }
        }
    }
    order
}

/// Calls `change` with the index of every body that a graph's operators reference.
fn bodies_of(graph: &mut Graph, mut change: impl FnMut(&mut u32)) {
    for node in &mut graph.nodes {
        match &mut node.operator {
            Operator::Scan(scan) => change(&mut scan.body),
            Operator::If(branch) => {
                change(&mut branch.then_body);
                change(&mut branch.else_body);
            }
            _ => {}
        }
    }
}

fn keep_named_bodies(graph: &mut Graph) {
    let mut bodies = std::mem::take(&mut graph.bodies);
    let mut named = vec![false; bodies.len()];
    bodies_of(graph, |body| named[*body as usize] = true);
    // A body references only later bodies, so one pass finds all.
    for index in 0..bodies.len() {
        if named[index] {
            bodies_of(&mut bodies[index], |body| named[*body as usize] = true);
        }
    }
    let mut place = Vec::new();
    let mut next = 0;
    for named in &named {
        place.push(next);
        next += *named as u32;
    }
    bodies_of(graph, |body| *body = place[*body as usize]);
    for (mut body, named) in bodies.into_iter().zip(named) {
        if named {
            bodies_of(&mut body, |body| *body = place[*body as usize]);
            graph.bodies.push(body);
        }
    }
}

/// Calls `change` with the index of every constant that a graph's operators reference.
fn constants_of(graph: &mut Graph, mut change: impl FnMut(&mut u32)) {
    for node in &mut graph.nodes {
        match &mut node.operator {
            Operator::Constant(index) => change(index),
            Operator::Pad(pad) => {
                if let PadMode::Constant(index) = &mut pad.mode {
                    change(index);
                }
            }
            Operator::OneHot(one_hot) => {
                change(&mut one_hot.off);
                change(&mut one_hot.on);
            }
            Operator::Stft(stft) => stft.window.iter_mut().for_each(&mut change),
            _ => {}
        }
    }
}

fn keep_named_constants(mut model: Model) -> Model {
    let records = std::mem::take(&mut model.graph.constants);
    let contents = std::mem::take(&mut model.constants);
    let mut place: HashMap<u32, u32> = HashMap::new();
    let mut kept: Vec<u32> = Vec::new();
    let mut by_hash: HashMap<u64, Vec<u32>> = HashMap::new();
    let mut keep = |index: &mut u32| {
        let old = *index;
        *index = *place.entry(old).or_insert_with(|| {
            let same_hash = by_hash.entry(fingerprint(&contents[old as usize])).or_default();
            let same = |at: &&u32| contents[kept[**at as usize] as usize] == contents[old as usize];
            if let Some(at) = same_hash.iter().find(same) {
                return *at;
            }
            kept.push(old);
            same_hash.push(kept.len() as u32 - 1);
            kept.len() as u32 - 1
        });
    };
    constants_of(&mut model.graph, &mut keep);
    model.graph.bodies.iter_mut().for_each(|body| constants_of(body, &mut keep));
    model.graph.constants = kept.iter().map(|old| records[*old as usize].clone()).collect();
    model.constants = kept.iter().map(|old| contents[*old as usize].clone()).collect();
    model
}

/// Returns the keys of a model's graphs for [`graph()`]: `None` for the main graph, and the index
/// of each body.
pub(crate) fn graphs(model: &Model) -> impl Iterator<Item = Option<usize>> + use<> {
    std::iter::once(None).chain((0..model.graph.bodies.len()).map(Some))
}

/// Returns the main graph, or a body by its index.
pub(crate) fn graph(model: &Model, body: Option<usize>) -> &Graph {
    body.map_or(&model.graph, |body| &model.graph.bodies[body])
}

/// Returns the main graph, or a body by its index, mutably.
pub(crate) fn graph_mut(model: &mut Model, body: Option<usize>) -> &mut Graph {
    match body {
        None => &mut model.graph,
        Some(body) => &mut model.graph.bodies[body],
    }
}

/// Replaces single nodes, by index, with runs of nodes. The last node of a run reads the first
/// output of every other node of the run, and replaces the outputs of the single node.
pub(crate) fn replace(graph: &mut Graph, mut runs: HashMap<usize, Vec<Node>>) {
    let mut place: Vec<u32> = Vec::with_capacity(graph.nodes.len());
    let mut nodes: Vec<Node> = Vec::new();
    for (index, mut node) in std::mem::take(&mut graph.nodes).into_iter().enumerate() {
        if let Some(mut run) = runs.remove(&index) {
            let first = nodes.len() as u32;
            if let Some(last) = run.pop() {
                let inputs = (first..).take(run.len()).map(|node| ValueId { node, output: 0 });
                let last = Node { inputs: inputs.collect(), ..last };
                nodes.extend(run.into_iter().chain([last]));
            }
        } else {
            node.inputs.iter_mut().for_each(|input| input.node = place[input.node as usize]);
            nodes.push(node);
        }
        place.push(nodes.len() as u32 - 1);
    }
    graph.nodes = nodes;
    graph.inputs.iter_mut().for_each(|node| *node = place[*node as usize]);
    graph.outputs.iter_mut().for_each(|value_id| value_id.node = place[value_id.node as usize]);
}

/// Hashes the content of a constant. Constants with NaN never compare equal, so they are not
/// merged, which only costs space.
fn fingerprint(constant: &Constant) -> u64 {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    match constant {
        Constant::Tensor(tensor) => {
            tensor.dtype().hash(&mut hasher);
            tensor.shape().hash(&mut hasher);
            tensor.to_bytes().hash(&mut hasher);
        }
        Constant::Stored(stored) => {
            stored.shape().hash(&mut hasher);
            stored.bytes().hash(&mut hasher);
        }
        Constant::Dims { shape, values } => {
            shape.hash(&mut hasher);
            values.hash(&mut hasher);
        }
    }
    hasher.finish()
}
