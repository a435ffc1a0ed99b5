//! A histogram of the values of a tensor, in memory that does not grow with their number.

use crate::quantize::scale::Range;
use crate::report::HistogramReport;

/// The maximum number of bins on each side of zero.
const SIDE: i32 = 4096;
/// The number of values whose bins are computed at once.
const CHUNK: usize = 512;
/// The weight of a new sample in the moving average.
const MOMENTUM: f32 = 0.1;

/// Counts of values in bins of equal width, at most [`SIDE`] on each side of zero. The width is a
/// power of two. It doubles when a value lies outside, so bins merge in pairs and no count is lost.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    width: f32,
    /// The index of the first bin; bin 0 starts at value 0.
    first: i32,
    /// The count of each bin, up to the last bin that a value fell into.
    counts: Vec<u32>,
    /// The number of values that are exactly 0. These are never rounded.
    zeros: u64,
    range: Range,
    moving: Range,
}

/// The values in one bin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bin {
    /// The center of the bin.
    pub centre: f64,
    /// The number of values.
    pub count: f64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram {
            width: 0.0,
            first: 0,
            counts: Vec::new(),
            zeros: 0,
            range: Range::NONE,
            moving: Range::NONE,
        }
    }
}

/// Returns the minimum and maximum of finite values, in lanes that a vector processor computes
/// together.
fn extremes(values: &[f32]) -> Range {
    const LANES: usize = 16;
    let (mut low, mut high) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
    let whole = values.chunks_exact(LANES);
    let rest = Range::NONE.extended(whole.remainder());
    for values in whole {
        for lane in 0..LANES {
            let x = values[lane];
            low[lane] = if x < low[lane] { x } else { low[lane] };
            high[lane] = if x > high[lane] { x } else { high[lane] };
        }
    }
    Range {
        low: low.into_iter().fold(rest.low, f32::min),
        high: high.into_iter().fold(rest.high, f32::max),
    }
}

impl Histogram {
    /// Adds the values of a sample, which must all be finite.
    pub(crate) fn add(&mut self, values: &[f32]) {
        // So that counts of one call cannot overflow.
        values.chunks(1 << 30).for_each(|values| self.add_part(values));
    }

    fn add_part(&mut self, values: &[f32]) {
        let seen = extremes(values);
        if values.is_empty() {
            return;
        }
        let first = self.range == Range::NONE;
        let towards = |old: f32, new: f32| if first { new } else { old + MOMENTUM * (new - old) };
        self.moving = Range {
            low: towards(self.moving.low, seen.low),
            high: towards(self.moving.high, seen.high),
        };
        self.range =
            Range { low: self.range.low.min(seen.low), high: self.range.high.max(seen.high) };
        self.widen(seen.low.abs().max(seen.high.abs()));
        let scale = 1.0 / self.width;
        // `floor` is a library call on processors without an instruction for it.
        let floor = |x: f32| x as i32 - i32::from(x < x as i32 as f32);
        let bin = |value: f32| floor(value * scale).clamp(-SIDE, SIDE - 1);
        self.cover(bin(seen.low), bin(seen.high));
        let (first, len) = (self.first, self.counts.len());
        if values.len() < len {
            for value in values {
                let count = &mut self.counts[(bin(*value) - first) as usize];
                match *value {
                    0.0 => self.zeros += 1,
                    _ => *count = count.saturating_add(1),
                }
            }
            return;
        }
        // Two sets of counts, as adjacent values often fall into the same bin.
        let mut counts = vec![0u32; 2 * len];
        let (even, odd) = counts.split_at_mut(len);
        let mut places = [0u32; CHUNK];
        let mut zeros = 0;
        for values in values.chunks(CHUNK) {
            for (place, value) in places.iter_mut().zip(values) {
                *place = (bin(*value) - first) as u32;
                zeros += u32::from(*value == 0.0);
            }
            for pair in places[..values.len()].chunks(2) {
                even[pair[0] as usize] += 1;
                if let Some(place) = pair.get(1) {
                    odd[*place as usize] += 1;
                }
            }
        }
        if zeros > 0 {
            // Both sets together have at least as many values in the bin of 0.
            let place = -first as usize;
            let both = even[place] + odd[place] - zeros;
            (even[place], odd[place]) = (both, 0);
            self.zeros += u64::from(zeros);
        }
        for (count, (even, odd)) in self.counts.iter_mut().zip(even.iter().zip(odd.iter())) {
            *count = count.saturating_add(even + odd);
        }
    }

    /// Extends `counts` to cover the bins from `low` to `high`.
    fn cover(&mut self, low: i32, high: i32) {
        if self.counts.is_empty() {
            self.first = low;
        }
        let end = self.first + self.counts.len() as i32;
        let (from, to) = (low.min(self.first), (high + 1).max(end));
        if (to - from) as usize > self.counts.len() {
            let mut counts = vec![0; (to - from) as usize];
            let place = (self.first - from) as usize;
            counts[place..place + self.counts.len()].copy_from_slice(&self.counts);
            (self.first, self.counts) = (from, counts);
        }
    }

    /// Widens the bins until they cover values of magnitude `size`.
    fn widen(&mut self, size: f32) {
        if self.width == 0.0 {
            // Smaller values do not matter.
            self.width = (size.max(1e-30) / SIDE as f32).log2().ceil().exp2();
        }
        while self.width * (SIDE as f32) < size {
            self.width *= 2.0;
            let (bins, first) = (self.first.., self.first.div_euclid(2));
            let last = (self.first + self.counts.len() as i32 - 1).div_euclid(2);
            let mut merged = vec![0u32; (last + 1 - first).max(0) as usize];
            for (bin, count) in bins.zip(&self.counts) {
                let both = &mut merged[(bin.div_euclid(2) - first) as usize];
                *both = both.saturating_add(*count);
            }
            (self.first, self.counts) = (first, merged);
        }
    }

    /// Returns the minimum and maximum.
    pub(crate) fn range(&self) -> Range {
        self.range
    }

    /// Returns the exponential moving average of each sample's minimum and maximum.
    pub(crate) fn moving_average(&self) -> Range {
        self.moving
    }

    /// Returns the mean square of the values.
    pub(crate) fn mean_square(&self) -> f64 {
        let (sum, count) = self.bins().fold((0.0, self.zeros as f64), |(sum, count), bin| {
            (sum + bin.count * bin.centre.powi(2), count + bin.count)
        });
        sum / count.max(1.0)
    }

    /// Returns the number of values that are exactly 0.
    pub(crate) fn zeros(&self) -> u64 {
        self.zeros
    }

    /// Returns the width of a bin.
    pub(crate) fn width(&self) -> f64 {
        self.width.into()
    }

    /// Returns the histogram in `parts` bins, for the report.
    pub(crate) fn report(&self, parts: usize) -> HistogramReport {
        let (low, high) = (f64::from(self.range.low), f64::from(self.range.high));
        let mut counts = vec![0; parts];
        for bin in self.bins() {
            let part = (bin.centre - low) / (high - low).max(1e-30) * parts as f64;
            counts[(part.max(0.0) as usize).min(parts - 1)] += bin.count as u64;
        }
        HistogramReport { seen: [self.range.low, self.range.high], zeros: self.zeros, counts }
    }

    /// Returns the bins that hold values, in ascending order, without the zeros.
    pub(crate) fn bins(&self) -> impl Iterator<Item = Bin> + '_ {
        let width = f64::from(self.width);
        let bins = (self.first..).zip(&self.counts).filter(|(_, count)| **count > 0);
        bins.map(move |(bin, count)| Bin {
            centre: (f64::from(bin) + 0.5) * width,
            count: f64::from(*count),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_count_is_lost_when_bins_widen() {
        let mut histogram = Histogram::default();
        histogram.add(&[0.5, -0.25, 0.0, 1e-3]);
        histogram.add(&[100.0, -3000.0]);
        assert_eq!(histogram.range(), Range { low: -3000.0, high: 100.0 });
        assert_eq!(histogram.zeros(), 1);
        assert_eq!(histogram.bins().map(|bin| bin.count).sum::<f64>(), 5.0);
        assert_eq!(histogram.width(), 1.0);
        let centres: Vec<f64> = histogram.bins().map(|bin| bin.centre).collect();
        assert_eq!(centres, [-2999.5, -0.5, 0.5, 100.5]);
    }

    #[test]
    fn a_spread_counts_every_nonzero_value() {
        let mut histogram = Histogram::default();
        histogram.add(&[-1.0, -0.9, 0.0, 0.0, 0.1, 3.0]);
        let spread = histogram.report(4);
        assert_eq!(
            spread,
            HistogramReport { seen: [-1.0, 3.0], zeros: 2, counts: vec![2, 1, 0, 1] }
        );
    }

    #[test]
    fn the_moving_average_follows_the_samples() {
        let mut histogram = Histogram::default();
        histogram.add(&[0.0, 1.0]);
        histogram.add(&[-1.0, 11.0]);
        let Range { low, high } = histogram.moving_average();
        assert!((low + 0.1).abs() < 1e-6 && (high - 2.0).abs() < 1e-6);
    }
}
