//! An inference does not depend on the inferences before it.
#![cfg(feature = "float")]

mod graphs;

use hardtack::float::FloatModel;
use hardtack::internal::Model;
use hardtack::{DType, Tensor};
use hardtack_bundle::graph::{
    Binary, Dim, Fact, Operator, Scan, ScanInput, ScanOutput, ScanSlice, Unary, ValueId,
};
use proptest::prelude::*;

use crate::graphs::{Sketch, fact, tensor};

const HIDDEN: usize = 4;

/// Returns h ← tanh(0.7 · h + x) over a sequence x of any length. The initial state is an input, or
/// a constant. The outputs are all states and the last one.
fn recurrent(state_is_input: bool) -> Model {
    let hidden = [1, HIDDEN as i64];
    let mut body = Sketch::default();
    let (h, x) = (body.input(DType::F32, &hidden), body.input(DType::F32, &hidden));
    let add = |body: &mut Sketch, operator, inputs: &[ValueId]| {
        body.node(operator, inputs, vec![fact(DType::F32, &hidden)])
    };
    let factor = body.constant(tensor(&[1, 1], &[0.7f32]));
    let scaled = add(&mut body, Operator::Binary(Binary::Multiply), &[h, factor]);
    let sum = add(&mut body, Operator::Binary(Binary::Add), &[scaled, x]);
    let next = add(&mut body, Operator::Unary(Unary::Tanh), &[sum]);
    body.output(next);

    let mut sketch = Sketch::default();
    sketch.graph.symbols = vec!["length".into()];
    let sequence =
        Fact { dtype: DType::F32, shape: vec![Dim::symbol(0), Dim::Value(HIDDEN as i64)] };
    sketch.graph.inputs.push(0);
    let x = sketch.node(Operator::Input, &[], vec![sequence.clone()]);
    let start = match state_is_input {
        true => sketch.input(DType::F32, &hidden),
        false => sketch.constant(tensor(&[1, HIDDEN], &[0.5f32; HIDDEN])),
    };
    let slice = ScanSlice { axis: 0, chunk: 1 };
    let scan = Scan {
        body: 0,
        skip: 0,
        reset_every_turn: false,
        external_state: false,
        inputs: vec![ScanInput::State, ScanInput::Slice(slice)],
        outputs: vec![ScanOutput {
            slices: Some((0, slice)),
            full_dim: Some(Dim::symbol(0)),
            last_value: Some(1),
            state: true,
        }],
    };
    let facts = vec![sequence, fact(DType::F32, &hidden)];
    let scan = sketch.node(Operator::Scan(scan), &[start, x], facts);
    sketch.output(scan);
    // The constants of the body are those of the model.
    let constants = sketch.constants.len() as u32;
    for node in &mut body.graph.nodes {
        if let Operator::Constant(index) = &mut node.operator {
            *index += constants;
        }
    }
    sketch.graph.constants.append(&mut body.graph.constants);
    sketch.constants.append(&mut body.constants);
    sketch.graph.bodies = vec![body.graph];
    sketch.model()
}

/// Returns the bits of all outputs, so that NaN equals itself.
fn bits(outputs: &[Tensor]) -> Vec<Vec<u32>> {
    outputs.iter().map(|output| output.to_f32().iter().map(|x| x.to_bits()).collect()).collect()
}

fn sequences() -> impl Strategy<Value = Vec<Vec<f32>>> {
    let value = prop_oneof![8 => -2f32..2.0, 1 => Just(f32::NAN), 1 => Just(f32::INFINITY)];
    let sequence = (1usize..4)
        .prop_flat_map(move |length| proptest::collection::vec(value.clone(), length * HIDDEN));
    proptest::collection::vec(sequence, 2..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_loop_starts_from_its_initial_state(sequences in sequences(), state_is_input: bool) {
        let model = recurrent(state_is_input);
        let loaded = FloatModel::load(&model, false).unwrap();
        // One plan for each length, kept and used again as a session does.
        let mut plans = Vec::new();
        for (index, sequence) in sequences.iter().enumerate() {
            let mut inputs = vec![tensor(&[sequence.len() / HIDDEN, HIDDEN], sequence)];
            if state_is_input {
                inputs.push(tensor(&[1, HIDDEN], &[index as f32 / 4.0; HIDDEN]));
            }
            let shapes: Vec<&[usize]> = inputs.iter().map(Tensor::shape).collect();
            let inputs: Vec<&Tensor> = inputs.iter().collect();
            let fresh = loaded.plan(&shapes).unwrap().run(&inputs).unwrap();
            let place = plans.iter().position(|(length, _)| *length == sequence.len());
            let place = place.unwrap_or_else(|| {
                plans.push((sequence.len(), loaded.plan(&shapes).unwrap()));
                plans.len() - 1
            });
            let kept = plans[place].1.run(&inputs).unwrap();
            prop_assert_eq!(bits(&fresh), bits(&kept));
        }
    }
}
