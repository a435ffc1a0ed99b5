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

/// Returns the stored activation for an integer.
fn stored(value: i8, activation_offset: i32) -> u8 {
    (i32::from(value) + activation_offset) as u8
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

    fn size(&self) -> [usize; 2] {
        [self.image.height, self.image.width]
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
            arena[at] = stored(value, activation_offset);
        }
    }

    fn read(&self, arena: &[u8], activation_offset: i32) -> Vec<i8> {
        self.positions().map(|at| (i32::from(arena[at]) - activation_offset) as i8).collect()
    }
}

/// The images of a convolution in one arena.
struct Places {
    output: Place,
    residual: Place,
    /// The last image in the arena, so that reads past its slack access the guard page.
    input: Place,
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

    /// Returns the weights of every output channel.
    fn rows(&self) -> Vec<Vec<i8>> {
        (0..self.channels[1]).map(|channel| self.row(channel)).collect()
    }

    /// Returns the bias and the scale of every output channel.
    fn bias_and_scales(&self) -> (Vec<i32>, Vec<f32>) {
        (cycle(&self.bias, self.channels[1]), cycle(&self.scales, self.channels[1]))
    }

    /// Returns the output of the reference implementation.
    fn expected(&self) -> Vec<i8> {
        let [input_shape, output_shape] = self.images();
        let rows = self.rows();
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

    /// Chooses the places of the images in an arena.
    fn places(&self) -> Places {
        let [input, output] = self.images();
        let window = self.geometry.window;
        let beyond = |axis: usize, input: usize, output: usize| {
            let last = (output - 1) * window.stride[axis];
            let end = last + (window.kernel[axis] - 1) * window.dilation[axis] + 1;
            end.saturating_sub(input + window.pad[axis])
        };
        let after = [beyond(0, input.height, output.height), beyond(1, input.width, output.width)];
        let to = Place::new(64, output, [1, 2], [1, 0], self.gaps[1]);
        let added = Place::new(to.end, output, [0, 1], [0, 0], self.gaps[0]);
        let from = Place::new(added.end, input, window.pad, after, self.gaps[0]);
        Places { output: to, residual: added, input: from }
    }

    fn epilogue(&self, packing: Packing) -> Epilogue {
        let stored = |value: i8| stored(value, packing.activation_offset());
        Epilogue {
            zero_point: stored(self.zero_points[1]),
            low: stored(self.clamp.low),
            high: stored(self.clamp.high),
        }
    }

    /// Packs a depthwise convolution. Returns the operation and its weights.
    fn depthwise(
        &self,
        packing: Packing,
        narrow: bool,
        places: &Places,
    ) -> (strided::Depthwise, Guarded) {
        let window = self.geometry.window;
        let [_, width] = window.kernel;
        let shape = depthwise::Depthwise { kernel: window.kernel, channels: self.groups };
        let rows = self.rows();
        let weight = |channel: usize, y: usize, x: usize| rows[channel][y * width + x];
        let (bias, scales) = self.bias_and_scales();
        let terms = Terms { zero_point: self.zero_points[0], bias: &bias, scales: &scales };
        let mut packed = Guarded::new(shape.bytes(packing).unwrap());
        shape.pack(packing, &terms, weight, packed.bytes());
        let plan = strided::DepthwisePlan {
            input: places.input.window(window.pad),
            output: places.output.view,
            size: places.output.size(),
            stride: window.stride,
            dilation: window.dilation,
            shape,
            weights: 0,
            epilogue: self.epilogue(packing),
            narrow,
        };
        (strided::Depthwise::new(plan, packing).unwrap(), packed)
    }

    /// Packs any other convolution. Returns the operation and its weights.
    fn dense(&self, packing: Packing, narrow: bool, places: &Places) -> (strided::Conv, Guarded) {
        let window = self.geometry.window;
        let [height, width] = window.kernel;
        let inputs = self.channels[0] / self.groups;
        let joined = self.groups == 1 && window.dilation[1] == 1 && self.gaps[0] == 0;
        let runs = [height, if joined { 1 } else { width }];
        let run = if joined { width * inputs } else { inputs };
        let shape = Dense {
            groups: self.groups,
            outputs: self.channels[1] / self.groups,
            runs: runs[0] * runs[1],
            run,
        };
        let weights: Vec<u8> = self.rows().iter().flatten().map(|&weight| weight as u8).collect();
        let (bias, scales) = self.bias_and_scales();
        let terms = Terms { zero_point: self.zero_points[0], bias: &bias, scales: &scales };
        let mut packed = Guarded::new(shape.bytes(packing).unwrap());
        shape.pack(packing, &terms, (&weights, shape.runs * run), packed.bytes());
        let view = places.input.window(window.pad);
        let plan = strided::ConvPlan {
            input: View {
                offset: view.offset,
                row: window.stride[0] * view.row,
                pixel: window.stride[1] * view.pixel,
            },
            output: places.output.view,
            size: places.output.size(),
            runs,
            run_step: [window.dilation[0] * view.row, window.dilation[1] * view.pixel],
            group_step: inputs,
            shape,
            weights: 0,
            residual: self.residual.as_ref().map(|(_, zero_point, scale)| strided::Residual {
                view: places.residual.view,
                zero_point: stored(*zero_point, packing.activation_offset()),
                scale: *scale,
            }),
            epilogue: self.epilogue(packing),
            narrow,
        };
        (strided::Conv::new(plan, packing).unwrap(), packed)
    }

    /// Runs the convolution on packed weights.
    fn run(&self, kernels: &Kernels, narrow: bool) -> Vec<i8> {
        let packing = kernels.packing();
        let activation_offset = packing.activation_offset();
        let [input, output] = self.images();
        let places = self.places();
        let mut memory = Guarded::new(places.input.end);
        let arena = memory.bytes();
        arena.fill(stored(self.zero_points[0], activation_offset));
        places.input.write(arena, &cycle(&self.input, input.elements()), activation_offset);
        if let Some((values, ..)) = &self.residual {
            places.residual.write(arena, &cycle(values, output.elements()), activation_offset);
        }
        let before = arena.to_vec();
        let parallel: &dyn Parallel =
            if self.threads == 1 { &Alone } else { &Backwards(self.threads) };
        if self.is_depthwise() && self.residual.is_none() && self.geometry.window.kernel[0] <= 8 {
            let (operation, mut packed) = self.depthwise(packing, narrow, &places);
            operation.run(kernels, arena, packed.bytes(), parallel);
        } else {
            let (operation, mut packed) = self.dense(packing, narrow, &places);
            operation.run(kernels, arena, packed.bytes(), parallel);
        }
        let result = places.output.read(arena, activation_offset);
        // Only the output may change.
        for at in places.output.positions() {
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
