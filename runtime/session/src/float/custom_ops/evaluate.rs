//! The evaluation of ONNX operators that tract does not cover.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use hardtack_operators as onnx;
use hardtack_operators::{ElementType, Model, Problem, Value, ValueType};
use tract_core::internal::*;

use crate::float::run::control;
use crate::limits::{Exceeded, Resource};

/// An ONNX model that is evaluated node by node, in plain scalar code.
#[derive(Clone, Debug)]
pub struct Evaluate {
    model: Arc<Model>,
    /// The encoded model.
    bytes: Arc<[u8]>,
    outputs: TVec<TypedFact>,
}

impl PartialEq for Evaluate {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes && self.outputs == other.outputs
    }
}

impl Eq for Evaluate {}

impl Evaluate {
    /// Decodes a model. `outputs` are the types and shapes of its outputs.
    ///
    /// # Errors
    /// Returns an error if the bytes do not encode a model, or if it has another number of outputs.
    pub fn new(bytes: &[u8], outputs: TVec<TypedFact>) -> TractResult<Self> {
        let model = Model::from_bytes(bytes)?;
        let (own, given) = (model.graph.outputs.len(), outputs.len());
        ensure!(own == given, "its model has {own} outputs, but the graph states {given}");
        Ok(Self { model: Arc::new(model), bytes: bytes.into(), outputs })
    }

    /// Returns the encoded model.
    #[cfg(feature = "export")]
    pub(in crate::float) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the element type of an input in the model, which may have types that tract lacks.
    fn input_type(&self, index: usize) -> Option<ElementType> {
        match self.model.graph.inputs.get(index)?.value_type.as_ref()? {
            ValueType::Tensor { element, .. } => Some(*element),
            _ => None,
        }
    }
}

impl Op for Evaluate {
    fn name(&self) -> StaticName {
        "Evaluate".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Evaluate {
    op_out_of_plan!();

    fn eval(&self, context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let control = control(context);
        let stopping = control.clone();
        let memory_bytes = control.memory_left();
        let limits = onnx::Limits {
            memory_bytes,
            operations: control.operations(),
            stop: Rc::new(move || stopping.check().is_err()),
        };
        let mut values = HashMap::new();
        for (index, (input, value)) in self.model.graph.inputs.iter().zip(&inputs).enumerate() {
            let tensor = from_tract(value, self.input_type(index))?;
            values.insert(input.name.clone(), Value::from(tensor));
        }
        drop(inputs);
        let outputs = self.model.run_within(values, &limits).map_err(|error| {
            match (error.innermost(), control.check()) {
                (Problem::Stopped, Err(stopped)) => TractError::from(stopped),
                (Problem::TooMuchMemory { .. }, _) => {
                    let needed = memory_bytes.saturating_add(1);
                    let resource = Resource::Memory;
                    TractError::from(Exceeded { resource, needed, limit: memory_bytes })
                }
                (Problem::TooMuchWork { limit }, _) => {
                    let (resource, needed) = (Resource::Operations, limit.saturating_add(1));
                    TractError::from(Exceeded { resource, needed, limit: *limit })
                }
                _ => TractError::from(error),
            }
        })?;
        outputs.iter().map(|value| Ok(to_tract(value.tensor()?)?.into_tvalue())).collect()
    }
}

impl TypedOp for Evaluate {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let (own, given) = (self.model.graph.inputs.len(), inputs.len());
        ensure!(own == given, "its model has {own} inputs, not {given}");
        Ok(self.outputs.clone())
    }

    as_op!();
}

/// Copies a tensor from tract. `element` is the type that the model states.
fn from_tract(value: &Tensor, element: Option<ElementType>) -> TractResult<onnx::Tensor> {
    fn plain<T: Datum + onnx::Element>(value: &Tensor) -> TractResult<onnx::Tensor> {
        let elements = value.try_as_plain_ram()?.as_slice::<T>()?.to_vec();
        Ok(onnx::Tensor::new(value.shape().to_vec(), elements)?)
    }
    let tensor = match value.datum_type() {
        DatumType::Bool => plain::<bool>(value),
        DatumType::I8 => plain::<i8>(value),
        DatumType::U8 => plain::<u8>(value),
        DatumType::I16 => plain::<i16>(value),
        DatumType::U16 => plain::<u16>(value),
        DatumType::I32 => plain::<i32>(value),
        DatumType::U32 => plain::<u32>(value),
        DatumType::I64 => plain::<i64>(value),
        DatumType::U64 => plain::<u64>(value),
        DatumType::F16 => plain::<f16>(value),
        DatumType::F32 => plain::<f32>(value),
        DatumType::F64 => plain::<f64>(value),
        DatumType::TDim => plain::<i64>(&*value.cast_to::<i64>()?),
        other => bail!("the type {other:?} is not an ONNX type"),
    }?;
    match element {
        Some(element) if element != tensor.element() => cast(&tensor, element),
        _ => Ok(tensor),
    }
}

/// Converts a tensor to the type that the model states, which tract may lack. Floats of 8 and 4
/// bits are passed by their encoding.
fn cast(tensor: &onnx::Tensor, element: ElementType) -> TractResult<onnx::Tensor> {
    let shape = tensor.shape().to_vec();
    if element.is_narrow_float() {
        return Ok(onnx::Tensor::with_type(element, shape, tensor.data().clone())?);
    }
    Ok(match tensor.to_i128() {
        Ok(integers) => onnx::Tensor::from_i128(element, shape, integers)?,
        Err(_) => onnx::Tensor::from_f64(element, shape, tensor.to_f64()?)?,
    })
}

/// Copies a tensor to tract. Of the types that tract lacks, bf16 becomes f32, integers of 4 and 2
/// bits those of 8 bits, and floats of 8 and 4 bits their encoding.
fn to_tract(tensor: &onnx::Tensor) -> TractResult<Tensor> {
    use hardtack_operators::Data;
    let shape = tensor.shape();
    match tensor.data() {
        Data::Bool(v) => Tensor::from_shape(shape, v),
        Data::I8(v) => Tensor::from_shape(shape, v),
        Data::U8(v) => Tensor::from_shape(shape, v),
        Data::I16(v) => Tensor::from_shape(shape, v),
        Data::U16(v) => Tensor::from_shape(shape, v),
        Data::I32(v) => Tensor::from_shape(shape, v),
        Data::U32(v) => Tensor::from_shape(shape, v),
        Data::I64(v) => Tensor::from_shape(shape, v),
        Data::U64(v) => Tensor::from_shape(shape, v),
        Data::F16(v) => Tensor::from_shape(shape, v),
        Data::F32(v) => Tensor::from_shape(shape, v),
        Data::F64(v) => Tensor::from_shape(shape, v),
        Data::BF16(v) => {
            let values: Vec<f32> = v.iter().map(|value| value.to_f32()).collect();
            Tensor::from_shape(shape, &values)
        }
        Data::Text(_) | Data::Complex64(_) | Data::Complex128(_) => {
            bail!("values of type {} cannot leave the evaluator", tensor.element())
        }
    }
}
