//! The prepare stage: converts float weights to their storage types and simplifies the float graph.

use hardtack::Model;
use hardtack_bundle::graph::Graph;

use super::{Conversion, compared_samples};
use crate::error::Error;
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
            Some(last_outputs) => last_outputs,
            None => parity::outputs(&model, &compared_samples(samples))?,
        };
        let (model, mut stored) = match self.is_dynamic(model.graph()) {
            true => {
                let (model, stored) = self.quantize_dynamically(model.load()?);
                (OffloadedModel::new(model)?, stored)
            }
            false => (model, Vec::new()),
        };
        let products = match stored.is_empty() {
            true => None,
            false => Some(parity::outputs(&model, &compared_samples(samples))?),
        };
        let prepared = match hardtack::float::prepare(model.load()?) {
            Ok(simpler) => Prepared { model: OffloadedModel::new(simpler)?, prepared: true },
            Err(error) => {
                self.warnings.push(format!(
                    "the graph could not be simplified and is stored as imported, so loading takes \
                     longer ({error})"
                ));
                Prepared { model, prepared: false }
            }
        };
        let products = products.as_ref().unwrap_or(&before);
        let (difference, _) = self.check_parity("prepare", products, &prepared.model, samples)?;
        let mut model = prepared.model.load()?;
        if self.options.float != FloatStorage::F32 {
            model = storage::half_precision::to_16_bits(model, self.options.float);
            stored.push(self.options.float.dtype().name());
        }
        let matrices = self.options.matrices();
        if matrices != MatrixStorage::Float {
            // With dynamic quantization, `multiply` has already allocated the bits.
            let bits = self.options.matrix_bits().filter(|_| !self.options.dynamic);
            let (with_integers, count) = storage::matrices::store(model, matrices, bits);
            model = with_integers;
            stored.extend((count > 0).then_some(matrices.name()));
        }
        let model = OffloadedModel::new(compact(storage::gather::gather_integers(model)))?;
        let prepared = Prepared { model, ..prepared };
        let mut of_range = difference;
        if !stored.is_empty() {
            let after = parity::outputs(&prepared.model, &compared_samples(samples))?;
            of_range = parity::compare(&before, &after).of_range;
            let name = format!(
                "largest difference by {} weights, of the output's range",
                stored.join(" and ")
            );
            self.record_figure(&name, of_range, samples);
        }
        self.end("prepare", began, &prepared.model, Some(of_range));
        Ok(prepared)
    }

    /// Returns whether the source or the user asks for dynamic quantization.
    pub(super) fn is_dynamic(&self, graph: &Graph) -> bool {
        self.options.dynamic || !storage::dynamic::constants(graph).is_empty()
    }

    /// Applies dynamic quantization if requested, and fuses biases into all dynamically quantized
    /// matmuls. Returns the name of their weights, if there are any. This must precede graph
    /// simplification, which would hide matmuls.
    fn quantize_dynamically(&mut self, mut model: Model) -> (Model, Vec<&'static str>) {
        let mut stored = Vec::new();
        if self.options.dynamic {
            let bits = self.options.matrix_bits();
            let (with_integers, _) = storage::matrices::store(model, MatrixStorage::Int8, bits);
            let (with_products, count) = storage::dynamic::quantize_matmuls(with_integers);
            model = with_products;
            if count > 0 {
                stored.push("dynamically multiplied");
            } else {
                let sentence = "--dynamic: the model has no matmul with a large constant matrix";
                self.warnings.push(sentence.into());
            }
        }
        (storage::dynamic::fuse_biases(model), stored)
    }
}
