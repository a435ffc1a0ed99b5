//! Checks of operands that tract requires but does not do itself.
//!
//! tract's release kernels trust their callers. An index out of range, a window larger than its
//! input or two sizes that must be equal but differ end in a panic or in an out-of-bounds access. A
//! [`Check`] states such a requirement. It is evaluated when a model is loaded if the sizes and
//! constants are known by then, and otherwise when the model runs.

mod values;
mod window;

use tract_core::internal::*;

pub(in crate::float) use values::tile;
pub(in crate::float) use window::Fit;

/// A requirement on the operands of an operation.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::float) enum Check {
    /// Input 1 holds indices along `axis` of input 0.
    Gather {
        /// The axis.
        axis: usize,
    },
    /// As [`Check::Gather`], for inputs of the same rank. Input 1 is not larger along other axes.
    GatherElements {
        /// The axis.
        axis: usize,
    },
    /// The last axis of input 1 holds index tuples into input 0, after the leading batch axes of
    /// both inputs.
    GatherNd {
        /// The number of batch axes.
        batch_dims: usize,
    },
    /// As [`Check::GatherElements`], with updates in the shape of the indices as input 2.
    ScatterElements {
        /// The axis.
        axis: usize,
    },
    /// The last axis of input 1 holds index tuples into input 0. Input 2 holds an update for each.
    ScatterNd,
    /// The inputs are start, end and step of a range of at most `limit` bytes.
    Range {
        /// The maximum number of bytes of the output.
        limit: u64,
    },
    /// Inputs 1 and 2 are the start and end of a slice along `axis` of input 0.
    DynamicSlice {
        /// The axis.
        axis: usize,
    },
    /// Inputs 1 and 2 are starts and ends of slices along the given axes, with the given steps.
    StridedSlice {
        /// The input that holds the axes.
        axes: Option<usize>,
        /// The input that holds the steps.
        steps: Option<usize>,
    },
    /// Input 1 holds the number of repetitions of each axis of input 0.
    Tile {
        /// The number of bytes of an element of input 0.
        element: usize,
        /// The maximum number of bytes of the output.
        limit: u64,
    },
    /// Input 1 is the offset of a diagonal.
    Diagonal,
    /// Input 1 is a grid of coordinates. Its last axis has one element per spatial axis of input 0.
    Reflection,
    /// These axes of input 0 have at least this many elements: pairs of axis and minimum.
    Least(TVec<(usize, usize)>),
    /// The windows fit in input 0.
    Window(Fit),
    /// Axes of the inputs with the same letter have the same size, or 1.
    Letters(Vec<Letter>),
}

/// A letter of an Einstein sum.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::float) struct Letter {
    /// The letter.
    pub name: char,
    /// Where the letter occurs: pairs of input and axis.
    pub places: TVec<(usize, usize)>,
    /// Whether the letter is summed over. Its sizes must then be equal and are not broadcast.
    pub summed: bool,
}

/// An operand that an operation does not support.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(in crate::float) enum OperandError {
    #[error("index {index} is out of range for axis {axis} of size {size}")]
    Index { index: i64, axis: usize, size: usize },
    #[error("index tuples have {length} elements, beyond the rank {rank} of the input")]
    TupleLength { length: usize, rank: usize },
    #[error(
        "input {input} has shape {shape:?}, which does not match the shape {other:?} of input {with}"
    )]
    Shapes { input: usize, shape: TVec<usize>, with: usize, other: TVec<usize> },
    #[error("input {input} has {given} elements instead of {expected}")]
    Elements { input: usize, given: usize, expected: usize },
    #[error("input {input} is of type {dtype:?}, which is not an integer type")]
    NotIntegers { input: usize, dtype: DatumType },
    #[error("input {input} depends on a symbol without a value")]
    Symbolic { input: usize },
    #[error("the step of the range is 0")]
    NoStep,
    #[error("the range from {start} to {end} in steps of {step} has no finite length")]
    NoLength { start: f64, end: f64, step: f64 },
    #[error("the output takes {bytes} bytes, beyond the limit of {limit}")]
    TooLarge { bytes: u64, limit: u64 },
    #[error("the range {start}..{end} is out of bounds for axis {axis} of size {size}")]
    Slice { start: i64, end: i64, axis: usize, size: usize },
    #[error("axis {axis} is listed twice or is out of range for an input of rank {rank}")]
    Axis { axis: i64, rank: usize },
    #[error("step {step} along axis {axis} is 0 or too large")]
    Step { step: i64, axis: usize },
    #[error("axis {axis} cannot be repeated {count} times")]
    Repeats { axis: usize, count: i64 },
    #[error("axis {axis} has {size} elements, but at least {least} are required")]
    Few { axis: usize, size: usize, least: usize },
    #[error("axis {axis} has {size} elements, but at most {most} are supported")]
    Many { axis: usize, size: usize, most: usize },
    #[error(
        "a window of {field} elements does not fit in axis {axis} of size {size} with its padding"
    )]
    Window { axis: usize, size: usize, field: usize },
    #[error("listing the elements of the window takes too much memory")]
    Windows,
    #[error("the output would have no elements along axis {axis}")]
    Empty { axis: usize },
    #[error("letter {name:?} has axes of different sizes {sizes:?}")]
    Letter { name: char, sizes: TVec<usize> },
}

/// The sizes of the axes of an operand; `None` if unknown.
type Sizes = TVec<Option<usize>>;

/// Returns the sizes of an operand that are known before the model runs.
fn known_sizes(fact: &TypedFact) -> Sizes {
    let size = |dim: &TDim| dim.as_i64().and_then(|size| usize::try_from(size).ok());
    fact.shape.iter().map(size).collect()
}

fn sizes(tensor: &Tensor) -> Sizes {
    tensor.shape().iter().map(|size| Some(*size)).collect()
}

impl Check {
    /// Returns the inputs whose values matter, not only their shapes.
    pub fn operands(&self) -> TVec<usize> {
        match self {
            Check::Gather { .. }
            | Check::GatherElements { .. }
            | Check::GatherNd { .. }
            | Check::ScatterElements { .. }
            | Check::ScatterNd
            | Check::Tile { .. }
            | Check::Diagonal
            | Check::Reflection => tvec!(1),
            Check::Range { .. } => tvec!(0, 1, 2),
            Check::DynamicSlice { .. } => tvec!(1, 2),
            Check::StridedSlice { axes, steps } => {
                [1, 2].into_iter().chain(*axes).chain(*steps).collect()
            }
            Check::Least(_) | Check::Window(_) | Check::Letters(_) => tvec!(),
        }
    }

    /// Checks the operands when the model runs. Returns those that must be replaced: for example,
    /// negative indices for operations in which tract does not count from the end.
    pub fn run(
        &self,
        inputs: &[TValue],
        symbols: &SymbolValues,
    ) -> Result<TVec<(usize, Tensor)>, OperandError> {
        let shapes: TVec<Sizes> = inputs.iter().map(|input| sizes(input)).collect();
        self.shapes(&shapes)?;
        let shapes: TVec<&[usize]> = inputs.iter().map(|input| input.shape()).collect();
        let tensors: TVec<Option<&Tensor>> = inputs.iter().map(|input| Some(&**input)).collect();
        self.values(&shapes, &tensors, symbols)
    }

    /// Checks what is known before the model runs. Returns `None` if that is not enough.
    pub fn load(
        &self,
        facts: &[&TypedFact],
    ) -> Result<Option<TVec<(usize, Tensor)>>, OperandError> {
        let shapes: TVec<Sizes> = facts.iter().map(|fact| known_sizes(fact)).collect();
        if !self.shapes(&shapes)? {
            return Ok(None);
        }
        let tensors: TVec<Option<&Tensor>> =
            facts.iter().map(|fact| fact.konst.as_deref()).collect();
        let operands = self.operands();
        if operands.is_empty() {
            return Ok(Some(tvec!()));
        }
        if operands.iter().any(|input| tensors[*input].is_none()) {
            return Ok(None);
        }
        let shapes: Option<TVec<TVec<usize>>> =
            shapes.into_iter().map(|sizes| sizes.into_iter().collect()).collect();
        let Some(shapes) = shapes else { return Ok(None) };
        let shapes: TVec<&[usize]> = shapes.iter().map(|shape| &shape[..]).collect();
        match self.values(&shapes, &tensors, &SymbolValues::default()) {
            Err(OperandError::Symbolic { .. }) => Ok(None),
            result => result.map(Some),
        }
    }

    /// Checks the windows of a convolution or pool against the known sizes of its input. Returns
    /// the number of bytes of their lists.
    pub fn windows(fit: &Fit, input: &TypedFact) -> Result<u64, OperandError> {
        let sizes = known_sizes(input);
        fit.check(&sizes).map(|_| fit.listed_bytes(&sizes))
    }

    /// Returns the number of bytes that tract takes to list the elements of windows.
    pub fn listed_bytes(&self, inputs: &[TValue]) -> u64 {
        match self {
            Check::Window(fit) => inputs.first().map_or(0, |x| fit.listed_bytes(&sizes(x))),
            _ => 0,
        }
    }

    /// Checks the sizes. Returns whether all relevant sizes were known.
    fn shapes(&self, shapes: &[Sizes]) -> Result<bool, OperandError> {
        match self {
            Check::GatherElements { axis } => not_larger(shapes, *axis),
            Check::ScatterElements { axis } => {
                Ok(equal(shapes, 2, &shapes[2], 1, &shapes[1])? & not_larger(shapes, *axis)?)
            }
            Check::GatherNd { batch_dims } => gather_nd(shapes, *batch_dims),
            Check::ScatterNd => scatter_nd(shapes),
            Check::Least(axes) => {
                let mut known = true;
                for (axis, least) in axes {
                    match shapes[0][*axis] {
                        Some(size) if size < *least => {
                            return Err(OperandError::Few { axis: *axis, size, least: *least });
                        }
                        size => known &= size.is_some(),
                    }
                }
                Ok(known)
            }
            Check::Window(fit) => fit.check(&shapes[0]),
            Check::Letters(letters) => {
                let mut known = true;
                for letter in letters {
                    known &= letter.check(shapes)?;
                }
                Ok(known)
            }
            _ => Ok(true),
        }
    }
}

impl Letter {
    fn check(&self, shapes: &[Sizes]) -> Result<bool, OperandError> {
        let all: TVec<Option<usize>> =
            self.places.iter().map(|(input, axis)| shapes[*input][*axis]).collect();
        let sizes: TVec<usize> = all.iter().flatten().copied().collect();
        let counts = |size: &&usize| self.summed || **size != 1;
        let mut counted = sizes.iter().filter(counts);
        let first = counted.next();
        if counted.any(|size| Some(size) != first) {
            return Err(OperandError::Letter { name: self.name, sizes });
        }
        Ok(sizes.len() == all.len())
    }
}

/// Checks that two shapes are equal as far as they are known. Returns whether both are known.
fn equal(
    shapes: &[Sizes],
    input: usize,
    shape: &[Option<usize>],
    with: usize,
    other: &[Option<usize>],
) -> Result<bool, OperandError> {
    let differ = |(a, b): (&Option<usize>, &Option<usize>)| a.zip(*b).is_some_and(|(a, b)| a != b);
    if shape.len() != other.len() || shape.iter().zip(other).any(differ) {
        return Err(mismatch(shapes, input, with));
    }
    Ok(shape.iter().chain(other).all(|size| size.is_some()))
}

fn mismatch(shapes: &[Sizes], input: usize, with: usize) -> OperandError {
    let known = |input: usize| shapes[input].iter().map(|size| size.unwrap_or(0)).collect();
    OperandError::Shapes { input, shape: known(input), with, other: known(with) }
}

/// Checks that the indices are not larger than the data along any axis but `axis`. Returns whether
/// all sizes are known.
fn not_larger(shapes: &[Sizes], axis: usize) -> Result<bool, OperandError> {
    let (data, indices) = (&shapes[0], &shapes[1]);
    if data.len() != indices.len() || axis >= data.len() {
        return Err(mismatch(shapes, 1, 0));
    }
    let mut known = true;
    for (at, (data, indices)) in data.iter().zip(indices).enumerate() {
        known &= data.is_some() && indices.is_some();
        if at != axis && data.zip(*indices).is_some_and(|(data, indices)| indices > data) {
            return Err(mismatch(shapes, 1, 0));
        }
    }
    Ok(known)
}

fn gather_nd(shapes: &[Sizes], batch_dims: usize) -> Result<bool, OperandError> {
    let (data, indices) = (&shapes[0], &shapes[1]);
    let (Some(data_batch), Some(indices_batch)) =
        (data.get(..batch_dims), indices.get(..batch_dims))
    else {
        return Err(mismatch(shapes, 1, 0));
    };
    let known = equal(shapes, 1, indices_batch, 0, data_batch)?;
    Ok(tuple_length(data, indices, batch_dims)? && known)
}

fn scatter_nd(shapes: &[Sizes]) -> Result<bool, OperandError> {
    let [data, indices, updates] = shapes else { return Ok(false) };
    if !tuple_length(data, indices, 0)? {
        return Ok(false);
    }
    let length = indices.last().copied().flatten().unwrap_or(0);
    let tuples = &indices[..indices.len().saturating_sub(1)];
    let expected: Sizes = tuples.iter().chain(&data[length..]).copied().collect();
    equal(shapes, 2, updates, 0, &expected)
}

/// Checks that index tuples are no longer than the rank of the data after the batch axes. Returns
/// whether their length is known.
fn tuple_length(data: &Sizes, indices: &Sizes, batch_dims: usize) -> Result<bool, OperandError> {
    let rank = data.len() - batch_dims;
    match indices.last() {
        None => Err(OperandError::TupleLength { length: 0, rank }),
        Some(None) => Ok(false),
        Some(Some(length)) if *length > rank => {
            Err(OperandError::TupleLength { length: *length, rank })
        }
        Some(Some(_)) => Ok(true),
    }
}
