//! Dynamically quantized matmuls, as `onnxruntime.quantization.quantize_dynamic` and ONNX Runtime's
//! optimizer write them. Each becomes one custom operator, which runs as an INT8 matmul.

use std::collections::HashMap;

use hardtack::{Data, Tensor};
use hardtack_bundle::DType;
use tract_onnx::pb::{GraphProto, NodeProto, TensorProto};

use super::emit::Context;
use super::tidy::reads;
use crate::import::node::Node;
use crate::import::operators::{CUSTOM_DOMAIN, DYNAMIC_MAT_MUL};
use crate::import::tensor;

/// A dynamically quantized matmul, as the names of its inputs and output.
struct Product {
    x: String,
    matrix: String,
    scale: String,
    zero_point: Option<String>,
    bias: Option<String>,
    output: String,
}

/// Rewrites the matmuls of a graph and its subgraphs that have one of these forms:
///
/// - MatMulInteger of a DynamicQuantizeLinear output and a constant, followed by a Cast to f32 and
///   a Mul with the product of both scales
/// - `com.microsoft::MatMulIntegerToFloat` of the same inputs
/// - `com.microsoft::DynamicQuantizeMatMul`
pub(crate) fn rewrite(graph: &mut GraphProto, context: &mut Context) {
    for node in &mut graph.node {
        for attribute in &mut node.attribute {
            let graphs = attribute.g.iter_mut().chain(&mut attribute.graphs);
            graphs.for_each(|inner| rewrite(inner, context));
        }
    }
    let found = Reader::of(graph).find();
    let any = !found.is_empty();
    for (index, product) in found {
        let node = std::mem::take(&mut graph.node[index]);
        emit(graph, context, index, &node, product);
    }
    if any {
        remove_unread(graph);
    }
}

/// Removes the parts of rewritten matmuls that are now unused, and the parts that only those used.
fn remove_unread(graph: &mut GraphProto) {
    const PARTS: [&str; 4] = ["MatMulInteger", "Cast", "Mul", "DynamicQuantizeLinear"];
    let mut producers: HashMap<String, usize> = HashMap::new();
    let mut readers: HashMap<String, usize> = HashMap::new();
    for (index, node) in graph.node.iter().enumerate() {
        producers.extend(node.output.iter().map(|name| (name.clone(), index)));
        reads(node).into_iter().for_each(|name| *readers.entry(name).or_default() += 1);
    }
    for output in &graph.output {
        *readers.entry(output.name.clone()).or_default() += 1;
    }
    let mut removed = vec![false; graph.node.len()];
    let mut waiting: Vec<usize> = (0..graph.node.len()).collect();
    while let Some(index) = waiting.pop() {
        let node = &graph.node[index];
        let read = |name: &String| readers.get(name).is_some_and(|count| *count > 0);
        let part = PARTS.contains(&node.op_type.as_str());
        if removed[index] || !part || node.output.iter().any(read) {
            continue;
        }
        removed[index] = true;
        for name in reads(node) {
            let count = readers.entry(name.clone()).or_default();
            *count = count.saturating_sub(1);
            waiting.extend(producers.get(&name));
        }
    }
    let mut removed = removed.into_iter();
    graph.node.retain(|_| !removed.next().unwrap_or(false));
}

/// The index of a graph in which matmuls are searched.
struct Reader<'g> {
    graph: &'g GraphProto,
    producers: HashMap<&'g str, usize>,
    readers: HashMap<&'g str, Vec<usize>>,
    constants: HashMap<&'g str, &'g TensorProto>,
}

impl<'g> Reader<'g> {
    fn of(graph: &'g GraphProto) -> Self {
        let (mut producers, mut readers) = (HashMap::new(), HashMap::<&str, Vec<usize>>::new());
        for (index, node) in graph.node.iter().enumerate() {
            producers.extend(node.output.iter().map(|output| (output.as_str(), index)));
            for input in &node.input {
                readers.entry(input).or_default().push(index);
            }
        }
        // Graph outputs count as another reader.
        for output in &graph.output {
            readers.entry(&output.name).or_default().push(usize::MAX);
        }
        let constants = graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor));
        let constants = constants.collect();
        Self { graph, producers, readers, constants }
    }

    fn find(&self) -> Vec<(usize, Product)> {
        let nodes = self.graph.node.iter().enumerate();
        nodes.filter_map(|(index, node)| self.product(index, node)).collect()
    }

    /// Returns the matmul that starts at a node, and the index of its last node.
    fn product(&self, index: usize, node: &NodeProto) -> Option<(usize, Product)> {
        let given = |index| node.given(index).map(str::to_owned);
        let (last, product) = match node.op_type.as_str() {
            "DynamicQuantizeMatMul" => {
                let product = Product {
                    x: given(0)?,
                    matrix: given(1)?,
                    scale: given(2)?,
                    zero_point: given(3),
                    bias: given(4),
                    output: node.wanted(0)?.to_owned(),
                };
                (index, product)
            }
            "MatMulIntegerToFloat" => {
                let x = self.quantized(node.given(0)?, node.given(2), node.given(4))?;
                let product = Product {
                    x,
                    matrix: given(1)?,
                    scale: given(3)?,
                    zero_point: given(5),
                    bias: given(6),
                    output: node.wanted(0)?.to_owned(),
                };
                (index, product)
            }
            "MatMulInteger" => self.scaled(node)?,
            _ => return None,
        };
        self.fits(&product).then_some((last, product))
    }

    /// Matches a MatMulInteger followed by the Cast and the Mul that dequantize it.
    fn scaled(&self, node: &NodeProto) -> Option<(usize, Product)> {
        let (_, cast) = self.only_reader(node.wanted(0)?, "Cast")?;
        (cast.int("to")? == i64::from(tensor::number_of(DType::F32))).then_some(())?;
        let (last, multiply) = self.only_reader(cast.wanted(0)?, "Mul")?;
        let both = multiply.input.iter().find(|input| input.as_str() != cast.output[0])?;
        let scales = self.producer(both, "Mul")?;
        let [a, b] = &scales.input[..] else { return None };
        let (of_x, scale) = if self.constants.contains_key(b.as_str()) { (a, b) } else { (b, a) };
        let product = Product {
            x: self.quantized(node.given(0)?, Some(of_x), node.given(2))?,
            matrix: node.given(1)?.to_owned(),
            scale: scale.clone(),
            zero_point: node.given(3).map(str::to_owned),
            bias: None,
            output: multiply.wanted(0)?.to_owned(),
        };
        Some((last, product))
    }

    fn producer(&self, name: &str, operator: &str) -> Option<&'g NodeProto> {
        let node = &self.graph.node[*self.producers.get(name)?];
        (node.op_type == operator).then_some(node)
    }

    fn only_reader(&self, name: &str, operator: &str) -> Option<(usize, &'g NodeProto)> {
        let [index] = self.readers.get(name)?[..] else { return None };
        let node = self.graph.node.get(index)?;
        (node.op_type == operator).then_some((index, node))
    }

    /// Returns the input of the DynamicQuantizeLinear that computes these integers, scale and zero
    /// point.
    fn quantized(
        &self,
        integers: &str,
        scale: Option<&str>,
        zero_point: Option<&str>,
    ) -> Option<String> {
        let node = self.producer(integers, "DynamicQuantizeLinear")?;
        let same = node.wanted(0) == Some(integers)
            && scale.is_some_and(|name| node.wanted(1) == Some(name))
            && zero_point.is_some_and(|name| node.wanted(2) == Some(name));
        same.then(|| node.given(0).map(str::to_owned))?
    }

    /// Returns whether the custom operator supports these inputs: an 8-bit constant matrix with a
    /// constant scale and zero point, per tensor or per column.
    fn fits(&self, product: &Product) -> bool {
        let Some(matrix) = self.constants.get(product.matrix.as_str()) else { return false };
        let [depth, columns] = matrix.dims[..] else { return false };
        let fits = |name: &String| {
            let constant = self.constants.get(name.as_str());
            let elements = constant.map(|constant| constant.dims.iter().product::<i64>());
            elements.is_some_and(|elements| elements == 1 || elements == columns)
        };
        let bytes = [DType::I8, DType::U8].map(tensor::number_of);
        // Leave room for up to three copies of each input.
        let most = hardtack_kernels::Product::DEPTH as i64 / 3;
        bytes.contains(&matrix.data_type)
            && (1..=most).contains(&depth)
            && columns > 0
            && fits(&product.scale)
            && product.zero_point.iter().all(fits)
    }
}

/// Replaces a node by the custom operator, followed by an Add for the bias.
fn emit(
    graph: &mut GraphProto,
    context: &mut Context,
    index: usize,
    node: &NodeProto,
    product: Product,
) {
    let base = node.label().to_owned();
    let zero_point = product.zero_point.unwrap_or_else(|| {
        let matrix = graph.initializer.iter().find(|tensor| tensor.name == product.matrix);
        let unsigned = tensor::number_of(DType::U8);
        let zero: Data = match matrix.is_some_and(|tensor| tensor.data_type == unsigned) {
            true => vec![0u8].into(),
            false => vec![0i8].into(),
        };
        let name = context.fresh(&format!("{base}.zero_point"));
        let zero = Tensor::new(&[], zero).expect("one element");
        graph.initializer.push(tensor::store(&name, &zero));
        name
    });
    let sum = match &product.bias {
        Some(_) => context.fresh(&format!("{base}.product")),
        None => product.output.clone(),
    };
    graph.node[index] = NodeProto {
        name: base.clone(),
        domain: CUSTOM_DOMAIN.into(),
        op_type: DYNAMIC_MAT_MUL.into(),
        input: vec![product.x, product.matrix, product.scale, zero_point],
        output: vec![sum.clone()],
        ..NodeProto::default()
    };
    if let Some(bias) = product.bias {
        graph.node.push(NodeProto {
            name: context.fresh(&format!("{base}.bias")),
            op_type: "Add".into(),
            input: vec![sum, bias],
            output: vec![product.output],
            ..NodeProto::default()
        });
    }
    context.note("dynamically quantized matmuls are converted to single INT8 operators".into());
}

#[cfg(test)]
mod tests {
    use super::super::testing::{context, graph, node};
    use super::*;
    use crate::import::node::int;
    use tract_onnx::pb::ValueInfoProto;

    /// Rewrites the output of quantize_dynamic after `change`. Returns the resulting operators.
    fn rewritten(change: impl Fn(&mut GraphProto)) -> Vec<String> {
        let nodes = vec![
            node("DynamicQuantizeLinear", &["x"], &["q", "s", "z"], vec![]),
            node("MatMulInteger", &["q", "w", "z"], &["sum"], vec![]),
            node("Cast", &["sum"], &["real"], vec![int("to", 1)]),
            node("Mul", &["s", "ws"], &["scale"], vec![]),
            node("Mul", &["real", "scale"], &["y"], vec![]),
        ];
        let constants = [
            ("w", Tensor::new(&[4, 2], vec![1i8; 8]).unwrap()),
            ("ws", Tensor::new(&[2], vec![0.5f32, 2.0]).unwrap()),
            ("wide", Tensor::new(&[3, 4, 2], vec![1i8; 24]).unwrap()),
        ];
        let mut graph = graph(&[("x", &["3", "4"])], nodes, &constants, &["y"]);
        change(&mut graph);
        rewrite(&mut graph, &mut context());
        graph.node.iter().map(|node| node.op_type.clone()).collect()
    }

    #[test]
    fn dynamically_quantized_matmuls_become_one_operator() {
        assert_eq!(rewritten(|_| {}), [DYNAMIC_MAT_MUL]);
        let swapped = rewritten(|graph| {
            graph.node[3].input.swap(0, 1);
            graph.node[4].input.swap(0, 1);
        });
        assert_eq!(swapped, [DYNAMIC_MAT_MUL]);
    }

    #[test]
    fn matmuls_with_other_readers_or_scales_are_not_rewritten() {
        let output = |graph: &mut GraphProto, name: &str| {
            let named = ValueInfoProto { name: name.into(), ..ValueInfoProto::default() };
            graph.output.push(named);
        };
        let all = 5;
        let quantized_by_others = |graph: &mut GraphProto| {
            let other = node("DynamicQuantizeLinear", &["y"], &["oq", "os", "oz"], vec![]);
            graph.node.push(other);
            graph.node[1].input[2] = "oz".into();
        };
        assert_eq!(rewritten(|graph| output(graph, "sum")).len(), all);
        assert_eq!(rewritten(|graph| output(graph, "real")).len(), all);
        assert_eq!(rewritten(|graph| graph.node[1].input[1] = "wide".into()).len(), all);
        assert_eq!(rewritten(|graph| graph.node[1].input[1] = "x".into()).len(), all);
        assert_eq!(rewritten(|graph| graph.node[1].input[2] = "".into()).len(), all);
        assert_eq!(rewritten(|graph| graph.node[2].attribute[0].i = 10).len(), all);
        assert_eq!(rewritten(|graph| graph.node[3].input[1] = "x".into()).len(), all);
        assert_eq!(rewritten(quantized_by_others).len(), all + 1);
        // The quantized activation is still used.
        let kept = rewritten(|graph| output(graph, "q"));
        assert_eq!(kept, ["DynamicQuantizeLinear", DYNAMIC_MAT_MUL]);
    }
}
