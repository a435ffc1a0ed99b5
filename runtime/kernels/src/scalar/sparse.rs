//! Convolution with sparse weights in the encoding of [`Sparse`].

use super::conv::{Place, finish};
use crate::sparse::{self, Row, Sparse, WORD};
use crate::{Conv, Requantize};

/// The number of output pixels computed per pass over the weights, if there are enough.
const TOGETHER: usize = 4;
/// The number of output channels with accumulators in memory.
const CHANNELS: usize = 64;

/// The inner loop of a sparse convolution.
pub(crate) trait Products {
    /// Multiplies the first elements of a row with those of `P` windows and adds to `sums`.
    /// `windows` contains whole bitmap words of elements. Returns the rest of the row.
    fn add<'a, const P: usize>(row: Row<'a>, windows: &[[i16; P]], sums: &mut [i32; P]) -> Row<'a>;
}

/// Runs a convolution with sparse weights: see
/// [`ReferenceKernels::sparse`](crate::ReferenceKernels::sparse).
pub fn sparse(conv: &Conv<'_>, output: &mut [i8]) {
    sparse_by::<Portable>(conv, output);
}

/// The same with the inner loop `A`.
pub(crate) fn sparse_by<A: Products>(conv: &Conv<'_>, output: &mut [i8]) {
    let pixels = conv.output_shape.height * conv.output_shape.width;
    // Other architectures have SIMD kernels; there this is only the reference implementation and
    // need not be fast.
    if pixels < TOGETHER || !cfg!(target_arch = "arm") {
        let mut scratch = Scratch::<1, 1024>::new();
        for pixel in 0..pixels {
            block::<A, 1, 1024>(conv, pixel, &mut scratch, output);
        }
        return;
    }
    // If the last block would be incomplete, it starts earlier and computes some pixels twice.
    let mut scratch = Scratch::<TOGETHER, 256>::new();
    for pixel in (0..pixels).step_by(TOGETHER) {
        block::<A, TOGETHER, 256>(conv, pixel.min(pixels - TOGETHER), &mut scratch, output);
    }
}

/// `N` interleaved elements of `P` windows; `N` is a multiple of [`WORD`]. Aligned, because other
/// inner loops read several elements at once.
#[repr(align(8))]
struct Windows<const P: usize, const N: usize>([[i16; P]; N]);

/// The scratch memory of a block of pixels, reused by all blocks.
struct Scratch<'a, const P: usize, const N: usize> {
    windows: Windows<P, N>,
    sums: [[i32; P]; CHANNELS],
    /// The rest of each channel's row.
    open: [Row<'a>; CHANNELS],
    /// The accumulators of one pixel.
    of_pixel: [i32; CHANNELS],
}

impl<const P: usize, const N: usize> Scratch<'_, P, N> {
    fn new() -> Self {
        Self {
            windows: Windows([[0; P]; N]),
            sums: [[0; P]; CHANNELS],
            open: [Row::default(); CHANNELS],
            of_pixel: [0; CHANNELS],
        }
    }
}

/// Computes all channels of `P` output pixels from index `pixel`.
fn block<'a, A: Products, const P: usize, const N: usize>(
    conv: &Conv<'a>,
    pixel: usize,
    scratch: &mut Scratch<'a, P, N>,
    output: &mut [i8],
) {
    let width = conv.output_shape.width;
    let channels = conv.output_shape.channels;
    let group_channels = channels / conv.groups;
    let depth = conv.depth();
    let form = Sparse::new(conv.weights, channels, depth).expect("sparse weights fit the shapes");
    let mut rest = form.rows();
    let requantize = Requantize::new(conv.output_zero_point, conv.clamp);

    let places: [Place<'_>; P] =
        core::array::from_fn(|i| Place::new(conv, (pixel + i) / width, (pixel + i) % width));
    let Scratch { windows: Windows(windows), sums, open, of_pixel } = scratch;
    for group in 0..conv.groups {
        let (first, end) = (group * group_channels, (group + 1) * group_channels);
        for start in (first..end).step_by(CHANNELS) {
            let count = CHANNELS.min(end - start);
            for (sums, &bias) in sums.iter_mut().zip(&conv.bias[start..start + count]) {
                *sums = [bias; P];
            }
            for from in (0..depth).step_by(N) {
                let length = N.min(depth - from);
                // A window that fits is gathered only once for all channels of the group.
                if start == first || depth > N {
                    for (index, place) in places.iter().enumerate() {
                        gather(conv, place, (group, from), index, &mut windows[..length]);
                    }
                }
                let windows = &windows[..length.next_multiple_of(WORD)];
                for (sums, row) in sums[..count].iter_mut().zip(&mut *open) {
                    if from == 0 {
                        *row = Row::first(rest, depth).expect("sparse weights fit the shapes");
                    }
                    *row = A::add(*row, windows, sums);
                    // The next row starts after all elements of this one, used or not.
                    if from == 0 {
                        rest = &row.weights[row.count()..];
                    }
                }
            }
            for i in 0..P {
                let of_pixel = &mut of_pixel[..count];
                of_pixel.iter_mut().zip(&*sums).for_each(|(sum, sums)| *sum = sums[i]);
                let at = (pixel + i) * channels + start;
                finish(conv, &requantize, start, of_pixel, at, output);
            }
        }
    }
}

/// Gathers the elements of the window of `group` from `from`, minus the zero point, into index
/// `index` of each interleaved element.
fn gather<const P: usize>(
    conv: &Conv<'_>,
    place: &Place<'_>,
    (group, from): (usize, usize),
    index: usize,
    windows: &mut [[i16; P]],
) {
    if !place.is_inside() {
        windows.iter_mut().for_each(|window| window[index] = 0);
    }
    place.runs(group, from, windows.len(), |source, at| {
        for (window, &value) in windows[at..at + source.len()].iter_mut().zip(source) {
            window[index] = i16::from(value) - i16::from(conv.zero_point);
        }
    });
}

/// A portable inner loop that processes one bit of the bitmap at a time.
struct Portable;

impl Products for Portable {
    fn add<'a, const P: usize>(row: Row<'a>, windows: &[[i16; P]], sums: &mut [i32; P]) -> Row<'a> {
        let Row { bits, mut weights } = row;
        let (words, left) = bits.split_at(windows.len() / WORD);
        for (&word, windows) in words.iter().zip(windows.as_chunks::<WORD>().0) {
            let mut bits = sparse::word(word);
            while let (Some(window), Some((&weight, rest))) =
                (windows.get(bits.trailing_zeros() as usize), weights.split_first())
            {
                for (sum, value) in sums.iter_mut().zip(window) {
                    *sum = sum.wrapping_add(i32::from(*value) * i32::from(weight));
                }
                bits &= bits - 1;
                weights = rest;
            }
        }
        Row { bits: left, weights }
    }
}
