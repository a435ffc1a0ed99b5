//! Weights with a scale per block. Constants are dequantized to f32 if such weights are wider than
//! a byte, and if an operator needs float parameters.

use std::collections::HashMap;

use hardtack::{Data, Tensor};
use tract_onnx::pb::{GraphProto, NodeProto, TensorProto};

use super::emit::{Context, Emit};
use crate::import::node::{Node, int};
use crate::import::{ImportError, tensor};

/// The supported integer widths of `MatMulNBits`, which are packed into bytes.
const PACKED_BITS: [usize; 3] = [2, 4, 8];

/// The sentences of the report for weights that stay integers, and for weights that cannot.
const KEPT: &str = "weights with a scale per block keep their integers and scales";
const REAL: &str = "weights with a scale per block are stored as floats";

/// Rewrites blocked DequantizeLinear and `com.microsoft::MatMulNBits`.
pub(crate) fn rewrite(node: &mut NodeProto, emit: &mut Emit<'_>) -> Result<bool, ImportError> {
    let node = &*node;
    match node.op_type.as_str() {
        "DequantizeLinear" if node.int("block_size").unwrap_or(0) != 0 => blocked(node, emit),
        "MatMulNBits" if node.domain == "com.microsoft" => {
            packed_product(node, emit).map(|()| true)
        }
        _ => Ok(false),
    }
}

/// Rewrites a blocked DequantizeLinear, unless its integers are 8-bit, which needs no rewrite.
fn blocked(node: &NodeProto, emit: &mut Emit<'_>) -> Result<bool, ImportError> {
    let constant = |index| node.given(index).and_then(|name| emit.scope.tensor(name));
    let (Some(x), Some(scale)) = (constant(0), constant(1)) else {
        let problem = "a scale per block is supported only for constants";
        return Err(node.wrong(problem));
    };
    let zero_point = constant(2);
    let block = usize::try_from(node.int("block_size").unwrap_or(0)).unwrap_or(0);
    let axis = node.int("axis").unwrap_or(1);
    let floats = dequantize(&x, &scale, zero_point.as_ref(), axis, block)
        .ok_or_else(|| node.wrong("its scales do not fit its blocks"))?;
    if matches!(x.data(), Data::I8(_) | Data::U8(_)) {
        emit.context.note(KEPT.into());
        return Ok(false);
    }
    let floats = emit.constant("reals", &floats);
    let output = node.wanted(0).ok_or_else(|| node.wrong("it has no output"))?;
    emit.last("Identity", &[&floats], output, vec![]);
    emit.context.note(REAL.into());
    Ok(true)
}

/// Computes `(x − zero point) · scale`. If `block` is 0, scale and zero point are a scalar or a
/// vector along the axis. Otherwise, they have the shape of x with one element per block along the
/// axis. Returns `None` if the shapes do not match.
fn dequantize(
    x: &Tensor,
    scale: &Tensor,
    zero_point: Option<&Tensor>,
    axis: i64,
    block: usize,
) -> Option<Tensor> {
    let shape = x.shape();
    let axis = usize::try_from(if axis < 0 { axis + shape.len() as i64 } else { axis }).ok()?;
    let (size, inner) = match shape.get(axis) {
        Some(size) => (*size, shape[axis + 1..].iter().product::<usize>()),
        None if scale.len() == 1 => (1, 1),
        None => return None,
    };
    let fits = match block {
        0 => scale.len() == 1 || scale.len() == size,
        _ => {
            let mut expected = shape.to_vec();
            *expected.get_mut(axis)? = size.div_ceil(block);
            scale.shape() == expected
        }
    };
    let zeros_fit = |zero: &Tensor| zero.len() == 1 || zero.len() == scale.len();
    (fits && zero_point.is_none_or(zeros_fit)).then_some(())?;
    let place = |index: usize| match block {
        _ if scale.len() == 1 => 0,
        0 => index / inner % size,
        _ => {
            let (outer, at) = (index / (inner * size), index / inner % size);
            (outer * size.div_ceil(block) + at / block) * inner + index % inner
        }
    };
    let (scale, zeros) = (scale.to_f32(), zero_point.map(Tensor::to_f32));
    let zero = |at: usize| zeros.as_ref().map_or(0.0, |zeros| zeros[at.min(zeros.len() - 1)]);
    let values = x.to_f32().into_iter().enumerate().map(|(index, value)| {
        let at = place(index);
        (value - zero(at)) * scale[at]
    });
    Tensor::new(shape, values.collect::<Vec<f32>>()).ok()
}

/// Rewrites `MatMulNBits`: a matmul with a matrix of packed integers, in blocks along the depth K.
fn packed_product(node: &NodeProto, emit: &mut Emit<'_>) -> Result<(), ImportError> {
    if node.given(4).is_some() {
        return Err(node.wrong("g_idx (a permutation of rows) is not supported"));
    }
    let Packed { integers, scales, zeros, block } = packed_matrix(node, emit).ok_or_else(|| {
        node.wrong(
            "its weights are not constant, or are packed differently than its attributes say",
        )
    })?;
    let inputs = [
        emit.constant("integers", &integers),
        emit.constant("scales", &scales),
        emit.constant("zeros", &zeros),
    ];
    let attributes = vec![int("axis", 0), int("block_size", block as i64)];
    let matrix = match zeros.data() {
        Data::U8(_) => {
            emit.context.note(KEPT.into());
            emit.node("DequantizeLinear", &inputs.each_ref().map(String::as_str), attributes)
        }
        // Zero points that are not integers.
        _ => {
            emit.context.note(REAL.into());
            let floats = dequantize(&integers, &scales, Some(&zeros), 0, block);
            let floats = floats.ok_or_else(|| node.wrong("its scales do not fit its blocks"))?;
            emit.constant("matrix", &floats)
        }
    };
    let output = node.wanted(0).ok_or_else(|| node.wrong("it has no output"))?;
    let a = node.given(0).ok_or_else(|| node.wrong("input 0 is missing"))?;
    match node.given(5) {
        Some(bias) => {
            let y = emit.node("MatMul", &[a, &matrix], vec![]);
            emit.last("Add", &[&y, bias], output, vec![]);
        }
        None => emit.last("MatMul", &[a, &matrix], output, vec![]),
    }
    Ok(())
}

/// The unpacked matrix of `MatMulNBits`.
struct Packed {
    /// u8, of shape `[K, N]`.
    integers: Tensor,
    /// f32, of shape `[⌈K / block⌉, N]`.
    scales: Tensor,
    /// u8 or f32, of the shape of the scales, or a scalar.
    zeros: Tensor,
    /// The number of elements per block.
    block: usize,
}

/// Unpacks the matrix of `MatMulNBits`. The integers are packed by column, and each block of a
/// column starts at a byte. Integer zero points are packed likewise, by column.
fn packed_matrix(node: &NodeProto, emit: &Emit<'_>) -> Option<Packed> {
    let size = |name: &str| node.int(name).and_then(|value| usize::try_from(value).ok());
    let (depth, columns, block) = (size("K")?, size("N")?, size("block_size")?);
    let bits = size("bits").unwrap_or(4);
    let in_byte = 8 / PACKED_BITS.contains(&bits).then_some(bits)?;
    let block = [depth, columns, block].iter().all(|size| *size > 0).then_some(block)?;
    let blocks = depth.div_ceil(block);
    let block_bytes = block.div_ceil(in_byte);
    let row_bytes = blocks.checked_mul(block_bytes)?;

    let constant = |index| node.given(index).and_then(|name| emit.scope.tensor(name));
    let (packed, scales) = (constant(1)?, constant(2)?.to_f32());
    let packed = packed.to_bytes();
    let elements = columns.checked_mul(blocks)?;
    (packed.len() == columns.checked_mul(row_bytes)? && scales.len() == elements).then_some(())?;
    let integer = |bytes: &[u8], at: usize| {
        let shifted = bytes.get(at / in_byte)? >> (at % in_byte * bits);
        Some(shifted & (u8::MAX >> (8 - bits)))
    };
    let by_row = |column: usize, row: usize| column * blocks + row;
    let places = || (0..blocks).flat_map(|row| (0..columns).map(move |column| (column, row)));
    let zeros: Data = match (node.given(3), constant(3)) {
        (None, _) => vec![1u8 << (bits - 1)].into(),
        (Some(_), None) => return None,
        (Some(_), Some(zeros)) if matches!(zeros.data(), Data::U8(_)) => {
            let (bytes, row) = (zeros.to_bytes(), blocks.div_ceil(in_byte));
            (bytes.len() == columns * row).then_some(())?;
            let zero = |(column, at): (usize, usize)| integer(&bytes[column * row..], at);
            places().map(zero).collect::<Option<Vec<u8>>>()?.into()
        }
        (Some(_), Some(zeros)) => {
            let zeros = zeros.to_f32();
            (zeros.len() == elements).then_some(())?;
            places().map(|(column, row)| zeros[by_row(column, row)]).collect::<Vec<f32>>().into()
        }
    };
    let scales: Vec<f32> = places().map(|(column, row)| scales[by_row(column, row)]).collect();
    let mut integers = vec![0u8; depth.checked_mul(columns)?];
    for (column, row) in packed.chunks_exact(row_bytes).enumerate() {
        for k in 0..depth {
            let bytes = row.get(k / block * block_bytes..)?;
            integers[k * columns + column] = integer(bytes, k % block)?;
        }
    }
    Some(Packed {
        integers: Tensor::new(&[depth, columns], integers).ok()?,
        scales: Tensor::new(&[blocks, columns], scales).ok()?,
        zeros: match node.given(3) {
            None => Tensor::new(&[], zeros).ok()?,
            Some(_) => Tensor::new(&[blocks, columns], zeros).ok()?,
        },
        block,
    })
}

/// Replaces dequantized constants by f32 constants in the parameters of batch normalizations.
pub(crate) fn parameters(graph: &mut GraphProto, context: &mut Context) {
    let constants: HashMap<&str, &TensorProto> =
        graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    let constant =
        |node: &NodeProto, index| tensor::load(constants.get(node.given(index)?).copied()?);
    let floats = |node: &NodeProto| {
        (node.op_type == "DequantizeLinear").then_some(())?;
        let zero_point = constant(node, 2);
        let axis = node.int("axis").unwrap_or(1);
        dequantize(&constant(node, 0)?, &constant(node, 1)?, zero_point.as_ref(), axis, 0)
    };
    let known: HashMap<String, Tensor> = graph
        .node
        .iter()
        .filter_map(|node| Some((node.wanted(0)?.to_owned(), floats(node)?)))
        .filter(|(_, floats)| floats.shape().len() == 1)
        .collect();
    for node in graph.node.iter_mut().filter(|node| node.op_type == "BatchNormalization") {
        for input in node.input.iter_mut().skip(1) {
            if let Some(floats) = known.get(input) {
                *input = context.fresh(&format!("{input}.reals"));
                graph.initializer.push(tensor::store(input, floats));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use hardtack_bundle::DType;

    use super::super::emit::rewrite_nodes;
    use super::super::testing::{graph, model, node};
    use super::*;

    /// Returns the constants that the rewrite of a node adds.
    fn rewritten(
        node: NodeProto,
        constants: &[(&str, Tensor)],
    ) -> Result<Vec<Tensor>, ImportError> {
        let model = model(graph(&[("x", &["1", "4"])], vec![node], constants, &["y"]));
        let mut context = Context::of(&model);
        let mut graph = model.graph.unwrap();
        rewrite_nodes(&mut graph, &mut context, &rewrite)?;
        Ok(graph.initializer.iter().skip(constants.len()).filter_map(tensor::load).collect())
    }

    #[test]
    fn each_block_has_its_scale() {
        let tensor = |shape: &[usize], values: &[f32]| Tensor::new(shape, values.to_vec()).unwrap();
        let w = Tensor::new(&[3, 2], vec![1i16, -2, 3, 4, -5, 6]).unwrap();
        let scales = tensor(&[2, 2], &[0.5, 10.0, 2.0, 1.0]);
        let blocked = |constants: &[(&str, Tensor)]| {
            let attributes = vec![int("axis", 0), int("block_size", 2)];
            let inputs: Vec<&str> = constants.iter().map(|(name, _)| *name).collect();
            rewritten(node("DequantizeLinear", &inputs, &["y"], attributes), constants)
        };
        let floats = blocked(&[("w", w.clone()), ("s", scales.clone())]).unwrap();
        assert_eq!(floats, [tensor(&[3, 2], &[0.5, -20.0, 1.5, 40.0, -10.0, 6.0])]);
        let bytes = Tensor::new(&[3, 2], vec![1i8, -2, 3, 4, -5, 6]).unwrap();
        let kept = blocked(&[("w", bytes.clone()), ("s", scales.clone())]).unwrap();
        assert_eq!(kept, [], "8-bit integers keep their scales");
        let wrong = blocked(&[("w", bytes), ("s", tensor(&[3, 2], &[1.0; 6]))]);
        assert!(wrong.unwrap_err().to_string().contains("do not fit its blocks"));
        let zeros = Tensor::new(&[2, 2], vec![1i16, 0, 0, 6]).unwrap();
        let floats = blocked(&[("w", w.clone()), ("s", scales), ("z", zeros)]).unwrap();
        assert_eq!(floats, [tensor(&[3, 2], &[0.0, -20.0, 1.0, 40.0, -10.0, 0.0])]);
        let wrong = blocked(&[("w", w), ("s", tensor(&[3, 2], &[1.0; 6]))]).unwrap_err();
        assert!(wrong.to_string().contains("do not fit its blocks"), "{wrong}");
    }

    #[test]
    fn packed_integers_are_unpacked_from_their_low_bits() {
        // Two columns of four integers, in blocks of two: one byte per block.
        let packed = Tensor::new(&[2, 2, 1], vec![0x98u8, 0x0f, 0x87, 0x1a]).unwrap();
        let scales = Tensor::new(&[4], vec![1f32, 2.0, 3.0, 4.0]).unwrap();
        let attributes =
            |depth| vec![int("K", depth), int("N", 2), int("bits", 4), int("block_size", 2)];
        let constants = [("b", packed), ("s", scales)];
        let product =
            |depth| node("com.microsoft::MatMulNBits", &["x", "b", "s"], &["y"], attributes(depth));
        let [integers, scales, zeros] = &rewritten(product(4), &constants).unwrap()[..] else {
            panic!("integers, scales and zero points")
        };
        assert_eq!((integers.dtype(), zeros.dtype()), (DType::U8, DType::U8));
        let expected = vec![0f32, -3.0, 1.0, 0.0, 14.0, 8.0, -16.0, -28.0];
        let matrix = dequantize(integers, scales, Some(zeros), 0, 2);
        assert_eq!(matrix, Tensor::new(&[4, 2], expected).ok());
        let wrong = rewritten(product(400), &constants).unwrap_err();
        assert!(wrong.to_string().contains("are packed"), "{wrong}");
    }
}
