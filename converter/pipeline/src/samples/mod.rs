//! The sample inputs of a conversion: calibration data, or random numbers if there is none.

mod spool;
mod widen;

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

use hardtack::process::Preprocessor;
use hardtack::{Tensor, for_data};
use hardtack_bundle::DType;
use hardtack_bundle::golden::Generator;
use hardtack_bundle::graph::{Dim, Fact, Graph, Node};

use crate::arrays::{Archive, Description};
use crate::error::Error;
use crate::graph::io::Signature;
use crate::model_limits;
use crate::process::memory_bytes;

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
}

/// The rules for random samples, in the order in which they are tried: the first on which a model
/// runs is taken.
pub const RULES: [Rule; 7] = [
    Rule { batch: BATCH, other: OTHER, low: 0.0, high: 2.0 },
    Rule { batch: BATCH, other: OTHER, low: 1.0, high: 2.0 },
    Rule { batch: BATCH, other: OTHER, low: 0.0, high: 1.0 },
    Rule { batch: 4, other: 16, low: 0.0, high: 2.0 },
    Rule { batch: BATCH, other: BATCH, low: 1.0, high: 2.0 },
    Rule { batch: 6, other: 7, low: 2.0, high: 6.0 },
    Rule { batch: 0, other: 0, low: 0.0, high: 1.0 },
];

/// Rules for samples with other sizes than [`RULES`] begin with: small ones, and multiples of 32.
pub(crate) const OTHER_SIZES: [Rule; 2] = [
    Rule { batch: 3, other: 5, low: 0.0, high: 2.0 },
    Rule { batch: 2, other: 64, low: 0.0, high: 2.0 },
];

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
        Samples::generated_by(graph, count, RULES[0])
    }

    /// Generates random samples by a rule.
    ///
    /// # Errors
    /// See [`Samples::generated`].
    pub fn random_by(graph: &Graph, rule: Rule) -> Result<Samples, Error> {
        Samples::generated_by(graph, RANDOM, rule)
    }

    fn generated_by(graph: &Graph, count: u64, rule: Rule) -> Result<Samples, Error> {
        let shapes = shapes(graph, count, rule, memory_bytes() / SAMPLES_PART)?;
        model_limits::check(graph, &shapes)?;
        let mut inputs: Vec<Vec<Tensor>> = Vec::new();
        let mut generators = Vec::new();
        for sample in 0..count {
            let (mut tensors, mut rules) = (Vec::new(), Vec::new());
            for (index, (node, shape)) in graph.inputs.iter().zip(&shapes).enumerate() {
                let node = &graph.nodes[*node as usize];
                let dtype = node.outputs[0].dtype;
                let generator = generator(dtype, sample << 32 | index as u64, rule);
                let tensor = hardtack::golden::generate(dtype, shape, &generator);
                tensors.push(tensor.ok_or_else(|| too_large(node, shape))?);
                rules.push(generator);
            }
            inputs.push(tensors);
            generators.push(rules);
        }
        Ok(Samples { inputs: Box::new(inputs), source: "random".into(), generators })
    }

    /// Reads at most `limit` samples of calibration data from one of:
    ///
    /// - an `.npz` file with an array for each input, or a single array `x`
    /// - an `.npy` file with such an array `x`
    /// - an image or audio file, or a folder of them
    ///
    /// The first dimension of an array is the samples.
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
        let source = path.file_name().map_or("data".into(), |name| name.to_string_lossy().into());
        let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        let inputs = match extension.as_deref() {
            _ if path.is_dir() => read_files(files(path)?, limit, preprocessor)?,
            Some(extension) if FILES.contains(&extension) => {
                read_files(vec![path.into()], limit, preprocessor)?
            }
            _ => read_arrays(path, limit, graph, signature, preprocessor)?,
        };
        if inputs.count() == 0 {
            return Err(Error::Data { path: path.into(), problem: "it has no samples".into() });
        }
        Ok(Samples { inputs: Box::new(inputs), source, generators: Vec::new() })
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

fn generator(dtype: DType, seed: u64, rule: Rule) -> Generator {
    match dtype {
        DType::F32 | DType::F64 | DType::F16 | DType::BF16 => {
            Generator { seed, low: -1.0, high: 1.0 }
        }
        DType::Bool => Generator { seed, low: 0.0, high: 2.0 },
        _ => Generator { seed, low: rule.low, high: rule.high },
    }
}

/// The file extensions of images and audio files.
const FILES: [&str; 4] = ["jpg", "jpeg", "png", "wav"];

fn read_files(
    files: Vec<PathBuf>,
    limit: usize,
    preprocessor: &Preprocessor,
) -> Result<Spool, Error> {
    let mut spool = Spool::new()?;
    for path in files {
        let inputs = preprocessor
            .file(&path)
            .map_err(|error| Error::Data { path: path.clone(), problem: error.to_string() })?;
        for input in inputs.take(limit - spool.count()) {
            spool.push([&input])?;
        }
        if spool.count() >= limit {
            break;
        }
    }
    Ok(spool)
}

/// Lists the images and audio files of a folder and its subfolders, sorted by path.
///
/// # Errors
/// Returns [`Error::Read`] if a folder cannot be read.
///
/// # Examples
///
/// ```
/// use std::path::Path;
///
/// use hardtack_converter::samples::files;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/data");
/// # std::env::set_current_dir(data)?;
/// let photos = files(Path::new("photos"))?;
/// assert_eq!(photos, [Path::new("photos/beach.jpg"), Path::new("photos/cat.jpg")]);
/// # Ok(())
/// # }
/// ```
pub fn files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    // Symbolic links may form cycles.
    let mut seen = HashSet::new();
    while let Some(folder) = folders.pop() {
        let read = |source| Error::Read { path: folder.clone(), source };
        if !seen.insert(folder.canonicalize().map_err(read)?) {
            continue;
        }
        for entry in std::fs::read_dir(&folder).map_err(read)? {
            let path = entry.map_err(read)?.path();
            let extension =
                path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
            if path.is_dir() {
                folders.push(path);
            } else if FILES.contains(&extension.as_str()) && path.is_file() {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn read_arrays(
    path: &Path,
    limit: usize,
    graph: &Graph,
    signature: &Signature,
    preprocessor: &Preprocessor,
) -> Result<Spool, Error> {
    let alone = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("npy"));
    let mut archive = match alone {
        true => Archive::of_array(path, "x"),
        false => Archive::open(path)?,
    };
    let mut chosen = Vec::new();
    for (name, raw) in choose(&mut archive, path, signature)? {
        let node = &graph.nodes[graph.inputs[chosen.len()] as usize];
        let described = archive.describe(&name)?.expect("an array of this name exists");
        let Description { dtype, shape } = &described;
        let problem = |problem: String| Error::Data { path: path.into(), problem };
        // Check the shape before reading the elements.
        let Some((_, sample)) = shape.split_first() else {
            return Err(problem(format!(
                "array {name:?} is a scalar; its first dimension must be the samples"
            )));
        };
        if raw {
            let accepted = preprocessor.accepts_sample(*dtype, sample);
            accepted.map_err(|error| problem(error.to_string()))?;
        } else if fit(sample, &node.outputs[0].shape).is_none() {
            return Err(problem(format!(
                "the array for {:?} has samples of shape {sample:?}, but the model expects {}",
                node.name,
                signature.shape_text(&node.outputs[0].shape),
            )));
        }
        let array = archive.read_rows(&name, limit)?.expect("an array of this name exists");
        chosen.push((array, raw));
    }
    let problem = |problem: String| Error::Data { path: path.into(), problem };
    let count = chosen.iter().map(|(tensor, _)| tensor.shape()[0]).min();
    let mut spool = Spool::new()?;
    for index in 0..count.unwrap_or(0).min(limit) {
        let mut inputs = Vec::new();
        for ((tensor, raw), node) in chosen.iter().zip(&graph.inputs) {
            let sample = row(tensor, index);
            inputs.push(if *raw {
                preprocessor.array(&sample).map_err(|error| problem(error.to_string()))?
            } else {
                let expected = &graph.nodes[*node as usize].outputs[0].shape;
                let shape = fit(sample.shape(), expected).expect("compared before");
                let sample = sample.reshape(&shape).expect("a view of it");
                widen::widened(sample, graph.nodes[*node as usize].outputs[0].dtype)
            });
        }
        spool.push(&inputs)?;
    }
    Ok(spool)
}

/// Chooses an array for each input by name. Returns the names, and whether each array needs
/// pre-processing.
fn choose(
    archive: &mut Archive,
    path: &Path,
    signature: &Signature,
) -> Result<Vec<(String, bool)>, Error> {
    let problem = |problem: String| Error::Data { path: path.into(), problem };
    let names: Vec<&str> = signature.inputs.iter().map(|port| port.name.as_str()).collect();
    if let [only] = names[..] {
        return match (archive.has(only), archive.has("x")) {
            (true, _) => Ok(vec![(only.into(), false)]),
            (_, true) => Ok(vec![("x".into(), true)]),
            _ => Err(problem(format!(
                "it has neither an array {only:?} nor an array \"x\" of samples; it has {}",
                list(archive)
            ))),
        };
    }
    if let Some(name) = names.iter().find(|name| !archive.has(name)) {
        return Err(problem(format!(
            "it has no array {name:?} for the model's input of that name; it has {}",
            list(archive)
        )));
    }
    Ok(names.into_iter().map(|name| (name.into(), false)).collect())
}

/// Lists the names and shapes of the arrays, for error messages.
fn list(archive: &mut Archive) -> String {
    let names: Vec<String> = archive.names().map(str::to_owned).collect();
    let mut texts = Vec::new();
    for name in names {
        texts.push(match archive.describe(&name) {
            Ok(Some(described)) => format!("{name} {:?}", described.shape),
            _ => name,
        });
    }
    texts.join(", ")
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

/// Returns the shape of a sample with a batch dimension of 1 added if it is missing, or `None` if
/// it does not fit the input.
fn fit(sample: &[usize], expected: &[Dim]) -> Option<Vec<usize>> {
    let fits = |shape: &[usize]| {
        shape.len() == expected.len()
            && shape.iter().zip(expected).all(|(n, dim)| dim.value().is_none_or(|d| d == *n as i64))
    };
    let batched = [&[1], sample].concat();
    [sample.to_vec(), batched].into_iter().find(|shape| fits(shape))
}

#[cfg(test)]
mod tests;
