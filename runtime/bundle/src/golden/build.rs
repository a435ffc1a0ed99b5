//! Writing golden vectors.

use alloc::vec::Vec;

use super::{Content, GENERATED, HEAD_BYTES, PART_ALIGNMENT, SAMPLED, TENSOR_BYTES};
use crate::manifest::MAX_RANK;
use crate::{DType, WriteError};

/// A tensor of a golden vector, as input to [`GoldenBuilder`].
#[derive(Clone, Copy, Debug)]
pub struct GoldenTensor<'a> {
    /// The name of the model's input or output.
    pub name: &'a str,
    /// The element type, which must not be [`DType::Dim`].
    pub dtype: DType,
    /// The dimensions, outermost first; at most [`MAX_RANK`].
    pub shape: &'a [u64],
    /// The elements.
    pub content: Content<'a>,
    /// The maximum absolute error of each element of an expected output. 0 requires equality, and
    /// is used for inputs.
    pub tolerance: f32,
}

/// Builds the bytes of a golden section.
///
/// # Examples
///
/// ```
/// use hardtack_bundle::DType;
/// use hardtack_bundle::golden::{Content, Generator, Golden, GoldenBuilder, GoldenTensor};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tensor = |name, content| GoldenTensor {
///     name,
///     dtype: DType::I8,
///     shape: &[1, 4],
///     content,
///     tolerance: 0.0,
/// };
/// let input = Content::Generated(Generator { seed: 1, low: -128.0, high: 128.0 });
/// let mut builder = GoldenBuilder::new();
/// builder.case(&[tensor("x", input)], &[tensor("y", Content::Stored(&[1, 2, 3, 4]))])?;
/// let section = builder.finish();
/// assert_eq!(Golden::parse(&section)?.len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct GoldenBuilder {
    bytes: Vec<u8>,
    cases: u32,
}

impl GoldenBuilder {
    /// Creates a builder without cases.
    pub fn new() -> GoldenBuilder {
        GoldenBuilder { bytes: alloc::vec![0; HEAD_BYTES], cases: 0 }
    }

    /// Adds a case: inputs and their expected outputs.
    ///
    /// # Errors
    /// Returns [`WriteError::Golden`], and adds nothing, if a tensor's bytes do not match its type
    /// and shape, or a count exceeds the limits of the format.
    pub fn case(
        &mut self,
        inputs: &[GoldenTensor<'_>],
        outputs: &[GoldenTensor<'_>],
    ) -> Result<&mut Self, WriteError> {
        let count = |tensors: &[GoldenTensor<'_>]| {
            u16::try_from(tensors.len())
                .map_err(|_| WriteError::Golden("too many tensors in a case"))
        };
        let mut head = [0; HEAD_BYTES];
        head[..2].copy_from_slice(&count(inputs)?.to_le_bytes());
        head[2..4].copy_from_slice(&count(outputs)?.to_le_bytes());
        if inputs.iter().any(|input| matches!(input.content, Content::Sampled { .. })) {
            return Err(WriteError::Golden("an input is sampled; only outputs may be sampled"));
        }
        for tensor in inputs.iter().chain(outputs) {
            check(tensor)?;
        }
        self.cases = self.cases.checked_add(1).ok_or(WriteError::Golden("too many cases"))?;
        self.part(&head);
        for tensor in inputs.iter().chain(outputs) {
            self.tensor(tensor);
        }
        Ok(self)
    }

    /// Returns the bytes of the section.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes[..4].copy_from_slice(&self.cases.to_le_bytes());
        self.bytes
    }

    /// Appends a tensor that [`check`] has accepted.
    fn tensor(&mut self, tensor: &GoldenTensor<'_>) {
        let mut head = [0; TENSOR_BYTES];
        head[0] = tensor.dtype.number();
        head[1] = tensor.shape.len() as u8;
        head[1] |= match tensor.content {
            Content::Stored(_) => 0,
            Content::Generated(_) => GENERATED,
            Content::Sampled { .. } => SAMPLED,
        };
        head[2..4].copy_from_slice(&(tensor.name.len() as u16).to_le_bytes());
        head[4..8].copy_from_slice(&tensor.tolerance.to_le_bytes());
        head[8..].copy_from_slice(&length(tensor).unwrap_or(0).to_le_bytes());
        self.part(&head);
        for dim in tensor.shape {
            self.part(&dim.to_le_bytes());
        }
        self.part(tensor.name.as_bytes());
        match tensor.content {
            Content::Stored(bytes) => self.part(bytes),
            Content::Generated(generator) => {
                let mut numbers = [0; 16];
                numbers[..8].copy_from_slice(&generator.seed.to_le_bytes());
                numbers[8..12].copy_from_slice(&generator.low.to_le_bytes());
                numbers[12..].copy_from_slice(&generator.high.to_le_bytes());
                self.part(&numbers);
            }
            Content::Sampled { step, bytes } => {
                self.part(&step.to_le_bytes());
                self.part(bytes);
            }
        }
    }

    fn part(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(PART_ALIGNMENT), 0);
    }
}

impl Default for GoldenBuilder {
    fn default() -> Self {
        GoldenBuilder::new()
    }
}

/// Returns the size of all elements in bytes, or `None` if it overflows or the element type has no
/// fixed size.
fn length(tensor: &GoldenTensor<'_>) -> Option<u64> {
    let size = tensor.dtype.size()? as u64;
    tensor.shape.iter().try_fold(size, |all, dim| all.checked_mul(*dim))
}

fn check(tensor: &GoldenTensor<'_>) -> Result<(), WriteError> {
    if tensor.dtype.size().is_none() {
        return Err(WriteError::Golden("the element type dim is not supported"));
    }
    let length = length(tensor).ok_or(WriteError::Golden("a tensor is too large"))?;
    match tensor.content {
        Content::Stored(bytes) if bytes.len() as u64 != length => {
            return Err(WriteError::Golden(
                "the size of a tensor does not match its type and shape",
            ));
        }
        Content::Generated(generator) if !generator.is_sound() => {
            return Err(WriteError::Golden(
                "generated elements need finite bounds with low <= high",
            ));
        }
        Content::Sampled { step: 0, .. } => {
            return Err(WriteError::Golden("the step of a sampled output is 0"));
        }
        Content::Sampled { step, bytes } => {
            let size = tensor.dtype.size().unwrap_or(1) as u64;
            if bytes.len() as u64 != (length / size).div_ceil(step) * size {
                return Err(WriteError::Golden(
                    "the sampled elements do not match the shape and step",
                ));
            }
        }
        _ => {}
    }
    if tensor.shape.len() > MAX_RANK {
        return Err(WriteError::Golden("a tensor has too many dimensions"));
    }
    if u16::try_from(tensor.name.len()).is_err() {
        return Err(WriteError::Golden("a tensor's name is too long"));
    }
    if !(tensor.tolerance >= 0.0 && tensor.tolerance.is_finite()) {
        return Err(WriteError::Golden("a tolerance is negative or not finite"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::Generator;
    use crate::{Error, Golden};

    fn sample() -> Vec<u8> {
        let mut golden = GoldenBuilder::new();
        let pixels = GoldenTensor {
            name: "pixels",
            dtype: DType::U8,
            shape: &[1, 3],
            content: Content::Stored(&[1, 2, 3]),
            tolerance: 0.0,
        };
        let half = 1.5f32.to_le_bytes();
        let score = GoldenTensor {
            name: "score",
            dtype: DType::F32,
            shape: &[],
            content: Content::Stored(&half),
            tolerance: 0.25,
        };
        golden.case(&[pixels], &[score]).unwrap().case(&[], &[score, pixels]).unwrap();
        golden.finish()
    }

    #[test]
    fn written_vectors_are_read_back() {
        let bytes = sample();
        let golden = Golden::parse(&bytes).unwrap();
        assert_eq!(golden.len(), 2);
        let cases: Vec<_> = golden.cases().collect();
        let input = cases[0].inputs().next().unwrap();
        assert_eq!(
            (input.name, input.dtype, input.content),
            ("pixels", DType::U8, Content::Stored(&[1, 2, 3]))
        );
        assert!(input.shape().eq([1, 3]));
        let output = cases[0].outputs().next().unwrap();
        assert_eq!((output.name, output.tolerance), ("score", 0.25));
        assert_eq!(output.shape().len(), 0);
        assert_eq!(cases[1].inputs().count(), 0);
        assert_eq!(
            cases[1].outputs().map(|vector| vector.name).collect::<Vec<_>>(),
            ["score", "pixels"]
        );
    }

    #[test]
    fn generated_elements_take_constant_space() {
        let generator = Generator { seed: 3, low: -1.0, high: 1.0 };
        let noise = GoldenTensor {
            name: "noise",
            dtype: DType::F32,
            shape: &[1, 1000, 1000],
            content: Content::Generated(generator),
            tolerance: 0.0,
        };
        let mut golden = GoldenBuilder::new();
        golden.case(&[noise], &[]).unwrap();
        let bytes = golden.finish();
        assert!(bytes.len() < 100);
        let golden = Golden::parse(&bytes).unwrap();
        let case = golden.cases().next().unwrap();
        let vector = case.inputs().next().unwrap();
        assert_eq!(vector.content, Content::Generated(generator));
        assert!(vector.shape().eq([1, 1000, 1000]));
    }

    #[test]
    fn a_large_output_is_stored_as_a_sample() {
        let sampled = |step, bytes| GoldenTensor {
            name: "boxes",
            dtype: DType::U8,
            shape: &[2, 5],
            content: Content::Sampled { step, bytes },
            tolerance: 0.0,
        };
        let mut golden = GoldenBuilder::new();
        golden.case(&[], &[sampled(4, &[0, 4, 8])]).unwrap();
        assert!(golden.case(&[], &[sampled(4, &[0, 4])]).is_err());
        assert!(golden.case(&[], &[sampled(0, &[])]).is_err());
        assert!(golden.case(&[sampled(4, &[0, 4, 8])], &[]).is_err());
        let bytes = golden.finish();
        let read = Golden::parse(&bytes).unwrap();
        let vector = read.cases().next().unwrap().outputs().next().unwrap();
        assert_eq!(vector.content, Content::Sampled { step: 4, bytes: &[0, 4, 8] });
        assert!(vector.shape().eq([2, 5]));
        for length in 0..bytes.len() {
            assert!(Golden::parse(&bytes[..length]).is_err(), "{length}");
        }
        // Turn the sampled output into an input, which must not be sampled.
        let mut input = bytes.clone();
        (input[8], input[10]) = (1, 0);
        assert!(matches!(Golden::parse(&input), Err(Error::Golden { .. })));
    }

    #[test]
    fn every_truncation_is_rejected() {
        let bytes = sample();
        for length in 0..bytes.len() {
            assert!(
                matches!(Golden::parse(&bytes[..length]), Err(Error::Golden { .. })),
                "{length}"
            );
        }
        let longer = [&bytes[..], &[0; 8]].concat();
        assert!(matches!(Golden::parse(&longer), Err(Error::Golden { .. })));
    }

    #[test]
    fn inconsistent_tensors_are_not_written() {
        let mut golden = GoldenBuilder::new();
        let tensor = GoldenTensor {
            name: "x",
            dtype: DType::I16,
            shape: &[2],
            content: Content::Stored(&[0; 4]),
            tolerance: 0.0,
        };
        golden.case(&[tensor], &[]).unwrap();
        let before = golden.clone().finish();
        for wrong in [
            GoldenTensor { content: Content::Stored(&[0; 3]), ..tensor },
            GoldenTensor { dtype: DType::Dim, ..tensor },
            GoldenTensor { shape: &[1; 9], content: Content::Stored(&[0; 2]), ..tensor },
            GoldenTensor { shape: &[u64::MAX, 2], ..tensor },
            GoldenTensor { tolerance: f32::NAN, ..tensor },
            GoldenTensor { tolerance: -1.0, ..tensor },
        ] {
            assert!(matches!(golden.case(&[], &[wrong]), Err(WriteError::Golden(_))), "{wrong:?}");
        }
        assert_eq!(golden.finish(), before);
    }
}
