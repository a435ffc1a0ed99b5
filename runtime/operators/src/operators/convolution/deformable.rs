//! Convolution whose taps are displaced.

use super::product::Product;
use super::window::{Attributes, Axis, Layout};
use super::{check_bias, groups, same_floats, same_rank};
use crate::call::Call;
use crate::error::Problem;
use crate::meter;
use crate::operators::image::{linear, products};
use crate::shape;
use crate::tensor::Tensor;
use crate::value::Value;

/// Convolves elements that are interpolated at displaced taps, and adds a bias.
pub(super) fn deform_conv(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let (x, w, offset) = (call.tensor(0)?, call.tensor(1)?, call.tensor(2)?);
    let (bias, mask) = (call.optional_tensor(3)?, call.optional_tensor(4)?);
    let floats = same_floats(&[Some(x), Some(w), Some(offset), bias, mask])?;
    same_rank(x, w, 1)?;
    let ([images, channels, spatial @ ..], [rows, depth, kernel @ ..]) = (x.shape(), w.shape())
    else {
        return Err(Problem::Invalid("a convolution has a spatial axis".into()));
    };
    let groups = groups(call, x, *depth, *rows)?;
    let bias = bias.map(Tensor::to_f64).transpose()?;
    check_bias(bias.as_ref(), *rows)?;
    let displaced = offset_groups(call, *channels)?;
    let axes = Attributes::of_weights(call, w.shape())?.axes(spatial, false)?;
    let output: Vec<usize> = axes.iter().map(|axis| axis.output).collect();
    let shape: Vec<usize> = [*images, *rows].into_iter().chain(output.iter().copied()).collect();
    if shape::elements(&shape)? == 0 {
        return Ok(vec![Tensor::from_f64(floats, shape, vec![])?.into()]);
    }
    let (taps, pixels) = (shape::elements(kernel)?, shape::elements(&output)?);
    let check = |index, tensor: &Tensor, per_tap: usize| {
        let expected = [*images, shape::elements(&[displaced, taps, per_tap])?];
        match tensor.shape() {
            [a, b, rest @ ..] if [*a, *b] == expected && *rest == output => Ok(()),
            found => Err(Problem::InputShape {
                index,
                shape: found.to_vec(),
                expected: format!("be {expected:?}, followed by the output's {output:?}"),
            }),
        }
    };
    check(2, offset, spatial.len())?;
    mask.map_or(Ok(()), |mask| check(4, mask, 1))?;
    let sampler = Sampler {
        axes: &axes,
        channels: channels / displaced,
        plane: shape::elements(spatial)?,
        taps,
        pixels,
    };
    // The elements of a sample are at most two along each axis.
    let neighbors = shape::elements(&[taps, pixels, 2usize.saturating_pow(axes.len() as u32)])?;
    let (x, offset, w) = (x.to_f64()?, offset.to_f64()?, w.to_f64()?);
    let mask = mask.map(Tensor::to_f64).transpose()?;
    let size = shape::elements(&[*channels, taps, pixels])?;
    let mut result = Vec::with_capacity(shape::elements(&shape)?);
    let points = Layout::of_points(pixels);
    for image in 0..*images {
        let mut samples = Vec::with_capacity(size);
        for index in image * displaced..(image + 1) * displaced {
            meter::spend((neighbors as u64).saturating_mul(sampler.channels as u64 + 1))?;
            sampler.sample(index, &x, &offset, mask.as_deref(), &mut samples);
        }
        let product = Product {
            input: &samples,
            images: 1,
            groups,
            depth: depth * taps,
            layout: &points,
            weights: &w,
            rows: rows / groups,
            bias: bias.as_deref(),
        };
        result.extend(product.evaluate::<f64>()?);
    }
    Ok(vec![Tensor::from_f64(floats, shape, result)?.into()])
}

/// Returns the number of groups of channels that share displacements.
fn offset_groups(call: &Call<'_>, channels: usize) -> Result<usize, Problem> {
    match shape::size(call.int_or("offset_group", 1)?)? {
        groups if groups > 0 && channels.is_multiple_of(groups) => Ok(groups),
        groups => Err(Problem::AttributeValue {
            name: "offset_group",
            value: groups.to_string(),
            accepted: "a positive divisor of the number of input channels",
        }),
    }
}

/// Interpolates elements at displaced taps.
struct Sampler<'a> {
    axes: &'a [Axis],
    /// The number of channels that share displacements.
    channels: usize,
    /// The number of elements of a channel.
    plane: usize,
    /// The number of taps.
    taps: usize,
    /// The number of elements of an output channel.
    pixels: usize,
}

impl Sampler<'_> {
    /// Appends the samples of the channels that share displacements, of shape
    /// `[channels, taps, pixels]`. `index` counts such channels over all images.
    fn sample(
        &self,
        index: usize,
        x: &[f64],
        offset: &[f64],
        mask: Option<&[f64]>,
        samples: &mut Vec<f64>,
    ) {
        let inputs: Vec<usize> = self.axes.iter().map(|axis| axis.input).collect();
        let strides = shape::strides(&inputs);
        let kernel: Vec<usize> = self.axes.iter().map(|axis| axis.kernel).collect();
        let output: Vec<usize> = self.axes.iter().map(|axis| axis.output).collect();
        let mut sources = Vec::with_capacity(self.taps * self.pixels);
        for (tap, at_tap) in shape::indices(&kernel).enumerate() {
            for (pixel, at_pixel) in shape::indices(&output).enumerate() {
                let tap = index * self.taps + tap;
                let positions = self.axes.iter().enumerate().map(|(axis, along)| {
                    let entry = (tap * self.axes.len() + axis) * self.pixels + pixel;
                    let start = (at_pixel[axis] * along.stride) as f64 - along.before as f64;
                    let displaced = offset.get(entry).copied().unwrap_or(0.0);
                    let position = start + (at_tap[axis] * along.dilation) as f64 + displaced;
                    linear(position, along.input)
                });
                let positions: Vec<_> = positions.collect();
                let factor = mask.and_then(|mask| mask.get(tap * self.pixels + pixel));
                sources.push((products(&positions, &strides), factor.copied().unwrap_or(1.0)));
            }
        }
        for channel in index * self.channels..(index + 1) * self.channels {
            let x = x.get(channel * self.plane..).unwrap_or_default();
            samples.extend(sources.iter().map(|(weighted, factor)| {
                let terms = weighted.iter().filter_map(|(at, weight)| Some(weight * x.get(*at)?));
                terms.sum::<f64>() * factor
            }));
        }
    }
}
