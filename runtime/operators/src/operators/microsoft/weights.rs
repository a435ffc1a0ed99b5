//! Operators on weights that are quantized in blocks.

use crate::call::Call;
use crate::element_type::ElementType;
use crate::error::Problem;
use crate::narrow;
use crate::shape;
use crate::tensor::{Data, Tensor};
use crate::value::Value;

use super::{floats, from_floats, standard, wrong_shape};

/// Returns an attribute that is a positive size.
fn positive(call: &Call<'_>, name: &'static str) -> Result<usize, Problem> {
    let value = call.int(name)?.ok_or(Problem::MissingAttribute { name })?;
    let size = usize::try_from(value).ok().filter(|size| *size > 0);
    size.ok_or(Problem::AttributeValue { name, value: value.to_string(), accepted: "positive" })
}

/// Returns an integer of some bits from bytes that pack such integers, the lowest bits first.
fn unpack(bytes: &[u8], index: usize, bits: usize) -> u8 {
    let bit = index.saturating_mul(bits);
    let byte = |offset: usize| u16::from(bytes.get(bit / 8 + offset).copied().unwrap_or(0));
    let pair = byte(0) | byte(1) << 8;
    ((pair >> (bit % 8)) & ((1u16 << bits) - 1)) as u8
}

/// Returns the bytes of an operand.
fn bytes<'a>(call: &'a Call<'_>, index: usize) -> Result<&'a [u8], Problem> {
    let tensor = call.tensor(index)?;
    let found = tensor.element();
    tensor.slice::<u8>().ok_or(Problem::InputType { index, found, accepted: "uint8" })
}

/// Multiplies by a matrix, and adds a bias, in single precision.
fn product(call: &Call<'_>, weights: Tensor, bias: Option<&Tensor>) -> Result<Vec<Value>, Problem> {
    let a = call.tensor(0)?;
    let wide = Tensor::new(a.shape().to_vec(), floats(a)?)?;
    let mut y = standard(call, "MatMul", 13, vec![Some(wide.into()), Some(weights.into())], &[])?;
    if let Some(bias) = bias {
        let bias = Tensor::new(bias.shape().to_vec(), floats(bias)?)?;
        y = standard(call, "Add", 14, vec![Some(y), Some(bias.into())], &[])?;
    }
    let y = y.tensor()?;
    Ok(vec![from_floats(a.element(), y.shape().to_vec(), floats(y)?)?.into()])
}

/// Multiplies by a matrix of integers of 2 to 8 bits, each block of which has a scale and a zero
/// point.
pub(super) fn matmul_nbits(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let (inner, outer) = (positive(call, "K")?, positive(call, "N")?);
    let block = positive(call, "block_size")?;
    let bits = usize::try_from(call.int_or("bits", 4)?).ok().filter(|bits| (2..=8).contains(bits));
    let bits = bits.ok_or(Problem::AttributeValue {
        name: "bits",
        value: call.int_or("bits", 4)?.to_string(),
        accepted: "2 to 8",
    })?;
    if call.flag("weight_prepacked", false)? {
        return Err(Problem::Unsupported { reason: "its weights are packed for one device" });
    }
    let bias = call.optional_tensor(5)?;
    let count = shape::elements(&[inner, outer])?;
    let packed = bytes(call, 1)?;
    if packed.is_empty() {
        // The projection is left out.
        return product(call, Tensor::new(vec![inner, outer], vec![0f32; count])?, bias);
    }
    let blocks = inner.div_ceil(block);
    let blob = block.saturating_mul(bits).div_ceil(8);
    let scales = floats(call.tensor(2)?)?;
    let needed = outer.saturating_mul(blocks);
    if packed.len() != needed.saturating_mul(blob) || scales.len() != needed {
        return Err(Problem::Invalid(format!(
            "there are {} bytes of weights and {} scales; {needed} blocks of {blob} bytes need {} \
             and {needed}",
            packed.len(),
            scales.len(),
            needed.saturating_mul(blob)
        )));
    }
    let zeros = zero_points(call, outer, blocks, bits)?;
    let groups = call.optional_ints(4)?;
    let mut weights = vec![0f32; count];
    for row in 0..outer {
        for k in 0..inner {
            let own = row * blocks + k / block;
            // A group index names the block whose scale counts.
            let group = groups.as_ref().and_then(|groups| groups.get(k));
            let group = group.and_then(|group| usize::try_from(*group).ok());
            let source = group.map_or(own, |group| row * blocks + group.min(blocks - 1));
            let blob = packed.get(own * blob..(own + 1) * blob).unwrap_or(&[]);
            let integer = f32::from(unpack(blob, k % block, bits));
            weights[k * outer + row] = (integer - zeros[source]) * scales[source];
        }
    }
    product(call, Tensor::new(vec![inner, outer], weights)?, bias)
}

/// Returns the zero point of each block: packed, as floats, or the middle of the range.
fn zero_points(
    call: &Call<'_>,
    rows: usize,
    blocks: usize,
    bits: usize,
) -> Result<Vec<f32>, Problem> {
    let Some(zeros) = call.optional_tensor(3)? else {
        return Ok(vec![(1u16 << (bits - 1)).into(); rows * blocks]);
    };
    let Some(packed) = zeros.slice::<u8>() else {
        let values = floats(zeros)?;
        return match values.len() == rows * blocks {
            true => Ok(values),
            false => Err(wrong_shape(3, zeros, format!("have {} elements", rows * blocks))),
        };
    };
    let bytes = (blocks * bits).div_ceil(8);
    if packed.len() != rows * bytes {
        return Err(wrong_shape(3, zeros, format!("have {} elements", rows * bytes)));
    }
    let rows = packed.chunks_exact(bytes.max(1));
    let of_row = |row| (0..blocks).map(move |block| f32::from(unpack(row, block, bits)));
    Ok(rows.flat_map(of_row).collect())
}

/// The numbers that the 4-bit codes of `bitsandbytes` mean: its floats, and the quantiles of the
/// normal distribution.
const CODES: [[f32; 16]; 2] = [
    [
        0.0,
        5.208_333_5e-3,
        0.666_666_7,
        1.0,
        0.333_333_34,
        0.5,
        0.166_666_67,
        0.25,
        -0.0,
        -5.208_333_5e-3,
        -0.666_666_7,
        -1.0,
        -0.333_333_34,
        -0.5,
        -0.166_666_67,
        -0.25,
    ],
    [
        -1.0,
        -0.696_192_8,
        -0.525_073_05,
        -0.394_917_5,
        -0.284_441_38,
        -0.184_773_43,
        -0.091_050_036,
        0.0,
        0.079_580_3,
        0.160_930_2,
        0.246_112_3,
        0.337_915_24,
        0.440_709_83,
        0.562_617,
        0.722_956_84,
        1.0,
    ],
];

/// Multiplies by a matrix of 4-bit floats, each block of which has a scale.
pub(super) fn matmul_bnb4(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let (inner, outer) = (positive(call, "K")?, positive(call, "N")?);
    let block = positive(call, "block_size")?;
    let kind = call.int("quant_type")?.ok_or(Problem::MissingAttribute { name: "quant_type" })?;
    let codes = usize::try_from(kind).ok().and_then(|kind| CODES.get(kind));
    let codes = codes.ok_or(Problem::AttributeValue {
        name: "quant_type",
        value: kind.to_string(),
        accepted: "0 or 1",
    })?;
    let count = shape::elements(&[outer, inner])?;
    let packed = bytes(call, 1)?;
    let scales = floats(call.tensor(2)?)?;
    if packed.len() != count.div_ceil(2) || scales.len() != count.div_ceil(block) {
        return Err(Problem::Invalid(format!(
            "there are {} bytes of weights and {} scales; {count} weights need {} and {}",
            packed.len(),
            scales.len(),
            count.div_ceil(2),
            count.div_ceil(block)
        )));
    }
    // The first of two codes is in the high bits.
    let weight = |index: usize| {
        let code = usize::from(unpack(packed, index ^ 1, 4));
        let scale = scales.get(index / block).copied().unwrap_or(0.0);
        codes.get(code).copied().unwrap_or(0.0) * scale
    };
    let transposed = call.flag("transB", true)?;
    let (rows, columns) = if transposed { (inner, outer) } else { (outer, inner) };
    let mut weights = Vec::with_capacity(count);
    for row in 0..rows {
        let place = |column: usize| match transposed {
            true => column * inner + row,
            false => row * inner + column,
        };
        weights.extend((0..columns).map(|column| weight(place(column))));
    }
    product(call, Tensor::new(vec![rows, columns], weights)?, None)
}

/// A table that is quantized in blocks along an axis.
struct Table<'a> {
    data: &'a Tensor,
    /// The shape of the table; that of the data may count bytes.
    shape: Vec<usize>,
    /// The number of integers in a byte.
    factor: usize,
    /// The axis of the blocks.
    axis: usize,
    block: usize,
    scales: Vec<f32>,
    scale_shape: Vec<usize>,
    zeros: Option<Vec<f64>>,
    default_zero: f64,
}

impl<'a> Table<'a> {
    fn read(call: &'a Call<'_>) -> Result<Self, Problem> {
        let data = call.tensor(0)?;
        let found = data.element();
        if !found.is_narrow_float()
            && !matches!(found, ElementType::I4 | ElementType::U4 | ElementType::U8)
        {
            let accepted = "int4, uint4, uint8 or a float of 8 or 4 bits";
            return Err(Problem::InputType { index: 0, found, accepted });
        }
        let axis = shape::axis(call.int_or("quantize_axis", 1)?, data.rank())?;
        let bits = call.int_or("bits", 4)?;
        let mut sizes = data.shape().to_vec();
        let is_bytes = data.element() == ElementType::U8;
        let factor = match (is_bytes, bits) {
            (false, _) | (true, 8) => 1,
            (true, 4) => 2,
            (true, 2) => 4,
            (true, _) => {
                let value = bits.to_string();
                return Err(Problem::AttributeValue { name: "bits", value, accepted: "2, 4 or 8" });
            }
        };
        if let Some(last) = sizes.last_mut() {
            *last = last.saturating_mul(factor);
        }
        let size = sizes.get(axis).copied().unwrap_or(0);
        let block = match call.int_or("block_size", 128)? {
            0 => size.max(1),
            block => shape::size(block)?,
        };
        let scales = call.tensor(2)?;
        let expected: Vec<usize> = sizes
            .iter()
            .enumerate()
            .map(|(index, size)| if index == axis { size.div_ceil(block) } else { *size })
            .collect();
        let fits = |(found, expected): (&usize, &usize)| found == expected || *found == 1;
        if scales.rank() != sizes.len() || !scales.shape().iter().zip(&expected).all(fits) {
            return Err(wrong_shape(2, scales, format!("be {expected:?}")));
        }
        let zeros = call.optional_tensor(3)?;
        let zeros = zeros.map(|zeros| unpacked(zeros, scales.shape(), factor)).transpose()?;
        shape::elements(&sizes)?;
        Ok(Self {
            data,
            shape: sizes,
            factor,
            axis,
            block,
            scales: floats(scales)?,
            scale_shape: scales.shape().to_vec(),
            zeros,
            default_zero: if is_bytes { f64::from(1u32 << (8 / factor - 1)) } else { 0.0 },
        })
    }

    /// Returns an element as it is stored.
    fn number(&self, place: usize) -> f64 {
        match self.data.data() {
            Data::I8(values) => values.get(place).copied().unwrap_or(0).into(),
            Data::U8(values) if self.data.element().is_narrow_float() => {
                let code = values.get(place).copied().unwrap_or(0);
                narrow::decode(self.data.element(), code)
            }
            // Rows start at whole bytes, since the last axis of the data counts bytes.
            Data::U8(values) => unpack(values, place, 8 / self.factor).into(),
            _ => 0.0,
        }
    }

    /// Returns the number at an index.
    fn at(&self, index: &[usize]) -> f64 {
        let offset = |shape: &[usize], index: &mut dyn Iterator<Item = usize>| {
            shape.iter().zip(index).fold(0usize, |offset, (size, i)| offset * size + i)
        };
        let place = offset(&self.shape, &mut index.iter().copied());
        let block = index.iter().enumerate().zip(&self.scale_shape).map(|((axis, i), size)| {
            let i = if axis == self.axis { i / self.block } else { *i };
            if *size == 1 { 0 } else { i }
        });
        let block = offset(&self.scale_shape, &mut { block });
        let value = self.number(place);
        let zero = match &self.zeros {
            Some(zeros) => zeros.get(block).copied().unwrap_or(0.0),
            None if self.data.element().is_narrow_float() => 0.0,
            None => self.default_zero,
        };
        (value - zero) * f64::from(self.scales.get(block).copied().unwrap_or(0.0))
    }
}

/// Returns the integers of a tensor; a byte holds `factor` of them along the last axis.
fn unpacked(tensor: &Tensor, sizes: &[usize], factor: usize) -> Result<Vec<f64>, Problem> {
    let packed = match tensor.data() {
        Data::U8(packed) if factor > 1 => packed,
        _ if tensor.len() == shape::elements(sizes)? => return tensor.to_f64(),
        _ => return Err(wrong_shape(3, tensor, format!("have the shape {sizes:?}"))),
    };
    let (size, outer) = sizes.split_last().map_or((1, &[][..]), |(size, outer)| (*size, outer));
    let bytes = size.div_ceil(factor);
    if packed.len() != shape::elements(outer)?.saturating_mul(bytes) {
        return Err(wrong_shape(3, tensor, format!("hold {sizes:?} integers")));
    }
    let bits = 8 / factor;
    let rows = packed.chunks_exact(bytes.max(1));
    let of_row = |row| (0..size).map(move |index| f64::from(unpack(row, index, bits)));
    Ok(rows.flat_map(of_row).collect())
}

/// Selects parts of a table that is quantized in blocks. An index out of range selects zeros.
pub(super) fn gather_block_quantized(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let table = Table::read(call)?;
    let axis = shape::axis(call.int_or("gather_axis", 0)?, table.shape.len())?;
    let indices = call.tensor(1)?;
    let size = table.shape[axis];
    let find = |index: i64| {
        let index = if index < 0 { index.checked_add(size as i64) } else { Some(index) };
        index.and_then(|index| usize::try_from(index).ok()).filter(|index| *index < size)
    };
    let found: Vec<Option<usize>> = indices.to_i64()?.into_iter().map(find).collect();
    let (before, after) = (&table.shape[..axis], &table.shape[axis + 1..]);
    let sizes = [before, indices.shape(), after].concat();
    let count = shape::elements(&sizes)?;
    let mut values = Vec::with_capacity(count);
    let (before, after) = if count == 0 { (&[0][..], &[0][..]) } else { (before, after) };
    for outer in shape::indices(before) {
        for index in &found {
            for inner in shape::indices(after) {
                let place = |index: usize| [&outer[..], &[index], &inner[..]].concat();
                values.push(index.map_or(0.0, |index| table.at(&place(index)) as f32));
            }
        }
    }
    Ok(vec![from_floats(call.tensor(2)?.element(), sizes, values)?.into()])
}
