//! The arena plan of an integer program: the offset and the lifetime of each tensor.

use std::fmt::Write as _;
use std::sync::Arc;

use hardtack::Bundle;
use hardtack::internal::{Packing, packing_of};
use hardtack_engine::{Placement, Plan, Program};
use serde_json::{Value, json};

use crate::output::{bytes, escaped, plain, table};

/// A checked integer program of a bundle.
pub type IntegerProgram = Program<Arc<[u8]>>;

/// Returns the integer programs of a bundle. Skips programs whose weights this version cannot read.
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

/// The arena plan of a program, with the names of its steps.
pub struct ProgramPlan {
    /// The name and the kind of each step.
    steps: Vec<(String, &'static str)>,
    plan: Plan,
}

impl ProgramPlan {
    /// Creates the plan for kernels that read weights in layout `packing`; `None` is the layout of
    /// the bundle.
    pub fn of(program: &IntegerProgram, packing: Option<Option<Packing>>) -> Self {
        let name = |index| program.step_name(index).unwrap_or_default().to_owned();
        let steps = program.steps().enumerate().map(|(index, step)| (name(index), step.kind()));
        let plan = Plan::of(program, packing.unwrap_or(program.packing()));
        Self { steps: steps.collect(), plan }
    }

    /// Formats the plan as a table.
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

    /// Returns the plan as JSON.
    pub fn json(&self) -> Value {
        let tensors = self.plan.tensors.iter().map(|tensor| {
            json!({
                "name": tensor.name, "offset": tensor.offset, "bytes": tensor.bytes,
                "first": tensor.first, "last": tensor.last,
            })
        });
        json!({ "arena_bytes": self.plan.arena_bytes, "tensors": tensors.collect::<Vec<_>>() })
    }

    /// Draws the plan as SVG: steps on the x axis, arena offsets on the y axis, one bar per tensor,
    /// and a line for the bytes that are live at each step.
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
             at most {} are live at the same time</text>\n",
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
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#666\">step; the \
             line shows the live bytes</text>\n</svg>",
            LEFT + WIDTH / 2.0,
            TOP + HEIGHT + 36.0,
        );
        svg
    }

    /// Returns the number of live bytes at each step.
    fn live(&self) -> Vec<u64> {
        let at = |step: u32| {
            let alive = |tensor: &&Placement| (tensor.first..=tensor.last).contains(&step);
            self.plan.tensors.iter().filter(alive).map(|tensor| u64::from(tensor.bytes)).sum()
        };
        (0..self.steps.len() as u32).map(at).collect()
    }

    /// Returns the color of a tensor, by the kind of the step that first writes it.
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

    /// Returns the tooltip of a tensor.
    fn told(&self, tensor: &Placement) -> String {
        let step = |index: u32| match self.steps.get(index as usize) {
            Some((name, kind)) => format!("{index} {kind} {}", plain(name)),
            None => index.to_string(),
        };
        format!(
            "{}\n{} at offset {}\nfrom step {}\nto step {}",
            plain(&tensor.name),
            bytes(tensor.bytes.into()),
            tensor.offset,
            step(tensor.first),
            step(tensor.last),
        )
    }
}

/// The position and the size of the plot in the image.
const LEFT: f64 = 84.0;
const TOP: f64 = 60.0;
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 420.0;
