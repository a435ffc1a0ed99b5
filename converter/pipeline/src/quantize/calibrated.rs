//! A model that is ready to be quantized: fused, equalized, with measured activations and rounded
//! weights.

use std::collections::HashMap;

use hardtack::internal::Model;
use hardtack_bundle::graph::ValueId;

use super::Task;
use super::calibrate::range::ChosenRange;
use super::calibrate::{self, Calibration};
use super::equalize::flow::FactorPlacement;
use super::equalize::{self, Parts};
use super::lower::assemble;
use super::named_nodes;
use super::output_error::Reference;
use super::partition::{self, FloatReasons, Int16Nodes, Partition};
use super::statistics::histogram::Histogram;
use super::{fuse, prelu, weights};
use crate::activations::Observer;
use crate::error::Error;
use crate::graph::constants::variable_inputs;
use crate::graph::rewriter::Rewriter;
use crate::offloaded_model::{ModelSource, OffloadedModel};
use crate::options::quantize::{Equalize, RangeMethod};

/// A model, the statistics of its activations and what the user asks of its nodes.
pub(super) struct Calibrated<'a> {
    pub task: &'a Task<'a>,
    pub model: OffloadedModel,
    /// The inputs and outputs of the nodes that can become part of a program.
    pub observed: Vec<ValueId>,
    pub calibration: Calibration,
    /// The nodes that stay in float in any case.
    pub float_reasons: FloatReasons,
    /// The nodes that use int16 in any case.
    pub int16: Int16Nodes,
    /// The outputs of the float model; `None` without calibration data.
    pub reference: Option<Reference<'a>>,
    /// A warning about the calibration data.
    pub warning: Option<String>,
    /// Whether layers may use int16. If not, channels were scaled in a way that does not keep it.
    pub suits_int16: bool,
}

impl<'a> Calibrated<'a> {
    /// Calibrates a model. `int16` is whether layers will use int16. `reference` has the outputs of
    /// the float model, if they are known.
    pub(super) fn new(
        task: &'a Task<'a>,
        model: Model,
        reference: Option<Reference<'a>>,
        int16: bool,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Calibrated<'a>, Error> {
        let Task { samples, settings, .. } = *task;
        let fused = OffloadedModel::new(fused(model))?;
        // The outputs before channels are scaled judge that, too.
        let reference = match reference {
            None if task.calibration => Some(Reference::new(&fused, samples, settings.max_error)?),
            known => known,
        };
        let fused = fused.into_model()?;
        let scales = task.calibration && settings.equalize == Equalize::Auto;
        let suits_int16 = int16 || !scales || !equalize::flow::has_gates(&fused);
        let (model, parts) = match scales {
            true => {
                let placement = match int16 {
                    true => FactorPlacement::AfterGate,
                    false => FactorPlacement::BeforeGate,
                };
                equalize::equalize(fused, samples, placement, progress)?
            }
            false => (fused, Parts::new()),
        };
        let mut float_reasons = named_nodes::kept(&model, &parts, &settings.keep_float)?;
        if task.calibration && !settings.strict_int8 {
            float_reasons.extend(partition::dense_scores(&model));
        }
        let int16 = named_nodes::int16_nodes(&model, &parts, &settings.int16)?;
        let partitions = partition::partitions(&model, &mut float_reasons);
        let nodes = || partitions.iter().flat_map(|partition| partition.nodes.iter().copied());
        weights::finite(&model, nodes())?;
        let observed = nodes().flat_map(|index| {
            let made = ValueId { node: index as u32, output: 0 };
            variable_inputs(&model, index).chain([made])
        });
        let observed = observed.collect();
        let model = OffloadedModel::new(model)?;
        let reference = reference.filter(|_| !partitions.is_empty());
        let mut calibrated = Calibrated {
            task,
            model,
            observed,
            calibration: Calibration::default(),
            float_reasons,
            int16,
            reference,
            warning: None,
            suits_int16,
        };
        if task.calibration {
            calibrated.calibrate(&partitions, progress)?;
        }
        Ok(calibrated)
    }

    /// Measures activations and chooses ranges and weights.
    fn calibrate(
        &mut self,
        partitions: &[Partition],
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(), Error> {
        let Task { samples, settings, .. } = *self.task;
        let mut observer = Observer::new(&self.model, self.observed.iter().copied());
        let graph = self.model.graph();
        let statistics = calibrate::statistics(&mut observer, graph, samples, progress)?;
        drop(observer);
        self.warning = statistics.warning(samples.count());
        let histograms = statistics.histograms;
        let ranges = self.ranges(&histograms)?;
        let chosen = (histograms, ranges);
        self.calibration =
            Calibration::new(&self.model, partitions, chosen, samples, settings, progress)?;
        Ok(())
    }

    /// Returns the ranges of the method of the options. For [`RangeMethod::Auto`], those with the
    /// more accurate outputs of two: ranges that clip nothing that changes a result, and those with
    /// the least squared error. Weights are rounded to nearest for this.
    fn ranges(
        &self,
        histograms: &HashMap<ValueId, Histogram>,
    ) -> Result<HashMap<ValueId, ChosenRange>, Error> {
        let model = self.model.load()?;
        let ranges = |method| calibrate::ranges(&model, histograms, method);
        let method = self.task.settings.method;
        let Some(reference) = self.reference.as_ref().filter(|_| method == RangeMethod::Auto)
        else {
            return Ok(ranges(method));
        };
        let judged = |method| {
            let ranges = ranges(method);
            let calibration = Calibration { ranges, ..Calibration::default() };
            let mut float_reasons = self.float_reasons.clone();
            let quantized =
                assemble::quantized(&model, &calibration, &self.int16, &mut float_reasons);
            Ok::<_, Error>((reference.compare(&quantized)?, calibration.ranges))
        };
        let (whole, clipped) = (judged(RangeMethod::Auto)?, judged(RangeMethod::Mse)?);
        Ok(match clipped.0.is_better_than(&whole.0) {
            true => clipped.1,
            false => whole.1,
        })
    }
}

/// Fuses the nodes of a model that are one operation of the engine.
fn fused(model: Model) -> Model {
    let mut rewriter = Rewriter::new(model);
    fuse::fuse(&mut rewriter);
    prelu::rewrite(&mut rewriter);
    rewriter.finish()
}
