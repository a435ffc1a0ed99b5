//! Constants that are dequantized here: weights with a scale per block, which have no integer form,
//! and parameters that an operator must know as reals.

use std::collections::HashMap;

use hardtack::Tensor;
use tract_onnx::pb::{GraphProto, NodeProto, TensorProto};

use super::emit::{Context, Emit};
use super::node::Node;
use crate::import::{ImportError, tensor};

/// Widths of the integers that `MatMulNBits` packs into bytes.
const PACKED_BITS: [usize; 3] = [2, 4, 8];

/// Rewrites blocked DequantizeLinear and `com.microsoft::MatMulNBits`.
pub fn rewrite(node: &mut NodeProto, emit: &mut Emit<'_>) -> Result<bool, ImportError> {
    let node = &*node;
    match node.op_type.as_str() {
        "DequantizeLinear" if node.int("block_size").unwrap_or(0) != 0 => blocked(node, emit)?,
        "MatMulNBits" if node.domain == "com.microsoft" => packed_product(node, emit)?,
        _ => return Ok(false),
    }
    emit.context.tell("weights with a scale per block are stored as reals".into());
    Ok(true)
}

fn blocked(node: &NodeProto, emit: &mut Emit<'_>) -> Result<(), ImportError> {
    let constant = |index| node.given(index).and_then(|name| emit.scope.tensor(name));
    let (Some(x), Some(scale)) = (constant(0), constant(1)) else {
        let problem = "a computed value with a scale per block; only constants can have one";
        return Err(node.wrong(problem));
    };
    let zero_point = constant(2);
    let block = usize::try_from(node.int("block_size").unwrap_or(0)).unwrap_or(0);
    let axis = node.int("axis").unwrap_or(1);
    let reals = dequantize(&x, &scale, zero_point.as_ref(), axis, block)
        .ok_or_else(|| node.wrong("its scales do not fit its blocks"))?;
    let reals = emit.constant("reals", &reals);
    let output = node.wanted(0).ok_or_else(|| node.wrong("it has no output"))?;
    emit.last("Identity", &[&reals], output, vec![]);
    Ok(())
}

/// `(x − zero point) · scale`. Without blocks (`block` is 0), scale and zero point are one number or
/// a list along the axis; with them, they are shaped as x, with a number for each block of the axis.
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
    (fits && zero_point.is_none_or(|zero| zero.len() == scale.len())).then_some(())?;
    let place = |index: usize| match block {
        _ if scale.len() == 1 => 0,
        0 => index / inner % size,
        _ => {
            let (outer, at) = (index / (inner * size), index / inner % size);
            (outer * size.div_ceil(block) + at / block) * inner + index % inner
        }
    };
    let (scale, zeros) = (scale.to_f32(), zero_point.map(Tensor::to_f32));
    let zero = |at: usize| zeros.as_ref().map_or(0.0, |zeros| zeros[at]);
    let values = x.to_f32().into_iter().enumerate().map(|(index, value)| {
        let at = place(index);
        (value - zero(at)) * scale[at]
    });
    Tensor::new(shape, values.collect::<Vec<f32>>())
}

/// A product with a matrix whose columns are packed integers, in blocks along the depth.
fn packed_product(node: &NodeProto, emit: &mut Emit<'_>) -> Result<(), ImportError> {
    if node.given(4).is_some() {
        return Err(node.wrong("g_idx, an order of its rows, is not supported"));
    }
    let matrix = packed_matrix(node, emit).ok_or_else(|| {
        node.wrong("its weights are not constant, or not as its attributes say they are packed")
    })?;
    let matrix = emit.constant("matrix", &matrix);
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

/// The matrix of `MatMulNBits`, of shape `[K, N]`.
fn packed_matrix(node: &NodeProto, emit: &Emit<'_>) -> Option<Tensor> {
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
        Some(f32::from(shifted & (u8::MAX >> (8 - bits))))
    };
    let middle = f32::from(1u8 << (bits - 1));
    let zeros: Vec<f32> = match node.given(3) {
        None => vec![middle; elements],
        Some(_) => {
            let zeros = constant(3)?;
            let (bytes, row) = (zeros.to_bytes(), blocks.div_ceil(in_byte));
            match zeros.as_f32() {
                Some(zeros) => zeros.to_vec(),
                None => (0..elements)
                    .map(|at| integer(bytes.get(at / blocks * row..)?, at % blocks))
                    .collect::<Option<_>>()?,
            }
        }
    };
    (zeros.len() == elements).then_some(())?;
    let mut values = vec![0f32; depth.checked_mul(columns)?];
    for (column, row) in packed.chunks_exact(row_bytes).enumerate() {
        for k in 0..depth {
            let at = column * blocks + k / block;
            let bytes = row.get(k / block * block_bytes..)?;
            values[k * columns + column] = (integer(bytes, k % block)? - zeros[at]) * scales[at];
        }
    }
    Tensor::new(&[depth, columns], values)
}

/// Gives batch normalizations their parameters as reals where they are dequantized constants.
pub fn parameters(graph: &mut GraphProto, context: &mut Context) {
    let constants: HashMap<&str, &TensorProto> =
        graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    let constant =
        |node: &NodeProto, index| tensor::load(constants.get(node.given(index)?).copied()?);
    let reals = |node: &NodeProto| {
        (node.op_type == "DequantizeLinear").then_some(())?;
        let zero_point = constant(node, 2);
        let axis = node.int("axis").unwrap_or(1);
        dequantize(&constant(node, 0)?, &constant(node, 1)?, zero_point.as_ref(), axis, 0)
    };
    let known: HashMap<String, Tensor> = graph
        .node
        .iter()
        .filter_map(|node| Some((node.wanted(0)?.to_owned(), reals(node)?)))
        .filter(|(_, reals)| reals.shape().len() == 1)
        .collect();
    for node in graph.node.iter_mut().filter(|node| node.op_type == "BatchNormalization") {
        for input in node.input.iter_mut().skip(1) {
            if let Some(reals) = known.get(input) {
                *input = context.fresh(&format!("{input}.reals"));
                graph.initializer.push(tensor::store(input, reals));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::emit::rewrite_nodes;
    use super::super::node::int;
    use super::super::testing::{graph, model, node};
    use super::*;

    /// The constants that a node becomes.
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
        let w = Tensor::new(&[3, 2], vec![1i8, -2, 3, 4, -5, 6]).unwrap();
        let scales = tensor(&[2, 2], &[0.5, 10.0, 2.0, 1.0]);
        let blocked = |constants: &[(&str, Tensor)]| {
            let attributes = vec![int("axis", 0), int("block_size", 2)];
            let inputs: Vec<&str> = constants.iter().map(|(name, _)| *name).collect();
            rewritten(node("DequantizeLinear", &inputs, &["y"], attributes), constants)
        };
        let reals = blocked(&[("w", w.clone()), ("s", scales.clone())]).unwrap();
        assert_eq!(reals, [tensor(&[3, 2], &[0.5, -20.0, 1.5, 40.0, -10.0, 6.0])]);
        let zeros = Tensor::new(&[2, 2], vec![1i8, 0, 0, 6]).unwrap();
        let reals = blocked(&[("w", w.clone()), ("s", scales), ("z", zeros)]).unwrap();
        assert_eq!(reals, [tensor(&[3, 2], &[0.0, -20.0, 1.0, 40.0, -10.0, 0.0])]);
        let wrong = blocked(&[("w", w), ("s", tensor(&[3, 2], &[1.0; 6]))]).unwrap_err();
        assert!(wrong.to_string().contains("do not fit its blocks"), "{wrong}");
    }

    #[test]
    fn packed_integers_are_unpacked_from_their_low_bits() {
        // Two columns of four integers in two blocks of two: a byte a block.
        let packed = Tensor::new(&[2, 2, 1], vec![0x98u8, 0x0f, 0x87, 0x1a]).unwrap();
        let scales = Tensor::new(&[4], vec![1f32, 2.0, 3.0, 4.0]).unwrap();
        let attributes =
            |depth| vec![int("K", depth), int("N", 2), int("bits", 4), int("block_size", 2)];
        let constants = [("b", packed), ("s", scales)];
        let product =
            |depth| node("com.microsoft::MatMulNBits", &["x", "b", "s"], &["y"], attributes(depth));
        let matrix = rewritten(product(4), &constants).unwrap();
        let expected = vec![0f32, -3.0, 1.0, 0.0, 14.0, 8.0, -16.0, -28.0];
        assert_eq!(matrix, [Tensor::new(&[4, 2], expected).unwrap()]);
        let wrong = rewritten(product(400), &constants).unwrap_err();
        assert!(wrong.to_string().contains("are packed"), "{wrong}");
    }
}
