//! Graphs of a few nodes that would take minutes, gigabytes or the whole stack while they are
//! loaded. Each is refused at once.
#![cfg(feature = "float")]

mod graphs;

use std::time::{Duration, Instant};

use graphs::{Sketch, fact, tensor};
use hardtack::float::Error;
use hardtack::internal::Constant;
use hardtack::{DType, Tensor};
use hardtack_bundle::graph::*;

/// Returns the values of a graph, after checking that it did not take long.
fn quick(sketch: Sketch, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
    let began = Instant::now();
    let values = sketch.run(inputs);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    values
}

fn sizes(dims: &[Dim]) -> Vec<Fact> {
    vec![Fact { dtype: DType::F32, shape: dims.to_vec() }]
}

/// Adds axes of size 1 in front of a value of one element, and returns it with `rank` axes.
fn with_axes(sketch: &mut Sketch, mut value: ValueId, rank: usize) -> ValueId {
    for rank in 2..=rank {
        let stated = vec![fact(DType::F32, &vec![1; rank])];
        value = sketch.node(Operator::AddAxis(0), &[value], stated);
    }
    value
}

#[test]
fn shapes_of_many_axes_are_rejected() {
    let reshaped = |rank: usize| {
        let mut sketch = Sketch::default();
        let x = sketch.input(DType::F32, &[1]);
        let ones = vec![Dim::Value(1); rank];
        let wide = sketch.node(Operator::Broadcast(ones.clone()), &[x], sizes(&ones));
        let reshape = Operator::Reshape(Reshape { axis: 0, from: ones, to: vec![Dim::Value(1)] });
        let y = sketch.node(reshape, &[wide], sizes(&[Dim::Value(1)]));
        sketch.output(y);
        quick(sketch, &[tensor(&[1], &[2f32])])
    };
    assert_eq!(reshaped(16).unwrap(), [tensor(&[1], &[2f32])]);
    for rank in [17, 5000] {
        let error = reshaped(rank).unwrap_err();
        assert!(error.to_string().contains("more than 16 axes"), "{error}");
    }
    let stacked = |rank: usize| {
        let mut sketch = Sketch::default();
        let x = sketch.input(DType::F32, &[1]);
        let y = with_axes(&mut sketch, x, rank);
        sketch.output(y);
        quick(sketch, &[tensor(&[1], &[2f32])])
    };
    assert!(stacked(16).is_ok());
    assert!(stacked(17).is_err());
    let mut sketch = Sketch::default();
    let constant = sketch.constant(tensor(&[1; 400], &[1f32]));
    sketch.output(constant);
    assert!(quick(sketch, &[]).is_err());
}

/// Multiplies the size of the input by itself again and again, as a dimension or as an integer.
fn squares(times: usize, integers: bool) -> Result<Vec<Tensor>, Error> {
    let mut sketch = Sketch::default();
    sketch.graph.symbols = vec!["s".into(), "t".into()];
    sketch.graph.inputs.push(0);
    sketch.node(Operator::Input, &[], sizes(&[Dim::symbol(0)]));
    sketch.graph.constants.push(hardtack_bundle::graph::Constant {
        dtype: DType::Dim,
        stored: DType::Dim,
        shape: vec![1],
        offset: 0,
        length: 0,
    });
    sketch.constants.push(Constant::Dims { shape: vec![1], values: vec![Dim::symbol(1)] });
    let mut value = sketch.node(Operator::Constant(0), &[], vec![fact(DType::Dim, &[1])]);
    let cast = |sketch: &mut Sketch, value| {
        sketch.node(Operator::Cast(DType::I64), &[value], vec![fact(DType::I64, &[1])])
    };
    let dtype = if integers { DType::I64 } else { DType::Dim };
    if integers {
        value = cast(&mut sketch, value);
    }
    for _ in 0..times {
        let multiply = Operator::Binary(Binary::Multiply);
        value = sketch.node(multiply, &[value, value], vec![fact(dtype, &[1])]);
    }
    if !integers {
        value = cast(&mut sketch, value);
    }
    sketch.output(value);
    quick(sketch, &[tensor(&[1], &[1f32])])
}

#[test]
fn powers_of_dimensions_are_bounded() {
    let error = squares(14, false).unwrap_err();
    assert!(error.to_string().contains("too many terms"), "{error}");
    // The symbol has no value, so this cannot run, but it must not take long.
    assert!(squares(40, true).is_err());
}

fn symbols(sketch: &mut Sketch, count: usize) {
    sketch.graph.symbols = (0..count).map(|index| format!("s{index}")).collect();
}

#[test]
fn nested_choices_and_long_sums_are_rejected() {
    let sized = |tokens: Vec<Token>| {
        let mut sketch = Sketch::default();
        symbols(&mut sketch, 100);
        let x = sketch.input(DType::F32, &[1]);
        let dims = [Dim::Expression(tokens)];
        let wide = sketch.node(Operator::Broadcast(dims.to_vec()), &[x], sizes(&dims));
        sketch.output(wide);
        quick(sketch, &[tensor(&[1], &[1f32])]).unwrap_err().to_string()
    };
    let mut nested = vec![Token::Symbol(0)];
    for index in 0..8 {
        nested.extend([Token::Symbol(2 * index + 1), Token::Maximum(2)]);
        nested.extend([Token::Symbol(2 * index + 2), Token::Add(2)]);
    }
    assert!(sized(nested).contains("minima and maxima"));
    for last in [Token::Add(100), Token::Maximum(100), Token::Minimum(100), Token::Multiply(100)] {
        let all = (0..100).map(Token::Symbol).chain([last]).collect();
        assert!(sized(all).contains("too many terms"), "{last:?}");
    }
    for last in [Token::Add(60), Token::Maximum(60), Token::Minimum(60), Token::Multiply(60)] {
        let all = (0..60).map(Token::Symbol).chain([last]).collect();
        assert!(!sized(all).contains("too many terms"), "{last:?}");
    }
    let half = Token::Divide(1 << 32);
    let divided = vec![Token::Symbol(0), Token::Symbol(1), Token::Add(2), half, half];
    assert!(sized(divided).contains("too large numbers"));
}

#[test]
fn products_of_sums_are_bounded() {
    let sum = |index: u32| {
        let (a, b) = (Token::Symbol(2 * index), Token::Symbol(2 * index + 1));
        Dim::Expression(vec![a, b, Token::Add(2)])
    };
    let mut sketch = Sketch::default();
    symbols(&mut sketch, 28);
    let dims: Vec<Dim> = (0..14).map(sum).collect();
    let reversed: Vec<Dim> = dims.iter().rev().cloned().collect();
    let x = sketch.input(DType::F32, &[1]);
    let x = with_axes(&mut sketch, x, 14);
    let wide = sketch.node(Operator::Broadcast(dims.clone()), &[x], sizes(&dims));
    let reshape = Operator::Reshape(Reshape { axis: 0, from: dims, to: reversed.clone() });
    let y = sketch.node(reshape, &[wide], sizes(&reversed));
    sketch.output(y);
    let error = quick(sketch, &[tensor(&[1], &[1f32])]).unwrap_err();
    assert!(error.to_string().contains("too many terms"), "{error}");
}
