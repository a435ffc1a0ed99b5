//! Operators that only move elements.

use hardtack_bundle::DType;
use hardtack_bundle::graph::*;

use super::{Maker, dims, dtype_of};

fn values(sizes: &[i64]) -> Vec<Dim> {
    sizes.iter().map(|size| Dim::Value(*size)).collect()
}

impl Maker {
    pub(super) fn arrange(&mut self) {
        let (x, fact) = self.any();
        let (shape, rank) = (dims(&fact), fact.rank());
        let axis = self.random.below(rank);
        let size = shape.get(axis).copied().unwrap_or(1);
        match self.random.below(14) {
            0 => self.add(Operator::AddAxis(self.random.0 as u32 % 4), &[x]),
            1 => self.add(Operator::RemoveAxis(axis as u32), &[x]),
            2 => {
                let to = self.random.below(rank) as u32;
                self.add(Operator::MoveAxis((axis as u32, to)), &[x]);
            }
            3 | 4 => self.reshape(x, &shape),
            5 => {
                let mut to: Vec<i64> = shape
                    .iter()
                    .map(|size| if *size == 1 { self.size().min(5) } else { *size })
                    .collect();
                if self.random.one_in(3) {
                    to.insert(0, self.size().min(5));
                }
                self.add(Operator::Broadcast(values(&to)), &[x]);
            }
            6 => {
                let start = self.random.below(size.max(0) as usize + 1) as i64;
                let end = start + self.random.below((size - start).max(0) as usize + 2) as i64;
                let (start, end) = (Dim::Value(start), Dim::Value(end));
                self.add(Operator::Slice(Slice { axis: axis as u32, start, end }), &[x]);
            }
            7 => {
                let length = self.random.below(4) as i64;
                let (start, end) = (self.value(DType::I64, &[]), self.value(DType::I64, &[]));
                let slice = DynamicSlice { axis: axis as u32, length: Dim::Value(length) };
                self.add(Operator::DynamicSlice(slice), &[x, start, end]);
            }
            8 => self.strided(x, rank),
            9 => {
                let Some(dtype) = dtype_of(&fact) else { return };
                let mut other = shape.clone();
                if let Some(size) = other.get_mut(axis) {
                    *size = self.random.below(4) as i64;
                }
                let other = self.value(dtype, &other);
                let inputs = if self.random.one_in(3) { vec![x, other, x] } else { vec![other, x] };
                self.add(Operator::Concat(axis as u32), &inputs);
            }
            10 => {
                let pads = shape
                    .iter()
                    .map(|_| (self.random.below(4) as u32, self.random.below(4) as u32))
                    .collect();
                let mode = match self.random.below(3) {
                    0 => {
                        let dtype = self.dtype();
                        let value = self.tensor(dtype, &[]);
                        PadMode::Constant(self.store(value))
                    }
                    1 => PadMode::Reflect,
                    _ => PadMode::Edge,
                };
                self.add(Operator::Pad(Pad { pads, mode }), &[x]);
            }
            11 | 12 => {
                let counts: Vec<i64> = shape.iter().map(|_| self.random.below(4) as i64).collect();
                if self.random.one_in(2) {
                    return self.add(Operator::Tile(values(&counts)), &[x]);
                }
                let computed = self.value(DType::I64, &[rank as i64]);
                self.add(Operator::DynamicTile(values(&counts)), &[x, computed]);
            }
            _ => {
                let stride = self.random.pick(&[1, 2, 3, -1, -2, 0, i64::MAX]);
                let modulo = self.random.below(4) as u64;
                let downsample = Downsample { axis: axis as u32, stride, modulo };
                self.add(Operator::Downsample(downsample), &[x]);
            }
        }
    }

    /// Reshapes adjacent axes to a random shape of the same volume.
    fn reshape(&mut self, x: ValueId, shape: &[i64]) {
        let axis = self.random.below(shape.len() + 1);
        let end = axis + self.random.below(shape.len() - axis + 1);
        let from = &shape[axis..end];
        let mut volume: i64 = from.iter().product();
        let mut to = vec![];
        while volume > 1 || self.random.one_in(3) {
            let factors: Vec<i64> =
                (1..=volume.max(1)).filter(|factor| volume % factor == 0).collect();
            let factor = self.random.pick(&factors);
            to.push(factor);
            volume /= factor;
            if to.len() > 4 {
                to.push(volume);
                volume = 1;
                break;
            }
        }
        if volume == 0 {
            to.push(0);
        }
        let (from, to) = (values(from), values(&to));
        self.add(Operator::Reshape(Reshape { axis: axis as u32, from, to }), &[x]);
    }

    fn strided(&mut self, x: ValueId, rank: usize) {
        let (axes_input, steps_input) = (self.random.one_in(2), self.random.one_in(2));
        let count = self.random.below(rank + 1);
        let list = |maker: &mut Maker| maker.value(DType::I64, &[count as i64]);
        let mut inputs = vec![x, list(self), list(self)];
        if axes_input {
            let axes: Vec<i64> = (0..count)
                .map(|_| self.random.below(rank.max(1) * 2) as i64 - rank as i64)
                .collect();
            inputs.push(self.constant(crate::Tensor::new(&[count], axes).expect("a list")));
        }
        if steps_input {
            let steps: Vec<i64> =
                (0..count).map(|_| self.random.pick(&[1, 1, 1, 2, 3, -1, -2, 0])).collect();
            inputs.push(self.constant(crate::Tensor::new(&[count], steps).expect("a list")));
        }
        let operator = Operator::StridedSlice(StridedSlice {
            axes_input: axes_input.then_some(3),
            steps_input: steps_input.then_some(3 + axes_input as u32),
            begin_mask: self.random.below(16) as i64,
            end_mask: self.random.below(16) as i64,
            shrink_axis_mask: if self.random.one_in(4) { self.random.below(4) as i64 } else { 0 },
        });
        self.add(operator, &inputs);
    }
}
