//! The prepare stage: converts float weights to their storage types and simplifies the float graph.

use hardtack::Model;
use hardtack_bundle::graph::Graph;

use super::{Conversion, compared};
use crate::error::Error;
use crate::options::{FloatStorage, MatrixStorage};
use crate::samples::Samples;
use crate::spilled_model::{ModelSource as _, OffloadedModel};
use crate::storage::compact::narrow;
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
        let before = match self.given.take() {
            Some(given) => given,
            None => parity::outputs(&model, &compared(samples))?,
        };
        let (model, mut stored) = match self.multiplies(model.graph()) {
            true => {
                let (model, stored) = self.multiply(model.load()?);
                (OffloadedModel::new(model)?, stored)
            }
            false => (model, Vec::new()),
        };
        let products = match stored.is_empty() {
            true => None,
            false => Some(parity::outputs(&model, &compared(samples))?),
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
        let (difference, _) = self.keeps_numbers("prepare", products, &prepared.model, samples)?;
        let mut model = prepared.model.load()?;
        if self.options.float != FloatStorage::F32 {
            model = storage::half_precision::halve(model, self.options.float);
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
        let model = OffloadedModel::new(narrow(storage::gather::in_integers(model)))?;
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

    /// Returns whether the source or the user asks for dynamic quantization.
    pub(super) fn multiplies(&self, graph: &Graph) -> bool {
        self.options.dynamic || !storage::dynamic::constants(graph).is_empty()
    }

    /// Applies dynamic quantization if requested, and fuses biases into all dynamically quantized
    /// matmuls. Returns the name of their weights, if there are any. This must precede graph
    /// simplification, which would hide matmuls.
    fn multiply(&mut self, mut model: Model) -> (Model, Vec<&'static str>) {
        let mut stored = Vec::new();
        if self.options.dynamic {
            let bits = self.options.matrix_bits();
            let (with_integers, _) = storage::matrices::store(model, MatrixStorage::Int8, bits);
            let (with_products, count) = storage::dynamic::multiply(with_integers);
            model = with_products;
            if count > 0 {
                stored.push("dynamically multiplied");
            } else {
                let sentence = "--dynamic: the model has no matmul with a large constant matrix";
                self.warnings.push(sentence.into());
            }
        }
        (storage::dynamic::fuse(model), stored)
    }
}
