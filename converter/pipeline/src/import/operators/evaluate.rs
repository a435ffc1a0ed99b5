//! The custom operator for ONNX operators that the bundle's evaluator runs.

use hardtack::float::custom_ops::Evaluate;
use tract_hir::internal::*;
use tract_onnx::dim_expr::parse_onnx_dim;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::pb::tensor_proto::DataType;

use super::Read;

/// Reads the operator that [`evaluated`](crate::import::evaluated) emits.
pub(super) fn read(context: &ParsingContext, node: &NodeProto) -> Read {
    let attribute = |name: &str| node.attribute.iter().find(|attribute| attribute.name == name);
    let (Some(model), Some(types), Some(shapes)) =
        (attribute("model"), attribute("types"), attribute("shapes"))
    else {
        bail!("it has no model, types or shapes");
    };
    let mut outputs = tvec!();
    for (number, shape) in types.ints.iter().zip(&shapes.strings) {
        let dtype = dtype(*number).with_context(|| format!("type {number} is not supported"))?;
        let text = std::str::from_utf8(shape)?;
        let sizes = text.split(',').filter(|size| !size.is_empty());
        let sizes = sizes.map(|size| parse_onnx_dim(&context.template.symbols, size));
        outputs.push(dtype.fact(sizes.collect::<TractResult<TVec<TDim>>>()?));
    }
    let inputs = node.input.len();
    Ok((
        expand(Evaluated { operation: Evaluate::new(&model.s, outputs.clone())?, inputs, outputs }),
        vec![],
    ))
}

fn dtype(number: i64) -> Option<DatumType> {
    Some(match DataType::try_from(i32::try_from(number).ok()?).ok()? {
        DataType::Float | DataType::Bfloat16 => DatumType::F32,
        DataType::Double => DatumType::F64,
        DataType::Float16 => DatumType::F16,
        DataType::Bool => DatumType::Bool,
        DataType::Int8 => DatumType::I8,
        DataType::Int16 => DatumType::I16,
        DataType::Int32 => DatumType::I32,
        DataType::Int64 => DatumType::I64,
        DataType::Uint8 => DatumType::U8,
        DataType::Uint16 => DatumType::U16,
        DataType::Uint32 => DatumType::U32,
        DataType::Uint64 => DatumType::U64,
        _ => return None,
    })
}

#[derive(Clone, Debug)]
struct Evaluated {
    operation: Evaluate,
    inputs: usize,
    outputs: TVec<TypedFact>,
}

impl Expansion for Evaluated {
    fn name(&self) -> StaticName {
        "Evaluate".into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(self.outputs.len())
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, self.inputs)?;
        check_output_arity(outputs, self.outputs.len())?;
        for (output, fact) in outputs.iter().zip(&self.outputs) {
            s.equals(&output.datum_type, fact.datum_type)?;
            s.equals(&output.shape, fact.shape.to_tvec())?;
        }
        Ok(())
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        model.wire_node(prefix, self.operation.clone(), inputs)
    }
}
