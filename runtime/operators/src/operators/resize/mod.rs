//! Resizing: every element is a weighted average of elements around its place in the input.

mod place;

pub(super) use place::cubic;
use place::{Axis, Filter, Options, Rounding, Transformation, Weighted};

use crate::call::{Call, Operator};
use crate::element_type::ElementType;
use crate::error::Problem;
use crate::meter::Tally;
use crate::shape;
use crate::tensor::{Data, Element, Tensor};
use crate::value::Value;

/// Returns the implementation of an operator of this family.
pub(super) fn find(domain: &str, name: &str) -> Option<Operator> {
    Some(match (domain, name) {
        ("", "Resize") => resize,
        ("", "Upsample") => upsample,
        _ => return None,
    })
}

/// Resizes a tensor to sizes or by scales.
fn resize(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    if call.version < 11 {
        let scales = call.tensor(1)?.to_f64()?;
        return simple(call, &scales);
    }
    let filter = match call.text("mode")?.unwrap_or("nearest") {
        "nearest" => {
            let rounding = call.text("nearest_mode")?.unwrap_or("round_prefer_floor");
            Filter::Nearest(Rounding::named(rounding)?)
        }
        "linear" => Filter::Linear,
        "cubic" => Filter::Cubic(call.float_or("cubic_coeff_a", -0.75)?.into()),
        other => return Err(wrong_mode(other, "nearest, linear or cubic")),
    };
    let mode = call.text("coordinate_transformation_mode")?.unwrap_or("half_pixel");
    let options = Options {
        transformation: Transformation::named(mode)?,
        filter,
        exclude_outside: call.flag("exclude_outside", false)?,
        antialias: call.flag("antialias", false)?,
    };
    let axes = axes(call, x, options.transformation)?;
    let extrapolated = call.float_or("extrapolation_value", 0.0)?.into();
    Ok(vec![by_parts(x, |x| evaluate(x, &axes, &options, extrapolated))?.into()])
}

/// Resizes a tensor by scales, from the first element on.
fn upsample(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let scales = match call.optional_tensor(1)? {
        Some(scales) => scales.to_f64()?,
        None => {
            let scales = call.floats("scales")?;
            let scales = scales.ok_or(Problem::MissingAttribute { name: "scales" })?;
            scales.iter().map(|scale| f64::from(*scale)).collect()
        }
    };
    simple(call, &scales)
}

/// Resizes a tensor like `Upsample` and the first version of `Resize`.
fn simple(call: &Call<'_>, scales: &[f64]) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let filter = match call.text("mode")?.unwrap_or("nearest") {
        "nearest" => Filter::Simple,
        "linear" | "bilinear" => Filter::Linear,
        other => return Err(wrong_mode(other, "nearest or linear")),
    };
    let options = Options {
        transformation: Transformation::Asymmetric,
        filter,
        exclude_outside: false,
        antialias: false,
    };
    let every: Vec<usize> = (0..x.rank()).collect();
    let axes = scaled(x.shape(), &every, scales)?;
    Ok(vec![by_parts(x, |x| evaluate(x, &axes, &options, 0.0))?.into()])
}

fn wrong_mode(mode: &str, accepted: &'static str) -> Problem {
    Problem::AttributeValue { name: "mode", value: format!("{mode:?}"), accepted }
}

/// Checks that there is a number for each axis that is resized.
fn check_count(name: &str, found: usize, expected: usize) -> Result<(), Problem> {
    match found == expected {
        true => Ok(()),
        false => {
            Err(Problem::Invalid(format!("{name} has {found} elements instead of {expected}")))
        }
    }
}

/// Returns what each axis is resized to.
fn axes(call: &Call<'_>, x: &Tensor, transformation: Transformation) -> Result<Vec<Axis>, Problem> {
    let resized = match call.ints("axes")? {
        Some(axes) => shape::axes(axes, x.rank())?,
        None => (0..x.rank()).collect(),
    };
    let present = |index| Ok(call.optional_tensor(index)?.filter(|list| !list.is_empty()));
    let mut axes = match (present(2)?, present(3)?) {
        (Some(_), Some(_)) => {
            return Err(Problem::Invalid("only one of scales and sizes can be given".into()));
        }
        (Some(scales), None) => scaled(x.shape(), &resized, &scales.to_f64()?)?,
        (None, Some(sizes)) => {
            let sizes: Result<Vec<usize>, _> =
                sizes.to_i64()?.into_iter().map(shape::size).collect();
            let policy = call.text("keep_aspect_ratio_policy")?.unwrap_or("stretch");
            sized(x.shape(), &resized, &sizes?, policy)?
        }
        (None, None) if resized.is_empty() => scaled(x.shape(), &[], &[])?,
        (None, None) => return Err(Problem::MissingInput { index: 2 }),
    };
    if transformation == Transformation::TfCropAndResize {
        let region = call.tensor(1)?.to_f64()?;
        check_count("roi", region.len(), 2 * resized.len())?;
        let (starts, ends) = region.split_at(resized.len());
        for (axis, region) in resized.iter().zip(starts.iter().zip(ends)) {
            axes[*axis].region = (*region.0, *region.1);
        }
    }
    Ok(axes)
}

/// Returns axes that are resized by scales.
fn scaled(shape: &[usize], resized: &[usize], scales: &[f64]) -> Result<Vec<Axis>, Problem> {
    check_count("scales", scales.len(), resized.len())?;
    let mut axes: Vec<Axis> = shape.iter().map(|size| Axis::kept(*size)).collect();
    for (index, scale) in resized.iter().zip(scales) {
        if !(*scale > 0.0 && scale.is_finite()) {
            return Err(Problem::Invalid(format!("a scale is {scale}; it must be positive")));
        }
        let axis = &mut axes[*index];
        // The product is rounded like the scale: 10 elements scaled by 0.7 are 7, not 6.99999988.
        let length = axis.input as f32 * *scale as f32;
        axis.length = length.into();
        axis.output = length as usize;
        axis.scale = (*scale, 1.0);
        axis.is_single = true;
    }
    Ok(axes)
}

/// Returns axes that are resized to sizes. The policy can reduce or increase them to one scale.
fn sized(
    shape: &[usize],
    resized: &[usize],
    sizes: &[usize],
    policy: &str,
) -> Result<Vec<Axis>, Problem> {
    check_count("sizes", sizes.len(), resized.len())?;
    let mut axes: Vec<Axis> = shape.iter().map(|size| Axis::kept(*size)).collect();
    for (index, size) in resized.iter().zip(sizes) {
        let axis = &mut axes[*index];
        axis.scale = (*size as f64, axis.input as f64);
        axis.output = *size;
        axis.length = *size as f64;
    }
    // Scales are compared and applied as exact fractions.
    let ratio = |index: usize| (axes[index].output as u128, axes[index].input as u128);
    let order = |a: &usize, b: &usize| {
        let ((a, of_a), (b, of_b)) = (ratio(*a), ratio(*b));
        (a * of_b).cmp(&(b * of_a))
    };
    let chosen = match policy {
        "stretch" => None,
        "not_larger" => resized.iter().copied().min_by(order),
        "not_smaller" => resized.iter().copied().max_by(order),
        other => {
            return Err(Problem::AttributeValue {
                name: "keep_aspect_ratio_policy",
                value: format!("{other:?}"),
                accepted: "stretch, not_larger or not_smaller",
            });
        }
    };
    if let Some(chosen) = chosen {
        let (numerator, denominator) = ratio(chosen);
        for index in resized {
            let axis = &mut axes[*index];
            axis.scale = (numerator as f64, denominator as f64);
            let length = axis.input as f64 * numerator as f64 / denominator as f64;
            axis.output = (length + 0.5) as usize;
            axis.length = axis.output as f64;
        }
    }
    Ok(axes)
}

/// Resizes a tensor of real numbers, or of any elements if only the nearest one counts.
fn evaluate(
    x: &Tensor,
    axes: &[Axis],
    options: &Options,
    extrapolated: f64,
) -> Result<Tensor, Problem> {
    let sizes: Vec<usize> = axes.iter().map(|axis| axis.output).collect();
    if shape::elements(&sizes)? == 0 {
        return x.select(sizes, std::iter::empty());
    }
    if x.is_empty() {
        let expected = format!("have elements to be resized to {sizes:?}");
        return Err(Problem::InputShape { index: 0, shape: x.shape().to_vec(), expected });
    }
    let tables = axes.iter().map(|axis| axis.weighted(options));
    let tables = tables.collect::<Result<Vec<Vec<Weighted>>, Problem>>()?;
    if let Filter::Nearest(_) | Filter::Simple = options.filter {
        let offsets = offsets(x, &tables);
        if offsets.iter().all(Option::is_some) {
            return x.select(sizes, offsets.into_iter().flatten());
        }
        // The extrapolation value follows the elements.
        let x = x.followed_by(&from_reals(x.element(), vec![1], vec![extrapolated])?)?;
        let last = x.len().saturating_sub(1);
        return x.select(sizes, offsets.into_iter().map(|offset| offset.unwrap_or(last)));
    }
    let mut values = x.to_f64()?;
    let mut shape = x.shape().to_vec();
    for (index, (axis, table)) in axes.iter().zip(&tables).enumerate() {
        if !axis.is_identity(table) {
            values = along(&values, &mut shape, index, table)?;
        }
    }
    if tables.iter().flatten().any(Option::is_none) {
        for (value, offset) in values.iter_mut().zip(offsets(x, &tables)) {
            *value = if offset.is_some() { *value } else { extrapolated };
        }
    }
    from_reals(x.element(), sizes, values)
}

/// Returns the offset of the first element that each element of the result is made of; `None` for
/// an extrapolated one.
fn offsets(x: &Tensor, tables: &[Vec<Weighted>]) -> Vec<Option<usize>> {
    let mut offsets = vec![Some(0)];
    for (table, stride) in tables.iter().zip(shape::strides(x.shape())) {
        let steps = table.iter().map(|weighted| {
            let (index, _) = weighted.as_ref()?.first()?;
            Some(index * stride)
        });
        let steps: Vec<Option<usize>> = steps.collect();
        let next = offsets.iter().flat_map(|start: &Option<usize>| {
            steps.iter().map(move |step| Some((*start)? + (*step)?))
        });
        offsets = next.collect();
    }
    offsets
}

/// Replaces an axis by weighted sums of its elements.
fn along(
    values: &[f64],
    shape: &mut [usize],
    axis: usize,
    table: &[Weighted],
) -> Result<Vec<f64>, Problem> {
    let (outer, rest) = shape.split_at(axis);
    let (input, inner) = (rest.first().copied().unwrap_or(1), rest.get(1..).unwrap_or_default());
    let (outer, inner) = (shape::elements(outer)?, shape::elements(inner)?);
    let mut sums = vec![0.0; shape::elements(&[outer, table.len(), inner])?];
    let mut rows = sums.chunks_mut(inner.max(1));
    let mut tally = Tally::default();
    for block in 0..outer {
        for weighted in table {
            let Some(row) = rows.next() else { break };
            tally.spend(weighted.as_ref().map_or(1, Vec::len).saturating_mul(inner))?;
            for (index, weight) in weighted.iter().flatten() {
                let start = (block * input + index) * inner;
                let from = values.get(start..start + inner).unwrap_or_default();
                row.iter_mut().zip(from).for_each(|(sum, value)| *sum += weight * value);
            }
        }
    }
    shape[axis] = table.len();
    Ok(sums)
}

/// Creates a tensor from real numbers. Integers are rounded to the nearest, ties to even, and
/// limited to their range.
fn from_reals(
    element: ElementType,
    shape: Vec<usize>,
    values: Vec<f64>,
) -> Result<Tensor, Problem> {
    let Some((low, high)) = element.integer_range() else {
        return Tensor::from_f64(element, shape, values);
    };
    let values = values.into_iter().map(|value| value.round_ties_even() as i128);
    Tensor::from_i128(element, shape, values.map(|value| value.clamp(low, high)).collect())
}

/// Applies a linear function of real tensors also to complex ones: to their real and imaginary
/// parts.
pub(super) fn by_parts(
    x: &Tensor,
    function: impl Fn(&Tensor) -> Result<Tensor, Problem>,
) -> Result<Tensor, Problem> {
    fn apply<T: Element + Copy>(
        shape: &[usize],
        values: &[[T; 2]],
        function: impl Fn(&Tensor) -> Result<Tensor, Problem>,
    ) -> Result<Tensor, Problem>
    where
        [T; 2]: Element,
    {
        let part = |part: usize| {
            let values = values.iter().map(|value| value[part]).collect();
            function(&Tensor::new::<T>(shape.to_vec(), values)?)
        };
        let (real, imaginary) = (part(0)?, part(1)?);
        let (Some(a), Some(b)) = (real.slice::<T>(), imaginary.slice::<T>()) else {
            return Err(Problem::MixedTypes { first: T::TYPE, second: real.element() });
        };
        Tensor::new(real.shape().to_vec(), a.iter().zip(b).map(|(a, b)| [*a, *b]).collect())
    }
    match x.data() {
        Data::Complex64(values) => apply(x.shape(), values, function),
        Data::Complex128(values) => apply(x.shape(), values, function),
        _ => function(x),
    }
}

#[cfg(test)]
mod tests {
    use crate::model::Attribute;
    use crate::operators::convolution::tests::evaluate;
    use crate::tensor::Tensor;

    /// Resizes a vector to a size.
    fn resized(x: Tensor, size: i64, attributes: &[(&str, &str)]) -> Tensor {
        let attributes: Vec<_> = attributes
            .iter()
            .map(|(name, value)| (*name, Attribute::Text(value.to_string())))
            .collect();
        let none = Tensor::vector::<f32>(vec![]);
        let inputs = [x, none.clone(), none, Tensor::vector(vec![size])];
        evaluate("Resize", 11, &inputs, &attributes, 1).unwrap().remove(0)
    }

    #[test]
    fn integers_are_rounded_and_limited() {
        let y = resized(Tensor::vector(vec![0u8, 3, 255, 255]), 8, &[("mode", "cubic")]);
        assert_eq!(y.slice::<u8>().unwrap()[5..], [255, 255, 255]);
        let y = resized(Tensor::vector(vec![1i8, 4]), 4, &[("mode", "linear")]);
        assert_eq!(y, Tensor::vector(vec![1i8, 2, 3, 4]));
    }

    #[test]
    fn every_element_type_can_be_resized() {
        let text = |values: &[&str]| Tensor::vector(values.iter().map(|v| v.to_string()).collect());
        assert_eq!(resized(text(&["a", "b"]), 4, &[]), text(&["a", "a", "b", "b"]));
        let y = resized(Tensor::vector(vec![[0.0f32, 8.0], [4.0, 0.0]]), 4, &[("mode", "linear")]);
        assert_eq!(y, Tensor::vector(vec![[0.0f32, 8.0], [1.0, 6.0], [3.0, 2.0], [4.0, 0.0]]));
    }

    #[test]
    fn wrong_sizes_and_scales_are_errors() {
        let x = Tensor::vector(vec![1.0f32, 2.0]);
        for scale in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e30] {
            let inputs = [x.clone(), Tensor::vector(vec![scale])];
            assert!(evaluate("Resize", 10, &inputs, &[], 1).is_err(), "{scale}");
        }
    }
}
