//! Spectral features of an audio frame.

use std::f64::consts::PI;
use std::fmt;
use std::sync::Arc;

use hardtack_bundle::process::{Audio, AudioFeature, Spectrum};
use realfft::num_complex::Complex32;
use realfft::{RealFftPlanner, RealToComplex};

/// A mel filter: weights of consecutive bins of the spectrum.
#[derive(Clone, Debug)]
struct Band {
    first: usize,
    weights: Vec<f32>,
}

/// Computes the log-mel energies of frames, or their MFCCs.
#[derive(Clone)]
pub(super) struct Features {
    window: Vec<f32>,
    fourier: Arc<dyn RealToComplex<f32>>,
    spectrum: Spectrum,
    bands: Vec<Band>,
    floor: f32,
    /// The DCT matrix, coefficients × bands; empty if the features are the energies themselves.
    cosines: Vec<f32>,
    frame: Vec<f32>,
    bins: Vec<Complex32>,
    scratch: Vec<Complex32>,
    energies: Vec<f32>,
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Features")
            .field("window", &self.window.len())
            .field("bands", &self.bands.len())
            .finish_non_exhaustive()
    }
}

impl Features {
    /// Creates the feature extractor; `None` if the features of a frame are its samples.
    pub(super) fn new(audio: &Audio) -> Option<Features> {
        let (bands, low, high, floor, coefficients) = match audio.feature {
            AudioFeature::Samples => return None,
            AudioFeature::LogMel { bands, low_hz, high_hz, floor } => {
                (bands, low_hz, high_hz, floor, 0)
            }
            AudioFeature::Mfcc { bands, low_hz, high_hz, floor, coefficients } => {
                (bands, low_hz, high_hz, floor, coefficients)
            }
        };
        let length = audio.window as usize;
        let fourier = RealFftPlanner::new().plan_fft_forward(length.next_power_of_two());
        let nyquist = f64::from(audio.sample_rate) / 2.0;
        let bins = fourier.make_output_vec();
        Some(Features {
            window: hann(length),
            spectrum: audio.spectrum,
            bands: mel_bands(bands.into(), bins.len(), nyquist, low.into(), high.into()),
            floor,
            cosines: cosines(coefficients.into(), bands.into()),
            frame: fourier.make_input_vec(),
            scratch: fourier.make_scratch_vec(),
            bins,
            energies: vec![0.0; bands.into()],
            fourier,
        })
    }

    /// Appends the features of one frame. `samples` has the length of the window.
    pub(super) fn push(&mut self, samples: &[f32], features: &mut Vec<f32>) {
        let (head, tail) = self.frame.split_at_mut(self.window.len());
        for ((value, sample), weight) in head.iter_mut().zip(samples).zip(&self.window) {
            *value = sample * weight;
        }
        tail.fill(0.0);
        self.fourier
            .process_with_scratch(&mut self.frame, &mut self.bins, &mut self.scratch)
            .expect("the buffers were created for this transform");
        // From here on, only the real part is used.
        for bin in &mut self.bins {
            bin.re = match self.spectrum {
                Spectrum::Magnitude => bin.norm(),
                Spectrum::Power => bin.norm_sqr(),
            };
        }
        for (energy, band) in self.energies.iter_mut().zip(&self.bands) {
            let bins = self.bins[band.first..].iter().zip(&band.weights);
            let sum: f32 = bins.map(|(bin, weight)| bin.re * weight).sum();
            *energy = (sum + self.floor).ln();
        }
        if self.cosines.is_empty() {
            features.extend_from_slice(&self.energies);
        }
        for row in self.cosines.chunks_exact(self.energies.len()) {
            features.push(row.iter().zip(&self.energies).map(|(a, b)| a * b).sum());
        }
    }
}

/// Returns the periodic Hann window.
fn hann(length: usize) -> Vec<f32> {
    let turn = 2.0 * PI / length as f64;
    (0..length).map(|n| (0.5 - 0.5 * (turn * n as f64).cos()) as f32).collect()
}

fn mel(hz: f64) -> f64 {
    1127.0 * (hz / 700.0).ln_1p()
}

/// Returns triangular filters that are evenly spaced and linear on the mel scale. Each reaches from
/// the center of its left neighbor to that of its right neighbor. Bin 0 (DC) belongs to none.
fn mel_bands(count: usize, bins: usize, nyquist: f64, low: f64, high: f64) -> Vec<Band> {
    let step = (mel(high) - mel(low)) / (count + 1) as f64;
    let centre_of = |bin: usize| mel(nyquist * bin as f64 / (bins - 1).max(1) as f64);
    (0..count)
        .map(|band| {
            let left = mel(low) + step * band as f64;
            let weight = |bin: usize| 1.0 - ((centre_of(bin) - left) / step - 1.0).abs();
            let first = (1..bins).find(|bin| weight(*bin) > 0.0).unwrap_or(bins);
            let weights = (first..bins).map(weight).take_while(|weight| *weight > 0.0);
            Band { first, weights: weights.map(|weight| weight as f32).collect() }
        })
        .collect()
}

/// Returns the first rows of the DCT-II matrix, scaled by √(2 / bands).
fn cosines(rows: usize, bands: usize) -> Vec<f32> {
    let scale = (2.0 / bands as f64).sqrt();
    let angle = PI / bands as f64;
    (0..rows)
        .flat_map(|row| {
            (0..bands)
                .map(move |band| ((angle * row as f64 * (band as f64 + 0.5)).cos() * scale) as f32)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use hardtack_bundle::process::Level;

    use super::*;

    const MEL: (u16, f32, f32, f32) = (40, 20.0, 4000.0, 1e-6);

    fn audio(feature: AudioFeature, spectrum: Spectrum) -> Audio {
        Audio {
            sample_rate: 16000,
            level: Level::FullScale,
            window: 480,
            stride: 320,
            frames: 2,
            spectrum,
            feature,
            mean: 0.0,
            deviation: 1.0,
        }
    }

    /// Returns 1000 samples between −10005 / `full` and 10005 / `full`.
    fn signal(full: f32) -> Vec<f32> {
        (0..1000i32).map(|i| (((i * i * 7 + i * 13) % 20011 - 10005) as f32) / full).collect()
    }

    /// The expected values were computed in double precision from the definitions of the window,
    /// the mel matrix and the DCT in `tf.signal`.
    #[test]
    fn mfcc_of_a_fixed_signal() {
        let (bands, low_hz, high_hz, floor) = MEL;
        let feature = AudioFeature::Mfcc { bands, low_hz, high_hz, floor, coefficients: 10 };
        let mut features = Features::new(&audio(feature, Spectrum::Magnitude)).unwrap();
        let peak = signal(1.0).into_iter().fold(0.0, f32::max);
        let samples: Vec<f32> = signal(peak).iter().map(|x| x.clamp(-1.0, 1.0)).collect();
        let mut got = vec![];
        features.push(&samples[..480], &mut got);
        features.push(&samples[320..800], &mut got);
        let expected = [
            23.97664, -7.16961, -0.27464, -0.03223, -0.31597, 0.21338, 0.30392, 0.22959, -0.07178,
            -0.19247, 21.69562, -4.31298, 0.16379, -0.16743, 0.83506, 0.47984, 0.53416, 0.13279,
            -0.56194, -0.24431,
        ];
        assert_eq!(got.len(), expected.len());
        for (index, (a, b)) in got.iter().zip(expected).enumerate() {
            assert!((a - b).abs() < 2e-4, "coefficient {index}: {a}, not {b}");
        }
    }

    #[test]
    fn log_mel_of_powers() {
        let (bands, low_hz, high_hz, floor) = MEL;
        let feature = AudioFeature::LogMel { bands, low_hz, high_hz, floor };
        let mut features = Features::new(&audio(feature, Spectrum::Power)).unwrap();
        let mut got = vec![];
        features.push(&signal(32768.0)[320..800], &mut got);
        assert_eq!(got.len(), 40);
        for (a, b) in got.iter().step_by(13).zip([1.64155, 1.39417, 2.36784, 2.9742]) {
            assert!((a - b).abs() < 2e-4, "{a}, not {b}");
        }
        got.clear();
        features.push(&[0.0; 480], &mut got);
        assert!(got.iter().all(|x| (x - 1e-6f32.ln()).abs() < 1e-5), "silence gives ln(floor)");
    }

    #[test]
    fn the_weights_of_adjacent_bands_sum_to_one() {
        let bands = mel_bands(40, 257, 8000.0, 20.0, 4000.0);
        let mut sums = [0.0f32; 257];
        for band in &bands {
            for (sum, weight) in sums[band.first..].iter_mut().zip(&band.weights) {
                *sum += weight;
            }
        }
        // From the center of the first band to that of the last, the triangles sum to 1.
        let inner = sums.iter().filter(|sum| (**sum - 1.0).abs() < 1e-5).count();
        assert!(inner > 110, "{inner}");
        assert_eq!(sums[0], 0.0);
        assert!(sums[129..].iter().all(|sum| *sum == 0.0));
    }
}
