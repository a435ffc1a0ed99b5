//! Normalizes arrays that already have the shape of the model's input.

use hardtack_bundle::process::Array;

use super::Error;
use crate::Tensor;

/// Computes `(x − mean) / deviation` in f32. Returns the array unchanged if that has no effect.
pub(super) fn normalise(spec: &Array, sample: Tensor) -> Result<Tensor, Error> {
    let (mean, deviation) = (&spec.mean, &spec.deviation);
    let last = sample.shape().last().copied().unwrap_or(1);
    for values in [mean, deviation] {
        if values.len() != 1 && values.len() != last {
            return Err(Error::Array {
                shape: sample.shape().into(),
                wanted: format!("arrays with a last dimension of {}", values.len()),
            });
        }
    }
    if mean.iter().all(|m| *m == 0.0) && deviation.iter().all(|d| *d == 1.0) {
        return Ok(sample);
    }
    let mut values = sample.to_f32();
    for row in values.chunks_exact_mut(last.max(1)) {
        scale(row, mean, deviation);
    }
    Ok(Tensor::new(sample.shape(), values).expect("the shape is unchanged"))
}

/// Computes `(x − mean) / deviation` for one row of channels. Mean and deviation each have one
/// element for all channels or one per channel.
pub(super) fn scale(row: &mut [f32], mean: &[f32], deviation: &[f32]) {
    let pick = |values: &[f32], channel: usize| values[if values.len() == 1 { 0 } else { channel }];
    for (channel, value) in row.iter_mut().enumerate() {
        *value = (*value - pick(mean, channel)) / pick(deviation, channel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(mean: &[f32], deviation: &[f32]) -> Array {
        let vec = |values: &[f32]| values.iter().copied().collect();
        Array { mean: vec(mean), deviation: vec(deviation) }
    }

    #[test]
    fn mean_and_deviation_have_one_value_or_one_per_channel() {
        let sample = || Tensor::new(&[2, 2], vec![-128i8, 83, 0, 127]).unwrap();
        let all = normalise(&spec(&[83.0], &[0.5]), sample()).unwrap();
        assert_eq!(all.as_f32().unwrap(), [-422.0, 0.0, -166.0, 88.0]);
        let each = normalise(&spec(&[0.0, 83.0], &[2.0]), sample()).unwrap();
        assert_eq!(each.as_f32().unwrap(), [-64.0, 0.0, 0.0, 22.0]);
        assert!(matches!(normalise(&spec(&[0.0; 3], &[1.0]), sample()), Err(Error::Array { .. })));
        assert_eq!(normalise(&spec(&[0.0], &[1.0]), sample()).unwrap(), sample());
    }
}
