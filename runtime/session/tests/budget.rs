//! Graphs of a few nodes that would take more memory, operations or time than their limits, in ways
//! that the sizes of their values do not show.
#![cfg(feature = "float")]

mod graphs;
mod models;

use std::time::{Duration, Instant};

use graphs::{Sketch, fact, tensor};
use hardtack::float::{Error, FloatModel};
use hardtack::{
    Bundle, DType, Exceeded, Limits, Resource, Session, SessionOptions, Stopped, Tensor,
};
use hardtack_bundle::Writer;
use hardtack_bundle::graph::*;
use hardtack_bundle::manifest::{Extent, Manifest};

/// Plans a graph whose inputs have these shapes.
fn plan(sketch: Sketch, shapes: &[&[usize]], limits: Limits) -> Result<(), Error> {
    let model = sketch.model();
    for prepared in [false, true] {
        FloatModel::load_with(&model, prepared, limits)?.plan(shapes)?;
    }
    Ok(())
}

fn memory(bytes: u64) -> Limits {
    Limits::default().with_memory_bytes(bytes)
}

fn exceeded(planned: Result<(), Error>, resource: Resource) -> u64 {
    match planned {
        Err(Error::Exceeded(Exceeded { resource: of, needed, limit })) if of == resource => {
            assert!(needed > limit);
            needed
        }
        planned => panic!("{planned:?}"),
    }
}

fn f32s(shape: &[i64]) -> Vec<Fact> {
    vec![fact(DType::F32, shape)]
}

fn sum(sketch: &mut Sketch, value: ValueId, other: ValueId) -> ValueId {
    sketch.node(Operator::Binary(Binary::Add), &[value, other], f32s(&[1]))
}

fn largest(sketch: &mut Sketch, value: ValueId) -> ValueId {
    let reduce = Reduce { axes: vec![0], reducer: Reducer::Maximum };
    sketch.node(Operator::Reduce(reduce), &[value], f32s(&[1]))
}

/// The number of elements of a value of almost 4 MiB.
const WIDE: i64 = (1 << 20) - 1000;

#[test]
fn constants_computed_while_loading_count_together() {
    let constants = |count: i64| {
        let mut sketch = Sketch::default();
        let mut value = sketch.input(DType::F32, &[1]);
        let one = sketch.constant(tensor(&[1], &[1f32]));
        for wider in 0..count {
            let size = [Dim::Value(WIDE + wider)];
            let wide = sketch.node(Operator::Broadcast(size.into()), &[one], f32s(&[WIDE + wider]));
            let most = largest(&mut sketch, wide);
            value = sum(&mut sketch, value, most);
        }
        sketch.output(value);
        plan(sketch, &[&[1]], memory(16 << 20))
    };
    constants(2).unwrap();
    exceeded(constants(8), Resource::Memory);
}

#[test]
fn values_inside_bodies_count() {
    let branch = |alive: i64| {
        let mut body = Sketch::default();
        let x = body.input(DType::F32, &[1]);
        let mut wide = Vec::new();
        let mut value = x;
        for wider in 0..alive {
            let (size, stated) = ([Dim::Value(WIDE + wider)], f32s(&[WIDE + wider]));
            let broad = body.node(Operator::Broadcast(size.into()), &[x], stated.clone());
            let cumulated = CumSum { axis: 0, exclusive: false, reverse: false };
            let cumulated = body.node(Operator::CumSum(cumulated), &[broad], stated.clone());
            let most = largest(&mut body, cumulated);
            value = sum(&mut body, value, most);
            wide.push((cumulated, stated));
        }
        for (cumulated, stated) in wide {
            let shifted = Operator::Binary(Binary::Add);
            let shifted = body.node(shifted, &[cumulated, value], stated);
            value = largest(&mut body, shifted);
        }
        body.output(value);
        let mut other = Sketch::default();
        let x = other.input(DType::F32, &[1]);
        let negative = other.node(Operator::Unary(Unary::Negate), &[x], f32s(&[1]));
        other.output(negative);

        let mut sketch = Sketch::default();
        let x = sketch.input(DType::F32, &[1]);
        let condition = sketch.input(DType::Bool, &[1]);
        let branch = If { then_body: 0, then_inputs: vec![1], else_body: 1, else_inputs: vec![1] };
        let y = sketch.node(Operator::If(branch), &[condition, x], f32s(&[1]));
        sketch.output(y);
        sketch.graph.bodies = vec![body.graph, other.graph];
        plan(sketch, &[&[1], &[1]], memory(32 << 20))
    };
    branch(2).unwrap();
    assert!(exceeded(branch(16), Resource::Memory) > 64 << 20);
}

#[test]
fn products_of_one_matrix_share_it() {
    const SIZE: usize = 512;
    let products = |shared: bool| {
        let mut sketch = Sketch::default();
        let mut x = sketch.input(DType::F32, &[1, SIZE as i64]);
        let scale = sketch.constant(tensor(&[1], &[0.001f32]));
        let zero_point = sketch.constant(tensor(&[1], &[0i8]));
        let mut weights = None;
        for index in 0..8i8 {
            let matrix = || tensor(&[SIZE, SIZE], &vec![index + 1; SIZE * SIZE]);
            let of_product = match weights {
                Some(weights) if shared => weights,
                _ => sketch.constant(matrix()),
            };
            weights = Some(of_product);
            let product = Operator::DynamicMatMul(DynamicMatMul { per_row: false });
            let inputs = [x, of_product, scale, zero_point];
            x = sketch.node(product, &inputs, f32s(&[1, SIZE as i64]));
        }
        sketch.output(x);
        plan(sketch, &[&[1, SIZE]], memory(1 << 20))
    };
    products(true).unwrap();
    exceeded(products(false), Resource::Memory);
}

#[test]
fn lists_of_windows_count() {
    let pools = |count: usize| {
        let mut sketch = Sketch::default();
        let mut x = sketch.input(DType::F32, &[1, 1, 1, 1]);
        for _ in 0..count {
            let window = Window {
                layout: ImageLayout::Nchw,
                kernel: vec![200, 200],
                strides: vec![200, 200],
                dilations: vec![1, 1],
                padding: Padding::SameUpper,
                input_channels: 1,
                output_channels: 1,
            };
            let pool = Operator::MaxPool(MaxPool { window, index_dtype: None });
            x = sketch.node(pool, &[x], f32s(&[1, 1, 1, 1]));
        }
        sketch.output(x);
        plan(sketch, &[&[1, 1, 1, 1]], memory(64 << 20))
    };
    pools(1).unwrap();
    exceeded(pools(40), Resource::Memory);
}

#[test]
fn costly_constants_are_rejected() {
    let constant = |kernel: u32| {
        let wide = 40_000i64;
        let mut sketch = Sketch::default();
        let x = sketch.input(DType::F32, &[1, 1, 1]);
        let image = sketch.constant(tensor(&[1, 1, 100], &[1f32; 100]));
        let tiles = vec![Dim::Value(1), Dim::Value(1), Dim::Value(wide / 100)];
        let image = sketch.node(Operator::Tile(tiles), &[image], f32s(&[1, 1, wide]));
        let window = Window {
            layout: ImageLayout::Nchw,
            kernel: vec![kernel],
            strides: vec![1],
            dilations: vec![1],
            padding: Padding::Valid,
            input_channels: 1,
            output_channels: 1,
        };
        let sum = SumPool { window, count_include_pad: false, average: false };
        let pooled = f32s(&[1, 1, wide - i64::from(kernel) + 1]);
        let pooled = sketch.node(Operator::SumPool(sum), &[image], pooled);
        let reduce = Operator::Reduce(Reduce { axes: vec![2], reducer: Reducer::Maximum });
        let most = sketch.node(reduce, &[pooled], f32s(&[1, 1, 1]));
        let y = sketch.node(Operator::Binary(Binary::Add), &[x, most], f32s(&[1, 1, 1]));
        sketch.output(y);
        plan(sketch, &[&[1, 1, 1]], Limits::default())
    };
    constant(1000).unwrap();
    let error = constant(20_000).unwrap_err();
    assert!(error.to_string().contains("too many operations"), "{error}");
}

#[test]
fn the_paths_of_trees_count_as_operations() {
    let forest = |nodes: u32, roots: usize, constant: bool| {
        let mut sketch = Sketch::default();
        let mut x = sketch.input(DType::F32, &[1, 1]);
        if constant {
            x = sketch.constant(tensor(&[1, 1], &[1f32]));
        }
        let count = nodes as usize;
        let mut inputs = vec![x];
        for list in [
            tensor(&[count], &vec![0u32; count]),
            tensor(&[count], &vec![1e9f32; count]),
            tensor(&[count], &vec![0u8; count]),
            tensor(&[count], &(0..nodes).map(|n| (n + 1).min(nodes - 1)).collect::<Vec<_>>()),
            tensor(&[count], &vec![nodes - 1; count]),
            tensor(&[count], &vec![false; count]),
            tensor(&[roots], &vec![0u32; roots]),
            tensor(&[1], &[nodes - 1]),
            tensor(&[1], &[0u32]),
            tensor(&[1], &[1f32]),
            tensor(&[0], &[0f32; 0]),
        ] {
            inputs.push(sketch.constant(list));
        }
        let trees = TreeEnsemble {
            targets: 1,
            aggregate: TreeAggregate::Sum,
            transform: TreeTransform::None,
            binary: false,
        };
        let y = sketch.node(Operator::TreeEnsemble(trees), &inputs, f32s(&[1, 1]));
        sketch.output(y);
        plan(sketch, &[&[1, 1]], Limits::default().with_operations(1 << 20))
    };
    for constant in [false, true] {
        forest(100, 100, constant).unwrap();
        let needed = exceeded(forest(2000, 2000, constant), Resource::Operations);
        assert!(needed >= 4_000_000, "{needed}");
    }
}

/// Creates a bundle of a graph without constants.
fn bundle(sketch: Sketch, ports: &[(&'static str, DType, &[u64])], y: (DType, &[u64])) -> Bundle {
    let port = |(name, dtype, shape): (&'static str, DType, &[u64])| {
        let shape: Vec<Extent<'static>> = shape.iter().map(|size| Extent::Fixed(*size)).collect();
        models::port(name, dtype, &shape)
    };
    let inputs: Vec<_> =
        ports.iter().map(|(name, dtype, shape)| port((name, *dtype, shape))).collect();
    let outputs = [port(("y", y.0, y.1))];
    let manifest = models::manifest(&inputs, &outputs, &[]);
    let manifest = Manifest { needs_float: true, prepared: false, ..manifest };
    let mut graph = sketch.graph;
    for (input, (name, ..)) in graph.inputs.clone().into_iter().zip(ports) {
        graph.nodes[input as usize].name = (*name).into();
    }
    graph.output_names = vec!["y".into()];
    let mut writer = Writer::new();
    writer.manifest(&manifest).unwrap().graph(&graph).unwrap();
    Bundle::from_bytes(writer.finish().unwrap()).unwrap()
}

fn run(bundle: &Bundle, limits: Limits, inputs: &[(&str, &Tensor)]) -> Result<(), hardtack::Error> {
    let options = SessionOptions { limits, ..SessionOptions::default() };
    Session::with_options(bundle, options)?.run(inputs).map(drop)
}

#[test]
fn slices_of_a_loop_stay_charged() {
    let (iterations, u) = (32i64, || Dim::symbol(0));
    let i64s = |shape: &[Dim]| vec![Fact { dtype: DType::I64, shape: shape.to_vec() }];
    let mut body = Sketch::default();
    let start = body.input(DType::I64, &[1]);
    let end = body.input(DType::I64, &[]);
    let step = body.input(DType::I64, &[]);
    let start = body.node(Operator::RemoveAxis(0), &[start], vec![fact(DType::I64, &[])]);
    let range = body.node(Operator::Range(u()), &[start, end, step], i64s(&[u()]));
    let row = body.node(Operator::AddAxis(0), &[range], i64s(&[Dim::Value(1), u()]));
    body.output(row);

    let mut sketch = Sketch::default();
    sketch.graph.symbols = vec!["u".into()];
    let starts = sketch.input(DType::I64, &[iterations]);
    let (end, step) = (sketch.input(DType::I64, &[]), sketch.input(DType::I64, &[]));
    let slice = ScanSlice { axis: 0, chunk: 1 };
    let scan = Scan {
        body: 0,
        skip: 0,
        reset_every_turn: true,
        external_state: false,
        inputs: vec![ScanInput::Slice(slice), ScanInput::Full, ScanInput::Full],
        outputs: vec![ScanOutput {
            slices: Some((0, slice)),
            full_dim: None,
            last_value: None,
            state: false,
        }],
    };
    let rows = i64s(&[Dim::Value(iterations), u()]);
    let rows = sketch.node(Operator::Scan(scan), &[starts, end, step], rows);
    let reduce = |axis| Operator::Reduce(Reduce { axes: vec![axis], reducer: Reducer::Maximum });
    let most = i64s(&[Dim::Value(iterations), Dim::Value(1)]);
    let most = sketch.node(reduce(1), &[rows], most);
    let most = sketch.node(reduce(0), &[most], i64s(&[Dim::Value(1), Dim::Value(1)]));
    sketch.output(most);
    sketch.graph.bodies = vec![body.graph];
    let ports: [(&str, DType, &[u64]); 3] = [
        ("starts", DType::I64, &[iterations as u64]),
        ("end", DType::I64, &[]),
        ("step", DType::I64, &[]),
    ];
    let bundle = bundle(sketch, &ports, (DType::I64, &[1, 1]));
    let starts = tensor(&[iterations as usize], &vec![0i64; iterations as usize]);
    let run = |end: i64| {
        let (end, step) = (tensor(&[], &[end]), tensor(&[], &[1i64]));
        let inputs = [("starts", &starts), ("end", &end), ("step", &step)];
        run(&bundle, memory(16 << 20), &inputs)
    };
    run(1000).unwrap();
    // One iteration takes 2 MiB, all of them take 32 MiB.
    let error = run(1 << 17).unwrap_err();
    let memory = matches!(&error, hardtack::Error::Exceeded(it) if it.resource == Resource::Memory);
    assert!(memory, "{error}");
}

#[test]
fn planning_ends_with_the_time() {
    let mut sketch = Sketch::default();
    let mut value = sketch.input(DType::F32, &[2]);
    for _ in 0..2000 {
        value = sketch.node(Operator::AddAxis(0), &[value], f32s(&[1, 2]));
        let sum = Operator::CumSum(CumSum { axis: 1, exclusive: false, reverse: false });
        value = sketch.node(sum, &[value], f32s(&[1, 2]));
        value = sketch.node(Operator::RemoveAxis(0), &[value], f32s(&[2]));
    }
    sketch.output(value);
    let bundle = bundle(sketch, &[("x", DType::F32, &[2])], (DType::F32, &[2]));
    let x = tensor(&[2], &[1f32, 2.0]);
    let timed = |limits: Limits| {
        let began = Instant::now();
        (run(&bundle, limits, &[("x", &x)]), began.elapsed())
    };
    let (result, whole) = timed(Limits::default());
    result.unwrap();
    let (result, short) = timed(Limits::default().with_run_time(Duration::from_millis(5)));
    assert!(matches!(result, Err(hardtack::Error::Stopped(Stopped::OutOfTime { .. }))));
    assert!(short < whole / 2, "{short:?} of {whole:?}");
}

#[test]
fn loading_ends_with_the_time() {
    let load = |symbols: &[&str]| {
        let mut sketch = Sketch::default();
        sketch.graph.symbols = symbols.iter().map(|name| name.to_string()).collect();
        let x = sketch.input(DType::F32, &[1]);
        sketch.output(x);
        let limits = Limits::default().with_run_time(Duration::from_nanos(1));
        FloatModel::load_with(&sketch.model(), false, limits)
    };
    // A graph with symbols is converted when it is loaded, any other when it is planned.
    let stopped = [load(&["u"]).err(), load(&[]).unwrap().plan(&[&[1]]).err()];
    for error in stopped.map(Option::unwrap) {
        assert!(matches!(error, Error::Stopped(Stopped::OutOfTime { .. })), "{error}");
    }
}
