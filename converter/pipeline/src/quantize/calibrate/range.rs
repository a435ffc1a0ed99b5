//! Chooses the range that the 256 integers of a tensor cover. Values outside are clipped; a smaller
//! range gives finer steps.
//!
//! [`RangeMethod::Auto`] stands here for ranges that clip nothing that changes a result. Squared
//! errors recommend to clip rare large values, as all others become more precise. But such values
//! often decide: the one cell in thousands in which a detector sees an object, or the largest of
//! many class scores. The caller compares both kinds of ranges by the outputs of the network.

use crate::options::quantize::RangeMethod;
use crate::quantize::scale::{Quantization, Range};
use crate::quantize::statistics::histogram::{Bin, Histogram};
use crate::report::RangeReport;

/// The fraction of values that the percentile method clips at each end.
const BEYOND: f64 = 1e-4;
/// The number of candidate limits at each end.
const TRIED: u32 = 64;

/// The ranges chosen for a tensor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChosenRange {
    /// The minimum and maximum of the observed values.
    pub seen: Range,
    /// The range that int8 covers.
    pub range: Range,
    /// The range that int16 covers. It clips only values that do not affect the function that reads
    /// them.
    pub int16_range: Range,
    /// The method that chose `range`.
    pub method: RangeMethod,
    /// The mean squared error of `range`.
    pub error: f64,
}

impl ChosenRange {
    /// Returns the range of an int16 (`wide`) or int8 value, for the report.
    pub(crate) fn report(&self, int16: bool) -> RangeReport {
        let pair = |range: Range| [range.low, range.high];
        let (covered, method, bits) = match int16 {
            false => (self.range, self.method, 8),
            true if self.int16_range == self.seen => (self.int16_range, RangeMethod::MinMax, 16),
            true => (self.int16_range, RangeMethod::Mse, 16),
        };
        RangeReport { seen: pair(self.seen), covered: pair(covered), bits, method }
    }
}

/// The function that alone reads a value, if there is one. Errors are measured after it.
pub(crate) type Transfer<'a> = Option<&'a dyn Fn(f64) -> f64>;

/// Chooses the int8 range of a tensor.
pub(crate) fn choose(
    histogram: &Histogram,
    method: RangeMethod,
    transfer: Transfer<'_>,
) -> ChosenRange {
    let errors = RangeErrors::new(histogram, transfer);
    let seen = histogram.range();
    let range = match method {
        RangeMethod::Auto => errors.without_flat_ends(seen),
        RangeMethod::MinMax => seen,
        RangeMethod::MovingAverage => histogram.moving_average(),
        RangeMethod::Percentile => errors.percentile(),
        RangeMethod::Entropy => errors.entropy(seen),
        RangeMethod::Mse => least(seen, |range| errors.error(range)),
    };
    ChosenRange { seen, range, int16_range: seen, method, error: errors.error(range) }
}

/// Chooses the int16 range of a tensor.
pub(crate) fn choose_int16(histogram: &Histogram, transfer: Transfer<'_>) -> Range {
    match transfer {
        Some(f) => {
            let errors = RangeErrors::new(histogram, transfer);
            least(histogram.range(), |range| errors.int16_error(range, f))
        }
        None => histogram.range(),
    }
}

/// Evaluates ranges of one tensor.
struct RangeErrors<'a> {
    bins: Vec<Bin>,
    /// The number of values, including zeros.
    total: f64,
    width: f64,
    transfer: Transfer<'a>,
    /// The result of `transfer` for each bin; empty without one.
    results: Vec<f64>,
}

impl<'a> RangeErrors<'a> {
    fn new(histogram: &Histogram, transfer: Transfer<'a>) -> RangeErrors<'a> {
        let bins: Vec<Bin> = histogram.bins().collect();
        let total = bins.iter().map(|bin| bin.count).sum::<f64>() + histogram.zeros() as f64;
        let results = match transfer {
            Some(f) => bins.iter().map(|bin| f(bin.centre)).collect(),
            None => Vec::new(),
        };
        RangeErrors { bins, total: total.max(1.0), width: histogram.width(), transfer, results }
    }

    /// Returns the mean squared error of a value, after `transfer` if there is one.
    fn error(&self, range: Range) -> f64 {
        let quantization = Quantization::of(range);
        let step = f64::from(quantization.scale);
        let zero = f64::from(quantization.zero_point);
        let (low, high) = ((-128.0 - zero) * step, (127.0 - zero) * step);
        // With bins much finer than steps, each bin is rounded as a value. Otherwise, values in
        // range are assumed to be uniformly distributed within a step.
        let fine = self.width < step / 4.0;
        let rounded = step * step / 12.0;
        let levels: Vec<f64> = match self.transfer {
            Some(f) => (-128..128).map(|i| f((f64::from(i) - zero) * step)).collect(),
            None => Vec::new(),
        };
        let mut sum = 0.0;
        for (index, Bin { centre, count }) in self.bins.iter().enumerate() {
            let place = (centre / step).round_ties_even() + zero;
            let place = place.clamp(-128.0, 127.0);
            let off = match self.results.get(index) {
                Some(result) => (result - levels[(place + 128.0) as usize]).powi(2),
                None if fine || *centre < low || *centre > high => {
                    (centre - (place - zero) * step).powi(2)
                }
                None => rounded,
            };
            sum += count * off;
        }
        sum / self.total
    }

    /// Returns `all` without the ends at which `transfer` is constant: clipping there changes its
    /// result by at most half a step of 8 bits.
    fn without_flat_ends(&self, all: Range) -> Range {
        let Some(transfer) = self.transfer else { return all };
        let greatest = self.results.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let smallest = self.results.iter().copied().fold(f64::INFINITY, f64::min);
        let tolerance = (greatest - smallest) / 512.0;
        // The innermost limit beyond which all results are within the tolerance of its own.
        let limit = |from: f32, to: f32| {
            let point =
                |part: u32| f64::from(from) + f64::from(to - from) * f64::from(part) / 256.0;
            let flat = |limit: f64| {
                let own = transfer(limit);
                let beyond = |bin: &Bin| (bin.centre > limit) == (from > to);
                let mut pairs = self.bins.iter().zip(&self.results);
                pairs.all(|(bin, result)| !beyond(bin) || (result - own).abs() <= tolerance)
            };
            let last = (1..256).map(point).take_while(|limit| flat(*limit)).last();
            last.map_or(from, |limit| limit as f32)
        };
        Range { low: limit(all.low, all.high), high: limit(all.high, all.low) }
    }

    fn percentile(&self) -> Range {
        fn end<'b>(bins: impl Iterator<Item = &'b Bin>, beyond: f64) -> f32 {
            let mut passed = 0.0;
            for bin in bins {
                passed += bin.count;
                if passed > beyond {
                    return bin.centre as f32;
                }
            }
            0.0
        }
        let beyond = BEYOND * self.total;
        Range { low: end(self.bins.iter(), beyond), high: end(self.bins.iter().rev(), beyond) }
    }

    /// Returns the mean squared error of an int16 value after `f`, which is interpolated linearly
    /// between the levels of the high byte.
    fn int16_error(&self, range: Range, f: &dyn Fn(f64) -> f64) -> f64 {
        let quantization = Quantization::of(range);
        let step = f64::from(quantization.scale);
        let zero = f64::from(quantization.zero_point);
        let levels: Vec<f64> = (-128..=128).map(|i| f((f64::from(i) - zero) * step)).collect();
        let off = |(Bin { centre, count }, result): (&Bin, &f64)| {
            let place = (centre / step + zero + 128.0).clamp(0.0, 255.5);
            let (index, part) = (place as usize, place.fract());
            let (from, to) = (levels[index], levels[index + 1]);
            count * (result - from - part * (to - from)).powi(2)
        };
        self.bins.iter().zip(&self.results).map(off).sum::<f64>() / self.total
    }

    /// Returns the range with the least divergence, of those with one limit on the magnitude.
    fn entropy(&self, all: Range) -> Range {
        let (mut best, mut least) = (all, f64::INFINITY);
        let greatest = all.high.max(-all.low);
        for part in 0..TRIED * 7 / 8 {
            let size = greatest * (1.0 - part as f32 / TRIED as f32);
            let range = Range { low: all.low.max(-size), high: all.high.min(size) };
            let divergence = self.divergence(range);
            if divergence < least {
                (best, least) = (range, divergence);
            }
        }
        best
    }

    /// Returns the divergence of the quantized distribution within this range from the float one,
    /// whose clipped values count at the ends.
    fn divergence(&self, range: Range) -> f64 {
        let quantization = Quantization::of(range);
        let (step, zero) = (f64::from(quantization.scale), f64::from(quantization.zero_point));
        let place = |bin: &Bin| ((bin.centre / step).round_ties_even() + zero + 128.0) as i64;
        // The mass and the number of bins of each step, without clipped values.
        let (mut mass, mut bins) = ([0.0; 256], [0.0; 256]);
        let (mut below, mut above) = (0.0, 0.0);
        for bin in &self.bins {
            match place(bin) {
                ..0 => below += bin.count,
                at @ 0..256 => {
                    mass[at as usize] += bin.count;
                    bins[at as usize] += 1.0;
                }
                _ => above += bin.count,
            }
        }
        let inside: f64 = mass.iter().sum();
        if inside <= 0.0 {
            return f64::INFINITY;
        }
        let within = self.bins.iter().filter(|bin| (0..256).contains(&place(bin)));
        let count = within.clone().count();
        let mut divergence = 0.0;
        for (index, bin) in within.enumerate() {
            let clipped = match index {
                0 => below,
                _ if index + 1 == count => above,
                _ => 0.0,
            };
            let p = (bin.count + clipped) / (inside + below + above);
            let at = place(bin) as usize;
            let q = mass[at] / bins[at] / inside;
            divergence += p * (p / q).ln();
        }
        divergence
    }
}

/// Returns the range with the least error, found by shrinking each end in turn.
fn least(all: Range, error: impl Fn(Range) -> f64) -> Range {
    let (mut best, mut least) = (all, error(all));
    for _ in 0..2 {
        for end in [0, 1] {
            let from = best;
            for part in 1..TRIED {
                let factor = 1.0 - part as f32 / TRIED as f32;
                let range = match end {
                    0 => Range { low: all.low.min(0.0) * factor, ..from },
                    _ => Range { high: all.high.max(0.0) * factor, ..from },
                };
                let error = error(range);
                if error < least {
                    (best, least) = (range, error);
                }
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a histogram of normally distributed values and some outliers.
    fn bell(outliers: &[f32]) -> Histogram {
        let mut histogram = Histogram::default();
        let mut state = 1u64;
        let mut uniform = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1u64 << 24) as f32
        };
        for _ in 0..20 {
            let values: Vec<f32> =
                (0..1000).map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0).collect();
            histogram.add(&values);
        }
        histogram.add(outliers);
        histogram
    }

    #[test]
    fn an_outlier_is_clipped_where_that_reduces_the_error() {
        let histogram = bell(&[40.0]);
        let error = |method| choose(&histogram, method, None).error;
        let mse = choose(&histogram, RangeMethod::Mse, None);
        assert!(mse.range.high < 40.0 && mse.range.high > 3.0, "{mse:?}");
        for method in RangeMethod::ALL {
            assert!(error(method) >= mse.error, "{method:?}");
        }
        assert!(choose(&histogram, RangeMethod::Percentile, None).range.high < 5.0);
        assert!(choose(&histogram, RangeMethod::Entropy, None).range.high < 20.0);
    }

    #[test]
    fn auto_clips_only_values_that_do_not_affect_the_function() {
        let histogram = bell(&[-60.0, -50.0, 40.0]);
        let seen = histogram.range();
        assert_eq!(choose(&histogram, RangeMethod::Auto, None).range, seen);
        let silu = |x: f64| x / (1.0 + (-x).exp());
        let gated = choose(&histogram, RangeMethod::Auto, Some(&silu)).range;
        assert!(gated.low > -10.0 && gated.low < -3.0 && gated.high == seen.high, "{gated:?}");
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let range = choose(&histogram, RangeMethod::Auto, Some(&sigmoid)).range;
        assert!(range.low < -3.0 && range.low > -8.0, "{range:?}");
        assert!(range.high > 3.0 && range.high < 8.0, "{range:?}");
    }

    #[test]
    fn errors_are_measured_after_the_function_that_reads_a_value() {
        // SiLU maps values far below 0 to nearly 0.
        let histogram = bell(&[-60.0, -50.0]);
        let silu = |x: f64| x / (1.0 + (-x).exp());
        let plain = choose(&histogram, RangeMethod::Mse, None).range;
        let gated = choose(&histogram, RangeMethod::Mse, Some(&silu)).range;
        assert!(gated.low > plain.low, "{gated:?} {plain:?}");
        assert!(gated.high > 3.0);
    }

    #[test]
    fn int16_clips_only_values_that_do_not_affect_the_function() {
        let histogram = bell(&[-60.0, -50.0, 40.0]);
        let silu = |x: f64| x / (1.0 + (-x).exp());
        let seen = histogram.range();
        assert_eq!(choose_int16(&histogram, None), seen);
        let gated = choose_int16(&histogram, Some(&silu));
        assert!(gated.low > -20.0 && gated.low < -5.0 && gated.high == seen.high, "{gated:?}");
    }

    #[test]
    fn all_zeros_have_no_error() {
        let mut histogram = Histogram::default();
        histogram.add(&[0.0; 8]);
        for method in RangeMethod::ALL {
            let chosen = choose(&histogram, method, None);
            assert_eq!(chosen.error, 0.0, "{method:?}");
        }
    }
}
