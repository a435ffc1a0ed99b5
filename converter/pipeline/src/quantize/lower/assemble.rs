//! Replaces the partitions of a calibrated model by programs.

use hardtack::internal::{Model, Program};
use hardtack_bundle::graph::{Node, Operator, ValueId};

use super::Lowered;
use crate::graph::rewriter::Rewriter;
use crate::quantize::calibrate::Calibration;
use crate::quantize::partition::{self, FloatReasons, Int16Nodes, Partition};

/// Lowers every partition, with int16 activations for the nodes `int16`. A node that cannot be
/// lowered is added to `float_reasons` and stays in float; the graph is then partitioned again.
pub(crate) fn lower(
    model: &Model,
    calibration: &Calibration,
    int16: &Int16Nodes,
    float_reasons: &mut FloatReasons,
) -> (Vec<Partition>, Vec<Lowered>) {
    loop {
        let partitions = partition::partitions(model, float_reasons);
        let lowered: Result<Vec<Lowered>, _> = partitions
            .iter()
            .map(|partition| super::lower(model, partition, calibration, int16))
            .collect();
        match lowered {
            Ok(lowered) => return (partitions, lowered),
            Err(error) => {
                float_reasons.insert(error.node, error.reason);
            }
        }
    }
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
        for (output, value_id) in lowered.outputs.iter().enumerate() {
            rewriter.redirect(*value_id, ValueId { node, output: output as u32 });
        }
    }
    rewriter.finish()
}
