//! Small float graphs, made by hand.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::sync::Arc;

use hardtack::float::{Error, FloatModel};
use hardtack::{Constant, DType, Data, Model, Tensor};
use hardtack_bundle::graph::{self, Dim, Fact, Graph, Node, Operator, Outlet};

/// A graph under construction.
#[derive(Clone, Default)]
pub struct Sketch {
    pub graph: Graph,
    pub constants: Vec<Constant>,
}

/// Type and shape of a value.
pub fn fact(dtype: DType, shape: &[i64]) -> Fact {
    Fact { dtype, shape: shape.iter().map(|size| Dim::Value(*size)).collect() }
}

/// A tensor of this shape.
pub fn tensor<T>(shape: &[usize], elements: &[T]) -> Tensor
where
    T: Clone,
    Vec<T>: Into<Data>,
{
    Tensor::new(shape, elements.to_vec()).expect("as many elements as the shape has")
}

impl Sketch {
    /// An input of the graph.
    pub fn input(&mut self, dtype: DType, shape: &[i64]) -> Outlet {
        self.graph.inputs.push(self.graph.nodes.len() as u32);
        self.node(Operator::Input, &[], vec![fact(dtype, shape)])
    }

    /// A tensor among the constants, by its index.
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

    /// A node that gives a constant.
    pub fn constant(&mut self, tensor: Tensor) -> Outlet {
        let shape: Vec<i64> = tensor.shape().iter().map(|size| *size as i64).collect();
        let stated = fact(tensor.dtype(), &shape);
        let index = self.store(tensor);
        self.node(Operator::Constant(index), &[], vec![stated])
    }

    /// A node, by its first value.
    pub fn node(&mut self, operator: Operator, inputs: &[Outlet], outputs: Vec<Fact>) -> Outlet {
        let node = self.graph.nodes.len() as u32;
        self.graph.nodes.push(Node {
            name: format!("node {node}"),
            operator,
            inputs: inputs.to_vec(),
            outputs,
        });
        Outlet { node, slot: 0 }
    }

    /// Makes all values of a node outputs of the graph.
    pub fn output(&mut self, of: Outlet) {
        let outputs = self.graph.nodes[of.node as usize].outputs.len() as u32;
        for slot in 0..outputs {
            self.graph.outputs.push(Outlet { node: of.node, slot });
            self.graph.output_names.push(format!("output {}", self.graph.outputs.len()));
        }
    }

    /// The model.
    pub fn model(self) -> Model {
        Model { graph: self.graph, constants: self.constants, programs: vec![] }
    }

    /// Loads and runs the graph.
    pub fn run(self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
        run(&self.model(), inputs)
    }
}

/// Loads and runs a model, decluttered or not: what tract makes of it differs.
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
            assert_eq!(shapes(a), shapes(b), "the same model gives two shapes");
        }
        (Err(error), _) | (_, Err(error)) => refused(error),
    }
    plain.and(prepared)
}

/// An error must be one of ours or of tract, in one line, and never a panic.
pub fn refused(error: &Error) {
    let text = error.to_string();
    assert!(!matches!(error, Error::Panic { .. }), "{text}");
    assert!(!text.contains("panicked"), "{text}");
}
