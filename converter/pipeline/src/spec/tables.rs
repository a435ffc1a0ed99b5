//! The TOML tables of a specification.

use std::fmt;
use std::path::PathBuf;

use hardtack_bundle::process::{
    Array, Audio, AudioFeature, ChannelOrder, Colour, Fit, Image, Level, MAX_CHANNELS, Spectrum,
};
use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};

/// The default value of the border pixels of a letterboxed image.
const FILL: u8 = 114;
/// The default number added before a logarithm.
const FLOOR: f32 = 1e-6;

/// The name of an invalid setting, and a description of the problem.
pub(super) struct Problem(pub &'static str, pub String);

/// A specification.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tables {
    pub image: Option<ImageTable>,
    pub audio: Option<AudioTable>,
    pub array: Option<ArrayTable>,
    pub classify: Option<ClassifyTable>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FitName {
    Stretch,
    CentreCrop,
    Letterbox,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ImageTable {
    height: u32,
    width: u32,
    fit: FitName,
    short_side: Option<u32>,
    fill: Option<u8>,
    colour: Colour,
    order: ChannelOrder,
    #[serde(default = "Numbers::zero")]
    mean: Numbers,
    #[serde(default = "Numbers::one")]
    deviation: Numbers,
}

impl ImageTable {
    pub(super) fn build(self) -> Result<Image, Problem> {
        let crops = matches!(self.fit, FitName::CentreCrop);
        if self.short_side.is_some() != crops {
            let problem = if crops {
                "`short_side` is required with fit = \"centre-crop\": the side before cropping"
            } else {
                "`short_side` is allowed only with fit = \"centre-crop\""
            };
            return Err(Problem("short_side", problem.into()));
        }
        if self.fill.is_some() && !matches!(self.fit, FitName::Letterbox) {
            return Err(Problem("fill", "`fill` is allowed only with fit = \"letterbox\"".into()));
        }
        let fit = match self.fit {
            FitName::Stretch => Fit::Stretch,
            FitName::CentreCrop => Fit::CentreCrop { short_side: self.short_side.unwrap_or(0) },
            FitName::Letterbox => Fit::Letterbox { fill: self.fill.unwrap_or(FILL) },
        };
        Ok(Image {
            height: self.height,
            width: self.width,
            fit,
            colour: self.colour,
            order: self.order,
            mean: self.mean.0.into_iter().collect(),
            deviation: self.deviation.0.into_iter().collect(),
        })
    }
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FeatureName {
    Samples,
    LogMel,
    Mfcc,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AudioTable {
    sample_rate: u32,
    level: Option<Level>,
    window: u32,
    stride: u32,
    #[serde(default)]
    frames: u32,
    feature: FeatureName,
    spectrum: Option<Spectrum>,
    bands: Option<u16>,
    low_hz: Option<f32>,
    high_hz: Option<f32>,
    floor: Option<f32>,
    coefficients: Option<u16>,
    mean: Option<f32>,
    deviation: Option<f32>,
}

impl AudioTable {
    pub(super) fn build(self) -> Result<Audio, Problem> {
        let (mel, cosines, feature) = match self.feature {
            FeatureName::Samples => (false, false, "samples"),
            FeatureName::LogMel => (true, false, "log-mel"),
            FeatureName::Mfcc => (true, true, "mfcc"),
        };
        for (setting, given, needed, allowed) in [
            ("bands", self.bands.is_some(), mel, mel),
            ("low_hz", self.low_hz.is_some(), mel, mel),
            ("high_hz", self.high_hz.is_some(), mel, mel),
            ("floor", self.floor.is_some(), false, mel),
            ("spectrum", self.spectrum.is_some(), false, mel),
            ("coefficients", self.coefficients.is_some(), cosines, cosines),
        ] {
            let word = match (given, needed, allowed) {
                (false, true, _) => "is required with",
                (true, _, false) => "is not allowed with",
                _ => continue,
            };
            return Err(Problem(setting, format!("`{setting}` {word} feature = \"{feature}\"")));
        }
        let bands = self.bands.unwrap_or(0);
        let (low_hz, high_hz) = (self.low_hz.unwrap_or(0.0), self.high_hz.unwrap_or(0.0));
        let floor = self.floor.unwrap_or(FLOOR);
        let coefficients = self.coefficients.unwrap_or(0);
        Ok(Audio {
            sample_rate: self.sample_rate,
            level: self.level.unwrap_or(Level::FullScale),
            window: self.window,
            stride: self.stride,
            frames: self.frames,
            spectrum: self.spectrum.unwrap_or(Spectrum::Magnitude),
            feature: match self.feature {
                FeatureName::Samples => AudioFeature::Samples,
                FeatureName::LogMel => AudioFeature::LogMel { bands, low_hz, high_hz, floor },
                FeatureName::Mfcc => {
                    AudioFeature::Mfcc { bands, low_hz, high_hz, floor, coefficients }
                }
            },
            mean: self.mean.unwrap_or(0.0),
            deviation: self.deviation.unwrap_or(1.0),
        })
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ArrayTable {
    #[serde(default = "Numbers::zero")]
    mean: Numbers,
    #[serde(default = "Numbers::one")]
    deviation: Numbers,
}

impl ArrayTable {
    pub(super) fn build(self) -> Array {
        Array {
            mean: self.mean.0.into_iter().collect(),
            deviation: self.deviation.0.into_iter().collect(),
        }
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClassifyTable {
    #[serde(default)]
    pub softmax: bool,
    #[serde(default)]
    pub skip: u16,
    #[serde(default)]
    pub labels: Labels,
}

/// A number, or a list of at most [`MAX_CHANNELS`] numbers.
struct Numbers(Vec<f32>);

impl Numbers {
    fn zero() -> Numbers {
        Numbers(vec![0.0])
    }

    fn one() -> Numbers {
        Numbers(vec![1.0])
    }
}

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Numbers, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Numbers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a number or a list of at most {MAX_CHANNELS} numbers")
            }

            fn visit_i64<E>(self, value: i64) -> Result<Numbers, E> {
                Ok(Numbers(vec![value as f32]))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Numbers, E> {
                Ok(Numbers(vec![value as f32]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Numbers, A::Error> {
                let mut numbers = vec![];
                while let Some(number) = list.next_element()? {
                    if numbers.len() == MAX_CHANNELS {
                        return Err(A::Error::invalid_length(MAX_CHANNELS + 1, &self));
                    }
                    numbers.push(number);
                }
                Ok(Numbers(numbers))
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

/// The name of a labels file, or the labels themselves.
#[derive(Default)]
pub(super) enum Labels {
    #[default]
    None,
    File(PathBuf),
    List(Vec<String>),
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Labels, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Labels;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a file name or a list of strings")
            }

            fn visit_str<E>(self, file: &str) -> Result<Labels, E> {
                Ok(Labels::File(file.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Labels, A::Error> {
                let mut labels = vec![];
                while let Some(label) = list.next_element()? {
                    labels.push(label);
                }
                Ok(Labels::List(labels))
            }
        }

        deserializer.deserialize_any(Reader)
    }
}
