//! The inputs a conversion measures with: calibration data, or random numbers where there are
//! none.

mod spool;

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
use crate::guard;
use crate::ports::Ports;
use crate::work;
pub(crate) use spool::Spool;

/// What a dimension is taken for where nothing says how large it is.
const BATCH: usize = 1;
const OTHER: usize = 32;
/// How many random samples are drawn.
const RANDOM: u64 = 3;
/// Random samples take at most this part of the memory of a conversion.
const SAMPLES_PART: u64 = 8;

/// Inputs of a model, sample by sample: what is measured goes through them as often as it needs to.
pub trait Source {
    /// How many samples there are.
    fn count(&self) -> usize;

    /// The inputs of a sample, in the model's order.
    ///
    /// # Errors
    /// Where they cannot be read back.
    fn sample(&self, index: usize) -> Result<Cow<'_, [Tensor]>, Error>;
}

impl Source for Vec<Vec<Tensor>> {
    fn count(&self) -> usize {
        self.len()
    }

    fn sample(&self, index: usize) -> Result<Cow<'_, [Tensor]>, Error> {
        Ok(Cow::Borrowed(&self[index]))
    }
}

/// The samples of another source as far as this many.
pub struct First<'s>(pub &'s dyn Source, pub usize);

impl Source for First<'_> {
    fn count(&self) -> usize {
        self.0.count().min(self.1)
    }

    fn sample(&self, index: usize) -> Result<Cow<'_, [Tensor]>, Error> {
        self.0.sample(index)
    }
}

/// All samples of a source, in order.
pub fn each(source: &dyn Source) -> impl Iterator<Item = Result<Cow<'_, [Tensor]>, Error>> {
    (0..source.count()).map(|index| source.sample(index))
}

/// Inputs of a model, and where they come from.
pub struct Samples {
    /// The samples.
    pub inputs: Box<dyn Source>,
    /// `random`, or the name of the file or folder they came from.
    pub source: String,
    /// For random samples, the rule of each input.
    pub generators: Vec<Vec<Generator>>,
}

impl Samples {
    /// Whether they are data of the user's.
    pub fn are_real(&self) -> bool {
        self.generators.is_empty()
    }

    /// Checks that ranges can be learnt from the samples.
    ///
    /// # Errors
    /// Where there is only one, all are the same number throughout, or a value is not finite.
    pub fn check_calibration(&self) -> Result<(), Error> {
        let refuse = |problem: String| Err(Error::Options(format!("{}: {problem}", self.source)));
        if self.inputs.count() == 1 {
            return refuse(
                "one calibration sample does not tell what range values have; give 100 or more, \
                 as different as those the model will meet"
                    .into(),
            );
        }
        // The first value of each input, and whether others differ from it.
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
                    return refuse(format!("calibration sample {index} holds {value}"));
                }
                *differ |= values.iter().any(|value| *first.get_or_insert(*value) != *value);
            }
        }
        match seen.iter().find_map(|(first, differ)| first.filter(|_| !differ)) {
            Some(value) => refuse(format!(
                "every calibration sample is {value} throughout, which tells no range; are these \
                 the data, and is the pre-processing theirs?"
            )),
            None => Ok(()),
        }
    }

    /// Random samples that fit the graph: reals from −1 to 1, integers 0 and 1.
    ///
    /// # Errors
    /// As [`Samples::drawn`].
    pub fn random(graph: &Graph) -> Result<Samples, Error> {
        Samples::drawn(graph, RANDOM)
    }

    /// The first so many of the random samples.
    ///
    /// # Errors
    /// [`Error::Input`] where an input has more elements than a test vector may have, or the samples
    /// take more memory than a conversion should spend on them.
    pub fn drawn(graph: &Graph, count: u64) -> Result<Samples, Error> {
        let shapes = shapes(graph, count, guard::memory_bytes() / SAMPLES_PART)?;
        work::check(graph, &shapes)?;
        let mut inputs: Vec<Vec<Tensor>> = Vec::new();
        let mut generators = Vec::new();
        for sample in 0..count {
            let (mut tensors, mut rules) = (Vec::new(), Vec::new());
            for (index, (node, shape)) in graph.inputs.iter().zip(&shapes).enumerate() {
                let node = &graph.nodes[*node as usize];
                let dtype = node.outputs[0].dtype;
                let generator = generator(dtype, sample << 32 | index as u64);
                let tensor = hardtack::golden::generate(dtype, shape, &generator);
                tensors.push(tensor.ok_or_else(|| too_large(node, shape))?);
                rules.push(generator);
            }
            inputs.push(tensors);
            generators.push(rules);
        }
        Ok(Samples { inputs: Box::new(inputs), source: "random".into(), generators })
    }

    /// Reads calibration data: at most `limit` samples of an `.npz` file, with an array for each
    /// input or one array `x`, samples first; of a `.npy` file, which is that one array; of a folder of
    /// pictures or recordings; or of a single one.
    ///
    /// # Errors
    /// Where the files cannot be read, or do not fit the model's inputs.
    pub fn read(
        path: &Path,
        limit: usize,
        graph: &Graph,
        ports: &Ports,
        preprocessor: &Preprocessor,
    ) -> Result<Samples, Error> {
        let source = path.file_name().map_or("data".into(), |name| name.to_string_lossy().into());
        let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        let inputs = match extension.as_deref() {
            _ if path.is_dir() => read_files(files(path)?, limit, preprocessor)?,
            Some(extension) if FILES.contains(&extension) => {
                read_files(vec![path.into()], limit, preprocessor)?
            }
            _ => read_arrays(path, limit, graph, ports, preprocessor)?,
        };
        if inputs.count() == 0 {
            return Err(Error::Data { path: path.into(), problem: "it holds no samples".into() });
        }
        Ok(Samples { inputs: Box::new(inputs), source, generators: Vec::new() })
    }
}

/// The shapes of a graph's inputs, with every symbol taken for something small.
///
/// # Errors
/// [`Error::Input`] where so many samples of them take more than this many bytes.
fn shapes(graph: &Graph, count: u64, limit: u64) -> Result<Vec<Vec<usize>>, Error> {
    let mut left = limit;
    let mut shapes = Vec::new();
    for node in &graph.inputs {
        let node = &graph.nodes[*node as usize];
        let Fact { dtype, shape } = &node.outputs[0];
        let shape = concrete(shape, graph.symbols.len());
        let sizes = shape.iter().map(|size| *size as u64);
        let size = dtype.size().unwrap_or(8) as u64;
        let bytes = sizes.fold(size, u64::saturating_mul).saturating_mul(count);
        left = left.checked_sub(bytes).ok_or_else(|| too_large(node, &shape))?;
        shapes.push(shape);
    }
    Ok(shapes)
}

fn too_large(node: &Node, shape: &[usize]) -> Error {
    Error::Input { input: node.name.clone(), shape: shape.into() }
}

/// Dimensions with every symbol taken for something small.
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

fn generator(dtype: DType, seed: u64) -> Generator {
    match dtype {
        DType::F32 | DType::F64 | DType::F16 | DType::BF16 => {
            Generator { seed, low: -1.0, high: 1.0 }
        }
        _ => Generator { seed, low: 0.0, high: 2.0 },
    }
}

/// Pictures and recordings, by the ends of their names.
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

/// The pictures and recordings of a folder and of the folders in it, in the order of their names.
///
/// # Errors
/// Where a folder cannot be read.
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
    ports: &Ports,
    preprocessor: &Preprocessor,
) -> Result<Spool, Error> {
    let alone = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("npy"));
    let mut archive = match alone {
        true => Archive::of_array(path, "x"),
        false => Archive::open(path)?,
    };
    let mut chosen = Vec::new();
    for (name, raw) in choose(&mut archive, path, ports)? {
        let node = &graph.nodes[graph.inputs[chosen.len()] as usize];
        let described = archive.describe(&name)?.expect("an array of this name exists");
        let Description { dtype, shape } = &described;
        let problem = |problem: String| Error::Data { path: path.into(), problem };
        // Check the shape before reading the elements.
        let Some((_, sample)) = shape.split_first() else {
            return Err(problem(format!(
                "the array {name:?} is a scalar; its first dimension must be the samples"
            )));
        };
        if raw {
            let accepted = preprocessor.accepts(*dtype, sample);
            accepted.map_err(|error| problem(error.to_string()))?;
        } else if fit(sample, &node.outputs[0].shape).is_none() {
            return Err(problem(format!(
                "an array for input {:?} has samples of shape {sample:?}, and the model expects {}",
                node.name,
                ports.shape_text(&node.outputs[0].shape),
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
                sample.reshape(&shape).expect("a view of it")
            });
        }
        spool.push(&inputs)?;
    }
    Ok(spool)
}

/// Chooses an array for each input by name. Returns the names, and whether each array needs
/// pre-processing.
fn choose(archive: &mut Archive, path: &Path, ports: &Ports) -> Result<Vec<(String, bool)>, Error> {
    let problem = |problem: String| Error::Data { path: path.into(), problem };
    let names: Vec<&str> = ports.inputs.iter().map(|port| port.name.as_str()).collect();
    if let [only] = names[..] {
        return match (archive.has(only), archive.has("x")) {
            (true, _) => Ok(vec![(only.into(), false)]),
            (_, true) => Ok(vec![("x".into(), true)]),
            _ => Err(problem(format!(
                "it has neither an array {only:?} nor an array \"x\" with the samples first; it has {}",
                list(archive)
            ))),
        };
    }
    if let Some(name) = names.iter().find(|name| !archive.has(name)) {
        return Err(problem(format!(
            "it has no array {name:?}, which the model's input of that name needs; it has {}",
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

/// Sample `index` of a tensor with the samples first, without that dimension.
pub fn row(tensor: &Tensor, index: usize) -> Tensor {
    let shape = &tensor.shape()[1..];
    let elements: usize = shape.iter().product();
    let range = index * elements..(index + 1) * elements;
    let row = for_data!(tensor.data(), v => Tensor::new(shape, v[range].to_vec()));
    row.expect("a row of its tensor")
}

/// Returns the shape of a sample with a batch dimension of 1 added if it is missing, or `None` if it
/// does not fit the input.
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
