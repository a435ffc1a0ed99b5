//! The channel axis of a value.

use hardtack_bundle::graph::{Dim, ImageLayout, Operator, Reshape, Window};

use super::Unit;

/// Channels are not tracked through a reshape of more elements.
const LARGEST: usize = 1 << 24;

/// The channel axis of a value, and the unit of each channel.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Layout {
    /// The channel axis.
    pub axis: usize,
    /// The unit of each index along the axis.
    pub units: Vec<Unit>,
}

/// Returns the channels after a sliding window, or `None` if it slides along the channel axis.
fn in_window(layout: Layout, window: &Window, rank: usize) -> Option<Layout> {
    (channel_axis(window.layout, rank) == layout.axis).then_some(layout)
}

/// Returns the channel axis of an image layout.
pub(crate) fn channel_axis(layout: ImageLayout, rank: usize) -> usize {
    match layout {
        ImageLayout::Nchw => 1,
        ImageLayout::Chw => 0,
        ImageLayout::Nhwc | ImageLayout::Hwc => rank - 1,
    }
}

/// Returns the channels after a reshape, or `None` if they vary along several axes.
fn reshaped(layout: Layout, reshape: &Reshape) -> Option<Layout> {
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

/// Returns the channels after an operator that copies, selects or moves elements, or that works on
/// each channel separately. Returns `None` for other operators.
pub(crate) fn rearranged(layout: Layout, operator: &Operator, rank: usize) -> Option<Layout> {
    match operator {
        Operator::MaxPool(pool) => in_window(layout, &pool.window, rank),
        Operator::SumPool(pool) => in_window(layout, &pool.window, rank),
        Operator::NearestUpsample(factors) => {
            Some(layout).filter(|at| factors.get(at.axis) == Some(&1))
        }
        Operator::Downsample(down) => Some(layout).filter(|at| at.axis != down.axis as usize),
        Operator::Slice(slice) => {
            let Layout { axis, units } = layout;
            if axis != slice.axis as usize {
                return Some(Layout { axis, units });
            }
            let [start, end] = [&slice.start, &slice.end].map(|dim| dim.value());
            let range = usize::try_from(start?).ok()?..usize::try_from(end?).ok()?;
            Some(Layout { axis, units: units.get(range)?.to_vec() })
        }
        Operator::AddAxis(new) => {
            let Layout { axis, units } = layout;
            Some(Layout { axis: axis + usize::from(*new as usize <= axis), units })
        }
        Operator::RemoveAxis(old) => {
            let Layout { axis, units } = Some(layout).filter(|at| at.axis != *old as usize)?;
            Some(Layout { axis: axis - usize::from((*old as usize) < axis), units })
        }
        Operator::MoveAxis((from, to)) => {
            let Layout { axis, units } = layout;
            let mut axes: Vec<usize> = (0..rank).collect();
            let moved = axes.remove(*from as usize);
            axes.insert(*to as usize, moved);
            Some(Layout { axis: axes.iter().position(|old| *old == axis)?, units })
        }
        Operator::Reshape(reshape) => reshaped(layout, reshape),
        _ => None,
    }
}
