//! Converts a graph of the bundle's operators to a tract model.
//!
//! Nodes are added one by one with `add_node` and `add_edge`, because tract's `wire_node` compares
//! each new node with all others. Everything that tract requires of its callers is checked first.
//! The shapes that the graph states are compared with those that tract computes.

use std::cell::OnceCell;
use std::sync::Arc;

use hardtack_bundle::graph::{self, Dim, Fact, Graph, Node, Operator, ValueId};
use hardtack_float::{Plan, Region};
use tract_core::internal::*;
use tract_core::ops::konst::Const;
use tract_core::ops::source::TypedSource;

use super::budget::{Budget, Used};
use super::custom_ops::{Check, Checked, Engine, PackedMatrices, RegionOp, Regions, Unit};
use super::dims::Symbols;
use super::error::{Error, Problem, catch, require};
use super::measure::{bound_elements, check_rank, check_shapes};
use super::tensors::{constant_to_tract, dtype_to_tract};
use super::translate;
use super::value_size;
use crate::backend::Backend;
use crate::limits::Exceeded;
use crate::model::Model;

/// The purpose that a model is loaded for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To be run: constants are dequantized, and divisions check their divisors.
    Run,
    /// To be saved again: quantized and packed constants stay so.
    #[cfg(feature = "export")]
    Save,
}

/// Converts the graphs of one model to tract models.
pub(super) struct Loader<'m> {
    pub model: &'m Model,
    pub engines: &'m [Arc<Engine>],
    pub backend: &'m Arc<Backend>,
    pub symbols: Symbols,
    pub purpose: Purpose,
    /// The maximum number of bytes of one value.
    pub limit: u64,
    pub budget: Budget,
    pub(super) used: Used,
    /// The matrices of dynamic products.
    pub shared: PackedMatrices,
    /// The parts of the outermost graph that run on our own kernels.
    pub regions: Regions,
    constants: Vec<OnceCell<Arc<Tensor>>>,
}

/// The tract operation of a node.
struct Operation {
    op: Box<dyn TypedOp>,
    facts: TVec<TypedFact>,
    /// The values of the node if they are known already.
    values: Option<TVec<TValue>>,
}

/// The node to convert, the facts of its inputs, and the loader.
pub(super) struct Context<'c> {
    pub loader: &'c Loader<'c>,
    pub node: &'c Node,
    pub inputs: &'c [&'c TypedFact],
    /// The stated facts of the outputs; empty if there are none.
    pub stated: &'c [Fact],
}

impl<'m> Loader<'m> {
    /// Creates a loader. `values` holds the value of each symbol that is bound.
    pub fn new(
        model: &'m Model,
        engines: &'m [Arc<Engine>],
        backend: &'m Arc<Backend>,
        values: &[Option<i64>],
        purpose: Purpose,
        budget: Budget,
    ) -> Loader<'m> {
        let symbols = Symbols::new(&model.graph.symbols, values);
        let constants = model.constants.iter().map(|_| OnceCell::new()).collect();
        let (limit, used) = (budget.memory, Used::default());
        let shared = PackedMatrices::default();
        let regions = Regions::default();
        Loader {
            model,
            engines,
            backend,
            symbols,
            purpose,
            limit,
            budget,
            used,
            shared,
            regions,
            constants,
        }
    }

    /// Adds the bytes of all constants as tract tensors, before any of them is created.
    pub fn take_constants(&self) -> Result<(), Exceeded> {
        let bytes = |entry: &graph::Constant| {
            let element = value_size::element(dtype_to_tract(entry.dtype));
            entry.shape.iter().fold(element, |bytes, dim| bytes.saturating_mul(*dim))
        };
        let all = self.model.graph.constants.iter().map(bytes).fold(0, u64::saturating_add);
        self.used.take_memory(all, &self.budget)
    }

    /// Converts the outermost graph. `shapes`, if given, replace the shapes of its inputs.
    pub fn model(&self, shapes: Option<&[Vec<usize>]>) -> Result<TypedModel, Error> {
        self.graph(&self.model.graph, shapes, &self.regions)
    }

    /// Converts the body with this index.
    pub fn body(&self, index: u32) -> Result<TypedModel, Problem> {
        let body = self.model.graph.bodies.get(index as usize).ok_or("its body does not exist")?;
        Ok(self.graph(body, None, &Regions::default())?)
    }

    /// Returns the constant with this index as a tract tensor.
    pub fn constant(&self, index: u32) -> Result<Arc<Tensor>, Problem> {
        let index = index as usize;
        let (Some(cell), Some(constant), Some(entry)) = (
            self.constants.get(index),
            self.model.constants.get(index),
            self.model.graph.constants.get(index),
        ) else {
            return Err("its constant does not exist".into());
        };
        if let Some(tensor) = cell.get() {
            return Ok(tensor.clone());
        }
        check_rank(entry.shape.len())?;
        let tensor = constant_to_tract(constant, entry.dtype, &self.symbols)?.into_arc_tensor();
        Ok(cell.get_or_init(|| tensor).clone())
    }

    fn graph(
        &self,
        graph: &Graph,
        shapes: Option<&[Vec<usize>]>,
        regions: &Regions,
    ) -> Result<TypedModel, Error> {
        let target = TypedModel { symbols: self.symbols.scope.clone(), ..Default::default() };
        let count = graph.nodes.len();
        let (outlets, constant) = (vec![TVec::new(); count], vec![false; count]);
        let mut partial = PartialModel { graph, target, outlets, constant };
        for unit in regions.order(graph) {
            let (index, region) = match unit {
                Unit::Node(index) => (index, None),
                Unit::Region(region) => {
                    let Some(last) = region.0.nodes.last() else { continue };
                    (*last as usize, Some(region))
                }
            };
            let node = &graph.nodes[index];
            let place = graph.inputs.iter().position(|input| *input as usize == index);
            let shape = shapes.zip(place).map(|(shapes, place)| shapes[place].as_slice());
            let added = catch(|| match region {
                None => self.node(&mut partial, node, shape),
                Some((region, plan)) => self.region(&mut partial, region, plan),
            });
            let added = added
                .unwrap_or_else(|message| Err(format!("tract panicked: {message}").into()))
                .map_err(|problem| match problem {
                    Problem::Text(problem) => {
                        let (node, operator) = (node.name.clone(), node.operator.name());
                        Error::Node { node, operator, problem }
                    }
                    Problem::TooLarge(bytes) => {
                        Error::TooLarge { node: node.name.clone(), bytes, limit: self.limit }
                    }
                    Problem::Exceeded(exceeded) => Error::Exceeded(exceeded),
                    Problem::Stopped(stopped) => Error::Stopped(stopped),
                })?;
            if region.is_none() {
                partial.constant[index] = partial.is_constant(node);
                partial.outlets[index] = added;
            }
        }
        let PartialModel { mut target, outlets, .. } = partial;
        let sources = graph.nodes.iter().filter(|node| node.operator == Operator::Input).count();
        let mut inputs: Vec<OutletId> =
            graph.inputs.iter().map(|input| outlets[*input as usize][0]).collect();
        target.inputs = inputs.clone();
        target.outputs = graph
            .outputs
            .iter()
            .map(|outlet| outlets[outlet.node as usize][outlet.output as usize])
            .collect();
        inputs.sort();
        inputs.dedup();
        if inputs.len() != graph.inputs.len() || sources != inputs.len() {
            return Err(Error::Tract {
                doing: "listing the inputs",
                problem: "the graph must list each input node exactly once".into(),
            });
        }
        Ok(target)
    }

    /// Adds a region as one operation. Its outputs become those of its nodes.
    fn region(
        &self,
        partial: &mut PartialModel<'_>,
        region: &Region,
        plan: &Arc<Plan>,
    ) -> Result<TVec<OutletId>, Problem> {
        self.budget.control.check()?;
        let op = RegionOp::new(plan.clone(), self.backend.clone());
        let facts = op.facts();
        facts.iter().try_for_each(|fact| self.check_size(fact))?;
        let last = region.nodes.last().map_or(0, |last| *last as usize);
        let target = &mut partial.target;
        let id = target.add_node(&partial.graph.nodes[last].name, op, facts)?;
        for (slot, input) in region.inputs.iter().enumerate() {
            let outlet = partial.outlets[input.node as usize][input.output as usize];
            target.add_edge(outlet, InletId::new(id, slot))?;
        }
        for (slot, output) in region.outputs.iter().enumerate() {
            // The nodes of a region have one output each.
            partial.outlets[output.node as usize] = tvec!(OutletId::new(id, slot));
        }
        Ok(tvec!())
    }

    /// Adds a node and returns its outputs.
    fn node(
        &self,
        partial: &mut PartialModel<'_>,
        node: &Node,
        shape: Option<&[usize]>,
    ) -> Result<TVec<OutletId>, Problem> {
        self.budget.control.check()?;
        let target = &mut partial.target;
        match &node.operator {
            Operator::Input => {
                let [fact] = node.outputs.as_slice() else {
                    return Err("an input must have one output".into());
                };
                let fact = match shape {
                    Some(shape) => dtype_to_tract(fact.dtype).fact(shape),
                    None => self.fact(fact)?,
                };
                self.check_size(&fact)?;
                let source = TypedSource::new(fact.clone());
                let id = target.add_node(&node.name, source, tvec!(fact))?;
                return Ok(tvec!(id.into()));
            }
            Operator::Constant(index) => {
                let tensor = self.constant(*index)?;
                let outlet = add_constant(target, node.name.clone(), tensor)?;
                let fact = target.outlet_fact(outlet)?;
                self.check_facts(node, &[fact])?;
                self.check_size(fact)?;
                return Ok(tvec!(outlet));
            }
            _ => {}
        }
        self.operate(partial, node)
    }

    /// Adds a node other than an input or a constant and returns its outputs.
    fn operate(
        &self,
        partial: &mut PartialModel<'_>,
        node: &Node,
    ) -> Result<TVec<OutletId>, Problem> {
        let inputs = node.inputs.iter();
        let inputs: TVec<OutletId> = inputs
            .map(|outlet| partial.outlets[outlet.node as usize][outlet.output as usize])
            .collect();
        let operation = self.operation(partial, node, &inputs)?;
        let target = &mut partial.target;
        if let Some(values) = operation.values {
            let mut outlets = tvec!();
            for (slot, value) in values.into_iter().enumerate() {
                let name = match slot {
                    0 => node.name.clone(),
                    slot => format!("{}.{slot}", node.name),
                };
                outlets.push(add_constant(target, name, value.into_arc_tensor())?);
            }
            return Ok(outlets);
        }
        let id = target.add_node(&node.name, operation.op, operation.facts)?;
        for (slot, input) in inputs.iter().enumerate() {
            target.add_edge(*input, InletId::new(id, slot))?;
        }
        Ok((0..node.outputs.len()).map(|slot| OutletId::new(id, slot)).collect())
    }

    /// Creates the operation of a node for these inputs.
    fn operation(
        &self,
        partial: &PartialModel<'_>,
        node: &Node,
        inputs: &[OutletId],
    ) -> Result<Operation, Problem> {
        let inputs = inputs.iter().map(|input| partial.target.outlet_fact(*input));
        let inputs: TVec<&TypedFact> = inputs.collect::<TractResult<_>>()?;
        check_shapes(inputs.iter().map(|fact| &*fact.shape))?;
        let mut op = translate::load(&Context {
            loader: self,
            node,
            inputs: &inputs,
            stated: &node.outputs,
        })?;
        let mut facts = op.output_facts(&inputs)?;
        check_shapes(facts.iter().map(|fact| &*fact.shape))?;
        facts.iter_mut().for_each(bound_elements);
        self.check_facts(node, &facts.iter().collect::<Vec<_>>())?;
        facts.iter().try_for_each(|fact| self.check_size(fact))?;
        if self.purpose == Purpose::Run && partial.is_constant(node) {
            op = self.bound_constant(op, (partial.graph, node), &inputs, &facts)?;
        }
        let values = self.values(&*op, &inputs, &facts)?;
        Ok(Operation { op, facts, values })
    }

    fn fact(&self, fact: &Fact) -> Result<TypedFact, Problem> {
        let shape = self.symbols.shape(&fact.shape)?;
        require(
            shape.iter().all(|dim| dim.as_i64().is_none_or(|value| value >= 0)),
            "a dimension is negative",
        )?;
        Ok(dtype_to_tract(fact.dtype).fact(shape))
    }

    /// Checks that tract computes the types and shapes that the graph states.
    fn check_facts(&self, node: &Node, computed: &[&TypedFact]) -> Result<(), Problem> {
        if computed.len() != node.outputs.len() {
            let (computed, stated) = (computed.len(), node.outputs.len());
            return Err(format!("it has {computed} outputs, but the graph states {stated}").into());
        }
        for (computed, stated) in computed.iter().zip(&node.outputs) {
            let stated = self.fact(stated)?;
            // Incompatible sizes have no broadcast size, whatever the symbols stand for.
            let sound = computed.shape.iter().all(|dim| match dim.as_i64() {
                Some(size) => size >= 0,
                None => !dim.symbols().is_empty(),
            });
            if !sound {
                return Err(format!("its input shapes do not match: {:?}", computed.shape).into());
            }
            let dims = computed.shape.iter().zip(stated.shape.iter());
            let fits = computed.datum_type == stated.datum_type
                && computed.rank() == stated.rank()
                && dims.into_iter().all(|(computed, stated)| {
                    match (computed.as_i64(), stated.as_i64()) {
                        (Some(computed), Some(stated)) => computed == stated,
                        // Two expressions may be equal in spite of different forms.
                        _ => true,
                    }
                });
            if !fits {
                let text = |fact: &TypedFact| format!("{:?} {:?}", fact.datum_type, fact.shape);
                let (computed, stated) = (text(computed), text(&stated));
                return Err(format!("it computes {computed}, but the graph states {stated}").into());
            }
        }
        Ok(())
    }

    /// Checks that a value is within the memory limit. Sizes of 0 count as 1, so that the product
    /// of the other sizes cannot overflow either.
    fn check_size(&self, fact: &TypedFact) -> Result<(), Problem> {
        let Some(shape) = fact.shape.as_concrete() else { return Ok(()) };
        let size = value_size::element(fact.datum_type);
        let bytes =
            shape.iter().fold(size, |bytes, dim| bytes.saturating_mul((*dim).max(1) as u64));
        if bytes > self.limit { Err(Problem::TooLarge(bytes)) } else { Ok(()) }
    }
}

/// A graph that is partly converted.
struct PartialModel<'g> {
    graph: &'g Graph,
    target: TypedModel,
    /// The outputs of each node.
    outlets: Vec<TVec<OutletId>>,
    /// Whether each node depends on constants only.
    constant: Vec<bool>,
}

impl PartialModel<'_> {
    /// Returns whether the next node depends on constants only.
    fn is_constant(&self, node: &Node) -> bool {
        let constant = |input: &ValueId| self.constant[input.node as usize];
        node.operator != Operator::Input && node.inputs.iter().all(constant)
    }
}

fn add_constant(
    target: &mut TypedModel,
    name: String,
    tensor: Arc<Tensor>,
) -> TractResult<OutletId> {
    let fact = TypedFact::try_from(tensor.clone())?;
    target.add_node(name, Const::new(tensor)?, tvec!(fact)).map(|id| id.into())
}

impl Context<'_> {
    /// Returns the fact of input `index`. Call [`Context::arity`] first.
    pub fn input(&self, index: usize) -> &TypedFact {
        self.inputs[index]
    }

    /// Wraps the operation in a run-time check, unless the check is known to pass. A model that is
    /// loaded to be saved has no such checks.
    pub fn checked(
        &self,
        check: Check,
        op: impl Into<Box<dyn TypedOp>>,
    ) -> Result<Box<dyn TypedOp>, Problem> {
        let op = op.into();
        let settled = check.load(self.inputs)?;
        if self.loader.purpose != Purpose::Run
            || settled.is_some_and(|replaced| replaced.is_empty())
        {
            return Ok(op);
        }
        self.guarded(check, op)
    }

    /// Wraps the operation in a run-time check.
    pub fn guarded(
        &self,
        check: Check,
        op: impl Into<Box<dyn TypedOp>>,
    ) -> Result<Box<dyn TypedOp>, Problem> {
        let stated = self.stated.iter().map(|fact| self.loader.fact(fact));
        Ok(Box::new(Checked::new(check, op.into(), stated.collect::<Result<_, _>>()?)))
    }

    /// Checks the number of inputs.
    pub fn arity(&self, expected: usize) -> Result<(), Problem> {
        let given = self.inputs.len();
        if given == expected {
            return Ok(());
        }
        Err(format!("it takes {expected} inputs, not {given}").into())
    }

    /// Checks that an axis is below `rank`.
    pub fn axis(&self, axis: u32, rank: usize) -> Result<usize, Problem> {
        if (axis as usize) < rank {
            return Ok(axis as usize);
        }
        Err(format!("axis {axis} is out of range for rank {rank}").into())
    }

    /// Checks that axes are in strictly ascending order and below `rank`.
    pub fn axes(&self, axes: &[u32], rank: usize) -> Result<TVec<usize>, Problem> {
        require(axes.is_sorted_by(|a, b| a < b), "its axes are not in ascending order")?;
        axes.iter().map(|axis| self.axis(*axis, rank)).collect()
    }

    /// Converts a dimension, with the values of bound symbols substituted.
    pub fn dim(&self, dim: &Dim) -> Result<TDim, Problem> {
        self.loader.symbols.dim(dim)
    }

    /// Converts the dimensions of a shape, none of which may be negative.
    pub fn shape(&self, dims: &[Dim]) -> Result<TVec<TDim>, Problem> {
        let dims = self.loader.symbols.shape(dims)?;
        let negative = dims.iter().any(|dim| dim.as_i64().is_some_and(|value| value < 0));
        require(!negative, "a dimension is negative")?;
        Ok(dims)
    }

    /// Checks that the inputs from `first` on have the same element type.
    pub fn same_types(&self, first: usize) -> Result<(), Problem> {
        let types: Vec<DatumType> = self.inputs.iter().skip(first).map(|f| f.datum_type).collect();
        require(types.windows(2).all(|pair| pair[0] == pair[1]), "its inputs differ in type")
    }

    /// Returns a constant that must have exactly one element.
    pub fn scalar(&self, index: u32) -> Result<Arc<Tensor>, Problem> {
        let tensor = self.loader.constant(index)?;
        require(tensor.len() == 1, "its constant does not have exactly one element")?;
        Ok(tensor)
    }
}
