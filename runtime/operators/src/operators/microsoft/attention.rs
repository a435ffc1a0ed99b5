//! Attention with merged or separate projections.

use crate::call::Call;
use crate::element_type::ElementType;
use crate::error::Problem;
use crate::meter;
use crate::shape;
use crate::tensor::Tensor;
use crate::value::Value;

use super::heads::{Heads, scores, weighted};
use super::quantized::Scale;
use super::{floats, from_floats, operand, standard, wrong_shape};

/// Returns the factor of the scores: an attribute, or the reciprocal root of the size of a head.
pub(super) fn scale(call: &Call<'_>, size: usize) -> Result<f64, Problem> {
    Ok(match call.float("scale")? {
        Some(scale) if scale != 0.0 => scale.into(),
        _ => 1.0 / (size as f64).sqrt(),
    })
}

/// Returns a number of heads.
pub(super) fn head_count(call: &Call<'_>, name: &'static str) -> Result<usize, Problem> {
    let value = call.int(name)?.ok_or(Problem::MissingAttribute { name })?;
    let heads = usize::try_from(value).ok().filter(|heads| *heads > 0);
    heads.ok_or(Problem::AttributeValue { name, value: value.to_string(), accepted: "positive" })
}

/// A bias of the scores that repeats along batch and heads.
pub(super) struct Bias {
    shape: [usize; 4],
    values: Vec<f32>,
}

impl Bias {
    /// Reads a bias of shape `[batch or 1, heads or 1, length, total]`.
    pub(super) fn read(
        call: &Call<'_>,
        index: usize,
        [batch, heads, length, total]: [usize; 4],
    ) -> Result<Option<Self>, Problem> {
        let Some(tensor) = call.optional_tensor(index)? else { return Ok(None) };
        let fits = |found: usize, size: usize| found == size || found == 1;
        match *tensor.shape() {
            [b, h, s, t] if fits(b, batch) && fits(h, heads) && s == length && t == total => {
                Ok(Some(Self { shape: [b, h, s, t], values: floats(tensor)? }))
            }
            _ => {
                let expected = format!("be [{batch} or 1, {heads} or 1, {length}, {total}]");
                Err(wrong_shape(index, tensor, expected))
            }
        }
    }

    /// Adds the bias of a row to scores.
    pub(super) fn add(&self, b: usize, h: usize, s: usize, scores: &mut [f64]) {
        let [batch, heads, length, total] = self.shape;
        let b = if batch == 1 { 0 } else { b };
        let h = if heads == 1 { 0 } else { h };
        let bias = self.values.iter().skip(((b * heads + h) * length + s) * total);
        scores.iter_mut().zip(bias).for_each(|(score, bias)| *score += f64::from(*bias));
    }
}

/// Which keys a query may attend to.
enum Mask {
    None,
    /// The first and the last key of each sequence, exclusive.
    Range(Vec<(i64, i64)>),
    /// One value per sequence and key; 0 is masked.
    Keys(Vec<i64>),
    /// One value per sequence, query, and key.
    Pairs(Vec<i64>),
    /// One value per sequence and pair of places, of a square of the given size.
    Square(usize, Vec<i64>),
}

impl Mask {
    fn read(
        call: &Call<'_>,
        index: usize,
        batch: usize,
        length: usize,
        total: usize,
    ) -> Result<Self, Problem> {
        let Some(tensor) = call.optional_tensor(index)? else { return Ok(Self::None) };
        let values = tensor.to_i64()?;
        let end = |b: usize| values.get(b).copied().unwrap_or(i64::MAX);
        Ok(match *tensor.shape() {
            [n] if n == batch || n == batch.saturating_mul(3).saturating_add(2) => {
                Self::Range((0..batch).map(|b| (0, end(b))).collect())
            }
            [n] if n == batch.saturating_mul(2) => {
                let start = |b: usize| values.get(batch + b).copied().unwrap_or(0);
                Self::Range((0..batch).map(|b| (start(b), end(b))).collect())
            }
            [b, t] if (b, t) == (batch, total) => Self::Keys(values),
            [b, s, t] if (b, s, t) == (batch, length, total) => Self::Pairs(values),
            [b, 1, m, n] if b == batch && m == n && n >= total => Self::Square(n, values),
            _ => {
                let expected = format!(
                    "be [{batch}], [{}], [{batch}, {total}] or [{batch}, {length}, {total}]",
                    2 * batch
                );
                return Err(wrong_shape(index, tensor, expected));
            }
        })
    }

    /// Returns whether a query may attend to a key.
    fn allows(&self, b: usize, [s, length]: [usize; 2], [t, total]: [usize; 2]) -> bool {
        let value = |values: &[i64], place| values.get(place).is_none_or(|value| *value > 0);
        match self {
            Self::None => true,
            Self::Range(ranges) => {
                let key = t as i64;
                ranges.get(b).is_none_or(|(start, end)| key >= *start && key < *end)
            }
            Self::Keys(values) => value(values, b * total + t),
            Self::Pairs(values) => value(values, (b * length + s) * total + t),
            Self::Square(size, values) => {
                let row = (b * size + total + s).checked_sub(length);
                row.is_none_or(|row| value(values, row * size + t))
            }
        }
    }
}

/// Projections of one attention, and what limits their scores.
struct Attention {
    query: Heads,
    key: Heads,
    value: Heads,
    mask: Mask,
    /// What is added to the score of a masked key.
    masked: f64,
    causal: bool,
    /// The number of keys before those of the queries.
    past: usize,
    bias: Option<Bias>,
    scale: f64,
}

impl Attention {
    /// Returns the result, `[batch, length, heads * size]`, and the scores before the softmax.
    fn evaluate(&self) -> Result<(Vec<f32>, Vec<f32>), Problem> {
        let Heads { batch, heads, length, .. } = self.query;
        let (total, size) = (self.key.length, self.value.size);
        let width = heads.saturating_mul(size);
        let mut result = vec![0f32; shape::elements(&[batch, length, width])?];
        let mut all = Vec::with_capacity(shape::elements(&[batch, heads, length, total])?);
        let each = (total as u64).saturating_mul((self.query.size + size + 8) as u64);
        for (b, h) in (0..batch).flat_map(|b| (0..heads).map(move |h| (b, h))) {
            for s in 0..length {
                meter::spend(each)?;
                let mut row = scores(self.query.row(b, h, s), &self.key, b, h, self.scale);
                if let Some(bias) = &self.bias {
                    bias.add(b, h, s, &mut row);
                }
                for (t, score) in row.iter_mut().enumerate() {
                    if self.causal && s + 1 < length && t > self.past + s {
                        *score = f64::from(f32::MIN);
                    } else if !self.mask.allows(b, [s, length], [t, total]) {
                        *score += self.masked;
                    }
                }
                all.extend(row.iter().map(|score| *score as f32));
                super::fused::softmax(&mut row);
                let start = (b * length + s) * width + h * size;
                let sum = weighted(&self.value, b, h, &row);
                result.iter_mut().skip(start).zip(sum).for_each(|(result, sum)| *result = sum);
            }
        }
        Ok((result, all))
    }
}

fn refuse_shared_buffers(call: &Call<'_>) -> Result<(), Problem> {
    if call.flag("past_present_share_buffer", false)? {
        return Err(Problem::Unsupported { reason: "past and present share a buffer" });
    }
    if call.flag("do_rotary", false)? {
        return Err(Problem::Unsupported { reason: "it rotates without tables of angles" });
    }
    Ok(())
}

/// The inputs of an attention with merged projections, after the projection.
struct Merged {
    /// `[batch, length, width]`.
    projected: Tensor,
    sizes: [usize; 3],
    element: ElementType,
    mask: usize,
    past: usize,
    bias: Option<usize>,
}

/// Evaluates attention on merged projections.
fn merged(call: &Call<'_>, inputs: &Merged) -> Result<Vec<Value>, Problem> {
    refuse_shared_buffers(call)?;
    let heads = head_count(call, "num_heads")?;
    let x = &inputs.projected;
    let [batch, length, width] = *x.shape() else {
        return Err(wrong_shape(0, x, "have three axes"));
    };
    let values = floats(x)?;
    let [q, k, v] = inputs.sizes;
    let fits = q == k && [q, k, v].iter().all(|size| size % heads == 0);
    if !fits || q.saturating_add(k).saturating_add(v) != width {
        return Err(Problem::Invalid(format!(
            "projections of sizes {q}, {k} and {v} do not form {heads} heads from {width} columns"
        )));
    }
    let part = |from: usize, size: usize| {
        let size = size / heads;
        let start = |b: usize, s: usize, h: usize| (b * length + s) * width + from + h * size;
        Heads::gather([batch, heads, length, size], &values, start)
    };
    let query = part(0, q)?;
    let (mut key, mut value) = (part(q, k)?, part(q + k, v)?);
    if let Some(past) = call.optional_tensor(inputs.past)? {
        let [2, b, n, p, size] = *past.shape() else {
            return Err(wrong_shape(inputs.past, past, "be [2, batch, heads, length, size]"));
        };
        let values = floats(past)?;
        let half = |which: usize| {
            let start =
                move |b_: usize, s: usize, h: usize| (((which * b + b_) * n + h) * p + s) * size;
            Heads::gather([b, n, p, size], &values, start)
        };
        key = key.after(&half(0)?)?;
        value = value.after(&half(1)?)?;
    }
    let total = key.length;
    let attention = Attention {
        past: total - length.min(total),
        scale: scale(call, query.size)?,
        mask: Mask::read(call, inputs.mask, batch, length, total)?,
        masked: call.float_or("mask_filter_value", -10000.0)?.into(),
        causal: call.flag("unidirectional", false)?,
        bias: match inputs.bias {
            Some(index) => Bias::read(call, index, [batch, heads, length, total])?,
            None => None,
        },
        query,
        key,
        value,
    };
    let (result, _) = attention.evaluate()?;
    let y = from_floats(inputs.element, vec![batch, length, v], result)?;
    let mut outputs = vec![y.into()];
    if q == v {
        let mut sizes = vec![2];
        sizes.extend(attention.key.shape());
        let present = [attention.key.values, attention.value.values].concat();
        outputs.push(from_floats(inputs.element, sizes, present)?.into());
    }
    Ok(outputs)
}

/// Projects an input to queries, keys, and values, and attends.
pub(super) fn attention(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let weights = call.tensor(1)?;
    let wide = |tensor: &Tensor| Ok(Tensor::new(tensor.shape().to_vec(), floats(tensor)?)?.into());
    let inputs = vec![Some(wide(x)?), Some(wide(weights)?)];
    let mut projected = standard(call, "MatMul", 13, inputs, &[])?;
    if let Some(bias) = call.optional_tensor(2)? {
        projected = standard(call, "Add", 14, vec![Some(projected), Some(wide(bias)?)], &[])?;
    }
    let width = weights.shape().last().copied().unwrap_or(0);
    let sizes = match call.ints("qkv_hidden_sizes")? {
        None | Some([]) => [width / 3; 3],
        Some([q, k, v]) => [shape::size(*q)?, shape::size(*k)?, shape::size(*v)?],
        Some(other) => {
            return Err(Problem::AttributeValue {
                name: "qkv_hidden_sizes",
                value: format!("{other:?}"),
                accepted: "three sizes",
            });
        }
    };
    let projected = projected.tensor()?.clone();
    merged(
        call,
        &Merged { projected, sizes, element: x.element(), mask: 3, past: 4, bias: Some(5) },
    )
}

/// Projects a quantized input by quantized weights to queries, keys, and values, and attends.
pub(super) fn quantized_attention(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let operands = vec![operand(call, 0), operand(call, 1), operand(call, 6), operand(call, 7)];
    let product = standard(call, "MatMulInteger", 10, operands, &[])?;
    let product = product.tensor()?;
    let width = product.shape().last().copied().unwrap_or(0);
    let factor = Scale::read(call, 3, usize::MAX)?.scale;
    let scales = floats(call.tensor(4)?)?;
    let bias = floats(call.tensor(2)?)?;
    if (scales.len() != 1 && scales.len() != width) || bias.len() != width {
        return Err(Problem::Invalid(format!(
            "there are {} scales and {} biases for {width} columns",
            scales.len(),
            bias.len()
        )));
    }
    let columns = scales.iter().cycle().zip(bias.iter().cycle());
    let sums = product.to_i64()?.into_iter().zip(columns);
    let values = sums.map(|(sum, (scale, bias))| sum as f32 * (factor * scale) + bias).collect();
    let projected = Tensor::new(product.shape().to_vec(), values)?;
    let element = call.tensor(2)?.element();
    let sizes = [width / 3; 3];
    merged(call, &Merged { projected, sizes, element, mask: 5, past: 8, bias: None })
}

/// Returns the heads of an input of rows, or of packed heads:
/// `[batch, length, heads, parts, size]`.
fn split(
    call: &Call<'_>,
    index: usize,
    heads: usize,
    part: usize,
    parts: usize,
) -> Result<Heads, Problem> {
    let tensor = call.tensor(index)?;
    let values = floats(tensor)?;
    match *tensor.shape() {
        [batch, length, width] if parts == 1 && width % heads == 0 => {
            let size = width / heads;
            let start = |b: usize, s: usize, h: usize| (b * length + s) * width + h * size;
            Heads::gather([batch, heads, length, size], &values, start)
        }
        [batch, length, n, p, size] if (n, p) == (heads, parts) => {
            let start = |b: usize, s: usize, h: usize| {
                (((b * length + s) * heads + h) * parts + part) * size
            };
            Heads::gather([batch, heads, length, size], &values, start)
        }
        [_, n, _, _] if n == heads && parts == 1 => Heads::read(call, index),
        _ => Err(wrong_shape(index, tensor, format!("hold {heads} heads"))),
    }
}

/// Attends with separate or packed queries, keys, and values.
pub(super) fn multi_head_attention(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    if call.optional(8).is_some() || call.optional(9).is_some() {
        return Err(Problem::Unsupported { reason: "past and present share a buffer" });
    }
    let heads = head_count(call, "num_heads")?;
    let element = call.tensor(0)?.element();
    let [mut query, mut key, mut value] = if call.tensor(0)?.rank() == 5 {
        [split(call, 0, heads, 0, 3)?, split(call, 0, heads, 1, 3)?, split(call, 0, heads, 2, 3)?]
    } else if call.optional_tensor(1)?.is_some_and(|key| key.rank() == 5) {
        [split(call, 0, heads, 0, 1)?, split(call, 1, heads, 0, 2)?, split(call, 1, heads, 1, 2)?]
    } else {
        [split(call, 0, heads, 0, 1)?, split(call, 1, heads, 0, 1)?, split(call, 2, heads, 0, 1)?]
    };
    if let Some(bias) = call.optional_tensor(3)? {
        let values = floats(bias)?;
        let (q, k) = (heads * query.size, heads * key.size);
        if values.len() != q + k + heads * value.size {
            return Err(wrong_shape(3, bias, "have one element per column of the projections"));
        }
        query.add(&values);
        key.add(values.get(q..).unwrap_or(&[]));
        value.add(values.get(q + k..).unwrap_or(&[]));
    }
    let new = key.length;
    if call.optional(6).is_some() {
        key = key.after(&Heads::read(call, 6)?)?;
        value = value.after(&Heads::read(call, 7)?)?;
    }
    let Heads { batch, length, size, .. } = query;
    let total = key.length;
    let agree = (key.batch, value.batch, value.length) == (batch, batch, total);
    if !agree || key.size != size {
        return Err(Problem::Invalid(format!(
            "queries {:?}, keys {:?} and values {:?} do not match",
            query.shape(),
            key.shape(),
            value.shape()
        )));
    }
    let attention = Attention {
        past: total - new.min(total),
        scale: scale(call, size)?,
        mask: Mask::read(call, 4, batch, length, total)?,
        masked: call.float_or("mask_filter_value", -10000.0)?.into(),
        causal: call.flag("unidirectional", false)?,
        bias: Bias::read(call, 5, [batch, heads, length, total])?,
        query,
        key,
        value,
    };
    let (result, scores) = attention.evaluate()?;
    let y = from_floats(element, vec![batch, length, heads * attention.value.size], result)?;
    let (key, value) = (attention.key.tensor(element)?, attention.value.tensor(element)?);
    let scores = from_floats(element, vec![batch, heads, length, total], scores)?;
    Ok(vec![y.into(), key.into(), value.into(), scores.into()])
}
