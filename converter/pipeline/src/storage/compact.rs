//! Losslessly compacts constants: integers within [−8, 7] or [0, 15] are stored in 4 bits, and
//! per-block scales in 16 bits where that is exact.

use std::collections::{HashMap, HashSet};

use half::{bf16, f16};
use hardtack::internal::{Constant, Model};
use hardtack::{Data, Tensor};
use hardtack_bundle::DType;
use hardtack_bundle::graph::{Fact, Graph, Node, Operator};

use crate::graph::rewriter;
use crate::graph::shape::fact;

/// Constants of fewer elements are not packed: the extra node would cost what packing saves.
const LARGE: usize = 256;

/// Compacts the constants of a model. Their values do not change.
pub(crate) fn compact(mut model: Model) -> Model {
    let graphs = || std::iter::once(&model.graph).chain(&model.graph.bodies);
    let scales: HashSet<usize> = graphs().flat_map(scales_of_blocks).collect();
    let bytes: HashSet<usize> =
        graphs().flat_map(|graph| constants(graph).map(|(_, c)| c)).collect();
    for index in scales {
        let shorter = match &model.constants[index] {
            Constant::Tensor(tensor) => to_16_bits(tensor),
            Constant::Stored(_) | Constant::Dims { .. } => None,
        };
        if let Some(tensor) = shorter {
            model.graph.constants[index].stored = tensor.dtype();
            model.constants[index] = Constant::Tensor(tensor.into());
        }
    }
    let mut unpacked: HashMap<usize, Fact> = HashMap::new();
    for index in bytes {
        let Constant::Tensor(tensor) = &model.constants[index] else { continue };
        let Some(bytes) = pack_nibbles(tensor).filter(|_| tensor.len() >= LARGE) else { continue };
        unpacked.insert(index, fact(tensor.dtype(), tensor.shape()));
        let length = bytes.len();
        let tensor = Tensor::new(&[length], bytes).expect("as many as there are");
        let record = &mut model.graph.constants[index];
        (record.dtype, record.stored, record.shape) = (DType::U8, DType::U8, vec![length as u64]);
        model.constants[index] = Constant::Tensor(tensor.into());
    }
    for body in rewriter::graphs(&model) {
        let graph = rewriter::graph(&model, body);
        let mut runs = HashMap::new();
        for (node, constant) in constants(graph) {
            let Some(fact_of) = unpacked.get(&constant) else { continue };
            let length = model.graph.constants[constant].shape[0] as usize;
            let Node { name, operator, .. } = graph.nodes[node].clone();
            let node_of =
                |name, operator, outputs| Node { name, operator, inputs: vec![], outputs };
            let bytes = vec![fact(DType::U8, &[length])];
            let bytes = node_of(format!("{name}.packed"), operator, bytes);
            let elements = node_of(name, Operator::Unpack, vec![fact_of.clone()]);
            runs.insert(node, vec![bytes, elements]);
        }
        rewriter::replace(rewriter::graph_mut(&mut model, body), runs);
    }
    model
}

/// Packs i8 or u8 values into 4 bits each, the first of every two in the low half of a byte.
/// Returns `None` if a value needs more bits, or for other types.
pub(crate) fn pack_nibbles(tensor: &Tensor) -> Option<Vec<u8>> {
    let halves: Vec<u8> = match tensor.data() {
        Data::I8(integers) => {
            let fit = integers.iter().all(|integer| (-8..=7).contains(integer));
            fit.then(|| integers.iter().map(|integer| *integer as u8 & 0xf).collect())?
        }
        Data::U8(integers) => {
            integers.iter().all(|integer| *integer < 16).then(|| integers.clone())?
        }
        _ => return None,
    };
    let byte = |two: &[u8]| two[0] | two.get(1).unwrap_or(&0) << 4;
    Some(halves.chunks(2).map(byte).collect())
}

/// Converts an f32 tensor to bf16 or f16 if that is exact.
fn to_16_bits(tensor: &Tensor) -> Option<Tensor> {
    let floats = tensor.as_f32()?;
    let wide: Vec<bf16> = floats.iter().map(|float| bf16::from_f32(*float)).collect();
    let fine: Vec<f16> = floats.iter().map(|float| f16::from_f32(*float)).collect();
    if wide.iter().zip(floats).all(|(half, float)| half.to_f32() == *float) {
        return Tensor::new(tensor.shape(), wide).ok();
    }
    let exact = fine.iter().zip(floats).all(|(half, float)| half.to_f32() == *float);
    exact.then(|| Tensor::new(tensor.shape(), fine))?.ok()
}

/// Returns the constant nodes of a graph as (node index, constant index).
fn constants(graph: &Graph) -> impl Iterator<Item = (usize, usize)> + '_ {
    graph.nodes.iter().enumerate().filter_map(|(index, node)| match node.operator {
        Operator::Constant(constant) => Some((index, constant as usize)),
        _ => None,
    })
}

/// Returns the indices of the constants that are per-block scales.
fn scales_of_blocks(graph: &Graph) -> impl Iterator<Item = usize> + '_ {
    graph.nodes.iter().filter_map(|node| match node.operator {
        Operator::DequantizeBlocks(_) => {
            match graph.nodes[node.inputs.get(1)?.node as usize].operator {
                Operator::Constant(constant) => Some(constant as usize),
                _ => None,
            }
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use hardtack_bundle::graph::{Binary, DequantizeBlocks};

    use super::*;
    use crate::float_run;
    use crate::testing::{Net, Value, noise};

    /// Multiplies `x` element-wise by a dequantized matrix of shape `[64, 8]`, in blocks of 32.
    fn product(
        net: &mut Net,
        x: &Value,
        integers: Tensor,
        scales: Vec<f32>,
        zero: Tensor,
    ) -> Value {
        let integers = net.constant(integers);
        let scales = net.constant(Tensor::new(&[2, 8], scales).unwrap());
        let zero = net.constant(zero);
        let operator = DequantizeBlocks { dtype: DType::F32, axis: 0, block: 32 };
        let operator = Operator::DequantizeBlocks(operator);
        let matrix = net.node(operator, &[&integers, &scales, &zero], &[64, 8]);
        net.binary(Binary::Multiply, x, &matrix)
    }

    #[test]
    fn integers_that_fit_four_bits_are_packed() {
        let mut net = Net::new();
        let x = net.input(&[64, 8]);
        let integer = |at: usize| (at * 7 % 16) as u8;
        let unsigned: Vec<u8> = (0..512).map(integer).collect();
        let signed: Vec<i8> = (0..512).map(|at| integer(at) as i8 - 8).collect();
        let wide: Vec<i8> = signed.iter().map(|integer| integer - 1).collect();
        let shape = [64, 8];
        let scales = |scale: fn(usize) -> f32| (0..16).map(scale).collect::<Vec<f32>>();
        let coarse = scales(|at| 0.5 + at as f32 / 64.0);
        let fine = scales(|at| 1.0 / (at + 3) as f32);
        let zero = Tensor::scalar(0i8);
        let eights = Tensor::new(&[2, 8], vec![8u8; 16]).unwrap();
        let a = product(&mut net, &x, Tensor::new(&shape, unsigned).unwrap(), coarse, eights);
        let b =
            product(&mut net, &x, Tensor::new(&shape, signed).unwrap(), fine.clone(), zero.clone());
        let c = product(&mut net, &x, Tensor::new(&shape, wide).unwrap(), fine, zero);
        let model = net.finish(&[&a, &b, &c]);
        let samples = vec![vec![noise(&shape, 2)]];
        let before = float_run::outputs(&model, &samples).unwrap();
        let compacted = compact(model);
        assert_eq!(compacted.graph.check(), Ok(()));
        assert_eq!(float_run::outputs(&compacted, &samples).unwrap(), before);
        let unpacked = |node: &&Node| node.operator == Operator::Unpack;
        assert_eq!(compacted.graph.nodes.iter().filter(unpacked).count(), 2);
        let of = |dtype| compacted.graph.constants.iter().filter(|c| c.stored == dtype).count();
        assert_eq!((of(DType::BF16), of(DType::F32)), (1, 1));
        assert_eq!(compact(compacted.clone()), compacted);
    }

    #[test]
    fn the_first_of_two_is_in_the_low_half() {
        let signed = Tensor::new(&[3], vec![-1i8, 7, -8]).unwrap();
        assert_eq!(pack_nibbles(&signed), Some(vec![0x7f, 0x08]));
        let unsigned = Tensor::new(&[3], vec![15u8, 7, 8]).unwrap();
        assert_eq!(pack_nibbles(&unsigned), Some(vec![0x7f, 0x08]));
        assert_eq!(pack_nibbles(&Tensor::new(&[1], vec![8i8]).unwrap()), None);
        assert_eq!(pack_nibbles(&Tensor::new(&[1], vec![16u8]).unwrap()), None);
        assert_eq!(pack_nibbles(&Tensor::new(&[1], vec![1i16]).unwrap()), None);
    }
}
