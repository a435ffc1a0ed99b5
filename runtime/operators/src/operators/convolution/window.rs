//! Windows that slide over the spatial axes of a tensor, of convolutions and poolings.

use crate::call::Call;
use crate::error::Problem;
use crate::shape::{self, Offsets};

/// How a window of `kernel` taps slides along an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::operators) struct Axis {
    /// The number of elements.
    pub(in crate::operators) input: usize,
    /// The number of taps of the window.
    pub(in crate::operators) kernel: usize,
    /// The distance between positions of the window.
    pub(in crate::operators) stride: usize,
    /// The distance between taps.
    pub(in crate::operators) dilation: usize,
    /// The padding before the first element.
    pub(in crate::operators) before: usize,
    /// The padding after the last element.
    pub(in crate::operators) after: usize,
    /// The number of positions of the window.
    pub(in crate::operators) output: usize,
}

impl Axis {
    /// Returns the number of elements that the axis has with its padding.
    pub(super) fn padded(&self) -> usize {
        self.before.saturating_add(self.input).saturating_add(self.after)
    }

    /// Returns the range of taps that lie between two padded positions, for a position of the
    /// window.
    fn taps_between(&self, output: usize, from: usize, to: usize) -> (usize, usize) {
        let start = output.saturating_mul(self.stride);
        let first = from.saturating_sub(start).div_ceil(self.dilation);
        let end = to.saturating_sub(start).div_ceil(self.dilation);
        (first.min(self.kernel), end.min(self.kernel))
    }

    /// Combines the elements that a tap meets with those of the output. The elements of both are
    /// rows of `inner` elements.
    pub(in crate::operators) fn combine<T: Copy>(
        &self,
        tap: usize,
        inner: usize,
        input: &[T],
        output: &mut [T],
        combine: impl Fn(T, T) -> T,
    ) {
        // The tap meets element `position * stride + tap * dilation - before`.
        let ahead = tap * self.dilation;
        let first = self.before.saturating_sub(ahead).div_ceil(self.stride);
        let end = (self.before + self.input).saturating_sub(ahead).div_ceil(self.stride);
        let (first, end) = (first.min(self.output), end.min(self.output));
        if first >= end {
            return;
        }
        let start = (first * self.stride + ahead).saturating_sub(self.before);
        let targets = output.get_mut(first * inner..end * inner).unwrap_or_default();
        let sources = input.get(start * inner..).unwrap_or_default();
        let combine = |(target, value): (&mut T, &T)| *target = combine(*target, *value);
        match (self.stride, inner) {
            (1, _) => targets.iter_mut().zip(sources).for_each(combine),
            (_, 1) => targets.iter_mut().zip(sources.iter().step_by(self.stride)).for_each(combine),
            _ => {
                let sources = sources.chunks(self.stride.saturating_mul(inner));
                for (target, source) in targets.chunks_mut(inner).zip(sources) {
                    target.iter_mut().zip(source).for_each(combine);
                }
            }
        }
    }

    /// Returns how many taps the window has at a position, inside the padded axis or inside the
    /// axis itself.
    pub(in crate::operators) fn taps(&self, output: usize, with_padding: bool) -> usize {
        let (from, to) = match with_padding {
            true => (0, self.padded()),
            false => (self.before, self.before + self.input),
        };
        let (first, end) = self.taps_between(output, from, to);
        end.saturating_sub(first)
    }
}

/// How padding is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AutoPad {
    /// By the attribute `pads`.
    Explicit,
    /// As much as makes the output as large as the input divided by the stride; the odd one after.
    SameUpper,
    /// Likewise; the odd one before.
    SameLower,
    /// None.
    Valid,
}

/// The attributes that convolutions and poolings share, with one entry for each spatial axis.
pub(in crate::operators) struct Attributes {
    /// The sizes of the window.
    pub(in crate::operators) kernel: Vec<usize>,
    /// The distances between positions of the window.
    pub(in crate::operators) strides: Vec<usize>,
    /// The distances between taps.
    pub(super) dilations: Vec<usize>,
    /// The padding before and after.
    pub(in crate::operators) pads: Vec<(usize, usize)>,
    /// Overrides the padding.
    pub(super) auto_pad: AutoPad,
}

impl Attributes {
    /// Reads the attributes for a window of a given size.
    pub(super) fn read(call: &Call<'_>, kernel: Vec<usize>) -> Result<Self, Problem> {
        let rank = kernel.len();
        let auto_pad = match call.text("auto_pad")?.unwrap_or("NOTSET") {
            "NOTSET" | "" => AutoPad::Explicit,
            "SAME_UPPER" => AutoPad::SameUpper,
            "SAME_LOWER" => AutoPad::SameLower,
            "VALID" => AutoPad::Valid,
            other => {
                return Err(Problem::AttributeValue {
                    name: "auto_pad",
                    value: format!("{other:?}"),
                    accepted: "NOTSET, SAME_UPPER, SAME_LOWER or VALID",
                });
            }
        };
        if kernel.contains(&0) {
            return Err(wrong("kernel_shape", &kernel, "positive numbers"));
        }
        let pads = sizes(call, "pads", 2 * rank, 0)?;
        let (before, after) = pads.split_at(rank);
        Ok(Self {
            strides: positive(call, "strides", rank)?,
            dilations: positive(call, "dilations", rank)?,
            pads: before.iter().copied().zip(after.iter().copied()).collect(),
            kernel,
            auto_pad,
        })
    }

    /// Reads the attributes of a pooling, which must state the size of the window.
    pub(in crate::operators) fn of_pooling(call: &Call<'_>, rank: usize) -> Result<Self, Problem> {
        if call.attribute("kernel_shape").is_none() {
            return Err(Problem::MissingAttribute { name: "kernel_shape" });
        }
        Self::read(call, positive(call, "kernel_shape", rank)?)
    }

    /// Reads the attributes of a convolution, whose weights state the size of the window.
    pub(super) fn of_weights(call: &Call<'_>, weights: &[usize]) -> Result<Self, Problem> {
        let kernel = weights.get(2..).unwrap_or_default().to_vec();
        if let Some(stated) = call.ints("kernel_shape")?
            && !stated
                .iter()
                .map(|size| usize::try_from(*size).ok())
                .eq(kernel.iter().copied().map(Some))
        {
            return Err(wrong("kernel_shape", &stated, "the spatial shape of the weights"));
        }
        Self::read(call, kernel)
    }

    /// Returns the number of elements that the window spans along an axis.
    pub(super) fn extent(&self, axis: usize) -> Result<usize, Problem> {
        (self.kernel[axis] - 1)
            .checked_mul(self.dilations[axis])
            .and_then(|extent| extent.checked_add(1))
            .filter(|extent| *extent <= LIMIT)
            .ok_or_else(|| wrong("dilations", &self.dilations, "smaller"))
    }

    /// Returns how the window slides over axes of given sizes. `ceil` rounds the number of
    /// positions up instead of down; a position that would start in the padding after the last
    /// element is left out.
    pub(in crate::operators) fn axes(
        &self,
        input: &[usize],
        ceil: bool,
    ) -> Result<Vec<Axis>, Problem> {
        let axes = input.iter().enumerate().map(|(axis, input)| self.axis(axis, *input, ceil));
        axes.collect()
    }

    fn axis(&self, index: usize, input: usize, ceil: bool) -> Result<Axis, Problem> {
        let (kernel, stride) = (self.kernel[index], self.strides[index]);
        let dilation = self.dilations[index];
        let extent = self.extent(index)?;
        if input > LIMIT {
            return Err(Problem::TooLarge { shape: vec![input], limit: LIMIT });
        }
        let whole =
            |before, after, output| Axis { input, kernel, stride, dilation, before, after, output };
        if let AutoPad::SameUpper | AutoPad::SameLower = self.auto_pad {
            let output = input.div_ceil(stride);
            let needed = output.saturating_sub(1) * stride + extent;
            let (less, more) = halves(needed.saturating_sub(input));
            return Ok(match self.auto_pad {
                AutoPad::SameUpper => whole(less, more, output),
                _ => whole(more, less, output),
            });
        }
        let (before, after) = match self.auto_pad {
            AutoPad::Explicit => self.pads[index],
            _ => (0, 0),
        };
        let ceil = ceil && self.auto_pad == AutoPad::Explicit;
        let padded = before + input + after;
        let span = padded as i64 - extent as i64;
        let stride = stride as i64;
        let steps = if ceil { -(-span).div_euclid(stride) } else { span.div_euclid(stride) };
        let starts_after = steps * stride >= (before + input) as i64;
        let output = if ceil && starts_after { steps } else { steps + 1 };
        match usize::try_from(output) {
            Ok(output) => Ok(whole(before, after, output)),
            Err(_) if input == 0 => Ok(whole(before, after, 0)),
            _ => Err(Problem::Invalid(format!(
                "the window spans {extent} elements of a spatial axis, which has {padded} with its \
                 padding"
            ))),
        }
    }
}

/// The maximum of sizes. The sum of several does not overflow, neither in `usize` nor in `i64`.
const LIMIT: usize = usize::MAX / 16;

/// Splits padding in two parts, the smaller one first.
pub(super) fn halves(total: usize) -> (usize, usize) {
    (total / 2, total - total / 2)
}

fn wrong(name: &'static str, value: &dyn std::fmt::Debug, accepted: &'static str) -> Problem {
    Problem::AttributeValue { name, value: format!("{value:?}"), accepted }
}

/// Reads a list of sizes that are 1 by default and must not be 0.
fn positive(call: &Call<'_>, name: &'static str, count: usize) -> Result<Vec<usize>, Problem> {
    let found = sizes(call, name, count, 1)?;
    match found.contains(&0) {
        true => Err(wrong(name, &found, "positive numbers")),
        false => Ok(found),
    }
}

/// Reads a list of `count` sizes with a default value.
pub(super) fn sizes(
    call: &Call<'_>,
    name: &'static str,
    count: usize,
    default: usize,
) -> Result<Vec<usize>, Problem> {
    let Some(list) = call.ints(name)? else { return Ok(vec![default; count]) };
    let found: Option<Vec<usize>> =
        list.iter().map(|size| usize::try_from(*size).ok().filter(|size| *size <= LIMIT)).collect();
    found
        .filter(|found| found.len() == count)
        .ok_or_else(|| wrong(name, &list, "one size, not negative, for each spatial axis or side"))
}

/// Where a window finds its elements in a channel that has its padding.
pub(super) struct Layout {
    /// The number of elements of a channel with its padding.
    pub(super) plane: usize,
    /// The offsets of the window's taps from its start.
    pub(super) taps: Vec<usize>,
    /// The offsets of the window's starts.
    pub(super) starts: Vec<usize>,
    /// The offsets of rows of elements that are not padding.
    rows: Vec<usize>,
    /// The number of elements of a row.
    row: usize,
    /// Whether there is any padding.
    is_padded: bool,
}

impl Layout {
    /// Computes the offsets for windows that slide over axes.
    pub(super) fn new(axes: &[Axis]) -> Result<Self, Problem> {
        let sizes: Vec<usize> = axes.iter().map(Axis::padded).collect();
        let plane = shape::elements(&sizes)?;
        let steps = shape::strides(&sizes);
        let offsets = |count: fn(&Axis) -> usize, step: fn(&Axis) -> usize| {
            let counts: Vec<usize> = axes.iter().map(count).collect();
            shape::elements(&counts)?;
            let steps = axes.iter().zip(&steps).map(|(axis, by)| step(axis).saturating_mul(*by));
            Ok(Offsets::new(counts, steps.collect(), 0).collect())
        };
        let before = axes.iter().zip(&steps).map(|(axis, by)| axis.before.saturating_mul(*by));
        let mut inputs: Vec<usize> = axes.iter().map(|axis| axis.input).collect();
        shape::elements(&inputs)?;
        let row = inputs.pop().unwrap_or(1);
        let outer = steps.iter().take(inputs.len()).copied().collect();
        Ok(Self {
            plane,
            taps: offsets(|axis| axis.kernel, |axis| axis.dilation)?,
            starts: offsets(|axis| axis.output, |axis| axis.stride)?,
            rows: match row {
                0 => vec![],
                _ => Offsets::new(inputs, outer, before.fold(0, usize::saturating_add)).collect(),
            },
            row,
            is_padded: axes.iter().any(|axis| axis.before > 0 || axis.after > 0),
        })
    }

    /// Returns a layout of one tap without padding, for channels of `plane` elements.
    pub(super) fn of_points(plane: usize) -> Self {
        Self {
            plane,
            taps: vec![0],
            starts: (0..plane).collect(),
            rows: vec![0],
            row: plane,
            is_padded: false,
        }
    }

    /// Returns the number of elements of a channel without its padding.
    pub(super) fn inner(&self) -> usize {
        self.rows.len() * self.row
    }

    /// Puts zeros around the elements of channels.
    pub(super) fn pad<T: Copy + Into<f64>>(&self, values: &[T], padded: &mut Vec<f64>) {
        padded.clear();
        if !self.is_padded || values.is_empty() {
            padded.extend(values.iter().map(|value| (*value).into()));
            return;
        }
        padded.resize(values.len() / self.inner().max(1) * self.plane, 0.0);
        let mut sources = values.chunks(self.row);
        for channel in padded.chunks_mut(self.plane) {
            for start in &self.rows {
                let target = channel.iter_mut().skip(*start).take(self.row);
                let source = sources.next().unwrap_or_default();
                target.zip(source).for_each(|(target, value)| *target = (*value).into());
            }
        }
    }

    /// Takes the padding away from the elements of a channel.
    pub(super) fn crop<'a, T: Copy>(&'a self, padded: &'a [T]) -> impl Iterator<Item = T> + 'a {
        let rows = self.rows.iter().filter_map(|start| padded.get(*start..start + self.row));
        rows.flatten().copied()
    }
}
