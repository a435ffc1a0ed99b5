//! The reference kernels match naive implementations for any shape.

mod common;

use common::{Geometry, activation, clamp, cycle, geometry, positions, weight};
#[cfg(feature = "sparse")]
use hardtack_kernels::sparse::Sparse;
use hardtack_kernels::{
    AveragePool, Clamp, Conv, Image, MaxPool, ReferenceKernels, Requantize, Residual, Resize,
    Sample, Softmax, Window, round_significant, softmax_table,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// A naive convolution. Each output channel is a row of `weights`; those of `conv` are not used.
fn naive_conv(g: &Geometry, conv: &Conv<'_>, weights: &[i8]) -> Vec<i8> {
    let (inputs, outputs) = (conv.input_shape.channels, conv.output_shape.channels);
    let depth = inputs / conv.groups;
    let requantize = Requantize::new(conv.output_zero_point, conv.clamp);
    let mut output = Vec::new();
    for row in 0..g.output.0 {
        for column in 0..g.output.1 {
            let positions = positions(g, row, column);
            for channel in 0..outputs {
                let first = channel / (outputs / conv.groups) * depth;
                let mut sum = conv.bias[channel];
                for (tap, position) in positions.iter().enumerate() {
                    let Some((y, x)) = position else { continue };
                    for k in 0..depth {
                        let value = conv.input[(y * g.input.1 + x) * inputs + first + k];
                        let weight = weights[(channel * positions.len() + tap) * depth + k];
                        sum += (i32::from(value) - i32::from(conv.zero_point)) * i32::from(weight);
                    }
                }
                let mut value = sum as f32 * conv.scales[channel];
                if let Some(residual) = &conv.residual {
                    let q = i32::from(residual.values[output.len()]);
                    value += (q - i32::from(residual.zero_point)) as f32 * residual.scale;
                }
                output.push(requantize.apply(value));
            }
        }
    }
    output
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn conv_matches_the_naive_implementation(
        g in geometry(),
        groups in 1usize..5,
        per_group in (1usize..40, 1usize..40),
        depthwise in any::<bool>(),
        values in vec(activation(), 1..300),
        some_weights in vec(weight(), 1..300),
        some_bias in vec(-100_000..100_000i32, 1..20),
        scale in 1e-6..0.01f32,
        zero_points in any::<(i8, i8, i8)>(),
        with_residual in any::<bool>(),
        clamp in clamp(),
    ) {
        let (inputs, outputs) = if depthwise {
            (groups * per_group.0, groups * per_group.0)
        } else {
            (groups * per_group.0, groups * per_group.1)
        };
        let groups = if depthwise { inputs } else { groups };
        check_conv(&g, [inputs, outputs, groups], &values, &some_weights, &some_bias, scale,
            zero_points, with_residual, clamp)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    /// Windows and channels that exceed the block sizes of the kernels.
    #[test]
    fn deep_conv_matches_the_naive_implementation(
        kernel in 1usize..4,
        size in 1usize..5,
        channels in (100usize..300, 1usize..300),
        values in vec(activation(), 1..3000),
        some_weights in vec(weight(), 1..3000),
        zero_points in any::<(i8, i8, i8)>(),
        depthwise in any::<bool>(),
    ) {
        let window = Window {
            kernel: [kernel; 2], stride: [1; 2], dilation: [1; 2], pad: [kernel / 2; 2],
        };
        let size_out = size + kernel / 2 * 2 + 1 - kernel;
        let g = Geometry { window, input: (size, size), output: (size_out, size_out) };
        let dims = if depthwise { [channels.0; 3] } else { [channels.0, channels.1, 1] };
        check_conv(&g, dims, &values, &some_weights, &[5, -7], 1e-4, zero_points, true, Clamp::FULL)?;
    }
}

#[expect(clippy::too_many_arguments)]
fn check_conv(
    g: &Geometry,
    [inputs, outputs, groups]: [usize; 3],
    values: &[i8],
    some_weights: &[i8],
    some_bias: &[i32],
    scale: f32,
    zero_points: (i8, i8, i8),
    with_residual: bool,
    clamp: Clamp,
) -> Result<(), TestCaseError> {
    let depth = g.window.kernel[0] * g.window.kernel[1] * inputs / groups;
    let input = cycle(values, g.input.0 * g.input.1 * inputs);
    let weights = cycle(some_weights, outputs * depth);
    let bias = cycle(some_bias, outputs);
    let scales: Vec<f32> =
        (0..outputs).map(|c| round_significant(scale * (1.0 + c as f32 * 0.37), 22)).collect();
    let residual_values = cycle(values, g.output.0 * g.output.1 * outputs);
    let residual = with_residual.then(|| Residual {
        values: &residual_values,
        zero_point: zero_points.1,
        scale: round_significant(0.77, 15),
    });
    let mut conv = Conv {
        input: &input,
        input_shape: Image { height: g.input.0, width: g.input.1, channels: inputs },
        zero_point: zero_points.0,
        output_shape: Image { height: g.output.0, width: g.output.1, channels: outputs },
        window: g.window,
        groups,
        weights: &[],
        bias: &bias,
        scales: &scales,
        residual,
        output_zero_point: zero_points.2,
        clamp,
    };
    let expected = naive_conv(g, &conv, &weights);
    let packed = in_reference_layout(&conv, &weights);
    conv.weights = &packed;
    let mut output = vec![55; expected.len()];
    (ReferenceKernels::SCALAR.conv)(&conv, &mut output);
    let mut native = vec![0; output.len()];
    (ReferenceKernels::NATIVE.conv)(&conv, &mut native);
    assert_eq!(native, output, "native kernels must match the reference");
    prop_assert_eq!(&output, &expected);

    #[cfg(feature = "sparse")]
    if !conv.is_depthwise() {
        // The original weights, and with most of them set to 0.
        check_sparse(&conv, &weights)?;
        let fewer: Vec<i8> =
            weights.iter().map(|&weight| if weight & 3 == 1 { weight } else { 0 }).collect();
        check_sparse(&conv, &fewer)?;
    }
    Ok(())
}

/// Orders the weights of a convolution as the reference kernels require. Each output channel is a
/// row of `weights`.
fn in_reference_layout(conv: &Conv<'_>, weights: &[i8]) -> Vec<i8> {
    let depth = conv.depth();
    if conv.is_depthwise() {
        (0..depth).flat_map(|tap| weights.chunks(depth).map(move |row| row[tap])).collect()
    } else {
        let padding = std::iter::repeat_n(0, depth.next_multiple_of(4) - depth);
        weights.chunks(depth).flat_map(|row| row.iter().copied().chain(padding.clone())).collect()
    }
}

/// Checks that the sparse kernel matches the dense one. Each output channel is a row of `weights`.
#[cfg(feature = "sparse")]
fn check_sparse(conv: &Conv<'_>, weights: &[i8]) -> Result<(), TestCaseError> {
    let dense = in_reference_layout(conv, weights);
    let mut expected = vec![55; conv.output_shape.elements()];
    (ReferenceKernels::SCALAR.conv)(&Conv { weights: &dense, ..*conv }, &mut expected);
    let mut form = Vec::new();
    Sparse::encode(weights.chunks(conv.depth()), conv.depth(), |byte| form.push(byte));
    let mut given = vec![55; expected.len()];
    (ReferenceKernels::NATIVE.sparse)(&Conv { weights: &form, ..*conv }, &mut given);
    prop_assert_eq!(&given, &expected);
    Ok(())
}

proptest! {
    #[test]
    fn pools_match_naive_implementations(
        g in geometry(),
        channels in 1usize..100,
        values in vec(activation(), 1..300),
        zero_points in any::<(i8, i8)>(),
        scale in 0.001..2.0f32,
        count_include_pad in any::<bool>(),
        clamp in clamp(),
    ) {
        let scale = round_significant(scale, 22);
        let input = cycle(&values, g.input.0 * g.input.1 * channels);
        let requantize = Requantize::new(zero_points.1, clamp);
        let (mut greatest, mut mean) = (Vec::new(), Vec::new());
        for row in 0..g.output.0 {
            for column in 0..g.output.1 {
                let inside: Vec<_> = positions(&g, row, column).into_iter().flatten().collect();
                for channel in 0..channels {
                    let values = inside
                        .iter()
                        .map(|(y, x)| i32::from(input[(y * g.input.1 + x) * channels + channel]));
                    let most = values.clone().max().unwrap_or(-128);
                    greatest.push(most.clamp(clamp.low.into(), clamp.high.into()) as i8);
                    let sum: i32 = values.map(|value| value - i32::from(zero_points.0)).sum();
                    let scale = if count_include_pad {
                        scale
                    } else {
                        round_significant(scale / inside.len().max(1) as f32, 22)
                    };
                    mean.push(requantize.apply(sum as f32 * scale));
                }
            }
        }

        let input_shape = Image { height: g.input.0, width: g.input.1, channels };
        let output_shape = Image { height: g.output.0, width: g.output.1, channels };
        let window = g.window;
        let max_pool = MaxPool { input: &input, input_shape, output_shape, window, clamp };
        let average_pool = AveragePool {
            input: &input,
            input_shape,
            zero_point: zero_points.0,
            output_shape,
            window,
            scale,
            count_include_pad,
            output_zero_point: zero_points.1,
            clamp,
        };
        let mut output = vec![55; greatest.len()];
        (ReferenceKernels::SCALAR.max_pool)(&max_pool, &mut output);
        prop_assert_eq!(&output, &greatest);
        (ReferenceKernels::SCALAR.average_pool)(&average_pool, &mut output);
        prop_assert_eq!(&output, &mean);
    }

    #[test]
    fn softmax_is_within_one_step_of_float_softmax(
        input in vec(activation(), 1..60),
        scale in 0.0001..2.0f32,
    ) {
        let table = softmax_table(scale);
        let softmax = Softmax { input: &input, channels: input.len(), table: &table };
        let mut output = vec![55; input.len()];
        (ReferenceKernels::SCALAR.softmax)(&softmax, &mut output);
        let exponentials: Vec<f64> =
            input.iter().map(|&x| (f64::from(x) * f64::from(scale)).exp()).collect();
        let sum: f64 = exponentials.iter().sum();
        for (y, e) in output.iter().zip(exponentials) {
            let exact = (e / sum * 256.0).min(255.0) - 128.0;
            prop_assert!((f64::from(*y) - exact).abs() <= 0.501, "{y} {exact}");
        }
    }

    #[test]
    fn resize_is_the_weighted_mean(
        size in (1usize..6, 1usize..6),
        channels in 1usize..20,
        values in vec(activation(), 1..300),
        rows in vec((0u16..6, 0u16..6, 0i32..=2048), 1..8),
        columns in vec((0u16..6, 0u16..6, 0i32..=2048), 1..8),
    ) {
        let input = cycle(&values, size.0 * size.1 * channels);
        let sample = |size: usize| move |&(a, b, weight): &(u16, u16, i32)| Sample {
            first: a % size as u16, second: b % size as u16, weight,
        };
        let rows: Vec<Sample> = rows.iter().map(sample(size.0)).collect();
        let columns: Vec<Sample> = columns.iter().map(sample(size.1)).collect();
        let mut expected = Vec::new();
        for row in &rows {
            for column in &columns {
                for channel in 0..channels {
                    let mut sum = 0;
                    for (y, wy) in [(row.first, 2048 - row.weight), (row.second, row.weight)] {
                        for (x, wx) in
                            [(column.first, 2048 - column.weight), (column.second, column.weight)]
                        {
                            let at = (usize::from(y) * size.1 + usize::from(x)) * channels;
                            sum += i64::from(input[at + channel]) * i64::from(wy * wx);
                        }
                    }
                    expected.push((sum as f64 / 4_194_304.0 + 0.5).floor() as i8);
                }
            }
        }
        let bytes = |samples: &[Sample]| -> Vec<[u8; 8]> {
            samples.iter().map(|sample| sample.to_bytes()).collect()
        };
        let (rows, columns) = (bytes(&rows), bytes(&columns));
        let input_shape = Image { height: size.0, width: size.1, channels };
        let resize = Resize { input: &input, input_shape, rows: &rows, columns: &columns };
        let mut output = vec![55; expected.len()];
        (ReferenceKernels::SCALAR.resize)(&resize, &mut output);
        prop_assert_eq!(&output, &expected);
    }
}
