//! Bilinear resizing with antialiasing. Every output pixel is a weighted mean of the input pixels
//! under a triangle. The triangle is two output pixels wide when downscaling and two input pixels
//! wide when upscaling.

/// The scaling of one axis of an image and the part of the scaled axis to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Axis {
    /// The number of pixels in the image.
    pub source: usize,
    /// The number of pixels after scaling.
    pub scaled: usize,
    /// The number of scaled pixels to skip at the start.
    pub skip: usize,
    /// The number of scaled pixels to compute.
    pub take: usize,
}

/// The weights of the input pixels for each output pixel.
struct Taps {
    /// The first input pixel and the number of weights for each output pixel.
    runs: Vec<(usize, usize)>,
    /// The weights of all output pixels, concatenated. Those of one output pixel sum to 1.
    weights: Vec<f32>,
}

impl Axis {
    fn taps(self) -> Taps {
        let step = self.source as f64 / self.scaled as f64;
        let reach = step.max(1.0);
        let mut taps = Taps { runs: Vec::with_capacity(self.take), weights: vec![] };
        let mut triangle = vec![];
        for pixel in self.skip..self.skip + self.take {
            let centre = (pixel as f64 + 0.5) * step;
            let weight = |input: usize| 1.0 - ((input as f64 + 0.5 - centre) / reach).abs();
            let from = (centre - reach).max(0.0) as usize;
            let to = ((centre + reach).ceil() as usize).min(self.source);
            let positive = |input: &usize| weight(*input) > 0.0;
            let first = (from..to).find(positive).unwrap_or(from);
            triangle.clear();
            triangle.extend((first..to).take_while(positive).map(weight));
            let sum: f64 = triangle.iter().sum();
            taps.runs.push((first, triangle.len()));
            taps.weights.extend(triangle.iter().map(|weight| (weight / sum) as f32));
        }
        taps
    }
}

impl Taps {
    /// Iterates over the first input pixel and the weights of each output pixel.
    fn iter(&self) -> impl Iterator<Item = (usize, &[f32])> {
        let mut weights = &self.weights[..];
        self.runs.iter().map(move |(first, count)| {
            let (run, rest) = weights.split_at(*count);
            weights = rest;
            (*first, run)
        })
    }
}

/// Resizes `pixels`, of shape `[rows.source, columns.source, channels]` in row-major order, to
/// `[rows.take, columns.take, channels]`.
///
/// No size may be 0, and `skip + take` must not exceed `scaled`.
pub(super) fn resize<T: Copy + Into<f32>>(
    pixels: &[T],
    rows: Axis,
    columns: Axis,
    channels: usize,
) -> Vec<f32> {
    debug_assert_eq!(pixels.len(), rows.source * columns.source * channels);
    if rows.source * columns.take <= rows.take * columns.source {
        let narrow = across(pixels, columns, channels);
        down(&narrow, rows, columns.take * channels)
    } else {
        let low = down(pixels, rows, columns.source * channels);
        across(&low, columns, channels)
    }
}

fn across<T: Copy + Into<f32>>(pixels: &[T], columns: Axis, channels: usize) -> Vec<f32> {
    let taps = columns.taps();
    let width = columns.source * channels;
    let mut output = Vec::with_capacity(pixels.len() / width * columns.take * channels);
    for row in pixels.chunks_exact(width) {
        for (first, weights) in taps.iter() {
            for channel in 0..channels {
                let inputs = row[first * channels + channel..].iter().step_by(channels);
                output.push(inputs.zip(weights).map(|(pixel, w)| (*pixel).into() * w).sum());
            }
        }
    }
    output
}

fn down<T: Copy + Into<f32>>(pixels: &[T], rows: Axis, width: usize) -> Vec<f32> {
    let taps = rows.taps();
    let mut output = vec![0.0; rows.take * width];
    for ((first, weights), sums) in taps.iter().zip(output.chunks_exact_mut(width)) {
        for (row, weight) in pixels[first * width..].chunks_exact(width).zip(weights) {
            for (sum, pixel) in sums.iter_mut().zip(row) {
                *sum += (*pixel).into() * weight;
            }
        }
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(source: usize, scaled: usize) -> Axis {
        Axis { source, scaled, skip: 0, take: scaled }
    }

    #[test]
    fn same_size_is_exact() {
        let pixels: Vec<u8> = (0..5 * 7 * 3).map(|x| (x * 37 % 256) as u8).collect();
        let resized = resize(&pixels, whole(5, 5), whole(7, 7), 3);
        assert!(pixels.iter().zip(&resized).all(|(a, b)| f32::from(*a) == *b));
    }

    #[test]
    fn upscaling_interpolates_between_pixel_centers() {
        let row = resize(&[0.0f32, 100.0], whole(1, 1), whole(2, 4), 1);
        assert_eq!(row, [0.0, 25.0, 75.0, 100.0]);
    }

    #[test]
    fn downscaling_averages_every_pixel() {
        // A triangle two output pixels wide covers eight inputs: weights 1 3 5 7 7 5 (of 28), cut
        // off at the border.
        let row =
            resize(&[28.0f32, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], whole(1, 1), whole(8, 2), 1);
        assert_eq!(row, [5.0, 0.0]);
    }

    #[test]
    fn a_part_equals_that_part_of_the_whole() {
        let pixels: Vec<f32> = (0..40 * 30).map(|x| (x * 7919 % 1009) as f32).collect();
        let all = resize(&pixels, whole(40, 13), whole(30, 17), 1);
        let rows = Axis { skip: 3, take: 6, ..whole(40, 13) };
        let columns = Axis { skip: 2, take: 9, ..whole(30, 17) };
        let part = resize(&pixels, rows, columns, 1);
        for (y, row) in part.chunks(9).enumerate() {
            for (x, value) in row.iter().enumerate() {
                assert!((value - all[(y + 3) * 17 + x + 2]).abs() < 1e-3);
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn uniform_stays_uniform(h in 1usize..50, w in 1usize..50, oh in 1usize..50, ow in 1usize..50) {
            let flat = resize(&vec![200u8; h * w], whole(h, oh), whole(w, ow), 1);
            assert_eq!(flat.len(), oh * ow);
            assert!(flat.iter().all(|x| (x - 200.0).abs() < 1e-3));
        }
    }
}
