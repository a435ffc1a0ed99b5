//! What is wrong with a model though nothing else on the way notices.

use std::collections::HashMap;

use hardtack_bundle::graph::{Graph, Node};
use tract_hir::internal::*;
use tract_onnx::pb::{ModelProto, NodeProto};

use super::ImportError;
use super::limits::MAX_RANK;
use super::rewrite::node::Node as _;

/// Checks the nodes of a graph and of its bodies.
pub fn check(graph: &Graph) -> Result<(), ImportError> {
    let bodies = graph.bodies.iter().flat_map(|body| &body.nodes);
    graph.nodes.iter().chain(bodies).try_for_each(check_node)
}

fn check_node(node: &Node) -> Result<(), ImportError> {
    let wrong = |problem: String| {
        let (node, operator) = (node.name.clone(), node.operator.name().into());
        Err(ImportError::Node { node, operator, problem })
    };
    if let Some(fact) = node.outputs.iter().find(|fact| fact.shape.len() > MAX_RANK) {
        let rank = fact.shape.len();
        return wrong(format!("it gives {rank} dimensions, and a value may have {MAX_RANK}"));
    }
    Ok(())
}

/// Checks that those Reshapes keep the number of elements whose shapes are known: tract gives a value
/// without elements where a size of −1 leaves none.
pub fn check_reshapes(proto: &ModelProto, model: &InferenceModel) -> Result<(), ImportError> {
    let nodes = proto.graph.iter().flat_map(|graph| &graph.node);
    let reshapes = nodes.filter(|node| node.op_type == "Reshape");
    let reshapes: HashMap<&str, &NodeProto> = reshapes.map(|node| (node.label(), node)).collect();
    for node in &model.nodes {
        let Some(reshape) = reshapes.get(node.name.as_str()) else { continue };
        let (Some(input), Some(output)) = (node.inputs.first(), node.outputs.first()) else {
            continue;
        };
        let Ok(input) = model.outlet_fact(*input) else { continue };
        if let (Some(before), Some(after)) = (elements(input), elements(&output.fact))
            && before != after
        {
            let problem = format!("its shape has {after} elements, and its input has {before}");
            return Err(reshape.wrong(problem));
        }
    }
    Ok(())
}

/// The number of elements of a value of known shape.
fn elements(fact: &InferenceFact) -> Option<i128> {
    let shape = fact.shape.concretize()?;
    let sizes = shape.iter().map(|dim| dim.to_i64().ok()).collect::<Option<Vec<i64>>>()?;
    sizes.into_iter().try_fold(1i128, |all, size| all.checked_mul(size.into()))
}

#[cfg(test)]
mod tests {
    use hardtack::Tensor;

    use super::super::rewrite::testing::{graph, model, node};
    use super::super::translate::translate;
    use super::*;
    use crate::testing::Net;

    #[test]
    fn a_reshape_keeps_its_elements() {
        let reshaped = |shape: &[i64]| {
            let shape = Tensor::new(&[shape.len()], shape.to_vec()).unwrap();
            let nodes = vec![node("Reshape", &["x", "shape"], &["y"], vec![])];
            translate(model(graph(&[("x", &["1", "4"])], nodes, &[("shape", shape)], &["y"])))
        };
        assert!(reshaped(&[2, -1]).is_ok());
        for shape in [&[8, -1][..], &[1 << 62, -1], &[3]] {
            let error = reshaped(shape).unwrap_err();
            assert!(matches!(error, ImportError::Node { .. } | ImportError::Graph { .. }));
        }
        let error = reshaped(&[8, -1]).unwrap_err().to_string();
        assert!(error.contains("its shape has 0 elements, and its input has 4"), "{error}");
    }

    #[test]
    fn values_have_a_greatest_rank() {
        let mut net = Net::new();
        let x = net.input(&[1; MAX_RANK + 1]);
        let error = check(&net.finish(&[&x]).graph).unwrap_err().to_string();
        assert!(error.contains("it gives 65 dimensions"), "{error}");
    }
}
