//! The elements along an axis that an element of the resized axis is made of.

use crate::error::Problem;
use crate::meter::Tally;
use crate::shape;

/// How a coordinate of the resized axis is converted to one of the original axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transformation {
    HalfPixel,
    HalfPixelSymmetric,
    PytorchHalfPixel,
    AlignCorners,
    Asymmetric,
    TfHalfPixelForNn,
    TfCropAndResize,
}

impl Transformation {
    /// Returns the transformation with a name.
    pub(super) fn named(name: &str) -> Result<Self, Problem> {
        Ok(match name {
            "half_pixel" => Self::HalfPixel,
            "half_pixel_symmetric" => Self::HalfPixelSymmetric,
            "pytorch_half_pixel" => Self::PytorchHalfPixel,
            "align_corners" => Self::AlignCorners,
            "asymmetric" => Self::Asymmetric,
            "tf_half_pixel_for_nn" => Self::TfHalfPixelForNn,
            "tf_crop_and_resize" => Self::TfCropAndResize,
            other => {
                return Err(Problem::AttributeValue {
                    name: "coordinate_transformation_mode",
                    value: format!("{other:?}"),
                    accepted: "a mode that the specification of Resize lists",
                });
            }
        })
    }
}

/// The element that is nearest to a coordinate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rounding {
    PreferFloor,
    PreferCeil,
    Floor,
    Ceil,
}

impl Rounding {
    /// Returns the rounding with a name.
    pub(super) fn named(name: &str) -> Result<Self, Problem> {
        Ok(match name {
            "round_prefer_floor" => Self::PreferFloor,
            "round_prefer_ceil" => Self::PreferCeil,
            "floor" => Self::Floor,
            "ceil" => Self::Ceil,
            other => {
                return Err(Problem::AttributeValue {
                    name: "nearest_mode",
                    value: format!("{other:?}"),
                    accepted: "round_prefer_floor, round_prefer_ceil, floor or ceil",
                });
            }
        })
    }

    fn round(self, place: f64) -> f64 {
        match self {
            Self::PreferFloor => (place - 0.5).ceil(),
            Self::PreferCeil => (place + 0.5).floor(),
            Self::Floor => place.floor(),
            Self::Ceil => place.ceil(),
        }
    }
}

/// How much the elements around a coordinate weigh.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Filter {
    /// Only the nearest element counts.
    Nearest(Rounding),
    /// Only the nearest element counts: that before, or that after if the axis shrinks.
    Simple,
    /// The weight falls linearly to 0 at distance 1.
    Linear,
    /// The weight is a cubic spline with this coefficient, which ends at distance 2.
    Cubic(f64),
}

impl Filter {
    /// Returns the distance at which weights end.
    fn radius(self) -> f64 {
        if let Self::Cubic(_) = self { 2.0 } else { 1.0 }
    }

    /// Returns the weight at a distance.
    fn weight(self, distance: f64) -> f64 {
        match self {
            Self::Cubic(a) => cubic(a, distance),
            _ => (1.0 - distance.abs()).max(0.0),
        }
    }
}

/// Returns the weight that cubic interpolation with a coefficient gives at a distance.
pub(in crate::operators) fn cubic(a: f64, distance: f64) -> f64 {
    match distance.abs() {
        x if x <= 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
        x if x < 2.0 => ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a,
        x if x >= 2.0 => 0.0,
        nan => nan,
    }
}

/// The options of a resize that are the same for all axes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Options {
    pub(super) transformation: Transformation,
    pub(super) filter: Filter,
    /// Leaves out elements outside of the axis, instead of repeating the outermost ones.
    pub(super) exclude_outside: bool,
    /// Stretches the filter where the axis shrinks.
    pub(super) antialias: bool,
}

/// An axis and what it is resized to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Axis {
    /// The number of elements.
    pub(super) input: usize,
    /// The number of elements of the resized axis.
    pub(super) output: usize,
    /// The number of elements of the resized axis; that before rounding if a scale is given.
    pub(super) length: f64,
    /// The scale as a fraction: exactly two sizes, or a number in single precision and 1.
    pub(super) scale: (f64, f64),
    /// Whether the scale is a number in single precision.
    pub(super) is_single: bool,
    /// The part of the axis that is resized, where the transformation crops.
    pub(super) region: (f64, f64),
}

/// Weighted elements; `None` stands for the extrapolation value.
pub(super) type Weighted = Option<Vec<(usize, f64)>>;

impl Axis {
    /// Returns an axis that keeps its size.
    pub(super) fn kept(size: usize) -> Self {
        Self {
            input: size,
            output: size,
            length: size as f64,
            scale: (1.0, 1.0),
            is_single: false,
            region: (0.0, 1.0),
        }
    }

    /// Returns whether every element is that of the original axis.
    pub(super) fn is_identity(&self, weighted: &[Weighted]) -> bool {
        self.input == weighted.len()
            && weighted.iter().enumerate().all(|(index, elements)| {
                elements.as_ref().is_some_and(|elements| elements[..] == [(index, 1.0)])
            })
    }

    /// Returns the elements that each element of the resized axis is made of.
    pub(super) fn weighted(&self, options: &Options) -> Result<Vec<Weighted>, Problem> {
        let reach = 2.0 * options.filter.radius() / self.stretch(options) + 2.0;
        let mut tally = Tally::default();
        // Each list takes memory by itself.
        shape::elements(&[self.output, 8])?;
        let weighted = (0..self.output).map(|index| {
            tally.spend(reach as usize)?;
            Ok(self.at(index as f64, options))
        });
        weighted.collect()
    }

    /// Returns by how much filters are narrower than distances in the input.
    fn stretch(&self, options: &Options) -> f64 {
        let (numerator, denominator) = self.scale;
        if options.antialias { (numerator / denominator).min(1.0) } else { 1.0 }
    }

    fn at(&self, index: f64, options: &Options) -> Weighted {
        let place = self.place(index, options);
        let last = self.input as f64 - 1.0;
        if options.transformation == Transformation::TfCropAndResize
            && !(0.0..=last).contains(&place)
        {
            return None;
        }
        let (numerator, denominator) = self.scale;
        let rounding = match options.filter {
            Filter::Nearest(rounding) => rounding,
            Filter::Simple if numerator < denominator => Rounding::Ceil,
            Filter::Simple => Rounding::Floor,
            _ => return Some(self.filtered(place, options)),
        };
        Some(vec![(rounding.round(place).clamp(0.0, last) as usize, 1.0)])
    }

    /// Divides by the scale.
    fn unscaled(&self, index: f64) -> f64 {
        let (numerator, denominator) = self.scale;
        index * denominator / numerator
    }

    /// Rounds a quotient by a scale in single precision like one where only the nearest element
    /// counts: with the scale 1/3, element 1 comes from place 3, not from 2.99999991.
    fn rounded(&self, place: f64, options: &Options) -> f64 {
        match options.filter {
            Filter::Nearest(_) | Filter::Simple if self.is_single => f64::from(place as f32),
            _ => place,
        }
    }

    /// Returns the coordinate in the original axis.
    fn place(&self, index: f64, options: &Options) -> f64 {
        let last = self.input as f64 - 1.0;
        let rounded = |index| self.rounded(self.unscaled(index), options);
        match options.transformation {
            Transformation::HalfPixel => rounded(index + 0.5) - 0.5,
            Transformation::HalfPixelSymmetric => {
                // The centers of both axes coincide.
                let center = self.input as f64 / 2.0;
                let offset = center - self.unscaled(self.output as f64 / 2.0);
                self.rounded(offset + self.unscaled(index + 0.5) - 0.5, options)
            }
            Transformation::PytorchHalfPixel if self.output <= 1 => 0.0,
            Transformation::PytorchHalfPixel => rounded(index + 0.5) - 0.5,
            Transformation::AlignCorners if self.output <= 1 => 0.0,
            // The node tests take the length that a scale gives before it is rounded.
            Transformation::AlignCorners => index * last / (self.length - 1.0),
            Transformation::Asymmetric => rounded(index),
            Transformation::TfHalfPixelForNn => rounded(index + 0.5),
            Transformation::TfCropAndResize => {
                let (start, end) = self.region;
                match self.output {
                    0 | 1 => 0.5 * (start + end) * last,
                    _ => start * last + index * (end - start) * last / (self.length - 1.0),
                }
            }
        }
    }

    /// Returns the elements around a coordinate with the weights of a filter.
    fn filtered(&self, place: f64, options: &Options) -> Vec<(usize, f64)> {
        let stretch = self.stretch(options);
        let radius = options.filter.radius() / stretch;
        let last = self.input as f64 - 1.0;
        let mut weighted: Vec<(usize, f64)> = Vec::new();
        let (mut at, end) = ((place - radius).ceil(), (place + radius).floor());
        while at <= end {
            let weight = options.filter.weight((at - place) * stretch);
            let is_outside = at < 0.0 || at > last;
            if weight != 0.0 && !(is_outside && options.exclude_outside) {
                let index = at.clamp(0.0, last) as usize;
                match weighted.last_mut() {
                    Some((other, sum)) if *other == index => *sum += weight,
                    _ => weighted.push((index, weight)),
                }
            }
            at += 1.0;
        }
        if weighted.is_empty() {
            return vec![(place.clamp(0.0, last) as usize, 1.0)];
        }
        if options.antialias || options.exclude_outside {
            let sum: f64 = weighted.iter().map(|(_, weight)| weight).sum();
            weighted.iter_mut().for_each(|(_, weight)| *weight /= sum);
        }
        weighted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The elements that a nearest resize by a scale takes.
    fn taken(
        input: usize,
        scale: f32,
        transformation: Transformation,
        filter: Filter,
    ) -> Vec<usize> {
        let length = input as f32 * scale;
        let axis = Axis {
            output: length as usize,
            length: length.into(),
            scale: (scale.into(), 1.0),
            is_single: true,
            ..Axis::kept(input)
        };
        let options = Options { transformation, filter, exclude_outside: false, antialias: false };
        axis.weighted(&options)
            .unwrap()
            .into_iter()
            .flatten()
            .flatten()
            .map(|(index, _)| index)
            .collect()
    }

    #[test]
    fn scales_are_single_precision() {
        let floor = Filter::Nearest(Rounding::Floor);
        assert_eq!(taken(9, 1.0 / 3.0, Transformation::Asymmetric, floor), [0, 3, 6]);
        assert_eq!(taken(10, 0.7, Transformation::Asymmetric, floor).len(), 7);
    }

    #[test]
    fn the_first_version_rounds_by_direction() {
        assert_eq!(taken(10, 0.6, Transformation::Asymmetric, Filter::Simple), [0, 2, 4, 5, 7, 9]);
        assert_eq!(taken(3, 1.5, Transformation::Asymmetric, Filter::Simple), [0, 0, 1, 2]);
    }
}
