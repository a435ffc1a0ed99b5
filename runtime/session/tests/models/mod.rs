//! Builds small integer bundles by hand.
#![allow(dead_code, reason = "each test uses only part of this module")]

use hardtack_bundle::golden::{Content, GoldenBuilder, GoldenTensor};
use hardtack_bundle::graph::{Dim, Fact, Graph, Node, Operator, ValueId};
use hardtack_bundle::manifest::{Extent, Layout, Manifest, Port, Provenance, State};
use hardtack_bundle::{DType, Family, SectionKind, Writer};
use hardtack_engine::program::{Clamp, CopyLayout, PortType};
use hardtack_engine::{Builder, Built};

/// Creates an input or output without quantization.
pub fn port(name: &'static str, dtype: DType, shape: &[Extent<'static>]) -> Port<'static> {
    let shape = shape.iter().copied().collect();
    Port { name, dtype, shape, layout: Layout::Plain, quantization: None }
}

/// Creates a manifest of these inputs, outputs and states.
pub fn manifest(
    inputs: &[Port<'static>],
    outputs: &[Port<'static>],
    states: &[State],
) -> Manifest<'static> {
    Manifest {
        name: "hand-made",
        version: "",
        inputs: inputs.iter().cloned().collect(),
        outputs: outputs.iter().cloned().collect(),
        states: states.iter().copied().collect(),
        provenance: Provenance {
            source_digest: [0; 32],
            source_bytes: 0,
            producer: "",
            opset: 17,
            converter: "",
            options: Default::default(),
        },
        figures: Default::default(),
        float_operators: Default::default(),
        arena_bytes: 0,
        needs_float: false,
        prepared: true,
    }
}

/// Creates a graph of the inputs, one program and its outputs, as the manifest lists them.
pub fn graph(manifest: &Manifest<'_>) -> Graph {
    let mut graph = Graph { symbols: vec!["batch".into()], ..Graph::default() };
    let fact = |port: &Port<'_>| {
        let dim = |extent: &Extent<'_>| match extent {
            Extent::Fixed(size) => Dim::Value(*size as i64),
            Extent::Named(_) => Dim::symbol(0),
        };
        Fact { dtype: port.dtype, shape: port.shape.iter().map(dim).collect() }
    };
    for port in &manifest.inputs {
        graph.inputs.push(graph.nodes.len() as u32);
        graph.nodes.push(Node {
            name: port.name.into(),
            operator: Operator::Input,
            inputs: vec![],
            outputs: vec![fact(port)],
        });
    }
    let program = graph.nodes.len() as u32;
    graph.nodes.push(Node {
        name: "region".into(),
        operator: Operator::Program(0),
        inputs: graph.inputs.iter().map(|node| ValueId { node: *node, output: 0 }).collect(),
        outputs: manifest.outputs.iter().map(fact).collect(),
    });
    for (slot, port) in (0..).zip(&manifest.outputs) {
        graph.outputs.push(ValueId { node: program, output: slot });
        graph.output_names.push(port.name.into());
    }
    graph
}

/// Creates a writer with manifest, graph, program and weights.
pub fn writer(manifest: &Manifest<'_>, built: &Built) -> Writer<'static> {
    let mut writer = Writer::new();
    let arena_bytes = built.plan.arena_bytes.into();
    let manifest = &Manifest { arena_bytes, ..manifest.clone() };
    writer.manifest(manifest).unwrap().graph(&graph(manifest)).unwrap();
    writer.section(SectionKind::Program(0), built.code.clone()).unwrap();
    let weights = SectionKind::Weights { family: Family::Mcu, program: 0 };
    writer.section(weights, built.weights.clone()).unwrap();
    writer
}

/// Computes `y`, f32[batch, 4], from `x`, f32[batch, 4]: the maximum of x and 0, quantized to
/// multiples of 0.5. Has a test vector for [-1, 0, 1, 2].
pub fn relu() -> Writer<'static> {
    let shape = [Extent::Named("batch"), Extent::Fixed(4)];
    let manifest =
        manifest(&[port("x", DType::F32, &shape)], &[port("y", DType::F32, &shape)], &[]);
    let mut b = Builder::new();
    let (x, y) = (b.input(PortType::F32, 4), b.output(PortType::F32, 4));
    let input = b.tensor("x", [1, 1, 4], 0.5, 0);
    let output = b.tensor("y", [1, 1, 4], 0.5, 0);
    b.quantize("quantize", x, input, CopyLayout::contiguous(4)).unwrap();
    b.lookup("relu", input, output, |x| x.max(0.0)).unwrap();
    b.dequantize("dequantize", output, y, CopyLayout::contiguous(4));
    let mut writer = writer(&manifest, &b.finish().unwrap());

    let bytes = |values: [f32; 4]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>();
    let (x, y) = (bytes([-1.0, 0.0, 1.0, 2.0]), bytes([0.0, 0.0, 1.0, 2.0]));
    let vector = |name, bytes| GoldenTensor {
        name,
        dtype: DType::F32,
        shape: &[1, 4],
        content: Content::Stored(bytes),
        tolerance: 0.0,
    };
    let mut golden = GoldenBuilder::new();
    golden.case(&[vector("x", &x)], &[vector("y", &y)]).unwrap();
    writer.section(SectionKind::Golden, golden.finish()).unwrap();
    writer.labels(["a", "b", "c", "d"]).unwrap();
    writer
}

/// Computes `y` and `next` from `x` and `sum`, all i8[batch, 4]; both are the sum of the inputs.
/// `next` feeds `sum`.
pub fn counter() -> Writer<'static> {
    let shape = [Extent::Named("batch"), Extent::Fixed(4)];
    let i8s = |name| port(name, DType::I8, &shape);
    let manifest = manifest(
        &[i8s("x"), i8s("sum")],
        &[i8s("y"), i8s("next")],
        &[State { input: 1, output: 1 }],
    );
    let mut b = Builder::new();
    let (x, sum) = (b.input(PortType::I8, 4), b.input(PortType::I8, 4));
    let (y, next) = (b.output(PortType::I8, 4), b.output(PortType::I8, 4));
    let inputs = [b.tensor("x", [1, 1, 4], 1.0, 0), b.tensor("sum", [1, 1, 4], 1.0, 0)];
    let output = b.tensor("y", [1, 1, 4], 1.0, 0);
    b.quantize("x", x, inputs[0], CopyLayout::contiguous(4)).unwrap();
    b.quantize("sum", sum, inputs[1], CopyLayout::contiguous(4)).unwrap();
    b.add("add", inputs, output, Clamp::FULL).unwrap();
    b.dequantize("y", output, y, CopyLayout::contiguous(4));
    b.dequantize("next", output, next, CopyLayout::contiguous(4));
    writer(&manifest, &b.finish().unwrap())
}
