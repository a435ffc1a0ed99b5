//! Values whose sizes no symbols give, and memory or time that the shapes of a plan do not show.
#![cfg(feature = "float")]

mod graphs;
mod models;

use std::time::{Duration, Instant};

use graphs::{Sketch, fact, tensor};
use hardtack::float::{Error, FloatModel};
use hardtack::internal::Constant;
use hardtack::{Bundle, DType, Limits, Session, SessionOptions, Tensor};
use hardtack_bundle::graph::*;
use hardtack_bundle::manifest::{Extent, Manifest};
use hardtack_bundle::{SectionKind, Writer};

/// Creates a bundle of a graph whose output has this rank and one element. Its constants have the
/// bytes `section`.
fn bundle(
    sketch: Sketch,
    ports: &[(&'static str, DType, &[u64])],
    rank: usize,
    section: &[u8],
) -> Bundle {
    let inputs: Vec<_> = ports
        .iter()
        .map(|(name, dtype, shape)| {
            let shape: Vec<Extent<'static>> =
                shape.iter().map(|size| Extent::Fixed(*size)).collect();
            models::port(name, *dtype, &shape)
        })
        .collect();
    let y = vec![Extent::Fixed(1); rank];
    let outputs = [models::port("y", DType::F32, &y)];
    let manifest = models::manifest(&inputs, &outputs, &[]);
    let manifest = Manifest { needs_float: true, prepared: false, ..manifest };
    let mut graph = sketch.graph;
    for (input, (name, ..)) in graph.inputs.clone().into_iter().zip(ports) {
        graph.nodes[input as usize].name = (*name).into();
    }
    graph.output_names = vec!["y".into()];
    let mut writer = Writer::new();
    writer.manifest(&manifest).unwrap().graph(&graph).unwrap();
    writer.section(SectionKind::Constants, section).unwrap();
    Bundle::from_bytes(writer.finish().unwrap()).unwrap()
}

fn run(bundle: &Bundle, inputs: &[(&str, &Tensor)]) -> Result<(), hardtack::Error> {
    let limits = Limits::default();
    let options = SessionOptions { limits, ..SessionOptions::default() };
    Session::with_options(bundle, options)?.run(inputs).map(drop)
}

fn product() -> Dim {
    Dim::Expression(vec![Token::Symbol(0), Token::Symbol(1), Token::Multiply(2)])
}

fn plus(dim: Dim, added: i64) -> Dim {
    match dim {
        Dim::Value(value) => Dim::Value(value + added),
        Dim::Expression(tokens) => Dim::Expression(
            tokens.into_iter().chain([Token::Value(added), Token::Add(2)]).collect(),
        ),
    }
}

fn f32s(shape: &[Dim]) -> Vec<Fact> {
    vec![Fact { dtype: DType::F32, shape: shape.to_vec() }]
}

/// Pads a value whose size is a product of symbols that nothing determines.
#[test]
fn pads_of_values_of_unknown_size_need_room() {
    for k in [Dim::symbol(0), product()] {
        let mut sketch = Sketch::default();
        sketch.graph.symbols = vec!["u".into(), "v".into()];
        let x = sketch.input(DType::F32, &[4, 4]);
        let count = sketch.input(DType::I64, &[1]);
        let top = Operator::TopK(TopK { axis: 1, largest: true, k: k.clone() });
        let shape = [Dim::Value(4), k.clone()];
        let facts = vec![
            Fact { dtype: DType::F32, shape: shape.to_vec() },
            Fact { dtype: DType::I64, shape: shape.to_vec() },
        ];
        let top = sketch.node(top, &[x, count], facts);
        // No constants, so the padding repeats the edge.
        let pad = Pad { pads: vec![(0, 1 << 21), (0, 1 << 22)], mode: PadMode::Edge };
        let wide = [Dim::Value(4 + (1 << 21)), plus(k, 1 << 22)];
        let y = sketch.node(Operator::Pad(pad), &[top], f32s(&wide));
        let most = |axis| Operator::Reduce(Reduce { axes: vec![axis], reducer: Reducer::Maximum });
        let y = sketch.node(most(0), &[y], f32s(&[Dim::Value(1), wide[1].clone()]));
        let y = sketch.node(most(1), &[y], f32s(&[Dim::Value(1), Dim::Value(1)]));
        sketch.output(y);
        let ports: [(&str, DType, &[u64]); 2] =
            [("x", DType::F32, &[4, 4]), ("k", DType::I64, &[1])];
        let bundle = bundle(sketch, &ports, 2, &[]);
        let (x, k) = (tensor(&[4, 4], &[1f32; 16]), tensor(&[1], &[2i64]));
        let error = run(&bundle, &[("x", &x), ("k", &k)]).unwrap_err();
        assert!(matches!(error, hardtack::Error::Exceeded(_)), "{error}");
    }
}

/// Gathers the matrix of a convolution over a value whose size is not known.
#[test]
fn matrices_of_convolutions_need_room() {
    let (size, kernel) = (1300i64, 256u32);
    let mut sketch = Sketch::default();
    sketch.graph.symbols = vec!["u".into()];
    let u = Dim::symbol(0);
    let x = sketch.input(DType::F32, &[1, 1, size, size]);
    let count = sketch.input(DType::I64, &[1]);
    let weights = sketch.input(DType::F32, &[1, 1, i64::from(kernel), i64::from(kernel)]);
    let bias = sketch.input(DType::F32, &[1]);
    let top = Operator::TopK(TopK { axis: 3, largest: true, k: u.clone() });
    let shape: Vec<Dim> = [1, 1, size].map(Dim::Value).into_iter().chain([u.clone()]).collect();
    let facts = [DType::F32, DType::I64].map(|dtype| Fact { dtype, shape: shape.clone() });
    let top = sketch.node(top, &[x, count], facts.into());
    let conv = Operator::Conv(Conv {
        window: Window {
            layout: ImageLayout::Nchw,
            kernel: vec![kernel; 2],
            strides: vec![1; 2],
            dilations: vec![1; 2],
            padding: Padding::Valid,
            input_channels: 1,
            output_channels: 1,
        },
        kernel_layout: KernelLayout::Oihw,
        groups: 1,
    });
    let less = 1 - i64::from(kernel);
    let shape = [Dim::Value(1), Dim::Value(1), Dim::Value(size + less), plus(u, less)];
    let y = sketch.node(conv, &[top, weights, bias], f32s(&shape));
    let reduce = Operator::Reduce(Reduce { axes: vec![2, 3], reducer: Reducer::Maximum });
    let y = sketch.node(reduce, &[y], vec![fact(DType::F32, &[1, 1, 1, 1])]);
    sketch.output(y);
    let (size, kernel) = (size as usize, kernel as usize);
    let (image, window) = ([1, 1, size as u64, size as u64], [1, 1, kernel as u64, kernel as u64]);
    let ports: [(&str, DType, &[u64]); 4] = [
        ("x", DType::F32, &image),
        ("k", DType::I64, &[1]),
        ("w", DType::F32, &window),
        ("b", DType::F32, &[1]),
    ];
    let bundle = bundle(sketch, &ports, 4, &[]);
    let x = tensor(&[1, 1, size, size], &vec![0f32; size * size]);
    let w = tensor(&[1, 1, kernel, kernel], &vec![1f32; kernel * kernel]);
    let run = |k: usize| {
        let (k, b) = (tensor(&[1], &[k as i64]), tensor(&[1], &[0f32]));
        run(&bundle, &[("x", &x), ("k", &k), ("w", &w), ("b", &b)])
    };
    // One column of windows takes 256 MiB, all of them 256 GiB.
    run(kernel).unwrap();
    let error = run(size).unwrap_err();
    assert!(matches!(error, hardtack::Error::Exceeded(_)), "{error}");
}

/// Bodies that multiply by the same matrix each pack it again.
#[test]
fn packed_matrices_of_bodies_count_together() {
    const SIZE: usize = 512;
    let plan = |count: u32| {
        let mut sketch = Sketch::default();
        let weights = sketch.store(tensor(&[SIZE, SIZE], &vec![0.5f32; SIZE * SIZE]));
        let shape = vec![fact(DType::F32, &[4, SIZE as i64])];
        let mut x = sketch.input(DType::F32, &[4, SIZE as i64]);
        let condition = sketch.input(DType::Bool, &[1]);
        for index in 0..count {
            let mut product = Sketch::default();
            let inner = product.input(DType::F32, &[4, SIZE as i64]);
            let stated = vec![fact(DType::F32, &[SIZE as i64, SIZE as i64])];
            let matrix = product.node(Operator::Constant(weights), &[], stated);
            let einsum = Einsum { expression: "mk,kn->mn".into(), accumulator: DType::F32 };
            let y = product.node(Operator::Einsum(einsum), &[inner, matrix], shape.clone());
            product.output(y);
            let mut other = Sketch::default();
            let inner = other.input(DType::F32, &[4, SIZE as i64]);
            let y = other.node(Operator::Unary(Unary::Negate), &[inner], shape.clone());
            other.output(y);
            sketch.graph.bodies.extend([product.graph, other.graph]);
            let branch = If {
                then_body: 2 * index,
                then_inputs: vec![1],
                else_body: 2 * index + 1,
                else_inputs: vec![1],
            };
            x = sketch.node(Operator::If(branch), &[condition, x], shape.clone());
        }
        sketch.output(x);
        let limits = Limits::default().with_memory_bytes(6 << 20);
        let model = FloatModel::load_with(&sketch.model(), false, limits)?;
        model.plan(&[&[4, SIZE], &[1]]).map(drop)
    };
    plan(2).unwrap();
    let error = plan(10).unwrap_err();
    assert!(matches!(error, Error::Exceeded(_)), "{error}");
}

/// Creates a bundle whose constants are the same bytes `count` times. It has a symbol, so that it
/// is converted when it is loaded.
fn repeated(stored: DType, bytes: usize, count: usize) -> Bundle {
    let size = bytes / stored.size().unwrap();
    let mut sketch = Sketch::default();
    sketch.graph.symbols = vec!["u".into()];
    let mut value = sketch.input(DType::F32, &[1]);
    for index in 0..count as u32 {
        sketch.graph.constants.push(hardtack_bundle::graph::Constant {
            dtype: DType::F32,
            stored,
            shape: vec![size as u64],
            offset: 0,
            length: bytes as u64,
        });
        let stated = vec![fact(DType::F32, &[size as i64])];
        let wide = sketch.node(Operator::Constant(index), &[], stated);
        let most = Operator::Reduce(Reduce { axes: vec![0], reducer: Reducer::Maximum });
        let most = sketch.node(most, &[wide], vec![fact(DType::F32, &[1])]);
        let sum = Operator::Binary(Binary::Add);
        value = sketch.node(sum, &[value, most], vec![fact(DType::F32, &[1])]);
    }
    sketch.output(value);
    bundle(sketch, &[("x", DType::F32, &[1])], 1, &vec![0; bytes])
}

/// Loads a bundle within 16 MiB.
fn load(bundle: &Bundle) -> Result<(), hardtack::Error> {
    let limits = Limits::default().with_memory_bytes(16 << 20);
    Session::with_options(bundle, SessionOptions { limits, ..SessionOptions::default() }).map(drop)
}

fn needed(loaded: Result<(), hardtack::Error>) -> u64 {
    match loaded {
        Err(hardtack::Error::Exceeded(exceeded)) => exceeded.needed,
        loaded => panic!("{loaded:?}"),
    }
}

#[test]
fn constants_count_before_they_are_copied() {
    const BYTES: usize = 1 << 20;
    let f32s = |count| load(&repeated(DType::F32, BYTES, count));
    f32s(16).unwrap();
    // All of them count, not only those up to the limit.
    assert_eq!(needed(f32s(32)), 32 << 20);
    // Half precision takes one part in the bundle's type and two parts as f32.
    let f16s = |count| load(&repeated(DType::F16, BYTES, count));
    f16s(5).unwrap();
    assert_eq!(needed(f16s(6)), 18 << 20);
}

/// The copies that dequantizing makes for a moment count too.
#[test]
fn copies_of_dequantized_constants_count() {
    let load = |axis: Option<u32>, dtype: DType| {
        const SIZE: usize = 1 << 20;
        let mut sketch = Sketch::default();
        sketch.graph.symbols = vec!["u".into()];
        let x = sketch.input(DType::F32, &[1]);
        let scale = sketch.constant(tensor(&[1], &[0.5f32]));
        let zero_point = sketch.constant(tensor(&[1], &[0i8]));
        let weights = sketch.constant(tensor(&[SIZE], &[1i8; SIZE]));
        let dequantize = Operator::DequantizeLinear(DequantizeLinear { dtype, axis });
        let inputs = [weights, scale, zero_point];
        sketch.node(dequantize, &inputs, vec![fact(dtype, &[SIZE as i64])]);
        sketch.output(x);
        let limits = Limits::default().with_memory_bytes(7 << 20);
        FloatModel::load_with(&sketch.model(), false, limits).map(drop)
    };
    // Two parts as integers, four parts as f32.
    load(None, DType::F32).unwrap();
    for error in [load(None, DType::F16), load(Some(0), DType::F32)].map(Result::unwrap_err) {
        assert!(matches!(error, Error::Exceeded(_)), "{error}");
    }
}

/// A value of unknown size has the memory that the plan leaves, however the plan is run.
#[test]
fn values_of_unknown_size_count_on_top_of_the_plan() {
    const SIZE: usize = 1 << 20;
    let mut sketch = Sketch::default();
    sketch.graph.symbols = vec!["u".into()];
    let x = sketch.input(DType::F32, &[SIZE as i64]);
    let count = sketch.input(DType::I64, &[1]);
    let exp =
        sketch.node(Operator::Unary(Unary::Exp), &[x], vec![fact(DType::F32, &[SIZE as i64])]);
    let top = Operator::TopK(TopK { axis: 0, largest: true, k: Dim::symbol(0) });
    let facts = [DType::F32, DType::I64];
    let facts = facts.map(|dtype| Fact { dtype, shape: vec![Dim::symbol(0)] });
    let top = sketch.node(top, &[exp, count], facts.into());
    let most = Operator::Reduce(Reduce { axes: vec![0], reducer: Reducer::Maximum });
    let most = sketch.node(most, &[top], vec![fact(DType::F32, &[1])]);
    sketch.output(most);
    // The plan takes 8 MiB, and the values of half of the elements take 6 MiB.
    let limits = Limits::default().with_memory_bytes(12 << 20);
    let x = tensor(&[SIZE], &[0.5f32; SIZE]);
    let model = FloatModel::load_with(&sketch.clone().model(), false, limits).unwrap();
    let ports: [(&str, DType, &[u64]); 2] =
        [("x", DType::F32, &[SIZE as u64]), ("k", DType::I64, &[1])];
    let bundle = bundle(sketch, &ports, 1, &[]);
    let run = |k: usize| {
        let k = tensor(&[1], &[k as i64]);
        let ran = model.plan(&[&[SIZE], &[1]]).unwrap().run(&[&x, &k]);
        let options = SessionOptions { limits, ..SessionOptions::default() };
        let mut session = Session::with_options(&bundle, options).unwrap();
        (ran, session.run(&[("x", &x), ("k", &k)]))
    };
    let (ran, of_session) = run(16);
    ran.unwrap();
    of_session.unwrap();
    let (ran, of_session) = run(SIZE / 2);
    assert!(matches!(ran, Err(Error::Exceeded(_))), "{ran:?}");
    assert!(matches!(of_session, Err(hardtack::Error::Exceeded(_))), "{of_session:?}");
}

/// Constants that tract would compute and discard in every pass, for longer than the time limit.
#[test]
fn discarded_constants_are_computed_when_the_model_runs() {
    let mut sketch = Sketch::default();
    let mut value = sketch.input(DType::F32, &[1, 16]);
    for index in 0..400i64 {
        let rows = (1 << 20) + index;
        let row = sketch.constant(tensor(&[1, 16], &[index as f32; 16]));
        let wide = [Dim::Value(rows), Dim::Value(16)];
        let wide = sketch.node(Operator::Broadcast(wide.to_vec()), &[row], f32s(&wide));
        let reduce = Operator::Reduce(Reduce { axes: vec![0], reducer: Reducer::Maximum });
        let most = sketch.node(reduce, &[wide], vec![fact(DType::F32, &[1, 16])]);
        let add = Operator::Binary(Binary::Add);
        value = sketch.node(add, &[value, most], vec![fact(DType::F32, &[1, 16])]);
    }
    sketch.output(value);
    let began = Instant::now();
    let model = FloatModel::load(&sketch.model(), false).unwrap();
    model.plan(&[&[1, 16]]).unwrap();
    // Computing all of them once takes 27 GB of writes.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

/// A constant of one dimension.
fn dims(sketch: &mut Sketch, tokens: Vec<Token>) -> ValueId {
    let index = sketch.constants.len() as u32;
    sketch.graph.constants.push(hardtack_bundle::graph::Constant {
        dtype: DType::Dim,
        stored: DType::Dim,
        shape: vec![1],
        offset: 0,
        length: 0,
    });
    sketch.constants.push(Constant::Dims { shape: vec![1], values: vec![Dim::Expression(tokens)] });
    sketch.node(Operator::Constant(index), &[], vec![fact(DType::Dim, &[1])])
}

/// A constant of a sum of symbols.
fn sum_of_symbols(sketch: &mut Sketch, terms: u32) -> ValueId {
    sketch.graph.symbols = (0..terms).map(|index| format!("s{index}")).collect();
    dims(sketch, (0..terms).map(Token::Symbol).chain([Token::Add(terms)]).collect())
}

#[test]
fn dimensions_count_with_their_terms() {
    let mut sketch = Sketch::default();
    let x = sketch.input(DType::F32, &[1]);
    let sum = sum_of_symbols(&mut sketch, 60);
    let many = 500_000;
    let all = Operator::Broadcast(vec![Dim::Value(many)]);
    sketch.node(all, &[sum], vec![fact(DType::Dim, &[many])]);
    sketch.output(x);
    let limits = Limits::default().with_memory_bytes(16 << 20);
    let error = FloatModel::load_with(&sketch.model(), false, limits).err().unwrap();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
}

#[test]
fn products_of_dimensions_are_bounded_when_the_model_runs() {
    let mut sketch = Sketch::default();
    let x = sketch.input(DType::I64, &[1]);
    let stated = || vec![fact(DType::Dim, &[1])];
    let sum = sum_of_symbols(&mut sketch, 6);
    let mut value = sketch.node(Operator::Cast(DType::Dim), &[x], stated());
    for _ in 0..9 {
        let more = sketch.node(Operator::Binary(Binary::Add), &[value, sum], stated());
        value = sketch.node(Operator::Binary(Binary::Multiply), &[value, more], stated());
    }
    let y = sketch.node(Operator::Cast(DType::I64), &[value], vec![fact(DType::I64, &[1])]);
    sketch.output(y);
    let began = Instant::now();
    let model = FloatModel::load(&sketch.model(), false).unwrap();
    let error = model.plan(&[&[1]]).unwrap().run(&[&tensor(&[1], &[3i64])]).unwrap_err();
    assert!(error.to_string().contains("too many terms"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

/// Multiplies one value by the values of many symbols.
#[test]
fn many_masks_of_a_value_are_planned_quickly() {
    let mut sketch = Sketch::default();
    let x = sketch.input(DType::I64, &[1]);
    let mut value = x;
    for index in 0..40 {
        sketch.graph.symbols.push(format!("s{index}"));
        let mask = dims(&mut sketch, vec![Token::Symbol(index)]);
        let cast = Operator::Cast(DType::I64);
        let mask = sketch.node(cast, &[mask], vec![fact(DType::I64, &[1])]);
        let product = Operator::Binary(Binary::Multiply);
        let product = sketch.node(product, &[x, mask], vec![fact(DType::I64, &[1])]);
        let add = Operator::Binary(Binary::Add);
        value = sketch.node(add, &[value, product], vec![fact(DType::I64, &[1])]);
    }
    sketch.output(value);
    let began = Instant::now();
    FloatModel::load(&sketch.model(), false).unwrap().plan(&[&[1]]).unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

/// Masks along each axis, by which tract splits every value into 2 parts per axis.
#[test]
fn values_are_not_split_without_limit() {
    let plan = |rank: usize| {
        let mut sketch = Sketch::default();
        // tract recognizes coordinates by such names.
        sketch.graph.symbols = vec!["\u{1F3AF}0".into()];
        let shape = vec![2i64; rank];
        let mut value = sketch.input(DType::F32, &shape);
        let one = sketch.constant(tensor(&vec![1; rank], &[1i64]));
        for axis in 0..rank {
            let coordinate = dims(&mut sketch, vec![Token::Symbol(0)]);
            let cast = Operator::Cast(DType::I64);
            let mut mask = sketch.node(cast, &[coordinate], vec![fact(DType::I64, &[1])]);
            for wider in 2..=rank {
                let at = if wider - 2 < axis { 0 } else { wider as u32 - 1 };
                let stated = vec![fact(DType::I64, &vec![1; wider])];
                mask = sketch.node(Operator::AddAxis(at), &[mask], stated);
            }
            let all = Operator::Broadcast(shape.iter().map(|size| Dim::Value(*size)).collect());
            mask = sketch.node(all, &[mask], vec![fact(DType::I64, &shape)]);
            let upper = Operator::Binary(Binary::GreaterOrEqual);
            mask = sketch.node(upper, &[mask, one], vec![fact(DType::Bool, &shape)]);
            let stated = vec![fact(DType::F32, &shape)];
            let exp = sketch.node(Operator::Unary(Unary::Exp), &[value], stated.clone());
            value = sketch.node(Operator::Select, &[mask, value, exp], stated);
        }
        sketch.output(value);
        FloatModel::load(&sketch.model(), false)?.plan(&[&vec![2; rank]]).map(drop)
    };
    plan(4).unwrap();
    let began = Instant::now();
    let error = plan(14).unwrap_err();
    assert!(error.to_string().contains("too complicated"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}
