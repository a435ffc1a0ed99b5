//! Operators that this crate reads instead of tract: those whose parameters must be preserved, and
//! those that tract reads into forms that the operator table cannot represent.

mod cast;
mod dynamic;
mod evaluate;
mod flatten;
mod log_softmax;
mod quantization;
mod recurrent;
mod resize;
mod squeeze;
mod trees;

use hardtack::float::custom_ops;
use tract_hir::internal::*;
use tract_onnx::Onnx;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;

/// The domain of this crate's custom operators.
pub(crate) const CUSTOM_DOMAIN: &str = "hardtack";
/// The custom operator, with the inputs of [`hardtack_bundle::graph::TreeEnsemble`].
pub(crate) const TREE_ENSEMBLE: &str = "HardtackTreeEnsemble";
/// The custom operator, with the inputs x, matrix, scale of the matrix and its zero point.
pub(crate) const DYNAMIC_MAT_MUL: &str = "HardtackDynamicMatMul";

/// The custom operator that evaluates an encoded model of `hardtack_operators`.
pub(crate) const EVALUATE: &str = "HardtackEvaluate";

/// The result of reading an operator.
type Read = TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

/// Returns tract's ONNX reader with this crate's operators registered.
pub(super) fn onnx() -> Onnx {
    let mut onnx = tract_onnx::onnx();
    let register = &mut onnx.op_register;
    register.insert("QuantizeLinear", quantization::quantize);
    register.insert("DequantizeLinear", quantization::dequantize);
    register.insert("Cast", cast::read);
    register.insert("Flatten", flatten::read);
    register.insert("LRN", lrn);
    register.insert("LogSoftmax", log_softmax::read);
    register.insert("LSTM", recurrent::read);
    register.insert("GRU", recurrent::read);
    register.insert("RNN", recurrent::read);
    register.insert("Resize", resize::read);
    register.insert("Squeeze", squeeze::read);
    register.insert(DYNAMIC_MAT_MUL, dynamic::read);
    register.insert(EVALUATE, evaluate::read);
    register.insert(TREE_ENSEMBLE, trees::read);
    onnx
}

/// States that an operator has one input, and an output of the same type and shape.
fn keeps_type_and_shape<'r, 'p: 'r>(
    s: &mut Solver<'r>,
    inputs: &'p [TensorProxy],
    outputs: &'p [TensorProxy],
) -> InferenceResult {
    check_input_arity(inputs, 1)?;
    check_output_arity(outputs, 1)?;
    s.equals(&inputs[0].datum_type, &outputs[0].datum_type)?;
    s.equals(&inputs[0].shape, &outputs[0].shape)
}

fn lrn(_: &ParsingContext, node: &NodeProto) -> Read {
    let op = custom_ops::Lrn {
        alpha: node.get_attr_opt("alpha")?.unwrap_or(0.0001),
        beta: node.get_attr_opt("beta")?.unwrap_or(0.75),
        bias: node.get_attr_opt("bias")?.unwrap_or(1.0),
        size: node.get_attr("size")?,
    };
    Ok((expand(Lrn(op)), vec![]))
}

#[derive(Clone, Debug)]
struct Lrn(custom_ops::Lrn);

impl Expansion for Lrn {
    fn name(&self) -> StaticName {
        "LRN".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        keeps_type_and_shape(s, inputs, outputs)
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        model.wire_node(prefix, self.0.clone(), inputs)
    }
}
