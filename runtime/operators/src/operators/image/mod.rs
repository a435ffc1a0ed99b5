//! Sampling of images at given places.

mod grid;
mod region;

use crate::call::{Call, Operator};
use crate::error::Problem;
use crate::value::Value;

/// Returns the implementation of an operator of this family.
pub(super) fn find(domain: &str, name: &str) -> Option<Operator> {
    Some(match (domain, name) {
        ("", "AffineGrid") => grid::affine_grid,
        ("", "GridSample") => grid::grid_sample,
        ("", "ImageDecoder") => image_decoder,
        ("", "RoiAlign") => region::roi_align,
        _ => return None,
    })
}

/// Refuses to decode an image.
fn image_decoder(_: &Call<'_>) -> Result<Vec<Value>, Problem> {
    Err(Problem::Unsupported { reason: "images are decoded by the pre-processing of the bundle" })
}

/// Returns the elements next to a place on an axis with their weights. There are zeros outside of
/// the axis.
pub(super) fn linear(place: f64, size: usize) -> Vec<(usize, f64)> {
    let first = place.floor();
    let after = place - first;
    let elements = [(first, 1.0 - after), (first + 1.0, after)];
    let inside = elements.into_iter().filter(|(at, weight)| {
        let is_outside = *at < 0.0 || *at >= size as f64;
        *weight != 0.0 && !is_outside && size > 0
    });
    inside.map(|(at, weight)| (at as usize, weight)).collect()
}

/// Combines the weighted elements of each axis to those of a tensor: offsets and products of
/// weights.
pub(super) fn products(axes: &[Vec<(usize, f64)>], strides: &[usize]) -> Vec<(usize, f64)> {
    let mut combined = vec![(0, 1.0)];
    for (elements, stride) in axes.iter().zip(strides) {
        let next = combined.iter().flat_map(|(offset, product)| {
            elements.iter().map(move |(index, weight)| (offset + index * stride, product * weight))
        });
        combined = next.collect();
    }
    combined
}
