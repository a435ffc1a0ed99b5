//! Audio: splits it into frames, computes a row of features from each, and groups rows into the
//! inputs of consecutive inferences.

use hardtack_bundle::process::{Audio, Level};

use super::Error;
use super::check::{audio_shape, features};
use super::spectrum::Features;
use crate::Tensor;

/// An iterator over the inputs of consecutive inferences on one audio clip, computed on demand.
#[derive(Clone, Debug)]
pub(super) struct Frames {
    spec: Audio,
    /// The feature extractor; `None` if the model takes the samples themselves.
    features: Option<Features>,
    samples: Vec<f32>,
    /// The number of samples of silence before the first.
    lead: usize,
    /// The index of the next inference.
    next: usize,
    runs: usize,
}

/// Returns the number of inferences for audio of this many samples.
pub(super) fn runs(spec: &Audio, samples: usize) -> usize {
    let (window, stride) = (spec.window as usize, spec.stride as usize);
    match spec.frames as usize {
        0 => samples.div_ceil(stride),
        frames => {
            let whole = samples.checked_sub(window).map_or(0, |rest| rest / stride + 1);
            whole.div_ceil(frames).max(1)
        }
    }
}

impl Frames {
    /// Creates the inputs for `samples` at a sample rate of `rate` Hz.
    ///
    /// # Errors
    /// Returns [`Error::Rate`], [`Error::EmptyRecording`] or [`Error::NotFinite`].
    pub(super) fn new(spec: &Audio, mut samples: Vec<f32>, rate: u32) -> Result<Frames, Error> {
        if rate != spec.sample_rate {
            return Err(Error::Rate { got: rate, wanted: spec.sample_rate });
        }
        if samples.is_empty() {
            return Err(Error::EmptyRecording);
        }
        if let Some(index) = samples.iter().position(|sample| !sample.is_finite()) {
            return Err(Error::NotFinite { index });
        }
        if spec.level == Level::Peak {
            let peak = samples.iter().copied().fold(0.0, f32::max);
            if peak > 0.0 {
                samples.iter_mut().for_each(|x| *x = (*x / peak).clamp(-1.0, 1.0));
            }
        }
        let lead = match spec.frames {
            0 => spec.window as usize - spec.stride as usize,
            _ => 0,
        };
        let runs = runs(spec, samples.len());
        let features = Features::new(spec);
        Ok(Frames { spec: spec.clone(), features, samples, lead, next: 0, runs })
    }

    /// Returns the seconds between inferences if each takes one frame.
    pub(super) fn period(&self) -> Option<f64> {
        let seconds = f64::from(self.spec.stride) / f64::from(self.spec.sample_rate);
        (self.spec.frames == 0).then_some(seconds)
    }

    /// Returns the index of the first frame of an inference. The last of several inferences ends
    /// with the audio.
    fn first_frame(&self, run: usize) -> usize {
        let per_run = self.spec.frames as usize;
        if per_run == 0 {
            return run;
        }
        let (window, stride) = (self.spec.window as usize, self.spec.stride as usize);
        let whole = self.samples.len().saturating_sub(window) / stride + 1;
        (run * per_run).min(whole.saturating_sub(per_run))
    }

    /// Returns the samples of a frame, with silence before and after the audio.
    fn frame(&self, index: usize) -> Vec<f32> {
        let (window, stride) = (self.spec.window as usize, self.spec.stride as usize);
        let mut frame = vec![0.0; window];
        let start = index * stride;
        let silence = self.lead.saturating_sub(start).min(window);
        let from = (start + silence - self.lead).min(self.samples.len());
        let recorded = &self.samples[from..];
        let count = recorded.len().min(window - silence);
        frame[silence..silence + count].copy_from_slice(&recorded[..count]);
        frame
    }
}

impl Iterator for Frames {
    type Item = Tensor;

    fn next(&mut self) -> Option<Tensor> {
        if self.next == self.runs {
            return None;
        }
        let first = self.first_frame(self.next);
        self.next += 1;
        let count = self.spec.frames.max(1) as usize;
        let mut values = Vec::with_capacity(count * features(&self.spec));
        for index in first..first + count {
            let frame = self.frame(index);
            match &mut self.features {
                Some(features) => features.push(&frame, &mut values),
                None => values.extend_from_slice(&frame),
            }
        }
        values.iter_mut().for_each(|x| *x = (*x - self.spec.mean) / self.spec.deviation);
        Some(Tensor::new(&audio_shape(&self.spec), values).expect("the values are whole frames"))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let remaining = self.runs - self.next;
        (remaining, Some(remaining))
    }
}

impl ExactSizeIterator for Frames {}

#[cfg(test)]
mod tests {
    use hardtack_bundle::process::{AudioFeature, Spectrum};

    use super::*;

    fn spec(window: u32, stride: u32, frames: u32) -> Audio {
        Audio {
            sample_rate: 16000,
            level: Level::FullScale,
            window,
            stride,
            frames,
            spectrum: Spectrum::Magnitude,
            feature: AudioFeature::Samples,
            mean: 0.0,
            deviation: 1.0,
        }
    }

    fn runs(spec: &Audio, samples: usize) -> Vec<Vec<f32>> {
        let samples = (1..=samples).map(|x| x as f32).collect();
        let frames = Frames::new(spec, samples, 16000).unwrap();
        let promised = frames.len();
        let runs: Vec<_> = frames.map(|run| run.as_f32().unwrap().to_vec()).collect();
        assert_eq!(runs.len(), promised);
        runs
    }

    #[test]
    fn streams_start_and_end_with_silence() {
        let runs = runs(&spec(3, 2, 0), 5);
        assert_eq!(runs, [[0.0, 1.0, 2.0], [2.0, 3.0, 4.0], [4.0, 5.0, 0.0]]);
        // The overlap is larger than the stride: several frames start in the silence.
        let runs = self::runs(&spec(4, 1, 0), 2);
        assert_eq!(runs, [[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 2.0]]);
    }

    #[test]
    fn short_audio_is_padded() {
        assert_eq!(runs(&spec(2, 1, 3), 1), [[1.0, 0.0, 0.0, 0.0, 0.0, 0.0]]);
        assert_eq!(runs(&spec(2, 1, 3), 4), [[1.0, 2.0, 2.0, 3.0, 3.0, 4.0]]);
    }

    #[test]
    fn long_audio_takes_several_inferences() {
        let runs = runs(&spec(1, 1, 3), 7);
        assert_eq!(runs, [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [5.0, 6.0, 7.0]]);
        // One second of audio has 49 frames of 480 samples and a remainder shorter than a frame.
        assert_eq!(self::runs(&spec(480, 320, 49), 16000).len(), 1);
    }

    #[test]
    fn peak_is_the_largest_sample() {
        let spec = Audio { level: Level::Peak, ..spec(3, 3, 1) };
        let run = Frames::new(&spec, vec![0.25, -0.5, 0.1], 16000).unwrap().next().unwrap();
        assert_eq!(run.as_f32().unwrap(), [1.0, -1.0, 0.4]);
        let run = Frames::new(&spec, vec![0.0, -0.5], 16000).unwrap().next().unwrap();
        assert_eq!(run.as_f32().unwrap(), [0.0, -0.5, 0.0]);
    }

    #[test]
    fn unusable_audio_is_rejected() {
        let new = |samples: &[f32], rate| Frames::new(&spec(3, 3, 1), samples.into(), rate);
        assert!(matches!(new(&[0.0], 44100), Err(Error::Rate { got: 44100, wanted: 16000 })));
        assert!(matches!(new(&[], 16000), Err(Error::EmptyRecording)));
        assert!(matches!(new(&[0.0, f32::NAN], 16000), Err(Error::NotFinite { index: 1 })));
    }
}
