//! The last step of every pre-processing: converts values to the shape and type of the input.

use half::{bf16, f16};
use hardtack_bundle::DType;
use hardtack_bundle::manifest::{Extent, Port, Quantization};

use super::Error;
use crate::{Data, Tensor};

/// The element type, shape and quantization of a model input.
#[derive(Clone, Debug)]
pub(super) struct Target {
    name: String,
    dtype: DType,
    /// The dimensions; `None` stands for any size.
    shape: Vec<Option<usize>>,
    quantization: Option<Quantization>,
}

impl Target {
    /// Describes the input `port`.
    pub(super) fn of(port: &Port<'_>) -> Target {
        let shape = port
            .shape
            .iter()
            .map(|extent| match extent {
                Extent::Fixed(size) => Some(usize::try_from(*size).unwrap_or(usize::MAX)),
                Extent::Named(_) => None,
            })
            .collect();
        Target { name: port.name.into(), dtype: port.dtype, shape, quantization: port.quantization }
    }

    /// Converts values to the shape and element type of the input. Quantizes floats if the input is
    /// quantized.
    ///
    /// # Errors
    /// Returns [`Error::Shape`] if the values cannot be reshaped to the input.
    pub(super) fn finish(&self, values: Tensor) -> Result<Tensor, Error> {
        let shape = self.shape_for(values.shape())?;
        let data = match self.quantization {
            Some(quantization) if is_float(values.dtype()) && !is_float(self.dtype) => {
                quantize(&values, quantization, self.dtype)
            }
            _ => cast(values, self.dtype),
        };
        Ok(Tensor::new(&shape, data).expect("reshaping keeps the number of elements"))
    }

    /// Returns the element type of the input; `None` if it is quantized.
    pub(super) fn unquantized_type(&self) -> Option<DType> {
        self.quantization.is_none().then_some(self.dtype)
    }

    /// Returns the table of a specification that makes images fit the input; `None` if the input
    /// does not have the shape of an image.
    pub(super) fn image_table(&self) -> Option<String> {
        let is_channels = |size: Option<usize>| matches!(size, Some(1 | 3));
        let &[_, a, b, c] = &self.shape[..] else { return None };
        let (order, channels, height, width) = match (is_channels(a), is_channels(c)) {
            (true, _) => ("nchw", a?, b, c),
            (_, true) => ("nhwc", c?, a, b),
            _ => return None,
        };
        let size = |size: Option<usize>| size.map_or("SIZE".into(), |size| size.to_string());
        let colour = if channels == 1 { ", colour = \"gray\"" } else { "" };
        Some(format!(
            "[image] with height = {}, width = {}, fit = \"stretch\", order = \"{order}\"{colour}",
            size(height),
            size(width)
        ))
    }

    /// Returns the input shape for an array of shape `got`. Reshaping may merge and split adjacent
    /// dimensions and insert or remove dimensions of 1, but never transposes.
    ///
    /// # Errors
    /// Returns [`Error::Shape`] if there is no such shape.
    pub(super) fn shape_for(&self, got: &[usize]) -> Result<Vec<usize>, Error> {
        let fits = |shape: &[Option<usize>]| {
            shape.len() == got.len()
                && shape.iter().zip(got).all(|(want, have)| want.is_none_or(|want| want == *have))
        };
        if fits(&self.shape) {
            return Ok(got.into());
        }
        self.solve(got).filter(|shape| same_order(shape, got)).ok_or_else(|| Error::Shape {
            input: self.name.clone(),
            got: got.into(),
            wanted: self.shape.clone(),
        })
    }

    /// Computes the free dimensions. If there is only one, its size follows from the number of
    /// elements. If there are several, the first is the number of samples and becomes 1.
    fn solve(&self, got: &[usize]) -> Option<Vec<usize>> {
        let elements = product(got.iter())?;
        let mut shape = self.shape.clone();
        if shape.iter().filter(|size| size.is_none()).count() > 1
            && let Some(first) = shape.first_mut()
        {
            first.get_or_insert(1);
        }
        let known = product(shape.iter().flatten())?;
        let mut free = shape.iter_mut().filter(|size| size.is_none());
        if let Some(size) = free.next() {
            *size = Some(elements.checked_div(known)?);
        }
        let solved: Vec<usize> = shape.into_iter().collect::<Option<_>>()?;
        (product(solved.iter())? == elements).then_some(solved)
    }
}

fn product<'a>(mut sizes: impl Iterator<Item = &'a usize>) -> Option<usize> {
    sizes.try_fold(1usize, |product, size| product.checked_mul(*size))
}

/// Returns whether two shapes of equal size differ only by merged, split or added dimensions.
fn same_order(a: &[usize], b: &[usize]) -> bool {
    let ends = |shape: &[usize]| {
        let mut ends = vec![1];
        for size in shape {
            let end = ends[ends.len() - 1] * size;
            if *size != 1 {
                ends.push(end);
            }
        }
        ends
    };
    let (a, b) = (ends(a), ends(b));
    let within = |a: &[usize], b: &[usize]| a.iter().all(|end| b.contains(end));
    within(&a, &b) || within(&b, &a)
}

fn quantize(values: &Tensor, quantization: Quantization, dtype: DType) -> Data {
    // Quantize as the engine does, so that both produce the same integers.
    let inverse_scale = 1.0 / quantization.scale;
    let steps = |value: &f32| {
        let steps = (value * inverse_scale).round_ties_even();
        (steps as i64).saturating_add(quantization.zero_point.into())
    };
    from_integers(values.to_f32().iter().map(steps).collect(), dtype)
}

/// Returns whether elements of this type are floats.
pub(super) fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16 | DType::F32 | DType::F64)
}

/// Converts elements to another type. Saturates, and truncates fractions for integer types.
fn cast(values: Tensor, dtype: DType) -> Data {
    if values.dtype() == dtype {
        return values.into_data();
    }
    match (is_float(values.dtype()), is_float(dtype)) {
        (true, true) if dtype == DType::F32 => Data::F32(values.to_f32()),
        (_, true) => from_floats(to_f64(values.data()), dtype),
        (true, false) => {
            let floats = to_f64(values.data());
            from_integers(floats.into_iter().map(|x| x as i64).collect(), dtype)
        }
        (false, false) => from_integers(to_i64(values.data()), dtype),
    }
}

fn to_f64(data: &Data) -> Vec<f64> {
    match data {
        Data::F16(v) => v.iter().map(|x| x.to_f64()).collect(),
        Data::BF16(v) => v.iter().map(|x| x.to_f64()).collect(),
        Data::F32(v) => v.iter().map(|x| (*x).into()).collect(),
        Data::F64(v) => v.clone(),
        Data::U64(v) => v.iter().map(|x| *x as f64).collect(),
        integers => to_i64(integers).into_iter().map(|x| x as f64).collect(),
    }
}

/// Converts elements to i64, with saturation.
pub(super) fn to_i64(data: &Data) -> Vec<i64> {
    match data {
        Data::Bool(v) => v.iter().map(|x| (*x).into()).collect(),
        Data::I8(v) => v.iter().map(|x| (*x).into()).collect(),
        Data::U8(v) => v.iter().map(|x| (*x).into()).collect(),
        Data::I16(v) => v.iter().map(|x| (*x).into()).collect(),
        Data::U16(v) => v.iter().map(|x| (*x).into()).collect(),
        Data::I32(v) => v.iter().map(|x| (*x).into()).collect(),
        Data::U32(v) => v.iter().map(|x| (*x).into()).collect(),
        Data::I64(v) => v.clone(),
        Data::U64(v) => v.iter().map(|x| i64::try_from(*x).unwrap_or(i64::MAX)).collect(),
        floats => to_f64(floats).into_iter().map(|x| x as i64).collect(),
    }
}

fn from_floats(values: Vec<f64>, dtype: DType) -> Data {
    match dtype {
        DType::F16 => Data::F16(values.into_iter().map(f16::from_f64).collect()),
        DType::BF16 => Data::BF16(values.into_iter().map(bf16::from_f64).collect()),
        DType::F64 => Data::F64(values),
        _ => Data::F32(values.into_iter().map(|x| x as f32).collect()),
    }
}

fn from_integers(values: Vec<i64>, dtype: DType) -> Data {
    macro_rules! saturated {
        ($type:ty) => {
            values
                .into_iter()
                .map(|x| {
                    <$type>::try_from(x).unwrap_or(if x < 0 { <$type>::MIN } else { <$type>::MAX })
                })
                .collect::<Vec<$type>>()
                .into()
        };
    }
    match dtype {
        DType::Bool => values.into_iter().map(|x| x != 0).collect::<Vec<bool>>().into(),
        DType::I8 => saturated!(i8),
        DType::U8 => saturated!(u8),
        DType::I16 => saturated!(i16),
        DType::U16 => saturated!(u16),
        DType::I32 => saturated!(i32),
        DType::U32 => saturated!(u32),
        DType::U64 => saturated!(u64),
        _ => values.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(shape: &[Option<usize>], dtype: DType) -> Target {
        Target { name: "x".into(), dtype, shape: shape.into(), quantization: None }
    }

    #[test]
    fn shapes_gain_and_lose_ones_but_are_never_transposed() {
        const ANY: Option<usize> = None;
        type Case = (&'static [usize], &'static [Option<usize>], Option<&'static [usize]>);
        let cases: [Case; 15] = [
            (&[28, 28], &[Some(1), Some(1), Some(28), Some(28)], Some(&[1, 1, 28, 28])),
            (&[49, 10, 1], &[ANY, Some(49), Some(10), Some(1)], Some(&[1, 49, 10, 1])),
            (&[1, 49, 10], &[ANY, Some(49), Some(10), Some(1)], Some(&[1, 49, 10, 1])),
            (&[7, 49, 10, 1], &[ANY, Some(49), Some(10), Some(1)], Some(&[7, 49, 10, 1])),
            (&[64], &[ANY, Some(64)], Some(&[1, 64])),
            (&[8, 8], &[ANY, Some(64)], Some(&[1, 64])),
            (&[576], &[ANY, ANY], Some(&[1, 576])),
            (&[], &[ANY, Some(1)], Some(&[1, 1])),
            (&[5, 3], &[ANY, ANY, Some(3)], Some(&[1, 5, 3])),
            (&[1, 3, 8, 8], &[Some(1), Some(8), Some(8), Some(3)], None),
            (&[4, 6], &[Some(6), Some(4)], None),
            (&[65], &[ANY, Some(64)], None),
            (&[64], &[Some(2), Some(64)], None),
            (&[5], &[ANY, Some(0)], None),
            (&[usize::MAX, 2], &[ANY], None),
        ];
        for (got, wanted, solved) in cases {
            let shape = target(wanted, DType::F32).shape_for(got).ok();
            assert_eq!(shape.as_deref(), solved, "{got:?} for {wanted:?}");
        }
    }

    #[test]
    fn elements_are_converted_to_the_type_of_the_input() {
        let finish = |data: Data, dtype| {
            target(&[None], dtype).finish(Tensor::new(&[3], data).unwrap()).unwrap().into_data()
        };
        let floats = Data::F32(vec![-1.5, 300.0, 0.0]);
        assert_eq!(finish(floats.clone(), DType::U8), Data::U8(vec![0, 255, 0]));
        assert_eq!(finish(floats.clone(), DType::I64), Data::I64(vec![-1, 300, 0]));
        assert_eq!(finish(floats.clone(), DType::F64), Data::F64(vec![-1.5, 300.0, 0.0]));
        assert_eq!(finish(floats, DType::Bool), Data::Bool(vec![true, true, false]));
        let exact = vec![(1i64 << 53) + 1, -7, 0];
        assert_eq!(finish(exact.clone().into(), DType::I64), Data::I64(exact));
        assert_eq!(finish(vec![-5i32, 200, 3].into(), DType::I8), Data::I8(vec![-5, 127, 3]));
    }

    #[test]
    fn the_table_for_images_follows_from_the_shape() {
        let table = |shape: &[Option<usize>]| target(shape, DType::F32).image_table();
        let rgb = table(&[None, Some(3), Some(32), Some(48)]).unwrap();
        assert_eq!(
            rgb,
            "[image] with height = 32, width = 48, fit = \"stretch\", order = \"nchw\""
        );
        let gray = table(&[Some(1), Some(28), None, Some(1)]).unwrap();
        assert!(
            gray.ends_with("width = SIZE, fit = \"stretch\", order = \"nhwc\", colour = \"gray\""),
            "{gray}"
        );
        assert_eq!(table(&[Some(1), Some(4)]), None);
        assert_eq!(table(&[Some(1), Some(2), Some(4), Some(8)]), None);
    }

    #[test]
    fn quantized_inputs_round_half_to_even_and_saturate() {
        let quantization = Some(Quantization { scale: 0.5, zero_point: -1 });
        let target = Target { quantization, ..target(&[None], DType::I8) };
        let values = Tensor::new(&[4], vec![0.25f32, 0.75, -1000.0, 1000.0]).unwrap();
        let quantized = target.finish(values).unwrap();
        assert_eq!(quantized.into_data(), Data::I8(vec![-1, 1, -128, 127]));
    }
}
