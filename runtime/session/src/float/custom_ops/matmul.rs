//! Checks the operands of tract's matrix multiplication, which its kernels read by pointer.
//!
//! `OptMatMul` takes the sizes m and n from the shape stated for its output, and k from its second
//! operand. The optimizer of tract may replace an operand by one of another shape without updating
//! the shapes stated for later operations, so the sizes are compared each time before the kernels
//! run.

use tract_core::internal::*;
use tract_core::ops::matmul::optimized::{
    MapOutputAxisToInput, MatMulOperand, OptMatMul, ProtoFusedSpec,
};
use tract_core::tract_linalg::mmm::{MMMInputValue, OutputStoreSpec, PackedMatrixStorage};

/// Checks that every operand has the elements that the kernel reads.
///
/// # Errors
/// Returns an error if an operand is too small, or if the operands of a product differ in k.
pub(in crate::float) fn check_matmul(
    op: &OptMatMul,
    inputs: &[TValue],
    symbols: &SymbolValues,
) -> TractResult<()> {
    let shape = op.c_fact.shape.eval_to_usize(symbols)?;
    let size = |axis: Option<usize>| match axis {
        Some(axis) => shape.get(axis).copied().context("the output of a product has fewer axes"),
        None => Ok(1),
    };
    let walked = [op.c_m_axis, op.c_n_axis];
    let sizes = Sizes { m: size(op.c_m_axis)?, n: size(op.c_n_axis)?, shape: &shape, walked };
    for operation in &op.micro_ops {
        match operation {
            ProtoFusedSpec::AddMatMul { a, b, .. } => sizes.check_product(a, b, inputs)?,
            ProtoFusedSpec::BinScalar(input, _) | ProtoFusedSpec::LeakyRelu(input) => {
                ensure!(operand(inputs, *input)?.len() > 0, "a scalar operand has no elements");
            }
            ProtoFusedSpec::BinPerRow(input, _, map) => {
                sizes.check_reach(operand(inputs, *input)?, map, [(sizes.m, 1), (1, 0)])?;
            }
            ProtoFusedSpec::BinPerCol(input, _, map) => {
                sizes.check_reach(operand(inputs, *input)?, map, [(sizes.n, 1), (1, 0)])?;
            }
            ProtoFusedSpec::AddRowColProducts(row, column) => {
                let (row, column) = (operand(inputs, *row)?, operand(inputs, *column)?);
                let fits = row.len() >= sizes.m && column.len() >= sizes.n;
                ensure!(fits, "a fused operand has fewer elements than the output");
            }
            ProtoFusedSpec::AddUnicast(store, input, map) => {
                let input = operand(inputs, *input)?;
                sizes.check_reach(input, map, sizes.strides(store, input)?)?;
            }
            ProtoFusedSpec::Scaler(_) | ProtoFusedSpec::Store(_) => {}
        }
    }
    Ok(())
}

fn operand(inputs: &[TValue], index: usize) -> TractResult<&TValue> {
    inputs.get(index).context("a product has fewer operands than it reads")
}

/// Returns the packed matrices of an operand, one for each element of the batch.
fn matrices<'t>(
    operand: &'t MatMulOperand,
    inputs: &'t [TValue],
) -> TractResult<&'t [Box<dyn MMMInputValue>]> {
    match operand {
        MatMulOperand::Const(value) => Ok(std::slice::from_ref(value)),
        MatMulOperand::Input(index) => {
            let input = self::operand(inputs, *index)?;
            Ok(input.try_storage_as::<PackedMatrixStorage>()?.values())
        }
    }
}

/// The sizes of a matrix multiplication, and the shape of its output.
struct Sizes<'s> {
    m: usize,
    n: usize,
    shape: &'s [usize],
    /// The axes of the output that are m and n.
    walked: [Option<usize>; 2],
}

impl Sizes<'_> {
    fn check_product(
        &self,
        a: &MatMulOperand,
        b: &MatMulOperand,
        inputs: &[TValue],
    ) -> TractResult<()> {
        let (a, b) = (matrices(a, inputs)?, matrices(b, inputs)?);
        let k = b.first().context("a product has an operand without a matrix")?.k();
        let fits = !a.is_empty()
            && a.iter().all(|a| a.k() == k && a.mn() >= self.m)
            && b.iter().all(|b| b.k() == k && b.mn() >= self.n);
        ensure!(
            fits,
            "a product of {} × {k} × {} has an operand of {} × {} or {} × {}",
            self.m,
            self.n,
            a.first().map_or(0, |a| a.mn()),
            a.first().map_or(0, |a| a.k()),
            b.first().map_or(0, |b| b.k()),
            b.first().map_or(0, |b| b.mn()),
        );
        Ok(())
    }

    /// Returns the size and stride, in elements, of rows and of columns.
    fn strides(
        &self,
        store: &OutputStoreSpec,
        tensor: &Tensor,
    ) -> TractResult<[(usize, usize); 2]> {
        let stride = |axis: &Option<usize>| match axis {
            Some(axis) => {
                let stride = tensor.strides().get(*axis).copied().unwrap_or(-1);
                usize::try_from(stride).context("a fused operand has fewer axes than it is read by")
            }
            None => Ok(0),
        };
        let [rows, columns] = match store {
            OutputStoreSpec::View { m_axis, n_axis, .. } => [stride(m_axis)?, stride(n_axis)?],
            OutputStoreSpec::Strides { row_byte_stride, col_byte_stride, .. } => {
                let size = tensor.datum_type().size_of().max(1);
                let elements = |bytes: isize| Ok::<_, TractError>(usize::try_from(bytes)? / size);
                [elements(*row_byte_stride)?, elements(*col_byte_stride)?]
            }
        };
        Ok([(self.m, rows), (self.n, columns)])
    }

    /// Checks that a fused operand contains the last element that the kernel reads. `axes` are the
    /// sizes and strides of the axes that the kernel walks for each element of the batch.
    fn check_reach(
        &self,
        tensor: &Tensor,
        map: &MapOutputAxisToInput,
        axes: [(usize, usize); 2],
    ) -> TractResult<()> {
        let mut last = 0usize;
        let mut empty = false;
        let mut reach = |size: usize, stride: usize| {
            empty |= size == 0;
            last = last.saturating_add(size.saturating_sub(1).saturating_mul(stride));
        };
        for (of_output, of_input) in &map.0 {
            let size = self.shape.get(*of_output).copied();
            let stride = tensor.strides().get(*of_input).copied();
            let (Some(size), Some(stride)) = (size, stride) else {
                bail!("a fused operand has fewer axes than it is read by");
            };
            // The kernel walks the axes of m and n itself, from their first element.
            if self.walked.contains(&Some(*of_output)) {
                continue;
            }
            reach(size, usize::try_from(stride)?);
        }
        axes.into_iter().for_each(|(size, stride)| reach(size, stride));
        ensure!(
            empty || last < tensor.len(),
            "a fused operand has {} elements, and element {last} of it is read",
            tensor.len()
        );
        Ok(())
    }
}
