//! Builds small float graphs by hand.
#![allow(dead_code, reason = "each test uses only part of this module")]

use std::sync::Arc;

use hardtack::float::{Error, FloatModel};
use hardtack::internal::{Constant, Model};
use hardtack::{DType, Data, Tensor};
use hardtack_bundle::graph::{self, Dim, Fact, Graph, Node, Operator, ValueId};

/// A graph under construction, with its constants.
#[derive(Clone, Default)]
pub struct Sketch {
    pub graph: Graph,
    pub constants: Vec<Constant>,
}

/// Returns the type and shape of a value.
pub fn fact(dtype: DType, shape: &[i64]) -> Fact {
    Fact { dtype, shape: shape.iter().map(|size| Dim::Value(*size)).collect() }
}

/// Creates a tensor of this shape.
pub fn tensor<T>(shape: &[usize], elements: &[T]) -> Tensor
where
    T: Clone,
    Vec<T>: Into<Data>,
{
    Tensor::new(shape, elements.to_vec()).expect("the shape has the same number of elements")
}

impl Sketch {
    /// Adds an input to the graph.
    pub fn input(&mut self, dtype: DType, shape: &[i64]) -> ValueId {
        self.graph.inputs.push(self.graph.nodes.len() as u32);
        self.node(Operator::Input, &[], vec![fact(dtype, shape)])
    }

    /// Adds a tensor to the constants and returns its index.
    pub fn store(&mut self, tensor: Tensor) -> u32 {
        self.graph.constants.push(graph::Constant {
            dtype: tensor.dtype(),
            stored: tensor.dtype(),
            shape: tensor.shape().iter().map(|size| *size as u64).collect(),
            offset: 0,
            length: 0,
        });
        self.constants.push(Constant::Tensor(Arc::new(tensor)));
        self.constants.len() as u32 - 1
    }

    /// Adds a node that returns a constant.
    pub fn constant(&mut self, tensor: Tensor) -> ValueId {
        let shape: Vec<i64> = tensor.shape().iter().map(|size| *size as i64).collect();
        let stated = fact(tensor.dtype(), &shape);
        let index = self.store(tensor);
        self.node(Operator::Constant(index), &[], vec![stated])
    }

    /// Adds a node and returns its first output.
    pub fn node(&mut self, operator: Operator, inputs: &[ValueId], outputs: Vec<Fact>) -> ValueId {
        let node = self.graph.nodes.len() as u32;
        self.graph.nodes.push(Node {
            name: format!("node {node}"),
            operator,
            inputs: inputs.to_vec(),
            outputs,
        });
        ValueId { node, output: 0 }
    }

    /// Makes all outputs of a node outputs of the graph.
    pub fn output(&mut self, of: ValueId) {
        let outputs = self.graph.nodes[of.node as usize].outputs.len() as u32;
        for slot in 0..outputs {
            self.graph.outputs.push(ValueId { node: of.node, output: slot });
            self.graph.output_names.push(format!("output {}", self.graph.outputs.len()));
        }
    }

    /// Returns the model.
    pub fn model(self) -> Model {
        Model { graph: self.graph, constants: self.constants, programs: vec![] }
    }

    /// Loads and runs the graph.
    pub fn run(self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
        run(&self.model(), inputs)
    }
}

/// Loads and runs a model, both as prepared and to be decluttered: tract transforms only the
/// latter.
pub fn run(model: &Model, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
    let shapes: Vec<&[usize]> = inputs.iter().map(|input| input.shape()).collect();
    let inputs: Vec<&Tensor> = inputs.iter().collect();
    let run = |prepared| FloatModel::load(model, prepared)?.plan(&shapes)?.run(&inputs);
    let prepared = run(true);
    let plain = run(false);
    match (&prepared, &plain) {
        (Ok(a), Ok(b)) => {
            let shapes =
                |all: &[Tensor]| all.iter().map(|t| t.shape().to_vec()).collect::<Vec<_>>();
            assert_eq!(shapes(a), shapes(b), "both variants give the same shapes");
        }
        (Err(error), _) | (_, Err(error)) => refused(error),
    }
    plain.and(prepared)
}

/// Checks that an error is one of ours or of tract, not a panic.
pub fn refused(error: &Error) {
    let text = error.to_string();
    assert!(!matches!(error, Error::Panic { .. }), "{text}");
    assert!(!text.contains("panicked"), "{text}");
}
