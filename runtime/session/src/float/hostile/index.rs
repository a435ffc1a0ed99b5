//! Operators that gather and scatter elements by index.

use hardtack_bundle::DType;
use hardtack_bundle::graph::*;

use super::{Maker, dims, dtype_of};

impl Maker {
    /// Returns indices, computed or constant, most of them in range.
    fn indices(&mut self, shape: &[i64], size: i64) -> ValueId {
        let dtype = if self.random.one_in(6) { DType::I32 } else { DType::I64 };
        if self.random.one_in(3) {
            return self.value(dtype, shape);
        }
        let elements = shape.iter().product::<i64>();
        let size = size.max(1);
        let list: Vec<i64> = (0..elements)
            .map(|_| {
                let index = self.random.below(size as usize) as i64;
                match self.random.below(60) {
                    0 => self.random.integer(),
                    1..8 => index - size,
                    _ => index,
                }
            })
            .collect();
        let shape: Vec<usize> = shape.iter().map(|size| *size as usize).collect();
        let tensor =
            crate::Tensor::new(&shape, list).expect("the shape has the same number of elements");
        let constant = self.constant(tensor);
        if self.random.one_in(2) {
            return constant;
        }
        // Otherwise return the same indices as a computed value.
        let shape: Vec<i64> = shape.iter().map(|size| *size as i64).collect();
        let zero = self.fresh(DType::Bool, &shape);
        self.add(Operator::Cast(DType::I64), &[zero]);
        let zero = self.values[self.values.len() - 1].0;
        self.add(Operator::Binary(Binary::Minimum), &[constant, zero]);
        self.values[self.values.len() - 1].0
    }

    fn reduction(&mut self) -> ScatterReduction {
        use ScatterReduction::*;
        self.random.pick(&[None, None, Add, Multiply, Minimum, Maximum])
    }

    pub(super) fn index(&mut self) {
        let (x, fact) = self.any();
        let (shape, rank) = (dims(&fact), fact.rank());
        let axis = self.random.below(rank);
        let size = shape.get(axis).copied().unwrap_or(1);
        match self.random.below(10) {
            0 => {
                let rank = self.random.below(3);
                let of = self.shape(rank);
                let indices = self.indices(&of, size);
                let gather = Gather { axis: axis as u32, output_dtype: None };
                self.add(Operator::Gather(gather), &[x, indices]);
            }
            1 | 2 => self.elements(x, &shape, axis, dtype_of(&fact)),
            3 => self.tuples(x, &shape, None),
            4 => self.tuples(x, &shape, dtype_of(&fact)),
            5 => {
                let dtype = self.random.pick(&[DType::I64, DType::F32, DType::I32, DType::U8]);
                let inputs = [0; 3].map(|_| self.value(dtype, &[]));
                let length = Dim::Value(self.size());
                self.add(Operator::Range(length), &inputs);
            }
            6 => {
                let dtype = self.dtype();
                let (off, on) = (self.tensor(dtype, &[]), self.tensor(dtype, &[]));
                let (off, on) = (self.store(off), self.store(on));
                let axis = self.random.below(rank + 1) as u32;
                let depth = self.random.below(9) as u64;
                self.add(Operator::OneHot(OneHot { axis, depth, off, on }), &[x]);
            }
            7 | 8 => {
                let k = self.indices(&[], size + 1);
                let (largest, stated) = (self.random.one_in(2), Dim::Value(self.size()));
                let top = TopK { axis: axis as u32, largest, k: stated };
                self.add(Operator::TopK(top), &[x, k]);
            }
            _ => {
                let k = self.value(DType::I64, &[]);
                self.add(Operator::Trilu(self.random.0.is_multiple_of(2)), &[x, k]);
            }
        }
    }

    fn elements(&mut self, x: ValueId, shape: &[i64], axis: usize, dtype: Option<DType>) {
        if shape.is_empty() {
            return;
        }
        let mut of: Vec<i64> = shape
            .iter()
            .map(|size| if self.random.one_in(3) { (*size).min(2) } else { *size })
            .collect();
        of[axis] = self.size().min(8);
        if self.random.one_in(10) {
            let at = self.random.below(of.len());
            of[at] = of[at].min(16) + 1;
        }
        if of.iter().product::<i64>() > super::ELEMENTS {
            return;
        }
        let indices = self.indices(&of, shape[axis]);
        let axis = axis as u32;
        let Some(dtype) = dtype.filter(|_| self.random.one_in(2)) else {
            return self.add(Operator::GatherElements(axis), &[x, indices]);
        };
        let updates = self.value(dtype, &of);
        let reduction = self.reduction();
        let scatter = ScatterElements { axis, reduction };
        self.add(Operator::ScatterElements(scatter), &[x, indices, updates]);
    }

    /// Gathers by index tuples, or scatters updates of type `dtype`.
    fn tuples(&mut self, x: ValueId, shape: &[i64], dtype: Option<DType>) {
        let length = self.random.below(shape.len() + 1);
        let batch = if dtype.is_none() && self.random.one_in(3) {
            self.random.below(shape.len() - length + 1)
        } else {
            0
        };
        let mut of: Vec<i64> = shape[..batch].to_vec();
        if self.random.one_in(2) || of.is_empty() {
            of.push(self.size().min(8));
        }
        let mut updates = of.clone();
        updates.extend(&shape[length..]);
        of.push(length as i64);
        if updates.iter().chain(&of).product::<i64>() > super::ELEMENTS * 4 {
            return;
        }
        let least = shape[batch..batch + length].iter().copied().min().unwrap_or(1);
        let indices = self.indices(&of, least);
        let Some(dtype) = dtype else {
            return self.add(Operator::GatherNd(batch as u32), &[x, indices]);
        };
        let updates = self.value(dtype, &updates);
        let reduction = self.reduction();
        self.add(Operator::ScatterNd(reduction), &[x, indices, updates]);
    }
}
