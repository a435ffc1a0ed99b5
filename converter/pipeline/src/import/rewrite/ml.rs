//! Rewrites operators of classic machine learning (`ai.onnx.ml`) as standard operators.
//!
//! There are no strings at run time: a string label output becomes the class index, and the strings
//! become the labels of the model.

use hardtack::{Data, Tensor};
use hardtack_bundle::DType;
use tract_onnx::pb::NodeProto;

use super::emit::Emit;
use super::scores::{DOMAIN, Labels, Transform, input, keep_labels, output, two_classes};
use crate::import::ImportError;
use crate::import::node::{Node, int};

/// Rewrites one operator, except ensembles of trees.
pub(crate) fn rewrite(node: &mut NodeProto, emit: &mut Emit<'_>) -> Result<bool, ImportError> {
    let node = &*node;
    if node.domain != DOMAIN {
        return Ok(false);
    }
    match node.op_type.as_str() {
        "Scaler" => scaler(node, emit)?,
        "Imputer" => imputer(node, emit)?,
        "Binarizer" => {
            let x = emit.cast(input(node)?, DType::F32);
            let threshold = Tensor::scalar(node.float("threshold").unwrap_or(0.0));
            let threshold = emit.constant("threshold", &threshold);
            let above = emit.node("Greater", &[&x, &threshold], vec![]);
            emit.last("Cast", &[&above], output(node)?, vec![int("to", 1)]);
        }
        "Normalizer" => normalizer(node, emit)?,
        "LinearClassifier" => linear_classifier(node, emit)?,
        "LinearRegressor" => linear_regressor(node, emit)?,
        "SVMClassifier" => super::svm::classifier(node, emit)?,
        "SVMRegressor" => super::svm::regressor(node, emit)?,
        "ZipMap" => {
            emit.context.labels = node.texts("classlabels_strings");
            let message = "ZipMap is removed: the output is the scores of all classes";
            emit.context.note(message.into());
            emit.last("Identity", &[input(node)?], output(node)?, vec![]);
        }
        "FeatureVectorizer" => {
            let mut inputs = Vec::new();
            for name in &node.input {
                inputs.push(emit.cast(name, DType::F32));
            }
            let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
            emit.last("Concat", &inputs, output(node)?, vec![int("axis", 1)]);
        }
        "LabelEncoder" => label_encoder(node, emit)?,
        "ArrayFeatureExtractor" => return array_features(node, emit),
        _ => return Ok(false),
    }
    Ok(true)
}

fn scaler(node: &NodeProto, emit: &mut Emit<'_>) -> Result<(), ImportError> {
    let mut y = emit.cast(input(node)?, DType::F32);
    let offset = node.floats("offset").to_vec();
    if !offset.is_empty() {
        let offset = emit.vector("offset", offset);
        y = emit.node("Sub", &[&y, &offset], vec![]);
    }
    let scale = match node.floats("scale") {
        [] => vec![1.0],
        scale => scale.to_vec(),
    };
    let scale = emit.vector("scale", scale);
    emit.last("Mul", &[&y, &scale], output(node)?, vec![]);
    Ok(())
}

fn imputer(node: &NodeProto, emit: &mut Emit<'_>) -> Result<(), ImportError> {
    let x = input(node)?;
    let floats = node.floats("imputed_value_floats").to_vec();
    let integers = node.ints("imputed_value_int64s").to_vec();
    let (missing, values) = if !floats.is_empty() {
        let replaced = node.float("replaced_value_float").unwrap_or(0.0);
        let missing = if replaced.is_nan() {
            emit.node("IsNaN", &[x], vec![])
        } else {
            let replaced = emit.constant("replaced", &Tensor::scalar(replaced));
            emit.node("Equal", &[x, &replaced], vec![])
        };
        (missing, emit.vector("imputed", floats))
    } else if !integers.is_empty() {
        let replaced = Tensor::scalar(node.int("replaced_value_int64").unwrap_or(0));
        let replaced = emit.constant("replaced", &replaced);
        let missing = emit.node("Equal", &[x, &replaced], vec![]);
        (missing, emit.vector("imputed", integers))
    } else {
        return Err(node.wrong("it has no imputed values"));
    };
    emit.last("Where", &[&missing, &values, x], output(node)?, vec![]);
    Ok(())
}

fn normalizer(node: &NodeProto, emit: &mut Emit<'_>) -> Result<(), ImportError> {
    let x = emit.cast(input(node)?, DType::F32);
    let size = match node.text("norm").unwrap_or("MAX") {
        "MAX" => {
            let size = emit.node("Abs", &[&x], vec![]);
            emit.reduce("ReduceMax", &size, &[-1])
        }
        "L1" => {
            let size = emit.node("Abs", &[&x], vec![]);
            emit.reduce("ReduceSum", &size, &[-1])
        }
        "L2" => {
            let square = emit.node("Mul", &[&x, &x], vec![]);
            let size = emit.reduce("ReduceSum", &square, &[-1]);
            emit.node("Sqrt", &[&size], vec![])
        }
        other => return Err(node.wrong(format!("norm {other:?} is not known"))),
    };
    let tiny = emit.constant("tiny", &Tensor::scalar(f32::MIN_POSITIVE));
    let size = emit.node("Max", &[&size, &tiny], vec![]);
    emit.last("Div", &[&x, &size], output(node)?, vec![]);
    Ok(())
}

fn linear_classifier(node: &NodeProto, emit: &mut Emit<'_>) -> Result<(), ImportError> {
    let labels = Labels::of(node, "classlabels_ints")?;
    let intercepts = node.floats("intercepts");
    let classes = labels.len();
    let rows = match intercepts.len() {
        0 if classes == 2 && node.int("multi_class").unwrap_or(0) == 0 => 1,
        0 => classes,
        rows => rows,
    };
    if rows != classes && !(rows == 1 && classes == 2) {
        return Err(node.wrong(format!("{rows} intercepts do not match {classes} classes")));
    }
    let scores = affine(node, emit, rows, intercepts)?;
    let transform = Transform::of(node)?;
    if rows == 1 && classes == 2 {
        two_classes(node, emit, &scores, transform, 0.0, &labels)
    } else {
        labels.choose(node, emit, &scores)?;
        match node.wanted(1) {
            Some(output) => transform.last(node, emit, &scores, output),
            None => Ok(()),
        }
    }
}

fn linear_regressor(node: &NodeProto, emit: &mut Emit<'_>) -> Result<(), ImportError> {
    let targets = node.int("targets").unwrap_or(1);
    let targets = usize::try_from(targets).map_err(|_| node.wrong("targets is negative"))?;
    let y = affine(node, emit, targets, node.floats("intercepts"))?;
    Transform::of(node)?.last(node, emit, &y, output(node)?)
}

/// Emits `x · coefficientsᵀ + intercepts`, which has `rows` columns.
fn affine(
    node: &NodeProto,
    emit: &mut Emit<'_>,
    rows: usize,
    intercepts: &[f32],
) -> Result<String, ImportError> {
    let coefficients = node.floats("coefficients");
    if rows == 0 || coefficients.is_empty() || !coefficients.len().is_multiple_of(rows) {
        let problem = format!("{} coefficients do not match {rows} rows", coefficients.len());
        return Err(node.wrong(problem));
    }
    if !matches!(intercepts.len(), 0 | 1) && intercepts.len() != rows {
        return Err(node.wrong(format!("{} intercepts do not match {rows} rows", intercepts.len())));
    }
    let columns = coefficients.len() / rows;
    let mut transposed = vec![0f32; coefficients.len()];
    for row in 0..rows {
        for column in 0..columns {
            transposed[column * rows + row] = coefficients[row * columns + column];
        }
    }
    let weights = Tensor::new(&[columns, rows], transposed).expect("as many elements as before");
    let weights = emit.constant("coefficients", &weights);
    let x = emit.cast(input(node)?, DType::F32);
    let y = emit.node("MatMul", &[&x, &weights], vec![]);
    if intercepts.is_empty() {
        return Ok(y);
    }
    let intercepts = emit.vector("intercepts", intercepts.to_vec());
    Ok(emit.node("Add", &[&y, &intercepts], vec![]))
}

/// Rewrites a selection of columns, whose number of indices may be 1 with any rank.
fn array_features(node: &NodeProto, emit: &mut Emit<'_>) -> Result<bool, ImportError> {
    if emit.scope.proto(input(node)?).is_some() {
        return text_labels(node, emit);
    }
    let index = node.given(1).ok_or_else(|| node.wrong("its second input is missing"))?;
    let shape = emit.list("shape", &[-1]);
    let index = emit.node("Reshape", &[index, &shape], vec![]);
    emit.last("Gather", &[input(node)?, &index], output(node)?, vec![int("axis", -1)]);
    Ok(true)
}

/// Rewrites a lookup in a table of strings: the index itself becomes the output.
fn text_labels(node: &NodeProto, emit: &mut Emit<'_>) -> Result<bool, ImportError> {
    let table = emit.scope.proto(input(node)?);
    let Some(texts) = table.map(|table| table.string_data.clone()).filter(|t| !t.is_empty()) else {
        return Ok(false);
    };
    let index = node.given(1).ok_or_else(|| node.wrong("its second input is missing"))?;
    emit.last("Cast", &[index], output(node)?, vec![int("to", 7)]);
    let texts = texts.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect();
    keep_labels(emit, texts, output(node)?);
    Ok(true)
}

/// Rewrites a LabelEncoder that maps the integers from 0 to strings, or few integers to numbers.
fn label_encoder(node: &NodeProto, emit: &mut Emit<'_>) -> Result<(), ImportError> {
    let keys = node.ints("keys_int64s").to_vec();
    let texts = node.texts("values_strings");
    if keys.is_empty() {
        return Err(node.wrong("only integer keys are supported"));
    }
    if !texts.is_empty() {
        if !keys.iter().copied().eq(0..texts.len() as i64) {
            return Err(node.wrong("string values require the keys 0, 1, 2 and so on"));
        }
        emit.last("Identity", &[input(node)?], output(node)?, vec![]);
        keep_labels(emit, texts, output(node)?);
        return Ok(());
    }
    let (values, default): (Data, Tensor) = match node.floats("values_floats") {
        [] => {
            let default = Tensor::scalar(node.int("default_int64").unwrap_or(-1));
            (node.ints("values_int64s").to_vec().into(), default)
        }
        floats => {
            let default = Tensor::scalar(node.float("default_float").unwrap_or(-0.0));
            (floats.to_vec().into(), default)
        }
    };
    let values = Tensor::new(&[keys.len()], values);
    let values = values.map_err(|_| node.wrong("it does not have one value for each key"))?;
    const MAX_KEYS: usize = 256;
    if keys.len() > MAX_KEYS {
        return Err(node.wrong(format!("it has {} keys; the maximum is {MAX_KEYS}", keys.len())));
    }
    let mut y = emit.constant("default", &default);
    for (index, key) in keys.iter().enumerate() {
        let key = emit.constant("key", &Tensor::scalar(*key));
        let same = emit.node("Equal", &[input(node)?, &key], vec![]);
        let value = hardtack::for_data!(values.data(), v => Tensor::scalar(v[index]));
        let value = emit.constant("value", &value);
        y = emit.node("Where", &[&same, &value, &y], vec![]);
    }
    emit.last("Identity", &[&y], output(node)?, vec![]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::emit::rewrite_nodes;
    use super::super::testing::{context, graph, model, node};
    use super::*;
    use crate::float_run;
    use crate::import::translate::translate;

    #[test]
    fn selected_columns_stay_columns() {
        for (shape, indices, expected) in [
            (&[][..], vec![2i64], vec![2.0f32, 5.0]),
            (&[1], vec![0], vec![0.0, 3.0]),
            (&[1, 2], vec![2, 1], vec![2.0, 1.0, 5.0, 4.0]),
        ] {
            let columns = indices.len();
            let index = ("i", Tensor::new(shape, indices).unwrap());
            let select = node("ai.onnx.ml::ArrayFeatureExtractor", &["x", "i"], &["y"], vec![]);
            let mut graph = graph(&[("x", &["n", "3"])], vec![select], &[index], &["y"]);
            rewrite_nodes(&mut graph, &mut context(), &rewrite).unwrap();
            let imported = translate(model(graph)).unwrap();
            let x = Tensor::new(&[2, 3], vec![0f32, 1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
            let y = float_run::outputs(&imported, &vec![vec![x]]).unwrap().remove(0).remove(0);
            assert_eq!((y.shape(), y.as_f32().unwrap()), (&[2, columns][..], &expected[..]));
        }
    }
}
