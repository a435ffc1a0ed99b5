//! Support vector machines.

use crate::call::Call;
use crate::element_type::ElementType;
use crate::error::Problem;
use crate::meter;
use crate::shape;
use crate::tensor::Tensor;
use crate::value::Value;

use super::scores::{Transform, logistic};
use super::{Matrix, classified, floats, labels, largest, some_floats};

/// A function of an example and a support vector.
enum Kernel {
    Linear,
    Poly,
    Rbf,
    Sigmoid,
}

/// A kernel with its parameters.
struct Machine {
    kernel: Kernel,
    gamma: f64,
    offset: f64,
    degree: f64,
}

impl Machine {
    fn read(call: &Call<'_>) -> Result<Self, Problem> {
        let kernel = match call.text("kernel_type")?.unwrap_or("LINEAR") {
            "LINEAR" => Kernel::Linear,
            "POLY" => Kernel::Poly,
            "RBF" => Kernel::Rbf,
            "SIGMOID" => Kernel::Sigmoid,
            other => {
                return Err(Problem::AttributeValue {
                    name: "kernel_type",
                    value: other.into(),
                    accepted: "LINEAR, POLY, RBF or SIGMOID",
                });
            }
        };
        let parameters = floats(call, "kernel_params")?;
        let parameter = |index| f64::from(parameters.get(index).copied().unwrap_or(0.0));
        Ok(Self { kernel, gamma: parameter(0), offset: parameter(1), degree: parameter(2) })
    }

    /// Returns the kernel of an example with each of a list of vectors.
    fn evaluate(&self, x: &[f64], vectors: &[f32]) -> Result<Vec<f64>, Problem> {
        meter::spend(vectors.len() as u64)?;
        let each = |vector: &[f32]| {
            let pairs = || x.iter().zip(vector).map(|(x, v)| (*x, f64::from(*v)));
            let product = || pairs().map(|(x, v)| x * v).sum::<f64>();
            match self.kernel {
                Kernel::Linear => product(),
                Kernel::Poly => (self.gamma * product() + self.offset).powf(self.degree),
                Kernel::Rbf => {
                    let distance: f64 = pairs().map(|(x, v)| (x - v) * (x - v)).sum();
                    (-self.gamma * distance).exp()
                }
                Kernel::Sigmoid => (self.gamma * product() + self.offset).tanh(),
            }
        };
        Ok(vectors.chunks_exact(x.len().max(1)).map(each).collect())
    }
}

fn too_few(name: &str, found: usize, needed: usize) -> Problem {
    Problem::Invalid(format!("attribute {name:?} has {found} elements; it needs {needed}"))
}

/// Predicts a number by support vectors, or whether examples belong to one class.
pub(super) fn svm_regressor(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = Matrix::read(call)?;
    let mut machine = Machine::read(call)?;
    let weights = some_floats(call, "coefficients")?;
    let rho = some_floats(call, "rho")?.first().copied().unwrap_or(0.0);
    let supports = shape::size(call.int_or("n_supports", 0)?)?;
    let one_class = call.flag("one_class", false)?;
    let transform = Transform::read(call)?;
    let vectors = floats(call, "support_vectors")?;
    if supports > 0 {
        let needed = supports.saturating_mul(x.columns);
        if vectors.len() != needed {
            return Err(too_few("support_vectors", vectors.len(), needed));
        }
        if weights.len() < supports {
            return Err(too_few("coefficients", weights.len(), supports));
        }
    } else {
        machine.kernel = Kernel::Linear;
        x.expect_columns(weights.len())?;
    }
    let predict = |row: &[f64]| {
        let sum: f64 = match supports {
            0 => machine.evaluate(row, weights)?.iter().sum(),
            _ => {
                let kernels = machine.evaluate(row, vectors)?;
                kernels.iter().zip(weights).map(|(k, w)| k * f64::from(*w)).sum()
            }
        };
        let mut scores = [sum + f64::from(rho)];
        transform.apply(&mut scores);
        Ok(match one_class {
            true if sum + f64::from(rho) > 0.0 => 1.0,
            true => -1.0,
            false => scores[0],
        })
    };
    let values = x.iter().map(predict).collect::<Result<_, Problem>>()?;
    Ok(vec![Tensor::from_f64(ElementType::F32, vec![x.rows, 1], values)?.into()])
}

/// A classifier with one decision function per pair of classes.
struct Pairs<'a> {
    machine: Machine,
    /// The range of the support vectors of each class.
    ranges: Vec<std::ops::Range<usize>>,
    vectors: &'a [f32],
    /// One row of weights per class but one, one column per support vector.
    weights: &'a [f32],
    rho: &'a [f32],
}

impl Pairs<'_> {
    /// Returns the pairs of classes in the order of their decision functions.
    fn pairs(classes: usize) -> impl Iterator<Item = (usize, usize)> {
        (0..classes).flat_map(move |i| (i + 1..classes).map(move |j| (i, j)))
    }

    /// Returns the scores of the pairs, and the votes for the classes.
    fn evaluate(&self, x: &[f64]) -> Result<(Vec<f64>, Vec<f64>), Problem> {
        let kernels = self.machine.evaluate(x, self.vectors)?;
        let classes = self.ranges.len();
        meter::spend((classes as u64).saturating_mul((2 * kernels.len() + classes) as u64))?;
        let sum = |row: usize, range: &std::ops::Range<usize>| -> f64 {
            let weights = self.weights.iter().skip(row * kernels.len() + range.start);
            let kernels = kernels.get(range.clone()).unwrap_or(&[]);
            kernels.iter().zip(weights).map(|(k, w)| k * f64::from(*w)).sum()
        };
        let mut votes = vec![0.0; classes];
        let mut scores = Vec::new();
        for ((i, j), rho) in Self::pairs(classes).zip(self.rho) {
            let score = sum(j - 1, &self.ranges[i]) + sum(i, &self.ranges[j]) + f64::from(*rho);
            votes[if score > 0.0 { i } else { j }] += 1.0;
            scores.push(score);
        }
        Ok((scores, votes))
    }
}

/// Classifies examples by support vectors.
pub(super) fn svm_classifier(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = Matrix::read(call)?;
    let labels = labels(call, "classlabels_strings", "classlabels_ints")?;
    let transform = Transform::read(call)?;
    let sizes = call.ints("vectors_per_class")?.unwrap_or(&[]);
    let sizes: Vec<usize> = sizes.iter().map(|n| shape::size(*n)).collect::<Result<_, _>>()?;
    let supports = shape::elements(&[sizes.iter().fold(0, |sum, n| n.saturating_add(sum))])?;
    if supports == 0 {
        return linear_machine(call, &x, &labels, transform);
    }
    let classes = labels.len();
    let pairs = classes.saturating_mul(classes.saturating_sub(1)) / 2;
    let vectors = floats(call, "support_vectors")?;
    let weights = some_floats(call, "coefficients")?;
    let rho = some_floats(call, "rho")?;
    let (slopes, offsets) = (floats(call, "prob_a")?, floats(call, "prob_b")?);
    let with_probabilities = !slopes.is_empty();
    let probabilities = if with_probabilities { pairs } else { 0 };
    for (name, found, needed) in [
        ("vectors_per_class", sizes.len(), classes),
        ("support_vectors", vectors.len(), supports.saturating_mul(x.columns)),
        ("coefficients", weights.len(), supports.saturating_mul(classes - 1)),
        ("rho", rho.len(), pairs),
        ("prob_a", slopes.len(), probabilities),
        ("prob_b", offsets.len(), probabilities),
    ] {
        if found < needed || (name == "vectors_per_class" && found > needed) {
            return Err(too_few(name, found, needed));
        }
    }
    let mut end = 0;
    let range = |size: &usize| {
        let start = end;
        end += size;
        start..end
    };
    let ranges = sizes.iter().map(range).collect();
    let vectors = &vectors[..supports * x.columns];
    let machine = Pairs { machine: Machine::read(call)?, ranges, vectors, weights, rho };
    let width = match (with_probabilities, classes) {
        (true, _) => classes,
        (false, 1 | 2) => 2,
        (false, _) => pairs,
    };
    shape::elements(&[x.rows, width])?;
    let mut chosen = Vec::new();
    let mut all = Vec::new();
    for row in x.iter() {
        let (mut scores, votes) = machine.evaluate(row)?;
        chosen.push(largest(&votes));
        if with_probabilities {
            scores = class_probabilities(classes, &scores, slopes, offsets)?;
        } else if classes <= 2 {
            let score = scores.first().copied().unwrap_or(0.0);
            all.extend(transform.apply_to_pair(score, true));
            continue;
        }
        transform.apply(&mut scores);
        all.extend(scores);
    }
    classified(&labels, chosen, width, all)
}

/// Classifies by one linear function per class, without support vectors.
fn linear_machine(
    call: &Call<'_>,
    x: &Matrix,
    labels: &Tensor,
    transform: Transform,
) -> Result<Vec<Value>, Problem> {
    let weights = some_floats(call, "coefficients")?;
    let rho = f64::from(some_floats(call, "rho")?.first().copied().unwrap_or(0.0));
    let classes = labels.len();
    let needed = classes.saturating_mul(x.columns);
    if weights.len() != needed {
        return Err(too_few("coefficients", weights.len(), needed));
    }
    shape::elements(&[x.rows, classes])?;
    let machine = Machine { kernel: Kernel::Linear, gamma: 0.0, offset: 0.0, degree: 0.0 };
    let mut chosen = Vec::new();
    let mut all = Vec::new();
    for row in x.iter() {
        let mut scores = machine.evaluate(row, weights)?;
        scores.resize(classes, 0.0);
        scores.iter_mut().for_each(|score| *score += rho);
        chosen.push(largest(&scores));
        transform.apply(&mut scores);
        all.extend(scores);
    }
    classified(labels, chosen, classes, all)
}

/// Returns the probabilities of the classes from the scores of their pairs, by the second method of
/// Wu, Lin and Weng (2004), which LIBSVM uses.
fn class_probabilities(
    classes: usize,
    scores: &[f64],
    slopes: &[f32],
    offsets: &[f32],
) -> Result<Vec<f64>, Problem> {
    let pairs = shape::elements(&[classes, classes])? as u64;
    let mut r = vec![vec![0.0; classes]; classes];
    let functions = slopes.iter().zip(offsets);
    for ((i, j), (score, (a, b))) in Pairs::pairs(classes).zip(scores.iter().zip(functions)) {
        let p = 1.0 - logistic(score * f64::from(*a) + f64::from(*b));
        let p = p.clamp(1e-7, 1.0 - 1e-7);
        r[i][j] = p;
        r[j][i] = 1.0 - p;
    }
    let n = classes as f64;
    let mut q = vec![vec![0.0; classes]; classes];
    for i in 0..classes {
        for j in (0..classes).filter(|j| *j != i) {
            q[i][i] += r[j][i] * r[j][i];
            q[i][j] = -r[j][i] * r[i][j];
        }
    }
    let mut p = vec![1.0 / n; classes];
    for _ in 0..classes.max(100) {
        meter::spend(pairs.saturating_mul(3))?;
        let product = |row: &Vec<f64>| row.iter().zip(&p).map(|(q, p)| q * p).sum::<f64>();
        let mut qp: Vec<f64> = q.iter().map(product).collect();
        let mut pqp: f64 = p.iter().zip(&qp).map(|(p, qp)| p * qp).sum();
        if qp.iter().all(|value| (value - pqp).abs() < 0.005 / n) {
            break;
        }
        for i in 0..classes {
            let step = (pqp - qp[i]) / q[i][i];
            p[i] += step;
            pqp = (pqp + step * (step * q[i][i] + 2.0 * qp[i])) / ((1.0 + step) * (1.0 + step));
            for j in 0..classes {
                qp[j] = (qp[j] + step * q[i][j]) / (1.0 + step);
                p[j] /= 1.0 + step;
            }
        }
    }
    Ok(p)
}
