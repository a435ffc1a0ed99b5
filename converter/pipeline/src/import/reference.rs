//! The reference implementation of ONNX on a file, independent of the import.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use hardtack::{Data, Tensor};
use hardtack_bundle::graph::Graph;
use hardtack_operators as onnx;
use hardtack_operators::{ElementType, Model, Observer, Value, ValueType};

use super::ImportError;
use super::evaluated;

/// A model as the reference implementation reads it.
pub(crate) struct Reference {
    model: Model,
    /// The names of the imported graph's inputs, in order.
    inputs: Vec<String>,
}

impl Reference {
    /// Reads a file. `set` are the settings of the import, and `imported` is its result.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
    pub(crate) fn load(
        path: &Path,
        set: &[(String, String)],
        imported: &Graph,
    ) -> Result<Reference, ImportError> {
        let mut model = evaluated::read(path)?;
        let nodes = imported.inputs.iter().map(|index| &imported.nodes[*index as usize]);
        let inputs: Vec<String> = nodes.map(|node| node.name.clone()).collect();
        for (name, value) in set.iter().filter(|(name, _)| !inputs.contains(name)) {
            let input = model.graph.inputs.iter().find(|input| input.name == *name);
            if let Some(tensor) = input.and_then(|input| constant(input, value)) {
                model.graph.initializers.insert(name.clone(), Arc::new(tensor));
            }
        }
        Ok(Reference { model, inputs })
    }

    /// Returns the main graph of the model.
    pub(crate) fn graph(&self) -> &onnx::Graph {
        &self.model.graph
    }

    /// Evaluates the model on one sample.
    ///
    /// # Errors
    /// Returns a sentence if the model cannot be evaluated.
    pub(crate) fn run(
        &self,
        sample: &[Tensor],
        observer: &mut dyn Observer,
    ) -> Result<Vec<Tensor>, String> {
        let mut inputs = HashMap::new();
        for (name, tensor) in self.inputs.iter().zip(sample) {
            let tensor = to_reference(tensor, self.element(name))
                .map_err(|problem| format!("input {name:?}: {problem}"))?;
            inputs.insert(name.clone(), Value::from(tensor));
        }
        let outputs = self.model.run(inputs, observer).map_err(|error| error.to_string())?;
        let outputs = outputs.iter().zip(&self.model.graph.outputs);
        outputs
            .map(|(value, output)| {
                from_reference(value)
                    .ok_or_else(|| format!("output {:?} is not a tensor of numbers", output.name))
            })
            .collect()
    }

    fn element(&self, input: &str) -> Option<ElementType> {
        let input = self.model.graph.inputs.iter().find(|other| other.name == input)?;
        match input.value_type.as_ref()? {
            ValueType::Tensor { element, .. } => Some(*element),
            _ => None,
        }
    }
}

/// Returns the value of an input with one element from its text.
fn constant(input: &onnx::ValueInfo, text: &str) -> Option<onnx::Tensor> {
    let Some(ValueType::Tensor { element, shape }) = &input.value_type else { return None };
    let shape = vec![1; shape.as_ref().map_or(0, Vec::len)];
    match text {
        "true" => onnx::Tensor::from_i128(*element, shape, vec![1]).ok(),
        "false" => onnx::Tensor::from_i128(*element, shape, vec![0]).ok(),
        _ => match text.parse() {
            Ok(integer) => onnx::Tensor::from_i128(*element, shape, vec![integer]).ok(),
            Err(_) => onnx::Tensor::from_f64(*element, shape, vec![text.parse().ok()?]).ok(),
        },
    }
}

/// Converts a tensor to the reference implementation, with the element type of the file.
pub(super) fn to_reference(
    tensor: &Tensor,
    element: Option<ElementType>,
) -> Result<onnx::Tensor, onnx::Problem> {
    let shape = tensor.shape().to_vec();
    let converted = match tensor.data().clone() {
        Data::Bool(v) => onnx::Tensor::new(shape, v),
        Data::I8(v) => onnx::Tensor::new(shape, v),
        Data::U8(v) => onnx::Tensor::new(shape, v),
        Data::I16(v) => onnx::Tensor::new(shape, v),
        Data::U16(v) => onnx::Tensor::new(shape, v),
        Data::I32(v) => onnx::Tensor::new(shape, v),
        Data::U32(v) => onnx::Tensor::new(shape, v),
        Data::I64(v) => onnx::Tensor::new(shape, v),
        Data::U64(v) => onnx::Tensor::new(shape, v),
        Data::F16(v) => onnx::Tensor::new(shape, v),
        Data::BF16(v) => onnx::Tensor::new(shape, v),
        Data::F32(v) => onnx::Tensor::new(shape, v),
        Data::F64(v) => onnx::Tensor::new(shape, v),
    }?;
    match element {
        // Floats of 8 and 4 bits are passed by their encoding.
        Some(element) if element.is_narrow_float() => {
            onnx::Tensor::with_type(element, converted.shape().to_vec(), converted.data().clone())
        }
        Some(element) if element != converted.element() => {
            onnx::Tensor::from_f64(element, converted.shape().to_vec(), converted.to_f64()?)
        }
        _ => Ok(converted),
    }
}

/// Converts a tensor from the reference implementation. bf16 becomes f32, and floats of 8 and 4
/// bits their encoding. Returns `None` for types that a bundle cannot output. Scores that have
/// names become their matrix.
pub(crate) fn from_reference(value: &Value) -> Option<Tensor> {
    let tensor = match value {
        Value::Tensor(tensor) => tensor,
        Value::Maps { values, .. } => values,
        Value::Sequence(_) | Value::Optional(_) => return None,
    };
    let shape = tensor.shape();
    let converted = match tensor.data().clone() {
        onnx::Data::Bool(v) => Tensor::new(shape, v),
        onnx::Data::I8(v) => Tensor::new(shape, v),
        onnx::Data::U8(v) => Tensor::new(shape, v),
        onnx::Data::I16(v) => Tensor::new(shape, v),
        onnx::Data::U16(v) => Tensor::new(shape, v),
        onnx::Data::I32(v) => Tensor::new(shape, v),
        onnx::Data::U32(v) => Tensor::new(shape, v),
        onnx::Data::I64(v) => Tensor::new(shape, v),
        onnx::Data::U64(v) => Tensor::new(shape, v),
        onnx::Data::F16(v) => Tensor::new(shape, v),
        onnx::Data::BF16(v) => {
            Tensor::new(shape, v.iter().map(|value| value.to_f32()).collect::<Vec<f32>>())
        }
        onnx::Data::F32(v) => Tensor::new(shape, v),
        onnx::Data::F64(v) => Tensor::new(shape, v),
        onnx::Data::Text(_) | onnx::Data::Complex64(_) | onnx::Data::Complex128(_) => return None,
    };
    converted.ok()
}
