//! Rewrites support vector machines as matmuls.

use hardtack::Tensor;
use hardtack_bundle::DType;
use tract_onnx::pb::NodeProto;

use super::emit::Emit;
use super::pairwise_coupling::coupled;
use super::scores::{Labels, Transform, input, output};
use crate::import::ImportError;
use crate::import::node::{Node, int};

/// The maximum number of classes with probabilities, whose constants grow with the fourth power.
const MAX_PROBABLE: usize = 32;
/// Pairwise probabilities are at least this far from 0 and 1.
const LEAST_PROBABILITY: f32 = 1e-7;

/// Rewrites SVMRegressor as `kernel(x, support vectors) · coefficients + rho`.
pub(crate) fn regressor(node: &NodeProto, emit: &mut Emit<'_>) -> Result<(), ImportError> {
    let supports = node.int("n_supports").unwrap_or(0);
    let rho = node.floats("rho").first().copied().unwrap_or(0.0);
    if node.int("one_class").unwrap_or(0) != 0 {
        return Err(node.wrong("one_class=1 is not supported"));
    }
    let x = emit.cast(input(node)?, DType::F32);
    let y = if supports > 0 {
        let vectors = node.floats("support_vectors").to_vec();
        let rows = supports as usize;
        if !vectors.len().is_multiple_of(rows) || node.floats("coefficients").len() != rows {
            return Err(
                node.wrong("the numbers of its support vectors and coefficients do not match")
            );
        }
        let columns = vectors.len() / rows;
        let similar = kernel(node, emit, &x, &vectors, [rows, columns])?;
        let coefficients = Tensor::new(&[rows, 1], node.floats("coefficients").to_vec());
        let coefficients = emit.constant("coefficients", &coefficients.expect("checked length"));
        emit.node("MatMul", &[&similar, &coefficients], vec![])
    } else {
        let coefficients = node.floats("coefficients").to_vec();
        let coefficients = Tensor::new(&[coefficients.len(), 1], coefficients);
        let coefficients = emit.constant("coefficients", &coefficients.expect("its own length"));
        emit.node("MatMul", &[&x, &coefficients], vec![])
    };
    let rho = emit.constant("rho", &Tensor::scalar(rho));
    let y = emit.node("Add", &[&y, &rho], vec![]);
    Transform::of(node)?.last(node, emit, &y, output(node)?)
}

/// The pairs of classes that vote against each other, in the order of libsvm.
struct Pairs {
    classes: usize,
    pairs: Vec<(usize, usize)>,
}

impl Pairs {
    fn of(classes: usize) -> Pairs {
        let pairs = (0..classes).flat_map(|i| (i + 1..classes).map(move |j| (i, j))).collect();
        Pairs { classes, pairs }
    }

    /// Returns a matrix of one row per pair and `columns` columns. `entries` gives the column and
    /// the value of each element that is not zero.
    fn matrix(
        &self,
        columns: usize,
        entries: impl Fn(usize, usize) -> Vec<(usize, f32)>,
    ) -> Tensor {
        let mut values = vec![0f32; self.pairs.len() * columns];
        for (row, (i, j)) in self.pairs.iter().enumerate() {
            for (column, value) in entries(*i, *j) {
                values[row * columns + column] = value;
            }
        }
        Tensor::new(&[self.pairs.len(), columns], values).expect("as many elements")
    }
}

/// Rewrites SVMClassifier as ONNX Runtime computes it: each pair of classes has a score, and the
/// class with the most votes is the label.
pub(crate) fn classifier(node: &NodeProto, emit: &mut Emit<'_>) -> Result<(), ImportError> {
    let labels = Labels::of(node, "classlabels_ints")?;
    let transform = Transform::of(node)?;
    let pairs = Pairs::of(labels.len());
    let scores = pair_scores(node, emit, &pairs)?;
    // A score above 0 is a vote for the first class of its pair.
    let zero = emit.constant("zero", &Tensor::scalar(0f32));
    let first = emit.node("Greater", &[&scores, &zero], vec![]);
    let first = emit.cast(&first, DType::F32);
    let votes = pairs.matrix(pairs.classes, |i, j| vec![(i, 1.0), (j, -1.0)]);
    let votes = emit.constant("votes", &votes);
    let votes = emit.node("MatMul", &[&first, &votes], vec![]);
    let against: Vec<f32> = (0..pairs.classes).map(|class| class as f32).collect();
    let against = emit.vector("against", against);
    let votes = emit.node("Add", &[&votes, &against], vec![]);
    labels.choose(node, emit, &votes)?;
    let Some(output) = node.wanted(1) else { return Ok(()) };
    if !node.floats("prob_a").is_empty() {
        let probabilities = probabilities(node, emit, &pairs, &scores)?;
        return transform.last(node, emit, &probabilities, output);
    }
    if pairs.classes > 2 {
        return transform.last(node, emit, &scores, output);
    }
    // ONNX Runtime negates the first score, or subtracts it from 1 instead of a softmax.
    let (negated, transform) = match transform {
        Transform::Softmax => {
            let one = emit.constant("one", &Tensor::scalar(1f32));
            (emit.node("Sub", &[&one, &scores], vec![]), Transform::None)
        }
        other => (emit.node("Neg", &[&scores], vec![]), other),
    };
    let both = emit.node("Concat", &[&negated, &scores], vec![int("axis", 1)]);
    transform.last(node, emit, &both, output)
}

/// Emits the scores of all pairs, of shape `[n, pairs]`.
fn pair_scores(
    node: &NodeProto,
    emit: &mut Emit<'_>,
    pairs: &Pairs,
) -> Result<String, ImportError> {
    let sizes: Option<Vec<usize>> =
        node.ints("vectors_per_class").iter().map(|size| usize::try_from(*size).ok()).collect();
    let sizes = sizes.filter(|sizes| !sizes.is_empty()).ok_or_else(|| {
        node.wrong("it has no support vectors; export a linear model as LinearClassifier")
    })?;
    let rows = sizes.iter().fold(0usize, |all, size| all.saturating_add(*size));
    let vectors = node.floats("support_vectors").to_vec();
    let coefficients = node.floats("coefficients");
    let rho = node.floats("rho").to_vec();
    if pairs.classes < 2
        || sizes.len() != pairs.classes
        || rows == 0
        || vectors.is_empty()
        || !vectors.len().is_multiple_of(rows)
        || Some(coefficients.len()) != rows.checked_mul(pairs.classes - 1)
        || rho.len() != pairs.pairs.len()
    {
        return Err(node.wrong(
            "the numbers of its classes, support vectors, coefficients and rho do not match",
        ));
    }
    // The support vectors are sorted by class.
    let class_of: Vec<usize> =
        sizes.iter().enumerate().flat_map(|(class, size)| vec![class; *size]).collect();
    let mut weights = Vec::with_capacity(rows * pairs.pairs.len());
    for (row, class) in class_of.iter().enumerate() {
        weights.extend(pairs.pairs.iter().map(|(i, j)| match class {
            class if class == i => coefficients[(j - 1) * rows + row],
            class if class == j => coefficients[i * rows + row],
            _ => 0.0,
        }));
    }
    let x = emit.cast(input(node)?, DType::F32);
    let columns = vectors.len() / rows;
    let similar = kernel(node, emit, &x, &vectors, [rows, columns])?;
    let weights = Tensor::new(&[rows, pairs.pairs.len()], weights).expect("as many elements");
    let weights = emit.constant("coefficients", &weights);
    let scores = emit.node("MatMul", &[&similar, &weights], vec![]);
    let rho = emit.vector("rho", rho);
    Ok(emit.node("Add", &[&scores, &rho], vec![]))
}

/// Emits the probabilities of the classes from the scores of pairs, of shape `[n, classes]`.
///
/// The probability of a pair is a sigmoid of its score. The probabilities p of the classes minimize
/// pᵀQp, where Q depends on those of the pairs: Wu, Lin and Weng, "Probability Estimates for
/// Multi-class Classification by Pairwise Coupling". As in libsvm, the solution is approximate.
fn probabilities(
    node: &NodeProto,
    emit: &mut Emit<'_>,
    pairs: &Pairs,
    scores: &str,
) -> Result<String, ImportError> {
    let classes = pairs.classes;
    let (a, b) = (node.floats("prob_a").to_vec(), node.floats("prob_b").to_vec());
    if [a.len(), b.len()] != [pairs.pairs.len(); 2] {
        return Err(node.wrong("prob_a and prob_b do not have one value for each pair of classes"));
    }
    if classes > MAX_PROBABLE {
        return Err(node.wrong(format!(
            "it has probabilities of {classes} classes, and the maximum is {MAX_PROBABLE}; train \
             it without probabilities"
        )));
    }
    if emit.context.opset < 9 {
        return Err(node.wrong("its probabilities need operator set 9 or later; export it again"));
    }
    let (a, b) = (emit.vector("prob_a", a), emit.vector("prob_b", b));
    let exponent = emit.node("Mul", &[scores, &a], vec![]);
    let exponent = emit.node("Add", &[&exponent, &b], vec![]);
    let exponent = emit.node("Neg", &[&exponent], vec![]);
    let p = emit.node("Sigmoid", &[&exponent], vec![]);
    let least = emit.constant("least", &Tensor::scalar(LEAST_PROBABILITY));
    let most = emit.constant("most", &Tensor::scalar(1.0 - LEAST_PROBABILITY));
    let p = emit.node("Max", &[&p, &least], vec![]);
    let p = emit.node("Min", &[&p, &most], vec![]);
    let one = emit.constant("one", &Tensor::scalar(1f32));
    let other = emit.node("Sub", &[&one, &p], vec![]);
    // Q[i][i] is the sum of the squares of r[j][i], and Q[i][j] is -r[i][j]·r[j][i].
    let mut part =
        |left: &str, right: &str, entries: &dyn Fn(usize, usize) -> Vec<(usize, f32)>| {
            let product = emit.node("Mul", &[left, right], vec![]);
            let places = emit.constant("places", &pairs.matrix(classes * classes, entries));
            emit.node("MatMul", &[&product, &places], vec![])
        };
    let diagonal = |class: usize| vec![(class * classes + class, 1.0)];
    let of_second = part(&p, &p, &|_, j| diagonal(j));
    let of_first = part(&other, &other, &|i, _| diagonal(i));
    let mixed = part(&p, &other, &|i, j| vec![(i * classes + j, -1.0), (j * classes + i, -1.0)]);
    let q = emit.node("Add", &[&of_second, &of_first], vec![]);
    let q = emit.node("Add", &[&q, &mixed], vec![]);
    let shape = emit.list("shape", &[0, classes as i64, classes as i64]);
    let q = emit.node("Reshape", &[&q, &shape], vec![]);
    let coupled = coupled(emit, &q, classes);
    let shape = emit.list("shape", &[0, classes as i64]);
    Ok(emit.node("Reshape", &[&coupled, &shape], vec![]))
}

/// Emits the kernel function of each row of `x` and each support vector.
fn kernel(
    node: &NodeProto,
    emit: &mut Emit<'_>,
    x: &str,
    vectors: &[f32],
    [rows, columns]: [usize; 2],
) -> Result<String, ImportError> {
    let parameters = node.floats("kernel_params");
    let parameter = |index: usize| parameters.get(index).copied().unwrap_or(0.0);
    let (gamma, coefficient, degree) = (parameter(0), parameter(1), parameter(2));
    let mut transposed = vec![0f32; vectors.len()];
    for row in 0..rows {
        for column in 0..columns {
            transposed[column * rows + row] = vectors[row * columns + column];
        }
    }
    let transposed = Tensor::new(&[columns, rows], transposed).expect("as many as before");
    let transposed = emit.constant("support_vectors", &transposed);
    let product = emit.node("MatMul", &[x, &transposed], vec![]);
    let scaled = |emit: &mut Emit<'_>| {
        let gamma = emit.constant("gamma", &Tensor::scalar(gamma));
        let product = emit.node("Mul", &[&product, &gamma], vec![]);
        let coefficient = emit.constant("coefficient", &Tensor::scalar(coefficient));
        emit.node("Add", &[&product, &coefficient], vec![])
    };
    Ok(match node.text("kernel_type").unwrap_or("LINEAR") {
        "LINEAR" => product,
        "POLY" => {
            let base = scaled(emit);
            let degree = emit.constant("degree", &Tensor::scalar(degree));
            emit.node("Pow", &[&base, &degree], vec![])
        }
        "SIGMOID" => {
            let inner = scaled(emit);
            emit.node("Tanh", &[&inner], vec![])
        }
        "RBF" => {
            // |x - v|² = |x|² - 2 x·v + |v|²
            let square = emit.node("Mul", &[x, x], vec![]);
            let square = emit.reduce("ReduceSum", &square, &[-1]);
            let own: Vec<f32> =
                vectors.chunks(columns.max(1)).map(|row| row.iter().map(|v| v * v).sum()).collect();
            let own = emit.vector("squares", own);
            let sum = emit.node("Add", &[&square, &own], vec![]);
            let two = emit.constant("two", &Tensor::scalar(2f32));
            let twice = emit.node("Mul", &[&product, &two], vec![]);
            let distance = emit.node("Sub", &[&sum, &twice], vec![]);
            let gamma = emit.constant("gamma", &Tensor::scalar(-gamma));
            let exponent = emit.node("Mul", &[&distance, &gamma], vec![]);
            emit.node("Exp", &[&exponent], vec![])
        }
        other => return Err(node.wrong(format!("kernel_type {other} is not known"))),
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{context, graph, model, node};
    use tract_onnx::pb::attribute_proto::AttributeType;
    use tract_onnx::pb::{AttributeProto, GraphProto};

    use super::*;
    use crate::float_run;
    use crate::import::node::{floats, ints, text};
    use crate::import::rewrite::emit::rewrite_nodes;
    use crate::import::rewrite::ml;
    use crate::import::translate::translate;

    const VECTORS: [f32; 10] = [-1.2, -1.99, -0.37, 0.63, 1.7, 0.16, -0.83, -1.18, 1.12, 2.45];
    const COEFFICIENTS: [[f32; 5]; 2] =
        [[0.27, -1.23, -0.96, 1.6, 0.2], [-1.73, -0.08, -1.16, -0.63, -0.49]];

    /// Returns a classifier of the labels 3, 5 and 9, or of the first two.
    fn machine(classes: usize, kernel: &str, probable: bool, transform: &str) -> NodeProto {
        let (rows, pairs) = ([0, 0, 3, 5][classes], [0, 0, 1, 3][classes]);
        let coefficients: Vec<f32> =
            COEFFICIENTS[..classes - 1].iter().flat_map(|row| &row[..rows]).copied().collect();
        let mut attributes = vec![
            ints("classlabels_ints", &[3, 5, 9][..classes]),
            ints("vectors_per_class", &[2, 1, 2][..classes]),
            floats("support_vectors", &VECTORS[..2 * rows]),
            floats("coefficients", &coefficients),
            floats("rho", &[0.1, -0.2, 0.3][..pairs]),
            floats("kernel_params", &[0.5, 0.25, 3.0]),
            text("kernel_type", kernel),
            text("post_transform", transform),
        ];
        if probable {
            attributes.push(floats("prob_a", &[-1.5, -2.0, -1.0][..pairs]));
            attributes.push(floats("prob_b", &[0.1, -0.3, 0.2][..pairs]));
        }
        node("ai.onnx.ml::SVMClassifier", &["x"], &["label", "scores"], attributes)
    }

    fn rewritten(node: NodeProto) -> Result<GraphProto, ImportError> {
        let mut graph = graph(&[("x", &["n", "2"])], vec![node], &[], &["label", "scores"]);
        rewrite_nodes(&mut graph, &mut context(), &ml::rewrite)?;
        Ok(graph)
    }

    #[test]
    fn classifiers_give_the_results_of_onnx_runtime() {
        /// Classes, kernel, whether it has probabilities, transform; then labels and scores.
        type Case<'a> = (usize, &'a str, bool, &'a str, [i64; 3], &'a [f32]);
        // ONNX Runtime 1.31.
        let cases: [Case<'_>; 8] = [
            (
                2,
                "LINEAR",
                false,
                "NONE",
                [3, 3, 5],
                &[-0.81535, 0.81535, -1.9849, 1.9849, 5.1005, -5.1005],
            ),
            (
                2,
                "LINEAR",
                false,
                "LOGISTIC",
                [3, 3, 5],
                &[0.306752, 0.693248, 0.120797, 0.879203, 0.993943, 0.00605685],
            ),
            (
                2,
                "POLY",
                false,
                "SOFTMAX",
                [3, 3, 5],
                &[0.869558, 0.130442, 0.00194561, 0.998054, 13.4031, -12.4031],
            ),
            (
                2,
                "RBF",
                true,
                "NONE",
                [5, 5, 5],
                &[0.354437, 0.645563, 0.302892, 0.697108, 0.353625, 0.646375],
            ),
            (
                3,
                "LINEAR",
                false,
                "LOGISTIC",
                [9, 3, 3],
                &[
                    0.693248, 0.155316, 0.485941, 0.879203, 0.230795, 0.95836, 0.00605679,
                    0.991794, 0.00937906,
                ],
            ),
            (
                3,
                "POLY",
                false,
                "NONE",
                [3, 3, 3],
                &[
                    0.130442, -1.32193, 0.0607337, 0.998054, -0.879102, 1.2486, -12.4031, 26.5742,
                    -24.1775,
                ],
            ),
            (
                3,
                "RBF",
                true,
                "NONE",
                [3, 5, 9],
                &[
                    0.335228, 0.352894, 0.311878, 0.279712, 0.414458, 0.305829, 0.284934, 0.319243,
                    0.395822,
                ],
            ),
            (
                3,
                "SIGMOID",
                true,
                "SOFTMAX",
                [9, 3, 3],
                &[
                    0.289242, 0.310753, 0.400004, 0.323708, 0.345929, 0.330363, 0.299093, 0.344801,
                    0.356107,
                ],
            ),
        ];
        let x = Tensor::new(&[3, 2], vec![0.5f32, -1.0, -1.5, 0.25, 2.0, 1.5]).unwrap();
        for (classes, kernel, probable, transform, labels, scores) in cases {
            let name = format!("{classes} classes, {kernel}, {probable}, {transform}");
            let graph = rewritten(machine(classes, kernel, probable, transform)).unwrap();
            let imported = translate(model(graph)).unwrap();
            let results = float_run::outputs(&imported, &vec![vec![x.clone()]]).unwrap();
            assert_eq!(results[0][0].data(), &hardtack::Data::I64(labels.to_vec()), "{name}");
            let results = results[0][1].as_f32().unwrap();
            assert_eq!(results.len(), scores.len(), "{name}");
            for (result, expected) in results.iter().zip(scores) {
                let difference = (result - expected).abs();
                assert!(difference <= 1e-5 * expected.abs().max(1.0), "{name}: {results:?}");
            }
        }
    }

    #[test]
    fn labels_can_be_strings() {
        let mut machine = machine(2, "LINEAR", true, "NONE");
        machine.attribute[0] = AttributeProto {
            name: "classlabels_strings".into(),
            r#type: AttributeType::Strings as i32,
            strings: vec![b"no".to_vec(), b"yes".to_vec()],
            ..AttributeProto::default()
        };
        let mut graph = graph(&[("x", &["n", "2"])], vec![machine], &[], &["label"]);
        let mut context = context();
        rewrite_nodes(&mut graph, &mut context, &ml::rewrite).unwrap();
        assert_eq!(context.labels, ["no", "yes"]);
    }

    #[test]
    fn attributes_of_different_lengths_are_refused() {
        for (index, attribute, problem) in [
            (1, ints("vectors_per_class", &[]), "export a linear model as LinearClassifier"),
            (1, ints("vectors_per_class", &[2, -1, 2]), "export a linear model"),
            (1, ints("vectors_per_class", &[i64::MAX, i64::MAX, 2]), "do not match"),
            (2, floats("support_vectors", &[1.0]), "do not match"),
            (3, floats("coefficients", &[1.0]), "do not match"),
            (4, floats("rho", &[]), "do not match"),
            (6, text("kernel_type", "CUBE"), "kernel_type CUBE is not known"),
            (8, floats("prob_a", &[1.0]), "one value for each pair"),
        ] {
            let mut machine = machine(3, "RBF", true, "NONE");
            machine.attribute[index] = attribute;
            let error = rewritten(machine).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
    }
}
