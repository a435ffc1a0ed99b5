//! The conversions of operators in both directions, one module per family.

mod arrange;
mod control;
mod elementwise;
mod index;
mod own;
mod reduce;
mod resample;
mod signal;
mod window;

use hardtack_bundle::graph::Operator;
use tract_core::internal::*;

use super::error::Problem;
use super::load::Context;
#[cfg(feature = "export")]
use super::save::Scope;

/// Creates the tract operation for a node other than an input or a constant.
pub(super) fn load(cx: &Context<'_>) -> Result<Box<dyn TypedOp>, Problem> {
    match &cx.node.operator {
        Operator::Input | Operator::Constant(_) => Err("it is not an operation".into()),
        Operator::Program(index) => own::program(cx, *index),
        Operator::Binary(kind) => elementwise::binary(cx, *kind),
        Operator::Unary(kind) => elementwise::unary(cx, *kind),
        Operator::Cast(dtype) => elementwise::cast(cx, *dtype),
        Operator::Select => elementwise::select(cx),
        Operator::Conv(a) => window::conv(cx, a),
        Operator::ConvTranspose(a) => window::conv_transpose(cx, a),
        Operator::MaxPool(a) => window::max_pool(cx, a),
        Operator::SumPool(a) => window::sum_pool(cx, a),
        Operator::Einsum(a) => reduce::einsum(cx, a),
        Operator::Reduce(a) => reduce::reduce(cx, a),
        Operator::Softmax(a) => reduce::softmax(cx, a),
        Operator::RmsNorm(a) => reduce::rms_norm(cx, a),
        Operator::CumSum(a) => reduce::cum_sum(cx, a),
        Operator::Resize(a) => resample::resize(cx, a),
        Operator::NearestUpsample(scales) => resample::nearest_upsample(cx, scales),
        Operator::GridSample(a) => resample::grid_sample(cx, a),
        Operator::AddAxis(axis) => arrange::add_axis(cx, *axis),
        Operator::RemoveAxis(axis) => arrange::remove_axis(cx, *axis),
        Operator::MoveAxis((from, to)) => arrange::move_axis(cx, *from, *to),
        Operator::Reshape(a) => arrange::reshape(cx, a),
        Operator::Broadcast(shape) => arrange::broadcast(cx, shape),
        Operator::Slice(a) => arrange::slice(cx, a),
        Operator::DynamicSlice(a) => arrange::dynamic_slice(cx, a),
        Operator::StridedSlice(a) => arrange::strided_slice(cx, a),
        Operator::Concat(axis) => arrange::concat(cx, *axis),
        Operator::Pad(a) => arrange::pad(cx, a),
        Operator::Tile(counts) => arrange::tile(cx, counts),
        Operator::DynamicTile(counts) => arrange::dynamic_tile(cx, counts),
        Operator::Downsample(a) => arrange::downsample(cx, a),
        Operator::Gather(a) => index::gather(cx, a),
        Operator::GatherElements(axis) => index::gather_elements(cx, *axis),
        Operator::GatherNd(batch) => index::gather_nd(cx, *batch),
        Operator::ScatterElements(a) => index::scatter_elements(cx, a),
        Operator::ScatterNd(reduction) => index::scatter_nd(cx, *reduction),
        Operator::Range(length) => index::range(cx, length),
        Operator::OneHot(a) => index::one_hot(cx, a),
        Operator::TopK(a) => index::top_k(cx, a),
        Operator::Trilu(upper) => index::trilu(cx, *upper),
        Operator::Scan(a) => control::scan(cx, a),
        Operator::If(a) => control::branch(cx, a),
        Operator::Fft(a) => signal::fft(cx, a),
        Operator::Stft(a) => signal::stft(cx, a),
        Operator::QuantizeLinear(a) => own::quantize(cx, a),
        Operator::DequantizeLinear(a) => own::dequantize(cx, a),
        Operator::Unpack => own::unpack(cx),
        Operator::DequantizeBlocks(a) => own::dequantize_blocks(cx, a),
        Operator::DynamicMatMul(a) => own::dynamic_mat_mul(cx, a),
        Operator::Lrn(a) => own::lrn(cx, a),
        Operator::TreeEnsemble(a) => own::tree_ensemble(cx, a),
        Operator::Evaluate(model) => own::evaluate(cx, model),
        other => Err(format!("this release cannot run {}", other.name()).into()),
    }
}

/// Returns the operator for a tract operation; `None` if a bundle cannot represent it.
#[cfg(feature = "export")]
pub(super) fn save(op: &dyn TypedOp, scope: &mut Scope<'_>) -> Result<Option<Operator>, Problem> {
    type Save = fn(&dyn TypedOp, &mut Scope<'_>) -> Result<Option<Operator>, Problem>;
    const FAMILIES: [Save; 9] = [
        elementwise::save,
        window::save,
        reduce::save,
        arrange::save,
        index::save,
        resample::save,
        control::save,
        signal::save,
        own::save,
    ];
    for family in FAMILIES {
        if let Some(operator) = family(op, scope)? {
            return Ok(Some(operator));
        }
    }
    Ok(None)
}
