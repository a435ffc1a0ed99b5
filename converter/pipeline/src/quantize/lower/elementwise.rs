//! Operations element by element, and softmax.

use hardtack_bundle::graph::{Binary, Outlet, Softmax};

use super::super::function;
use super::super::region::is_constant;
use super::super::scale::Quantization;
use super::super::weights::reals;
use super::chain::Allow;
use super::{Lowering, outlet, refused};

impl Lowering<'_> {
    pub fn binary(&mut self, index: usize, kind: Binary) -> Result<(), String> {
        let [left, right] = self.model.graph.nodes[index].inputs[..] else {
            return Err("it has not two inputs".into());
        };
        match (is_constant(self.model, left), is_constant(self.model, right)) {
            (false, false) => self.of_two(index, kind, left, right),
            (false, true) => self.with_constant(index, kind, left, right, false),
            (true, false) => self.with_constant(index, kind, right, left, true),
            (true, true) => Err("it reads only constants".into()),
        }
    }

    fn of_two(
        &mut self,
        index: usize,
        kind: Binary,
        mut a: Outlet,
        mut b: Outlet,
    ) -> Result<(), String> {
        let shape = self.fact_shape(outlet(index))?;
        if self.fact_shape(a)? != shape && matches!(kind, Binary::Add | Binary::Multiply) {
            std::mem::swap(&mut a, &mut b);
        }
        if self.fact_shape(a)? != shape {
            return Err("both its operands are repeated".into());
        }
        if !matches!(kind, Binary::Add | Binary::Subtract | Binary::Multiply) {
            return Err("it has no integer form for two computed values".into());
        }
        let order = self.view(a)?.order();
        let first = self.dense(a, &order)?;
        let small = self.fact_shape(b)?;
        let channels = *order.last().ok_or("its operands have no dimension")?;
        let per_channel = small
            .iter()
            .enumerate()
            .all(|(axis, size)| *size == if axis == channels { shape[axis] } else { 1 });
        let second = if small == shape || per_channel {
            self.dense(b, &order)?
        } else {
            let repeated =
                self.view(b)?.broadcast(&shape).ok_or("it repeats scattered elements")?;
            let quantization = match self.shared_quantization(&repeated) {
                Some(shared) => shared,
                None => self.quantization(b)?,
            };
            self.gather(self.name(index), &repeated, &order, quantization)?
        };
        let chain = self.chain(index, Allow::Limits);
        self.absorb(&chain);
        let last = outlet(chain.last);
        let quantization = match chain.stated {
            Some(stated) => stated,
            None => self.quantization(last)?,
        };
        let to = self.tensor(last, &order, quantization)?;
        let clamp = quantization.clamp(chain.limits);
        let (name, operands) = (self.name(index), [first, second]);
        match kind {
            Binary::Add => self.builder.add(name, operands, to, clamp),
            Binary::Subtract => self.builder.subtract(name, operands, to, clamp),
            _ => self.builder.multiply(name, operands, to, clamp),
        }
        .map_err(refused)?;
        self.written(last, to, &order)
    }

    fn with_constant(
        &mut self,
        index: usize,
        kind: Binary,
        value: Outlet,
        constant: Outlet,
        constant_first: bool,
    ) -> Result<(), String> {
        let numbers = reals(self.model, constant).ok_or("its constant is no real number")?;
        let shape = self.fact_shape(outlet(index))?;
        if self.fact_shape(value)? != shape {
            return Err("its computed operand is repeated".into());
        }
        if numbers.len() == 1 {
            return self.table(index);
        }
        let fact = self.model.graph.fact(constant);
        let wide = |axis: &usize| fact.shape[axis + 1].value() == Some(numbers.len() as i64);
        let axis = (0..shape.len()).find(wide).ok_or("its constant differs by position")?;
        let (ones, zeros) = (vec![1.0; numbers.len()], vec![0.0; numbers.len()]);
        let each = |f: fn(f32) -> f32| numbers.iter().map(|x| f(*x)).collect::<Vec<f32>>();
        let (factor, offset) = match (kind, constant_first) {
            (Binary::Add, _) => (ones, numbers),
            (Binary::Subtract, false) => (ones, each(|x| -x)),
            (Binary::Subtract, true) => (each(|_| -1.0), numbers),
            (Binary::Multiply, _) => (numbers, zeros),
            (Binary::Divide, false) if numbers.iter().all(|x| *x != 0.0) => {
                (each(|x| 1.0 / x), zeros)
            }
            _ => return Err("its constant differs by channel".into()),
        };
        self.affine(index, value, axis, factor, offset)
    }

    /// A function of one value, as a table of what the float operation gives.
    pub fn table(&mut self, index: usize) -> Result<(), String> {
        let value = self.operand(index)?;
        let order = self.view(value)?.order();
        let from = self.dense(value, &order)?;
        let chain = self.chain(index, Allow::Limits);
        self.absorb(&chain);
        let last = outlet(chain.last);
        let quantization = match chain.stated {
            Some(stated) => stated,
            None => self.quantization(last)?,
        };
        let Quantization { scale, zero_point } = self.quantization_of(from);
        let reals: Vec<f32> =
            (-128..128).map(|i| (i - i32::from(zero_point)) as f32 * scale).collect();
        let results = function::apply(self.model, index, value, reals)?;
        let limits = chain.limits;
        let to = self.tensor(last, &order, quantization)?;
        let name = self.name(index);
        self.builder
            .lookup(name, from, to, |real| {
                let place = (real / scale).round() as i32 + i32::from(zero_point) + 128;
                let result = results[place.clamp(0, 255) as usize];
                result.max(limits.low).min(limits.high)
            })
            .map_err(refused)?;
        self.written(last, to, &order)
    }

    pub fn softmax(&mut self, index: usize, softmax: &Softmax) -> Result<(), String> {
        if softmax.logarithm {
            return Err("the logarithm of a softmax needs more than 8 bits".into());
        }
        let value = self.operand(index)?;
        let shape = self.fact_shape(value)?;
        let summed = |axis: &usize| softmax.axes.contains(&(*axis as u32 + 1)) && shape[*axis] > 1;
        let axes: Vec<usize> = (0..shape.len()).filter(summed).collect();
        let axis = match axes[..] {
            [axis] => axis,
            [] => shape.len() - 1,
            _ => return Err("it sums over several axes".into()),
        };
        if softmax.axes.contains(&0) {
            return Err("it sums over samples".into());
        }
        let mut order: Vec<usize> = self.view(value)?.order();
        order.retain(|other| *other != axis);
        order.push(axis);
        let from = self.dense(value, &order)?;
        let whole = Quantization { scale: 1.0 / 256.0, zero_point: -128 };
        let to = self.tensor(outlet(index), &order, whole)?;
        self.builder.softmax(self.name(index), from, to).map_err(refused)?;
        self.written(outlet(index), to, &order)
    }
}
