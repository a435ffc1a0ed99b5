//! Applications of networks: voice detection, noise suppression, and topic classification.

use std::f64::consts::TAU;
use std::path::Path;

use hardtack::{Session, Tensor};
use hardtack_converter::{arrays, samples};

use super::labelled::Top1;

/// Reads a 16-bit mono WAV file. Returns the samples, from −1 to 1.
pub fn recording(path: &Path) -> Result<Vec<f32>, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let samples = bytes.get(44..).ok_or("the WAV header is missing")?.chunks_exact(2);
    Ok(samples.map(|two| f32::from(i16::from_le_bytes([two[0], two[1]])) / 32768.0).collect())
}

/// Runs one step of a network whose inputs and outputs are a value and a state. Updates the state.
fn step(
    session: &mut Session,
    shape: &[usize],
    values: Vec<f32>,
    state: &mut Tensor,
) -> Result<Vec<f32>, String> {
    let names = [0, 1].map(|input| session.inputs()[input].name.clone());
    let value = Tensor::new(shape, values).map_err(|error| error.to_string())?;
    let outputs = session.run(&[(&names[0], &value), (&names[1], state)]);
    let outputs = outputs.map_err(|error| error.to_string())?;
    *state = outputs[1].1.clone();
    Ok(outputs[0].1.to_f32())
}

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::new(shape, vec![0f32; shape.iter().product()]).expect("the length matches the shape")
}

/// Returns the probability of speech for each frame of 32 ms, with Silero VAD.
pub fn speech(session: &mut Session, recording: &[f32]) -> Result<Vec<f32>, String> {
    const CONTEXT: usize = 64;
    const FRAME: usize = 512;
    let mut frame = vec![0f32; CONTEXT + FRAME];
    let mut state = zeros(&[2, 1, 128]);
    let mut probabilities = Vec::new();
    for samples in recording.chunks_exact(FRAME) {
        frame.copy_within(FRAME.., 0);
        frame[CONTEXT..].copy_from_slice(samples);
        let output = step(session, &[1, CONTEXT + FRAME], frame.clone(), &mut state)?;
        probabilities.push(output[0]);
    }
    Ok(probabilities)
}

/// The block length and hop of DTLN, in samples.
const BLOCK: usize = 512;
const HOP: usize = 128;

/// Suppresses noise with the two networks of DTLN. The output is delayed by `BLOCK - HOP` samples.
pub fn denoised(networks: &mut [Session; 2], noisy: &[f32]) -> Result<Vec<f32>, String> {
    let [first, second] = networks;
    let mut states = [zeros(&[1, 2, 128, 2]), zeros(&[1, 2, 128, 2])];
    let turns: Vec<(f64, f64)> =
        (0..BLOCK).map(|at| (TAU * at as f64 / BLOCK as f64).sin_cos()).collect();
    let (mut block, mut sum) = (vec![0f32; BLOCK], vec![0f32; BLOCK]);
    let mut denoised = Vec::new();
    for samples in noisy.chunks_exact(HOP) {
        block.copy_within(HOP.., 0);
        block[BLOCK - HOP..].copy_from_slice(samples);
        let spectrum: Vec<(f64, f64)> = (0..=BLOCK / 2)
            .map(|bin| {
                block.iter().enumerate().fold((0.0, 0.0), |(re, im), (at, x)| {
                    let (sin, cos) = turns[bin * at % BLOCK];
                    (re + f64::from(*x) * cos, im - f64::from(*x) * sin)
                })
            })
            .collect();
        let magnitudes = spectrum.iter().map(|(re, im)| re.hypot(*im) as f32).collect();
        let mask = step(first, &[1, 1, BLOCK / 2 + 1], magnitudes, &mut states[0])?;
        let masked: Vec<f32> = (0..BLOCK)
            .map(|at| {
                let parts =
                    spectrum.iter().zip(&mask).enumerate().map(|(bin, ((re, im), mask))| {
                        let (sin, cos) = turns[bin * at % BLOCK];
                        let times = if bin == 0 || bin == BLOCK / 2 { 1.0 } else { 2.0 };
                        times * f64::from(*mask) * (re * cos - im * sin)
                    });
                (parts.sum::<f64>() / BLOCK as f64) as f32
            })
            .collect();
        let output = step(second, &[1, 1, BLOCK], masked, &mut states[1])?;
        sum.copy_within(HOP.., 0);
        sum[BLOCK - HOP..].fill(0.0);
        sum.iter_mut().zip(&output).for_each(|(sum, x)| *sum += x);
        denoised.extend(&sum[..HOP]);
    }
    Ok(denoised)
}

/// Returns the scale-invariant signal-to-distortion ratio (SI-SDR) of DTLN's output, in dB.
pub fn distortion(denoised: &[f32], clean: &[f32]) -> f64 {
    let pairs = || {
        let late = denoised.iter().skip(BLOCK - HOP).map(|x| f64::from(*x));
        late.zip(clean.iter().map(|x| f64::from(*x)))
    };
    let power: f64 = pairs().map(|(_, clean)| clean * clean).sum();
    let gain = pairs().map(|(x, clean)| x * clean).sum::<f64>() / power;
    let noise: f64 = pairs().map(|(x, clean)| (x - gain * clean).powi(2)).sum();
    10.0 * (gain * gain * power / noise).log10()
}

/// Classifies the topics of the news items in `data` (`agnews400`) with a linear probe on MiniLM's
/// sentence embeddings. Returns the top-1 accuracy.
pub fn topics(session: &mut Session, data: &Path) -> Result<Top1, String> {
    const AT_ONCE: usize = 40;
    let arrays = arrays::read_npz(&data.join("eval400.npz")).map_err(|error| error.to_string())?;
    let find = |name: &str| {
        arrays.iter().find(|(n, _)| n == name).map(|(_, t)| t).ok_or(format!("no array {name}"))
    };
    let (ids, lengths, topics) = (find("input_ids")?, find("length")?, find("y")?);
    let (weight, bias) = (find("probe_weight")?.to_f32(), find("probe_bias")?.to_f32());
    let (count, width) = (ids.shape()[0], ids.shape()[1]);
    let (lengths, topics) = (lengths.to_f32(), topics.to_f32());
    let mut right = 0;
    for first in (0..count).step_by(AT_ONCE) {
        let items = first..count.min(first + AT_ONCE);
        let shape = [items.len(), width];
        let row = |item: usize| samples::row(ids, item).to_f32();
        let given: Vec<i64> = items.clone().flat_map(row).map(|id| id as i64).collect();
        let mask: Vec<i64> = items
            .clone()
            .flat_map(|item| (0..width).map(move |at| (item, at)))
            .map(|(item, at)| i64::from(at < lengths[item] as usize))
            .collect();
        let tensor = |values: Vec<i64>| Tensor::new(&shape, values).expect("the length matches");
        let kinds = vec![0i64; given.len()];
        let inputs = [
            ("input_ids", tensor(given)),
            ("attention_mask", tensor(mask)),
            ("token_type_ids", tensor(kinds)),
        ];
        let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(n, t)| (*n, t)).collect();
        let outputs = session.run(&inputs).map_err(|error| error.to_string())?;
        let hidden = outputs[0].1.to_f32();
        let size = hidden.len() / (items.len() * width);
        for (item, hidden) in items.zip(hidden.chunks_exact(width * size)) {
            let mut mean = vec![0f64; size];
            for token in hidden.chunks_exact(size).take(lengths[item] as usize) {
                mean.iter_mut().zip(token).for_each(|(mean, x)| *mean += f64::from(*x));
            }
            let length = mean.iter().map(|x| x * x).sum::<f64>().sqrt();
            let score = |topic: usize| {
                let weights = &weight[topic * size..][..size];
                let product = mean.iter().zip(weights).map(|(x, w)| x / length * f64::from(*w));
                product.sum::<f64>() + f64::from(bias[topic])
            };
            let best = (0..bias.len()).max_by(|a, b| score(*a).total_cmp(&score(*b)));
            right += usize::from(best == Some(topics[item] as usize));
        }
    }
    Ok(Top1 { right, samples: count })
}
