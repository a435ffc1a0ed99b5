//! Tests with random graphs of every operator, with arbitrary attributes and operands. None of them
//! may make tract panic.

mod arrange;
mod combine;
mod index;
mod window;

use std::sync::Arc;

use hardtack_bundle::DType;
use hardtack_bundle::graph::{self, Binary, Dim, Fact, Graph, Node, Operator, Unary, ValueId};
use tract_core::internal::*;

use super::budget::Budget;
use super::error::catch;
use super::load::{Context, Loader, Purpose};
use super::tensors::{dtype_to_tract, to_tract};
use super::{Error, FloatModel, translate};
use crate::backend::Backend;
use crate::model::{Constant, Model};
use crate::{Data, Tensor as Ours};

/// Sizes of axes: those at which kernels change behavior, and others.
const SIZES: [i64; 14] = [0, 1, 1, 1, 2, 2, 3, 4, 5, 7, 8, 16, 17, 33];

/// The maximum number of elements of a value.
const ELEMENTS: i64 = 1 << 13;

/// A SplitMix64 random number generator.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// Returns an integer that is usually small.
    fn integer(&mut self) -> i64 {
        const EDGES: [i64; 8] =
            [i64::MIN, i64::MAX, 1 << 40, -(1 << 40), 1 << 31, -(1 << 31), 1 << 32, 255];
        if self.one_in(12) { self.pick(&EDGES) } else { self.below(9) as i64 - 3 }
    }

    fn real(&mut self) -> f32 {
        const EDGES: [f32; 8] =
            [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e30, -1e-40, f32::MAX];
        if self.one_in(10) { self.pick(&EDGES) } else { self.below(2000) as f32 / 64.0 - 16.0 }
    }
}

/// A graph under construction, with the facts of its values.
struct Maker {
    random: Random,
    graph: Graph,
    constants: Vec<Constant>,
    values: Vec<(ValueId, TypedFact)>,
    /// The number of operators that were added.
    added: usize,
}

/// Returns the facts that the loader computes for a node with these inputs.
fn probe(model: &Model, node: &Node, inputs: &[&TypedFact]) -> Result<Vec<Fact>, String> {
    let backend = Backend::detect();
    let budget = Budget::of_memory(1 << 24);
    let loader = Loader::new(model, &[], &backend, &[], Purpose::Run, budget);
    let facts = catch(|| {
        let context = Context { loader: &loader, node, inputs, stated: &[] };
        let op = translate::load(&context).map_err(|problem| problem.to_string())?;
        op.output_facts(inputs).map_err(|error| format!("{error:#}"))
    });
    let facts =
        facts.unwrap_or_else(|panic| panic!("{:?} of {inputs:?}: {panic}", node.operator))?;
    let dim = |dim: &TDim| Dim::Value(dim.as_i64().unwrap_or(1));
    let fact = |fact: &TypedFact| {
        let dtype = DTYPES.into_iter().find(|d| dtype_to_tract(*d) == fact.datum_type);
        Some(Fact { dtype: dtype?, shape: fact.shape.iter().map(dim).collect() })
    };
    facts.iter().map(fact).collect::<Option<_>>().ok_or_else(|| "the type has no equivalent".into())
}

const DTYPES: [DType; 13] = [
    DType::F32,
    DType::Bool,
    DType::I8,
    DType::U8,
    DType::I16,
    DType::U16,
    DType::I32,
    DType::U32,
    DType::I64,
    DType::U64,
    DType::F16,
    DType::F64,
    DType::Dim,
];

impl Maker {
    fn new(seed: u64) -> Maker {
        Maker {
            random: Random(seed),
            graph: Graph::default(),
            constants: vec![],
            values: vec![],
            added: 0,
        }
    }

    fn size(&mut self) -> i64 {
        self.random.pick(&SIZES)
    }

    fn shape(&mut self, rank: usize) -> Vec<i64> {
        let mut left = ELEMENTS;
        (0..rank)
            .map(|_| {
                let size = self.size().min(left);
                left /= size.max(1);
                size
            })
            .collect()
    }

    fn dtype(&mut self) -> DType {
        let usual = [DType::F32, DType::F32, DType::F32, DType::I64, DType::Bool, DType::I32];
        if self.random.one_in(4) {
            self.random.pick(&DTYPES[..12])
        } else {
            self.random.pick(&usual)
        }
    }

    /// Creates a tensor of random elements.
    fn tensor(&mut self, dtype: DType, shape: &[i64]) -> Ours {
        let shape: Vec<usize> = shape.iter().map(|size| *size as usize).collect();
        let n = shape.iter().product();
        let random = &mut self.random;
        macro_rules! list {
            ($type:ty) => {
                (0..n).map(|_| random.integer() as $type).collect::<Vec<_>>().into()
            };
        }
        let data: Data = match dtype {
            DType::Bool => (0..n).map(|_| random.one_in(2)).collect::<Vec<_>>().into(),
            DType::I8 => list!(i8),
            DType::U8 => list!(u8),
            DType::I16 => list!(i16),
            DType::U16 => list!(u16),
            DType::I32 => list!(i32),
            DType::U32 => list!(u32),
            DType::U64 => list!(u64),
            DType::F32 => (0..n).map(|_| random.real()).collect::<Vec<_>>().into(),
            DType::F64 => (0..n).map(|_| f64::from(random.real())).collect::<Vec<_>>().into(),
            DType::F16 => {
                let half = |x: f32| half::f16::from_f32(x);
                (0..n).map(|_| half(random.real())).collect::<Vec<_>>().into()
            }
            _ => list!(i64),
        };
        Ours::new(&shape, data).expect("the shape has the same number of elements")
    }

    fn store(&mut self, tensor: Ours) -> u32 {
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

    fn push(&mut self, operator: Operator, inputs: &[ValueId], outputs: Vec<Fact>) -> u32 {
        let node = self.graph.nodes.len() as u32;
        let name = format!("node {node}");
        self.graph.nodes.push(Node { name, operator, inputs: inputs.to_vec(), outputs });
        node
    }

    fn constant(&mut self, tensor: Ours) -> ValueId {
        let shape = tensor.shape().iter().map(|size| Dim::Value(*size as i64)).collect();
        let stated = Fact { dtype: tensor.dtype(), shape };
        let known = to_tract(&tensor).expect("tract has these types").into_arc_tensor();
        let index = self.store(tensor);
        let value_id =
            ValueId { node: self.push(Operator::Constant(index), &[], vec![stated]), output: 0 };
        self.values.push((value_id, TypedFact::try_from(known).expect("it is a constant")));
        value_id
    }

    /// Adds an input or a constant.
    fn fresh(&mut self, dtype: DType, shape: &[i64]) -> ValueId {
        if self.random.one_in(3) {
            let tensor = self.tensor(dtype, shape);
            return self.constant(tensor);
        }
        let stated = Fact { dtype, shape: shape.iter().map(|size| Dim::Value(*size)).collect() };
        let node = self.push(Operator::Input, &[], vec![stated]);
        self.graph.inputs.push(node);
        let value_id = ValueId { node, output: 0 };
        self.values.push((value_id, dtype_to_tract(dtype).fact(shape)));
        value_id
    }

    /// Returns a value of this type and shape, preferably an existing one.
    fn value(&mut self, dtype: DType, shape: &[i64]) -> ValueId {
        let wanted = dtype_to_tract(dtype).fact(shape);
        let same =
            |fact: &TypedFact| fact.datum_type == wanted.datum_type && fact.shape == wanted.shape;
        let there: Vec<ValueId> = self
            .values
            .iter()
            .filter(|(_, fact)| same(fact))
            .map(|(value_id, _)| *value_id)
            .collect();
        if there.is_empty() || self.random.one_in(3) {
            return self.fresh(dtype, shape);
        }
        self.random.pick(&there)
    }

    /// Returns a recent value, or a new one.
    fn any(&mut self) -> (ValueId, TypedFact) {
        if self.values.is_empty() || self.random.one_in(4) {
            let (dtype, rank) = (self.dtype(), self.random.below(5));
            let shape = self.shape(rank);
            self.fresh(dtype, &shape);
            return self.values[self.values.len() - 1].clone();
        }
        let recent = self.values.len().min(4);
        let at = self.values.len() - 1 - self.random.below(recent);
        self.values[at].clone()
    }

    /// Returns a value of type f32 and of this rank.
    fn real(&mut self, rank: usize) -> (ValueId, Vec<i64>) {
        let fits = |fact: &TypedFact| fact.datum_type == DatumType::F32 && fact.rank() == rank;
        let there = self.values.iter().rev().find(|(_, fact)| fits(fact)).cloned();
        if let Some((value_id, fact)) = there.filter(|_| self.random.one_in(2)) {
            return (value_id, dims(&fact));
        }
        let shape = self.shape(rank);
        (self.fresh(DType::F32, &shape), shape)
    }

    /// Adds an operator if the loader accepts it.
    fn add(&mut self, operator: Operator, inputs: &[ValueId]) {
        let facts: Vec<TypedFact> = inputs
            .iter()
            .filter_map(|input| self.values.iter().find(|(value_id, _)| value_id == input))
            .map(|(_, fact)| fact.clone())
            .collect();
        let node =
            Node { name: "probe".into(), operator, inputs: inputs.to_vec(), outputs: vec![] };
        let model = Model {
            graph: Graph { constants: self.graph.constants.clone(), ..Graph::default() },
            constants: self.constants.clone(),
            programs: vec![],
        };
        let Ok(mut outputs) = probe(&model, &node, &facts.iter().collect::<Vec<_>>()) else {
            return;
        };
        let large = |fact: &Fact| {
            let sizes = fact.shape.iter().map(value);
            sizes.fold(1i64, |all, size| all.saturating_mul(size)) > ELEMENTS * 8
        };
        if outputs.iter().any(large) {
            return;
        }
        // If the output size depends on data, sometimes state an arbitrary one.
        if self.random.one_in(8) && stated_at_will(&node.operator) {
            let size = self.size();
            let axis = self.random.below(outputs[0].shape.len());
            for fact in &mut outputs {
                if let Some(dim) = fact.shape.get_mut(axis) {
                    *dim = Dim::Value(size);
                }
            }
        }
        let stated: Vec<TypedFact> = outputs
            .iter()
            .map(|fact| {
                let shape = fact.shape.iter().map(value);
                dtype_to_tract(fact.dtype).fact(shape.collect::<TVec<i64>>())
            })
            .collect();
        let node = self.push(node.operator, inputs, outputs);
        for (slot, fact) in stated.into_iter().enumerate() {
            self.values.push((ValueId { node, output: slot as u32 }, fact));
        }
        self.added += 1;
    }

    fn elementwise(&mut self) {
        use Binary::*;
        let (a, fact) = self.any();
        match self.random.below(6) {
            0..3 => {
                const KINDS: [Binary; 23] = [
                    Add,
                    Subtract,
                    Multiply,
                    Divide,
                    Remainder,
                    Minimum,
                    Maximum,
                    Power,
                    ShiftLeft,
                    ShiftRight,
                    And,
                    Or,
                    Xor,
                    BitAnd,
                    BitOr,
                    BitXor,
                    Equal,
                    NotEqual,
                    Less,
                    LessOrEqual,
                    Greater,
                    GreaterOrEqual,
                    SubtractFrom,
                ];
                let mut shape = dims(&fact);
                for size in &mut shape {
                    match self.random.below(6) {
                        0 => *size = 1,
                        1 if *size == 1 => *size = self.size(),
                        _ => {}
                    }
                }
                let Some(dtype) = dtype_of(&fact) else { return };
                let b = self.value(dtype, &shape);
                let kind = self.random.pick(&KINDS);
                let inputs = if self.random.one_in(2) { [a, b] } else { [b, a] };
                self.add(Operator::Binary(kind), &inputs);
            }
            3 => {
                let kind = self.random.pick(&UNARIES);
                self.add(Operator::Unary(kind), &[a]);
            }
            4 => {
                let dtype = self.random.pick(&DTYPES);
                self.add(Operator::Cast(dtype), &[a]);
            }
            _ => {
                let Some(dtype) = dtype_of(&fact) else { return };
                let shape = dims(&fact);
                let condition = self.value(DType::Bool, &shape);
                let other = self.value(dtype, &shape);
                self.add(Operator::Select, &[condition, a, other]);
            }
        }
    }

    fn finish(mut self) -> Option<(Model, Vec<Vec<i64>>, Vec<DType>)> {
        if self.added == 0 || self.graph.inputs.is_empty() {
            return None;
        }
        for (node, of) in self.graph.nodes.iter().enumerate() {
            let leaf = matches!(of.operator, Operator::Input | Operator::Constant(_));
            for slot in 0..if leaf { 0 } else { of.outputs.len() as u32 } {
                // Omit some values from the outputs, so that tract may fuse operations.
                if !self.random.0.wrapping_mul(node as u64 + 1).is_multiple_of(3)
                    || node + 1 == self.graph.nodes.len()
                {
                    self.graph.outputs.push(ValueId { node: node as u32, output: slot });
                    self.graph.output_names.push(format!("{node}.{slot}"));
                }
            }
        }
        let inputs =
            self.graph.inputs.iter().map(|node| &self.graph.nodes[*node as usize].outputs[0]);
        let shapes = inputs.clone().map(|fact| fact.shape.iter().map(value).collect());
        let (shapes, dtypes) = (shapes.collect(), inputs.map(|fact| fact.dtype).collect());
        let model = Model { graph: self.graph, constants: self.constants, programs: vec![] };
        Some((model, shapes, dtypes))
    }
}

const UNARIES: [Unary; 37] = {
    use Unary::*;
    [
        Abs,
        Exp,
        Ln,
        Square,
        Sqrt,
        Reciprocal,
        ReciprocalSqrt,
        Ceil,
        Floor,
        Round,
        RoundHalfToEven,
        Cos,
        Sin,
        Tan,
        Acos,
        Asin,
        Atan,
        Cosh,
        Sinh,
        Tanh,
        Erf,
        Acosh,
        Asinh,
        Atanh,
        Negate,
        Sign,
        IsNan,
        Not,
        BitNot,
        Sigmoid,
        HardSwish,
        Silu,
        Gelu,
        GeluApproximate,
        PowConst(1.5),
        LeakyRelu(0.1),
        IsInf { positive: true, negative: false },
    ]
};

fn dims(fact: &TypedFact) -> Vec<i64> {
    fact.shape.iter().map(|dim| dim.as_i64().unwrap_or(1)).collect()
}

fn dtype_of(fact: &TypedFact) -> Option<DType> {
    DTYPES[..12].iter().copied().find(|dtype| dtype_to_tract(*dtype) == fact.datum_type)
}

fn stated_at_will(operator: &Operator) -> bool {
    matches!(
        operator,
        Operator::TopK(_)
            | Operator::Range(_)
            | Operator::DynamicSlice(_)
            | Operator::DynamicTile(_)
            | Operator::StridedSlice(_)
    )
}

/// Builds a graph and runs it. Returns whether it ran without an error.
fn run(seed: u64) -> bool {
    let mut maker = Maker::new(seed);
    for _ in 0..1 + maker.random.below(6) {
        match maker.random.below(8) {
            0 | 1 => maker.elementwise(),
            2 | 3 => maker.arrange(),
            4 | 5 => maker.index(),
            6 => maker.combine(),
            _ => maker.window(),
        }
    }
    let mut random = Random(seed ^ 0x55);
    let mut values = Maker::new(random.next());
    let Some((model, shapes, dtypes)) = maker.finish() else { return false };
    if std::env::var_os("HOSTILE_PRINT").is_some() {
        eprintln!("seed {seed}: {:#?}", model.graph);
    }
    let inputs: Vec<Ours> =
        shapes.iter().zip(&dtypes).map(|(shape, dtype)| values.tensor(*dtype, shape)).collect();
    let inputs: Vec<&Ours> = inputs.iter().collect();
    let shapes: Vec<&[usize]> = inputs.iter().map(|input| input.shape()).collect();
    let mut ran = false;
    for prepared in [false, true] {
        let plan = FloatModel::load(&model, prepared).and_then(|loaded| loaded.plan(&shapes));
        let result = plan.and_then(|mut plan| plan.run(&inputs));
        if let Err(error) = &result {
            let text = error.to_string();
            let panicked = matches!(error, Error::Panic { .. }) || text.contains("panicked");
            let nodes = || model.graph.nodes.iter().map(|node| &node.operator).collect::<Vec<_>>();
            assert!(!panicked, "seed {seed}, prepared {prepared}: {text}\n{:?}", nodes());
        }
        ran |= result.is_ok();
    }
    ran
}

#[test]
fn no_graph_makes_tract_panic() {
    let number = |name: &str, usual: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
    };
    let (first, count) = (number("HOSTILE_SEED", 0), number("HOSTILE_GRAPHS", 3000));
    let mut ran = 0;
    let mut panics = vec![];
    for seed in first..first + count {
        match catch(|| run(seed)) {
            Ok(did) => ran += did as u64,
            Err(panic) => panics.push(panic),
        }
    }
    assert!(panics.is_empty(), "{} of {count}:\n{}", panics.len(), panics.join("\n\n"));
    // The test has no value if nearly all graphs are rejected.
    assert!(count < 100 || ran > count / 10, "{ran} of {count}");
}

/// Returns the size, or 1 for a symbol.
fn value(dim: &Dim) -> i64 {
    if let Dim::Value(size) = dim { *size } else { 1 }
}
