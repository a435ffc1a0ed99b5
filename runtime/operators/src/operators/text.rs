//! Operators on strings.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use crate::call::{Call, Operator};
use crate::error::Problem;
use crate::meter::{self, Tally};
use crate::shape;
use crate::tensor::{Data, Tensor};
use crate::value::Value;

/// Returns the implementation of an operator of this family.
pub(super) fn find(domain: &str, name: &str) -> Option<Operator> {
    Some(match (domain, name) {
        ("", "RegexFullMatch") => regex_full_match,
        ("", "StringConcat") => string_concat,
        ("", "StringNormalizer") => string_normalizer,
        ("", "StringSplit") => string_split,
        ("", "TfIdfVectorizer") => tf_idf_vectorizer,
        _ => return None,
    })
}

/// Returns an operand whose elements must be strings.
fn strings<'a>(call: &'a Call<'_>, index: usize) -> Result<&'a [String], Problem> {
    let x = call.tensor(index)?;
    let found = x.element();
    x.slice().ok_or(Problem::InputType { index, found, accepted: "string" })
}

/// Refuses a match of a regular expression.
fn regex_full_match(_: &Call<'_>) -> Result<Vec<Value>, Problem> {
    Err(Problem::Unsupported { reason: "it matches regular expressions in the syntax of RE2" })
}

/// Appends the strings of a tensor to those of another one, with broadcasting.
fn string_concat(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let (x, y) = (call.tensor(0)?, call.tensor(1)?);
    let (first, second) = (strings(call, 0)?, strings(call, 1)?);
    let shape = shape::broadcast(&[x.shape(), y.shape()])?;
    [x, y].into_iter().try_for_each(|part| part.check_copies(shape::elements(&shape)?))?;
    let firsts = shape::broadcast_offsets(x.shape(), &shape);
    let seconds = shape::broadcast_offsets(y.shape(), &shape);
    let joined =
        firsts.zip(seconds).filter_map(|(i, j)| Some(first.get(i)?.clone() + second.get(j)?));
    Ok(vec![Tensor::new(shape, joined.collect::<Vec<String>>())?.into()])
}

/// Splits strings at a delimiter; returns the parts, in an axis of their own, and their numbers.
fn string_split(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let texts = strings(call, 0)?;
    let delimiter = call.text("delimiter")?.unwrap_or("");
    // A negative number sets no limit.
    let limit = call.int("maxsplit")?.and_then(|limit| usize::try_from(limit).ok());
    // One part more than a tensor may have is enough to refuse them.
    let limit = Some(limit.unwrap_or(usize::MAX).min(meter::largest()));
    let counts: Vec<usize> = texts.iter().map(|text| split(text, delimiter, limit).len()).collect();
    let width = counts.iter().copied().max().unwrap_or(0);
    let sizes = call.tensor(0)?.shape().to_vec();
    let mut shape = sizes.clone();
    shape.push(width);
    let mut padded = Vec::with_capacity(shape::elements(&shape)?);
    for text in texts {
        let parts = split(text, delimiter, limit);
        let padding = std::iter::repeat_n("", width - parts.len());
        padded.extend(parts.into_iter().chain(padding).map(String::from));
    }
    let counts = counts.into_iter().map(|count| count as i64).collect::<Vec<i64>>();
    Ok(vec![Tensor::new(shape, padded)?.into(), Tensor::new(sizes, counts)?.into()])
}

/// Splits a string at a delimiter, or at white space if that is empty, at most `limit` times.
fn split<'a>(text: &'a str, delimiter: &str, limit: Option<usize>) -> Vec<&'a str> {
    let limit = limit.unwrap_or(usize::MAX);
    if !delimiter.is_empty() {
        return text.splitn(limit.saturating_add(1), delimiter).collect();
    }
    let mut parts = Vec::new();
    let mut rest = text.trim();
    while let Some(end) = rest.find(char::is_whitespace).filter(|_| parts.len() < limit) {
        let (part, after) = rest.split_at(end);
        parts.push(part);
        rest = after.trim_start();
    }
    if !rest.is_empty() {
        parts.push(rest);
    }
    parts
}

/// Removes stop words from a list of strings and changes the case of the others.
fn string_normalizer(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let texts = strings(call, 0)?;
    if !matches!(x.shape(), [_] | [1, _]) {
        let (shape, expected) = (x.shape().to_vec(), "be [C] or [1, C]".into());
        return Err(Problem::InputShape { index: 0, shape, expected });
    }
    let change: fn(&str) -> String = match call.text("case_change_action")? {
        None | Some("NONE") => str::to_string,
        Some("LOWER") => str::to_lowercase,
        Some("UPPER") => str::to_uppercase,
        Some(other) => {
            return Err(Problem::AttributeValue {
                name: "case_change_action",
                value: other.into(),
                accepted: "\"NONE\", \"LOWER\" or \"UPPER\"",
            });
        }
    };
    let fold: fn(&str) -> String = match call.flag("is_case_sensitive", false)? {
        true => str::to_string,
        false => str::to_lowercase,
    };
    let language = call.text("locale")?.and_then(|locale| locale.get(..2)).unwrap_or("");
    if ["tr", "az", "lt"].contains(&language) {
        let reason = "the language of its locale has its own rules for upper and lower case";
        return Err(Problem::Unsupported { reason });
    }
    let stop_words = call.texts("stopwords")?.unwrap_or(&[]);
    let stop_words: HashSet<String> = stop_words.iter().map(|word| fold(word)).collect();
    let kept = texts.iter().filter(|text| !stop_words.contains(&fold(text)));
    let mut result: Vec<String> = kept.map(|text| change(text)).collect();
    if result.is_empty() {
        result.push(String::new());
    }
    let mut shape = vec![1; x.rank()];
    if let Some(last) = shape.last_mut() {
        *last = result.len();
    }
    Ok(vec![Tensor::new(shape, result)?.into()])
}

/// The n-grams that `TfIdfVectorizer` counts.
struct Grams {
    /// The first element in the pool of the n-grams of each length, from length 1.
    starts: Vec<usize>,
    /// The coordinate in the output of each n-gram.
    coordinates: Vec<usize>,
    /// The weight of each n-gram.
    weights: Vec<f32>,
    /// The lengths that are counted.
    lengths: std::ops::RangeInclusive<usize>,
    max_skips: usize,
    /// Whether more than one occurrence counts as one.
    once: bool,
}

impl Grams {
    fn of(call: &Call<'_>) -> Result<Self, Problem> {
        let list = |name: &'static str| -> Result<Vec<usize>, Problem> {
            let values = call.ints(name)?.ok_or(Problem::MissingAttribute { name })?;
            values.iter().map(|value| shape::size(*value)).collect()
        };
        let number = |name: &'static str| -> Result<usize, Problem> {
            shape::size(call.int(name)?.ok_or(Problem::MissingAttribute { name })?)
        };
        let coordinates = list("ngram_indexes")?;
        let (weighted, once) = match call.text("mode")? {
            Some("TF") => (false, false),
            Some("IDF") => (true, true),
            Some("TFIDF") => (true, false),
            None => return Err(Problem::MissingAttribute { name: "mode" }),
            Some(other) => {
                return Err(Problem::AttributeValue {
                    name: "mode",
                    value: other.into(),
                    accepted: "\"TF\", \"IDF\" or \"TFIDF\"",
                });
            }
        };
        let weights = match call.floats("weights")? {
            Some(weights) if weighted && !weights.is_empty() => weights.to_vec(),
            _ => vec![1.0; coordinates.len()],
        };
        if weights.len() != coordinates.len() {
            return Err(Problem::Invalid(format!(
                "there are {} weights and {} n-gram indexes; their numbers must be equal",
                weights.len(),
                coordinates.len()
            )));
        }
        Ok(Self {
            starts: list("ngram_counts")?,
            coordinates,
            weights,
            lengths: number("min_gram_length")?.max(1)..=number("max_gram_length")?,
            max_skips: number("max_skip_count")?,
            once,
        })
    }

    /// Returns the number of coordinates.
    fn width(&self) -> usize {
        self.coordinates.iter().max().map_or(0, |last| last.saturating_add(1))
    }

    /// Numbers the n-grams of a pool whose length is counted.
    fn number<'a, T: Hash + Eq>(
        &self,
        pool: &'a [T],
    ) -> Result<HashMap<&'a [T], Vec<usize>>, Problem> {
        let mut numbers: HashMap<&[T], Vec<usize>> = HashMap::new();
        let mut next = 0;
        for (index, start) in self.starts.iter().enumerate() {
            let length = index + 1;
            let end = self.starts.get(length).copied().unwrap_or(pool.len());
            let grams = pool.get(*start..end).filter(|grams| grams.len().is_multiple_of(length));
            let grams = grams.ok_or_else(|| {
                Problem::Invalid(format!(
                    "the {length}-grams are the elements {start} to {end} of the pool, which has \
                     {}; they must be in it, and their number a multiple of {length}",
                    pool.len()
                ))
            })?;
            for gram in grams.chunks_exact(length) {
                if self.lengths.contains(&length) {
                    numbers.entry(gram).or_default().push(next);
                }
                next += 1;
            }
        }
        if next != self.coordinates.len() {
            return Err(Problem::Invalid(format!(
                "there are {next} n-grams and {} n-gram indexes; their numbers must be equal",
                self.coordinates.len()
            )));
        }
        Ok(numbers)
    }

    /// Returns the row of the output for a row of the input.
    fn vector<T: Hash + Eq + Clone>(
        &self,
        row: &[T],
        numbers: &HashMap<&[T], Vec<usize>>,
    ) -> Result<Vec<f32>, Problem> {
        let mut counts = vec![0u64; self.coordinates.len()];
        let mut tally = Tally::default();
        let longest = self.starts.len().min(row.len()).min(*self.lengths.end());
        for length in *self.lengths.start()..=longest {
            // Skips make no difference to a single element. A step beyond the row finds nothing.
            let steps = if length == 1 { 1 } else { self.max_skips.saturating_add(1) };
            for step in 1..=steps.min(row.len()) {
                let reach = (length - 1).saturating_mul(step);
                let starts = row.len().saturating_sub(reach);
                tally.spend(starts.saturating_mul(length + 8).saturating_add(8))?;
                for start in 0..starts {
                    let gram: Vec<T> =
                        row[start..].iter().step_by(step).take(length).cloned().collect();
                    for number in numbers.get(&gram[..]).into_iter().flatten() {
                        counts[*number] += 1;
                    }
                }
            }
        }
        let mut vector = vec![0.0; self.width()];
        for ((count, weight), coordinate) in counts.iter().zip(&self.weights).zip(&self.coordinates)
        {
            let count = if self.once { (*count).min(1) } else { *count };
            vector[*coordinate] += count as f32 * weight;
        }
        Ok(vector)
    }
}

/// Counts the n-grams in each row of a tensor, with weights.
fn tf_idf_vectorizer(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let grams = Grams::of(call)?;
    let integers = call.ints("pool_int64s")?.filter(|pool| !pool.is_empty());
    let texts = call.texts("pool_strings")?.filter(|pool| !pool.is_empty());
    match (x.data(), integers, texts) {
        (Data::Text(values), None, Some(pool)) => vectorize(x.shape(), values, pool, &grams),
        (Data::I32(_) | Data::I64(_), Some(pool), None) => {
            vectorize(x.shape(), &x.to_i64()?, pool, &grams)
        }
        (Data::Text(_) | Data::I32(_) | Data::I64(_), _, _) => Err(Problem::Invalid(
            "there must be one pool of n-grams: pool_strings for strings, pool_int64s for integers"
                .into(),
        )),
        _ => Err(Problem::InputType {
            index: 0,
            found: x.element(),
            accepted: "string, int32 or int64",
        }),
    }
}

fn vectorize<T: Hash + Eq + Clone>(
    sizes: &[usize],
    values: &[T],
    pool: &[T],
    grams: &Grams,
) -> Result<Vec<Value>, Problem> {
    let numbers = grams.number(pool)?;
    let (rows, columns, shape) = match *sizes {
        [columns] => (1, columns, vec![grams.width()]),
        [rows, columns] => (rows, columns, vec![rows, grams.width()]),
        _ => {
            let expected = "have 1 or 2 axes".into();
            return Err(Problem::InputShape { index: 0, shape: sizes.to_vec(), expected });
        }
    };
    let mut result = Vec::with_capacity(shape::elements(&shape)?);
    for row in 0..rows {
        let start = row.saturating_mul(columns);
        let row = values.get(start..start.saturating_add(columns)).unwrap_or(&[]);
        result.extend(grams.vector(row, &numbers)?);
    }
    Ok(vec![Tensor::new(shape, result)?.into()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Attribute;
    use crate::operators::cast::tests::run;

    fn texts(values: &[&str]) -> Vec<String> {
        values.iter().map(|value| value.to_string()).collect()
    }

    #[test]
    fn the_rest_of_a_split_string_has_no_space_around_it() {
        assert_eq!(split("  a  b   c  ", "", Some(1)), ["a", "b   c"]);
        assert_eq!(split("\ta\u{3000}b\n", "", None), ["a", "b"]);
        assert_eq!(split("  ", "", Some(0)), [""; 0]);
        assert_eq!(split(",a,", ",", Some(1)), ["", "a,"]);
        assert_eq!(split("", ",", None), [""]);
    }

    #[test]
    fn stop_words_ignore_case_by_default() {
        let x = Tensor::vector(texts(&["The", "Émile", "tHE"]));
        let stop_words = ("stopwords", Attribute::Texts(texts(&["THE", "ÉMILE"])));
        let y = run(
            "StringNormalizer",
            10,
            std::slice::from_ref(&x),
            std::slice::from_ref(&stop_words),
        );
        assert_eq!(y.unwrap(), Tensor::vector(texts(&[""])));
        let exact = ("is_case_sensitive", Attribute::Int(1));
        let y =
            run("StringNormalizer", 10, std::slice::from_ref(&x), &[stop_words, exact]).unwrap();
        assert_eq!(y, x);
    }

    #[test]
    fn weights_belong_to_the_grams_of_the_pool() {
        let ints = |values: &[i64]| Attribute::Ints(values.to_vec());
        let vector = |mode: &str| {
            let attributes = [
                ("mode", Attribute::Text(mode.into())),
                ("ngram_counts", ints(&[0, 2])),
                ("ngram_indexes", ints(&[3, 0, 1])),
                ("pool_int64s", ints(&[1, 2, 1, 2])),
                ("weights", Attribute::Floats(vec![10.0, 20.0, 30.0])),
                ("min_gram_length", Attribute::Int(1)),
                ("max_gram_length", Attribute::Int(2)),
                ("max_skip_count", Attribute::Int(2)),
            ];
            let x = Tensor::vector(vec![1i64, 2, 1, 2]);
            run("TfIdfVectorizer", 9, &[x], &attributes).unwrap().to_f64().unwrap()
        };
        assert_eq!(vector("TF"), [2.0, 3.0, 0.0, 2.0]);
        assert_eq!(vector("IDF"), [20.0, 30.0, 0.0, 10.0]);
        assert_eq!(vector("TFIDF"), [40.0, 90.0, 0.0, 20.0]);
    }
}
