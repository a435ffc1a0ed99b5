//! Reads audio from WAV files and arrays, as one channel of samples from −1 to 1.

use std::io::{Cursor, Read as _};

use hardtack_bundle::DType;
use hound::{SampleFormat, WavReader};

use super::{Error, input};
use crate::Tensor;

/// The maximum number of samples, over all channels.
const MAX_SAMPLES: usize = 1 << 27;

/// Single-channel audio.
pub(super) struct Recording {
    /// The sample rate in Hz.
    pub sample_rate: u32,
    /// The samples, from −1 to 1.
    pub samples: Vec<f32>,
}

/// Reads a WAV file. Several channels are averaged. A program that writes to a pipe does not know
/// the length of the samples when it writes the header: they then end with the file.
pub(super) fn read(bytes: &[u8]) -> Result<Recording, Error> {
    let wrong = |error: hound::Error| Error::Recording(error.into());
    let (header, samples) = match streamed(bytes) {
        Some((start, length)) => {
            let mut header = bytes[..start].to_vec();
            header[start - 4..].copy_from_slice(&length.to_le_bytes());
            (header, &bytes[start..])
        }
        None => (Vec::new(), bytes),
    };
    let mut reader = WavReader::new(Cursor::new(header).chain(samples)).map_err(wrong)?;
    let spec = reader.spec();
    // The length in the header may be wrong, but no sample is shorter than a byte.
    let room = (reader.len() as usize).min(bytes.len());
    if room > MAX_SAMPLES {
        return Err(Error::LongRecording { limit: MAX_SAMPLES });
    }
    let mut samples = Vec::with_capacity(room);
    match spec.sample_format {
        SampleFormat::Float => {
            for sample in reader.samples::<f32>() {
                samples.push(sample.map_err(wrong)?);
            }
        }
        SampleFormat::Int => {
            let full = full_scale(spec.bits_per_sample.into());
            for sample in reader.samples::<i32>() {
                samples.push(sample.map_err(wrong)? as f32 / full);
            }
        }
    }
    let channels = usize::from(spec.channels).max(1);
    if channels > 1 {
        samples = samples
            .chunks_exact(channels)
            .map(|moment| moment.iter().sum::<f32>() / channels as f32)
            .collect();
    }
    Ok(Recording { sample_rate: spec.sample_rate, samples })
}

/// Returns the offset of the samples, and their length in bytes, of a file whose header does not
/// state lengths: they are 0 or the largest number.
fn streamed(bytes: &[u8]) -> Option<(usize, u32)> {
    let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let is_unknown = |length: u32| matches!(length, 0 | u32::MAX);
    if !bytes.starts_with(b"RIFF") || !is_unknown(number(4)?) {
        return None;
    }
    // The bytes of one sample in all channels.
    let mut moment = 1;
    let mut at = 12;
    loop {
        let (name, length) = (bytes.get(at..at + 4)?, number(at + 4)?);
        let start = at + 8;
        if name == b"data" {
            let room = bytes.len() - start;
            let length = u32::try_from(room - room % moment).ok()?;
            return is_unknown(number(at + 4)?).then_some((start, length));
        }
        if name == b"fmt " {
            let align = bytes.get(start + 12..start + 14)?;
            moment = usize::from(u16::from_le_bytes(align.try_into().ok()?)).max(1);
        }
        // Chunks have an even length.
        at = start.checked_add(usize::try_from(length).ok()?.checked_next_multiple_of(2)?)?;
        bytes.get(at)?;
    }
}

/// Reads audio from an array in which at most one dimension differs from 1. Integers are scaled to
/// −1 to 1; floats are not changed.
pub(super) fn from_array(sample: &Tensor) -> Result<Vec<f32>, Error> {
    check_shape(sample.shape())?;
    let bits = match sample.dtype() {
        DType::I8 => 8,
        DType::I16 => 16,
        DType::I32 => 32,
        dtype if input::is_float(dtype) => return Ok(sample.to_f32()),
        dtype => return Err(Error::SampleType { dtype }),
    };
    let full = full_scale(bits);
    Ok(sample.to_f32().into_iter().map(|x| x / full).collect())
}

/// Checks that the shape of an array is that of audio.
pub(super) fn check_shape(shape: &[usize]) -> Result<(), Error> {
    if shape.iter().filter(|size| **size != 1).count() <= 1 {
        return Ok(());
    }
    let wanted = "samples of shape [samples], or floats of the shape of the model's input";
    Err(Error::Array { shape: shape.into(), wanted: wanted.into() })
}

/// Returns 2^(bits − 1), the magnitude that integer samples of this width are divided by.
fn full_scale(bits: u32) -> f32 {
    2f32.powi(bits.clamp(1, 32) as i32 - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wav(channels: u16, bits: u16, sample_format: SampleFormat, samples: &[f32]) -> Vec<u8> {
        let mut bytes = Cursor::new(vec![]);
        let spec =
            hound::WavSpec { channels, sample_rate: 8000, bits_per_sample: bits, sample_format };
        let mut writer = hound::WavWriter::new(&mut bytes, spec).unwrap();
        for sample in samples {
            match sample_format {
                SampleFormat::Float => writer.write_sample(*sample).unwrap(),
                SampleFormat::Int => {
                    writer.write_sample((sample * full_scale(bits.into())) as i32).unwrap();
                }
            }
        }
        writer.finalize().unwrap();
        bytes.into_inner()
    }

    #[test]
    fn every_sample_type_has_the_same_scale() {
        let samples = [0.0, 0.5, -0.5, -1.0, 0.25];
        for bits in [8, 16, 24, 32] {
            let recording = read(&wav(1, bits, SampleFormat::Int, &samples)).unwrap();
            assert_eq!(recording.samples, samples, "{bits} bits");
            assert_eq!(recording.sample_rate, 8000);
        }
        let recording = read(&wav(1, 32, SampleFormat::Float, &samples)).unwrap();
        assert_eq!(recording.samples, samples);
    }

    #[test]
    fn wrong_lengths_in_the_header_are_rejected() {
        let samples = [0.5; 40];
        let honest = wav(1, 16, SampleFormat::Int, &samples);
        // Overwrite the lengths of the data chunk and of the file.
        let at = honest.len() - 2 * samples.len() - 4;
        for length in [u32::MAX - 1, 1 << 31, 1 << 20] {
            let mut lies = honest.clone();
            lies[at..at + 4].copy_from_slice(&length.to_le_bytes());
            lies[4..8].copy_from_slice(&length.to_le_bytes());
            assert!(matches!(read(&lies), Err(Error::Recording(_))), "{length}");
        }
    }

    #[test]
    fn streamed_files_end_with_their_last_sample() {
        let samples = [0.5, 0.25, -0.5, 0.0];
        let honest = wav(2, 16, SampleFormat::Int, &samples);
        let at = honest.len() - 2 * samples.len() - 4;
        for length in [0u32, u32::MAX] {
            let mut streamed = honest.clone();
            streamed[at..at + 4].copy_from_slice(&length.to_le_bytes());
            // A length of 0 in a file of known length is no mistake.
            let whole = read(&streamed);
            assert!(whole.is_err() || whole.is_ok_and(|found| found.samples.is_empty()));
            streamed[4..8].copy_from_slice(&length.to_le_bytes());
            assert_eq!(read(&streamed).unwrap().samples, [0.375, -0.25], "{length}");
            // The last sample of one channel was cut off.
            streamed.truncate(streamed.len() - 2);
            assert_eq!(read(&streamed).unwrap().samples, [0.375], "{length}");
        }
        let mut long = wav(2, 16, SampleFormat::Int, &samples);
        long[4..8].fill(0xff);
        long.truncate(at);
        let _ = read(&long);
    }

    #[test]
    fn channels_are_averaged() {
        let recording = read(&wav(2, 16, SampleFormat::Int, &[0.5, 0.25, -0.5, 0.0])).unwrap();
        assert_eq!(recording.samples, [0.375, -0.25]);
    }

    #[test]
    fn arrays_are_scaled_like_files() {
        let tensor = Tensor::new(&[1, 2], vec![16384i16, -32768]).unwrap();
        assert_eq!(from_array(&tensor).unwrap(), [0.5, -1.0]);
        let tensor = Tensor::new(&[2], vec![1u64, 2]).unwrap();
        assert!(matches!(from_array(&tensor), Err(Error::SampleType { dtype: DType::U64 })));
        let tensor = Tensor::new(&[2, 2], vec![0i16; 4]).unwrap();
        assert!(matches!(from_array(&tensor), Err(Error::Array { .. })));
    }

    proptest! {
        #[test]
        fn damaged_files_never_panic(
            bits in prop::sample::select(vec![8u16, 16, 24, 32]),
            damage in prop::collection::vec((0usize..80, any::<u8>()), 0..6),
            length in 0usize..90,
        ) {
            let mut bytes = wav(2, bits, SampleFormat::Int, &[0.5; 12]);
            for (at, value) in damage {
                let end = bytes.len();
                bytes[at % end] = value;
            }
            bytes.truncate(length);
            let _ = read(&bytes);
        }
    }
}
