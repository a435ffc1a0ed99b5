//! Lowers image resizing.

use hardtack_bundle::graph::{CoordinateTransform, Interpolation, Resize};
use hardtack_kernels::Sample;

use super::Lowering;
use super::int16::{Int16Tensors, LowTensor};
use crate::graph::constants::is_constant;
use crate::graph::first_output;
use crate::quantize::float_reason::FloatReason;

/// Interpolation weights are in units of one part in this many.
const UNIT: f64 = 2048.0;

impl Lowering<'_> {
    pub(super) fn resize(&mut self, index: usize, resize: &Resize) -> Result<(), FloatReason> {
        let node = &self.model.graph.nodes[index];
        let input = |input: Option<u32>| node.inputs.get(input? as usize).copied();
        let scales = input(resize.scales_input).and_then(|value_id| self.constant(value_id));
        let scales = scales.and_then(|tensor| tensor.as_f32()).filter(|scales| !scales.is_empty());
        // Constant sizes are the shape of the output. Their type may be `Dim`: the batch size among
        // them may be dynamic.
        let sizes = input(resize.sizes_input);
        let has_sizes = sizes.is_some_and(|value_id| is_constant(self.model, value_id));
        if !has_sizes && scales.is_none() {
            return Err(FloatReason::ResizeSize);
        }
        let before = self.fact_shape(node.inputs[0])?;
        let after = self.fact_shape(first_output(index))?;
        let samples = (0..before.len())
            .map(|axis| {
                let (before, after) = (before[axis], after[axis]);
                let scale = scales.and_then(|scales| scales.get(axis + 1)).copied();
                let ratio = scale.map_or(after as f64 / before as f64, f64::from);
                along(resize, before, after, ratio)
            })
            .collect::<Result<Vec<_>, _>>()?;
        self.interpolate(index, &before, &after, samples)
    }

    pub(super) fn upsample(&mut self, index: usize, factors: &[u64]) -> Result<(), FloatReason> {
        let before = self.fact_shape(self.operand(index)?)?;
        let after = self.fact_shape(first_output(index))?;
        let samples = factors.iter().skip(1).zip(&before).map(|(factor, size)| {
            let nearest = |at: u64| {
                let first = (at / factor) as u16;
                Sample { first, second: first, weight: 0 }
            };
            (0..*size as u64 * factor).map(nearest).collect()
        });
        let samples = samples.collect();
        self.interpolate(index, &before, &after, samples)
    }

    /// Resizes an image whose first axis is the channels.
    fn interpolate(
        &mut self,
        index: usize,
        before: &[usize],
        after: &[usize],
        mut samples: Vec<Vec<Sample>>,
    ) -> Result<(), FloatReason> {
        if before.len() != 3 || before[0] != after[0] {
            return Err(FloatReason::ResizeAxes);
        }
        if before.iter().chain(after).any(|size| *size > usize::from(u16::MAX)) {
            return Err(FloatReason::ImageTooLarge);
        }
        let order = [1, 2, 0];
        let columns = samples.remove(2);
        let rows = samples.remove(1);
        let value = self.model.graph.nodes[index].inputs[0];
        // Nearest-neighbor resizing only copies elements, so it applies to each int16 tensor alone.
        let repeated = rows.iter().chain(&columns).all(|sample| sample.weight == 0);
        let tensors = match repeated && self.int16_nodes.contains(&index) {
            true => self.int16_tensors_of(value, &order)?,
            false => Int16Tensors { high: self.dense(value, &order)?, low: None },
        };
        let mut resized = |from| {
            let quantization = self.quantization_of(from);
            let to = self.tensor(first_output(index), &order, quantization)?;
            let resize = self.builder.resize(self.name(index), from, to, &rows, &columns);
            resize.map_err(FloatReason::Build).map(|()| to)
        };
        let high = resized(tensors.high)?;
        match tensors.low {
            Some(low) => {
                let low = LowTensor { tensor: resized(low.tensor)?, ..low };
                self.written_int16(first_output(index), high, low, &order)
            }
            None => self.written(first_output(index), high, &order),
        }
    }
}

/// Returns the source positions and weight of each output position along an axis. Coordinates are
/// those of the ONNX Resize operator.
fn along(
    resize: &Resize,
    before: usize,
    after: usize,
    ratio: f64,
) -> Result<Vec<Sample>, FloatReason> {
    let coordinate = |at: usize| {
        let at = at as f64;
        match resize.coordinates {
            CoordinateTransform::HalfPixel => (at + 0.5) / ratio - 0.5,
            CoordinateTransform::PytorchHalfPixel if after > 1 => (at + 0.5) / ratio - 0.5,
            CoordinateTransform::PytorchHalfPixel => 0.0,
            CoordinateTransform::HalfPixelSymmetric => {
                let adjusted = after as f64 / (ratio * before as f64);
                let centre = before as f64 / 2.0;
                centre * (1.0 - adjusted) + (at + 0.5) / ratio - 0.5
            }
            CoordinateTransform::AlignCorners if after > 1 => {
                at * (before as f64 - 1.0) / (after as f64 - 1.0)
            }
            CoordinateTransform::AlignCorners => 0.0,
            CoordinateTransform::Asymmetric => at / ratio,
            CoordinateTransform::TfHalfPixelForNn => (at + 0.5) / ratio,
        }
    };
    let last = before - 1;
    let sample = |at: usize| {
        let x = coordinate(at).clamp(0.0, last as f64);
        let nearest = |place: f64| {
            let first = (place.max(0.0) as usize).min(last) as u16;
            Ok(Sample { first, second: first, weight: 0 })
        };
        match resize.interpolation {
            Interpolation::NearestFloor => nearest(x.floor()),
            Interpolation::NearestCeil => nearest(x.ceil()),
            Interpolation::NearestRoundPreferFloor => nearest((x - 0.5).ceil()),
            Interpolation::NearestRoundPreferCeil => nearest((x + 0.5).floor()),
            Interpolation::Linear => {
                let first = x.floor();
                let weight = ((x - first) * UNIT).round() as i32;
                let second = (first as usize + 1).min(last) as u16;
                Ok(Sample { first: first as u16, second, weight })
            }
            Interpolation::Cubic => Err(FloatReason::ResizeCubic),
        }
    };
    (0..after).map(sample).collect()
}
