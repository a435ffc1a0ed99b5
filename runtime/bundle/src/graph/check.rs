//! Checks that make a graph safe to walk: every reference points to something that exists.
//!
//! Whether operators get as many inputs as they need, of the types and shapes they need, is for
//! whoever runs the graph to check.

use alloc::vec;
use alloc::vec::Vec;

use super::{Constant, Dim, Graph, GraphError, Node, Operator, Outlet, PadMode};

/// Bodies nest at most this deep, so that walking them may recurse.
const LIMIT_NESTING: u8 = 16;

const NO_EARLIER_VALUE: &str = "it reads a value that no earlier node gives";
const NO_CONSTANT: &str = "it names a constant that does not exist";
const NO_BODY: &str = "it names a body that does not come after its own graph";
const BODY_TWICE: &str = "it names a body that is named already";
const TOO_NESTED: &str = "its body is nested too deep";
const BODY_PORTS: &str = "its inputs and outputs do not fit those of its body";
const NO_INPUT: &str = "its attributes name an input that it does not have";
const BAD_DIM: &str = "it has a dimension that is malformed";

impl Graph {
    /// Checks that every reference points to something that exists and comes before, that
    /// bodies form a tree of limited depth and fit the nodes that name them, and that every
    /// dimension is well-formed.
    ///
    /// # Errors
    /// The first node that does not fit.
    pub fn check(&self) -> Result<(), GraphError> {
        let mut bodies = Bodies { graph: self, depths: vec![None; self.bodies.len()] };
        check_nodes(self, &mut bodies, None)?;
        for (index, body) in self.bodies.iter().enumerate() {
            if !(body.bodies.is_empty() && body.constants.is_empty() && body.symbols.is_empty()) {
                return Err(invalid("", "a body has bodies, constants or symbols of its own"));
            }
            check_nodes(body, &mut bodies, Some(index))?;
        }
        Ok(())
    }

    /// Checks that every constant lies within a constants section of `length` bytes, with as
    /// many bytes as its type and shape say, and that two constants have the same bytes or share
    /// none. Of a constant of dimensions, the elements are not read.
    ///
    /// # Errors
    /// [`GraphError::Constant`] with the first constant that does not lie there,
    /// [`GraphError::ConstantsOverlap`], and [`GraphError::ConstantsRepeated`] where constants
    /// share bytes so often that reading them would take many times the size of the section.
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

/// All constants together may have this many times the bytes of their section.
const REPEATED: u64 = 32;
/// All constants together may have this many bytes in any case.
const REPEATED_BYTES: u64 = 1 << 20;

/// The bodies of the outermost graph, and how deep those are that have been named.
struct Bodies<'g> {
    graph: &'g Graph,
    depths: Vec<Option<u8>>,
}

impl<'g> Bodies<'g> {
    /// The body `index`, which a node of the graph `namer` names; `None`: the outermost.
    fn name(&mut self, index: u32, namer: Option<usize>) -> Result<&'g Graph, &'static str> {
        let index = index as usize;
        let depth = match namer {
            None => 0,
            Some(namer) if index <= namer => return Err(NO_BODY),
            // A body that nothing names is never walked to.
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
    if !graph.outputs.iter().all(|outlet| gives(&graph.nodes, outlet)) {
        return Err(invalid("", "an output of the graph is not the value of a node"));
    }
    if graph.output_names.len() != graph.outputs.len() {
        return Err(invalid("", "the graph has not one name for each output"));
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

    require(
        node.inputs.iter().all(|outlet| gives(&graph.nodes[..index], outlet)),
        NO_EARLIER_VALUE,
    )?;
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
            let slots = scan
                .outputs
                .iter()
                .all(|of| of.slices.iter().map(|(slot, _)| slot).chain(&of.last_value).all(output));
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

/// Whether `outlet` is the value of one of these nodes.
fn gives(nodes: &[Node], outlet: &Outlet) -> bool {
    nodes.get(outlet.node as usize).is_some_and(|node| (outlet.slot as usize) < node.outputs.len())
}

fn fits(constant: &Constant, section: u64) -> bool {
    use crate::DType::{BF16, F16, F32};
    let within = constant.offset.checked_add(constant.length).is_some_and(|end| end <= section);
    let stored = constant.stored == constant.dtype
        || (constant.dtype == F32 && matches!(constant.stored, F16 | BF16));
    let elements = constant.shape.iter().try_fold(1u64, |all, dim| all.checked_mul(*dim));
    let length = match (elements, constant.stored.size()) {
        (Some(elements), Some(size)) => elements.checked_mul(size as u64) == Some(constant.length),
        // Each element takes at least two bytes.
        (Some(elements), None) => elements <= constant.length / 2,
        (None, _) => false,
    };
    within && stored && length
}

fn invalid(node: &str, problem: &'static str) -> GraphError {
    GraphError::Invalid { node: node.into(), problem }
}

impl Operator {
    /// Calls `visit` with every dimension in the attributes.
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
