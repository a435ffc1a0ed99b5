//! The cells of recurrent layers, and their steps.

use super::activation::Activation;
use super::{Sizes, part};
use crate::error::Problem;
use crate::meter::Tally;

/// The number of steps whose inputs are multiplied with the weights at once.
const BLOCK: usize = 32;

/// The kind of a cell.
#[derive(Clone, Copy)]
pub(super) enum Cell {
    Rnn,
    Gru { linear_before_reset: bool },
    Lstm { coupled: bool },
}

impl Cell {
    /// Returns the number of gates, which is that of the blocks of rows in the weights.
    pub(super) fn gates(self) -> usize {
        match self {
            Self::Rnn => 1,
            Self::Gru { .. } => 3,
            Self::Lstm { .. } => 4,
        }
    }

    /// Returns the activation functions of one direction.
    pub(super) fn activations(self) -> &'static [&'static str] {
        match self {
            Self::Rnn => &["Tanh"],
            Self::Gru { .. } => &["Sigmoid", "Tanh"],
            Self::Lstm { .. } => &["Sigmoid", "Tanh", "Tanh"],
        }
    }
}

/// The state of the cells between two steps.
pub(super) struct State {
    /// The hidden state, which is also the output.
    pub(super) h: Vec<f64>,
    /// The state of the memory cells; only `LSTM` uses it.
    pub(super) c: Vec<f64>,
}

/// One direction of a layer. Its matrices have one row per gate and cell.
pub(super) struct Direction<'a> {
    pub(super) cell: Cell,
    pub(super) hidden: usize,
    pub(super) w: &'a [f64],
    pub(super) r: &'a [f64],
    pub(super) input_bias: &'a [f64],
    pub(super) hidden_bias: &'a [f64],
    pub(super) peepholes: Option<&'a [f64]>,
    pub(super) activations: [Activation; 3],
    pub(super) clip: f64,
}

impl Direction<'_> {
    /// Evaluates the steps of an item of the batch in the given order.
    pub(super) fn run(
        &self,
        state: &mut State,
        sizes: Sizes,
        order: &[usize],
        item: usize,
        x: &[f64],
        mut output: impl FnMut(usize, &[f64]),
    ) -> Result<(), Problem> {
        let mut tally = Tally::default();
        for steps in order.chunks(BLOCK) {
            let inputs = steps.iter().map(|step| sizes.input_row(*step, item));
            let inputs: Vec<&[f64]> = inputs.map(|row| part(x, row, sizes.input)).collect();
            let mut gates = self.input_bias.repeat(steps.len());
            tally.spend(self.w.len().saturating_mul(steps.len()))?;
            multiply(self.w, &inputs, &mut gates);
            let gates = gates.chunks_exact_mut(self.input_bias.len().max(1));
            for (step, gates) in steps.iter().zip(gates) {
                tally.spend(self.r.len() + 16 * self.hidden)?;
                match self.cell {
                    Cell::Rnn => self.step_rnn(gates, state),
                    Cell::Gru { linear_before_reset: true } => self.step_gru_linear(gates, state),
                    Cell::Gru { .. } => self.step_gru(gates, state),
                    Cell::Lstm { coupled } => self.step_lstm(gates, state, coupled),
                }
                output(*step, &state.h);
            }
        }
        Ok(())
    }

    /// Applies an activation function to a clipped input.
    fn activate(&self, index: usize, x: f64) -> f64 {
        self.activations[index].apply(x.clamp(-self.clip, self.clip))
    }

    /// Adds the hidden state times the recurrence weights, and the bias, from a gate on.
    fn recur(&self, gate: usize, h: &[f64], gates: &mut [f64]) {
        let first = gate * self.hidden;
        let rows = first..first + gates.len();
        let bias = self.hidden_bias.get(rows).unwrap_or_default();
        for (gate, bias) in gates.iter_mut().zip(bias) {
            *gate += bias;
        }
        multiply(self.r.get(first * self.hidden..).unwrap_or_default(), &[h], gates);
    }

    fn step_rnn(&self, gates: &mut [f64], state: &mut State) {
        self.recur(0, &state.h, gates);
        for (h, gate) in state.h.iter_mut().zip(gates) {
            *h = self.activate(0, *gate);
        }
    }

    /// Computes the update gate and the reset gate of `GRU`.
    fn update_and_reset(&self, gates: &mut [f64], h: &[f64]) {
        self.recur(0, h, gates);
        for gate in gates {
            *gate = self.activate(0, *gate);
        }
    }

    fn step_gru(&self, gates: &mut [f64], state: &mut State) {
        let (gates, candidates) = gates.split_at_mut(2 * self.hidden);
        self.update_and_reset(gates, &state.h);
        let (update, reset) = gates.split_at(self.hidden);
        let kept: Vec<f64> = reset.iter().zip(&state.h).map(|(r, h)| r * h).collect();
        self.recur(2, &kept, candidates);
        self.mix(update, candidates, state);
    }

    fn step_gru_linear(&self, gates: &mut [f64], state: &mut State) {
        let (gates, candidates) = gates.split_at_mut(2 * self.hidden);
        self.update_and_reset(gates, &state.h);
        let (update, reset) = gates.split_at(self.hidden);
        let mut linear = vec![0.0; self.hidden];
        self.recur(2, &state.h, &mut linear);
        for ((candidate, reset), linear) in candidates.iter_mut().zip(reset).zip(linear) {
            *candidate += reset * linear;
        }
        self.mix(update, candidates, state);
    }

    /// Computes the next state of `GRU`.
    fn mix(&self, update: &[f64], candidates: &[f64], state: &mut State) {
        for ((h, z), candidate) in state.h.iter_mut().zip(update).zip(candidates) {
            *h = (1.0 - z) * self.activate(1, *candidate) + z * *h;
        }
    }

    fn step_lstm(&self, gates: &mut [f64], state: &mut State, coupled: bool) {
        self.recur(0, &state.h, gates);
        let n = self.hidden;
        // The order of the gates is input, output, forget and cell; that of peepholes is the same.
        let peep = |gate: usize, index: usize, c: f64| match self.peepholes {
            Some(weights) => weights[gate * n + index] * c,
            None => 0.0,
        };
        for (index, (h, c)) in state.h.iter_mut().zip(&mut state.c).enumerate() {
            let input = self.activate(0, gates[index] + peep(0, index, *c));
            let forget = match coupled {
                true => 1.0 - input,
                false => self.activate(0, gates[2 * n + index] + peep(2, index, *c)),
            };
            let candidate = self.activate(1, gates[3 * n + index]);
            *c = forget * *c + input * candidate;
            let output = self.activate(0, gates[n + index] + peep(1, index, *c));
            *h = output * self.activate(2, *c);
        }
    }
}

/// Adds the products of a matrix with vectors to the sums: for each vector one sum per row.
fn multiply(matrix: &[f64], vectors: &[&[f64]], sums: &mut [f64]) {
    let (Some(width), Some(height)) =
        (vectors.first().map(|vector| vector.len().max(1)), sums.len().checked_div(vectors.len()))
    else {
        return;
    };
    for (index, row) in matrix.chunks_exact(width).take(height).enumerate() {
        for (vector, sums) in vectors.iter().zip(sums.chunks_exact_mut(height)) {
            sums[index] += dot(row, vector);
        }
    }
}

/// Returns the sum of the products of two vectors of the same length.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (a, a_rest) = a.as_chunks::<8>();
    let (b, b_rest) = b.as_chunks::<8>();
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f64>();
    sums.iter().sum::<f64>() + rest
}
