//! Functions and sums of values of 16 bits.

use hardtack_bundle::graph::{Binary, Outlet};
use hardtack_engine::program::{Clamp, TensorId};

use super::super::super::scale::{Quantization, Range};
use super::super::{Lowering, outlet, refused};
use super::{HALF_STEPS, Halves, Low, STEPS};

impl Lowering<'_> {
    /// A function of a value, by its results for each of the value's high integers.
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
        self.builder.lookup(name, of.high, high, |x| results[place(x)]).map_err(refused)?;
        let lost = |x: f32| {
            let y = results[place(x)];
            if y.is_finite() { y - to.real(to.integer(y)) } else { 0.0 }
        };
        let half = to.scale / 2.0;
        let Some(low) = of.low else {
            let reach = Range { low: -half, high: half };
            let rest = self.builder.tensor(name, dims, to.scale / STEPS, 0);
            self.builder.lookup(name, of.high, rest, lost).map_err(refused)?;
            return self.written_wide(value, high, Low { tensor: rest, reach }, order);
        };
        // To the next integer where the low half is never negative: a function that is straight
        // between two of them is exact.
        let before = usize::from(low.reach.low < 0.0);
        let slope = |x: f32| {
            let at = place(x);
            let (from, to) = (at.saturating_sub(before), (at + 1).min(255));
            let rise = results[to] - results[from];
            let slope = rise / ((to - from).max(1) as f32 * read.scale);
            if slope.is_finite() { slope } else { 0.0 }
        };
        let reals = (i8::MIN..=i8::MAX).map(|integer| read.real(integer));
        let steepest = reals.fold(0f32, |steepest, x| steepest.max(slope(x).abs()));
        let farthest = low.reach.high.max(-low.reach.low) * steepest;
        let reach = Range { low: -half - farthest, high: half + farthest };
        let scale = (reach.high - reach.low) / STEPS;
        let symmetric = |reach: f32| if reach > 0.0 { reach / 127.0 } else { 1.0 };
        let slopes = self.builder.tensor(name, dims, symmetric(steepest), 0);
        let moved = self.builder.tensor(name, dims, symmetric(farthest), 0);
        let rest = self.builder.tensor(name, dims, scale, 0);
        let sum = self.builder.tensor(name, dims, scale, 0);
        self.builder.lookup(name, of.high, rest, lost).map_err(refused)?;
        self.builder.lookup(name, of.high, slopes, slope).map_err(refused)?;
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
