//! Dynamic quantization: runs matmuls of a float model with large integer constants in INT8.
//! Activations are quantized at run time, each row by its own range; no calibration data is needed.

use std::collections::{HashMap, HashSet};

use hardtack::internal::{Constant, Model};
use hardtack::{Data, Tensor};
use hardtack_bundle::DType;
use hardtack_bundle::graph::{Binary, DequantizeLinear, Dim, DynamicMatMul, Fact, Graph, Node};
use hardtack_bundle::graph::{Operator, ValueId};
use hardtack_kernels::Product;

use super::matrices::LARGE;
use crate::graph::rewriter::Rewriter;

/// An integer matrix of shape `[depth, columns]`, with its scale and zero point.
struct Matrix {
    columns: usize,
    integers: Constant,
    scale: ValueId,
    zero_point: ValueId,
}

/// A contraction expressed as a matmul of rows and columns.
struct Layout {
    /// The axes of the matrix that are summed over (`depth`) and kept (`columns`).
    depth: usize,
    columns: usize,
    /// The summed axis of the other operand.
    summed: usize,
    /// The operators that reorder the axes of the result.
    moves: Vec<Operator>,
}

/// Converts matmuls of the outermost graph with a large matrix of dequantized bytes to INT8.
/// Returns the model and the number of converted matmuls. The matrix must have one scale, or one
/// per column; its integers stay unchanged.
pub(crate) fn quantize_matmuls(model: Model) -> (Model, usize) {
    let mut rewriter = Rewriter::new(model);
    let nodes = 0..rewriter.model.graph.nodes.len();
    let count = nodes.filter(|index| replace(&mut rewriter, *index).is_some()).count();
    (rewriter.finish(), count)
}

/// Returns the indices of the constants that these matmuls read in a graph and its bodies.
pub(crate) fn constants(graph: &Graph) -> HashSet<u32> {
    let graphs = std::iter::once(graph).chain(&graph.bodies);
    let of_graph = |graph: &'_ Graph| -> Vec<u32> {
        let products =
            graph.nodes.iter().filter(|n| matches!(n.operator, Operator::DynamicMatMul(_)));
        let constant = |value_id: &ValueId| match graph.nodes[value_id.node as usize].operator {
            Operator::Constant(index) => Some(index),
            _ => None,
        };
        products.flat_map(|node| &node.inputs).filter_map(constant).collect()
    };
    graphs.flat_map(of_graph).collect()
}

/// Fuses constants that are added to the columns of these matmuls as their biases.
pub(crate) fn fuse_biases(model: Model) -> Model {
    let mut rewriter = Rewriter::new(model);
    // Fusing a bias does not change how often other values are read.
    let uses = rewriter.uses();
    for index in 0..rewriter.model.graph.nodes.len() {
        add_bias(&mut rewriter, index, &uses);
    }
    rewriter.finish()
}

fn replace(rewriter: &mut Rewriter, index: usize) -> Option<()> {
    let einsum = rewriter.node(index).clone();
    let Operator::Einsum(attributes) = &einsum.operator else { return None };
    let [_, _] = einsum.inputs[..] else { return None };
    let (slot, matrix, layout) = [1, 0].into_iter().find_map(|slot| {
        let shape = sizes(rewriter.model.graph.fact(einsum.inputs[slot]))?;
        let large = shape.iter().product::<usize>() >= LARGE;
        let x = rewriter.model.graph.fact(einsum.inputs[1 - slot]);
        let layout = Layout::of(&attributes.expression, slot, &shape, x).filter(|_| large)?;
        Some((slot, matrix(rewriter, einsum.inputs[slot], &layout)?, layout))
    })?;
    let mut x = einsum.inputs[1 - slot];
    let real = |value_id| rewriter.model.graph.fact(value_id).dtype == DType::F32;
    let result = ValueId { node: index as u32, output: 0 };
    (real(x) && real(result)).then_some(())?;

    let name = einsum.name;
    let mut shape = rewriter.model.graph.fact(x).shape.clone();
    let last = shape.len() - 1;
    let depth = shape.remove(layout.summed);
    if layout.summed != last {
        shape.push(depth);
        let operator = Operator::MoveAxis((layout.summed as u32, last as u32));
        x = add(rewriter, format!("{name}.rows"), operator, &[x], &shape);
        shape.pop();
    }
    let integers = rewriter.add_constant(format!("{name}.weights"), matrix.integers);
    let inputs = [x, integers, matrix.scale, matrix.zero_point];
    shape.push(Dim::Value(matrix.columns as i64));
    let operator = Operator::DynamicMatMul(DynamicMatMul { per_row: true });
    let product = match layout.moves.is_empty() {
        true => name.clone(),
        false => format!("{name}.product"),
    };
    let mut y = add(rewriter, product, operator, &inputs, &shape);
    for (number, operator) in layout.moves.iter().enumerate() {
        match operator {
            Operator::RemoveAxis(axis) => drop(shape.remove(*axis as usize)),
            Operator::AddAxis(axis) => shape.insert(*axis as usize, Dim::Value(1)),
            Operator::MoveAxis((from, to)) => {
                let dim = shape.remove(*from as usize);
                shape.insert(*to as usize, dim);
            }
            _ => return None,
        }
        let name = match number + 1 == layout.moves.len() {
            true => name.clone(),
            false => format!("{name}.order.{number}"),
        };
        y = add(rewriter, name, operator.clone(), &[y], &shape);
    }
    rewriter.redirect(result, y);
    Some(())
}

fn add(
    rewriter: &mut Rewriter,
    name: String,
    operator: Operator,
    inputs: &[ValueId],
    shape: &[Dim],
) -> ValueId {
    let outputs = vec![Fact { dtype: DType::F32, shape: shape.into() }];
    rewriter.add(Node { name, operator, inputs: inputs.into(), outputs })
}

fn sizes(fact: &Fact) -> Option<Vec<usize>> {
    fact.shape.iter().map(|dim| usize::try_from(dim.value()?).ok()).collect()
}

fn tensor(rewriter: &Rewriter, value_id: ValueId) -> Option<&Tensor> {
    match rewriter.constant(value_id)? {
        Constant::Tensor(tensor) => Some(tensor),
        Constant::Stored(_) | Constant::Dims { .. } => None,
    }
}

impl Layout {
    /// Parses an expression whose operand `slot` is a matrix of this shape and whose other operand
    /// is `x`. Returns `None` if it is not a matmul.
    fn of(expression: &str, slot: usize, shape: &[usize], x: &Fact) -> Option<Layout> {
        let (sides, result) = expression.split_once("->")?;
        let (left, right) = sides.split_once(',')?;
        let [own, other] = if slot == 1 { [right, left] } else { [left, right] };
        let [own, other, result] =
            [own, other, result].map(|side| side.chars().collect::<Vec<char>>());
        (own.len() == shape.len() && other.len() == x.shape.len()).then_some(())?;
        // All other axes of the matrix must have size 1.
        let large: Vec<usize> = (0..own.len()).filter(|axis| shape[*axis] > 1).collect();
        let [a, b] = large[..] else { return None };
        let [depth, columns] = if result.contains(&own[b]) { [a, b] } else { [b, a] };
        let (summed, column) = (own[depth], own[columns]);
        let product = other.contains(&summed)
            && !result.contains(&summed)
            && result.contains(&column)
            && !other.contains(&column);
        // Weights of 9 bits can need up to three copies of their inputs.
        (product && shape[depth] <= Product::DEPTH / 3).then_some(())?;
        let mut order: Vec<char> = other.iter().copied().filter(|axis| *axis != summed).collect();
        order.push(column);
        for axes in [&order, &result] {
            axes.iter().all(|a| axes.iter().filter(|b| a == *b).count() == 1).then_some(())?;
        }
        let mut moves = Vec::new();
        let one = Dim::Value(1);
        for (axis, dim) in other.iter().zip(&x.shape) {
            if *axis != summed && !result.contains(axis) {
                (*dim == one).then_some(())?;
                let at = order.iter().position(|other| other == axis)?;
                order.remove(at);
                moves.push(Operator::RemoveAxis(at as u32));
            }
        }
        for (to, axis) in result.iter().enumerate() {
            match order.iter().position(|other| other == axis) {
                Some(from) if from == to => {}
                Some(from) => {
                    order.remove(from);
                    order.insert(to, *axis);
                    moves.push(Operator::MoveAxis((from as u32, to as u32)));
                }
                None => {
                    order.insert(to, *axis);
                    moves.push(Operator::AddAxis(to as u32));
                }
            }
        }
        let summed = other.iter().position(|axis| *axis == summed)?;
        Some(Layout { depth, columns, summed, moves })
    }
}

/// Returns the integers of a dequantized matrix.
fn matrix(rewriter: &Rewriter, value_id: ValueId, layout: &Layout) -> Option<Matrix> {
    let node = rewriter.node(rewriter.resolve(value_id).node as usize);
    let Operator::DequantizeLinear(DequantizeLinear { dtype: DType::F32, axis }) = node.operator
    else {
        return None;
    };
    let [integers, scale, zero_point] = node.inputs[..] else { return None };
    let integers = tensor(rewriter, integers)?;
    axis.is_none_or(|axis| axis as usize == layout.columns).then_some(())?;
    let (columns, depth) = (integers.shape()[layout.columns], integers.shape()[layout.depth]);
    for parameter in [scale, zero_point] {
        let elements = tensor(rewriter, parameter)?.len();
        (elements == 1 || elements == columns).then_some(())?;
    }
    let transposed = layout.columns < layout.depth;
    let data: Data = match integers.data() {
        Data::I8(values) => ordered(values, columns, transposed).into(),
        Data::U8(values) => ordered(values, columns, transposed).into(),
        _ => return None,
    };
    let integers = Constant::Tensor(Tensor::new(&[depth, columns], data).ok()?.into());
    Some(Matrix { columns, integers, scale, zero_point })
}

/// Returns the elements in `[depth, columns]` order.
fn ordered<T: Copy>(values: &[T], columns: usize, transposed: bool) -> Vec<T> {
    if !transposed {
        return values.to_vec();
    }
    let depth = values.len() / columns;
    (0..values.len()).map(|index| values[index % columns * depth + index / columns]).collect()
}

/// Fuses an addition of a constant per column into a matmul without bias that nothing else reads.
fn add_bias(rewriter: &mut Rewriter, index: usize, uses: &HashMap<ValueId, usize>) -> Option<()> {
    let sum = rewriter.node(index).clone();
    let Operator::Binary(Binary::Add) = sum.operator else { return None };
    let inputs: Vec<ValueId> = sum.inputs.iter().map(|x| rewriter.resolve(*x)).collect();
    let [a, b] = inputs[..] else { return None };
    let [(product, bias)] = [(a, b), (b, a)]
        .into_iter()
        .filter(|(product, _)| {
            let node = rewriter.node(product.node as usize);
            matches!(node.operator, Operator::DynamicMatMul(_)) && node.inputs.len() == 4
        })
        .collect::<Vec<_>>()[..]
    else {
        return None;
    };
    (uses.get(&product) == Some(&1)).then_some(())?;
    let bias = tensor(rewriter, bias)?;
    let columns =
        usize::try_from(rewriter.model.graph.fact(product).shape.last()?.value()?).ok()?;
    let last = bias.shape().last() == Some(&columns) && bias.len() == columns;
    (last && bias.dtype() == DType::F32).then_some(())?;
    let bias = Tensor::new(&[columns], bias.to_f32()).ok()?;
    let mut node = rewriter.node(product.node as usize).clone();
    let name = format!("{}.bias", node.name);
    node.inputs.push(rewriter.add_constant(name, Constant::Tensor(bias.into())));
    node.name = sum.name;
    let y = rewriter.add(node);
    rewriter.redirect(ValueId { node: index as u32, output: 0 }, y);
    Some(())
}

#[cfg(test)]
mod tests {
    use hardtack_bundle::graph::Einsum;

    use super::*;
    use crate::float_run;
    use crate::options::MatrixStorage;
    use crate::storage::matrices;
    use crate::testing::{Net, Value, noise};

    fn product(net: &mut Net, expression: &str, a: &Value, b: &Value, shape: &[usize]) -> Value {
        let einsum = Einsum { expression: expression.into(), accumulator: DType::F32 };
        net.node(Operator::Einsum(einsum), &[a, b], shape)
    }

    fn count(model: &Model, is: impl Fn(&Node) -> bool) -> usize {
        model.graph.nodes.iter().filter(|node| is(node)).count()
    }

    /// Returns the signal-to-noise ratio of the outputs, in dB.
    fn kept(before: &Model, after: &Model, shape: &[usize]) -> f64 {
        let samples = vec![vec![noise(shape, 9)]];
        let [before, after] = [before, after].map(|m| float_run::outputs(m, &samples).unwrap());
        let pairs = before[0].iter().zip(&after[0]);
        let pairs = pairs.flat_map(|(a, b)| a.to_f32().into_iter().zip(b.to_f32()));
        let (signal, error) = pairs.fold((0f64, 0f64), |(signal, error), (a, b)| {
            (signal + f64::from(a).powi(2), error + f64::from(a - b).powi(2))
        });
        10.0 * (signal / error.max(1e-30)).log10()
    }

    #[test]
    fn matmuls_with_any_axis_order_run_in_integers() {
        for (expression, input, matrix, shape, moved) in [
            ("abk,kn->abn", vec![2, 3, 64], vec![64, 80], vec![2, 3, 80], 0),
            ("abk,nk->abn", vec![2, 3, 64], vec![80, 64], vec![2, 3, 80], 0),
            ("kn,abk->anb", vec![2, 3, 64], vec![64, 80], vec![2, 80, 3], 1),
            ("akb,kn->nab", vec![2, 64, 3], vec![64, 80], vec![80, 2, 3], 2),
            ("abk,akn->nba", vec![2, 3, 64], vec![1, 64, 80], vec![80, 3, 2], 2),
            ("abk,kn->bn", vec![1, 3, 64], vec![64, 80], vec![3, 80], 1),
            ("bk,kn->abn", vec![3, 64], vec![64, 80], vec![1, 3, 80], 1),
        ] {
            let mut net = Net::new();
            let x = net.input(&input);
            let matrix = net.noise(&matrix);
            let y = match expression.starts_with("kn") {
                true => product(&mut net, expression, &matrix, &x, &shape),
                false => product(&mut net, expression, &x, &matrix, &shape),
            };
            let model = net.finish(&[&y]);
            let (model, _) = matrices::store(model, MatrixStorage::Int8, None);
            let (dynamic, replaced) = quantize_matmuls(model.clone());
            assert_eq!(dynamic.graph.check(), Ok(()), "{expression}");
            assert_eq!(replaced, 1, "{expression}");
            let left = |node: &Node| {
                matches!(node.operator, Operator::Einsum(_) | Operator::DequantizeLinear(_))
            };
            assert_eq!(count(&dynamic, left), 0, "{expression}");
            let moves = |node: &Node| {
                let operator = &node.operator;
                matches!(operator, Operator::MoveAxis(_) | Operator::AddAxis(_))
                    || matches!(operator, Operator::RemoveAxis(_))
            };
            assert_eq!(count(&dynamic, moves), moved, "{expression}");
            let quality = kept(&model, &dynamic, &input);
            assert!((36.0..60.0).contains(&quality), "{expression}: {quality}");
        }
    }

    #[test]
    fn a_bias_is_fused_into_the_matmul() {
        let mut net = Net::new();
        let x = net.input(&[2, 3, 64]);
        let (matrix, bias) = (net.noise(&[64, 80]), net.noise(&[1, 1, 80]));
        let (row, other) = (net.noise(&[1, 3, 1]), net.noise(&[64, 80]));
        let y = product(&mut net, "abk,kn->abn", &x, &matrix, &[2, 3, 80]);
        let z = product(&mut net, "abk,kn->abn", &x, &other, &[2, 3, 80]);
        let a = net.binary(Binary::Add, &bias, &y);
        // These are not fused: one is not per column, and the matmul of both has two readers.
        let b = net.binary(Binary::Add, &z, &row);
        let c = net.binary(Binary::Add, &z, &bias);
        let (dynamic, replaced) = quantize_matmuls(
            matrices::store(net.finish(&[&a, &b, &c]), MatrixStorage::Int8, None).0,
        );
        let fused = fuse_biases(dynamic.clone());
        assert_eq!((replaced, fused.graph.check()), (2, Ok(())));
        let adds = |node: &Node| node.operator == Operator::Binary(Binary::Add);
        assert_eq!((count(&dynamic, adds), count(&fused, adds)), (3, 2));
        assert_eq!(fused.graph.nodes[fused.graph.outputs[0].node as usize].inputs.len(), 5);
        let samples = vec![vec![noise(&[2, 3, 64], 9)]];
        let [dynamic, fused] =
            [&dynamic, &fused].map(|model| float_run::outputs(model, &samples).unwrap());
        assert_eq!(dynamic, fused);
    }

    #[test]
    fn other_contractions_stay_in_float() {
        for (expression, shape, matrix) in [
            // The matrix depends on the batch, has two summed or two column axes, or is small.
            ("abk,akn->abn", vec![2, 3, 80], vec![2, 64, 80]),
            ("abk,bkn->an", vec![2, 80], vec![3, 64, 80]),
            ("abk,knm->abnm", vec![2, 3, 8, 10], vec![64, 8, 10]),
            ("abk,kn->abn", vec![2, 3, 63], vec![64, 63]),
        ] {
            let mut net = Net::new();
            let x = net.input(&[2, 3, 64]);
            let matrix = net.noise(&matrix);
            let y = product(&mut net, expression, &x, &matrix, &shape);
            let (model, _) = matrices::store(net.finish(&[&y]), MatrixStorage::Int8, None);
            assert_eq!(quantize_matmuls(model).1, 0, "{expression}");
        }
    }
}
