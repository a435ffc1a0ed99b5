//! Reading golden vectors without an allocator.

use super::{Content, GENERATED, Generator, HEAD_BYTES, PART_ALIGNMENT, SAMPLED, TENSOR_BYTES};
use crate::header::{u16_at, u32_at, u64_at};
use crate::manifest::MAX_RANK;
use crate::{DType, Error};

/// The test vectors of a bundle. Holding it proves that they are well-formed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Golden<'a> {
    bytes: &'a [u8],
    cases: u32,
}

impl<'a> Golden<'a> {
    /// Reads the bytes of a golden section. Walks over all heads, not over the elements.
    ///
    /// # Errors
    /// The first place where they break a rule of the format.
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
                    return Err(start.invalid("an input has only some of its elements"));
                }
            }
            for _ in 0..u16_at(head, 2) {
                cursor.tensor()?;
            }
        }
        if cursor.at != bytes.len() {
            return Err(cursor.invalid("bytes are left over after the last case"));
        }
        Ok(Golden { bytes, cases })
    }

    /// Number of cases.
    pub fn len(&self) -> usize {
        self.cases as usize
    }

    /// Whether there are no cases.
    pub fn is_empty(&self) -> bool {
        self.cases == 0
    }

    /// The cases in order.
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

/// Inputs of a model with the outputs they must give.
#[derive(Clone, Copy)]
pub struct Case<'a> {
    inputs: u16,
    at_inputs: Cursor<'a>,
    outputs: u16,
    at_outputs: Cursor<'a>,
}

impl<'a> Case<'a> {
    /// The inputs.
    pub fn inputs(&self) -> impl Iterator<Item = Vector<'a>> + Clone + use<'a> {
        vectors(self.at_inputs, self.inputs)
    }

    /// The outputs they must give.
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

/// A named tensor.
#[derive(Clone, Copy, PartialEq)]
pub struct Vector<'a> {
    /// Name of the model's input or output.
    pub name: &'a str,
    /// Element type; never [`DType::Dim`].
    pub dtype: DType,
    /// Of an expected output: how far an element may be from it. 0 where they must be equal.
    pub tolerance: f32,
    /// The elements.
    pub content: Content<'a>,
    dims: &'a [u8],
}

impl<'a> Vector<'a> {
    /// Dimensions, outermost first; at most [`MAX_RANK`].
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

/// A position in the section.
#[derive(Clone, Copy)]
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn invalid(&self, problem: &'static str) -> Error {
        Error::Golden { offset: self.at as u64, problem }
    }

    /// Takes a part and the zeros that fill it up.
    fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let part = length
            .checked_next_multiple_of(PART_ALIGNMENT)
            .and_then(|padded| self.bytes[self.at..].get(..padded))
            .ok_or_else(|| self.invalid("it is cut off"))?;
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
            return Err(start.invalid("the tolerance is not a number from 0"));
        }
        let dims = self.take(8 * rank)?;
        let size = dtype.size().ok_or(start.invalid("a tensor of dimensions has no bytes"))?;
        let expected = dims
            .chunks_exact(8)
            .try_fold(size as u64, |product, dim| product.checked_mul(u64_at(dim, 0)));
        if expected != Some(length) {
            return Err(start.invalid("the tensor's bytes are not as many as its shape says"));
        }
        let name = core::str::from_utf8(self.take(name)?)
            .map_err(|_| start.invalid("the tensor's name is not UTF-8"))?;
        let content = if generated && sampled {
            return Err(start.invalid("elements are both generated and left out"));
        } else if generated {
            let numbers = self.take(Generator::BYTES)?;
            let generator = Generator {
                seed: u64_at(numbers, 0),
                low: f32::from_bits(u32_at(numbers, 8)),
                high: f32::from_bits(u32_at(numbers, 12)),
            };
            if !generator.is_sound() {
                return Err(start.invalid("the limits of generated elements are not in order"));
            }
            Content::Generated(generator)
        } else if sampled {
            let step = u64_at(self.take(8)?, 0);
            if step == 0 {
                return Err(start.invalid("elements are sampled at no distance"));
            }
            let stored = (length / size as u64).div_ceil(step).checked_mul(size as u64);
            let stored = stored.and_then(|bytes| usize::try_from(bytes).ok());
            let bytes = self.take(stored.ok_or(start.invalid("it is cut off"))?)?;
            Content::Sampled { step, bytes }
        } else {
            let length = usize::try_from(length).map_err(|_| start.invalid("it is cut off"))?;
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
