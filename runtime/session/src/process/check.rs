//! Checks pre-processing settings before anything is computed or allocated from them.

use hardtack_bundle::process::{Array, Audio, AudioFeature, Colour, Fit, Image, Preprocess};

use super::Error;

/// The maximum side of a model's input image, in pixels.
const MAX_SIDE: u32 = 1 << 13;
/// The maximum window and stride in samples, and the maximum number of frames.
const MAX_FRAMES: u32 = 1 << 16;
/// The maximum number of values that one inference takes.
const MAX_FEATURES: u64 = 1 << 26;
/// The maximum number of mel bands.
const MAX_BANDS: u16 = 1 << 10;

/// Checks that the settings of a pre-processing are valid.
///
/// # Errors
/// Returns [`Error::Setting`], which names the setting and its requirement.
///
/// # Examples
///
/// ```
/// use hardtack::process::{Error, check};
/// use hardtack_bundle::process::{Array, Preprocess};
///
/// let numbers = |value: f32| [value].into_iter().collect();
/// let process = Preprocess::Array(Array { mean: numbers(0.0), deviation: numbers(0.0) });
/// assert!(matches!(check(&process), Err(Error::Setting { setting: "deviation", .. })));
/// ```
pub fn check(process: &Preprocess) -> Result<(), Error> {
    match process {
        Preprocess::Image(image) => check_image(image),
        Preprocess::Audio(audio) => check_audio(audio),
        Preprocess::Array(Array { mean, deviation }) => check_scaling(mean, deviation, None),
    }
}

fn need(
    holds: bool,
    setting: &'static str,
    requirement: impl FnOnce() -> String,
) -> Result<(), Error> {
    if holds { Ok(()) } else { Err(Error::Setting { setting, requirement: requirement() }) }
}

fn within(value: u32, most: u32, setting: &'static str) -> Result<(), Error> {
    need((1..=most).contains(&value), setting, || format!("from 1 to {most}, not {value}"))
}

fn check_image(image: &Image) -> Result<(), Error> {
    within(image.height, MAX_SIDE, "height")?;
    within(image.width, MAX_SIDE, "width")?;
    if let Fit::CentreCrop { short_side } = image.fit {
        within(short_side, MAX_SIDE, "short_side")?;
        let side = image.height.max(image.width);
        need(short_side >= side, "short_side", || {
            format!("at least {side}, the longer of height and width, not {short_side}")
        })?;
    }
    check_scaling(&image.mean, &image.deviation, Some(channels(image.colour)))
}

/// Returns the number of channels of a model's input image.
pub(super) fn channels(colour: Colour) -> usize {
    match colour {
        Colour::Rgb | Colour::Bgr => 3,
        Colour::Gray => 1,
    }
}

fn check_scaling(mean: &[f32], deviation: &[f32], channels: Option<usize>) -> Result<(), Error> {
    for (setting, values) in [("mean", mean), ("deviation", deviation)] {
        let count = values.len();
        let fits = count == 1 || channels.map_or(count > 1, |channels| count == channels);
        need(fits, setting, || match channels {
            Some(channels @ 2..) => format!("1 or {channels} numbers, not {count}"),
            Some(_) => format!("1 number, not {count}"),
            None => "1 number or more".into(),
        })?;
        need(values.iter().all(|value| value.is_finite()), setting, || "finite".into())?;
    }
    need(deviation.iter().all(|value| *value != 0.0), "deviation", || "other than 0".into())
}

fn check_audio(audio: &Audio) -> Result<(), Error> {
    within(audio.sample_rate, 1_000_000, "sample_rate")?;
    within(audio.window, MAX_FRAMES, "window")?;
    within(audio.stride, MAX_FRAMES, "stride")?;
    need(audio.frames <= MAX_FRAMES, "frames", || format!("at most {MAX_FRAMES}"))?;
    if audio.frames == 0 {
        need(audio.stride <= audio.window, "stride", || {
            "at most `window` if each inference takes one frame".into()
        })?;
    }
    match audio.feature {
        AudioFeature::Samples => {}
        AudioFeature::LogMel { bands, low_hz, high_hz, floor } => {
            check_mel(audio.sample_rate, bands, low_hz, high_hz, floor)?;
        }
        AudioFeature::Mfcc { bands, low_hz, high_hz, floor, coefficients } => {
            check_mel(audio.sample_rate, bands, low_hz, high_hz, floor)?;
            need((1..=bands).contains(&coefficients), "coefficients", || {
                format!("from 1 to the number of bands, {bands}, not {coefficients}")
            })?;
        }
    }
    let total = u64::from(audio.frames.max(1)) * features(audio) as u64;
    need(total <= MAX_FEATURES, "frames", || {
        format!("small enough that an inference takes at most {MAX_FEATURES} values")
    })?;
    need(audio.mean.is_finite(), "mean", || "finite".into())?;
    let deviation = audio.deviation;
    need(deviation.is_finite() && deviation != 0.0, "deviation", || "finite and not 0".into())
}

fn check_mel(rate: u32, bands: u16, low: f32, high: f32, floor: f32) -> Result<(), Error> {
    within(bands.into(), MAX_BANDS.into(), "bands")?;
    need(low >= 0.0, "low_hz", || format!("at least 0, not {low}"))?;
    let nyquist = rate as f32 / 2.0;
    need(low < high && high <= nyquist, "high_hz", || {
        format!("above `low_hz` and at most half the sample rate, {nyquist}, not {high}")
    })?;
    need(floor > 0.0 && floor.is_finite(), "floor", || format!("above 0, not {floor}"))
}

/// Returns the number of features per frame.
pub(super) fn features(audio: &Audio) -> usize {
    match audio.feature {
        AudioFeature::Samples => audio.window as usize,
        AudioFeature::LogMel { bands, .. } => bands.into(),
        AudioFeature::Mfcc { coefficients, .. } => coefficients.into(),
    }
}

/// Returns the input shape of one inference: `[1, frames, features]`, or `[1, features]` if each
/// inference takes one frame.
pub(super) fn audio_shape(audio: &Audio) -> Vec<usize> {
    match audio.frames {
        0 => vec![1, features(audio)],
        frames => vec![1, frames as usize, features(audio)],
    }
}

#[cfg(test)]
mod tests {
    use hardtack_bundle::process::{ChannelOrder, Level, Spectrum};

    use super::*;

    fn image(change: impl FnOnce(&mut Image)) -> Preprocess {
        let mut image = Image {
            height: 224,
            width: 224,
            fit: Fit::CentreCrop { short_side: 256 },
            colour: Colour::Rgb,
            order: ChannelOrder::Nchw,
            mean: [1.0, 2.0, 3.0].into_iter().collect(),
            deviation: [2.0].into_iter().collect(),
        };
        change(&mut image);
        Preprocess::Image(image)
    }

    fn audio(change: impl FnOnce(&mut Audio)) -> Preprocess {
        let mut audio = Audio {
            sample_rate: 16000,
            level: Level::Peak,
            window: 480,
            stride: 320,
            frames: 49,
            spectrum: Spectrum::Magnitude,
            feature: mfcc(40, 20.0, 4000.0, 10),
            mean: 0.0,
            deviation: 1.0,
        };
        change(&mut audio);
        Preprocess::Audio(audio)
    }

    fn mfcc(bands: u16, low_hz: f32, high_hz: f32, coefficients: u16) -> AudioFeature {
        AudioFeature::Mfcc { bands, low_hz, high_hz, floor: 1e-6, coefficients }
    }

    #[test]
    fn invalid_settings_are_named() {
        let cases = [
            (image(|_| {}), ""),
            (image(|i| i.height = 0), "height"),
            (image(|i| i.width = 1 << 20), "width"),
            (image(|i| i.fit = Fit::CentreCrop { short_side: 200 }), "short_side"),
            (image(|i| i.mean.truncate(2)), "mean"),
            (image(|i| i.mean.clear()), "mean"),
            (image(|i| i.mean[1] = f32::NAN), "mean"),
            (image(|i| i.deviation[0] = 0.0), "deviation"),
            (image(|i| i.colour = Colour::Gray), "mean"),
            (audio(|_| {}), ""),
            (audio(|a| a.sample_rate = 0), "sample_rate"),
            (audio(|a| a.window = 0), "window"),
            (audio(|a| a.stride = 0), "stride"),
            (audio(|a| (a.frames, a.stride) = (0, 481)), "stride"),
            (audio(|a| a.frames = u32::MAX), "frames"),
            (
                audio(|a| (a.frames, a.window, a.feature) = (65536, 65536, AudioFeature::Samples)),
                "frames",
            ),
            (audio(|a| a.feature = mfcc(0, 20.0, 4000.0, 10)), "bands"),
            (audio(|a| a.feature = mfcc(40, -1.0, 4000.0, 10)), "low_hz"),
            (audio(|a| a.feature = mfcc(40, 20.0, 8001.0, 10)), "high_hz"),
            (audio(|a| a.feature = mfcc(40, 20.0, f32::NAN, 10)), "high_hz"),
            (audio(|a| a.feature = mfcc(40, 20.0, 4000.0, 41)), "coefficients"),
            (audio(|a| a.deviation = 0.0), "deviation"),
        ];
        for (process, name) in cases {
            match check(&process) {
                Ok(()) => assert_eq!(name, "", "{process:?}"),
                Err(Error::Setting { setting, .. }) => assert_eq!(setting, name, "{process:?}"),
                Err(error) => panic!("{error}"),
            }
        }
    }
}
