//! Where a value has its channels.

use hardtack_bundle::graph::{Dim, ImageLayout, Reshape, Window};

/// A channel by its number. Channels that can only go together have the same.
pub type Unit = usize;

/// Every channel that has to stay.
pub const KEPT: Unit = 0;

/// Channels are not followed through a reshape of more elements.
const LARGEST: usize = 1 << 24;

/// The axis of a value's channels, and the unit of each element of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    /// The axis.
    pub axis: usize,
    /// One for each element.
    pub units: Vec<Unit>,
}

/// The channels after a window slid over an image; `None` where it slides over them.
pub fn in_window(layout: Layout, window: &Window, rank: usize) -> Option<Layout> {
    (channel_axis(window.layout, rank) == layout.axis).then_some(layout)
}

/// Where an image has its channels.
pub fn channel_axis(layout: ImageLayout, rank: usize) -> usize {
    match layout {
        ImageLayout::Nchw => 1,
        ImageLayout::Chw => 0,
        ImageLayout::Nhwc | ImageLayout::Hwc => rank - 1,
    }
}

/// The channels after a reshape; `None` where they vary along several axes.
pub fn reshaped(layout: Layout, reshape: &Reshape) -> Option<Layout> {
    let Layout { axis, units } = layout;
    let first = reshape.axis as usize;
    if axis < first {
        return Some(Layout { axis, units });
    }
    if axis >= first + reshape.from.len() {
        return Some(Layout { axis: axis - reshape.from.len() + reshape.to.len(), units });
    }
    let numbers = |dims: &[Dim]| -> Option<Vec<usize>> {
        dims.iter().map(|dim| usize::try_from(dim.value()?).ok()).collect()
    };
    let (from, to) = (numbers(&reshape.from)?, numbers(&reshape.to)?);
    let within: usize = from[axis - first + 1..].iter().product();
    let elements = from.iter().try_fold(1usize, |all, size| all.checked_mul(*size))?;
    if elements == 0 || elements > LARGEST {
        return None;
    }
    let unit = |element: usize| units[element / within % units.len()];
    (0..to.len()).find_map(|axis| {
        let within: usize = to[axis + 1..].iter().product();
        let place = |element: usize| element / within % to[axis];
        let along: Vec<Unit> = (0..to[axis]).map(|at| unit(at * within)).collect();
        let alone = (0..elements).all(|element| unit(element) == along[place(element)]);
        alone.then_some(Layout { axis: first + axis, units: along })
    })
}
