//! Regions that run on our own kernels compute what tract computes, for random graphs in every
//! layout that the converter writes.
#![cfg(feature = "export")]

mod graphs;

use graphs::{Sketch, fact, tensor};
use hardtack::float::FloatModel;
use hardtack::internal::Model;
use hardtack::{DType, Isa, Tensor};
use hardtack_bundle::graph::*;

/// Pseudo-random numbers.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }

    fn within(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn reals(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.below(2001) as f32 / 1000.0 - 1.0).collect()
    }
}

/// A random graph: an image with its layout goes through some operators.
struct Random {
    numbers: Numbers,
    sketch: Sketch,
    layout: ImageLayout,
    /// Values of the shape of the current one, to be added.
    earlier: Vec<(ValueId, Vec<usize>)>,
}

impl Random {
    fn shape(&self, [n, c, h, w]: [usize; 4]) -> Vec<usize> {
        match self.layout {
            ImageLayout::Nchw => vec![n, c, h, w],
            ImageLayout::Nhwc => vec![n, h, w, c],
            ImageLayout::Chw => vec![c, h, w],
            ImageLayout::Hwc => vec![h, w, c],
        }
    }

    fn node(&mut self, operator: Operator, inputs: &[ValueId], shape: &[usize]) -> ValueId {
        let dims: Vec<i64> = shape.iter().map(|size| *size as i64).collect();
        self.sketch.node(operator, inputs, vec![fact(DType::F32, &dims)])
    }

    fn constant(&mut self, shape: &[usize]) -> ValueId {
        let values = self.numbers.reals(shape.iter().product());
        self.sketch.constant(tensor(shape, &values))
    }

    fn conv(&mut self, value: ValueId, [n, c, h, w]: [usize; 4]) -> (ValueId, [usize; 4]) {
        let kernel = [self.numbers.within(1, h.min(3)), self.numbers.within(1, w.min(3))];
        let strides = [self.numbers.within(1, 2), self.numbers.within(1, 2)];
        let before = [self.numbers.below(kernel[0]), self.numbers.below(kernel[1])];
        let after = [self.numbers.below(kernel[0]), self.numbers.below(kernel[1])];
        let groups = match self.numbers.below(3) {
            0 => c,
            1 if c % 2 == 0 => 2,
            _ => 1,
        };
        let outputs = if groups == c && c > 1 && self.numbers.below(2) == 0 {
            c
        } else {
            groups * self.numbers.within(1, 5)
        };
        let size = |size: usize, axis: usize| {
            (size + before[axis] + after[axis] - kernel[axis]) / strides[axis] + 1
        };
        let result = [n, outputs, size(h, 0), size(w, 1)];
        let layouts = [KernelLayout::Oihw, KernelLayout::Hwio, KernelLayout::Ohwi];
        let layout = self.numbers.pick(if groups == 1 { &layouts } else { &layouts[..1] });
        let (own, [kh, kw]) = (c / groups, kernel);
        let weights = match layout {
            KernelLayout::Oihw => [outputs, own, kh, kw],
            KernelLayout::Hwio => [kh, kw, own, outputs],
            KernelLayout::Ohwi => [outputs, kh, kw, own],
        };
        let list = |sizes: [usize; 2]| sizes.map(|size| size as u32).to_vec();
        let conv = Conv {
            window: Window {
                layout: self.layout,
                kernel: list(kernel),
                strides: list(strides),
                dilations: vec![1, 1],
                padding: Padding::Explicit(list(before), list(after)),
                input_channels: c as u32,
                output_channels: outputs as u32,
            },
            kernel_layout: layout,
            groups: groups as u32,
        };
        let (weights, bias) = (self.constant(&weights), self.constant(&[outputs]));
        let shape = self.shape(result);
        (self.node(Operator::Conv(conv), &[value, weights, bias], &shape), result)
    }

    fn pool(&mut self, value: ValueId, [n, c, h, w]: [usize; 4]) -> (ValueId, [usize; 4]) {
        let kernel = [self.numbers.within(1, h.min(3)), self.numbers.within(1, w.min(3))];
        let list = |sizes: [usize; 2]| sizes.map(|size| size as u32).to_vec();
        let pads = kernel.map(|size| size / 2);
        let size = |size: usize, axis: usize| size + 2 * pads[axis] - kernel[axis] + 1;
        let window = Window {
            layout: self.layout,
            kernel: list(kernel),
            strides: vec![1, 1],
            dilations: vec![1, 1],
            padding: Padding::Explicit(list(pads), list(pads)),
            input_channels: c as u32,
            output_channels: c as u32,
        };
        let operator = match self.numbers.below(3) {
            0 => Operator::MaxPool(MaxPool { window, index_dtype: None }),
            kind => {
                Operator::SumPool(SumPool { window, count_include_pad: kind == 1, average: true })
            }
        };
        let result = [n, c, size(h, 0), size(w, 1)];
        let shape = self.shape(result);
        (self.node(operator, &[value], &shape), result)
    }

    /// A matmul over channels, as the converter writes a convolution of 1 × 1.
    fn einsum(&mut self, value: ValueId, [n, c, h, w]: [usize; 4]) -> (ValueId, [usize; 4]) {
        let outputs = self.numbers.within(1, 40);
        let letters = |layout: ImageLayout, channel: char| match layout {
            ImageLayout::Nchw => format!("N{channel}HW"),
            ImageLayout::Nhwc => format!("NHW{channel}"),
            ImageLayout::Chw => format!("{channel}HW"),
            ImageLayout::Hwc => format!("HW{channel}"),
        };
        let from = letters(self.layout, 'I');
        let layouts = match self.layout {
            ImageLayout::Nchw | ImageLayout::Nhwc if n > 1 => {
                vec![ImageLayout::Nchw, ImageLayout::Nhwc]
            }
            _ => {
                vec![ImageLayout::Nchw, ImageLayout::Nhwc, ImageLayout::Chw, ImageLayout::Hwc]
            }
        };
        self.layout = self.numbers.pick(&layouts);
        let to = letters(self.layout, 'O');
        let (weights, shape) = match self.numbers.below(2) {
            0 => ("OI", [outputs, c]),
            _ => ("IO", [c, outputs]),
        };
        let einsum =
            Einsum { expression: format!("{from},{weights}->{to}"), accumulator: DType::F32 };
        let weights = self.constant(&shape);
        let result = [n, outputs, h, w];
        let shape = self.shape(result);
        (self.node(Operator::Einsum(einsum), &[value, weights], &shape), result)
    }

    fn elementwise(&mut self, value: ValueId, dims: [usize; 4]) -> ValueId {
        let shape = self.shape(dims);
        match self.numbers.below(5) {
            0 => {
                let unary = self.numbers.pick(&[
                    Unary::Abs,
                    Unary::Silu,
                    Unary::Sigmoid,
                    Unary::Tanh,
                    Unary::HardSwish,
                    Unary::LeakyRelu(0.1),
                    Unary::Exp,
                    Unary::Erf,
                    Unary::Square,
                ]);
                self.node(Operator::Unary(unary), &[value], &shape)
            }
            1 => {
                // A number for each channel, or a single one.
                let each = match self.numbers.below(2) {
                    0 => self.shape([1, dims[1], 1, 1]),
                    _ => vec![1; shape.len()],
                };
                let other = self.constant(&each);
                let binary =
                    self.numbers.pick(&[Binary::Add, Binary::Multiply, Binary::SubtractFrom]);
                let pair = if self.numbers.below(2) == 0 { [value, other] } else { [other, value] };
                self.node(Operator::Binary(binary), &pair, &shape)
            }
            2 => {
                let limit = self.constant(&vec![1; shape.len()]);
                let binary = self.numbers.pick(&[Binary::Maximum, Binary::Minimum]);
                self.node(Operator::Binary(binary), &[value, limit], &shape)
            }
            _ => {
                let earlier = self
                    .earlier
                    .iter()
                    .rev()
                    .find(|(other, dims)| *other != value && *dims == shape);
                match earlier.cloned() {
                    Some((other, _)) => {
                        self.node(Operator::Binary(Binary::Add), &[value, other], &shape)
                    }
                    None => value,
                }
            }
        }
    }

    /// Moves elements: a slice of channels, a concatenation, every second column, repetition.
    fn arrange(&mut self, value: ValueId, dims: [usize; 4]) -> (ValueId, [usize; 4]) {
        let axis_of = |layout: ImageLayout, which: usize| match layout {
            ImageLayout::Nchw => which,
            ImageLayout::Nhwc => [0, 3, 1, 2][which],
            ImageLayout::Chw => which - 1,
            ImageLayout::Hwc => [0, 2, 0, 1][which],
        };
        let which = self.numbers.within(1, 3);
        let axis = axis_of(self.layout, which) as u32;
        let mut result = dims;
        match self.numbers.below(4) {
            0 if dims[which] > 1 => {
                let end = self.numbers.within(1, dims[which]);
                let start = self.numbers.below(end);
                result[which] = end - start;
                let [start, end] = [start, end].map(|size| Dim::Value(size as i64));
                let shape = self.shape(result);
                (self.node(Operator::Slice(Slice { axis, start, end }), &[value], &shape), result)
            }
            1 => {
                result[which] = 2 * dims[which];
                let shape = self.shape(result);
                (self.node(Operator::Concat(axis), &[value, value], &shape), result)
            }
            2 => {
                result[which] = dims[which].div_ceil(2);
                let shape = self.shape(result);
                let downsample = Downsample { axis, stride: 2, modulo: 0 };
                (self.node(Operator::Downsample(downsample), &[value], &shape), result)
            }
            _ if dims[2] * dims[3] < 60 => {
                (result[2], result[3]) = (2 * dims[2], 2 * dims[3]);
                let factors = self.shape([1, 1, 2, 2]).iter().map(|size| *size as u64).collect();
                let shape = self.shape(result);
                (self.node(Operator::NearestUpsample(factors), &[value], &shape), result)
            }
            _ => (value, dims),
        }
    }
}

/// Returns a random model, and its input.
fn random(seed: u64) -> (Model, Tensor) {
    let mut numbers = Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let layouts = [ImageLayout::Nchw, ImageLayout::Nhwc, ImageLayout::Chw, ImageLayout::Hwc];
    let layout = numbers.pick(&layouts);
    let batched = matches!(layout, ImageLayout::Nchw | ImageLayout::Nhwc);
    let n = if batched { numbers.within(1, 2) } else { 1 };
    let mut dims = [n, numbers.within(1, 6), numbers.within(2, 9), numbers.within(2, 14)];
    let mut random = Random { numbers, sketch: Sketch::default(), layout, earlier: Vec::new() };
    let shape = random.shape(dims);
    let sizes: Vec<i64> = shape.iter().map(|size| *size as i64).collect();
    let mut value = random.sketch.input(DType::F32, &sizes);
    let given = random.numbers.reals(shape.iter().product());
    let given = tensor(&shape, &given);
    let mut marked = Vec::new();
    for step in 0..random.numbers.within(2, 9) {
        let choice = if step == 0 { 0 } else { random.numbers.below(10) };
        (value, dims) = match choice {
            0..=2 => random.conv(value, dims),
            3 => random.einsum(value, dims),
            4 => random.pool(value, dims),
            5 => random.arrange(value, dims),
            _ => (random.elementwise(value, dims), dims),
        };
        let shape = random.shape(dims);
        random.earlier.push((value, shape));
        if random.numbers.below(8) == 0 {
            marked.push(value);
        }
    }
    marked.push(value);
    marked.dedup();
    for value in marked {
        random.sketch.output(value);
    }
    (random.sketch.model(), given)
}

/// Returns the first difference between our kernels and tract.
fn difference(model: &Model, inputs: &[&Tensor]) -> Option<String> {
    let shapes: Vec<&[usize]> = inputs.iter().map(|input| input.shape()).collect();
    let load = || FloatModel::load(model, true).unwrap();
    let mut ours = load().plan(&shapes).unwrap();
    assert!(ours.regions() > 0, "there is no region");
    let mut theirs = load().into_plan(&shapes).unwrap();
    assert_eq!(theirs.regions(), 0);
    let (a, b) = (ours.run(inputs).unwrap(), theirs.run(inputs).unwrap());
    // The arena of a second run holds what the first one left.
    let again = ours.run(inputs).unwrap();
    for (index, ((a, b), again)) in a.iter().zip(&b).zip(&again).enumerate() {
        assert_eq!(a.shape(), b.shape());
        assert_eq!(a.to_bytes(), again.to_bytes(), "the second run differs");
        let (a, b) = (a.to_f32(), b.to_f32());
        let range = b.iter().fold(1.0f32, |range, value| range.max(value.abs()));
        for (place, (a, b)) in a.iter().zip(&b).enumerate() {
            let same = (a - b).abs() <= 5e-5 * range || a.to_bits() == b.to_bits();
            let both = a.is_nan() && b.is_nan() || a.is_infinite() && b.is_infinite();
            if !same && !both {
                return Some(format!("output {index}, element {place}: {a} instead of {b}"));
            }
        }
    }
    None
}

#[test]
fn random_networks_agree_with_tract() {
    if Isa::detect() == Isa::Scalar {
        println!("skipped: regions need a processor with fused multiply-add");
        return;
    }
    for seed in 1..=400 {
        let (model, input) = random(seed);
        let difference = difference(&model, &[&input]);
        assert!(difference.is_none(), "seed {seed}: {}", difference.unwrap_or_default());
    }
}

/// Matmuls of two computed operands, as attention has them, with softmax, reductions and
/// normalizations.
#[test]
fn random_products_agree_with_tract() {
    if Isa::detect() == Isa::Scalar {
        println!("skipped: regions need a processor with fused multiply-add");
        return;
    }
    let expressions = [
        "mk,kn->mn",
        "mk,nk->mn",
        "amk,akn->amn",
        "km,kn->mn",
        "abmk,abkn->abmn",
        "ambk,anbk->abmn",
        "abmk,akbn->ambn",
        "amdbk,ancbk->abmn",
        "abmk,bkn->amn",
        "ab,b->a",
    ];
    for seed in 1..=300 {
        let mut numbers = Numbers(seed * 7919);
        let expression = expressions[numbers.below(expressions.len())];
        let (operands, result) = expression.split_once("->").unwrap();
        let (a, b) = operands.split_once(',').unwrap();
        let mut sizes = std::collections::BTreeMap::new();
        for letter in expression.chars().filter(|letter| letter.is_alphabetic()) {
            sizes.entry(letter).or_insert(match letter {
                'c' | 'd' => 1,
                'm' | 'n' => numbers.within(1, 40),
                _ => numbers.within(1, 9),
            });
        }
        let shape =
            |letters: &str| letters.chars().map(|letter| sizes[&letter]).collect::<Vec<_>>();
        let dims = |shape: &[usize]| shape.iter().map(|size| *size as i64).collect::<Vec<_>>();
        let [a, b, result] = [a, b, result].map(shape);
        let mut sketch = Sketch::default();
        let (x, y) = (sketch.input(DType::F32, &dims(&a)), sketch.input(DType::F32, &dims(&b)));
        let einsum = Einsum { expression: expression.into(), accumulator: DType::F32 };
        let stated = || vec![fact(DType::F32, &dims(&result))];
        let product = sketch.node(Operator::Einsum(einsum), &[x, y], stated());
        let axis = numbers.below(result.len()) as u32;
        let axes = match numbers.below(2) {
            0 => vec![axis],
            _ => (0..result.len() as u32).collect(),
        };
        let last = match numbers.below(6) {
            0 => product,
            1 => {
                let softmax = Softmax { axes, logarithm: numbers.below(2) == 0 };
                sketch.node(Operator::Softmax(softmax), &[product], stated())
            }
            2 => {
                let norm = RmsNorm { axis, epsilon: 1e-5 };
                sketch.node(Operator::RmsNorm(norm), &[product], stated())
            }
            3 => {
                let other = vec![1; result.len()];
                let factor = sketch.constant(tensor(&other, &[0.25f32]));
                let scaled =
                    sketch.node(Operator::Binary(Binary::Multiply), &[product, factor], stated());
                sketch.node(Operator::Unary(Unary::Gelu), &[scaled], stated())
            }
            _ => {
                let reducers =
                    [Reducer::Sum, Reducer::Maximum, Reducer::Minimum, Reducer::MeanOfSquares];
                let mut reduced = result.clone();
                axes.iter().for_each(|axis| reduced[*axis as usize] = 1);
                let reduce = Reduce { axes, reducer: numbers.pick(&reducers) };
                let fact = fact(DType::F32, &dims(&reduced));
                sketch.node(Operator::Reduce(reduce), &[product], vec![fact])
            }
        };
        sketch.output(last);
        let given = [a, b].map(|shape| {
            let values = numbers.reals(shape.iter().product());
            tensor(&shape, &values)
        });
        let difference = difference(&sketch.model(), &[&given[0], &given[1]]);
        let difference = difference.unwrap_or_default();
        assert!(difference.is_empty(), "seed {seed}, {expression}: {difference}");
    }
}
