//! For random programs, the kernels of every instruction set of this processor produce the same
//! bytes as the reference implementation, with packed weights, halos and any number of threads.

#[path = "../../kernels/tests/common/guarded.rs"]
mod guarded;

use std::cell::Cell;

use guarded::Guarded;
use hardtack_engine::program::*;
use hardtack_engine::{Aligned, BuildError, Builder, Executor, Input, Layer, Output, Program};
use hardtack_kernels::packed::Packing;
use hardtack_kernels::strided::{Kernels as Tables, Parallel};
use hardtack_kernels::{Isa, ReferenceKernels, Sample};
use proptest::collection::vec;
use proptest::prelude::*;

/// Runs parts one after another, the last one first.
struct Backwards(usize);

// SAFETY: `run` calls `work` exactly once for each number below `parts`, and returns after all
// calls have returned.
unsafe impl Parallel for Backwards {
    fn threads(&self) -> usize {
        self.0
    }

    fn run(&self, parts: usize, work: &(dyn Fn(usize) + Sync)) {
        (0..parts).rev().for_each(work);
    }
}

/// A repeating sequence of numbers that determines a random program.
struct Choices<'a> {
    numbers: &'a [u32],
    next: usize,
}

impl Choices<'_> {
    /// Returns a number below `count`.
    fn below(&mut self, count: u32) -> u32 {
        self.next += 1;
        let turn = (self.next / self.numbers.len()) as u32;
        (self.numbers[self.next % self.numbers.len()].wrapping_add(turn * 7919)) % count
    }

    /// Returns random weights; for some layers most of them are 0.
    fn weights(&mut self, count: usize) -> Vec<i8> {
        let one_of = [1, 1, 2, 5][self.below(4) as usize];
        let weight = |choices: &mut Self| (choices.below(255) as i32 - 127) as i8;
        (0..count).map(|_| if self.below(one_of) == 0 { weight(self) } else { 0 }).collect()
    }

    fn scale(&mut self) -> f32 {
        0.01 + self.below(100) as f32 * 0.001
    }

    fn zero_point(&mut self) -> i8 {
        [i8::MIN, 0, -7, 100, i8::MAX][self.below(5) as usize]
    }
}

/// A program under construction.
struct Net<'a> {
    builder: Builder,
    choices: Choices<'a>,
    /// The tensors, each with its height, width and channels.
    tensors: Vec<(TensorId, [u32; 3])>,
}

impl Net<'_> {
    fn tensor(&mut self, shape: [u32; 3]) -> TensorId {
        let (scale, zero_point) = (self.choices.scale(), self.choices.zero_point());
        let id = self.builder.tensor("", shape, scale, zero_point);
        self.tensors.push((id, shape));
        id
    }

    /// Adds a random step that reads one of the last three tensors.
    fn grow(&mut self) {
        let back = self.choices.below(3).min(self.tensors.len() as u32 - 1) as usize;
        let (input, shape) = self.tensors[self.tensors.len() - 1 - back];
        let [height, width, channels] = shape;
        let elements = height * width * channels;
        let alike = self.builder.get(input).map(|t| (t.scale, t.zero_point)).unwrap();
        match self.choices.below(9) {
            0..=2 => self.conv(input, shape),
            3 => {
                let output = self.tensor(shape);
                let other =
                    self.tensors.iter().rev().find(|(id, of)| *of == shape && *id != output);
                let other = other.map_or(input, |(id, _)| *id);
                self.builder.add("", [input, other], output, Clamp::FULL).unwrap();
            }
            4 => {
                let output = self.tensor([channels, width, height]);
                let strides = [1, channels, width * channels];
                let copy = CopyLayout::gather(&[channels, width, height], 0, &strides).unwrap();
                self.builder.copy("", input, output, copy).unwrap();
            }
            5 => {
                // Rows of padding above and below: fill first, then write the interior.
                let output = self.tensor([height + 2, width, channels]);
                self.builder.fill("", output, 0.3).unwrap();
                let to = width * channels;
                let copy = CopyLayout { target_offset: to, ..CopyLayout::contiguous(elements) };
                self.builder.copy("", input, output, copy).unwrap();
            }
            6 => {
                let output = self.tensor([1, 1, elements]);
                self.builder.lookup("", input, output, |x| x.sin()).unwrap();
            }
            7 => {
                let (window, [rows, columns]) = self.window(shape);
                let average = self.choices.below(2) == 0;
                if average {
                    let output = self.tensor([rows, columns, channels]);
                    let padded = self.choices.below(2) == 0;
                    self.builder
                        .average_pool("", input, output, window, padded, Clamp::FULL)
                        .unwrap();
                } else {
                    let shape = [rows, columns, channels];
                    let output = self.builder.tensor("", shape, alike.0, alike.1);
                    self.tensors.push((output, shape));
                    self.builder.max_pool("", input, output, window, Clamp::FULL);
                }
            }
            _ => {
                let samples = |size: u32, count: u32| -> Vec<Sample> {
                    (0..count)
                        .map(|i| {
                            let first = i * size / count;
                            let second = (first + 1).min(size - 1);
                            Sample { first: first as u16, second: second as u16, weight: 600 }
                        })
                        .collect()
                };
                let (rows, columns) =
                    (samples(height, height + 1), samples(width, width * 3 / 2 + 1));
                let shape = [rows.len() as u32, columns.len() as u32, channels];
                let output = self.builder.tensor("", shape, alike.0, alike.1);
                self.tensors.push((output, shape));
                self.builder.resize("", input, output, &rows, &columns).unwrap();
            }
        }
    }

    /// Returns a random window that fits, and the numbers of output rows and columns.
    fn window(&mut self, [height, width, _]: [u32; 3]) -> (Window, [u32; 2]) {
        let mut axis = |size: u32| {
            let (kernel, stride) = (1 + self.choices.below(5), 1 + self.choices.below(3));
            let (dilation, pad) = (1 + self.choices.below(2), self.choices.below(kernel));
            let extent = (kernel - 1) * dilation + 1;
            let end = self.choices.below(3);
            let output = (size + pad + end).saturating_sub(extent) / stride + 1;
            ([kernel, stride, dilation, pad].map(|number| number as u16), output)
        };
        let (rows, columns) = (axis(height), axis(width));
        let of = |index: usize| [rows.0[index], columns.0[index]];
        let window = Window { kernel: of(0), stride: of(1), dilation: of(2), pad: of(3) };
        (window, [rows.1, columns.1])
    }

    fn conv(&mut self, input: TensorId, shape: [u32; 3]) {
        let channels = shape[2];
        let (window, [rows, columns]) = self.window(shape);
        let (groups, outputs) = match self.choices.below(3) {
            0 => (channels, channels),
            1 if channels.is_multiple_of(2) => (2, 2 * (1 + self.choices.below(9))),
            _ => (1, 1 + self.choices.below(90)),
        };
        let output = self.tensor([rows, columns, outputs]);
        let found = self.tensors.iter().rev();
        let residual = found
            .filter(|(id, of)| *of == [rows, columns, outputs] && *id != output)
            .map(|(id, _)| *id)
            .next();
        let [height, width] = window.kernel.map(usize::from);
        let depth = height * width * (channels / groups) as usize;
        let weights = self.choices.weights(depth * outputs as usize);
        let large = [1000, 100_000_000][self.choices.below(2) as usize];
        let bias: Vec<i32> = (0..outputs).map(|_| self.choices.below(large) as i32).collect();
        let scales: Vec<f32> = (0..outputs).map(|_| self.choices.scale() * 0.1).collect();
        let (low, high) = [(-128, 127), (-50, 90)][self.choices.below(2) as usize];
        let layer = Layer {
            input,
            output,
            window,
            groups,
            weights: &weights,
            weight_scales: &scales,
            bias: &bias,
            residual,
            clamp: Clamp { low, high },
        };
        self.builder.conv("", &layer).unwrap();
    }
}

/// Returns the outputs of the reference implementation.
fn defined(program: &Program<&[u8]>, input: &[f32]) -> Vec<Vec<i8>> {
    let mut given = blank(program);
    let mut outputs: Vec<Output<'_>> = given.iter_mut().map(|output| Output::I8(output)).collect();
    let mut arena = vec![55; program.arena_bytes()];
    program.run(&ReferenceKernels::SCALAR, &mut arena, &[Input::F32(input)], &mut outputs).unwrap();
    given
}

/// Returns the outputs of an executor for an instruction set.
/// Returns the instruction sets that this processor supports. Panics if one that
/// `HARDTACK_REQUIRE_ISA` names is missing.
fn supported() -> impl Iterator<Item = Isa> {
    let required = std::env::var("HARDTACK_REQUIRE_ISA").unwrap_or_default();
    for name in required.split(',').filter(|name| !name.is_empty()) {
        let isa = Isa::from_name(name);
        assert!(isa.is_some_and(Isa::is_supported), "this processor does not support {name}");
    }
    Isa::ALL.iter().copied().filter(|isa| isa.is_supported())
}

fn executed(program: &Program<&[u8]>, isa: Isa, threads: usize, input: &[f32]) -> Vec<Vec<i8>> {
    let executor = Executor::new(program.clone(), isa).unwrap();
    let expected_isa = if Tables::for_isa(isa).is_some() { isa } else { Isa::Scalar };
    assert_eq!(executor.isa(), expected_isa, "the kernels must support the program");
    let mut arena = Guarded::new(executor.arena_bytes());
    arena.bytes().fill(99);
    let mut given = blank(program);
    let mut outputs: Vec<Output<'_>> = given.iter_mut().map(|output| Output::I8(output)).collect();
    let inputs = &[Input::F32(input)];
    executor.run(&Backwards(threads), arena.bytes(), inputs, &mut outputs).unwrap();
    given
}

fn blank(program: &Program<&[u8]>) -> Vec<Vec<i8>> {
    program.outputs().map(|port| vec![0; port.elements as usize]).collect()
}

/// Starts a program with an input tensor of this shape.
fn begin(shape: [u32; 3], numbers: &[u32]) -> Net<'_> {
    let [height, width, channels] = shape;
    let mut builder = Builder::new();
    let port = builder.input(PortType::F32, height * width * channels);
    let x = builder.tensor("x", shape, 0.02, -3);
    // The program input is in CHW order.
    let strides = [width, 1, width * height];
    let copy = CopyLayout::gather(&shape, 0, &strides).unwrap();
    builder.quantize("x", port, x, copy).unwrap();
    Net { builder, choices: Choices { numbers, next: 0 }, tensors: vec![(x, shape)] }
}

fn leave(builder: &mut Builder, (id, shape): (TensorId, [u32; 3])) {
    let elements = shape.iter().product();
    let port = builder.output(PortType::I8, elements);
    builder.dequantize("y", id, port, CopyLayout::contiguous(elements));
}

fn picture(numbers: &[u32], shape: [u32; 3]) -> Vec<f32> {
    let count = shape.iter().product::<u32>() as usize;
    numbers.iter().cycle().take(count).map(|x| *x as f32 / 2e9 - 1.0).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn random_programs_agree_with_the_reference(
        numbers in vec(any::<u32>(), 20..200),
        size in (1u32..9, 1u32..9, prop_oneof![1u32..5, Just(16), Just(32), 30u32..70]),
        steps in 1usize..7,
        threads in 1usize..4,
    ) {
        let shape = [size.0, size.1, size.2];
        let mut net = begin(shape, &numbers);
        for _ in 0..steps {
            net.grow();
        }
        let Net { mut builder, tensors, .. } = net;
        // Make every tensor an output, so that all are compared.
        for tensor in &tensors {
            leave(&mut builder, *tensor);
        }
        let built = builder.finish().unwrap();
        let program = Program::parse(&built.code[..], &built.weights[..]).unwrap();
        let input = picture(&numbers, shape);
        let expected = defined(&program, &input);
        for isa in supported() {
            let given = executed(&program, isa, threads, &input);
            for (index, (given, expected)) in given.iter().zip(&expected).enumerate() {
                prop_assert_eq!(given, expected, "{} tensor {}", isa, index);
            }
        }
    }

    #[test]
    fn row_tiles_do_not_change_the_outputs(
        numbers in vec(any::<u32>(), 20..200),
        size in (2u32..40, 1u32..9, prop_oneof![1u32..5, Just(16)]),
        steps in 2usize..6,
        threads in 1usize..4,
        part in 3u64..7,
    ) {
        let shape = [size.0, size.1, size.2];
        let mut net = begin(shape, &numbers);
        for _ in 0..steps {
            let (input, shape) = net.tensors[net.tensors.len() - 1];
            net.conv(input, shape);
        }
        let Net { mut builder, tensors, .. } = net;
        leave(&mut builder, tensors[tensors.len() - 1]);
        let whole = builder.finish().unwrap();
        let limit = u64::from(whole.plan.arena_bytes) * part / 7;
        let program = Program::parse(&whole.code[..], &whole.weights[..]).unwrap();
        prop_assert_eq!(&Builder::of(&program).unwrap().finish().unwrap(), &whole);
        let built = match Builder::of(&program).unwrap().limit_arena(limit).finish() {
            Ok(built) => built,
            Err(BuildError::ArenaLimit { least, .. }) => {
                prop_assert!(least > limit);
                return Ok(());
            }
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        };
                prop_assert!(u64::from(built.plan.arena_bytes) <= limit);
        let input = picture(&numbers, shape);
        let expected = defined(&program, &input);
        let program = Program::parse(&built.code[..], &built.weights[..]).unwrap();
        prop_assert!(program.steps().any(|step| matches!(step, Step::RowTile(_))));
        prop_assert_eq!(&defined(&program, &input), &expected);
        for isa in supported() {
            prop_assert_eq!(&executed(&program, isa, threads, &input), &expected, "{}", isa);
        }
        // Packing and unpacking restores the weights.
        for &packing in Packing::ALL {
            let packed = program.pack(Some(packing)).unwrap();
            let again =
                Program::parse_packed(&built.code[..], packed.bytes(), packing).unwrap();
            let unpacked = again.pack(None).unwrap();
            prop_assert_eq!(unpacked.bytes(), &built.weights[..]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn sparse_weights_do_not_change_the_outputs(
        numbers in vec(any::<u32>(), 20..200),
        size in (2u32..12, 1u32..9, prop_oneof![1u32..5, Just(16), 30u32..70]),
        steps in 1usize..5,
        threads in 1usize..4,
        in_strips in any::<bool>(),
    ) {
        let shape = [size.0, size.1, size.2];
        let mut net = begin(shape, &numbers);
        for _ in 0..steps {
            let (input, shape) = net.tensors[net.tensors.len() - 1];
            net.conv(input, shape);
        }
        let Net { mut builder, tensors, .. } = net;
        leave(&mut builder, tensors[tensors.len() - 1]);
        let mut built = builder.finish().unwrap();
        if in_strips {
            let program = Program::parse(&built.code[..], &built.weights[..]).unwrap();
            let limit = u64::from(built.plan.arena_bytes) * 5 / 7;
            let limited = Builder::of(&program).unwrap().limit_arena(limit).finish();
            built = limited.unwrap_or(built);
        }
        let program = Program::parse(&built.code[..], &built.weights[..]).unwrap();
        let sparse = Builder::of(&program).unwrap().sparse().unwrap().finish().unwrap();
        let input = picture(&numbers, shape);
        let expected = defined(&program, &input);
        let program = Program::parse(&sparse.code[..], &sparse.weights[..]).unwrap();
        prop_assert_eq!(&defined(&program, &input), &expected);
        for isa in supported() {
            prop_assert_eq!(&executed(&program, isa, threads, &input), &expected, "{}", isa);
        }
        for &packing in Packing::ALL {
            let packed = program.pack(Some(packing)).unwrap();
            let again =
                Program::parse_packed(&sparse.code[..], packed.bytes(), packing).unwrap();
            let unpacked = again.pack(None).unwrap();
            prop_assert_eq!(unpacked.bytes(), &sparse.weights[..]);
        }
    }
}

/// Bytes that change after validation, like those of a mapped file that another process writes.
struct Turning<'a> {
    is_turned: &'a Cell<bool>,
    bytes: [Aligned; 2],
}

impl AsRef<[u8]> for Turning<'_> {
    fn as_ref(&self) -> &[u8] {
        self.bytes[usize::from(self.is_turned.get())].bytes()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Only results may change: kernels use weights only as numbers, and tables of offsets are
    /// copied before the inference.
    #[test]
    fn weights_that_change_after_parsing_do_not_cause_invalid_accesses(
        numbers in vec(any::<u32>(), 20..200),
        size in (1u32..9, 1u32..9, prop_oneof![1u32..5, Just(16), Just(32), 30u32..70]),
        steps in 1usize..7,
        threads in 1usize..4,
    ) {
        let shape = [size.0, size.1, size.2];
        let mut net = begin(shape, &numbers);
        for _ in 0..steps {
            net.grow();
        }
        let Net { mut builder, tensors, .. } = net;
        leave(&mut builder, tensors[tensors.len() - 1]);
        let built = builder.finish().unwrap();
        let program = Program::parse(&built.code[..], &built.weights[..]).unwrap();
        let input = picture(&numbers, shape);
        for kernels in supported().filter_map(Tables::for_isa) {
            let packed = program.pack(Some(kernels.packing())).unwrap();
            let mut others = packed.clone();
            for (byte, number) in others.bytes_mut().iter_mut().zip(numbers.iter().cycle()) {
                *byte = byte.wrapping_mul(31) ^ (number >> 13) as u8;
            }
            let is_turned = Cell::new(false);
            let turning = |bytes| Turning { is_turned: &is_turned, bytes };
            let code = turning([(); 2].map(|()| Aligned::copied(&built.code)));
            let weights = turning([packed, others]);
            let packed = Program::parse_packed(code, weights, kernels.packing()).unwrap();
            let executor = Executor::new(packed, kernels.isa()).unwrap();
            prop_assert!(executor.is_in_place());
            let mut arena = Guarded::new(executor.arena_bytes());
            for turned in [false, true] {
                is_turned.set(turned);
                let mut given = blank(&program);
                let mut outputs: Vec<Output<'_>> =
                    given.iter_mut().map(|output| Output::I8(output)).collect();
                let inputs = &[Input::F32(&input)];
                executor.run(&Backwards(threads), arena.bytes(), inputs, &mut outputs).unwrap();
            }
        }
    }
}

/// An inverted residual block: expand, depthwise filter, project, add the input.
#[test]
fn an_inverted_residual_block_needs_only_its_input_its_output_and_a_row_tile() {
    let numbers: Vec<u32> = (0..97u32).map(|x| x.wrapping_mul(2_654_435_761)).collect();
    let shape = [32, 32, 8];
    let mut net = begin(shape, &numbers);
    let x = net.tensors[0].0;
    let point = Window { kernel: [1, 1], stride: [1, 1], dilation: [1, 1], pad: [0, 0] };
    let around = Window { kernel: [3, 3], pad: [1, 1], ..point };
    let wide = [32, 32, 48];
    let mut input = x;
    for (window, groups, shape, residual) in
        [(point, 1, wide, None), (around, 48, wide, None), (point, 1, shape, Some(x))]
    {
        let output = net.tensor(shape);
        let inputs = net.builder.get(input).unwrap().channels;
        let [height, width] = window.kernel.map(u32::from);
        let depth = height * width * inputs / groups;
        let weights = net.choices.weights((depth * shape[2]) as usize);
        let count = shape[2] as usize;
        let layer = Layer {
            input,
            output,
            window,
            groups,
            weights: &weights,
            weight_scales: &vec![0.01; count],
            bias: &vec![7; count],
            residual,
            clamp: Clamp::FULL,
        };
        net.builder.conv("", &layer).unwrap();
        input = output;
    }
    let mut builder = net.builder;
    leave(&mut builder, (input, shape));
    let whole = builder.clone().finish().unwrap();
    assert_eq!(whole.plan.arena_bytes, 2 * 32 * 32 * 48 + 32 * 32 * 8);
    let built = builder.clone().limit_arena(28 << 10).finish().unwrap();
    let program = Program::parse(&built.code[..], &built.weights[..]).unwrap();
    let input = picture(&numbers, shape);
    let expected = defined(&Program::parse(&whole.code[..], &whole.weights[..]).unwrap(), &input);
    assert_eq!(defined(&program, &input), expected);
    // Its input and output alone are 16 KiB.
    let error = builder.limit_arena(16 << 10).finish();
    assert!(matches!(error, Err(BuildError::ArenaLimit { least: 16385.., .. })));
}
