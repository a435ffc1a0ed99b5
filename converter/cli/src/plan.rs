//! The plan of an integer program: what lies where in its arena, and when.

use std::fmt::Write as _;
use std::sync::Arc;

use hardtack::{Bundle, Packing, packing_of};
use hardtack_engine::{Placement, Plan, Program};
use serde_json::{Value, json};

use crate::output::{bytes, escaped, plain, table};

/// An integer program of a bundle, checked.
pub type IntegerProgram = Program<Arc<[u8]>>;

/// The integer programs of a bundle.
pub fn programs(bundle: &Bundle) -> anyhow::Result<Vec<IntegerProgram>> {
    let container = bundle.container()?;
    let mut programs = Vec::new();
    for index in 0..container.programs() {
        let known = container
            .families(index)
            .find_map(|family| Some((packing_of(family)?, container.weights(index, family)?)));
        let (Some(code), Some((packing, weights))) = (container.program(index), known) else {
            continue;
        };
        let (code, weights) = (Arc::from(code), Arc::from(weights));
        programs.push(match packing {
            None => Program::parse(code, weights)?,
            Some(packing) => Program::parse_packed(code, weights, packing)?,
        });
    }
    Ok(programs)
}

/// A program and where its tensors lie.
pub struct ProgramPlan {
    /// Name and kind of each step.
    steps: Vec<(String, &'static str)>,
    plan: Plan,
}

impl ProgramPlan {
    /// The plan for kernels that read weights in this layout; `None`: for those that the bundle is
    /// packed for.
    pub fn of(program: &IntegerProgram, packing: Option<Option<Packing>>) -> Self {
        let name = |index| program.step_name(index).unwrap_or_default().to_owned();
        let steps = program.steps().enumerate().map(|(index, step)| (name(index), step.kind()));
        let plan = Plan::of(program, packing.unwrap_or(program.packing()));
        Self { steps: steps.collect(), plan }
    }

    /// As a table.
    pub fn text(&self, index: usize) -> String {
        let arena = bytes(self.plan.arena_bytes.into());
        let step = |index: u32| self.steps.get(index as usize).map_or("", |step| step.1);
        let rows = self.plan.tensors.iter().map(|tensor| {
            [
                tensor.name.clone(),
                tensor.offset.to_string(),
                tensor.bytes.to_string(),
                format!("{} {}", tensor.first, step(tensor.first)),
                format!("{} {}", tensor.last, step(tensor.last)),
            ]
        });
        let rows = table(["tensor", "offset", "bytes", "from step", "to step"], rows);
        format!("\nprogram {index}: {} steps, arena {arena}\n{rows}", self.steps.len())
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        let tensors = self.plan.tensors.iter().map(|tensor| {
            json!({
                "name": tensor.name, "offset": tensor.offset, "bytes": tensor.bytes,
                "first": tensor.first, "last": tensor.last,
            })
        });
        json!({ "arena_bytes": self.plan.arena_bytes, "tensors": tensors.collect::<Vec<_>>() })
    }

    /// As a picture: steps from left to right, addresses from below, one bar a tensor, and the
    /// bytes that live at each step above.
    pub fn svg(&self, title: &str) -> String {
        let steps = self.steps.len().max(1) as f64;
        let arena = f64::from(self.plan.arena_bytes.max(1));
        let x = |step: f64| LEFT + step / steps * WIDTH;
        let y = |offset: f64| TOP + HEIGHT - offset / arena * HEIGHT;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0} {:.0}\" \
             font-family=\"system-ui, sans-serif\" font-size=\"12\">\n\
             <style>rect.bar:hover {{ stroke: #000; stroke-width: 2 }}</style>\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
             <text x=\"{LEFT}\" y=\"24\" font-size=\"16\" font-weight=\"600\">{}</text>\n\
             <text x=\"{LEFT}\" y=\"42\" fill=\"#666\">arena {}, {} tensors in {} steps; \
             at most {} live at once</text>\n",
            LEFT + WIDTH + 24.0,
            TOP + HEIGHT + 44.0,
            escaped(title),
            bytes(self.plan.arena_bytes.into()),
            self.plan.tensors.len(),
            self.steps.len(),
            bytes(self.live().into_iter().max().unwrap_or(0)),
        );
        for part in 0..=4 {
            let offset = arena * f64::from(part) / 4.0;
            let _ = writeln!(
                svg,
                "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#666\">{}</text>",
                LEFT + WIDTH,
                LEFT - 6.0,
                y(offset) + 4.0,
                bytes(offset as u64),
                at = y(offset),
            );
        }
        for tensor in &self.plan.tensors {
            let (left, right) = (x(tensor.first.into()), x(f64::from(tensor.last) + 1.0));
            let (bottom, top) =
                (y(tensor.offset.into()), y(f64::from(tensor.offset) + f64::from(tensor.bytes)));
            let _ = writeln!(
                svg,
                "<rect class=\"bar\" x=\"{left:.2}\" y=\"{top:.2}\" width=\"{:.2}\" \
                 height=\"{:.2}\" fill=\"{}\" stroke=\"#fff\" stroke-width=\"0.5\">\
                 <title>{}</title></rect>",
                right - left,
                (bottom - top).max(0.5),
                self.colour(tensor),
                escaped(&self.told(tensor)),
            );
        }
        let mut line = String::new();
        for (step, live) in self.live().into_iter().enumerate() {
            let at = y(live as f64);
            let _ =
                write!(line, "{:.2},{at:.2} {:.2},{at:.2} ", x(step as f64), x(step as f64 + 1.0));
        }
        let _ = writeln!(
            svg,
            "<polyline points=\"{line}\" fill=\"none\" stroke=\"#222\" stroke-width=\"1.5\" \
             pointer-events=\"none\"/>"
        );
        let every = (self.steps.len() / 12).max(1);
        for step in (0..self.steps.len()).step_by(every) {
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#666\">{step}</text>",
                x(step as f64 + 0.5),
                TOP + HEIGHT + 16.0,
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#666\">step; the line is \
             what lives at once</text>\n</svg>",
            LEFT + WIDTH / 2.0,
            TOP + HEIGHT + 36.0,
        );
        svg
    }

    /// Bytes that live at each step.
    fn live(&self) -> Vec<u64> {
        let at = |step: u32| {
            let alive = |tensor: &&Placement| (tensor.first..=tensor.last).contains(&step);
            self.plan.tensors.iter().filter(alive).map(|tensor| u64::from(tensor.bytes)).sum()
        };
        (0..self.steps.len() as u32).map(at).collect()
    }

    /// By what writes it first.
    fn colour(&self, tensor: &Placement) -> &'static str {
        match self.steps.get(tensor.first as usize).map_or("", |step| step.1) {
            "Conv" => "#4c78a8",
            "Strip" => "#72b7b2",
            "Quantize" | "Dequantize" => "#f58518",
            "Add" | "Multiply" => "#54a24b",
            "MaxPool" | "AveragePool" => "#b279a2",
            _ => "#9d9d9d",
        }
    }

    fn told(&self, tensor: &Placement) -> String {
        let step = |index: u32| match self.steps.get(index as usize) {
            Some((name, kind)) => format!("{index} {kind} {}", plain(name)),
            None => index.to_string(),
        };
        format!(
            "{}\n{} at {}\nfrom step {}\nto step {}",
            plain(&tensor.name),
            bytes(tensor.bytes.into()),
            tensor.offset,
            step(tensor.first),
            step(tensor.last),
        )
    }
}

/// The plot's place in the picture.
const LEFT: f64 = 84.0;
const TOP: f64 = 60.0;
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 420.0;
