//! Convolutions.

mod deformable;
mod product;
mod transpose;
pub(super) mod window;

use product::{Product, Rounded};
use window::{Attributes, Layout};

use crate::call::{Call, Operator};
use crate::element_type::ElementType;
use crate::error::Problem;
use crate::shape;
use crate::tensor::Tensor;
use crate::value::Value;

/// Returns the implementation of an operator of this family.
pub(super) fn find(domain: &str, name: &str) -> Option<Operator> {
    Some(match (domain, name) {
        ("", "Col2Im") => transpose::col2im,
        ("", "Conv") => conv,
        ("", "ConvInteger") => conv_integer,
        ("", "ConvTranspose") => transpose::conv_transpose,
        ("", "DeformConv") => deformable::deform_conv,
        ("", "QLinearConv") => qlinear_conv,
        _ => return None,
    })
}

/// Convolves a tensor with weights, and adds a bias.
fn conv(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let (x, w) = (call.tensor(0)?, call.tensor(1)?);
    let bias = call.optional_tensor(2)?;
    let floats = same_floats(&[Some(x), Some(w), bias])?;
    let bias = bias.map(Tensor::to_f64).transpose()?;
    if let (Some(values), Some(weights)) = (x.slice::<f32>(), w.slice::<f32>()) {
        let (shape, values) = convolve::<_, f32>(call, (x, values), (w, weights), bias)?;
        return Ok(vec![Tensor::new(shape, values)?.into()]);
    }
    let (shape, values) = convolve(call, (x, &x.to_f64()?), (w, &w.to_f64()?), bias)?;
    Ok(vec![Tensor::from_f64(floats, shape, values)?.into()])
}

/// Convolves integers, less their zero points, into 32-bit integers, which wrap around.
fn conv_integer(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let (x, w) = (call.tensor(0)?, call.tensor(1)?);
    let elements = centered(x, call.optional_tensor(2)?, 2)?;
    let weights = centered_rows(w, call.optional_tensor(3)?, 3)?;
    let (shape, values) = convolve(call, (x, &elements), (w, &weights), None)?;
    Ok(vec![Tensor::from_f64(ElementType::I32, shape, values)?.into()])
}

/// Convolves quantized tensors, and quantizes the result.
fn qlinear_conv(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let (x, w) = (call.tensor(0)?, call.tensor(3)?);
    let elements = centered(x, call.optional_tensor(2)?, 2)?;
    let weights = centered_rows(w, call.optional_tensor(5)?, 5)?;
    let (x_scale, y_scale) = (call.tensor(1)?.number()?, call.tensor(6)?.number()?);
    let w_scales = call.tensor(4)?.to_f64()?;
    let bias = call.optional_tensor(8)?.map(Tensor::to_f64).transpose()?;
    let (y_type, y_zero) = match call.optional_tensor(7)? {
        Some(zero) => (zero.element(), zero.number()?),
        None => (x.element(), 0.0),
    };
    let (low, high) = integers(y_type, 7)?;
    let (shape, mut values): (_, Vec<f64>) = convolve(call, (x, &elements), (w, &weights), bias)?;
    let (rows, pixels) = (shape.get(1).copied().unwrap_or(0), shape.get(2..).unwrap_or_default());
    if w_scales.len() != 1 && w_scales.len() != rows {
        return Err(Problem::InputShape {
            index: 4,
            shape: call.tensor(4)?.shape().to_vec(),
            expected: format!("have 1 or {rows} elements"),
        });
    }
    let pixels = shape::elements(pixels)?.max(1);
    let scales = w_scales.iter().cycle();
    let scales = scales.map(|w_scale| x_scale * w_scale / y_scale);
    for (channel, scale) in values.chunks_mut(pixels).zip(scales) {
        for value in channel {
            *value = ((*value * scale).round_ties_even() + y_zero).clamp(low, high);
        }
    }
    Ok(vec![Tensor::from_f64(y_type, shape, values)?.into()])
}

/// Returns the floating-point type that all operands have.
fn same_floats(operands: &[Option<&Tensor>]) -> Result<ElementType, Problem> {
    let mut types = operands.iter().flatten().map(|operand| operand.element());
    let first = types.next().unwrap_or(ElementType::F32);
    if !first.is_float() || first.is_narrow_float() {
        let accepted = "float16, bfloat16, float32 or float64";
        return Err(Problem::InputType { index: 0, found: first, accepted });
    }
    match types.find(|other| *other != first) {
        Some(second) => Err(Problem::MixedTypes { first, second }),
        None => Ok(first),
    }
}

/// Returns the range of an 8-bit integer type.
fn integers(element: ElementType, index: usize) -> Result<(f64, f64), Problem> {
    match element {
        ElementType::I8 => Ok((-128.0, 127.0)),
        ElementType::U8 => Ok((0.0, 255.0)),
        found => Err(Problem::InputType { index, found, accepted: "int8 or uint8" }),
    }
}

/// Returns integers less their zero point. `index` is that of the zero point.
fn centered(x: &Tensor, zero_point: Option<&Tensor>, index: usize) -> Result<Vec<f64>, Problem> {
    if zero_point.is_some_and(|zero_point| zero_point.len() != 1) {
        let shape = zero_point.map_or(vec![], |zero_point| zero_point.shape().to_vec());
        return Err(Problem::InputShape { index, shape, expected: "have 1 element".into() });
    }
    centered_rows(x, zero_point, index)
}

/// Returns weights less their zero point, which may be one for each row.
fn centered_rows(
    w: &Tensor,
    zero_point: Option<&Tensor>,
    index: usize,
) -> Result<Vec<f64>, Problem> {
    integers(w.element(), index.saturating_sub(2))?;
    let mut values = w.to_f64()?;
    let Some(zero_point) = zero_point else { return Ok(values) };
    if zero_point.element() != w.element() {
        return Err(Problem::MixedTypes { first: w.element(), second: zero_point.element() });
    }
    let rows = w.shape().first().copied().unwrap_or(1);
    if zero_point.len() != 1 && zero_point.len() != rows {
        return Err(Problem::InputShape {
            index,
            shape: zero_point.shape().to_vec(),
            expected: format!("have 1 or {rows} elements"),
        });
    }
    let zeros = zero_point.to_f64()?;
    let row = (values.len() / zeros.len().max(1)).max(1);
    for (row, zero) in values.chunks_mut(row).zip(&zeros) {
        row.iter_mut().for_each(|value| *value -= zero);
    }
    Ok(values)
}

/// Returns the number of groups, which must divide the output channels of a convolution. `input`
/// is the number of input channels of a group.
fn groups(call: &Call<'_>, x: &Tensor, input: usize, output: usize) -> Result<usize, Problem> {
    let groups = shape::size(call.int_or("group", 1)?)?;
    let channels = x.shape().get(1).copied().unwrap_or(0);
    if groups == 0 || !output.is_multiple_of(groups) || input.checked_mul(groups) != Some(channels)
    {
        return Err(Problem::Invalid(format!(
            "{groups} groups of {input} channels do not match an input of {channels} and an output \
             of {output} channels"
        )));
    }
    Ok(groups)
}

/// Checks that an input and weights have the same number of spatial axes, at least one.
fn same_rank(x: &Tensor, w: &Tensor, index: usize) -> Result<(), Problem> {
    if x.rank() < 3 {
        let expected = "have a batch axis, a channel axis and a spatial axis at least".into();
        return Err(Problem::InputShape { index: 0, shape: x.shape().to_vec(), expected });
    }
    if w.rank() != x.rank() {
        let expected = format!("have {} axes", x.rank());
        return Err(Problem::InputShape { index, shape: w.shape().to_vec(), expected });
    }
    Ok(())
}

/// Checks that a bias has one element for each output channel.
fn check_bias(bias: Option<&Vec<f64>>, channels: usize) -> Result<(), Problem> {
    match bias {
        Some(bias) if bias.len() != channels => Err(Problem::Invalid(format!(
            "the bias has {} elements for {channels} output channels",
            bias.len()
        ))),
        _ => Ok(()),
    }
}

/// Convolves elements with weights. The tensors state their shapes.
fn convolve<T: Copy + Into<f64> + Sync, O: Rounded>(
    call: &Call<'_>,
    (x, elements): (&Tensor, &[T]),
    (w, weights): (&Tensor, &[T]),
    bias: Option<Vec<f64>>,
) -> Result<(Vec<usize>, Vec<O>), Problem> {
    same_rank(x, w, 1)?;
    let ([images, _, spatial @ ..], [output, depth, ..]) = (x.shape(), w.shape()) else {
        return Err(Problem::Invalid("a convolution has a spatial axis".into()));
    };
    let groups = groups(call, x, *depth, *output)?;
    check_bias(bias.as_ref(), *output)?;
    let axes = Attributes::of_weights(call, w.shape())?.axes(spatial, false)?;
    let mut shape = vec![*images, *output];
    shape.extend(axes.iter().map(|axis| axis.output));
    if shape::elements(&shape)? == 0 {
        return Ok((shape, vec![]));
    }
    let product = Product {
        input: elements,
        images: *images,
        groups,
        depth: *depth,
        layout: &Layout::new(&axes)?,
        weights,
        rows: output / groups,
        bias: bias.as_deref(),
    };
    Ok((shape, product.evaluate()?))
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::HashMap;
    use std::slice::from_ref;

    use super::*;
    use crate::evaluate::NoObserver;
    use crate::model::{Attribute, Graph, Model, Node, ValueInfo};

    /// Evaluates an operator of a version of the standard domain, and returns its outputs.
    pub(in crate::operators) fn evaluate(
        operator: &str,
        version: i64,
        inputs: &[Tensor],
        attributes: &[(&str, Attribute)],
        outputs: usize,
    ) -> Result<Vec<Tensor>, Problem> {
        let names = |prefix: &str, count| (0..count).map(|i| format!("{prefix}{i}")).collect();
        let names: [Vec<String>; 2] = [names("x", inputs.len()), names("y", outputs)];
        let attributes = attributes.iter().map(|(name, value)| (name.to_string(), value.clone()));
        let node = Node {
            operator: operator.into(),
            inputs: names[0].clone(),
            outputs: names[1].clone(),
            attributes: attributes.collect(),
            ..Node::default()
        };
        let outputs =
            names[1].iter().map(|name| ValueInfo { name: name.clone(), value_type: None });
        let mut graph = Graph { nodes: vec![node], outputs: outputs.collect(), ..Graph::default() };
        graph.prepare();
        let opsets = HashMap::from([(String::new(), version)]);
        let model = Model { opsets, functions: vec![], graph };
        let values = names[0].iter().cloned().zip(inputs.iter().cloned().map(Value::from));
        let outputs =
            model.run(values.collect(), &mut NoObserver).map_err(|error| error.problem)?;
        outputs.iter().map(|value| value.tensor().cloned()).collect()
    }

    /// Creates a tensor of numbers.
    pub(in crate::operators) fn tensor(shape: &[usize], values: &[f32]) -> Tensor {
        Tensor::new(shape.to_vec(), values.to_vec()).unwrap()
    }

    fn ones(shape: &[usize]) -> Tensor {
        tensor(shape, &vec![1.0; shape.iter().product()])
    }

    #[test]
    fn rows_pixels_and_taps_need_not_fill_blocks() {
        // 5 rows, 135 pixels and 270 taps, in 2 images of 2 groups.
        let (x, w) = (ones(&[2, 60, 17, 11]), ones(&[10, 30, 3, 3]));
        let bias = tensor(&[10], &[0.5; 10]);
        let group = [("group", Attribute::Int(2))];
        let y = evaluate("Conv", 22, &[x, w, bias], &group, 1).unwrap();
        assert_eq!(y[0].shape(), [2, 10, 15, 9]);
        assert!(y[0].slice::<f32>().unwrap().iter().all(|value| *value == 270.5));
    }

    #[test]
    fn empty_operands_give_empty_results_or_the_bias() {
        let bias = tensor(&[1], &[3.0]);
        let inputs = [ones(&[0, 1, 4]), ones(&[1, 1, 2]), bias.clone()];
        assert_eq!(evaluate("Conv", 11, &inputs, &[], 1).unwrap()[0].shape(), [0, 1, 3]);
        let inputs = [ones(&[1, 0, 4]), ones(&[1, 0, 2]), bias];
        assert_eq!(evaluate("Conv", 11, &inputs, &[], 1), Ok(vec![tensor(&[1, 1, 3], &[3.0; 3])]));
    }

    #[test]
    fn integers_wrap_around_and_zero_points_are_padding() {
        let x = Tensor::new(vec![1, 1, 2], vec![7u8, 9]).unwrap();
        let w = Tensor::new(vec![1, 1, 2], vec![-128i8, 127]).unwrap();
        let inputs = [x, w, Tensor::scalar(8u8), Tensor::vector(vec![-1i8])];
        let pads = [("pads", Attribute::Ints(vec![1, 0]))];
        let y = evaluate("ConvInteger", 10, &inputs, &pads, 1).unwrap();
        assert_eq!(y, [Tensor::new(vec![1, 1, 2], vec![-128, 255]).unwrap()]);
    }

    #[test]
    fn transposed_outputs_are_as_large_as_the_stride_says() {
        let (x, w) = (tensor(&[1, 1, 2], &[1.0, 2.0]), tensor(&[1, 1, 2], &[1.0, 10.0]));
        let attributes = |name: &str| {
            let strides = ("strides", Attribute::Ints(vec![3]));
            [strides, ("auto_pad", Attribute::Text(name.into()))]
        };
        let same =
            evaluate("ConvTranspose", 11, &[x.clone(), w.clone()], &attributes("SAME_UPPER"), 1);
        assert_eq!(same, Ok(vec![tensor(&[1, 1, 6], &[1.0, 10.0, 0.0, 2.0, 20.0, 0.0])]));
        let valid = evaluate("ConvTranspose", 11, &[x, w], &attributes("VALID"), 1);
        assert_eq!(valid, Ok(vec![tensor(&[1, 1, 5], &[1.0, 10.0, 0.0, 2.0, 20.0])]));
    }

    #[test]
    fn wrong_attributes_are_errors() {
        let inputs = [ones(&[1, 2, 4]), ones(&[2, 1, 2])];
        let group = ("group", Attribute::Int(2));
        for (name, value) in [
            ("pads", vec![-1, 0]),
            ("pads", vec![i64::MAX, i64::MAX]),
            ("strides", vec![0]),
            ("dilations", vec![i64::MAX]),
            ("dilations", vec![4]),
            ("kernel_shape", vec![3]),
        ] {
            let attribute = (name, Attribute::Ints(value));
            let y = evaluate("Conv", 11, &inputs, &[group.clone(), attribute.clone()], 1);
            assert!(y.is_err() || y.unwrap()[0].is_empty(), "{attribute:?}");
        }
        assert!(evaluate("Conv", 11, &inputs, from_ref(&group), 1).is_ok());
        assert!(evaluate("Conv", 11, &inputs, &[], 1).is_err());
    }
}
