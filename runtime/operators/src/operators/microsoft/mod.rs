//! Operators of the domain `com.microsoft`, as ONNX Runtime defines them: what its quantizers,
//! optimizers, and exporters write.

use crate::call::{Call, Operator};
use crate::element_type::ElementType;
use crate::error::Problem;
use crate::model::Attribute;
use crate::tensor::Tensor;
use crate::value::Value;

mod attention;
mod fused;
mod grouped;
mod heads;
mod integer;
mod normalize;
mod other;
mod quantized;
mod recurrent;
mod rotary;
mod weights;

/// Returns the implementation of an operator of this family.
pub(super) fn find(domain: &str, name: &str) -> Option<Operator> {
    if domain != "com.microsoft" {
        return None;
    }
    Some(match name {
        "Attention" => attention::attention,
        "BiasAdd" => fused::bias_add,
        "BiasGelu" => fused::bias_gelu,
        "BiasSoftmax" => fused::bias_softmax,
        "BiasSplitGelu" => fused::bias_split_gelu,
        "CDist" => other::cdist,
        "CropAndResize" => other::crop_and_resize,
        "DequantizeLinear" => quantized::dequantize_linear,
        "DynamicQuantizeLSTM" => recurrent::dynamic_quantize_lstm,
        "DynamicQuantizeMatMul" => integer::dynamic_quantize_matmul,
        "EmbedLayerNormalization" => normalize::embed_layer_normalization,
        "ExpandDims" => other::expand_dims,
        "FastGelu" => fused::fast_gelu,
        "FusedConv" | "NhwcConv" | "NhwcFusedConv" => fused::fused_conv,
        "FusedGemm" => fused::fused_gemm,
        "FusedMatMul" | "TransposeMatMul" => fused::fused_matmul,
        "GatherBlockQuantized" => weights::gather_block_quantized,
        "GatherND" => |call| call.apply("GatherND", 13, call.inputs.clone(), &[]),
        "Gelu" => fused::gelu,
        "GridSample" => other::grid_sample,
        "GroupNorm" => normalize::group_norm,
        "GroupQueryAttention" => grouped::group_query_attention,
        "Inverse" => other::inverse,
        "Irfft" => other::irfft,
        "MatMulBnb4" => weights::matmul_bnb4,
        "MatMulIntegerToFloat" => integer::matmul_integer_to_float,
        "MatMulNBits" => weights::matmul_nbits,
        "MultiHeadAttention" => attention::multi_head_attention,
        "MurmurHash3" => {
            |_| Err(Problem::Unsupported { reason: "it hashes keys of lookup tables" })
        }
        "NhwcMaxPool" => fused::nhwc_max_pool,
        "Pad" => other::pad,
        "QAttention" => attention::quantized_attention,
        "QEmbedLayerNormalization" => normalize::quantized_embed_layer_normalization,
        "QGemm" => integer::quantized_gemm,
        "QLinearAdd" => quantized::add,
        "QLinearAveragePool" => quantized::average_pool,
        "QLinearConcat" => quantized::concat,
        "QLinearConv" => integer::quantized_conv,
        "QLinearGlobalAveragePool" => quantized::global_average_pool,
        "QLinearLeakyRelu" => quantized::leaky_relu,
        "QLinearMul" => quantized::mul,
        "QLinearReduceMean" => quantized::reduce_mean,
        "QLinearSigmoid" => quantized::sigmoid,
        "QLinearSoftmax" => quantized::softmax,
        "QLinearWhere" => quantized::select,
        "QuantizeLinear" => quantized::quantize_linear,
        "QuickGelu" => fused::quick_gelu,
        "Range" => other::range,
        "ReduceSumInteger" => integer::reduce_sum_integer,
        "Rfft" => other::rfft,
        "RotaryEmbedding" => rotary::rotary_embedding,
        "SimplifiedLayerNormalization" => normalize::simplified_layer_normalization,
        "SkipGroupNorm" => normalize::skip_group_norm,
        "SkipLayerNormalization" => normalize::skip_layer_normalization,
        "SkipSimplifiedLayerNormalization" => normalize::skip_simplified_layer_normalization,
        "Trilu" => |call| call.apply("Trilu", 14, call.inputs.clone(), &forward(call, &["upper"])),
        "Unique" => other::unique,
        _ => return None,
    })
}

/// Evaluates an operator of the standard domain, and returns its first output.
fn standard(
    call: &Call<'_>,
    operator: &str,
    version: i64,
    inputs: Vec<Option<Value>>,
    attributes: &[(&str, Attribute)],
) -> Result<Value, Problem> {
    let outputs = call.apply(operator, version, inputs, attributes)?;
    let missing = || Problem::Invalid(format!("{operator} has no output"));
    outputs.into_iter().next().ok_or_else(missing)
}

/// Returns those of the named attributes that the node has.
fn forward<'a>(call: &Call<'_>, names: &[&'a str]) -> Vec<(&'a str, Attribute)> {
    names.iter().filter_map(|name| Some((*name, call.attribute(name)?.clone()))).collect()
}

/// Returns an operand, or `None` if it is omitted, for another operator.
fn operand(call: &Call<'_>, index: usize) -> Option<Value> {
    call.optional(index).cloned()
}

/// Permutes the axes of a tensor.
fn transpose(call: &Call<'_>, x: Value, order: Vec<usize>) -> Result<Value, Problem> {
    let order = order.into_iter().map(|axis| axis as i64).collect();
    standard(call, "Transpose", 13, vec![Some(x)], &[("perm", Attribute::Ints(order))])
}

/// Moves the last axis, that of the channels, behind the first one.
fn channels_first(call: &Call<'_>, x: Value) -> Result<Value, Problem> {
    let rank = x.tensor()?.rank();
    let order = (0..rank).map(|axis| match axis {
        0 => 0,
        1 => rank - 1,
        other => other - 1,
    });
    transpose(call, x, order.collect())
}

/// Moves the second axis, that of the channels, to the end.
fn channels_last(call: &Call<'_>, x: Value) -> Result<Value, Problem> {
    let rank = x.tensor()?.rank();
    let order = (0..rank).map(|axis| match axis {
        0 => 0,
        last if last + 1 == rank => 1,
        other => other + 1,
    });
    transpose(call, x, order.collect())
}

/// Returns the elements of a tensor of floats as `f32`.
fn floats(tensor: &Tensor) -> Result<Vec<f32>, Problem> {
    if !tensor.element().is_float() {
        return Err(Problem::ElementType { found: tensor.element(), accepted: "a float" });
    }
    match tensor.slice::<f32>() {
        Some(values) => Ok(values.to_vec()),
        None => Ok(tensor.to_f64()?.into_iter().map(|value| value as f32).collect()),
    }
}

/// Creates a tensor of a type of floats.
fn from_floats(
    element: ElementType,
    shape: Vec<usize>,
    values: Vec<f32>,
) -> Result<Tensor, Problem> {
    if element == ElementType::F32 {
        return Tensor::new(shape, values);
    }
    Tensor::from_f64(element, shape, values.into_iter().map(f64::from).collect())
}

/// Applies a function to each element.
fn map(x: &Tensor, function: impl Fn(f64) -> f64) -> Result<Tensor, Problem> {
    let values = x.to_f64()?.into_iter().map(function).collect();
    Tensor::from_f64(x.element(), x.shape().to_vec(), values)
}

/// The problem of an input with the wrong shape.
fn wrong_shape(index: usize, tensor: &Tensor, expected: impl Into<String>) -> Problem {
    Problem::InputShape { index, shape: tensor.shape().to_vec(), expected: expected.into() }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::model::{Graph, Model, Node, ValueInfo};
    use crate::{Error, NoObserver};

    /// Evaluates an operator that needs no other one.
    fn run(
        operator: &str,
        inputs: Vec<Tensor>,
        attributes: &[(&str, Attribute)],
    ) -> Result<Tensor, Error> {
        let output = ValueInfo { name: "y".into(), value_type: None };
        let attributes = attributes.iter().map(|(name, value)| (name.to_string(), value.clone()));
        let node = Node {
            domain: "com.microsoft".into(),
            operator: operator.into(),
            inputs: (0..inputs.len()).map(|index| index.to_string()).collect(),
            outputs: vec!["y".into()],
            attributes: attributes.collect(),
            ..Node::default()
        };
        let graph = Graph { outputs: vec![output], nodes: vec![node], ..Graph::default() };
        let model = Model { graph, ..Model::default() };
        let inputs = inputs.into_iter().enumerate();
        let inputs = inputs.map(|(index, x)| (index.to_string(), Value::from(x))).collect();
        let values: HashMap<String, Value> = inputs;
        model.run(values, &mut NoObserver).map(|values| values[0].tensor().unwrap().clone())
    }

    fn numbers(shape: &[usize]) -> Tensor {
        let count = shape.iter().product::<usize>();
        let values = (0..count).map(|i| ((i * 37 + 11) % 29) as f32 / 13.0 - 1.0).collect();
        Tensor::new(shape.to_vec(), values).unwrap()
    }

    fn assert_close(found: &Tensor, expected: &[f64]) {
        let found = found.to_f64().unwrap();
        assert_eq!(found.len(), expected.len());
        for (x, y) in found.iter().zip(expected) {
            assert!((x - y).abs() < 1e-5, "{found:?} is not {expected:?}");
        }
    }

    #[test]
    fn packed_heads_attend_like_separate_ones() {
        let packed = numbers(&[2, 3, 2, 3, 4]);
        let part = |part: usize| {
            let rows = (0..12).map(move |row| (row * 3 + part) * 4);
            packed.select(vec![2, 3, 8], rows.flat_map(|start| start..start + 4)).unwrap()
        };
        let heads = [("num_heads", Attribute::Int(2))];
        let separate = run("MultiHeadAttention", vec![part(0), part(1), part(2)], &heads);
        assert_eq!(run("MultiHeadAttention", vec![packed.clone()], &heads), separate);
    }

    #[test]
    fn a_signal_survives_its_transform() {
        let x = numbers(&[2, 8]);
        let one = [("signal_ndim", Attribute::Int(1))];
        let spectrum = run("Rfft", vec![x.clone()], &one).unwrap();
        assert_eq!(spectrum.shape(), [2, 5, 2]);
        assert_close(&run("Irfft", vec![spectrum], &one).unwrap(), &x.to_f64().unwrap());
    }

    #[test]
    fn the_bias_of_a_softmax_repeats_by_blocks_or_rows() {
        let x = Tensor::new(vec![4, 2], vec![0f32; 8]).unwrap();
        let log3 = 3f32.ln();
        let bias = Tensor::new(vec![2, 2], vec![0.0, 0.0, log3, 0.0]).unwrap();
        let softmax = |inner| {
            let attributes = [("is_inner_broadcast", Attribute::Int(inner))];
            run("BiasSoftmax", vec![x.clone(), bias.clone()], &attributes).unwrap()
        };
        assert_close(&softmax(1), &[0.5, 0.5, 0.5, 0.5, 0.75, 0.25, 0.75, 0.25]);
        assert_close(&softmax(0), &[0.5, 0.5, 0.75, 0.25, 0.5, 0.5, 0.75, 0.25]);
    }

    #[test]
    fn groups_of_channels_are_normalized() {
        let x = Tensor::new(vec![1, 1, 1, 4], vec![1f32, 3.0, 10.0, 10.0]).unwrap();
        let (gamma, beta) = (Tensor::vector(vec![2f32; 4]), Tensor::vector(vec![1f32; 4]));
        let attributes = [("groups", Attribute::Int(2)), ("epsilon", Attribute::Float(0.0001))];
        let y = run("GroupNorm", vec![x, gamma, beta], &attributes).unwrap();
        assert_close(&y, &[-0.9999, 2.9999, 1.0, 1.0]);
    }

    #[test]
    fn malformed_operands_are_refused() {
        let heads = [("num_heads", Attribute::Int(3))];
        assert!(run("MultiHeadAttention", vec![numbers(&[1, 2, 4])], &heads).is_err());
        assert!(run("Inverse", vec![numbers(&[2, 3])], &[]).is_err());
        assert!(run("MurmurHash3", vec![numbers(&[2])], &[]).is_err());
        let boxes = Tensor::new(vec![1, 4], vec![0f32; 4]).unwrap();
        let size = Tensor::vector(vec![1i32, 1]);
        let inputs = vec![numbers(&[1, 1, 2, 2]), boxes, Tensor::vector(vec![5i32]), size];
        assert!(run("CropAndResize", inputs, &[]).is_err());
    }
}
