//! Access to tensors by position and channel, and im2col patches of a layer's input.

use hardtack::Tensor;
use hardtack::internal::Model;
use hardtack_bundle::graph::{Operator, Padding, Window};

use crate::graph::channels::{Layer, channel_axis};
use crate::graph::shape::strides;

/// A tensor's elements, indexed by position and channel.
pub(super) struct Channelwise<'t> {
    values: &'t [f32],
    shape: Vec<usize>,
    strides: Vec<usize>,
    axis: usize,
}

impl<'t> Channelwise<'t> {
    /// Creates a view of a tensor. Returns `None` if it is not f32 or has no such axis.
    pub(super) fn of(tensor: &'t Tensor, axis: usize) -> Option<Channelwise<'t>> {
        Channelwise::new(tensor.shape(), tensor.as_f32()?, axis)
    }

    /// Creates a view of values with this shape. Returns `None` if there is no such axis.
    pub(super) fn new(shape: &[usize], values: &'t [f32], axis: usize) -> Option<Channelwise<'t>> {
        let shape = shape.to_vec();
        let strides = strides(&shape);
        (axis < shape.len()).then_some(Channelwise { values, shape, strides, axis })
    }

    /// Returns the number of positions.
    pub(super) fn places(&self) -> usize {
        self.values.len() / self.shape[self.axis].max(1)
    }

    /// Returns the coordinates of a position, with 0 along the channel axis.
    fn coordinates(&self, mut place: usize) -> Vec<usize> {
        let mut coordinates = vec![0; self.shape.len()];
        for axis in (0..self.shape.len()).rev().filter(|axis| *axis != self.axis) {
            coordinates[axis] = place % self.shape[axis];
            place /= self.shape[axis];
        }
        coordinates
    }

    /// Returns the values of all channels at a position.
    pub(super) fn at(&self, place: usize) -> impl Iterator<Item = f32> + '_ {
        let coordinates = self.coordinates(place);
        let first: usize = coordinates.iter().zip(&self.strides).map(|(at, step)| at * step).sum();
        let step = self.strides[self.axis];
        (0..self.shape[self.axis]).map(move |channel| self.values[first + channel * step])
    }
}

/// The im2col patches of a layer's input: by input channel, then by element of the window.
pub(super) struct Patches<'t> {
    input: Channelwise<'t>,
    output: Channelwise<'t>,
    /// The window parameters of each spatial axis.
    slides: Vec<Slide>,
}

struct Slide {
    axis: usize,
    size: usize,
    stride: usize,
    dilation: usize,
    before: usize,
}

impl<'t> Patches<'t> {
    /// Creates the patches of a layer's input for each position of its output. Returns `None` if
    /// the tensors are not f32 or lack the channel axis.
    pub(super) fn new(
        model: &Model,
        layer: &Layer,
        input: &'t Tensor,
        output: &'t Tensor,
    ) -> Option<Patches<'t>> {
        let input = Channelwise::of(input, layer.channel_axes.0)?;
        let output = Channelwise::of(output, layer.channel_axes.1)?;
        let slides = match &model.graph.nodes[layer.node].operator {
            Operator::Conv(conv) => slides(&conv.window, &input, &output),
            _ => Vec::new(),
        };
        Some(Patches { input, output, slides })
    }

    /// Returns the number of output positions.
    pub(super) fn places(&self) -> usize {
        self.output.places()
    }

    /// Appends the patch of an output position.
    pub(super) fn append(&self, place: usize, patch: &mut Vec<f32>) {
        if self.slides.is_empty() {
            // All axes but the channel axis are the same as the output's, so positions match.
            patch.extend(self.input.at(place));
            return;
        }
        let coordinates = self.output.coordinates(place);
        let taps: usize = self.slides.iter().map(|slide| slide.size).product();
        let slid = |axis: usize| self.slides.iter().any(|slide| slide.axis == axis);
        let fixed: usize = (0..coordinates.len())
            .filter(|axis| *axis != self.input.axis && !slid(*axis))
            .map(|axis| coordinates[axis] * self.input.strides[axis])
            .sum();
        let offsets: Vec<Option<usize>> = (0..taps)
            .map(|mut tap| {
                self.slides.iter().rev().try_fold(fixed, |offset, slide| {
                    let element = tap % slide.size;
                    tap /= slide.size;
                    let reach = coordinates[slide.axis] * slide.stride + element * slide.dilation;
                    let at = reach.checked_sub(slide.before)?;
                    let inside = at < self.input.shape[slide.axis];
                    inside.then_some(offset + at * self.input.strides[slide.axis])
                })
            })
            .collect();
        let step = self.input.strides[self.input.axis];
        for channel in 0..self.input.shape[self.input.axis] {
            let value = |offset: &Option<usize>| {
                offset.map_or(0.0, |offset| self.input.values[offset + channel * step])
            };
            patch.extend(offsets.iter().map(value));
        }
    }
}

fn slides(window: &Window, input: &Channelwise<'_>, output: &Channelwise<'_>) -> Vec<Slide> {
    let rank = input.shape.len();
    let spatial = window.kernel.len();
    let last = if channel_axis(window.layout, rank) == rank - 1 { rank - 1 } else { rank };
    (0..spatial)
        .map(|at| {
            let axis = last - spatial + at;
            let (size, stride) = (window.kernel[at] as usize, window.strides[at] as usize);
            let dilation = window.dilations[at] as usize;
            let covered = output.shape[axis].saturating_sub(1) * stride + (size - 1) * dilation + 1;
            let total = covered.saturating_sub(input.shape[axis]);
            let before = match &window.padding {
                Padding::Valid => 0,
                Padding::Explicit(before, _) | Padding::ExplicitCeil(before, _) => {
                    before[at] as usize
                }
                Padding::SameUpper => total / 2,
                Padding::SameLower => total.div_ceil(2),
            };
            Slide { axis, size, stride, dilation, before }
        })
        .collect()
}
