//! A model in memory: a graph with its constants and integer programs.

use std::sync::Arc;

use hardtack_bundle::DType;
use hardtack_bundle::graph::{self, Dim, Graph};
use hardtack_engine::ProgramError;
use hardtack_kernels::Isa;
use hardtack_kernels::packed::Packing;

use crate::{Bundle, Bytes, Error, Limits, Tensor};

/// Float32 constants of at least this many bytes are not copied out of the bundle.
const KEPT_FROM: usize = 4096;

/// Kernels that lay out their own arena may use up to [`PACKED_ARENA_FACTOR`] times the arena of
/// the program plus [`PACKED_ARENA`] bytes.
const PACKED_ARENA_FACTOR: u64 = 4;
const PACKED_ARENA: u64 = 1 << 20;

/// The content of a constant of a graph.
#[derive(Clone, Debug, PartialEq)]
pub enum Constant {
    /// Numbers in memory.
    Tensor(Arc<Tensor>),
    /// Symbolic dimensions, row-major.
    Dims {
        /// The shape of this tensor of dimensions.
        shape: Vec<usize>,
        /// The elements of the tensor.
        values: Vec<Dim>,
    },
    /// Numbers that stay in the bundle's bytes, so that loading copies them only once.
    Stored(Stored),
}

/// A tensor of type f32 in the constants section of a bundle.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    dtype: DType,
    shape: Vec<usize>,
    bytes: Bytes,
}

impl Stored {
    /// Returns the element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Returns the dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Returns the elements, row-major and little-endian. Their number matches the shape.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// An integer program with its weights, as bytes.
///
/// # Examples
///
/// ```
/// use hardtack::Bundle;
/// use hardtack::internal::Model;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
/// # std::env::set_current_dir(folder)?;
/// let model = Model::from_bundle(&Bundle::open("kws_dscnn.tack")?)?;
/// let program = model.programs[0].parse()?;
/// println!("{} steps, arena of {} bytes", program.step_count(), program.arena_bytes());
/// assert_eq!(program.inputs().next().unwrap().elements, 490);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// The program in the format that `hardtack_engine` parses.
    pub code: Bytes,
    /// The weights section of the program. Its address is a multiple of 4 bytes.
    pub weights: Bytes,
    /// The layout of the weights; `None` is the layout of the family `mcu`.
    pub packing: Option<Packing>,
}

impl Program {
    /// Parses and checks the program.
    ///
    /// # Errors
    /// Returns the first error in the program or its weights.
    pub fn parse(&self) -> Result<hardtack_engine::Program<Bytes>, ProgramError> {
        let (code, weights) = (self.code.clone(), self.weights.clone());
        match self.packing {
            None => hardtack_engine::Program::parse(code, weights),
            Some(packing) => hardtack_engine::Program::parse_packed(code, weights, packing),
        }
    }
}

/// A graph with its constants and integer programs. The converter works on this type, and loading a
/// bundle creates it.
///
/// # Examples
///
/// Count the nodes of each operator:
///
/// ```
/// use std::collections::BTreeMap;
///
/// use hardtack::Bundle;
/// use hardtack::internal::Model;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
/// # std::env::set_current_dir(folder)?;
/// let model = Model::from_bundle(&Bundle::open("kws_dscnn.tack")?)?;
/// let mut counts = BTreeMap::new();
/// for node in &model.graph.nodes {
///     *counts.entry(node.operator.name()).or_insert(0) += 1;
/// }
/// assert_eq!(counts["Program"], 1);
/// assert_eq!(model.programs.len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    /// The graph. The offsets and lengths of [`Graph::constants`] are not used here.
    pub graph: Graph,
    /// The contents of [`Graph::constants`], in the same order.
    pub constants: Vec<Constant>,
    /// The programs that [`hardtack_bundle::graph::Operator::Program`] refers to by index.
    pub programs: Vec<Program>,
}

impl Model {
    /// Reads a bundle's model, with weights packed for this processor if the bundle has them. Large
    /// constants, programs and their weights are not copied out of the bundle. A constant that is
    /// stored in half precision keeps the element type F16 or BF16, where the graph says F32.
    ///
    /// # Errors
    /// Returns an error if the bundle has no graph, or if the graph, constants or programs are
    /// damaged or malformed.
    pub fn from_bundle(bundle: &Bundle) -> Result<Model, Error> {
        Model::for_isa(bundle, Isa::detect(), &Limits::NONE)
    }

    /// Reads a bundle's model like [`Model::from_bundle`], with weights for the given instruction
    /// set. Constants that are copied must be within the memory limit.
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
    /// Returns the number of bytes that the constants take, without those that stay in the bundle's
    /// bytes. Saturates.
    #[cfg(feature = "float")]
    pub(crate) fn constant_bytes(&self) -> u64 {
        let bytes = |constant: &Constant| match constant {
            Constant::Tensor(tensor) => (tensor.len() * tensor.dtype().size().unwrap_or(0)) as u64,
            Constant::Dims { values, .. } => (values.len() * size_of::<Dim>()) as u64,
            Constant::Stored(_) => 0,
        };
        self.constants.iter().map(bytes).fold(0, u64::saturating_add)
    }

    /// Checks that the integer programs need no larger arena than the manifest states.
    pub(crate) fn check_arena(&self, stated: u64) -> Result<(), Error> {
        let mut needed = 0u64;
        for (index, program) in self.programs.iter().enumerate() {
            let bytes = hardtack_engine::Program::<Bytes>::stated_arena(&program.code);
            let bytes = bytes.map_err(|error| Error::Program { program: index, error })?;
            // Kernels for packed weights lay out their arena themselves. The manifest states the
            // size for those kernels, which may be smaller than the program's own.
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
