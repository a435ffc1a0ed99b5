//! Palettization: limits a layer to few distinct weights, so that the bundle stores an index for
//! each.
//!
//! Han et al., "Deep Compression", 2016, use k-means. In one dimension the optimal clusters are
//! found exactly, by dynamic programming over their boundaries (Wu, "Optimal Quantization by Matrix
//! Searching", 1991).

/// The maximum magnitude of a weight.
const GREATEST: usize = 127;
/// The number of integers that a weight may be.
const LEVELS: usize = 2 * GREATEST + 1;

/// The allowed integers of a layer's weights, in ascending order; 0 is always among them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Palette(Vec<i8>);

impl Palette {
    /// Chooses at most `count` integers with the least weighted squared error. `weights` are pairs
    /// of a weight in steps and the importance of its error.
    pub(super) fn of(weights: impl Iterator<Item = (f32, f64)>, count: usize) -> Palette {
        let mut mass = [0f64; LEVELS];
        for (steps, counts) in weights {
            let level = steps.round_ties_even().clamp(-127.0, 127.0) as i32 + GREATEST as i32;
            mass[level as usize] += counts;
        }
        // Prefix sums of mass, mass · level, and mass · level².
        let mut sums = [[0f64; 3]; LEVELS + 1];
        for at in 0..LEVELS {
            let level = at as f64 - GREATEST as f64;
            let add = [mass[at], mass[at] * level, mass[at] * level * level];
            sums[at + 1] = [0, 1, 2].map(|power| sums[at][power] + add[power]);
        }
        let cluster = |from: usize, to: usize| -> (f64, i8) {
            let [m, ml, mll] = [0, 1, 2].map(|power| sums[to][power] - sums[from][power]);
            // The center of the cluster that contains 0 is 0.
            let centre = match (from..to).contains(&GREATEST) || m <= 0.0 {
                true => 0.0,
                false => (ml / m).round_ties_even(),
            };
            (mll - 2.0 * centre * ml + centre * centre * m, centre as i8)
        };
        // [clusters][levels]: the least error of the first levels, and the last cluster's start.
        let mut least = vec![[f64::INFINITY; LEVELS + 1]; count + 1];
        let mut begins = vec![[0usize; LEVELS + 1]; count + 1];
        least[0][0] = 0.0;
        for clusters in 1..=count {
            for to in 1..=LEVELS {
                for from in 0..to {
                    let error = least[clusters - 1][from] + cluster(from, to).0;
                    if error < least[clusters][to] {
                        (least[clusters][to], begins[clusters][to]) = (error, from);
                    }
                }
            }
        }
        let mut integers = vec![0];
        let mut to = LEVELS;
        for clusters in (1..=count).rev() {
            let from = begins[clusters][to];
            integers.push(cluster(from, to).1);
            to = from;
        }
        integers.sort_unstable();
        integers.dedup();
        Palette(integers)
    }

    /// Returns the allowed integer nearest to a weight in steps.
    pub(super) fn nearest(&self, steps: f32) -> f32 {
        let above = self.0.partition_point(|integer| f32::from(*integer) < steps);
        let at = |index: usize| self.0.get(index).map(|integer| f32::from(*integer));
        match (above.checked_sub(1).and_then(at), at(above)) {
            (Some(low), Some(high)) if steps - low <= high - steps => low,
            (_, Some(high)) => high,
            (low, None) => low.unwrap_or(0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(weights: &[f32], count: usize) -> Palette {
        Palette::of(weights.iter().map(|w| (*w, 1.0)), count)
    }

    #[test]
    fn clusters_are_optimal() {
        assert_eq!(of(&[-100.0, -99.0, -98.0, 0.0, 1.0, 60.0, 62.0], 3).0, [-99, 0, 61]);
        // With enough integers, nothing is rounded.
        assert_eq!(of(&[-3.0, 5.0, 7.0, 127.0], 8).0, [-3, 0, 5, 7, 127]);
        // 0 is always allowed.
        assert_eq!(of(&[50.0, 52.0, 54.0], 2).0, [0, 52]);
    }

    #[test]
    fn weights_with_more_importance_are_nearer() {
        let weights = [(10.0, 1.0), (20.0, 9.0), (-90.0, 1.0)];
        assert_eq!(Palette::of(weights.into_iter(), 3).0, [-90, 0, 19]);
    }

    #[test]
    fn nearest_returns_the_nearest_integer() {
        let palette = of(&[-40.0, 10.0, 100.0], 4);
        let nearest = [-200.0, -21.0, -19.0, 5.1, 54.0, 56.0, 300.0].map(|w| palette.nearest(w));
        assert_eq!(nearest, [-40.0, -40.0, 0.0, 10.0, 10.0, 100.0, 100.0]);
    }
}
