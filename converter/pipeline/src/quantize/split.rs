//! Weights of nine bits: the bytes of a source less a zero point that is not in their middle.

use std::ops::Range;

/// The greatest magnitude of a weight that the engine takes.
const GREATEST: i16 = 127;

/// Weights as sums of integers in [−127, 127]: what one is beyond these is the weight of a copy of
/// its input channel. `weights` have `inputs` input channels innermost; so do the results, each run
/// followed by the weights of the copies. What is copied, in this order, are these ranges of
/// channels.
pub fn split(weights: Vec<i16>, inputs: usize) -> (Vec<i8>, Vec<Range<usize>>) {
    let mut rest = weights;
    let mut parts: Vec<(Range<usize>, Vec<i8>)> = Vec::new();
    let mut range = 0..inputs;
    while !range.is_empty() {
        let mut part = Vec::with_capacity(rest.len() / inputs * range.len());
        for weight in rest.chunks_exact_mut(inputs).flat_map(|run| &mut run[range.clone()]) {
            let taken = (*weight).clamp(-GREATEST, GREATEST);
            *weight -= taken;
            part.push(taken as i8);
        }
        parts.push((range, part));
        let left = |channel: &usize| rest.iter().skip(*channel).step_by(inputs).any(|w| *w != 0);
        let first = (0..inputs).find(left).unwrap_or(inputs);
        let last = (first..inputs).rfind(left).unwrap_or(first);
        range = if first < inputs { first..last + 1 } else { 0..0 };
    }
    let runs = rest.len() / inputs;
    let joined = (0..runs).flat_map(|run| {
        parts.iter().flat_map(move |(range, part)| &part[run * range.len()..][..range.len()])
    });
    let joined = joined.copied().collect();
    (joined, parts.into_iter().skip(1).map(|(range, _)| range).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the layer multiplies each input channel of a run with, in all.
    fn sums(weights: &[i8], inputs: usize, copies: &[Range<usize>]) -> Vec<i16> {
        let channels: Vec<usize> = (0..inputs).chain(copies.iter().cloned().flatten()).collect();
        let mut sums = vec![0; weights.len() / channels.len() * inputs];
        for (run, weights) in weights.chunks_exact(channels.len()).enumerate() {
            for (channel, weight) in channels.iter().zip(weights) {
                sums[run * inputs + channel] += i16::from(*weight);
            }
        }
        sums
    }

    #[test]
    fn narrow_weights_stay_what_they_are() {
        assert_eq!(split(vec![127, -127, 0, 5], 2), (vec![127, -127, 0, 5], vec![]));
    }

    #[test]
    fn wide_weights_are_sums() {
        for (weights, inputs, expected) in [
            (vec![1, -128, 3, 4], 4, vec![(1, 2)]),
            (vec![1, 2, 3, -200, 5, 254, 7, 8], 4, vec![(1, 4)]),
            (vec![255, 0, -255, 9, 1, 1], 3, vec![(0, 3), (0, 3)]),
        ] {
            let (narrow, copies) = split(weights.clone(), inputs);
            let ends: Vec<_> = copies.iter().map(|range| (range.start, range.end)).collect();
            assert_eq!(ends, expected);
            assert_eq!(sums(&narrow, inputs, &copies), weights);
            assert!(narrow.iter().all(|weight| *weight != i8::MIN));
        }
    }
}
