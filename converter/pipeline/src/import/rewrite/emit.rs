//! The framework for rewrites of single nodes.

use std::collections::{HashMap, HashSet};

use hardtack::{Data, Tensor};
use hardtack_bundle::DType;
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};

use crate::import::limits::MAX_REWRITTEN;
use crate::import::node::{Node as _, int, ints};
use crate::import::{ImportError, UnsupportedOperator, tensor};

/// Model-wide state that all rewrites share.
pub(crate) struct Context {
    /// The version of the standard operator set.
    pub opset: i64,
    /// Whether inputs may have initializers as default values. Older files list all initializers as
    /// inputs.
    pub has_defaults: bool,
    /// The rewrites that were made, one sentence each.
    pub report: Vec<String>,
    /// The names of the model's classes; may be empty.
    pub labels: Vec<String>,
    /// The nodes that are refused for what their attributes ask for.
    pub refused: Vec<UnsupportedOperator>,
    /// The default values of inputs.
    pub defaults: Vec<(String, Tensor)>,
    /// All names in use.
    names: HashSet<String>,
    /// For each base name, the last number appended to make it unique.
    numbers: HashMap<String, usize>,
}

/// The first version of the format in which an initializer need not be an input.
const FIRST_WITH_DEFAULTS: i64 = 4;

impl Context {
    /// Creates the context of a model.
    pub(crate) fn of(model: &ModelProto) -> Context {
        let standard = |domain: &str| domain.is_empty() || domain == "ai.onnx";
        let opset = model.opset_import.iter().find(|import| standard(&import.domain));
        let mut names = HashSet::new();
        if let Some(graph) = &model.graph {
            collect_names(graph, &mut names);
        }
        Context {
            opset: opset.map_or(1, |import| import.version),
            has_defaults: model.ir_version >= FIRST_WITH_DEFAULTS,
            report: vec![],
            labels: vec![],
            refused: vec![],
            defaults: vec![],
            names,
            numbers: HashMap::new(),
        }
    }

    /// Returns an unused name: `base`, with a number appended if it is in use.
    pub(crate) fn fresh(&mut self, base: &str) -> String {
        if self.names.insert(base.to_owned()) {
            return base.to_owned();
        }
        // Names are never freed, so all lower numbers are still in use.
        let number = self.numbers.entry(base.to_owned()).or_insert(1);
        loop {
            *number += 1;
            let name = format!("{base}.{number}");
            if self.names.insert(name.clone()) {
                return name;
            }
        }
    }

    /// Refuses a node. The nodes are listed together once all are known.
    pub(crate) fn refuse(&mut self, node: &NodeProto, reason: &str) {
        UnsupportedOperator::add(&mut self.refused, node.operator(), node.label(), reason);
    }

    /// Adds a sentence to the report, unless it is already there.
    pub(crate) fn note(&mut self, message: String) {
        if !self.report.contains(&message) {
            self.report.push(message);
        }
    }
}

fn collect_names(graph: &GraphProto, names: &mut HashSet<String>) {
    names.extend(graph.input.iter().map(|input| input.name.clone()));
    names.extend(graph.initializer.iter().map(|initializer| initializer.name.clone()));
    for node in &graph.node {
        names.insert(node.name.clone());
        names.extend(node.output.iter().cloned());
        for attribute in &node.attribute {
            attribute.g.iter().chain(&attribute.graphs).for_each(|g| collect_names(g, names));
        }
    }
}

/// The constants visible to a node: those of its graph and of the enclosing graphs.
pub(crate) struct Scope<'a> {
    here: HashMap<&'a str, &'a TensorProto>,
    around: Option<&'a Scope<'a>>,
}

impl Scope<'_> {
    /// Returns a constant as protobuf.
    pub(crate) fn proto(&self, name: &str) -> Option<&TensorProto> {
        match self.here.get(name) {
            Some(tensor) => Some(tensor),
            None => self.around?.proto(name),
        }
    }

    /// Returns a numeric constant.
    pub(crate) fn tensor(&self, name: &str) -> Option<Tensor> {
        self.proto(name).and_then(tensor::load)
    }

    /// Returns the elements of a constant as f32.
    pub(crate) fn floats(&self, name: &str) -> Option<Vec<f32>> {
        self.tensor(name).map(|tensor| tensor.to_f32())
    }
}

/// Collects the nodes and constants that replace one node.
pub(crate) struct Emit<'a> {
    /// The model-wide state.
    pub context: &'a mut Context,
    /// The constants visible to the node.
    pub scope: &'a Scope<'a>,
    base: String,
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
}

impl Emit<'_> {
    /// Adds a constant and returns its name.
    pub(crate) fn constant(&mut self, suffix: &str, value: &Tensor) -> String {
        let name = self.context.fresh(&format!("{}.{suffix}", self.base));
        self.initializers.push(tensor::store(&name, value));
        name
    }

    /// Adds a constant vector, or a scalar if it has one element, and returns its name.
    pub(crate) fn vector<T>(&mut self, suffix: &str, values: Vec<T>) -> String
    where
        Vec<T>: Into<Data>,
    {
        let shape = [values.len()];
        let tensor = Tensor::new(&shape, values).expect("as many elements as the shape says");
        let tensor = if shape[0] == 1 { tensor.reshape(&[]).expect("one element") } else { tensor };
        self.constant(suffix, &tensor)
    }

    /// Adds a constant i64 vector of rank 1 and returns its name.
    pub(crate) fn list(&mut self, suffix: &str, values: &[i64]) -> String {
        let tensor = Tensor::new(&[values.len()], values.to_vec());
        self.constant(suffix, &tensor.expect("as many elements as the shape says"))
    }

    /// Adds a node with one new output and returns the output's name.
    pub(crate) fn node(
        &mut self,
        operator: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) -> String {
        let suffix = operator.to_lowercase();
        let output = self.context.fresh(&format!("{}.{suffix}", self.base));
        self.last(operator, inputs, &output, attributes);
        output
    }

    /// Adds a node whose output has the given name, usually one of the replaced node.
    pub(crate) fn last(
        &mut self,
        operator: &str,
        inputs: &[&str],
        output: &str,
        attributes: Vec<AttributeProto>,
    ) {
        self.whole(NodeProto {
            op_type: operator.into(),
            input: inputs.iter().map(|input| (*input).into()).collect(),
            output: vec![output.into()],
            attribute: attributes,
            ..NodeProto::default()
        });
    }

    /// Adds a node. An empty name is replaced by that of the first output.
    pub(crate) fn whole(&mut self, mut node: NodeProto) {
        if node.name.is_empty() {
            let first = node.output.first().map_or("", String::as_str);
            let base = if first.is_empty() { self.base.clone() } else { first.to_owned() };
            node.name = base;
        }
        self.nodes.push(node);
    }

    /// Adds a Cast and returns its output.
    pub(crate) fn cast(&mut self, input: &str, dtype: DType) -> String {
        self.node("Cast", &[input], vec![int("to", tensor::number_of(dtype) as i64)])
    }

    /// Adds a reduction that keeps the reduced axes with size 1, and returns its output.
    pub(crate) fn reduce(&mut self, operator: &str, input: &str, axes: &[i64]) -> String {
        let changed = if operator == "ReduceSum" { 13 } else { 18 };
        if self.context.opset >= changed {
            let axes = self.list("axes", axes);
            self.node(operator, &[input, &axes], vec![])
        } else {
            self.node(operator, &[input], vec![ints("axes", axes)])
        }
    }
}

/// A rewrite of one node. It returns `true` after emitting a replacement, or `false` to keep the
/// node, which it may have modified.
pub(crate) type NodeRewrite = dyn Fn(&mut NodeProto, &mut Emit<'_>) -> Result<bool, ImportError>;

/// Applies a rewrite to each node of a graph and of its subgraphs, innermost first.
pub(crate) fn rewrite_nodes(
    graph: &mut GraphProto,
    context: &mut Context,
    rewrite: &NodeRewrite,
) -> Result<(), ImportError> {
    rewrite_in(graph, context, None, rewrite)
}

fn rewrite_in(
    graph: &mut GraphProto,
    context: &mut Context,
    around: Option<&Scope<'_>>,
    rewrite: &NodeRewrite,
) -> Result<(), ImportError> {
    let initializers = std::mem::take(&mut graph.initializer);
    let scope = Scope { here: initializers.iter().map(|t| (t.name.as_str(), t)).collect(), around };
    let mut added = Vec::new();
    for mut node in std::mem::take(&mut graph.node) {
        for attribute in &mut node.attribute {
            for inner in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                rewrite_in(inner, context, Some(&scope), rewrite)?;
            }
        }
        let base = crate::import::node::Node::label(&node).to_owned();
        let mut emit = Emit { context, scope: &scope, base, nodes: vec![], initializers: vec![] };
        if rewrite(&mut node, &mut emit)? {
            graph.node.append(&mut emit.nodes);
        } else {
            graph.node.push(node);
        }
        added.append(&mut emit.initializers);
        if graph.node.len() > MAX_REWRITTEN {
            let (count, limit) = (graph.node.len(), MAX_REWRITTEN);
            return Err(ImportError::TooMany {
                what: "nodes after rewriting".into(),
                count,
                limit,
            });
        }
    }
    drop(scope);
    graph.initializer = initializers;
    graph.initializer.append(&mut added);
    Ok(())
}
