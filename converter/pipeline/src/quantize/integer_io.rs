//! Makes a model take and return the integers of its program, as usual on microcontrollers: an
//! element is one byte, and the device converts nothing.

use hardtack::Tensor;
use hardtack::internal::{Model, Program};
use hardtack::process::Preprocessor;
use hardtack_bundle::DType;
use hardtack_bundle::graph::Operator;
use hardtack_bundle::manifest::Quantization;
use hardtack_engine::Builder;

use crate::error::Error;
use crate::graph::io::{Initial, Signature};
use crate::graph::summary::needs_float;
use crate::samples::{SampleSource, each};

/// Changes the float inputs and outputs of a model to integers, in the model and in the manifest's
/// description of them. Returns the samples with such inputs.
///
/// # Errors
/// Returns an error if parts of the model stay in float, or an input or output has several scales.
pub(crate) fn integer_io(
    model: &mut Model,
    signature: &mut Signature,
    samples: &dyn SampleSource,
) -> Result<Vec<Vec<Tensor>>, Error> {
    let (false, [program]) = (needs_float(&model.graph), &model.programs[..]) else {
        return Err(Error::Options(
            "--integer-io: parts of the model stay in float, so it cannot exchange integers; \
             convert without --integer-io to list these parts and the reasons"
                .into(),
        ));
    };
    let parsed = program.parse().expect("its builder checked it");
    let several = |name: &str| {
        Error::Options(format!(
            "--integer-io: the elements of {name:?} have several scales, so they cannot be \
             exchanged as integers"
        ))
    };
    let node = model.graph.nodes.iter().position(|n| matches!(n.operator, Operator::Program(_)));
    let node = node.expect("it is one program");

    let samples = each(samples).map(|sample| Ok(sample?.into_owned()));
    let mut samples = samples.collect::<Result<Vec<Vec<Tensor>>, Error>>()?;
    // The program's inputs and outputs have the order of its node's inputs and outputs.
    for (port, value_id) in (0..).zip(model.graph.nodes[node].inputs.clone()) {
        let index = model.graph.inputs.iter().position(|input| *input == value_id.node);
        let index = index.expect("a program reads inputs where it is the only one");
        let endpoint = &mut signature.inputs[index];
        if endpoint.is_float() {
            model.graph.nodes[value_id.node as usize].outputs[0].dtype = DType::I8;
            let quantization = parsed.input_quantization(port).map(quantization);
            endpoint.quantize(quantization.ok_or_else(|| several(&endpoint.name))?);
            let preprocessor = Preprocessor::identity(&endpoint.manifest_port()?);
            for sample in &mut samples {
                sample[index] = preprocessor.array(&sample[index])?;
            }
            let default = endpoint.default().map(|value| preprocessor.array(value)).transpose()?;
            if let Some(default) = default {
                endpoint.initial = Some(Initial::Value(default));
            }
        }
    }
    for (endpoint, value_id) in signature.outputs.iter_mut().zip(&model.graph.outputs) {
        if endpoint.is_float() {
            model.graph.nodes[node].outputs[value_id.output as usize].dtype = DType::I8;
            let quantization = parsed.output_quantization(value_id.output as u16).map(quantization);
            endpoint.quantize(quantization.ok_or_else(|| several(&endpoint.name))?);
        }
    }
    let parts = Builder::of(&parsed).expect("its weights are not packed").integer_ports();
    let built = parts.finish().expect("it was finished before with other ports");
    model.programs[0] =
        Program { code: built.code.into(), weights: built.weights.into(), packing: None };
    Ok(samples)
}

fn quantization((scale, zero_point): (f32, i8)) -> Quantization {
    Quantization { scale, zero_point: zero_point.into() }
}
