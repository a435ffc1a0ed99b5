//! Lowers unary functions and sums of int16 values.

use hardtack_bundle::graph::{Binary, ValueId};
use hardtack_engine::program::{Clamp, TensorId};

use super::{HALF_STEPS, Int16Tensors, LowTensor, STEPS};
use crate::graph::first_output;
use crate::quantize::float_reason::FloatReason;
use crate::quantize::lower::Lowering;
use crate::quantize::scale::{Quantization, Range};

/// The number of low values at which functions are sampled.
const PARTS: usize = 9;

/// The linear approximation of a function around one high integer: `at + slope · low`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Line {
    at: f32,
    slope: f32,
}

/// Returns evenly spaced values that a low tensor may add.
fn added(reach: Range) -> [f32; PARTS] {
    let part = |index| index as f32 / (PARTS - 1) as f32;
    std::array::from_fn(|index| reach.low + part(index) * (reach.high - reach.low))
}

/// Returns, for each high integer, the least-squares line through the function's results at the
/// sampled low values.
fn lines(results: &[f32], reach: Range) -> Vec<Line> {
    let (exact, parts) = results.split_at(256);
    let shifts = added(reach);
    let middle = (reach.low + reach.high) / 2.0;
    let line = |(place, exact): (usize, &f32)| {
        let ys: [f32; PARTS] = std::array::from_fn(|part| parts[part * 256 + place]);
        let points = || shifts.iter().zip(ys);
        let (mut mean, mut rise, mut run) = (0f64, 0f64, 0f64);
        for (shift, y) in points() {
            let offset = f64::from(shift - middle);
            mean += f64::from(y) / PARTS as f64;
            rise += offset * f64::from(y);
            run += offset * offset;
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
    /// Returns the floats at which functions of a value are evaluated: its high integers in
    /// ascending order. For int16, these follow again with each of the sampled low values added.
    pub(crate) fn points(&self, of: Int16Tensors) -> Vec<f32> {
        let read = self.quantization_of(of.high);
        let added = of.low.map(|low| added(low.reach));
        let shifts = std::iter::once(0.0).chain(added.into_iter().flatten());
        let all = |shift| (i8::MIN..=i8::MAX).map(move |integer| read.dequantize(integer) + shift);
        shifts.flat_map(all).collect()
    }

    /// Lowers a function to an int16 value, given its results at the points of its input.
    pub(crate) fn int16_function(
        &mut self,
        value: ValueId,
        of: Int16Tensors,
        results: &[f32],
        order: &[usize],
        to: Quantization,
    ) -> Result<(), FloatReason> {
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
        self.builder.lookup(name, of.high, high, |x| lines[place(x)].at)?;
        let lost = |x: f32| {
            let y = lines[place(x)].at;
            if y.is_finite() { y - to.dequantize(to.quantize(y)) } else { 0.0 }
        };
        let half = to.scale / 2.0;
        let Some(low) = of.low else {
            let reach = Range { low: -half, high: half };
            let rest = self.builder.tensor(name, dims, to.scale / STEPS, 0);
            self.builder.lookup(name, of.high, rest, lost)?;
            return self.written_int16(value, high, LowTensor { tensor: rest, reach }, order);
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
        self.builder.lookup(name, of.high, rest, lost)?;
        self.builder.lookup(name, of.high, slopes, |x| lines[place(x)].slope)?;
        self.builder.multiply(name, [slopes, low.tensor], moved, Clamp::FULL)?;
        self.builder.add(name, [rest, moved], sum, Clamp::FULL)?;
        self.written_int16(value, high, LowTensor { tensor: sum, reach }, order)
    }

    /// Lowers a sum or difference of two values of the same shape, each int16 or int8, to int16.
    pub(crate) fn int16_sum(
        &mut self,
        index: usize,
        [a, b]: [ValueId; 2],
        kind: Binary,
        to: Quantization,
    ) -> Result<(), FloatReason> {
        let name = self.name(index);
        let order = self.high_view(a)?.order();
        let steps = HALF_STEPS;
        let tensors = [self.int16_tensors_of(a, &order)?, self.int16_tensors_of(b, &order)?];
        // The terms may have a larger range than the sum.
        let reach = tensors.iter().fold(to.range(), |reach, tensors| {
            let Range { low, high } = self.quantization_of(tensors.high).range();
            reach.extended(&[low, high])
        });
        let to = Quantization::of(reach);
        let mut terms = Vec::new();
        for tensors in tensors {
            terms.push(self.rescaled(name, tensors, to, steps)?);
        }
        let high = self.tensor(first_output(index), &order, to)?;
        let low = self.builder.tensor(name, self.dims_of(high), to.scale / steps, 0);
        let low_tensors = terms.iter().filter_map(|term| term.low.map(|low| low.tensor));
        let low_tensors: Vec<TensorId> = low_tensors.collect();
        for (from, to) in
            [([terms[0].high, terms[1].high], high), ([low_tensors[0], low_tensors[1]], low)]
        {
            match kind {
                Binary::Subtract => self.builder.subtract(name, from, to, Clamp::FULL),
                _ => self.builder.add(name, from, to, Clamp::FULL),
            }?;
        }
        let (high, low) = self.carried(name, [high, low], true)?;
        self.written_int16(first_output(index), high, low, &order)
    }

    /// Moves whole high steps from a low tensor to its high tensor, rounding to nearest, or down
    /// with `floor`. A function with a kink at a high integer is exact after rounding down.
    pub(super) fn carried(
        &mut self,
        name: &str,
        [high, low]: [TensorId; 2],
        floor: bool,
    ) -> Result<(TensorId, LowTensor), FloatReason> {
        let dims = self.dims_of(high);
        let (of_high, of_low) = (self.quantization_of(high), self.quantization_of(low));
        let whole = of_high.scale;
        let shifted = match floor {
            true => {
                let half = (whole / of_low.scale / 2.0).round() as i8;
                let shifted = self.builder.tensor(name, dims, of_low.scale, half);
                self.builder.lookup(name, low, shifted, |x| x - whole / 2.0)?;
                shifted
            }
            false => low,
        };
        let to = self.builder.tensor(name, dims, whole, of_high.zero_point);
        self.builder.add(name, [high, shifted], to, Clamp::FULL)?;
        let moved = self.builder.tensor(name, dims, whole, 0);
        self.builder.subtract(name, [high, to], moved, Clamp::FULL)?;
        let zero_point = if floor { -126 } else { 0 };
        let rest = self.builder.tensor(name, dims, whole / STEPS, zero_point);
        self.builder.add(name, [moved, low], rest, Clamp::FULL)?;
        let least = if floor { 0.0 } else { -whole / 2.0 };
        let reach = Range { low: least, high: least + whole };
        Ok((to, LowTensor { tensor: rest, reach }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns results at the points of a value with scale 1, from −128 on.
    fn results(reach: Range, f: impl Fn(f32) -> f32) -> Vec<f32> {
        let shifts = std::iter::once(0.0).chain(added(reach));
        shifts.flat_map(|shift| (-128..128).map(move |i| i as f32 + shift)).map(f).collect()
    }

    #[test]
    fn lines_fit_the_function_between_integers() {
        let around = Range { low: -0.5, high: 0.5 };
        let above = Range { low: 0.0, high: 1.0 };
        // A linear function is fitted exactly, also if its kink is at an integer.
        for line in lines(&results(around, |x| 3.0 * x - 1.0), around).iter().skip(1) {
            assert!((line.slope - 3.0).abs() < 1e-4);
        }
        let relu = lines(&results(above, |x| x.max(0.0)), above);
        assert!(relu[..128].iter().all(|line| line.at.abs() + line.slope.abs() < 1e-6));
        assert!(relu[128..].iter().enumerate().all(|(x, line)| {
            (line.at - x as f32).abs() < 1e-4 && (line.slope - 1.0).abs() < 1e-4
        }));
        // The errors of a parabola average to zero; those of a tangent would all have one sign.
        let parabola = lines(&results(around, |x| x * x), around);
        for (x, line) in (-128..128).zip(&parabola) {
            let exact = |shift: f32| (x as f32 + shift).powi(2);
            let mean =
                added(around).map(|t| exact(t) - line.at - line.slope * t).iter().sum::<f32>();
            assert!((line.slope - 2.0 * x as f32).abs() < 1e-2 && mean.abs() < 2e-2, "{x}");
        }
    }

    #[test]
    fn results_that_are_not_finite_have_no_slope() {
        let reach = Range { low: -0.5, high: 0.5 };
        let log = lines(&results(reach, f32::ln), reach);
        assert!(log[0].at.is_nan() && log[0].slope == 0.0);
        assert!((log[255].slope - 1.0 / 127.0).abs() < 1e-3);
    }
}
