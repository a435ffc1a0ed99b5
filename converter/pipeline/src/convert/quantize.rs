//! The quantize stage: lowers the parts of the model that can run in integers to integer programs.

use hardtack_bundle::graph::{Node, Operator};

use super::{Conversion, compared_samples, is_prequantized};
use crate::error::Error;
use crate::graph::summary::graph_summary;
use crate::offloaded_model::{ModelSource as _, OffloadedModel};
use crate::options::MatrixStorage;
use crate::report::FloatNode;
use crate::samples::{First, Samples};
use crate::{parity, quantize};

/// The maximum number of samples on which the error of each layer is measured.
const MEASURED_SAMPLES: usize = 8;

impl Conversion<'_> {
    pub(super) fn quantize(
        &mut self,
        model: OffloadedModel,
        samples: &mut Samples,
    ) -> Result<OffloadedModel, Error> {
        // A pre-quantized (QDQ or QOperator) model is lowered even without --int8.
        if !self.options.int8 && !model.graph().nodes.iter().any(is_prequantized) {
            if self.options.integer_io {
                return Err(Error::Options("--integer-io requires INT8; add --int8".into()));
            }
            let integers = self.options.matrices() == MatrixStorage::Int8;
            let mut texts = self.options.quantize.texts().into_iter();
            if let Some((name, _)) = texts.find(|(name, _)| !(integers && name == "weight-bits")) {
                return Err(Error::Options(format!("--{name} requires INT8; add --int8")));
            }
            let integers = |node: &Node| matches!(node.operator, Operator::DequantizeLinear(_));
            let dynamic = self.is_dynamic(model.graph());
            if !dynamic && model.graph().nodes.iter().any(integers) {
                self.warnings.push(
                    "the model has integer weights but no activation scales, so it runs in float; \
                     use --int8 with --calibrate to measure the scales"
                        .into(),
                );
            }
            self.graph = graph_summary(&model.load()?, |_| None);
            return Ok(model);
        }
        let began = self.begin("quantize");
        let measured = match &self.options.measure {
            Some(path) => Some(self.read(path, MEASURED_SAMPLES, model.graph())?.inputs),
            None => None,
        };
        let measured = First(&**measured.as_ref().unwrap_or(&samples.inputs), MEASURED_SAMPLES);
        let progress = &mut *self.progress;
        let mut step = |done, of| progress.step(done, of);
        let (real, settings) = (samples.are_user_data(), &self.options.quantize);
        let loaded = model.load()?;
        drop(model);
        let mut quantized =
            quantize::quantize(loaded, &*samples.inputs, &measured, real, settings, &mut step)?;
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
        let float_nodes = |nodes: Vec<quantize::NodeReason>| -> Vec<FloatNode> {
            let float_nodes = nodes.into_iter();
            float_nodes
                .map(|float_nodes| FloatNode {
                    node: float_nodes.node,
                    operator: float_nodes.operator,
                    reason: float_nodes.reason,
                })
                .collect()
        };
        self.float_nodes = float_nodes(quantized.left_in_float);
        self.int16_nodes = float_nodes(quantized.int16);
        self.layers = quantized.layers;
        self.graph = quantized.graph;
        self.warnings.extend(quantized.warnings);
        if quantized.rounded_weights > 0 {
            self.warnings.push(format!(
                "the weights of {} layers need more than 8 bits after subtracting their zero \
                 points, and were rounded to 8 bits; symmetric weights are kept exactly",
                quantized.rounded_weights
            ));
        }
        if quantized.model.programs.is_empty() && self.options.int8 {
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
        let mut model = OffloadedModel::new(quantized.model)?;
        let got = parity::outputs(&model, &compared_samples(samples))?;
        let difference = parity::compare(&self.expected, &got);
        self.last_outputs = Some(got);
        self.record_figure(
            "largest INT8 difference, of the output's range",
            difference.of_range,
            samples,
        );
        if self.options.integer_io {
            let signature = self.signature.as_mut().expect("imported before");
            let few = compared_samples(samples);
            let mut loaded = model.load()?;
            let integers = quantize::integer_io::integer_io(&mut loaded, signature, &few)?;
            model = OffloadedModel::new(loaded)?;
            samples.inputs = Box::new(integers);
            self.last_outputs = None;
        }
        self.end("quantize", began, &model, Some(difference.of_range));
        Ok(model)
    }
}
