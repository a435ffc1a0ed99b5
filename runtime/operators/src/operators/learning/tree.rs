//! Ensembles of decision trees.

use std::collections::{BTreeSet, HashMap};

use crate::call::Call;
use crate::element_type::ElementType;
use crate::error::Problem;
use crate::meter::Tally;
use crate::shape;
use crate::tensor::Tensor;
use crate::value::Value;

use super::scores::Transform;
use super::{Matrix, classified, floats, labels, largest, pair};

/// How a node compares a feature with its threshold.
#[derive(Clone, Debug, PartialEq)]
enum Test {
    LessOrEqual,
    Less,
    GreaterOrEqual,
    Greater,
    Equal,
    NotEqual,
    Member(Vec<f64>),
}

/// What follows a decision.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Next {
    Node(usize),
    /// The position in the list of leaves.
    Leaf(usize),
}

/// A decision.
#[derive(Clone, Debug, PartialEq)]
struct Node {
    test: Test,
    feature: usize,
    threshold: f64,
    /// The branch of a NaN: that of a true or of a false comparison.
    nan_is_true: bool,
    when_true: Next,
    when_false: Next,
}

impl Node {
    fn next(&self, row: &[f64]) -> Result<Next, Problem> {
        let x = *row.get(self.feature).ok_or_else(|| {
            Problem::Invalid(format!("there is no feature {} of {}", self.feature, row.len()))
        })?;
        let holds = match &self.test {
            _ if x.is_nan() => self.nan_is_true,
            Test::LessOrEqual => x <= self.threshold,
            Test::Less => x < self.threshold,
            Test::GreaterOrEqual => x >= self.threshold,
            Test::Greater => x > self.threshold,
            Test::Equal => x == self.threshold,
            Test::NotEqual => x != self.threshold,
            Test::Member(members) => members.contains(&x),
        };
        Ok(if holds { self.when_true } else { self.when_false })
    }
}

/// How the weights of the leaves that an example reaches are combined.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Aggregate {
    Average,
    Sum,
    Min,
    Max,
}

impl Aggregate {
    const ALL: [(Self, &'static str); 4] =
        [(Self::Average, "AVERAGE"), (Self::Sum, "SUM"), (Self::Min, "MIN"), (Self::Max, "MAX")];

    fn wrong(value: String) -> Problem {
        let accepted = "AVERAGE (0), SUM (1), MIN (2) or MAX (3)";
        Problem::AttributeValue { name: "aggregate_function", value, accepted }
    }

    fn add(self, sum: Option<f64>, weight: f64) -> f64 {
        match (self, sum) {
            (_, None) => weight,
            (Self::Average | Self::Sum, Some(sum)) => sum + weight,
            (Self::Min, Some(sum)) => sum.min(weight),
            (Self::Max, Some(sum)) => sum.max(weight),
        }
    }
}

/// Trees, and the weights of their leaves.
struct Ensemble {
    nodes: Vec<Node>,
    roots: Vec<Next>,
    /// The targets and weights of each leaf.
    leaves: Vec<Vec<(usize, f64)>>,
    targets: usize,
}

impl Ensemble {
    /// Returns the leaf of an example in a tree.
    fn leaf(&self, root: Next, row: &[f64], tally: &mut Tally) -> Result<&[(usize, f64)], Problem> {
        let mut next = root;
        for _ in 0..=self.nodes.len() {
            match next {
                Next::Leaf(leaf) => {
                    let leaf = self.leaves.get(leaf).map_or(&[][..], Vec::as_slice);
                    tally.spend(leaf.len() + 1)?;
                    return Ok(leaf);
                }
                Next::Node(node) => {
                    let missing = || Problem::Invalid(format!("there is no tree node {node}"));
                    let node = self.nodes.get(node).ok_or_else(missing)?;
                    tally.spend(match &node.test {
                        Test::Member(members) => members.len() + 4,
                        _ => 4,
                    })?;
                    next = node.next(row)?;
                }
            }
        }
        Err(Problem::Invalid("the nodes of a tree form a cycle".into()))
    }

    /// Returns the scores of an example; `None` for a target without a weight.
    fn evaluate(&self, row: &[f64], aggregate: Aggregate) -> Result<Vec<Option<f64>>, Problem> {
        let mut tally = Tally::default();
        let mut scores = vec![None; self.targets];
        for root in &self.roots {
            for (target, weight) in self.leaf(*root, row, &mut tally)? {
                let score = scores.get_mut(*target).ok_or_else(|| {
                    Problem::Invalid(format!("there is no target {target} of {}", self.targets))
                })?;
                *score = Some(aggregate.add(*score, *weight));
            }
        }
        if aggregate == Aggregate::Average {
            let trees = self.roots.len() as f64;
            scores.iter_mut().flatten().for_each(|score| *score /= trees);
        }
        Ok(scores)
    }

    /// Returns the transformed scores of all examples.
    fn predict(
        &self,
        x: &Matrix,
        aggregate: Aggregate,
        base: &[f64],
        transform: Transform,
    ) -> Result<Vec<f64>, Problem> {
        shape::elements(&[x.rows, self.targets])?;
        let mut all = Vec::new();
        for row in x.iter() {
            let scores = self.evaluate(row, aggregate)?;
            let base = base.iter().copied().chain(std::iter::repeat(0.0));
            let mut scores: Vec<f64> =
                scores.into_iter().zip(base).map(|(s, b)| s.unwrap_or(0.0) + b).collect();
            transform.apply(&mut scores);
            all.extend(scores);
        }
        Ok(all)
    }

    /// Reads the nodes and leaves of the operators before version 5. `prefix` starts the names of
    /// the attributes of the leaves, whose weights are returned as they are.
    fn read(call: &Call<'_>, prefix: &str, targets: usize) -> Result<Self, Problem> {
        let ints = |name: &str| call.ints(name).map(|ints| ints.unwrap_or(&[]));
        let modes = call.texts("nodes_modes")?.unwrap_or(&[]);
        let ids = ids(ints("nodes_treeids")?, ints("nodes_nodeids")?);
        let columns = ["nodes_featureids", "nodes_truenodeids", "nodes_falsenodeids"];
        let [features, when_true, when_false] = columns.map(ints);
        let (features, when_true, when_false) = (features?, when_true?, when_false?);
        let thresholds = numbers(call, "nodes_values")?;
        let missing = ints("nodes_missing_value_tracks_true")?;
        for len in [ids.len(), features.len(), when_true.len(), when_false.len(), thresholds.len()]
        {
            if len != modes.len() {
                return Err(Problem::Invalid(format!(
                    "the attributes of {} tree nodes have {len} elements",
                    modes.len()
                )));
            }
        }
        let places: HashMap<(i64, i64), usize> =
            ids.iter().enumerate().map(|(place, id)| (*id, place)).collect();
        if places.len() != ids.len() {
            return Err(Problem::Invalid("two tree nodes have the same number".into()));
        }
        let place = |id: (i64, i64)| {
            let unknown = || Problem::Invalid(format!("tree {} has no node {}", id.0, id.1));
            places.get(&id).copied().ok_or_else(unknown)
        };
        // A leaf is a node of the file; its place in the list of leaves is that in the file.
        let next = |place: usize| match modes.get(place).is_some_and(|mode| mode == "LEAF") {
            true => Next::Leaf(place),
            false => Next::Node(place),
        };
        let mut nodes = Vec::with_capacity(modes.len());
        for (index, mode) in modes.iter().enumerate() {
            let tree = ids[index].0;
            let follow = |node: i64| Ok(next(place((tree, node))?));
            let leaf = Next::Leaf(index);
            nodes.push(match test(mode)? {
                None => Node {
                    test: Test::Equal,
                    feature: 0,
                    threshold: 0.0,
                    nan_is_true: false,
                    when_true: leaf,
                    when_false: leaf,
                },
                Some(test) => Node {
                    test,
                    feature: shape::size(features[index])?,
                    threshold: thresholds[index],
                    nan_is_true: missing.get(index).is_some_and(|missing| *missing != 0),
                    when_true: follow(when_true[index])?,
                    when_false: follow(when_false[index])?,
                },
            });
        }
        let mut leaves = vec![Vec::new(); modes.len()];
        let name = |suffix: &str| format!("{prefix}_{suffix}");
        let leaf_ids = self::ids(ints(&name("treeids"))?, ints(&name("nodeids"))?);
        let leaf_targets = ints(&name("ids"))?;
        let weights = numbers(call, &name("weights"))?;
        if leaf_ids.len() != leaf_targets.len() || weights.len() != leaf_targets.len() {
            return Err(Problem::Invalid(format!(
                "there are {} leaves, {} targets of leaves, and {} weights",
                leaf_ids.len(),
                leaf_targets.len(),
                weights.len()
            )));
        }
        for ((id, target), weight) in leaf_ids.into_iter().zip(leaf_targets).zip(weights) {
            leaves[place(id)?].push((shape::size(*target)?, weight));
        }
        let mut seen = BTreeSet::new();
        let first = |(_, (tree, _)): &(usize, &(i64, i64))| seen.insert(*tree);
        let roots = ids.iter().enumerate().filter(first).map(|(place, _)| next(place)).collect();
        Ok(Self { nodes, roots, leaves, targets })
    }
}

/// Returns pairs of the numbers of trees and nodes; none if the lists differ in length.
fn ids(trees: &[i64], nodes: &[i64]) -> Vec<(i64, i64)> {
    if trees.len() != nodes.len() {
        return Vec::new();
    }
    trees.iter().copied().zip(nodes.iter().copied()).collect()
}

/// Returns the comparison of a node; `None` for a leaf.
fn test(mode: &str) -> Result<Option<Test>, Problem> {
    Ok(Some(match mode {
        "BRANCH_LEQ" => Test::LessOrEqual,
        "BRANCH_LT" => Test::Less,
        "BRANCH_GTE" => Test::GreaterOrEqual,
        "BRANCH_GT" => Test::Greater,
        "BRANCH_EQ" => Test::Equal,
        "BRANCH_NEQ" => Test::NotEqual,
        "LEAF" => return Ok(None),
        other => {
            return Err(Problem::AttributeValue {
                name: "nodes_modes",
                value: other.into(),
                accepted: "BRANCH_LEQ, BRANCH_LT, BRANCH_GTE, BRANCH_GT, BRANCH_EQ, BRANCH_NEQ \
                           or LEAF",
            });
        }
    }))
}

/// Returns the numbers of an attribute, a list of floats or, with another name, a tensor.
fn numbers(call: &Call<'_>, name: &str) -> Result<Vec<f64>, Problem> {
    match call.tensor_attribute(&format!("{name}_as_tensor"))? {
        Some(tensor) if !tensor.is_empty() => tensor.to_f64(),
        _ => Ok(floats(call, name)?.iter().map(|value| f64::from(*value)).collect()),
    }
}

/// Returns the base values of the scores; a single one is that of the first score.
fn base_values(call: &Call<'_>, targets: usize) -> Result<Vec<f64>, Problem> {
    let base = numbers(call, "base_values")?;
    if base.is_empty() || base.len() == targets || (base.len() == 1 && targets == 2) {
        return Ok(base);
    }
    Err(Problem::Invalid(format!("there are {} base values for {targets} scores", base.len())))
}

/// Returns the number of targets. It is bounded, since each example needs all of them in memory.
fn target_count(call: &Call<'_>) -> Result<usize, Problem> {
    let name = "n_targets";
    let value = call.int(name)?.ok_or(Problem::MissingAttribute { name })?;
    let count = usize::try_from(value).ok().filter(|count| *count <= 1 << 20);
    let accepted = "from 0 to 2^20";
    count.ok_or(Problem::AttributeValue { name, value: value.to_string(), accepted })
}

/// Predicts numbers by trees.
pub(super) fn tree_ensemble_regressor(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = Matrix::read(call)?;
    let targets = target_count(call)?;
    let name = call.text("aggregate_function")?.unwrap_or("SUM");
    let aggregate = Aggregate::ALL.iter().find(|(_, other)| *other == name);
    let aggregate = aggregate.ok_or_else(|| Aggregate::wrong(name.into()))?.0;
    let ensemble = Ensemble::read(call, "target", targets)?;
    let base = base_values(call, targets)?;
    let scores = ensemble.predict(&x, aggregate, &base, Transform::read(call)?)?;
    Ok(vec![Tensor::from_f64(ElementType::F32, vec![x.rows, targets], scores)?.into()])
}

/// Classifies examples by trees.
pub(super) fn tree_ensemble_classifier(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = Matrix::read(call)?;
    let labels = labels(call, "classlabels_strings", "classlabels_int64s")?;
    let classes = labels.len();
    let ensemble = Ensemble::read(call, "class", classes)?;
    let base = base_values(call, classes)?;
    let transform = Transform::read(call)?;
    let shared = Shared::new(&ensemble, classes, transform);
    // Decisions follow the scores that are written, so they are rounded in the same way.
    let double = call.tensor_attribute("class_weights_as_tensor")?;
    let double = double.is_some_and(|tensor| tensor.element() == ElementType::F64);
    let round = |score: f64| if double { score } else { f64::from(score as f32) };
    shape::elements(&[x.rows, classes])?;
    let (mut chosen, mut all) = (Vec::new(), Vec::new());
    for row in x.iter() {
        let scores = ensemble.evaluate(row, Aggregate::Sum)?;
        if let Some(shared) = &shared {
            let sum = scores.iter().flatten().sum::<f64>();
            let score = round(sum + base.last().copied().unwrap_or(0.0));
            chosen.push(usize::from(score > shared.limit));
            all.extend(shared.scores(score, &base, transform));
            continue;
        }
        let base = base.iter().copied().chain(std::iter::repeat(0.0));
        let sums = scores.into_iter().zip(base).map(|(s, b)| round(s.unwrap_or(0.0) + b));
        let mut scores: Vec<f64> = sums.collect();
        chosen.push(largest(&scores));
        transform.apply(&mut scores);
        all.extend(scores);
    }
    let labels = if shared.is_some() { pair(labels) } else { labels };
    classified(&labels, chosen, classes, all)
}

/// A score that separates two classes: only one class has weights.
struct Shared {
    /// The second class is chosen if the score is greater.
    limit: f64,
    /// Whether the score separates the classes at 0; otherwise it is a probability.
    centered: bool,
    classes: usize,
    /// Whether the weights are those of the second class. Then the first one has its own score.
    of_second: bool,
}

impl Shared {
    fn new(ensemble: &Ensemble, classes: usize, transform: Transform) -> Option<Self> {
        let weights = || ensemble.leaves.iter().flatten();
        let used: BTreeSet<usize> = weights().map(|(class, _)| *class).collect();
        let positive = weights().all(|(_, weight)| *weight >= 0.0);
        let probability = matches!(transform, Transform::None | Transform::Probit);
        let centered = classes < 2 || !(positive && probability);
        let of_second = used.contains(&1);
        let limit = if centered { 0.0 } else { 0.5 };
        (classes <= 2 && used.len() <= 1).then_some(Self { limit, centered, classes, of_second })
    }

    /// Returns the transformed scores of the classes.
    fn scores(&self, score: f64, base: &[f64], transform: Transform) -> Vec<f64> {
        if self.classes == 2 && !self.of_second {
            return transform.apply_to_pair(score, self.centered).to_vec();
        }
        let first = if base.len() == 2 { base[0] } else { 0.0 };
        let mut scores = if self.of_second { vec![first, score] } else { vec![score] };
        transform.apply(&mut scores);
        scores
    }
}

/// Predicts numbers by trees whose nodes and leaves are in separate lists.
pub(super) fn tree_ensemble(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = Matrix::read(call)?;
    let targets = target_count(call)?;
    let number = call.int_or("aggregate_function", 1)?;
    let aggregate = usize::try_from(number).ok().and_then(|index| Aggregate::ALL.get(index));
    let aggregate = aggregate.ok_or_else(|| Aggregate::wrong(number.to_string()))?.0;
    let ensemble = read_separate(call, targets)?;
    let scores = ensemble.predict(&x, aggregate, &[], Transform::read_number(call)?)?;
    let element = call.tensor(0)?.element();
    Ok(vec![Tensor::from_f64(element, vec![x.rows, targets], scores)?.into()])
}

/// Reads nodes and leaves that are in separate lists.
fn read_separate(call: &Call<'_>, targets: usize) -> Result<Ensemble, Problem> {
    let missing = |name| Problem::MissingAttribute { name };
    let ints = |name| call.ints(name)?.ok_or(missing(name));
    let tensor = |name| match call.tensor_attribute(name)? {
        Some(tensor) => tensor.to_f64(),
        None => Err(missing(name)),
    };
    let modes = tensor("nodes_modes")?;
    let thresholds = tensor("nodes_splits")?;
    let features = ints("nodes_featureids")?;
    let (true_ids, true_leaves) = (ints("nodes_truenodeids")?, ints("nodes_trueleafs")?);
    let (false_ids, false_leaves) = (ints("nodes_falsenodeids")?, ints("nodes_falseleafs")?);
    let nan_is_true = call.ints("nodes_missing_value_tracks_true")?.unwrap_or(&[]);
    let members = call.tensor_attribute("membership_values")?;
    let members = members.map_or(Ok(Vec::new()), |tensor| tensor.to_f64())?;
    let mut members = members.split(|value| value.is_nan());
    let lists = [features, true_ids, true_leaves, false_ids, false_leaves].map(<[i64]>::len);
    if lists.iter().chain([&thresholds.len()]).any(|len| *len != modes.len()) {
        return Err(Problem::Invalid(format!(
            "the attributes of {} tree nodes differ in length",
            modes.len()
        )));
    }
    let next = |id: i64, leaf: i64| {
        let id = shape::size(id)?;
        Ok(if leaf == 0 { Next::Node(id) } else { Next::Leaf(id) })
    };
    let mut nodes = Vec::with_capacity(modes.len());
    for (index, mode) in modes.iter().enumerate() {
        let test = match *mode as i64 {
            0 => Test::LessOrEqual,
            1 => Test::Less,
            2 => Test::GreaterOrEqual,
            3 => Test::Greater,
            4 => Test::Equal,
            5 => Test::NotEqual,
            6 => Test::Member(members.next().ok_or(missing("membership_values"))?.to_vec()),
            other => {
                let (value, accepted) = (other.to_string(), "0 to 6");
                return Err(Problem::AttributeValue { name: "nodes_modes", value, accepted });
            }
        };
        nodes.push(Node {
            test,
            feature: shape::size(features[index])?,
            threshold: thresholds[index],
            nan_is_true: nan_is_true.get(index).is_some_and(|value| *value != 0),
            when_true: next(true_ids[index], true_leaves[index])?,
            when_false: next(false_ids[index], false_leaves[index])?,
        });
    }
    let weights = tensor("leaf_weights")?;
    let leaf_targets = ints("leaf_targetids")?;
    if weights.len() != leaf_targets.len() {
        return Err(Problem::Invalid(format!(
            "there are {} weights for {} leaves",
            weights.len(),
            leaf_targets.len()
        )));
    }
    let leaf = |(target, weight): (&i64, f64)| Ok(vec![(shape::size(*target)?, weight)]);
    let leaves: Vec<_> =
        leaf_targets.iter().zip(weights).map(leaf).collect::<Result<_, Problem>>()?;
    let root = |root: &i64| Ok(Next::Node(shape::size(*root)?));
    let roots = ints("tree_roots")?.iter().map(root).collect::<Result<_, Problem>>()?;
    Ok(Ensemble { nodes, roots, leaves, targets })
}
