//! Replaces the partitions of a calibrated model by programs.

use hardtack::internal::{Model, Program};
use hardtack_bundle::graph::{Binary, Node, Operator, ValueId};

use super::Lowered;
use crate::graph::rewriter::Rewriter;
use crate::quantize::calibrate::Calibration;
use crate::quantize::partition::{self, FloatReasons, Int16Nodes, Partition};

/// Lowers every partition, with int16 activations for the nodes `int16`. Nodes that cannot be
/// lowered are added to `float_reasons` and stay in float; the graph is then partitioned again.
pub(crate) fn lower(
    model: &Model,
    calibration: &Calibration,
    int16: &Int16Nodes,
    float_reasons: &mut FloatReasons,
) -> (Vec<Partition>, Vec<Lowered>) {
    loop {
        let partitions = partition::partitions(model, float_reasons);
        let mut lowered = Vec::new();
        let mut refused = false;
        for partition in &partitions {
            match super::lower(model, partition, calibration, int16) {
                Ok(program) => lowered.push(program),
                Err(error) => {
                    float_reasons.insert(error.node, error.reason);
                    refused = true;
                }
            }
        }
        if !refused {
            return (partitions, lowered);
        }
    }
}

/// Returns a model with every partition lowered and replaced by its program: see [`lower`].
pub(crate) fn quantized(
    model: &Model,
    calibration: &Calibration,
    int16: &Int16Nodes,
    float_reasons: &mut FloatReasons,
) -> Model {
    let (partitions, lowered) = lower(model, calibration, int16, float_reasons);
    assemble(model.clone(), &partitions, lowered)
}

/// Replaces each partition by its program.
pub(crate) fn assemble(model: Model, partitions: &[Partition], lowered: Vec<Lowered>) -> Model {
    let mut rewriter = Rewriter::new(model);
    for (partition, lowered) in partitions.iter().zip(lowered) {
        let index = rewriter.model.programs.len();
        let graph = &rewriter.model.graph;
        let last = partition.nodes.last().map(|last| graph.nodes[*last].name.as_str());
        let program = Node {
            name: format!("{}.int8", last.unwrap_or("program")),
            operator: Operator::Program(index as u32),
            outputs: lowered.outputs.iter().map(|value_id| graph.fact(*value_id).clone()).collect(),
            inputs: lowered.inputs.clone(),
        };
        rewriter.model.programs.push(Program {
            code: lowered.built.code.into(),
            weights: lowered.built.weights.into(),
            packing: None,
        });
        let node = rewriter.add(program).node;
        let ports = (0..)
            .zip(&lowered.outputs)
            .map(|(output, value_id)| (*value_id, ValueId { node, output }));
        let ports: Vec<(ValueId, ValueId)> = ports.collect();
        for ports in ports.chunk_by(|a, b| a.0 == b.0) {
            let value_id = ports[0].0;
            let value = match ports {
                [(_, high), (_, low)] => {
                    let own = &rewriter.model.graph.nodes[value_id.node as usize];
                    let sum = Node {
                        name: own.name.clone(),
                        operator: Operator::Binary(Binary::Add),
                        inputs: vec![*high, *low],
                        outputs: vec![rewriter.model.graph.fact(value_id).clone()],
                    };
                    rewriter.add(sum)
                }
                _ => ports[0].1,
            };
            rewriter.redirect(value_id, value);
        }
    }
    rewriter.finish()
}
