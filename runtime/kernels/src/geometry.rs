//! Shapes, and where a sliding window meets the image.

use core::ops::Range;

/// The shape of a block of activations, in the order height, width, channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Channels.
    pub channels: usize,
}

impl Image {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.height * self.width * self.channels
    }
}

/// A sliding window; index 0 is down, 1 is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Height and width.
    pub kernel: [usize; 2],
    /// Distance of neighbouring windows.
    pub stride: [usize; 2],
    /// Distance of neighbouring elements of a window, at least 1.
    pub dilation: [usize; 2],
    /// Rows above and columns to the left that lie outside the image.
    pub pad: [usize; 2],
}

impl Window {
    /// The elements of the window at output row (axis 0) or column (axis 1) `position`
    /// that lie inside an image of `size` rows or columns.
    #[inline]
    pub fn taps(&self, axis: usize, position: usize, size: usize) -> Taps {
        let dilation = self.dilation[axis];
        let (start, pad) = (position * self.stride[axis], self.pad[axis]);
        let first = pad.saturating_sub(start).div_ceil(dilation);
        let end = (size + pad).saturating_sub(start).div_ceil(dilation).min(self.kernel[axis]);
        Taps { range: first..end.max(first), start, pad, dilation }
    }
}

/// Elements of a window along one axis that lie inside the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taps {
    /// Which elements of the window; may be empty.
    pub range: Range<usize>,
    start: usize,
    pad: usize,
    dilation: usize,
}

impl Taps {
    /// The row or column of the image under element `tap` of the window, one of
    /// [`Taps::range`].
    #[inline]
    pub fn position(&self, tap: usize) -> usize {
        self.start + tap * self.dilation - self.pad
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taps_are_those_inside_the_image() {
        for (kernel, stride, dilation, pad) in
            [(3, 1, 1, 1), (3, 2, 1, 0), (5, 1, 2, 4), (1, 1, 1, 3), (2, 3, 4, 1), (7, 2, 3, 9)]
        {
            let window = Window {
                kernel: [kernel, 1],
                stride: [stride, 1],
                dilation: [dilation, 1],
                pad: [pad, 0],
            };
            for size in 1..12 {
                for position in 0..12 {
                    let taps = window.taps(0, position, size);
                    for tap in 0..kernel {
                        let at = (position * stride + tap * dilation) as isize - pad as isize;
                        let inside = (0..size as isize).contains(&at);
                        assert_eq!(taps.range.contains(&tap), inside);
                        assert!(!inside || taps.position(tap) == at as usize);
                    }
                }
            }
        }
    }
}
