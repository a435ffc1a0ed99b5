//! Strided copies.

/// A strided copy over up to six dimensions of a source and a target, outermost first. Offsets and
/// strides are in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StridedCopy {
    /// The number of elements along each dimension, at least 1.
    pub dims: [usize; 6],
    /// The index of the first source element.
    pub source_offset: usize,
    /// The stride of each dimension in the source; 0 repeats an element.
    pub source_strides: [usize; 6],
    /// The index of the first target element.
    pub target_offset: usize,
    /// The stride of each dimension in the target.
    pub target_strides: [usize; 6],
}

impl StridedCopy {
    /// Calls `run` with the source and target index of the first element of every run along the
    /// innermost dimension.
    #[inline(always)]
    pub(crate) fn for_each_run(&self, mut run: impl FnMut(usize, usize)) {
        let (mut source, mut target) = (self.source_offset, self.target_offset);
        let mut index = [0; 5];
        loop {
            run(source, target);
            let mut dimension = 5;
            loop {
                if dimension == 0 {
                    return;
                }
                dimension -= 1;
                index[dimension] += 1;
                if index[dimension] < self.dims[dimension] {
                    source += self.source_strides[dimension];
                    target += self.target_strides[dimension];
                    break;
                }
                index[dimension] = 0;
                source -= self.source_strides[dimension] * (self.dims[dimension] - 1);
                target -= self.target_strides[dimension] * (self.dims[dimension] - 1);
            }
        }
    }

    /// Returns the copy without its innermost `inner` dimensions: each run has one element, the
    /// first of those dimensions.
    pub(crate) fn outer(&self, inner: usize) -> Self {
        let mut copy = *self;
        copy.dims[6 - inner..].fill(1);
        copy
    }

    /// Copies the elements from `source` to `target`.
    ///
    /// # Panics
    /// If the copy exceeds `source` or `target`.
    #[inline(always)]
    pub fn copy<T: Copy>(&self, source: &[T], target: &mut [T]) {
        if self.source_strides[5] != 1 || self.target_strides[5] != 1 {
            return self.apply(source, target, |element| element);
        }
        let count = self.dims[5];
        self.for_each_run(|from, to| {
            target[to..to + count].copy_from_slice(&source[from..from + count]);
        });
    }

    /// Copies the elements from `source` to `target` and applies `convert` to each.
    ///
    /// # Panics
    /// If the copy exceeds `source` or `target`.
    #[inline(always)]
    pub fn apply<S: Copy, T: Copy>(
        &self,
        source: &[S],
        target: &mut [T],
        convert: impl Fn(S) -> T,
    ) {
        let [.., count] = self.dims;
        let ([.., source_step], [.., target_step]) = (self.source_strides, self.target_strides);
        // The match is inside the run, so that the outer loop is compiled only once: code size
        // matters on microcontrollers.
        self.for_each_run(|mut from, mut to| match (source_step, target_step) {
            (1, 1) => {
                let source = &source[from..from + count];
                for (target, &source) in target[to..to + count].iter_mut().zip(source) {
                    *target = convert(source);
                }
            }
            (0, 1) => target[to..to + count].fill(convert(source[from])),
            _ => {
                for last in (0..count).rev() {
                    target[to] = convert(source[from]);
                    if last > 0 {
                        from += source_step;
                        to += target_step;
                    }
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec;

    use super::*;

    #[test]
    fn transposes_repeats_and_offsets() {
        let source = [1, 2, 3, 4, 5, 6];
        let mut target = vec![0; 8];
        let transposed = StridedCopy {
            dims: [1, 1, 1, 1, 3, 2],
            source_offset: 0,
            source_strides: [0, 0, 0, 0, 1, 3],
            target_offset: 1,
            target_strides: [0, 0, 0, 0, 2, 1],
        };
        transposed.apply(&source, &mut target, |x: i32| x);
        assert_eq!(target, [0, 1, 4, 2, 5, 3, 6, 0]);

        let repeated = StridedCopy { source_strides: [0, 0, 0, 0, 1, 0], ..transposed };
        repeated.apply(&source, &mut target, |x| 10 * x);
        assert_eq!(target, [0, 10, 10, 20, 20, 30, 30, 0]);

        let copied = StridedCopy {
            dims: [1, 1, 1, 1, 2, 3],
            source_offset: 0,
            source_strides: [0, 0, 0, 0, 3, 1],
            target_offset: 0,
            target_strides: [0, 0, 0, 0, 4, 1],
        };
        copied.apply(&source, &mut target, |x| x);
        assert_eq!(target, [1, 2, 3, 20, 4, 5, 6, 0]);
    }
}
