//! Graphs in which an optimization removes what enforced a shape, after another operation took its
//! geometry from it. The operation must compare the shape itself.
#![cfg(feature = "float")]

mod graphs;

use graphs::{Sketch, fact, tensor};
use hardtack::float::Error;
use hardtack::{DType, Tensor};
use hardtack_bundle::graph::*;

/// The channels of the images.
const CHANNELS: u32 = 2;

fn window(kernel: &[u32]) -> Window {
    Window {
        layout: ImageLayout::Nchw,
        kernel: kernel.to_vec(),
        strides: vec![1; kernel.len()],
        dilations: vec![1; kernel.len()],
        padding: Padding::Valid,
        input_channels: CHANNELS,
        output_channels: CHANNELS,
    }
}

/// An operator that reads an image by pointer, with its constant operands.
fn readers() -> Vec<(Operator, Vec<Tensor>, i64)> {
    let conv = |groups: u32, kernel: &[u32]| {
        let operator = Operator::Conv(Conv {
            window: window(kernel),
            kernel_layout: KernelLayout::Oihw,
            groups,
        });
        let inputs = (CHANNELS / groups) as usize;
        let shape = [CHANNELS as usize, inputs, kernel[0] as usize, kernel[1] as usize];
        let weights = vec![1f32; shape.iter().product()];
        (operator, vec![tensor(&shape, &weights), tensor(&[2], &[0f32; 2])], -2)
    };
    let transposed = |groups: u32| {
        let operator = Operator::ConvTranspose(ConvTranspose {
            window: window(&[1, 3]),
            kernel_layout: KernelLayout::Oihw,
            groups,
            output_padding: vec![0, 0],
        });
        let shape = [CHANNELS as usize, (CHANNELS / groups) as usize, 1, 3];
        let weights = vec![1f32; shape.iter().product()];
        (operator, vec![tensor(&shape, &weights), tensor(&[2], &[0f32; 2])], 2)
    };
    let max = MaxPool { window: window(&[1, 3]), index_dtype: None };
    let sum = SumPool { window: window(&[1, 3]), count_include_pad: false, average: false };
    vec![
        conv(1, &[1, 3]),
        conv(2, &[1, 3]),
        transposed(1),
        transposed(2),
        (Operator::MaxPool(max), vec![], -2),
        (Operator::SumPool(sum), vec![], -2),
    ]
}

/// Selects the `k` largest elements of each row of 64, which the graph states to be `stated`, and
/// runs an operator on them. Whatever separates the two has no effect.
fn largest(
    reader: (Operator, Vec<Tensor>, i64),
    stated: Dim,
    k: i64,
) -> Result<Vec<Tensor>, Error> {
    let (operator, constants, added) = reader;
    let mut sketch = Sketch::default();
    sketch.graph.symbols = vec!["u".into(), "v".into()];
    let shape = |dtype, last: Dim| Fact {
        dtype,
        shape: [1, 2, 1].map(Dim::Value).into_iter().chain([last]).collect(),
    };
    let x = sketch.input(DType::F32, &[1, 2, 1, 64]);
    let count = sketch.input(DType::I64, &[1]);
    let top = Operator::TopK(TopK { axis: 3, largest: true, k: Dim::symbol(0) });
    let (values, indices) = (shape(DType::F32, Dim::symbol(0)), shape(DType::I64, Dim::symbol(0)));
    let top = sketch.node(top, &[x, count], vec![values, indices]);
    let softmax = Operator::Softmax(Softmax { axes: vec![3], logarithm: false });
    let softmax = sketch.node(softmax, &[top], vec![shape(DType::F32, stated.clone())]);
    let one = sketch.constant(tensor(&[1, 1, 1, 1], &[1f32]));
    let product = Operator::Binary(Binary::Multiply);
    let product = sketch.node(product, &[softmax, one], vec![shape(DType::F32, stated.clone())]);
    let mut inputs = vec![product];
    inputs.extend(constants.into_iter().map(|constant| sketch.constant(constant)));
    let last = match &stated {
        Dim::Value(stated) => Dim::Value(stated + added),
        Dim::Expression(tokens) => Dim::Expression(
            tokens.iter().cloned().chain([Token::Value(added), Token::Add(2)]).collect(),
        ),
    };
    let y = sketch.node(operator, &inputs, vec![shape(DType::F32, last)]);
    sketch.output(y);
    let elements: Vec<f32> = (0..128).map(|index| index as f32 / 10.0).collect();
    sketch.run(&[tensor(&[1, 2, 1, 64], &elements), tensor(&[1], &[k])])
}

#[test]
fn operations_compare_the_shape_of_their_geometry() {
    for reader in readers() {
        let name = reader.0.name();
        let right = largest(reader.clone(), Dim::Value(48), 48).unwrap();
        assert_eq!(right[0].shape()[3] as i64, 48 + reader.2, "{name}");
        let dynamic = largest(reader.clone(), Dim::symbol(0), 48).unwrap();
        // With known shapes our own kernels run some operators, which round differently.
        let compare = |other: &[Tensor]| {
            assert_eq!(right[0].shape(), other[0].shape(), "{name}");
            for (a, b) in right[0].to_f32().iter().zip(other[0].to_f32()) {
                assert!((a - b).abs() <= 1e-6 * a.abs().max(1.0), "{name}: {a} and {b}");
            }
        };
        compare(&dynamic);
        for (stated, k) in [(5000, 3), (5000, 64), (48, 47), (3, 64), (1 << 22, 3)] {
            assert!(largest(reader.clone(), Dim::Value(stated), k).is_err(), "{name} {stated} {k}");
        }
        // Any other symbol has another value, or none: an error is accepted, wrong sizes are not.
        if let Ok(values) = largest(reader.clone(), Dim::symbol(1), 48) {
            compare(&values);
        }
    }
}

/// Runs a loop of one iteration whose body states that its input has `stated` elements. The body
/// multiplies by the identity and takes the maximum of windows of 3 elements.
fn single_loop(given: Dim, stated: Dim, k: i64) -> Result<Vec<Tensor>, Error> {
    let shape = |dtype, last: Dim| Fact { dtype, shape: vec![Dim::Value(1), Dim::Value(2), last] };
    let mut sketch = Sketch::default();
    sketch.graph.symbols = vec!["u".into(), "v".into()];
    let identity = sketch.store(tensor(&[2, 2], &[1i8, 0, 0, 1]));

    let mut body = Sketch::default();
    body.graph.inputs = vec![0, 1];
    let x = body.node(Operator::Input, &[], vec![shape(DType::I8, stated.clone())]);
    body.node(Operator::Input, &[], vec![fact(DType::F32, &[1])]);
    let w = body.node(Operator::Constant(identity), &[], vec![fact(DType::I8, &[2, 2])]);
    let einsum = Einsum { expression: "ncw,cd->ndw".into(), accumulator: DType::I32 };
    let product =
        body.node(Operator::Einsum(einsum), &[x, w], vec![shape(DType::I32, stated.clone())]);
    let cast =
        body.node(Operator::Cast(DType::I8), &[product], vec![shape(DType::I8, stated.clone())]);
    let pool = Operator::MaxPool(MaxPool { window: window(&[3]), index_dtype: None });
    let last = match &stated {
        Dim::Value(stated) => Dim::Value(stated - 2),
        Dim::Expression(tokens) => Dim::Expression(
            tokens.iter().cloned().chain([Token::Value(-2), Token::Add(2)]).collect(),
        ),
    };
    let pool = body.node(pool, &[cast], vec![shape(DType::I8, last.clone())]);
    body.output(pool);

    let x = sketch.input(DType::I8, &[1, 2, 64]);
    let count = sketch.input(DType::I64, &[1]);
    let sliced = sketch.input(DType::F32, &[1]);
    let top = Operator::TopK(TopK { axis: 2, largest: true, k: given.clone() });
    let facts = vec![shape(DType::I8, given.clone()), shape(DType::I64, given)];
    let top = sketch.node(top, &[x, count], facts);
    let scan = Scan {
        body: 0,
        skip: 0,
        reset_every_turn: true,
        external_state: false,
        inputs: vec![ScanInput::Full, ScanInput::Slice(ScanSlice { axis: 0, chunk: 1 })],
        outputs: vec![ScanOutput {
            slices: None,
            full_dim: None,
            last_value: Some(0),
            state: false,
        }],
    };
    let y = sketch.node(Operator::Scan(scan), &[top, sliced], vec![shape(DType::I8, last)]);
    sketch.output(y);
    sketch.graph.bodies = vec![body.graph];
    let elements: Vec<i8> = (0..128u8).map(|index| index as i8).collect();
    sketch.run(&[tensor(&[1, 2, 64], &elements), tensor(&[1], &[k]), tensor(&[1], &[1f32])])
}

#[test]
fn the_inputs_of_a_loop_have_exactly_the_shapes_of_its_body() {
    let values = single_loop(Dim::symbol(0), Dim::symbol(0), 4).unwrap();
    assert_eq!(values, [tensor(&[1, 2, 2], &[63i8, 62, 127, 126])]);
    for (given, stated) in [
        (Dim::symbol(0), Dim::Value(5000)),
        (Dim::Value(5000), Dim::symbol(0)),
        (Dim::symbol(0), Dim::symbol(1)),
    ] {
        let error = single_loop(given, stated, 3).unwrap_err();
        assert!(error.to_string().contains("do not match its body"), "{error}");
    }
}
