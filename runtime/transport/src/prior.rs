//! The initial probabilities of weights. They follow a logistic distribution around the prediction,
//! whose binary log-odds are twice the distance divided by the mean distance.

use crate::counter::Counter;
use crate::logistic::squash;
use crate::weights::{DISTANCES, FIRST_SPREAD, NODES, SPREADS};

/// The number of observed bits that the initial probabilities count for.
pub(crate) const SEEN: u32 = 8;

/// The initial counters for all classes of spread and distance.
pub(crate) const NODES_BEFORE: [[[Counter; NODES]; DISTANCES]; SPREADS] = {
    let mut all = [[[Counter::NEW; NODES]; DISTANCES]; SPREADS];
    let mut spread = 0;
    while spread < SPREADS {
        let class = spread as u32 + FIRST_SPREAD;
        // The center of the class, in units of 1/64.
        let mean = (5 << (class / 2)) / 4 + (class & 1) as i32 * (2 << (class / 2)) / 4;
        let mut distance = 0;
        while distance < DISTANCES {
            let expected = distance as i32 * (mean + 16) / 2;
            all[spread][distance] = nodes(expected, mean);
            distance += 1;
        }
        spread += 1;
    }
    all
};

/// Returns the counters for a prediction and a mean distance from it, both in units of 1/64.
const fn nodes(expected: i32, mean: i32) -> [Counter; NODES] {
    let mut nodes = [Counter::NEW; NODES];
    let negative = below(-1, expected, mean);
    nodes[0] = Counter::of(negative, 65536 - negative, SEEN);
    let mut side = 0;
    while side < 2 {
        let mut path = 1;
        while path < 8 {
            // The octaves that are still possible after this path, in two halves.
            let width = 8 >> (31 - (path as u32).leading_zeros());
            let first = path as u32 * width - 8;
            let zero = mass(side, first, first + width / 2, expected, mean);
            let one = mass(side, first + width / 2, first + width, expected, mean);
            nodes[7 * side + path] = Counter::of(one, zero, SEEN);
            path += 1;
        }
        let mut octaves = 2;
        while octaves < 8 {
            let (low, high) = (1 << (octaves - 1), 1 << octaves);
            let zero = between(side, low, (low + high) / 2, expected, mean);
            let one = between(side, (low + high) / 2, high, expected, mean);
            nodes[11 + 2 * octaves + side] = Counter::of(one, zero, SEEN);
            octaves += 1;
        }
        side += 1;
    }
    nodes
}

/// Returns the probability of magnitudes from `first` to below `end` octaves, in units of 1/65536.
const fn mass(side: usize, first: u32, end: u32, expected: i32, mean: i32) -> u32 {
    let low = if first == 0 { side as i32 } else { 1 << (first - 1) };
    let high = if end == 0 { 0 } else { 1 << (end - 1) };
    between(side, low, high, expected, mean)
}

/// Returns the probability of magnitudes from `low` to below `high`, of positive weights (`side` 0)
/// or negative ones, in units of 1/65536.
const fn between(side: usize, low: i32, high: i32, expected: i32, mean: i32) -> u32 {
    if high <= low {
        return 0;
    }
    match side {
        0 => below(high - 1, expected, mean) - below(low - 1, expected, mean),
        _ => below(-low, expected, mean) - below(-high, expected, mean),
    }
}

/// Returns the probability of weights up to and including `weight`, in units of 1/65536.
const fn below(weight: i32, expected: i32, mean: i32) -> u32 {
    squash((64 * weight + 32 - expected) * 512 / mean) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probability_of_a_sign_follows_the_distance() {
        for spread in &NODES_BEFORE {
            let negative = spread.each_ref().map(|nodes| nodes[0].p());
            // Zero counts as positive, which matters if weights are small.
            assert!(negative[0] <= 1 << 15 && negative.is_sorted_by(|a, b| a >= b), "{negative:?}");
        }
        let wide = NODES_BEFORE[SPREADS - 1].each_ref().map(|nodes| nodes[0].p());
        assert!(wide[0] > 31_000 && wide[DISTANCES - 1] < 1000, "{wide:?}");
    }

    #[test]
    fn weights_with_a_large_spread_are_rarely_small() {
        // The first decision about the magnitude: whether it is 8 or more.
        let large = NODES_BEFORE.each_ref().map(|spread| spread[0][1].p());
        assert!(large.is_sorted() && large[0] < 1000 && large[SPREADS - 1] > 57_000, "{large:?}");
    }
}
