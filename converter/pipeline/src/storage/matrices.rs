//! Weight-only quantization: stores large matrices of float layers as integers, which are
//! dequantized when the bundle is loaded. Activations stay in float; no calibration data is needed.
//!
//! A matrix is a constant that only matmuls, convolutions or gathers read. It gets one scale per
//! output channel, or per row for gathers. Spatial convolution kernels use 11-bit integers, others
//! 8: their weights are shared by every output position, so their errors do not average out. With
//! 4-bit storage, the others get a scale and a zero point per block (`blocks.rs`).

use std::collections::HashMap;

use hardtack::internal::{Constant, Model};
use hardtack::{Data, Tensor};
use hardtack_bundle::DType;
use hardtack_bundle::graph::{self, DequantizeBlocks, DequantizeLinear, Fact, Graph};
use hardtack_bundle::graph::{KernelLayout, Node, Operator};

use super::blocks::{BLOCK, Blocks};
use super::compact;
use crate::graph::rewriter::{self, Rewriter};
use crate::graph::shape::fact;
use crate::options::MatrixStorage;
use crate::quantize::rounding::bit_allocation::{self, AllocatedLayer};
use crate::quantize::rounding::gptq;

/// The minimum elements of a matrix. Smaller ones save less than their scales and nodes cost.
pub(super) const LARGE: usize = 4096;

/// The maximum integer of a spatial convolution kernel: 11 bits with sign.
const SPATIAL_MAX: i16 = 1023;

/// The step of a spatial convolution kernel relative to other matrices under bit allocation: three
/// bits finer, like 11 bits compared with 8.
const SPATIAL_STEP: f32 = 0.125;

/// A constant matrix in a graph.
struct Matrix {
    /// The graph that holds it: a body, or `None` for the outermost graph.
    body: Option<usize>,
    /// The node that produces it.
    node: usize,
    /// The axis of its output channels, or `None` for one scale for the whole matrix.
    axis: Option<usize>,
    /// The axis along which 4-bit blocks lie, or `None` if the matrix does not qualify for them.
    blocks: Option<usize>,
    shape: Vec<usize>,
    values: Vec<f32>,
    /// Whether it is a spatial convolution kernel, larger than one position.
    is_spatial: bool,
}

/// The integers of a matrix, with the operator that dequantizes them.
struct Stored {
    operator: Operator,
    inputs: [Tensor; 3],
}

/// Stores large float matrices as integers. Returns the model and their number.
///
/// With `bits`, steps are coarser, for an average entropy of `bits` per weight. With `bits` or
/// 4-bit storage, integer matrices are re-quantized; otherwise they stay unchanged.
pub(crate) fn store(mut model: Model, storage: MatrixStorage, bits: Option<f64>) -> (Model, usize) {
    let int4 = storage == MatrixStorage::Int4;
    let mut matrices = Vec::new();
    for body in rewriter::graphs(&model) {
        matrices.extend(find(&model, body, int4 || bits.is_some()));
    }
    if matrices.is_empty() {
        return (model, 0);
    }
    let steps = bits.filter(|_| !int4).map(|bits| {
        let layers: Vec<AllocatedLayer> =
            matrices.iter().map(|matrix| AllocatedLayer::of_matrix(&matrix.values)).collect();
        bit_allocation::allocate(&layers, bits)
    });
    let count = matrices.len();
    let mut replaced: HashMap<Option<usize>, HashMap<usize, Vec<Node>>> = HashMap::new();
    for (index, matrix) in matrices.into_iter().enumerate() {
        let stored = match matrix.blocks.filter(|_| int4) {
            Some(axis) => matrix.to_int4(axis),
            None => matrix.to_int8(steps.as_ref().map(|steps| steps[index])),
        };
        let name = rewriter::graph(&model, matrix.body).nodes[matrix.node].name.clone();
        let mut nodes: Vec<Node> = Vec::new();
        for (suffix, tensor) in ["integers", "scale", "zero_point"].into_iter().zip(stored.inputs) {
            nodes.push(constant(&mut model, format!("{name}.{suffix}"), tensor));
        }
        nodes.push(Node {
            name,
            operator: stored.operator,
            inputs: Vec::new(),
            outputs: vec![fact(DType::F32, &matrix.shape)],
        });
        replaced.entry(matrix.body).or_default().insert(matrix.node, nodes);
    }
    for (body, nodes) in replaced {
        rewriter::replace(rewriter::graph_mut(&mut model, body), nodes);
    }
    (Rewriter::new(model).finish(), count)
}

/// Adds a constant to the model and returns a node that produces it.
fn constant(model: &mut Model, name: String, tensor: Tensor) -> Node {
    let (dtype, shape) = (tensor.dtype(), tensor.shape());
    let outputs = vec![fact(dtype, shape)];
    let shape = shape.iter().map(|size| *size as u64).collect();
    model.graph.constants.push(graph::Constant {
        dtype,
        stored: dtype,
        shape,
        offset: 0,
        length: 0,
    });
    model.constants.push(Constant::Tensor(tensor.into()));
    let index = model.constants.len() as u32 - 1;
    Node { name, operator: Operator::Constant(index), inputs: Vec::new(), outputs }
}

/// Finds the matrices of a graph; with `integers`, also those that are dequantized.
fn find(model: &Model, body: Option<usize>, integers: bool) -> Vec<Matrix> {
    let graph = rewriter::graph(model, body);
    let mut readers: HashMap<usize, Vec<(&Node, usize)>> = HashMap::new();
    for node in &graph.nodes {
        for (slot, input) in node.inputs.iter().enumerate() {
            readers.entry(input.node as usize).or_default().push((node, slot));
        }
    }
    let returned =
        |index: usize| graph.outputs.iter().any(|value_id| value_id.node as usize == index);
    let matrix = |(index, node): (usize, &Node)| {
        let [Fact { dtype: DType::F32, shape }] = &node.outputs[..] else { return None };
        let shape: Vec<usize> = shape
            .iter()
            .map(|dim| dim.value().and_then(|size| usize::try_from(size).ok()))
            .collect::<Option<_>>()?;
        let large = shape.len() > 1 && shape.iter().product::<usize>() >= LARGE;
        (large && !returned(index)).then_some(())?;
        let mut axes =
            readers.get(&index)?.iter().map(|(node, slot)| channels(node, *slot, &shape));
        let axis = axes.next()??;
        axes.all(|other| other == Some(axis)).then_some(())?;
        let values = match &node.operator {
            Operator::Constant(index) => float_elements(model, *index)?,
            Operator::DequantizeLinear(attributes) if integers => {
                dequantized(model, graph, node, attributes)?
            }
            _ => return None,
        };
        let is_spatial = readers.get(&index)?.iter().any(|(node, _)| is_spatial(node));
        let longest = (0..shape.len()).filter(|other| Some(*other) != axis);
        let longest = longest.max_by_key(|other| shape[*other]);
        let blocks = longest.filter(|other| !is_spatial && shape[*other] >= BLOCK);
        let finite = values.iter().all(|value| value.is_finite());
        finite.then_some(Matrix { body, node: index, axis, blocks, shape, values, is_spatial })
    };
    graph.nodes.iter().enumerate().filter_map(matrix).collect()
}

/// Returns the axis of the output channels of a matrix that a node reads at input `slot`.
/// `Some(None)` means no such axis; `None` means that the node does not read a matrix there.
fn channels(node: &Node, slot: usize, shape: &[usize]) -> Option<Option<usize>> {
    match &node.operator {
        Operator::Conv(conv) if slot == 1 => Some(Some(match conv.kernel_layout {
            KernelLayout::Oihw | KernelLayout::Ohwi => 0,
            KernelLayout::Hwio => shape.len() - 1,
        })),
        Operator::Gather(gather) if slot == 0 => Some(Some(gather.axis as usize)),
        Operator::Einsum(einsum) => {
            let (sides, result) = einsum.expression.split_once("->")?;
            let (left, right) = sides.split_once(',')?;
            let (own, other) = if slot == 0 { (left, right) } else { (right, left) };
            (own.chars().count() == shape.len()).then_some(())?;
            let kept = |axis: &char| result.contains(*axis) && !other.contains(*axis);
            Some(own.chars().collect::<Vec<_>>().iter().rposition(kept))
        }
        _ => None,
    }
}

/// Returns whether a node is a convolution with a kernel larger than one position.
fn is_spatial(node: &Node) -> bool {
    match &node.operator {
        Operator::Conv(conv) => conv.window.kernel.iter().any(|size| *size > 1),
        _ => false,
    }
}

fn tensor(model: &Model, index: u32) -> Option<&Tensor> {
    match model.constants.get(index as usize)? {
        Constant::Tensor(tensor) => Some(tensor),
        Constant::Stored(_) | Constant::Dims { .. } => None,
    }
}

/// Returns the elements of a float constant of any width.
fn float_elements(model: &Model, index: u32) -> Option<Vec<f32>> {
    tensor(model, index).map(Tensor::to_f32)
}

/// Returns the floats of dequantized constants, or `None` if the integers fit in 4 bits.
fn dequantized(
    model: &Model,
    graph: &Graph,
    node: &Node,
    attributes: &DequantizeLinear,
) -> Option<Vec<f32>> {
    let mut inputs =
        node.inputs.iter().map(|value_id| match graph.nodes[value_id.node as usize].operator {
            Operator::Constant(index) => tensor(model, index),
            _ => None,
        });
    let (x, scales, zeros) = (inputs.next()??, inputs.next()??, inputs.next()??);
    matches!(x.data(), Data::I8(_) | Data::U8(_) | Data::I16(_)).then_some(())?;
    compact::pack_nibbles(x).is_none().then_some(())?;
    let inner = match attributes.axis {
        None => x.len(),
        Some(axis) => x.shape().get(axis as usize + 1..)?.iter().product(),
    };
    let (values, scales, zeros) = (x.to_f32(), scales.to_f32(), zeros.to_f32());
    let value = |(index, value): (usize, &f32)| {
        let of = |list: &[f32]| list.get(index / inner % list.len().max(1)).copied();
        Some((value - of(&zeros)?) * of(&scales)?)
    };
    values.iter().enumerate().map(value).collect()
}

impl Matrix {
    /// Quantizes to [−127, 127], or to ±[`SPATIAL_MAX`] for a spatial kernel, with one scale per
    /// output channel. `step` is the minimum scale.
    fn to_int8(&self, step: Option<f32>) -> Stored {
        let (channels, inner) = match self.axis {
            None => (1, self.values.len()),
            Some(axis) => (self.shape[axis], self.shape[axis + 1..].iter().product()),
        };
        let mut rows: Vec<Vec<f32>> = vec![Vec::new(); channels];
        for (run, values) in self.values.chunks(inner).enumerate() {
            rows[run % channels].extend(values);
        }
        let sizes = vec![1.0; self.values.len() / channels];
        let finest = |row: &[f32]| {
            let greatest = row.iter().fold(0f32, |greatest, weight| greatest.max(weight.abs()));
            let scale = (greatest / f32::from(SPATIAL_MAX)).max(step.unwrap_or(0.0) * SPATIAL_STEP);
            if scale > 0.0 { scale } else { 1.0 }
        };
        let scale = |row: &Vec<f32>| match self.is_spatial {
            true => finest(row),
            false => gptq::step_of(row, &sizes, 0.0, step),
        };
        let scales: Vec<f32> = rows.iter().map(scale).collect();
        let most = if self.is_spatial { SPATIAL_MAX } else { i16::from(i8::MAX) };
        let integer = |(index, value): (usize, &f32)| {
            let steps = f64::from(*value) / f64::from(scales[index / inner % channels]);
            steps.round_ties_even().clamp(f64::from(-most), f64::from(most)) as i16
        };
        let wide: Vec<i16> = self.values.iter().enumerate().map(integer).collect();
        let bytes: Result<Vec<i8>, _> = wide.iter().map(|integer| (*integer).try_into()).collect();
        let (integers, zero): (Data, Data) = match bytes {
            Ok(bytes) => (bytes.into(), vec![0i8].into()),
            Err(_) => (wide.into(), vec![0i16].into()),
        };
        let axis = self.axis.map(|axis| axis as u32);
        let rank = usize::from(axis.is_some());
        let inputs = [
            filled(&self.shape, integers),
            filled(&[channels][..rank], scales),
            filled(&[1][..rank], zero),
        ];
        let dtype = DType::F32;
        Stored { operator: Operator::DequantizeLinear(DequantizeLinear { dtype, axis }), inputs }
    }

    /// Quantizes to 4 bits, in blocks along an axis.
    fn to_int4(&self, axis: usize) -> Stored {
        let Blocks { integers, scales, zeros } = Blocks::round(&self.values, &self.shape, axis);
        let mut shape = self.shape.clone();
        shape[axis] = shape[axis].div_ceil(BLOCK);
        let inputs = [filled(&self.shape, integers), filled(&shape, scales), filled(&shape, zeros)];
        let (axis, block) = (axis as u32, BLOCK as u32);
        let attributes = DequantizeBlocks { dtype: DType::F32, axis, block };
        Stored { operator: Operator::DequantizeBlocks(attributes), inputs }
    }
}

/// Returns a tensor of this shape and data, which must match.
fn filled(shape: &[usize], data: impl Into<Data>) -> Tensor {
    Tensor::new(shape, data).expect("the data matches the shape")
}

#[cfg(test)]
mod tests {
    use hardtack_bundle::graph::{Binary, Einsum, Gather, If, Unary, ValueId};

    use super::*;
    use crate::float_run;
    use crate::testing::{Net, Value, noise};

    const INT8: MatrixStorage = MatrixStorage::Int8;

    fn product(net: &mut Net, expression: &str, a: &Value, b: &Value, shape: &[usize]) -> Value {
        let einsum = Einsum { expression: expression.into(), accumulator: DType::F32 };
        net.node(Operator::Einsum(einsum), &[a, b], shape)
    }

    /// Returns the number of scales and the axis of every dequantization.
    fn scales(model: &Model) -> Vec<(u64, Option<u32>)> {
        let nodes = &model.graph.nodes;
        let of = |node: &Node| {
            let Operator::DequantizeLinear(attributes) = &node.operator else { return None };
            let Operator::Constant(index) = nodes[node.inputs[1].node as usize].operator else {
                return None;
            };
            let elements = model.graph.constants[index as usize].shape.iter().product();
            Some((elements, attributes.axis))
        };
        nodes.iter().filter_map(of).collect()
    }

    /// Returns the signal-to-noise ratio of the outputs, in dB.
    fn kept(before: &Model, after: &Model, shape: &[usize]) -> f64 {
        let samples = vec![vec![noise(shape, 9)]];
        let [before, after] = [before, after].map(|m| float_run::outputs(m, &samples).unwrap());
        let pairs = before[0][0].to_f32().into_iter().zip(after[0][0].to_f32());
        let (signal, error) = pairs.fold((0f64, 0f64), |(signal, error), (a, b)| {
            (signal + f64::from(a).powi(2), error + f64::from(a - b).powi(2))
        });
        10.0 * (signal / error.max(1e-30)).log10()
    }

    #[test]
    fn matmuls_and_convolutions_get_a_scale_per_output_channel() {
        let mut net = Net::new();
        let x = net.input(&[1, 64, 8]);
        let y = net.conv(&x, 32, &[3], |_| {});
        let y = net.node(Operator::Reshape(reshape(&[1, 32, 6], &[1, 192])), &[&y], &[1, 192]);
        let (right, left) = (net.noise(&[192, 40]), net.noise(&[30, 192]));
        let a = product(&mut net, "mk,kn->mn", &y, &right, &[1, 40]);
        let b = product(&mut net, "nk,mk->mn", &left, &y, &[1, 30]);
        let both = net.node(Operator::Concat(1), &[&a, &b], &[1, 70]);
        let model = net.finish(&[&both]);
        let (stored, count) = store(model.clone(), INT8, None);
        assert_eq!(count, 3);
        let mut found = scales(&stored);
        found.sort();
        assert_eq!(found, [(30, Some(0)), (32, Some(0)), (40, Some(1))]);
        let quality = kept(&model, &stored, &[1, 64, 8]);
        assert!(quality > 38.0, "{quality}");
    }

    fn reshape(from: &[i64], to: &[i64]) -> hardtack_bundle::graph::Reshape {
        let dims = |sizes: &[i64]| sizes.iter().map(|size| graph::Dim::Value(*size)).collect();
        hardtack_bundle::graph::Reshape { axis: 0, from: dims(from), to: dims(to) }
    }

    #[test]
    fn small_matrices_and_those_with_other_readers_stay_in_float() {
        let mut net = Net::new();
        let x = net.input(&[1, 64]);
        let (small, shared) = (net.noise(&[64, 63]), net.noise(&[64, 64]));
        let a = product(&mut net, "mk,kn->mn", &x, &small, &[1, 63]);
        let b = product(&mut net, "mk,kn->mn", &x, &shared, &[1, 64]);
        let squares = net.unary(Unary::Square, &shared);
        let model = net.finish(&[&a, &b, &squares]);
        assert_eq!(store(model, INT8, None).1, 0);
    }

    #[test]
    fn tables_get_a_scale_per_row() {
        let mut net = Net::new();
        let x = net.input(&[2, 16]);
        let table = net.noise(&[256, 16]);
        let rows = net.constant(Tensor::new(&[2], vec![255i64, 3]).unwrap());
        let gather = Operator::Gather(Gather { axis: 0, output_dtype: None });
        let taken = net.node(gather, &[&table, &rows], &[2, 16]);
        let sum = net.binary(Binary::Add, &x, &taken);
        let model = net.finish(&[&sum]);
        let (stored, _) = store(model.clone(), INT8, None);
        assert_eq!(scales(&stored), [(256, Some(0))]);
        assert!(kept(&model, &stored, &[2, 16]) > 38.0);
    }

    #[test]
    fn four_bit_blocks_lie_along_the_depth() {
        let mut net = Net::new();
        let x = net.input(&[1, 64, 8]);
        let y = net.conv(&x, 32, &[3], |_| {});
        let y = net.node(Operator::Reshape(reshape(&[1, 32, 6], &[1, 192])), &[&y], &[1, 192]);
        let (right, left) = (net.noise(&[192, 40]), net.noise(&[30, 192]));
        let shallow = net.noise(&[30, 200]);
        let a = product(&mut net, "mk,kn->mn", &y, &right, &[1, 40]);
        let b = product(&mut net, "nk,mk->mn", &left, &y, &[1, 30]);
        let c = product(&mut net, "mk,kn->mn", &b, &shallow, &[1, 200]);
        let both = net.node(Operator::Concat(1), &[&a, &c], &[1, 240]);
        let model = net.finish(&[&both]);
        let (stored, count) = store(model.clone(), MatrixStorage::Int4, Some(3.0));
        assert_eq!(count, 4);
        assert_eq!(scales(&stored).len(), 2, "a spatial kernel, and rows shorter than a block");
        let nodes = &stored.graph.nodes;
        let blocks = |node: &Node| match &node.operator {
            Operator::DequantizeBlocks(attributes) => {
                Some((attributes.axis, nodes[node.inputs[1].node as usize].outputs[0].clone()))
            }
            _ => None,
        };
        let mut found: Vec<_> = nodes.iter().filter_map(blocks).collect();
        found.sort_by_key(|(axis, _)| *axis);
        let expected = [(0, fact(DType::F32, &[6, 40])), (1, fact(DType::F32, &[30, 6]))];
        assert_eq!(found, expected);
        let quality = kept(&model, &stored, &[1, 64, 8]);
        assert!(quality > 18.0, "{quality}");
        assert_eq!(
            store(stored.clone(), MatrixStorage::Int4, None).1,
            2,
            "blocks are left unchanged"
        );
    }

    #[test]
    fn matrices_in_branches_are_found() {
        let mut net = Net::new();
        let x = net.input(&[1, 64]);
        let matrix = net.noise(&[64, 64]);
        let y = product(&mut net, "mk,kn->mn", &x, &matrix, &[1, 64]);
        let mut model = net.finish(&[&y]);
        // The matmul becomes one branch; the other branch returns its input.
        let product = Graph { constants: Vec::new(), ..model.graph.clone() };
        let other = Graph {
            nodes: vec![product.nodes[product.inputs[0] as usize].clone()],
            inputs: vec![0],
            outputs: vec![ValueId { node: 0, output: 0 }],
            ..product.clone()
        };
        let last = product.outputs[0].node as usize;
        let branch = If { then_body: 0, then_inputs: vec![1], else_body: 1, else_inputs: vec![1] };
        let condition = Node {
            name: "condition".into(),
            operator: Operator::Input,
            inputs: Vec::new(),
            outputs: vec![fact(DType::Bool, &[])],
        };
        let input = other.nodes[0].clone();
        let inputs = vec![ValueId { node: 0, output: 0 }, ValueId { node: 1, output: 0 }];
        let operator = Operator::If(branch);
        let choice =
            Node { name: "choice".into(), operator, inputs, ..product.nodes[last].clone() };
        model.graph.nodes = vec![condition, input, choice];
        model.graph.inputs = vec![0, 1];
        model.graph.outputs = vec![ValueId { node: 2, output: 0 }];
        model.graph.bodies = vec![product, other];
        let (stored, count) = store(model.clone(), INT8, None);
        assert_eq!((count, stored.graph.check()), (1, Ok(())));
        let x = noise(&[1, 64], 3);
        for (condition, differs) in [(true, true), (false, false)] {
            let samples = vec![vec![Tensor::new(&[], vec![condition]).unwrap(), x.clone()]];
            let [before, after] =
                [&model, &stored].map(|model| float_run::outputs(model, &samples).unwrap());
            assert_eq!(before != after, differs, "{condition}");
            let pairs = before[0][0].to_f32().into_iter().zip(after[0][0].to_f32());
            assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 0.1));
        }
    }

    #[test]
    fn fewer_bits_also_make_the_steps_of_integers_coarser() {
        let mut net = Net::new();
        let x = net.input(&[1, 64]);
        let matrix = net.noise(&[64, 64]);
        let y = product(&mut net, "mk,kn->mn", &x, &matrix, &[1, 64]);
        let model = net.finish(&[&y]);
        let (bytes, _) = store(model.clone(), INT8, None);
        assert_eq!(store(bytes.clone(), INT8, None).1, 0, "integers are left unchanged");
        let quality = [5.0, 3.0]
            .map(|bits| kept(&model, &store(bytes.clone(), INT8, Some(bits)).0, &[1, 64]));
        // Six dB per bit.
        let lost = quality[0] - quality[1];
        assert!((9.0..15.0).contains(&lost) && quality[0] > 22.0, "{quality:?}");
    }
}
