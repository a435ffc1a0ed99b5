//! Evaluates a model on synthetic inputs, and records the types, shapes and constants of its
//! values.

use std::collections::HashMap;
use std::sync::Arc;

use hardtack_operators::{ElementType, Model, Node, Observer, Problem, Tensor, Value, ValueType};

use super::dependence::{Dependence, On, dependences};
use super::synthetic::{Integers, RUNS, Scale, Sizes, inputs, sizes};

/// The maximum number of elements of a recorded constant. Larger ones, such as weights that are
/// computed, are left to the stage `fold`.
const RECORDED: usize = 1 << 10;

/// What the runs of a model showed.
pub(crate) struct Trace {
    /// The sizes of the named dimensions in each run.
    pub sizes: Vec<Sizes>,
    values: HashMap<String, Traced>,
    /// Whether the model ran. Otherwise, only the types of its inputs and outputs are known.
    pub has_run: bool,
    /// Whether all dynamic sizes were 0, which shows nothing about others.
    pub is_empty: bool,
}

/// What the runs showed of a value.
pub(crate) struct Traced {
    /// The element type; `None` if the value is not a tensor.
    pub element: Option<ElementType>,
    /// The shape in each run.
    pub shapes: Vec<Vec<usize>>,
    /// What the value depends on.
    pub dependence: Dependence,
    /// The value if it depends on nothing and is small.
    pub constant: Option<Arc<Tensor>>,
}

impl Trace {
    /// Returns what is known of a value.
    pub(crate) fn get(&self, name: &str) -> Option<&Traced> {
        self.values.get(name)
    }

    /// Returns the constants, in the order of their names.
    pub(crate) fn constants(&self) -> Vec<(&str, &Arc<Tensor>)> {
        let constants = self.values.iter();
        let mut constants: Vec<(&str, &Arc<Tensor>)> = constants
            .filter_map(|(name, traced)| Some((name.as_str(), traced.constant.as_ref()?)))
            .collect();
        constants.sort_by_key(|(name, _)| *name);
        constants
    }
}

/// Evaluates a model on synthetic inputs. If it cannot be evaluated on any of those that are tried,
/// takes the types of inputs and outputs from the file, and every size for unknown. Returns `None`
/// if the file does not state the types and ranks.
pub(crate) fn trace(model: &Model) -> Option<Trace> {
    if !can_evaluate(model, &model.graph.nodes) {
        return None;
    }
    let dependences = dependences(model);
    for scale in [Scale::Odd, Scale::Large, Scale::Small, Scale::Empty] {
        for integers in [Integers::Bits, Integers::Ones, Integers::Zeros] {
            match attempt(model, &dependences, scale, integers) {
                Ok(trace) => return Some(trace),
                Err(Failure::Never) => return None,
                Err(Failure::Input(problem)) => {
                    log::debug!("evaluating on synthetic inputs: {problem}");
                }
            }
        }
        if sizes(&model.graph, scale, 0).is_empty() {
            break;
        }
    }
    declared(model)
}

/// Returns the types and ranks of inputs and outputs that the file states.
fn declared(model: &Model) -> Option<Trace> {
    let mut trace =
        Trace { sizes: vec![Sizes::new()], values: HashMap::new(), has_run: false, is_empty: true };
    for info in model.graph.inputs.iter().chain(&model.graph.outputs) {
        let Some(ValueType::Tensor { element, shape: Some(shape) }) = &info.value_type else {
            return None;
        };
        let traced = Traced {
            element: Some(*element),
            shapes: vec![vec![0; shape.len()]],
            dependence: Dependence { elements: On::Data, shape: On::Data },
            constant: None,
        };
        trace.values.insert(info.name.clone(), traced);
    }
    Some(trace)
}

/// Why a model cannot be evaluated.
enum Failure {
    /// It cannot on any inputs.
    Never,
    /// It cannot on these inputs, for this reason.
    Input(String),
}

/// Returns whether the evaluator has the operators of all nodes, also of those in subgraphs.
fn can_evaluate(model: &Model, nodes: &[Node]) -> bool {
    nodes.iter().all(|node| {
        let is_function = model
            .functions
            .iter()
            .any(|function| function.domain == node.domain && function.name == node.operator);
        let is_known = is_function || hardtack_operators::is_known(&node.domain, &node.operator);
        is_known && node.subgraphs().all(|graph| can_evaluate(model, &graph.nodes))
    })
}

fn attempt(
    model: &Model,
    dependences: &HashMap<String, Dependence>,
    scale: Scale,
    integers: Integers,
) -> Result<Trace, Failure> {
    let is_empty = scale == Scale::Empty;
    let mut trace = Trace { sizes: Vec::new(), values: HashMap::new(), has_run: true, is_empty };
    let is_dynamic = !sizes(&model.graph, scale, 0).is_empty();
    for run in 0..if is_dynamic { RUNS } else { 1 } {
        let sizes = sizes(&model.graph, scale, run);
        let inputs = inputs(&model.graph, &sizes, integers, run as u64 + 1)
            .ok_or_else(|| Failure::Input("an input is not a numeric tensor".into()))?;
        let mut recorder = Recorder { trace: &mut trace, dependences };
        for (name, value) in &inputs {
            recorder.record(name, value);
        }
        for (name, tensor) in &model.graph.initializers {
            recorder.record(name, &Value::Tensor(tensor.clone()));
        }
        model.run(inputs, &mut recorder).map_err(|error| match error.innermost() {
            Problem::Unsupported { .. }
            | Problem::UnknownOperator { .. }
            | Problem::MissingInput { .. }
            | Problem::MissingAttribute { .. }
            | Problem::UndefinedInput { .. }
            | Problem::AttributeType { .. } => Failure::Never,
            _ => Failure::Input(error.to_string()),
        })?;
        trace.sizes.push(sizes);
    }
    Ok(trace)
}

struct Recorder<'a> {
    trace: &'a mut Trace,
    dependences: &'a HashMap<String, Dependence>,
}

impl Recorder<'_> {
    fn record(&mut self, name: &str, value: &Value) {
        const CONSTANT: Dependence = Dependence { elements: On::Nothing, shape: On::Nothing };
        let dependence = self.dependences.get(name).copied().unwrap_or(CONSTANT);
        let traced = self.trace.values.entry(name.into()).or_insert_with(|| Traced {
            element: None,
            shapes: Vec::new(),
            dependence,
            constant: None,
        });
        if let Value::Tensor(tensor) = value {
            traced.element = Some(tensor.element());
            traced.shapes.push(tensor.shape().to_vec());
            if dependence.elements == On::Nothing && tensor.len() <= RECORDED {
                traced.constant = Some(tensor.clone());
            }
        }
    }
}

impl Observer for Recorder<'_> {
    fn node(&mut self, _: &Node, name: &str, value: &Value) {
        self.record(name, value);
    }
}
