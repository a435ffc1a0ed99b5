//! Converts operators that interpolate between elements.

#[cfg(feature = "export")]
use hardtack_bundle::graph::Operator;
#[cfg(feature = "export")]
use hardtack_bundle::graph::{CoordinateTransform, Interpolation};
use hardtack_bundle::graph::{GridInterpolation, GridPadding, GridSample, Resize};
use tract_core::internal::*;
use tract_core::ops::nn;
#[cfg(feature = "export")]
use tract_core::ops::nn::{CoordTransformer, Interpolator, Nearest};
use tract_core::ops::nn::{InterpolationMode, PaddingMode};

use crate::float::custom_ops;
use crate::float::custom_ops::Check;
use crate::float::error::{Problem, require};
use crate::float::load::{Context, Purpose};
#[cfg(feature = "export")]
use crate::float::save::Scope;

pub(super) fn resize(cx: &Context<'_>, a: &Resize) -> Result<Box<dyn TypedOp>, Problem> {
    require(!cx.inputs.is_empty(), "it has no input")?;
    let op = custom_ops::Resize { attributes: a.clone() };
    let (scales, sizes) = (a.scales_input.map(|i| i as usize), a.sizes_input.map(|i| i as usize));
    let named = [scales, sizes];
    require(
        named.iter().flatten().all(|input| (1..cx.inputs.len()).contains(input)),
        "its scales or sizes refer to an input that does not exist",
    )?;
    require(cx.input(0).datum_type.is_number(), "its input is not numeric")?;
    let rank = cx.input(0).rank();
    require(rank > 0, "its input has no axes")?;
    let list = |input: usize| -> Result<&Tensor, Problem> {
        let values = cx.input(input).konst.as_deref();
        let values = values.ok_or("its scales or sizes are not constant")?;
        require(
            values.len() == rank || values.len() == 0,
            "its scales or sizes do not have one value per axis",
        )?;
        Ok(values)
    };
    if let Some(input) = scales {
        let scales = list(input)?;
        require(scales.datum_type() == DatumType::F32, "its scales are not of type f32")?;
        let scales = scales.try_as_plain_ram()?.as_slice::<f32>()?;
        let positive = scales.iter().all(|scale| (1e-6..1e6).contains(scale));
        require(positive, "a scale is not in the supported range from 1e-6 to 1e6")?;
    }
    if let Some(input) = sizes {
        let dtype = list(input)?.datum_type();
        require(dtype.is_integer() || dtype.is_tdim(), "its sizes are not of an integer type")?;
    }
    let check = Check::Least((0..rank).map(|axis| (axis, 1)).collect());
    // tract's own operation bounds nothing of what it allocates.
    let output = op.output_facts(cx.inputs)?.remove(0).shape;
    let bounded = match (cx.input(0).shape.as_concrete(), output.as_concrete()) {
        (Some(from), Some(to)) => custom_ops::Resize::is_bounded(from, to),
        _ => false,
    };
    match op.to_core().filter(|_| bounded || cx.loader.purpose != Purpose::Run) {
        Some(core) => cx.checked(check, core),
        None => cx.checked(check, op),
    }
}

pub(super) fn nearest_upsample(
    cx: &Context<'_>,
    scales: &[u64],
) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(1)?;
    let fits = scales.iter().all(|scale| (1..1 << 24).contains(scale));
    let rank = cx.input(0).rank();
    require(fits && rank > 0 && scales.len() == rank, "its scales do not match its input")?;
    require(!cx.input(0).datum_type.is_tdim(), "its input must not be symbolic dimensions")?;
    let check = Check::Least((0..rank).map(|axis| (axis, 1)).collect());
    cx.checked(check, nn::NearestUpsample { scales: scales.iter().map(|s| *s as usize).collect() })
}

pub(super) fn grid_sample(cx: &Context<'_>, a: &GridSample) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(2)?;
    let (x, grid) = (&cx.input(0).shape, &cx.input(1).shape);
    let fits = x.rank() >= 3
        && grid.rank() == x.rank()
        && grid.last().is_some_and(|dim| dim.as_i64() == Some(x.rank() as i64 - 2))
        && x[0] == grid[0];
    require(fits, "its grid does not match its input")?;
    let types = [cx.input(0).datum_type, cx.input(1).datum_type];
    require(types.iter().all(|dtype| dtype.is_float()), "its inputs do not have a float type")?;
    // Each output element reads 2 corners per spatial axis, so 2ⁿ in n dimensions.
    require(x.rank() <= 5, "its input has more than 3 spatial axes")?;
    let cubic = a.interpolation == GridInterpolation::Bicubic;
    require(!cubic || x.rank() == 4, "bicubic mode requires a 4-D input")?;
    let least = Check::Least((2..x.rank()).map(|axis| (axis, 1)).collect());
    let known = least.load(cx.inputs)?.is_some();
    let op = nn::GridSample {
        mode: match a.interpolation {
            GridInterpolation::Bilinear => InterpolationMode::Bilinear,
            GridInterpolation::Nearest => InterpolationMode::Nearest,
            GridInterpolation::Bicubic => InterpolationMode::Bicubic,
        },
        padding_mode: match a.padding {
            GridPadding::Zeros => PaddingMode::Zeros,
            GridPadding::Border => PaddingMode::Border,
            GridPadding::Reflection => PaddingMode::Reflection,
        },
        align_corners: a.align_corners,
    };
    match a.padding {
        GridPadding::Reflection => cx.checked(Check::Reflection, op),
        _ if known => Ok(Box::new(op)),
        _ => cx.checked(least, op),
    }
}

#[cfg(feature = "export")]
pub(super) fn save(op: &dyn TypedOp, _: &mut Scope<'_>) -> Result<Option<Operator>, Problem> {
    Ok(Some(if let Some(op) = op.downcast_ref::<nn::Resize>() {
        Operator::Resize(Resize {
            coordinates: match op.coord_transformer {
                CoordTransformer::HalfPixel => CoordinateTransform::HalfPixel,
                CoordTransformer::AlignCorners => CoordinateTransform::AlignCorners,
                CoordTransformer::Asymmetric => CoordinateTransform::Asymmetric,
                CoordTransformer::PytorchHalfPixel => CoordinateTransform::PytorchHalfPixel,
                CoordTransformer::HalfPixelSymmetric => CoordinateTransform::HalfPixelSymmetric,
                CoordTransformer::TfHalfPixelForNn => CoordinateTransform::TfHalfPixelForNn,
            },
            interpolation: match (&op.interpolator, op.nearest) {
                (Interpolator::Linear, _) => Interpolation::Linear,
                (Interpolator::Cubic, _) => Interpolation::Cubic,
                (Interpolator::Nearest, Nearest::Floor) => Interpolation::NearestFloor,
                (Interpolator::Nearest, Nearest::RoundPreferCeil) => {
                    Interpolation::NearestRoundPreferCeil
                }
            },
            scales_input: op.optional_scales_input.map(|input| input as u32),
            sizes_input: op.optional_sizes_input.map(|input| input as u32),
            cubic_coefficient: custom_ops::Resize::CORE_CUBIC_COEFFICIENT,
            exclude_outside: false,
        })
    } else if let Some(op) = op.downcast_ref::<custom_ops::Resize>() {
        Operator::Resize(op.attributes.clone())
    } else if let Some(op) = op.downcast_ref::<nn::NearestUpsample>() {
        Operator::NearestUpsample(op.scales.iter().map(|scale| *scale as u64).collect())
    } else if let Some(op) = op.downcast_ref::<nn::GridSample>() {
        Operator::GridSample(GridSample {
            interpolation: match op.mode {
                InterpolationMode::Bilinear => GridInterpolation::Bilinear,
                InterpolationMode::Nearest => GridInterpolation::Nearest,
                InterpolationMode::Bicubic => GridInterpolation::Bicubic,
            },
            padding: match op.padding_mode {
                PaddingMode::Zeros => GridPadding::Zeros,
                PaddingMode::Border => GridPadding::Border,
                PaddingMode::Reflection => GridPadding::Reflection,
            },
            align_corners: op.align_corners,
        })
    } else {
        return Ok(None);
    }))
}
