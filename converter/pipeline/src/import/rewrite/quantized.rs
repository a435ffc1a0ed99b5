//! Converts operators on quantized tensors (QOperator form) to DequantizeLinear, the float operator
//! and QuantizeLinear (QDQ form), with all scales preserved.

use hardtack::Tensor;
use hardtack_bundle::DType;
use tract_onnx::pb::{AttributeProto, NodeProto};

use super::emit::Emit;
use crate::import::ImportError;
use crate::import::node::{Node, float, int, ints};

/// Rewrites the QLinear… operators of ONNX and `com.microsoft`, and operators on plain integers.
pub(crate) fn rewrite(node: &mut NodeProto, emit: &mut Emit<'_>) -> Result<bool, ImportError> {
    let node = &*node;
    match node.op_type.as_str() {
        "QLinearConv" => convolution(node, emit)?,
        "QLinearMatMul" => {
            let inputs =
                [dequantize(node, emit, [0, 1, 2], -2)?, dequantize(node, emit, [3, 4, 5], -1)?];
            finish(node, emit, "MatMul", &inputs, vec![], [6, 7])?;
        }
        "QGemm" => gemm(node, emit)?,
        "QLinearAdd" | "QLinearMul" => {
            let inputs =
                [dequantize(node, emit, [0, 1, 2], 0)?, dequantize(node, emit, [3, 4, 5], 0)?];
            let operator = if node.op_type == "QLinearAdd" { "Add" } else { "Mul" };
            finish(node, emit, operator, &inputs, vec![], [6, 7])?;
        }
        "QLinearConcat" => {
            let mut inputs = Vec::new();
            for first in (2..node.input.len()).step_by(3) {
                inputs.push(dequantize(node, emit, [first, first + 1, first + 2], 0)?);
            }
            finish(node, emit, "Concat", &inputs, plain(node, &[]), [0, 1])?;
        }
        "QLinearWhere" => {
            let condition = required(node, 0)?.to_owned();
            let inputs = [
                condition,
                dequantize(node, emit, [1, 2, 3], 0)?,
                dequantize(node, emit, [4, 5, 6], 0)?,
            ];
            finish(node, emit, "Where", &inputs, vec![], [7, 8])?;
        }
        "QLinearAveragePool"
        | "QLinearGlobalAveragePool"
        | "QLinearSigmoid"
        | "QLinearLeakyRelu"
        | "QLinearSoftmax"
        | "QLinearReduceMean" => one_input(node, emit)?,
        "MatMulInteger" | "ConvInteger" => integer_arithmetic(node, emit)?,
        "MatMulIntegerToFloat" => {
            let a = dequantize(node, emit, [0, 2, 4], -2)?;
            let b = dequantize(node, emit, [1, 3, 5], -1)?;
            matmul_bias(node, emit, &a, &b, 6)?;
        }
        "DynamicQuantizeMatMul" => {
            let a = required(node, 0)?.to_owned();
            let b = dequantize(node, emit, [1, 2, 3], -1)?;
            let message = "activations of dynamic quantization stay in float";
            emit.context.note(message.into());
            matmul_bias(node, emit, &a, &b, 4)?;
        }
        "DynamicQuantizeLinear" => dynamic(node, emit)?,
        _ => return Ok(false),
    }
    let message = "operators on quantized tensors are converted to QDQ form";
    emit.context.note(message.into());
    Ok(true)
}

/// Rewrites QLinearConv.
fn convolution(node: &NodeProto, emit: &mut Emit<'_>) -> Result<(), ImportError> {
    let x = dequantize(node, emit, [0, 1, 2], 0)?;
    let w = dequantize(node, emit, [3, 4, 5], 0)?;
    let mut inputs = vec![x, w];
    if let Some(bias) = node.given(8) {
        inputs.push(dequantize_bias(node, emit, bias, [1, 4])?);
    }
    finish(node, emit, "Conv", &inputs, plain(node, &[]), [6, 7])
}

/// Rewrites QGemm.
fn gemm(node: &NodeProto, emit: &mut Emit<'_>) -> Result<(), ImportError> {
    let a = dequantize(node, emit, [0, 1, 2], 0)?;
    let axis = if node.int("transB") == Some(1) { 0 } else { 1 };
    let mut inputs = vec![a, dequantize(node, emit, [3, 4, 5], axis)?];
    if let Some(bias) = node.given(6) {
        inputs.push(dequantize_bias(node, emit, bias, [1, 4])?);
    }
    finish(node, emit, "Gemm", &inputs, plain(node, &[]), [7, 8])
}

/// Rewrites an operator with one quantized input, and images with channels last.
fn one_input(node: &NodeProto, emit: &mut Emit<'_>) -> Result<(), ImportError> {
    let operator = &node.op_type["QLinear".len()..];
    let x = dequantize(node, emit, [0, 1, 2], 0)?;
    let attributes = plain(node, &["channels_last", "opset"]);
    if node.int("channels_last").unwrap_or(0) != 0 {
        let x = emit.node("Transpose", &[&x], vec![ints("perm", &[0, 3, 1, 2])]);
        let y = emit.node(operator, &[&x], attributes);
        let last = vec![ints("perm", &[0, 2, 3, 1])];
        finish(node, emit, "Transpose", &[y], last, [3, 4])?;
    } else if operator == "Softmax" {
        softmax(node, emit, x)?;
    } else {
        finish(node, emit, operator, &[x], attributes, [3, 4])?;
    }
    Ok(())
}

/// Rewrites an operator on plain integers.
fn integer_arithmetic(node: &NodeProto, emit: &mut Emit<'_>) -> Result<(), ImportError> {
    let columns = if node.op_type == "ConvInteger" { 0 } else { -1 };
    let mut inputs = Vec::new();
    for (index, zero_point, axis) in [(0, 2, -2), (1, 3, columns)] {
        let points = node.given(zero_point).and_then(|name| emit.scope.tensor(name));
        let count = points.map_or(1, |points| points.len());
        let unit = emit.vector("one", vec![1f32; count]);
        let mut from = vec![required(node, index)?.to_owned(), unit];
        from.extend(node.given(zero_point).map(str::to_owned));
        inputs.push(dequantize_named(emit, &from, axis));
    }
    let operator = node.op_type.trim_end_matches("Integer");
    let y = emit.node(operator, &strs(&inputs), plain(node, &[]));
    let y = emit.node("Round", &[&y], vec![]);
    emit.last("Cast", &[&y], required_output(node)?, vec![to(DType::I32)]);
    Ok(())
}

/// Rewrites a Softmax with the semantics of the operator set in its `opset` attribute: before 13,
/// it normalizes over all axes from `axis`.
fn softmax(node: &NodeProto, emit: &mut Emit<'_>, x: String) -> Result<(), ImportError> {
    let attributes = plain(node, &["opset"]);
    let over_one = node.int("opset").unwrap_or(13) >= 13;
    if over_one == (emit.context.opset >= 13) {
        return finish(node, emit, "Softmax", &[x], attributes, [3, 4]);
    }
    if over_one {
        return Err(node.wrong("its opset is later than the model's operator set"));
    }
    let axis = int("axis", node.int("axis").unwrap_or(1));
    let shape = emit.node("Shape", &[&x], vec![]);
    let flat = emit.node("Flatten", &[&x], vec![axis]);
    let y = emit.node("Softmax", &[&flat], vec![int("axis", -1)]);
    finish(node, emit, "Reshape", &[y, shape], vec![], [3, 4])
}

fn strs(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

fn to(dtype: DType) -> AttributeProto {
    int("to", crate::import::tensor::number_of(dtype) as i64)
}

fn plain(node: &NodeProto, without: &[&str]) -> Vec<AttributeProto> {
    let keep = |attribute: &&AttributeProto| !without.contains(&attribute.name.as_str());
    node.attribute.iter().filter(keep).cloned().collect()
}

fn required(node: &NodeProto, index: usize) -> Result<&str, ImportError> {
    node.given(index).ok_or_else(|| node.wrong(format!("input {index} is missing")))
}

fn required_output(node: &NodeProto) -> Result<&str, ImportError> {
    node.wanted(0).ok_or_else(|| node.wrong("it has no output"))
}

/// Dequantizes an input. `at` has the indices of tensor, scale and zero point, and `axis` is the
/// axis of per-axis scales.
fn dequantize(
    node: &NodeProto,
    emit: &mut Emit<'_>,
    at: [usize; 3],
    axis: i64,
) -> Result<String, ImportError> {
    let mut from = vec![required(node, at[0])?.to_owned(), required(node, at[1])?.to_owned()];
    from.extend(node.given(at[2]).map(str::to_owned));
    Ok(dequantize_named(emit, &from, axis))
}

fn dequantize_named(emit: &mut Emit<'_>, from: &[String], axis: i64) -> String {
    emit.node("DequantizeLinear", &strs(from), vec![int("axis", axis)])
}

/// Dequantizes a 32-bit bias, whose scale is the product of the input's and the weights' scales.
fn dequantize_bias(
    node: &NodeProto,
    emit: &mut Emit<'_>,
    bias: &str,
    scales: [usize; 2],
) -> Result<String, ImportError> {
    let scale = |index| {
        emit.scope.floats(required(node, index)?).map_or_else(
            || Err(node.wrong("its scales must be constants if it has a bias")),
            Ok::<Vec<f32>, ImportError>,
        )
    };
    let (x, w) = (scale(scales[0])?, scale(scales[1])?);
    let [x] = x[..] else { return Err(node.wrong("the scale of its input must be one number")) };
    let scale = emit.vector("bias_scale", w.iter().map(|w| x * w).collect::<Vec<f32>>());
    Ok(dequantize_named(emit, &[bias.into(), scale], 0))
}

/// Emits the float operator and the quantization of its output, if there is an output scale.
fn finish(
    node: &NodeProto,
    emit: &mut Emit<'_>,
    operator: &str,
    inputs: &[String],
    attributes: Vec<AttributeProto>,
    [scale, zero_point]: [usize; 2],
) -> Result<(), ImportError> {
    let output = required_output(node)?;
    let Some(scale) = node.given(scale) else {
        emit.last(operator, &strs(inputs), output, attributes);
        return Ok(());
    };
    let y = emit.node(operator, &strs(inputs), attributes);
    let mut from = vec![y.as_str(), scale];
    from.extend(node.given(zero_point));
    emit.last("QuantizeLinear", &from, output, vec![int("axis", 0)]);
    Ok(())
}

fn matmul_bias(
    node: &NodeProto,
    emit: &mut Emit<'_>,
    a: &str,
    b: &str,
    bias: usize,
) -> Result<(), ImportError> {
    let output = required_output(node)?;
    match node.given(bias) {
        Some(bias) => {
            let y = emit.node("MatMul", &[a, b], vec![]);
            emit.last("Add", &[&y, bias], output, vec![]);
        }
        None => emit.last("MatMul", &[a, b], output, vec![]),
    }
    Ok(())
}

/// Rewrites DynamicQuantizeLinear: computes scale and zero point from the range of the values.
fn dynamic(node: &NodeProto, emit: &mut Emit<'_>) -> Result<(), ImportError> {
    let x = required(node, 0)?;
    let zero = emit.constant("zero", &Tensor::scalar(0f32));
    let levels = emit.constant("levels", &Tensor::scalar(255f32));
    let tiny = emit.constant("tiny", &Tensor::scalar(f32::MIN_POSITIVE));
    let shape = emit.list("shape", &[-1]);
    let flat = emit.node("Reshape", &[x, &shape], vec![]);
    let scalar = emit.list("scalar", &[]);
    let mut extreme = |reducer: &str, with: &str| {
        let value = emit.reduce(reducer, &flat, &[0]);
        let value = emit.node("Reshape", &[&value, &scalar], vec![]);
        emit.node(with, &[&value, &zero], vec![])
    };
    let (high, low) = (extreme("ReduceMax", "Max"), extreme("ReduceMin", "Min"));
    let range = emit.node("Sub", &[&high, &low], vec![]);
    let step = emit.node("Div", &[&range, &levels], vec![]);
    let scale = emit.node("Max", &[&step, &tiny], vec![]);
    let below = emit.node("Neg", &[&low], vec![]);
    let point = emit.node("Div", &[&below, &scale], vec![]);
    let point = emit.node("Round", &[&point], vec![]);
    let point = emit.node("Max", &[&point, &zero], vec![]);
    let point = emit.node("Min", &[&point, &levels], vec![]);
    let point = emit.cast(&point, DType::U8);
    emit.last("QuantizeLinear", &[x, &scale, &point], required_output(node)?, vec![]);
    for (index, value) in [(1, &scale), (2, &point)] {
        if let Some(output) = node.wanted(index) {
            emit.last("Identity", &[value], output, vec![]);
        }
    }
    Ok(())
}

/// Splits the fused float operators of `com.microsoft` into their parts.
pub(crate) fn rewrite_fused(
    node: &mut NodeProto,
    emit: &mut Emit<'_>,
) -> Result<bool, ImportError> {
    let node = &*node;
    if node.domain != "com.microsoft" {
        return Ok(false);
    }
    match node.op_type.as_str() {
        "FusedConv" | "FusedGemm" => {
            let inner: Vec<&str> = node.input.iter().take(3).map(String::as_str).collect();
            let attributes = plain(node, &["activation", "activation_params"]);
            let operator = node.op_type.trim_start_matches("Fused");
            let attributes = attributes
                .into_iter()
                .filter(|attribute| !attribute.name.starts_with("activation_"))
                .collect();
            let mut y = emit.node(operator, &inner, attributes);
            if let Some(z) = node.given(3) {
                y = emit.node("Add", &[&y, z], vec![]);
            }
            let output = required_output(node)?;
            let parameters = node.floats("activation_params");
            let parameter = |index: usize, name: &str| {
                parameters.get(index).copied().or_else(|| node.float(name))
            };
            match node.text("activation").unwrap_or("") {
                "" => emit.last("Identity", &[&y], output, vec![]),
                plain @ ("Relu" | "Sigmoid" | "Tanh") => emit.last(plain, &[&y], output, vec![]),
                "LeakyRelu" => {
                    let alpha = parameter(0, "activation_alpha").unwrap_or(0.01);
                    emit.last("LeakyRelu", &[&y], output, vec![float("alpha", alpha)]);
                }
                "Clip" => {
                    let low =
                        emit.constant("low", &Tensor::scalar(parameter(0, "").unwrap_or(f32::MIN)));
                    let high = emit
                        .constant("high", &Tensor::scalar(parameter(1, "").unwrap_or(f32::MAX)));
                    let y = emit.node("Max", &[&y, &low], vec![]);
                    emit.last("Min", &[&y, &high], output, vec![]);
                }
                other => return Err(node.wrong(format!("activation {other:?} is not known"))),
            }
        }
        "FusedMatMul" => {
            let swapped = ["transA", "transB", "transBatchA", "transBatchB"];
            if swapped.iter().any(|name| node.int(name).unwrap_or(0) != 0) {
                return Err(node.wrong(
                    "a fused transposition is not supported; export without graph optimization",
                ));
            }
            let y = emit.node("MatMul", &[required(node, 0)?, required(node, 1)?], vec![]);
            let alpha = emit.constant("alpha", &Tensor::scalar(node.float("alpha").unwrap_or(1.0)));
            emit.last("Mul", &[&y, &alpha], required_output(node)?, vec![]);
        }
        _ => return Ok(false),
    }
    Ok(true)
}
