//! Image shapes and sliding windows.

use core::ops::Range;

/// The shape of an image in HWC order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// The number of rows.
    pub height: usize,
    /// The number of columns.
    pub width: usize,
    /// The number of channels.
    pub channels: usize,
}

impl Image {
    /// Returns the number of elements.
    pub fn elements(&self) -> usize {
        self.height * self.width * self.channels
    }
}

/// A sliding window. Index 0 of each array is the vertical axis, 1 the horizontal axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The height and width.
    pub kernel: [usize; 2],
    /// The distance between adjacent windows.
    pub stride: [usize; 2],
    /// The distance between adjacent window elements, at least 1.
    pub dilation: [usize; 2],
    /// The padding above and to the left of the image.
    pub pad: [usize; 2],
}

impl Window {
    /// Returns the elements inside an image of `size` rows (axis 0) or columns (axis 1), of the
    /// window at output row or column `position`.
    ///
    /// # Examples
    ///
    /// ```
    /// use hardtack_kernels::Window;
    ///
    /// // A window of 3 rows with padding 1: the first element of the first window is padding.
    /// let window = Window { kernel: [3, 3], stride: [1, 1], dilation: [1, 1], pad: [1, 1] };
    /// let taps = window.taps(0, 0, 4);
    /// assert_eq!(taps.range, 1..3);
    /// assert_eq!(taps.position(1), 0);
    /// ```
    #[inline]
    pub fn taps(&self, axis: usize, position: usize, size: usize) -> Taps {
        let dilation = self.dilation[axis];
        let (start, pad) = (position * self.stride[axis], self.pad[axis]);
        let first = pad.saturating_sub(start).div_ceil(dilation);
        let end = (size + pad).saturating_sub(start).div_ceil(dilation).min(self.kernel[axis]);
        Taps { range: first..end.max(first), start, pad, dilation }
    }
}

/// The elements of a window along one axis that are inside the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taps {
    /// The indices of the elements within the window; may be empty.
    pub range: Range<usize>,
    start: usize,
    pad: usize,
    dilation: usize,
}

impl Taps {
    /// Returns the image row or column of window element `tap`, which must be in [`Taps::range`].
    #[inline]
    pub fn position(&self, tap: usize) -> usize {
        self.start + tap * self.dilation - self.pad
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taps_are_exactly_the_elements_inside_the_image() {
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
