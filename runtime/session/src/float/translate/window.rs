//! Converts operators that slide a window over an image.

#[cfg(feature = "export")]
use hardtack_bundle::graph::Operator;
use hardtack_bundle::graph::{
    Conv, ConvTranspose, ImageLayout, KernelLayout, MaxPool, Padding, SumPool, Window,
};
use tract_core::internal::*;
use tract_core::ops::cnn;
use tract_core::ops::cnn::{KernelFormat, PaddingSpec, PoolSpec};
use tract_core::ops::nn::DataFormat;

use crate::float::custom_ops::{Check, Fit};
use crate::float::error::{Problem, require};
use crate::float::load::Context;
#[cfg(feature = "export")]
use crate::float::save::Scope;
#[cfg(feature = "export")]
use crate::float::tensors::dtype_from_tract;
use crate::float::tensors::dtype_to_tract;

/// The maximum of each size, so that sums and products of a few sizes cannot overflow.
const LIMIT_SIZE: u32 = 1 << 24;

pub(super) fn conv(cx: &Context<'_>, a: &Conv) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(3)?;
    cx.same_types(0)?;
    let pool_spec = window(cx, &a.window)?;
    let kernel_fmt = kernel(cx, &pool_spec, a.kernel_layout, a.groups)?;
    let check = Check::Window(Fit::new(&pool_spec, None));
    let group = a.groups as usize;
    cx.checked(check, cnn::Conv { pool_spec, kernel_fmt, group, q_params: None })
}

pub(super) fn conv_transpose(
    cx: &Context<'_>,
    a: &ConvTranspose,
) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(3)?;
    cx.same_types(0)?;
    let pool_spec = window(cx, &a.window)?;
    let kernel_format = kernel(cx, &pool_spec, a.kernel_layout, a.groups)?;
    require(
        a.output_padding.len() == pool_spec.rank()
            && a.output_padding.iter().all(|size| *size <= LIMIT_SIZE),
        "its output padding does not have one supported size per axis",
    )?;
    let adjustments = sizes(&a.output_padding);
    let check = Check::Window(Fit::new(&pool_spec, Some(&adjustments)));
    let group = a.groups as usize;
    cx.checked(check, cnn::Deconv { pool_spec, kernel_format, adjustments, group })
}

pub(super) fn max_pool(cx: &Context<'_>, a: &MaxPool) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(1)?;
    let pool_spec = window(cx, &a.window)?;
    let with_index_outputs = a.index_dtype.map(dtype_to_tract);
    require(
        with_index_outputs.is_none_or(|dtype| matches!(dtype, DatumType::I32 | DatumType::I64)),
        "its indices are neither i32 nor i64",
    )?;
    let check = pool(cx, &pool_spec)?;
    cx.checked(check, cnn::MaxPool { pool_spec, with_index_outputs })
}

pub(super) fn sum_pool(cx: &Context<'_>, a: &SumPool) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(1)?;
    let pool_spec = window(cx, &a.window)?;
    let check = pool(cx, &pool_spec)?;
    let (count_include_pad, normalize) = (a.count_include_pad, a.average);
    cx.checked(check, cnn::SumPool { pool_spec, count_include_pad, normalize })
}

/// Checks the input of a pool. tract treats each input channel as an output channel.
fn pool(cx: &Context<'_>, pool: &PoolSpec) -> Result<Check, Problem> {
    require(cx.input(0).datum_type.is_number(), "its input is not numeric")?;
    require(
        pool.input_channels == pool.output_channels,
        "its input and output differ in their number of channels",
    )?;
    require(pool.input_channels > 0, "its input has no channels")?;
    Ok(Check::Window(Fit::new(pool, None)))
}

#[cfg(feature = "export")]
pub(super) fn save(op: &dyn TypedOp, _: &mut Scope<'_>) -> Result<Option<Operator>, Problem> {
    Ok(if let Some(op) = op.downcast_ref::<cnn::Conv>() {
        op.q_params.is_none().then(|| {
            Operator::Conv(Conv {
                window: window_from_tract(&op.pool_spec),
                kernel_layout: kernel_from_tract(op.kernel_fmt),
                groups: op.group as u32,
            })
        })
    } else if let Some(op) = op.downcast_ref::<cnn::Deconv>() {
        Some(Operator::ConvTranspose(ConvTranspose {
            window: window_from_tract(&op.pool_spec),
            kernel_layout: kernel_from_tract(op.kernel_format),
            groups: op.group as u32,
            output_padding: op.adjustments.iter().map(|size| *size as u32).collect(),
        }))
    } else if let Some(op) = op.downcast_ref::<cnn::MaxPool>() {
        Some(Operator::MaxPool(MaxPool {
            window: window_from_tract(&op.pool_spec),
            index_dtype: match op.with_index_outputs {
                None => None,
                Some(dtype) => match dtype_from_tract(dtype) {
                    None => return Ok(None),
                    dtype => dtype,
                },
            },
        }))
    } else {
        op.downcast_ref::<cnn::SumPool>().map(|op| {
            Operator::SumPool(SumPool {
                window: window_from_tract(&op.pool_spec),
                count_include_pad: op.count_include_pad,
                average: op.normalize,
            })
        })
    })
}

fn sizes(list: &[u32]) -> TVec<usize> {
    list.iter().map(|x| *x as usize).collect()
}

fn window(cx: &Context<'_>, window: &Window) -> Result<PoolSpec, Problem> {
    let rank = window.kernel.len();
    let lists = [&window.kernel, &window.strides, &window.dilations];
    let lengths = lists.iter().all(|list| list.len() == rank && !list.contains(&0));
    require(
        rank > 0 && lengths,
        "its kernel, strides and dilations differ in length, or one of them is 0",
    )?;
    let reasonable = lists.iter().all(|list| list.iter().all(|size| *size <= LIMIT_SIZE));
    require(reasonable, "its kernel, strides or dilations are too large")?;
    let padding = match &window.padding {
        Padding::Valid => PaddingSpec::Valid,
        Padding::SameUpper => PaddingSpec::SameUpper,
        Padding::SameLower => PaddingSpec::SameLower,
        Padding::Explicit(before, after) | Padding::ExplicitCeil(before, after) => {
            let all = before.iter().chain(after).all(|size| *size <= LIMIT_SIZE);
            require(
                before.len() == rank && after.len() == rank && all,
                "its padding does not have one supported size per axis",
            )?;
            match &window.padding {
                Padding::Explicit(..) => PaddingSpec::Explicit(sizes(before), sizes(after)),
                _ => PaddingSpec::ExplicitOnnxPool(sizes(before), sizes(after), true),
            }
        }
    };
    let pool = PoolSpec {
        data_format: match window.layout {
            ImageLayout::Nchw => DataFormat::NCHW,
            ImageLayout::Nhwc => DataFormat::NHWC,
            ImageLayout::Chw => DataFormat::CHW,
            ImageLayout::Hwc => DataFormat::HWC,
        },
        kernel_shape: sizes(&window.kernel),
        padding,
        dilations: Some(sizes(&window.dilations)),
        strides: Some(sizes(&window.strides)),
        input_channels: window.input_channels as usize,
        output_channels: window.output_channels as usize,
    };
    let expected = rank + 1 + pool.data_format.has_n() as usize;
    require(cx.input(0).rank() == expected, "its window and its input differ in rank")?;
    let shape = pool.data_format.shape(cx.input(0).shape.to_tvec())?;
    let channels = shape.c().as_i64() == Some(i64::from(window.input_channels));
    require(channels, "its input has a different number of channels than stated")?;
    Ok(pool)
}

/// Returns the kernel layout after checking that the kernel's sizes match the window.
fn kernel(
    cx: &Context<'_>,
    pool: &PoolSpec,
    layout: KernelLayout,
    groups: u32,
) -> Result<KernelFormat, Problem> {
    let format = match layout {
        KernelLayout::Oihw => KernelFormat::OIHW,
        KernelLayout::Hwio => KernelFormat::HWIO,
        KernelLayout::Ohwi => KernelFormat::OHWI,
    };
    let groups = groups as usize;
    let divides = |channels: usize| groups > 0 && channels.is_multiple_of(groups);
    require(
        divides(pool.input_channels) && divides(pool.output_channels),
        "its number of groups does not divide its channels",
    )?;
    require(
        pool.input_channels > 0 && pool.output_channels > 0,
        "its input or its output has no channels",
    )?;
    // tract would not compute the last windows, which exceed the end of the input.
    require(
        !matches!(pool.padding, PaddingSpec::ExplicitOnnxPool(..)),
        "rounding up its output size is not supported",
    )?;
    let shape = cx.input(1).shape.as_concrete().ok_or("the shape of its kernel is unknown")?;
    let fits = shape.len() == pool.rank() + 2
        && format.hw(shape) == &*pool.kernel_shape
        && *format.input_channels(shape, groups) == pool.input_channels
        && *format.output_channels(shape, groups) == pool.output_channels;
    require(fits, "the shape of its kernel does not match its channels and window")?;
    let bias = &cx.input(2).shape;
    let per_channel = bias.rank() == 1 && bias.as_concrete() == Some(&[pool.output_channels]);
    require(
        per_channel || bias.rank() == 0,
        "its bias has neither one element nor one per output channel",
    )?;
    Ok(format)
}

#[cfg(feature = "export")]
fn window_from_tract(pool: &PoolSpec) -> Window {
    let list = |list: &[usize]| list.iter().map(|x| *x as u32).collect::<Vec<_>>();
    let padding = match &pool.padding {
        PaddingSpec::Valid => Padding::Valid,
        PaddingSpec::SameUpper => Padding::SameUpper,
        PaddingSpec::SameLower => Padding::SameLower,
        PaddingSpec::Explicit(before, after)
        | PaddingSpec::ExplicitOnnxPool(before, after, false) => {
            Padding::Explicit(list(before), list(after))
        }
        PaddingSpec::ExplicitOnnxPool(before, after, true) => {
            Padding::ExplicitCeil(list(before), list(after))
        }
    };
    Window {
        layout: match pool.data_format {
            DataFormat::NCHW => ImageLayout::Nchw,
            DataFormat::NHWC => ImageLayout::Nhwc,
            DataFormat::CHW => ImageLayout::Chw,
            DataFormat::HWC => ImageLayout::Hwc,
        },
        kernel: list(&pool.kernel_shape),
        strides: list(&pool.strides()),
        dilations: list(&pool.dilations()),
        padding,
        input_channels: pool.input_channels as u32,
        output_channels: pool.output_channels as u32,
    }
}

#[cfg(feature = "export")]
fn kernel_from_tract(format: KernelFormat) -> KernelLayout {
    match format {
        KernelFormat::OIHW => KernelLayout::Oihw,
        KernelFormat::HWIO => KernelLayout::Hwio,
        KernelFormat::OHWI => KernelLayout::Ohwi,
    }
}
