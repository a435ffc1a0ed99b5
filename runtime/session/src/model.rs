//! A model in memory: a graph with its constants and integer programs.

use std::sync::Arc;

use hardtack_bundle::DType;
use hardtack_bundle::graph::{self, Dim, Graph};
use hardtack_engine::ProgramError;
use hardtack_kernels::Isa;
use hardtack_kernels::packed::Packing;

use crate::{Bundle, Bytes, Error, Limits, Tensor};

/// Constants of f32 with at least this many bytes stay where the bundle has them.
const KEPT_FROM: usize = 4096;

/// Kernels that lay out their own arena may use this many times the program's, and some more.
const PACKED_ARENA_FACTOR: u64 = 4;
const PACKED_ARENA: u64 = 1 << 20;

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
    /// Numbers that stay where a bundle has them, so that loading it copies them only once.
    Stored(Stored),
}

/// Elements in the constants section of a bundle.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    dtype: DType,
    shape: Vec<usize>,
    bytes: Bytes,
}

impl Stored {
    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements, row-major and little-endian; as many as the dimensions say.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A copy of the elements in memory.
    pub fn to_tensor(&self) -> Tensor {
        let tensor = Tensor::from_bytes(self.dtype, &self.shape, &self.bytes);
        tensor.expect("the bytes were counted when they were found")
    }
}

/// An integer program with its weights, as bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// The program, as `hardtack_engine` reads it.
    pub code: Bytes,
    /// Its weights section, at a multiple of 4 bytes in memory.
    pub weights: Bytes,
    /// The layout of the weights; `None` is that of the family `mcu`.
    pub packing: Option<Packing>,
}

impl Program {
    /// Checks it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(&self) -> Result<hardtack_engine::Program<Bytes>, ProgramError> {
        let (code, weights) = (self.code.clone(), self.weights.clone());
        match self.packing {
            None => hardtack_engine::Program::parse(code, weights),
            Some(packing) => hardtack_engine::Program::parse_packed(code, weights, packing),
        }
    }
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
    /// Reads a bundle's model, with weights for this processor where it has them. Large constants, programs and their weights stay where the bundle
    /// has them. A constant that is stored at half size stays so, with element type F16 or BF16
    /// where the graph says F32.
    ///
    /// # Errors
    /// Where the bundle has no graph, or graph, constants or programs are damaged or malformed.
    pub fn from_bundle(bundle: &Bundle) -> Result<Model, Error> {
        Model::for_isa(bundle, Isa::detect(), &Limits::NONE)
    }

    /// [`Model::from_bundle`], with weights for an instruction set.
    pub(crate) fn for_isa(bundle: &Bundle, isa: Isa, limits: &Limits) -> Result<Model, Error> {
        let graph = bundle.graph()?;
        let section = bundle.constants()?;
        limits.check_memory(copied_bytes(&graph))?;
        let read = |(index, constant): (usize, &graph::Constant)| {
            Constant::read(constant, &section, graph.symbols.len()).ok_or(Error::Constant { index })
        };
        let constants = graph.constants.iter().enumerate().map(read).collect::<Result<_, _>>()?;
        Ok(Model { constants, programs: bundle.programs(isa.packing())?, graph })
    }
}

impl Model {
    /// Checks that the integer programs need no larger arena than a manifest states.
    pub(crate) fn check_arena(&self, stated: u64) -> Result<(), Error> {
        let mut needed = 0u64;
        for (index, program) in self.programs.iter().enumerate() {
            let bytes = hardtack_engine::Program::<Bytes>::stated_arena(&program.code);
            let bytes = bytes.map_err(|error| Error::Program { program: index, error })?;
            // Packed weights are made for kernels that lay out their arena themselves: what the
            // manifest states is theirs, and the program's own may differ.
            let bytes = match program.packing {
                None => u64::from(bytes),
                Some(_) => u64::from(bytes).saturating_sub(PACKED_ARENA) / PACKED_ARENA_FACTOR,
            };
            needed = needed.saturating_add(bytes);
        }
        if needed <= stated { Ok(()) } else { Err(Error::Arena { stated, needed }) }
    }
}

/// The number of bytes of the constants that [`Constant::read`] copies; saturates.
fn copied_bytes(graph: &Graph) -> u64 {
    let bytes = |constant: &graph::Constant| match constant.stored {
        DType::Dim => constant.length.saturating_mul(size_of::<Dim>() as u64),
        DType::F32 if constant.length >= KEPT_FROM as u64 => 0,
        _ => constant.length,
    };
    graph.constants.iter().map(bytes).fold(0, u64::saturating_add)
}

impl Constant {
    /// Reads a constant from the constants section.
    fn read(constant: &graph::Constant, section: &Bytes, symbols: usize) -> Option<Constant> {
        let start = usize::try_from(constant.offset).ok()?;
        let length = usize::try_from(constant.length).ok()?;
        let bytes = section.slice(start..start.checked_add(length)?)?;
        let size = |dim: &u64| usize::try_from(*dim).ok();
        let shape: Vec<usize> = constant.shape.iter().map(size).collect::<Option<_>>()?;
        if constant.stored == DType::Dim {
            let count = shape.iter().try_fold(1usize, |all, dim| all.checked_mul(*dim))?;
            let values = Dim::list_from_bytes(&bytes, count, symbols)?;
            return Some(Constant::Dims { shape, values });
        }
        if constant.stored == DType::F32 && length >= KEPT_FROM {
            let elements = shape.iter().try_fold(1usize, |n, dim| n.checked_mul(*dim))?;
            let whole = elements.checked_mul(4) == Some(length);
            return whole.then_some(Constant::Stored(Stored { dtype: DType::F32, shape, bytes }));
        }
        let tensor = Tensor::from_bytes(constant.stored, &shape, &bytes)?;
        Some(Constant::Tensor(Arc::new(tensor)))
    }
}
