//! The prepare stage: converts float weights to their storage types and simplifies the float graph.

use hardtack::internal::Model;
use hardtack_bundle::graph::Graph;

use super::{Conversion, compared_samples};
use crate::error::Error;
use crate::float_run;
use crate::offloaded_model::{ModelSource as _, OffloadedModel};
use crate::options::{FloatStorage, MatrixStorage};
use crate::samples::Samples;
use crate::storage::compact::compact;
use crate::{parity, storage};

/// A model, and whether its graph is already simplified for loading.
pub(super) struct Prepared {
    pub(super) model: OffloadedModel,
    pub(super) prepared: bool,
}

impl Conversion<'_> {
    /// Converts float weights to the requested storage types, and applies the graph simplifications
    /// that do not depend on the target machine.
    pub(super) fn prepare(
        &mut self,
        model: OffloadedModel,
        samples: &Samples,
    ) -> Result<Prepared, Error> {
        let began = self.begin("prepare");
        let before = match self.last_outputs.take() {
            Some(outputs) => outputs,
            None => float_run::outputs(&model, &compared_samples(samples))?,
        };
        let mut stored = Vec::new();
        let model = match self.is_dynamic(model.graph()) {
            true => model.map(|model| self.quantize_dynamically(model, &mut stored))?,
            false => model,
        };
        let dynamic = match stored.is_empty() {
            true => None,
            false => Some(float_run::outputs(&model, &compared_samples(samples))?),
        };
        let Prepared { model, prepared } = self.simplify(model)?;
        let expected = dynamic.as_ref().unwrap_or(&before);
        let (mut of_range, _) = self.check_parity("prepare", expected, &model, samples)?;
        let model = model.map(|model| self.store(model, &mut stored))?;
        if !stored.is_empty() {
            let after = float_run::outputs(&model, &compared_samples(samples))?;
            of_range = parity::compare(&before, &after).of_range;
            let name = format!(
                "largest difference by {} weights, of the output's range",
                stored.join(" and ")
            );
            self.record_figure(&name, of_range, samples);
        }
        self.end("prepare", began, &model, Some(of_range));
        Ok(Prepared { model, prepared })
    }

    /// Simplifies the float graph for loading, or keeps it with a warning if that is impossible.
    fn simplify(&mut self, model: OffloadedModel) -> Result<Prepared, Error> {
        match hardtack::float::prepare(model.load()?) {
            Ok(simpler) => Ok(Prepared { model: OffloadedModel::new(simpler)?, prepared: true }),
            Err(error) => {
                self.warnings.push(format!(
                    "the graph could not be simplified and is stored as imported, so loading takes \
                     longer ({error})"
                ));
                Ok(Prepared { model, prepared: false })
            }
        }
    }

    /// Converts float weights to their storage types. Appends the names of the types to `stored`.
    fn store(&self, mut model: Model, stored: &mut Vec<&'static str>) -> Model {
        if self.options.float != FloatStorage::F32 {
            model = storage::half_precision::to_16_bits(model, self.options.float);
            stored.push(self.options.float.dtype().name());
        }
        // Layers that stay in float for accuracy keep their weights, unless the user decides.
        let exact = self.needs_float && self.options.weights.is_none();
        let matrices = if exact { MatrixStorage::Float } else { self.options.matrices() };
        if matrices != MatrixStorage::Float {
            // Dynamic quantization has already allocated the bits.
            let bits = self.options.matrix_bits().filter(|_| !self.options.dynamic);
            let (with_integers, count) = storage::matrices::store(model, matrices, bits);
            model = with_integers;
            stored.extend((count > 0).then_some(matrices.name()));
        }
        compact(storage::gather::gather_integers(model))
    }

    /// Returns whether the source or the user asks for dynamic quantization.
    pub(super) fn is_dynamic(&self, graph: &Graph) -> bool {
        self.options.dynamic || !storage::dynamic::constants(graph).is_empty()
    }

    /// Applies dynamic quantization if requested, and fuses biases into all dynamically quantized
    /// matmuls. Appends the name of their weights to `stored`, if there are any. This must precede
    /// graph simplification, which would hide matmuls.
    fn quantize_dynamically(&mut self, mut model: Model, stored: &mut Vec<&'static str>) -> Model {
        if self.options.dynamic {
            let bits = self.options.matrix_bits();
            let (with_integers, _) =
                storage::matrices::store(model.clone(), MatrixStorage::Int8, bits);
            let (dynamic, count) = storage::dynamic::quantize_matmuls(with_integers);
            if count > 0 {
                model = dynamic;
                stored.push("dynamically multiplied");
            } else {
                let warning = "--dynamic: the model has no matmul with a large constant matrix";
                self.warnings.push(warning.into());
            }
        }
        storage::dynamic::fuse_biases(model)
    }
}
