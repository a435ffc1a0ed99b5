//! Reading golden vectors without an allocator.

use super::{Content, GENERATED, Generator, HEAD_BYTES, PART_ALIGNMENT, SAMPLED, TENSOR_BYTES};
use crate::header::{u16_at, u32_at, u64_at};
use crate::manifest::MAX_RANK;
use crate::{DType, Error};

/// The golden vectors of a bundle. A value of this type is known to be well-formed.
///
/// # Examples
///
/// ```
/// use hardtack_bundle::Bundle;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
/// # std::env::set_current_dir(folder)?;
/// let file = std::fs::read("kws_dscnn.tack")?;
/// let golden = Bundle::parse(&file)?.golden()?.unwrap();
/// for case in golden.cases() {
///     let output = case.outputs().next().unwrap();
///     assert_eq!((output.name, output.tolerance), ("probs", 0.0));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Golden<'a> {
    bytes: &'a [u8],
    cases: u32,
}

impl<'a> Golden<'a> {
    /// Parses the bytes of a golden section. Reads all headers, but not the elements.
    ///
    /// # Errors
    /// Returns [`Error::Golden`] with the first place that breaks a rule of the format.
    pub fn parse(bytes: &'a [u8]) -> Result<Golden<'a>, Error> {
        let mut cursor = Cursor { bytes, at: 0 };
        let head = cursor.take(HEAD_BYTES)?;
        let cases = u32_at(head, 0);
        if u32_at(head, 4) != 0 {
            return Err(cursor.invalid("reserved bytes are not zero"));
        }
        for _ in 0..cases {
            let head = cursor.take(HEAD_BYTES)?;
            if u32_at(head, 4) != 0 {
                return Err(cursor.invalid("reserved bytes are not zero"));
            }
            for _ in 0..u16_at(head, 0) {
                let start = cursor;
                if let Content::Sampled { .. } = cursor.tensor()?.content {
                    return Err(start.invalid("an input is sampled; only outputs may be sampled"));
                }
            }
            for _ in 0..u16_at(head, 2) {
                cursor.tensor()?;
            }
        }
        if cursor.at != bytes.len() {
            return Err(cursor.invalid("the last case is followed by extra bytes"));
        }
        Ok(Golden { bytes, cases })
    }

    /// Returns the number of cases.
    pub fn len(&self) -> usize {
        self.cases as usize
    }

    /// Returns whether there are no cases.
    pub fn is_empty(&self) -> bool {
        self.cases == 0
    }

    /// Returns an iterator over the cases, in order.
    pub fn cases(&self) -> impl Iterator<Item = Case<'a>> + Clone + use<'a> {
        let mut cursor = Cursor { bytes: self.bytes, at: HEAD_BYTES };
        (0..self.cases).map_while(move |_| {
            let head = cursor.take(HEAD_BYTES).ok()?;
            let (inputs, outputs) = (u16_at(head, 0), u16_at(head, 2));
            let at_inputs = cursor;
            (0..inputs).try_for_each(|_| cursor.tensor().map(drop)).ok()?;
            let at_outputs = cursor;
            (0..outputs).try_for_each(|_| cursor.tensor().map(drop)).ok()?;
            Some(Case { inputs, at_inputs, outputs, at_outputs })
        })
    }
}

impl core::fmt::Debug for Golden<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.cases()).finish()
    }
}

/// Inputs of a model and their expected outputs.
#[derive(Clone, Copy)]
pub struct Case<'a> {
    inputs: u16,
    at_inputs: Cursor<'a>,
    outputs: u16,
    at_outputs: Cursor<'a>,
}

impl<'a> Case<'a> {
    /// Returns the inputs, in order.
    pub fn inputs(&self) -> impl Iterator<Item = Vector<'a>> + Clone + use<'a> {
        vectors(self.at_inputs, self.inputs)
    }

    /// Returns the expected outputs, in order.
    pub fn outputs(&self) -> impl Iterator<Item = Vector<'a>> + Clone + use<'a> {
        vectors(self.at_outputs, self.outputs)
    }
}

impl core::fmt::Debug for Case<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Case")
            .field("inputs", &self.inputs)
            .field("outputs", &self.outputs)
            .finish_non_exhaustive()
    }
}

fn vectors<'a>(
    mut cursor: Cursor<'a>,
    count: u16,
) -> impl Iterator<Item = Vector<'a>> + Clone + use<'a> {
    (0..count).map_while(move |_| cursor.tensor().ok())
}

/// A named tensor of a golden vector.
#[derive(Clone, Copy, PartialEq)]
pub struct Vector<'a> {
    /// The name of the model's input or output.
    pub name: &'a str,
    /// The element type, which is never [`DType::Dim`].
    pub dtype: DType,
    /// The maximum absolute error of each element of an expected output. 0 requires equality.
    pub tolerance: f32,
    /// The elements.
    pub content: Content<'a>,
    dims: &'a [u8],
}

impl<'a> Vector<'a> {
    /// Returns the dimensions, outermost first; at most [`MAX_RANK`].
    pub fn shape(&self) -> impl ExactSizeIterator<Item = u64> + Clone + use<'a> {
        self.dims.chunks_exact(8).map(|dim| u64_at(dim, 0))
    }
}

impl core::fmt::Debug for Vector<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:?} {}", self.name, self.dtype)?;
        f.debug_list().entries(self.shape()).finish()
    }
}

/// A read position in the section.
#[derive(Clone, Copy)]
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn invalid(&self, problem: &'static str) -> Error {
        Error::Golden { offset: self.at as u64, problem }
    }

    /// Takes `length` bytes, and the zero padding after them.
    fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let part = length
            .checked_next_multiple_of(PART_ALIGNMENT)
            .and_then(|padded| self.bytes[self.at..].get(..padded))
            .ok_or_else(|| self.invalid("the section is truncated"))?;
        let (content, padding) = part.split_at(length);
        if padding.iter().any(|byte| *byte != 0) {
            return Err(self.invalid("padding is not zero"));
        }
        self.at += part.len();
        Ok(content)
    }

    fn tensor(&mut self) -> Result<Vector<'a>, Error> {
        let start = *self;
        let head = self.take(TENSOR_BYTES)?;
        let (dtype, rank, name) =
            (head[0], usize::from(head[1] & !(GENERATED | SAMPLED)), usize::from(u16_at(head, 2)));
        let (generated, sampled) = (head[1] & GENERATED != 0, head[1] & SAMPLED != 0);
        let tolerance = f32::from_bits(u32_at(head, 4));
        let length = u64_at(head, 8);
        let dtype = DType::from_number(dtype).ok_or(start.invalid("unknown element type"))?;
        if rank > MAX_RANK {
            return Err(start.invalid("too many dimensions"));
        }
        if !(tolerance >= 0.0 && tolerance.is_finite()) {
            return Err(start.invalid("the tolerance is negative or not finite"));
        }
        let dims = self.take(8 * rank)?;
        let size = dtype.size().ok_or(start.invalid("the element type dim is not supported"))?;
        let expected = dims
            .chunks_exact(8)
            .try_fold(size as u64, |product, dim| product.checked_mul(u64_at(dim, 0)));
        if expected != Some(length) {
            return Err(start.invalid("the size of the tensor does not match its type and shape"));
        }
        let name = core::str::from_utf8(self.take(name)?)
            .map_err(|_| start.invalid("the tensor's name is not UTF-8"))?;
        let content = if generated && sampled {
            return Err(start.invalid("a tensor is both generated and sampled"));
        } else if generated {
            let numbers = self.take(Generator::BYTES)?;
            let generator = Generator {
                seed: u64_at(numbers, 0),
                low: f32::from_bits(u32_at(numbers, 8)),
                high: f32::from_bits(u32_at(numbers, 12)),
            };
            if !generator.is_sound() {
                return Err(start.invalid("generated elements need finite bounds with low <= high"));
            }
            Content::Generated(generator)
        } else if sampled {
            let step = u64_at(self.take(8)?, 0);
            if step == 0 {
                return Err(start.invalid("the step of a sampled output is 0"));
            }
            let stored = (length / size as u64).div_ceil(step).checked_mul(size as u64);
            let stored = stored.and_then(|bytes| usize::try_from(bytes).ok());
            let bytes = self.take(stored.ok_or(start.invalid("the section is truncated"))?)?;
            Content::Sampled { step, bytes }
        } else {
            let length =
                usize::try_from(length).map_err(|_| start.invalid("the section is truncated"))?;
            Content::Stored(self.take(length)?)
        };
        Ok(Vector { name, dtype, tolerance, content, dims })
    }
}

impl PartialEq for Cursor<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes && self.at == other.at
    }
}
