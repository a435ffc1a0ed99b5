//! Normalizations with a residual, and of embeddings.

use crate::call::Call;
use crate::error::Problem;
use crate::shape;
use crate::tensor::Tensor;
use crate::value::Value;

use super::{forward, quantized, wrong_shape};

/// The numbers to normalize, with the statistics of each row.
struct Rows {
    values: Vec<f64>,
    means: Vec<f32>,
    /// The reciprocals of the deviations.
    scales: Vec<f32>,
}

/// Normalizes each row: by its mean and deviation if `centered`, by its quadratic mean otherwise.
fn normalize(mut values: Vec<f64>, size: usize, epsilon: f32, centered: bool) -> Rows {
    let (mut means, mut scales) = (Vec::new(), Vec::new());
    for row in values.chunks_exact_mut(size.max(1)) {
        let n = row.len() as f64;
        let mean = if centered { row.iter().sum::<f64>() / n } else { 0.0 };
        row.iter_mut().for_each(|x| *x -= mean);
        let square = row.iter().map(|x| *x * *x).sum::<f64>() / n;
        let scale = 1.0 / (square + f64::from(epsilon)).sqrt();
        row.iter_mut().for_each(|x| *x *= scale);
        means.push(mean as f32);
        scales.push(scale as f32);
    }
    Rows { values, means, scales }
}

/// Multiplies each row by `gamma`, and adds `beta`.
fn scale_rows(values: &mut [f64], gamma: &[f64], beta: Option<&[f64]>) {
    for row in values.chunks_exact_mut(gamma.len().max(1)) {
        row.iter_mut().zip(gamma).for_each(|(x, gamma)| *x *= gamma);
        row.iter_mut().zip(beta.unwrap_or(&[])).for_each(|(x, beta)| *x += beta);
    }
}

/// Returns a vector of a given size.
fn vector(call: &Call<'_>, index: usize, size: usize) -> Result<Vec<f64>, Problem> {
    let tensor = call.tensor(index)?;
    match tensor.len() == size {
        true => tensor.to_f64(),
        false => Err(wrong_shape(index, tensor, format!("have {size} elements"))),
    }
}

fn optional_vector(
    call: &Call<'_>,
    index: usize,
    size: usize,
) -> Result<Option<Vec<f64>>, Problem> {
    call.optional(index).map(|_| vector(call, index, size)).transpose()
}

/// Adds `skip` to an input, and a bias.
fn residual(call: &Call<'_>, bias: usize, size: usize) -> Result<Vec<f64>, Problem> {
    let (x, skip) = (call.tensor(0)?, call.tensor(1)?);
    let mut sum = x.to_f64()?;
    let addends = skip.to_f64()?;
    if sum.is_empty() {
        return Ok(sum);
    }
    let own: Vec<usize> = skip.shape().iter().copied().skip_while(|size| *size == 1).collect();
    if !x.shape().ends_with(&own) {
        return Err(wrong_shape(1, skip, "repeat to the shape of the input"));
    }
    sum.iter_mut().zip(addends.iter().cycle()).for_each(|(x, skip)| *x += skip);
    if let Some(bias) = optional_vector(call, bias, size)? {
        sum.iter_mut().zip(bias.iter().cycle()).for_each(|(x, bias)| *x += bias);
    }
    // ONNX Runtime adds in single precision.
    Ok(sum.into_iter().map(|x| f64::from(x as f32)).collect())
}

fn skip_normalization(
    call: &Call<'_>,
    beta: Option<usize>,
    bias: usize,
    epsilon: f32,
    centered: bool,
) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let Some((&size, outer)) = x.shape().split_last() else {
        return Err(wrong_shape(0, x, "have an axis"));
    };
    let gamma = vector(call, 2, size)?;
    let beta = beta.map_or(Ok(None), |index| optional_vector(call, index, size))?;
    let sum = residual(call, bias, size)?;
    let sizes = || x.shape().to_vec();
    let total = Tensor::from_f64(x.element(), sizes(), sum.clone())?;
    let Rows { mut values, means, scales } =
        normalize(sum, size, call.float_or("epsilon", epsilon)?, centered);
    scale_rows(&mut values, &gamma, beta.as_deref());
    let y = Tensor::from_f64(x.element(), sizes(), values)?;
    let statistics = |mut values: Vec<f32>| {
        let mut sizes = outer.to_vec();
        sizes.push(1);
        values.resize(shape::elements(&sizes)?, 0.0);
        Tensor::new(sizes, values)
    };
    Ok(vec![y.into(), statistics(means)?.into(), statistics(scales)?.into(), total.into()])
}

/// Adds a residual, and normalizes by mean and deviation.
pub(super) fn skip_layer_normalization(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    skip_normalization(call, Some(3), 4, 1e-12, true)
}

/// Adds a residual, and normalizes by the quadratic mean.
pub(super) fn skip_simplified_layer_normalization(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    skip_normalization(call, None, 3, 1e-12, false)
}

/// Normalizes by the quadratic mean.
pub(super) fn simplified_layer_normalization(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let attributes = forward(call, &["axis", "epsilon", "stash_type"]);
    call.apply("SimplifiedLayerNormalization", 1, call.inputs.clone(), &attributes)
}

/// Embeddings as numbers: a table with rows of equal size.
struct Table {
    values: Vec<f64>,
    size: usize,
}

impl Table {
    fn new(index: usize, tensor: &Tensor) -> Result<Self, Problem> {
        match *tensor.shape() {
            [_, size] => Ok(Self { values: tensor.to_f64()?, size }),
            _ => Err(wrong_shape(index, tensor, "have two axes")),
        }
    }

    /// Adds a row to a sum.
    fn add(&self, row: i64, sum: &mut [f64]) -> Result<(), Problem> {
        let rows = self.values.len().checked_div(self.size).unwrap_or(0);
        let outside = Problem::Index { index: row, size: rows };
        let row = usize::try_from(row).ok().filter(|row| *row < rows).ok_or(outside)?;
        let values = self.values.iter().skip(row * self.size);
        sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        Ok(())
    }
}

/// The parameters of an embedding.
struct Embedding {
    word: Tensor,
    position: Tensor,
    segment: Option<Tensor>,
    gamma: Tensor,
    beta: Tensor,
}

/// Adds embeddings of words, positions, and segments, and normalizes the sums.
fn embed(
    call: &Call<'_>,
    parameters: &Embedding,
    positions: Option<Vec<i64>>,
) -> Result<Vec<Value>, Problem> {
    let ids = call.tensor(0)?;
    let [batch, length] = *ids.shape() else {
        return Err(wrong_shape(0, ids, "have two axes"));
    };
    let word = Table::new(2, &parameters.word)?;
    let position = Table::new(3, &parameters.position)?;
    let segment = parameters.segment.as_ref().map(|table| Table::new(4, table)).transpose()?;
    let size = word.size;
    if position.size != size || segment.as_ref().is_some_and(|table| table.size != size) {
        return Err(Problem::Invalid("the embeddings differ in size".into()));
    }
    if parameters.gamma.len() != size || parameters.beta.len() != size {
        return Err(Problem::Invalid(format!("gamma and beta must have {size} elements")));
    }
    let segments = call.optional_ints(1)?;
    let sizes = vec![batch, length, size];
    shape::elements(&[batch, length.max(1), size.max(1)])?;
    let mut sums = vec![0.0; shape::elements(&sizes)?];
    for (index, (sum, id)) in sums.chunks_exact_mut(size.max(1)).zip(ids.to_i64()?).enumerate() {
        word.add(id, sum)?;
        let place = match &positions {
            Some(positions) => {
                let index = index.checked_rem(positions.len()).unwrap_or(0);
                positions.get(index).copied().unwrap_or(-1)
            }
            None => index.checked_rem(length).unwrap_or(0) as i64,
        };
        position.add(place, sum)?;
        if let (Some(table), Some(segments)) = (&segment, &segments) {
            table.add(segments.get(index).copied().unwrap_or(-1), sum)?;
        }
        sum.iter_mut().for_each(|x| *x = f64::from(*x as f32));
    }
    let element = parameters.word.element();
    let total = Tensor::from_f64(element, sizes.clone(), sums.clone())?;
    let mut rows = normalize(sums, size, call.float_or("epsilon", 1e-12)?, true).values;
    let beta = parameters.beta.to_f64()?;
    scale_rows(&mut rows, &parameters.gamma.to_f64()?, Some(&beta));
    let counts = match call.optional_ints(7)? {
        Some(mask) => {
            let rows = mask.chunks_exact(length.max(1));
            rows.map(|row| row.iter().filter(|x| **x == 1).count() as i32).take(batch).collect()
        }
        None => Vec::new(),
    };
    let mut counts: Vec<i32> = counts;
    counts.resize(batch, 0);
    let y = Tensor::from_f64(element, sizes, rows)?;
    Ok(vec![y.into(), Tensor::vector(counts).into(), total.into()])
}

/// Embeds words with positions and segments, and normalizes.
pub(super) fn embed_layer_normalization(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let parameters = Embedding {
        word: call.tensor(2)?.clone(),
        position: call.tensor(3)?.clone(),
        segment: call.optional_tensor(4)?.cloned(),
        gamma: call.tensor(5)?.clone(),
        beta: call.tensor(6)?.clone(),
    };
    embed(call, &parameters, call.optional_ints(8)?)
}

/// Embeds words with positions and segments, and normalizes; the tables are quantized.
pub(super) fn quantized_embed_layer_normalization(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let table = |table: usize, scale: usize, zero: usize| {
        let tensor = call.tensor(table)?;
        let values = quantized::Scale::read(call, scale, zero)?.dequantize(tensor)?;
        Tensor::new(tensor.shape().to_vec(), values)
    };
    let parameters = Embedding {
        word: table(2, 8, 13)?,
        position: table(3, 9, 14)?,
        segment: call.optional(4).map(|_| table(4, 10, 15)).transpose()?,
        gamma: table(5, 11, 16)?,
        beta: table(6, 12, 17)?,
    };
    embed(call, &parameters, None)
}

/// Normalizes groups of channels, and applies an activation.
fn normalize_groups(call: &Call<'_>, x: &Tensor, values: Vec<f64>) -> Result<Tensor, Problem> {
    let last = call.flag("channels_last", true)?;
    let [batch, a, b, c] = *x.shape() else {
        return Err(wrong_shape(0, x, "have four axes"));
    };
    if x.is_empty() {
        return x.reshaped(x.shape().to_vec());
    }
    let (channels, area) = if last { (c, a.saturating_mul(b)) } else { (a, b.saturating_mul(c)) };
    let missing = Problem::MissingAttribute { name: "groups" };
    let groups = shape::size(call.int("groups")?.ok_or(missing)?)?;
    if groups == 0 || channels % groups != 0 {
        return Err(Problem::Invalid(format!("{channels} channels do not form {groups} groups")));
    }
    let (gamma, beta) = (vector(call, 1, channels)?, vector(call, 2, channels)?);
    let epsilon = f64::from(call.float_or("epsilon", 1e-5)?);
    let silu = call.flag("activation", false)?;
    // The place of an element: its channel, and its offset.
    let place = move |n: usize, channel: usize, pixel: usize| match last {
        true => (n * area + pixel) * channels + channel,
        false => (n * channels + channel) * area + pixel,
    };
    let mut result = values.clone();
    let width = channels / groups;
    for (n, group) in (0..batch).flat_map(|n| (0..groups).map(move |group| (n, group))) {
        let members = || {
            let channels = group * width..(group + 1) * width;
            channels.flat_map(|channel| (0..area).map(move |pixel| (channel, pixel)))
        };
        let count = (width * area) as f64;
        let at = |(channel, pixel)| values.get(place(n, channel, pixel)).copied().unwrap_or(0.0);
        let mean = members().map(at).sum::<f64>() / count;
        let variance = members().map(|m| (at(m) - mean) * (at(m) - mean)).sum::<f64>() / count;
        let scale = 1.0 / (variance + epsilon).sqrt();
        for (channel, pixel) in members() {
            let y = (at((channel, pixel)) - mean) * scale * gamma[channel] + beta[channel];
            if let Some(result) = result.get_mut(place(n, channel, pixel)) {
                *result = if silu { y / (1.0 + (-y).exp()) } else { y };
            }
        }
    }
    Tensor::from_f64(x.element(), x.shape().to_vec(), result)
}

/// Normalizes groups of channels.
pub(super) fn group_norm(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    Ok(vec![normalize_groups(call, x, x.to_f64()?)?.into()])
}

/// Adds a residual and a bias, and normalizes groups of channels.
pub(super) fn skip_group_norm(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let skip = call.tensor(3)?;
    let [batch, _, _, channels] = *x.shape() else {
        return Err(wrong_shape(0, x, "have four axes"));
    };
    if !call.flag("channels_last", true)? {
        return Err(Problem::Unsupported { reason: "a residual needs the channels last" });
    }
    let wide = match *skip.shape() {
        [n, c] if (n, c) == (batch, channels) => skip.reshaped(vec![n, 1, 1, c])?,
        _ => skip.clone(),
    };
    if shape::broadcast(&[x.shape(), wide.shape()])? != x.shape() {
        return Err(wrong_shape(3, skip, "repeat to the shape of the input"));
    }
    let addends = wide.to_f64()?;
    let offsets = shape::broadcast_offsets(wide.shape(), x.shape());
    let bias = optional_vector(call, 4, channels)?;
    let mut sum = x.to_f64()?;
    for ((index, x), offset) in sum.iter_mut().enumerate().zip(offsets) {
        *x += addends.get(offset).copied().unwrap_or(0.0);
        *x += bias.as_ref().and_then(|bias| bias.get(index % channels)).copied().unwrap_or(0.0);
    }
    let total = Tensor::from_f64(x.element(), x.shape().to_vec(), sum)?;
    let y = normalize_groups(call, x, total.to_f64()?)?;
    Ok(vec![y.into(), total.into()])
}
