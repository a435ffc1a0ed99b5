//! Upgrades nodes of old operator sets to forms that tract reads.

use hardtack::Tensor;
use tract_onnx::pb::NodeProto;

use super::emit::Emit;
use crate::import::node::{Node, tensor as tensor_attribute, text};
use crate::import::{ImportError, tensor};

/// Rewrites one node.
pub(crate) fn rewrite(node: &mut NodeProto, emit: &mut Emit<'_>) -> Result<bool, ImportError> {
    if !node.domain.is_empty() && node.domain != "ai.onnx" {
        return Ok(false);
    }
    let opset = emit.context.opset;
    match node.op_type.as_str() {
        // Opset 7 has the scales as an attribute; opset 9, like Resize of opset 10, as an input.
        "Upsample" => {
            if node.given(1).is_none() {
                let scales = node.floats("scales").to_vec();
                if scales.is_empty() {
                    return Err(node.wrong("it has no scales"));
                }
                let scales = Tensor::new(&[scales.len()], scales).expect("its own length");
                let scales = emit.constant("scales", &scales);
                node.input.truncate(1);
                node.input.push(scales);
                node.attribute.retain(|attribute| attribute.name != "scales");
            }
            node.op_type = "Resize".into();
            resize(node, emit);
        }
        "Resize" if opset <= 10 => resize(node, emit),
        "TopK" if opset < 10 && node.given(1).is_none() => {
            let k = node.int("k").ok_or_else(|| node.wrong("it has no k"))?;
            let k = emit.list("k", &[k]);
            node.input.push(k);
            node.attribute.retain(|attribute| attribute.name != "k");
        }
        "Reshape" if opset < 5 && node.given(1).is_none() => {
            let shape = emit.list("shape", node.ints("shape"));
            node.input.push(shape);
            node.attribute.retain(|attribute| attribute.name != "shape");
        }
        // tract's default value has type f64.
        "ConstantOfShape" if node.attribute("value").is_none() => {
            let zero = tensor::store("", &Tensor::scalar(0f32));
            node.attribute.push(tensor_attribute("value", zero));
        }
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "And" | "Or" | "Equal" | "Less" | "Greater"
        | "Gemm" | "PRelu"
            if opset < 7 && node.attribute("axis").is_some() =>
        {
            let problem = "attribute axis of operator sets before 7 is not supported; \
                           convert the model with onnx.version_converter";
            return Err(node.wrong(problem));
        }
        _ => return Ok(false),
    }
    emit.whole(node.clone());
    Ok(true)
}

/// Adds the attributes that reproduce the behavior of an old Resize.
fn resize(node: &mut NodeProto, emit: &mut Emit<'_>) {
    if node.text("mode") == Some("bilinear") || node.text("mode") == Some("trilinear") {
        node.attribute.retain(|attribute| attribute.name != "mode");
        node.attribute.push(text("mode", "linear"));
    }
    if node.attribute("coordinate_transformation_mode").is_none() {
        node.attribute.push(text("coordinate_transformation_mode", "asymmetric"));
    }
    if node.attribute("nearest_mode").is_none() {
        // Before opset 11, upsampling rounds down, and downsampling rounds up.
        let scales = node.given(1).and_then(|name| emit.scope.floats(name));
        let reduces = scales.is_some_and(|scales| scales.iter().any(|scale| *scale < 1.0));
        node.attribute.push(text("nearest_mode", if reduces { "ceil" } else { "floor" }));
    }
}

#[cfg(test)]
mod tests {
    use super::super::emit::{Context, rewrite_nodes};
    use super::super::testing::{graph, model, node};
    use super::*;
    use crate::import::node::{Node, int, ints};
    use tract_onnx::pb::GraphProto;

    fn rewritten(node: NodeProto, opset: i64) -> Result<GraphProto, ImportError> {
        let mut model = model(graph(&[("x", &["1", "1", "2", "2"])], vec![node], &[], &["y"]));
        model.opset_import[0].version = opset;
        let mut context = Context::of(&model);
        let mut graph = model.graph.take().unwrap();
        rewrite_nodes(&mut graph, &mut context, &rewrite)?;
        Ok(graph)
    }

    #[test]
    fn old_operator_sets_are_upgraded() {
        let mut attribute = ints("scales", &[]);
        attribute.floats = vec![1.0, 1.0, 3.0, 3.0];
        let graph = rewritten(node("Upsample", &["x"], &["y"], vec![attribute]), 7).unwrap();
        let resize = &graph.node[0];
        assert_eq!((resize.op_type.as_str(), resize.input.len()), ("Resize", 2));
        assert_eq!(resize.text("nearest_mode"), Some("floor"));
        assert_eq!(resize.text("coordinate_transformation_mode"), Some("asymmetric"));

        let graph = rewritten(node("TopK", &["x"], &["y", "i"], vec![int("k", 2)]), 9).unwrap();
        let k = tensor::load(&graph.initializer[0]);
        assert_eq!(k, Tensor::new(&[1], vec![2i64]).ok());
    }

    #[test]
    fn old_broadcasting_is_rejected() {
        let add = node("Add", &["x", "x"], &["y"], vec![int("axis", 1), int("broadcast", 1)]);
        let message = rewritten(add, 6).unwrap_err().to_string();
        assert!(message.starts_with("in node \"y_node\" (Add): attribute axis"), "{message}");
    }
}
