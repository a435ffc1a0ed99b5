//! Ensembles of decision trees.

mod paths;

use std::sync::Arc;

use hardtack_bundle::graph::{TreeAggregate, TreeTest, TreeTransform};
use tract_core::internal::*;

use super::nested::bodies;
use crate::float::run::control;
use crate::limits::Control;

/// The number of visited nodes after which an inference may stop.
const STEPS: usize = 1 << 16;

/// An ensemble of decision trees. Its inputs are those of
/// [`TreeEnsemble`](hardtack_bundle::graph::TreeEnsemble).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeEnsemble {
    /// The number of targets per row.
    pub targets: usize,
    /// How the values of the trees are combined.
    pub aggregate: TreeAggregate,
    /// The function that is applied to the combined values.
    pub transform: TreeTransform,
    /// Whether a single target stands for two classes. The output then has a column for each.
    pub binary: bool,
}

impl TreeEnsemble {
    /// The number of inputs: x, six lists of nodes, the roots, three lists of leaves, and base
    /// values.
    pub const INPUTS: usize = 12;

    fn columns(&self) -> usize {
        if self.binary && self.targets == 1 { 2 } else { self.targets }
    }
}

impl Op for TreeEnsemble {
    fn name(&self) -> StaticName {
        "TreeEnsemble".into()
    }

    op_as_typed_op!();
}

impl EvalOp for TreeEnsemble {
    // tract would evaluate trees of constants while it optimizes, without a limit of time.
    not_out_of_plan!();

    fn eval(&self, context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        ensure!(inputs.len() == Self::INPUTS, "it takes {} inputs", Self::INPUTS);
        let parts: Vec<&Tensor> = inputs[1..].iter().map(|input| &**input).collect();
        Forest::new(self, &parts)?.predict(&inputs[0], &control(context))
    }
}

impl TypedOp for TreeEnsemble {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        ensure!(inputs.len() == Self::INPUTS, "it takes {} inputs", Self::INPUTS);
        Ok(tvec!(fact(inputs[0], self.columns())?))
    }

    /// Prepares constant trees once.
    fn codegen(
        &self,
        model: &TypedModel,
        node: &TypedNode,
    ) -> TractResult<Option<TypedModelPatch>> {
        let facts = model.node_input_facts(node.id)?;
        let parts = facts[1..].iter().map(|fact| fact.konst.as_deref()).collect::<Option<Vec<_>>>();
        rule_if_some!(parts = parts);
        let op = ForestOp(Arc::new(Forest::new(self, &parts)?));
        TypedModelPatch::replace_single_op(model, node, &node.inputs[..1], op).map(Some)
    }

    as_op!();
}

/// Prepared trees.
#[derive(Clone, Debug)]
struct ForestOp(Arc<Forest>);

impl PartialEq for ForestOp {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for ForestOp {}

impl Op for ForestOp {
    fn name(&self) -> StaticName {
        "Forest".into()
    }

    op_as_typed_op!();
}

impl EvalOp for ForestOp {
    not_out_of_plan!();

    fn eval(&self, context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        self.0.predict(&*args_1!(inputs), &control(context))
    }
}

impl TypedOp for ForestOp {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(fact(inputs[0], self.0.op.columns())?))
    }

    as_op!();
}

fn fact(x: &TypedFact, columns: usize) -> TractResult<TypedFact> {
    ensure!(x.rank() == 2, "its input is not 2-D");
    Ok(f32::fact([x.shape[0].clone(), columns.to_dim()]))
}

/// Returns where prepared trees are, and their size in bytes.
pub(super) fn prepared(op: &dyn TypedOp) -> Option<(*const (), u64)> {
    let ForestOp(forest) = op.downcast_ref()?;
    Some((Arc::as_ptr(forest).cast(), forest.bytes()))
}

/// Returns the number of nodes and contributions that the trees of a model visit for all rows. The
/// rows of a loop count once. Saturates.
pub(in crate::float) fn of_trees(model: &TypedModel) -> u64 {
    let of_node = |node: &TypedNode| -> u64 {
        let inside = bodies(&*node.op).iter().map(|body| of_trees(body.model())).sum();
        let Some(ForestOp(forest)) = node.op_as() else { return inside };
        let rows = node.outputs[0].fact.shape[0].as_i64().unwrap_or(1);
        forest.steps.saturating_mul(rows.max(0) as u64)
    };
    model.nodes.iter().map(of_node).fold(0, u64::saturating_add)
}

/// A node. A leaf has no test, and `yes..no` is then its range of contributions.
#[derive(Clone, Copy, Debug)]
struct Branch {
    feature: u32,
    threshold: f32,
    test: Option<TreeTest>,
    missing_is_true: bool,
    yes: u32,
    no: u32,
}

#[derive(Debug)]
struct Forest {
    op: TreeEnsemble,
    nodes: Vec<Branch>,
    roots: Vec<u32>,
    contributions: Vec<(u32, f32)>,
    base: Vec<f32>,
    features: usize,
    no_negative_weight: bool,
    /// The maximum number of nodes and contributions that a row visits.
    steps: u64,
}

impl Forest {
    /// Prepares the trees. Checks that every path from a root ends in a leaf.
    fn new(op: &TreeEnsemble, parts: &[&Tensor]) -> TractResult<Forest> {
        let &[feature, threshold, test, yes, no, missing, roots, leaf, target, weight, base] =
            parts
        else {
            bail!("it takes {} inputs", TreeEnsemble::INPUTS);
        };
        let (feature, yes, no) = (list::<u32>(feature)?, list::<u32>(yes)?, list::<u32>(no)?);
        let (threshold, test) = (list::<f32>(threshold)?, list::<u8>(test)?);
        let missing = list::<bool>(missing)?;
        let count = feature.len();
        let lengths = [threshold.len(), test.len(), yes.len(), no.len(), missing.len()];
        ensure!(lengths == [count; 5], "its lists of nodes differ in length");
        let (leaf, target) = (list::<u32>(leaf)?, list::<u32>(target)?);
        let weight = list::<f32>(weight)?;
        ensure!(
            target.len() == leaf.len() && weight.len() == leaf.len() && leaf.is_sorted(),
            "its lists of leaves differ in length or are not sorted"
        );
        ensure!(
            target.iter().all(|target| (*target as usize) < op.targets),
            "a leaf refers to a target that does not exist"
        );
        let base = list::<f32>(base)?;
        ensure!(base.is_empty() || base.len() == op.targets, "it needs one base value per target");
        let roots = list::<u32>(roots)?;
        let exists = |node: &u32| (*node as usize) < count;
        ensure!(roots.iter().chain(&yes).chain(&no).all(exists), "one of its nodes does not exist");
        let mut nodes = Vec::with_capacity(count);
        let mut features = 0;
        for index in 0..count {
            let is_leaf = yes[index] as usize == index;
            let range = |last: bool| {
                leaf.partition_point(|leaf| (*leaf as usize) < index + last as usize) as u32
            };
            if !is_leaf {
                features = features.max(feature[index] as usize + 1);
            }
            nodes.push(Branch {
                feature: feature[index],
                threshold: threshold[index],
                test: if is_leaf { None } else { Some(tree_test(test[index])?) },
                missing_is_true: missing[index],
                yes: if is_leaf { range(false) } else { yes[index] },
                no: if is_leaf { range(true) } else { no[index] },
            });
        }
        let steps = paths::steps(&nodes, &roots)?;
        let no_negative_weight = weight.iter().all(|weight| *weight >= 0.0);
        let contributions = target.into_iter().zip(weight).collect();
        let op = op.clone();
        Ok(Forest { op, nodes, roots, contributions, base, features, no_negative_weight, steps })
    }

    fn predict(&self, x: &Tensor, control: &Control) -> TractResult<TVec<TValue>> {
        let x = x.cast_to::<f32>()?;
        let &[rows, columns] = x.shape() else { bail!("its input is not 2-D") };
        ensure!(columns >= self.features, "it needs {} features, not {columns}", self.features);
        let mut output = Tensor::zero::<f32>(&[rows, self.op.columns()])?;
        let (x, mut y) = (x.try_as_plain_ram()?, output.try_as_plain_ram_mut()?);
        let (x, y) = (x.as_slice::<f32>()?, y.as_slice_mut::<f32>()?);
        let mut scores: Vec<Option<f32>> = vec![None; self.op.targets];
        if columns > 0 {
            let mut steps = 0;
            let rows = x.chunks_exact(columns).zip(y.chunks_exact_mut(self.op.columns()));
            for (x, y) in rows {
                self.sum(x, &mut scores, &mut steps, control)?;
                self.finish(&scores, y);
            }
        }
        Ok(tvec!(output.into_tvalue()))
    }

    /// Returns the size of the trees in bytes.
    fn bytes(&self) -> u64 {
        let lists = size_of_val(&self.nodes[..]) + size_of_val(&self.roots[..]);
        (lists + size_of_val(&self.contributions[..]) + size_of_val(&self.base[..])) as u64
    }

    /// Combines the leaves that a row reaches; `None` for a target without contributions. `steps`
    /// counts the visited nodes since the last check whether the inference must stop.
    fn sum(
        &self,
        x: &[f32],
        scores: &mut [Option<f32>],
        steps: &mut usize,
        control: &Control,
    ) -> TractResult<()> {
        scores.fill(None);
        for root in &self.roots {
            let mut node = &self.nodes[*root as usize];
            while let Some(test) = node.test {
                let value = x[node.feature as usize];
                let holds =
                    passes(test, value, node.threshold) || (node.missing_is_true && value.is_nan());
                node = &self.nodes[if holds { node.yes } else { node.no } as usize];
                *steps += 1;
            }
            *steps += 1 + (node.no - node.yes) as usize;
            if *steps > STEPS {
                control.check()?;
                *steps = 0;
            }
            for (target, weight) in &self.contributions[node.yes as usize..node.no as usize] {
                let score = &mut scores[*target as usize];
                *score = Some(match (*score, self.op.aggregate) {
                    (None, _) => *weight,
                    (Some(sum), TreeAggregate::Sum | TreeAggregate::Average) => sum + weight,
                    (Some(least), TreeAggregate::Minimum) => least.min(*weight),
                    (Some(most), TreeAggregate::Maximum) => most.max(*weight),
                });
            }
        }
        Ok(())
    }

    fn finish(&self, scores: &[Option<f32>], y: &mut [f32]) {
        let trees = match self.op.aggregate {
            TreeAggregate::Average => self.roots.len() as f32,
            _ => 1.0,
        };
        for (target, (score, y)) in scores.iter().zip(y.iter_mut()).enumerate() {
            let base = self.base.get(target).copied().unwrap_or(0.0);
            *y = score.unwrap_or(0.0) / trees + base;
        }
        if self.op.columns() == self.op.targets {
            return transform(self.op.transform, y);
        }
        let score = y[0];
        match self.op.transform {
            TreeTransform::Probit => y.fill(probit(score)),
            _ if self.no_negative_weight => y.copy_from_slice(&[1.0 - score, score]),
            TreeTransform::Logistic => y.copy_from_slice(&[logistic(-score), logistic(score)]),
            _ => y.copy_from_slice(&[-score, score]),
        }
    }
}

fn list<T: Datum + Copy>(tensor: &Tensor) -> TractResult<Vec<T>> {
    Ok(tensor.try_as_plain_ram()?.as_slice::<T>()?.to_vec())
}

fn tree_test(number: u8) -> TractResult<TreeTest> {
    const TESTS: [TreeTest; 6] = [
        TreeTest::LessOrEqual,
        TreeTest::Less,
        TreeTest::GreaterOrEqual,
        TreeTest::Greater,
        TreeTest::Equal,
        TreeTest::NotEqual,
    ];
    TESTS.get(number as usize).copied().with_context(|| format!("test {number} is not supported"))
}

fn passes(test: TreeTest, value: f32, threshold: f32) -> bool {
    match test {
        TreeTest::LessOrEqual => value <= threshold,
        TreeTest::Less => value < threshold,
        TreeTest::GreaterOrEqual => value >= threshold,
        TreeTest::Greater => value > threshold,
        TreeTest::Equal => value == threshold,
        TreeTest::NotEqual => value != threshold,
    }
}

fn transform(transform: TreeTransform, y: &mut [f32]) {
    match transform {
        TreeTransform::None => {}
        TreeTransform::Logistic => y.iter_mut().for_each(|y| *y = logistic(*y)),
        TreeTransform::Probit => y.iter_mut().for_each(|y| *y = probit(*y)),
        TreeTransform::Softmax => softmax(y, false),
        TreeTransform::SoftmaxZero => softmax(y, true),
    }
}

/// Applies softmax in place. If `keep_zero`, scores close to 0 stay close to 0.
fn softmax(y: &mut [f32], keep_zero: bool) {
    let greatest = y.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let zero = |y: f32| keep_zero && y.abs() <= 1e-7;
    let mut sum = 0.0;
    for y in y.iter_mut() {
        let kept = zero(*y);
        *y = if kept { *y * (-greatest).exp() } else { (*y - greatest).exp() };
        sum += *y;
    }
    if sum != 0.0 {
        y.iter_mut().for_each(|y| *y /= sum);
    }
}

fn logistic(x: f32) -> f32 {
    let y = 1.0 / (1.0 + (-x.abs()).exp());
    if x < 0.0 { 1.0 - y } else { y }
}

/// The quantile function of the normal distribution. It uses Winitzki's approximation of the
/// inverse error function, as ONNX Runtime does.
fn probit(x: f32) -> f32 {
    let x = 2.0 * x - 1.0;
    let sign = if x < 0.0 { -1.0 } else { 1.0 };
    let log = ((1.0 - x) * (1.0 + x)).ln();
    let a = 2.0 / (std::f32::consts::PI * 0.147) + 0.5 * log;
    let b = log / 0.147;
    std::f32::consts::SQRT_2 * sign * ((a * a - b).sqrt() - a).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The trees x0 <= 1 ? {0: 1} : (x1 > 2 ? {1: 2} : {0: 3, 1: 4}) and a single leaf.
    fn parts(yes: [u32; 6]) -> Vec<Tensor> {
        vec![
            tensor1(&[0u32, 0, 1, 0, 0, 0]),
            tensor1(&[1f32, 0.0, 2.0, 0.0, 0.0, 0.0]),
            tensor1(&[0u8, 0, 3, 0, 0, 0]),
            tensor1(&yes),
            tensor1(&[2u32, 1, 4, 3, 4, 5]),
            tensor1(&[true, false, false, false, false, false]),
            tensor1(&[0u32, 5]),
            tensor1(&[1u32, 3, 4, 4, 5]),
            tensor1(&[0u32, 1, 0, 1, 1]),
            tensor1(&[1f32, 2.0, 3.0, 4.0, 10.0]),
            tensor1(&[0.5f32, 0.25]),
        ]
    }

    const YES: [u32; 6] = [1, 1, 3, 3, 4, 5];

    fn op(aggregate: TreeAggregate) -> TreeEnsemble {
        TreeEnsemble { targets: 2, aggregate, transform: TreeTransform::None, binary: false }
    }

    fn predict(aggregate: TreeAggregate) -> Tensor {
        let x = Tensor::from_shape(&[4, 2], &[1f32, 0., 2., 3., 2., 2., f32::NAN, 0.]).unwrap();
        let mut inputs: TVec<TValue> = tvec!(x.into_tvalue());
        inputs.extend(parts(YES).into_iter().map(|part| part.into_tvalue()));
        let op = op(aggregate);
        op.eval(&EvalContext::out_of_plan(), inputs).unwrap().remove(0).into_tensor()
    }

    #[test]
    fn rows_reach_their_leaves() {
        let expected = [1.5f32, 10.25, 0.5, 12.25, 3.5, 14.25, 1.5, 10.25];
        let expected = Tensor::from_shape(&[4, 2], &expected).unwrap();
        assert_eq!(predict(TreeAggregate::Sum), expected);
    }

    #[test]
    fn trees_are_combined_by_the_aggregate() {
        let row = |aggregate| {
            predict(aggregate).try_as_plain_ram().unwrap().as_slice::<f32>().unwrap()[4..6].to_vec()
        };
        assert_eq!(row(TreeAggregate::Average), [2.0, 7.25]);
        assert_eq!(row(TreeAggregate::Minimum), [3.5, 4.25]);
        assert_eq!(row(TreeAggregate::Maximum), [3.5, 10.25]);
    }

    #[test]
    fn cycles_are_rejected() {
        for yes in [[1, 1, 0, 3, 4, 5], [2, 1, 0, 3, 4, 5], [9, 1, 3, 3, 4, 5]] {
            let parts = parts(yes);
            let parts: Vec<&Tensor> = parts.iter().collect();
            assert!(Forest::new(&op(TreeAggregate::Sum), &parts).is_err(), "{yes:?}");
        }
    }

    #[test]
    fn one_target_may_stand_for_two_classes() {
        let one = TreeEnsemble { targets: 1, binary: true, ..op(TreeAggregate::Sum) };
        let parts: Vec<Tensor> = vec![
            tensor1(&[0u32]),
            tensor1(&[0f32]),
            tensor1(&[0u8]),
            tensor1(&[0u32]),
            tensor1(&[0u32]),
            tensor1(&[false]),
            tensor1(&[0u32]),
            tensor1(&[0u32]),
            tensor1(&[0u32]),
            tensor1(&[0.75f32]),
            tensor1::<f32>(&[]),
        ];
        let x = Tensor::from_shape(&[1, 1], &[0f32]).unwrap();
        let parts: Vec<&Tensor> = parts.iter().collect();
        let y =
            Forest::new(&one, &parts).unwrap().predict(&x, &Control::default()).unwrap().remove(0);
        assert_eq!(*y, Tensor::from_shape(&[1, 2], &[0.25f32, 0.75]).unwrap());
    }
}
