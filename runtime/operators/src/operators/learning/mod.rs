//! Operators of the domain `ai.onnx.ml`: encoders, scalers, and models of classical learning.

use crate::call::{Call, Operator};
use crate::element_type::ElementType;
use crate::error::Problem;
use crate::shape;
use crate::tensor::Tensor;
use crate::value::Value;

mod encode;
mod feature;
mod linear;
mod scores;
mod support;
mod tree;

/// Returns the implementation of an operator of this family.
pub(super) fn find(domain: &str, name: &str) -> Option<Operator> {
    if domain != "ai.onnx.ml" {
        return None;
    }
    Some(match name {
        "ArrayFeatureExtractor" => feature::array_feature_extractor,
        "Binarizer" => feature::binarizer,
        "CastMap" | "DictVectorizer" => takes_map,
        "CategoryMapper" => encode::category_mapper,
        "FeatureVectorizer" => feature::feature_vectorizer,
        "Imputer" => feature::imputer,
        "LabelEncoder" => encode::label_encoder,
        "LinearClassifier" => linear::linear_classifier,
        "LinearRegressor" => linear::linear_regressor,
        "Normalizer" => feature::normalizer,
        "OneHotEncoder" => encode::one_hot_encoder,
        "SVMClassifier" => support::svm_classifier,
        "SVMRegressor" => support::svm_regressor,
        "Scaler" => feature::scaler,
        "TreeEnsemble" => tree::tree_ensemble,
        "TreeEnsembleClassifier" => tree::tree_ensemble_classifier,
        "TreeEnsembleRegressor" => tree::tree_ensemble_regressor,
        "ZipMap" => encode::zip_map,
        _ => return None,
    })
}

/// Refuses an operator whose input is a map.
fn takes_map(_: &Call<'_>) -> Result<Vec<Value>, Problem> {
    Err(Problem::Unsupported { reason: "its input is a map; only tensors can be evaluated" })
}

/// A matrix of numbers: one row per example, one column per feature.
struct Matrix {
    rows: usize,
    columns: usize,
    values: Vec<f64>,
}

impl Matrix {
    /// Reads input 0. A vector is one example.
    fn read(call: &Call<'_>) -> Result<Self, Problem> {
        let x = call.tensor(0)?;
        let (rows, columns) = match *x.shape() {
            [columns] => (1, columns),
            [rows, columns] => (rows, columns),
            _ => return Err(wrong_rank(x)),
        };
        shape::elements(&[rows, columns.max(1)])?;
        Ok(Self { rows, columns, values: x.to_f64()? })
    }

    /// Returns the rows.
    fn iter(&self) -> impl Iterator<Item = &[f64]> {
        (0..self.rows).map(|row| {
            let start = row * self.columns;
            self.values.get(start..start + self.columns).unwrap_or(&[])
        })
    }

    /// Checks the number of columns.
    fn expect_columns(&self, columns: usize) -> Result<(), Problem> {
        if self.columns == columns {
            return Ok(());
        }
        Err(Problem::InputShape {
            index: 0,
            shape: vec![self.rows, self.columns],
            expected: format!("have {columns} features"),
        })
    }
}

fn wrong_rank(x: &Tensor) -> Problem {
    let expected = String::from("have one or two axes");
    Problem::InputShape { index: 0, shape: x.shape().to_vec(), expected }
}

/// Returns the floats of an attribute that may be missing.
fn floats<'a>(call: &'a Call<'_>, name: &str) -> Result<&'a [f32], Problem> {
    Ok(call.floats(name)?.unwrap_or(&[]))
}

/// Returns the floats of an attribute that must not be missing or empty.
fn some_floats<'a>(call: &'a Call<'_>, name: &'static str) -> Result<&'a [f32], Problem> {
    match floats(call, name)? {
        [] => Err(Problem::MissingAttribute { name }),
        values => Ok(values),
    }
}

/// Returns the labels of the classes, strings or integers.
fn labels(call: &Call<'_>, strings: &'static str, ints: &'static str) -> Result<Tensor, Problem> {
    match (call.texts(strings)?, call.ints(ints)?) {
        (Some(texts), _) if !texts.is_empty() => Ok(Tensor::vector(texts.to_vec())),
        (_, Some(ints)) if !ints.is_empty() => Ok(Tensor::vector(ints.to_vec())),
        _ => Err(Problem::MissingAttribute { name: ints }),
    }
}

/// Returns the labels of two classes that share one score. Unless there are exactly two labels,
/// they are 0 and 1.
fn pair(labels: Tensor) -> Tensor {
    match (labels.len(), labels.element()) {
        (2, _) => labels,
        (_, ElementType::Text) => Tensor::vector(vec![String::from("0"), String::from("1")]),
        _ => Tensor::vector(vec![0i64, 1]),
    }
}

/// Returns the position of the largest score: the first one of equal scores.
fn largest(scores: &[f64]) -> usize {
    let mut best = 0;
    for (index, score) in scores.iter().enumerate() {
        if scores.get(best).is_some_and(|largest| score > largest || largest.is_nan()) {
            best = index;
        }
    }
    best
}

/// Returns the outputs of a classifier: the labels of the chosen classes, and the scores.
fn classified(
    labels: &Tensor,
    classes: Vec<usize>,
    width: usize,
    scores: Vec<f64>,
) -> Result<Vec<Value>, Problem> {
    let rows = classes.len();
    let chosen = labels.select(vec![rows], classes.into_iter())?;
    let scores = Tensor::from_f64(ElementType::F32, vec![rows, width], scores)?;
    Ok(vec![chosen.into(), scores.into()])
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use super::*;
    use crate::model::{Attribute, Graph, Model, Node, ValueInfo};
    use crate::{NoObserver, Value};

    /// Evaluates an operator of some version on one tensor.
    fn run(
        operator: &str,
        version: i64,
        x: Tensor,
        attributes: &[(&str, Attribute)],
    ) -> Vec<Tensor> {
        let outputs = [String::from("y"), String::from("z")];
        let outputs = outputs[..1 + usize::from(operator.ends_with("Classifier"))].to_vec();
        let info = |name: &String| ValueInfo { name: name.clone(), value_type: None };
        let attributes = attributes.iter().map(|(name, value)| (name.to_string(), value.clone()));
        let mut graph = Graph { outputs: outputs.iter().map(info).collect(), ..Graph::default() };
        graph.nodes = vec![Node {
            domain: "ai.onnx.ml".into(),
            operator: operator.into(),
            inputs: vec!["x".into()],
            outputs,
            attributes: attributes.collect(),
            ..Node::default()
        }];
        let opsets = HashMap::from([("ai.onnx.ml".into(), version)]);
        let model = Model { opsets, graph, ..Model::default() };
        let inputs = HashMap::from([(String::from("x"), Value::from(x))]);
        let values = model.run(inputs, &mut NoObserver).unwrap();
        values.iter().map(|value| value.tensor().unwrap().clone()).collect()
    }

    fn stumps(modes: &[&str], weights: &[f32]) -> Vec<(&'static str, Attribute)> {
        let ints = |values: &[i64]| Attribute::Ints(values.to_vec());
        let modes = modes.iter().map(|mode| mode.to_string()).collect();
        vec![
            ("nodes_treeids", ints(&[0, 0, 0])),
            ("nodes_nodeids", ints(&[0, 1, 2])),
            ("nodes_featureids", ints(&[0, 0, 0])),
            ("nodes_modes", Attribute::Texts(modes)),
            ("nodes_values", Attribute::Floats(vec![1.0, 0.0, 0.0])),
            ("nodes_truenodeids", ints(&[1, 0, 0])),
            ("nodes_falsenodeids", ints(&[2, 0, 0])),
            ("class_treeids", ints(&[0, 0])),
            ("class_nodeids", ints(&[1, 2])),
            ("class_ids", ints(&[0, 0])),
            ("class_weights", Attribute::Floats(weights.to_vec())),
            ("classlabels_int64s", ints(&[10, 20])),
        ]
    }

    #[test]
    fn nan_takes_the_false_branch_unless_it_tracks_true() {
        let x = Tensor::new(vec![2, 1], vec![f32::NAN, 5.0]).unwrap();
        let mut attributes = stumps(&["BRANCH_NEQ", "LEAF", "LEAF"], &[1.0, 0.0]);
        let labels =
            |attributes: &[_]| run("TreeEnsembleClassifier", 3, x.clone(), attributes)[0].clone();
        assert_eq!(labels(&attributes), Tensor::vector(vec![10i64, 20]));
        let tracks = Attribute::Ints(vec![1, 0, 0]);
        attributes.push(("nodes_missing_value_tracks_true", tracks));
        assert_eq!(labels(&attributes), Tensor::vector(vec![20i64, 20]));
    }

    #[test]
    fn a_shared_score_is_transformed_also_if_all_weights_are_positive() {
        let x = Tensor::new(vec![1, 1], vec![0f32]).unwrap();
        let mut attributes = stumps(&["BRANCH_LEQ", "LEAF", "LEAF"], &[0.25, 0.0]);
        let expected = Tensor::new(vec![1, 2], vec![0.75f32, 0.25]).unwrap();
        let found = run("TreeEnsembleClassifier", 3, x.clone(), &attributes);
        assert_eq!(found, [Tensor::vector(vec![10i64]), expected]);
        attributes.push(("post_transform", Attribute::Text("LOGISTIC".into())));
        let found = run("TreeEnsembleClassifier", 3, x, &attributes);
        assert_eq!(found[0], Tensor::vector(vec![20i64]));
        assert!((found[1].to_f64().unwrap()[1] - 0.562_176_5).abs() < 1e-6);
    }

    #[test]
    fn labels_are_compared_by_bits_before_version_4() {
        let x = || Tensor::vector(vec![0f32, f32::NAN, 7.0]);
        let keys = Attribute::Floats(vec![-0.0, f32::NAN, 7.0, 7.0]);
        let attributes =
            [("keys_floats", keys), ("values_int64s", Attribute::Ints(vec![1, 2, 3, 4]))];
        let found = run("LabelEncoder", 2, x(), &attributes);
        assert_eq!(found[0], Tensor::vector(vec![-1i64, 2, 3]));
        let found = run("LabelEncoder", 4, x(), &attributes);
        assert_eq!(found[0], Tensor::vector(vec![1i64, 2, 4]));
    }

    #[test]
    fn the_default_of_labels_has_the_type_of_the_values() {
        let tensor = |values: Vec<i16>| Attribute::Tensor(Arc::new(Tensor::vector(values)));
        let attributes = [("keys_tensor", tensor(vec![3])), ("values_tensor", tensor(vec![4]))];
        let found = run("LabelEncoder", 4, Tensor::scalar(9i16), &attributes);
        assert_eq!(found[0], Tensor::scalar(-1i16));
    }
}
