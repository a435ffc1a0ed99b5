//! The conversion pipeline, from an ONNX file to a bundle.

mod finish;
mod prepare;
mod quantize;
mod second_opinion;

use std::path::Path;
use std::time::Instant;

use hardtack::Tensor;
use hardtack::internal::Model;
use hardtack::process::Preprocessor;
use hardtack_bundle::graph::{Graph, Node, Operator};

use crate::error::Error;
use crate::float_run;
use crate::graph::io::{Initial, Signature};
use crate::import::{self, Evaluated, ImportOptions, SourceFile};
use crate::offloaded_model::{ModelSource as _, OffloadedModel};
use crate::options::{ConvertOptions, MatrixStorage};
use crate::parity::{self, Difference};
use crate::progress::Progress;
use crate::report::{
    FigureReport, FloatNode, GraphNode, LayerReport, PruneReport, ReadingsReport, Report,
    StageReport,
};
use crate::samples::{First, SampleSource as _, Samples};
use crate::{fold, guard, prune};

/// The number of samples on which the outputs of stages are compared.
const COMPARED_SAMPLES: usize = 4;
/// Fewer calibration samples than this cause a warning.
const FEW_SAMPLES: usize = 4;
/// A stage may change outputs by at most this multiple of the measured rounding noise.
const NOISE_MULTIPLE: f64 = 4.0;

/// Converts the ONNX file `source` into the bundle `output`.
///
/// The model runs in this process, to compare the outputs of each stage with the previous one. A
/// malicious model can crash the process or exhaust its memory: for untrusted models, call this
/// from [`guard::supervised`].
///
/// # Errors
/// Returns an error if the model, the options and the calibration data do not fit together, if a
/// stage changes the model's outputs, or if a file cannot be read or written. An existing `output`
/// is then unchanged.
///
/// # Examples
///
/// ```
/// use hardtack_converter::{ConvertOptions, NoProgress, convert};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/data/keyword_spotting");
/// # let folder = tempfile::tempdir()?;
/// # for name in ["kws_dscnn.onnx", "calibration.npz"] {
/// #     std::fs::copy(format!("{data}/{name}"), folder.path().join(name))?;
/// # }
/// # std::env::set_current_dir(&folder)?;
/// let (source, output) = ("kws_dscnn.onnx".as_ref(), "kws.tack".as_ref());
/// let report = convert(source, output, &ConvertOptions::default(), &mut NoProgress)?;
/// println!("{} bytes of ONNX became {} bytes", report.source_bytes, report.bundle_bytes);
/// assert!(std::fs::exists("kws.tack")?);
/// # Ok(())
/// # }
/// ```
pub fn convert(
    source: &Path,
    output: &Path,
    options: &ConvertOptions,
    progress: &mut dyn Progress,
) -> Result<Report, Error> {
    let mut conversion = Conversion::new(source, options, progress)?;
    let imported = conversion.import()?;
    let (mut samples, trial) = conversion.samples(&imported)?;
    conversion.check_samples(&samples)?;
    let original = conversion.second_opinion(imported, &samples, trial)?;
    let folded = conversion.fold(original, &samples)?;
    let pruned = conversion.prune(folded, &samples)?;
    let quantized = conversion.quantize(pruned, &mut samples)?;
    let prepared = conversion.prepare(quantized, &samples)?;
    let bundle = conversion.emit(prepared, &samples)?;
    conversion.write(output, &bundle)
}

/// The state of a conversion between its stages.
struct Conversion<'a> {
    path: &'a Path,
    options: ConvertOptions,
    progress: &'a mut dyn Progress,
    name: String,
    source: Option<SourceFile>,
    signature: Option<Signature>,
    /// The imported model's outputs on the compared samples.
    expected: Vec<Vec<Tensor>>,
    /// The outputs on the same samples after the last stage, if they are known.
    last_outputs: Option<Vec<Vec<Tensor>>>,
    stages: Vec<StageReport>,
    figures: Vec<FigureReport>,
    readings: Option<ReadingsReport>,
    pruned: Option<PruneReport>,
    float_nodes: Vec<FloatNode>,
    /// Whether layers stay in float because INT8 and int16 are too inaccurate for them.
    needs_float: bool,
    int16_nodes: Vec<FloatNode>,
    graph: Vec<GraphNode>,
    layers: Vec<LayerReport>,
    arena_bytes: u64,
    digest: String,
    warnings: Vec<String>,
}

impl<'a> Conversion<'a> {
    fn new(
        path: &'a Path,
        options: &ConvertOptions,
        progress: &'a mut dyn Progress,
    ) -> Result<Conversion<'a>, Error> {
        if options.int8 && options.calibration.is_none() {
            return Err(Error::Options(
                "INT8 needs calibration data: give --data an .npz file, or a folder of images \
                 or audio files"
                    .into(),
            ));
        }
        if options.prune_channels.is_some() && options.calibration.is_none() {
            return Err(Error::Options(
                "pruning needs calibration data: give --data an .npz file, or a folder of images \
                 or audio files"
                    .into(),
            ));
        }
        if options.dynamic && options.matrices() != MatrixStorage::Int8 {
            return Err(Error::Options(
                "--dynamic needs INT8 matrices; give --weights int8, or omit --weights".into(),
            ));
        }
        let name = options.name.clone().unwrap_or_else(|| {
            path.file_stem().map_or("model".into(), |stem| stem.to_string_lossy().into())
        });
        Ok(Conversion {
            path,
            options: options.resolved(),
            progress,
            name,
            source: None,
            signature: None,
            expected: Vec::new(),
            last_outputs: None,
            stages: Vec::new(),
            figures: Vec::new(),
            readings: None,
            pruned: None,
            float_nodes: Vec::new(),
            needs_float: false,
            int16_nodes: Vec::new(),
            graph: Vec::new(),
            layers: Vec::new(),
            arena_bytes: 0,
            digest: String::new(),
            warnings: Vec::new(),
        })
    }

    fn import(&mut self) -> Result<OffloadedModel, Error> {
        let began = self.begin("import");
        let (model, source) = self.read_model(Evaluated::default())?;
        let mut signature = Signature::of(model.graph(), self.options.preprocess.as_ref());
        // Checked again when the bundle is written, with the final types.
        for (_, input) in signature.states(&self.options.states)? {
            signature.inputs[usize::from(input)].initial = Some(Initial::Zeros);
        }
        signature.set_defaults(&source.defaults);
        self.signature = Some(signature);
        if self.options.labels.is_empty() {
            self.options.labels = source.labels.clone();
        }
        if let Some(evaluation) = &source.evaluated {
            self.warnings.push(format!(
                "the reference implementation of ONNX runs the whole model, which is slow: {}",
                evaluation.reason
            ));
        }
        self.source = Some(source);
        self.end("import", began, &model, None);
        Ok(model)
    }

    /// Imports the file with a choice of evaluated nodes.
    fn read_model(&self, evaluated: Evaluated) -> Result<(OffloadedModel, SourceFile), Error> {
        let settings = ImportOptions { set: self.options.set.clone(), evaluated };
        let imported = if self.options.guarded {
            guard::import_guarded(self.path, &settings, &self.options.import_limits)?
        } else {
            import::import(self.path, &settings)?
        };
        Ok((OffloadedModel::new(imported.model)?, imported.source))
    }

    /// Checks that the samples suffice for what the options ask for.
    fn check_samples(&mut self, samples: &Samples) -> Result<(), Error> {
        if self.options.int8 {
            samples.check_calibration()?;
            let count = samples.inputs.count();
            if count < FEW_SAMPLES {
                self.warnings.push(format!(
                    "the value ranges come from few calibration samples ({count}), so other inputs \
                     may exceed them; give 100 or more"
                ));
            }
        }
        Ok(())
    }

    /// Reads data for the model's inputs and pre-processes it.
    fn read(&self, path: &Path, limit: usize, graph: &Graph) -> Result<Samples, Error> {
        let signature = self.signature();
        let input = signature.inputs.get(signature.data_input()).ok_or_else(|| {
            Error::Options("the model has no input, so it takes no data; omit --data".into())
        })?;
        let port = input.manifest_port()?;
        let own = self.options.calibration_preprocess.as_ref();
        let preprocessor = match own.or(self.options.preprocess.as_ref()) {
            Some(preprocess) => Preprocessor::new(preprocess.clone(), &port)?,
            None => Preprocessor::identity(&port),
        };
        Samples::read(path, limit, graph, signature, &preprocessor)
    }

    fn fold(
        &mut self,
        original: OffloadedModel,
        samples: &Samples,
    ) -> Result<OffloadedModel, Error> {
        let began = self.begin("fold");
        let folded = original.map(|model| fold::fold(self.without_blocks(model)))?;
        let (difference, last_outputs) =
            self.check_parity("fold", &self.expected, &folded, samples)?;
        self.last_outputs = Some(last_outputs);
        self.record_figure("parity of fold", difference, samples);
        self.end("fold", began, &folded, Some(difference));
        Ok(folded)
    }

    /// Dequantizes block-quantized weights if later stages change or quantize the model: they do
    /// not support per-block scales.
    fn without_blocks(&self, model: Model) -> Model {
        let changes = self.options.int8 || self.options.prune_channels.is_some();
        match changes || model.graph.nodes.iter().any(is_prequantized) {
            true => fold::real_blocks(model),
            false => model,
        }
    }

    fn prune(&mut self, model: OffloadedModel, samples: &Samples) -> Result<OffloadedModel, Error> {
        let Some(target) = self.options.prune_channels else { return Ok(model) };
        let began = self.begin("prune");
        let progress = &mut *self.progress;
        let (pruned, report) = prune::prune(
            &model.load()?,
            &*samples.inputs,
            target,
            self.options.int8,
            &mut |done, of| progress.step(done, of),
        )?;
        let pruned = OffloadedModel::new(pruned)?;
        let got = float_run::outputs(&pruned, &compared_samples(samples))?;
        let difference = parity::compare(&self.expected, &got).of_range;
        self.last_outputs = Some(got);
        self.record_figure(
            "largest difference by pruning, of the output's range",
            difference,
            samples,
        );
        self.warnings.extend(report.warning.clone());
        self.pruned = Some(report);
        self.end("prune", began, &pruned, Some(difference));
        Ok(pruned)
    }

    fn signature(&self) -> &Signature {
        self.signature.as_ref().expect("imported before")
    }

    fn begin(&mut self, stage: &'static str) -> Instant {
        self.progress.stage(stage);
        Instant::now()
    }

    fn end(
        &mut self,
        name: &'static str,
        began: Instant,
        model: &OffloadedModel,
        parity: Option<f64>,
    ) {
        self.end_of(name, began, (model.graph().nodes.len(), size(model)), parity);
    }

    fn end_of(
        &mut self,
        name: &'static str,
        began: Instant,
        (nodes, (parameters, bytes)): (usize, (u64, u64)),
        parity: Option<f64>,
    ) {
        self.stages.push(StageReport {
            name,
            nodes,
            parameters,
            bytes,
            seconds: began.elapsed().as_secs_f64(),
            parity,
        });
    }

    /// Compares a model's outputs with those before a stage. Returns the largest difference as a
    /// fraction of the output's range, and the outputs.
    ///
    /// # Errors
    /// Returns [`Error::Parity`] if rounding does not explain the difference.
    fn check_parity(
        &self,
        stage: &'static str,
        before: &[Vec<Tensor>],
        model: &OffloadedModel,
        samples: &Samples,
    ) -> Result<(f64, Vec<Vec<Tensor>>), Error> {
        let few = compared_samples(samples);
        let after = float_run::outputs(model, &few)?;
        let Difference { of_range, differs } = parity::compare(before, &after);
        // Some inputs make some models very sensitive to rounding, and summation order differs
        // between processors. The measured sensitivity is a single random draw.
        let explained = !differs
            || of_range <= NOISE_MULTIPLE * parity::sensitivity(model, &few, &after)?.of_range;
        if explained {
            return Ok((of_range, after));
        }
        Err(Error::Parity {
            stage,
            of_range,
            samples: few.count(),
            source_name: samples.source.clone(),
        })
    }

    fn record_figure(&mut self, name: &str, value: f64, samples: &Samples) {
        self.figures.push(FigureReport {
            name: name.into(),
            value,
            samples: compared_samples(samples).count() as u32,
            source: samples.source.clone(),
        });
    }
}

fn is_prequantized(node: &Node) -> bool {
    matches!(node.operator, Operator::QuantizeLinear(_))
}

fn compared_samples(samples: &Samples) -> First<'_> {
    First(&*samples.inputs, COMPARED_SAMPLES)
}

/// Returns the number of elements in constant tensors, and the bytes of constants and programs.
fn size(model: &OffloadedModel) -> (u64, u64) {
    let (mut parameters, mut bytes) = (0, 0);
    for constant in &model.graph().constants {
        // Symbolic dimensions have no size.
        if let Some(size) = constant.stored.size() {
            let elements: u64 = constant.shape.iter().product();
            parameters += elements;
            bytes += elements * size as u64;
        }
    }
    let programs = model.programs().iter();
    bytes += programs.map(|p| (p.code.len() + p.weights.len()) as u64).sum::<u64>();
    (parameters, bytes)
}
