//! Dynamic quantization: float matmuls with constant INT8 matrices.

use std::fmt;
use std::sync::{Arc, Mutex, Weak};

use hardtack_engine::Aligned;
use hardtack_kernels::packed::product::Matrix;
use hardtack_kernels::strided::{self, Kernels};
use hardtack_kernels::{Product, Ranges, product};
use tract_core::internal::*;

use crate::backend::Backend;

/// A matmul in integers, with activations quantized at run time. Its inputs are those of
/// [`Operator::DynamicMatMul`](hardtack_bundle::graph::Operator::DynamicMatMul). All but the first
/// must be constants when the model is optimized.
#[derive(Clone)]
pub struct DynamicMatMul {
    /// Whether each row of x has its own scale.
    pub per_row: bool,
    backend: Arc<Backend>,
    shared: PackedMatrices,
}

/// The matrices that the products of a model have prepared. Products of the same constants share
/// one.
#[derive(Clone, Debug, Default)]
pub(in crate::float) struct PackedMatrices(Arc<Mutex<Vec<PackedEntry>>>);

/// A prepared matrix with its constants. Weak references keep the addresses from being reused.
#[derive(Debug)]
struct PackedEntry {
    parts: Vec<Weak<Tensor>>,
    ready: Weak<Ready>,
}

impl PackedMatrices {
    /// Returns the matrix of these constants, which `prepare` creates if there is none yet.
    fn matrix(
        &self,
        parts: &[Arc<Tensor>],
        per_row: bool,
        prepare: impl FnOnce() -> TractResult<Ready>,
    ) -> TractResult<Arc<Ready>> {
        let ranges = ranges(per_row);
        let mut all = self.0.lock().map_err(|_| format_err!("preparing a matrix failed before"))?;
        let same = |known: &&PackedEntry| {
            known.parts.iter().map(Weak::as_ptr).eq(parts.iter().map(Arc::as_ptr))
        };
        let known = all.iter().filter(same).filter_map(|known| known.ready.upgrade());
        if let Some(ready) = known.into_iter().find(|ready| ready.ranges == ranges) {
            return Ok(ready);
        }
        let ready = Arc::new(prepare()?);
        let parts = parts.iter().map(Arc::downgrade).collect();
        all.push(PackedEntry { parts, ready: Arc::downgrade(&ready) });
        Ok(ready)
    }
}

fn ranges(per_row: bool) -> Ranges {
    if per_row { Ranges::Row } else { Ranges::Tensor }
}

/// Returns where the matrix of a prepared product is, and its size in bytes.
pub(super) fn prepared(op: &dyn TypedOp) -> Option<(*const (), u64)> {
    let PackedMatMul(ready) = op.downcast_ref()?;
    Some((Arc::as_ptr(ready).cast(), ready.bytes()))
}

impl DynamicMatMul {
    /// Creates the operation for this machine, with one thread.
    pub fn new(per_row: bool) -> Self {
        Self::on(per_row, &Backend::detect(), &PackedMatrices::default())
    }

    pub(in crate::float) fn on(
        per_row: bool,
        backend: &Arc<Backend>,
        shared: &PackedMatrices,
    ) -> Self {
        Self { per_row, backend: backend.clone(), shared: shared.clone() }
    }
}

impl fmt::Debug for DynamicMatMul {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DynamicMatMul(per_row: {})", self.per_row)
    }
}

impl PartialEq for DynamicMatMul {
    fn eq(&self, other: &Self) -> bool {
        self.per_row == other.per_row
    }
}

impl Eq for DynamicMatMul {}

impl Op for DynamicMatMul {
    fn name(&self) -> StaticName {
        "DynamicMatMul".into()
    }

    op_as_typed_op!();
}

impl EvalOp for DynamicMatMul {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        ensure!(inputs.len() > 1, "it has no matrix");
        let parts: Vec<&Tensor> = inputs[1..].iter().map(|input| &**input).collect();
        Ready::new(self, &parts)?.multiply(&inputs[0], &mut Vec::new())
    }
}

impl TypedOp for DynamicMatMul {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        ensure!((4..=5).contains(&inputs.len()), "it takes 4 or 5 inputs, not {}", inputs.len());
        let (x, weights) = (inputs[0], inputs[1]);
        ensure!(x.datum_type == DatumType::F32, "its input is of type {:?}", x.datum_type);
        let integers = [DatumType::I8, DatumType::U8].contains(&weights.datum_type);
        ensure!(integers, "its matrix is of type {:?}", weights.datum_type);
        ensure!(weights.rank() == 2 && x.rank() > 0, "its matrix is not 2-D or its input is 0-D");
        let (depth, columns) = (&weights.shape[0], &weights.shape[1]);
        ensure!(x.shape[x.rank() - 1] == *depth, "its input does not match the rows of its matrix");
        let all = [DatumType::F32, weights.datum_type, DatumType::F32];
        for (fact, dtype) in inputs[2..].iter().zip(all) {
            ensure!(
                fact.datum_type == dtype,
                "its parameter is {:?}, not {dtype:?}",
                fact.datum_type
            );
            let elements = fact.shape.volume();
            let fits = elements == *columns || elements.is_one();
            ensure!(fits, "it has {elements} parameters for {columns} columns");
        }
        let mut shape = x.shape.to_tvec();
        shape.pop();
        shape.push(columns.clone());
        Ok(tvec!(f32::fact(shape)))
    }

    /// Packs the constant matrix once.
    fn codegen(
        &self,
        model: &TypedModel,
        node: &TypedNode,
    ) -> TractResult<Option<TypedModelPatch>> {
        let facts = model.node_input_facts(node.id)?;
        let parts = facts[1..].iter().map(|fact| fact.konst.clone()).collect::<Option<Vec<_>>>();
        let parts = parts.context("its matrix is not constant")?;
        let tensors: Vec<&Tensor> = parts.iter().map(|part| &**part).collect();
        let ready = self.shared.matrix(&parts, self.per_row, || Ready::new(self, &tensors))?;
        let op = PackedMatMul(ready);
        TypedModelPatch::replace_single_op(model, node, &node.inputs[..1], op).map(Some)
    }

    as_op!();
}

/// A matmul with a packed matrix.
#[derive(Clone, Debug)]
struct PackedMatMul(Arc<Ready>);

impl PartialEq for PackedMatMul {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for PackedMatMul {}

impl Op for PackedMatMul {
    fn name(&self) -> StaticName {
        "DynamicMatMul".into()
    }

    op_as_typed_op!();
}

impl EvalOp for PackedMatMul {
    not_out_of_plan!();

    fn state(&self, _: &EvalContext) -> TractResult<Option<Box<dyn OpState>>> {
        Ok(Some(Box::new(Scratch(Vec::new()))))
    }
}

impl TypedOp for PackedMatMul {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let mut shape = inputs[0].shape.to_tvec();
        shape.pop();
        shape.push(self.0.columns().to_dim());
        Ok(tvec!(f32::fact(shape)))
    }

    as_op!();
}

/// The memory for quantized rows, reused by every inference.
#[derive(Clone, Debug)]
struct Scratch(Vec<u8>);

impl OpState for Scratch {
    fn eval(
        &mut self,
        _: &EvalContext,
        op: &dyn Op,
        inputs: TVec<TValue>,
    ) -> TractResult<TVec<TValue>> {
        let op = op.downcast_ref::<PackedMatMul>().context("the state is of another operation")?;
        op.0.multiply(&*args_1!(inputs), &mut self.0)
    }

    fn reset_lanes(&mut self, _: &[LaneId]) -> TractResult<()> {
        Ok(())
    }
}

/// A matrix prepared for the kernels of this machine.
#[derive(Debug)]
struct Ready {
    /// The number of elements in a row of the input.
    depth: usize,
    /// Indices of row elements to append to each row. A weight beyond ±127 is split into several
    /// weights, and the others multiply these copies.
    repeated: Vec<usize>,
    form: Form,
    bias: Vec<f32>,
    ranges: Ranges,
    backend: Arc<Backend>,
}

#[derive(Debug)]
enum Form {
    /// Packed for these kernels.
    Packed { kernels: &'static Kernels, matrix: Matrix, bytes: Aligned },
    /// For the reference implementation.
    Plain { weights: Vec<i8>, scales: Vec<f32> },
}

impl Ready {
    fn new(op: &DynamicMatMul, parts: &[&Tensor]) -> TractResult<Ready> {
        let [weights, scale, zero_point, bias @ ..] = parts else { bail!("it has no matrix") };
        let &[depth, columns] = weights.shape() else { bail!("its matrix is not 2-D") };
        ensure!(depth > 0 && columns > 0, "its matrix is empty");
        ensure!(columns <= strided::Product::COLUMNS, "its matrix has {columns} columns");
        let list = |tensor: &Tensor| -> TractResult<Vec<f32>> {
            let list = tensor.cast_to::<f32>()?.try_as_plain_ram()?.as_slice::<f32>()?.to_vec();
            match list[..] {
                [one] => Ok(vec![one; columns]),
                _ if list.len() == columns => Ok(list),
                _ => bail!("it has {} parameters for {columns} columns", list.len()),
            }
        };
        let (scales, zero_points) = (list(scale)?, list(zero_point)?);
        let bias = match bias {
            [] => vec![0.0; columns],
            [bias, ..] => list(bias)?,
        };
        let integers = weights.cast_to::<i16>()?;
        let mut rest = integers.try_as_plain_ram()?.as_slice::<i16>()?.to_vec();
        for row in rest.chunks_exact_mut(columns) {
            row.iter_mut().zip(&zero_points).for_each(|(weight, zero)| *weight -= *zero as i16);
        }
        // Split each weight into the part that fits in a byte and the rest, row by row.
        let take = |rest: &mut i16| {
            let part = (*rest).clamp(-127, 127);
            *rest -= part;
            part as i8
        };
        let mut weights: Vec<i8> = rest.iter_mut().map(take).collect();
        let mut repeated = Vec::new();
        for (index, row) in rest.chunks_exact_mut(columns).enumerate() {
            while row.iter().any(|rest| *rest != 0) {
                repeated.push(index);
                weights.extend(row.iter_mut().map(take));
            }
        }
        let matrix = Matrix { depth: depth + repeated.len(), columns };
        ensure!(
            matrix.depth <= Product::DEPTH,
            "accumulators over {} products could overflow",
            matrix.depth
        );
        let form = match Kernels::for_isa(op.backend.isa()) {
            None => Form::Plain { weights, scales },
            Some(kernels) => {
                let bytes = matrix.bytes(kernels.packing()).context("its matrix is too large")?;
                let buffer = Aligned::try_zeroed(bytes);
                let mut bytes =
                    buffer.with_context(|| format!("there is no memory for {bytes} bytes"))?;
                matrix.pack(kernels.packing(), &weights, &scales, bytes.bytes_mut());
                Form::Packed { kernels, matrix, bytes }
            }
        };
        let ranges = ranges(op.per_row);
        Ok(Ready { depth, repeated, form, bias, ranges, backend: op.backend.clone() })
    }

    fn columns(&self) -> usize {
        self.bias.len()
    }

    /// Returns the size of the matrix in bytes, with all that belongs to it.
    fn bytes(&self) -> u64 {
        let matrix = match &self.form {
            Form::Packed { bytes, .. } => bytes.bytes().len(),
            Form::Plain { weights, scales } => weights.len() + size_of_val(&scales[..]),
        };
        (matrix + size_of_val(&self.repeated[..]) + size_of_val(&self.bias[..])) as u64
    }

    fn multiply(&self, x: &Tensor, scratch: &mut Vec<u8>) -> TractResult<TVec<TValue>> {
        let mut shape: TVec<usize> = x.shape().into();
        ensure!(shape.pop() == Some(self.depth), "its input does not match the rows of its matrix");
        let rows: usize = shape.iter().product();
        shape.push(self.columns());
        let mut output = Tensor::zero::<f32>(&shape)?;
        if rows == 0 {
            return Ok(tvec!(output.into_tvalue()));
        }
        let view = x.try_as_plain_ram()?;
        let repeated: Vec<f32>;
        let mut input = view.as_slice::<f32>()?;
        if !self.repeated.is_empty() {
            let again = |row: &[f32]| {
                let more = self.repeated.iter().map(|index| row[*index]);
                row.iter().copied().chain(more).collect::<Vec<f32>>()
            };
            repeated = input.chunks_exact(self.depth).flat_map(again).collect();
            input = &repeated;
        }
        let mut view = output.try_as_plain_ram_mut()?;
        let results = view.as_slice_mut::<f32>()?;
        match &self.form {
            Form::Plain { weights, scales } => {
                let depth = self.depth + self.repeated.len();
                let (ranges, bias) = (self.ranges, &self.bias);
                product(&Product { input, depth, ranges, weights, scales, bias }, results);
            }
            Form::Packed { kernels, matrix, bytes } => {
                let operation = strided::Product {
                    matrix: *matrix,
                    packed: bytes.bytes(),
                    bias: &self.bias,
                    ranges: self.ranges,
                };
                scratch.resize(operation.scratch(rows).max(scratch.len()), 0);
                operation.run(kernels, input, results, scratch, self.backend.pool());
            }
        }
        Ok(tvec!(output.into_tvalue()))
    }
}

#[cfg(test)]
mod tests {
    use hardtack_kernels::Isa;

    use super::*;

    fn run(backend: &Arc<Backend>, x: &Tensor, parts: &[Tensor]) -> Tensor {
        let op = DynamicMatMul::on(true, backend, &PackedMatrices::default());
        let inputs = std::iter::once(x).chain(parts).map(|t| t.clone().into_tvalue()).collect();
        op.eval(&EvalContext::out_of_plan(), inputs).unwrap().remove(0).into_tensor()
    }

    /// Weights minus their zero points have 9 bits, all of which must be used.
    #[test]
    fn weights_of_nine_bits_are_exact_on_every_instruction_set() {
        let (depth, columns) = (256, 3);
        let weights: Vec<u8> = (0..depth * columns).map(|index| (index / columns) as u8).collect();
        let weights = Tensor::from_shape(&[depth, columns], &weights).unwrap();
        let parts = [weights, tensor0(1f32), tensor1(&[0u8, 255, 130]), tensor1(&[0.5f32, 0., 1.])];
        // Rows range over 255 steps of size 1, so that quantization is exact.
        let x: Vec<f32> = (0..2 * depth).map(|index| (index * 7 % 256) as f32).collect();
        let x = Tensor::from_shape(&[2, 1, depth], &x).unwrap();
        let view = x.try_as_plain_ram().unwrap();
        let rows = view.as_slice::<f32>().unwrap().chunks(depth);
        let expected: Vec<f32> = rows
            .flat_map(|row| {
                [(0.0, 0.5), (255.0, 0.0), (130.0, 1.0)].map(|(zero, bias)| {
                    let macs = row.iter().enumerate().map(|(w, x)| x * (w as f32 - zero));
                    macs.map(f64::from).sum::<f64>() as f32 + bias
                })
            })
            .collect();
        let expected = Tensor::from_shape(&[2, 1, columns], &expected).unwrap();
        for isa in Isa::ALL.iter().filter(|isa| isa.is_supported()) {
            let backend = Backend::new(Some(*isa), 1).unwrap();
            assert_eq!(run(&backend, &x, &parts), expected, "{}", isa.name());
        }
    }

    #[test]
    fn mismatched_inputs_are_rejected() {
        let op = DynamicMatMul::new(false);
        let fact = |tensor: Tensor| TypedFact::shape_and_dt_of(&tensor);
        let matrix = |dtype| fact(Tensor::zero_dt(dtype, &[4, 2]).unwrap());
        let fine = [
            f32::fact([3, 4]),
            matrix(DatumType::I8),
            fact(tensor0(1f32)),
            fact(tensor1(&[0i8, 0])),
            fact(tensor1(&[0f32, 0.])),
        ];
        let facts = |inputs: &[TypedFact]| op.output_facts(&inputs.iter().collect::<Vec<_>>());
        assert_eq!(facts(&fine).unwrap()[0], f32::fact([3, 2]));
        assert_eq!(facts(&fine[..4]).unwrap()[0], f32::fact([3, 2]));
        for (place, wrong) in [
            (0, f32::fact([3, 5])),
            (0, f16::fact([3, 4])),
            (1, matrix(DatumType::I16)),
            (1, i8::fact([1, 4, 2])),
            (2, fact(tensor1(&[1f32, 1., 1.]))),
            (3, fact(tensor0(0u8))),
            (4, fact(tensor1(&[1f32, 1., 1.]))),
        ] {
            let mut inputs = fine.clone();
            inputs[place] = wrong;
            assert!(facts(&inputs).is_err(), "{place}");
        }
        assert!(facts(&fine[..3]).is_err());
    }
}
