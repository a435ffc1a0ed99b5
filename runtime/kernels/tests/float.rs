//! Every kernel for f32 against sums in the stated order, bit for bit, on each instruction set of
//! this processor.
// Other processors have no fused multiply-add that is worth using.
#![cfg(all(feature = "std", any(target_arch = "x86_64", target_arch = "aarch64")))]

use hardtack_kernels::float::{
    Binary, Clamp, Conv, ConvPlan, DIMS, DenseShape, Depthwise, DepthwisePlan, DepthwiseShape,
    Function, Kernels, Map, Operand, Pool as Pooling, PoolPlan, Reduction, Residual, Strided,
    Unary, clamp,
};
use hardtack_kernels::strided::{Alone, Parallel, Pool, View};
use hardtack_kernels::{Image, Isa, Window};

/// Tests in an emulator take one in this many cases.
const SHARE: usize = if cfg!(target_arch = "x86_64") { 1 } else { 20 };

/// Pseudo-random numbers.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn within(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// A number of varied magnitude, sometimes 0.
    fn real(&mut self) -> f32 {
        let value = (self.below(2001) as f32 - 1000.0) / 512.0;
        if self.below(50) == 0 { value * 1e6 } else { value }
    }

    fn reals(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.real()).collect()
    }
}

/// The kernels of this processor.
fn all() -> impl Iterator<Item = (Isa, &'static Kernels)> {
    Isa::ALL.iter().filter_map(|isa| Some((*isa, Kernels::for_isa(*isa)?)))
}

/// One thread, and several.
fn threads() -> [(&'static str, Box<dyn Parallel>); 2] {
    [("alone", Box::new(Alone)), ("threads", Box::new(Pool::new(3).unwrap()))]
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn convolutions_add_in_the_stated_order() {
    let mut numbers = Numbers(7);
    for case in 0..400 / SHARE {
        let groups = if numbers.below(4) == 0 { numbers.within(2, 3) } else { 1 };
        let per_group = numbers.within(1, 20);
        let outputs = numbers.within(1, if case % 40 == 0 { 130 } else { 40 });
        let kernel = [numbers.within(1, 3), numbers.within(1, 3)];
        let stride = [numbers.within(1, 2), numbers.within(1, 2)];
        let dilation = [numbers.within(1, 2), numbers.within(1, 2)];
        let size = [numbers.within(1, 7), numbers.within(1, 30)];
        let (channels, to) = (groups * per_group, groups * outputs);
        let rows = (size[0] - 1) * stride[0] + (kernel[0] - 1) * dilation[0] + 1;
        let columns = (size[1] - 1) * stride[1] + (kernel[1] - 1) * dilation[1] + 1;
        let gap = numbers.below(3);
        let (pixel, row) = (channels + gap, columns * (channels + gap) + numbers.below(5));
        let joined = gap == 0 && dilation[1] == 1 && groups == 1;
        let (runs, run) =
            if joined { ([kernel[0], 1], kernel[1] * per_group) } else { (kernel, per_group) };
        let shape = DenseShape { groups, outputs, terms: kernel[0] * kernel[1] * per_group };
        let output = View {
            offset: rows * row + numbers.below(9),
            row: size[1] * to + numbers.below(4),
            pixel: to,
        };
        let after = output.offset + size[0] * output.row;
        let residual = (numbers.below(2) == 0)
            .then_some(Residual { view: View { offset: after, row: size[1] * to, pixel: to } });
        let limits = [Clamp::FULL, Clamp { low: 0.0, high: 6.0 }, Clamp { low: -1.0, high: 1.0 }];
        let plan = ConvPlan {
            input: View { offset: 0, row: stride[0] * row, pixel: stride[1] * pixel },
            output,
            size,
            runs,
            run_step: [dilation[0] * row, dilation[1] * pixel],
            run,
            group_step: per_group,
            shape,
            residual,
            clamp: limits[numbers.below(3)],
        };
        let before = numbers.reals(after + size[0] * size[1] * to);
        let weights = numbers.reals(to * shape.terms);
        let bias = numbers.reals(to);

        let mut expected = before.clone();
        for (y, x, channel) in places(size, to) {
            let (group, mut sum) = (channel / outputs, 0.0f32);
            for term in 0..shape.terms {
                let (tap, input) = (term / per_group, term % per_group);
                let (down, right) = (tap / kernel[1], tap % kernel[1]);
                let at = (y * stride[0] + down * dilation[0]) * row
                    + (x * stride[1] + right * dilation[1]) * pixel
                    + group * per_group
                    + input;
                sum = before[at].mul_add(weights[channel * shape.terms + term], sum);
            }
            sum += bias[channel];
            if residual.is_some() {
                sum += before[after + (y * size[1] + x) * to + channel];
            }
            let at = output.offset + y * output.row + x * output.pixel + channel;
            expected[at] = clamp(sum, plan.clamp.low, plan.clamp.high);
        }
        for (isa, kernels) in all() {
            let lanes = kernels.lanes();
            let mut packed = vec![0.0; shape.elements(lanes).unwrap()];
            let weight = |group: usize, output: usize, term: usize| {
                weights[(group * outputs + output) * shape.terms + term]
            };
            shape.pack(lanes, weight, |channel| bias[channel], &mut packed);
            let conv = Conv::new(plan.clone(), lanes).unwrap();
            for (name, parallel) in threads() {
                let mut arena = before.clone();
                conv.run(kernels, &mut arena, &packed, &*parallel);
                assert_eq!(bits(&arena), bits(&expected), "case {case}, {isa}, {name}: {plan:?}");
            }
        }
    }
}

/// Rows, columns and channels.
fn places(size: [usize; 2], channels: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let pixels = (0..size[0]).flat_map(move |y| (0..size[1]).map(move |x| (y, x)));
    pixels.flat_map(move |(y, x)| (0..channels).map(move |channel| (y, x, channel)))
}

#[test]
fn depthwise_convolutions_add_in_the_stated_order() {
    let mut numbers = Numbers(8);
    for case in 0..300 / SHARE {
        let channels = numbers.within(1, 50);
        let kernel = if numbers.below(2) == 0 {
            [3, 3]
        } else {
            [numbers.within(1, 5), numbers.within(1, 5)]
        };
        let stride = [numbers.within(1, 2), numbers.within(1, 2)];
        let dilation = [numbers.within(1, 2), numbers.within(1, 2)];
        let size = [numbers.within(1, 6), numbers.within(1, 20)];
        let rows = (size[0] - 1) * stride[0] + (kernel[0] - 1) * dilation[0] + 1;
        let columns = (size[1] - 1) * stride[1] + (kernel[1] - 1) * dilation[1] + 1;
        let input = View { offset: 3, row: columns * channels + 2, pixel: channels };
        let output =
            View { offset: 3 + rows * input.row, row: size[1] * channels + 1, pixel: channels };
        let shape = DepthwiseShape { channels, kernel };
        let limits = [Clamp::FULL, Clamp { low: 0.0, high: 6.0 }];
        let clamped = limits[numbers.below(2)];
        let plan = DepthwisePlan { input, output, size, stride, dilation, shape, clamp: clamped };
        let before = numbers.reals(output.offset + size[0] * output.row);
        let taps = kernel[0] * kernel[1];
        let (weights, bias) = (numbers.reals(channels * taps), numbers.reals(channels));
        let mut expected = before.clone();
        for (y, x, channel) in places(size, channels) {
            let mut sum = 0.0f32;
            for tap in 0..taps {
                let at = input.offset
                    + (y * stride[0] + tap / kernel[1] * dilation[0]) * input.row
                    + (x * stride[1] + tap % kernel[1] * dilation[1]) * input.pixel
                    + channel;
                sum = before[at].mul_add(weights[channel * taps + tap], sum);
            }
            let at = output.offset + y * output.row + x * output.pixel + channel;
            expected[at] = clamp(sum + bias[channel], clamped.low, clamped.high);
        }
        for (isa, kernels) in all() {
            let lanes = kernels.lanes();
            let mut packed = vec![0.0; shape.elements(lanes).unwrap()];
            let weight = |channel: usize, tap: usize| weights[channel * taps + tap];
            shape.pack(lanes, weight, |channel| bias[channel], &mut packed);
            let depthwise = Depthwise::new(plan.clone(), lanes).unwrap();
            for (name, parallel) in threads() {
                let mut arena = before.clone();
                depthwise.run(kernels, &mut arena, &packed, &*parallel);
                assert_eq!(bits(&arena), bits(&expected), "case {case}, {isa}, {name}: {plan:?}");
            }
        }
    }
}

#[test]
fn pools_agree_with_their_definition() {
    let mut numbers = Numbers(9);
    for case in 0..200 / SHARE {
        let channels = numbers.within(1, 40);
        let [height, width] = [numbers.within(1, 9), numbers.within(1, 9)];
        let kernel = [numbers.within(1, height.min(3)), numbers.within(1, width.min(3))];
        let pad = [numbers.below(kernel[0]), numbers.below(kernel[1])];
        let stride = [numbers.within(1, 2), numbers.within(1, 2)];
        let window = Window { kernel, stride, dilation: [1, 1], pad };
        let count = |size: usize, axis: usize| (size + pad[axis] - kernel[axis]) / stride[axis] + 1;
        let size = [count(height, 0), count(width, 1)];
        let reductions =
            [Reduction::Maximum, Reduction::Sum, Reduction::Mean, Reduction::MeanWithPadding];
        let reduction = reductions[case % 4];
        let input = View { offset: 0, row: width * channels + 1, pixel: channels };
        let output = View { offset: height * input.row, row: size[1] * channels, pixel: channels };
        let before = numbers.reals(output.offset + size[0] * output.row);
        let mut expected = before.clone();
        for (y, x, channel) in places(size, channels) {
            let mut inside = Vec::new();
            for (down, right, _) in places(kernel, 1) {
                let row = (y * stride[0] + down).checked_sub(pad[0]).filter(|row| *row < height);
                let column = (x * stride[1] + right).checked_sub(pad[1]).filter(|c| *c < width);
                if let (Some(row), Some(column)) = (row, column) {
                    inside.push(before[row * input.row + column * input.pixel + channel]);
                }
            }
            let sum = inside.iter().fold(0.0, |sum, value| sum + value);
            expected[output.offset + y * output.row + x * channels + channel] = match reduction {
                Reduction::Maximum => inside.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b)),
                Reduction::Sum => sum,
                Reduction::Mean => sum / inside.len() as f32,
                Reduction::MeanWithPadding => sum / (kernel[0] * kernel[1]) as f32,
            };
        }
        let input_shape = Image { height, width, channels };
        let plan = PoolPlan { input, input_shape, output, size, window, reduction };
        let pool = Pooling::new(plan).unwrap();
        for (isa, kernels) in all() {
            let mut arena = before.clone();
            pool.run(kernels, &mut arena, &Alone);
            assert_eq!(bits(&arena), bits(&expected), "case {case}, {isa}");
        }
    }
}

const UNARY: [Unary; 20] = [
    Unary::Abs,
    Unary::Negate,
    Unary::Square,
    Unary::Sqrt,
    Unary::Reciprocal,
    Unary::ReciprocalSqrt,
    Unary::Exp,
    Unary::Ln,
    Unary::Tanh,
    Unary::Sigmoid,
    Unary::Erf,
    Unary::Sin,
    Unary::Cos,
    Unary::Silu,
    Unary::Gelu,
    Unary::GeluTanh,
    Unary::HardSwish,
    Unary::LeakyRelu(0.1),
    Unary::Clamp { low: 0.0, high: 6.0 },
    Unary::Clamp { low: -1.0, high: 1.0 },
];

const BINARY: [Binary; 6] = [
    Binary::Add,
    Binary::Subtract,
    Binary::Multiply,
    Binary::Divide,
    Binary::Minimum,
    Binary::Maximum,
];

/// Random element-wise functions over strided and repeated operands give the same bits on every
/// instruction set as on the scalar one, which computes elements one by one.
#[test]
fn maps_do_not_depend_on_the_instruction_set() {
    let mut numbers = Numbers(10);
    let scalar = Kernels::for_isa(Isa::Scalar).unwrap();
    for case in 0..600 / SHARE {
        let mut dims = [1; DIMS];
        for dim in &mut dims[numbers.below(DIMS)..] {
            *dim = numbers.within(1, 5);
        }
        dims[DIMS - 1] = if numbers.below(5) == 0 { 1 } else { numbers.within(1, 300) };
        let strides = |numbers: &mut Numbers, step: usize, repeats: bool| {
            let (mut strides, mut size) = ([0; DIMS], step);
            for axis in (0..DIMS).rev() {
                let repeated = repeats && numbers.below(4) == 0;
                // The stride of a single element does not matter.
                let any = dims[axis] == 1 && numbers.below(2) == 0;
                strides[axis] = if repeated || any { 0 } else { size };
                size *= if repeated { 1 } else { dims[axis] };
            }
            (strides, size)
        };
        let step = if numbers.below(4) == 0 { 2 } else { 1 };
        let (target, size) = strides(&mut numbers, step, false);
        let mut end = size;
        let mut operand = |numbers: &mut Numbers| {
            let step = numbers.within(1, 2);
            let (strides, size) = strides(numbers, step, true);
            let place = Strided { offset: end, strides };
            end += size;
            if numbers.below(3) == 0 { Operand::Constants(place) } else { Operand::Arena(place) }
        };
        let (a, b) = (operand(&mut numbers), operand(&mut numbers));
        let function = match case % 4 {
            0 => Function::Copy(a),
            1 => Function::Binary(BINARY[numbers.below(BINARY.len())], [a, b]),
            2 => Function::Unary(UNARY[numbers.below(UNARY.len())], a),
            _ => Function::Fill(1.5),
        };
        let map = Map::new(function, dims, Strided { offset: 0, strides: target }).unwrap();
        let (before, constants) = (numbers.reals(end), numbers.reals(end));
        let mut expected = before.clone();
        map.run(scalar, &mut expected, &constants, &Alone);
        for (isa, kernels) in all() {
            for (name, parallel) in threads() {
                let mut arena = before.clone();
                map.run(kernels, &mut arena, &constants, &*parallel);
                let same = arena
                    .iter()
                    .zip(&expected)
                    .all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan());
                assert!(same, "case {case}, {isa}, {name}: {map:?}");
            }
        }
    }
}

/// A copy and a sum, by hand.
#[test]
fn maps_read_and_write_where_they_say() {
    let kernels = Kernels::for_isa(Isa::detect()).unwrap_or(Kernels::for_isa(Isa::Scalar).unwrap());
    // The transposition of a matrix of 2 × 3 elements.
    let mut dims = [1; DIMS];
    dims[4..].copy_from_slice(&[3, 2]);
    let place = |offset: usize, last: [usize; 2]| {
        let mut strides = [0; DIMS];
        strides[4..].copy_from_slice(&last);
        Strided { offset, strides }
    };
    let source = Operand::Arena(place(6, [1, 3]));
    let copy = Map::new(Function::Copy(source), dims, place(0, [2, 1])).unwrap();
    let mut arena = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    copy.run(kernels, &mut arena, &[], &Alone);
    assert_eq!(arena[..6], [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    // A row of constants is added to each row.
    let row = Operand::Constants(place(0, [0, 1]));
    let sum = Function::Binary(Binary::Subtract, [source, row]);
    let sum = Map::new(sum, dims, place(0, [2, 1])).unwrap();
    sum.run(kernels, &mut arena, &[10.0, 20.0], &Alone);
    assert_eq!(arena[..6], [-9.0, -16.0, -8.0, -15.0, -7.0, -14.0]);
}

#[test]
fn invalid_plans_are_refused() {
    let mut dims = [1; DIMS];
    dims[5] = 4;
    let place = |offset: usize, stride: usize| {
        let mut strides = [0; DIMS];
        strides[5] = stride;
        Strided { offset, strides }
    };
    let copy = |from, to| Map::new(Function::Copy(Operand::Arena(from)), dims, to);
    assert!(copy(place(4, 1), place(0, 1)).is_some());
    // An operand that overlaps the result, results in one place, and an overflow.
    assert!(copy(place(3, 1), place(0, 1)).is_none());
    assert!(copy(place(4, 1), place(0, 0)).is_none());
    assert!(copy(place(usize::MAX, 1), place(0, 1)).is_none());
    assert!(copy(place(8, usize::MAX), place(0, 1)).is_none());
    dims[0] = 0;
    assert!(Map::new(Function::Fill(0.0), dims, place(0, 1)).is_none());
}

/// Plans of arbitrary numbers are refused, or run without an access outside of the arena (which
/// would panic here or end the test under a sanitizer).
#[test]
fn no_plan_leaves_the_arena() {
    let mut numbers = Numbers(11);
    let mut accepted = 0;
    for _ in 0..20_000 / SHARE {
        let (runs, run, outputs) = ([numbers.within(1, 2), 2], 3, numbers.within(1, 20));
        let mut fields = [
            // Input and output: offset, row, pixel.
            [0, 40, 5, 300, 5 * outputs, outputs],
            // Size, runs and steps.
            [numbers.within(1, 3), numbers.within(1, 5), runs[0], runs[1], 40, 5],
            // Run, groups and shape.
            [run, 0, 1, outputs, runs[0] * runs[1] * run, 0],
        ];
        for _ in 0..numbers.below(3) {
            let value = match numbers.below(4) {
                0 => usize::MAX - numbers.below(3),
                1 => 1 << (30 + numbers.below(30)),
                _ => numbers.below(400),
            };
            fields[numbers.below(3)][numbers.below(6)] = value;
        }
        let [places, counts, shape] = fields;
        let plan = ConvPlan {
            input: View { offset: places[0], row: places[1], pixel: places[2] },
            output: View { offset: places[3], row: places[4], pixel: places[5] },
            size: [counts[0], counts[1]],
            runs: [counts[2], counts[3]],
            run_step: [counts[4], counts[5]],
            run: shape[0],
            group_step: shape[1],
            shape: DenseShape { groups: shape[2], outputs: shape[3], terms: shape[4] },
            residual: None,
            clamp: Clamp::FULL,
        };
        for (_, kernels) in all() {
            let Some(conv) = Conv::new(plan.clone(), kernels.lanes()) else { continue };
            accepted += 1;
            let elements = plan.shape.elements(kernels.lanes()).unwrap();
            let weights = vec![1.0; if elements < 1 << 20 { elements } else { continue }];
            let mut arena = vec![0.5; 2000];
            // Larger than the arena here: refused by a panic.
            let run = std::panic::AssertUnwindSafe(|| {
                conv.run(kernels, &mut arena, &weights, &Alone);
            });
            let hook = std::panic::take_hook();
            std::panic::set_hook(Box::new(|_| {}));
            let _ = std::panic::catch_unwind(run);
            std::panic::set_hook(hook);
        }
    }
    assert!(accepted > 10_000 / SHARE, "{accepted}");
}
