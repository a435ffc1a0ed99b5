//! Graphs whose stated shapes are wrong, in places where tract does not compare them: branches that
//! it evaluates while it loads a model, and operands of matrix multiplications. Every result is an
//! error or has the correct values.
#![cfg(feature = "float")]

mod graphs;

use graphs::{Sketch, fact, tensor};
use hardtack::float::Error;
use hardtack::{DType, Tensor};
use hardtack_bundle::graph::*;

fn symbol() -> Dim {
    Dim::Expression(vec![Token::Symbol(0)])
}

fn shape(dims: &[Dim]) -> Fact {
    Fact { dtype: DType::F32, shape: dims.to_vec() }
}

/// Runs a branch with constant inputs, whose body adds up the elements of `x` in a loop and states
/// that this returns `stated` partial sums.
fn branch(x: &[f32], stated: i64) -> Result<Vec<Tensor>, Error> {
    let slice = ScanSlice { axis: 0, chunk: 1 };
    let mut sum = Sketch::default();
    let (state, element) = (sum.input(DType::F32, &[1]), sum.input(DType::F32, &[1]));
    let next =
        sum.node(Operator::Binary(Binary::Add), &[state, element], vec![fact(DType::F32, &[1])]);
    sum.output(next);

    let body = |sum: u32| {
        let mut body = Sketch::default();
        let values = body.input(DType::F32, &[x.len() as i64]);
        let start = body.input(DType::F32, &[1]);
        let scan = Scan {
            body: sum,
            skip: 0,
            reset_every_turn: false,
            external_state: false,
            inputs: vec![ScanInput::State, ScanInput::Slice(slice)],
            outputs: vec![ScanOutput {
                slices: Some((0, slice)),
                full_dim: Some(Dim::Value(stated)),
                last_value: None,
                state: true,
            }],
        };
        let sums =
            body.node(Operator::Scan(scan), &[start, values], vec![fact(DType::F32, &[stated])]);
        body.output(sums);
        body.graph
    };

    let mut sketch = Sketch::default();
    let condition = sketch.constant(tensor(&[], &[true]));
    let values = sketch.constant(tensor(&[x.len()], x));
    let start = sketch.constant(tensor(&[1], &[0f32]));
    let branch =
        If { then_body: 0, then_inputs: vec![1, 2], else_body: 1, else_inputs: vec![1, 2] };
    let inputs = [condition, values, start];
    let sums = sketch.node(Operator::If(branch), &inputs, vec![fact(DType::F32, &[stated])]);
    sketch.output(sums);
    sketch.graph.bodies = vec![body(2), body(3), sum.graph.clone(), sum.graph];
    sketch.run(&[])
}

#[test]
fn constant_branches_are_checked_too() {
    let sums = branch(&[1.0, 2.0, 3.0, 4.0], 4).unwrap();
    assert_eq!(sums, [tensor(&[4], &[1f32, 3.0, 6.0, 10.0])]);
    assert!(branch(&[1.0, 2.0, 3.0, 4.0], 1024).is_err());
    assert!(branch(&[1.0; 15], 2).is_err());
}

/// Multiplies a matrix of 2 rows by one of 3 columns. Both are sliced to `ends`, which are inputs,
/// and state the same length.
fn sliced_product(length: Dim, ends: [i64; 2]) -> Result<Vec<Tensor>, Error> {
    let mut sketch = Sketch::default();
    sketch.graph.symbols = vec!["s".into(), "t".into()];
    let (a, b) = (tensor(&[2, 40], &[1f32; 80]), tensor(&[40, 3], &[1f32; 120]));
    let inputs = [a, b, tensor(&[], &[ends[0]]), tensor(&[], &[ends[1]])];
    let start = sketch.constant(tensor(&[], &[0i64]));
    let (a, b) = (sketch.input(DType::F32, &[2, 40]), sketch.input(DType::F32, &[40, 3]));
    let (end_a, end_b) = (sketch.input(DType::I64, &[]), sketch.input(DType::I64, &[]));
    let slice = |axis| Operator::DynamicSlice(DynamicSlice { axis, length: length.clone() });
    let dims = [Dim::Value(2), length.clone()];
    let a = sketch.node(slice(1), &[a, start, end_a], vec![shape(&dims)]);
    let dims = [length.clone(), Dim::Value(3)];
    let b = sketch.node(slice(0), &[b, start, end_b], vec![shape(&dims)]);
    let einsum = Einsum { expression: "ak,kb->ab".into(), accumulator: DType::F32 };
    let product = sketch.node(Operator::Einsum(einsum), &[a, b], vec![fact(DType::F32, &[2, 3])]);
    sketch.output(product);
    sketch.run(&inputs)
}

#[test]
fn operands_of_different_depths_are_rejected() {
    let twice = || Dim::Expression(vec![Token::Value(2), Token::Symbol(0), Token::Multiply(2)]);
    let sum = || Dim::Expression(vec![Token::Symbol(0), Token::Symbol(1), Token::Add(2)]);
    let product = |depth: f32| [tensor(&[2, 3], &[depth; 6])];
    assert_eq!(sliced_product(symbol(), [7, 7]).unwrap(), product(7.0));
    assert_eq!(sliced_product(twice(), [8, 8]).unwrap(), product(8.0));
    for length in [symbol(), twice(), sum()] {
        for ends in [[5, 33], [33, 5], [6, 34]] {
            assert!(sliced_product(length.clone(), ends).is_err(), "{length:?} {ends:?}");
        }
    }
}

/// Broadcasts a row to a number of rows that is unknown until the model runs, multiplies it by a
/// matrix and adds a row. With `idle`, an operation that does nothing precedes the product.
fn broadcast_product(rows: i64, idle: bool) -> Result<Vec<Tensor>, Error> {
    let mut sketch = Sketch::default();
    sketch.graph.symbols = vec!["s".into()];
    let x = sketch.input(DType::F32, &[1, 4]);
    let (y, end) = (sketch.input(DType::F32, &[4096]), sketch.input(DType::I64, &[]));
    let start = sketch.constant(tensor(&[], &[0i64]));
    let cut = Operator::DynamicSlice(DynamicSlice { axis: 0, length: symbol() });
    let cut = sketch.node(cut, &[y, start, end], vec![shape(&[symbol()])]);
    let wide = [symbol(), Dim::Value(4)];
    let broadcast = Operator::Broadcast(wide.to_vec());
    let mut value = sketch.node(broadcast, &[x], vec![shape(&wide)]);
    let einsum = |expression: &str| {
        Operator::Einsum(Einsum { expression: expression.into(), accumulator: DType::F32 })
    };
    if idle {
        value = sketch.node(einsum("ab->ab"), &[value], vec![shape(&wide)]);
    }
    let matrix = sketch.constant(tensor(&[4, 8], &[1f32; 32]));
    let row = sketch.constant(tensor(&[1, 8], &[0.5f32; 8]));
    let out = [symbol(), Dim::Value(8)];
    let product = sketch.node(einsum("sk,kn->sn"), &[value, matrix], vec![shape(&out)]);
    let sum = sketch.node(Operator::Binary(Binary::Add), &[product, row], vec![shape(&out)]);
    sketch.output(cut);
    sketch.output(sum);
    let x = tensor(&[1, 4], &[1f32, 2.0, 3.0, 4.0]);
    sketch.run(&[x, tensor(&[4096], &[0f32; 4096]), tensor(&[], &[rows])])
}

#[test]
fn broadcast_operands_have_the_rows_of_the_product() {
    for idle in [false, true] {
        for rows in [1, 3, 1000] {
            // An error is accepted, wrong values are not.
            if let Ok(values) = broadcast_product(rows, idle) {
                let expected = tensor(&[rows as usize, 8], &vec![10.5f32; rows as usize * 8]);
                assert_eq!(values[1], expected, "{rows} {idle}");
            }
        }
    }
}
