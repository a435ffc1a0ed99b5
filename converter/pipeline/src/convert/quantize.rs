//! The quantize stage: lowers the parts of the model that can run in integers to integer programs.

use hardtack::internal::Model;
use hardtack_bundle::graph::{Node, Operator};

use super::{Conversion, compared_samples, is_prequantized};
use crate::error::Error;
use crate::float_run;
use crate::graph::summary::graph_summary;
use crate::offloaded_model::{ModelSource as _, OffloadedModel};
use crate::options::MatrixStorage;
use crate::parity::{self, Difference};
use crate::quantize;
use crate::report::FloatNode;
use crate::samples::{First, Samples};

/// The maximum number of samples on which the error of each layer is measured.
const MEASURED_SAMPLES: usize = 8;

impl Conversion<'_> {
    /// Lowers what the options ask for, and what a pre-quantized (QDQ or QOperator) source defines.
    pub(super) fn quantize(
        &mut self,
        model: OffloadedModel,
        samples: &mut Samples,
    ) -> Result<OffloadedModel, Error> {
        if !self.options.int8 && !model.graph().nodes.iter().any(is_prequantized) {
            self.stay_in_float(&model)?;
            return Ok(model);
        }
        let began = self.begin("quantize");
        let mut model = OffloadedModel::new(self.lowered(model, samples)?)?;
        let outputs = float_run::outputs(&model, &compared_samples(samples))?;
        let Difference { of_range, .. } = parity::compare(&self.expected, &outputs);
        self.last_outputs = Some(outputs);
        self.record_figure("largest INT8 difference, of the output's range", of_range, samples);
        if self.options.integer_io {
            let signature = self.signature.as_mut().expect("imported before");
            let mut loaded = model.into_model()?;
            let few = compared_samples(samples);
            let integers = quantize::integer_io::integer_io(&mut loaded, signature, &few)?;
            model = OffloadedModel::new(loaded)?;
            samples.inputs = Box::new(integers);
            self.last_outputs = None;
        }
        self.end("quantize", began, &model, Some(of_range));
        Ok(model)
    }

    /// Checks that no option requires INT8, and summarizes the float graph.
    fn stay_in_float(&mut self, model: &OffloadedModel) -> Result<(), Error> {
        if self.options.integer_io {
            return Err(Error::Options("--integer-io requires INT8; add --int8".into()));
        }
        let integers = self.options.matrices() == MatrixStorage::Int8;
        let mut texts = self.options.quantize.texts().into_iter();
        if let Some((name, _)) = texts.find(|(name, _)| !(integers && name == "weight-bits")) {
            return Err(Error::Options(format!("--{name} requires INT8; add --int8")));
        }
        let integers = |node: &Node| matches!(node.operator, Operator::DequantizeLinear(_));
        let is_dynamic = self.is_dynamic(model.graph());
        if !is_dynamic && model.graph().nodes.iter().any(integers) {
            self.warnings.push(
                "the model has integer weights but no activation scales, so it runs in float; use \
                 --int8 with --data to measure the scales"
                    .into(),
            );
        }
        self.graph = graph_summary(&model.load()?, |_| None);
        Ok(())
    }

    /// Returns the model with its integer parts lowered to programs that fit the arena.
    fn lowered(&mut self, model: OffloadedModel, samples: &Samples) -> Result<Model, Error> {
        let measured = match &self.options.measure {
            Some(path) => Some(self.read(path, MEASURED_SAMPLES, model.graph())?.inputs),
            None => None,
        };
        let measured = First(&**measured.as_ref().unwrap_or(&samples.inputs), MEASURED_SAMPLES);
        let progress = &mut *self.progress;
        let mut step = |done, of| progress.step(done, of);
        let (real, settings) = (samples.are_user_data(), &self.options.quantize);
        let mut quantized =
            quantize::quantize(&model, &*samples.inputs, &measured, real, settings, &mut step)?;
        let (programs, packing) = (&mut quantized.model.programs, self.options.packing);
        if let Some(limit) = self.options.arena_limit {
            quantize::arena::limit(programs, packing, limit).map_err(|least| {
                Error::Options(format!(
                    "the arena is limited to {limit} bytes, and the smallest found for this model \
                     needs {least}; raise --arena-limit, or make the input smaller"
                ))
            })?;
        }
        self.arena_bytes = quantize::arena::bytes(programs, packing);
        self.needs_float = quantized.needs_float;
        self.float_nodes = float_nodes(quantized.left_in_float);
        self.int16_nodes = float_nodes(quantized.int16);
        self.layers = quantized.layers;
        self.graph = quantized.graph;
        self.warnings.extend(quantized.warnings);
        self.warn_of_float(quantized.rounded_weights, quantized.model.programs.is_empty());
        Ok(quantized.model)
    }

    /// Adds warnings about rounded integer weights and about nodes that stay in float.
    fn warn_of_float(&mut self, rounded_weights: usize, all_float: bool) {
        if rounded_weights > 0 {
            self.warnings.push(format!(
                "the weights of {rounded_weights} layers need more than 8 bits after subtracting \
                 their zero points, and were rounded to 8 bits; symmetric weights are kept exactly"
            ));
        }
        if all_float && self.options.int8 {
            self.warnings.push("no part of the model could be quantized; it runs in float".into());
        } else if let (false, Some(first)) = (self.options.int8, self.float_nodes.first()) {
            self.warnings.push(format!(
                "the model is pre-quantized, but {} of its nodes run in float, for example \
                 {:?} ({}): {}",
                self.float_nodes.len(),
                first.node,
                first.operator,
                first.reason,
            ));
        }
    }
}

fn float_nodes(nodes: Vec<quantize::NodeReason>) -> Vec<FloatNode> {
    let nodes = nodes.into_iter();
    nodes
        .map(|quantize::NodeReason { node, operator, reason }| FloatNode { node, operator, reason })
        .collect()
}
