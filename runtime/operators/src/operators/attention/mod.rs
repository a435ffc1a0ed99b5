//! Attention, and the rotary embedding of positions that precedes it.

use crate::call::{Call, Operator};
use crate::element_type::ElementType;
use crate::error::Problem;
use crate::operators::matrix::{Products, Strides};
use crate::shape::{Offsets, broadcast, broadcast_offsets, elements, strides};
use crate::tensor::Tensor;
use crate::value::Value;

mod linear;
mod rotary;

/// Returns the implementation of an operator of this family.
pub(super) fn find(domain: &str, name: &str) -> Option<Operator> {
    Some(match (domain, name) {
        ("", "Attention") => attention,
        ("", "LinearAttention") => linear::linear_attention,
        ("", "RotaryEmbedding") => rotary::rotary_embedding,
        _ => return None,
    })
}

fn wrong_shape(index: usize, tensor: &Tensor, expected: impl Into<String>) -> Problem {
    Problem::InputShape { index, shape: tensor.shape().to_vec(), expected: expected.into() }
}

/// Returns a float operand.
fn float<'a>(call: &'a Call<'_>, index: usize) -> Result<&'a Tensor, Problem> {
    let tensor = call.tensor(index)?;
    let (found, accepted) = (tensor.element(), "a float of at least 16 bits");
    match found.is_float() && !found.is_narrow_float() {
        true => Ok(tensor),
        false => Err(Problem::InputType { index, found, accepted }),
    }
}

/// Returns a positive number of heads.
fn heads(call: &Call<'_>, name: &'static str) -> Result<usize, Problem> {
    let count = call.int(name)?.ok_or(Problem::MissingAttribute { name })?;
    let positive = usize::try_from(count).ok().filter(|count| *count > 0);
    positive.ok_or_else(|| Problem::AttributeValue {
        name,
        value: count.to_string(),
        accepted: "positive",
    })
}

/// Returns a tensor with axes 1 and 2 exchanged.
fn exchanged(tensor: &Tensor) -> Result<Tensor, Problem> {
    let [batch, first, second, size] = *tensor.shape() else {
        return Err(Problem::Invalid("a tensor to be exchanged does not have four axes".into()));
    };
    let own = strides(tensor.shape());
    let steps = [0, 2, 1, 3].into_iter().filter_map(|axis| own.get(axis).copied()).collect();
    let shape = vec![batch, second, first, size];
    tensor.select(shape.clone(), Offsets::new(shape, steps, 0))
}

/// Returns a tensor of shape `[batch, heads, sequence, size]`. If it has three axes, the heads
/// are in the last one, and their number is an attribute.
fn split_heads(call: &Call<'_>, index: usize, name: &'static str) -> Result<Tensor, Problem> {
    let tensor = float(call, index)?;
    match *tensor.shape() {
        [_, _, _, _] => Ok(tensor.clone()),
        [batch, sequence, hidden] => {
            let count = heads(call, name)?;
            if hidden % count != 0 {
                let expected = format!("have a last size that {count} heads divide");
                return Err(wrong_shape(index, tensor, expected));
            }
            exchanged(&tensor.reshaped(vec![batch, sequence, count, hidden / count])?)
        }
        _ => Err(wrong_shape(index, tensor, "have three or four axes")),
    }
}

/// Returns a tensor with the heads in its last axis.
fn join_heads(tensor: &Tensor) -> Result<Tensor, Problem> {
    let joined = exchanged(tensor)?;
    match *joined.shape() {
        [batch, sequence, count, size] => joined.reshaped(vec![batch, sequence, count * size]),
        _ => Ok(joined),
    }
}

/// Returns the past keys or values followed by the new ones.
fn present(call: &Call<'_>, index: usize, new: Tensor) -> Result<Tensor, Problem> {
    let Some(past) = call.optional_tensor(index)? else { return Ok(new) };
    let ([batch, count, before, size], [b, c, after, s]) = (past.shape(), new.shape()) else {
        return Err(wrong_shape(index, past, "have four axes"));
    };
    if [batch, count, size] != [b, c, s] {
        let expected = format!("be {:?} except for axis 2", new.shape());
        return Err(wrong_shape(index, past, expected));
    }
    let shape = vec![*batch, *count, before.saturating_add(*after), *size];
    elements(&[*batch, *count, before.saturating_add(*after), *size].map(|size| size.max(1)))?;
    let (old, added) = (before * size, after * size);
    let offsets = (0..batch * count).flat_map(|head| {
        let start = past.len() + head * added;
        (head * old..(head + 1) * old).chain(start..start + added)
    });
    past.followed_by(&new)?.select(shape, offsets)
}

/// The sizes of an attention.
struct Sizes {
    batch: usize,
    query_heads: usize,
    heads: usize,
    queries: usize,
    keys: usize,
    size: usize,
    value_size: usize,
}

impl Sizes {
    /// Checks the shapes of queries, keys and values.
    fn of(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Self, Problem> {
        let shapes = (q.shape(), k.shape(), v.shape());
        if let ([batch, query_heads, queries, size], [b, heads, keys, s], [vb, vh, vk, value_size]) =
            shapes
            && [b, s, vb, vh, vk] == [batch, size, batch, heads, keys]
            && query_heads.checked_rem(*heads).unwrap_or(*query_heads) == 0
        {
            let (batch, query_heads, heads) = (*batch, *query_heads, *heads);
            let (queries, keys, size, value_size) = (*queries, *keys, *size, *value_size);
            // No product of sizes overflows from here on, even if one of them is 0.
            for last in [[queries, keys], [queries, value_size], [keys, size], [keys, value_size]] {
                let sizes = [batch, query_heads, last[0], last[1]];
                elements(&sizes.map(|size| size.max(1)))?;
            }
            return Ok(Self { batch, query_heads, heads, queries, keys, size, value_size });
        }
        let (q, k, v) = shapes;
        Err(Problem::Invalid(format!(
            "queries {q:?}, keys {k:?} and values {v:?} do not have matching sizes [batch, heads, \
             sequence, size]"
        )))
    }

    /// Returns the shape of the scores.
    fn scores(&self) -> Vec<usize> {
        vec![self.batch, self.query_heads, self.queries, self.keys]
    }

    /// Multiplies a matrix of each query head by one of the head of keys and values it belongs to.
    fn multiply(
        &self,
        a: &[f64],
        b: &[f64],
        (depth, columns): (usize, usize),
        b_strides: Strides,
    ) -> Result<Vec<f64>, Problem> {
        let (rows, group) = (self.queries, self.query_heads.checked_div(self.heads).unwrap_or(1));
        let starts = (0..self.batch * self.query_heads)
            .map(|head| (head * rows * depth, head / group.max(1) * depth * columns));
        let (a_strides, starts) = (Strides::rows(depth), starts.collect());
        Products { rows, depth, columns, a: a_strides, b: b_strides, starts }.of(a, b)
    }
}

/// What is added to the scores so that they exclude keys.
struct Bias {
    /// The numbers of the mask for all scores, if there is one.
    mask: Option<Vec<f64>>,
    /// The position of the first query of each sample among the keys.
    offsets: Vec<i128>,
    /// The numbers of keys of each sample that are not padding.
    lengths: Option<Vec<i128>>,
    /// How far from its position a query sees, to both sides.
    left: Option<i128>,
    right: Option<i128>,
}

impl Bias {
    fn of(call: &Call<'_>, sizes: &Sizes) -> Result<Self, Problem> {
        let window = |name: &'static str| match call.int_or(name, -1)? {
            -1 => Ok(None),
            size @ 0.. => Ok(Some(i128::from(size))),
            size => Err(Problem::AttributeValue {
                name,
                value: size.to_string(),
                accepted: "-1 or at least 0",
            }),
        };
        let (left, mut right) = (window("left_window_size")?, window("right_window_size")?);
        if call.flag("is_causal", false)? {
            right = Some(0);
        }
        let lengths = match call.optional_tensor(6)? {
            None => None,
            Some(tensor) if tensor.shape() != [sizes.batch] => {
                return Err(wrong_shape(6, tensor, format!("be {:?}", [sizes.batch])));
            }
            Some(tensor) => Some(tensor.to_i128()?),
        };
        let past = call.optional_tensor(4)?;
        if past.is_some() != call.optional_tensor(5)?.is_some() {
            return Err(Problem::Invalid(
                "past keys and past values are not given together".into(),
            ));
        }
        let offsets = match (past.map(Tensor::shape), &lengths) {
            (Some(_), Some(_)) => {
                return Err(Problem::Invalid("input 6 is given together with past keys".into()));
            }
            (Some(shape), None) => {
                vec![shape.get(2).map_or(0, |past| *past as i128); sizes.batch]
            }
            (None, Some(lengths)) => {
                lengths.iter().map(|length| length - sizes.queries as i128).collect()
            }
            (None, None) => vec![0; sizes.batch],
        };
        let mask = call.optional_tensor(3)?.map(|mask| read_mask(call, mask, sizes)).transpose()?;
        Ok(Self { mask, offsets, lengths, left, right })
    }

    /// Adds the bias to the scores, and returns whether each query is left without a key.
    fn add(&self, sizes: &Sizes, scores: &mut [f64]) -> Vec<bool> {
        let (per_sample, keys) = (sizes.query_heads * sizes.queries, sizes.keys.max(1));
        let rows = scores.chunks_mut(keys).enumerate();
        let add = |(index, row): (usize, &mut [f64])| {
            let sample = index.checked_div(per_sample).unwrap_or(0);
            let query = index.checked_rem(sizes.queries).unwrap_or(0) as i128;
            let position = query + self.offsets.get(sample).copied().unwrap_or(0);
            let length = self.lengths.as_ref().and_then(|lengths| lengths.get(sample));
            let mask = self.mask.as_deref().and_then(|mask| mask.get(index * keys..));
            let mut excluded = true;
            for (key, score) in row.iter_mut().enumerate() {
                let mut bias = mask.and_then(|mask| mask.get(key)).copied().unwrap_or(0.0);
                let key = key as i128;
                if self.left.is_some_and(|left| key < position - left)
                    || self.right.is_some_and(|right| key > position + right)
                    || length.is_some_and(|length| key >= *length)
                {
                    bias += f64::NEG_INFINITY;
                }
                excluded &= bias == f64::NEG_INFINITY;
                *score += bias;
            }
            excluded
        };
        rows.map(add).collect()
    }
}

/// Returns the numbers that a mask adds to each score.
fn read_mask(call: &Call<'_>, mask: &Tensor, sizes: &Sizes) -> Result<Vec<f64>, Problem> {
    let mut numbers = mask.to_f64()?;
    if mask.element() == ElementType::Bool {
        let bias = |taken: f64| if taken == 0.0 { f64::NEG_INFINITY } else { 0.0 };
        numbers.iter_mut().for_each(|number| *number = bias(*number));
    }
    let mut shape = mask.shape().to_vec();
    // From version 24 on, a mask for the first keys excludes the others.
    let is_short = |last: usize| last < sizes.keys && (call.version >= 24 || last != 1);
    let short = shape.last().copied().filter(|last| is_short(*last));
    if let (Some(last), Some(_)) = (shape.last_mut(), short) {
        *last = sizes.keys;
    }
    let scores = sizes.scores();
    if shape.len() > 4 || broadcast(&[&shape, &scores])? != scores {
        return Err(wrong_shape(3, mask, format!("be broadcast to {scores:?}")));
    }
    if let Some(last) = short {
        let mut padded = vec![f64::NEG_INFINITY; elements(&shape)?];
        for (row, numbers) in padded.chunks_mut(sizes.keys).zip(numbers.chunks(last.max(1))) {
            row.iter_mut().zip(numbers).for_each(|(padded, number)| *padded = *number);
        }
        numbers = padded;
    }
    let offsets = broadcast_offsets(&shape, &scores);
    Ok(offsets.filter_map(|offset| numbers.get(offset).copied()).collect())
}

/// Rounds numbers to a float type.
fn rounded(values: Vec<f64>, element: ElementType) -> Result<Vec<f64>, Problem> {
    Tensor::from_f64(element, vec![values.len()], values)?.to_f64()
}

/// Returns the type to which the operands and results of softmax are rounded, if that is not at
/// least as precise as the type of the operator.
fn softmax_type(call: &Call<'_>, own: ElementType) -> Result<Option<ElementType>, Problem> {
    use ElementType::*;
    let name = "softmax_precision";
    let Some(number) = call.int(name)? else { return Ok(None) };
    match ElementType::from_number(number) {
        Some(found @ (F32 | F64 | F16 | BF16)) => {
            Ok(Some(found).filter(|found| *found != own && found.bits() <= own.bits()))
        }
        _ => Err(Problem::AttributeValue {
            name,
            value: number.to_string(),
            accepted: "the number of a float type of at least 16 bits",
        }),
    }
}

/// Replaces each row of scores by its softmax, or by zeros if the query is left without a key.
fn softmax(scores: &mut [f64], keys: usize, excluded: &[bool]) {
    for (row, excluded) in scores.chunks_mut(keys.max(1)).zip(excluded) {
        if *excluded {
            row.fill(0.0);
            continue;
        }
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        row.iter_mut().for_each(|score| *score = (*score - largest).exp());
        let sum: f64 = row.iter().sum();
        row.iter_mut().for_each(|score| *score /= sum);
    }
}

/// Computes `softmax(Q * K' + bias) * V` for each head, and the updated cache of keys and values.
fn attention(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let q = split_heads(call, 0, "q_num_heads")?;
    let k = present(call, 4, split_heads(call, 1, "kv_num_heads")?)?;
    let v = present(call, 5, split_heads(call, 2, "kv_num_heads")?)?;
    if k.element() != q.element() {
        return Err(Problem::MixedTypes { first: q.element(), second: k.element() });
    }
    let sizes = Sizes::of(&q, &k, &v)?;
    let mode = call.int_or("qk_matmul_output_mode", 0)?;
    if !(0..=3).contains(&mode) {
        return Err(Problem::AttributeValue {
            name: "qk_matmul_output_mode",
            value: mode.to_string(),
            accepted: "0, 1, 2 or 3",
        });
    }
    let keep =
        |stage: i64, scores: &[f64]| (mode == stage && call.wants(3)).then(|| scores.to_vec());
    let scale = match call.float("scale")? {
        Some(scale) => f64::from(scale),
        None => 1.0 / (sizes.size as f64).sqrt(),
    };
    let transposed = Strides::rows(sizes.size).transposed();
    let mut scores =
        sizes.multiply(&q.to_f64()?, &k.to_f64()?, (sizes.size, sizes.keys), transposed)?;
    scores.iter_mut().for_each(|score| *score *= scale);
    let mut output = keep(0, &scores);
    let cap = f64::from(call.float_or("softcap", 0.0)?);
    if cap != 0.0 {
        scores.iter_mut().for_each(|score| *score = cap * (*score / cap).tanh());
    }
    output = output.or_else(|| keep(1, &scores));
    let excluded = Bias::of(call, &sizes)?.add(&sizes, &mut scores);
    output = output.or_else(|| keep(2, &scores));
    let precision = softmax_type(call, q.element())?;
    if let Some(element) = precision {
        scores = rounded(scores, element)?;
    }
    softmax(&mut scores, sizes.keys, &excluded);
    if let Some(element) = precision {
        scores = rounded(scores, element)?;
    }
    output = output.or_else(|| keep(3, &scores));
    let strides = Strides::rows(sizes.value_size);
    let y = sizes.multiply(&scores, &v.to_f64()?, (sizes.keys, sizes.value_size), strides)?;
    let shape = vec![sizes.batch, sizes.query_heads, sizes.queries, sizes.value_size];
    let mut y = Tensor::from_f64(q.element(), shape, y)?;
    if call.tensor(0)?.rank() == 3 {
        y = join_heads(&y)?;
    }
    let mut outputs = vec![y.into(), k.into(), v.into()];
    if let Some(scores) = output {
        outputs.push(Tensor::from_f64(q.element(), sizes.scores(), scores)?.into());
    }
    Ok(outputs)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::model::{Attribute, Graph, Model, Node, ValueInfo};
    use crate::{Error, NoObserver};

    /// Evaluates a model of one node, and returns the numbers of one of its outputs.
    fn run(
        operator: &str,
        version: i64,
        attributes: &[(&str, Attribute)],
        inputs: &[Option<Tensor>],
        output: usize,
    ) -> Result<Vec<f64>, Error> {
        let name = |(index, input): (usize, &Option<Tensor>)| match input {
            Some(_) => index.to_string(),
            None => String::new(),
        };
        let names: Vec<String> = inputs.iter().enumerate().map(name).collect();
        let values = names
            .iter()
            .zip(inputs)
            .filter_map(|(name, input)| Some((name.clone(), Value::from(input.clone()?))));
        let values: HashMap<String, Value> = values.collect();
        let attributes = attributes.iter().map(|(name, value)| (name.to_string(), value.clone()));
        let mut outputs = vec![String::new(); output];
        outputs.push("y".into());
        let node = Node {
            operator: operator.into(),
            inputs: names,
            outputs,
            attributes: attributes.collect(),
            ..Node::default()
        };
        let outputs = vec![ValueInfo { name: "y".into(), value_type: None }];
        let graph = Graph { nodes: vec![node], outputs, ..Graph::default() };
        let opsets = HashMap::from([(String::new(), version)]);
        let outputs = Model { opsets, graph, ..Model::default() }.run(values, &mut NoObserver)?;
        Ok(outputs[0].tensor().unwrap().to_f64().unwrap())
    }

    fn tensor(shape: &[usize], values: &[f32]) -> Option<Tensor> {
        Some(Tensor::new(shape.to_vec(), values.to_vec()).unwrap())
    }

    #[test]
    fn a_mask_excludes_keys_whatever_the_cap() {
        let q = tensor(&[1, 1, 2, 1], &[0.0, 3.0]);
        let k = tensor(&[1, 1, 2, 1], &[1.0, 1.0]);
        let v = tensor(&[1, 1, 2, 1], &[5.0, 7.0]);
        let mask = Tensor::new(vec![2, 2], vec![false, false, false, true]).unwrap();
        let inputs = [q, k, v, Some(mask)];
        let attributes = |mode: i64| {
            let mode = ("qk_matmul_output_mode", Attribute::Int(mode));
            [mode, ("softcap", Attribute::Float(1.0)), ("scale", Attribute::Float(1.0))]
        };
        let output =
            |mode: i64, output: usize| run("Attention", 23, &attributes(mode), &inputs, output);
        assert_eq!(output(0, 0), Ok(vec![0.0, 7.0]));
        assert_eq!(output(0, 3), Ok(vec![0.0, 0.0, 3.0, 3.0]));
        let capped = f64::from(3f64.tanh() as f32);
        assert_eq!(output(1, 3), Ok(vec![0.0, 0.0, capped, capped]));
        let low = f64::NEG_INFINITY;
        assert_eq!(output(2, 3), Ok(vec![low, low, low, capped]));
        assert_eq!(output(3, 3), Ok(vec![0.0, 0.0, 0.0, 1.0]));
    }

    #[test]
    fn the_last_query_is_at_the_last_key_that_is_not_padding() {
        let q = tensor(&[2, 1, 2, 1], &[0.0; 4]);
        let k = tensor(&[2, 1, 3, 1], &[0.0; 6]);
        let v = tensor(&[2, 1, 3, 1], &[2.0, 4.0, 9.0, 2.0, 4.0, 9.0]);
        let lengths = Tensor::new(vec![2], vec![3i64, 1]).unwrap();
        let inputs = [q, k, v, None, None, None, Some(lengths)];
        let causal = [("is_causal", Attribute::Int(1))];
        assert_eq!(run("Attention", 24, &causal, &inputs, 0), Ok(vec![3.0, 5.0, 0.0, 2.0]));
    }

    #[test]
    fn a_short_mask_excludes_the_last_keys() {
        let q = tensor(&[1, 1, 1, 1], &[0.0]);
        let k = tensor(&[1, 1, 3, 1], &[0.0; 3]);
        let v = tensor(&[1, 1, 3, 1], &[2.0, 4.0, 9.0]);
        let inputs =
            |mask: &[f32]| [q.clone(), k.clone(), v.clone(), tensor(&[1, mask.len()], mask)];
        assert_eq!(run("Attention", 24, &[], &inputs(&[0.0, 0.0]), 0), Ok(vec![3.0]));
        assert_eq!(run("Attention", 24, &[], &inputs(&[0.0]), 0), Ok(vec![2.0]));
        assert_eq!(run("Attention", 23, &[], &inputs(&[0.0]), 0), Ok(vec![5.0]));
        assert!(run("Attention", 24, &[], &inputs(&[0.0; 4]), 0).is_err());
    }

    #[test]
    fn linear_attention_decays_and_then_corrects() {
        let one = |value: f32| tensor(&[1, 1, 1], &[value]);
        let state = tensor(&[1, 1, 1, 1], &[2.0]);
        let inputs = [one(1.0), one(1.0), one(3.0), state, one(0.5f32.ln()), one(0.5)];
        let heads = [("q_num_heads", Attribute::Int(1)), ("kv_num_heads", Attribute::Int(1))];
        assert_eq!(run("LinearAttention", 27, &heads, &inputs, 0), Ok(vec![2.0]));
        assert_eq!(run("LinearAttention", 27, &heads, &inputs, 1), Ok(vec![2.0]));
    }
}
