//! Converts a tract model to a graph of the bundle's operators.

use std::sync::Arc;

use hardtack_bundle::DType;
use hardtack_bundle::graph::{self, Dim, Fact, Graph, Node, Operator, ValueId};
use tract_core::internal::*;
use tract_core::ops::identity::Identity;
use tract_core::ops::konst::Const;
use tract_core::ops::source::TypedSource;

use super::dims::SymbolNames;
use super::error::{Error, Problem, guard};
use super::tensors::{dtype_from_tract, from_tract};
use super::translate;
use crate::model::{Constant, Model, Program};

/// How to save an operation that is defined in another crate.
#[derive(Clone, Debug, PartialEq)]
pub enum NonIntegerNode {
    /// Its only used output is its first input, unchanged.
    Identity,
    /// It is equivalent to this operator on the same inputs.
    Operator(Operator),
}

/// Converts a tract model, including integer programs, to a [`Model`].
///
/// # Errors
/// Returns [`Error::NoPlace`] with all operations that a bundle cannot represent.
pub fn save(model: &TypedModel) -> Result<Model, Error> {
    save_with(model, &|_| None)
}

/// Converts a tract model like [`save`]. `foreign` is called for operations that this crate does
/// not know.
///
/// # Errors
/// Returns [`Error::NoPlace`] with all operations that a bundle cannot represent.
pub fn save_with(
    model: &TypedModel,
    foreign: &dyn Fn(&dyn TypedOp) -> Option<NonIntegerNode>,
) -> Result<Model, Error> {
    guard("saving the model", || {
        let mut saver = Saver { foreign, ..Saver::new() };
        let graph = saver.graph(model)?;
        if !saver.homeless.is_empty() {
            return Err(Error::NoPlace { nodes: saver.homeless });
        }
        let bodies = saver.bodies;
        Ok(Model {
            graph: Graph { symbols: saver.symbols.0, constants: saver.entries, bodies, ..graph },
            constants: saver.constants,
            programs: saver.programs,
        })
    })
}

/// The state shared by the graphs of a model while it is saved.
struct Saver<'f> {
    foreign: &'f dyn Fn(&dyn TypedOp) -> Option<NonIntegerNode>,
    symbols: SymbolNames,
    entries: Vec<graph::Constant>,
    constants: Vec<Constant>,
    /// The tract tensor of each constant, used to find duplicates.
    tensors: Vec<Arc<Tensor>>,
    bodies: Vec<Graph>,
    programs: Vec<Program>,
    homeless: Vec<(String, String)>,
}

/// A node that is being saved.
pub(super) struct Scope<'s> {
    saver: &'s mut dyn Share,
    /// The types and shapes of the inputs.
    pub inputs: TVec<&'s TypedFact>,
    /// The types and shapes of the outputs.
    pub outputs: TVec<&'s TypedFact>,
    added: Vec<(&'static str, Tensor)>,
}

/// The shared state that saving a node may extend.
trait Share {
    fn dim(&mut self, dim: &TDim) -> Dim;
    fn constant(&mut self, tensor: &Arc<Tensor>) -> Result<Option<u32>, Problem>;
    fn body(&mut self, body: &TypedModel) -> u32;
    fn program(&mut self, program: &Program) -> u32;
}

impl Scope<'_> {
    /// Converts a dimension to postfix order.
    pub fn dim(&mut self, dim: &TDim) -> Dim {
        self.saver.dim(dim)
    }

    /// Converts dimensions to postfix order.
    pub fn dims<'d>(&mut self, dims: impl IntoIterator<Item = &'d TDim>) -> Vec<Dim> {
        dims.into_iter().map(|dim| self.saver.dim(dim)).collect()
    }

    /// Returns the index of a constant, or `None` if a bundle cannot represent its type.
    pub fn constant(&mut self, tensor: &Arc<Tensor>) -> Result<Option<u32>, Problem> {
        self.saver.constant(tensor)
    }

    /// Saves a body and returns its index.
    pub fn body(&mut self, body: &TypedModel) -> u32 {
        self.saver.body(body)
    }

    /// Saves a program and returns its index.
    pub fn program(&mut self, program: &Program) -> u32 {
        self.saver.program(program)
    }

    /// Adds a constant as another input of the node.
    pub fn add_input(&mut self, name: &'static str, tensor: Tensor) {
        self.added.push((name, tensor));
    }
}

impl Saver<'_> {
    fn new() -> Saver<'static> {
        Saver {
            foreign: &|_| None,
            symbols: SymbolNames::default(),
            entries: vec![],
            constants: vec![],
            tensors: vec![],
            bodies: vec![],
            programs: vec![],
            homeless: vec![],
        }
    }

    fn graph(&mut self, model: &TypedModel) -> Result<Graph, Error> {
        let order = model.eval_order().map_err(super::error::tract("ordering the nodes"))?;
        let sources: Vec<usize> = model.inputs.iter().map(|input| input.node).collect();
        let rest = order.into_iter().filter(|id| !sources.contains(id));
        let mut graph = Graph { inputs: (0..sources.len() as u32).collect(), ..Graph::default() };
        let mut outlets: HashMap<OutletId, ValueId> = HashMap::new();
        for id in sources.iter().copied().chain(rest) {
            let node = &model.nodes[id];
            if let Err(problem) = self.node(model, node, &mut graph, &mut outlets) {
                return Err(Error::Tract {
                    doing: "saving the model",
                    problem: format!("node {:?} ({}): {problem}", node.name, node.op.name()),
                });
            }
        }
        for outlet in &model.outputs {
            let name = model.outlet_label(*outlet).unwrap_or(&model.nodes[outlet.node].name);
            graph.output_names.push(name.into());
            graph.outputs.extend(outlets.get(outlet));
        }
        Ok(graph)
    }

    fn node(
        &mut self,
        model: &TypedModel,
        node: &TypedNode,
        graph: &mut Graph,
        outlets: &mut HashMap<OutletId, ValueId>,
    ) -> Result<(), Problem> {
        let known = match self.identify(model, node)? {
            Known::Identity => {
                if let Some(outlet) = node.inputs.first().and_then(|input| outlets.get(input)) {
                    outlets.insert(node.id.into(), *outlet);
                }
                return Ok(());
            }
            known => known,
        };
        let facts: Option<Vec<Fact>> =
            node.outputs.iter().map(|output| self.fact(&output.fact)).collect();
        // An operation that cannot be saved keeps its outputs, so that all others are checked too.
        let (operator, added) = match known {
            Known::Operator(operator, added) if facts.is_some() => (operator, added),
            _ => {
                self.homeless.push((node.name.clone(), node.op.name().into_owned()));
                (Operator::Input, vec![])
            }
        };
        let mut inputs: Vec<ValueId> =
            node.inputs.iter().filter_map(|input| outlets.get(input).copied()).collect();
        for (suffix, tensor) in added {
            let fact = TypedFact::shape_and_dt_of(&tensor);
            let constant = self.constant(&tensor.into_arc_tensor())?;
            let (Some(index), Some(fact)) = (constant, self.fact(&fact)) else { continue };
            inputs.push(ValueId { node: graph.nodes.len() as u32, output: 0 });
            graph.nodes.push(Node {
                name: format!("{}.{suffix}", node.name),
                operator: Operator::Constant(index),
                inputs: vec![],
                outputs: vec![fact],
            });
        }
        for slot in 0..node.outputs.len() {
            let outlet = ValueId { node: graph.nodes.len() as u32, output: slot as u32 };
            outlets.insert(OutletId::new(node.id, slot), outlet);
        }
        graph.nodes.push(Node {
            name: node.name.clone(),
            operator,
            inputs,
            outputs: facts.unwrap_or_default(),
        });
        Ok(())
    }

    fn identify(&mut self, model: &TypedModel, node: &TypedNode) -> Result<Known, Problem> {
        let op = &*node.op;
        if op.is::<Identity>() {
            return Ok(Known::Identity);
        }
        if op.is::<TypedSource>() {
            return Ok(Known::Operator(Operator::Input, vec![]));
        }
        if let Some(constant) = op.downcast_ref::<Const>() {
            let index = self.constant(constant.val())?;
            let known = |index| Known::Operator(Operator::Constant(index), vec![]);
            return Ok(index.map_or(Known::No, known));
        }
        let inputs = model.node_input_facts(node.id)?;
        let outputs = node.outputs.iter().map(|output| &output.fact).collect();
        let foreign = self.foreign;
        let mut scope = Scope { saver: self, inputs, outputs, added: vec![] };
        if let Some(operator) = translate::save(op, &mut scope)? {
            return Ok(Known::Operator(operator, scope.added));
        }
        Ok(match foreign(op) {
            None => Known::No,
            Some(NonIntegerNode::Identity) => Known::Identity,
            Some(NonIntegerNode::Operator(operator)) => Known::Operator(operator, vec![]),
        })
    }

    fn fact(&mut self, fact: &TypedFact) -> Option<Fact> {
        let dtype = dtype_from_tract(fact.datum_type).filter(|_| fact.is_plain())?;
        Some(Fact { dtype, shape: self.symbols.dims(fact.shape.dims()) })
    }
}

enum Known {
    Identity,
    Operator(Operator, Vec<(&'static str, Tensor)>),
    No,
}

impl Share for Saver<'_> {
    fn dim(&mut self, dim: &TDim) -> Dim {
        self.symbols.dim(dim)
    }

    fn constant(&mut self, tensor: &Arc<Tensor>) -> Result<Option<u32>, Problem> {
        if let Some(index) = self.tensors.iter().position(|known| Arc::ptr_eq(known, tensor)) {
            return Ok(Some(index as u32));
        }
        let Some(dtype) = dtype_from_tract(tensor.datum_type()).filter(|_| tensor.is_plain())
        else {
            return Ok(None);
        };
        let shape = tensor.shape();
        self.constants.push(if dtype == DType::Dim {
            let plain = tensor.try_as_plain_ram()?;
            let values = self.symbols.dims(plain.as_slice::<TDim>()?);
            Constant::Dims { shape: shape.into(), values }
        } else {
            Constant::Tensor(Arc::new(from_tract(tensor)?))
        });
        self.entries.push(graph::Constant {
            dtype,
            stored: dtype,
            shape: shape.iter().map(|dim| *dim as u64).collect(),
            offset: 0,
            length: 0,
        });
        self.tensors.push(tensor.clone());
        Ok(Some(self.tensors.len() as u32 - 1))
    }

    fn body(&mut self, body: &TypedModel) -> u32 {
        // A body precedes those that its own nodes refer to.
        let index = self.bodies.len();
        self.bodies.push(Graph::default());
        match self.graph(body) {
            Ok(graph) => self.bodies[index] = graph,
            Err(error) => self.homeless.push((format!("body {index}"), error.to_string())),
        }
        index as u32
    }

    fn program(&mut self, program: &Program) -> u32 {
        let same = |known: &Program| {
            std::ptr::eq(&*known.code, &*program.code)
                && std::ptr::eq(&*known.weights, &*program.weights)
        };
        let index = self.programs.iter().position(same).unwrap_or_else(|| {
            self.programs.push(program.clone());
            self.programs.len() - 1
        });
        index as u32
    }
}
