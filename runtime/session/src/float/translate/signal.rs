//! Converts Fourier transforms.

#[cfg(feature = "export")]
use hardtack_bundle::graph::Operator;
use hardtack_bundle::graph::{Fft, Stft};
use tract_core::internal::*;
use tract_core::ops::fft as tract_fft;

use crate::float::custom_ops::Check;
use crate::float::error::{Problem, require};
use crate::float::load::Context;
#[cfg(feature = "export")]
use crate::float::save::Scope;

pub(super) fn fft(cx: &Context<'_>, a: &Fft) -> Result<Box<dyn TypedOp>, Problem> {
    let axis = axis(cx, a.axis)?;
    cx.checked(Check::Least(tvec!((axis, 1))), tract_fft::Fft { axis, inverse: a.inverse })
}

pub(super) fn stft(cx: &Context<'_>, a: &Stft) -> Result<Box<dyn TypedOp>, Problem> {
    let axis = axis(cx, a.axis)?;
    let size = |size: u64| u32::try_from(size).ok().filter(|size| *size > 0);
    let (Some(frame), Some(stride)) = (size(a.frame), size(a.stride)) else {
        return Err("its frame or stride is 0 or too large".into());
    };
    let (frame, stride) = (frame as usize, stride as usize);
    let window = a.window.map(|index| cx.loader.constant(index)).transpose()?;
    if let Some(window) = &window {
        // tract computes a transform in f16 with f32.
        let dtype = match cx.input(0).datum_type {
            DatumType::F16 => DatumType::F32,
            dtype => dtype,
        };
        require(
            window.len() <= frame && window.datum_type() == dtype,
            "its window is too long or has the wrong type",
        )?;
    }
    let op = tract_fft::Stft { axis, frame, stride, window };
    cx.checked(Check::Least(tvec!((axis, frame))), op)
}

/// Checks the axis of a transform of complex numbers, whose last dimension holds both parts.
fn axis(cx: &Context<'_>, axis: u32) -> Result<usize, Problem> {
    cx.arity(1)?;
    require(cx.input(0).datum_type.is_float(), "its input does not have a float type")?;
    let complex = cx.input(0).shape.last().is_some_and(|dim| dim.as_i64() == Some(2));
    require(complex, "the last dimension of its input is not 2")?;
    cx.axis(axis, cx.input(0).rank() - 1)
}

#[cfg(feature = "export")]
pub(super) fn save(op: &dyn TypedOp, scope: &mut Scope<'_>) -> Result<Option<Operator>, Problem> {
    Ok(Some(if let Some(op) = op.downcast_ref::<tract_fft::Fft>() {
        Operator::Fft(Fft { axis: op.axis as u32, inverse: op.inverse })
    } else if let Some(op) = op.downcast_ref::<tract_fft::Stft>() {
        let window = match &op.window {
            None => None,
            Some(window) => match scope.constant(window)? {
                None => return Ok(None),
                index => index,
            },
        };
        Operator::Stft(Stft {
            axis: op.axis as u32,
            frame: op.frame as u64,
            stride: op.stride as u64,
            window,
        })
    } else {
        return Ok(None);
    }))
}
