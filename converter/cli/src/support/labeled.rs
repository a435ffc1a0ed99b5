//! Labeled data, and the results of a bundle on them.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context as _, bail};
use hardtack::{Bundle, DType, Limits, Tensor};
use hardtack_bundle::manifest::{Extent, Port};
use hardtack_bundle::process::Postprocess;
use hardtack_converter::arrays::Archive;
use hardtack_converter::samples;

use crate::support::bundles;

/// The label of a sample.
pub enum Truth {
    /// The index of the class.
    Class(usize),
    /// The expected values of the output.
    Values(Vec<f32>),
}

/// A labeled sample.
pub struct Sample {
    pub name: String,
    source: Source,
    pub truth: Truth,
}

#[cfg(test)]
impl Sample {
    /// Creates a sample with a class but without data.
    pub fn of_class(name: &str, class: usize) -> Sample {
        let source = Source::File(PathBuf::new());
        Sample { name: name.into(), source, truth: Truth::Class(class) }
    }
}

enum Source {
    /// The n-th sample of an array whose first dimension is the sample.
    Row(Rc<Tensor>, usize),
    File(PathBuf),
}

/// The results of a bundle, in the order of the samples.
pub enum Found {
    /// The predicted class of each sample.
    Classes(Vec<usize>),
    /// The mean squared error of each sample.
    Errors(Vec<f64>),
}

/// Returns the class names of a bundle; none if it has no labels.
pub fn labels(bundle: &Bundle) -> anyhow::Result<Vec<String>> {
    Ok(bundle.labels()?.iter().flat_map(|labels| labels.iter()).map(str::to_owned).collect())
}

/// Runs a bundle on every sample and returns the results of the first output.
///
/// # Errors
/// If an inference fails, or if a label does not fit the output.
pub fn measure(
    bundle: &Bundle,
    path: &Path,
    samples: &[Sample],
    limits: Limits,
) -> anyhow::Result<Found> {
    let preprocessor = bundles::preprocessor(bundle)?;
    let mut session = bundles::session(bundle, path, true, limits)?;
    let input = session.inputs()[bundles::data_input(bundle)?].name.clone();
    let manifest = bundle.manifest()?;
    let process =
        bundle.postprocess()?.unwrap_or(Postprocess::Classify { softmax: false, skip: 0 });
    let Postprocess::Classify { skip, .. } = process;
    let skip = usize::from(skip);
    let Some(output) = manifest.outputs.first() else { bail!("the model has no output") };
    let classes = hardtack::process::Postprocessor::new(process, output, std::iter::empty());
    let (mut answers, mut errors) = (Vec::new(), Vec::new());
    for sample in samples {
        session.reset();
        let tensor = match &sample.source {
            Source::Row(rows, index) => {
                let row = samples::row(rows, *index);
                preprocessor.array(&row).with_context(|| sample.name.clone())?
            }
            Source::File(file) => {
                let mut inputs = preprocessor.file(file)?;
                let Some(first) = inputs.next() else {
                    bail!("{}: is shorter than one input of the model", file.display());
                };
                first
            }
        };
        let outputs = session.run(&[(&input, &tensor)]).with_context(|| sample.name.clone())?;
        let result = &outputs[0].1;
        match &sample.truth {
            Truth::Class(class) => {
                // The output may be a single number: the class itself.
                let count = result.len().saturating_sub(skip);
                if result.len() > 1 && *class >= count {
                    bail!(
                        "{}: has class {class}, but the model has the classes 0 to {}; check that \
                         the labels belong to this model",
                        sample.name,
                        count.saturating_sub(1)
                    );
                }
                let Some(best) = classes.top(result, 1)?.first().map(|class| class.index) else {
                    bail!("{}: the model's output has no classes", sample.name);
                };
                answers.push(best);
            }
            Truth::Values(truth) => {
                let result = hardtack::process::dequantize(result, output.quantization);
                if result.len() != truth.len() {
                    bail!(
                        "{}: y has {} values, but the output has {}",
                        sample.name,
                        truth.len(),
                        result.len()
                    );
                }
                let squares = result.iter().zip(truth).map(|(a, b)| f64::from(a - b).powi(2));
                errors.push(squares.sum::<f64>() / truth.len().max(1) as f64);
            }
        }
    }
    Ok(if answers.is_empty() { Found::Errors(errors) } else { Found::Classes(answers) })
}

/// Reads labeled samples for a bundle: arrays x (samples first) and y, or a folder of files whose
/// subfolders are named after the bundle's labels.
///
/// # Errors
/// When a sample has no label or does not fit the bundle, or when there are no samples.
pub fn read(path: &Path, bundle: &Bundle) -> anyhow::Result<Vec<Sample>> {
    let samples = match path.is_dir() {
        true => folder(path, &labels(bundle)?)?,
        false => archive(path, bundle)?,
    };
    if samples.is_empty() {
        bail!("{}: has no samples", path.display());
    }
    Ok(samples)
}

/// Checks that a bundle takes the samples that [`read`] read from `path` for another bundle.
///
/// # Errors
/// If the samples are arrays that do not fit the bundle.
pub fn check(samples: &[Sample], path: &Path, bundle: &Bundle) -> anyhow::Result<()> {
    match samples.first() {
        Some(Sample { source: Source::Row(rows, _), .. }) => {
            check_shape(path, bundle, rows.dtype(), &rows.shape()[1..])
        }
        _ => Ok(()),
    }
}

/// Checks that a bundle takes samples of this element type and shape.
fn check_shape(path: &Path, bundle: &Bundle, dtype: DType, shape: &[usize]) -> anyhow::Result<()> {
    let accepted = bundles::preprocessor(bundle)?.accepts_sample(dtype, shape);
    accepted.with_context(|| format!("{}: samples of x", path.display()))
}

/// Reads x and y. Checks their shapes against the bundle's ports before reading any elements.
fn archive(path: &Path, bundle: &Bundle) -> anyhow::Result<Vec<Sample>> {
    let mut archive = Archive::open(path)?;
    let mut describe = |name: &str| {
        let found = archive.describe(name)?;
        found.with_context(|| {
            format!(
                "{}: has no array {name:?}; labeled data need the arrays x and y",
                path.display()
            )
        })
    };
    let (x, y) = (describe("x")?, describe("y")?);
    let count = x.shape.first().copied().unwrap_or(0);
    if y.shape.first() != Some(&count) {
        bail!(
            "{}: x has {count} samples, but y has {}",
            path.display(),
            y.shape.first().unwrap_or(&0)
        );
    }
    if count == 0 {
        return Ok(Vec::new());
    }
    check_shape(path, bundle, x.dtype, &x.shape[1..])?;
    let product = |sizes: &[usize]| {
        sizes.iter().try_fold(1u64, |n, size| n.checked_mul(*size as u64)).unwrap_or(u64::MAX)
    };
    let values = product(&y.shape[1..]);
    let output = bundle.manifest()?.outputs.first().cloned();
    let most = output.and_then(|output| most_values(&output, product(&x.shape[1..])));
    if let Some(most) = most
        && values > most
    {
        bail!(
            "{}: y has {values} values per sample, but the model's output has at most {most}",
            path.display()
        );
    }
    let mut read = |name: &str| -> anyhow::Result<Tensor> {
        Ok(archive.read(name)?.expect("the array has a description"))
    };
    let (x, y) = (read("x")?, read("y")?);
    let x = Rc::new(bundles::cast(x, "x", path, &bundles::preprocessor(bundle)?)?);
    let classes = y.shape().len() == 1 && y.to_f32().iter().all(|y| y.fract() == 0.0 && *y >= 0.0);
    let sample = |index: usize| {
        let truth = samples::row(&y, index).to_f32();
        Sample {
            name: format!("sample {index}"),
            source: Source::Row(Rc::clone(&x), index),
            truth: if classes { Truth::Class(truth[0] as usize) } else { Truth::Values(truth) },
        }
    };
    Ok((0..count).map(sample).collect())
}

/// Returns the maximum number of output values for one sample with `sample` input values. `None` if
/// more than one dimension of the output is dynamic.
fn most_values(output: &Port<'_>, sample: u64) -> Option<u64> {
    let mut most = 1u64;
    let mut named = 0;
    for extent in &output.shape {
        let size = match extent {
            Extent::Fixed(size) => *size,
            Extent::Named(_) => {
                named += 1;
                sample
            }
        };
        most = most.saturating_mul(size);
    }
    (named <= 1).then_some(most)
}

/// Lists the files in subfolders that are named after their class (label or index), and the files
/// in the folder itself whose names begin with the index of their class.
fn folder(path: &Path, labels: &[String]) -> anyhow::Result<Vec<Sample>> {
    let mut found = Vec::new();
    for file in samples::files(path)? {
        let name = |path: Option<&Path>| {
            path.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned())
        };
        let own = name(Some(&file)).unwrap_or_default();
        let class = if file.parent() == Some(path) {
            own.split(['_', '.', '-']).next().and_then(|number| number.parse().ok())
        } else {
            let folder = name(file.parent()).unwrap_or_default();
            labels.iter().position(|label| *label == folder).or_else(|| folder.parse().ok())
        };
        let Some(class) = class else {
            bail!(
                "{}: its class is not known; put it into a subfolder with the name of its class, or \
                 begin its name with the number of its class",
                file.display()
            );
        };
        found.push(Sample { name: own, source: Source::File(file), truth: Truth::Class(class) });
    }
    Ok(found)
}
