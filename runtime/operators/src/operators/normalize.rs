//! Normalizations: operators that divide by a norm or by a standard deviation.

use crate::call::{Call, Operator};
use crate::element_type::ElementType;
use crate::error::Problem;
use crate::meter::Tally;
use crate::shape::{self, broadcast, broadcast_offsets, elements};
use crate::tensor::Tensor;
use crate::value::Value;

/// Returns the implementation of an operator of this family.
pub(super) fn find(domain: &str, name: &str) -> Option<Operator> {
    Some(match (domain, name) {
        ("", "BatchNormalization") => batch_normalization,
        ("", "GroupNormalization") => group_normalization,
        ("", "InstanceNormalization") => instance_normalization,
        ("", "LayerNormalization") => layer_normalization,
        ("", "LpNormalization") => lp_normalization,
        ("", "LRN") => local_response_normalization,
        ("", "MeanVarianceNormalization") => mean_variance_normalization,
        ("", "RMSNormalization" | "SimplifiedLayerNormalization") => rms_normalization,
        _ => return None,
    })
}

/// The mean and the population variance of some numbers.
#[derive(Clone, Copy)]
struct Statistics {
    mean: f64,
    variance: f64,
}

impl Statistics {
    /// Computes the statistics; they are NaN if there are no numbers.
    fn of<'a>(values: impl Iterator<Item = &'a f64> + Clone) -> Self {
        let mean = mean(values.clone().copied());
        let variance = mean_of_squares(values.map(|value| value - mean));
        Self { mean, variance }
    }

    /// Returns the reciprocal of the standard deviation.
    fn inverse(self, epsilon: f64) -> f64 {
        1.0 / (self.variance + epsilon).sqrt()
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0usize), |(sum, count), value| (sum + value, count + 1));
    sum / count as f64
}

fn mean_of_squares(values: impl Iterator<Item = f64>) -> f64 {
    mean(values.map(|value| value * value))
}

/// Returns an operand that must be a float tensor.
fn float<'a>(call: &'a Call<'_>, index: usize) -> Result<&'a Tensor, Problem> {
    let tensor = call.tensor(index)?;
    let (found, accepted) = (tensor.element(), "a float");
    if found.is_float() { Ok(tensor) } else { Err(Problem::InputType { index, found, accepted }) }
}

/// Returns the numbers of an operand that must have a shape.
fn parameter(call: &Call<'_>, index: usize, shape: &[usize]) -> Result<Vec<f64>, Problem> {
    let tensor = float(call, index)?;
    if tensor.shape() != shape {
        let expected = format!("be {shape:?}");
        return Err(Problem::InputShape { index, shape: tensor.shape().to_vec(), expected });
    }
    tensor.to_f64()
}

fn epsilon(call: &Call<'_>) -> Result<f64, Problem> {
    Ok(f64::from(call.float_or("epsilon", 1e-5)?))
}

/// Rounds numbers to a float type.
fn rounded(values: Vec<f64>, element: ElementType) -> Result<Vec<f64>, Problem> {
    match element {
        ElementType::F64 => Ok(values),
        _ => Tensor::from_f64(element, vec![values.len()], values)?.to_f64(),
    }
}

/// The precision of a normalization before it is scaled.
struct Stage {
    element: ElementType,
    /// Whether operands and results must be rounded to this type, which their own type exceeds.
    rounds: bool,
}

impl Stage {
    /// Returns the precision that `stash_type` gives to the normalization of a tensor.
    fn of(call: &Call<'_>, x: &Tensor) -> Result<Self, Problem> {
        let number = call.int_or("stash_type", 1)?;
        let element = ElementType::from_number(number).filter(|element| {
            use ElementType::*;
            matches!(element, F32 | F64 | F16 | BF16)
        });
        let element = element.ok_or_else(|| Problem::AttributeValue {
            name: "stash_type",
            value: number.to_string(),
            accepted: "the number of a float type of at least 16 bits",
        })?;
        let rounds = x.element() != element && x.element().bits() >= element.bits();
        Ok(Self { element, rounds })
    }

    fn round(&self, values: Vec<f64>) -> Result<Vec<f64>, Problem> {
        if self.rounds { rounded(values, self.element) } else { Ok(values) }
    }
}

/// The sizes of a tensor with channels in axis 1.
struct Channels {
    channels: usize,
    /// The number of elements of a channel of a sample.
    inner: usize,
}

impl Channels {
    fn of(index: usize, x: &Tensor) -> Result<Self, Problem> {
        match x.shape() {
            [_, channels, inner @ ..] => {
                let inner = elements(inner)?;
                Ok(Self { channels: *channels, inner })
            }
            shape => Err(Problem::InputShape {
                index,
                shape: shape.to_vec(),
                expected: "have at least two axes".into(),
            }),
        }
    }

    /// Returns the statistics of a channel in all samples.
    fn statistics(&self, values: &[f64], channel: usize) -> Statistics {
        let rows = values.chunks(self.inner.max(1)).skip(channel).step_by(self.channels.max(1));
        Statistics::of(rows.flatten())
    }
}

/// Replaces each row by its standard score, and returns the mean and the reciprocal of the standard
/// deviation of each.
fn standardize(values: &mut [f64], row: usize, epsilon: f64) -> Vec<(f64, f64)> {
    let standardize = |row: &mut [f64]| {
        let statistics = Statistics::of(row.iter());
        let (mean, inverse) = (statistics.mean, statistics.inverse(epsilon));
        row.iter_mut().for_each(|value| *value = (*value - mean) * inverse);
        (mean, inverse)
    };
    values.chunks_mut(row.max(1)).map(standardize).collect()
}

/// Multiplies each row by a scale and adds a bias. Both repeat.
fn scale_rows(values: &mut [f64], row: usize, scale: &[f64], bias: &[f64]) {
    let parameters = scale.iter().zip(bias).cycle();
    for (row, (scale, bias)) in values.chunks_mut(row.max(1)).zip(parameters) {
        row.iter_mut().for_each(|value| *value = *value * scale + bias);
    }
}

/// Normalizes each channel with given statistics, or with those of the batch in training.
fn batch_normalization(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = float(call, 0)?;
    let mut sizes = match *x.shape() {
        // A vector is a batch of one channel.
        [_] => Channels { channels: 1, inner: 1 },
        _ => Channels::of(0, x)?,
    };
    let mut shape = vec![sizes.channels];
    if call.version < 9 && !call.flag("spatial", true)? {
        shape = x.shape().get(1..).unwrap_or_default().to_vec();
        sizes = Channels { channels: elements(&shape)?, inner: 1 };
    }
    let (scale, bias) = (parameter(call, 1, &shape)?, parameter(call, 2, &shape)?);
    let (means, variances) = (parameter(call, 3, &shape)?, parameter(call, 4, &shape)?);
    let mut values = x.to_f64()?;
    let training = match call.version {
        ..14 => (1..5).any(|output| call.wants(output)),
        _ => call.flag("training_mode", false)?,
    };
    let statistics: Vec<Statistics> = match training {
        true => (0..sizes.channels).map(|channel| sizes.statistics(&values, channel)).collect(),
        false => {
            let pairs = means.iter().zip(&variances);
            pairs.map(|(mean, variance)| Statistics { mean: *mean, variance: *variance }).collect()
        }
    };
    let epsilon = epsilon(call)?;
    let parameters = statistics.iter().zip(scale.iter().zip(&bias)).cycle();
    for (row, (statistics, (scale, bias))) in values.chunks_mut(sizes.inner.max(1)).zip(parameters)
    {
        let (mean, factor) = (statistics.mean, statistics.inverse(epsilon) * scale);
        row.iter_mut().for_each(|value| *value = (*value - mean) * factor + bias);
    }
    let mut outputs = vec![Tensor::from_f64(x.element(), x.shape().to_vec(), values)?.into()];
    if training {
        let momentum = f64::from(call.float_or("momentum", 0.9)?);
        let running = |index: usize, old: &[f64], new: &dyn Fn(&Statistics) -> f64| {
            let mixed = old.iter().zip(&statistics);
            let mixed = mixed.map(|(old, s)| old * momentum + new(s) * (1.0 - momentum)).collect();
            Tensor::from_f64(call.tensor(index)?.element(), shape.clone(), mixed)
        };
        outputs.push(running(3, &means, &|statistics| statistics.mean)?.into());
        outputs.push(running(4, &variances, &|statistics| statistics.variance)?.into());
        if call.version < 14 {
            let means = statistics.iter().map(|statistics| statistics.mean).collect();
            let variances = statistics.iter().map(|statistics| statistics.variance).collect();
            outputs.push(Tensor::from_f64(x.element(), shape.clone(), means)?.into());
            outputs.push(Tensor::from_f64(x.element(), shape, variances)?.into());
        }
    }
    Ok(outputs)
}

/// Normalizes each channel of each sample with its own mean and standard deviation.
fn instance_normalization(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = float(call, 0)?;
    let Channels { channels, inner } = Channels::of(0, x)?;
    let (scale, bias) = (parameter(call, 1, &[channels])?, parameter(call, 2, &[channels])?);
    let mut values = x.to_f64()?;
    standardize(&mut values, inner, epsilon(call)?);
    scale_rows(&mut values, inner, &scale, &bias);
    Ok(vec![Tensor::from_f64(x.element(), x.shape().to_vec(), values)?.into()])
}

/// Normalizes groups of channels of each sample with their own mean and standard deviation.
fn group_normalization(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = float(call, 0)?;
    let Channels { channels, inner } = Channels::of(0, x)?;
    let name = "num_groups";
    let groups = call.int(name)?.ok_or(Problem::MissingAttribute { name })?;
    let divides = |groups: &usize| *groups > 0 && channels % groups == 0;
    let groups = usize::try_from(groups).ok().filter(divides).ok_or_else(|| {
        let accepted = "a divisor of the number of channels";
        Problem::AttributeValue { name, value: groups.to_string(), accepted }
    })?;
    let group = (channels / groups).saturating_mul(inner);
    let mut values = x.to_f64()?;
    // Version 18 scales groups; later ones scale channels.
    let (count, row) = if call.version < 21 { (groups, group) } else { (channels, inner) };
    let (scale, bias) = (parameter(call, 1, &[count])?, parameter(call, 2, &[count])?);
    let mut stage = Stage::of(call, x)?;
    stage.rounds &= call.version >= 21;
    values = stage.round(values)?;
    standardize(&mut values, group, epsilon(call)?);
    values = stage.round(values)?;
    scale_rows(&mut values, row, &scale, &bias);
    Ok(vec![Tensor::from_f64(x.element(), x.shape().to_vec(), values)?.into()])
}

/// Returns the first axis of the normalized ones, and the number of elements in them.
fn normalized_axes(call: &Call<'_>, x: &Tensor) -> Result<(usize, usize), Problem> {
    let axis = shape::axis(call.int_or("axis", -1)?, x.rank())?;
    Ok((axis, elements(x.shape().get(axis..).unwrap_or_default())?))
}

/// Returns the numbers of a parameter that is broadcast to a tensor. They repeat for each of its
/// rows, from an axis on, if the parameter is the same for all.
fn broadcast_parameter(
    call: &Call<'_>,
    index: usize,
    x: &Tensor,
    axis: usize,
) -> Result<Vec<f64>, Problem> {
    let tensor = float(call, index)?;
    let leading = tensor.shape().iter().take_while(|size| **size == 1).count();
    let own = tensor.shape().get(leading..).unwrap_or_default();
    let row = x.shape().get(axis..).unwrap_or_default();
    let target = if own.len() <= row.len() { row } else { x.shape() };
    if tensor.rank() > x.rank() || broadcast(&[own, target])? != target {
        let expected = format!("be broadcast to {:?}", x.shape());
        return Err(Problem::InputShape { index, shape: tensor.shape().to_vec(), expected });
    }
    tensor.select(target.to_vec(), broadcast_offsets(own, target))?.to_f64()
}

/// Changes each element by the parameter at its place; the parameters repeat.
fn change(values: &mut [f64], parameters: &[f64], change: impl Fn(f64, f64) -> f64) {
    for row in values.chunks_mut(parameters.len().max(1)) {
        for (value, parameter) in row.iter_mut().zip(parameters) {
            *value = change(*value, *parameter);
        }
    }
}

/// Normalizes the last axes with their mean and standard deviation, then scales each element.
fn layer_normalization(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = float(call, 0)?;
    let (axis, row) = normalized_axes(call, x)?;
    let stage = Stage::of(call, x)?;
    let scale = broadcast_parameter(call, 1, x, axis)?;
    let mut values = stage.round(x.to_f64()?)?;
    let mut statistics = standardize(&mut values, row, epsilon(call)?);
    values = stage.round(values)?;
    change(&mut values, &scale, |value, scale| value * scale);
    if call.optional(2).is_some() {
        let bias = broadcast_parameter(call, 2, x, axis)?;
        change(&mut values, &bias, |value, bias| value + bias);
    }
    let shape = row_shape(x, axis);
    // The statistics of empty rows are not defined.
    statistics.resize(elements(&shape)?, (f64::NAN, f64::NAN));
    let (means, inverses) = statistics.into_iter().unzip();
    Ok(vec![
        Tensor::from_f64(x.element(), x.shape().to_vec(), values)?.into(),
        Tensor::from_f64(stage.element, shape.clone(), means)?.into(),
        Tensor::from_f64(stage.element, shape, inverses)?.into(),
    ])
}

/// Returns the shape with one element for each row, from an axis on.
fn row_shape(x: &Tensor, axis: usize) -> Vec<usize> {
    let sizes = x.shape().iter().enumerate();
    sizes.map(|(index, size)| if index < axis { *size } else { 1 }).collect()
}

/// Divides the last axes by their root mean square, then scales each element.
fn rms_normalization(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = float(call, 0)?;
    let (axis, row) = normalized_axes(call, x)?;
    let stage = Stage::of(call, x)?;
    let epsilon = epsilon(call)?;
    let scale = broadcast_parameter(call, 1, x, axis)?;
    let mut values = stage.round(x.to_f64()?)?;
    let normalize = |row: &mut [f64]| {
        let inverse = 1.0 / (mean_of_squares(row.iter().copied()) + epsilon).sqrt();
        row.iter_mut().for_each(|value| *value *= inverse);
        inverse
    };
    let mut inverses: Vec<f64> = values.chunks_mut(row.max(1)).map(normalize).collect();
    values = stage.round(values)?;
    change(&mut values, &scale, |value, scale| value * scale);
    let y = Tensor::from_f64(call.tensor(1)?.element(), x.shape().to_vec(), values)?;
    let mut outputs = vec![y.into()];
    if call.node.operator == "SimplifiedLayerNormalization" {
        let shape = row_shape(x, axis);
        inverses.resize(elements(&shape)?, f64::NAN);
        outputs.push(Tensor::from_f64(stage.element, shape, inverses)?.into());
    }
    Ok(outputs)
}

/// Divides each element by a power of the sum of squares of the same place in channels around it.
fn local_response_normalization(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = float(call, 0)?;
    let Channels { channels, inner } = Channels::of(0, x)?;
    let size = call.int("size")?.ok_or(Problem::MissingAttribute { name: "size" })?;
    let size = usize::try_from(size).ok().filter(|size| *size > 0).ok_or_else(|| {
        Problem::AttributeValue { name: "size", value: size.to_string(), accepted: "positive" }
    })?;
    let factor = f64::from(call.float_or("alpha", 0.0001)?) / size as f64;
    let beta = f64::from(call.float_or("beta", 0.75)?);
    let bias = f64::from(call.float_or("bias", 1.0)?);
    let mut values = x.to_f64()?;
    let squares: Vec<f64> = values.iter().map(|value| value * value).collect();
    let mut tally = Tally::default();
    let planes: Vec<&[f64]> = squares.chunks(inner.max(1)).collect();
    for (plane, y) in values.chunks_mut(inner.max(1)).enumerate() {
        let channel = plane % channels;
        let first = plane - channel + channel.saturating_sub((size - 1) / 2);
        let last = plane - channel + channel.saturating_add(size / 2).min(channels - 1);
        let mut sums = vec![0.0; inner];
        tally.spend((last - first + 1).saturating_mul(inner))?;
        for plane in planes.get(first..=last).unwrap_or_default() {
            sums.iter_mut().zip(*plane).for_each(|(sum, square)| *sum += square);
        }
        for (value, sum) in y.iter_mut().zip(sums) {
            *value /= (bias + factor * sum).powf(beta);
        }
    }
    Ok(vec![Tensor::from_f64(x.element(), x.shape().to_vec(), values)?.into()])
}

/// Divides each vector along an axis by its sum of magnitudes or its length, unless that is 0.
fn lp_normalization(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = float(call, 0)?;
    let axis = shape::axis(call.int_or("axis", -1)?, x.rank())?;
    let p = call.int_or("p", 2)?;
    if p != 1 && p != 2 {
        let value = p.to_string();
        return Err(Problem::AttributeValue { name: "p", value, accepted: "1 or 2" });
    }
    let inner = elements(x.shape().get(axis + 1..).unwrap_or_default())?;
    let block = elements(x.shape().get(axis..).unwrap_or_default())?;
    let mut values = x.to_f64()?;
    for block in values.chunks_mut(block.max(1)) {
        let mut norms = vec![0.0; inner];
        for row in block.chunks(inner.max(1)) {
            for (norm, value) in norms.iter_mut().zip(row) {
                *norm += if p == 1 { value.abs() } else { value * value };
            }
        }
        if p == 2 {
            norms.iter_mut().for_each(|norm| *norm = norm.sqrt());
        }
        change(block, &norms, |value, norm| if norm == 0.0 { 0.0 } else { value / norm });
    }
    Ok(vec![Tensor::from_f64(x.element(), x.shape().to_vec(), values)?.into()])
}

/// Subtracts the mean over some axes and divides by the standard deviation.
fn mean_variance_normalization(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    /// What the specification adds to the standard deviation.
    const EPSILON: f64 = 1e-9;
    let x = float(call, 0)?;
    let axes = match call.ints("axes")? {
        Some([]) => (0..x.rank()).collect(),
        Some(axes) => shape::axes(axes, x.rank())?,
        None => shape::axes(&[0, 2, 3], x.rank())?,
    };
    if x.is_empty() {
        return Ok(vec![x.clone().into()]);
    }
    let mut reduced = x.shape().to_vec();
    let sizes = reduced.iter_mut().enumerate().filter(|(axis, _)| axes.contains(axis));
    let sizes = sizes.map(|(_, size)| std::mem::replace(size, 1));
    let count = sizes.fold(1usize, usize::saturating_mul);
    let groups = broadcast_offsets(&reduced, x.shape());
    let means_of = |values: &[f64]| -> Result<Vec<f64>, Problem> {
        let mut means = vec![0.0; elements(&reduced)?];
        for (group, value) in groups.clone().zip(values) {
            if let Some(mean) = means.get_mut(group) {
                *mean += value;
            }
        }
        means.iter_mut().for_each(|mean| *mean /= count as f64);
        Ok(means)
    };
    let mut values = x.to_f64()?;
    let means = means_of(&values)?;
    let at = |means: &[f64], group: usize| means.get(group).copied().unwrap_or(f64::NAN);
    for (value, group) in values.iter_mut().zip(groups.clone()) {
        *value -= at(&means, group);
    }
    let squares: Vec<f64> = values.iter().map(|value| value * value).collect();
    let variances = means_of(&squares)?;
    for (value, group) in values.iter_mut().zip(groups.clone()) {
        *value /= at(&variances, group).sqrt() + EPSILON;
    }
    Ok(vec![Tensor::from_f64(x.element(), x.shape().to_vec(), values)?.into()])
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use half::bf16;

    use super::*;
    use crate::model::{Attribute, Graph, Model, Node, ValueInfo};
    use crate::{Error, NoObserver};

    /// Evaluates a model of one node.
    fn run(
        operator: &str,
        version: i64,
        attributes: &[(&str, Attribute)],
        inputs: &[Tensor],
    ) -> Result<Vec<f64>, Error> {
        let names = (0..inputs.len()).map(|index| index.to_string());
        let values = names.clone().zip(inputs.iter().map(|input| Value::from(input.clone())));
        let attributes = attributes.iter().map(|(name, value)| (name.to_string(), value.clone()));
        let node = Node {
            operator: operator.into(),
            inputs: names.collect(),
            outputs: vec![String::from("y")],
            attributes: attributes.collect(),
            ..Node::default()
        };
        let outputs = vec![ValueInfo { name: "y".into(), value_type: None }];
        let graph = Graph { nodes: vec![node], outputs, ..Graph::default() };
        let opsets = HashMap::from([(String::new(), version)]);
        let model = Model { opsets, graph, ..Model::default() };
        let outputs = model.run(values.collect(), &mut NoObserver)?;
        Ok(outputs[0].tensor().unwrap().to_f64().unwrap())
    }

    fn tensor(shape: &[usize], values: &[f32]) -> Tensor {
        Tensor::new(shape.to_vec(), values.to_vec()).unwrap()
    }

    #[test]
    fn an_even_window_of_lrn_reaches_further_forward() {
        let attributes = [
            ("size", Attribute::Int(2)),
            ("alpha", Attribute::Float(2.0)),
            ("beta", Attribute::Float(1.0)),
            ("bias", Attribute::Float(0.0)),
        ];
        let y = run("LRN", 13, &attributes, &[tensor(&[1, 3, 1], &[1.0, 2.0, 3.0])]).unwrap();
        let expected = [1.0 / 5.0, 2.0 / 13.0, 3.0 / 9.0];
        assert_eq!(y, expected.map(|value: f64| f64::from(value as f32)));
    }

    #[test]
    fn constant_vectors_become_zero() {
        let constant = tensor(&[1, 1, 1, 2], &[3.0, 3.0]);
        assert_eq!(run("MeanVarianceNormalization", 13, &[], &[constant]), Ok(vec![0.0, 0.0]));
        let zero = tensor(&[2, 1], &[0.0, 3.0]);
        assert_eq!(run("LpNormalization", 22, &[], &[zero]), Ok(vec![0.0, 1.0]));
    }

    #[test]
    fn the_stash_type_rounds_what_is_normalized() {
        let x = tensor(&[1, 2], &[1.0 + 2f32.powi(-9), 1.0]);
        let one = tensor(&[], &[1.0]);
        let stash = [("stash_type", Attribute::Int(16))];
        // Both elements are 1 as bfloat16.
        assert_eq!(run("LayerNormalization", 17, &stash, &[x, one]), Ok(vec![0.0, 0.0]));
        let x = Tensor::new(vec![1, 2], vec![bf16::ONE, bf16::ZERO]).unwrap();
        let scale = tensor(&[2], &[1.0 + 2f32.powi(-20), 1.0]);
        let y = run("RMSNormalization", 23, &[], &[x, scale]).unwrap();
        assert_eq!(y[1], 0.0);
        assert!((y[0] - 2f64.sqrt()).abs() < 1e-4);
    }

    #[test]
    fn groups_are_scaled_before_version_21_and_channels_after() {
        let groups = [("num_groups", Attribute::Int(1))];
        let x = tensor(&[1, 2, 1], &[1.0, -1.0]);
        let (one, two) = (tensor(&[1], &[2.0]), tensor(&[2], &[2.0, 3.0]));
        let y = |version: i64, parameter: &Tensor| {
            let inputs = [x.clone(), parameter.clone(), parameter.clone()];
            let y = run("GroupNormalization", version, &groups, &inputs)?;
            Ok::<_, Error>(y.into_iter().map(f64::round).collect::<Vec<f64>>())
        };
        assert_eq!(y(20, &one), Ok(vec![4.0, 0.0]));
        assert_eq!(y(21, &two), Ok(vec![4.0, 0.0]));
        assert!(y(20, &two).is_err() && y(21, &one).is_err());
    }
}
