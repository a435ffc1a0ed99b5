//! Measures the quantization error of each layer against the float model.

use std::collections::{HashMap, HashSet};

use hardtack::internal::Model;
use hardtack::{Data, Tensor};
use hardtack_bundle::graph::ValueId;
use hardtack_engine::program::Step;
use hardtack_engine::{Input, Output, Program};
use hardtack_kernels::ReferenceKernels;

use super::calibrate::Calibration;
use super::function::Function;
use super::lower::strided_view::StridedView;
use super::lower::{Lowered, Written};
use super::scale::Range;
use crate::activations::Observer;
use crate::error::Error;
use crate::offloaded_model::ModelSource;
use crate::report::LayerReport;
use crate::samples::{SampleSource, Spool, each};

/// The number of bins of a reported histogram.
const PARTS: usize = 64;

#[derive(Clone, Copy, Default)]
struct Sums {
    signal: f64,
    noise: f64,
    product: f64,
    quantized: f64,
    largest: f64,
}

/// Measures the error of every value that a step of the programs writes.
///
/// # Errors
/// Returns an error if the float model cannot be run on a sample.
pub(super) fn measure(
    model: &dyn ModelSource,
    lowered: &[Lowered],
    calibration: &Calibration,
    observer: &mut Observer<'_>,
    samples: &dyn SampleSource,
) -> Result<Vec<LayerReport>, Error> {
    let mut sums: HashMap<ValueId, Sums> = HashMap::new();
    let functions = functions(&model.load()?, lowered, calibration);
    let read: HashSet<ValueId> =
        lowered.iter().flat_map(|l| &l.inputs).map(|port| port.value_id).collect();
    for sample in each(samples) {
        let sample = sample?;
        // The integers are computed first and spilled to a file until the float values are known.
        let inputs = observer.values(&sample, |value_id| read.contains(&value_id))?;
        let mut integers: HashMap<ValueId, Vec<Integers<'_>>> = HashMap::new();
        let mut spool = Spool::new()?;
        for program in lowered {
            for written in run(program, &inputs, &mut spool)? {
                integers.entry(*written.value_id).or_default().push(written);
            }
        }
        drop(inputs);
        let mut compared = Ok(());
        observer.run(&sample, |value_id, _, values| {
            let Some(integers) = integers.remove(&value_id) else { return };
            let (sums, function) = (sums.entry(value_id).or_default(), functions.get(&value_id));
            for integers in integers {
                if compared.is_ok() {
                    compared = integers.compare(&spool, values, function, sums);
                }
            }
        })?;
        compared?;
    }
    let written = lowered.iter().flat_map(|program| {
        let steps = kinds(program);
        program.values.iter().map(move |written| (written, steps[written.step]))
    });
    Ok(written
        .filter_map(|(written, kind)| {
            let sums = sums.get(&written.value_id)?;
            Some(LayerReport {
                name: model.graph().nodes[written.value_id.node as usize].name.clone(),
                kind: kind.into(),
                sqnr_db: 10.0 * (sums.signal.max(1e-30) / sums.noise.max(1e-30)).log10(),
                cosine: sums.product / (sums.signal * sums.quantized).sqrt().max(1e-30),
                largest: sums.largest,
                range: calibration
                    .ranges
                    .get(&written.value_id)
                    .map(|chosen| chosen.report(written.low.is_some())),
                spread: calibration
                    .histograms
                    .get(&written.value_id)
                    .map(|values| values.report(PARTS)),
                weights: written.weights.clone(),
            })
        })
        .collect())
}

/// Returns the unary functions of values that are read by one function only. The range of such a
/// value was chosen for the function's result, so the error is measured there too.
fn functions(
    model: &Model,
    lowered: &[Lowered],
    calibration: &Calibration,
) -> HashMap<ValueId, Function> {
    let written = lowered.iter().flat_map(|program| &program.values);
    let function = |written: &Written| {
        let Range { low, high } = calibration.ranges.get(&written.value_id)?.seen;
        let function = Function::of_readers(model, written.value_id, low.min(0.0), high.max(0.0))?;
        Some((written.value_id, function))
    };
    written.filter_map(function).collect()
}

/// Returns the kind of each step of a program.
fn kinds(lowered: &Lowered) -> Vec<&'static str> {
    parse(lowered).steps().map(|step| step.kind()).collect()
}

fn parse(lowered: &Lowered) -> Program<&[u8]> {
    Program::parse(&lowered.built.code[..], &lowered.built.weights[..])
        .expect("a program that was just built is well formed")
}

/// The integers that a step wrote on one sample.
struct Integers<'l> {
    value_id: &'l ValueId,
    view: &'l StridedView,
    /// The index of the integers in the spill file.
    place: usize,
    high: Part,
    low: Option<Part>,
}

/// The scale and zero point of a tensor.
struct Part {
    scale: f64,
    zero_point: f64,
}

impl Part {
    /// Dequantizes an integer.
    fn at(&self, integer: i8) -> f64 {
        (f64::from(integer) - self.zero_point) * self.scale
    }
}

impl Integers<'_> {
    /// Adds the differences from the values of the float model to `sums`.
    fn compare(
        &self,
        spool: &Spool,
        expected: &[f32],
        function: Option<&Function>,
        sums: &mut Sums,
    ) -> Result<(), Error> {
        let tensors = spool.sample(self.place)?;
        let mut integers = tensors.iter().map(|tensor| match tensor.data() {
            Data::I8(integers) => &integers[..],
            _ => &[],
        });
        let (high, low) = (integers.next().unwrap_or(&[]), integers.next().unwrap_or(&[]));
        let fine = |source: usize| self.low.as_ref().map_or(0.0, |part| part.at(low[source]));
        self.view.each(|source, target| {
            let real = f64::from(expected[target]);
            let got = self.high.at(high[source]) + fine(source);
            let (real, got) = match function {
                Some(function) => (function.at(real), function.at(got)),
                None => (real, got),
            };
            sums.signal += real * real;
            sums.quantized += got * got;
            sums.product += real * got;
            sums.noise += (real - got) * (real - got);
            sums.largest = sums.largest.max((real - got).abs());
        });
        Ok(())
    }
}

/// Runs a program on the first sample of a batch of float values and spills what its steps write
/// to a file. Returns an empty list if an input of the program was not observed.
fn run<'l>(
    lowered: &'l Lowered,
    values: &HashMap<ValueId, Tensor>,
    spool: &mut Spool,
) -> Result<Vec<Integers<'l>>, Error> {
    let program = parse(lowered);
    let ports = lowered.inputs.iter().zip(program.inputs());
    let read = ports.map(|(source, port)| {
        let values = values.get(&source.value_id)?.as_f32()?;
        Some(source.of(values.get(..port.elements as usize)?))
    });
    let Some(read) = read.collect::<Option<Vec<_>>>() else { return Ok(Vec::new()) };
    let inputs: Vec<Input<'_>> = read.iter().map(|values| Input::F32(values)).collect();
    let mut real: Vec<Vec<f32>> = Vec::new();
    let mut narrow: Vec<Vec<i8>> = Vec::new();
    let mut wide: Vec<Vec<u8>> = Vec::new();
    for port in program.outputs() {
        let elements = port.elements as usize;
        real.push(vec![0.0; elements]);
        narrow.push(vec![0; elements]);
        wide.push(vec![0; elements]);
    }
    let buffers = real.iter_mut().zip(&mut narrow).zip(&mut wide);
    let mut outputs: Vec<Output<'_>> = buffers
        .zip(program.outputs())
        .map(|(((real, narrow), wide), port)| match port.element {
            hardtack_engine::program::PortType::F32 => Output::F32(real),
            hardtack_engine::program::PortType::I8 => Output::I8(narrow),
            hardtack_engine::program::PortType::U8 => Output::U8(wide),
        })
        .collect();
    let written: HashMap<usize, &Written> = lowered.values.iter().map(|w| (w.step, w)).collect();
    let mut all = Vec::new();
    let mut spooled = Ok(());
    let mut observer = |index: usize, _: &Step, arena: &[i8]| {
        let Some(Written { value_id, view, low, .. }) = written.get(&index) else { return };
        let part = |id| {
            let tensor = program.tensor(id)?;
            let integers = tensor.in_arena(arena)?.to_vec();
            let (scale, zero_point) = (f64::from(tensor.scale), f64::from(tensor.zero_point));
            Some((Part { scale, zero_point }, Tensor::new(&[integers.len()], integers).ok()?))
        };
        let high = view.tensors().and_then(|tensors| part(*tensors.first()?));
        let (Some((high, integers)), Ok(())) = (high, &spooled) else { return };
        let (low, fine) = low.and_then(part).unzip();
        let place = spool.count();
        spooled = spool.push([&integers].into_iter().chain(&fine));
        all.push(Integers { value_id, view, place, high, low });
    };
    let mut arena = vec![0i8; program.arena_bytes()];
    program
        .run_observed(&ReferenceKernels::SCALAR, &mut arena, &inputs, &mut outputs, &mut observer)
        .expect("inputs and outputs were made by the program's ports");
    spooled.map(|()| all)
}
