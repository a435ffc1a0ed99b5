//! Values of 16 bits, as two tensors of 8: a high one, and a low one that holds what the rounding of
//! the high one left. Their sum is the value.
//!
//! All steps are those of 8 bits. A convolution is computed twice, to the high tensor and again, less
//! that, to the low one: sums are exact, so that the second finds what the first lost. What the low
//! tensor of its input adds is a third. A function is a table of the high integers, a table of what
//! that lost, and the low integers times the function's slope.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use hardtack::Model;
use hardtack_bundle::graph::{Binary, Operator, Outlet};
use hardtack_engine::Layer;
use hardtack_engine::program::{Clamp, TensorId, Walk};

use super::super::lattice::{Source, View};
use super::super::region::Region;
use super::super::scale::{Quantization, Range};
use super::super::weights::{Quantized, keeps_elements};
use super::chain::Chain;
use super::linear::Linear;
use super::{Lowering, dims, outlet, refused};

/// Integer steps that a low tensor has at most; the rest of 256 is for roundings.
const STEPS: f32 = 252.0;
/// The same for the sum of two low tensors.
const HALF_STEPS: f32 = STEPS / 2.0;
/// With fewer steps than this, what a low half adds is too much for a tensor of 8 bits.
const FEWEST_STEPS: f32 = 48.0;
/// How many channels become one group, by preference.
const JOINED: [u32; 3] = [8, 4, 2];
/// What many terms add up to is within so many standard deviations, but for one of 100 000.
const DEVIATIONS: f32 = 4.5;

/// What a high tensor lacks.
#[derive(Clone, Copy, Debug)]
pub struct Low {
    /// Its integers.
    pub tensor: TensorId,
    /// The least and greatest real that it holds.
    pub reach: Range,
}

/// A dense value: of 16 bits, or of 8.
#[derive(Clone, Copy, Debug)]
pub struct Halves {
    /// The value, rounded to 8 bits; more coarsely where sums of low parts are left as they are.
    pub high: TensorId,
    /// What that lacks.
    pub low: Option<Low>,
}

/// The values that have 16 bits: those of nodes that are asked for, where something reads that many.
pub fn carried(
    model: &Model,
    region: &Region,
    uses: &HashMap<Outlet, Vec<Option<usize>>>,
    asked: impl Fn(usize) -> bool,
) -> HashSet<usize> {
    let mut carried = HashSet::new();
    let layer = |node: usize| {
        matches!(model.graph.nodes[node].operator, Operator::Conv(_) | Operator::Einsum(_))
    };
    for &index in region.nodes.iter().rev() {
        let reads_all = |reader: &Option<usize>| {
            reader.is_some_and(|reader| {
                region.nodes.contains(&reader) && (layer(reader) || carried.contains(&reader))
            })
        };
        let read = uses.get(&outlet(index)).is_some_and(|readers| readers.iter().any(reads_all));
        let operator = &model.graph.nodes[index].operator;
        let can = match operator {
            Operator::Conv(_) | Operator::Einsum(_) | Operator::Unary(_) => asked(index),
            // A sum has 16 bits where one of its terms has.
            Operator::Binary(_) => {
                let read = &model.graph.nodes[index].inputs;
                asked(index) || read.iter().any(|term| asked(term.node as usize))
            }
            Operator::Concat(_)
            | Operator::MoveAxis(_)
            | Operator::Slice(_)
            | Operator::Downsample(_)
            | Operator::StridedSlice(_)
            | Operator::NearestUpsample(_)
            | Operator::Resize(_) => true,
            _ => keeps_elements(operator),
        };
        if read && can {
            carried.insert(index);
        }
    }
    carried
}

impl Lowering<'_> {
    /// Scale and zero point of a value's high tensor, if it is to have 16 bits. Its range is not
    /// clipped: there are bits to spare.
    pub fn wide(&self, value: Outlet) -> Option<Quantization> {
        let carried = self.carried.contains(&(value.node as usize));
        let stated = !carried || self.stated_ahead(value).is_some();
        let chosen = (!stated).then(|| self.calibration.ranges.get(&value))??;
        Some(Quantization::of(chosen.seen))
    }

    /// A value as dense tensors that store its axes in this order, with all of its bits.
    pub fn halves(&mut self, value: Outlet, order: &[usize]) -> Result<Halves, String> {
        let view = self.whole_view(value)?;
        let Some(tensors) = self.wide_tensors(&view) else {
            return Ok(Halves { high: self.dense(value, order)?, low: None });
        };
        let key = (value, order.to_vec());
        if let Some(known) = self.wide_dense.get(&key) {
            return Ok(*known);
        }
        let dims = dims(&view.shape, order)?;
        let whole = view.whole_tensor(order).filter(|id| self.dims_of(*id) == dims);
        let halves = match whole {
            Some(high) => Halves { high, low: self.lows.get(&high).copied() },
            None => self.gather_halves(value, &view, &tensors, order)?,
        };
        self.wide_dense.insert(key, halves);
        Ok(halves)
    }

    /// The tensors of a view, if one of them has a low half.
    pub fn wide_tensors(&self, view: &View) -> Option<Vec<TensorId>> {
        let low = |id: &TensorId| self.lows.contains_key(id);
        view.tensors().filter(|tensors| tensors.iter().any(low))
    }

    /// Copies all pieces of a view, at one pair of scales.
    fn gather_halves(
        &mut self,
        value: Outlet,
        view: &View,
        tensors: &[TensorId],
        order: &[usize],
    ) -> Result<Halves, String> {
        let name = self.name(value.node as usize);
        let parts: Vec<Halves> = tensors
            .iter()
            .map(|id| Halves { high: *id, low: self.lows.get(id).copied() })
            .collect();
        let scales = |halves: &Halves| {
            let low = halves.low?;
            Some((self.quantization_of(halves.high), self.quantization_of(low.tensor)))
        };
        let first = scales(&parts[0]);
        let shared = first.is_some() && parts.iter().all(|part| scales(part) == first);
        let parts = if shared {
            parts
        } else {
            let target = match self.calibration.ranges.get(&value) {
                Some(chosen) => Quantization::of(chosen.seen),
                None => return Err("it joins values whose ranges are not known".into()),
            };
            parts
                .into_iter()
                .map(|part| self.rescaled(name, part, target, STEPS))
                .collect::<Result<Vec<_>, _>>()?
        };
        let lows: Vec<Low> = parts.iter().filter_map(|part| part.low).collect();
        let map = |to: &dyn Fn(usize) -> TensorId| {
            let place =
                |id: TensorId| to(tensors.iter().position(|other| *other == id).unwrap_or(0));
            view.redirected(place)
        };
        let (highs, low_view) = (map(&|i| parts[i].high), map(&|i| lows[i].tensor));
        let high = self.gather(name, &highs, order, self.quantization_of(parts[0].high))?;
        let low = self.gather(name, &low_view, order, self.quantization_of(lows[0].tensor))?;
        let reach = lows
            .iter()
            .fold(Range::NONE, |reach, low| reach.extended(&[low.reach.low, low.reach.high]));
        let low = Low { tensor: low, reach };
        self.lows.insert(high, low);
        Ok(Halves { high, low: Some(low) })
    }

    /// The same value at another scale, with a low tensor of so many steps to one of the high one.
    fn rescaled(
        &mut self,
        name: &str,
        from: Halves,
        to: Quantization,
        steps: f32,
    ) -> Result<Halves, String> {
        let key = (from.high, to.scale.to_bits(), to.zero_point, steps.to_bits());
        if let Some(known) = self.rescaled.get(&key) {
            return Ok(*known);
        }
        let dims = self.dims_of(from.high);
        let high = self.builder.tensor(name, dims, to.scale, to.zero_point);
        let low = self.builder.tensor(name, dims, to.scale / steps, 0);
        match from.low {
            None => {
                self.builder.copy(name, from.high, high, self.every(from.high)).map_err(refused)?;
                self.builder
                    .subtract(name, [from.high, high], low, Clamp::FULL)
                    .map_err(refused)?;
            }
            Some(given) => {
                let Range { low: least, high: greatest } = given.reach;
                let half = to.scale / 2.0;
                let rest = Quantization::of(Range { low: -greatest - half, high: half - least });
                let rest = self.builder.tensor(name, dims, rest.scale, rest.zero_point);
                self.builder
                    .add(name, [from.high, given.tensor], high, Clamp::FULL)
                    .map_err(refused)?;
                self.builder
                    .subtract(name, [from.high, high], rest, Clamp::FULL)
                    .map_err(refused)?;
                self.builder.add(name, [rest, given.tensor], low, Clamp::FULL).map_err(refused)?;
            }
        }
        let reach = Range { low: -to.scale / 2.0, high: to.scale / 2.0 };
        let halves = Halves { high, low: Some(Low { tensor: low, reach }) };
        self.rescaled.insert(key, halves);
        Ok(halves)
    }

    /// A tensor of 8 bits for one that may have a low half.
    pub fn narrowed(&mut self, id: TensorId) -> Result<TensorId, String> {
        let Some(low) = self.lows.get(&id).copied() else { return Ok(id) };
        if let Some(known) = self.narrow.get(&id) {
            return Ok(*known);
        }
        let Quantization { scale, zero_point } = self.quantization_of(id);
        let sum = self.builder.tensor("", self.dims_of(id), scale, zero_point);
        self.builder.add("", [id, low.tensor], sum, Clamp::FULL).map_err(refused)?;
        self.narrow.insert(id, sum);
        Ok(sum)
    }

    /// A convolution with an input or a result of 16 bits.
    pub fn wide_layer(
        &mut self,
        layer: &Linear,
        chain: &Chain,
        input: Halves,
        quantized: &Quantized,
    ) -> Result<(), String> {
        let last = outlet(chain.last);
        let name = self.name(chain.last);
        let wide = if chain.stated.is_none() { self.wide(last) } else { None };
        let to = match (wide, chain.stated) {
            (Some(wide), _) => wide,
            (None, Some(stated)) => stated,
            (None, None) => self.quantization(last)?,
        };
        let dims = dims(&self.fact_shape(last)?, &layer.output_order)?;
        let channels = [self.dims_of(input.high)[2], dims[2]];
        // Each step has its own output.
        let nothing = TensorId::MAX;
        let base = Layer {
            input: input.high,
            output: nothing,
            window: layer.window,
            groups: layer.groups,
            weights: &quantized.weights,
            weight_scales: &quantized.scales,
            bias: &quantized.bias,
            residual: None,
            clamp: to.clamp(chain.limits),
        };
        // What the input's low half adds.
        let none = Range { low: 0.0, high: 0.0 };
        let added = input.low.map_or(none, |low| spread(low.reach, quantized));
        let steps = (STEPS / (1.0 + (added.high - added.low) / to.scale)).floor().max(1.0);
        if let (Some(low), Some(_)) = (input.low, wide)
            && steps < FEWEST_STEPS
            && let Some(two) = self.scale_of_two(layer, chain, added)
            && two.0.scale / HALF_STEPS < to.scale / steps / 2.0
        {
            return self.layer_of_two(layer, chain, base, low.tensor, added, two);
        }
        let residual = match input.low {
            Some(low) => {
                let Quantization { scale, zero_point } = Quantization::of(added);
                let output = self.builder.tensor(name, dims, scale, zero_point);
                let bias = &vec![0; quantized.bias.len()];
                let layer = Layer { input: low.tensor, output, bias, clamp: Clamp::FULL, ..base };
                self.builder.conv(name, &layer).map_err(refused)?;
                Some(output)
            }
            None => None,
        };
        if wide.is_none() {
            let output = self.tensor(last, &layer.output_order, to)?;
            self.conv_with(name, &Layer { output, residual, ..base }, channels, false)?;
            return self.written(last, output, &layer.output_order);
        }

        // A limited value is rounded down, so that what is left is never negative and is limited as
        // well: below the least high integer it is 0, above the greatest a whole step.
        let open = [chain.limits.low, chain.limits.high].iter().all(|limit| limit.is_infinite());
        let scale = to.scale / steps;
        let mut bias = quantized.bias.clone();
        let mut clamp = base.clamp;
        let reach = if open {
            Range { low: -to.scale / 2.0, high: to.scale / 2.0 }
        } else {
            let input_scale = self.quantization_of(input.high).scale;
            for (bias, weight_scale) in bias.iter_mut().zip(&quantized.scales) {
                *bias -= (0.5 * to.scale / (input_scale * weight_scale)).round() as i32;
            }
            if chain.limits.high.is_finite() {
                clamp.high = clamp.high.saturating_sub(1).max(clamp.low);
            }
            Range { low: 0.0, high: to.scale }
        };
        let high = self.tensor(last, &layer.output_order, to)?;
        let rounded = Layer { output: high, residual, bias: &bias, clamp, ..base };
        self.conv_with(name, &rounded, channels, false)?;
        let zero = |least: f32| (-126.0 - least / scale).round().clamp(-128.0, 127.0) as i8;
        let low_zero = if open { 0 } else { -128 };
        let limits =
            if open { Clamp::FULL } else { Clamp { low: -128, high: (steps as i32 - 128) as i8 } };
        let low = self.builder.tensor(name, dims, scale, low_zero);
        let less = |output, clamp| Layer { output, residual: Some(high), clamp, ..base };
        match residual {
            None => self.conv_with(name, &less(low, limits), channels, true)?,
            Some(residual) => {
                let rest = self.builder.tensor(name, dims, scale, zero(reach.low - added.high));
                self.conv_with(name, &less(rest, Clamp::FULL), channels, true)?;
                self.builder.add(name, [rest, residual], low, limits).map_err(refused)?;
            }
        }
        self.written_wide(last, high, Low { tensor: low, reach }, &layer.output_order)
    }

    /// The scale of a layer's result before its limits, without the part that the low half of its
    /// input adds, and whether there are limits.
    fn scale_of_two(
        &self,
        layer: &Linear,
        chain: &Chain,
        added: Range,
    ) -> Option<(Quantization, bool)> {
        let limit = |index: &&usize| {
            let operator = &self.model.graph.nodes[**index].operator;
            matches!(operator, Operator::Binary(Binary::Maximum | Binary::Minimum))
        };
        let limits = chain.absorbed.iter().filter(limit).count();
        let open = chain.absorbed.len().checked_sub(limits + 1);
        let sum = outlet(open.map_or(layer.node, |open| chain.absorbed[open]));
        let seen = self.calibration.ranges.get(&sum)?.seen;
        let range = Range { low: seen.low - added.high, high: seen.high - added.low };
        Some((Quantization::of(range), limits > 0))
    }

    /// A convolution of both halves of its input, each to 16 bits, and their sum: where the low half
    /// adds so much that a tensor of 8 bits is too coarse for it.
    fn layer_of_two(
        &mut self,
        layer: &Linear,
        chain: &Chain,
        base: Layer<'_>,
        low: TensorId,
        added: Range,
        two: (Quantization, bool),
    ) -> Result<(), String> {
        let last = outlet(chain.last);
        let name = self.name(chain.last);
        let (to, limited) = two;
        let dims = dims(&self.fact_shape(last)?, &layer.output_order)?;
        let scale = to.scale / HALF_STEPS;
        let middle = (added.low + added.high) / (2.0 * to.scale);
        let zero_points = [to.zero_point, (-middle).round() as i8];
        let none = vec![0; base.bias.len()];
        let mut halves = Vec::new();
        for (input, bias, zero_point) in
            [(base.input, base.bias, zero_points[0]), (low, &none[..], zero_points[1])]
        {
            let high = self.builder.tensor(name, dims, to.scale, zero_point);
            let rest = self.builder.tensor(name, dims, scale, 0);
            let layer = Layer { input, output: high, bias, clamp: Clamp::FULL, ..base };
            self.builder.conv(name, &layer).map_err(refused)?;
            let layer = Layer { output: rest, residual: Some(high), ..layer };
            self.conv_with(name, &layer, [self.dims_of(input)[2], dims[2]], true)?;
            halves.push([high, rest]);
        }
        let high = self.builder.tensor(name, dims, to.scale, to.zero_point);
        let rest = self.builder.tensor(name, dims, scale, 0);
        let [of_high, of_low] = halves[..] else { return Err("it has no halves".into()) };
        for (part, output) in [(0, high), (1, rest)] {
            let parts = [of_high[part], of_low[part]];
            self.builder.add(name, parts, output, Clamp::FULL).map_err(refused)?;
        }
        let reach = Range { low: -to.scale, high: to.scale };
        let low = Low { tensor: rest, reach };
        if !limited {
            return self.written_wide(last, high, low, &layer.output_order);
        }
        let limited = (i8::MIN..=i8::MAX)
            .map(|integer| to.real(integer).max(chain.limits.low).min(chain.limits.high));
        let limited: Vec<f32> = limited.collect();
        let to = self.wide(last).ok_or("its range is not known")?;
        let halves = Halves { high, low: Some(low) };
        self.wide_function(last, halves, &limited, &layer.output_order, to)
    }

    /// Adds a convolution that a tensor is taken away from, or added to.
    fn conv_with(
        &mut self,
        name: &str,
        layer: &Layer<'_>,
        [input, output]: [u32; 2],
        less: bool,
    ) -> Result<(), String> {
        let (weights, groups) = joined(layer, input, output);
        let layer = Layer { weights: &weights, groups, ..*layer };
        match less {
            true => self.builder.conv_less(name, &layer),
            false => self.builder.conv(name, &layer),
        }
        .map_err(refused)
    }

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

    /// Notes that the last step wrote the low half of a value.
    pub fn written_wide(
        &mut self,
        value: Outlet,
        high: TensorId,
        low: Low,
        order: &[usize],
    ) -> Result<(), String> {
        self.lows.insert(high, low);
        let view = View::dense(Source::Tensor(high), &self.fact_shape(value)?, order);
        self.note(value, view, Some(low.tensor));
        Ok(())
    }

    fn dims_of(&self, id: TensorId) -> [u32; 3] {
        let tensor = self.builder.get(id).expect("tensors are made before they are named");
        [tensor.height, tensor.width, tensor.channels]
    }

    fn every(&self, id: TensorId) -> Walk {
        Walk::contiguous(self.dims_of(id).iter().product())
    }
}

/// Within what a layer's sums of reals in this range are, whatever their channel.
fn spread(reach: Range, layer: &Quantized) -> Range {
    let depth = layer.weights.len() / layer.scales.len().max(1);
    let mean = (reach.low + reach.high) / 2.0;
    let deviation = DEVIATIONS * (reach.high - reach.low) / 12f32.sqrt();
    let rows = layer.weights.chunks_exact(depth.max(1)).zip(&layer.scales);
    rows.fold(Range { low: 0.0, high: 0.0 }, |range, (row, scale)| {
        let sum = |f: fn(f32) -> f32| row.iter().map(|w| f(f32::from(*w) * scale)).sum::<f32>();
        let all = sum(f32::abs) * (reach.high - reach.low) / 2.0;
        let (centre, aside) = (mean * sum(|w| w), (deviation * sum(|w| w * w).sqrt()).min(all));
        range.extended(&[centre - aside, centre + aside])
    })
}

/// Weights and groups of a layer with a residual. Kernels for layers of one channel a group have
/// none; as a group of several, with zeros between them, they run faster.
fn joined<'a>(layer: &Layer<'a>, inputs: u32, outputs: u32) -> (Cow<'a, [i8]>, u32) {
    let groups = layer.groups;
    let alone = groups == inputs && groups == outputs && layer.residual.is_some();
    let size = *JOINED.iter().find(|size| alone && groups.is_multiple_of(**size)).unwrap_or(&1);
    if size == 1 {
        return (layer.weights.into(), groups);
    }
    let taps = layer.weights.len() / outputs as usize;
    let size = size as usize;
    let mut weights = vec![0; layer.weights.len() * size];
    for (index, weight) in layer.weights.iter().enumerate() {
        weights[index * size + index / taps % size] = *weight;
    }
    (weights.into(), groups / size as u32)
}
