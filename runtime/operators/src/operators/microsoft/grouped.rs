//! Attention whose queries share keys and values in groups, with a cache.

use crate::call::Call;
use crate::error::Problem;
use crate::meter;
use crate::shape;
use crate::tensor::Tensor;
use crate::value::Value;

use super::attention::{Bias, head_count, scale};
use super::heads::{Heads, scores, weighted};
use super::rotary::{Angles, positions};
use super::{floats, from_floats, wrong_shape};

/// Returns queries, keys, and values from separate rows, or from rows with all of them.
fn split(call: &Call<'_>, heads: usize, shared: usize) -> Result<[Heads; 3], Problem> {
    let part = |index: usize, from: usize, count: usize, all: usize| {
        let tensor = call.tensor(index)?;
        let [batch, length, width] = *tensor.shape() else {
            return Err(wrong_shape(index, tensor, "have three axes"));
        };
        if width % all != 0 {
            return Err(wrong_shape(index, tensor, format!("hold {all} heads")));
        }
        let size = width / all;
        let start = |b: usize, s: usize, h: usize| (b * length + s) * width + (from + h) * size;
        Heads::gather([batch, count, length, size], &floats(tensor)?, start)
    };
    if call.optional(1).is_some() {
        return Ok([
            part(0, 0, heads, heads)?,
            part(1, 0, shared, shared)?,
            part(2, 0, shared, shared)?,
        ]);
    }
    let all = shared.saturating_mul(2).saturating_add(heads);
    Ok([
        part(0, 0, heads, all)?,
        part(0, heads, shared, all)?,
        part(0, heads + shared, shared, all)?,
    ])
}

/// Divides each head by its quadratic mean, and multiplies by weights.
fn normalize(heads: &mut Heads, weights: &Tensor, epsilon: f32) -> Result<(), Problem> {
    let weights = floats(weights)?;
    if weights.len() != heads.size {
        return Err(Problem::Invalid(format!(
            "there are {} weights for heads of {} elements",
            weights.len(),
            heads.size
        )));
    }
    for row in heads.values.chunks_exact_mut(heads.size.max(1)) {
        let square: f64 = row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        let scale = 1.0 / (square / row.len() as f64 + f64::from(epsilon)).sqrt();
        let products = row.iter_mut().zip(&weights);
        products.for_each(|(x, weight)| *x = (f64::from(*x) * scale * f64::from(*weight)) as f32);
    }
    Ok(())
}

/// What is not a plain cache of floats.
fn refuse_variants(call: &Call<'_>) -> Result<(), Problem> {
    let quantized = |name| Ok(call.text(name)?.unwrap_or("NONE") != "NONE");
    if quantized("k_quant_type")? || quantized("v_quant_type")? {
        return Err(Problem::Unsupported { reason: "its cache is quantized" });
    }
    if call.flag("sliding_window_cache", false)? || call.optional(16).is_some() {
        return Err(Problem::Unsupported { reason: "its cache slides, or its queries are padded" });
    }
    Ok(())
}

/// The lengths of a step with a cache.
struct Cache {
    /// The number of keys of each sequence before the step.
    past: Vec<usize>,
    /// Whether the step has all keys.
    first_prompt: bool,
    /// The length of the cache after the step.
    length: usize,
}

impl Cache {
    fn read(call: &Call<'_>, batch: usize, step: usize) -> Result<Self, Problem> {
        let total = shape::size(call.tensor(6)?.integer()?)?;
        let last = call.tensor(5)?;
        if last.len() != batch {
            return Err(wrong_shape(5, last, format!("have {batch} elements")));
        }
        let first_prompt = step == total;
        let past = last.to_i64()?.into_iter().map(|last| {
            let end = shape::size(last.saturating_add(1))?;
            Ok(if first_prompt { 0 } else { end.saturating_sub(step) })
        });
        let past = past.collect::<Result<Vec<_>, Problem>>()?;
        let stored = match call.optional_tensor(3)? {
            Some(cache) => cache.shape().get(2).copied().unwrap_or(0),
            None => 0,
        };
        Ok(Self { past, first_prompt, length: total.max(stored) })
    }

    /// Returns the cached heads followed by new ones, and zeros up to the length of the cache.
    fn extend(&self, new: &Heads, cached: Option<&Heads>) -> Result<Heads, Problem> {
        let Heads { batch, heads, length, size, .. } = *new;
        let sizes = [batch, heads, self.length, size];
        shape::elements(&sizes.map(|size| size.max(1)))?;
        let fits =
            |cached: &Heads| (cached.batch, cached.heads, cached.size) == (batch, heads, size);
        if let Some(cached) = cached.filter(|cached| !fits(cached)) {
            return Err(Problem::Invalid(format!(
                "the cache of shape {:?} does not fit to heads of shape {:?}",
                cached.shape(),
                new.shape()
            )));
        }
        let mut values = Vec::with_capacity(shape::elements(&sizes)?);
        for (b, h) in (0..batch).flat_map(|b| (0..heads).map(move |h| (b, h))) {
            let past = self.past.get(b).copied().unwrap_or(0);
            for place in 0..self.length {
                let row = match (place.checked_sub(past), cached) {
                    (None, Some(cached)) if place < cached.length => cached.row(b, h, place),
                    (Some(step), _) if step < length => new.row(b, h, step),
                    _ => &[],
                };
                values.extend_from_slice(row);
                values.resize(values.len() + size - row.len(), 0.0);
            }
        }
        Ok(Heads { batch, heads, length: self.length, size, values })
    }
}

/// How scores become weights.
struct Weighting {
    softcap: f64,
    /// The number of keys up to that of the query, itself included.
    window: Option<usize>,
    causal: bool,
    /// A score without a value, of each head.
    sinks: Option<Vec<f32>>,
    smooth: bool,
}

impl Weighting {
    fn read(call: &Call<'_>) -> Result<Self, Problem> {
        Ok(Self {
            softcap: call.float_or("softcap", 0.0)?.into(),
            window: usize::try_from(call.int_or("local_window_size", -1)?).ok(),
            causal: call.flag("causal", true)?,
            sinks: call.optional_tensor(11)?.map(floats).transpose()?,
            smooth: call.int_or("smooth_softmax", -1)? == 1,
        })
    }

    /// Returns the range of the keys of a query, whose own key is at `place`.
    fn keys(&self, place: usize, end: usize) -> std::ops::Range<usize> {
        let last = if self.causal { (place + 1).min(end) } else { end };
        let first = self.window.map_or(0, |window| (place + 1).saturating_sub(window));
        first.min(last)..last
    }

    /// Caps scores.
    fn cap(&self, scores: &mut [f64]) {
        if self.softcap > 0.0 {
            let cap = |score: &mut f64| *score = self.softcap * (*score / self.softcap).tanh();
            scores.iter_mut().for_each(cap);
        }
    }

    /// Replaces scores by weights.
    fn softmax(&self, head: usize, scores: &mut [f64]) {
        let sink = match &self.sinks {
            Some(sinks) => sinks.get(head).map(|sink| f64::from(*sink)),
            None => self.smooth.then_some(0.0),
        };
        let largest = scores.iter().copied().fold(sink.unwrap_or(f64::NEG_INFINITY), f64::max);
        let mut sum = sink.map_or(0.0, |sink| (sink - largest).exp());
        for score in scores.iter_mut() {
            *score = (*score - largest).exp();
            sum += *score;
        }
        scores.iter_mut().for_each(|score| *score /= sum);
    }
}

/// Returns queries, keys, and values, normalized and rotated, and the cache before the step.
fn prepare(call: &Call<'_>) -> Result<([Heads; 3], Cache), Problem> {
    let heads = head_count(call, "num_heads")?;
    let shared = head_count(call, "kv_num_heads")?;
    let [mut query, mut key, value] = split(call, heads, shared)?;
    let Heads { batch, length, .. } = query;
    let shape_of = |heads: &Heads| (heads.batch, heads.length, heads.size);
    if heads % shared != 0 || shape_of(&key) != shape_of(&query) || key.shape() != value.shape() {
        return Err(Problem::Invalid(format!(
            "queries {:?}, keys {:?} and values {:?} do not match",
            query.shape(),
            key.shape(),
            value.shape()
        )));
    }
    let epsilon = call.float_or("qk_norm_epsilon", 1e-6)?;
    let norms = [(&mut query, 14, "q_norm_epsilon"), (&mut key, 15, "k_norm_epsilon")];
    for (heads, index, name) in norms {
        if let Some(weights) = call.optional_tensor(index)? {
            normalize(heads, weights, call.float_or(name, epsilon)?)?;
        }
    }
    let cache = Cache::read(call, batch, length)?;
    if call.flag("do_rotary", false)? {
        let angles = Angles::read(call, 7, 8, call.flag("rotary_interleaved", false)?)?;
        let position: Box<dyn Fn(usize, usize) -> i64> = match call.optional_tensor(9)? {
            Some(ids) if cache.first_prompt => {
                // The positions of a first prompt are counted from one number.
                let first = ids.to_i64()?.first().copied().unwrap_or(0);
                Box::new(move |_, s| first.saturating_add(s as i64))
            }
            Some(ids) => Box::new(positions(ids, 9, batch, length)?),
            None => {
                let past = cache.past.clone();
                Box::new(move |b, s| (past.get(b).copied().unwrap_or(0) + s) as i64)
            }
        };
        angles.rotate_heads(&mut query, &position)?;
        angles.rotate_heads(&mut key, &position)?;
    }
    Ok(([query, key, value], cache))
}

/// Attends with queries that share keys and values in groups, and extends the cache of these.
pub(super) fn group_query_attention(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    refuse_variants(call)?;
    let ([query, key, value], cache) = prepare(call)?;
    let Heads { batch, heads, length, size, .. } = query;
    let group = heads / key.heads.max(1);
    let cached = |index: usize| call.optional(index).map(|_| Heads::read(call, index)).transpose();
    let key = cache.extend(&key, cached(3)?.as_ref())?;
    let value = cache.extend(&value, cached(4)?.as_ref())?;
    let total = shape::size(call.tensor(6)?.integer()?)?;
    let bias = Bias::read(call, 10, [batch, heads, length, total])?;
    let weighting = Weighting::read(call)?;
    let scale = scale(call, size)?;
    let before_softmax = call.int_or("qk_output", 0)? == 1;
    let mut result = vec![0f32; shape::elements(&[batch, length, heads, size])?];
    let mut all = vec![0f32; shape::elements(&[batch, heads, length, total])?];
    for (b, h) in (0..batch).flat_map(|b| (0..heads).map(move |h| (b, h))) {
        let past = cache.past.get(b).copied().unwrap_or(0);
        for s in 0..length {
            meter::spend((key.length as u64).saturating_mul(2 * size as u64 + 8))?;
            let mut row = scores(query.row(b, h, s), &key, b, h / group, scale);
            weighting.cap(&mut row);
            if let Some(bias) = &bias {
                bias.add(b, h, s, &mut row);
            }
            // Keys out of range have neither scores nor weights.
            let keys = weighting.keys(past + s, (past + length).min(row.len()));
            let mut weights = vec![0.0; row.len()];
            if let (Some(to), Some(from)) = (weights.get_mut(keys.clone()), row.get(keys.clone())) {
                to.copy_from_slice(from);
            }
            row.copy_from_slice(&weights);
            weighting.softmax(h, weights.get_mut(keys).unwrap_or(&mut []));
            let kept = if before_softmax { &row } else { &weights };
            let start = ((b * heads + h) * length + s) * total;
            let kept = kept.iter().take(total);
            all.iter_mut().skip(start).zip(kept).for_each(|(all, x)| *all = *x as f32);
            let start = ((b * length + s) * heads + h) * size;
            let sum = weighted(&value, b, h / group, &weights);
            result.iter_mut().skip(start).zip(sum).for_each(|(result, sum)| *result = sum);
        }
    }
    let element = call.tensor(0)?.element();
    let y = from_floats(element, vec![batch, length, heads.saturating_mul(size)], result)?;
    let all = from_floats(element, vec![batch, heads, length, total], all)?;
    let (key, value) = (key.tensor(element)?, value.tensor(element)?);
    Ok(vec![y.into(), key.into(), value.into(), all.into()])
}
