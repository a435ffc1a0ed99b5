//! The second opinion: the imported model is compared with the reference implementation of ONNX,
//! which reads the file on its own.

use std::collections::HashMap;

use hardtack::Tensor;
use hardtack::internal::Model;
use hardtack_bundle::DType;
use hardtack_bundle::graph::{Fact, Graph, Operator, ValueId};
use hardtack_operators as onnx;
use hardtack_operators::{Node, Observer, Value};

use super::{Conversion, NOISE_MULTIPLE, compared_samples};
use crate::error::Error;
use crate::float_run;
use crate::import::reference::{Reference, from_reference};
use crate::import::{Evaluated, Evaluation, ImportError, SourceFile};
use crate::offloaded_model::{ModelSource as _, OffloadedModel};
use crate::parity::{self, Difference};
use crate::report::ReadingsReport;
use crate::samples::constraints::{self, Constraint};
use crate::samples::{self, First, Rule, SampleSource, Samples, each};

/// The number of imports that are tried, each with one more node evaluated.
const ATTEMPTS: usize = 4;
/// The element operations for which more than one sample is compared.
const MANY_SAMPLES: u64 = 1 << 28;

/// The difference, as a fraction of the output's range, that rounding explains in a model that
/// computes in float16 or rounds to integers. tract adds float16 numbers as they are, while the
/// reference implementation rounds each result once. A different order of additions can select
/// another integer.
const OF_COARSE: f64 = 0.05;

/// The outputs of a model on the compared samples, by both readings.
pub(super) struct Trial {
    imported: Result<Vec<Vec<Tensor>>, Error>,
    /// The outputs of the reference implementation, perhaps on fewer samples, or the reason why
    /// there are none.
    reference: Result<Vec<Vec<Tensor>>, String>,
    /// A random sample with other sizes of dynamic dimensions, and the outputs on it.
    resized: Option<Resized>,
}

/// A sample, and the outputs of both readings on it.
struct Resized {
    sample: Vec<Tensor>,
    imported: Result<Vec<Tensor>, Error>,
    reference: Vec<Tensor>,
}

impl Trial {
    /// Returns whether both readings have run.
    fn has_run(&self) -> bool {
        self.imported.is_ok() && self.reference.is_ok()
    }

    /// Describes how the readings agree. `evaluated` are the nodes that the reference
    /// implementation evaluates, with the reasons.
    fn readings(&self, samples: &Samples, evaluated: Vec<(String, String)>) -> ReadingsReport {
        let (values, count, difference) = match (&self.reference, &self.imported) {
            (Ok(expected), Ok(outputs)) => {
                let outputs = &outputs[..expected.len()];
                let values = outputs.iter().flatten().map(|tensor| tensor.len() as u64).sum();
                (values, expected.len() as u32, parity::compare(expected, outputs).of_range)
            }
            _ => (0, 0, 0.0),
        };
        let source = samples.source.clone();
        ReadingsReport { values, samples: count, source, difference, evaluated }
    }

    /// Returns whether all outputs of the imported model are finite.
    fn is_finite(&self) -> bool {
        let outputs = self.imported.iter().flatten().flatten();
        outputs.into_iter().all(|tensor| tensor.to_f32().iter().all(|value| value.is_finite()))
    }
}

impl Conversion<'_> {
    /// Reads or generates the samples, and runs both readings of the model on them. Random samples
    /// are chosen such that both can run, if that is possible.
    pub(super) fn samples(&mut self, imported: &OffloadedModel) -> Result<(Samples, Trial), Error> {
        self.progress.stage("samples");
        let reference = Reference::load(self.path, &self.options.set, imported.graph())?;
        if let Some(path) = &self.options.calibration {
            let samples = self.read(path, self.options.samples, imported.graph())?;
            self.warnings.extend(samples.notes.iter().cloned());
            let trial = self.trial(imported, &reference, &samples)?;
            return Ok((samples, trial));
        }
        let constraints = constraints::of(reference.graph(), self.signature());
        let mut best: Option<(Samples, Trial)> = None;
        for rule in samples::RULES {
            let samples = Samples::random_by(imported.graph(), rule, &constraints)?;
            let trial = self.trial(imported, &reference, &samples)?;
            if trial.has_run() {
                return self.finite(imported, &reference, (samples, trial), rule);
            }
            let rank = |trial: &Trial| (trial.reference.is_ok(), trial.imported.is_ok());
            if best.as_ref().is_none_or(|(_, other)| rank(&trial) > rank(other)) {
                best = Some((samples, trial));
            }
        }
        let (mut samples, mut trial) = best.expect("there are rules");
        if let (Err(problem), Err(_)) = (&trial.imported, &trial.reference) {
            let evaluated = self.source.as_ref().and_then(|source| source.evaluated.clone());
            if let Some(Evaluation { unbound: Some((unknown, settings)), .. }) = evaluated {
                return Err(ImportError::Unbound { unknown, settings }.into());
            }
            if !depends_on_choice(imported.graph()) {
                return Err(trial.imported.expect_err("it failed"));
            }
            self.warnings.push(format!(
                "the model cannot run on random inputs ({problem}), so the bundle has no test \
                 vectors; give real inputs with --data"
            ));
            samples = Samples { inputs: Box::new(Vec::new()), ..samples };
            samples.generators.clear();
            trial.imported = Ok(Vec::new());
        }
        Ok((samples, trial))
    }

    /// Returns samples of positive floats instead, if only the outputs on those are finite.
    fn finite(
        &self,
        imported: &OffloadedModel,
        reference: &Reference,
        (samples, trial): (Samples, Trial),
        rule: Rule,
    ) -> Result<(Samples, Trial), Error> {
        if trial.is_finite() {
            return Ok((samples, trial));
        }
        let constraints = constraints::of(reference.graph(), self.signature());
        let rule = Rule { floats: samples::POSITIVE, ..rule };
        let positive = Samples::random_by(imported.graph(), rule, &constraints)?;
        let other = self.trial(imported, reference, &positive)?;
        Ok(match other.has_run() && other.is_finite() {
            true => (positive, other),
            false => (samples, trial),
        })
    }

    fn trial(
        &self,
        imported: &OffloadedModel,
        reference: &Reference,
        samples: &Samples,
    ) -> Result<Trial, Error> {
        let few = compared_samples(samples);
        if few.count() == 0 {
            let reference = Err("no samples".into());
            return Ok(Trial { imported: Ok(Vec::new()), reference, resized: None });
        }
        let outputs = match float_run::outputs(imported, &few) {
            // Other inputs cannot help.
            Err(problem) if !is_of_inputs(&problem) => return Err(problem),
            outputs => outputs,
        };
        if is_evaluated(imported.graph()) {
            let reference = Err("the reference implementation runs the model".into());
            return Ok(Trial { imported: outputs, reference, resized: None });
        }
        let count = (MANY_SAMPLES / work(imported, samples)?.max(1)).clamp(1, few.count() as u64);
        let mut expected = Ok(Vec::new());
        for sample in each(&First(&*samples.inputs, count as usize)) {
            match (&mut expected, reference.run(&sample?, &mut onnx::NoObserver)) {
                (Ok(all), Ok(outputs)) => all.push(outputs),
                (_, Err(reason)) => {
                    expected = Err(reason);
                    break;
                }
                (Err(_), _) => break,
            }
        }
        let resized = match (&outputs, &expected) {
            (Ok(_), Ok(_)) => {
                let constraints = constraints::of(reference.graph(), self.signature());
                resized(imported, reference, &constraints)?
            }
            _ => None,
        };
        Ok(Trial { imported: outputs, reference: expected, resized })
    }

    /// Compares an imported model with the reference implementation. Where they disagree, the first
    /// node that differs is run by the reference implementation in the bundle too.
    pub(super) fn second_opinion(
        &mut self,
        mut imported: OffloadedModel,
        samples: &Samples,
        mut trial: Trial,
    ) -> Result<OffloadedModel, Error> {
        let mut evaluated = Vec::new();
        let mut reasons = self.evaluated_by_import(imported.graph());
        let mut is_whole = false;
        for attempt in 0..=ATTEMPTS + 1 {
            let Some((problem, sample)) = self.disagreement(&imported, samples, &trial)? else {
                break;
            };
            if is_whole {
                return Err(Error::Readings { problem });
            }
            let reference = Reference::load(self.path, &self.options.set, imported.graph())?;
            let culprit = match attempt < ATTEMPTS {
                true => culprit(&imported, &reference, &sample)?,
                false => None,
            };
            let (what, choice) = match culprit.filter(|(_, output)| !evaluated.contains(output)) {
                Some((node, output)) => {
                    evaluated.push(output);
                    (format!("node {node:?}"), Evaluated::Nodes(evaluated.clone()))
                }
                None => ("the model".into(), Evaluated::All),
            };
            is_whole = choice == Evaluated::All;
            reasons.push((what.clone(), format!("the readings disagree {problem}")));
            self.warnings.push(format!(
                "two readings of {what} disagree ({problem}); the reference implementation of \
                 ONNX evaluates it at run time, which is slow; please report this with the model"
            ));
            let (model, source) = self.read_model(choice)?;
            self.source = Some(source);
            trial = self.trial(&model, &reference, samples)?;
            imported = model;
        }
        self.readings = Some(trial.readings(samples, reasons));
        self.expected = trial.imported?;
        Ok(imported)
    }

    /// Returns what the reference implementation evaluates in an imported model, with the reason.
    fn evaluated_by_import(&self, graph: &Graph) -> Vec<(String, String)> {
        let whole = self.source.as_ref().and_then(|source| source.evaluated.as_ref());
        if let Some(evaluation) = whole {
            return vec![("the model".into(), evaluation.reason.clone())];
        }
        let nodes = graph.nodes.iter().filter(|n| matches!(n.operator, Operator::Evaluate(_)));
        nodes
            .map(|node| (format!("node {:?}", node.name), "no native implementation".into()))
            .collect()
    }

    /// Returns in what the two readings of a model disagree, and a sample on which they do.
    fn disagreement(
        &mut self,
        imported: &OffloadedModel,
        samples: &Samples,
        trial: &Trial,
    ) -> Result<Option<(String, Vec<Tensor>)>, Error> {
        let first = |problem| Ok(Some((problem, samples.inputs.sample(0)?.into_owned())));
        let (expected, outputs) = match (&trial.reference, &trial.imported) {
            (Ok(expected), Ok(outputs)) => (expected, outputs),
            (Ok(_), Err(problem)) => return first(problem.to_string()),
            (Err(_), _) if is_evaluated(imported.graph()) => return Ok(None),
            (Err(reason), _) => {
                let sentence = format!("not compared with a second reading: {reason}");
                if let Some(SourceFile { rewritten, .. }) = &mut self.source {
                    rewritten.push(sentence);
                }
                return Ok(None);
            }
        };
        let few = First(&*samples.inputs, expected.len());
        if let Some(problem) = difference(imported, &few, expected, &outputs[..expected.len()])? {
            return first(problem);
        }
        let Some(Resized { sample, imported: outputs, reference }) = &trial.resized else {
            return Ok(None);
        };
        let problem = match outputs {
            Ok(outputs) => difference(
                imported,
                &vec![sample.clone()],
                std::slice::from_ref(reference),
                std::slice::from_ref(outputs),
            )?,
            Err(problem) => Some(problem.to_string()),
        };
        Ok(problem.map(|problem| (problem, sample.clone())))
    }
}

/// Returns in what outputs differ from the expected ones, if rounding does not explain it.
fn difference(
    imported: &OffloadedModel,
    samples: &dyn SampleSource,
    expected: &[Vec<Tensor>],
    outputs: &[Vec<Tensor>],
) -> Result<Option<String>, Error> {
    let worst = parity::compare(expected, outputs);
    if !worst.differs || (worst.of_range <= OF_COARSE && is_coarse(imported.graph())) {
        return Ok(None);
    }
    let noise = parity::sensitivity(imported, samples, outputs)?.of_range;
    let explained = worst.of_range <= NOISE_MULTIPLE * noise;
    Ok((!explained).then(|| described(worst.of_range)))
}

/// Describes a difference, which is a fraction of the output's range.
fn described(of_range: f64) -> String {
    match of_range.is_finite() {
        true => format!("by {of_range:.1e} of the output's range"),
        false => "in the type or shape of an output".into(),
    }
}

/// Runs both readings on a random sample with other sizes of dynamic dimensions. `None` if there
/// are no such dimensions, or if the reference cannot run on any sample that is tried.
fn resized(
    imported: &OffloadedModel,
    reference: &Reference,
    constraints: &[Constraint],
) -> Result<Option<Resized>, Error> {
    let graph = imported.graph();
    let facts = graph.inputs.iter().map(|index| &graph.nodes[*index as usize].outputs[0]);
    if facts.into_iter().all(|fact| fact.shape.iter().all(|dim| dim.value().is_some())) {
        return Ok(None);
    }
    for rule in samples::OTHER_SIZES {
        let samples = Samples::random_by(graph, rule, constraints)?;
        let sample = samples.inputs.sample(0)?.into_owned();
        if let Ok(outputs) = reference.run(&sample, &mut onnx::NoObserver) {
            let imported = match float_run::outputs(imported, &First(&*samples.inputs, 1)) {
                Err(problem) if !is_of_inputs(&problem) => return Ok(None),
                outputs => outputs.map(|mut outputs| outputs.remove(0)),
            };
            return Ok(Some(Resized { sample, imported, reference: outputs }));
        }
    }
    Ok(None)
}

/// Returns whether a model computes in float16, or rounds to integers.
fn is_coarse(graph: &Graph) -> bool {
    graph.nodes.iter().any(|node| {
        matches!(node.operator, Operator::QuantizeLinear(_) | Operator::DynamicMatMul(_))
            || node.outputs.iter().any(|fact| fact.dtype == DType::F16)
    })
}

/// Returns whether the values or sizes of inputs may have caused an error.
fn is_of_inputs(problem: &Error) -> bool {
    use hardtack::float::Error as Run;
    matches!(problem, Error::Run(run) if !matches!(run, Run::Exceeded(_) | Run::TooLarge { .. }))
}

/// Returns whether a model may run on some inputs only: it has dynamic dimensions, or inputs that
/// may be indices, sizes or scales.
fn depends_on_choice(graph: &Graph) -> bool {
    let inputs = graph.inputs.iter().map(|index| &graph.nodes[*index as usize].outputs[0]);
    let is_number = |dtype| matches!(dtype, DType::F32 | DType::F64 | DType::F16 | DType::BF16);
    let is_dynamic = |fact: &Fact| fact.shape.iter().any(|dim| dim.value().is_none());
    inputs
        .into_iter()
        .any(|fact| is_dynamic(fact) || !is_number(fact.dtype) || fact.shape.len() < 2)
}

/// Returns the element operations of a run on the first sample.
fn work(model: &OffloadedModel, samples: &Samples) -> Result<u64, Error> {
    let first = samples.inputs.sample(0)?;
    let shapes: Vec<Vec<usize>> = first.iter().map(|tensor| tensor.shape().to_vec()).collect();
    Ok(hardtack::float::work::Counter::of_shapes(model.graph(), &shapes, 0).total())
}

/// Returns whether a graph is nothing but one evaluated model.
fn is_evaluated(graph: &Graph) -> bool {
    graph.nodes.iter().all(|node| {
        matches!(node.operator, Operator::Input | Operator::Constant(_) | Operator::Evaluate(_))
    })
}

/// The values of a model's nodes on one sample, by the names of the nodes and of the values.
#[derive(Default)]
struct Values {
    /// The value and the first output of its node.
    by_name: HashMap<String, (Tensor, String)>,
}

impl Observer for Values {
    fn node(&mut self, node: &Node, name: &str, value: &Value) {
        let Some(first) = node.outputs.first().filter(|first| *first == name) else { return };
        if let Some(tensor) = from_reference(value) {
            for key in [&node.name, name].into_iter().filter(|key| !key.is_empty()) {
                self.by_name.insert(key.to_string(), (tensor.clone(), first.clone()));
            }
        }
    }
}

/// Returns the name and the first output of the first node whose value differs. The model is cut
/// after each node that is tried, because tract optimizes across nodes.
fn culprit(
    imported: &OffloadedModel,
    reference: &Reference,
    sample: &[Tensor],
) -> Result<Option<(String, String)>, Error> {
    let mut values = Values::default();
    if reference.run(sample, &mut values).is_err() {
        return Ok(None);
    }
    let model = imported.load()?;
    let named: Vec<usize> = (0..model.graph.nodes.len())
        .filter(|index| {
            let node = &model.graph.nodes[*index];
            !matches!(node.operator, Operator::Input | Operator::Constant(_))
                && values.by_name.contains_key(&node.name)
        })
        .collect();
    let (mut agree, mut differ) = (0, named.len());
    while agree < differ {
        let middle = (agree + differ) / 2;
        let index = named[middle];
        let (expected, _) = &values.by_name[&model.graph.nodes[index].name];
        match differs(&model, index, sample, expected) {
            true => differ = middle,
            false => agree = middle + 1,
        }
    }
    Ok(named.get(differ).map(|index| {
        let name = &model.graph.nodes[*index].name;
        (name.clone(), values.by_name[name].1.clone())
    }))
}

/// Returns whether a node's value differs from the expected one, or cannot be computed.
fn differs(model: &Model, index: usize, sample: &[Tensor], expected: &Tensor) -> bool {
    let mut cut = model.clone();
    cut.graph.outputs = vec![ValueId { node: index as u32, output: 0 }];
    cut.graph.output_names = vec!["value".into()];
    let samples = vec![sample.to_vec()];
    match float_run::outputs(&cut, &samples) {
        Ok(outputs) => Difference::of(std::slice::from_ref(expected), &outputs[0]).differs,
        Err(_) => true,
    }
}
