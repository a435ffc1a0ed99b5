//! Attributes and shapes of an untrusted graph that tract would not check. None of them may cause a
//! panic, an out-of-bounds read or an output of uninitialized memory.
#![cfg(feature = "float")]

mod graphs;

use graphs::{Sketch, fact, tensor};
use hardtack::float::Error;
use hardtack::{DType, Tensor};
use hardtack_bundle::graph::*;

/// Runs an operator on one input and constants.
fn run(
    operator: Operator,
    x: Tensor,
    constants: &[Tensor],
    outputs: Vec<Fact>,
) -> Result<Vec<Tensor>, Error> {
    let mut sketch = Sketch::default();
    let shape: Vec<i64> = x.shape().iter().map(|size| *size as i64).collect();
    let mut inputs = vec![sketch.input(x.dtype(), &shape)];
    inputs.extend(constants.iter().map(|constant| sketch.constant(constant.clone())));
    let node = sketch.node(operator, &inputs, outputs);
    sketch.output(node);
    sketch.run(&[x])
}

fn ones(shape: &[usize]) -> Tensor {
    tensor(shape, &vec![1f32; shape.iter().product()])
}

fn window(kernel: &[u32], stride: u32, padding: Padding, channels: (u32, u32)) -> Window {
    Window {
        layout: ImageLayout::Nchw,
        kernel: kernel.to_vec(),
        strides: vec![stride; kernel.len()],
        dilations: vec![1; kernel.len()],
        padding,
        input_channels: channels.0,
        output_channels: channels.1,
    }
}

fn f32s(shape: &[i64]) -> Vec<Fact> {
    vec![fact(DType::F32, shape)]
}

#[test]
fn negative_sizes_are_refused() {
    let numbers = |values: &[i64]| tensor(&[values.len()], values);
    let operator = Operator::TopK(TopK { axis: 0, largest: true, k: Dim::Value(1) });
    let outputs = vec![fact(DType::F32, &[1]), fact(DType::I64, &[1])];
    assert!(run(operator, ones(&[4]), &[numbers(&[-1])], outputs).is_err());
    let resize = Resize {
        coordinates: CoordinateTransform::HalfPixel,
        interpolation: Interpolation::Cubic,
        scales_input: None,
        sizes_input: Some(1),
        cubic_coefficient: -0.75,
        exclude_outside: false,
    };
    let sizes = numbers(&[1, 1, -2, 2]);
    let outputs = vec![fact(DType::F32, &[1, 1, 2, 2])];
    assert!(run(Operator::Resize(resize), ones(&[1, 1, 4, 4]), &[sizes], outputs).is_err());
}

/// tract replaces 0 − x by x.
#[test]
fn zero_minus_x_is_negative() {
    let subtract = |x: Tensor, zero: Tensor, dtype| {
        let outputs = vec![fact(dtype, &[2])];
        run(Operator::Binary(Binary::SubtractFrom), x, &[zero], outputs).unwrap().remove(0)
    };
    let floats = subtract(tensor(&[2], &[3f32, -4.0]), tensor(&[1], &[0f32]), DType::F32);
    assert_eq!(floats.to_f32(), [-3.0, 4.0]);
    let integers = subtract(tensor(&[2], &[3i64, -4]), tensor(&[1], &[0i64]), DType::I64);
    assert_eq!(integers.to_f32(), [-3.0, 4.0]);
}

#[test]
fn pools_keep_the_number_of_channels() {
    let pool = |channels| {
        let window = window(&[1], 1, Padding::Valid, channels);
        Operator::MaxPool(MaxPool { window, index_dtype: Some(DType::I64) })
    };
    let outputs = |c: i64| vec![fact(DType::F32, &[1, c, 2]), fact(DType::I64, &[1, c, 2])];
    assert!(run(pool((2, 2)), ones(&[1, 2, 2]), &[], outputs(2)).is_ok());
    // Without the check, tract writes beyond the output or leaves part of it uninitialized.
    assert!(run(pool((1000, 1)), ones(&[1, 1000, 2]), &[], outputs(1)).is_err());
    assert!(run(pool((1, 1000)), ones(&[1, 1, 2]), &[], outputs(1000)).is_err());
    let sum = Operator::SumPool(SumPool {
        window: window(&[1], 1, Padding::Valid, (1, 1000)),
        count_include_pad: true,
        average: true,
    });
    assert!(run(sum, ones(&[1, 1, 2]), &[], f32s(&[1, 1000, 2])).is_err());
}

#[test]
fn windows_are_no_larger_than_their_input() {
    let pool = |kernel: &[u32], padding| {
        let window = window(kernel, 1, padding, (1, 1));
        Operator::MaxPool(MaxPool { window, index_dtype: None })
    };
    // The image is smaller than the window.
    let error = run(pool(&[2, 2], Padding::Valid), ones(&[1, 1, 1, 4]), &[], f32s(&[1, 1, 0, 3]));
    assert!(error.is_err());
    let one = |padding| run(pool(&[3], padding), ones(&[1, 1, 1]), &[], f32s(&[1, 1, 1]));
    assert!(one(Padding::Explicit(vec![1], vec![0])).is_err());
    assert!(one(Padding::Explicit(vec![1], vec![1])).is_ok());
    assert!(one(Padding::SameUpper).is_ok());
    let none = |padding| run(pool(&[3], padding), ones(&[1, 1, 0]), &[], f32s(&[1, 1, 0]));
    assert!(none(Padding::SameUpper).is_err());
    // The last window may exceed the end of the image if the output size is rounded up.
    let ceil = |size| {
        let padding = Padding::ExplicitCeil(vec![0], vec![0]);
        let window = Window { strides: vec![2], ..window(&[3], 2, padding, (1, 1)) };
        let operator = Operator::MaxPool(MaxPool { window, index_dtype: None });
        run(operator, ones(&[1, 1, size]), &[], f32s(&[1, 1, 1]))
    };
    assert!(ceil(2).is_ok());
    assert!(ceil(1).is_err());
}

#[test]
fn windows_that_overlap_the_border_in_too_many_ways_are_rejected() {
    let size = 1 << 16;
    let window = window(&[size], 1, Padding::Explicit(vec![size], vec![size]), (1, 1));
    let operator = Operator::MaxPool(MaxPool { window, index_dtype: None });
    let length = i64::from(size) * 2 + 1;
    let error = run(operator, ones(&[1, 1, size as usize]), &[], f32s(&[1, 1, length]));
    assert!(error.unwrap_err().to_string().contains("too much memory"));
}

fn conv(
    window: Window,
    kernel: &[usize],
    groups: u32,
    x: &[usize],
    output: &[i64],
) -> Result<Vec<Tensor>, Error> {
    let kernel_layout = KernelLayout::Oihw;
    let bias = ones(&[window.output_channels as usize]);
    let operator = Operator::Conv(Conv { window, kernel_layout, groups });
    run(operator, ones(x), &[ones(kernel), bias], f32s(output))
}

#[test]
fn kernels_have_the_stated_channels() {
    let of = |channels| window(&[2], 1, Padding::Valid, channels);
    let fine = conv(of((4, 2)), &[2, 4, 2], 1, &[1, 4, 3], &[1, 2, 2]).unwrap();
    assert_eq!(fine, [tensor(&[1, 2, 2], &[9f32; 4])]);
    // The same number of weights in other shapes.
    assert!(conv(of((4, 2)), &[1, 8, 2], 1, &[1, 4, 3], &[1, 2, 2]).is_err());
    assert!(conv(of((4, 2)), &[8, 1, 2], 1, &[1, 4, 3], &[1, 2, 2]).is_err());
    assert!(conv(of((2, 2)), &[2, 4, 2], 1, &[1, 4, 3], &[1, 2, 2]).is_err());
    let grouped = conv(of((4, 2)), &[2, 2, 2], 2, &[1, 4, 3], &[1, 2, 2]).unwrap();
    assert_eq!(grouped, [tensor(&[1, 2, 2], &[5f32; 4])]);
}

#[test]
fn convolutions_read_within_their_input() {
    let ceil =
        |kernel, stride| window(&[kernel], stride, Padding::ExplicitCeil(vec![0], vec![0]), (1, 1));
    assert!(conv(ceil(2, 2), &[1, 1, 2], 1, &[1, 1, 5], &[1, 1, 3]).is_err());
    assert!(conv(ceil(1000, 1), &[1, 1, 1000], 1, &[1, 1, 1], &[1, 1, 1]).is_err());
    let same = window(&[3], 2, Padding::SameUpper, (1, 1));
    let y = conv(same, &[1, 1, 3], 1, &[1, 1, 4], &[1, 1, 2]).unwrap();
    assert_eq!(y, [tensor(&[1, 1, 2], &[4f32, 3.0])]);
}

#[test]
fn transposed_convolutions_have_an_output() {
    let run = |stride, padding, added, output: i64| {
        let operator = Operator::ConvTranspose(ConvTranspose {
            window: window(&[2], stride, padding, (1, 1)),
            kernel_layout: KernelLayout::Oihw,
            groups: 1,
            output_padding: vec![added],
        });
        run(operator, ones(&[1, 1, 2]), &[ones(&[1, 1, 2]), ones(&[1])], f32s(&[1, 1, output]))
    };
    let y = run(1, Padding::Valid, 0, 3).unwrap();
    assert_eq!(y, [tensor(&[1, 1, 3], &[2f32, 3.0, 2.0])]);
    for padding in [
        Padding::Explicit(vec![2], vec![1]),
        Padding::Explicit(vec![1 << 20], vec![0]),
        Padding::ExplicitCeil(vec![0], vec![0]),
    ] {
        assert!(run(1, padding.clone(), 0, 0).is_err(), "{padding:?}");
    }
    assert!(run(1, Padding::SameUpper, 1 << 20, 2).is_err());
}

fn einsum(expression: &str, a: Tensor, b: Tensor, output: &[i64]) -> Result<Vec<Tensor>, Error> {
    let einsum = Einsum { expression: expression.into(), accumulator: DType::F32 };
    run(Operator::Einsum(einsum), a, &[b], f32s(output))
}

#[test]
fn einsum_sums_over_axes_of_equal_size() {
    let y = einsum("mk,kn->mn", ones(&[2, 3]), ones(&[3, 4]), &[2, 4]).unwrap();
    assert_eq!(y, [tensor(&[2, 4], &[3f32; 8])]);
    // A size of 1 is broadcast only on axes that are not summed over.
    let y = einsum("bmk,bkn->bmn", ones(&[1, 1, 2]), ones(&[3, 2, 1]), &[3, 1, 1]).unwrap();
    assert_eq!(y, [tensor(&[3, 1, 1], &[2f32; 3])]);
    for (a, b) in [([2, 1], [3, 4]), ([2, 3], [1, 4]), ([2, 3], [2, 4]), ([2, 0], [1, 4])] {
        assert!(einsum("mk,kn->mn", ones(&a), ones(&b), &[2, 4]).is_err(), "{a:?} {b:?}");
    }
    for expression in ["ii,ij->ij", "ij,jk->ii", "i->,ij", "m ,kn->mn", "mk,k.->mk"] {
        assert!(einsum(expression, ones(&[2, 2]), ones(&[2, 2]), &[2, 2]).is_err(), "{expression}");
    }
}

#[test]
fn reductions_of_no_elements_are_rejected() {
    let reduce = |reducer, x: Tensor, dtype, shape: &[i64]| {
        run(Operator::Reduce(Reduce { axes: vec![1], reducer }), x, &[], vec![fact(dtype, shape)])
    };
    let none = || ones(&[2, 0]);
    assert!(reduce(Reducer::Sum, none(), DType::F32, &[2, 1]).is_err());
    assert!(reduce(Reducer::MeanOfSquares, none(), DType::F32, &[2, 1]).is_err());
    assert_eq!(
        reduce(Reducer::Sum, ones(&[2, 3]), DType::F32, &[2, 1]).unwrap(),
        [tensor(&[2, 1], &[3f32; 2])]
    );
    // Numbers are not interpreted as booleans byte by byte.
    assert!(reduce(Reducer::All, ones(&[2, 3]), DType::F32, &[2, 1]).is_err());
    let any = reduce(Reducer::Any, tensor(&[1, 2], &[false, true]), DType::Bool, &[1, 1]).unwrap();
    assert_eq!(any, [tensor(&[1, 1], &[true])]);
    for logarithm in [false, true] {
        let operator = Operator::Softmax(Softmax { axes: vec![1], logarithm });
        assert!(run(operator, none(), &[], f32s(&[2, 0])).is_err());
    }
}

#[test]
fn resampled_images_have_elements() {
    let resize = |x: Tensor, scales: &[f32], interpolation, output: &[i64]| {
        let operator = Operator::Resize(Resize {
            coordinates: CoordinateTransform::HalfPixel,
            interpolation,
            scales_input: Some(1),
            sizes_input: None,
            cubic_coefficient: -0.75,
            exclude_outside: false,
        });
        run(operator, x, &[tensor(&[scales.len()], scales)], f32s(output))
    };
    for kind in [Interpolation::Linear, Interpolation::NearestFloor, Interpolation::NearestCeil] {
        assert!(resize(ones(&[1, 2]), &[1.0, 2.0], kind, &[1, 4]).is_ok());
        assert!(resize(ones(&[1, 0]), &[1.0, 2.0], kind, &[1, 0]).is_err());
        // More scales than axes.
        assert!(resize(ones(&[1, 2]), &[1.0, 2.0, 2.0], kind, &[1, 4]).is_err());
        for scale in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e30] {
            assert!(resize(ones(&[1, 2]), &[1.0, scale], kind, &[1, 4]).is_err(), "{scale}");
        }
    }
    // 3.6 TB lie between the two axes.
    let wide =
        resize(ones(&[1, 1_000_000]), &[900_000.0, 1e-5], Interpolation::Linear, &[900_000, 10]);
    assert!(wide.is_err());
    let upsample = |shape: &[usize], scales: &[u64], output: &[i64]| {
        run(Operator::NearestUpsample(scales.to_vec()), ones(shape), &[], f32s(output))
    };
    assert!(upsample(&[1, 2], &[2, 2], &[2, 4]).is_ok());
    assert!(upsample(&[1, 0], &[2, 2], &[2, 0]).is_err());
    assert!(upsample(&[], &[], &[]).is_err());
}

#[test]
fn grids_match_their_images() {
    let sample = |interpolation, padding, x: &[usize], grid: &[usize], output: &[i64]| {
        let align_corners = false;
        let operator = Operator::GridSample(GridSample { interpolation, padding, align_corners });
        run(operator, ones(x), &[ones(grid)], f32s(output))
    };
    use GridInterpolation::{Bicubic, Bilinear};
    let volume = (&[1, 1, 2, 2, 2][..], &[1, 1, 1, 1, 3][..], &[1, 1, 1, 1, 1][..]);
    for padding in [GridPadding::Zeros, GridPadding::Border, GridPadding::Reflection] {
        assert!(sample(Bicubic, padding, volume.0, volume.1, volume.2).is_err());
        assert!(sample(Bilinear, padding, volume.0, volume.1, volume.2).is_ok());
        let many = [1; 12];
        let mut grid = many;
        grid[11] = 10;
        assert!(sample(Bilinear, padding, &many, &grid, &[1; 12]).is_err());
        let empty = sample(Bilinear, padding, &[1, 1, 0, 2], &[1, 1, 1, 2], &[1, 1, 1, 1]);
        assert!(empty.is_err(), "{padding:?}");
    }
}

#[test]
fn fourier_transforms_of_no_elements_are_rejected() {
    let fft = Operator::Fft(Fft { axis: 0, inverse: false });
    assert!(run(fft, ones(&[0, 2]), &[], f32s(&[0, 2])).is_err());
    let stft = |samples: usize, frames: i64| {
        let operator = Operator::Stft(Stft { axis: 0, frame: 4, stride: 2, window: None });
        run(operator, ones(&[samples, 2]), &[], f32s(&[frames, 4, 2]))
    };
    assert!(stft(6, 2).is_ok());
    assert!(stft(3, 0).is_err());
}

#[test]
fn sizes_that_do_not_broadcast_are_rejected() {
    let binary = |a: &[usize], b: &[usize], output: &[i64]| {
        run(Operator::Binary(Binary::Add), ones(a), &[ones(b)], f32s(output))
    };
    assert!(binary(&[2, 3], &[2, 1], &[2, 3]).is_ok());
    assert!(binary(&[2, 3], &[2, 2], &[2, 3]).is_err());
    assert!(binary(&[2, 3], &[3], &[2, 3]).is_err());
    let select = |a: &[usize], output: &[i64]| {
        let condition = tensor(&[1, 1], &[true]);
        run(Operator::Select, condition, &[ones(a), ones(&[1, 3])], f32s(output))
    };
    assert!(select(&[2, 3], &[2, 3]).is_ok());
    assert!(select(&[2, 2], &[2, 2]).is_err());
}

#[test]
fn empty_tensors_with_huge_sizes_are_rejected() {
    // tract multiplies the sizes and panics if the product overflows.
    let size = 1i64 << 40;
    let mut sketch = Sketch::default();
    let x = sketch.input(DType::F32, &[0]);
    let stated = || f32s(&[size, size, 0]);
    let shape = vec![Dim::Value(size), Dim::Value(size), Dim::Value(0)];
    let wide = sketch.node(Operator::Broadcast(shape), &[x], stated());
    let y = sketch.node(Operator::Unary(Unary::Abs), &[wide], stated());
    sketch.output(y);
    let none = Tensor::new(&[0], Vec::<f32>::new()).unwrap();
    assert!(matches!(sketch.run(&[none]).unwrap_err(), Error::TooLarge { .. }));
}

#[test]
fn remainders_divide_the_left_operand() {
    let remainder = |a: Tensor, b: Tensor, dtype| {
        let outputs = vec![fact(dtype, &[3])];
        run(Operator::Binary(Binary::Remainder), a, &[b], outputs).unwrap()
    };
    let y = remainder(tensor(&[1], &[7f32]), tensor(&[3], &[2f32, 4.0, 5.0]), DType::F32);
    assert_eq!(y, [tensor(&[3], &[1f32, 3.0, 2.0])]);
    let y = remainder(tensor(&[1], &[7i32]), tensor(&[3], &[2i32, 4, 5]), DType::I32);
    assert_eq!(y, [tensor(&[3], &[1i32, 3, 2])]);
}
