//! Replaces the partitions of a calibrated model by programs.

use std::collections::HashMap;

use hardtack::Tensor;
use hardtack::internal::{Constant, Model, Program};
use hardtack_bundle::DType;
use hardtack_bundle::graph::{
    Binary, DequantizeLinear, Fact, Node, Operator, QuantizeLinear, ValueId,
};

use super::{Lowered, PortPart, PortSource};
use crate::graph::rewriter::Rewriter;
use crate::quantize::calibrate::Calibration;
use crate::quantize::partition::{self, FloatReasons, Int16Nodes, Partition};
use crate::quantize::scale::Quantization;

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

/// The parts of values that are rounded to a scale and zero point, computed in float.
type HighParts = HashMap<(ValueId, u32, i8), ValueId>;

/// Returns the part of a value that a program reads, computed in float.
fn read(rewriter: &mut Rewriter, high_parts: &mut HighParts, source: PortSource) -> ValueId {
    let PortSource { value_id, part } = source;
    let (PortPart::High(to) | PortPart::Low(to)) = part else { return value_id };
    let high = *high_parts
        .entry((value_id, to.scale.to_bits(), to.zero_point))
        .or_insert_with(|| high_part(rewriter, value_id, to));
    if let PortPart::High(_) = part {
        return high;
    }
    let outputs = vec![rewriter.model.graph.fact(value_id).clone()];
    let name = format!("{}.low", rewriter.node(high.node as usize).name);
    let operator = Operator::Binary(Binary::Subtract);
    rewriter.add(Node { name, operator, inputs: vec![value_id, high], outputs })
}

/// Adds the nodes that round a value to a scale and zero point.
fn high_part(rewriter: &mut Rewriter, value_id: ValueId, to: Quantization) -> ValueId {
    let fact = rewriter.model.graph.fact(value_id).clone();
    let of = rewriter.node(value_id.node as usize).name.clone();
    let name = format!("{of}.rounded{}", rewriter.model.graph.nodes.len());
    let mut constant = |part: &str, tensor: Tensor| {
        rewriter.add_constant(format!("{name}.{part}"), Constant::Tensor(tensor.into()))
    };
    let scale = constant("scale", Tensor::scalar(to.scale));
    let zero = constant("zero-point", Tensor::scalar(to.zero_point));
    let mut node = |part: &str, operator: Operator, inputs: Vec<ValueId>, dtype: DType| {
        let outputs = vec![Fact { dtype, ..fact.clone() }];
        rewriter.add(Node { name: format!("{name}.{part}"), operator, inputs, outputs })
    };
    let quantize = Operator::QuantizeLinear(QuantizeLinear { dtype: DType::I8, axis: None });
    let integers = node("integers", quantize, vec![value_id, scale, zero], DType::I8);
    let dequantize = Operator::DequantizeLinear(DequantizeLinear { dtype: DType::F32, axis: None });
    node("high", dequantize, vec![integers, scale, zero], DType::F32)
}

/// Replaces each partition by its program.
pub(crate) fn assemble(model: Model, partitions: &[Partition], lowered: Vec<Lowered>) -> Model {
    let mut rewriter = Rewriter::new(model);
    let mut high_parts = HighParts::new();
    for (partition, lowered) in partitions.iter().zip(lowered) {
        let index = rewriter.model.programs.len();
        let graph = &rewriter.model.graph;
        let last = partition.nodes.last().map(|last| graph.nodes[*last].name.as_str());
        let name = format!("{}.int8", last.unwrap_or("program"));
        let outputs = lowered.outputs.iter().map(|value_id| graph.fact(*value_id).clone());
        let outputs = outputs.collect();
        let inputs = lowered.inputs.iter();
        let inputs = inputs.map(|input| read(&mut rewriter, &mut high_parts, *input));
        let inputs = inputs.collect();
        let program = Node { name, operator: Operator::Program(index as u32), outputs, inputs };
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
