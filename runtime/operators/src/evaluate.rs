//! Evaluates a model node by node.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::call::Call;
use crate::error::{Error, Problem};
use crate::meter::{self, Limits};
use crate::model::{Attribute, Function, Graph, Model, Node};
use crate::operators;
use crate::value::Value;

/// The maximum depth of functions and subgraphs within each other.
pub(crate) const MAX_DEPTH: usize = 64;

/// Receives the values of the main graph while it is evaluated.
pub trait Observer {
    /// Receives the outputs of a node by name.
    fn node(&mut self, node: &Node, name: &str, value: &Value);
}

/// An observer that ignores everything.
pub struct NoObserver;

impl Observer for NoObserver {
    fn node(&mut self, _: &Node, _: &str, _: &Value) {}
}

impl Model {
    /// Evaluates the main graph with inputs by name, and returns its outputs in order.
    ///
    /// # Errors
    /// Returns the [`Error`] of the first node that cannot be evaluated.
    pub fn run(
        &self,
        inputs: HashMap<String, Value>,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Value>, Error> {
        let mut values = HashMap::new();
        for (name, tensor) in &self.graph.initializers {
            values.insert(name.clone(), Value::Tensor(tensor.clone()));
        }
        values.extend(inputs);
        let mut frame = Frame {
            values,
            outer: None,
            model: self,
            opsets: &self.opsets,
            attributes: None,
            depth: 0,
        };
        frame.hold().map_err(|problem| Error {
            node: String::new(),
            operator: "input".into(),
            problem,
        })?;
        frame.evaluate(&self.graph, Some(observer))?;
        frame.outputs(&self.graph)
    }
}

impl Model {
    /// Evaluates the model as [`Model::run`] does, within limits.
    ///
    /// # Errors
    /// Returns the [`Error`] of the first node that cannot be evaluated, or that exceeds a limit.
    pub fn run_within(
        &self,
        inputs: HashMap<String, Value>,
        limits: &Limits,
    ) -> Result<Vec<Value>, Error> {
        meter::within(limits, || self.run(inputs, &mut NoObserver))
    }
}

/// The values of a graph while it is evaluated.
pub(crate) struct Frame<'a> {
    values: HashMap<String, Value>,
    outer: Option<&'a Frame<'a>>,
    model: &'a Model,
    opsets: &'a HashMap<String, i64>,
    /// The attributes of the enclosing function's call.
    attributes: Option<&'a BTreeMap<String, Attribute>>,
    depth: usize,
}

impl<'a> Frame<'a> {
    /// Returns an attribute of the enclosing function's call.
    pub(crate) fn attribute(&self, name: &str) -> Option<&'a Attribute> {
        self.attributes?.get(name)
    }

    /// Counts the memory of the values that the frame begins with.
    fn hold(&self) -> Result<(), Problem> {
        self.values.values().try_for_each(meter::hold)
    }

    fn find(&self, name: &str) -> Option<&Value> {
        self.values.get(name).or_else(|| self.outer?.find(name))
    }

    /// Evaluates a subgraph with values for its inputs, and returns its outputs.
    pub(crate) fn run_subgraph(
        &self,
        graph: &Graph,
        inputs: Vec<Value>,
    ) -> Result<Vec<Value>, Problem> {
        meter::begin_node()?;
        let constants = graph.initializers.iter();
        let mut values: HashMap<String, Value> =
            constants.map(|(name, tensor)| (name.clone(), Value::Tensor(tensor.clone()))).collect();
        if inputs.len() > graph.inputs.len() {
            return Err(Problem::Invalid(format!(
                "a subgraph takes {} inputs, not {}",
                graph.inputs.len(),
                inputs.len()
            )));
        }
        values.extend(graph.inputs.iter().map(|input| input.name.clone()).zip(inputs));
        let mut frame = Frame { values, outer: Some(self), depth: self.depth + 1, ..*self };
        let inner = |error| Problem::Subgraph(Box::new(error));
        frame.hold()?;
        frame.evaluate(graph, None).map_err(inner)?;
        frame.outputs(graph).map_err(inner)
    }

    fn outputs(&self, graph: &Graph) -> Result<Vec<Value>, Error> {
        let outputs = graph.outputs.iter().enumerate();
        let values = outputs.map(|(index, output)| {
            self.find(&output.name).cloned().ok_or_else(|| Error {
                node: output.name.clone(),
                operator: "output".into(),
                problem: Problem::UndefinedInput { index, name: output.name.clone() },
            })
        });
        values.collect()
    }

    fn evaluate(
        &mut self,
        graph: &Graph,
        mut observer: Option<&mut dyn Observer>,
    ) -> Result<(), Error> {
        for (index, node) in graph.nodes.iter().enumerate() {
            let outputs = self.call(node).map_err(|problem| at(node, problem))?;
            for (name, value) in node.outputs.iter().zip(outputs) {
                if name.is_empty() {
                    continue;
                }
                if let Some(observer) = &mut observer {
                    observer.node(node, name, &value);
                }
                meter::hold(&value).map_err(|problem| at(node, problem))?;
                self.values.insert(name.clone(), value);
            }
            for name in graph.last_reads.get(index).into_iter().flatten() {
                if let Some(value) = self.values.remove(name) {
                    meter::release(&value);
                }
            }
        }
        Ok(())
    }

    fn call(&self, node: &Node) -> Result<Vec<Value>, Problem> {
        meter::begin_node()?;
        if self.depth > MAX_DEPTH {
            return Err(Problem::Invalid(format!(
                "functions and subgraphs are nested more than {MAX_DEPTH} deep"
            )));
        }
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for (index, name) in node.inputs.iter().enumerate() {
            inputs.push(match name.is_empty() {
                true => None,
                false => {
                    let undefined = || Problem::UndefinedInput { index, name: name.clone() };
                    Some(self.find(name).cloned().ok_or_else(undefined)?)
                }
            });
        }
        meter::read(inputs.iter().flatten(), node.attributes.values())?;
        let functions = self.model.functions.iter();
        meter::spend(functions.len() as u64)?;
        let mut functions = functions.filter(|function| {
            function.name == node.operator
                && function.domain == node.domain
                && function.overload == node.overload
        });
        if let Some(function) = functions.next() {
            return self.call_function(function, node, inputs);
        }
        let version = self.opsets.get(&node.domain).copied().unwrap_or(1);
        let operator = operators::find(&node.domain, &node.operator)
            .ok_or(Problem::UnknownOperator { version })?;
        let outputs = operator(&Call { node, version, inputs, frame: self })?;
        meter::read(outputs.iter(), [].iter())?;
        match node.outputs.iter().skip(outputs.len()).any(|name| !name.is_empty()) {
            true => Err(Problem::Invalid(format!(
                "it has {} outputs; the operator has {}",
                node.outputs.len(),
                outputs.len()
            ))),
            false => Ok(outputs),
        }
    }

    fn call_function(
        &self,
        function: &Function,
        node: &Node,
        inputs: Vec<Option<Value>>,
    ) -> Result<Vec<Value>, Problem> {
        meter::read([].iter(), function.defaults.values())?;
        let mut attributes = function.defaults.clone();
        for (name, attribute) in &node.attributes {
            match attribute {
                Attribute::Reference(outer) => {
                    if let Some(value) = self.attribute(outer) {
                        attributes.insert(name.clone(), value.clone());
                    }
                }
                value => {
                    attributes.insert(name.clone(), value.clone());
                }
            }
        }
        let names = function.body.inputs.iter().map(|input| input.name.clone());
        let values = names.zip(inputs).filter_map(|(name, value)| Some((name, value?))).collect();
        let mut frame = Frame {
            values,
            outer: None,
            model: self.model,
            opsets: &function.opsets,
            attributes: Some(&attributes),
            depth: self.depth + 1,
        };
        let inner = |error| Problem::Subgraph(Box::new(error));
        // An input that the call omits is omitted by the nodes of the body.
        let names = function.body.inputs.iter().map(|input| input.name.as_str());
        let omitted: HashSet<&str> =
            names.filter(|name| !frame.values.contains_key(*name)).collect();
        let mut changed = None;
        if !omitted.is_empty() {
            let mut body = function.body.clone();
            for node in &mut body.nodes {
                meter::read([].iter(), node.attributes.values())?;
                let names = node.inputs.iter_mut();
                names.filter(|name| omitted.contains(name.as_str())).for_each(String::clear);
            }
            changed = Some(body);
        }
        let body = changed.as_ref().unwrap_or(&function.body);
        frame.hold()?;
        frame.evaluate(body, None).map_err(inner)?;
        frame.outputs(body).map_err(inner)
    }
}

/// Returns the error of a node.
fn at(node: &Node, problem: Problem) -> Error {
    Error { node: node.label().into(), operator: node.qualified_operator(), problem }
}

impl Drop for Frame<'_> {
    fn drop(&mut self) {
        self.values.values().for_each(meter::release);
    }
}
