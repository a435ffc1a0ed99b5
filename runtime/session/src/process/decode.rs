//! Decodes JPEG and PNG.

use std::io::Cursor;

use ::image::{DynamicImage, ImageDecoder, ImageError, ImageReader, Limits};

use super::Error;
use super::image::{MAX_PIXELS, MAX_SIDE, Picture, check_size};

/// Maximum memory in bytes for metadata, such as a color profile, and for one row of pixels.
const HEAD_BYTES: u64 = 16 << 20;

/// A decoded image: 8-bit RGB pixels of shape `[height, width, 3]`.
pub(super) struct Decoded {
    height: usize,
    width: usize,
    pixels: Vec<u8>,
}

impl Decoded {
    /// Borrows the pixels.
    pub(super) fn picture(&self) -> Picture<'_, u8> {
        let Decoded { height, width, ref pixels } = *self;
        Picture { height, width, channels: 3, pixels }
    }
}

/// Decodes an image and applies its EXIF orientation. The alpha channel is ignored.
pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, Error> {
    let mut decoder = open(bytes)?;
    let orientation = decoder.orientation().map_err(wrong)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(wrong)?;
    picture.apply_orientation(orientation);
    let picture = picture.into_rgb8();
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    Ok(Decoded { height, width, pixels: picture.into_raw() })
}

/// Reads the header of an image, checks its dimensions, and sets the memory limit for decoding.
fn open(bytes: &[u8]) -> Result<impl ImageDecoder, Error> {
    let mut reader =
        ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(Error::Read)?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE as u32);
    limits.max_image_height = Some(MAX_SIDE as u32);
    // The PNG decoder decompresses a color profile while it reads the header.
    limits.max_alloc = Some(HEAD_BYTES);
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder().map_err(wrong)?;
    let (width, height) = decoder.dimensions();
    check_size(height.into(), width.into())?;
    // 16-bit RGBA pixels, and the same amount again for the decoder.
    limits.max_alloc = Some(MAX_PIXELS * 16);
    decoder.set_limits(limits).map_err(wrong)?;
    Ok(decoder)
}

fn wrong(error: ImageError) -> Error {
    Error::Picture(error.into())
}

#[cfg(test)]
mod tests {
    use ::image::{GrayImage, ImageFormat, Rgb, RgbImage};
    use proptest::prelude::*;

    use super::*;

    fn encoded(format: ImageFormat) -> Vec<u8> {
        let picture = RgbImage::from_fn(6, 4, |x, y| Rgb([40 * x as u8, 60 * y as u8, 200]));
        let mut bytes = Cursor::new(vec![]);
        picture.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn png_and_jpeg() {
        let png = decode(&encoded(ImageFormat::Png)).unwrap();
        assert_eq!((png.height, png.width), (4, 6));
        assert_eq!(png.pixels[(2 * 6 + 5) * 3..][..3], [200, 120, 200]);
        let jpeg = decode(&encoded(ImageFormat::Jpeg)).unwrap();
        assert_eq!((jpeg.height, jpeg.width, jpeg.pixels.len()), (4, 6, 72));
    }

    #[test]
    fn huge_images_are_rejected_before_they_are_decoded() {
        let mut png = encoded(ImageFormat::Png);
        png[16..24].copy_from_slice(&[0, 0, 255, 255, 0, 0, 255, 255]);
        let check = crc(&png[12..29]);
        png[29..33].copy_from_slice(&check.to_be_bytes());
        let size = (65535, 65535);
        assert!(matches!(
            decode(&png),
            Err(Error::PictureSize { height, width, .. }) if (height, width) == size
        ));
    }

    /// Returns a PNG with this zlib stream as its color profile.
    fn with_profile(stream: &[u8]) -> Vec<u8> {
        let png = encoded(ImageFormat::Png);
        // Insert the chunk after the signature and IHDR.
        let (head, rest) = png.split_at(8 + 25);
        let chunk = [&b"iCCPname\0\0"[..], stream].concat();
        let length = (chunk.len() - 4) as u32;
        let check = crc(&chunk).to_be_bytes();
        [head, &length.to_be_bytes(), &chunk, &check, rest].concat()
    }

    /// Returns a zlib stream of zeros: the IDAT chunks of a black image.
    fn compressed_zeros(side: u32) -> Vec<u8> {
        let mut png = Cursor::new(vec![]);
        GrayImage::new(side, side).write_to(&mut png, ImageFormat::Png).unwrap();
        let (mut rest, mut stream) = (&png.get_ref()[8..], Vec::new());
        while let Some((head, after)) = rest.split_first_chunk::<8>() {
            let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
            if &head[4..] == b"IDAT" {
                stream.extend(&after[..length]);
            }
            rest = &after[length + 4..];
        }
        stream
    }

    #[test]
    fn color_profiles_are_decompressed_within_a_limit() {
        for (side, is_kept) in [(100, true), (5000, false)] {
            let png = with_profile(&compressed_zeros(side));
            assert!(png.len() < 200_000, "{}", png.len());
            let profile = open(&png).unwrap().icc_profile().unwrap();
            assert_eq!(profile.is_some(), is_kept, "{side}");
            assert_eq!(
                decode(&png).unwrap().pixels,
                decode(&encoded(ImageFormat::Png)).unwrap().pixels
            );
        }
    }

    /// Returns the CRC-32 checksum of part of a PNG.
    fn crc(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 }
            })
        })
    }

    #[test]
    fn other_files_are_an_error_that_names_the_formats() {
        for bytes in [&b""[..], b"RIFF....WAVEfmt ", b"GIF89a\x01\x00\x01\x00"] {
            let message = decode(bytes).err().unwrap().to_string();
            assert!(message.ends_with("use JPEG or PNG"), "{message}");
        }
    }

    proptest! {
        #[test]
        fn damaged_files_never_panic(
            jpeg in any::<bool>(),
            damage in prop::collection::vec((any::<usize>(), any::<u8>()), 0..6),
            cut in 0usize..64,
        ) {
            let mut bytes = encoded(if jpeg { ImageFormat::Jpeg } else { ImageFormat::Png });
            for (at, value) in damage {
                let end = bytes.len();
                bytes[at % end] = value;
            }
            bytes.truncate(bytes.len() - cut);
            let _ = decode(&bytes);
        }
    }
}
