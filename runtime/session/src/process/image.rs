//! Images: resizes, reorders channels, normalizes and lays out pixels as the model expects.

use hardtack_bundle::DType;
use hardtack_bundle::process::{ChannelOrder, Colour, Fit, Image};

use super::Error;
use super::array::scale;
use super::check::channels;
use super::resize::{Axis, resize};
use crate::{Data, Tensor};

/// The maximum number of pixels of an image.
pub(super) const MAX_PIXELS: u64 = 1 << 26;
/// The maximum number of values that the images of one array become.
const MAX_VALUES: u64 = 1 << 28;
/// The maximum side of an image, in pixels.
pub(super) const MAX_SIDE: u64 = 1 << 16;

/// The pixels of an image, from 0 to 255, with shape `[height, width, channels]`. There are 1
/// (gray), 3 (RGB) or 4 (RGBA) channels; the alpha channel is ignored.
pub(super) struct Picture<'a, T> {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub pixels: &'a [T],
}

/// Returns the input shape of the model for this number of images.
pub(super) fn shape(spec: &Image, samples: usize) -> [usize; 4] {
    let (height, width) = (spec.height as usize, spec.width as usize);
    match spec.order {
        ChannelOrder::Nchw => [samples, channels(spec.colour), height, width],
        ChannelOrder::Nhwc => [samples, height, width, channels(spec.colour)],
    }
}

/// The dimensions of an array of images.
pub(super) struct Pixels {
    pub samples: usize,
    pub height: usize,
    pub width: usize,
    pub channels: usize,
}

/// Interprets the shape of an array as images.
///
/// # Errors
/// Returns [`Error::Array`] if the shape does not describe images.
pub(super) fn pixels(spec: &Image, shape: &[usize]) -> Result<Pixels, Error> {
    let gray = spec.colour == Colour::Gray;
    let (samples, height, width, channels) = match *shape {
        [height, width] => (1, height, width, 1),
        [height, width, channels @ (1 | 3 | 4)] => (1, height, width, channels),
        [samples, height, width] if gray => (samples, height, width, 1),
        [samples, height, width, channels @ (1 | 3 | 4)] => (samples, height, width, channels),
        _ => {
            let wanted = "images of shape [height, width], [height, width, channels] or \
                          [samples, height, width, channels] with 1, 3 or 4 channels";
            return Err(Error::Array { shape: shape.into(), wanted: wanted.into() });
        }
    };
    let values = [spec.height.into(), spec.width.into(), self::channels(spec.colour) as u64];
    let values = values.iter().fold(samples as u64, |all: u64, size| all.saturating_mul(*size));
    if values > MAX_VALUES {
        return Err(Error::TooManyImages { images: samples, values, limit: MAX_VALUES });
    }
    Ok(Pixels { samples, height, width, channels })
}

/// Checks that an array holds images of the model's size, or pixels that may be resized to it: u8
/// with at least the channels of the model. Other types and channels are more likely to be the data
/// of another model.
///
/// # Errors
/// Returns [`Error::NotImages`] if it holds neither, and the other errors of [`pixels`].
pub(super) fn check_sample(spec: &Image, dtype: DType, shape: &[usize]) -> Result<(), Error> {
    let wanted = [spec.height as usize, spec.width as usize, channels(spec.colour)];
    let refused = || Err(Error::NotImages { shape: shape.into(), dtype, wanted });
    match pixels(spec, shape) {
        Ok(Pixels { height, width, channels, .. }) => {
            let same_size = [height, width] == wanted[..2];
            let resizable = dtype == DType::U8 && channels >= wanted[2];
            if same_size || resizable { Ok(()) } else { refused() }
        }
        Err(Error::Array { .. }) => refused(),
        Err(error) => Err(error),
    }
}

/// Pre-processes images given as an array of pixels.
pub(super) fn array(spec: &Image, sample: &Tensor) -> Result<Tensor, Error> {
    let Pixels { samples, height, width, channels } = pixels(spec, sample.shape())?;
    let floats;
    let mut values = Vec::new();
    let size = height * width * channels;
    match sample.data() {
        Data::U8(pixels) => {
            for pixels in pixels.chunks_exact(size) {
                values.extend(picture(spec, &Picture { height, width, channels, pixels })?);
            }
        }
        _ => {
            floats = sample.to_f32();
            for pixels in floats.chunks_exact(size) {
                values.extend(picture(spec, &Picture { height, width, channels, pixels })?);
            }
        }
    }
    Ok(Tensor::new(&shape(spec, samples), values).expect("each image has the size of the input"))
}

/// Pre-processes one image and returns its values in the layout of the model.
pub(super) fn picture<T: Copy + Into<f32>>(
    spec: &Image,
    picture: &Picture<'_, T>,
) -> Result<Vec<f32>, Error> {
    check_size(picture.height as u64, picture.width as u64)?;
    let (rows, columns) = axes(spec, picture.height, picture.width);
    let resized = resize(picture.pixels, rows, columns, picture.channels);

    let count = channels(spec.colour);
    let (height, width) = (spec.height as usize, spec.width as usize);
    let mut values = Vec::with_capacity(height * width * count);
    let mut pad = match spec.fit {
        Fit::Letterbox { fill } => [f32::from(fill); 3],
        Fit::Stretch | Fit::CentreCrop { .. } => [0.0; 3],
    };
    scale(&mut pad[..count], &spec.mean, &spec.deviation);
    for row in resized.chunks_exact(columns.take * picture.channels) {
        for pixel in row.chunks_exact(picture.channels) {
            let mut pixel = coloured(pixel, spec.colour);
            scale(&mut pixel[..count], &spec.mean, &spec.deviation);
            values.extend_from_slice(&pixel[..count]);
        }
        for _ in columns.take..width {
            values.extend_from_slice(&pad[..count]);
        }
    }
    for _ in rows.take * width..height * width {
        values.extend_from_slice(&pad[..count]);
    }
    Ok(match spec.order {
        ChannelOrder::Nhwc => values,
        ChannelOrder::Nchw => {
            (0..count).flat_map(|c| values[c..].iter().step_by(count)).copied().collect()
        }
    })
}

/// Checks the size of an image before it is decoded or resized.
pub(super) fn check_size(height: u64, width: u64) -> Result<(), Error> {
    let sides = (1..=MAX_SIDE).contains(&height) && (1..=MAX_SIDE).contains(&width);
    if sides && height * width <= MAX_PIXELS {
        return Ok(());
    }
    Err(Error::PictureSize { height, width, pixels: MAX_PIXELS, side: MAX_SIDE })
}

/// Returns how the rows and columns of an image are scaled and cropped.
fn axes(spec: &Image, height: usize, width: usize) -> (Axis, Axis) {
    let (rows, columns) = (spec.height as usize, spec.width as usize);
    let whole = |source, scaled| Axis { source, scaled, skip: 0, take: scaled };
    match spec.fit {
        Fit::Stretch => (whole(height, rows), whole(width, columns)),
        Fit::CentreCrop { short_side } => {
            let short = height.min(width);
            let centre = |source: usize, take: usize| {
                let scaled = source * short_side as usize / short;
                Axis { source, scaled, skip: (scaled - take) / 2, take }
            };
            (centre(height, rows), centre(width, columns))
        }
        Fit::Letterbox { .. } => {
            // The axis that fills the model's input sets the scale; the other one is rounded down.
            if rows * width <= columns * height {
                (whole(height, rows), whole(width, (width * rows / height).max(1)))
            } else {
                (whole(height, (height * columns / width).max(1)), whole(width, columns))
            }
        }
    }
}

/// Converts a pixel to the model's channels: 1 (gray) or 3.
fn coloured(pixel: &[f32], colour: Colour) -> [f32; 3] {
    let [red, green, blue] = match *pixel {
        [red, green, blue, ..] => [red, green, blue],
        _ => [pixel[0]; 3],
    };
    match colour {
        Colour::Rgb => [red, green, blue],
        Colour::Bgr => [blue, green, red],
        Colour::Gray if pixel.len() < 3 => [red, 0.0, 0.0],
        Colour::Gray => [0.299 * red + 0.587 * green + 0.114 * blue, 0.0, 0.0],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(height: u32, width: u32, fit: Fit) -> Image {
        Image {
            height,
            width,
            fit,
            colour: Colour::Rgb,
            order: ChannelOrder::Nhwc,
            mean: [0.0].into_iter().collect(),
            deviation: [1.0].into_iter().collect(),
        }
    }

    #[test]
    fn rows_and_columns_are_scaled_as_the_fit_requires() {
        let axis = |source, scaled, skip, take| Axis { source, scaled, skip, take };
        let crop = Fit::CentreCrop { short_side: 256 };
        let letterbox = Fit::Letterbox { fill: 114 };
        let cases = [
            (Fit::Stretch, 100, 300, axis(100, 224, 0, 224), axis(300, 224, 0, 224)),
            (crop, 512, 640, axis(512, 256, 16, 224), axis(640, 320, 48, 224)),
            (crop, 301, 100, axis(301, 770, 273, 224), axis(100, 256, 16, 224)),
            (crop, 1, 60000, axis(1, 256, 16, 224), axis(60000, 15360000, 7679888, 224)),
            (letterbox, 448, 224, axis(448, 224, 0, 224), axis(224, 112, 0, 112)),
            (letterbox, 100, 300, axis(100, 74, 0, 74), axis(300, 224, 0, 224)),
            (letterbox, 9000, 1, axis(9000, 224, 0, 224), axis(1, 1, 0, 1)),
        ];
        for (fit, height, width, rows, columns) in cases {
            let got = axes(&spec(224, 224, fit), height, width);
            assert_eq!(got, (rows, columns), "{fit:?} of {height} × {width}");
        }
    }

    #[test]
    fn colors_layout_and_normalization() {
        let pixels = [10u8, 20, 30, 40, 50, 60];
        let input = Tensor::new(&[1, 2, 3], pixels.to_vec()).unwrap();
        let of = |spec: &Image| array(spec, &input).unwrap();
        let mut spec = spec(1, 2, Fit::Stretch);
        assert_eq!(of(&spec).as_f32().unwrap(), [10.0, 20.0, 30.0, 40.0, 50.0, 60.0]);
        spec.order = ChannelOrder::Nchw;
        spec.colour = Colour::Bgr;
        spec.mean = [1.0, 2.0, 3.0].into_iter().collect();
        spec.deviation = [2.0].into_iter().collect();
        assert_eq!(of(&spec).as_f32().unwrap(), [14.5, 29.5, 9.0, 24.0, 3.5, 18.5]);
        assert_eq!(of(&spec).shape(), [1, 3, 1, 2]);
        spec.colour = Colour::Gray;
        spec.mean = [0.0].into_iter().collect();
        let gray = [0.299 * 10.0 + 0.587 * 20.0 + 0.114 * 30.0, 48.15];
        for (a, b) in of(&spec).as_f32().unwrap().iter().zip(gray) {
            assert!((a - b / 2.0).abs() < 1e-4);
        }
    }

    #[test]
    fn letterbox_pads_on_the_right_and_below() {
        let mut spec = spec(2, 3, Fit::Letterbox { fill: 114 });
        spec.colour = Colour::Gray;
        spec.mean = [14.0].into_iter().collect();
        let tall = Tensor::new(&[2, 1], vec![50u8, 60]).unwrap();
        let values = array(&spec, &tall).unwrap();
        assert_eq!(values.as_f32().unwrap(), [36.0, 100.0, 100.0, 46.0, 100.0, 100.0]);
        let wide = Tensor::new(&[1, 3], vec![50.0f32, 60.0, 70.0]).unwrap();
        let values = array(&spec, &wide).unwrap();
        assert_eq!(values.as_f32().unwrap(), [36.0, 46.0, 56.0, 100.0, 100.0, 100.0]);
    }

    #[test]
    fn arrays_of_pixels_may_have_five_shapes() {
        let cases: [(&[usize], Colour, Option<usize>); 9] = [
            (&[4, 5], Colour::Rgb, Some(1)),
            (&[4, 5, 3], Colour::Rgb, Some(1)),
            (&[4, 5, 1], Colour::Rgb, Some(1)),
            (&[4, 5, 4], Colour::Gray, Some(1)),
            (&[2, 4, 5], Colour::Gray, Some(2)),
            (&[2, 4, 5, 3], Colour::Bgr, Some(2)),
            (&[3, 4, 5], Colour::Rgb, None),
            (&[4, 5, 2], Colour::Rgb, None),
            (&[20], Colour::Gray, None),
        ];
        for (dimensions, colour, samples) in cases {
            let count = dimensions.iter().product();
            let input = Tensor::new(dimensions, vec![7i16; count]).unwrap();
            let spec = Image { colour, ..spec(2, 2, Fit::Stretch) };
            let got = array(&spec, &input).ok().map(|tensor| tensor.shape()[0]);
            assert_eq!(got, samples, "{dimensions:?} as {colour:?}");
        }
    }

    #[test]
    fn images_without_pixels_or_with_too_many_are_rejected() {
        for (height, width) in
            [(0, 5), (5, 0), (1 << 13, (1 << 13) + 1), (1, 1 << 17), (u64::MAX, 2)]
        {
            assert!(matches!(check_size(height, width), Err(Error::PictureSize { .. })));
        }
        assert!(check_size(1 << 13, 1 << 13).is_ok());
    }
}
