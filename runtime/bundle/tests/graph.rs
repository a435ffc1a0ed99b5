//! Graphs survive encoding and decoding. Arbitrary bytes give an error or a consistent graph.
#![cfg(feature = "alloc")]

mod sample;

use std::collections::BTreeSet;

use hardtack_bundle::DType;
use hardtack_bundle::graph::*;
use proptest::prelude::*;

#[test]
fn the_sample_has_every_operator() {
    let graph = sample::operators::graph();
    let found: BTreeSet<u16> = graph.nodes.iter().map(|node| node.operator.id()).collect();
    let table: BTreeSet<u16> = Operator::TABLE.iter().map(|(id, _, _)| *id).collect();
    assert_eq!(found, table);
    assert!(Operator::TABLE.is_sorted_by(|a, b| a.0 < b.0), "numbers ascend");
    let bytes = graph.to_bytes().unwrap();
    assert_eq!(Graph::from_bytes(&bytes), Ok(graph));
}

#[test]
fn the_specification_lists_every_operator() {
    let text = include_str!("../FORMAT.md");
    let start = text.find("| Number | Version | Operator").unwrap();
    let rows = text[start..].lines().skip(2).take_while(|line| line.starts_with('|'));
    let listed: Vec<(u16, u8, &str)> = rows
        .map(|row| {
            let cells: Vec<_> = row.split('|').map(str::trim).collect();
            (cells[1].parse().unwrap(), cells[2].parse().unwrap(), cells[3])
        })
        .collect();
    assert_eq!(listed, Operator::TABLE);
}

#[test]
fn every_truncation_is_rejected() {
    let bytes = sample::operators::graph().to_bytes().unwrap();
    for length in 0..bytes.len() {
        assert!(Graph::from_bytes(&bytes[..length]).is_err(), "{length}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(Graph::from_bytes(&longer), Err(GraphError::Trailing(1)));
}

#[test]
fn an_unknown_operator_is_reported() {
    let mut graph = Graph::default();
    graph.nodes.push(Node {
        name: "odd".into(),
        operator: Operator::Input,
        inputs: vec![],
        outputs: vec![],
    });
    let mut bytes = graph.to_bytes().unwrap();
    let name = bytes.windows(3).position(|window| window == b"odd").unwrap();
    assert_eq!(bytes[name + 3], 1, "the number of the operator follows the name");
    bytes[name + 3] = 9;
    let error = Graph::from_bytes(&bytes).unwrap_err();
    assert_eq!(error, GraphError::UnknownOperator { node: "odd".into(), id: 9, version: 1 });
    assert!(error.to_string().contains("\"odd\" needs operator 9 version 1"), "{error}");
}

#[test]
fn an_excessive_length_allocates_little() {
    // Four nested lists of 2^32 - 1 elements.
    let bytes = [0xff, 0xff, 0xff, 0xff, 0x0f].repeat(4);
    assert!(Graph::from_bytes(&bytes).is_err());
}

/// A change to the sample graph that makes it inconsistent.
type Damage = fn(&mut Graph);

fn operator_mut(graph: &mut Graph, id: u16) -> &mut Node {
    graph.nodes.iter_mut().find(|node| node.operator.id() == id).unwrap()
}

#[test]
fn inconsistent_graphs_are_rejected() {
    let cases: &[(&str, Damage)] = &[
        ("a later input", |g| g.nodes[1].inputs[0].node = 1),
        ("an unknown output", |g| g.nodes[1].inputs[0].output = 1),
        ("an input that is none", |g| g.inputs[0] = 1),
        ("an input beyond the nodes", |g| g.inputs[0] = u32::MAX),
        ("an output beyond the nodes", |g| g.outputs[0].node = u32::MAX),
        ("a missing output name", |g| drop(g.output_names.pop())),
        ("a constant too far", |g| operator_mut(g, 2).operator = Operator::Constant(3)),
        ("a window too far", |g| {
            let stft = Stft { axis: 0, frame: 1, stride: 1, window: Some(3) };
            operator_mut(g, 81).operator = Operator::Stft(stft);
        }),
        ("a border too far", |g| {
            let pad = Pad { pads: vec![], mode: PadMode::Constant(3) };
            operator_mut(g, 49).operator = Operator::Pad(pad);
        }),
        ("an unknown symbol", |g| g.nodes[1].outputs[0].shape[0] = Dim::symbol(2)),
        ("a malformed dimension", |g| {
            operator_mut(g, 57).operator = Operator::Range(Dim::Expression(vec![]));
        }),
        ("a scale that is no input", |g| match &mut operator_mut(g, 28).operator {
            Operator::Resize(resize) => resize.sizes_input = Some(1),
            _ => unreachable!(),
        }),
        ("a body too far", |g| match &mut operator_mut(g, 70).operator {
            Operator::Scan(scan) => scan.body = 7,
            _ => unreachable!(),
        }),
        ("a body named twice", |g| match &mut operator_mut(g, 71).operator {
            Operator::If(branch) => branch.else_body = branch.then_body,
            _ => unreachable!(),
        }),
        ("a body that names itself", |g| match &mut operator_mut(&mut g.bodies[0], 71).operator {
            Operator::If(branch) => branch.then_body = 0,
            _ => unreachable!(),
        }),
        ("a scan with too many inputs", |g| match &mut operator_mut(g, 70).operator {
            Operator::Scan(scan) => scan.inputs.push(ScanInput::Full),
            _ => unreachable!(),
        }),
        ("a scan with an unknown output", |g| match &mut operator_mut(g, 70).operator {
            Operator::Scan(scan) => scan.outputs[0].last_value = Some(1),
            _ => unreachable!(),
        }),
        ("a branch with an unknown input", |g| match &mut operator_mut(g, 71).operator {
            Operator::If(branch) => branch.then_inputs[0] = 1,
            _ => unreachable!(),
        }),
        ("a body with constants", |g| g.bodies[0].symbols.push("n".into())),
    ];
    let failures: Vec<_> = cases
        .iter()
        .filter(|(_, damage)| {
            let mut graph = sample::operators::graph();
            damage(&mut graph);
            graph.check().is_ok()
        })
        .map(|(name, _)| name)
        .collect();
    assert!(failures.is_empty(), "accepted: {failures:?}");
}

#[test]
fn the_nesting_of_bodies_is_limited() {
    let nested = |depth: u32| {
        let branch = |body| {
            Operator::Scan(Scan {
                body,
                skip: 0,
                reset_every_turn: false,
                external_state: false,
                inputs: vec![],
                outputs: vec![],
            })
        };
        let level = |body| Graph {
            nodes: vec![Node {
                name: "n".into(),
                operator: branch(body),
                inputs: vec![],
                outputs: vec![],
            }],
            ..Graph::default()
        };
        let mut graph = level(0);
        graph.bodies = (1..depth).map(level).chain([Graph::default()]).collect();
        graph
    };
    assert_eq!(nested(16).check(), Ok(()));
    assert!(nested(17).check().is_err());
}

#[test]
fn constants_must_lie_in_their_section() {
    let graph = sample::operators::graph();
    assert_eq!(graph.check_constants(31), Ok(()));
    assert_eq!(graph.check_constants(30), Err(GraphError::Constant { index: 2 }));
    let first = &graph.constants[0];
    for wrong in [
        Constant { length: 11, ..first.clone() },
        Constant { offset: u64::MAX, ..first.clone() },
        Constant { shape: vec![u64::MAX, 2], ..first.clone() },
        Constant { dtype: DType::I16, ..first.clone() },
        Constant { shape: vec![1 << 40], dtype: DType::Dim, stored: DType::Dim, ..first.clone() },
    ] {
        let graph = Graph { constants: vec![wrong.clone()], ..Graph::default() };
        assert!(graph.check_constants(1 << 20).is_err(), "{wrong:?}");
    }
}

fn dims() -> impl Strategy<Value = Vec<Dim>> {
    let sum = |(symbol, value)| {
        Dim::Expression(vec![Token::Symbol(symbol), Token::Value(value), Token::Add(2)])
    };
    let dim = prop_oneof![
        any::<i64>().prop_map(Dim::Value),
        (0u32..2).prop_map(Dim::symbol),
        (0u32..2, any::<i64>()).prop_map(sum),
    ];
    prop::collection::vec(dim, 0..4)
}

fn facts() -> impl Strategy<Value = Vec<Fact>> {
    let dtype = (0u8..13).prop_map(|number| DType::from_number(number).unwrap());
    prop::collection::vec((dtype, dims()).prop_map(|(dtype, shape)| Fact { dtype, shape }), 1..3)
}

/// Random graphs over the operators of the sample.
fn graphs() -> impl Strategy<Value = Graph> {
    let node = ("[a-zä]{0,6}", any::<prop::sample::Index>(), any::<prop::sample::Index>(), facts());
    (prop::collection::vec(node, 1..20), dims()).prop_map(|(drawn, tile)| {
        let operators = sample::operators::plain();
        let mut graph = sample::operators::graph();
        graph.nodes.truncate(1);
        graph.bodies.clear();
        for (name, operator, input, outputs) in drawn {
            let input = ValueId { node: input.index(graph.nodes.len()) as u32, output: 0 };
            let operator = operators[operator.index(operators.len())].clone();
            graph.nodes.push(Node { name, operator, inputs: vec![input], outputs });
        }
        let last = graph.nodes.len() as u32 - 1;
        graph.outputs = vec![ValueId { node: last, output: 0 }];
        graph.output_names.truncate(1);
        graph.nodes.last_mut().unwrap().operator = Operator::Tile(tile);
        graph
    })
}

proptest! {
    #[test]
    fn graphs_survive_encoding(graph in graphs()) {
        let bytes = graph.to_bytes().unwrap();
        let read = Graph::from_bytes(&bytes);
        prop_assert_eq!(read.as_ref(), Ok(&graph));
        prop_assert_eq!(read.unwrap().to_bytes().unwrap(), bytes);
    }

    #[test]
    fn changed_bytes_give_an_error_or_a_consistent_graph(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
    ) {
        let mut bytes = sample::operators::graph().to_bytes().unwrap();
        let length = bytes.len();
        for (at, byte) in changes {
            bytes[at.index(length)] = byte;
        }
        if let Ok(graph) = Graph::from_bytes(&bytes) {
            prop_assert_eq!(graph.check(), Ok(()));
            let _ = graph.check_constants(64);
            for node in &graph.nodes {
                for dim in node.outputs.iter().flat_map(|fact| &fact.shape) {
                    let _ = dim.evaluate(&[Some(i64::MAX), Some(-1)]);
                }
            }
        }
    }
}
