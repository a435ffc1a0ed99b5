//! Transposed convolution: blocks of products, added up where they overlap.

use super::product::Product;
use super::window::{Attributes, AutoPad, Axis, Layout, halves, sizes};
use super::{check_bias, same_floats, same_rank};
use crate::call::Call;
use crate::element_type::ElementType;
use crate::error::Problem;
use crate::meter;
use crate::operators::resize::by_parts;
use crate::shape;
use crate::tensor::Tensor;
use crate::value::Value;

/// Convolves with the transposed operation: every element times the weights, added up.
pub(super) fn conv_transpose(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let (x, w) = (call.tensor(0)?, call.tensor(1)?);
    let bias = call.optional_tensor(2)?;
    let floats = same_floats(&[Some(x), Some(w), bias])?;
    same_rank(x, w, 1)?;
    let ([images, channels, spatial @ ..], [depth, rows, kernel @ ..]) = (x.shape(), w.shape())
    else {
        return Err(Problem::Invalid("a convolution has a spatial axis".into()));
    };
    let groups = shape::size(call.int_or("group", 1)?)?;
    if groups == 0 || depth != channels || !channels.is_multiple_of(groups) {
        return Err(Problem::Invalid(format!(
            "{groups} groups do not match an input of {channels} channels and weights for {depth}"
        )));
    }
    let axes = axes(call, spatial, w.shape())?;
    let outputs = shape::elements(&[*rows, groups])?;
    let mut shape = vec![*images, outputs];
    shape.extend(axes.iter().map(|axis| axis.input));
    let bias = bias.map(Tensor::to_f64).transpose()?;
    check_bias(bias.as_ref(), outputs)?;
    let mut output = Vec::with_capacity(shape::elements(&shape)?);
    if shape::elements(&shape)? == 0 {
        return Ok(vec![Tensor::from_f64(floats, shape, output)?.into()]);
    }
    let layout = Layout::new(&axes)?;
    let (taps, pixels) = (shape::elements(kernel)?, shape::elements(spatial)?);
    let depth = depth / groups;
    let (x, w) = (x.to_f64()?, transposed(&w.to_f64()?, groups, depth));
    let points = Layout::of_points(pixels);
    for image in 0..*images {
        let product = Product {
            input: x.get(image * channels * pixels..).unwrap_or_default(),
            images: 1,
            groups,
            depth,
            layout: &points,
            weights: &w,
            rows: rows * taps,
            bias: None,
        };
        let blocks: Vec<f64> = product.evaluate()?;
        for row in 0..outputs {
            let length = taps * pixels;
            meter::spend((layout.plane + length) as u64)?;
            let blocks = blocks.get(row * length..(row + 1) * length).unwrap_or_default();
            let bias = bias.as_ref().and_then(|bias| bias.get(row)).copied().unwrap_or(0.0);
            output.extend(add_up(blocks, &layout).into_iter().map(|value| value + bias));
        }
    }
    Ok(vec![Tensor::from_f64(floats, shape, output)?.into()])
}

/// Returns weights `[groups, depth, rows]` as `[groups, rows, depth]`.
fn transposed(weights: &[f64], groups: usize, depth: usize) -> Vec<f64> {
    let rows = weights.len() / (groups * depth).max(1);
    let mut result = Vec::with_capacity(weights.len());
    for group in weights.chunks((depth * rows).max(1)) {
        for row in 0..rows {
            result.extend(group.iter().skip(row).step_by(rows));
        }
    }
    result
}

/// Returns how windows slide over the output: their positions are the elements of the input.
fn axes(call: &Call<'_>, spatial: &[usize], weights: &[usize]) -> Result<Vec<Axis>, Problem> {
    let attributes = Attributes::of_weights(call, weights)?;
    let rank = spatial.len();
    let added = sizes(call, "output_padding", rank, 0)?;
    let stated = match call.ints("output_shape")? {
        None | Some([]) => None,
        Some(_) => Some(sizes(call, "output_shape", rank, 0)?),
    };
    let too_large = || Problem::TooLarge { shape: spatial.to_vec(), limit: usize::MAX };
    let mut axes = Vec::with_capacity(rank);
    for index in 0..rank {
        let (positions, stride) = (spatial[index], attributes.strides[index]);
        let scaled = positions.checked_mul(stride).ok_or_else(too_large)?;
        // What the windows cover, from the start of the first to the end of the last.
        let covered = match positions {
            0 => 0,
            _ => scaled.checked_add(attributes.extent(index)?).ok_or_else(too_large)? - stride,
        };
        let whole = covered.checked_add(added[index]).ok_or_else(too_large)?;
        let is_same = matches!(attributes.auto_pad, AutoPad::SameUpper | AutoPad::SameLower);
        let wanted = match &stated {
            Some(stated) => Some(stated[index]),
            None if is_same => Some(scaled),
            None => None,
        };
        let (before, size) = match (wanted, attributes.auto_pad) {
            (Some(size), auto_pad) => {
                let (less, more) = halves(whole.saturating_sub(size));
                (if auto_pad == AutoPad::SameUpper { less } else { more }, size)
            }
            (None, AutoPad::Explicit) => {
                let (before, after) = attributes.pads[index];
                let size = whole.checked_sub(before + after).ok_or_else(|| {
                    Problem::Invalid(format!(
                        "padding of {before} and {after} exceeds the {whole} elements of an axis"
                    ))
                })?;
                (before, size)
            }
            (None, _) => (0, whole),
        };
        axes.push(Axis {
            input: size,
            kernel: attributes.kernel[index],
            stride,
            dilation: attributes.dilations[index],
            before,
            after: covered.saturating_sub(before.saturating_add(size)),
            output: positions,
        });
    }
    Ok(axes)
}

/// Adds up blocks `[taps, positions]` in the channel over which the window slides.
fn add_up<T: Copy + Default + std::ops::AddAssign>(blocks: &[T], layout: &Layout) -> Vec<T> {
    let mut sums = vec![T::default(); layout.plane];
    let positions = layout.starts.len().max(1);
    for (block, tap) in blocks.chunks(positions).zip(&layout.taps) {
        for (value, start) in block.iter().zip(&layout.starts) {
            if let Some(sum) = sums.get_mut(start + tap) {
                *sum += *value;
            }
        }
    }
    layout.crop(&sums).collect()
}

/// Puts blocks, which are columns of a matrix, into an image, and adds them up where they overlap.
pub(super) fn col2im(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let sizes = |index| -> Result<Vec<usize>, Problem> {
        call.tensor(index)?.to_i64()?.into_iter().map(shape::size).collect()
    };
    let (image, block) = (sizes(1)?, sizes(2)?);
    if image.len() != block.len() || block.is_empty() {
        return Err(Problem::Invalid(format!(
            "the image has {} axes and the block has {}; both must have as many, at least one",
            image.len(),
            block.len()
        )));
    }
    let axes = Attributes::read(call, block)?.axes(&image, false)?;
    let layout = Layout::new(&axes)?;
    let (taps, positions) = (layout.taps.len(), layout.starts.len());
    let (images, rows) = match *x.shape() {
        [images, rows, columns] if columns == positions && rows.is_multiple_of(taps) => {
            (images, rows)
        }
        _ => {
            let expected = format!("be [N, C * {taps}, {positions}] for this image and block");
            return Err(Problem::InputShape { index: 0, shape: x.shape().to_vec(), expected });
        }
    };
    let mut shape = vec![images, rows / taps];
    shape.extend(&image);
    let channels = if shape::elements(&shape)? == 0 { 0 } else { images * (rows / taps) };
    let each = (layout.plane as u64).saturating_add((taps * positions) as u64);
    meter::spend(each.saturating_mul(channels as u64))?;
    let block = (taps * positions).max(1);
    let result = by_parts(x, |x| {
        let shape = shape.clone();
        if x.element().is_integer() || x.element() == ElementType::Bool {
            let blocks = x.to_i128()?;
            let sums = blocks.chunks(block).flat_map(|blocks| add_up(blocks, &layout));
            return Tensor::from_i128(x.element(), shape, sums.collect());
        }
        let blocks = x.to_f64()?;
        let sums = blocks.chunks(block).flat_map(|blocks| add_up(blocks, &layout));
        Tensor::from_f64(x.element(), shape, sums.collect())
    })?;
    Ok(vec![result.into()])
}
