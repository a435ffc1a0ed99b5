//! A model in memory: a graph with its constants and integer programs.

use std::sync::Arc;

use hardtack_bundle::DType;
use hardtack_bundle::graph::{self, Dim, Graph};

use crate::{Bundle, Bytes, Error, Tensor};

/// The content of a constant of a graph.
#[derive(Clone, Debug, PartialEq)]
pub enum Constant {
    /// Numbers.
    Tensor(Arc<Tensor>),
    /// Symbolic dimensions, row-major.
    Dims {
        /// Dimensions of the tensor of dimensions.
        shape: Vec<usize>,
        /// Its elements.
        values: Vec<Dim>,
    },
}

/// An integer program with its weights, as bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// The program, as `hardtack_engine` reads it.
    pub code: Bytes,
    /// Its weights section, at a multiple of 4 bytes in memory.
    pub weights: Bytes,
}

/// A graph with its constants and integer programs: what the converter works on, and what a
/// loaded bundle becomes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    /// The graph. The offsets and lengths of [`Graph::constants`] mean nothing here.
    pub graph: Graph,
    /// One for each of [`Graph::constants`].
    pub constants: Vec<Constant>,
    /// What [`hardtack_bundle::graph::Operator::Program`] names.
    pub programs: Vec<Program>,
}

impl Model {
    /// Reads a bundle's model. Constants are copied; one that is stored at half size stays so,
    /// with element type F16 or BF16 where the graph says F32. Programs and their weights stay
    /// where the bundle has them.
    ///
    /// # Errors
    /// Where the bundle has no graph, or graph, constants or programs are damaged or malformed.
    pub fn from_bundle(bundle: &Bundle) -> Result<Model, Error> {
        let graph = bundle.graph()?;
        let container = bundle.container()?;
        let bytes = container.constants();
        let read = |(index, constant): (usize, &graph::Constant)| {
            Constant::read(constant, bytes, graph.symbols.len()).ok_or(Error::Constant { index })
        };
        let constants = graph.constants.iter().enumerate().map(read).collect::<Result<_, _>>()?;
        Ok(Model { constants, programs: bundle.programs()?, graph })
    }
}

impl Constant {
    /// Reads a constant from the constants section.
    fn read(constant: &graph::Constant, section: &[u8], symbols: usize) -> Option<Constant> {
        let start = usize::try_from(constant.offset).ok()?;
        let length = usize::try_from(constant.length).ok()?;
        let bytes = section.get(start..)?.get(..length)?;
        let size = |dim: &u64| usize::try_from(*dim).ok();
        let shape: Vec<usize> = constant.shape.iter().map(size).collect::<Option<_>>()?;
        if constant.stored == DType::Dim {
            let count = shape.iter().try_fold(1usize, |all, dim| all.checked_mul(*dim))?;
            let values = Dim::list_from_bytes(bytes, count, symbols)?;
            return Some(Constant::Dims { shape, values });
        }
        let tensor = Tensor::from_bytes(constant.stored, &shape, bytes)?;
        Some(Constant::Tensor(Arc::new(tensor)))
    }
}
