//! Models whose weights are offloaded to a temporary file. While a float model runs, the runtime
//! holds its own copy of the weights, so the original need not be in memory.

use std::collections::HashSet;
use std::sync::Arc;

use hardtack::internal::{Constant, Model, Program};
use hardtack_bundle::graph::{Graph, Operator};

use crate::error::Error;
use crate::graph::constants::keeps_elements;
use crate::samples::{SampleSource as _, Spool};

/// A model whose weights are in memory or offloaded.
pub(crate) trait ModelSource {
    /// Returns the graph.
    fn graph(&self) -> &Graph;

    /// Loads the whole model.
    ///
    /// # Errors
    /// Returns an error if the weights cannot be read from the temporary file.
    fn load(&self) -> Result<Model, Error>;

    /// Loads the model with at least the constants that node `layer` depends on.
    ///
    /// # Errors
    /// See [`ModelSource::load`].
    fn load_layer(&self, layer: usize) -> Result<Model, Error>;
}

impl ModelSource for Model {
    fn graph(&self) -> &Graph {
        &self.graph
    }

    fn load(&self) -> Result<Model, Error> {
        Ok(self.clone())
    }

    fn load_layer(&self, _: usize) -> Result<Model, Error> {
        self.load()
    }
}

/// The size in bytes from which a tensor is offloaded.
const LARGE: usize = 4096;

/// A model with its large tensors in a temporary file.
pub(crate) struct OffloadedModel {
    /// The model with an empty placeholder for each offloaded constant.
    model: Model,
    /// The indices of the offloaded constants, in the order of the spool.
    offloaded: Vec<usize>,
    spool: Spool,
}

impl OffloadedModel {
    /// Offloads the large tensors of a model.
    ///
    /// # Errors
    /// Returns an error if the temporary file cannot be written.
    pub(crate) fn new(mut model: Model) -> Result<OffloadedModel, Error> {
        let mut spool = Spool::new()?;
        let mut offloaded = Vec::new();
        for (index, constant) in model.constants.iter_mut().enumerate() {
            let Constant::Tensor(tensor) = constant else { continue };
            if tensor.len() * tensor.dtype().size().unwrap_or(0) < LARGE {
                continue;
            }
            spool.push([&**tensor])?;
            offloaded.push(index);
            *constant = Constant::Dims { shape: Vec::new(), values: Vec::new() };
        }
        Ok(OffloadedModel { model, offloaded, spool })
    }

    /// Loads the model and removes the temporary file.
    ///
    /// # Errors
    /// Returns an error if the weights cannot be read from the temporary file.
    pub(crate) fn into_model(self) -> Result<Model, Error> {
        self.load()
    }

    /// Loads the model, changes it and offloads the result.
    ///
    /// # Errors
    /// Returns an error if a temporary file cannot be read or written.
    pub(crate) fn map(self, change: impl FnOnce(Model) -> Model) -> Result<OffloadedModel, Error> {
        OffloadedModel::new(change(self.into_model()?))
    }

    /// Returns the integer programs.
    pub(crate) fn programs(&self) -> &[Program] {
        &self.model.programs
    }

    /// Loads the model with the offloaded constants for which `wanted` returns true.
    fn load_with(&self, wanted: impl Fn(usize) -> bool) -> Result<Model, Error> {
        let mut model = self.model.clone();
        let offloaded = self.offloaded.iter().enumerate();
        for (place, index) in offloaded.filter(|(_, index)| wanted(**index)) {
            let tensor = self.spool.sample(place)?.into_owned().pop();
            let tensor = tensor.expect("one was written");
            model.constants[*index] = Constant::Tensor(Arc::new(tensor));
        }
        Ok(model)
    }
}

/// Returns the indices of the constants that a node's inputs are computed from.
fn constants_of(graph: &Graph, node: usize) -> HashSet<usize> {
    let (mut found, mut nodes) = (HashSet::new(), vec![node]);
    while let Some(node) = nodes.pop() {
        for input in &graph.nodes[node].inputs {
            let producer = input.node as usize;
            match &graph.nodes[producer].operator {
                Operator::Constant(index) => drop(found.insert(*index as usize)),
                Operator::DequantizeLinear(_) => nodes.push(producer),
                operator if keeps_elements(operator) => nodes.push(producer),
                _ => {}
            }
        }
    }
    found
}

impl ModelSource for OffloadedModel {
    fn graph(&self) -> &Graph {
        &self.model.graph
    }

    fn load(&self) -> Result<Model, Error> {
        self.load_with(|_| true)
    }

    fn load_layer(&self, layer: usize) -> Result<Model, Error> {
        let needed = constants_of(&self.model.graph, layer);
        self.load_with(|index| needed.contains(&index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Net;

    #[test]
    fn a_loaded_model_equals_the_original() {
        let mut net = Net::new();
        let x = net.input(&[1, 16, 4, 4]);
        let x = net.conv(&x, 16, &[3, 3], |_| {});
        let x = net.conv(&x, 16, &[3, 3], |_| {});
        let model = net.finish(&[&x]);
        let model_on_disk = OffloadedModel::new(model.clone()).unwrap();
        assert!(!model_on_disk.offloaded.is_empty() && model_on_disk.model != model);
        assert_eq!(model_on_disk.load().unwrap(), model);
        // For the last layer, only its own weights are loaded.
        let last = model.graph.outputs[0].node as usize;
        let kernel = model.graph.nodes[last].inputs[1].node as usize;
        let Operator::Constant(kernel) = model.graph.nodes[kernel].operator else { panic!() };
        let loaded = model_on_disk.load_layer(last).unwrap();
        assert_eq!(loaded.constants[kernel as usize], model.constants[kernel as usize]);
        assert_ne!(loaded.constants, model.constants);
    }
}
