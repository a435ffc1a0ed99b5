//! Recurrent layers: `RNN`, `GRU` and `LSTM`. They compute in `f64` and round once at the end.

use crate::call::{Call, Operator};
use crate::element_type::ElementType;
use crate::error::Problem;
use crate::shape;
use crate::tensor::Tensor;
use crate::value::Value;

mod activation;
mod cell;

use activation::activations;
use cell::{Cell, Direction, State};

/// Returns the implementation of an operator of this family.
pub(super) fn find(domain: &str, name: &str) -> Option<Operator> {
    Some(match (domain, name) {
        ("", "RNN") => rnn,
        ("", "GRU") => gru,
        ("", "LSTM") => lstm,
        _ => return None,
    })
}

/// Computes a layer of simple recurrent cells.
fn rnn(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    evaluate(call, Cell::Rnn)
}

/// Computes a layer of gated recurrent units.
fn gru(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    evaluate(call, Cell::Gru { linear_before_reset: call.flag("linear_before_reset", false)? })
}

/// Computes a layer of long short-term memory cells.
fn lstm(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    evaluate(call, Cell::Lstm { coupled: call.flag("input_forget", false)? })
}

/// The sizes of a layer.
#[derive(Clone, Copy)]
struct Sizes {
    steps: usize,
    batch: usize,
    input: usize,
    hidden: usize,
    directions: usize,
    /// Whether the axis of the batch is the first one.
    batch_first: bool,
}

impl Sizes {
    /// Reads the sizes from the shapes of the input and of the recurrence weights.
    fn read(call: &Call<'_>, directions: usize) -> Result<Self, Problem> {
        let layout = call.int_or("layout", 0)?;
        let batch_first = layout == 1;
        if layout != 0 && layout != 1 {
            return Err(Problem::AttributeValue {
                name: "layout",
                value: layout.to_string(),
                accepted: "0 or 1",
            });
        }
        let rank_3 = |index: usize| match *call.tensor(index)?.shape() {
            [a, b, c] => Ok([a, b, c]),
            ref shape => Err(Problem::InputShape {
                index,
                shape: shape.to_vec(),
                expected: "have 3 axes".into(),
            }),
        };
        let [first, second, input] = rank_3(0)?;
        let [.., hidden] = rank_3(2)?;
        let (steps, batch) = if batch_first { (second, first) } else { (first, second) };
        if hidden == 0 {
            return Err(Problem::Invalid(
                "the hidden state has size 0; it must be positive".into(),
            ));
        }
        match call.int("hidden_size")? {
            Some(stated) if usize::try_from(stated) != Ok(hidden) => Err(Problem::Invalid(
                format!("attribute \"hidden_size\" is {stated}; the weights have {hidden}"),
            )),
            _ => Ok(Self { steps, batch, input, hidden, directions, batch_first }),
        }
    }

    /// Returns the shape of the states of all directions.
    fn state(self) -> [usize; 3] {
        match self.batch_first {
            true => [self.batch, self.directions, self.hidden],
            false => [self.directions, self.batch, self.hidden],
        }
    }

    /// Returns the number of the row of a state for a direction and an item of the batch.
    fn state_row(self, direction: usize, item: usize) -> usize {
        match self.batch_first {
            true => item * self.directions + direction,
            false => direction * self.batch + item,
        }
    }

    /// Returns the shape of all hidden states.
    fn output(self) -> [usize; 4] {
        match self.batch_first {
            true => [self.batch, self.steps, self.directions, self.hidden],
            false => [self.steps, self.directions, self.batch, self.hidden],
        }
    }

    /// Returns the number of the row of all hidden states.
    fn output_row(self, step: usize, direction: usize, item: usize) -> usize {
        match self.batch_first {
            true => (item * self.steps + step) * self.directions + direction,
            false => (step * self.directions + direction) * self.batch + item,
        }
    }

    /// Returns the number of the row of the input.
    fn input_row(self, step: usize, item: usize) -> usize {
        if self.batch_first { item * self.steps + step } else { step * self.batch + item }
    }
}

/// Evaluates a layer of any kind of cell.
fn evaluate(call: &Call<'_>, cell: Cell) -> Result<Vec<Value>, Problem> {
    let reversed: &[bool] = match call.text("direction")?.unwrap_or("forward") {
        "forward" => &[false],
        "reverse" => &[true],
        "bidirectional" => &[false, true],
        other => {
            return Err(Problem::AttributeValue {
                name: "direction",
                value: other.into(),
                accepted: "forward, reverse or bidirectional",
            });
        }
    };
    let sizes = Sizes::read(call, reversed.len())?;
    let (directions, hidden) = (sizes.directions, sizes.hidden);
    let rows = cell.gates().saturating_mul(hidden);
    let x = call.tensor(0)?.to_f64()?;
    let missing = |index: usize| Problem::MissingInput { index };
    let w = operand(call, 1, &[directions, rows, sizes.input])?.ok_or(missing(1))?;
    let r = operand(call, 2, &[directions, rows, hidden])?.ok_or(missing(2))?;
    let biases = operand(call, 3, &[directions, rows.saturating_mul(2)])?;
    shape::elements(&[directions, rows, 2])?;
    let biases = biases.unwrap_or_else(|| vec![0.0; directions * rows * 2]);
    let count = shape::elements(&sizes.state())?;
    let lengths = lengths(call, sizes)?;
    let mut h = operand(call, 5, &sizes.state())?.unwrap_or_else(|| vec![0.0; count]);
    let (mut c, peepholes) = match cell {
        Cell::Lstm { .. } => {
            (operand(call, 6, &sizes.state())?, operand(call, 7, &[directions, 3 * hidden])?)
        }
        _ => (None, None),
    };
    let c = c.get_or_insert_with(|| vec![0.0; count]);
    let mut y = vec![0.0; shape::elements(&sizes.output())?];
    let clip = clip(call)?;
    let activations = activations(call, cell, directions)?;
    for (direction, reversed) in reversed.iter().enumerate() {
        let layer = Direction {
            cell,
            hidden,
            w: part(&w, direction, rows * sizes.input),
            r: part(&r, direction, rows * hidden),
            input_bias: part(&biases, 2 * direction, rows),
            hidden_bias: part(&biases, 2 * direction + 1, rows),
            peepholes: peepholes.as_deref().map(|all| part(all, direction, 3 * hidden)),
            activations: activations.get(direction).copied().unwrap_or_default(),
            clip,
        };
        for (item, length) in lengths.iter().enumerate() {
            let row = sizes.state_row(direction, item);
            let mut state =
                State { h: part(&h, row, hidden).to_vec(), c: part(c, row, hidden).to_vec() };
            let mut order: Vec<usize> = (0..*length).collect();
            if *reversed {
                order.reverse();
            }
            layer.run(&mut state, sizes, &order, item, &x, |step, h| {
                place(&mut y, sizes.output_row(step, direction, item), h);
            })?;
            place(&mut h, row, &state.h);
            place(c, row, &state.c);
        }
    }
    let element = call.tensor(0)?.element();
    let mut outputs = vec![
        Tensor::from_f64(element, sizes.output().to_vec(), y)?.into(),
        Tensor::from_f64(element, sizes.state().to_vec(), h)?.into(),
    ];
    if let Cell::Lstm { .. } = cell {
        outputs.push(Tensor::from_f64(element, sizes.state().to_vec(), std::mem::take(c))?.into());
    }
    Ok(outputs)
}

/// Returns the part of a given number out of parts of equal length.
fn part(values: &[f64], number: usize, length: usize) -> &[f64] {
    values.chunks_exact(length.max(1)).nth(number).unwrap_or_default()
}

/// Replaces the row of a given number.
fn place(values: &mut [f64], number: usize, row: &[f64]) {
    if let Some(target) = values.chunks_exact_mut(row.len().max(1)).nth(number) {
        target.copy_from_slice(row);
    }
}

/// Returns an operand of the element type of the input and of a given shape.
fn operand(call: &Call<'_>, index: usize, shape: &[usize]) -> Result<Option<Vec<f64>>, Problem> {
    let element = call.tensor(0)?.element();
    if !element.is_float() || element.is_narrow_float() {
        let accepted = "float16, bfloat16, float32 or float64";
        return Err(Problem::InputType { index: 0, found: element, accepted });
    }
    let Some(tensor) = call.optional_tensor(index)? else { return Ok(None) };
    if tensor.element() != element {
        return Err(Problem::MixedTypes { first: element, second: tensor.element() });
    }
    if tensor.shape() != shape {
        let found = tensor.shape().to_vec();
        let expected = format!("be {shape:?}");
        return Err(Problem::InputShape { index, shape: found, expected });
    }
    tensor.to_f64().map(Some)
}

/// Returns the number of steps of each item of the batch.
fn lengths(call: &Call<'_>, sizes: Sizes) -> Result<Vec<usize>, Problem> {
    shape::elements(&[sizes.batch, sizes.steps])?;
    let Some(tensor) = call.optional_tensor(4)? else {
        return Ok(vec![sizes.steps; sizes.batch]);
    };
    if tensor.element() != ElementType::I32 {
        let found = tensor.element();
        return Err(Problem::InputType { index: 4, found, accepted: "int32" });
    }
    if tensor.shape() != [sizes.batch] {
        let shape = tensor.shape().to_vec();
        let expected = format!("be [{}]", sizes.batch);
        return Err(Problem::InputShape { index: 4, shape, expected });
    }
    let lengths = tensor.to_i64()?.into_iter().map(|length| match usize::try_from(length) {
        Ok(steps) if steps <= sizes.steps => Ok(steps),
        _ => Err(Problem::Invalid(format!(
            "a sequence has {length} steps; there must be 0 to {}",
            sizes.steps
        ))),
    });
    lengths.collect()
}

/// Returns the bound of the inputs of activation functions.
fn clip(call: &Call<'_>) -> Result<f64, Problem> {
    match call.float("clip")? {
        None => Ok(f64::INFINITY),
        Some(clip) if clip >= 0.0 => Ok(f64::from(clip)),
        Some(clip) => Err(Problem::AttributeValue {
            name: "clip",
            value: clip.to_string(),
            accepted: "0 or positive",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sequence::testing::{evaluate, floats};
    use super::*;
    use crate::model::Attribute;

    fn lengths(values: &[i32]) -> Option<Value> {
        Some(Tensor::vector(values.to_vec()).into())
    }

    #[test]
    fn sequences_end_at_their_lengths() {
        // The activation is the identity: each state is the input plus 10 times the last state.
        let layer = |direction: &str, layout: i64, x: Option<Value>, initial: Option<Value>| {
            let attributes = [
                ("direction", Attribute::Text(direction.into())),
                ("activations", Attribute::Texts(vec!["Affine".into()])),
                ("layout", Attribute::Int(layout)),
            ];
            let (w, r) = (floats(&[1, 1, 1], &[1.0]), floats(&[1, 1, 1], &[10.0]));
            let inputs = vec![x, w, r, None, lengths(&[3, 2, 0]), initial];
            evaluate("RNN", 22, &attributes, inputs, 2).unwrap()
        };
        let x = floats(&[3, 3, 1], &[1.0, 4.0, 7.0, 2.0, 5.0, 8.0, 3.0, 6.0, 9.0]);
        let initial = floats(&[1, 3, 1], &[0.0, 0.0, 5.0]);
        let y = [1.0, 4.0, 0.0, 12.0, 45.0, 0.0, 123.0, 0.0, 0.0];
        let expected = vec![floats(&[3, 1, 3, 1], &y), floats(&[1, 3, 1], &[123.0, 45.0, 5.0])];
        let forward = layer("forward", 0, x, initial.clone());
        assert_eq!(forward, expected.into_iter().flatten().collect::<Vec<_>>());
        // The same sequences, in the layout with the batch first, from their ends.
        let x = floats(&[3, 3, 1], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
        let initial = floats(&[3, 1, 1], &[0.0, 0.0, 5.0]);
        let y = [321.0, 32.0, 3.0, 54.0, 5.0, 0.0, 0.0, 0.0, 0.0];
        let expected = vec![floats(&[3, 3, 1, 1], &y), floats(&[3, 1, 1], &[321.0, 54.0, 5.0])];
        let reverse = layer("reverse", 1, x, initial);
        assert_eq!(reverse, expected.into_iter().flatten().collect::<Vec<_>>());
    }

    #[test]
    fn the_clip_bounds_inputs_of_activations_but_not_the_cell() {
        let identity = vec!["Affine".into(); 3];
        let attributes =
            [("clip", Attribute::Float(1.0)), ("activations", Attribute::Texts(identity))];
        let zeros = |shape: &[usize]| floats(shape, &[0.0; 4]);
        // The gates are 1 (input), 1 (output), 1 (forget) and 1 (cell) after the clip.
        let bias = floats(&[1, 8], &[3.0, 3.0, 3.0, 3.0, 0.0, 0.0, 0.0, 0.0]);
        let cell = floats(&[1, 1, 1], &[5.0]);
        let (x, w, r) = (floats(&[1, 1, 1], &[0.0]), zeros(&[1, 4, 1]), zeros(&[1, 4, 1]));
        let inputs = vec![x, w, r, bias, None, None, cell];
        let outputs = evaluate("LSTM", 14, &attributes, inputs, 3).unwrap();
        assert_eq!(outputs[1], floats(&[1, 1, 1], &[1.0]).unwrap());
        assert_eq!(outputs[2], floats(&[1, 1, 1], &[6.0]).unwrap());
    }

    #[test]
    fn functions_take_only_the_parameters_that_they_have() {
        let names = ["Tanh", "LeakyRelu"].map(String::from).to_vec();
        let attributes = [
            ("direction", Attribute::Text("bidirectional".into())),
            ("activations", Attribute::Texts(names)),
            ("activation_alpha", Attribute::Floats(vec![0.5])),
        ];
        let (w, r) = (floats(&[2, 1, 1], &[1.0, 1.0]), floats(&[2, 1, 1], &[0.0, 0.0]));
        let y = evaluate("RNN", 7, &attributes, vec![floats(&[1, 1, 1], &[-1.0]), w, r], 1);
        let expected = floats(&[1, 2, 1, 1], &[(-1f64).tanh() as f32, -0.5]);
        assert_eq!(y.unwrap()[0], expected.unwrap());
    }
}
