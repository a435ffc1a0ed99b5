//! LSTM, GRU and RNN, with the cell as plain operations and the activations of the node.
//!
//! tract's own reader ignores the node's activations, and merges the cell into one operation that
//! is specific to its release.

use tract_core::ops::array::Slice;
use tract_core::ops::einsum::EinSum;
use tract_core::ops::{math, nn};
use tract_hir::internal::*;
use tract_onnx::model::ParsingContext;
use tract_onnx::ops::rec::common::{CommonRec, WireBody};
use tract_onnx::pb::NodeProto;

use super::Read;

/// Reads an LSTM, GRU or RNN node.
pub(super) fn read(_: &ParsingContext, node: &NodeProto) -> Read {
    let (kind, usual): (Kind, &[&str]) = match &*node.op_type {
        "LSTM" => (Kind::Lstm, &["Sigmoid", "Tanh", "Tanh"]),
        "GRU" => {
            let after = node.get_attr_opt("linear_before_reset")?.unwrap_or(0i64) != 0;
            (Kind::Gru { after }, &["Sigmoid", "Tanh"])
        }
        _ => (Kind::Rnn, &["Tanh"]),
    };
    let names: Vec<String> = match node.get_attr_opt_vec::<String>("activations")? {
        Some(names) => names,
        None => usual.iter().map(|name| (*name).into()).collect(),
    };
    let count = usual.len();
    ensure!(names.len() == count || names.len() == 2 * count, "it has {} activations", names.len());
    let list = |name: &str| -> TractResult<Vec<f32>> {
        Ok(node.get_attr_opt_vec::<f32>(name)?.unwrap_or_default())
    };
    let (mut alpha, mut beta) =
        (list("activation_alpha")?.into_iter(), list("activation_beta")?.into_iter());
    let mut all = Vec::new();
    for name in &names {
        all.push(Activation::read(name, &mut alpha, &mut beta)?);
    }
    if let Some((forward, backward)) = all.split_at_checked(count)
        && !backward.is_empty()
    {
        ensure!(forward == backward, "both directions must have the same activations");
    }
    all.truncate(count);
    let cell = Cell { kind, activations: all };
    Ok((expand(CommonRec::from_node_and_options(node, 3, 0, Box::new(cell))?), vec![]))
}

#[derive(Clone, Debug)]
enum Kind {
    Lstm,
    Gru {
        /// Whether the reset gate is applied after the matmul (attribute `linear_before_reset`).
        after: bool,
    },
    Rnn,
}

#[derive(Clone, Debug, PartialEq)]
enum Activation {
    Sigmoid,
    Tanh,
    LeakyRelu(f32),
    Affine(f32, f32),
}

impl Activation {
    fn read(
        name: &str,
        alpha: &mut impl Iterator<Item = f32>,
        beta: &mut impl Iterator<Item = f32>,
    ) -> TractResult<Activation> {
        Ok(match name.to_ascii_lowercase().as_str() {
            "sigmoid" => Activation::Sigmoid,
            "tanh" => Activation::Tanh,
            "relu" => Activation::LeakyRelu(0.0),
            "leakyrelu" => Activation::LeakyRelu(alpha.next().unwrap_or(0.01)),
            "affine" => Activation::Affine(alpha.next().unwrap_or(1.0), beta.next().unwrap_or(0.0)),
            _ => bail!(
                "activation {name} is not supported; use Sigmoid, Tanh, Relu, LeakyRelu or Affine"
            ),
        })
    }
}

#[derive(Clone, Debug)]
struct Cell {
    kind: Kind,
    activations: Vec<Activation>,
}

impl WireBody for Cell {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Lstm => "LSTM",
            Kind::Gru { .. } => "GRU",
            Kind::Rnn => "RNN",
        }
    }

    fn w_b_multipliers(&self) -> (usize, usize) {
        match self.kind {
            Kind::Lstm => (4, 8),
            Kind::Gru { .. } => (3, 6),
            Kind::Rnn => (1, 2),
        }
    }

    fn have_extra_c_state(&self) -> bool {
        matches!(self.kind, Kind::Lstm)
    }

    fn wire_body(&self, prefix: &str, body: &mut TypedModel) -> TractResult<()> {
        let mut wiring = Wiring::new(prefix, body, &self.activations)?;
        match self.kind {
            Kind::Lstm => wiring.lstm(),
            Kind::Gru { after } => wiring.gru(after),
            Kind::Rnn => wiring.rnn(),
        }
    }
}

/// Wires the body of one time step. The gates are adjacent in the weights, each of size `hidden`.
struct Wiring<'a> {
    prefix: &'a str,
    body: &'a mut TypedModel,
    activations: &'a [Activation],
    hidden: TDim,
    product: EinSum,
    x: OutletId,
    h: OutletId,
    w: OutletId,
    r: OutletId,
    bias: Option<OutletId>,
}

impl<'a> Wiring<'a> {
    fn new(
        prefix: &'a str,
        body: &'a mut TypedModel,
        activations: &'a [Activation],
    ) -> TractResult<Wiring<'a>> {
        let outlet =
            |name: &str| -> TractResult<OutletId> { Ok(body.node_by_name(name)?.id.into()) };
        let (x, h, w, r) = (outlet("Xt")?, outlet("Ht_1")?, outlet("W")?, outlet("R")?);
        let bias = outlet("b").ok();
        let hidden = body.outlet_fact(r)?.shape[1].clone();
        let product = EinSum::new("mk,nk->mn".parse()?, body.outlet_fact(x)?.datum_type);
        Ok(Wiring { prefix, body, activations, hidden, product, x, h, w, r, bias })
    }

    fn wire(
        &mut self,
        name: &str,
        op: impl Into<Box<dyn TypedOp>>,
        inputs: &[OutletId],
    ) -> TractResult<OutletId> {
        Ok(self.body.wire_node(format!("{}.{name}", self.prefix), op, inputs)?[0])
    }

    /// Slices a range of gates along an axis.
    fn gates(
        &mut self,
        name: &str,
        of: OutletId,
        axis: usize,
        gates: std::ops::Range<i64>,
    ) -> TractResult<OutletId> {
        let range = (self.hidden.clone() * gates.start, self.hidden.clone() * gates.end);
        self.wire(name, Slice::new(axis, range.0, range.1), &[of])
    }

    /// Adds a range of gates of the bias, if there is one.
    fn add_bias(
        &mut self,
        name: &str,
        to: OutletId,
        gates: std::ops::Range<i64>,
    ) -> TractResult<OutletId> {
        let Some(bias) = self.bias else { return Ok(to) };
        let bias = self.gates(&format!("{name}_bias"), bias, 1, gates)?;
        self.wire(&format!("{name}_biased"), math::add(), &[to, bias])
    }

    fn activate(&mut self, name: &str, which: usize, x: OutletId) -> TractResult<OutletId> {
        match self.activations[which].clone() {
            Activation::Sigmoid => self.wire(name, nn::sigmoid(), &[x]),
            Activation::Tanh => self.wire(name, math::tanh(), &[x]),
            Activation::LeakyRelu(alpha) => self.wire(name, nn::leaky_relu(alpha), &[x]),
            Activation::Affine(alpha, beta) => {
                let dtype = self.body.outlet_fact(x)?.datum_type;
                let mut constant = |suffix: &str, value: f32| {
                    let value = tensor0(value).cast_to_dt(dtype)?.into_owned();
                    let name = format!("{}.{name}_{suffix}", self.prefix);
                    self.body.add_const(name, value.broadcast_into_rank(2)?)
                };
                let (alpha, beta) = (constant("alpha", alpha)?, constant("beta", beta)?);
                let scaled = self.wire(&format!("{name}_scaled"), math::mul(), &[x, alpha])?;
                self.wire(name, math::add(), &[scaled, beta])
            }
        }
    }

    /// Declares the states after the step as outputs, with the time axis restored.
    fn finish(&mut self, states: &[OutletId]) -> TractResult<()> {
        let mut outputs = vec![];
        for (index, state) in states.iter().enumerate() {
            outputs.push(self.wire(&format!("state_{index}"), AxisOp::Add(1), &[*state])?);
        }
        self.body.select_output_outlets(&outputs)
    }

    /// Wires `W·x + R·h` plus both biases, for all `gates` gates.
    fn all_gates(&mut self, gates: i64) -> TractResult<OutletId> {
        let (product, x, h, w, r) = (self.product.clone(), self.x, self.h, self.w, self.r);
        let from_input = self.wire("from_input", product.clone(), &[x, w])?;
        let from_state = self.wire("from_state", product, &[h, r])?;
        let sum = self.wire("sum", math::add(), &[from_input, from_state])?;
        let sum = self.add_bias("w", sum, 0..gates)?;
        self.add_bias("r", sum, gates..2 * gates)
    }

    fn rnn(&mut self) -> TractResult<()> {
        let sum = self.all_gates(1)?;
        let h = self.activate("h", 0, sum)?;
        self.finish(&[h])
    }

    fn lstm(&mut self) -> TractResult<()> {
        let c = OutletId::from(self.body.node_by_name("Ct_1")?.id);
        let peepholes =
            self.body.node_by_name("peepholes").ok().map(|node| OutletId::from(node.id));
        let sum = self.all_gates(4)?;
        let peep = |wiring: &mut Self, name: &str, gate: OutletId, c: OutletId, at: i64| {
            let Some(peepholes) = peepholes else { return TractResult::Ok(gate) };
            let weight = wiring.gates(&format!("{name}_peephole"), peepholes, 1, at..at + 1)?;
            let seen = wiring.wire(&format!("{name}_seen"), math::mul(), &[c, weight])?;
            wiring.wire(&format!("{name}_peeped"), math::add(), &[gate, seen])
        };
        let input = self.gates("i_gate", sum, 1, 0..1)?;
        let input = peep(self, "i", input, c, 0)?;
        let input = self.activate("i", 0, input)?;
        let forget = self.gates("f_gate", sum, 1, 2..3)?;
        let forget = peep(self, "f", forget, c, 2)?;
        let forget = self.activate("f", 0, forget)?;
        let candidate = self.gates("c_gate", sum, 1, 3..4)?;
        let candidate = self.activate("candidate", 1, candidate)?;
        let kept = self.wire("kept", math::mul(), &[forget, c])?;
        let added = self.wire("added", math::mul(), &[input, candidate])?;
        let cell = self.wire("cell", math::add(), &[kept, added])?;
        let output = self.gates("o_gate", sum, 1, 1..2)?;
        let output = peep(self, "o", output, cell, 1)?;
        let output = self.activate("o", 0, output)?;
        let shown = self.activate("shown", 2, cell)?;
        let h = self.wire("h", math::mul(), &[output, shown])?;
        self.finish(&[h, cell])
    }

    fn gru(&mut self, after: bool) -> TractResult<()> {
        let (product, x, h, w, r) = (self.product.clone(), self.x, self.h, self.w, self.r);
        let from_input = self.wire("from_input", product.clone(), &[x, w])?;
        let from_input = self.add_bias("w", from_input, 0..3)?;
        let r_gates = self.gates("r_gates", r, 0, 0..2)?;
        let from_state = self.wire("from_state", product.clone(), &[h, r_gates])?;
        let from_state = self.add_bias("r", from_state, 3..5)?;
        let gate = |wiring: &mut Self, name: &str, at: i64| {
            let a = wiring.gates(&format!("{name}_input"), from_input, 1, at..at + 1)?;
            let b = wiring.gates(&format!("{name}_state"), from_state, 1, at..at + 1)?;
            let sum = wiring.wire(&format!("{name}_sum"), math::add(), &[a, b])?;
            wiring.activate(name, 0, sum)
        };
        let update = gate(self, "z", 0)?;
        let reset = gate(self, "reset", 1)?;
        let r_new = self.gates("r_new", r, 0, 2..3)?;
        let new = if after {
            let new = self.wire("new_state", product, &[h, r_new])?;
            let new = self.add_bias("new", new, 5..6)?;
            self.wire("new_reset", math::mul(), &[reset, new])?
        } else {
            let kept = self.wire("h_reset", math::mul(), &[reset, h])?;
            let new = self.wire("new_state", product, &[kept, r_new])?;
            self.add_bias("new", new, 5..6)?
        };
        let input = self.gates("new_input", from_input, 1, 2..3)?;
        let sum = self.wire("new_sum", math::add(), &[input, new])?;
        let candidate = self.activate("candidate", 1, sum)?;
        // (1 - z) · candidate + z · h
        let difference = self.wire("difference", math::sub(), &[h, candidate])?;
        let moved = self.wire("moved", math::mul(), &[update, difference])?;
        let h = self.wire("h", math::add(), &[candidate, moved])?;
        self.finish(&[h])
    }
}
