//! From a graph of the operator table to a tract model.
//!
//! Nodes are added one by one with `add_node` and `add_edge`: tract's `wire_node` compares
//! each new node with all others. Whatever tract trusts its callers with is checked first, and
//! the shapes a graph states are checked against those that tract computes.

use std::cell::OnceCell;
use std::sync::Arc;

use hardtack_bundle::graph::{Dim, Fact, Graph, Node, Operator};
use tract_core::internal::*;
use tract_core::ops::konst::Const;
use tract_core::ops::source::TypedSource;

use super::dims::{Symbols, check_dims};
use super::error::{Error, Problem, catch, require};
use super::operators;
use super::ops::{Check, Checked, Dequantize, DequantizeBlocks, Engine, Unpack};
use super::tensors::{constant_to_tract, dtype_to_tract};
use crate::Model;
use crate::processor::Processor;

/// Constant inputs of fewer elements than this are computed with as the model is loaded, as
/// tract does it.
const EAGER_ELEMENTS: usize = 16;

/// What a model is loaded for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To be run: constants are dequantized, and divisions check their divisors.
    Run,
    /// To be saved again: what is small stays small.
    #[cfg(feature = "export")]
    Save,
}

/// Makes tract models of the graphs of one model.
pub(super) struct Loader<'m> {
    pub model: &'m Model,
    pub engines: &'m [Arc<Engine>],
    pub processor: &'m Arc<Processor>,
    pub symbols: Symbols,
    pub purpose: Purpose,
    /// The maximum number of bytes of one value.
    pub limit: u64,
    constants: Vec<OnceCell<Arc<Tensor>>>,
}

/// What a node becomes.
struct Operation {
    op: Box<dyn TypedOp>,
    facts: TVec<TypedFact>,
    /// Its values, where they are known already.
    values: Option<TVec<TValue>>,
}

/// What an operator is made of: its node, its inputs, and the loader for the rest.
pub(super) struct Context<'c> {
    pub loader: &'c Loader<'c>,
    pub node: &'c Node,
    pub inputs: &'c [&'c TypedFact],
    /// What is stated of its values; empty where nothing is.
    pub stated: &'c [Fact],
}

impl<'m> Loader<'m> {
    /// A loader with these numbers for the symbols that have one.
    pub fn new(
        model: &'m Model,
        engines: &'m [Arc<Engine>],
        processor: &'m Arc<Processor>,
        values: &[Option<i64>],
        purpose: Purpose,
        limit: u64,
    ) -> Loader<'m> {
        let symbols = Symbols::new(&model.graph.symbols, values);
        let constants = model.constants.iter().map(|_| OnceCell::new()).collect();
        Loader { model, engines, processor, symbols, purpose, limit, constants }
    }

    /// The outermost graph. `shapes`, where given, replace those of its inputs.
    pub fn model(&self, shapes: Option<&[Vec<usize>]>) -> Result<TypedModel, Error> {
        self.graph(&self.model.graph, shapes)
    }

    /// A body of the model.
    pub fn body(&self, index: u32) -> Result<TypedModel, Problem> {
        let body = self.model.graph.bodies.get(index as usize).ok_or("it names no body")?;
        self.graph(body, None).map_err(|error| Problem(error.to_string()))
    }

    /// A constant of the model, as tract knows it.
    pub fn constant(&self, index: u32) -> Result<Arc<Tensor>, Problem> {
        let index = index as usize;
        let (Some(cell), Some(constant), Some(entry)) = (
            self.constants.get(index),
            self.model.constants.get(index),
            self.model.graph.constants.get(index),
        ) else {
            return Err("it names no constant".into());
        };
        if let Some(tensor) = cell.get() {
            return Ok(tensor.clone());
        }
        let tensor = constant_to_tract(constant, entry.dtype, &self.symbols)?.into_arc_tensor();
        Ok(cell.get_or_init(|| tensor).clone())
    }

    fn graph(&self, graph: &Graph, shapes: Option<&[Vec<usize>]>) -> Result<TypedModel, Error> {
        let mut target = TypedModel { symbols: self.symbols.scope.clone(), ..Default::default() };
        let mut outlets: Vec<TVec<OutletId>> = Vec::with_capacity(graph.nodes.len());
        for (index, node) in graph.nodes.iter().enumerate() {
            let place = graph.inputs.iter().position(|input| *input as usize == index);
            let shape = shapes.zip(place).map(|(shapes, place)| shapes[place].as_slice());
            let added = catch(|| self.node(&mut target, node, &outlets, shape))
                .unwrap_or_else(|message| Err(format!("tract panicked: {message}").into()));
            let added = added.map_err(|problem| match problem {
                Refusal::Problem(problem) => Error::Node {
                    node: node.name.clone(),
                    operator: node.operator.name(),
                    problem: problem.0,
                },
                Refusal::TooLarge(bytes) => {
                    Error::TooLarge { node: node.name.clone(), bytes, limit: self.limit }
                }
            })?;
            outlets.push(added);
        }
        let sources = graph.nodes.iter().filter(|node| node.operator == Operator::Input).count();
        let mut inputs: Vec<OutletId> =
            graph.inputs.iter().map(|input| outlets[*input as usize][0]).collect();
        target.inputs = inputs.clone();
        target.outputs = graph
            .outputs
            .iter()
            .map(|outlet| outlets[outlet.node as usize][outlet.slot as usize])
            .collect();
        inputs.sort();
        inputs.dedup();
        if inputs.len() != graph.inputs.len() || sources != inputs.len() {
            return Err(Error::Tract {
                doing: "listing the inputs",
                problem: "the graph does not list each input node once".into(),
            });
        }
        Ok(target)
    }

    /// Adds one node and gives its outlets.
    fn node(
        &self,
        target: &mut TypedModel,
        node: &Node,
        outlets: &[TVec<OutletId>],
        shape: Option<&[usize]>,
    ) -> Result<TVec<OutletId>, Refusal> {
        match &node.operator {
            Operator::Input => {
                let [fact] = node.outputs.as_slice() else {
                    return Err("an input has one value".into());
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
        self.operate(target, node, outlets)
    }

    /// Adds a node other than an input or a constant and gives its outlets.
    fn operate(
        &self,
        target: &mut TypedModel,
        node: &Node,
        outlets: &[TVec<OutletId>],
    ) -> Result<TVec<OutletId>, Refusal> {
        let inputs: TVec<OutletId> = node
            .inputs
            .iter()
            .map(|outlet| outlets[outlet.node as usize][outlet.slot as usize])
            .collect();
        let operation = self.operation(target, node, &inputs)?;
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

    /// What a node becomes, given its inputs.
    fn operation(
        &self,
        target: &TypedModel,
        node: &Node,
        inputs: &[OutletId],
    ) -> Result<Operation, Refusal> {
        let inputs = inputs.iter().map(|input| target.outlet_fact(*input));
        let inputs: TVec<&TypedFact> = inputs.collect::<TractResult<_>>()?;
        let op = operators::load(&Context {
            loader: self,
            node,
            inputs: &inputs,
            stated: &node.outputs,
        })?;
        check_dims(inputs.iter().map(|fact| &*fact.shape))?;
        let facts = op.output_facts(&inputs)?;
        check_dims(facts.iter().map(|fact| &*fact.shape))?;
        self.check_facts(node, &facts.iter().collect::<Vec<_>>())?;
        facts.iter().try_for_each(|fact| self.check_size(fact))?;
        let values = match self.nothing(&facts)? {
            Some(values) => Some(values),
            None => self.fold(&*op, &inputs)?,
        };
        for value in values.iter().flatten().filter(|value| value.datum_type().is_tdim()) {
            let dims = value.try_as_plain_ram()?;
            let dims = dims.as_slice::<TDim>()?;
            for dim in dims {
                check_dims(std::iter::once(std::slice::from_ref(dim)))?;
            }
        }
        Ok(Operation { op, facts, values })
    }

    /// The values of a node none of which has an element.
    fn nothing(&self, facts: &[TypedFact]) -> Result<Option<TVec<TValue>>, Problem> {
        let shapes: Option<Vec<&[usize]>> =
            facts.iter().map(|fact| fact.shape.as_concrete().filter(|s| s.contains(&0))).collect();
        let Some(shapes) = shapes.filter(|_| self.purpose == Purpose::Run) else { return Ok(None) };
        let values = facts
            .iter()
            .zip(shapes)
            .map(|(fact, shape)| Ok(Tensor::zero_dt(fact.datum_type, shape)?.into_tvalue()));
        values.collect::<Result<_, Problem>>().map(Some)
    }

    /// The values of a node whose inputs are all constant, where it is worth computing them.
    fn fold(
        &self,
        op: &dyn TypedOp,
        inputs: &[&TypedFact],
    ) -> Result<Option<TVec<TValue>>, Problem> {
        let Some(values) = inputs.iter().map(|fact| fact.konst.clone()).collect::<Option<Vec<_>>>()
        else {
            return Ok(None);
        };
        // Dimensions are always computed here, where it is seen how they grow.
        let small = values.iter().all(|value| value.volume() < EAGER_ELEMENTS)
            || values.iter().any(|value| value.datum_type().is_tdim());
        let values: TVec<TValue> = values.into_iter().map(|value| value.into_tvalue()).collect();
        if op.is::<Dequantize>() || op.is::<DequantizeBlocks>() || op.is::<Unpack>() {
            if self.purpose != Purpose::Run {
                return Ok(None);
            }
            return Ok(Some(op.eval(&EvalContext::out_of_plan(), values)?));
        }
        if values.is_empty() || !small {
            return Ok(None);
        }
        // An operator that cannot tell now is asked again when the model runs.
        Ok(op.eval_out_of_plan(values).unwrap_or(None))
    }

    fn fact(&self, fact: &Fact) -> Result<TypedFact, Problem> {
        let shape = self.symbols.dims(&fact.shape)?;
        require(
            shape.iter().all(|dim| dim.as_i64().is_none_or(|value| value >= 0)),
            "a dimension is negative",
        )?;
        Ok(dtype_to_tract(fact.dtype).fact(shape))
    }

    /// Whether tract computes the types and shapes that the graph states.
    fn check_facts(&self, node: &Node, computed: &[&TypedFact]) -> Result<(), Problem> {
        if computed.len() != node.outputs.len() {
            let (computed, stated) = (computed.len(), node.outputs.len());
            return Err(format!("it gives {computed} values, and the graph says {stated}").into());
        }
        for (computed, stated) in computed.iter().zip(&node.outputs) {
            let stated = self.fact(stated)?;
            // Sizes that do not fit together have no common one, whatever symbols stand for.
            let sound = computed.shape.iter().all(|dim| match dim.as_i64() {
                Some(size) => size >= 0,
                None => !dim.symbols().is_empty(),
            });
            if !sound {
                return Err(format!("its inputs do not fit together: {:?}", computed.shape).into());
            }
            let dims = computed.shape.iter().zip(stated.shape.iter());
            let fits = computed.datum_type == stated.datum_type
                && computed.rank() == stated.rank()
                && dims.into_iter().all(|(computed, stated)| {
                    match (computed.as_i64(), stated.as_i64()) {
                        (Some(computed), Some(stated)) => computed == stated,
                        // Two expressions may be equal without looking it.
                        _ => true,
                    }
                });
            if !fits {
                let text = |fact: &TypedFact| format!("{:?} {:?}", fact.datum_type, fact.shape);
                let (computed, stated) = (text(computed), text(&stated));
                return Err(format!("it gives {computed}, and the graph says {stated}").into());
            }
        }
        Ok(())
    }

    /// Whether a value is within the limit. Sizes of 0 count as 1, so that no product of the others
    /// overflows either.
    fn check_size(&self, fact: &TypedFact) -> Result<(), Refusal> {
        let Some(shape) = fact.shape.as_concrete() else { return Ok(()) };
        let size = fact.datum_type.size_of() as u64;
        let bytes =
            shape.iter().fold(size, |bytes, dim| bytes.saturating_mul((*dim).max(1) as u64));
        if bytes > self.limit { Err(Refusal::TooLarge(bytes)) } else { Ok(()) }
    }
}

/// Why a node was not added.
enum Refusal {
    Problem(Problem),
    /// One of its values takes this many bytes.
    TooLarge(u64),
}

impl<P: Into<Problem>> From<P> for Refusal {
    fn from(problem: P) -> Self {
        Refusal::Problem(problem.into())
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
    /// Input `index`, of a node whose number of inputs was checked.
    pub fn input(&self, index: usize) -> &TypedFact {
        self.inputs[index]
    }

    /// The operation, behind a check unless that is known to hold. What is saved again is never
    /// behind one.
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

    /// The operation, behind a check.
    pub fn guarded(
        &self,
        check: Check,
        op: impl Into<Box<dyn TypedOp>>,
    ) -> Result<Box<dyn TypedOp>, Problem> {
        let stated = self.stated.iter().map(|fact| self.loader.fact(fact));
        Ok(Box::new(Checked::new(check, op.into(), stated.collect::<Result<_, _>>()?)))
    }

    /// There must be this many inputs.
    pub fn arity(&self, expected: usize) -> Result<(), Problem> {
        let given = self.inputs.len();
        if given == expected {
            return Ok(());
        }
        Err(format!("it takes {expected} inputs, not {given}").into())
    }

    /// The index of an axis, which must be below `rank`.
    pub fn axis(&self, axis: u32, rank: usize) -> Result<usize, Problem> {
        if (axis as usize) < rank {
            return Ok(axis as usize);
        }
        Err(format!("it has no axis {axis}, its rank is {rank}").into())
    }

    /// Indices of axes, which must ascend and be below `rank`.
    pub fn axes(&self, axes: &[u32], rank: usize) -> Result<TVec<usize>, Problem> {
        require(axes.is_sorted_by(|a, b| a < b), "its axes are not in ascending order")?;
        axes.iter().map(|axis| self.axis(*axis, rank)).collect()
    }

    /// Dimensions with the known symbols put in.
    pub fn dims(&self, dims: &[Dim]) -> Result<TVec<TDim>, Problem> {
        self.loader.symbols.dims(dims)
    }

    /// A dimension with the known symbols put in.
    pub fn dim(&self, dim: &Dim) -> Result<TDim, Problem> {
        self.loader.symbols.dim(dim)
    }

    /// Dimensions of a shape, none of them negative.
    pub fn shape(&self, dims: &[Dim]) -> Result<TVec<TDim>, Problem> {
        let dims = self.dims(dims)?;
        let negative = dims.iter().any(|dim| dim.as_i64().is_some_and(|value| value < 0));
        require(!negative, "a dimension is negative")?;
        Ok(dims)
    }

    /// The inputs from `first` on must have one element type.
    pub fn same_types(&self, first: usize) -> Result<(), Problem> {
        let types: Vec<DatumType> = self.inputs.iter().skip(first).map(|f| f.datum_type).collect();
        require(types.windows(2).all(|pair| pair[0] == pair[1]), "its inputs differ in type")
    }

    /// A constant of one element.
    pub fn scalar(&self, index: u32) -> Result<Arc<Tensor>, Problem> {
        let tensor = self.loader.constant(index)?;
        require(tensor.len() == 1, "its constant has not one element")?;
        Ok(tensor)
    }
}
