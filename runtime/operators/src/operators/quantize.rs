//! Operators that quantize and dequantize, and matrix products of quantized operands.

use crate::call::{Call, Operator};
use crate::element_type::ElementType;
use crate::error::Problem;
use crate::meter::Tally;
use crate::narrow::{self, nearest};
use crate::operators::cast::Narrowing;
use crate::shape;
use crate::tensor::{Data, Tensor};
use crate::value::Value;

/// Returns the implementation of an operator of this family.
pub(super) fn find(domain: &str, name: &str) -> Option<Operator> {
    Some(match (domain, name) {
        ("", "DequantizeLinear") => dequantize_linear,
        ("", "DynamicQuantizeLinear") => dynamic_quantize_linear,
        ("", "MatMulInteger") => mat_mul_integer,
        ("", "QLinearMatMul") => q_linear_mat_mul,
        ("", "QuantizeLinear") => quantize_linear,
        _ => return None,
    })
}

/// Which elements of a tensor share a scale and a zero point. A row is a run of elements along the
/// axes behind the quantized one.
struct Groups {
    /// The number of rows along the quantized axis.
    rows: usize,
    /// The number of elements of a row.
    row: usize,
    /// The number of rows along the quantized axis with the same scales.
    block: usize,
    /// The distances between scales: from one run along the quantized axis to the next, from one
    /// block to the next, and from one element of a row to the next.
    strides: [usize; 3],
}

impl Groups {
    /// Returns the groups that the shape of the scales, the operand with index 1, means.
    fn of(call: &Call<'_>, x: &[usize], scale: &Tensor) -> Result<Self, Problem> {
        let product =
            |sizes: &[usize]| sizes.iter().fold(1usize, |n, size| n.saturating_mul(*size));
        if scale.len() == 1 && scale.rank() <= 1 {
            return Ok(Self { rows: 1, row: product(x), block: 1, strides: [0, 0, 0] });
        }
        let block = shape::size(call.int_or("block_size", 0)?)?;
        let axis = shape::axis(call.int_or("axis", 1)?, x.len())?;
        let rows = x[axis];
        let row = product(&x[axis + 1..]);
        let (expected, strides) = if block == 0 {
            (vec![rows], [0, 1, 0])
        } else {
            let mut blocks = x.to_vec();
            blocks[axis] = rows.div_ceil(block);
            (blocks, [rows.div_ceil(block).saturating_mul(row), row, 1])
        };
        if scale.shape() != expected {
            let (shape, expected) = (scale.shape().to_vec(), format!("be [] or {expected:?}"));
            return Err(Problem::InputShape { index: 1, shape, expected });
        }
        Ok(Self { rows, row, block: block.max(1), strides })
    }

    /// Maps each element together with the offset of its scale.
    fn map<A: Copy, B>(&self, x: &[A], each: impl Fn(A, usize) -> B) -> Vec<B> {
        let [run, block, element] = self.strides;
        let mut results = Vec::with_capacity(x.len());
        for (index, row) in x.chunks(self.row.max(1)).enumerate() {
            let (outer, inner) = (index / self.rows.max(1), index % self.rows.max(1));
            let start = outer * run + inner / self.block * block;
            match element {
                0 => results.extend(row.iter().map(|value| each(*value, start))),
                _ => results.extend(row.iter().zip(start..).map(|(value, at)| each(*value, at))),
            }
        }
        results
    }
}

/// Returns the zero points, the operand with index 2, as many as there are scales.
fn zero_points(zero: Option<&Tensor>, scale: &Tensor) -> Result<Vec<f64>, Problem> {
    let Some(zero) = zero else {
        return Ok(vec![0.0; scale.len()]);
    };
    if zero.shape() != scale.shape() && (zero.len(), scale.len()) != (1, 1) {
        let expected = format!("be {:?}, as that of the scale", scale.shape());
        return Err(Problem::InputShape { index: 2, shape: zero.shape().to_vec(), expected });
    }
    zero.to_f64()
}

/// Returns the type that an attribute names, if it is set and not 0.
fn type_attribute(call: &Call<'_>, name: &'static str) -> Result<Option<ElementType>, Problem> {
    let number = call.int_or(name, 0)?;
    match ElementType::from_number(number) {
        None if number != 0 => Err(Problem::AttributeValue {
            name,
            value: number.to_string(),
            accepted: "the number of an element type",
        }),
        found => Ok(found),
    }
}

/// Returns whether numbers are quantized to a type.
fn is_quantized(element: ElementType) -> bool {
    let is_narrow = element.bits().is_some_and(|bits| bits <= 16);
    let is_float = element.is_narrow_float() && element != ElementType::F8E8M0;
    is_float || element.is_integer() && is_narrow
}

/// Rounds a number to the nearest integer, ties to even, adds the zero point, and clamps the sum to
/// the range of an integer type. `NaN` becomes the smallest integer.
fn quantized(value: f64, zero: f64, (low, high): (f64, f64)) -> f64 {
    (value.round_ties_even() + zero).max(low).min(high)
}

/// Returns the range of an integer type.
fn range(element: ElementType) -> Option<(f64, f64)> {
    element.integer_range().map(|(low, high)| (low as f64, high as f64))
}

/// Divides numbers by a scale, adds a zero point, and rounds to a narrow type.
fn quantize_linear(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let (x, scale, zero) = (call.tensor(0)?, call.tensor(1)?, call.optional_tensor(2)?);
    let groups = Groups::of(call, x.shape(), scale)?;
    let element = match (type_attribute(call, "output_dtype")?, zero.map(Tensor::element)) {
        (Some(first), Some(second)) if first != second => {
            return Err(Problem::MixedTypes { first, second });
        }
        (named, stated) => named.or(stated).unwrap_or(ElementType::U8),
    };
    if !is_quantized(element) {
        let accepted = "an integer of at most 16 bits or a float of at most 8 bits";
        return Err(Problem::ElementType { found: element, accepted });
    }
    let zeros = zero_points(zero, scale)?;
    // A scale that is a power of 2 leaves the precision to the numbers. An integer scale calls for
    // the exact quotient.
    let precision = match (type_attribute(call, "precision")?, scale.element()) {
        (Some(precision), _) => precision,
        (None, ElementType::F8E8M0) => x.element(),
        (None, precision) => precision,
    };
    let quotients = quotients(x, scale, precision, &groups)?;
    let shape = x.shape().to_vec();
    let Some(range) = range(element) else {
        let narrowing = Narrowing::of(call, element)?;
        let codes = groups.map(&quotients, |quotient, at| {
            narrowing.encode(element, nearest(precision, quotient + zeros[at]))
        });
        return Ok(vec![Tensor::with_type(element, shape, Data::U8(codes))?.into()]);
    };
    let code = |quotient, at: usize| quantized(quotient, zeros[at], range);
    let data = match element {
        ElementType::U2 | ElementType::U4 | ElementType::U8 => {
            Data::U8(groups.map(&quotients, |quotient, at| code(quotient, at) as u8))
        }
        ElementType::U16 => Data::U16(groups.map(&quotients, |q, at| code(q, at) as u16)),
        ElementType::I16 => Data::I16(groups.map(&quotients, |q, at| code(q, at) as i16)),
        _ => Data::I8(groups.map(&quotients, |quotient, at| code(quotient, at) as i8)),
    };
    Ok(vec![Tensor::with_type(element, shape, data)?.into()])
}

/// Divides the elements by their scales in a precision.
fn quotients(
    x: &Tensor,
    scale: &Tensor,
    precision: ElementType,
    groups: &Groups,
) -> Result<Vec<f64>, Problem> {
    let round = |value: f64| nearest(precision, value);
    let scales: Vec<f64> = scale.to_f64()?.into_iter().map(round).collect();
    if let (Some(x), ElementType::F32) = (x.slice::<f32>(), precision) {
        let scales: Vec<f32> = scales.into_iter().map(|scale| scale as f32).collect();
        return Ok(groups.map(x, |value, at| f64::from(value / scales[at])));
    }
    Ok(groups.map(&x.to_f64()?, |value, at| round(round(value) / scales[at])))
}

/// Subtracts a zero point from numbers and multiplies them with a scale.
fn dequantize_linear(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let (x, scale, zero) = (call.tensor(0)?, call.tensor(1)?, call.optional_tensor(2)?);
    let groups = Groups::of(call, x.shape(), scale)?;
    let element = type_attribute(call, "output_dtype")?.unwrap_or(scale.element());
    if !matches!(element, ElementType::F32 | ElementType::F16 | ElementType::BF16) {
        let accepted = "float32, float16 or bfloat16; output_dtype or the scale states it";
        return Err(Problem::ElementType { found: element, accepted });
    }
    if let Some(zero) = zero
        && zero.element() != x.element()
    {
        return Err(Problem::MixedTypes { first: x.element(), second: zero.element() });
    }
    let zeros = zero_points(zero, scale)?;
    let scales = scale.to_f64()?;
    // The difference has the precision of float32; its product with the scale is exact.
    let product = |value: f64, at: usize| f64::from((value - zeros[at]) as f32) * scales[at];
    let shape = x.shape().to_vec();
    if element != ElementType::F32 {
        let round = |value, at| nearest(element, product(value, at));
        let values = groups.map(&x.to_f64()?, round);
        return Ok(vec![Tensor::from_f64(element, shape, values)?.into()]);
    }
    let values = match x.data() {
        Data::I8(values) => groups.map(values, |v, at| product(f64::from(v), at) as f32),
        Data::U8(values) if x.element().is_integer() => {
            groups.map(values, |v, at| product(f64::from(v), at) as f32)
        }
        _ => groups.map(&x.to_f64()?, |value, at| product(value, at) as f32),
    };
    Ok(vec![Tensor::new(shape, values)?.into()])
}

/// Quantizes numbers to uint8 with the scale and the zero point that their range calls for.
fn dynamic_quantize_linear(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let found = x.element();
    let wrong = Problem::InputType { index: 0, found, accepted: "float32" };
    let values = x.slice::<f32>().ok_or(wrong)?;
    let low = values.iter().copied().fold(0.0, f32::min);
    let high = values.iter().copied().fold(0.0, f32::max);
    // The specification leaves an empty range open.
    let scale = if high == low { 1.0 } else { (high - low) / 255.0 };
    let zero = (0.0 - low / scale).clamp(0.0, 255.0).round_ties_even();
    let code = |value: &f32| ((value / scale).round_ties_even() + zero).clamp(0.0, 255.0) as u8;
    let codes: Vec<u8> = values.iter().map(code).collect();
    Ok(vec![
        Tensor::new(x.shape().to_vec(), codes)?.into(),
        Tensor::scalar(scale).into(),
        Tensor::scalar(zero as u8).into(),
    ])
}

/// The shapes of a product of matrices, by the rules of `numpy.matmul`.
struct Product {
    /// The shapes of the operands; a vector is a row on the left and a column on the right.
    left: Vec<usize>,
    right: Vec<usize>,
    /// The shape of the product of these.
    full: Vec<usize>,
    /// The shape of the result: that of the product without the axes added to vectors.
    shape: Vec<usize>,
    /// The rows and columns of a left matrix, and the columns of a right one.
    sizes: [usize; 3],
}

impl Product {
    /// Returns the shapes for the operands with these indices.
    fn of(call: &Call<'_>, a: usize, b: usize) -> Result<Self, Problem> {
        let (mut left, mut right) =
            (call.tensor(a)?.shape().to_vec(), call.tensor(b)?.shape().to_vec());
        let vectors = (left.len() == 1, right.len() == 1);
        if vectors.0 {
            left.insert(0, 1);
        }
        if vectors.1 {
            right.push(1);
        }
        let wrong = |index, shape: &[usize], expected: &str| Problem::InputShape {
            index,
            shape: shape.to_vec(),
            expected: expected.into(),
        };
        let [left_batch @ .., m, k] = &left[..] else {
            return Err(wrong(a, &left, "have at least one axis"));
        };
        let [right_batch @ .., rows, n] = &right[..] else {
            return Err(wrong(b, &right, "have at least one axis"));
        };
        if k != rows {
            return Err(wrong(b, &right, &format!("have as many rows as {left:?} has columns")));
        }
        let mut shape = shape::broadcast(&[left_batch, right_batch])?;
        let mut full = shape.clone();
        full.extend([m, n]);
        shape.extend((!vectors.0).then_some(m));
        shape.extend((!vectors.1).then_some(n));
        let sizes = [*m, *k, *n];
        Ok(Self { left, right, full, shape, sizes })
    }

    /// Returns the accumulators, each product added by `add(sum, factor, factor)`.
    fn sums<T: Copy + Default>(
        &self,
        a: &[T],
        b: &[T],
        add: impl Fn(T, T, T) -> T,
    ) -> Result<Vec<T>, Problem> {
        let mut sums = vec![T::default(); shape::elements(&self.full)?];
        let [m, k, n] = self.sizes;
        if sums.is_empty() || k == 0 {
            return Ok(sums);
        }
        let mut tally = Tally::default();
        let batch = &self.full[..self.full.len() - 2];
        let lefts = shape::broadcast_offsets(&self.left[..self.left.len() - 2], batch);
        let rights = shape::broadcast_offsets(&self.right[..self.right.len() - 2], batch);
        for (sums, (left, right)) in sums.chunks_exact_mut(m * n).zip(lefts.zip(rights)) {
            let (a, b) = (&a[left * m * k..][..m * k], &b[right * k * n..][..k * n]);
            for (sums, a) in sums.chunks_exact_mut(n).zip(a.chunks_exact(k)) {
                tally.spend(k * n)?;
                for (a, b) in a.iter().zip(b.chunks_exact(n)) {
                    for (sum, b) in sums.iter_mut().zip(b) {
                        *sum = add(*sum, *a, *b);
                    }
                }
            }
        }
        Ok(sums)
    }

    /// Returns the accumulators of integers, with the overflow of 32 bits.
    fn integer_sums(&self, a: &[f64], b: &[f64]) -> Result<Vec<i32>, Problem> {
        let integers = |values: &[f64]| values.iter().map(|v| *v as i32).collect::<Vec<i32>>();
        let add = |sum: i32, a: i32, b: i32| sum.wrapping_add(a.wrapping_mul(b));
        self.sums(&integers(a), &integers(b), add)
    }
}

/// Returns the parameters of an operand, such as its scales, one for each element of `shape`: from
/// one for all, or one per row (those of a vector along the last axis but one), or per column.
fn spread(
    call: &Call<'_>,
    index: usize,
    per_row: bool,
    shape: &[usize],
) -> Result<impl Iterator<Item = f64>, Problem> {
    let parameters = call.tensor(index)?;
    let own = match parameters.shape() {
        _ if parameters.len() == 1 => vec![],
        [rows] if per_row => vec![*rows, 1],
        own => own.to_vec(),
    };
    if shape::broadcast(&[&own, shape])? != shape {
        let expected = format!("be that of one value, or of one per row or column of {shape:?}");
        let shape = parameters.shape().to_vec();
        return Err(Problem::InputShape { index, shape, expected });
    }
    let values = parameters.to_f64()?;
    Ok(shape::broadcast_offsets(&own, shape).map(move |offset| values[offset]))
}

/// Returns an operand of a product less its zero points, which may be omitted.
fn centered(
    call: &Call<'_>,
    index: usize,
    zero: usize,
    per_row: bool,
    shape: &[usize],
) -> Result<Vec<f64>, Problem> {
    let x = call.tensor(index)?;
    let found = x.element();
    if found.bits() != Some(8) || !is_quantized(found) {
        return Err(Problem::InputType { index, found, accepted: "an integer or float of 8 bits" });
    }
    let values = x.to_f64()?;
    let Some(zeros) = call.optional_tensor(zero)? else {
        return Ok(values);
    };
    if zeros.element() != found {
        return Err(Problem::MixedTypes { first: found, second: zeros.element() });
    }
    Ok(values.iter().zip(spread(call, zero, per_row, shape)?).map(|(v, zero)| v - zero).collect())
}

/// Multiplies matrices of integers less their zero points.
fn mat_mul_integer(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let product = Product::of(call, 0, 1)?;
    for index in [0, 1] {
        let found = call.tensor(index)?.element();
        if !found.is_integer() {
            return Err(Problem::InputType { index, found, accepted: "int8 or uint8" });
        }
    }
    let a = centered(call, 0, 2, true, &product.left)?;
    let b = centered(call, 1, 3, false, &product.right)?;
    let sums = product.integer_sums(&a, &b)?;
    Ok(vec![Tensor::new(product.shape, sums)?.into()])
}

/// Multiplies quantized matrices and quantizes the result.
fn q_linear_mat_mul(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let product = Product::of(call, 0, 3)?;
    let a = centered(call, 0, 2, true, &product.left)?;
    let b = centered(call, 3, 5, false, &product.right)?;
    let sums = if call.tensor(0)?.element().is_integer() && call.tensor(3)?.element().is_integer() {
        product.integer_sums(&a, &b)?.into_iter().map(f64::from).collect()
    } else {
        product.sums(&a, &b, |sum, a, b| sum + a * b)?
    };
    let scales = spread(call, 1, true, &product.full)?.zip(spread(call, 4, false, &product.full)?);
    let (scale, zero) = (call.tensor(6)?.number()?, call.tensor(7)?.number()?);
    let values = sums.iter().zip(scales).map(|(sum, (a, b))| sum * (a * b / scale));
    let element = call.tensor(7)?.element();
    let shape = product.shape;
    if !is_quantized(element) {
        let accepted = "an integer or float of 8 bits";
        return Err(Problem::InputType { index: 7, found: element, accepted });
    }
    Ok(vec![match range(element) {
        Some(range) => {
            let codes = values.map(|value| quantized(value, zero, range)).collect();
            Tensor::from_f64(element, shape, codes)?.into()
        }
        None => {
            let codes = values.map(|value| narrow::encode(element, value + zero, true)).collect();
            Tensor::with_type(element, shape, Data::U8(codes))?.into()
        }
    }])
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;
    use crate::model::Attribute;
    use crate::operators::cast::tests::run;

    fn int(element: ElementType) -> Attribute {
        Attribute::Int(element.number().into())
    }

    #[test]
    fn numbers_beyond_the_range_are_clamped() {
        let x = Tensor::vector(vec![0.5f32, 1.5, 2.5, f32::INFINITY, -1e30, f32::NAN]);
        let inputs = [x, Tensor::scalar(1f32), Tensor::scalar(3i8)];
        let y = run("QuantizeLinear", 21, &inputs, &[]).unwrap();
        assert_eq!(y.slice::<i8>().unwrap(), [3, 5, 5, 127, -128, -128]);
    }

    #[test]
    fn the_scale_states_the_precision_of_the_quotient() {
        // The first quotient is 1000.5 in float16, a tie; the second is 2048.
        let x = Tensor::vector(vec![1000.6f32, 2048.9]);
        let scale = Tensor::scalar(f16::ONE);
        let types = [("output_dtype", int(ElementType::I16)), ("precision", int(ElementType::F32))];
        let inputs = [x, scale];
        let y = run("QuantizeLinear", 23, &inputs, &types).unwrap();
        assert_eq!(y.slice::<i16>().unwrap(), [1001, 2049]);
        let y = run("QuantizeLinear", 23, &inputs, &types[..1]).unwrap();
        assert_eq!(y.slice::<i16>().unwrap(), [1000, 2048]);
    }

    #[test]
    fn the_last_block_may_be_short() {
        let x = Tensor::new(vec![1, 5], vec![1u8, 2, 3, 4, 5]).unwrap();
        let scale = Tensor::new(vec![1, 3], vec![1f32, 10.0, 100.0]).unwrap();
        let block = ("block_size", Attribute::Int(2));
        let inputs = [x, scale];
        let y = run("DequantizeLinear", 21, &inputs, std::slice::from_ref(&block)).unwrap();
        assert_eq!(y.slice::<f32>().unwrap(), [1.0, 2.0, 30.0, 40.0, 500.0]);
        let block = ("block_size", Attribute::Int(3));
        assert!(run("DequantizeLinear", 21, &inputs, &[block]).is_err());
        assert!(run("DequantizeLinear", 21, &inputs, &[]).is_err());
    }

    #[test]
    fn large_integers_dequantize_to_the_nearest_float() {
        let x = Tensor::vector(vec![u16::MAX, 4097]);
        let inputs = [x, Tensor::scalar(f16::from_f32(0.1))];
        let y = run("DequantizeLinear", 21, &inputs, &[]).unwrap();
        assert_eq!(y.to_f64().unwrap(), [6552.0, 409.5]);
        // A scale that is a power of 2 states no type of the result.
        let scale = Tensor::with_type(ElementType::F8E8M0, vec![], Data::U8(vec![126])).unwrap();
        let inputs = [Tensor::vector(vec![3i8]), scale];
        assert!(run("DequantizeLinear", 24, &inputs, &[]).is_err());
        let y = run("DequantizeLinear", 24, &inputs, &[("output_dtype", int(ElementType::F32))]);
        assert_eq!(y.unwrap().slice::<f32>().unwrap(), [1.5]);
    }

    #[test]
    fn rows_and_columns_have_their_own_parameters() {
        let a = Tensor::new(vec![2, 2], vec![1u8, 2, 3, 4]).unwrap();
        let b = Tensor::new(vec![2, 2], vec![5i8, 6, 7, 8]).unwrap();
        let zeros = [Tensor::vector(vec![1u8, 2]), Tensor::vector(vec![3i8, 4])];
        let [rows, columns] = zeros;
        let inputs = [a.clone(), b.clone(), rows.clone(), columns.clone()];
        let y = run("MatMulInteger", 10, &inputs, &[]).unwrap();
        assert_eq!(y.slice::<i32>().unwrap(), [4, 4, 10, 10]);
        let scales = [Tensor::vector(vec![0.5f32, 1.0]), Tensor::vector(vec![1f32, 2.0])];
        let [a_scales, b_scales] = scales;
        let inputs =
            [a, a_scales, rows, b, b_scales, columns, Tensor::scalar(1f32), Tensor::scalar(-9i8)];
        let y = run("QLinearMatMul", 21, &inputs, &[]).unwrap();
        assert_eq!(y.slice::<i8>().unwrap(), [-7, -5, 1, 11]);
    }

    #[test]
    fn an_empty_sum_is_zero() {
        let a = Tensor::new(vec![2, 0], Vec::<u8>::new()).unwrap();
        let b = Tensor::new(vec![0, 1], Vec::<u8>::new()).unwrap();
        let y = run("MatMulInteger", 10, &[a, b], &[]).unwrap();
        assert_eq!(y, Tensor::new(vec![2, 1], vec![0i32, 0]).unwrap());
    }

    #[test]
    fn narrow_floats_multiply() {
        let float = |values: Vec<u8>| {
            Tensor::with_type(ElementType::F8E4M3FN, vec![values.len()], Data::U8(values)).unwrap()
        };
        // [1, 2] · [448, 448] saturates.
        let (a, b) = (float(vec![0x38, 0x40]), float(vec![0x7E, 0x7E]));
        let (scale, zero) = (Tensor::scalar(1f32), float(vec![0]));
        let inputs = [a, scale.clone(), zero.clone(), b, scale.clone(), zero.clone(), scale, zero];
        let y = run("QLinearMatMul", 21, &inputs, &[]).unwrap();
        assert_eq!((y.shape(), y.to_f64().unwrap()), (&[][..], vec![448.0]));
    }
}
