//! Fourier transforms, windows and spectra.

use std::f64::consts::TAU;

use crate::call::{Call, Operator};
use crate::element_type::ElementType;
use crate::error::Problem;
use crate::meter::Tally;
use crate::shape;
use crate::tensor::Tensor;
use crate::value::Value;

/// Returns the implementation of an operator of this family.
pub(super) fn find(domain: &str, name: &str) -> Option<Operator> {
    Some(match (domain, name) {
        ("", "DFT") => dft,
        ("", "STFT") => stft,
        ("", "HannWindow") => hann,
        ("", "HammingWindow") => hamming,
        ("", "BlackmanWindow") => blackman,
        ("", "MelWeightMatrix") => mel_weights,
        _ => return None,
    })
}

type Complex = [f64; 2];

fn add(a: Complex, b: Complex) -> Complex {
    [a[0] + b[0], a[1] + b[1]]
}

fn multiply(a: Complex, b: Complex) -> Complex {
    [a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]]
}

/// A discrete Fourier transform of a length.
struct Fourier {
    /// The powers of the root of unity, from 0.
    roots: Vec<Complex>,
}

impl Fourier {
    /// Creates a transform without scaling. `inverse` changes the sign of the exponent.
    fn new(length: usize, inverse: bool) -> Self {
        let sign = if inverse { 1.0 } else { -1.0 };
        let root = |index: usize| {
            // The quarters of a turn are exact.
            let quarters = 4 * index as u64;
            match (quarters % length as u64, quarters / length as u64) {
                (0, 0) => [1.0, 0.0],
                (0, 1) => [0.0, sign],
                (0, 2) => [-1.0, 0.0],
                (0, _) => [0.0, -sign],
                _ => {
                    let (sin, cos) = (TAU * (index as f64 / length as f64)).sin_cos();
                    [cos, sign * sin]
                }
            }
        };
        Self { roots: (0..length).map(root).collect() }
    }

    /// Transforms a signal of the length of the transform.
    fn transform(&self, signal: &[Complex], tally: &mut Tally) -> Result<Vec<Complex>, Problem> {
        let mut result = vec![[0.0; 2]; signal.len()];
        self.part(signal, 1, &mut result, tally)?;
        Ok(result)
    }

    /// Transforms the elements of a signal at multiples of a stride: splits them by their position
    /// modulo the smallest prime factor of their number, transforms each part, and combines these.
    fn part(
        &self,
        signal: &[Complex],
        stride: usize,
        result: &mut [Complex],
        tally: &mut Tally,
    ) -> Result<(), Problem> {
        let length = result.len();
        if length <= 1 {
            result.iter_mut().zip(signal).for_each(|(result, value)| *result = *value);
            return Ok(());
        }
        let factor = (2..).take_while(|f| f * f <= length).find(|f| length.is_multiple_of(*f));
        let factor = factor.unwrap_or(length);
        let size = length / factor;
        tally.spend(factor + length.isqrt())?;
        for (start, part) in result.chunks_exact_mut(size).enumerate() {
            let rest = signal.get(start * stride..).unwrap_or_default();
            self.part(rest, stride * factor, part, tally)?;
        }
        let mut values = vec![[0.0; 2]; factor];
        for index in 0..size {
            for (value, part) in values.iter_mut().zip(result.chunks_exact(size)) {
                *value = part[index];
            }
            for (block, part) in result.chunks_exact_mut(size).enumerate() {
                tally.spend(factor)?;
                let step = (block * size + index) * stride;
                let mut power = 0;
                part[index] = [0.0; 2];
                for value in &values {
                    part[index] = add(part[index], multiply(*value, self.roots[power]));
                    power = (power + step) % self.roots.len();
                }
            }
        }
        Ok(())
    }
}

/// Computes the discrete Fourier transform along an axis. With `onesided`, the transform of a real
/// signal is cut to its first half, and the inverse transform takes such a half to a real signal.
fn dft(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let inverse = call.flag("inverse", false)?;
    let onesided = call.flag("onesided", false)?;
    let parts = components(x)?;
    if onesided && (parts == 2) != inverse {
        return Err(Problem::InputShape {
            index: 0,
            shape: x.shape().to_vec(),
            expected: "be real for a one-sided transform, and complex for its inverse".into(),
        });
    }
    let axis = match call.version < 20 {
        true => call.int_or("axis", 1)?,
        false => call.optional_tensor(2)?.map_or(Ok(-2), Tensor::integer)?,
    };
    let last = x.rank() - 1;
    let position = shape::axis(axis, x.rank())?;
    if position == last {
        return Err(Problem::Axis { axis, rank: last });
    }
    let size = x.shape()[position];
    let length = match call.optional_tensor(1)? {
        Some(length) => shape::size(length.integer()?)?,
        None if onesided && inverse => 2 * size.saturating_sub(1),
        None => size,
    };
    let half = length / 2 + 1;
    let (result_size, result_parts) = match (onesided, inverse) {
        (true, false) => (half, 2),
        (true, true) => (length, 1),
        _ => (length, 2),
    };
    let mut sizes = x.shape().to_vec();
    sizes[position] = result_size;
    sizes[last] = result_parts;
    let mut values = vec![0.0; shape::elements(&sizes)?];
    if length == 0 {
        return Err(Problem::Invalid("the transform has length 0; it must be positive".into()));
    }
    shape::elements(&[length])?;
    let inner = shape::elements(&x.shape()[position + 1..last])?;
    let lines = shape::elements(&x.shape()[..position])?.saturating_mul(inner);
    if lines == 0 {
        return Ok(vec![Tensor::from_f64(x.element(), sizes, values)?.into()]);
    }
    let fourier = Fourier::new(length, inverse);
    let mut tally = Tally::default();
    let scale = if inverse { 1.0 / length as f64 } else { 1.0 };
    let input = x.to_f64()?;
    for line in 0..lines {
        let (outer, offset) = (line / inner, line % inner);
        let row = |size: usize, index: usize| (outer * size + index) * inner + offset;
        let used = if onesided && inverse { half } else { length };
        let mut signal = vec![[0.0; 2]; length];
        tally.spend(length)?;
        for (index, value) in signal.iter_mut().take(size.min(used)).enumerate() {
            *value = complex(&input, parts, row(size, index));
        }
        if onesided && inverse {
            mirror(&mut signal);
        }
        let result = fourier.transform(&signal, &mut tally)?;
        for (index, value) in result.iter().take(result_size).enumerate() {
            let first = row(result_size, index) * result_parts;
            for (target, part) in values.iter_mut().skip(first).zip(&value[..result_parts]) {
                *target = part * scale;
            }
        }
    }
    Ok(vec![Tensor::from_f64(x.element(), sizes, values)?.into()])
}

/// Completes the first half of a spectrum to that of a real signal.
fn mirror(spectrum: &mut [Complex]) {
    let length = spectrum.len();
    for index in 0..=length / 2 {
        let own = (length - index) % length;
        let [real, imaginary] = spectrum[index];
        spectrum[own] = if own == index { [real, 0.0] } else { [real, -imaginary] };
    }
}

/// Returns the number of components of the numbers along the last axis: 1 if they are real.
fn components(x: &Tensor) -> Result<usize, Problem> {
    if !x.element().is_float() || x.element().is_narrow_float() {
        let accepted = "float16, bfloat16, float32 or float64";
        return Err(Problem::InputType { index: 0, found: x.element(), accepted });
    }
    match x.shape() {
        [_, .., parts @ (1 | 2)] => Ok(*parts),
        shape => Err(Problem::InputShape {
            index: 0,
            shape: shape.to_vec(),
            expected: "have at least 2 axes, the last of size 1 or 2".into(),
        }),
    }
}

/// Returns a number with one or two components.
fn complex(values: &[f64], parts: usize, index: usize) -> Complex {
    let part = |part: usize| values.get(index * parts + part).copied().unwrap_or(0.0);
    [part(0), if parts == 2 { part(1) } else { 0.0 }]
}

/// Computes the discrete Fourier transforms of windows that slide over signals. With `onesided`,
/// the default, they are cut to their first halves, also those of complex signals.
fn stft(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let signal = call.tensor(0)?;
    let (batch, count, parts) = match *signal.shape() {
        // Exporters omit the last axis of a real signal.
        [batch, count] => (batch, count, 1),
        [batch, count, _] => (batch, count, components(signal)?),
        ref shape => {
            return Err(Problem::InputShape {
                index: 0,
                shape: shape.to_vec(),
                expected: "be [batch, length, 1] or [batch, length, 2]".into(),
            });
        }
    };
    let step = shape::size(call.tensor(1)?.integer()?)?;
    let window = call.optional_tensor(2)?;
    let length = match (call.optional_tensor(3)?, window) {
        (Some(length), _) => shape::size(length.integer()?)?,
        (None, Some(window)) => window.len(),
        (None, None) => count,
    };
    if let Some(window) = window
        && (window.shape() != [length] || window.element() != signal.element())
    {
        return Err(Problem::InputShape {
            index: 2,
            shape: window.shape().to_vec(),
            expected: format!("be [{length}], and of the element type of the signal"),
        });
    }
    if step == 0 || length == 0 || length > count {
        return Err(Problem::Invalid(format!(
            "frames of {length} samples every {step} samples must be positive, and fit in {count}"
        )));
    }
    shape::elements(&[length])?;
    let frames = (count - length) / step + 1;
    let bins = if call.flag("onesided", true)? { length / 2 + 1 } else { length };
    let sizes = vec![batch, frames, bins, 2];
    let mut values = Vec::with_capacity(shape::elements(&sizes)?);
    let input = signal.to_f64()?;
    let window = window.map_or_else(|| Ok(vec![1.0; length]), Tensor::to_f64)?;
    let fourier = Fourier::new(length, false);
    let mut tally = Tally::default();
    for item in 0..batch {
        for frame in 0..frames {
            let first = item * count + frame * step;
            tally.spend(length)?;
            let weighted = window.iter().enumerate().map(|(index, weight)| {
                complex(&input, parts, first + index).map(|part| part * weight)
            });
            let weighted: Vec<Complex> = weighted.collect();
            values
                .extend(fourier.transform(&weighted, &mut tally)?.into_iter().take(bins).flatten());
        }
    }
    Ok(vec![Tensor::from_f64(signal.element(), sizes, values)?.into()])
}

/// Computes a Hann window.
fn hann(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    window(call, [0.5, 0.5, 0.0])
}

/// Computes a Hamming window.
fn hamming(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    window(call, [25.0 / 46.0, 1.0 - 25.0 / 46.0, 0.0])
}

/// Computes a Blackman window.
fn blackman(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    window(call, [0.42, 0.5, 0.08])
}

/// Computes a window that is a sum of cosines of the angle and of twice the angle.
fn window(call: &Call<'_>, [a, b, c]: [f64; 3]) -> Result<Vec<Value>, Problem> {
    let size = shape::size(call.tensor(0)?.integer()?)?;
    shape::elements(&[size])?;
    let turn = if call.flag("periodic", true)? { size as f64 } else { size as f64 - 1.0 };
    let values = (0..size).map(|index| {
        let angle = TAU * index as f64 / turn;
        // In this order, the ends and the peak of a window are exact.
        c * (2.0 * angle).cos() - b * angle.cos() + a
    });
    Ok(vec![Tensor::from_f64(output_type(call)?, vec![size], values.collect())?.into()])
}

/// Returns the element type that the node states for its output.
fn output_type(call: &Call<'_>) -> Result<ElementType, Problem> {
    use ElementType::*;
    let number = call.int_or("output_datatype", 1)?;
    match ElementType::from_number(number) {
        Some(found @ (F32 | F64 | F16 | BF16 | I8 | I16 | I32 | I64 | U8 | U16 | U32 | U64)) => {
            Ok(found)
        }
        _ => Err(Problem::AttributeValue {
            name: "output_datatype",
            value: number.to_string(),
            accepted: "the number of a float type, or of an integer type of 8 to 64 bits",
        }),
    }
}

/// Computes the weights of the bins of a spectrum in overlapping triangles on the mel scale.
fn mel_weights(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let integer = |index: usize| call.tensor(index)?.integer();
    let bands = shape::size(integer(0)?)?;
    let length = integer(1)?;
    let rate = integer(2)? as f64;
    let mel = |index: usize| Ok(2595.0 * (1.0 + call.tensor(index)?.number()? / 700.0).log10());
    let (low, high): (f64, f64) = (mel(3)?, mel(4)?);
    if rate <= 0.0 || !low.is_finite() || !high.is_finite() {
        return Err(Problem::Invalid(
            "the sample rate must be positive, and the edges finite frequencies".into(),
        ));
    }
    let bins = shape::size(length)? / 2 + 1;
    let mut weights = vec![0.0; shape::elements(&[bins, bands])?];
    let step = (high - low) / (bands as f64 + 2.0);
    let bin = |index: usize| {
        let hertz = 700.0 * (10f64.powf((index as f64 * step + low) / 2595.0) - 1.0);
        ((length as f64 + 1.0) * hertz / rate).floor() as i64
    };
    let mut place = |bin: i64, band: usize, weight: f64| match usize::try_from(bin) {
        Ok(bin) if bin < bins => {
            weights[bin * bands + band] = weight;
            Ok(())
        }
        _ => Err(Problem::Invalid(format!(
            "band {band} reaches bin {bin}; the spectrum has the bins 0 to {}",
            bins - 1
        ))),
    };
    for band in 0..bands {
        let (left, center, right) = (bin(band), bin(band + 1), bin(band + 2));
        if center == left {
            place(center, band, 1.0)?;
        }
        let rising = (center as f64) - (left as f64);
        for bin in (left..=center).filter(|_| center > left) {
            place(bin, band, (bin as f64 - left as f64) / rising)?;
        }
        let falling = (right as f64) - (center as f64);
        for bin in center..right {
            place(bin, band, (right as f64 - bin as f64) / falling)?;
        }
    }
    Ok(vec![Tensor::from_f64(output_type(call)?, vec![bins, bands], weights)?.into()])
}

#[cfg(test)]
mod tests {
    use super::super::sequence::testing::{evaluate, floats, int};
    use super::*;
    use crate::model::Attribute::Int;

    #[test]
    fn the_fast_transform_is_the_definition() {
        for length in [1, 2, 6, 7, 12, 25, 64, 90] {
            let signal = |index: usize| [(index * index % 11) as f64, (index % 5) as f64];
            let signal: Vec<Complex> = (0..length).map(signal).collect();
            let fast = Fourier::new(length, false);
            let fast = fast.transform(&signal, &mut Tally::default()).unwrap();
            for (k, found) in fast.iter().enumerate() {
                let terms = signal.iter().enumerate().map(|(n, value)| {
                    let angle = -TAU * (k * n) as f64 / length as f64;
                    multiply(*value, [angle.cos(), angle.sin()])
                });
                let exact = terms.fold([0.0; 2], add);
                let distance = (found[0] - exact[0]).hypot(found[1] - exact[1]);
                assert!(distance < 1e-10, "{length} {k}: {found:?} {exact:?}");
            }
        }
    }

    #[test]
    fn a_one_sided_inverse_restores_real_signals() {
        for length in 1..=5 {
            let x = [1.0, -2.0, 4.0, 0.5, 3.0];
            let x = floats(&[1, length, 1], &x[..length]);
            let half = evaluate("DFT", 17, &[("onesided", Int(1))], vec![x.clone()], 1).unwrap();
            let attributes = [("onesided", Int(1)), ("inverse", Int(1))];
            let inputs = vec![Some(half[0].clone()), int(length as i64)];
            let back = evaluate("DFT", 20, &attributes, inputs, 1).unwrap();
            let (back, x) = (back[0].tensor().unwrap(), x.unwrap());
            assert_eq!(back.shape(), x.tensor().unwrap().shape());
            for (a, b) in back.to_f64().unwrap().iter().zip(x.tensor().unwrap().to_f64().unwrap()) {
                assert!((a - b).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn windows_reach_one_exactly_also_as_integers() {
        for name in ["HannWindow", "HammingWindow", "BlackmanWindow"] {
            let window = evaluate(name, 17, &[("output_datatype", Int(2))], vec![int(4)], 1);
            let expected = Tensor::vector(vec![0u8, 0, 1, 0]);
            assert_eq!(window.unwrap()[0], expected.into());
        }
    }

    #[test]
    fn mel_bands_must_be_within_the_spectrum() {
        let hertz = |value: f32| Some(Tensor::scalar(value).into());
        let weights = |edge| {
            let inputs = vec![int(3), int(16), int(8192), hertz(0.0), hertz(edge)];
            evaluate("MelWeightMatrix", 17, &[], inputs, 1)
        };
        assert_eq!(weights(4096.0).unwrap()[0].tensor().unwrap().shape(), [9, 3]);
        assert!(weights(40960.0).is_err());
        assert!(weights(f32::NAN).is_err());
    }
}
