//! Linear attention: a recurrence over the sequence.

use super::{Sizes, float, join_heads, split_heads, wrong_shape};
use crate::call::Call;
use crate::error::Problem;
use crate::meter::Tally;
use crate::shape::elements;
use crate::tensor::Tensor;
use crate::value::Value;

/// Updates a matrix of each head by the keys and values of a sequence, and multiplies queries by
/// it.
pub(super) fn linear_attention(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let q = packed(call, 0, "q_num_heads")?;
    let (k, v) = (packed(call, 1, "kv_num_heads")?, packed(call, 2, "kv_num_heads")?);
    let sizes = Sizes::of(&q, &k, &v)?;
    let Sizes { batch, query_heads, heads, queries: steps, size, value_size, .. } = sizes;
    if sizes.keys != steps {
        return Err(wrong_shape(1, call.tensor(1)?, format!("have {steps} steps, as input 0")));
    }
    let shape = vec![batch, query_heads, steps, value_size];
    let state_shape = vec![batch, heads, size, value_size];
    elements(&[batch, heads, size, value_size].map(|size| size.max(1)))?;
    let (state_type, mut states) = match call.optional(3) {
        None => (q.element(), vec![0.0; elements(&state_shape)?]),
        Some(_) => {
            let state = float(call, 3)?;
            if state.shape() != state_shape {
                return Err(wrong_shape(3, state, format!("be {state_shape:?}")));
            }
            (state.element(), state.to_f64()?)
        }
    };
    let rule = Rule::of(call, &sizes)?;
    let scale = match call.float_or("scale", 0.0)? {
        0.0 => 1.0 / (size as f64).sqrt(),
        scale => f64::from(scale),
    };
    let (queries, keys, values) = (q.to_f64()?, k.to_f64()?, v.to_f64()?);
    let mut y = vec![0.0; elements(&shape)?];
    let group = query_heads.checked_div(heads).unwrap_or(0);
    let mut tally = Tally::default();
    for (head, state) in states.chunks_mut((size * value_size).max(1)).enumerate() {
        for step in 0..steps {
            tally.spend(state.len().saturating_add(value_size + size).saturating_mul(group + 3))?;
            let index = head * steps + step;
            let (key, value) = (row(&keys, index, size), row(&values, index, value_size));
            rule.update(state, (head / heads, step, head % heads), key, value);
            for member in 0..group {
                let index = (head * group + member) * steps + step;
                let sums = weighted_sum(state, value_size, row(&queries, index, size));
                let y = y.iter_mut().skip(index * value_size);
                y.zip(sums).for_each(|(y, sum)| *y = scale * sum);
            }
        }
    }
    let y = join_heads(&Tensor::from_f64(q.element(), shape, y)?)?;
    Ok(vec![y.into(), Tensor::from_f64(state_type, state_shape, states)?.into()])
}

/// How the matrix of a head is updated.
struct Rule {
    /// The exponents of the factors by which the matrix decays.
    decay: Option<Gate>,
    /// The rates at which the matrix learns what it does not yet return for a key.
    rate: Option<Gate>,
}

impl Rule {
    fn of(call: &Call<'_>, sizes: &Sizes) -> Result<Self, Problem> {
        let name = "update_rule";
        let rule = call.text(name)?.unwrap_or("gated_delta");
        let (decays, learns) = match rule {
            "linear" => (false, false),
            "gated" => (true, false),
            "delta" => (false, true),
            "gated_delta" => (true, true),
            _ => {
                let accepted = "linear, gated, delta or gated_delta";
                return Err(Problem::AttributeValue { name, value: rule.into(), accepted });
            }
        };
        let gate = |index: usize, used: bool, widths: [usize; 2]| {
            if call.optional(index).is_some() != used {
                let verb = if used { "needs" } else { "does not take" };
                return Err(Problem::Invalid(format!("update rule {rule:?} {verb} input {index}")));
            }
            if used { Gate::of(call, index, sizes, widths).map(Some) } else { Ok(None) }
        };
        let decay = gate(4, decays, [sizes.heads, sizes.heads * sizes.size])?;
        Ok(Self { decay, rate: gate(5, learns, [sizes.heads, 1])? })
    }

    /// Updates the matrix of a head by a key and a value. The place is a sample, a step and a head.
    fn update(&self, state: &mut [f64], place: (usize, usize, usize), key: &[f64], value: &[f64]) {
        let (width, mut value) = (value.len(), value.to_vec());
        if let Some(decay) = &self.decay {
            decay_rows(state, width, decay.row(place));
        }
        if let Some(rate) = &self.rate {
            let rate = rate.row(place).first().copied().unwrap_or(0.0);
            let stored = weighted_sum(state, width, key);
            value.iter_mut().zip(stored).for_each(|(v, stored)| *v = rate * (*v - stored));
        }
        for (row, key) in state.chunks_mut(width.max(1)).zip(key) {
            row.iter_mut().zip(&value).for_each(|(state, value)| *state += key * value);
        }
    }
}

/// Returns an operand of three axes with its heads split off.
fn packed(call: &Call<'_>, index: usize, name: &'static str) -> Result<Tensor, Problem> {
    match float(call, index)? {
        tensor if tensor.rank() == 3 => split_heads(call, index, name),
        tensor => Err(wrong_shape(index, tensor, "have three axes")),
    }
}

/// Returns a row of a matrix.
fn row(values: &[f64], index: usize, size: usize) -> &[f64] {
    values.get(index * size..(index + 1) * size).unwrap_or_default()
}

/// Returns the sum of the rows of a matrix, multiplied by weights.
fn weighted_sum(rows: &[f64], width: usize, weights: &[f64]) -> Vec<f64> {
    let mut sums = vec![0.0; width];
    for (row, weight) in rows.chunks(width.max(1)).zip(weights) {
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += weight * value);
    }
    sums
}

/// Multiplies the rows of a matrix by powers of e, of which there are one or as many as rows.
fn decay_rows(rows: &mut [f64], width: usize, exponents: &[f64]) {
    for (row, exponent) in rows.chunks_mut(width.max(1)).zip(exponents.iter().cycle()) {
        let factor = exponent.exp();
        row.iter_mut().for_each(|value| *value *= factor);
    }
}

/// Numbers for each sample, step and head.
struct Gate {
    values: Vec<f64>,
    steps: usize,
    heads: usize,
    /// The size of the last axis, and the part of it that belongs to a head.
    size: usize,
    part: usize,
}

impl Gate {
    /// Reads an operand whose last axis has one of two sizes.
    fn of(
        call: &Call<'_>,
        index: usize,
        sizes: &Sizes,
        accepted: [usize; 2],
    ) -> Result<Self, Problem> {
        let tensor = float(call, index)?;
        let Sizes { batch, queries: steps, heads, .. } = *sizes;
        match *tensor.shape() {
            [b, s, size] if [b, s] == [batch, steps] && accepted.contains(&size) => {
                let part = size / heads.max(1);
                Ok(Self { values: tensor.to_f64()?, steps, heads, size, part })
            }
            _ => {
                let [first, second] = accepted;
                let expected =
                    format!("be [{batch}, {steps}, {first}] or [{batch}, {steps}, {second}]");
                Err(wrong_shape(index, tensor, expected))
            }
        }
    }

    /// Returns the numbers for a sample, a step and a head.
    fn row(&self, (sample, step, head): (usize, usize, usize)) -> &[f64] {
        let start = (sample * self.steps + step) * self.size;
        // One number for all heads is taken by each.
        let (first, part) =
            if self.size < self.heads { (0, 1) } else { (head * self.part, self.part) };
        self.values.get(start + first..start + first + part).unwrap_or_default()
    }
}
