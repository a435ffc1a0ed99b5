//! The sample inputs of a conversion: calibration data, or random numbers if there is none.

pub(crate) mod constraints;
mod read;
mod spool;

use std::borrow::Cow;
use std::path::Path;

use hardtack::process::Preprocessor;
use hardtack::{Tensor, for_data};
use hardtack_bundle::DType;
use hardtack_bundle::golden::Generator;
use hardtack_bundle::graph::{Dim, Fact, Graph, Node};

use crate::error::Error;
use crate::graph::io::Signature;
use crate::model_limits;
use crate::process::memory_bytes;

use constraints::Constraint;
pub use read::files;
pub(crate) use spool::Spool;

/// The size assumed for a dynamic first dimension, and for any other dynamic dimension.
const BATCH: usize = 1;
const OTHER: usize = 32;
/// The number of random samples.
const RANDOM: u64 = 3;
/// Random samples take at most one part in `SAMPLES_PART` of the conversion's memory limit.
const SAMPLES_PART: u64 = 8;

/// How random samples are generated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// The size of a dynamic first dimension.
    pub batch: usize,
    /// The size of any other dynamic dimension.
    pub other: usize,
    /// The smallest integer.
    pub low: f32,
    /// The largest integer plus 1.
    pub high: f32,
    /// The smallest and the largest float.
    pub floats: (f32, f32),
}

/// The range of random floats, and that for models whose results are not finite on those, such as
/// logarithms and square roots.
const FLOATS: (f32, f32) = (-1.0, 1.0);
pub(crate) const POSITIVE: (f32, f32) = (0.125, 1.0);

/// The rules for random samples, in the order in which they are tried: the first on which a model
/// runs is taken.
pub const RULES: [Rule; 9] = [
    rule(BATCH, OTHER, 0.0, 2.0),
    rule(BATCH, OTHER, 1.0, 2.0),
    rule(BATCH, OTHER, 0.0, 1.0),
    rule(4, 16, 0.0, 2.0),
    rule(BATCH, BATCH, 1.0, 2.0),
    rule(6, 7, 2.0, 6.0),
    rule(16, 16, 0.0, 2.0),
    rule(64, 64, 0.0, 2.0),
    rule(0, 0, 0.0, 1.0),
];

/// Rules for samples with other sizes than [`RULES`] begin with: small ones, and multiples of 32.
pub(crate) const OTHER_SIZES: [Rule; 2] = [rule(3, 5, 0.0, 2.0), rule(2, 64, 0.0, 2.0)];

const fn rule(batch: usize, other: usize, low: f32, high: f32) -> Rule {
    Rule { batch, other, low, high, floats: FLOATS }
}

/// A sequence of model inputs that can be read repeatedly and in any order.
///
/// # Examples
///
/// ```
/// use hardtack::Tensor;
/// use hardtack_converter::samples::{First, SampleSource, each};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // Three samples of a model with one input.
/// let sample = |value| vec![Tensor::new(&[1, 2], vec![value; 2]).unwrap()];
/// let samples = vec![sample(0.0f32), sample(0.5), sample(1.0)];
/// let first = First(&samples, 2);
/// assert_eq!((samples.count(), first.count()), (3, 2));
/// for inputs in each(&first) {
///     println!("{:?}", inputs?[0].to_f32());
/// }
/// # Ok(())
/// # }
/// ```
pub trait SampleSource {
    /// Returns the number of samples.
    fn count(&self) -> usize;

    /// Returns the inputs of sample `index`, in the order of the model's inputs.
    ///
    /// # Errors
    /// Returns an error if they cannot be read from the temporary file.
    fn sample(&self, index: usize) -> Result<Cow<'_, [Tensor]>, Error>;
}

impl SampleSource for Vec<Vec<Tensor>> {
    fn count(&self) -> usize {
        self.len()
    }

    fn sample(&self, index: usize) -> Result<Cow<'_, [Tensor]>, Error> {
        Ok(Cow::Borrowed(&self[index]))
    }
}

/// The first `.1` samples of the source `.0`.
pub struct First<'s>(pub &'s dyn SampleSource, pub usize);

impl SampleSource for First<'_> {
    fn count(&self) -> usize {
        self.0.count().min(self.1)
    }

    fn sample(&self, index: usize) -> Result<Cow<'_, [Tensor]>, Error> {
        self.0.sample(index)
    }
}

/// Iterates over all samples of a source, in order.
pub fn each(source: &dyn SampleSource) -> impl Iterator<Item = Result<Cow<'_, [Tensor]>, Error>> {
    (0..source.count()).map(|index| source.sample(index))
}

/// Sample inputs of a model, and their origin.
pub struct Samples {
    /// The samples.
    pub inputs: Box<dyn SampleSource>,
    /// The origin: `random`, or the name of the file or folder.
    pub source: String,
    /// For random samples, the generator of each input of each sample; empty otherwise.
    pub generators: Vec<Vec<Generator>>,
    /// How the data were changed to fit the inputs, one sentence each.
    pub notes: Vec<String>,
}

impl Samples {
    /// Returns whether the samples are user data, not random numbers.
    pub fn are_user_data(&self) -> bool {
        self.generators.is_empty()
    }

    /// Checks that activation ranges can be calibrated from the samples.
    ///
    /// # Errors
    /// Returns [`Error::Options`] if an input has the same value in all elements of all samples, or
    /// if a value is not finite.
    ///
    /// # Examples
    ///
    /// ```
    /// use hardtack::Tensor;
    /// use hardtack_converter::samples::Samples;
    ///
    /// let zeros = || vec![Tensor::new(&[1, 4], vec![0.0f32; 4]).unwrap()];
    /// let samples = Samples {
    ///     inputs: Box::new(vec![zeros(), zeros()]),
    ///     source: "calibration.npz".into(),
    ///     generators: vec![],
    ///     notes: vec![],
    /// };
    /// let error = samples.check_calibration().unwrap_err().to_string();
    /// assert!(error.starts_with("calibration.npz: all elements of all calibration samples"));
    /// ```
    pub fn check_calibration(&self) -> Result<(), Error> {
        let refuse = |problem: String| Err(Error::Options(format!("{}: {problem}", self.source)));
        // For each input: its first value, and whether any value differs from that.
        let mut seen: Vec<(Option<f32>, bool)> = Vec::new();
        for (index, sample) in each(&*self.inputs).enumerate() {
            let sample = sample?;
            seen.resize(sample.len(), (None, false));
            for (tensor, (first, differ)) in sample.iter().zip(&mut seen) {
                let Some(values) = tensor.as_f32() else {
                    *differ = true;
                    continue;
                };
                if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                    return refuse(format!("calibration sample {index} contains {value}"));
                }
                *differ |= values.iter().any(|value| *first.get_or_insert(*value) != *value);
            }
        }
        match seen.iter().find_map(|(first, differ)| first.filter(|_| !differ)) {
            Some(value) => refuse(format!(
                "all elements of all calibration samples are {value}, which gives no value range; \
                 check the data and its pre-processing"
            )),
            None => Ok(()),
        }
    }

    /// Generates random samples for the graph's inputs: floats from −1 to 1, integers 0 and 1.
    ///
    /// # Errors
    /// See [`Samples::generated`].
    ///
    /// # Examples
    ///
    /// ```
    /// use hardtack_converter::import::{ImportOptions, import};
    /// use hardtack_converter::samples::Samples;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/data/keyword_spotting");
    /// # std::env::set_current_dir(data)?;
    /// let imported = import("kws_dscnn.onnx".as_ref(), &ImportOptions::default())?;
    /// let samples = Samples::random(&imported.model.graph)?;
    /// assert!(!samples.are_user_data());
    /// assert_eq!(samples.inputs.sample(0)?[0].shape(), [1, 49, 10, 1]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn random(graph: &Graph) -> Result<Samples, Error> {
        Samples::generated(graph, RANDOM)
    }

    /// Generates the first `count` random samples.
    ///
    /// # Errors
    /// Returns [`Error::Input`] if an input has too many elements for a test vector, or if the
    /// samples take too much of the conversion's memory limit. Also fails if the
    /// model exceeds a compute or memory limit.
    pub fn generated(graph: &Graph, count: u64) -> Result<Samples, Error> {
        Samples::generated_by(graph, count, RULES[0], &[])
    }

    /// Generates random samples by a rule that obey the constraints of the inputs.
    ///
    /// # Errors
    /// See [`Samples::generated`].
    pub(crate) fn random_by(
        graph: &Graph,
        rule: Rule,
        constraints: &[Constraint],
    ) -> Result<Samples, Error> {
        Samples::generated_by(graph, RANDOM, rule, constraints)
    }

    fn generated_by(
        graph: &Graph,
        count: u64,
        rule: Rule,
        constraints: &[Constraint],
    ) -> Result<Samples, Error> {
        let free = Constraint::default();
        let shapes = shapes(graph, count, rule, memory_bytes() / SAMPLES_PART)?;
        model_limits::check(graph, &shapes)?;
        let mut inputs: Vec<Vec<Tensor>> = Vec::new();
        let mut generators = Vec::new();
        for sample in 0..count {
            let (mut tensors, mut rules) = (Vec::new(), Vec::new());
            for (index, (node, shape)) in graph.inputs.iter().zip(&shapes).enumerate() {
                let node = &graph.nodes[*node as usize];
                let dtype = node.outputs[0].dtype;
                let constraint = constraints.get(index).unwrap_or(&free);
                let generator = generator(dtype, sample << 32 | index as u64, rule, constraint);
                let tensor = match &constraint.value {
                    Some(value) => Some(value.clone()),
                    None => hardtack::golden::generate(dtype, shape, &generator),
                };
                tensors.push(tensor.ok_or_else(|| too_large(node, shape))?);
                rules.push(generator);
            }
            inputs.push(tensors);
            generators.push(rules);
        }
        Ok(Samples { inputs: Box::new(inputs), source: "random".into(), generators, notes: vec![] })
    }

    /// Reads at most `limit` samples of real inputs from one of:
    ///
    /// - an `.npz` file with an array for each input, or a single array `x`
    /// - an `.npy` file with the array of the input of that name, or with such an array `x`
    /// - an image or audio file, or a folder of them
    ///
    /// The first dimension of an array is the samples. Inputs with an initial value
    /// ([`Endpoint::initial`](crate::Endpoint::initial)) may be left out. Arrays that are not
    /// pre-processed are cast to the type of their input, which [`Samples::notes`] lists.
    ///
    /// # Errors
    /// Returns an error if the files cannot be read, or do not fit the model's inputs.
    pub fn read(
        path: &Path,
        limit: usize,
        graph: &Graph,
        signature: &Signature,
        preprocessor: &Preprocessor,
    ) -> Result<Samples, Error> {
        let source: String =
            path.file_name().map_or("data".into(), |name| name.to_string_lossy().into());
        let mut notes = Vec::new();
        let inputs =
            read::Reader { path, limit, graph, signature, preprocessor }.read(&mut notes)?;
        if inputs.count() == 0 {
            return Err(Error::Data { path: path.into(), problem: "it has no samples".into() });
        }
        Ok(Samples { inputs: Box::new(inputs), source, generators: Vec::new(), notes })
    }
}

/// Returns the shapes of a graph's inputs, with small sizes for dynamic dimensions.
///
/// # Errors
/// Returns [`Error::Input`] if `count` samples of them take more than `limit` bytes.
fn shapes(graph: &Graph, count: u64, rule: Rule, limit: u64) -> Result<Vec<Vec<usize>>, Error> {
    let mut left = limit;
    let mut shapes = Vec::new();
    let values = values(graph, rule);
    for node in &graph.inputs {
        let node = &graph.nodes[*node as usize];
        let Fact { dtype, shape } = &node.outputs[0];
        let shape: Vec<usize> = shape
            .iter()
            .map(|dim| dim.evaluate(&values).and_then(|v| usize::try_from(v).ok()).unwrap_or(1))
            .collect();
        let sizes = shape.iter().map(|size| *size as u64);
        let size = dtype.size().unwrap_or(8) as u64;
        let bytes = sizes.fold(size, u64::saturating_mul).saturating_mul(count);
        left = left.checked_sub(bytes).ok_or_else(|| too_large(node, &shape))?;
        shapes.push(shape);
    }
    Ok(shapes)
}

/// Returns the sizes of a graph's symbols. A symbol has the same size on all axes.
fn values(graph: &Graph, rule: Rule) -> Vec<Option<i64>> {
    let mut values = vec![None; graph.symbols.len()];
    let facts = graph.inputs.iter().map(|node| &graph.nodes[*node as usize].outputs[0]);
    let facts: Vec<&Fact> = facts.collect();
    for (is_first, size) in [(true, rule.batch), (false, rule.other)] {
        for (axis, dim) in facts.iter().flat_map(|fact| fact.shape.iter().enumerate()) {
            if (axis == 0) == is_first
                && let Some(value @ None) =
                    dim.as_symbol().and_then(|symbol| values.get_mut(symbol as usize))
            {
                *value = Some(size as i64);
            }
        }
    }
    values.into_iter().map(|value| value.or(Some(rule.other as i64))).collect()
}

fn too_large(node: &Node, shape: &[usize]) -> Error {
    Error::Input { input: node.name.clone(), shape: shape.into() }
}

/// Evaluates a shape, with small sizes for dynamic dimensions: 1 for axis 0, and 32 for others.
///
/// # Examples
///
/// ```
/// use hardtack_bundle::graph::Dim;
/// use hardtack_converter::samples::concrete;
///
/// // [batch, seq, 64], where `batch` and `seq` are the symbols 0 and 1.
/// let shape = [Dim::symbol(0), Dim::symbol(1), Dim::Value(64)];
/// assert_eq!(concrete(&shape, 2), [1, 32, 64]);
/// ```
pub fn concrete(shape: &[Dim], symbols: usize) -> Vec<usize> {
    shape
        .iter()
        .enumerate()
        .map(|(axis, dim)| {
            let value = if axis == 0 { BATCH } else { OTHER };
            let values = vec![Some(value as i64); symbols];
            dim.evaluate(&values).and_then(|v| usize::try_from(v).ok()).unwrap_or(value)
        })
        .collect()
}

fn generator(dtype: DType, seed: u64, rule: Rule, constraint: &Constraint) -> Generator {
    match dtype {
        DType::F32 | DType::F64 | DType::F16 | DType::BF16 => {
            let (low, high) = rule.floats;
            Generator { seed, low, high }
        }
        DType::Bool => Generator { seed, low: 0.0, high: 2.0 },
        _ => {
            let (low, high) = constraint.range(rule);
            Generator { seed, low, high }
        }
    }
}

/// Returns sample `index` of a tensor whose first dimension is the samples, without that dimension.
///
/// # Examples
///
/// ```
/// use hardtack::Tensor;
/// use hardtack_converter::samples::row;
///
/// let samples = Tensor::new(&[2, 3], vec![1, 2, 3, 4, 5, 6]).unwrap();
/// assert_eq!(row(&samples, 1), Tensor::new(&[3], vec![4, 5, 6]).unwrap());
/// ```
pub fn row(tensor: &Tensor, index: usize) -> Tensor {
    let shape = &tensor.shape()[1..];
    let elements: usize = shape.iter().product();
    let range = index * elements..(index + 1) * elements;
    let row = for_data!(tensor.data(), v => Tensor::new(shape, v[range].to_vec()));
    row.expect("a row of its tensor")
}

#[cfg(test)]
mod tests;
