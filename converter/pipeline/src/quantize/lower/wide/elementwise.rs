//! Functions and sums of values of 16 bits.

use hardtack_bundle::graph::{Binary, Outlet};
use hardtack_engine::program::{Clamp, TensorId};

use super::super::super::scale::{Quantization, Range};
use super::super::{Lowering, outlet, refused};
use super::{HALF_STEPS, Halves, Low, STEPS};

/// Parts of what a low half may add, at which functions are looked at.
const PARTS: usize = 9;

/// What a function makes of an integer and a low half: `at + slope · low`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Line {
    at: f32,
    slope: f32,
}

/// What a low half may add, in even parts.
fn added(reach: Range) -> [f32; PARTS] {
    let part = |index| index as f32 / (PARTS - 1) as f32;
    std::array::from_fn(|index| reach.low + part(index) * (reach.high - reach.low))
}

/// For each integer the line of least squares through a function's results at the points that a low
/// half of this reach gives.
fn lines(results: &[f32], reach: Range) -> Vec<Line> {
    let (exact, parts) = results.split_at(256);
    let shifts = added(reach);
    let middle = (reach.low + reach.high) / 2.0;
    let line = |(place, exact): (usize, &f32)| {
        let ys: [f32; PARTS] = std::array::from_fn(|part| parts[part * 256 + place]);
        let points = || shifts.iter().zip(ys);
        let (mut mean, mut rise, mut run) = (0f64, 0f64, 0f64);
        for (shift, y) in points() {
            let aside = f64::from(shift - middle);
            mean += f64::from(y) / PARTS as f64;
            rise += aside * f64::from(y);
            run += aside * aside;
        }
        let slope = rise / run;
        let at = mean - slope * f64::from(middle);
        match at.is_finite() && slope.is_finite() {
            true => Line { at: at as f32, slope: slope as f32 },
            false => Line { at: *exact, slope: 0.0 },
        }
    };
    exact.iter().enumerate().map(line).collect()
}

impl Lowering<'_> {
    /// Where a function of a value is looked at: each of its integers, from the least on, and where the
    /// value has a low half, each again with so many parts of what that may add.
    pub fn points(&self, of: Halves) -> Vec<f32> {
        let read = self.quantization_of(of.high);
        let added = of.low.map(|low| added(low.reach));
        let shifts = std::iter::once(0.0).chain(added.into_iter().flatten());
        let all = |shift| (i8::MIN..=i8::MAX).map(move |integer| read.real(integer) + shift);
        shifts.flat_map(all).collect()
    }

    /// A function of a value, by its results at the points of the value.
    pub fn wide_function(
        &mut self,
        value: Outlet,
        of: Halves,
        results: &[f32],
        order: &[usize],
        to: Quantization,
    ) -> Result<(), String> {
        let name = self.name(value.node as usize);
        let read = self.quantization_of(of.high);
        let place = |real: f32| {
            let place = (real / read.scale).round() as i32 + i32::from(read.zero_point) + 128;
            place.clamp(0, 255) as usize
        };
        let high = self.tensor(value, order, to)?;
        let dims = self.dims_of(high);
        let lines = match of.low {
            Some(low) => lines(results, low.reach),
            None => results.iter().map(|result| Line { at: *result, slope: 0.0 }).collect(),
        };
        self.builder.lookup(name, of.high, high, |x| lines[place(x)].at).map_err(refused)?;
        let lost = |x: f32| {
            let y = lines[place(x)].at;
            if y.is_finite() { y - to.real(to.integer(y)) } else { 0.0 }
        };
        let half = to.scale / 2.0;
        let Some(low) = of.low else {
            let reach = Range { low: -half, high: half };
            let rest = self.builder.tensor(name, dims, to.scale / STEPS, 0);
            self.builder.lookup(name, of.high, rest, lost).map_err(refused)?;
            return self.written_wide(value, high, Low { tensor: rest, reach }, order);
        };
        let steepest = lines.iter().fold(0f32, |steepest, line| steepest.max(line.slope.abs()));
        let farthest = low.reach.high.max(-low.reach.low) * steepest;
        let reach = Range { low: -half - farthest, high: half + farthest };
        let scale = (reach.high - reach.low) / STEPS;
        let symmetric = |reach: f32| if reach > 0.0 { reach / 127.0 } else { 1.0 };
        let slopes = self.builder.tensor(name, dims, symmetric(steepest), 0);
        let moved = self.builder.tensor(name, dims, symmetric(farthest), 0);
        let rest = self.builder.tensor(name, dims, scale, 0);
        let sum = self.builder.tensor(name, dims, scale, 0);
        self.builder.lookup(name, of.high, rest, lost).map_err(refused)?;
        self.builder.lookup(name, of.high, slopes, |x| lines[place(x)].slope).map_err(refused)?;
        self.builder.multiply(name, [slopes, low.tensor], moved, Clamp::FULL).map_err(refused)?;
        self.builder.add(name, [rest, moved], sum, Clamp::FULL).map_err(refused)?;
        self.written_wide(value, high, Low { tensor: sum, reach }, order)
    }

    /// A sum or difference of two values of the same shape, of which either may have 16 bits.
    pub fn wide_sum(
        &mut self,
        index: usize,
        [a, b]: [Outlet; 2],
        kind: Binary,
        to: Quantization,
    ) -> Result<(), String> {
        let name = self.name(index);
        let order = self.whole_view(a)?.order();
        let steps = HALF_STEPS;
        let halves = [self.halves(a, &order)?, self.halves(b, &order)?];
        // What is added may reach farther than the sum.
        let reach = halves.iter().fold(to.range(), |reach, halves| {
            let Range { low, high } = self.quantization_of(halves.high).range();
            reach.extended(&[low, high])
        });
        let to = Quantization::of(reach);
        let mut terms = Vec::new();
        for halves in halves {
            terms.push(self.rescaled(name, halves, to, steps)?);
        }
        let high = self.tensor(outlet(index), &order, to)?;
        let low = self.builder.tensor(name, self.dims_of(high), to.scale / steps, 0);
        let lows = terms.iter().filter_map(|term| term.low.map(|low| low.tensor));
        let lows: Vec<TensorId> = lows.collect();
        for (from, to) in [([terms[0].high, terms[1].high], high), ([lows[0], lows[1]], low)] {
            match kind {
                Binary::Subtract => self.builder.subtract(name, from, to, Clamp::FULL),
                _ => self.builder.add(name, from, to, Clamp::FULL),
            }
            .map_err(refused)?;
        }
        let reach = Range { low: -to.scale, high: to.scale };
        self.written_wide(outlet(index), high, Low { tensor: low, reach }, &order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Results at the points of integers a whole apart, from −128 on.
    fn results(reach: Range, f: impl Fn(f32) -> f32) -> Vec<f32> {
        let shifts = std::iter::once(0.0).chain(added(reach));
        shifts.flat_map(|shift| (-128..128).map(move |i| i as f32 + shift)).map(f).collect()
    }

    #[test]
    fn a_line_is_nearest_to_what_lies_between_integers() {
        let around = Range { low: -0.5, high: 0.5 };
        let beside = Range { low: 0.0, high: 1.0 };
        // What is straight is exact, also where it begins at an integer.
        for line in lines(&results(around, |x| 3.0 * x - 1.0), around).iter().skip(1) {
            assert!((line.slope - 3.0).abs() < 1e-4);
        }
        let relu = lines(&results(beside, |x| x.max(0.0)), beside);
        assert!(relu[..128].iter().all(|line| line.at.abs() + line.slope.abs() < 1e-6));
        assert!(relu[128..].iter().enumerate().all(|(x, line)| {
            (line.at - x as f32).abs() < 1e-4 && (line.slope - 1.0).abs() < 1e-4
        }));
        // A parabola's errors have no mean: a tangent's would all be of one sign.
        let parabola = lines(&results(around, |x| x * x), around);
        for (x, line) in (-128..128).zip(&parabola) {
            let exact = |shift: f32| (x as f32 + shift).powi(2);
            let mean =
                added(around).map(|t| exact(t) - line.at - line.slope * t).iter().sum::<f32>();
            assert!((line.slope - 2.0 * x as f32).abs() < 1e-2 && mean.abs() < 2e-2, "{x}");
        }
    }

    #[test]
    fn what_is_no_number_has_no_slope() {
        let reach = Range { low: -0.5, high: 0.5 };
        let log = lines(&results(reach, f32::ln), reach);
        assert!(log[0].at.is_nan() && log[0].slope == 0.0);
        assert!((log[255].slope - 1.0 / 127.0).abs() < 1e-3);
    }
}
