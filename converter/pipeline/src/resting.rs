//! Models whose weights wait in a temporary file while nothing needs them: a float model that is run
//! has a form of them of its own.

use std::sync::Arc;

use hardtack::{Constant, Model, Program};
use hardtack_bundle::graph::Graph;

use crate::error::Error;
use crate::samples::{Source as _, Spool};

/// A model that may rest.
pub trait Sleeper {
    /// The graph.
    fn graph(&self) -> &Graph;

    /// The whole model.
    ///
    /// # Errors
    /// Where its weights cannot be read back.
    fn awake(&self) -> Result<Model, Error>;
}

impl Sleeper for Model {
    fn graph(&self) -> &Graph {
        &self.graph
    }

    fn awake(&self) -> Result<Model, Error> {
        Ok(self.clone())
    }
}

/// Tensors of fewer bytes stay in memory.
const LARGE: usize = 4096;

/// A model without its large tensors in memory.
pub struct Resting {
    /// What is no large tensor.
    model: Model,
    /// Which constants wait, in the order they were written.
    waiting: Vec<usize>,
    spool: Spool,
}

impl Resting {
    /// Puts the large tensors of a model away.
    ///
    /// # Errors
    /// Where no temporary file can be written.
    pub fn new(mut model: Model) -> Result<Resting, Error> {
        let mut spool = Spool::new()?;
        let mut waiting = Vec::new();
        for (index, constant) in model.constants.iter_mut().enumerate() {
            let Constant::Tensor(tensor) = constant else { continue };
            if tensor.len() * tensor.dtype().size().unwrap_or(0) < LARGE {
                continue;
            }
            spool.push([&**tensor])?;
            waiting.push(index);
            *constant = Constant::Dims { shape: Vec::new(), values: Vec::new() };
        }
        Ok(Resting { model, waiting, spool })
    }

    /// The integer programs.
    pub fn programs(&self) -> &[Program] {
        &self.model.programs
    }
}

impl Sleeper for Resting {
    fn graph(&self) -> &Graph {
        &self.model.graph
    }

    fn awake(&self) -> Result<Model, Error> {
        let mut model = self.model.clone();
        for (place, index) in self.waiting.iter().enumerate() {
            let tensor = self.spool.sample(place)?.into_owned().pop();
            let tensor = tensor.expect("one was written");
            model.constants[*index] = Constant::Tensor(Arc::new(tensor));
        }
        Ok(model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Net;

    #[test]
    fn a_model_wakes_as_it_was() {
        let mut net = Net::new();
        let x = net.input(&[1, 16, 4, 4]);
        let x = net.conv(&x, 16, &[3, 3], |_| {});
        let model = net.finish(&[&x]);
        let resting = Resting::new(model.clone()).unwrap();
        assert!(!resting.waiting.is_empty() && resting.model != model);
        assert_eq!(resting.awake().unwrap(), model);
    }
}
