//! Recurrent networks with quantized weights.

use crate::call::Call;
use crate::element_type::ElementType;
use crate::error::Problem;
use crate::meter;
use crate::shape;
use crate::tensor::Tensor;
use crate::value::Value;

use super::integer::dynamic_scale;
use super::{floats, wrong_shape};

/// The quantized weights of one direction: one row per input, one column per gate and unit.
struct Weights {
    integers: Vec<i64>,
    scales: Vec<f32>,
    zeros: Vec<i64>,
    rows: usize,
    columns: usize,
}

impl Weights {
    /// Reads the weights of each direction.
    fn read(
        call: &Call<'_>,
        index: usize,
        scale: usize,
        shape: [usize; 3],
    ) -> Result<Vec<Self>, Problem> {
        let tensor = call.tensor(index)?;
        let [directions, rows, columns] = shape;
        if tensor.shape() != shape {
            return Err(wrong_shape(index, tensor, format!("be {shape:?}")));
        }
        let scales = floats(call.tensor(scale)?)?;
        let zeros = call.tensor(scale + 1)?.to_i64()?;
        let width = scales.len().checked_div(directions).unwrap_or(0);
        if (width != 1 && width != columns) || scales.len() != zeros.len() {
            let expected = format!("be [{directions}] or [{directions}, {columns}]");
            return Err(wrong_shape(scale, call.tensor(scale)?, expected));
        }
        let integers = tensor.to_i64()?;
        let size = rows.saturating_mul(columns);
        let each = |direction: usize| Self {
            integers: integers.iter().skip(direction * size).take(size).copied().collect(),
            scales: scales.iter().skip(direction * width).take(width).copied().collect(),
            zeros: zeros.iter().skip(direction * width).take(width).copied().collect(),
            rows,
            columns,
        };
        Ok((0..directions).map(each).collect())
    }

    /// Quantizes rows of numbers by their range, multiplies them, and adds the products to rows.
    fn multiply(&self, x: &[f32], sums: &mut [f32]) -> Result<(), Problem> {
        let mut tally = meter::Tally::default();
        let scale = dynamic_scale(x);
        let quantize = |x: &f32| {
            let integer = (x / scale.scale).round_ties_even() as i64;
            integer.saturating_add(scale.zero).clamp(0, 255) - scale.zero
        };
        let sums = sums.chunks_exact_mut(self.columns.max(1));
        for (x, sums) in x.chunks_exact(self.rows.max(1)).zip(sums) {
            tally.spend(self.integers.len().saturating_add(self.columns))?;
            let mut products = vec![0i64; self.columns];
            for (x, weights) in
                x.iter().map(quantize).zip(self.integers.chunks_exact(self.columns.max(1)))
            {
                let zeros = self.zeros.iter().cycle();
                let terms = products.iter_mut().zip(weights.iter().zip(zeros));
                terms.for_each(|(sum, (weight, zero))| {
                    *sum = sum.wrapping_add(x.wrapping_mul(weight.wrapping_sub(*zero)));
                });
            }
            for ((sum, product), own) in
                sums.iter_mut().zip(products).zip(self.scales.iter().cycle())
            {
                *sum += product as f32 * (scale.scale * own);
            }
        }
        Ok(())
    }
}

/// An activation of a gate.
type Activation = fn(f64) -> f64;

/// Returns the activations of the gates, the cell, and the output, of each direction.
fn activations(call: &Call<'_>, directions: usize) -> Result<Vec<Activation>, Problem> {
    let default = ["Sigmoid", "Tanh", "Tanh"].map(String::from);
    let default: Vec<String> = (0..directions).flat_map(|_| default.clone()).collect();
    let names = call.texts("activations")?.unwrap_or(&default);
    if names.len() != directions * 3 {
        return Err(Problem::AttributeValue {
            name: "activations",
            value: format!("{names:?}"),
            accepted: "three per direction",
        });
    }
    let find = |name: &String| match name.to_lowercase().as_str() {
        "sigmoid" => Ok((|x| 1.0 / (1.0 + (-x).exp())) as Activation),
        "tanh" => Ok(f64::tanh as Activation),
        "relu" => Ok((|x| x.max(0.0)) as Activation),
        _ => Err(Problem::AttributeValue {
            name: "activations",
            value: name.clone(),
            accepted: "Sigmoid, Tanh or Relu",
        }),
    };
    names.iter().map(find).collect()
}

/// What one direction needs besides its weights.
struct Cell<'a> {
    units: usize,
    /// The sums of the biases, by gate: input, output, forget, cell.
    bias: Vec<f32>,
    peepholes: &'a [f32],
    activations: &'a [Activation],
    clip: f64,
    coupled: bool,
}

impl Cell<'_> {
    /// Advances the state of one sequence by the sums of its gates.
    fn step(&self, gates: &[f32], hidden: &mut [f32], cell: &mut [f32]) {
        let n = self.units;
        let [of_gate, of_cell, of_output] = match *self.activations {
            [a, b, c] => [a, b, c],
            _ => return,
        };
        let sum = |gate: usize, unit: usize, peephole: usize, state: f32| {
            let at = |values: &[f32], index: usize| values.get(index).copied().unwrap_or(0.0);
            let weight = at(self.peepholes, peephole * n + unit);
            let weight = if gate == 3 { 0.0 } else { weight };
            let sum = at(gates, gate * n + unit) + at(&self.bias, gate * n + unit) + weight * state;
            f64::from(sum).clamp(-self.clip, self.clip)
        };
        for (unit, (hidden, cell)) in hidden.iter_mut().zip(cell).enumerate() {
            let input = of_gate(sum(0, unit, 0, *cell));
            let forget = if self.coupled { 1.0 - input } else { of_gate(sum(2, unit, 2, *cell)) };
            let candidate = of_cell(sum(3, unit, 0, 0.0));
            *cell = (forget * f64::from(*cell) + input * candidate) as f32;
            let output = of_gate(sum(1, unit, 1, *cell));
            *hidden = (output * of_output((*cell).into())) as f32;
        }
    }
}

/// Returns the elements of an operand of a given shape, or zeros.
fn or_zeros(call: &Call<'_>, index: usize, sizes: &[usize]) -> Result<Vec<f32>, Problem> {
    let count = shape::elements(sizes)?;
    match call.optional_tensor(index)? {
        None => Ok(vec![0.0; count]),
        Some(tensor) if tensor.shape() == sizes => floats(tensor),
        Some(tensor) => Err(wrong_shape(index, tensor, format!("be {sizes:?}"))),
    }
}

/// The sizes of a network: steps, sequences, inputs, and units.
#[derive(Clone, Copy)]
struct Sizes {
    length: usize,
    batch: usize,
    inputs: usize,
    units: usize,
}

/// Evaluates one direction. `write` receives the state of a sequence after a step.
fn run(
    sizes: Sizes,
    [of_input, of_hidden]: [&Weights; 2],
    x: &[f32],
    cell: &Cell<'_>,
    (lengths, backward): (&[usize], bool),
    [hidden, memory]: [&mut [f32]; 2],
    mut write: impl FnMut(usize, usize, &[f32]),
) -> Result<(), Problem> {
    let Sizes { length, batch, inputs, units } = sizes;
    let columns = of_input.columns;
    let mut projected = vec![0f32; shape::elements(&[length, batch, columns])?];
    // Steps after the longest sequence do not count for the range of the inputs.
    let steps = lengths.iter().copied().max().unwrap_or(0);
    let used = x.len().min(steps * batch * inputs);
    of_input.multiply(x.get(..used).unwrap_or(&[]), &mut projected)?;
    for step in 0..steps {
        let mut recurrent = vec![0f32; batch * columns];
        of_hidden.multiply(hidden, &mut recurrent)?;
        let hidden = hidden.chunks_exact_mut(units.max(1));
        let states = hidden.zip(memory.chunks_exact_mut(units.max(1)));
        for (b, ((hidden, memory), own)) in states.zip(lengths).enumerate() {
            if step >= *own {
                continue;
            }
            let place = if backward { own - 1 - step } else { step };
            let sums = projected.iter().skip((place * batch + b) * columns);
            let sums = sums.zip(recurrent.iter().skip(b * columns));
            let gates: Vec<f32> = sums.take(columns).map(|(x, h)| x + h).collect();
            cell.step(&gates, hidden, memory);
            write(place, b, hidden);
        }
    }
    Ok(())
}

/// Returns the lengths of the sequences.
fn sequence_lengths(call: &Call<'_>, length: usize, batch: usize) -> Result<Vec<usize>, Problem> {
    match call.optional_ints(4)? {
        Some(lengths) if lengths.len() == batch => {
            lengths.into_iter().map(|n| Ok(shape::size(n)?.min(length))).collect()
        }
        Some(_) => Err(wrong_shape(4, call.tensor(4)?, format!("be [{batch}]"))),
        None => Ok(vec![length; batch]),
    }
}

/// Evaluates a long short-term memory whose inputs are quantized by their own range.
pub(super) fn dynamic_quantize_lstm(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let [length, batch, inputs] = *x.shape() else {
        return Err(wrong_shape(0, x, "have three axes"));
    };
    if x.element() != ElementType::F32 {
        let found = x.element();
        return Err(Problem::InputType { index: 0, found, accepted: "float32" });
    }
    let direction = call.text("direction")?.unwrap_or("forward");
    let directions = if direction == "bidirectional" { 2 } else { 1 };
    let missing = Problem::MissingAttribute { name: "hidden_size" };
    let units = shape::size(call.int("hidden_size")?.ok_or(missing)?)?;
    let columns = shape::elements(&[units, 8])? / 2;
    let largest = [length.max(1), batch.max(1), inputs.max(columns).max(1), directions];
    shape::elements(&largest)?;
    let of_input = Weights::read(call, 1, 8, [directions, inputs, columns])?;
    let of_hidden = Weights::read(call, 2, 10, [directions, units, columns])?;
    let biases = or_zeros(call, 3, &[directions, 2 * columns])?;
    let state_shape = [directions, batch, units];
    let mut hidden = or_zeros(call, 5, &state_shape)?;
    let mut memory = or_zeros(call, 6, &state_shape)?;
    let peepholes = or_zeros(call, 7, &[directions, 3 * units])?;
    let activations = activations(call, directions)?;
    let lengths = sequence_lengths(call, length, batch)?;
    let clip = call.float("clip")?.filter(|clip| *clip > 0.0);
    let values = floats(x)?;
    let y_shape = vec![length, directions, batch, units];
    let mut y = vec![0f32; shape::elements(&y_shape)?];
    for (d, weights) in of_input.iter().zip(&of_hidden).enumerate() {
        let bias: Vec<f32> =
            biases.iter().skip(d * 2 * columns).take(2 * columns).copied().collect();
        let cell = Cell {
            units,
            bias: bias.iter().zip(bias.iter().skip(columns)).map(|(w, r)| w + r).collect(),
            peepholes: peepholes.get(d * 3 * units..(d + 1) * 3 * units).unwrap_or(&[]),
            activations: activations.get(d * 3..d * 3 + 3).unwrap_or(&[]),
            clip: clip.map_or(f64::INFINITY, f64::from),
            coupled: call.flag("input_forget", false)?,
        };
        let state = d * batch * units..(d + 1) * batch * units;
        let hidden = hidden.get_mut(state.clone()).unwrap_or(&mut []);
        let memory = memory.get_mut(state).unwrap_or(&mut []);
        let backward = d == 1 || direction == "reverse";
        let sizes = Sizes { length, batch, inputs, units };
        let write = |place: usize, b: usize, state: &[f32]| {
            let start = ((place * directions + d) * batch + b) * units;
            y.iter_mut().skip(start).zip(state).for_each(|(y, h)| *y = *h);
        };
        let order = (&lengths[..], backward);
        run(sizes, [weights.0, weights.1], &values, &cell, order, [hidden, memory], write)?;
    }
    let state = |values| Tensor::new(state_shape.to_vec(), values);
    Ok(vec![Tensor::new(y_shape, y)?.into(), state(hidden)?.into(), state(memory)?.into()])
}
