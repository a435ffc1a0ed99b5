//! The emit stage: writes a model and its metadata as a bundle.

use hardtack::Tensor;
use hardtack::internal::{Constant, Model, family_of};
use hardtack_bundle::golden::{Content, GoldenBuilder, GoldenTensor};
use hardtack_bundle::graph::{Dim, Graph};
use hardtack_bundle::manifest::{self, Entry, Figure, Manifest, Provenance, State};
use hardtack_bundle::{
    ALIGNMENT, DType, Defaults, Digest, InputDefault, Readings, Sealed, SectionKind, Writer,
};
use hardtack_engine::Builder;

use crate::error::Error;
use crate::graph::io::{Endpoint, Signature};
use crate::graph::summary::needs_float;
use crate::import::SourceFile;
use crate::options::{ConvertOptions, FloatStorage};
use crate::report::{FigureReport, FloatNode, ReadingsReport};
use crate::samples::{self, Samples};

/// Stored inputs of test vectors take at most one part in `GOLDEN_PART` of the model's size.
const GOLDEN_PART: u64 = 48;
/// The maximum number of elements stored of a test vector's output.
const GOLDEN_ELEMENTS: usize = 256;

/// The metadata and test vectors of a bundle.
pub(crate) struct Contents<'a> {
    /// Whether the float graph is already simplified for loading.
    pub prepared: bool,
    /// The name of the model.
    pub name: &'a str,
    /// The inputs and outputs of the model.
    pub signature: &'a Signature,
    /// The ONNX file that was converted.
    pub source: &'a SourceFile,
    /// The options of the conversion.
    pub options: &'a ConvertOptions,
    /// The measurements for the manifest.
    pub figures: &'a [FigureReport],
    /// How the two readings of the model agreed.
    pub readings: Option<&'a ReadingsReport>,
    /// The nodes that stay in float.
    pub float_nodes: &'a [FloatNode],
    /// The size of the integer programs' arena in bytes.
    pub arena_bytes: u64,
    /// The samples of the test vectors, and the model's outputs on them.
    pub golden: (&'a Samples, &'a [Vec<Tensor>]),
    /// The output difference that rounding can cause, as a fraction of the output range; 0 if it
    /// was not measured.
    pub rounding: f64,
}

/// Builds the bundle of a model whose weights already have their storage types. The output is
/// deterministic. Each constant is dropped once it is written, so none is in memory twice.
///
/// # Errors
/// Returns an error if the model does not fit the format.
pub(crate) fn emit(model: Model, contents: &Contents<'_>) -> Result<Sealed<'static>, Error> {
    let Model { mut graph, constants, programs } = model;
    let constants = lay_out(&mut graph, constants);
    let mut writer = Writer::new();
    let options = option_texts(contents.options);
    let float_operators = counted(contents.float_nodes);
    let needs_float = needs_float(&graph);
    writer.manifest(&manifest(contents, needs_float, &options, &float_operators)?)?;
    writer.graph(&graph)?;
    if !constants.is_empty() {
        writer.section(SectionKind::Constants, constants)?;
    }
    for (index, program) in programs.iter().enumerate() {
        let index = u16::try_from(index)
            .map_err(|_| Error::Options("the model has more than 65535 INT8 regions".into()))?;
        let packing = contents.options.packing;
        let kind = SectionKind::Weights { family: family_of(packing), program: index };
        let parsed = program.parse().expect("its builder checked it");
        let (code, weights) = match packing {
            None if contents.options.sparse() => {
                let parts = Builder::of(&parsed).expect("its weights are not packed");
                let built = parts.sparse().and_then(Builder::finish);
                let built = built.expect("it was finished before, with zeros");
                (built.code, built.weights)
            }
            _ => {
                let packed = parsed.pack(packing).expect("it was not packed before");
                (program.code.to_vec(), packed.bytes().to_vec())
            }
        };
        writer.section(SectionKind::Program(index), code)?;
        writer.section(kind, weights)?;
    }
    if !contents.options.labels.is_empty() {
        writer.labels(contents.options.labels.iter().map(String::as_str))?;
    }
    if let Some(preprocess) = &contents.options.preprocess {
        writer.preprocess(preprocess)?;
    }
    if let Some(postprocess) = &contents.options.postprocess {
        writer.postprocess(postprocess)?;
    }
    write_defaults(&mut writer, contents.signature)?;
    if let Some(report) = contents.readings {
        writer.readings(&readings(report))?;
    }
    let (samples, outputs) = contents.golden;
    writer.section(SectionKind::Golden, golden(contents, !needs_float, samples, outputs)?)?;
    Ok(writer.seal()?)
}

/// Writes the default values of inputs, if there are any.
fn write_defaults(writer: &mut Writer<'_>, signature: &Signature) -> Result<(), Error> {
    let values: Vec<(u8, &Tensor, Vec<u8>)> = (0..)
        .zip(&signature.inputs)
        .filter_map(|(index, input)| Some((index, input.default()?, input.default()?.to_bytes())))
        .collect();
    let mut defaults = Defaults::new();
    for (input, value, elements) in &values {
        let shape = value.shape().iter().map(|size| *size as u64).collect();
        let default = InputDefault { input: *input, shape, elements };
        defaults.push(default).expect("at most one for each input of the manifest");
    }
    if !defaults.is_empty() {
        writer.defaults(&defaults)?;
    }
    Ok(())
}

/// Returns how the two readings agreed, in the types of a bundle.
fn readings(report: &ReadingsReport) -> Readings<'_> {
    let ReadingsReport { values, samples, source, difference, evaluated } = report;
    let entries = evaluated.iter().map(|(name, value)| Entry { name, value });
    Readings {
        values: *values,
        samples: *samples,
        source,
        difference: *difference,
        evaluated: entries.take(manifest::MAX_ENTRIES).collect(),
    }
}

/// Writes the shape, type, offset and length of each constant to the graph's records, and returns
/// the bytes of the constants section. Equal constants share their bytes.
fn lay_out(graph: &mut Graph, constants: Vec<Constant>) -> Vec<u8> {
    let mut bytes: Vec<u8> = Vec::new();
    // The offset of each content, by its digest.
    let mut known = std::collections::HashMap::<Digest, u64>::new();
    for (record, constant) in graph.constants.iter_mut().zip(constants) {
        let content = match &constant {
            Constant::Tensor(tensor) => {
                record.shape = tensor.shape().iter().map(|d| *d as u64).collect();
                record.stored = tensor.dtype();
                tensor.to_bytes()
            }
            Constant::Stored(stored) => {
                record.shape = stored.shape().iter().map(|d| *d as u64).collect();
                record.stored = stored.dtype();
                stored.bytes().to_vec()
            }
            Constant::Dims { shape, values } => {
                record.shape = shape.iter().map(|d| *d as u64).collect();
                record.stored = DType::Dim;
                Dim::list_to_bytes(values)
            }
        };
        record.length = content.len() as u64;
        drop(constant);
        let digest = Digest::of(&content);
        record.offset = match known.get(&digest) {
            Some(offset) => *offset,
            None => {
                // Small constants need only the alignment of their elements.
                let alignment =
                    if content.len() < ALIGNMENT as usize { 16 } else { ALIGNMENT as usize };
                bytes.resize(bytes.len().next_multiple_of(alignment), 0);
                let offset = bytes.len() as u64;
                bytes.extend_from_slice(&content);
                known.insert(digest, offset);
                offset
            }
        };
    }
    bytes
}

/// Returns each operator that stays in float, with the number of its nodes.
fn counted(nodes: &[FloatNode]) -> Vec<(String, String)> {
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    for node in nodes {
        *counts.entry(&node.operator).or_default() += 1;
    }
    counts.into_iter().map(|(operator, count)| (operator.into(), count.to_string())).collect()
}

/// Returns the options recorded in the manifest, as (name, value).
fn option_texts(options: &ConvertOptions) -> Vec<(String, String)> {
    let mut texts: Vec<(String, String)> =
        options.set.iter().map(|(name, value)| ("set".into(), format!("{name}={value}"))).collect();
    if options.int8 {
        texts.push(("int8".into(), "true".into()));
        if let Some(name) = options.calibration.as_ref().and_then(|path| path.file_name()) {
            texts.push(("calibrate".into(), name.to_string_lossy().into()));
        }
        texts.push(("samples".into(), options.samples.to_string()));
        texts.extend(options.quantize.texts());
    }
    if let Some(target) = options.prune_channels {
        texts.push(("prune-channels".into(), target.to_string()));
    }
    if options.packing.is_some() {
        texts.push(("target".into(), family_of(options.packing).name().into()));
    }
    if let Some(limit) = options.arena_limit {
        texts.push(("arena-limit".into(), limit.to_string()));
    }
    if options.dense {
        texts.push(("dense".into(), "true".into()));
    }
    if options.integer_io {
        texts.push(("integer-io".into(), "true".into()));
    }
    if let Some(weights) = options.weights {
        texts.push(("weights".into(), weights.name().into()));
    }
    if options.dynamic {
        texts.push(("dynamic".into(), "true".into()));
    }
    if let (false, Some(bits)) = (options.int8, options.matrix_bits())
        && (options.weights.is_some() || options.dynamic)
    {
        texts.push(("weight-bits".into(), bits.to_string()));
    }
    if options.float != FloatStorage::F32 {
        texts.push(("float".into(), options.float.dtype().name().into()));
    }
    texts
}

fn manifest<'a>(
    contents: &'a Contents<'_>,
    needs_float: bool,
    options: &'a [(String, String)],
    float_operators: &'a [(String, String)],
) -> Result<Manifest<'a>, Error> {
    let too_many = |what: &str, limit: usize| {
        Error::Options(format!("the model has more than {limit} {what}, the limit of a bundle"))
    };
    let mut inputs = heapless::Vec::new();
    for port in &contents.signature.inputs {
        inputs.push(port.manifest_port()?).map_err(|_| too_many("inputs", manifest::MAX_PORTS))?;
    }
    let mut outputs = heapless::Vec::new();
    for port in &contents.signature.outputs {
        outputs
            .push(port.manifest_port()?)
            .map_err(|_| too_many("outputs", manifest::MAX_PORTS))?;
    }
    let entries = |texts: &'a [(String, String)], what| {
        let mut entries = heapless::Vec::new();
        for (name, value) in texts {
            entries
                .push(Entry { name, value })
                .map_err(|_| too_many(what, manifest::MAX_ENTRIES))?;
        }
        Ok::<_, Error>(entries)
    };
    let mut figures = heapless::Vec::new();
    for figure in contents.figures.iter().take(manifest::MAX_ENTRIES) {
        let FigureReport { name, value, samples, source } = figure;
        let _ = figures.push(Figure { name, value: *value, samples: *samples, source });
    }
    Ok(Manifest {
        name: contents.name,
        version: &contents.options.version,
        inputs,
        outputs,
        states: states(contents)?,
        provenance: Provenance {
            source_digest: contents.source.digest,
            source_bytes: contents.source.bytes,
            producer: &contents.source.producer,
            opset: contents.source.opset,
            converter: env!("CARGO_PKG_VERSION"),
            options: entries(options, "conversion options")?,
        },
        figures,
        float_operators: entries(float_operators, "kinds of operators in float")?,
        arena_bytes: contents.arena_bytes,
        needs_float,
        prepared: contents.prepared,
    })
}

fn states(contents: &Contents<'_>) -> Result<heapless::Vec<State, { manifest::MAX_PORTS }>, Error> {
    let states = contents.signature.states(&contents.options.states)?;
    Ok(states.into_iter().map(|(output, input)| State { output, input }).collect())
}

/// Builds the golden section: for each sample, its inputs (stored, or the generator of random ones)
/// and the expected outputs with tolerances.
fn golden(
    contents: &Contents<'_>,
    exact: bool,
    samples: &Samples,
    outputs: &[Vec<Tensor>],
) -> Result<Vec<u8>, Error> {
    let mut builder = GoldenBuilder::new();
    for (index, outputs) in outputs.iter().enumerate() {
        let inputs = samples.inputs.sample(index)?;
        let bytes: Vec<Vec<u8>> = inputs.iter().chain(outputs).map(Tensor::to_bytes).collect();
        let shapes: Vec<Vec<u64>> = inputs
            .iter()
            .chain(outputs)
            .map(|t| t.shape().iter().map(|d| *d as u64).collect())
            .collect();
        let sampled: Vec<Option<(usize, Vec<u8>)>> =
            inputs.iter().map(|_| None).chain(outputs.iter().map(sampled)).collect();
        let signature = &contents.signature;
        // An input that has its default value is left out, as in an application.
        let is_default = |position: usize| {
            let default = signature.inputs.get(position).and_then(Endpoint::default);
            default.is_some_and(|default| *default == inputs[position])
        };
        let content = |position: usize| match (samples.generators.get(index), &sampled[position]) {
            (Some(generators), _) if position < inputs.len() => {
                Content::Generated(generators[position])
            }
            (_, Some((step, bytes))) => Content::Sampled { step: *step as u64, bytes },
            _ => Content::Stored(&bytes[position]),
        };
        let tensors: Vec<GoldenTensor<'_>> = signature
            .inputs
            .iter()
            .chain(&signature.outputs)
            .zip(inputs.iter().chain(outputs))
            .enumerate()
            .map(|(position, (port, tensor))| GoldenTensor {
                name: &port.name,
                dtype: tensor.dtype(),
                shape: &shapes[position],
                content: content(position),
                tolerance: match exact || position < inputs.len() {
                    true => 0.0,
                    false => tolerance(tensor, contents.rounding),
                },
            })
            .collect();
        let (given, expected) = tensors.split_at(inputs.len());
        let given = given.iter().enumerate().filter(|(position, _)| !is_default(*position));
        let given: Vec<GoldenTensor<'_>> = given.map(|(_, tensor)| *tensor).collect();
        builder.case(&given, expected)?;
    }
    Ok(builder.finish())
}

/// Returns a strided sample of an output too large to store: the stride in elements, and the bytes.
fn sampled(output: &Tensor) -> Option<(usize, Vec<u8>)> {
    if output.len() <= GOLDEN_ELEMENTS {
        return None;
    }
    // An odd stride covers every index of a last axis whose size is a power of two.
    let step = output.len().div_ceil(GOLDEN_ELEMENTS) | 1;
    let size = output.dtype().size()?;
    Some((step, output.to_bytes().chunks(size).step_by(step).flatten().copied().collect()))
}

/// Returns the number of samples to store as test vectors: at most 2, and 0 if one sample is large
/// compared with the model.
///
/// # Errors
/// Returns an error if the samples cannot be read from the temporary file.
pub(crate) fn affordable(
    samples: &dyn samples::SampleSource,
    model_bytes: u64,
) -> Result<usize, Error> {
    if samples.count() == 0 {
        return Ok(0);
    }
    let first = samples.sample(0)?;
    let bytes: usize = first.iter().map(|t| t.len() * t.dtype().size().unwrap_or(1)).sum();
    let budget = (model_bytes / GOLDEN_PART) as usize;
    Ok((budget / bytes.max(1)).min(samples.count()).min(2))
}

/// Returns the absolute tolerance of a float output: 1e-3 of the largest magnitude plus 1e-4 of the
/// range, or `rounding` times the range if that is more. The tolerance of an integer output is 0.
fn tolerance(output: &Tensor, rounding: f64) -> f32 {
    if !matches!(output.dtype(), DType::F16 | DType::BF16 | DType::F32 | DType::F64) {
        return 0.0;
    }
    let values = output.to_f32();
    let finite = || values.iter().copied().filter(|x| x.is_finite());
    let low = finite().fold(f32::INFINITY, f32::min);
    let high = finite().fold(f32::NEG_INFINITY, f32::max);
    if low > high {
        return 0.0;
    }
    let tolerance = 1e-3 * low.abs().max(high.abs()) + 1e-4 * (high - low);
    let tolerance = tolerance.max(rounding as f32 * (high - low));
    if tolerance.is_finite() { tolerance } else { f32::MAX }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::noise;

    #[test]
    fn large_outputs_are_sampled_from_their_first_element() {
        let small = noise(&[1, GOLDEN_ELEMENTS], 1);
        assert_eq!(sampled(&small), None);
        let large = noise(&[3, 1000], 1);
        let (step, bytes) = sampled(&large).unwrap();
        assert!(step % 2 == 1 && bytes.len() / 4 <= GOLDEN_ELEMENTS);
        let elements = large.as_f32().unwrap().iter().step_by(step);
        assert!(bytes.chunks(4).eq(elements.map(|x| x.to_le_bytes())));
    }

    #[test]
    fn tolerances_cover_rounding_and_nothing_else() {
        let tensor = |values: &[f32]| Tensor::new(&[values.len()], values.to_vec()).unwrap();
        assert_eq!(tolerance(&tensor(&[f32::NAN]), 0.1), 0.0);
        assert!((tolerance(&tensor(&[-1.0, 1.0]), 0.0) - 1.2e-3).abs() < 1e-6);
        assert!((tolerance(&tensor(&[-1.0, 1.0]), 0.01) - 0.02).abs() < 1e-6);
        assert_eq!(tolerance(&Tensor::new(&[1], vec![7i32]).unwrap(), 0.1), 0.0);
    }
}
