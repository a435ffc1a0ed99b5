//! Consistency checks of a graph: every reference points to something that exists.
//!
//! The number, types and shapes of an operator's inputs are checked by the code that runs the
//! graph.

use alloc::vec;
use alloc::vec::Vec;

use super::{Constant, Dim, Graph, GraphError, Node, Operator, PadMode, ValueId};

/// The maximum nesting depth of bodies, so that code may visit them recursively.
const LIMIT_NESTING: u8 = 16;

const NO_EARLIER_VALUE: &str = "an input is not the output of an earlier node";
const NO_CONSTANT: &str = "an attribute refers to a constant that does not exist";
const NO_BODY: &str = "an attribute refers to a body that does not exist or is not a later one";
const BODY_TWICE: &str = "an attribute refers to a body that another node already uses";
const TOO_NESTED: &str = "its body is nested too deeply";
const BODY_PORTS: &str = "its inputs and outputs do not match those of its body";
const NO_INPUT: &str = "an attribute refers to an input that the node does not have";
const BAD_DIM: &str = "a dimension is malformed";

impl Graph {
    /// Checks that nodes refer only to earlier values and to constants that exist, that bodies
    /// form a tree of limited depth and match the nodes that use them, and that every dimension
    /// is well-formed.
    ///
    /// # Errors
    /// Returns an error for the first node that breaks a rule.
    pub fn check(&self) -> Result<(), GraphError> {
        let mut bodies = Bodies { graph: self, depths: vec![None; self.bodies.len()] };
        check_nodes(self, &mut bodies, None)?;
        for (index, body) in self.bodies.iter().enumerate() {
            if !(body.bodies.is_empty() && body.constants.is_empty() && body.symbols.is_empty()) {
                return Err(invalid("", "a body has its own bodies, constants or symbols"));
            }
            check_nodes(body, &mut bodies, Some(index))?;
        }
        Ok(())
    }

    /// Checks that every constant lies within a constants section of `length` bytes, that its
    /// length matches its type and shape, and that two constants have the same bytes or share
    /// none. The elements of [`DType::Dim`](crate::DType::Dim) constants are not decoded.
    ///
    /// # Errors
    /// Returns [`GraphError::Constant`] with the first invalid constant,
    /// [`GraphError::ConstantsOverlap`] if constants overlap partly, or
    /// [`GraphError::ConstantsRepeated`] if their total size is more than 32 times `length` and
    /// more than 1 MiB.
    pub fn check_constants(&self, length: u64) -> Result<(), GraphError> {
        if let Some(index) = self.constants.iter().position(|constant| !fits(constant, length)) {
            return Err(GraphError::Constant { index });
        }
        let needed = self.constants.iter().fold(0, |all: u64, one| all.saturating_add(one.length));
        if needed > length.saturating_mul(REPEATED).max(REPEATED_BYTES) {
            return Err(GraphError::ConstantsRepeated { given: length, needed });
        }
        let constants = (0..).zip(&self.constants).filter(|(_, constant)| constant.length > 0);
        let mut ranges: Vec<(u64, u64, usize)> =
            constants.map(|(index, one)| (one.offset, one.length, index)).collect();
        ranges.sort_unstable();
        for pair in ranges.windows(2) {
            let ((first, length, index), (next, other_length, other)) = (pair[0], pair[1]);
            let same = (first, length) == (next, other_length);
            if !same && next < first.saturating_add(length) {
                return Err(GraphError::ConstantsOverlap { index, other });
            }
        }
        Ok(())
    }
}

/// The total size of all constants may be this multiple of the size of their section.
const REPEATED: u64 = 32;
/// The total size of all constants, in bytes, that is always allowed.
const REPEATED_BYTES: u64 = 1 << 20;

/// The bodies of the outermost graph, with the nesting depth of those that nodes refer to.
struct Bodies<'g> {
    graph: &'g Graph,
    depths: Vec<Option<u8>>,
}

impl<'g> Bodies<'g> {
    /// Returns body `index`, to which a node of body `namer` refers (`None`: the outermost graph).
    fn name(&mut self, index: u32, namer: Option<usize>) -> Result<&'g Graph, &'static str> {
        let index = index as usize;
        let depth = match namer {
            None => 0,
            Some(namer) if index <= namer => return Err(NO_BODY),
            // A body that no node refers to is never visited.
            Some(namer) => self.depths[namer].unwrap_or(0) + 1,
        };
        let body = self.graph.bodies.get(index).ok_or(NO_BODY)?;
        if depth >= LIMIT_NESTING {
            return Err(TOO_NESTED);
        }
        match self.depths[index].replace(depth) {
            None => Ok(body),
            Some(_) => Err(BODY_TWICE),
        }
    }
}

fn check_nodes(
    graph: &Graph,
    bodies: &mut Bodies<'_>,
    own: Option<usize>,
) -> Result<(), GraphError> {
    for (index, node) in graph.nodes.iter().enumerate() {
        check_node(graph, index, node, bodies, own)
            .map_err(|problem| invalid(&node.name, problem))?;
    }
    let input = |index: &u32| {
        graph.nodes.get(*index as usize).is_some_and(|node| node.operator == Operator::Input)
    };
    if !graph.inputs.iter().all(input) {
        return Err(invalid("", "an input of the graph is not an input node"));
    }
    if !graph.outputs.iter().all(|value| gives(&graph.nodes, value)) {
        return Err(invalid("", "an output of the graph is not the output of a node"));
    }
    if graph.output_names.len() != graph.outputs.len() {
        return Err(invalid("", "the number of output names is not the number of outputs"));
    }
    Ok(())
}

fn check_node(
    graph: &Graph,
    index: usize,
    node: &Node,
    bodies: &mut Bodies<'_>,
    own: Option<usize>,
) -> Result<(), &'static str> {
    let require = |holds: bool, problem| if holds { Ok(()) } else { Err(problem) };
    let inputs = node.inputs.len();
    let input = |index: &u32| (*index as usize) < inputs;
    let output = |index: &u32| (*index as usize) < node.outputs.len();
    let constants = bodies.graph.constants.len();
    let constant = |index: &u32| (*index as usize) < constants;

    require(node.inputs.iter().all(|value| gives(&graph.nodes[..index], value)), NO_EARLIER_VALUE)?;
    match &node.operator {
        Operator::Constant(index) => require(constant(index), NO_CONSTANT)?,
        Operator::Pad(pad) => match &pad.mode {
            PadMode::Constant(index) => require(constant(index), NO_CONSTANT)?,
            PadMode::Reflect | PadMode::Edge => {}
        },
        Operator::OneHot(a) => require(constant(&a.off) && constant(&a.on), NO_CONSTANT)?,
        Operator::Stft(stft) => require(stft.window.iter().all(constant), NO_CONSTANT)?,
        Operator::Resize(a) => {
            require(a.scales_input.iter().chain(&a.sizes_input).all(input), NO_INPUT)?;
        }
        Operator::StridedSlice(a) => {
            require(a.axes_input.iter().chain(&a.steps_input).all(input), NO_INPUT)?;
        }
        Operator::Scan(scan) => {
            let body = bodies.name(scan.body, own)?;
            let lengths = scan.inputs.len() == body.inputs.len()
                && scan.inputs.len() == inputs
                && scan.outputs.len() == body.outputs.len();
            let slots = scan.outputs.iter().all(|of| {
                of.slices.iter().map(|(output, _)| output).chain(&of.last_value).all(output)
            });
            require(lengths && slots, BODY_PORTS)?;
        }
        Operator::If(branch) => {
            let sides =
                [(branch.then_body, &branch.then_inputs), (branch.else_body, &branch.else_inputs)];
            for (body, from) in sides {
                let body = bodies.name(body, own)?;
                let fits = from.len() == body.inputs.len()
                    && node.outputs.len() == body.outputs.len()
                    && from.iter().all(input);
                require(fits, BODY_PORTS)?;
            }
        }
        _ => {}
    }
    let symbols = bodies.graph.symbols.len();
    let mut sound =
        node.outputs.iter().flat_map(|fact| &fact.shape).all(|dim| dim.is_sound(symbols));
    node.operator.each_dim(|dim| sound &= dim.is_sound(symbols));
    require(sound, BAD_DIM)
}

/// Returns whether `value` is an output of one of `nodes`.
fn gives(nodes: &[Node], value: &ValueId) -> bool {
    nodes.get(value.node as usize).is_some_and(|node| (value.output as usize) < node.outputs.len())
}

fn fits(constant: &Constant, section: u64) -> bool {
    use crate::DType::{BF16, F16, F32};
    let within = constant.offset.checked_add(constant.length).is_some_and(|end| end <= section);
    let stored = constant.stored == constant.dtype
        || (constant.dtype == F32 && matches!(constant.stored, F16 | BF16));
    let elements = constant.shape.iter().try_fold(1u64, |all, dim| all.checked_mul(*dim));
    let length = match (elements, constant.stored.size()) {
        (Some(elements), Some(size)) => elements.checked_mul(size as u64) == Some(constant.length),
        // An element of type `Dim` takes at least two bytes.
        (Some(elements), None) => elements <= constant.length / 2,
        (None, _) => false,
    };
    within && stored && length
}

fn invalid(node: &str, problem: &'static str) -> GraphError {
    GraphError::Invalid { node: node.into(), problem }
}

impl Operator {
    /// Calls `visit` for every dimension in the attributes.
    fn each_dim(&self, mut visit: impl FnMut(&Dim)) {
        match self {
            Operator::Reshape(reshape) => reshape.from.iter().chain(&reshape.to).for_each(visit),
            Operator::Broadcast(dims) | Operator::Tile(dims) | Operator::DynamicTile(dims) => {
                dims.iter().for_each(visit);
            }
            Operator::Slice(slice) => [&slice.start, &slice.end].into_iter().for_each(visit),
            Operator::DynamicSlice(slice) => visit(&slice.length),
            Operator::Range(length) => visit(length),
            Operator::TopK(top) => visit(&top.k),
            Operator::Scan(scan) => {
                scan.outputs.iter().filter_map(|output| output.full_dim.as_ref()).for_each(visit);
            }
            _ => {}
        }
    }
}
