//! Runs a bundle's test vectors (its golden section) on this machine.

use std::borrow::Cow;

use half::{bf16, f16};
use hardtack_bundle::DType;
use hardtack_bundle::golden::{Case, Content, Generator, Golden, Vector};

use crate::state::StatePolicy;
use crate::{Bundle, Error, Session, Tensor, for_data};

/// The maximum number of elements of one generated vector.
const LIMIT: usize = 1 << 28;
/// The maximum number of elements in all generated vectors of a bundle. A few bytes of a bundle can
/// describe a vector of any size.
const LIMIT_GENERATED: u64 = 1 << 27;

/// The result of running a bundle's test vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The number of test cases; 0 if the bundle has none.
    pub cases: usize,
    /// The outputs that any case expects, in order of first appearance.
    pub outputs: Vec<OutputReport>,
}

/// The result for one output, over all cases.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputReport {
    /// The name of the output.
    pub name: String,
    /// The largest absolute difference that any case allows; 0 requires identical bits.
    pub tolerance: f32,
    /// The largest absolute difference of an element. Infinite if the shape or element type
    /// differs, or if only one of two elements is finite.
    pub difference: f64,
    /// Whether the output is within the tolerance of its case, in every case.
    pub holds: bool,
}

impl Report {
    /// Returns whether every output of every case is within its tolerance.
    pub fn holds(&self) -> bool {
        self.outputs.iter().all(|output| output.holds)
    }
}

/// Runs every case of the bundle's golden section and compares the outputs with the expected ones.
/// Each case starts with zero states. Afterwards, the states of the session are zero too.
///
/// # Errors
/// Returns an error if the section is damaged or malformed, or if a case fails to run. A different
/// output is not an error: see [`Report::holds`].
///
/// # Examples
///
/// ```
/// use hardtack::{Bundle, Session, golden};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
/// # std::env::set_current_dir(folder)?;
/// let bundle = Bundle::open("kws_dscnn.tack")?;
/// let mut session = Session::new(&bundle)?;
/// let report = golden::check(&bundle, &mut session)?;
/// for output in &report.outputs {
///     println!("{}: difference {}", output.name, output.difference);
/// }
/// assert!(report.holds());
/// # Ok(())
/// # }
/// ```
pub fn check(bundle: &Bundle, session: &mut Session) -> Result<Report, Error> {
    let mut report = Report { cases: 0, outputs: Vec::new() };
    let Some(golden) = bundle.golden()? else { return Ok(report) };
    check_generated(&golden)?;
    session.reset();
    let control = session.control();
    let mut budget = session.limits().operations;
    for case in golden.cases() {
        let inputs = inputs(&case)?;
        let outputs = session.run_with(&named(&inputs), StatePolicy::Initial, &control, None)?;
        budget = session.limits().spend(budget, session.operations())?;
        for vector in case.outputs() {
            if outputs.get(vector.name).is_none() {
                return Err(Error::TestVector { name: vector.name.into() });
            }
            let expected = tensor(&vector)?;
            let found = outputs.get(vector.name).and_then(|found| comparable(&vector, found));
            let difference =
                found.as_ref().map_or(f64::INFINITY, |found| difference(&expected, found));
            let holds = match vector.tolerance {
                0.0 => found.is_some_and(|found| identical(&expected, &found)),
                tolerance => difference <= f64::from(tolerance),
            };
            report.add(&vector, difference, holds);
        }
        report.cases += 1;
    }
    session.reset();
    Ok(report)
}

/// Checks the total size of the vectors that are generated rather than stored.
pub(crate) fn check_generated(golden: &Golden<'_>) -> Result<(), Error> {
    let vectors = golden.cases().flat_map(|case| case.inputs().chain(case.outputs()));
    let sizes = vectors.map(|vector| match vector.content {
        Content::Generated(_) => vector.shape().fold(1, u64::saturating_mul),
        Content::Stored(_) | Content::Sampled { .. } => 0,
    });
    let elements = sizes.fold(0, u64::saturating_add);
    if elements <= LIMIT_GENERATED {
        return Ok(());
    }
    Err(Error::TestVectors { elements, limit: LIMIT_GENERATED })
}

impl Report {
    fn add(&mut self, vector: &Vector<'_>, difference: f64, holds: bool) {
        match self.outputs.iter_mut().find(|output| output.name == vector.name) {
            Some(output) => {
                output.tolerance = output.tolerance.max(vector.tolerance);
                output.difference = output.difference.max(difference);
                output.holds &= holds;
            }
            None => self.outputs.push(OutputReport {
                name: vector.name.into(),
                tolerance: vector.tolerance,
                difference,
                holds,
            }),
        }
    }
}

/// Returns the elements of an output that a vector is compared with; `None` if the shapes differ.
fn comparable<'a>(vector: &Vector<'_>, found: &'a Tensor) -> Option<Cow<'a, Tensor>> {
    let Content::Sampled { step, .. } = vector.content else { return Some(Cow::Borrowed(found)) };
    if !vector.shape().eq(found.shape().iter().map(|dim| *dim as u64)) {
        return None;
    }
    let step = usize::try_from(step).unwrap_or(usize::MAX);
    let size = found.dtype().size()?;
    let bytes = found.to_bytes();
    let sampled: Vec<u8> = bytes.chunks(size).step_by(step).flatten().copied().collect();
    Tensor::from_bytes(found.dtype(), &[sampled.len() / size], &sampled).map(Cow::Owned)
}

/// Returns the names and inputs of a case.
///
/// # Errors
/// See [`tensor`].
///
/// # Examples
///
/// Run the first test vector of a bundle:
///
/// ```
/// use hardtack::{Bundle, Session, golden};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
/// # std::env::set_current_dir(folder)?;
/// let bundle = Bundle::open("kws_dscnn.tack")?;
/// let mut session = Session::new(&bundle)?;
/// let vectors = bundle.golden()?.unwrap();
/// let inputs = golden::inputs(&vectors.cases().next().unwrap())?;
/// let outputs = session.run(&golden::named(&inputs))?;
/// assert_eq!(outputs[0].0, "probs");
/// # Ok(())
/// # }
/// ```
pub fn inputs(case: &Case<'_>) -> Result<Vec<(String, Tensor)>, Error> {
    case.inputs().map(|vector| Ok((vector.name.to_owned(), tensor(&vector)?))).collect()
}

/// Borrows inputs in the form that [`Session::run`] takes.
pub fn named(inputs: &[(String, Tensor)]) -> Vec<(&str, &Tensor)> {
    inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect()
}

/// Returns the tensor that a vector describes; for a sampled vector, only the stored elements.
///
/// # Errors
/// Returns [`Error::TooLarge`] if this machine cannot hold the tensor.
pub fn tensor(vector: &Vector<'_>) -> Result<Tensor, Error> {
    let too_large =
        || Error::TooLarge { name: vector.name.into(), shape: vector.shape().collect() };
    let size = |size: u64| usize::try_from(size).ok();
    let shape: Vec<usize> =
        vector.shape().map(size).collect::<Option<_>>().ok_or_else(too_large)?;
    match vector.content {
        Content::Stored(bytes) => Tensor::from_bytes(vector.dtype, &shape, bytes),
        Content::Generated(generator) => generate(vector.dtype, &shape, &generator),
        Content::Sampled { bytes, .. } => {
            let count = bytes.len() / vector.dtype.size().unwrap_or(1);
            Tensor::from_bytes(vector.dtype, &[count], bytes)
        }
    }
    .ok_or_else(too_large)
}

/// Generates a tensor of this type and shape. Returns `None` for symbolic dimensions, and if a
/// vector may not have this many elements.
///
/// # Examples
///
/// ```
/// use hardtack::{DType, golden};
/// use hardtack_bundle::golden::Generator;
///
/// let generator = Generator { seed: 7, low: -1.0, high: 1.0 };
/// let tensor = golden::generate(DType::F32, &[2, 3], &generator).unwrap();
/// assert!(tensor.to_f32().iter().all(|value| (-1.0..1.0).contains(value)));
/// ```
pub fn generate(dtype: DType, shape: &[usize], generator: &Generator) -> Option<Tensor> {
    let count = shape.iter().try_fold(1usize, |all, dim| all.checked_mul(*dim))?;
    if count > LIMIT {
        return None;
    }
    let real = (0..count as u64).map(|index| generator.element(index));
    macro_rules! integers {
        ($type:ty) => {
            Tensor::new(shape, real.map(|x| x.floor() as $type).collect::<Vec<_>>())
        };
    }
    match dtype {
        DType::Bool => Tensor::new(shape, real.map(|x| x.floor() != 0.0).collect::<Vec<_>>()),
        DType::I8 => integers!(i8),
        DType::U8 => integers!(u8),
        DType::I16 => integers!(i16),
        DType::U16 => integers!(u16),
        DType::I32 => integers!(i32),
        DType::U32 => integers!(u32),
        DType::I64 => integers!(i64),
        DType::U64 => integers!(u64),
        DType::F16 => Tensor::new(shape, real.map(f16::from_f32).collect::<Vec<_>>()),
        DType::BF16 => Tensor::new(shape, real.map(bf16::from_f32).collect::<Vec<_>>()),
        DType::F32 => Tensor::new(shape, real.collect::<Vec<_>>()),
        DType::F64 => Tensor::new(shape, real.map(f64::from).collect::<Vec<_>>()),
        DType::Dim => return None,
    }
    .ok()
}

/// Returns whether type, shape and every bit are equal. Any NaN equals any other: which NaN a
/// processor produces depends on the order of operands, which IEEE 754 does not specify.
fn identical(a: &Tensor, b: &Tensor) -> bool {
    if a.dtype() != b.dtype() || a.shape() != b.shape() {
        return false;
    }
    let (a_bytes, b_bytes) = (a.to_bytes(), b.to_bytes());
    if a_bytes == b_bytes {
        return true;
    }
    let size = a.dtype().size().unwrap_or(1);
    let bits = a_bytes.chunks(size).zip(b_bytes.chunks(size)).map(|(a, b)| a == b);
    let mut numbers = floats(a).into_iter().zip(floats(b)).zip(bits);
    numbers.all(|((a, b), same)| same || a.is_nan() && b.is_nan())
}

/// Returns the largest absolute difference of elements. Two NaNs differ by 0.
fn difference(a: &Tensor, b: &Tensor) -> f64 {
    if a.dtype() != b.dtype() || a.shape() != b.shape() {
        return f64::INFINITY;
    }
    let pairs = floats(a).into_iter().zip(floats(b));
    pairs.map(|(a, b)| distance(a, b)).fold(0.0, f64::max)
}

fn distance(a: f64, b: f64) -> f64 {
    if a == b || (a.is_nan() && b.is_nan()) {
        return 0.0;
    }
    let distance = (a - b).abs();
    if distance.is_nan() { f64::INFINITY } else { distance }
}

fn floats(tensor: &Tensor) -> Vec<f64> {
    trait Real: Copy {
        fn real(self) -> f64;
    }
    macro_rules! real {
        ($($type:ty: $x:ident => $real:expr),*) => {
            $(impl Real for $type { fn real(self) -> f64 { let $x = self; $real } })*
        };
    }
    real!(bool: x => f64::from(u8::from(x)), i8: x => x.into(), u8: x => x.into(),
          i16: x => x.into(), u16: x => x.into(), i32: x => x.into(), u32: x => x.into(),
          i64: x => x as f64, u64: x => x as f64, f16: x => x.to_f64(), bf16: x => x.to_f64(),
          f32: x => x.into(), f64: x => x);
    for_data!(tensor.data(), elements => elements.iter().map(|element| element.real()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(bits: &[u32]) -> Tensor {
        let values = bits.iter().map(|bits| f32::from_bits(*bits)).collect::<Vec<_>>();
        Tensor::new(&[bits.len()], values).expect("the shape has the same number of elements")
    }

    #[test]
    fn any_nan_equals_any_other() {
        const ONE: u32 = 0x3f80_0000;
        let (positive, negative) = (tensor(&[0x7fc0_0000, ONE]), tensor(&[0xffc0_0001, ONE]));
        assert!(identical(&positive, &negative));
        assert_eq!(difference(&positive, &negative), 0.0);
        assert!(!identical(&positive, &tensor(&[ONE, ONE])));
        // Zeros of different sign differ in a bit.
        assert!(!identical(&tensor(&[0]), &tensor(&[1 << 31])));
        assert!(!identical(&tensor(&[0x7f80_0000]), &tensor(&[0xff80_0000])));
    }

    #[test]
    fn integers_that_differ_are_not_identical() {
        let tensor = |values: Vec<i32>| Tensor::new(&[values.len()], values).unwrap();
        assert!(identical(&tensor(vec![1, -1]), &tensor(vec![1, -1])));
        assert!(!identical(&tensor(vec![1, -1]), &tensor(vec![1, -2])));
    }
}
