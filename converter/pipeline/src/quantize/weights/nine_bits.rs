//! 9-bit weights: bytes whose zero point is not in the middle of their range.

use std::ops::Range;

/// The maximum magnitude of a weight in the engine.
const GREATEST: i16 = 127;

/// Splits weights into sums of integers in [−127, 127]. The part of a weight beyond that range
/// becomes the weight of a copy of its input channel.
///
/// `weights` have `inputs` input channels innermost. So have the results, where the weights of the
/// copies follow those of the channels. Also returns the copied channel ranges, in this order.
pub(super) fn split(weights: Vec<i16>, inputs: usize) -> (Vec<i8>, Vec<Range<usize>>) {
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

    /// Returns the total weight of each input channel, including its copies.
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
    fn weights_in_range_are_unchanged() {
        assert_eq!(split(vec![127, -127, 0, 5], 2), (vec![127, -127, 0, 5], vec![]));
    }

    #[test]
    fn wide_weights_are_split_into_sums() {
        for (weights, inputs, expected) in [
            (vec![1, -128, 3, 4], 4, vec![(1, 2)]),
            (vec![1, 2, 3, -200, 5, 254, 7, 8], 4, vec![(1, 4)]),
            (vec![255, 0, -255, 9, 1, 1], 3, vec![(0, 3), (0, 3)]),
        ] {
            let (parts, copies) = split(weights.clone(), inputs);
            let ends: Vec<_> = copies.iter().map(|range| (range.start, range.end)).collect();
            assert_eq!(ends, expected);
            assert_eq!(sums(&parts, inputs, &copies), weights);
            assert!(parts.iter().all(|weight| *weight != i8::MIN));
        }
    }
}
