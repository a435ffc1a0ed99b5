//! Grids of sampling places.

use super::products;
use crate::call::Call;
use crate::element_type::ElementType;
use crate::error::Problem;
use crate::meter;
use crate::operators::resize::{by_parts, cubic};
use crate::shape;
use crate::tensor::{Data, Element, Tensor, with_data};
use crate::value::Value;

/// Returns the places where an affine transformation samples an image.
pub(super) fn affine_grid(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let (theta, size) = (call.tensor(0)?, call.tensor(1)?.to_i64()?);
    let align_corners = call.flag("align_corners", false)?;
    let size: Vec<usize> = size.into_iter().map(shape::size).collect::<Result<_, _>>()?;
    let [images, _, spatial @ ..] = &size[..] else {
        return Err(Problem::Invalid(format!(
            "the size is {size:?}; it must have 4 or 5 elements"
        )));
    };
    let rank = spatial.len();
    if !(2..=3).contains(&rank) || theta.shape() != [*images, rank, rank + 1] {
        return Err(Problem::InputShape {
            index: 0,
            shape: theta.shape().to_vec(),
            expected: format!("be [{images}, {rank}, {}], for 2 or 3 spatial axes", rank + 1),
        });
    }
    let mut shape = vec![*images];
    shape.extend(spatial);
    shape.push(rank);
    let mut places = Vec::with_capacity(shape::elements(&shape)?);
    // Along each axis, -1 and 1 are the centers or the outer edges of the outermost elements.
    let coordinate = |index: usize, size: usize| match align_corners {
        true if size <= 1 => -1.0,
        true => 2.0 * index as f64 / (size as f64 - 1.0) - 1.0,
        false => (2.0 * index as f64 + 1.0) / size as f64 - 1.0,
    };
    let theta = theta.to_f64()?;
    for matrix in theta.chunks(rank * (rank + 1)) {
        for at in shape::indices(spatial) {
            let place = at.iter().zip(spatial).map(|(index, size)| coordinate(*index, *size));
            let place: Vec<f64> = place.rev().chain([1.0]).collect();
            places.extend(matrix.chunks(rank + 1).map(|row| {
                row.iter().zip(&place).map(|(factor, along)| factor * along).sum::<f64>()
            }));
        }
    }
    Ok(vec![Tensor::from_f64(call.tensor(0)?.element(), shape, places)?.into()])
}

/// What is found outside of an image.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Padding {
    Zeros,
    Border,
    Reflection,
}

/// How elements around a place are weighted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Nearest,
    Linear,
    Cubic,
}

/// How an image is sampled.
struct Sampling {
    mode: Mode,
    padding: Padding,
    align_corners: bool,
}

impl Sampling {
    fn read(call: &Call<'_>) -> Result<Self, Problem> {
        // Version 16 has the names for two axes.
        let mode = match call.text("mode")?.unwrap_or("linear") {
            "nearest" => Mode::Nearest,
            "linear" | "bilinear" => Mode::Linear,
            "cubic" | "bicubic" => Mode::Cubic,
            other => {
                return Err(Problem::AttributeValue {
                    name: "mode",
                    value: format!("{other:?}"),
                    accepted: "nearest, linear, bilinear, cubic or bicubic",
                });
            }
        };
        let padding = match call.text("padding_mode")?.unwrap_or("zeros") {
            "zeros" => Padding::Zeros,
            "border" => Padding::Border,
            "reflection" => Padding::Reflection,
            other => {
                return Err(Problem::AttributeValue {
                    name: "padding_mode",
                    value: format!("{other:?}"),
                    accepted: "zeros, border or reflection",
                });
            }
        };
        Ok(Self { mode, padding, align_corners: call.flag("align_corners", false)? })
    }

    /// Returns the elements of an axis and their weights for a normalized coordinate. Elements
    /// that are zeros by the padding mode are left out.
    fn weighted(&self, normalized: f64, size: usize) -> Vec<(usize, f64)> {
        if size == 0 {
            return vec![];
        }
        let length = size as f64;
        let (low, high) =
            if self.align_corners { (0.0, length - 1.0) } else { (-0.5, length - 0.5) };
        let mut place = low + (normalized + 1.0) / 2.0 * (high - low);
        if self.mode == Mode::Nearest {
            place = place.round_ties_even();
        }
        if place < low || place > high {
            place = match self.padding {
                Padding::Zeros => place,
                Padding::Border => place.clamp(0.0, length - 1.0),
                Padding::Reflection => reflected(place, low, high),
            };
        }
        let first = place.floor();
        let after = place - first;
        let elements: &[(f64, f64)] = match self.mode {
            Mode::Nearest => &[(place, 1.0)],
            Mode::Linear => &[(first, 1.0 - after), (first + 1.0, after)],
            Mode::Cubic => &[-1.0, 0.0, 1.0, 2.0]
                .map(|step| (first + step, cubic(CUBIC_COEFFICIENT, step - after))),
        };
        let elements = elements.iter().filter(|(_, weight)| *weight != 0.0);
        let found = elements.filter_map(|(at, weight)| {
            let at = match self.padding {
                Padding::Zeros if *at < 0.0 || *at >= length => return None,
                Padding::Reflection if *at < low || *at > high => reflected(*at, low, high),
                _ => *at,
            };
            Some((at.clamp(0.0, length - 1.0) as usize, *weight))
        });
        found.collect()
    }
}

/// The coefficient of the cubic spline.
const CUBIC_COEFFICIENT: f64 = -0.75;

/// Reflects a coordinate at both ends of a range until it is inside.
fn reflected(place: f64, low: f64, high: f64) -> f64 {
    let range = high - low;
    if range <= 0.0 {
        return low;
    }
    let around = (place - low).rem_euclid(2.0 * range);
    low + if around > range { 2.0 * range - around } else { around }
}

/// Samples images at the places of a grid.
pub(super) fn grid_sample(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let (x, grid) = (call.tensor(0)?, call.tensor(1)?);
    let sampling = Sampling::read(call)?;
    let [images, channels, spatial @ ..] = x.shape() else {
        let expected = "have a batch axis and a channel axis".into();
        return Err(Problem::InputShape { index: 0, shape: x.shape().to_vec(), expected });
    };
    let sampled = match grid.shape() {
        [batch, sampled @ .., rank]
            if batch == images && *rank == spatial.len() && sampled.len() == spatial.len() =>
        {
            sampled
        }
        found => {
            return Err(Problem::InputShape {
                index: 1,
                shape: found.to_vec(),
                expected: format!("be [{images}, ..., {0}] with {0} sizes between", spatial.len()),
            });
        }
    };
    let shape: Vec<usize> = [images, channels].into_iter().chain(sampled).copied().collect();
    if shape::elements(&shape)? == 0 {
        return Ok(vec![x.select(shape, std::iter::empty())?.into()]);
    }
    let strides = shape::strides(spatial);
    let rank = spatial.len().max(1);
    let along = match sampling.mode {
        Mode::Nearest => 1usize,
        Mode::Linear => 2,
        Mode::Cubic => 4,
    };
    let neighbors = along.saturating_pow(spatial.len() as u32);
    let neighbors = shape::elements(&[&grid.shape()[..grid.rank() - 1], &[neighbors]].concat())?;
    meter::spend((neighbors as u64).saturating_mul(*channels as u64))?;
    let places = grid.to_f64()?;
    let places = places.chunks(rank).map(|place| {
        // The coordinates of a place begin with that of the last axis.
        let axes = place.iter().rev().zip(spatial);
        let axes: Vec<_> = axes.map(|(along, size)| sampling.weighted(*along, *size)).collect();
        products(&axes, &strides)
    });
    let samples = Samples {
        places: places.collect(),
        count: shape::elements(sampled)?,
        channels: *channels,
        plane: shape::elements(spatial)?,
    };
    let result = match sampling.mode {
        Mode::Nearest => samples.select(x, shape)?,
        _ => by_parts(x, |x| samples.average(x, shape.clone()))?,
    };
    Ok(vec![result.into()])
}

/// The elements that make up samples.
struct Samples {
    /// The offsets within a channel and the weights, for each place of all images.
    places: Vec<Vec<(usize, f64)>>,
    /// The number of places of an image.
    count: usize,
    /// The number of channels.
    channels: usize,
    /// The number of elements of a channel.
    plane: usize,
}

impl Samples {
    /// Returns the offset of each channel and its places, in the order of the output.
    fn channels(&self) -> impl Iterator<Item = (usize, &[Vec<(usize, f64)>])> {
        self.places.chunks(self.count.max(1)).enumerate().flat_map(move |(image, places)| {
            (0..self.channels)
                .map(move |channel| ((image * self.channels + channel) * self.plane, places))
        })
    }

    /// Returns the first element of each sample; zero if it has none.
    fn select(&self, x: &Tensor, shape: Vec<usize>) -> Result<Tensor, Problem> {
        fn zero<T: Element>(_: &[T]) -> Data {
            T::store(vec![T::default()])
        }
        let zero = with_data!(x.data(), values => zero(values));
        let zero = Tensor::with_type(x.element(), vec![1], zero)?;
        let offsets = self.channels().flat_map(|(start, places)| {
            places.iter().map(move |place| place.first().map_or(x.len(), |(at, _)| start + at))
        });
        x.followed_by(&zero)?.select(shape, offsets)
    }

    /// Returns the weighted sum of each sample.
    fn average(&self, x: &Tensor, shape: Vec<usize>) -> Result<Tensor, Problem> {
        let values = x.to_f64()?;
        let mut sums = Vec::with_capacity(shape::elements(&shape)?);
        for (start, places) in self.channels() {
            let channel = values.get(start..).unwrap_or_default();
            sums.extend(places.iter().map(|place| {
                let terms =
                    place.iter().filter_map(|(at, weight)| Some(weight * channel.get(*at)?));
                terms.sum::<f64>()
            }));
        }
        match x.element() {
            ElementType::Text => Err(Problem::ElementType {
                found: ElementType::Text,
                accepted: "a number if mode is not nearest",
            }),
            element => Tensor::from_f64(element, shape, sums),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_outside_are_zeros_or_reflected() {
        let sampling = |mode, padding, align_corners| Sampling { mode, padding, align_corners };
        let zeros = sampling(Mode::Linear, Padding::Zeros, false);
        assert_eq!(zeros.weighted(1.0, 4), [(3, 0.5)]);
        assert_eq!(zeros.weighted(f64::INFINITY, 4), []);
        let reflection = sampling(Mode::Nearest, Padding::Reflection, true);
        assert_eq!(reflection.weighted(5.0, 3), [(2, 1.0)]);
        assert_eq!(reflection.weighted(2.0, 3), [(1, 1.0)]);
        assert_eq!(reflection.weighted(7.0, 1), [(0, 1.0)]);
    }
}
