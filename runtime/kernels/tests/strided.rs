//! The kernels of every instruction set of this processor match the reference implementation for
//! any window, strides and number of threads, and for extreme values.

mod common;

use common::guarded::Guarded;
use common::{Geometry, activation, bias, clamp, cycle, geometry, scale, term_scale, weight};
use hardtack_kernels::packed::dense::Dense;
use hardtack_kernels::packed::{Packing, Terms, TermsMut, depthwise};
use hardtack_kernels::strided::{self, Alone, Epilogue, Kernels, Parallel, SLACK, View};
use hardtack_kernels::{Clamp, Conv, Image, Isa, Residual, prove_accumulator};
use proptest::collection::vec;
use proptest::prelude::*;

fn tables() -> Vec<&'static Kernels> {
    Isa::ALL.iter().filter_map(|&isa| Kernels::for_isa(isa)).collect()
}

/// With `HARDTACK_REQUIRE_ISA=avx512vnni,avx2`, fails if this processor lacks one of these sets.
#[test]
fn every_required_instruction_set_is_tested() {
    let tried: Vec<&str> = tables().iter().map(|kernels| kernels.isa().name()).collect();
    println!("instruction sets: {tried:?}");
    let required = std::env::var("HARDTACK_REQUIRE_ISA").unwrap_or_default();
    for name in required.split(',').filter(|&name| !name.is_empty() && name != "scalar") {
        assert!(tried.contains(&name), "this processor does not support {name}");
    }
}

/// Runs parts one after another, the last one first.
struct Backwards(usize);

// SAFETY: `run` calls `work` exactly once for each index below `parts`, and returns after the last
// call.
unsafe impl Parallel for Backwards {
    fn threads(&self) -> usize {
        self.0
    }

    fn run(&self, parts: usize, work: &(dyn Fn(usize) + Sync)) {
        (0..parts).rev().for_each(work);
    }
}

/// An image in an arena, with a halo and gaps between its rows and pixels.
struct Place {
    image: Image,
    /// The rows of the halo above, and its columns to the left.
    before: [usize; 2],
    view: View,
    end: usize,
}

impl Place {
    fn new(start: usize, image: Image, before: [usize; 2], after: [usize; 2], gap: usize) -> Self {
        let pixel = image.channels + gap;
        let row = (before[1] + image.width + after[1]) * pixel + gap;
        let view = View { offset: start + before[0] * row + before[1] * pixel, row, pixel };
        let end = start + (before[0] + image.height + after[0]) * row + SLACK;
        Self { image, before, view, end }
    }

    /// Returns a view that starts at the first element of a padded window.
    fn window(&self, pad: [usize; 2]) -> View {
        let View { offset, row, pixel } = self.view;
        assert!(pad[0] <= self.before[0] && pad[1] <= self.before[1]);
        View { offset: offset - pad[0] * row - pad[1] * pixel, ..self.view }
    }

    fn positions(&self) -> impl Iterator<Item = usize> + '_ {
        let Image { height, width, channels } = self.image;
        (0..height).flat_map(move |y| {
            (0..width).flat_map(move |x| {
                let at = self.view.offset + y * self.view.row + x * self.view.pixel;
                at..at + channels
            })
        })
    }

    fn write(&self, arena: &mut [u8], values: &[i8], activation_offset: i32) {
        for (at, &value) in self.positions().zip(values) {
            arena[at] = (i32::from(value) + activation_offset) as u8;
        }
    }

    fn read(&self, arena: &[u8], activation_offset: i32) -> Vec<i8> {
        self.positions().map(|at| (i32::from(arena[at]) - activation_offset) as i8).collect()
    }
}

/// A random convolution.
#[derive(Clone, Debug)]
struct Case {
    geometry: Geometry,
    groups: usize,
    channels: [usize; 2],
    input: Vec<i8>,
    weights: Vec<i8>,
    bias: Vec<i32>,
    scales: Vec<f32>,
    zero_points: [i8; 2],
    residual: Option<(Vec<i8>, i8, f32)>,
    clamp: Clamp,
    gaps: [usize; 2],
    threads: usize,
}

fn case(depthwise: bool) -> impl Strategy<Value = Case> {
    let channels = if depthwise {
        prop_oneof![1usize..20, 30usize..70, Just(8), Just(16), Just(32), Just(64), Just(128)]
            .prop_map(|channels| (channels, 1, 1))
            .boxed()
    } else {
        (
            1usize..4,
            prop_oneof![1usize..9, Just(16), Just(35)],
            prop_oneof![1usize..9, 15usize..150],
        )
            .boxed()
    };
    (geometry(), channels).prop_flat_map(move |(geometry, (groups, inputs, outputs))| {
        let channels = [groups * inputs, groups * outputs];
        (
            Just((geometry, groups, channels)),
            (vec(activation(), 64), vec(weight(), 97), vec(bias(), 31), vec(scale(), 29)),
            any::<[i8; 2]>(),
            proptest::option::of((vec(activation(), 71), any::<i8>(), term_scale())),
            clamp(),
            (0usize..3, 0usize..70, 1usize..4),
        )
            .prop_map(|(shape, values, zero_points, residual, clamp, rest)| {
                let (geometry, groups, channels) = shape;
                let (input, weights, bias, scales) = values;
                Case {
                    geometry,
                    groups,
                    channels,
                    input,
                    weights,
                    bias,
                    scales,
                    zero_points,
                    residual,
                    clamp,
                    gaps: [rest.0, rest.1],
                    threads: rest.2,
                }
            })
    })
}

impl Case {
    fn images(&self) -> [Image; 2] {
        let g = &self.geometry;
        [(g.input, self.channels[0]), (g.output, self.channels[1])]
            .map(|((height, width), channels)| Image { height, width, channels })
    }

    fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.channels == [self.groups; 2]
    }

    fn depth(&self) -> usize {
        let [height, width] = self.geometry.window.kernel;
        height * width * (self.channels[0] / self.groups)
    }

    /// Returns the weights of an output channel: kernel row, kernel column, input channel.
    fn row(&self, channel: usize) -> Vec<i8> {
        let start = channel * 7;
        cycle(&self.weights, start + self.depth()).split_off(start)
    }

    /// Returns the output of the reference implementation.
    fn expected(&self) -> Vec<i8> {
        let [input_shape, output_shape] = self.images();
        let rows: Vec<Vec<i8>> = (0..self.channels[1]).map(|channel| self.row(channel)).collect();
        let weights: Vec<i8> = if self.is_depthwise() {
            (0..self.depth()).flat_map(|tap| rows.iter().map(move |row| row[tap])).collect()
        } else {
            let padded = self.depth().next_multiple_of(4);
            rows.iter().flat_map(|row| row.iter().copied().chain([0; 3]).take(padded)).collect()
        };
        let residual =
            self.residual.as_ref().map(|(v, z, s)| (cycle(v, output_shape.elements()), *z, *s));
        let conv = Conv {
            input: &cycle(&self.input, input_shape.elements()),
            input_shape,
            zero_point: self.zero_points[0],
            output_shape,
            window: self.geometry.window,
            groups: self.groups,
            weights: &weights,
            bias: &cycle(&self.bias, self.channels[1]),
            scales: &cycle(&self.scales, self.channels[1]),
            residual: residual.as_ref().map(|(values, zero_point, scale)| Residual {
                values,
                zero_point: *zero_point,
                scale: *scale,
            }),
            output_zero_point: self.zero_points[1],
            clamp: self.clamp,
        };
        let mut output = vec![0; output_shape.elements()];
        (hardtack_kernels::ReferenceKernels::SCALAR.conv)(&conv, &mut output);
        output
    }

    /// Returns whether the layer satisfies the conditions of `narrow`.
    fn is_narrow(&self) -> bool {
        let bias = cycle(&self.bias, self.channels[1]);
        let small = |channel: usize| {
            prove_accumulator(&self.row(channel), bias[channel], self.zero_points[0])
                .is_ok_and(|bound| bound.magnitude() < 1 << 22)
        };
        self.scales.iter().all(|&scale| scale < 256.0) && (0..self.channels[1]).all(small)
    }

    /// Runs the convolution on packed weights.
    fn run(&self, kernels: &Kernels, narrow: bool) -> Vec<i8> {
        let [input, output] = self.images();
        let window = self.geometry.window;
        let activation_offset = kernels.packing().activation_offset();
        let stored = |value: i8| (i32::from(value) + activation_offset) as u8;
        let beyond = |axis: usize, input: usize, output: usize| {
            let last = (output - 1) * window.stride[axis];
            let end = last + (window.kernel[axis] - 1) * window.dilation[axis] + 1;
            end.saturating_sub(input + window.pad[axis])
        };
        let after = [beyond(0, input.height, output.height), beyond(1, input.width, output.width)];
        // The input is last in the arena, so that reads past its slack access the guard page.
        let to = Place::new(64, output, [1, 2], [1, 0], self.gaps[1]);
        let added = Place::new(to.end, output, [0, 1], [0, 0], self.gaps[0]);
        let from = Place::new(added.end, input, window.pad, after, self.gaps[0]);
        let mut memory = Guarded::new(from.end);
        let arena = memory.bytes();
        arena.fill(stored(self.zero_points[0]));
        from.write(arena, &cycle(&self.input, input.elements()), activation_offset);
        if let Some((values, ..)) = &self.residual {
            added.write(arena, &cycle(values, output.elements()), activation_offset);
        }
        let before = arena.to_vec();
        let rows: Vec<Vec<i8>> = (0..self.channels[1]).map(|channel| self.row(channel)).collect();
        let (bias, scales) =
            (cycle(&self.bias, self.channels[1]), cycle(&self.scales, self.channels[1]));
        let terms = Terms { zero_point: self.zero_points[0], bias: &bias, scales: &scales };
        let epilogue = Epilogue {
            zero_point: stored(self.zero_points[1]),
            low: stored(self.clamp.low),
            high: stored(self.clamp.high),
        };
        let size = [output.height, output.width];
        let [_, width] = window.kernel;
        let inputs = input.channels / self.groups;
        let parallel: &dyn Parallel =
            if self.threads == 1 { &Alone } else { &Backwards(self.threads) };
        if self.is_depthwise() && self.residual.is_none() && window.kernel[0] <= 8 {
            let shape = depthwise::Depthwise { kernel: window.kernel, channels: self.groups };
            let bytes = shape.bytes(kernels.packing()).unwrap();
            let mut packed = Guarded::new(bytes);
            let packed = packed.bytes();
            let weight = |channel: usize, y: usize, x: usize| rows[channel][y * width + x];
            shape.pack(kernels.packing(), &terms, weight, packed);
            let plan = strided::DepthwisePlan {
                input: from.window(window.pad),
                output: to.view,
                size,
                stride: window.stride,
                dilation: window.dilation,
                shape,
                weights: 0,
                epilogue,
                narrow,
            };
            let operation = strided::Depthwise::new(plan, kernels.packing()).unwrap();
            operation.run(kernels, arena, packed, parallel);
        } else {
            let joined = self.groups == 1 && window.dilation[1] == 1 && self.gaps[0] == 0;
            let runs = [window.kernel[0], if joined { 1 } else { width }];
            let run = if joined { width * inputs } else { inputs };
            let shape = Dense {
                groups: self.groups,
                outputs: output.channels / self.groups,
                runs: runs[0] * runs[1],
                run,
            };
            let bytes = shape.bytes(kernels.packing()).unwrap();
            let mut packed = Guarded::new(bytes);
            let packed = packed.bytes();
            let weights: Vec<u8> = rows.iter().flatten().map(|&weight| weight as u8).collect();
            let stride = shape.runs * run;
            shape.pack(kernels.packing(), &terms, (&weights, stride), packed);
            let view = from.window(window.pad);
            let plan = strided::ConvPlan {
                input: View {
                    offset: view.offset,
                    row: window.stride[0] * view.row,
                    pixel: window.stride[1] * view.pixel,
                },
                output: to.view,
                size,
                runs,
                run_step: [window.dilation[0] * view.row, window.dilation[1] * view.pixel],
                group_step: inputs,
                shape,
                weights: 0,
                residual: self.residual.as_ref().map(|(_, zero_point, scale)| strided::Residual {
                    view: added.view,
                    zero_point: stored(*zero_point),
                    scale: *scale,
                }),
                epilogue,
                narrow,
            };
            let operation = strided::Conv::new(plan, kernels.packing()).unwrap();
            operation.run(kernels, arena, packed, parallel);
        }
        let result = to.read(arena, activation_offset);
        // Only the output may change.
        for at in to.positions() {
            arena[at] = before[at];
        }
        assert!(arena == before, "bytes outside the output changed");
        result
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn convolutions_match_the_reference(case in case(false)) {
        let expected = case.expected();
        for kernels in tables() {
            prop_assert_eq!(&case.run(kernels, false), &expected, "{}", kernels.isa());
            if case.is_narrow() {
                prop_assert_eq!(&case.run(kernels, true), &expected, "{} narrow", kernels.isa());
            }
        }
    }

    #[test]
    fn depthwise_convolutions_match_the_reference(case in case(true)) {
        let case = Case { residual: None, ..case };
        let expected = case.expected();
        for kernels in tables() {
            prop_assert_eq!(&case.run(kernels, false), &expected, "{}", kernels.isa());
            if case.is_narrow() {
                prop_assert_eq!(&case.run(kernels, true), &expected, "{} narrow", kernels.isa());
            }
        }
    }

    #[test]
    fn unpacking_inverts_packing(
        (groups, outputs, runs, run) in (1usize..4, 1usize..150, 1usize..5, 1usize..20),
        (height, width, channels) in (1usize..9, 1usize..8, 1usize..150),
        values in vec(weight(), 101),
        biases in vec(any::<i32>(), 23),
        scales in vec(scale(), 19),
        zero_point in any::<i8>(),
    ) {
        let value = |a: usize, b: usize, c: usize| values[(a * 31 + b * 7 + c) % values.len()];
        for &packing in Packing::ALL {
            let dense = Dense { groups, outputs, runs, run };
            let count = groups * outputs;
            let (bias, scales) = (cycle(&biases, count), cycle(&scales, count));
            let mut packed = vec![1; dense.bytes(packing).unwrap()];
            let terms = Terms { zero_point, bias: &bias, scales: &scales };
            let stride = runs * run + 3;
            let weights: Vec<u8> = (0..count * stride).map(|i| value(i, 0, 0) as u8).collect();
            dense.pack(packing, &terms, (&weights, stride), &mut packed);
            let (mut bias_back, mut scales_back) = (vec![0; count], vec![0.0; count]);
            let mut back =
                TermsMut { zero_point, bias: &mut bias_back, scales: &mut scales_back };
            let mut weights_back = weights.clone();
            for channel in weights_back.chunks_mut(stride) {
                channel[..runs * run].fill(99);
            }
            dense.unpack(packing, &packed, &mut back, (&mut weights_back, stride));
            prop_assert_eq!(weights_back, weights);
            prop_assert_eq!((&bias_back, &scales_back), (&bias, &scales));

            let shape = depthwise::Depthwise { kernel: [height, width], channels };
            let (bias, scales) = (cycle(&biases, channels), cycle(&scales, channels));
            let mut packed = vec![1; shape.bytes(packing).unwrap()];
            let terms = Terms { zero_point, bias: &bias, scales: &scales };
            shape.pack(packing, &terms, value, &mut packed);
            let (mut bias_back, mut scales_back) = (vec![0; channels], vec![0.0; channels]);
            let mut back =
                TermsMut { zero_point, bias: &mut bias_back, scales: &mut scales_back };
            let mut seen = 0;
            shape.unpack(packing, &packed, &mut back, |a, b, c, weight| {
                assert_eq!(weight, value(a, b, c));
                seen += 1;
            });
            prop_assert_eq!(seen, channels * height * width);
            prop_assert_eq!((&bias_back, &scales_back), (&bias, &scales));
        }
    }
}
