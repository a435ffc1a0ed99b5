//! Strided copies from and to images with gaps between their rows.

use alloc::vec::Vec;

use hardtack_kernels::StridedCopy;

use super::layout::Shape;

/// The side of a strided copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    Target,
}

/// Adapts a strided copy of a contiguous tensor to an image with gaps between its rows on one
/// side. Offsets are relative to the first element of the image. Returns `None` if the result
/// would need more than six dimensions or irregular strides.
pub(super) fn remap(copy: StridedCopy, side: Side, shape: &Shape) -> Option<StridedCopy> {
    let row = shape.columns * shape.channels;
    let pitch = shape.pitch();
    if row == pitch {
        return Some(copy);
    }
    let (offset, strides, others) = match side {
        Side::Source => (copy.source_offset, copy.source_strides, copy.target_strides),
        Side::Target => (copy.target_offset, copy.target_strides, copy.source_strides),
    };
    // Dimensions: size, stride on this side, stride on the other side.
    let mut dims: Vec<[usize; 3]> = Vec::new();
    let mut last = offset % row;
    for ((&size, &stride), &other) in copy.dims.iter().zip(&strides).zip(&others) {
        let mut push = |size: usize, stride: usize, other: usize| {
            if size > 1 {
                dims.push([size, stride, other]);
            }
        };
        if stride % row == 0 {
            push(size, stride / row * pitch, other);
        } else if (size - 1) * stride < row {
            last += (size - 1) * stride;
            push(size, stride, other);
        } else {
            // The dimension spans several rows. Split it in two if it visits the same columns
            // of each row.
            let within = row / stride;
            if !row.is_multiple_of(stride) || !size.is_multiple_of(within) {
                return None;
            }
            last += (within - 1) * stride;
            push(size / within, pitch, other * within);
            push(within, stride, other);
        }
    }
    if last >= row || dims.len() > 6 {
        return None;
    }
    let mut remapped =
        StridedCopy { dims: [1; 6], source_strides: [0; 6], target_strides: [0; 6], ..copy };
    let first = 6 - dims.len();
    for (place, [size, stride, other]) in (first..).zip(dims) {
        remapped.dims[place] = size;
        let (this, that) = match side {
            Side::Source => (&mut remapped.source_strides, &mut remapped.target_strides),
            Side::Target => (&mut remapped.target_strides, &mut remapped.source_strides),
        };
        (this[place], that[place]) = (stride, other);
    }
    let offset = offset / row * pitch + offset % row;
    match side {
        Side::Source => remapped.source_offset = offset,
        Side::Target => remapped.target_offset = offset,
    }
    Some(remapped)
}
