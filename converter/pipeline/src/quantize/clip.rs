//! Which range of a tensor its 256 integers cover. Values beyond are clipped, and the fewer of
//! them are covered the finer are the steps for the rest.

use super::histogram::{Bin, Histogram};
use super::scale::{Quantization, Range};
use crate::report::RangeReport;

/// How the range is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The one of the others with the least squared error.
    #[default]
    Auto,
    /// Least and greatest value.
    MinMax,
    /// The average of each sample's least and greatest value, the later samples counting more.
    MovingAverage,
    /// All but one in 10 000 values at each end.
    Percentile,
    /// The least Kullback–Leibler divergence of the quantized from the real distribution (Migacz,
    /// "8-bit inference with TensorRT", 2017).
    Entropy,
    /// The least squared error.
    Mse,
}

impl Method {
    /// Those that choose by themselves.
    pub const ALL: [Method; 5] =
        [Method::MinMax, Method::MovingAverage, Method::Percentile, Method::Entropy, Method::Mse];

    /// The name users give.
    pub const fn name(self) -> &'static str {
        match self {
            Method::Auto => "auto",
            Method::MinMax => "min-max",
            Method::MovingAverage => "moving-average",
            Method::Percentile => "percentile",
            Method::Entropy => "entropy",
            Method::Mse => "mse",
        }
    }
}

/// The part of values beyond each end that percentiles leave out.
const BEYOND: f64 = 1e-4;
/// How many parts of the whole range are tried at each end.
const TRIED: u32 = 64;

/// A range, and what chose it.
#[derive(Clone, Copy, Debug)]
pub struct Chosen {
    /// What the values were seen to be.
    pub seen: Range,
    /// What the integers cover.
    pub range: Range,
    /// What 65 536 of them cover, where the value may have so many: nothing is clipped but what a
    /// function that alone reads it makes nothing of.
    pub wide: Range,
    /// Who chose it.
    pub method: Method,
    /// Mean squared error of a value.
    pub error: f64,
}

impl Chosen {
    /// For people and machines, of a value of 16 bits or of 8.
    pub fn report(&self, wide: bool) -> RangeReport {
        let pair = |range: Range| [range.low, range.high];
        let (covered, method, bits) = match wide {
            false => (self.range, self.method, 8),
            true if self.wide == self.seen => (self.wide, Method::MinMax, 16),
            true => (self.wide, Method::Mse, 16),
        };
        RangeReport { seen: pair(self.seen), covered: pair(covered), bits, method }
    }
}

/// What a value is before it counts: the function that alone reads it, or itself.
pub type Transfer<'a> = Option<&'a dyn Fn(f64) -> f64>;

/// Chooses the range of a tensor.
pub fn choose(histogram: &Histogram, method: Method, transfer: Transfer<'_>) -> Chosen {
    let judge = Judge::new(histogram, transfer);
    let of = |method| {
        let range = match method {
            Method::MinMax | Method::Auto => histogram.range(),
            Method::MovingAverage => histogram.moving(),
            Method::Percentile => judge.percentile(),
            Method::Entropy => judge.entropy(histogram.range()),
            Method::Mse => least(histogram.range(), |range| judge.error(range)),
        };
        let seen = histogram.range();
        Chosen { seen, range, wide: seen, method, error: judge.error(range) }
    };
    if method != Method::Auto {
        return of(method);
    }
    let least = Method::ALL.map(of).into_iter().min_by(|a, b| a.error.total_cmp(&b.error));
    least.expect("there are methods")
}

/// The range of a tensor of 16 bits.
pub fn wide(histogram: &Histogram, transfer: Transfer<'_>) -> Range {
    match transfer {
        Some(f) => {
            let judge = Judge::new(histogram, transfer);
            least(histogram.range(), |range| judge.wide_error(range, f))
        }
        None => histogram.range(),
    }
}

/// Judges ranges of one tensor.
struct Judge<'a> {
    bins: Vec<Bin>,
    /// Values, with the zeros.
    total: f64,
    width: f64,
    transfer: Transfer<'a>,
    /// What becomes of each bin's values.
    results: Vec<f64>,
}

impl<'a> Judge<'a> {
    fn new(histogram: &Histogram, transfer: Transfer<'a>) -> Judge<'a> {
        let bins: Vec<Bin> = histogram.bins().collect();
        let total = bins.iter().map(|bin| bin.count).sum::<f64>() + histogram.zeros() as f64;
        let results = match transfer {
            Some(f) => bins.iter().map(|bin| f(bin.centre)).collect(),
            None => Vec::new(),
        };
        Judge { bins, total: total.max(1.0), width: histogram.width(), transfer, results }
    }

    /// Mean squared error of a value, or of what the one function that reads it makes of it.
    fn error(&self, range: Range) -> f64 {
        let quantization = Quantization::of(range);
        let step = f64::from(quantization.scale);
        let zero = f64::from(quantization.zero_point);
        let (low, high) = ((-128.0 - zero) * step, (127.0 - zero) * step);
        // Where bins are finer than steps, each is rounded as it is; else a value within stands
        // anywhere in its step.
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

    /// Mean squared error of what a function makes of a value of 16 bits: it is straight within a step
    /// of the high tensor.
    fn wide_error(&self, range: Range, f: &dyn Fn(f64) -> f64) -> f64 {
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

    /// The range with the least divergence, of those that end at one size on both sides.
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

    /// Divergence of the values, each in its step of this range, from the values within, clipped
    /// ones at the ends.
    fn divergence(&self, range: Range) -> f64 {
        let quantization = Quantization::of(range);
        let (step, zero) = (f64::from(quantization.scale), f64::from(quantization.zero_point));
        let place = |bin: &Bin| ((bin.centre / step).round_ties_even() + zero + 128.0) as i64;
        // Mass and number of bins of each step, without what is clipped.
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

/// The range of least error between nothing and all, its ends moved in turn.
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

    /// Values spread as a normal distribution is, and a few far away.
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
    fn a_far_value_is_clipped_where_that_is_the_lesser_error() {
        let histogram = bell(&[40.0]);
        let error = |method| choose(&histogram, method, None).error;
        let mse = choose(&histogram, Method::Mse, None);
        assert!(mse.range.high < 40.0 && mse.range.high > 3.0, "{mse:?}");
        for method in Method::ALL {
            assert!(error(method) >= mse.error, "{method:?}");
        }
        assert_eq!(choose(&histogram, Method::Auto, None).error, mse.error);
        assert!(choose(&histogram, Method::Percentile, None).range.high < 5.0);
        assert!(choose(&histogram, Method::Entropy, None).range.high < 20.0);
    }

    #[test]
    fn nothing_is_clipped_where_all_is_dense() {
        let histogram = bell(&[]);
        let chosen = choose(&histogram, Method::Auto, None);
        assert!(chosen.range.high > 0.7 * histogram.range().high, "{chosen:?}");
    }

    #[test]
    fn what_a_function_makes_of_values_decides() {
        // A sigmoid makes nothing of values far below 0.
        let histogram = bell(&[-60.0, -50.0]);
        let silu = |x: f64| x / (1.0 + (-x).exp());
        let plain = choose(&histogram, Method::Mse, None).range;
        let gated = choose(&histogram, Method::Mse, Some(&silu)).range;
        assert!(gated.low > plain.low, "{gated:?} {plain:?}");
        assert!(gated.high > 3.0);
    }

    #[test]
    fn sixteen_bits_are_clipped_only_where_a_function_makes_nothing_of_them() {
        let histogram = bell(&[-60.0, -50.0, 40.0]);
        let silu = |x: f64| x / (1.0 + (-x).exp());
        let seen = histogram.range();
        assert_eq!(wide(&histogram, None), seen);
        let gated = wide(&histogram, Some(&silu));
        assert!(gated.low > -20.0 && gated.low < -5.0 && gated.high == seen.high, "{gated:?}");
    }

    #[test]
    fn zeros_need_no_range() {
        let mut histogram = Histogram::default();
        histogram.add(&[0.0; 8]);
        for method in Method::ALL {
            let chosen = choose(&histogram, method, None);
            assert_eq!(chosen.error, 0.0, "{method:?}");
        }
    }
}
