//! The pipeline, from an ONNX file to a bundle.

use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use hardtack::process::Preprocessor;
use hardtack::{Model, Tensor};
use hardtack_bundle::graph::{Graph, Node, Operator};
use hardtack_bundle::{DType, Sealed};

use crate::emit::{self, Contents};
use crate::error::Error;
use crate::guard::{self, Limits};
use crate::import::{self, ImportOptions, Source};
use crate::narrow::narrow;
use crate::options::{FloatStorage, MatrixStorage, Options};
use crate::outline::outline;
use crate::parity::{self, Difference};
use crate::ports::Ports;
use crate::prune::{self, PruneReport};
use crate::quantize;
use crate::report::{
    FigureReport, FloatNode, GraphNode, LayerReport, Progress, Report, StageReport,
};
use crate::resting::{Resting, Sleeper as _};
use crate::samples::{First, Samples, Source as _};
use crate::whole::{WholeFile, write_file};

/// Samples on which the error of each layer is measured.
const MEASURED: usize = 8;
/// Samples on which stages are compared.
const COMPARED: usize = 4;
/// How many times what rounding was seen to do a stage may do.
const DRAWS: f64 = 4.0;

/// Converts the ONNX file `source` into the bundle `output`.
///
/// # Errors
/// Where the model, the options or the calibration data do not fit together, a stage would
/// change the model's numbers, or a file cannot be read or written. Then `output` is as it was.
pub fn convert(
    source: &Path,
    output: &Path,
    options: &Options,
    progress: &mut dyn Progress,
) -> Result<Report, Error> {
    let mut work = Work::new(source, options, progress)?;
    let original = work.import()?;
    let mut samples = work.samples(&original)?;
    let folded = work.fold(original, &samples)?;
    let pruned = work.prune(folded, &samples)?;
    let quantized = work.quantize(pruned, &mut samples)?;
    let prepared = work.prepare(quantized, &samples)?;
    let bundle = work.emit(prepared, &samples)?;
    work.write(output, &bundle)
}

/// A conversion on its way.
struct Work<'a> {
    path: &'a Path,
    options: Options,
    progress: &'a mut dyn Progress,
    name: String,
    source: Option<Source>,
    ports: Option<Ports>,
    /// What the imported model gives on the compared samples.
    expected: Vec<Vec<Tensor>>,
    stages: Vec<StageReport>,
    figures: Vec<FigureReport>,
    pruned: Option<PruneReport>,
    float_nodes: Vec<FloatNode>,
    int16_nodes: Vec<FloatNode>,
    graph: Vec<GraphNode>,
    layers: Vec<LayerReport>,
    arena_bytes: u64,
    digest: String,
    warnings: Vec<String>,
}

/// A model and whether its graph is simplified for loading.
struct Prepared {
    model: Resting,
    prepared: bool,
}

impl<'a> Work<'a> {
    fn new(
        path: &'a Path,
        options: &Options,
        progress: &'a mut dyn Progress,
    ) -> Result<Work<'a>, Error> {
        if options.int8 && options.calibration.is_none() {
            return Err(Error::Options(
                "INT8 needs calibration data: give --calibrate with an .npz file or a folder of \
                 pictures or recordings"
                    .into(),
            ));
        }
        if options.prune_channels.is_some() && options.calibration.is_none() {
            return Err(Error::Options(
                "pruning needs calibration data: give --calibrate with an .npz file or a folder of \
                 pictures or recordings"
                    .into(),
            ));
        }
        if options.dynamic && options.matrices() != MatrixStorage::Int8 {
            return Err(Error::Options(
                "--dynamic multiplies with matrices of bytes; give --weights int8, or leave it out"
                    .into(),
            ));
        }
        let name = options.name.clone().unwrap_or_else(|| {
            path.file_stem().map_or("model".into(), |stem| stem.to_string_lossy().into())
        });
        Ok(Work {
            path,
            options: options.clone(),
            progress,
            name,
            source: None,
            ports: None,
            expected: Vec::new(),
            stages: Vec::new(),
            figures: Vec::new(),
            pruned: None,
            float_nodes: Vec::new(),
            int16_nodes: Vec::new(),
            graph: Vec::new(),
            layers: Vec::new(),
            arena_bytes: 0,
            digest: String::new(),
            warnings: Vec::new(),
        })
    }

    fn import(&mut self) -> Result<Resting, Error> {
        let began = self.begin("import");
        let settings = ImportOptions { set: self.options.set.clone() };
        let imported = if self.options.guarded {
            guard::import_guarded(self.path, &settings, &Limits::default())?
        } else {
            import::import(self.path, &settings)?
        };
        self.ports = Some(Ports::of(&imported.model.graph, self.options.preprocess.as_ref()));
        if self.options.labels.is_empty() {
            self.options.labels = imported.source.labels.clone();
        }
        self.source = Some(imported.source);
        let model = Resting::new(imported.model)?;
        self.end("import", began, &model, None);
        Ok(model)
    }

    /// The samples to measure with, and what the imported model makes of them.
    fn samples(&mut self, original: &Resting) -> Result<Samples, Error> {
        self.progress.stage("samples");
        let samples = match &self.options.calibration {
            Some(path) => self.read(path, self.options.samples, original.graph())?,
            None => Samples::random(original.graph()),
        };
        if self.options.int8 {
            samples.check_calibration()?;
        }
        self.expected = parity::outputs(original, &compared(&samples))?;
        Ok(samples)
    }

    /// Reads data for the model's inputs through its pre-processing.
    fn read(&self, path: &Path, limit: usize, graph: &Graph) -> Result<Samples, Error> {
        let ports = self.ports();
        let input = ports.inputs.first().ok_or_else(|| {
            Error::Options("the model has no input, so there is nothing to run".into())
        })?;
        let port = input.port()?;
        let own = self.options.calibration_preprocess.as_ref();
        let preprocessor = match own.or(self.options.preprocess.as_ref()) {
            Some(preprocess) => Preprocessor::new(preprocess.clone(), &port)?,
            None => Preprocessor::identity(&port),
        };
        Samples::read(path, limit, graph, ports, &preprocessor)
    }

    fn fold(&mut self, original: Resting, samples: &Samples) -> Result<Resting, Error> {
        let began = self.begin("fold");
        let folded = Resting::new(crate::fold::fold(self.ready(original.awake()?)))?;
        let difference = self.keeps_numbers("fold", &self.expected, &folded, samples)?;
        self.figure("parity of fold", difference, samples);
        self.end("fold", began, &folded, Some(difference));
        Ok(folded)
    }

    /// The imported model as the stages after it take it: scales of blocks have no integer form.
    fn ready(&self, model: Model) -> Model {
        let changes = self.options.int8 || self.options.prune_channels.is_some();
        match changes || model.graph.nodes.iter().any(states_scales) {
            true => crate::fold::real_blocks(model),
            false => model,
        }
    }

    fn prune(&mut self, model: Resting, samples: &Samples) -> Result<Resting, Error> {
        let Some(target) = self.options.prune_channels else { return Ok(model) };
        let began = self.begin("prune");
        let progress = &mut *self.progress;
        let (pruned, report) = prune::prune(
            &model.awake()?,
            &*samples.inputs,
            target,
            self.options.int8,
            &mut |done, of| progress.step(done, of),
        )?;
        let pruned = Resting::new(pruned)?;
        let got = parity::outputs(&pruned, &compared(samples))?;
        let difference = parity::compare(&self.expected, &got).of_range;
        self.figure("largest difference by pruning, of the output's range", difference, samples);
        self.warnings.extend(report.warning.clone());
        self.pruned = Some(report);
        self.end("prune", began, &pruned, Some(difference));
        Ok(pruned)
    }

    fn quantize(&mut self, model: Resting, samples: &mut Samples) -> Result<Resting, Error> {
        // A model that states its scales is run in the integers it was made for.
        if !self.options.int8 && !model.graph().nodes.iter().any(states_scales) {
            if self.options.integer_io {
                return Err(Error::Options("--integer-io: is for INT8; give --int8 too".into()));
            }
            let integers = self.options.matrices() == MatrixStorage::Int8;
            let mut texts = self.options.quantize.texts().into_iter();
            if let Some((name, _)) = texts.find(|(name, _)| !(integers && name == "weight-bits")) {
                return Err(Error::Options(format!("--{name}: is for INT8; give --int8 too")));
            }
            let integers = |node: &Node| matches!(node.operator, Operator::DequantizeLinear(_));
            let dynamic =
                self.options.dynamic || !quantize::dynamic::constants(model.graph()).is_empty();
            if !dynamic && model.graph().nodes.iter().any(integers) {
                self.warnings.push(
                    "the model has integer weights, and states no scales of activations, so that it \
                     runs in float; --int8 with --calibrate measures them"
                        .into(),
                );
            }
            self.graph = outline(&model.awake()?, |_| None);
            return Ok(model);
        }
        let began = self.begin("quantize");
        let measured = match &self.options.measure {
            Some(path) => Some(self.read(path, MEASURED, model.graph())?.inputs),
            None => None,
        };
        let measured = First(&**measured.as_ref().unwrap_or(&samples.inputs), MEASURED);
        let progress = &mut *self.progress;
        let mut step = |done, of| progress.step(done, of);
        let (real, settings) = (samples.are_real(), &self.options.quantize);
        let awake = model.awake()?;
        drop(model);
        let mut quantized =
            quantize::quantize(awake, &*samples.inputs, &measured, real, settings, &mut step)?;
        let (programs, packing) = (&mut quantized.model.programs, self.options.packing);
        if let Some(limit) = self.options.arena_limit {
            quantize::arena::limit(programs, packing, limit).map_err(|least| {
                Error::Options(format!(
                    "the arena is limited to {limit} bytes, and the least that was found for this \
                     model is {least}; raise the limit, or make the input smaller"
                ))
            })?;
        }
        self.arena_bytes = quantize::arena::bytes(programs, packing);
        let told = |nodes: Vec<quantize::Told>| -> Vec<FloatNode> {
            let told = nodes.into_iter();
            told.map(|told| FloatNode {
                node: told.node,
                operator: told.operator,
                reason: told.reason,
            })
            .collect()
        };
        self.float_nodes = told(quantized.left_in_float);
        self.int16_nodes = told(quantized.int16);
        self.layers = quantized.layers;
        self.graph = quantized.graph;
        self.warnings.extend(quantized.warnings);
        if quantized.rounded_weights > 0 {
            self.warnings.push(format!(
                "the weights of {} layers, less their zero points, have more than 8 bits, and were \
                 rounded to 8; symmetric weights are kept as they are",
                quantized.rounded_weights
            ));
        }
        if quantized.model.programs.is_empty() && self.options.int8 {
            self.warnings.push("no part of the model could be quantized; it is all float".into());
        } else if let (false, Some(first)) = (self.options.int8, self.float_nodes.first()) {
            self.warnings.push(format!(
                "the model is quantized, and {} of its operators run in float all the same, among them \
                 {:?} ({}): {}",
                self.float_nodes.len(),
                first.node,
                first.operator,
                first.reason,
            ));
        }
        let mut model = Resting::new(quantized.model)?;
        let got = parity::outputs(&model, &compared(samples))?;
        let difference = parity::compare(&self.expected, &got);
        self.figure("largest INT8 difference, of the output's range", difference.of_range, samples);
        if self.options.integer_io {
            let ports = self.ports.as_mut().expect("imported before");
            let few = compared(samples);
            let mut awake = model.awake()?;
            let integers = quantize::integer_io::integer_io(&mut awake, ports, &few)?;
            model = Resting::new(awake)?;
            samples.inputs = Box::new(integers);
        }
        self.end("quantize", began, &model, Some(difference.of_range));
        Ok(model)
    }

    /// Stores reals as asked, and simplifies the graph as far as that does not depend on the
    /// machine.
    fn prepare(&mut self, model: Resting, samples: &Samples) -> Result<Prepared, Error> {
        let began = self.begin("prepare");
        let before = parity::outputs(&model, &compared(samples))?;
        let (model, mut stored) = self.multiply(model.awake()?);
        let model = Resting::new(model)?;
        let products = match stored.is_empty() {
            true => None,
            false => Some(parity::outputs(&model, &compared(samples))?),
        };
        let prepared = match hardtack::float::prepare(model.awake()?) {
            Ok(simpler) => Prepared { model: Resting::new(simpler)?, prepared: true },
            Err(error) => {
                self.warnings.push(format!(
                    "the graph is stored as imported, so loading takes longer ({error})"
                ));
                Prepared { model, prepared: false }
            }
        };
        let products = products.as_ref().unwrap_or(&before);
        let difference = self.keeps_numbers("prepare", products, &prepared.model, samples)?;
        let mut model = prepared.model.awake()?;
        if self.options.float != FloatStorage::F32 {
            model = emit::halve(model, self.options.float);
            stored.push(self.options.float.dtype().name());
        }
        let matrices = self.options.matrices();
        if matrices != MatrixStorage::Float {
            // With products in integers, steps were chosen before.
            let bits = self.options.matrix_bits().filter(|_| !self.options.dynamic);
            let (with_integers, count) = quantize::matrices::store(model, matrices, bits);
            model = with_integers;
            stored.extend((count > 0).then_some(matrices.name()));
        }
        let model = Resting::new(narrow(quantize::lookup::in_integers(model)))?;
        let prepared = Prepared { model, ..prepared };
        let mut of_range = difference;
        if !stored.is_empty() {
            let after = parity::outputs(&prepared.model, &compared(samples))?;
            of_range = parity::compare(&before, &after).of_range;
            let name = format!(
                "largest difference by {} weights, of the output's range",
                stored.join(" and ")
            );
            self.figure(&name, of_range, samples);
        }
        self.end("prepare", began, &prepared.model, Some(of_range));
        Ok(prepared)
    }

    /// Computes products in integers, if asked to, and gives all such products their biases; how
    /// their weights are called, if there are any. Simplifying the graph would hide products.
    fn multiply(&mut self, mut model: Model) -> (Model, Vec<&'static str>) {
        let mut stored = Vec::new();
        if self.options.dynamic {
            let bits = self.options.matrix_bits();
            let (with_integers, _) = quantize::matrices::store(model, MatrixStorage::Int8, bits);
            let (with_products, count) = quantize::dynamic::multiply(with_integers);
            model = with_products;
            if count > 0 {
                stored.push("dynamically multiplied");
            } else {
                let sentence = "--dynamic: the model has no product with a large constant matrix";
                self.warnings.push(sentence.into());
            }
        }
        (quantize::dynamic::fuse(model), stored)
    }

    fn emit(&mut self, prepared: Prepared, samples: &Samples) -> Result<Sealed<'static>, Error> {
        let began = self.begin("emit");
        let source = self.source.as_ref().expect("imported before");
        let affordable = match samples.are_real() {
            true => emit::affordable(&*samples.inputs, size(&prepared.model).1)?,
            false => 1,
        };
        let generated;
        let (golden, count) = match affordable {
            0 => {
                generated = self.generated(prepared.model.graph(), samples)?;
                (&generated, 1)
            }
            count => (samples, count),
        };
        let few = First(&*golden.inputs, count);
        let outputs = parity::outputs(&prepared.model, &few)?;
        // Where activations are quantized as they come, processors that round in other orders come to
        // other integers.
        let rounding = match quantize::dynamic::constants(prepared.model.graph()).is_empty() {
            true => 0.0,
            false => DRAWS * parity::sensitivity(&prepared.model, &few, &outputs)?.of_range,
        };
        let (nodes, size) = (prepared.model.graph().nodes.len(), size(&prepared.model));
        let contents = Contents {
            prepared: prepared.prepared,
            name: &self.name,
            ports: self.ports(),
            source,
            options: &self.options,
            figures: &self.figures,
            float_nodes: &self.float_nodes,
            arena_bytes: self.arena_bytes,
            golden: (golden, &outputs),
            rounding,
        };
        let bundle = emit::emit(prepared.model.awake()?, &contents)?;
        self.digest = bundle.root().to_string();
        self.end_of("emit", began, (nodes, size), None);
        Ok(bundle)
    }

    /// One generated sample within the range of the real ones.
    fn generated(&self, graph: &Graph, samples: &Samples) -> Result<Samples, Error> {
        let mut random = Samples::drawn(graph, 1);
        let mut inputs = Vec::new();
        for (real, generator) in samples.inputs.sample(0)?.iter().zip(&mut random.generators[0]) {
            if matches!(real.dtype(), DType::F32 | DType::I8 | DType::U8) {
                let values = real.to_f32();
                generator.low = values.iter().copied().fold(f32::INFINITY, f32::min);
                generator.high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                if real.dtype() != DType::F32 {
                    // Integers are what lies below: the greatest is among them.
                    generator.high += 1.0;
                }
            }
            inputs.push(crate::samples::generate(real.dtype(), real.shape(), generator));
        }
        random.inputs = Box::new(vec![inputs]);
        Ok(random)
    }

    fn write(self, output: &Path, bundle: &Sealed<'_>) -> Result<Report, Error> {
        let packed = match &self.options.transport {
            Some(path) => Some((path, hardtack_transport::pack(&bundle.to_bytes())?)),
            None => None,
        };
        let failed = |source| Error::Write { path: output.into(), source };
        let mut file = WholeFile::new(output)?;
        bundle.write(|piece| file.write_all(piece)).map_err(failed)?;
        file.put()?;
        if let Some((path, packed)) = &packed {
            write_file(path, packed)?;
        }
        let transport_bytes = packed.map(|(_, packed)| packed.len() as u64);
        let source = self.source.expect("imported before");
        Ok(Report {
            name: self.name,
            digest: self.digest,
            source_bytes: source.bytes,
            bundle_bytes: bundle.len(),
            transport_bytes,
            stages: self.stages,
            figures: self.figures,
            rewritten: source.rewritten,
            pruned: self.pruned,
            float_nodes: self.float_nodes,
            int16_nodes: self.int16_nodes,
            graph: self.graph,
            layers: self.layers,
            arena_bytes: self.arena_bytes,
            warnings: self.warnings,
        })
    }

    fn ports(&self) -> &Ports {
        self.ports.as_ref().expect("imported before")
    }

    fn begin(&mut self, stage: &'static str) -> Instant {
        self.progress.stage(stage);
        Instant::now()
    }

    fn end(&mut self, name: &'static str, began: Instant, model: &Resting, parity: Option<f64>) {
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

    /// The largest difference of a model's outputs from those before a stage, as a part of their
    /// range, if no more than rounding explains it.
    fn keeps_numbers(
        &self,
        stage: &'static str,
        before: &[Vec<Tensor>],
        model: &Resting,
        samples: &Samples,
    ) -> Result<f64, Error> {
        let few = compared(samples);
        let after = parity::outputs(model, &few)?;
        let Difference { of_range, differs } = parity::compare(before, &after);
        // Some inputs drive some models to where every rounding shows, and processors round in
        // other orders; what was measured is one draw of it.
        let explained =
            !differs || of_range <= DRAWS * parity::sensitivity(model, &few, &after)?.of_range;
        if explained {
            return Ok(of_range);
        }
        Err(Error::Parity {
            stage,
            of_range,
            samples: few.count(),
            source_name: samples.source.clone(),
        })
    }

    fn figure(&mut self, name: &str, value: f64, samples: &Samples) {
        self.figures.push(FigureReport {
            name: name.into(),
            value,
            samples: compared(samples).count() as u32,
            source: samples.source.clone(),
        });
    }
}

fn states_scales(node: &Node) -> bool {
    matches!(node.operator, Operator::QuantizeLinear(_))
}

fn compared(samples: &Samples) -> First<'_> {
    First(&*samples.inputs, COMPARED)
}

/// Elements of constant tensors, and bytes of these and of integer programs.
fn size(model: &Resting) -> (u64, u64) {
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
