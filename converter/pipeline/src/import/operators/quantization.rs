//! QuantizeLinear and DequantizeLinear, with their scales and zero points preserved.

use hardtack::float::custom_ops;
use tract_core::ops::cast::cast;
use tract_hir::internal::*;
use tract_onnx::model::{ParsingContext, optional_inputs};
use tract_onnx::pb::NodeProto;

use super::Read;

/// Reads QuantizeLinear.
pub(super) fn quantize(_: &ParsingContext, node: &NodeProto) -> Read {
    Ok((expand(Quantization::read(node, true)?), vec![]))
}

/// Reads DequantizeLinear.
pub(super) fn dequantize(_: &ParsingContext, node: &NodeProto) -> Read {
    Ok((expand(Quantization::read(node, false)?), vec![]))
}

#[derive(Clone, Debug)]
struct Quantization {
    to_integers: bool,
    axis: i64,
    /// The number of elements along the axis that share a scale; 0 without blocks.
    block: usize,
    /// The index of the zero point among the inputs.
    zero_point: Option<usize>,
    /// The element type of the output, if an attribute gives it.
    output: Option<DatumType>,
}

impl Quantization {
    fn read(node: &NodeProto, to_integers: bool) -> TractResult<Quantization> {
        let output = match node.get_attr_opt::<i64>("output_dtype")?.unwrap_or(0) {
            0 => None,
            _ => Some(node.get_attr::<DatumType>("output_dtype")?),
        };
        Ok(Quantization {
            to_integers,
            axis: node.get_attr_opt("axis")?.unwrap_or(1),
            block: node.get_attr_opt("block_size")?.unwrap_or(0),
            zero_point: optional_inputs(node).nth(2).flatten(),
            output,
        })
    }

    /// Wires a dequantization with a scale per block.
    fn wire_blocks(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        ensure!(!self.to_integers, "quantization with a scale per block is not supported");
        let (x, scale) = (model.outlet_fact(inputs[0])?, model.outlet_fact(inputs[1])?);
        let (integer, rank, real) = (x.datum_type, x.rank() as i64, scale.datum_type);
        let axis = if self.axis < 0 { self.axis + rank } else { self.axis };
        ensure!((0..rank).contains(&axis), "axis {} of a tensor of rank {rank}", self.axis);
        let scale = match &scale.konst {
            Some(scale) => scale.cast_to_dt(f32::datum_type())?.into_owned(),
            None => bail!("scales per block must be constants"),
        };
        let scale = model.add_const(format!("{prefix}.scale"), scale)?;
        let zero_point = match self.zero_point {
            Some(slot) => inputs[slot],
            None => {
                let zero = Tensor::zero_dt(integer, &[])?;
                model.add_const(format!("{prefix}.zero_point"), zero)?
            }
        };
        let dtype = self.output.unwrap_or(real);
        let op = custom_ops::DequantizeBlocks { dtype, axis: axis as usize, block: self.block };
        model.wire_node(prefix, op, &[inputs[0], scale, zero_point])
    }

    /// Returns the axis of per-axis scales, or `None` for a single scale.
    fn axis(&self, scale: &TypedFact, rank: usize) -> TractResult<Option<usize>> {
        if scale.rank() == 0 || scale.shape.volume().is_one() {
            return Ok(None);
        }
        ensure!(scale.rank() == 1, "scales must be one number or a list");
        let axis = if self.axis < 0 { self.axis + rank as i64 } else { self.axis };
        ensure!((0..rank as i64).contains(&axis), "axis {} of a tensor of rank {rank}", self.axis);
        Ok(Some(axis as usize))
    }
}

/// Converts a scale or zero point to a scalar, or to a vector if there is an axis, of type `dtype`.
fn parameter(
    name: &str,
    model: &mut TypedModel,
    outlet: OutletId,
    dtype: DatumType,
    axis: Option<usize>,
) -> TractResult<OutletId> {
    let fact = model.outlet_fact(outlet)?.clone();
    if let Some(value) = &fact.konst {
        let value = value.cast_to_dt(dtype)?.into_owned();
        let shape: &[usize] = if axis.is_none() { &[] } else { &[value.len()] };
        return model.add_const(name, value.into_shape(shape)?);
    }
    let mut outlet = outlet;
    if fact.datum_type != dtype {
        outlet = model.wire_node(format!("{name}.cast"), cast(dtype), &[outlet])?[0];
    }
    if axis.is_none() {
        for index in 0..fact.rank() {
            let name = format!("{name}.scalar.{index}");
            outlet = model.wire_node(name, AxisOp::Rm(0), &[outlet])?[0];
        }
    }
    Ok(outlet)
}

impl Expansion for Quantization {
    fn name(&self) -> StaticName {
        if self.to_integers { "QuantizeLinear".into() } else { "DequantizeLinear".into() }
    }

    /// Returns false for DequantizeLinear, so that tract does not fold constant weights to floats
    /// of four times their size.
    fn runs_out_of_plan(&self) -> bool {
        self.to_integers
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 2 + self.zero_point.is_some() as usize)?;
        check_output_arity(outputs, 1)?;
        s.equals(&inputs[0].shape, &outputs[0].shape)?;
        match (self.output, self.to_integers, self.zero_point) {
            (Some(dtype), _, _) => s.equals(&outputs[0].datum_type, dtype)?,
            (None, true, Some(slot)) => {
                s.equals(&outputs[0].datum_type, &inputs[slot].datum_type)?;
            }
            (None, true, None) => s.equals(&outputs[0].datum_type, u8::datum_type())?,
            (None, false, _) => s.equals(&outputs[0].datum_type, &inputs[1].datum_type)?,
        }
        if let (false, Some(slot)) = (self.to_integers, self.zero_point) {
            s.equals(&inputs[0].datum_type, &inputs[slot].datum_type)?;
        }
        Ok(())
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let x = model.outlet_fact(inputs[0])?.clone();
        let scale = model.outlet_fact(inputs[1])?.clone();
        if self.block > 0 {
            return self.wire_blocks(prefix, model, inputs);
        }
        let axis = self.axis(&scale, x.rank())?;
        let zero_point = match self.zero_point {
            Some(slot) => Some((inputs[slot], model.outlet_fact(inputs[slot])?.datum_type)),
            None => None,
        };
        let integer = match (self.to_integers, zero_point) {
            (false, _) => x.datum_type,
            (true, Some((_, dtype))) => dtype,
            (true, None) => self.output.unwrap_or(u8::datum_type()),
        };
        let known = [i8::datum_type(), u8::datum_type(), i16::datum_type(), u16::datum_type()];
        let wide = !self.to_integers && integer == i32::datum_type();
        ensure!(wide || known.contains(&integer), "values of type {integer:?} cannot be quantized");

        let scale_name = format!("{prefix}.scale");
        let scale = parameter(&scale_name, model, inputs[1], f32::datum_type(), axis)?;
        let point_name = format!("{prefix}.zero_point");
        let zero_point = match zero_point {
            Some((outlet, _)) => parameter(&point_name, model, outlet, integer, axis)?,
            None => {
                let shape = match axis {
                    None => tvec![],
                    Some(_) => tvec![model.outlet_fact(scale)?.shape[0].to_usize()?],
                };
                model.add_const(&point_name, Tensor::zero_dt(integer, &shape)?)?
            }
        };
        if !self.to_integers {
            let dtype = match self.output {
                Some(dtype) => dtype,
                None => model.outlet_fact(inputs[1])?.datum_type,
            };
            let op = custom_ops::Dequantize { dtype, axis };
            return model.wire_node(prefix, op, &[inputs[0], scale, zero_point]);
        }
        let mut real = inputs[0];
        if x.datum_type != f32::datum_type() {
            let name = format!("{prefix}.real");
            real = model.wire_node(name, cast(f32::datum_type()), &[real])?[0];
        }
        let op = custom_ops::Quantize { dtype: integer, axis };
        model.wire_node(prefix, op, &[real, scale, zero_point])
    }
}
