//! Ensembles of decision trees: validates and flattens them for the custom operator.

use std::collections::HashMap;

use hardtack::{Data, Tensor};
use hardtack_bundle::DType;
use hardtack_bundle::graph::{TreeAggregate, TreeTest};
use tract_onnx::pb::NodeProto;

use super::emit::Emit;
use super::scores::{DOMAIN, Labels, Transform, input, output, two_classes};
use crate::import::node::{Node, int};
use crate::import::operators::{CUSTOM_DOMAIN, TREE_ENSEMBLE};
use crate::import::{ImportError, tensor};

/// Rewrites TreeEnsembleClassifier and TreeEnsembleRegressor.
pub(crate) fn rewrite(node: &mut NodeProto, emit: &mut Emit<'_>) -> Result<bool, ImportError> {
    let node = &*node;
    if node.domain != DOMAIN {
        return Ok(false);
    }
    match node.op_type.as_str() {
        "TreeEnsembleRegressor" => {
            let targets = node.int("n_targets").unwrap_or(1);
            let aggregate = match node.text("aggregate_function").unwrap_or("SUM") {
                "SUM" => TreeAggregate::Sum,
                "AVERAGE" => TreeAggregate::Average,
                "MIN" => TreeAggregate::Minimum,
                "MAX" => TreeAggregate::Maximum,
                other => return Err(node.wrong(format!("aggregate_function {other} is not known"))),
            };
            let leaves = Leaves::read(node, "target")?;
            let base = floats(node, "base_values");
            let y = ensemble(node, emit, &leaves, targets, aggregate, base)?;
            Transform::of(node)?.last(node, emit, &y, output(node)?)?;
        }
        "TreeEnsembleClassifier" => classifier(node, emit)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn classifier(node: &NodeProto, emit: &mut Emit<'_>) -> Result<(), ImportError> {
    let labels = Labels::of(node, "classlabels_int64s")?;
    let transform = Transform::of(node)?;
    let mut leaves = Leaves::read(node, "class")?;
    let base = floats(node, "base_values");
    let same = leaves.targets.windows(2).all(|pair| pair[0] == pair[1]);
    if labels.len() == 2 && same && base.len() < 2 {
        // A binary classifier with one score. It is a probability if no weight is negative.
        leaves.targets.fill(0);
        let threshold = if leaves.weights.iter().all(|weight| *weight >= 0.0) { 0.5 } else { 0.0 };
        let score = ensemble(node, emit, &leaves, 1, TreeAggregate::Sum, base)?;
        return two_classes(node, emit, &score, transform, threshold, &labels);
    }
    let classes = labels.len() as i64;
    let scores = ensemble(node, emit, &leaves, classes, TreeAggregate::Sum, base)?;
    labels.choose(node, emit, &scores)?;
    match node.wanted(1) {
        Some(output) => transform.last(node, emit, &scores, output),
        None => Ok(()),
    }
}

/// The weights that leaves add to targets.
struct Leaves {
    at: Vec<(i64, i64)>,
    targets: Vec<u32>,
    weights: Vec<f32>,
}

impl Leaves {
    fn read(node: &NodeProto, prefix: &str) -> Result<Leaves, ImportError> {
        let list = |name: &str| node.ints(&format!("{prefix}_{name}"));
        let weights = floats(node, &format!("{prefix}_weights"));
        let (trees, nodes, ids) = (list("treeids"), list("nodeids"), list("ids"));
        if [nodes.len(), ids.len(), weights.len()] != [trees.len(); 3] {
            return Err(node.wrong(format!("its lists {prefix}_… have different lengths")));
        }
        let targets: Result<Vec<u32>, _> = ids.iter().map(|id| u32::try_from(*id)).collect();
        Ok(Leaves {
            at: trees.iter().copied().zip(nodes.iter().copied()).collect(),
            targets: targets
                .map_err(|_| node.wrong(format!("{prefix}_ids has a negative value")))?,
            weights,
        })
    }
}

/// Returns a list of floats from a list or tensor attribute, with f64 rounded to f32.
fn floats(node: &NodeProto, name: &str) -> Vec<f32> {
    match node.tensor(&format!("{name}_as_tensor")).and_then(tensor::load) {
        Some(tensor) => tensor.to_f32(),
        None => node.floats(name).to_vec(),
    }
}

/// Emits the custom operator and returns the name of its output, of shape `[n, targets]`.
fn ensemble(
    node: &NodeProto,
    emit: &mut Emit<'_>,
    leaves: &Leaves,
    targets: i64,
    aggregate: TreeAggregate,
    mut base: Vec<f32>,
) -> Result<String, ImportError> {
    let targets = match u32::try_from(targets) {
        Ok(targets) if (1..1 << 20).contains(&targets) => targets,
        _ => return Err(node.wrong(format!("{targets} targets are not supported"))),
    };
    if base.len() == 1 && targets > 1 {
        base.resize(targets as usize, base[0]);
    }
    if !base.is_empty() && base.len() != targets as usize {
        return Err(node.wrong(format!("{} base_values for {targets} targets", base.len())));
    }
    if leaves.targets.iter().any(|target| *target >= targets) {
        return Err(node.wrong("a leaf adds to a target that does not exist"));
    }
    let trees = Trees::read(node)?;
    let mut parts: Vec<(u32, u32, f32)> = Vec::new();
    for ((at, target), weight) in leaves.at.iter().zip(&leaves.targets).zip(&leaves.weights) {
        let index = trees.index.get(at);
        let index =
            *index.ok_or_else(|| node.wrong("a weight refers to a node that does not exist"))?;
        if trees.yes[index as usize] != index {
            return Err(node.wrong("a weight refers to a node that is not a leaf"));
        }
        parts.push((index, *target, *weight));
    }
    parts.sort_by_key(|(index, target, _)| (*index, *target));

    let mut inputs = vec![emit.cast(input(node)?, DType::F32)];
    let mut push = |suffix: &str, data: Data| {
        let length = hardtack::for_data!(&data, v => v.len());
        let tensor = Tensor::new(&[length], data).expect("its own length");
        inputs.push(emit.constant(suffix, &tensor));
    };
    push("feature", trees.feature.into());
    push("threshold", trees.threshold.into());
    push("test", trees.test.into());
    push("yes", trees.yes.into());
    push("no", trees.no.into());
    push("missing", trees.missing.into());
    push("root", trees.roots.into());
    push("leaf", parts.iter().map(|part| part.0).collect::<Vec<_>>().into());
    push("target", parts.iter().map(|part| part.1).collect::<Vec<_>>().into());
    push("weight", parts.iter().map(|part| part.2).collect::<Vec<_>>().into());
    push("base", base.into());
    let y = emit.context.fresh(&format!("{}.trees", node.label()));
    emit.whole(NodeProto {
        domain: CUSTOM_DOMAIN.into(),
        op_type: TREE_ENSEMBLE.into(),
        input: inputs,
        output: vec![y.clone()],
        attribute: vec![int("targets", targets as i64), int("aggregate", aggregate as i64)],
        ..NodeProto::default()
    });
    Ok(y)
}

/// The nodes of all trees, in one list.
struct Trees {
    /// The index of a node by (tree id, node id).
    index: HashMap<(i64, i64), u32>,
    feature: Vec<u32>,
    threshold: Vec<f32>,
    test: Vec<u8>,
    yes: Vec<u32>,
    no: Vec<u32>,
    missing: Vec<bool>,
    roots: Vec<u32>,
}

impl Trees {
    fn read(node: &NodeProto) -> Result<Trees, ImportError> {
        let (trees, nodes) = (node.ints("nodes_treeids"), node.ints("nodes_nodeids"));
        let modes = node.texts("nodes_modes");
        let (yes, no) = (node.ints("nodes_truenodeids"), node.ints("nodes_falsenodeids"));
        let features = node.ints("nodes_featureids");
        let missing = node.ints("nodes_missing_value_tracks_true");
        let exact = node.tensor("nodes_values_as_tensor").and_then(tensor::load);
        let thresholds: Vec<f64> = match exact.as_ref().map(Tensor::data) {
            Some(Data::F64(values)) => values.clone(),
            Some(_) | None => floats(node, "nodes_values").iter().map(|v| *v as f64).collect(),
        };
        let count = trees.len();
        let lengths =
            [nodes.len(), modes.len(), yes.len(), no.len(), features.len(), thresholds.len()];
        let missing_fits = missing.is_empty() || missing.len() == count;
        if count == 0 || lengths != [count; 6] || !missing_fits || u32::try_from(count).is_err() {
            return Err(node.wrong("its lists nodes_… have different lengths, or are empty"));
        }
        let mut index = HashMap::with_capacity(count);
        for (at, key) in trees.iter().copied().zip(nodes.iter().copied()).enumerate() {
            if index.insert(key, at as u32).is_some() {
                return Err(node.wrong(format!("tree {} has node {} twice", key.0, key.1)));
            }
        }
        let mut all = Trees {
            index,
            feature: vec![0; count],
            threshold: vec![0.0; count],
            test: vec![0; count],
            yes: (0..count as u32).collect(),
            no: (0..count as u32).collect(),
            missing: vec![false; count],
            roots: vec![],
        };
        let mut parents = vec![0u32; count];
        for at in 0..count {
            if modes[at] == "LEAF" {
                continue;
            }
            let test = test(&modes[at]);
            let test =
                test.ok_or_else(|| node.wrong(format!("mode {} is not known", modes[at])))?;
            all.test[at] = test as u8;
            all.threshold[at] = rounded(thresholds[at], test);
            all.feature[at] = u32::try_from(features[at])
                .map_err(|_| node.wrong("a feature has a negative index"))?;
            all.missing[at] = missing.get(at).is_some_and(|missing| *missing != 0);
            for (branch, child) in [(&mut all.yes, yes[at]), (&mut all.no, no[at])] {
                let child = all.index.get(&(trees[at], child));
                let child = *child
                    .ok_or_else(|| node.wrong("a branch leads to a node that does not exist"))?;
                branch[at] = child;
                parents[child as usize] += 1;
            }
        }
        if parents.iter().any(|parents| *parents > 1) {
            return Err(node.wrong("two branches lead to the same node"));
        }
        all.roots = (0..count as u32).filter(|at| parents[*at as usize] == 0).collect();
        // Each node has at most one parent, so nodes that no root reaches form a cycle.
        let mut reached = 0;
        let mut stack = all.roots.clone();
        while let Some(at) = stack.pop() {
            reached += 1;
            if all.yes[at as usize] != at {
                stack.extend([all.yes[at as usize], all.no[at as usize]]);
            }
        }
        if reached != count {
            return Err(node.wrong("its branches form a cycle"));
        }
        Ok(all)
    }
}

fn test(mode: &str) -> Option<TreeTest> {
    Some(match mode {
        "BRANCH_LEQ" => TreeTest::LessOrEqual,
        "BRANCH_LT" => TreeTest::Less,
        "BRANCH_GTE" => TreeTest::GreaterOrEqual,
        "BRANCH_GT" => TreeTest::Greater,
        "BRANCH_EQ" => TreeTest::Equal,
        "BRANCH_NEQ" => TreeTest::NotEqual,
        _ => return None,
    })
}

/// Rounds a threshold to f32 such that the test result of every f32 value stays the same.
fn rounded(threshold: f64, test: TreeTest) -> f32 {
    let near = threshold as f32;
    match test {
        TreeTest::LessOrEqual | TreeTest::Greater if near as f64 > threshold => near.next_down(),
        TreeTest::Less | TreeTest::GreaterOrEqual if (near as f64) < threshold => near.next_up(),
        _ => near,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounded_thresholds_keep_all_test_results() {
        let exact = 0.1f64;
        let below = rounded(exact, TreeTest::LessOrEqual);
        assert!((below as f64) <= exact && below.next_up() as f64 > exact);
        let above = rounded(exact, TreeTest::Less);
        assert!((above as f64) >= exact && (above.next_down() as f64) < exact);
        assert_eq!(rounded(0.5, TreeTest::Greater), 0.5);
    }
}
